//! A model of your own: a convolutional network of candle-nn on the digits, trained by this crate's loop, losses and Adam.
//!
//! `Parameters` hands out the variables, drawn by `--seed`; the session adds options, files and lines on the terminal.
//!
//!     cargo run --example own_model -- --lr 1e-3

use candle_core::{D, Module, Result, Tensor};
use candle_losses::loss::{CrossEntropyLoss, Reduction};
use candle_nn::{Conv2d, Linear, VarBuilder, conv2d, linear};
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "A model of your own: a convolutional network of candle-nn on the digits")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,
}

struct ConvNet {
    conv1: Conv2d,
    conv2: Conv2d,
    hidden: Linear,
    output: Linear,
}

impl ConvNet {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            conv1: conv2d(1, 16, 5, Default::default(), vb.pp("conv1"))?,
            conv2: conv2d(16, 32, 5, Default::default(), vb.pp("conv2"))?,
            hidden: linear(32 * 4 * 4, 64, vb.pp("hidden"))?,
            output: linear(64, 10, vb.pp("output"))?,
        })
    }
}

impl Module for ConvNet {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let x = images.reshape(((), 1, 28, 28))?;
        let x = self.conv1.forward(&x)?.max_pool2d(2)?.relu()?; // (N, 16, 12, 12)
        let x = self.conv2.forward(&x)?.max_pool2d(2)?.relu()?; // (N, 32, 4, 4)
        self.output.forward(&self.hidden.forward(&x.flatten_from(1)?)?.relu()?)
    }
}

pub fn example(Options { args }: Options, ui: &Ui) -> anyhow::Result<()> {
    let loss = CrossEntropyLoss { reduction: args.reduction(Reduction::Mean), ..Default::default() };
    let session = args.start(ui)?.expect_features(28 * 28)?;
    let model = ConvNet::new(session.var_builder())?;

    session.fit(|images, digits| loss.forward(&model.forward(images)?, digits))?;

    let report = session.report(&model)?;
    report.rate("accuracy", &report.output.argmax(D::Minus1)?.eq(&report.target)?)?;
    session.finish("--lr 1e-3 --clip-norm 1")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
