use super::checkpoint::{self, Plan};
use super::figures::{BATCH, described, nearest_classes};
use super::files::{Output, write};
use super::interrupt::{self, Interrupted};
use super::journal::Journal;
use super::kind::Kind;
use super::options::Options;
use super::plot::Outcome;
use super::report::Report;
use super::show::{SHOWN, drawn};
use super::{example_name, plot};
use crate::data::{Partners, Samples, Split};
use crate::{Activation, Adam, EarlyStopping, Event, Mlp, Parameters, ParamsAdam, Training, mean_loss, mlp};
use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::{Optimizer, VarBuilder};
use console::style;
use std::cell::{Cell, RefCell};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A run of an example: its options, its device, its data, and the parameters of its model.
///
/// ```
/// use candle_core::Module;
/// use candle_losses::Activation;
/// use candle_losses::cli::{Args, BostonHousing};
/// use candle_losses::loss::MseLoss;
/// use clap::Parser;
///
/// #[derive(Parser)]
/// struct Options {
///     #[command(flatten)]
///     args: Args<BostonHousing>,
/// }
///
/// let session = Options::parse_from(["mine", "--device", "cpu", "--epochs", "1"]).args.start()?;
/// let model = session.mlp(&[8, 1], Activation::Linear)?; // or any model on session.builder()
/// session.fit(|features, price| MseLoss::default().forward(&model.forward(features)?, price))?;
/// session.report(&model)?;
/// session.finish("--epochs 2")?;
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Clone)]
pub struct Session {
    options: Options,
    kind: Kind,
    device: Device,
    data: Split,
    parameters: Parameters,
    /// What says when to stop, and for how many epochs it may be no better.
    validation: Option<(Samples, usize)>,
    /// What goes into the saved file beside the weights.
    metadata: Option<(String, String)>,
    /// The mini-batches that were trained on, and the time that it took.
    trained: Rc<Cell<Option<(usize, Duration)>>>,
    /// The loss of each step.
    losses: Rc<RefCell<Vec<f64>>>,
}

impl Session {
    /// A run on these samples, which are on `device`.
    ///
    /// # Errors
    /// If a file is named to be written that another option reads or writes too.
    pub fn new(options: Options, kind: Kind, data: Split, device: Device) -> Result<Self> {
        options.check_files(&[], &[])?;
        let train = data.train.take(options.limit.unwrap_or(usize::MAX))?;
        let parameters = Parameters::seeded(options.seed);
        let data = Split { train, ..data };
        Ok(Self {
            options,
            kind,
            device,
            data,
            parameters,
            validation: None,
            metadata: None,
            trained: Rc::default(),
            losses: Rc::default(),
        })
    }

    /// The same run with something of one's own, by name, beside the weights in the file of `--save`.
    pub fn with_metadata(self, metadata: (String, String)) -> Self {
        Self { metadata: Some(metadata), ..self }
    }

    /// The same run, which ends when the loss of these samples has not got better for so many epochs, with the weights that
    /// were best; with none it goes on to its last epoch.
    pub fn with_validation(self, samples: Samples, patience: usize) -> Self {
        Self { validation: (!samples.is_empty()).then_some((samples, patience)), ..self }
    }

    /// The same run with targets made of the data's own, all at once and before the first step.
    pub fn with_targets(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Ok(Self { data: self.data.map_targets(f)?, ..self.clone() })
    }

    /// The same run on groups of images: one for each image, with the partners that `draw` gives it. The targets are the
    /// classes, (N, members). A batch's images are those of its first group, then those of the second, and so on.
    pub fn with_groups<const N: usize>(&self, draw: impl Fn(&mut Partners) -> [u32; N]) -> Result<Self> {
        Ok(Self { data: self.data.grouped(draw, self.options.seed)?, ..self.clone() })
    }

    /// The same run, if its inputs have as many numbers as the model wants.
    ///
    /// # Errors
    /// If they have not, as the images of another data set.
    pub fn with_inputs_of(self, features: usize) -> Result<Self> {
        let found = self.data.train.features();
        ensure!(
            found == features,
            "the inputs are {found} numbers each, but this model is for {features}: name other data"
        );
        Ok(self)
    }

    /// Where the data is, and the model will be.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The samples.
    pub fn data(&self) -> &Split {
        &self.data
    }

    /// The model's parameters, drawn by the seed.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What a model is built on: the parameters in `f32`, on the device.
    pub fn builder(&self) -> VarBuilder<'static> {
        self.parameters.builder(DType::F32, &self.device)
    }

    /// A multilayer perceptron on this data with layers of these widths, the last being the outputs.
    pub fn mlp(&self, widths: &[usize], last: Activation) -> Result<Mlp> {
        Ok(mlp(&[&[self.data.train.features()], widths].concat(), last, self.builder())?)
    }

    /// Trains the parameters by Adam, from `--init` if it is given, on the scalar that `loss` makes of a batch's inputs and
    /// targets, prints how it goes, and writes the files that were asked for.
    ///
    /// # Errors
    /// A loss that is not finite ends the run with an error before its step is taken (on a GPU, before the next line is
    /// printed), and leaves older files as they were, the last checkpoint among them. Ctrl-C ends it after the step, with
    /// the files as of then.
    pub fn fit(&self, loss: impl FnMut(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Result<()> {
        let loss = RefCell::new(loss);
        let loss = |inputs: &Tensor, target: &Tensor| (loss.borrow_mut())(inputs, target);
        let (options, kind) = (&self.options, self.kind);
        if let Some(path) = &options.init {
            checkpoint::ensure_is_none(path)?;
            self.parameters.load(path).context("loading weights")?;
        }
        let files = Files::create(options)?;
        // What it is compared with only has to be read where there is something to compare.
        let plan = match (&options.checkpoint, &options.resume) {
            (None, None) => None,
            _ => Some(Plan::new(options.given(kind), &self.data.train, &self.parameters)?),
        };
        if let Some(path) = &options.checkpoint {
            // Tells at once if it can't be written.
            Output::create(path)?;
        }
        let lr = options.lr(kind);
        let mut adam = Adam::new(self.parameters.vars(), ParamsAdam { lr, ..Default::default() })?;
        let mut training = Training {
            epochs: options.epochs(kind),
            batch_size: options.batch_size(kind),
            seed: options.seed,
            shuffle: !options.no_shuffle,
            accumulate: options.accumulate,
            clip_norm: options.clip_norm,
            taken: 0,
        };
        let mut journal = Journal::new(&training, self.data.train.len(), kind, lr, options);
        if let (Some(path), Some(plan)) = (&options.resume, &plan) {
            let losses = checkpoint::read(path, plan, &self.parameters, &mut adam, |batches| journal.steps(batches))?;
            training.taken = journal.go_on_from(&losses);
            let epochs = journal.epochs();
            ensure!(epochs < training.epochs, "{} is {epochs} epochs on already: more --epochs?", path.display());
        }
        let keep = |adam: &Adam, journal: &mut Journal| match (&options.checkpoint, &plan) {
            (Some(path), Some(plan)) => checkpoint::write(path, plan, &self.parameters, adam, &journal.losses()?),
            _ => Ok(()),
        };
        let mut stopping = self
            .validation
            .as_ref()
            .map(|(samples, patience)| (samples, EarlyStopping::new(self.parameters.vars(), *patience)));
        let listening = interrupt::listen();
        let (start, before) = (Instant::now(), journal.losses()?.len());
        let trained =
            training.observed::<_, anyhow::Error>(&mut adam, &self.data.train, loss, |adam, event| match event {
                Event::Batch { loss, .. } => journal.record(loss),
                Event::Step { .. } if interrupt::is_asked() => Err(Interrupted.into()),
                Event::Step { .. } => Ok(()),
                Event::Epoch { epoch, .. } => {
                    // No loss was made of the last step's weights.
                    ensure!(
                        self.parameters.are_finite()?,
                        "the weights are no numbers any more after epoch {epoch}; a smaller --lr than {lr} may help"
                    );
                    journal.end_epoch(epoch)?;
                    keep(adam, &mut journal)?;
                    if let Some((samples, stopping)) = &mut stopping {
                        let value = mean_loss(samples, BATCH, loss)?;
                        ensure!(!stopping.is_over(epoch, value)?, Stopped);
                    }
                    Ok(())
                }
            });
        drop(listening);
        let interrupted = trained.as_ref().is_err_and(|error| error.is::<Interrupted>());
        let stopped = trained.as_ref().is_err_and(|error| error.is::<Stopped>());
        if !interrupted && !stopped {
            trained?;
        }
        if let Some((epoch, best)) = stopping.map(|(_, stopping)| stopping.restore()).transpose()?.flatten()
            && !options.is_quiet
        {
            eprintln!(
                "The weights are those after epoch {epoch}, where the loss on the validation part was lowest, {best:.4}."
            );
        }
        let kept = if interrupted { keep(&adam, &mut journal) } else { Ok(()) };
        let losses = journal.losses()?;
        self.trained.set(Some((losses.len() - before, start.elapsed())));
        let steps = journal.finish(interrupted)?;
        *self.losses.borrow_mut() = steps.iter().map(|&(_, loss)| f64::from(loss)).collect();
        files.write(self, &steps)?;
        kept?;
        journal.lines()?;
        if interrupted {
            let files = self.files().map_or("no file was asked for".to_owned(), |files| format!("wrote {files}"));
            eprintln!("Interrupted after {} steps; {files}.", steps.len());
            return Err(Interrupted.into());
        }
        Ok(())
    }

    /// The model's outputs on the held-out samples, or on the training samples where none were held out.
    ///
    /// # Errors
    /// Those of the model.
    pub fn report(&self, model: &impl Module) -> Result<Report> {
        Report::new(if self.data.test.is_empty() { "Training" } else { "Test" }, model, self.reported())
    }

    /// The samples that a report is of: those held out, or the training samples where none were.
    pub fn reported(&self) -> &Samples {
        let Split { train, test } = &self.data;
        if test.is_empty() { train } else { test }
    }

    /// Prints how often the nearest of 10,000 training samples, by the distance of the model's outputs, is of a held-out
    /// sample's own class.
    pub fn report_nearest_neighbours(&self, model: &impl Module) -> Result<()> {
        let report = self.report(model)?;
        let classes = nearest_classes(model, &self.data.train, &report.output)?;
        report.share("nearest-neighbour accuracy", &classes.eq(&report.target)?)
    }

    /// Draws to the file of `--plot`, beside the training curve, what came of the training.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn plot(&self, title: &str, outcome: &Outcome) -> Result<()> {
        let Some(path) = &self.options.plot else { return Ok(()) };
        write(path, plot::training_and_outcome(title, &self.losses.borrow(), outcome)?.as_bytes())
    }

    /// Draws six held-out digits on the terminal, each above what the model makes of it and what is true: a number for
    /// each, (N) or (N, 1), or tags, (N, tags), of which those are named that hold. Elsewhere, and with `--no-progress`,
    /// it does nothing.
    ///
    /// # Errors
    /// If there are fewer predictions or truths than samples.
    pub fn show_digits(&self, predictions: &Tensor, truths: &Tensor) -> Result<()> {
        let test: &Samples = &self.data.test;
        let images = test.len().min(SHOWN);
        if !self.options.is_watched() || images == 0 || test.features() != 28 * 28 {
            return Ok(());
        }
        let (inputs, _) = test.batch(None, 0, images)?;
        let pixels = inputs.reshape((images, 28, 28))?.to_vec3::<f32>()?;
        let (predictions, truths) = (described(predictions, images)?, described(truths, images)?);
        eprint!("{}", drawn(&pixels, &predictions, &truths));
        Ok(())
    }

    /// Ends a run: says on a terminal how long it took, where its files are and what to try next, which are options.
    ///
    /// # Errors
    /// None; it is the last word of an example, which ends in a result.
    pub fn finish(&self, next: &str) -> Result<()> {
        if !self.options.is_watched() {
            return Ok(());
        }
        if let Some((batches, time)) = self.trained.get() {
            let seconds = time.as_secs_f64();
            eprintln!(
                "Trained {batches} mini-batches in {seconds:.1} s, {:.0} a second.",
                batches as f64 / seconds.max(1e-9)
            );
        }
        if let Some(files) = self.files() {
            eprintln!("Files: {files}.");
        }
        let command = format!("cargo run --example {} -- {next}", example_name());
        eprintln!("Next: {}", style(command).for_stderr().cyan());
        Ok(())
    }

    /// The files that a training leaves; `None` if there are none.
    fn files(&self) -> Option<String> {
        let files = self.options.written().map(|(_, path)| path.display().to_string()).collect::<Vec<_>>();
        (!files.is_empty()).then(|| files.join(", "))
    }
}

/// That a training has ended early.
#[derive(Debug)]
struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("stopped early")
    }
}

impl std::error::Error for Stopped {}

/// The files that a run was asked to leave.
struct Files {
    save: Option<Output>,
    log: Option<Output>,
    plot: Option<Output>,
}

impl Files {
    fn create(options: &Options) -> Result<Self> {
        let create = |path: &Option<_>| path.as_deref().map(|path: &Path| Output::create(path)).transpose();
        Ok(Self { save: create(&options.save)?, log: create(&options.log)?, plot: create(&options.plot)? })
    }

    /// With epoch and loss of each step.
    fn write(self, session: &Session, steps: &[(usize, f32)]) -> Result<()> {
        if let Some(save) = self.save {
            let metadata = session.metadata.clone().map(|metadata| [metadata].into());
            save.write(&session.parameters.to_safetensors(metadata)?)?;
        }
        if let Some(mut log) = self.log {
            let mut file = BufWriter::new(log.file());
            writeln!(file, "step,epoch,loss")?;
            for (i, (epoch, loss)) in steps.iter().enumerate() {
                writeln!(file, "{},{epoch},{loss}", i + 1)?;
            }
            file.flush()?;
            drop(file);
            log.commit()?;
        }
        if let Some(plot) = self.plot {
            plot.write(plot::training_curve("Loss of each training step", &session.losses.borrow())?.as_bytes())?;
        }
        Ok(())
    }
}
