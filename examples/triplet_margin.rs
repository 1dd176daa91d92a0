//! Triplet margin: put images of one digit near each other, and others away.
//!
//! `l = max(0, d(anchor, positive) - d(anchor, negative) + margin)`. One network turns each image into a point of 16 linear
//! units. There is no target: a sample is three images, an anchor, one of the same digit and one of another. Whether the
//! points are any good shows when a new image is given the digit of its nearest neighbour.
//!
//!     cargo run --example triplet_margin

use candle_core::Module;
use candle_losses::OutputActivation;
use candle_losses::loss::{Reduction, TripletMarginLoss};
use suite::{Args, Digits, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Triplet margin: put images of one digit near each other, and others away")]
pub struct Options {
    #[command(flatten)]
    args: Args<Digits>,

    /// How much nearer the positive must be
    #[arg(long, value_name = "M", default_value_t = 1.0, help_heading = "Loss")]
    margin: f64,

    /// The norm of the distance
    #[arg(long, value_name = "P", default_value_t = 2.0, help_heading = "Loss")]
    p: f64,

    /// Added to each difference of coordinates
    #[arg(long, value_name = "E", default_value_t = 1e-6, help_heading = "Loss")]
    eps: f64,

    /// Let the negative be compared with the positive where that is nearer
    #[arg(long, help_heading = "Loss")]
    swap: bool,
}

pub fn example(Options { args, margin, p, eps, swap }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let images = args.start(ui)?;
    let triplets = images.with_tuples(|sampler| [sampler.anchor(), sampler.same_class(), sampler.other_class()])?;
    let model = triplets.mlp(&[64, 32, 16], OutputActivation::Linear)?;
    let loss = TripletMarginLoss { margin, p, eps, swap, reduction };

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
