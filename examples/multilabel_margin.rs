//! Multi-label margin: which tags does a digit have, by the order of their scores?
//!
//! `l = Σ_{j∈Y} Σ_{k∉Y} max(0, 1 - (x_j - x_k)) / C`: each tag that holds should lead each that does not by 1. The last layer
//! is ten linear units. The target is the list of the tags, ended by -1, in a row as long as there are tags: [3, 7, -1, …].
//!
//!     cargo run --example multilabel_margin

use candle_core::{Module, Tensor};
use candle_losses::OutputActivation;
use candle_losses::loss::{MultiLabelMarginLoss, Reduction};
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Multi-label margin: which tags does a digit have, by the order of their scores?")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,
}

/// The tags of the digits 0 to 4, 5 to 7, and 8 and 9.
const LOW: [i64; 10] = [3, 7, -1, -1, -1, -1, -1, -1, -1, -1];
const MIDDLE: [i64; 10] = [0, 3, 7, -1, -1, -1, -1, -1, -1, -1];
const HIGH: [i64; 10] = [4, 7, 8, -1, -1, -1, -1, -1, -1, -1];
const LISTS: [[i64; 10]; 10] = [LOW, LOW, LOW, LOW, LOW, MIDDLE, MIDDLE, MIDDLE, HIGH, HIGH];

pub fn example(Options { args }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?;
    let lists = Tensor::new(&LISTS, session.device())?;
    let session = session.with_targets(|digit| lists.index_select(digit, 0))?;
    let model = session.mlp(&[64, 32, 10], OutputActivation::Linear)?;
    let loss = MultiLabelMarginLoss { reduction };

    session.fit(|images, lists| loss.forward(&model.forward(images)?, lists))?;

    // A sample is right if the tags with the highest scores, as many as it has, are its own.
    let report = session.report(&model)?;
    let ranked = report.output.arg_sort_last_dim(false)?.to_vec2::<u32>()?;
    let right = ranked.iter().zip(report.target.to_vec2::<i64>()?).map(|(ranked, list)| {
        let tags = list.into_iter().take_while(|tag| *tag >= 0).map(|tag| tag as u32).collect::<Vec<_>>();
        let mut first = ranked[..tags.len()].to_vec();
        first.sort_unstable();
        u8::from(first == tags)
    });
    report.rate("exact-match accuracy", &Tensor::from_iter(right, session.device())?)?;
    session.finish("--epochs 10")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
