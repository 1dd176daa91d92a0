//! Binary cross-entropy on logits: which of two classes is this?
//!
//! `l = -(p·y · log σ(x) + (1 - y) · log(1 - σ(x)))`, with the sigmoid `σ` inside the loss, where it can't round to 0 or 1.
//! The last layer is one linear unit, above 0 for class 1; the target is 0 or 1, as a column like the model's output.
//!
//! The tutorial's images are noise and nothing else, which can't be learned; here a pattern lies under it (`--signal`). Its
//! running loss is divided by 500 though it is printed every 10 batches; here it is the mean.
//!
//!     cargo run --example bce_with_logits

use candle_core::{DType, Module};
use candle_losses::OutputActivation;
use candle_losses::loss::{BceWithLogitsLoss, Reduction};
use suite::{Args, FakeImages, Ui, class_weights, run};

#[derive(clap::Parser)]
#[command(about = "Binary cross-entropy on logits: which of two classes is this?")]
pub struct Options {
    #[command(flatten)]
    args: Args<FakeImages>,

    /// How much class 1 counts beside class 0
    #[arg(long, value_name = "P", help_heading = "Loss")]
    pos_weight: Option<f32>,
}

pub fn example(Options { args, pos_weight }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?.with_targets(|class| class.to_dtype(DType::F32)?.unsqueeze(1))?;
    let model = session.mlp(&[64, 32, 1], OutputActivation::Linear)?;
    let pos_weight = class_weights(pos_weight.as_slice(), session.device())?;
    let loss = BceWithLogitsLoss { weight: None, pos_weight, reduction };

    session.fit(|images, class| loss.forward(&model.forward(images)?, class))?;

    let report = session.report(&model)?;
    let says_one = report.output.gt(0.0)?.to_dtype(DType::F32)?;
    report.rate("accuracy", &says_one.eq(&report.target)?)?;
    session.finish("--signal 0")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
