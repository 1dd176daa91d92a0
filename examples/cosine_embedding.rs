//! Cosine embedding: do two images show the same digit?
//!
//! `l = 1 - cos(x1, x2)` where they do (`y = 1`), else `max(0, cos(x1, x2) - margin)`. One network turns each image into a
//! vector of 16 linear units; only its direction counts. The target is 1 or -1. Two images are taken for the same digit when
//! the cosine is above 0.5, halfway between what the loss asks of the two kinds.
//!
//!     cargo run --example cosine_embedding

use candle_core::{D, DType, Module, Tensor};
use candle_losses::OutputActivation;
use candle_losses::loss::{CosineEmbeddingLoss, Reduction};
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Cosine embedding: do two images show the same digit?")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// The cosine up to which unlike images cost nothing
    #[arg(long, value_name = "M", default_value_t = 0.0, help_heading = "Loss")]
    margin: f64,
}

const WIDTH: usize = 16;

/// The vectors of the first images and of the second.
fn halves(pairs: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    let pairs = pairs.reshape(((), 2, WIDTH))?;
    Ok((pairs.get_on_dim(1, 0)?, pairs.get_on_dim(1, 1)?))
}

pub fn example(Options { args, margin }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?.with_tuples(|sampler| {
        let partner = if sampler.coin_flip() { sampler.same_class() } else { sampler.other_class() };
        [sampler.anchor(), partner]
    })?;
    let session = session.with_targets(|digits| {
        let same = digits.narrow(1, 0, 1)?.eq(&digits.narrow(1, 1, 1)?)?;
        same.squeeze(1)?.to_dtype(DType::F32)?.affine(2., -1.)
    })?;
    let model = session.mlp(&[64, 32, WIDTH], OutputActivation::Linear)?;
    let loss = CosineEmbeddingLoss { margin, reduction };

    session.fit(|images, same| {
        let (first, second) = halves(&model.forward(images)?)?;
        loss.forward(&first, &second, same)
    })?;

    let report = session.report(&model)?;
    let (first, second) = halves(&report.output)?;
    let length = |x: &Tensor| x.sqr()?.sum(D::Minus1)?.sqrt();
    let cosine = ((&first * &second)?.sum(D::Minus1)? / (length(&first)? * length(&second)?)?)?;
    report.rate("accuracy", &cosine.gt(0.5)?.eq(&report.target.gt(0.0)?)?)?;
    session.finish("--margin 0.3")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
