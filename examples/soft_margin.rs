//! Soft margin: which of two sides is this on?
//!
//! `l = log(1 + e^(-y·x))`. The last layer is one tanh, the target is 1 or -1, as a column like the model's output. The
//! tanh keeps the score in [-1, 1], so the loss can't fall below log(1 + 1/e) = 0.313.
//!
//! The tutorial's images are noise and nothing else, which can't be learned; here a pattern lies under it (`--signal`). Its
//! running loss is divided by 500 though it is printed every 10 batches; here it is the mean.
//!
//!     cargo run --example soft_margin

use candle_core::{DType, Module};
use candle_losses::OutputActivation;
use candle_losses::loss::{Reduction, SoftMarginLoss};
use suite::{Args, FakeImages, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Soft margin: which of two sides is this on?")]
pub struct Options {
    #[command(flatten)]
    args: Args<FakeImages>,
}

pub fn example(Options { args }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?.with_targets(|class| class.to_dtype(DType::F32)?.affine(2., -1.)?.unsqueeze(1))?;
    let model = session.mlp(&[64, 32, 1], OutputActivation::Tanh)?;
    let loss = SoftMarginLoss { reduction };

    session.fit(|images, side| loss.forward(&model.forward(images)?, side))?;

    let report = session.report(&model)?;
    let says_one = report.output.gt(0.0)?;
    report.rate("accuracy", &says_one.eq(&report.target.gt(0.0)?)?)?;
    session.finish("--signal 0.01")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
