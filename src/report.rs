use crate::Session;
use crate::data::Samples;
use anyhow::Result;
use candle_core::{D, DType, Device, Module, Tensor};
use std::io::Write;

/// Samples to put through the model at once.
const BATCH: usize = 1000;

/// What a trained model makes of the samples that were held out, all at once: the metrics are plain tensor ops on it.
pub struct Report {
    part: &'static str,
    samples: usize,
    /// The model's outputs, (N, outputs).
    pub output: Tensor,
    /// The targets, (N, …).
    pub target: Tensor,
}

impl Session {
    /// The model's outputs on the held-out samples, or on the training samples where none were held out.
    pub fn report(&self, model: &impl Module) -> Result<Report> {
        let (part, samples) = if self.test.is_empty() { ("Training", &self.train) } else { ("Test", &self.test) };
        let (output, target) = (outputs(model, samples)?, samples.targets().clone());
        Ok(Report { part, samples: samples.len(), output, target })
    }

    /// Prints how often the nearest of 10,000 training samples, by the distance of the model's outputs, is of a held-out
    /// sample's own class.
    pub fn report_nearest_neighbours(&self, model: &impl Module) -> Result<()> {
        let report = self.report(model)?;
        let known = self.train.take(10_000)?;
        let places = outputs(model, &known)?;
        // The nearest y to x is where x·y - |y|²/2 is largest.
        let half_squares = (places.sqr()?.sum(D::Minus1)? / 2.)?;
        let mut nearest = Vec::new();
        for start in (0..report.samples).step_by(BATCH) {
            let here = report.output.narrow(0, start, BATCH.min(report.samples - start))?;
            nearest.push(here.matmul(&places.t()?)?.broadcast_sub(&half_squares)?.argmax(1)?);
        }
        let classes = known.targets().index_select(&Tensor::cat(&nearest, 0)?, 0)?;
        report.share("nearest-neighbour accuracy", &classes.eq(&report.target)?)
    }
}

fn outputs(model: &impl Module, samples: &Samples) -> candle_core::Result<Tensor> {
    let mut outputs = Vec::new();
    for start in (0..samples.len()).step_by(BATCH) {
        let (inputs, _) = samples.batch(None, start, BATCH.min(samples.len() - start))?;
        outputs.push(model.forward(&inputs)?.detach());
    }
    Tensor::cat(&outputs, 0)
}

impl Report {
    /// Prints the share of `hits`, a `u8` tensor that is 1 where `what` is meant.
    pub fn share(&self, what: &str, hits: &Tensor) -> Result<()> {
        let share = precise(hits)?.mean_all()?.to_scalar::<f64>()?;
        self.print(what, &format!("{:.2}%", 100.0 * share))
    }

    /// Prints the mean absolute error of `prediction`, in the target's unit.
    pub fn mae(&self, prediction: &Tensor) -> Result<()> {
        let error = self.error(prediction)?.abs()?.mean_all()?.to_scalar::<f64>()?;
        self.print("MAE", &format!("{error:.3}"))
    }

    /// Prints the root of the mean squared error of `prediction`, in the target's unit.
    pub fn rmse(&self, prediction: &Tensor) -> Result<()> {
        let error = self.error(prediction)?.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt();
        self.print("RMSE", &format!("{error:.3}"))
    }

    fn error(&self, prediction: &Tensor) -> candle_core::Result<Tensor> {
        precise(prediction)? - precise(&self.target)?
    }

    fn print(&self, what: &str, value: &str) -> Result<()> {
        Ok(writeln!(std::io::stdout(), "{} {what}: {value} ({} samples)", self.part, self.samples)?)
    }
}

/// In `f64`, on the CPU, as not every device has it.
fn precise(x: &Tensor) -> candle_core::Result<Tensor> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)
}
