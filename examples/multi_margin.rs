//! Multi-margin: which of ten digits is this, and by what lead?
//!
//! `l = Σ_{j≠y} max(0, margin - x_y + x_j)^p / C`. The right class must lead every other by `margin`; more is not rewarded.
//! The last layer is the tutorial's log-softmax (any scores would do), the target is the class itself.
//!
//!     cargo run --example multi_margin

use candle_core::Module;
use candle_losses::OutputActivation;
use candle_losses::loss::{MultiMarginLoss, Reduction};
use suite::{Args, Digits, Ui, class_weights, run};

#[derive(clap::Parser)]
#[command(about = "Multi-margin: which of ten digits is this, and by what lead?")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// The power of a violation, 1 or 2
    #[arg(long, value_name = "P", default_value_t = 1, help_heading = "Loss")]
    p: u32,

    /// The lead that is enough
    #[arg(long, value_name = "M", default_value_t = 1.0, help_heading = "Loss")]
    margin: f64,

    /// A weight for each of the ten classes
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', help_heading = "Loss")]
    weight: Vec<f32>,
}

pub fn example(Options { args, p, margin, weight }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?;
    let model = session.mlp(&[64, 32, 10], OutputActivation::LogSoftmax)?;
    let weight = class_weights(&weight, session.device())?;
    let loss = MultiMarginLoss { p, margin, weight, reduction };

    session.fit(|images, digits| loss.forward(&model.forward(images)?, digits))?;

    let report = session.report(&model)?;
    let choices = report.output.argmax(1)?;
    report.rate("accuracy", &choices.eq(&report.target)?)?;
    session.show_digits(&choices, &report.target)?;
    session.finish("--p 2")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
