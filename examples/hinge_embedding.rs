//! Hinge embedding: draw one class in, push the other out.
//!
//! `l = x` where `y = 1`, else `max(0, margin - x)`. The loss is made for distances: what belongs together gets a small one,
//! what does not one of at least `margin`. Here the tutorial's single tanh stands in for the distance; the target is 1 or
//! -1, as a column like the model's output, and class 1 is the one with the *low* outputs.
//!
//! The tutorial's images are noise and nothing else, which can't be learned; here a pattern lies under it (`--signal`). Its
//! running loss is divided by 500 though it is printed every 10 batches; here it is the mean.
//!
//!     cargo run --example hinge_embedding

use candle_core::{DType, Module};
use candle_losses::OutputActivation;
use candle_losses::loss::{HingeEmbeddingLoss, Reduction};
use suite::{Args, FakeImages, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Hinge embedding: draw one class in, push the other out")]
pub struct Options {
    #[command(flatten)]
    args: Args<FakeImages>,

    /// The distance that unlike things must reach
    #[arg(long, value_name = "M", default_value_t = 1.0, help_heading = "Loss")]
    margin: f64,
}

pub fn example(Options { args, margin }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?.with_targets(|class| class.to_dtype(DType::F32)?.affine(2., -1.)?.unsqueeze(1))?;
    let model = session.mlp(&[64, 32, 1], OutputActivation::Tanh)?;
    let loss = HingeEmbeddingLoss { margin, reduction };

    session.fit(|images, side| loss.forward(&model.forward(images)?, side))?;

    let report = session.report(&model)?;
    let near = report.output.lt(0.0)?;
    report.rate("accuracy", &near.eq(&report.target.gt(0.0)?)?)?;
    session.finish("--margin 2")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
