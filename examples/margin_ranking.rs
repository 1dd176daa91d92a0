//! Margin ranking: which of two digits is the larger?
//!
//! `l = max(0, margin - y·(x1 - x2))`. One network gives each of the two images a score, from one linear unit; the target
//! says which score should be the higher, 1 for the first and -1 for the second. The network is never told a digit, only
//! comparisons, and learns to put images in order.
//!
//!     cargo run --example margin_ranking

use candle_core::{DType, Module, Tensor};
use candle_losses::OutputActivation;
use candle_losses::loss::{MarginRankingLoss, Reduction};
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Margin ranking: which of two digits is the larger?")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// The lead that is enough
    #[arg(long, value_name = "M", default_value_t = 1.0, help_heading = "Loss")]
    margin: f64,
}

/// The two columns.
fn halves(pairs: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    Ok((pairs.narrow(1, 0, 1)?.squeeze(1)?, pairs.narrow(1, 1, 1)?.squeeze(1)?))
}

pub fn example(Options { args, margin }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?.with_tuples(|sampler| [sampler.anchor(), sampler.other_class()])?;
    let session = session.with_targets(|digits| {
        let (first, second) = halves(digits)?;
        first.gt(&second)?.to_dtype(DType::F32)?.affine(2., -1.)
    })?;
    let model = session.mlp(&[64, 32, 1], OutputActivation::Linear)?;
    let loss = MarginRankingLoss { margin, reduction };

    session.fit(|images, order| {
        let (first, second) = halves(&model.forward(images)?.reshape(((), 2))?)?;
        loss.forward(&first, &second, order)
    })?;

    let report = session.report(&model)?;
    let (first, second) = halves(&report.output.reshape(((), 2))?)?;
    report.rate("accuracy", &first.gt(&second)?.eq(&report.target.gt(0.0)?)?)?;
    session.finish("--margin 0.5")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
