//! Cross-entropy: which of ten digits is this?
//!
//! `l = -log softmax(x)_y`, the usual loss for choosing one class. The last layer is linear: the softmax is part of the
//! loss, where it can't overflow. The target is the class itself.
//!
//!     cargo run --example cross_entropy

use candle_core::Module;
use candle_losses::OutputActivation;
use candle_losses::loss::{CrossEntropyLoss, Reduction};
use suite::{Args, Digits, Ui, class_weights, run};

#[derive(clap::Parser)]
#[command(about = "Cross-entropy on logits: which of ten digits is this?")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// Share of the target spread evenly over all classes, against overconfidence
    #[arg(long, value_name = "S", default_value_t = 0.0, help_heading = "Loss")]
    label_smoothing: f64,

    /// A weight for each of the ten classes
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', help_heading = "Loss")]
    weight: Vec<f32>,

    /// A class that costs nothing
    #[arg(long, value_name = "CLASS", default_value_t = -100, help_heading = "Loss")]
    ignore_index: i64,
}

pub fn example(Options { args, label_smoothing, weight, ignore_index }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?;
    let model = session.mlp(&[64, 32, 10], OutputActivation::Linear)?;
    let weight = class_weights(&weight, session.device())?;
    let loss = CrossEntropyLoss { weight, ignore_index, label_smoothing, reduction };

    session.fit(|images, digits| loss.forward(&model.forward(images)?, digits))?;

    let report = session.report(&model)?;
    let choices = report.output.argmax(1)?;
    report.rate("accuracy", &choices.eq(&report.target)?)?;
    session.show_digits(&choices, &report.target)?;
    session.finish("--label-smoothing 0.1 --plot curve.svg")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
