//! A small network on points of the reader's own, under a loss of the reader's choice.

use anyhow::{Result, bail, ensure};
use candle_core::{DType, Device, Module, Tensor};
use candle_losses::data::TensorDataset;
use candle_losses::loss::*;
use candle_losses::{Adam, Event, Mlp, OutputActivation, Parameters, ParamsAdam, Trainer, mlp};
use candle_nn::Optimizer;
use std::ops::ControlFlow;
use wasm_bindgen::prelude::*;

type Loss = Box<dyn Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>>;

/// A loss of numbers; `option` is its `beta` or `delta`.
fn of_numbers(name: &str, option: f64) -> Result<Loss> {
    Ok(match name {
        "l1" => Box::new(|x, y| L1Loss::default().forward(x, y)),
        "mse" => Box::new(|x, y| MseLoss::default().forward(x, y)),
        "smooth_l1" => Box::new(move |x, y| SmoothL1Loss { beta: option, ..Default::default() }.forward(x, y)),
        "huber" => Box::new(move |x, y| HuberLoss { delta: option, ..Default::default() }.forward(x, y)),
        _ => bail!("{name} is no loss of numbers here"),
    })
}

/// A loss of two classes; `option` is its `label_smoothing` or `margin`.
fn of_classes(name: &str, option: f64) -> Result<Loss> {
    Ok(match name {
        "cross_entropy" => {
            Box::new(move |x, y| CrossEntropyLoss { label_smoothing: option, ..Default::default() }.forward(x, y))
        }
        "multi_margin" => Box::new(move |x, y| MultiMarginLoss { margin: option, ..Default::default() }.forward(x, y)),
        "mse" => Box::new(|x, y| {
            let yes_and_no = Tensor::eye(2, DType::F32, x.device())?.index_select(y, 0)?;
            MseLoss::default().forward(x, &yes_and_no)
        }),
        _ => bail!("{name} is no loss of classes here"),
    })
}

/// A network that learns a number from a number, or one of two classes from two; all points at each step.
#[wasm_bindgen]
pub struct Learner {
    inputs: usize,
    model: Mlp,
    adam: Adam,
    loss: Loss,
    samples: TensorDataset,
}

impl Learner {
    /// `points` are the inputs of each, one after the other, and `targets` a number or a class, 0 or 1, for each.
    pub fn of(task: &str, loss: &str, option: f64, points: &[f32], targets: &[f32], seed: u64) -> Result<Self> {
        let (widths, loss): (&[usize], _) = match task {
            "numbers" => (&[1, 16, 1], of_numbers(loss, option)?),
            "classes" => (&[2, 32, 32, 2], of_classes(loss, option)?),
            _ => bail!("a task is numbers or classes"),
        };
        let parameters = Parameters::seeded(seed);
        let model = mlp(widths, OutputActivation::Linear, parameters.var_builder(DType::F32, &Device::Cpu))?;
        let adam = Adam::new(parameters.trainable_vars(), ParamsAdam { lr: 5e-3, ..Default::default() })?;
        let samples = samples(widths[0], points, targets)?;
        let learner = Self { inputs: widths[0], model, adam, loss, samples };
        // An option that the loss refuses is told at once.
        let (x, y) = learner.samples.batch(None, 0, 1)?;
        (learner.loss)(&learner.model.forward(&x)?, &y)?;
        Ok(learner)
    }

    /// Takes so many steps; the loss before the last of them.
    pub fn learn(&mut self, steps: usize) -> Result<f32> {
        let mut last = f32::NAN;
        let trainer = Trainer { epochs: steps, batch_size: self.samples.len(), shuffle: false, ..Default::default() };
        let loss = |x: &Tensor, y: &Tensor| (self.loss)(&self.model.forward(x)?, y);
        trainer.fit_with::<_, _, anyhow::Error>(&mut self.adam, &self.samples, loss, |_, event| {
            if let Event::Batch { loss, .. } = event {
                last = loss.to_scalar()?;
                ensure!(last.is_finite(), "the loss is {last}");
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(last)
    }

    /// What the network makes of each of these points: a number, or the two classes' scores.
    pub fn predict(&self, points: &[f32]) -> Result<Vec<f32>> {
        let x = Tensor::new(points, &Device::Cpu)?.reshape(((), self.inputs))?;
        Ok(self.model.forward(&x)?.detach().flatten_all()?.to_vec1()?)
    }
}

fn samples(inputs: usize, points: &[f32], targets: &[f32]) -> Result<TensorDataset> {
    ensure!(points.iter().chain(targets).all(|number| number.is_finite()), "a point is no number");
    let x = Tensor::new(points, &Device::Cpu)?.reshape(((), inputs))?;
    let y = Tensor::new(targets, &Device::Cpu)?;
    let y = if inputs == 1 { y.unsqueeze(1)? } else { y.to_dtype(DType::U32)? };
    Ok(TensorDataset::new(x, y)?)
}

#[wasm_bindgen]
impl Learner {
    #[wasm_bindgen(constructor)]
    pub fn new(
        task: &str,
        loss: &str,
        option: f64,
        points: &[f32],
        targets: &[f32],
        seed: u32,
    ) -> Result<Self, JsError> {
        Self::of(task, loss, option, points, targets, seed.into()).map_err(|error| crate::js_error(&error))
    }

    /// Goes on with other points.
    pub fn replace(&mut self, points: &[f32], targets: &[f32]) -> Result<(), JsError> {
        self.samples = samples(self.inputs, points, targets).map_err(|error| crate::js_error(&error))?;
        Ok(())
    }

    pub fn train(&mut self, steps: usize) -> Result<f32, JsError> {
        self.learn(steps).map_err(|error| crate::js_error(&error))
    }

    pub fn outputs(&self, points: &[f32]) -> Result<Vec<f32>, JsError> {
        self.predict(points).map_err(|error| crate::js_error(&error))
    }
}
