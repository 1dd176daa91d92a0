//! Multi-label soft margin: which of ten tags hold?
//!
//! `l = -Σ_c (y_c · log σ(x_c) + (1 - y_c) · log(1 - σ(x_c))) / C`: a yes or no for each tag, any number of which may hold.
//! The last layer is ten linear units, above 0 for yes; the target is ten zeros and ones. Each digit has tags by the group
//! that it is in, so a sample is wholly right only if all ten are.
//!
//!     cargo run --example multilabel_soft_margin

use candle_core::{DType, Module, Tensor};
use candle_losses::OutputActivation;
use candle_losses::loss::{MultiLabelSoftMarginLoss, Reduction};
use suite::{Args, Digits, Ui, class_weights, run};

#[derive(clap::Parser)]
#[command(about = "Multi-label soft margin: which of ten tags hold?")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// A weight for each of the ten tags
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', help_heading = "Loss")]
    weight: Vec<f32>,
}

/// The tags of the digits 0 to 4, 5 to 7, and 8 and 9.
const LOW: [f32; 10] = [0., 0., 0., 1., 0., 0., 0., 1., 0., 0.];
const MIDDLE: [f32; 10] = [1., 0., 0., 1., 0., 0., 0., 1., 0., 0.];
const HIGH: [f32; 10] = [0., 0., 0., 0., 1., 0., 0., 1., 1., 0.];
const TAGS: [[f32; 10]; 10] = [LOW, LOW, LOW, LOW, LOW, MIDDLE, MIDDLE, MIDDLE, HIGH, HIGH];

pub fn example(Options { args, weight }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?;
    let tags = Tensor::new(&TAGS, session.device())?;
    let session = session.with_targets(|digit| tags.index_select(digit, 0))?;
    let model = session.mlp(&[64, 32, 10], OutputActivation::Linear)?;
    let weight = class_weights(&weight, session.device())?;
    let loss = MultiLabelSoftMarginLoss { weight, reduction };

    session.fit(|images, tags| loss.forward(&model.forward(images)?, tags))?;

    let report = session.report(&model)?;
    let tags = report.output.gt(0.0)?.to_dtype(DType::F32)?;
    let right = tags.eq(&report.target)?;
    report.rate("tag accuracy", &right)?;
    report.rate("exact-match accuracy", &right.min(1)?)?;
    session.show_digits(&tags, &report.target)?;
    session.finish("--epochs 10")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
