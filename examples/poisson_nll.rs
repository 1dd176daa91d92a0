//! Poisson negative log-likelihood: the digit, read as a count.
//!
//! `l = e^x - y·x`. The last layer is one linear unit, the logarithm of the rate, so that every rate is positive; the target
//! is the count, as a column like the model's output. The tutorial's section can't be taken over as printed: ten outputs
//! per sample against a vector of ten labels broadcast to 10×10, by accident of the batch size.
//!
//!     cargo run --example poisson_nll

use candle_core::{DType, Module};
use candle_losses::OutputActivation;
use candle_losses::loss::{PoissonNllLoss, Reduction};
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Poisson negative log-likelihood: the digit as a count")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// Add Stirling's approximation of log y!
    #[arg(long, help_heading = "Loss")]
    full: bool,

    /// Keeps the logarithm finite, where the input is the rate itself
    #[arg(long, value_name = "E", default_value_t = 1e-8, help_heading = "Loss")]
    eps: f64,
}

pub fn example(Options { args, full, eps }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?.with_targets(|digit| digit.to_dtype(DType::F32)?.unsqueeze(1))?;
    let model = session.mlp(&[64, 32, 1], OutputActivation::Linear)?;
    let loss = PoissonNllLoss { log_input: true, full, eps, reduction };

    session.fit(|images, counts| loss.forward(&model.forward(images)?, counts))?;

    let report = session.report(&model)?;
    let rates = report.output.exp()?;
    report.mae(&rates)?;
    session.show_digits(&rates, &report.target)?;
    session.finish("--full")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
