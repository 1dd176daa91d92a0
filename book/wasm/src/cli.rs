//! What an example needs, in a browser instead of on a terminal.
//!
//! An example runs from its first line to its last, but a page wants to look in between, and to stop and go on. So an
//! example is run again and again, a [`Visit`] each time: what it has trained so far is kept between two of them, and
//! [`Session::fit`] ends a visit after so many steps. A visit can also ask what options there are, how good the model is, or
//! what it makes of one image.

#[path = "../../../src/cli/figures.rs"]
mod figures;
#[path = "../../../src/cli/kind.rs"]
mod kind;
#[path = "../../../src/cli/values.rs"]
mod values;

pub use kind::Kind;
pub use values::class_weights;

use anyhow::{Error, Result, anyhow, bail, ensure};
use candle_core::{DType, Device, Module, Tensor};
use candle_losses::data::{self, Partners, Samples, Split};
use candle_losses::loss::Reduction;
use candle_losses::{Activation, Adam, Event, Mlp, Parameters, ParamsAdam, Training, mlp};
use candle_nn::{Optimizer, VarBuilder};
use clap::ArgAction;
use figures::{described, nearest_classes, outputs};
use serde::Serialize;
use std::cell::RefCell;
use std::process::ExitCode;
use values::{at_least_one, positive, reduction, signal, test_fraction};

/// What a visit is for.
pub enum Task {
    /// Which options there are.
    Describe,
    /// So many steps, or as many as are left.
    Train(usize),
    /// How good the model is on what was held out.
    Report,
    /// What the model makes of an image of 28×28 pixels.
    Look(Vec<u8>),
}

/// A run of an example, from its options on.
pub struct Visit {
    /// As on the command line.
    pub arguments: Vec<String>,
    pub task: Task,
    pub run: Run,
    pub found: Found,
}

/// What is kept between visits.
#[derive(Default)]
pub struct Run {
    parameters: Option<Parameters>,
    adam: Option<Adam>,
    /// Steps so far, and in all.
    pub taken: usize,
    pub total: usize,
    pub epoch: usize,
}

/// What a visit has found out.
#[derive(Default)]
pub struct Found {
    pub description: Description,
    /// The losses of the mini-batches that were trained on.
    pub losses: Vec<f32>,
    /// As they are printed on a terminal.
    pub lines: Vec<String>,
    pub shown: Vec<Shown>,
    pub error: Option<Error>,
}

/// An example's options, and what they are where nothing is said.
#[derive(Default, Serialize)]
pub struct Description {
    options: Vec<Described>,
    epochs: usize,
    batch_size: usize,
    lr: f64,
    reduction: String,
}

#[derive(Serialize)]
struct Described {
    name: String,
    help: String,
    heading: String,
    value_name: String,
    default: String,
    is_flag: bool,
}

/// An image, and what the model says of it.
#[derive(Serialize)]
pub struct Shown {
    pub pixels: Vec<u8>,
    pub prediction: String,
    pub truth: String,
}

thread_local! {
    static VISIT: RefCell<Option<Visit>> = const { RefCell::new(None) };
    /// The data that was loaded last, and for what.
    static LOADED: RefCell<Option<(String, Split)>> = const { RefCell::new(None) };
}

impl Visit {
    /// Runs the example.
    pub fn pay(self, main: fn() -> ExitCode) -> Self {
        VISIT.set(Some(self));
        main();
        VISIT.take().expect("nobody else takes a visit away")
    }
}

/// Something of the visit that is being paid.
fn visit<T>(f: impl FnOnce(&mut Visit) -> T) -> Result<T> {
    VISIT.with_borrow_mut(|visit| visit.as_mut().map(f)).ok_or_else(|| anyhow!("an example is run by a visit"))
}

/// That a visit is over before the example is.
#[derive(Debug)]
struct Over;

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("the visit is over")
    }
}

impl std::error::Error for Over {}

pub fn run<O: clap::Parser>(example: impl FnOnce(O) -> Result<()>) -> ExitCode {
    let ran = (|| {
        let mut command = O::command().allow_negative_numbers(true).no_binary_name(true).disable_help_flag(true);
        let arguments = visit(|visit| {
            if matches!(visit.task, Task::Describe) {
                visit.found.description = Description::of(&command);
            }
            visit.arguments.clone()
        })?;
        let matches = command.try_get_matches_from_mut(arguments).map_err(|error| anyhow!(first_line(&error)))?;
        example(O::from_arg_matches(&matches)?)
    })();
    match ran {
        Err(error) if !error.is::<Over>() => {
            let _ = visit(|visit| visit.found.error = Some(error));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// What clap says, without how to ask for help.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

impl Description {
    fn of(command: &clap::Command) -> Self {
        let options = command.get_arguments().filter_map(|argument| {
            let first = |values: &mut dyn Iterator<Item = String>| values.next().unwrap_or_default();
            Some(Described {
                name: argument.get_long()?.to_owned(),
                help: argument.get_help().map(ToString::to_string).unwrap_or_default(),
                heading: argument.get_help_heading().unwrap_or_default().to_owned(),
                value_name: first(&mut argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string)),
                default: first(&mut argument.get_default_values().iter().map(|value| value.to_string_lossy().into())),
                is_flag: matches!(argument.get_action(), ArgAction::SetTrue),
            })
        });
        Self { options: options.collect(), ..Self::default() }
    }
}

/// Where a section's samples come from.
pub trait Source: clap::Args + std::fmt::Debug {
    const KIND: Kind;

    fn load(&self, seed: u64) -> candle_core::Result<Split>;
}

#[derive(Debug, clap::Args)]
#[command(about = None, long_about = None)]
pub struct Args<S: Source> {
    #[command(flatten)]
    source: S,
    #[command(flatten)]
    options: Options,
}

/// Those options of an example's that mean something in a browser.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct Options {
    /// Passes over the training samples
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,

    /// Samples in a mini-batch
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch_size: Option<usize>,

    /// Adam's learning rate
    #[arg(long, value_name = "LR", value_parser = positive)]
    lr: Option<f64>,

    /// Mini-batches to a step of Adam, which takes their gradients' mean
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    accumulate: usize,

    /// Scale the gradients of a step down to this norm
    #[arg(long, value_name = "NORM", value_parser = positive)]
    clip_norm: Option<f64>,

    /// How losses become one: mean, sum, batchmean
    #[arg(long, value_name = "HOW", value_parser = reduction)]
    reduction: Option<Reduction>,

    /// Decides weights, order and whatever else is drawn
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,

    /// Train on the first N samples only
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,

    /// Take the samples in their own order instead of shuffling them each epoch
    #[arg(long)]
    no_shuffle: bool,
}

impl Options {
    pub fn reduction(&self, default: Reduction) -> Reduction {
        let _ = visit(|visit| visit.found.description.reduction = format!("{default:?}").to_lowercase());
        self.reduction.unwrap_or(default)
    }

    pub fn device(&self) -> Result<Device> {
        Ok(Device::Cpu)
    }
}

impl<S: Source> Args<S> {
    pub fn reduction(&self, default: Reduction) -> Reduction {
        self.options.reduction(default)
    }

    pub fn start(self) -> Result<Session> {
        let wanted = format!("{:?} {}", self.source, self.options.seed);
        let seed = self.options.seed;
        Session::of(self.options, S::KIND, || {
            let loaded = LOADED.with_borrow(|loaded| loaded.clone()).filter(|(loaded, _)| *loaded == wanted);
            if let Some((_, data)) = loaded {
                return Ok(data);
            }
            // Two at a time are more than a small machine has room for.
            LOADED.set(None);
            let data = self.source.load(seed)?;
            LOADED.set(Some((wanted, data.clone())));
            Ok(data)
        })
    }
}

/// The bundled digits; the Hugging Face Hub is not asked from a page.
#[derive(Debug, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct Digits {
    /// The bundled digits
    #[arg(long, value_name = "NAME", value_parser = ["digits"])]
    dataset: Option<String>,
}

impl Source for Digits {
    const KIND: Kind = Kind::Digits;

    fn load(&self, _seed: u64) -> candle_core::Result<Split> {
        data::digits(&Device::Cpu)
    }
}

#[derive(Debug, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct FakeImages {
    /// Strength of the class's pattern under the noise, as a share of the range of a pixel; 0 is pure noise
    #[arg(long, value_name = "S", default_value_t = 0.02, value_parser = signal)]
    signal: f32,
}

impl Source for FakeImages {
    const KIND: Kind = Kind::FakeImages;

    fn load(&self, seed: u64) -> candle_core::Result<Split> {
        data::fake_images(self.signal, seed, &Device::Cpu)
    }
}

#[derive(Debug, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct BostonHousing {
    /// Share of the rows to hold out, chosen by the seed; 0 trains on all of them
    #[arg(long, value_name = "F", default_value_t = 0.2, value_parser = test_fraction)]
    test_fraction: f64,
}

impl Source for BostonHousing {
    const KIND: Kind = Kind::Table;

    fn load(&self, seed: u64) -> candle_core::Result<Split> {
        data::boston_housing(self.test_fraction, seed, &Device::Cpu)
    }
}

#[derive(Clone)]
pub struct Session {
    data: Split,
    training: Training,
    lr: f64,
    parameters: Parameters,
}

impl Session {
    pub fn new(options: Options, kind: Kind, data: Split, _device: Device) -> Result<Self> {
        Self::of(options, kind, || Ok(data))
    }

    fn of(options: Options, kind: Kind, load: impl FnOnce() -> Result<Split>) -> Result<Self> {
        let (epochs, batch_size, lr) = (kind.epochs(), kind.batch_size(), kind.lr());
        visit(|visit| {
            let description = &mut visit.found.description;
            (description.epochs, description.batch_size, description.lr) = (epochs, batch_size, lr);
            if matches!(visit.task, Task::Describe) { Err(Over) } else { Ok(()) }
        })??;
        let mut data = load()?;
        data.train = data.train.take(options.limit.unwrap_or(usize::MAX))?;
        if let Some(pixels) =
            visit(|visit| if let Task::Look(pixels) = &visit.task { Some(pixels.clone()) } else { None })?
        {
            let image = Tensor::from_vec(pixels, (1, 28, 28), &Device::Cpu)?;
            data.test = Samples::new(image, Tensor::new(&[0u32], &Device::Cpu)?)?;
        }
        let parameters =
            visit(|visit| visit.run.parameters.get_or_insert_with(|| Parameters::seeded(options.seed)).clone())?;
        let training = Training {
            epochs: options.epochs.unwrap_or(epochs),
            batch_size: options.batch_size.unwrap_or(batch_size),
            seed: options.seed,
            shuffle: !options.no_shuffle,
            accumulate: options.accumulate,
            clip_norm: options.clip_norm,
            taken: 0,
        };
        Ok(Self { data, training, lr: options.lr.unwrap_or(lr), parameters })
    }

    pub fn device(&self) -> &Device {
        &Device::Cpu
    }

    pub fn with_targets(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Ok(Self { data: self.data.map_targets(f)?, ..self.clone() })
    }

    pub fn with_groups<const N: usize>(&self, draw: impl Fn(&mut Partners) -> [u32; N]) -> Result<Self> {
        Ok(Self { data: self.data.grouped(draw, self.training.seed)?, ..self.clone() })
    }

    /// Nobody can name other data in a browser.
    pub fn with_inputs_of(self, _features: usize) -> Result<Self> {
        Ok(self)
    }

    pub fn builder(&self) -> VarBuilder<'static> {
        self.parameters.builder(DType::F32, self.device())
    }

    pub fn mlp(&self, widths: &[usize], last: Activation) -> Result<Mlp> {
        Ok(mlp(&[&[self.data.train.features()], widths].concat(), last, self.builder())?)
    }

    /// Takes the steps that the visit is for, and ends it if there are more.
    pub fn fit(&self, loss: impl FnMut(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Result<()> {
        let mut run = visit(|visit| std::mem::take(&mut visit.run))?;
        let went = self.steps(&mut run, loss);
        visit(|visit| visit.run = run)?;
        went
    }

    fn steps(&self, run: &mut Run, loss: impl FnMut(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Result<()> {
        let Training { batch_size, accumulate, epochs, .. } = self.training;
        run.total = epochs * self.data.train.len().div_ceil(batch_size).div_ceil(accumulate);
        let Some(wanted) = visit(|visit| if let Task::Train(steps) = visit.task { Some(steps) } else { None })? else {
            return Ok(());
        };
        let last = run.taken.saturating_add(wanted);
        let mut adam = match run.adam.take() {
            Some(adam) => adam,
            None => Adam::new(self.parameters.vars(), ParamsAdam { lr: self.lr, ..Default::default() })?,
        };
        let mut losses = Vec::new();
        let training = Training { taken: run.taken, ..self.training.clone() };
        let (taken, seen) = (&mut run.taken, &mut run.epoch);
        let went = training.observed::<_, Error>(&mut adam, &self.data.train, loss, |_, event| match event {
            Event::Batch { loss, epoch, .. } => {
                let loss = loss.to_dtype(DType::F32)?.to_scalar::<f32>()?;
                let (step, lr) = (*taken + 1, self.lr);
                ensure!(
                    loss.is_finite(),
                    "the loss is {loss} in epoch {epoch}, step {step}; a smaller lr than {lr} may help"
                );
                losses.push(loss);
                *seen = epoch;
                Ok(())
            }
            Event::Step { taken: now, .. } => {
                *taken = now;
                if now == last { Err(Over.into()) } else { Ok(()) }
            }
            Event::Epoch { .. } => Ok(()),
        });
        run.adam = Some(adam);
        visit(|visit| visit.found.losses = losses)?;
        went?;
        bail!(Over)
    }

    pub fn report(&self, model: &impl Module) -> Result<Report> {
        let Split { train, test } = &self.data;
        let (part, samples) = if test.is_empty() { ("Training", train) } else { ("Test", test) };
        let (output, target) = (outputs(model, samples)?, samples.targets().clone());
        Ok(Report { part, samples: samples.len(), output, target })
    }

    pub fn report_nearest_neighbours(&self, model: &impl Module) -> Result<()> {
        let report = self.report(model)?;
        let classes = nearest_classes(model, &self.data.train, &report.output)?;
        report.share("nearest-neighbour accuracy", &classes.eq(&report.target)?)
    }

    /// The first held-out images, each with what the model makes of it and what is true.
    pub fn show_digits(&self, predictions: &Tensor, truths: &Tensor) -> Result<()> {
        let images = self.data.test.len().min(10);
        if self.data.test.features() != 28 * 28 {
            return Ok(());
        }
        let (pixels, _) = self.data.test.batch(None, 0, images)?;
        let pixels = (pixels.reshape((images, 28 * 28))? * 255.)?.to_vec2::<f32>()?;
        let words = described(predictions, images)?.into_iter().zip(described(truths, images)?);
        let shown = pixels.iter().zip(words).map(|(pixels, (prediction, truth))| Shown {
            pixels: pixels.iter().map(|pixel| pixel.round() as u8).collect(),
            prediction,
            truth,
        });
        visit(|visit| visit.found.shown = shown.collect())
    }

    pub fn finish(&self, _next: &str) -> Result<()> {
        Ok(())
    }
}

pub struct Report {
    part: &'static str,
    samples: usize,
    pub output: Tensor,
    pub target: Tensor,
}

impl Report {
    pub fn share(&self, what: &str, hits: &Tensor) -> Result<()> {
        self.print(what, &figures::share(hits)?)
    }

    pub fn mae(&self, prediction: &Tensor) -> Result<()> {
        self.print("MAE", &figures::mae(prediction, &self.target)?)
    }

    pub fn rmse(&self, prediction: &Tensor) -> Result<()> {
        self.print("RMSE", &figures::rmse(prediction, &self.target)?)
    }

    fn print(&self, what: &str, value: &str) -> Result<()> {
        let line = format!("{} {what}: {value} ({} samples)", self.part, self.samples);
        visit(|visit| visit.found.lines.push(line))
    }
}
