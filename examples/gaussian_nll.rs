//! Gaussian negative log-likelihood: the digit, read as a number, and how sure the model is.
//!
//! `l = (log v + (x - y)²/v) / 2`. The last layer has two linear units, the mean `x` and the logarithm of the variance `v`,
//! which the exponential makes positive; the target is the number, as a column. The tutorial's section can't be taken over
//! as printed: the loss needs a variance as its third argument, and gets none there.
//!
//!     cargo run --example gaussian_nll

use candle_core::{DType, Module};
use candle_losses::OutputActivation;
use candle_losses::loss::{GaussianNllLoss, Reduction};
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Gaussian negative log-likelihood: the digit as a number, and how sure the model is")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// Add the constant log(2π) / 2
    #[arg(long, help_heading = "Loss")]
    full: bool,

    /// The least variance
    #[arg(long, value_name = "E", default_value_t = 1e-6, help_heading = "Loss")]
    eps: f64,
}

pub fn example(Options { args, full, eps }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?.with_targets(|digit| digit.to_dtype(DType::F32)?.unsqueeze(1))?;
    let model = session.mlp(&[64, 32, 2], OutputActivation::Linear)?;
    let loss = GaussianNllLoss { full, eps, reduction };

    session.fit(|images, numbers| {
        let output = model.forward(images)?;
        loss.forward(&output.narrow(1, 0, 1)?, numbers, &output.narrow(1, 1, 1)?.exp()?)
    })?;

    let report = session.report(&model)?;
    let (mean, log_variance) = (report.output.narrow(1, 0, 1)?, report.output.narrow(1, 1, 1)?);
    report.mae(&mean)?;
    let deviation = (log_variance / 2.)?.exp()?;
    report.rate("within ±2σ", &(&mean - &report.target)?.abs()?.le(&(deviation * 2.)?)?)?;
    session.show_digits(&mean, &report.target)?;
    session.finish("--epochs 10")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
