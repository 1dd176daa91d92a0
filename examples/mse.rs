//! Mean squared error: what is a house worth?
//!
//! `l = (x - y)²`. Large errors pull hardest: right where they are real, wrong where they are outliers. The last layer is
//! linear, the target is the price, in 1,000 dollars, as a column like the model's output.
//!
//! Boston housing left scikit-learn in version 1.2: its column B is made from the share of Black residents, on the
//! assumption that segregation raises prices (see assets/README.md). It is kept here to compare losses on, nothing else.
//!
//!     cargo run --example mse

use candle_core::Module;
use candle_losses::OutputActivation;
use candle_losses::loss::{MseLoss, Reduction};
use suite::{Args, BostonHousing, Ui, run};

#[derive(clap::Parser)]
#[command(about = "Mean squared error: what is a house worth?")]
pub struct Options {
    #[command(flatten)]
    args: Args<BostonHousing>,
}

pub fn example(Options { args }: Options, ui: &Ui) -> anyhow::Result<()> {
    let reduction = args.reduction(Reduction::Mean);
    let session = args.start(ui)?;
    let model = session.mlp(&[64, 32, 1], OutputActivation::Linear)?;
    let loss = MseLoss { reduction };

    session.fit(|features, price| loss.forward(&model.forward(features)?, price))?;

    let report = session.report(&model)?;
    report.mae(&report.output)?;
    report.rmse(&report.output)?;
    session.finish("--epochs 5 --lr 1e-4")
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
