use crate::frontend::Ui;
use crate::metrics::{self, outputs};
use anyhow::Result;
use candle_core::{Module, Tensor};
use candle_losses::data::TensorDataset;

/// The outputs of a trained model on the evaluated samples, all at once: a metric is a tensor op on them.
pub struct Report {
    part: &'static str,
    samples: usize,
    ui: Ui,
    /// The outputs of the model, (N, outputs).
    pub output: Tensor,
    /// The targets, (N, …).
    pub target: Tensor,
}

impl Report {
    pub(crate) fn new(part: &'static str, model: &impl Module, samples: &TensorDataset, ui: &Ui) -> Result<Self> {
        let (output, target) = (outputs(model, samples)?, samples.targets().clone());
        Ok(Self { part, samples: samples.len(), ui: ui.clone(), output, target })
    }

    /// Prints the fraction of `hits` that are 1, a `u8` tensor, in %.
    ///
    /// # Errors
    /// If it can't be printed.
    pub fn rate(&self, what: &str, hits: &Tensor) -> Result<()> {
        self.print(what, &metrics::rate(hits)?)
    }

    /// Prints the mean absolute error of `prediction`, in the target's unit.
    ///
    /// # Errors
    /// If it can't be printed, or the shapes differ.
    pub fn mae(&self, prediction: &Tensor) -> Result<()> {
        self.print("MAE", &metrics::mae(prediction, &self.target)?)
    }

    /// Prints the root of the mean squared error of `prediction`, in the target's unit.
    ///
    /// # Errors
    /// If it can't be printed, or the shapes differ.
    pub fn rmse(&self, prediction: &Tensor) -> Result<()> {
        self.print("RMSE", &metrics::rmse(prediction, &self.target)?)
    }

    fn print(&self, what: &str, value: &str) -> Result<()> {
        self.ui.print(&format!("{} {what}: {value} ({} samples)", self.part, self.samples))
    }
}
