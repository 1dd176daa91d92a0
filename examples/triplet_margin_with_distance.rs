//! Triplet margin with a distance of your own: here one minus the cosine, so that only directions count.
//!
//! `l = max(0, d(anchor, positive) - d(anchor, negative) + margin)` with any differentiable `d`. As in `triplet_margin`, a
//! network turns each image into 16 linear units and a sample is three images; the margin is smaller, since this distance
//! is never above 2.
//!
//!     cargo run --example triplet_margin_with_distance

use candle_core::{D, Module, Tensor};
use candle_losses::OutputActivation;
use candle_losses::loss::{Reduction, TripletMarginWithDistanceLoss};
use std::sync::Arc;
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Triplet margin with a distance of your own: one minus the cosine")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// How much nearer the positive must be
    #[arg(long, value_name = "M", default_value_t = 0.5, help_heading = "Loss")]
    margin: f64,

    /// Let the negative be compared with the positive where that is nearer
    #[arg(long, help_heading = "Loss")]
    swap: bool,
}

/// Each vector at length 1.
fn unit(x: &Tensor) -> candle_core::Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?)
}

pub fn example(Options { args, margin, swap }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let images = args.start(ui)?;
    let triplets = images.with_tuples(|sampler| [sampler.anchor(), sampler.same_class(), sampler.other_class()])?;
    let model = triplets.mlp(&[64, 32, 16], OutputActivation::Linear)?;
    let distance_function = Arc::new(|u: &Tensor, v: &Tensor| 1.0 - (unit(u)? * unit(v)?)?.sum(D::Minus1)?);
    let loss = TripletMarginWithDistanceLoss { distance_function, margin, swap, reduction };

    triplets.fit(|images, _| {
        let points = model.forward(images)?.reshape(((), 3, 16))?;
        let [anchor, positive, negative] = [0, 1, 2].map(|member| points.get_on_dim(1, member));
        loss.forward(&anchor?, &positive?, &negative?)
    })?;

    images.report_nearest_neighbors(&model)?;
    images.finish("--margin 2")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
