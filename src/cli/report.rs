use super::figures::{self, outputs};
use crate::data::Samples;
use anyhow::Result;
use candle_core::{Module, Tensor};
use std::io::Write;

/// What a trained model makes of the samples that were held out, all at once: the metrics are plain tensor ops on it.
///
/// ```
/// use candle_losses::Activation;
/// use candle_losses::cli::{Args, BostonHousing};
/// use clap::Parser;
///
/// #[derive(Parser)]
/// struct Options {
///     #[command(flatten)]
///     args: Args<BostonHousing>,
/// }
///
/// let session = Options::parse_from(["mine", "--device", "cpu"]).args.start()?;
/// let report = session.report(&session.mlp(&[1], Activation::Linear)?)?;
/// assert_eq!(report.output.dims(), report.target.dims());
/// report.mae(&report.output)?; // prints "Test MAE: 23.… (101 samples)"
/// # Ok::<(), anyhow::Error>(())
/// ```
pub struct Report {
    part: &'static str,
    samples: usize,
    /// The model's outputs, (N, outputs).
    pub output: Tensor,
    /// The targets, (N, …).
    pub target: Tensor,
}

impl Report {
    pub(super) fn new(part: &'static str, model: &impl Module, samples: &Samples) -> Result<Self> {
        let (output, target) = (outputs(model, samples)?, samples.targets().clone());
        Ok(Self { part, samples: samples.len(), output, target })
    }

    /// Prints the share of `hits`, a `u8` tensor that is 1 where `what` is meant.
    pub fn share(&self, what: &str, hits: &Tensor) -> Result<()> {
        self.print(what, &figures::share(hits)?)
    }

    /// Prints the mean absolute error of `prediction`, in the target's unit.
    pub fn mae(&self, prediction: &Tensor) -> Result<()> {
        self.print("MAE", &figures::mae(prediction, &self.target)?)
    }

    /// Prints the root of the mean squared error of `prediction`, in the target's unit.
    pub fn rmse(&self, prediction: &Tensor) -> Result<()> {
        self.print("RMSE", &figures::rmse(prediction, &self.target)?)
    }

    fn print(&self, what: &str, value: &str) -> Result<()> {
        Ok(writeln!(std::io::stdout(), "{} {what}: {value} ({} samples)", self.part, self.samples)?)
    }
}
