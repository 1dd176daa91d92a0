//! Adaptive log-softmax: which word comes next, of very many that are hardly ever used?
//!
//! `l = -log p(y)`, where a head decides between the frequent words and clusters of rarer ones, and only the samples whose
//! word is in a cluster look into it, through fewer dimensions. The last layer is part of the loss: its weights are the
//! model's, in the shapes that PyTorch gives them. The target is the word, numbered by how frequent it is.
//!
//! The model sees 4 words of the Constitution of the United States, whose vocabulary has a thousand, half of them used once.
//!
//!     cargo run --example adaptive_log_softmax

use anyhow::ensure;
use candle_core::{Module, Result, Tensor};
use candle_losses::data::{Piece, constitution};
use candle_losses::loss::{AdaptiveLogSoftmaxWithLoss, Reduction};
use candle_nn::{Embedding, Init, Linear, VarBuilder, embedding, linear};
use suite::{Options, Preset, Session, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Adaptive log-softmax: which word comes next, of very many that are hardly ever used?")]
pub struct Arguments {
    #[command(flatten)]
    options: Options,

    /// Where each cluster of rarer words begins
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "50,250", help_heading = "Loss")]
    cutoffs: Vec<usize>,
}

const CONTEXT: usize = 4;
const WIDTH: usize = 64;

struct Reader {
    words: Embedding,
    hidden: Linear,
    loss: AdaptiveLogSoftmaxWithLoss,
}

impl Reader {
    fn new(classes: usize, cutoffs: Vec<usize>, vb: VarBuilder) -> Result<Self> {
        let weight = |outputs: usize, inputs: usize, name: String| {
            let bound = 1.0 / (inputs as f64).sqrt();
            vb.get_with_hints((outputs, inputs), &name, Init::Uniform { lo: -bound, up: bound })
        };
        let ends = cutoffs.iter().copied().skip(1).chain([classes]);
        let tails = cutoffs.iter().zip(ends).enumerate().map(|(i, (start, end))| {
            // The rarer the words, the fewer dimensions.
            let width = WIDTH.checked_shr(2 * (i as u32 + 1)).unwrap_or(0).max(1);
            let projection = weight(width, WIDTH, format!("tail.{i}.0.weight"))?;
            Ok((projection, weight(end.saturating_sub(*start), width, format!("tail.{i}.1.weight"))?))
        });
        let tails = tails.collect::<Result<Vec<_>>>()?;
        let frequent = cutoffs.first().copied().unwrap_or(0);
        let head = weight(frequent + tails.len(), WIDTH, "head.weight".into())?;
        Ok(Self {
            words: embedding(classes, 16, vb.pp("words"))?,
            hidden: linear(16 * CONTEXT, WIDTH, vb.pp("hidden"))?,
            loss: AdaptiveLogSoftmaxWithLoss { cutoffs, head, head_bias: None, tails },
        })
    }
}

impl Module for Reader {
    fn forward(&self, text: &Tensor) -> Result<Tensor> {
        self.hidden.forward(&self.words.forward(text)?.flatten_from(1)?)?.relu()
    }
}

pub fn example(Arguments { options, cutoffs }: Arguments, ui: &Ui) -> anyhow::Result<()> {
    let (reduction, device) = (options.reduction(Reduction::Mean), options.device(ui)?);
    let (data, words) = constitution(Piece::Word, CONTEXT, &device)?;
    let most = words.len() - 1;
    ensure!(
        cutoffs.iter().all(|&cutoff| cutoff <= most),
        "--cutoffs goes up to {most}, as there are {} words",
        most + 1
    );
    let session = Session::new(options, Preset::Text, data, device, ui)?;
    let model = Reader::new(words.len(), cutoffs, session.var_builder())?;

    session.fit(|text, next| {
        let (log_p, loss) = model.loss.forward(&model.forward(text)?, next)?;
        if reduction == Reduction::Sum { log_p.sum_all()?.neg() } else { Ok(loss) }
    })?;

    let report = session.report(&model)?;
    let choices = model.loss.predict(&report.output)?;
    report.rate("accuracy", &choices.eq(&report.target)?)?;
    session.finish("--epochs 10 --cutoffs 20,100,400")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
