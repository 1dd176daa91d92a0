//! Multi-label margin: which tags does a digit have, by the order of their scores?
//!
//! `l = Σ_{j∈Y} Σ_{k∉Y} max(0, 1 - (x_j - x_k)) / C`: each tag that holds should lead each that does not by 1. The last layer
//! is ten linear units. The target is the list of the tags, ended by -1, in a row as long as there are tags: [3, 7, -1, …].
//!
//!     cargo run --example multilabel_margin

use candle_core::{D, Module, Tensor};
use candle_losses::loss::{MultiLabelMarginLoss, Reduction};
use candle_losses::{Activation, Args, data::Digits, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(clap::Parser)]
#[command(about = "Multi-label margin: which tags does a digit have, by the order of their scores?")]
struct Options {
    #[command(flatten)]
    args: Args<Digits>,
}

/// The tags of the digits 0 to 4, 5 to 7, and 8 and 9.
const LOW: [i64; 10] = [3, 7, -1, -1, -1, -1, -1, -1, -1, -1];
const MIDDLE: [i64; 10] = [0, 3, 7, -1, -1, -1, -1, -1, -1, -1];
const HIGH: [i64; 10] = [4, 7, 8, -1, -1, -1, -1, -1, -1, -1];
const LISTS: [[i64; 10]; 10] = [LOW, LOW, LOW, LOW, LOW, MIDDLE, MIDDLE, MIDDLE, HIGH, HIGH];

fn main() -> std::process::ExitCode {
    run(|Options { args }| {
        let reduction = args.reduction(Reduction::Mean);
        let session = args.start()?;
        let lists = Tensor::new(&LISTS, session.device())?;
        let session = session.with_targets(|digit| lists.index_select(digit, 0))?;
        let model = session.mlp(&[64, 32, 10], Activation::Linear)?;
        let loss = MultiLabelMarginLoss { reduction };

        session.fit(&model, |images, lists| loss.forward(&model.forward(images)?, lists))?;

        // A sample is right if its loss would be 0 without a margin: no other tag scores above one of its own.
        let report = session.report(&model)?;
        let ranks = report.output.arg_sort_last_dim(false)?.arg_sort_last_dim(true)?;
        let listed = report.target.ge(0i64)?;
        let count = listed.to_dtype(candle_core::DType::U32)?.sum_keepdim(1)?;
        let tags = listed.where_cond(&report.target, &report.target.zeros_like()?)?;
        let among_first = ranks.gather(&tags.contiguous()?, 1)?.broadcast_lt(&count)?;
        report.share("exact-match accuracy", &listed.where_cond(&among_first, &listed.ones_like()?)?.min(D::Minus1)?)
    })
}
