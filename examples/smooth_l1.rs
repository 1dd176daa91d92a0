//! Smooth L1: absolute error that settles near the target.
//!
//! `l = d² / (2·beta)` where `|d| < beta`, else `|d| - beta/2`, for the error `d = x - y`. The last layer is linear, the
//! target is the price, in 1,000 dollars; `beta` is in that unit too.
//!
//! Boston housing left scikit-learn in version 1.2: its column B is made from the share of Black residents, on the
//! assumption that segregation raises prices (see assets/README.md). It is kept here to compare losses on, nothing else.
//!
//!     cargo run --example smooth_l1

use candle_core::Module;
use candle_losses::OutputActivation;
use candle_losses::loss::{Reduction, SmoothL1Loss};
use suite::{Args, BostonHousing, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Smooth L1: what is a house worth?")]
pub struct Options {
    #[command(flatten)]
    args: Args<BostonHousing>,

    /// The error below which the loss is a parabola, in the price's unit; 0 is L1
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Loss")]
    beta: f64,
}

pub fn example(Options { args, beta }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?;
    let model = session.mlp(&[64, 32, 1], OutputActivation::Linear)?;
    let loss = SmoothL1Loss { beta, reduction };

    session.fit(|features, price| loss.forward(&model.forward(features)?, price))?;

    let report = session.report(&model)?;
    report.mae(&report.output)?;
    report.rmse(&report.output)?;
    session.finish("--beta 5")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
