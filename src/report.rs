use crate::Session;
use crate::data::Samples;
use crate::loss::log_softmax;
use crate::output::Output;
use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Module, Tensor};
use std::io::Write;
use std::path::Path;

/// Samples to put through the model at once.
const BATCH: usize = 1000;

/// What a trained model makes of the samples that were held out, all at once: the metrics are plain tensor ops on it.
///
/// ```
/// use candle_losses::{Activation, Args, data::BostonHousing};
/// use clap::Parser;
///
/// #[derive(Parser)]
/// struct Options {
///     #[command(flatten)]
///     args: Args<BostonHousing>,
/// }
///
/// let session = Options::parse_from(["mine"]).args.start()?;
/// let report = session.report(&session.mlp(&[1], Activation::Linear)?)?;
/// assert_eq!(report.output.dims(), report.target.dims());
/// report.mae(&report.output)?; // prints "Test MAE: 23.… (101 samples)"
/// # Ok::<(), anyhow::Error>(())
/// ```
pub struct Report {
    part: &'static str,
    samples: usize,
    is_silent: bool,
    /// The model's outputs, (N, outputs).
    pub output: Tensor,
    /// The targets, (N, …).
    pub target: Tensor,
}

impl Session {
    /// The model's outputs on the held-out samples, or on the training samples where none were held out. With
    /// `--predict` they are those on the table's rows, of which the targets are not known: they are written to the file,
    /// and the report prints nothing.
    ///
    /// # Errors
    /// Those of the model, and if the file can't be written.
    pub fn report(&self, model: &impl Module) -> Result<Report> {
        let (part, samples) = if self.test.is_empty() { ("Training", &self.train) } else { ("Test", &self.test) };
        let (output, target) = (outputs(model, samples)?, samples.targets().clone());
        if let Some(path) = &self.predict {
            self.write_predictions(&output, path)?;
        }
        Ok(Report { part, samples: samples.len(), is_silent: self.predict.is_some(), output, target })
    }

    /// A line for each row of the table: the number, or the class with its probability.
    fn write_predictions(&self, output: &Tensor, path: &Path) -> Result<()> {
        let mut file = Output::create(path)?;
        let mut csv = csv::Writer::from_writer(file.file());
        let encoding = self.encoding.as_ref().context("predictions are made for a table")?;
        match &encoding.classes {
            None => {
                csv.write_record([&encoding.target])?;
                for number in output.flatten_all()?.to_vec1::<f32>()? {
                    csv.write_record([number.to_string()])?;
                }
            }
            Some(classes) => {
                csv.write_record([encoding.target.as_str(), "probability"])?;
                let probabilities = log_softmax(output, 1)?.exp()?;
                let (choices, sure) =
                    (probabilities.argmax(1)?.to_vec1::<u32>()?, probabilities.max(1)?.to_vec1::<f32>()?);
                for (choice, sure) in choices.into_iter().zip(sure) {
                    csv.write_record([&classes[choice as usize], &sure.to_string()])?;
                }
            }
        }
        csv.flush()?;
        drop(csv);
        file.commit()?;
        Ok(writeln!(std::io::stdout(), "Predictions of {}: {}", encoding.target, path.display())?)
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

/// The model's outputs on all samples, (N, outputs), without a gradient.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::{Activation, Mlp, data::Samples, outputs};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let x = Tensor::zeros((3, 2), candle_core::DType::F32, &Device::Cpu)?;
/// let samples = Samples::new(x, Tensor::zeros((3, 1), candle_core::DType::F32, &Device::Cpu)?)?;
/// let model = Mlp::new(&[2, 4], Activation::Linear, false, &mut StdRng::seed_from_u64(1), &Device::Cpu)?;
/// assert_eq!(outputs(&model, &samples)?.dims(), [3, 4]);
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// Those of the model.
pub fn outputs(model: &impl Module, samples: &Samples) -> candle_core::Result<Tensor> {
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
        if self.is_silent {
            return Ok(());
        }
        Ok(writeln!(std::io::stdout(), "{} {what}: {value} ({} samples)", self.part, self.samples)?)
    }
}

/// In `f64`, on the CPU, as not every device has it.
fn precise(x: &Tensor) -> candle_core::Result<Tensor> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)
}
