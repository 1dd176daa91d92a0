//! CTC: read a strip of 3 to 5 digits without being told where each one is.
//!
//! `l = -log Σ_π Π_t p_t(π_t)`, over all paths `π` that become the target when repeats are merged and blanks dropped. The same
//! network looks at the strip through a window that moves a quarter of a digit at each step; its last layer is a log-softmax
//! over the ten digits and the blank. The target is the digits, padded, with how many steps and digits count.
//!
//!     cargo run --example ctc

use candle_core::{D, DType, Module, Tensor};
use candle_losses::loss::{CtcLoss, Reduction};
use candle_losses::{Mlp, OutputActivation};
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "CTC: read a strip of 3 to 5 digits without being told where each one is")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// Let targets that are too long for their strip cost nothing instead of infinity
    #[arg(long, help_heading = "Loss")]
    zero_infinity: bool,
}

const SIDE: usize = 28;
const MOST: usize = 5;
const STEPS_PER_DIGIT: usize = 4;

/// From the images of strips, five by five, to the log-probabilities at each step, (strips, steps, 11).
struct Reader(Mlp);

impl Module for Reader {
    fn forward(&self, images: &Tensor) -> candle_core::Result<Tensor> {
        // Column by column, so that the numbers of a window follow each other.
        let strips = images.reshape(((), MOST, SIDE, SIDE))?.t()?.reshape(((), MOST * SIDE * SIDE))?;
        let window = |step| strips.narrow(1, step * SIDE / STEPS_PER_DIGIT * SIDE, SIDE * SIDE);
        let steps = (MOST - 1) * STEPS_PER_DIGIT + 1;
        let windows = Tensor::cat(&(0..steps).map(window).collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        self.0.forward(&windows)?.reshape((steps, (), 11))?.transpose(0, 1)
    }
}

pub fn example(Options { args, zero_infinity }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args
        .start(ui)?
        .expect_features(SIDE * SIDE)?
        .with_tuples(|sampler| [sampler.anchor(), sampler.any(), sampler.any(), sampler.any(), sampler.any()])?;
    // Class 0 is the blank and digit d is class d + 1; the last column says how many count: 3, 4, 5, 3, ….
    let session = session.with_targets(|digits| {
        let counts = (0..digits.dim(0)? as u32).map(|strip| 3 + strip % 3).collect::<Vec<_>>();
        Tensor::cat(&[(digits + 1.)?, Tensor::new(counts, digits.device())?.unsqueeze(1)?], 1)
    })?;
    let reader = Reader(session.mlp(&[64, 32, 11], OutputActivation::LogSoftmax)?);
    let loss = CtcLoss { blank: 0, zero_infinity, reduction };

    session.fit(|images, target| {
        let (labels, counts) = (target.narrow(1, 0, MOST)?, target.get_on_dim(1, MOST)?);
        let steps = counts.to_dtype(DType::I64)?.affine(STEPS_PER_DIGIT as f64, 1. - STEPS_PER_DIGIT as f64)?;
        loss.forward(&reader.forward(images)?.transpose(0, 1)?, &labels, &steps, &counts)
    })?;

    let report = session.report(&reader)?;
    let (best, target) = (report.output.argmax(D::Minus1)?.to_vec2::<u32>()?, report.target.to_vec2::<u32>()?);
    let right = best.iter().zip(&target).map(|(best, target)| {
        let count = target[MOST] as usize;
        let mut read = best[..count * STEPS_PER_DIGIT + 1 - STEPS_PER_DIGIT].to_vec();
        read.dedup();
        read.retain(|class| *class != 0);
        u8::from(read == target[..count])
    });
    report.rate("exact-sequence accuracy", &Tensor::from_iter(right, session.device())?)?;
    session.finish("--epochs 10")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
