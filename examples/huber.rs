//! Huber: squared error for the many, absolute error for the few that are far off.
//!
//! `l = d²/2` where `|d| <= delta`, else `delta · (|d| - delta/2)`, for the error `d = x - y`. The last layer is linear, the
//! target is the price, in 1,000 dollars; `delta` is in that unit too.
//!
//! Boston housing left scikit-learn in version 1.2: its column B is made from the share of Black residents, on the
//! assumption that segregation raises prices (see assets/README.md). It is kept here to compare losses on, nothing else.
//!
//!     cargo run --example huber

use candle_core::Module;
use candle_losses::OutputActivation;
use candle_losses::loss::{HuberLoss, Reduction};
use suite::{Args, BostonHousing, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Huber: what is a house worth?")]
pub struct Options {
    #[command(flatten)]
    args: Args<BostonHousing>,

    /// The error above which the loss is a line, in the price's unit
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Loss")]
    delta: f64,
}

pub fn example(Options { args, delta }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?;
    let model = session.mlp(&[64, 32, 1], OutputActivation::Linear)?;
    let loss = HuberLoss { delta, reduction };

    session.fit(|features, price| loss.forward(&model.forward(features)?, price))?;

    let report = session.report(&model)?;
    report.mae(&report.output)?;
    report.rmse(&report.output)?;
    session.finish("--delta 5")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
