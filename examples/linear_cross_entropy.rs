//! Linear cross-entropy: which character comes next?
//!
//! `l = cross_entropy(W·x + b, y)`: the last layer is part of the loss, which never holds all of its outputs. Here they are
//! some sixty and would fit; with a vocabulary of 100,000 they are most of what a training holds. The target is the class.
//!
//! The model sees 16 characters of the Constitution of the United States, each as 16 numbers that it learns as well.
//!
//!     cargo run --example linear_cross_entropy

use candle_core::{Module, Result, Tensor};
use candle_losses::data::{Piece, constitution};
use candle_losses::loss::{LinearCrossEntropyLoss, Reduction};
use candle_nn::{Embedding, Linear, VarBuilder, embedding, linear};
use suite::{Options, Preset, Session, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Linear cross-entropy: which character comes next?")]
pub struct Arguments {
    #[command(flatten)]
    options: Options,

    /// Share of the target spread evenly over all classes, against overconfidence
    #[arg(long, value_name = "S", default_value_t = 0.0, help_heading = "Loss")]
    label_smoothing: f64,

    /// TensorDataset that the loss works on at a time [default: as many as make 4 million outputs]
    #[arg(long, value_name = "N", help_heading = "Loss")]
    chunk: Option<usize>,
}

const CONTEXT: usize = 16;

struct Reader {
    characters: Embedding,
    hidden: Linear,
    output: Linear,
}

impl Reader {
    fn new(classes: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            characters: embedding(classes, 16, vb.pp("characters"))?,
            hidden: linear(16 * CONTEXT, 128, vb.pp("hidden"))?,
            output: linear(128, classes, vb.pp("output"))?,
        })
    }

    /// What the last layer is given.
    fn features(&self, text: &Tensor) -> Result<Tensor> {
        self.hidden.forward(&self.characters.forward(text)?.flatten_from(1)?)?.relu()
    }
}

impl Module for Reader {
    fn forward(&self, text: &Tensor) -> Result<Tensor> {
        self.output.forward(&self.features(text)?)
    }
}

pub fn example(Arguments { options, label_smoothing, chunk }: Arguments, ui: &Ui) -> anyhow::Result<()> {
    let (reduction, device) = (options.reduction(Reduction::Mean), options.device(ui)?);
    let (data, characters) = constitution(Piece::Character, CONTEXT, &device)?;
    let session = Session::new(options, Preset::Text, data, device, ui)?;
    let model = Reader::new(characters.len(), session.var_builder())?;
    let loss = LinearCrossEntropyLoss { label_smoothing, chunk, reduction, ..Default::default() };

    session.fit(|text, next| loss.forward(&model.features(text)?, model.output.weight(), model.output.bias(), next))?;

    let report = session.report(&model)?;
    report.rate("accuracy", &report.output.argmax(1)?.eq(&report.target)?)?;
    session.finish("--epochs 20")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
