use crate::data::table::{Encoding, OwnTable, Table, TableArgs, Target};
use crate::data::{BostonHousing, Draw, Partners, Samples, Source, generator};
use crate::interrupt::{self, Interrupted};
use crate::loss::Reduction;
use crate::{Activation, Mlp};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The options that every example takes, with those of its data.
///
/// ```
/// use candle_losses::{Args, data::BostonHousing, loss::Reduction};
/// use clap::Parser;
///
/// #[derive(Parser)]
/// struct Options {
///     #[command(flatten)]
///     args: Args<BostonHousing>,
/// }
///
/// let args = Options::parse_from(["mine", "--epochs", "1", "--reduction", "sum"]).args;
/// assert_eq!(args.reduction(Reduction::Mean), Reduction::Sum);
/// assert!(args.start()?.device().is_cpu());
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None)]
pub struct Args<S: Source> {
    #[command(flatten)]
    source: S,
    #[command(flatten)]
    train: TrainArgs,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub(crate) struct TrainArgs {
    /// Passes over the training samples
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub epochs: usize,

    /// Samples in a step [default: 10, for fake images 64]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch_size: Option<usize>,

    /// Adam's learning rate
    #[arg(long, default_value_t = 1e-4, value_parser = learning_rate)]
    pub lr: f64,

    /// How losses become one: mean, sum, batchmean [default: mean, for kl_div batchmean]
    #[arg(long, value_name = "HOW", value_parser = reduction)]
    reduction: Option<Reduction>,

    /// Decides weights, order and whatever else is drawn
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,

    /// Where to compute; auto takes a GPU if this is built for one (`--features cuda` or `metal`) and it is there
    #[arg(long, value_enum, value_name = "WHERE", default_value = "auto")]
    device: DeviceName,

    /// Train on the first N samples only
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,

    /// Take the samples in their own order instead of shuffling them each epoch
    #[arg(long)]
    pub no_shuffle: bool,

    /// Start from the weights in this safetensors file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    init: Option<PathBuf>,

    /// After each epoch, and on Ctrl-C, write to this file all that it takes to go on
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub checkpoint: Option<PathBuf>,

    /// Go on from a checkpoint, to the same end as without a break
    #[arg(long, value_name = "FILE", help_heading = "Files", conflicts_with = "init")]
    pub resume: Option<PathBuf>,

    /// Write the trained weights to this safetensors file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub save: Option<PathBuf>,

    /// Write each step's loss to this CSV file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub log: Option<PathBuf>,

    /// Draw the training curve to this SVG file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub plot: Option<PathBuf>,

    /// Show no progress bar
    #[arg(long)]
    pub no_progress: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum DeviceName {
    Auto,
    Cpu,
    Cuda,
    Metal,
}

impl DeviceName {
    fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(0).context("no CUDA device (is this built with `--features cuda`?)"),
            Self::Metal => Device::new_metal(0).context("no Metal device (is this built with `--features metal`?)"),
            Self::Auto if candle_core::utils::cuda_is_available() => Ok(Device::cuda_if_available(0)?),
            Self::Auto => Ok(Device::metal_if_available(0)?),
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("needs a whole number, 1 or more".into()),
    }
}

fn learning_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("needs a positive number".into()),
    }
}

fn reduction(text: &str) -> Result<Reduction, String> {
    match text {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "batchmean" => Ok(Reduction::BatchMean),
        _ => Err("needs one of mean, sum, batchmean".into()),
    }
}

impl<S: Source> Args<S> {
    /// The loss's reduction, where `default` is the section's own.
    pub fn reduction(&self, default: Reduction) -> Reduction {
        self.train.reduction.unwrap_or(default)
    }

    /// Opens the device and loads the data.
    pub fn start(self) -> Result<Session> {
        let device = self.train.device.open()?;
        if let Some(table) = self.source.own_table()
            && let Some(csv) = table.args.csv.clone()
        {
            return Session::on_table::<S>(self.train, table, &csv, device);
        }
        let (train, test) = self.source.load(self.train.seed, &device)?;
        Session::new::<S>(self.train, device, train, test)
    }
}

/// A run of an example: its options, its device, its data.
///
/// ```
/// use candle_core::Module;
/// use candle_losses::{Activation, Args, data::BostonHousing, loss::MseLoss};
/// use clap::Parser;
///
/// #[derive(Parser)]
/// struct Options {
///     #[command(flatten)]
///     args: Args<BostonHousing>,
/// }
///
/// let session = Options::parse_from(["mine", "--epochs", "1"]).args.start()?;
/// let model = session.mlp(&[8, 1], Activation::Linear)?;
/// session.fit(&model, |features, price| MseLoss::default().forward(&model.forward(features)?, price))?;
/// session.report(&model)?;
/// session.finish("--epochs 2")?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Clone)]
pub struct Session {
    pub(crate) args: TrainArgs,
    pub(crate) batch_size: usize,
    pub(crate) print_every: usize,
    images: bool,
    pub(crate) device: Device,
    pub(crate) train: Samples,
    pub(crate) test: Samples,
    /// How a table's rows were made into samples.
    pub(crate) encoding: Option<Encoding>,
    /// Where the predictions for a table go, if that is what is asked for.
    pub(crate) predict: Option<PathBuf>,
    /// The steps that were taken, and the time that it took.
    pub(crate) trained: OnceCell<(usize, Duration)>,
}

impl Session {
    fn new<S: Source>(args: TrainArgs, device: Device, train: Samples, test: Samples) -> Result<Self> {
        Ok(Self {
            batch_size: args.batch_size.unwrap_or(S::BATCH_SIZE),
            print_every: S::PRINT_EVERY,
            images: S::IMAGES,
            train: train.take(args.limit.unwrap_or(usize::MAX))?,
            test,
            args,
            device,
            encoding: None,
            predict: None,
            trained: OnceCell::new(),
        })
    }

    fn on_table<S: Source>(args: TrainArgs, table: OwnTable, csv: &Path, device: Device) -> Result<Self> {
        ensure!(!table.is_ambiguous, "--csv names the data, so --data-dir and --dataset can't");
        let rows = Table::open(csv)?;
        let TableArgs { target, categories, predict, .. } = table.args;
        let (train, test, encoding) = match (predict, target) {
            (Some(_), _) => {
                let model = args.init.as_ref().context("--predict needs --init FILE, the model")?;
                let encoding = Mlp::encoding(model)?;
                ensure!(
                    encoding.classes.is_some() == (table.target == Target::Class),
                    "{} predicts {}, which is another example's kind of target",
                    model.display(),
                    encoding.target
                );
                let all = (0..rows.len()).collect::<Vec<_>>();
                let inputs = rows.inputs(&encoding, &all, &device)?;
                // Not known, and not looked at.
                let targets = match table.target {
                    Target::Number => Tensor::zeros((rows.len(), 1), DType::F32, &device)?,
                    Target::Class => Tensor::zeros(rows.len(), DType::U32, &device)?,
                };
                let samples = Samples::new(inputs, targets)?;
                (samples.clone(), samples, encoding)
            }
            (None, Some(target)) => {
                // Weights that were trained on a table go on with what was learned of its columns.
                let known = args.init.as_ref().and_then(|model| Mlp::encoding(model).ok());
                rows.split((target, table.target), categories, table.test_fraction, args.seed, known, &device)?
            }
            (None, None) => bail!("--csv needs --target COLUMN, the column to predict"),
        };
        Ok(Self {
            print_every: BostonHousing::PRINT_EVERY,
            images: false,
            predict: predict.clone(),
            encoding: Some(encoding),
            ..Self::new::<S>(args, device, train, test)?
        })
    }

    /// How many steps an epoch has.
    pub(crate) fn steps_in_epoch(&self) -> usize {
        self.train.len().div_ceil(self.batch_size).max(1)
    }

    /// How many classes there are to choose from: those of a table of the reader's own, else ten digits.
    pub fn classes(&self) -> usize {
        self.encoding.as_ref().and_then(|encoding| encoding.classes.as_ref()).map_or(10, Vec::len)
    }

    /// Where the data is, and the model will be.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The same run with targets made of the data's own, all at once and before the first step.
    pub fn with_targets(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        let (train, test) = (self.train.map_targets(&f)?, self.test.map_targets(&f)?);
        Ok(Self { train, test, ..self.clone() })
    }

    /// The same run on groups of images: one for each image, with the partners that `draw` gives it. The targets are the
    /// classes, (N, members). A batch's images are those of its first group, then those of the second, and so on.
    pub fn with_groups<const N: usize>(&self, draw: impl Fn(&mut Partners) -> [u32; N]) -> Result<Self> {
        let mut rng = generator(self.args.seed, Draw::Groups);
        let (train, test) = (self.train.grouped(&draw, &mut rng)?, self.test.grouped(&draw, &mut rng)?);
        Ok(Self { train, test, ..self.clone() })
    }

    /// A multilayer perceptron on this data with layers of these widths, the last being the outputs. Its weights are
    /// drawn by the seed or read from `--init`.
    pub fn mlp(&self, widths: &[usize], last: Activation) -> Result<Mlp> {
        let widths = [&[self.train.features()], widths].concat();
        let mut rng = generator(self.args.seed, Draw::Weights);
        let model = Mlp::new(&widths, last, self.images, &mut rng, &self.device)?;
        if let Some(path) = &self.args.init {
            model.load(path)?;
        }
        Ok(model)
    }
}

/// A `--weight` of one number per class as the tensor that a loss takes; `None` if none was given.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::class_weights;
///
/// assert!(class_weights(&[], &Device::Cpu)?.is_none());
/// assert_eq!(class_weights(&[1.0, 2.0], &Device::Cpu)?.unwrap().dims(), [2]);
/// # Ok::<(), anyhow::Error>(())
/// ```
pub fn class_weights(weights: &[f32], device: &Device) -> Result<Option<Tensor>> {
    ensure!(weights.iter().all(|weight| weight.is_finite()), "a weight is not a finite number");
    if weights.is_empty() { Ok(None) } else { Ok(Some(Tensor::new(weights, device)?)) }
}

/// The name of the example that runs.
pub(crate) fn example_name() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    program.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Runs an example: reads its options, and turns an error into one line on stderr and a failing exit code. A reader of
/// the output who has seen enough (`| head`) ends it quietly.
///
/// ```
/// #[derive(clap::Parser)]
/// struct Options {
///     #[arg(long, default_value_t = 2)]
///     number: u32,
/// }
///
/// fn main() -> std::process::ExitCode {
///     candle_losses::run(|Options { number }| {
///         println!("{}", number * number);
///         Ok(())
///     })
/// }
/// ```
pub fn run<O: clap::Parser>(example: impl FnOnce(O) -> Result<()>) -> ExitCode {
    // A negative number is a value to check, not an option.
    let matches = O::command().allow_negative_numbers(true).get_matches();
    let options = O::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let Err(error) = example(options) else { return ExitCode::SUCCESS };
    if error.is::<Interrupted>() {
        return interrupt::EXIT_CODE.into();
    }
    let io_error = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    if io_error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", one_line(&error));
    ExitCode::FAILURE
}

/// The error and its causes, without the backtraces that candle's errors may carry.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = match cause.downcast_ref::<candle_core::Error>() {
            Some(candle_core::Error::WithBacktrace { inner, .. }) => inner.to_string(),
            _ => cause.to_string(),
        };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // Some errors print their cause themselves.
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_candle_is_one_line() {
        let shapes = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = anyhow::Error::from(shapes.matmul(&shapes).unwrap_err()).context("multiplying");
        let line = one_line(&error);
        assert!(line.starts_with("multiplying: ") && line.contains("[2, 3]") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        assert!(["0", "-1", "x"].iter().all(|text| at_least_one(text).is_err()));
        assert!(["0", "-1e-3", "inf", "NaN", "x"].iter().all(|text| learning_rate(text).is_err()));
        assert!(["none", "x"].iter().all(|text| reduction(text).is_err()));
        assert!(class_weights(&[1.0, f32::NAN], &Device::Cpu).is_err());
    }

    #[test]
    fn a_device_that_was_not_built_in_is_an_error() {
        #[cfg(not(feature = "cuda"))]
        assert!(format!("{:#}", DeviceName::Cuda.open().unwrap_err()).contains("--features cuda"));
        assert!(DeviceName::Cpu.open().unwrap().is_cpu());
    }
}
