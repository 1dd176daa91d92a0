//! Kullback-Leibler divergence: learn a whole distribution over ten digits.
//!
//! `l = Σ_c y_c · (log y_c - x_c)`, averaged over the batch. The last layer is a log-softmax, the target a distribution: 0.9
//! on the digit, plus a tenth spread over all ten. The tutorial's section can't be taken over as printed: it gives class numbers as
//! the target, which compares a probability with a label.
//!
//!     cargo run --example kl_div

use candle_core::{DType, Module, Tensor};
use candle_losses::OutputActivation;
use candle_losses::loss::{KlDivLoss, Reduction};
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Kullback-Leibler divergence: learn a whole distribution over ten digits")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// Give the target as log-probabilities, too
    #[arg(long, help_heading = "Loss")]
    log_target: bool,
}

pub fn example(Options { args, log_target }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::BatchMean);
    let session = args.start(ui)?;
    let smoothed = Tensor::eye(10, DType::F32, session.device())?.affine(0.9, 0.01)?;
    let smoothed = if log_target { smoothed.log()? } else { smoothed };
    let session = session.with_targets(|digit| smoothed.index_select(digit, 0))?;
    let model = session.mlp(&[64, 32, 10], OutputActivation::LogSoftmax)?;
    let loss = KlDivLoss { log_target, reduction };

    session.fit(|images, distribution| loss.forward(&model.forward(images)?, distribution))?;

    let report = session.report(&model)?;
    let (choices, digits) = (report.output.argmax(1)?, report.target.argmax(1)?);
    report.rate("accuracy", &choices.eq(&digits)?)?;
    session.show_digits(&choices, &digits)?;
    session.finish("--reduction mean")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
