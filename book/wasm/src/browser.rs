//! Runs an example on a page of the book.
//!
//! An example runs from its first line to its last, but a page wants to look in between, to pause and to resume. So the example is run
//! again for each task: what was trained so far is kept between two runs, and a run ends after so many steps. A task can also be to
//! describe the options, to report how good the model is, or to show what it makes of one image.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use candle_losses::data::{TensorDataset, TrainTestSplit};
use candle_losses::{Adam, Checkpoint};
use clap::ArgAction;
use sections::Section;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::rc::Rc;
use suite::{Digit, Frontend, Options, Preset, Run, RunEvent, Ui};

/// What an example is run for.
#[derive(Clone)]
pub enum Task {
    /// Describe its options.
    Describe,
    /// Train for this many steps, or until the end.
    Train(usize),
    /// Report the metrics on held-out samples.
    Report,
    /// Predict an image of 28×28 pixels.
    Look(Vec<u8>),
}

/// The data that was loaded last, with its name: datasets of two trainings may be more than a page has memory for.
pub type Loaded = Rc<RefCell<Option<(String, TrainTestSplit)>>>;

/// The training state that is kept between two runs of the example.
#[derive(Default)]
struct Kept {
    checkpoint: Option<Checkpoint>,
    losses: Vec<f32>,
}

/// An example that is run for one task after the other.
pub struct Browser {
    section: &'static Section,
    arguments: Vec<String>,
    loaded: Loaded,
    task: RefCell<Task>,
    kept: RefCell<Kept>,
    found: RefCell<Found>,
    /// The step that the task ends with.
    last: Cell<usize>,
    /// The position of the training run.
    pub position: Cell<Position>,
}

/// The position of a training run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Position {
    /// Steps so far.
    pub completed_steps: usize,
    /// All steps of the run; known once one is taken.
    pub total_steps: usize,
    /// The epoch, counted from 1.
    pub epoch: usize,
}

/// What a task has found out.
#[derive(Default)]
pub struct Found {
    pub description: Description,
    /// The losses of the mini-batches that were trained on.
    pub losses: Vec<f32>,
    /// The lines of the report.
    pub lines: Vec<String>,
    pub shown: Vec<Shown>,
}

/// An example's options, and their defaults.
#[derive(Default, Serialize)]
pub struct Description {
    options: Vec<Described>,
    is_of_digits: bool,
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

/// An image, and what the model makes of it.
#[derive(Serialize)]
pub struct Shown {
    pub pixels: Vec<u8>,
    pub prediction: String,
    pub truth: String,
}

/// The task is done before the example has ended.
#[derive(Debug)]
struct Done;

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("the task is done")
    }
}

impl std::error::Error for Done {}

impl Browser {
    /// An example with what follows `--` on its command line.
    pub fn new(section: &'static Section, arguments: Vec<String>, loaded: Loaded) -> Rc<Self> {
        Rc::new(Self {
            section,
            arguments,
            loaded,
            task: RefCell::new(Task::Describe),
            kept: RefCell::default(),
            found: RefCell::default(),
            last: Cell::default(),
            position: Cell::default(),
        })
    }

    /// Runs the example for a task.
    ///
    /// # Errors
    /// Those of the example.
    pub fn run(self: &Rc<Self>, task: Task) -> Result<Found> {
        *self.task.borrow_mut() = task;
        *self.found.borrow_mut() = Found::default();
        let arguments = [self.section.name].into_iter().map(OsString::from);
        let arguments = arguments.chain(self.arguments.iter().map(OsString::from)).collect();
        match (self.section.run)(arguments, &(self.clone() as Ui)) {
            Err(error) if !error.is::<Done>() => Err(error),
            _ => Ok(self.found.take()),
        }
    }

    fn load(&self, run: &mut Run, adam: &mut Adam) -> Result<ControlFlow<()>> {
        let kept = self.kept.borrow();
        if let Some(checkpoint) = &kept.checkpoint {
            checkpoint.restore(run.session.parameters(), adam)?;
            run.resume(kept.losses.clone());
        }
        let completed_steps = run.trainer.completed_steps;
        self.position.set(Position { completed_steps, total_steps: run.total_steps(), ..self.position.get() });
        match *self.task.borrow() {
            Task::Train(steps) if steps > 0 => {
                self.last.set(completed_steps.saturating_add(steps));
                Ok(ControlFlow::Continue(()))
            }
            _ => {
                run.is_interrupted = true;
                Ok(ControlFlow::Break(()))
            }
        }
    }

    fn keep(&self, run: &mut Run, adam: &Adam) -> Result<()> {
        let mut kept = self.kept.borrow_mut();
        let losses = run.losses()?.to_vec();
        kept.checkpoint = Some(Checkpoint::new(run.session.parameters(), adam, run.steps(losses.len()))?);
        self.found.borrow_mut().losses = losses[kept.losses.len()..].to_vec();
        kept.losses = losses;
        Ok(())
    }
}

impl Frontend for Browser {
    fn print(&self, line: &str) -> Result<()> {
        self.found.borrow_mut().lines.push(line.to_owned());
        Ok(())
    }

    fn started(&self, options: &Options, preset: Preset) -> Result<()> {
        if !matches!(*self.task.borrow(), Task::Describe) {
            return Ok(());
        }
        self.found.borrow_mut().description = Description {
            options: described(&(self.section.command)()),
            is_of_digits: preset == Preset::Digits,
            epochs: preset.epochs(),
            batch_size: preset.batch_size(),
            lr: preset.lr(),
            reduction: options.recorded("--reduction").unwrap_or_default(),
        };
        Err(Done.into())
    }

    fn data(&self, name: &str, load: &mut dyn FnMut() -> Result<TrainTestSplit>) -> Result<TrainTestSplit> {
        let loaded = self.loaded.borrow().clone().filter(|(loaded, _)| !name.is_empty() && loaded == name);
        let mut data = match loaded {
            Some((_, data)) => data,
            None => {
                self.loaded.take();
                let data = load()?;
                *self.loaded.borrow_mut() = Some((name.to_owned(), data.clone()));
                data
            }
        };
        if let Task::Look(pixels) = &*self.task.borrow() {
            let image = Tensor::from_vec(pixels.clone(), (1, 28, 28), &Device::Cpu)?;
            data.test = TensorDataset::images(image, Tensor::new(&[0u32], &Device::Cpu)?)?;
        }
        Ok(data)
    }

    fn observe(&self, run: &mut Run, adam: &mut Adam, event: RunEvent) -> Result<ControlFlow<()>> {
        let mut position = self.position.get();
        match event {
            RunEvent::Start => return self.load(run, adam),
            RunEvent::Batch => position.epoch = (run.batches() - 1) / run.batches_in_epoch() + 1,
            RunEvent::Step => position.completed_steps += 1,
            RunEvent::Epoch => {}
            RunEvent::End if matches!(*self.task.borrow(), Task::Train(_)) => {
                self.keep(run, adam)?;
                return Err(Done.into());
            }
            RunEvent::End | RunEvent::Failure => {}
        }
        self.position.set(position);
        if event == RunEvent::Step && position.completed_steps == self.last.get() {
            run.is_interrupted = true;
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }

    fn max_digits(&self) -> usize {
        10
    }

    fn show_digits(&self, digits: &[Digit]) {
        let shown = digits.iter().map(|digit| Shown {
            pixels: digit.pixels.iter().map(|pixel| (pixel * 255.0).round() as u8).collect(),
            prediction: digit.prediction.clone(),
            truth: digit.truth.clone(),
        });
        self.found.borrow_mut().shown = shown.collect();
    }
}

fn described(command: &clap::Command) -> Vec<Described> {
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
    options.collect()
}

/// The example of this name.
///
/// # Errors
/// If there is none.
pub fn section(name: &str) -> Result<&'static Section> {
    let section = sections::SECTIONS.iter().find(|section| section.name == name);
    section.with_context(|| format!("{name} is not an example that trains here"))
}
