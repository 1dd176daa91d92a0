//! Binary cross-entropy on probabilities: which of two classes is this?
//!
//! `l = -(y · log x + (1 - y) · log(1 - x))`. The last layer is one sigmoid, so the input is the probability of class 1; the
//! target is 0 or 1, as a column like the model's output. `bce_with_logits` is the same without the sigmoid, and steadier.
//!
//! The tutorial's images are noise and nothing else, which can't be learned; here a pattern lies under it (`--signal`). Its
//! running loss is divided by 500 though it is printed every 10 batches; here it is the mean.
//!
//!     cargo run --example bce

use candle_core::{DType, Module};
use candle_losses::OutputActivation;
use candle_losses::loss::{BceLoss, Reduction};
use suite::{Args, FakeImages, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Binary cross-entropy on probabilities: which of two classes is this?")]
pub struct Options {
    #[command(flatten)]
    args: Args<FakeImages>,
}

pub fn example(Options { args }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?.with_targets(|class| class.to_dtype(DType::F32)?.unsqueeze(1))?;
    let model = session.mlp(&[64, 32, 1], OutputActivation::Sigmoid)?;
    let loss = BceLoss { weight: None, reduction };

    session.fit(|images, class| loss.forward(&model.forward(images)?, class))?;

    let report = session.report(&model)?;
    let says_one = report.output.gt(0.5)?.to_dtype(DType::F32)?;
    report.rate("accuracy", &says_one.eq(&report.target)?)?;
    session.finish("--signal 0.01")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
