//! Negative log-likelihood: which of ten digits is this?
//!
//! `l = -x_y`. The last layer is a log-softmax, so the input is log-probabilities; the target is the class itself. The
//! logarithms are natural: a right class that was given probability 0.1, 0.5, 0.9 costs 2.303, 0.693, 0.105. (The tutorial's
//! worked figures, 1.0, 0.301, 0.046, use base 10.) `cross_entropy` is the same in one step, from logits.
//!
//!     cargo run --example nll

use candle_core::Module;
use candle_losses::OutputActivation;
use candle_losses::loss::{NllLoss, Reduction};
use suite::{Args, Digits, Ui, class_weights, run};

#[derive(clap::Parser)]
#[command(about = "Negative log-likelihood on log-probabilities: which of ten digits is this?")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// A weight for each of the ten classes
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', help_heading = "Loss")]
    weight: Vec<f32>,

    /// A class that costs nothing
    #[arg(long, value_name = "CLASS", default_value_t = -100, help_heading = "Loss")]
    ignore_index: i64,
}

pub fn example(Options { args, weight, ignore_index }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?;
    let model = session.mlp(&[64, 32, 10], OutputActivation::LogSoftmax)?;
    let weight = class_weights(&weight, session.device())?;
    let loss = NllLoss { weight, ignore_index, reduction };

    session.fit(|images, digits| loss.forward(&model.forward(images)?, digits))?;

    let report = session.report(&model)?;
    let choices = report.output.argmax(1)?;
    report.rate("accuracy", &choices.eq(&report.target)?)?;
    session.show_digits(&choices, &report.target)?;
    session.finish("--dataset fashion-mnist")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
