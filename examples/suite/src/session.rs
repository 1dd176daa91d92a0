use crate::frontend::{Digit, RunEvent, Ui};
use crate::metrics::{BATCH, described, nearest_classes};
use crate::options::Options;
use crate::preset::Preset;
use crate::progress::Run;
use crate::report::Report;
use anyhow::{Result, ensure};
use candle_core::{DType, Device, Module, Tensor};
use candle_losses::data::{TensorDataset, TrainTestSplit, TupleSampler};
use candle_losses::{
    Adam, EarlyStopping, Event, Mlp, OutputActivation, Parameters, ParamsAdam, Trainer, evaluate, mlp,
};
use candle_nn::{Optimizer, VarBuilder};
use std::cell::{Ref, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;

/// A run of an example: its options, its device, its data, and the parameters of its model.
#[derive(Clone)]
pub struct Session {
    options: Options,
    preset: Preset,
    device: Device,
    data: TrainTestSplit,
    parameters: Parameters,
    ui: Ui,
    /// The samples that decide when to stop, and for how many epochs their loss may not improve.
    validation: Option<(TensorDataset, usize)>,
    /// What the saved file has beside the weights, by name.
    metadata: Option<(String, String)>,
    /// The epoch and the loss of each step, once trained.
    steps: Rc<RefCell<Vec<(usize, f32)>>>,
}

impl Session {
    /// A session on data that is on `device`.
    ///
    /// # Errors
    /// If a file is named to be written that another option reads or writes, too.
    pub fn new(options: Options, preset: Preset, data: TrainTestSplit, device: Device, ui: &Ui) -> Result<Self> {
        #[cfg(feature = "terminal")]
        options.check_files(&[], &[])?;
        ui.started(&options, preset)?;
        Self::with(options, preset, ui.data("", &mut || Ok(data.clone()))?, device, ui)
    }

    pub(crate) fn with(
        options: Options,
        preset: Preset,
        data: TrainTestSplit,
        device: Device,
        ui: &Ui,
    ) -> Result<Self> {
        let train = data.train.take(options.limit.unwrap_or(usize::MAX))?;
        let parameters = Parameters::seeded(options.seed);
        let data = TrainTestSplit { train, ..data };
        let (ui, steps) = (ui.clone(), Rc::default());
        Ok(Self { options, preset, device, data, parameters, ui, validation: None, metadata: None, steps })
    }

    /// The same session with metadata of its own, by name, in the file of `--save`.
    pub fn with_metadata(self, metadata: (String, String)) -> Self {
        Self { metadata: Some(metadata), ..self }
    }

    /// The same session, which ends when the loss on these samples has not improved for `patience` epochs, with the weights of the
    /// best epoch. Without samples it trains to its last epoch.
    pub fn with_validation(self, samples: TensorDataset, patience: usize) -> Self {
        Self { validation: (!samples.is_empty()).then_some((samples, patience)), ..self }
    }

    /// The same session with other targets, computed once from those of the data.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn with_targets(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Ok(Self { data: self.data.map_targets(f)?, ..self.clone() })
    }

    /// The same session on tuples of images: one for each image, whose members `draw` chooses. The targets are the classes,
    /// (N, members). The images of a batch are those of its first tuple, then those of the second, and so on.
    ///
    /// # Errors
    /// If the targets are not classes.
    pub fn with_tuples<const N: usize>(&self, draw: impl Fn(&mut TupleSampler) -> [u32; N]) -> Result<Self> {
        Ok(Self { data: self.data.sample_tuples(draw, self.options.seed)?, ..self.clone() })
    }

    /// The same session, if its inputs have as many elements as the model needs.
    ///
    /// # Errors
    /// If they have another number, such as the images of another dataset.
    pub fn expect_features(self, features: usize) -> Result<Self> {
        let found = self.data.train.features();
        ensure!(
            found == features,
            "the inputs have {found} elements each, but this model needs {features}; choose another dataset"
        );
        Ok(self)
    }

    /// The device of the data and the model.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The data.
    pub fn data(&self) -> &TrainTestSplit {
        &self.data
    }

    /// The parameters of the model, drawn by the seed.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// How to train.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The defaults that go with the data.
    pub fn preset(&self) -> Preset {
        self.preset
    }

    /// What shows this session.
    pub fn ui(&self) -> &Ui {
        &self.ui
    }

    /// What the saved file has beside the weights.
    pub fn metadata(&self) -> Option<&(String, String)> {
        self.metadata.as_ref()
    }

    #[cfg(feature = "terminal")]
    pub(crate) fn validation(&self) -> Option<&(TensorDataset, usize)> {
        self.validation.as_ref()
    }

    /// The epoch and the loss of each step, once trained.
    pub fn steps(&self) -> Ref<'_, Vec<(usize, f32)>> {
        self.steps.borrow()
    }

    /// What a model is built on: the parameters in `f32`, on the device.
    pub fn var_builder(&self) -> VarBuilder<'static> {
        self.parameters.var_builder(DType::F32, &self.device)
    }

    /// A multilayer perceptron on this data with layers of these widths; the last one is the number of outputs.
    ///
    /// # Errors
    /// If a width is 0.
    pub fn mlp(&self, widths: &[usize], last: OutputActivation) -> Result<Mlp> {
        Ok(mlp(&[&[self.data.train.features()], widths].concat(), last, self.var_builder())?)
    }

    /// Trains the parameters with Adam on the scalar that `loss` computes from the inputs and targets of a batch, and prints the
    /// losses. On a terminal it starts from `--init` or `--resume`, and writes the files that were asked for.
    ///
    /// # Errors
    /// A loss that is not finite ends the run with an error before the step against it (on a GPU, before the next line is printed),
    /// and leaves older files as they were, the last checkpoint among them.
    pub fn fit(&self, mut loss: impl FnMut(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Result<()> {
        ensure!(self.validation.is_none(), "a session with validation samples needs fit_validated");
        self.fit_dyn(&mut loss, &|_, _| candle_core::bail!("there are no validation samples"))
    }

    /// Trains like [`fit`](Self::fit), and evaluates `validation_loss` on the validation samples, if there are any, after each epoch. It is a closure of
    /// its own, so that a model with dropout or running statistics is in evaluation mode there.
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit).
    pub fn fit_validated(
        &self,
        mut loss: impl FnMut(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
        validation_loss: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<()> {
        self.fit_dyn(&mut loss, &validation_loss)
    }

    /// Compiled once, not for each example's loss.
    fn fit_dyn(
        &self,
        loss: &mut dyn FnMut(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
        validation_loss: &dyn Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<()> {
        let (options, preset) = (&self.options, self.preset);
        let lr = options.lr(preset);
        let mut adam = Adam::new(self.parameters.trainable_vars(), ParamsAdam { lr, ..Default::default() })?;
        let trainer = Trainer {
            epochs: options.epochs(preset),
            batch_size: options.batch_size(preset),
            seed: options.seed,
            shuffle: !options.no_shuffle,
            accumulate: options.accumulate,
            clip_norm: options.clip_norm,
            ..Default::default()
        };
        let stopping = self.validation.as_ref();
        let stopping = stopping.map(|(_, patience)| EarlyStopping::new(self.parameters.all_vars(), *patience));
        let mut run = Run::new(self, trainer, stopping);
        let trained = self.train(&mut run, &mut adam, loss, validation_loss);
        if trained.is_err() {
            let _ = self.ui.observe(&mut run, &mut adam, RunEvent::Failure);
        }
        trained
    }

    fn train(
        &self,
        run: &mut Run,
        adam: &mut Adam,
        loss: &mut dyn FnMut(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
        validation_loss: &dyn Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<()> {
        let is_ended = self.ui.observe(run, adam, RunEvent::Start)?.is_break();
        if !is_ended {
            let trainer = run.trainer.clone();
            trainer.fit_with(adam, &self.data.train, loss, |adam, event| match event {
                Event::Batch { loss, .. } => {
                    run.record(loss)?;
                    self.ui.observe(run, adam, RunEvent::Batch)
                }
                Event::Step { .. } => self.ui.observe(run, adam, RunEvent::Step),
                Event::Epoch { epoch, .. } => {
                    run.end_epoch(epoch)?;
                    let mut flow = ControlFlow::Continue(());
                    if let (Some((samples, _)), Some(stopping)) = (&self.validation, &mut run.stopping)
                        && stopping.should_stop(evaluate(samples, BATCH, validation_loss)?)?
                    {
                        flow = ControlFlow::Break(());
                    }
                    let ended = self.ui.observe(run, adam, RunEvent::Epoch)?;
                    Ok::<_, anyhow::Error>(if ended.is_break() { ended } else { flow })
                }
                _ => Ok(ControlFlow::Continue(())),
            })?;
        }
        if let Some(stopping) = &run.stopping
            && let Some(best) = stopping.best()
        {
            stopping.restore()?;
            if !self.options.is_quiet {
                self.ui.note(&format!(
                    "The weights are those of epoch {}, which has the lowest validation loss, {:.4}.",
                    best.epoch, best.loss
                ));
            }
        }
        *self.steps.borrow_mut() = run.step_losses()?;
        if !run.is_interrupted {
            run.print("Training process has finished.")?;
        }
        // Training is over, so there is no flow to control.
        let _ = self.ui.observe(run, adam, RunEvent::End)?;
        Ok(())
    }

    /// The outputs of the model on the held-out samples, or on the training samples if none were held out.
    ///
    /// # Errors
    /// Those of the model.
    pub fn report(&self, model: &impl Module) -> Result<Report> {
        let part = if self.data.test.is_empty() { "Training" } else { "Test" };
        Report::new(part, model, self.eval_dataset(), &self.ui)
    }

    /// The samples of a report: those held out, or the training samples if none were.
    pub fn eval_dataset(&self) -> &TensorDataset {
        let TrainTestSplit { train, test } = &self.data;
        if test.is_empty() { train } else { test }
    }

    /// Prints how often the nearest of 10,000 training samples, by the distance of the model's outputs, has the class of the held-out
    /// sample.
    ///
    /// # Errors
    /// Those of the model.
    pub fn report_nearest_neighbors(&self, model: &impl Module) -> Result<()> {
        let report = self.report(model)?;
        let classes = nearest_classes(model, &self.data.train, &report.output)?;
        report.rate("nearest-neighbor accuracy", &classes.eq(&report.target)?)
    }

    /// Shows held-out digits, if the frontend can, each with what the model makes of it and what is true: a number for each, (N) or
    /// (N, 1), or tags, (N, tags), of which those that are set are named.
    ///
    /// # Errors
    /// If there are fewer predictions or truths than digits.
    pub fn show_digits(&self, predictions: &Tensor, truths: &Tensor) -> Result<()> {
        let test = &self.data.test;
        let images = test.len().min(self.ui.max_digits());
        if images == 0 || test.features() != 28 * 28 {
            return Ok(());
        }
        let (inputs, _) = test.batch(None, 0, images)?;
        let pixels = inputs.reshape((images, 28 * 28))?.to_vec2::<f32>()?;
        let words = described(predictions, images)?.into_iter().zip(described(truths, images)?);
        let digits = pixels.into_iter().zip(words);
        let digits = digits.map(|(pixels, (prediction, truth))| Digit { pixels, prediction, truth });
        self.ui.show_digits(&digits.collect::<Vec<_>>());
        Ok(())
    }

    /// Ends a session; `next` are options to try next.
    ///
    /// # Errors
    /// None; an example ends in a result.
    pub fn finish(&self, next: &str) -> Result<()> {
        self.ui.finish(next);
        Ok(())
    }
}
