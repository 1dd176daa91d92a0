//! The computations of the book's pages. A page handles drawing and input; candle-losses computes losses, gradients and training
//! steps, and the examples themselves are trained.

pub mod browser;
pub mod mistakes;
pub mod playground;

use anyhow::{Context, Result, ensure};
use browser::{Browser, Found, Loaded, Shown, Task};
use candle_core::{Device, Tensor, Var};
use candle_losses::loss;
use candle_nn::{Optimizer, SGD};
use serde::Serialize;
use std::rc::Rc;
use suite::views::{self, Control, View, value_and_grad};
use wasm_bindgen::prelude::*;

/// An error in one line, for the page.
fn js_error(error: &anyhow::Error) -> JsError {
    JsError::new(&format!("{error:#}"))
}

fn view(name: &str) -> Result<&'static View> {
    let mistakes = mistakes::MISTAKES.iter().map(|mistake| &mistake.view);
    views::LOSSES.iter().chain(mistakes).find(|view| view.name == name).with_context(|| format!("there is no {name}"))
}

/// What a page must know of a curve before it draws it.
#[derive(Serialize)]
struct Described<'a> {
    title: &'a str,
    x: &'a str,
    range: [f64; 2],
    controls: Vec<Turned<'a>>,
}

#[derive(Serialize)]
struct Turned<'a> {
    name: &'a str,
    range: [f64; 2],
    default: f64,
    choices: &'a [(f64, &'a str)],
    is_on_axis: bool,
}

/// Title, axis and controls of a loss or a mistake, as JSON.
#[wasm_bindgen]
pub fn describe(name: &str) -> Result<String, JsError> {
    let described = || {
        let &View { title, x, range, controls, .. } = view(name)?;
        let turned = |&Control { name, range, default, choices, is_on_axis }| Turned {
            name,
            range,
            default,
            choices,
            is_on_axis,
        };
        Ok(serde_json::to_string(&Described { title, x, range, controls: controls.iter().map(turned).collect() })?)
    };
    described().map_err(|error| js_error(&error))
}

/// The loss at each of several places, then its derivative at each.
#[wasm_bindgen]
pub fn curve(name: &str, places: &[f64], values: &[f64]) -> Result<Vec<f64>, JsError> {
    curve_values(name, places, values).map_err(|error| js_error(&error))
}

/// The same, with an error for those who are no page.
pub fn curve_values(name: &str, places: &[f64], values: &[f64]) -> Result<Vec<f64>> {
    let view = view(name)?;
    ensure!(values.len() == view.controls.len(), "{name} has {} controls", view.controls.len());
    for (control, value) in view.controls.iter().zip(values) {
        ensure!(value.is_finite(), "{} needs a number", control.name);
    }
    let (value, slope) = value_and_grad(view, places, values)?;
    Ok([value, slope].concat())
}

/// What the crate refuses of a mistake, and what it says to it; nothing where it can't know.
#[wasm_bindgen]
pub fn refusal(name: &str) -> Option<Vec<String>> {
    let mistake = mistakes::MISTAKES.iter().find(|mistake| mistake.view.name == name)?;
    let (what, call) = mistake.refused?;
    Some(vec![what.to_owned(), call().err()?.to_string()])
}

/// The data of the page's trainings, so that it is loaded only once.
#[wasm_bindgen]
#[derive(Default)]
pub struct DataCache(Loaded);

#[wasm_bindgen]
impl DataCache {
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }
}

/// A training run of an example, advanced step by step.
#[wasm_bindgen]
pub struct Training(Rc<Browser>);

/// What a page shows of a training, as JSON.
#[derive(Serialize)]
struct Outcome<'a> {
    lines: &'a [String],
    shown: &'a [Shown],
}

impl Training {
    /// The example of this name, with what follows `--` on its command line.
    pub fn of(name: &str, arguments: Vec<String>, cache: &DataCache) -> Result<Self> {
        let training = Self(Browser::new(browser::section(name)?, arguments, cache.0.clone()));
        // Options that are wrong are refused at once.
        training.0.run(Task::Describe)?;
        Ok(training)
    }

    /// Takes so many steps, or as many as are left; returns their losses.
    pub fn train(&self, steps: usize) -> Result<Vec<f32>> {
        Ok(self.0.run(Task::Train(steps))?.losses)
    }

    /// What the example prints at its end.
    pub fn report_lines(&self) -> Result<Vec<String>> {
        Ok(self.0.run(Task::Report)?.lines)
    }

    fn outcome(&self, task: Task) -> Result<String> {
        let Found { lines, shown, .. } = self.0.run(task)?;
        Ok(serde_json::to_string(&Outcome { lines: &lines, shown: &shown })?)
    }
}

#[wasm_bindgen]
impl Training {
    #[wasm_bindgen(constructor)]
    pub fn new(name: &str, arguments: Vec<String>, cache: &DataCache) -> Result<Self, JsError> {
        Self::of(name, arguments, cache).map_err(|error| js_error(&error))
    }

    /// The example's options, as JSON.
    pub fn options(&self) -> Result<String, JsError> {
        let described = self.0.run(Task::Describe).and_then(|found| Ok(serde_json::to_string(&found.description)?));
        described.map_err(|error| js_error(&error))
    }

    /// Takes so many steps, or as many as are left; returns their losses.
    pub fn step(&self, steps: usize) -> Result<Vec<f32>, JsError> {
        self.train(steps).map_err(|error| js_error(&error))
    }

    /// The held-out metrics as the example prints them, and what it makes of the first images, as JSON.
    pub fn report(&self) -> Result<String, JsError> {
        self.outcome(Task::Report).map_err(|error| js_error(&error))
    }

    /// The same for one image of 28×28 pixels.
    pub fn look(&self, pixels: Vec<u8>) -> Result<String, JsError> {
        self.outcome(Task::Look(pixels)).map_err(|error| js_error(&error))
    }

    /// Steps so far.
    #[wasm_bindgen(getter)]
    pub fn taken(&self) -> usize {
        self.0.position.get().completed_steps
    }

    /// Steps in all; known once one is taken.
    #[wasm_bindgen(getter)]
    pub fn total(&self) -> usize {
        self.0.position.get().total_steps
    }

    /// The epoch, counted from 1.
    #[wasm_bindgen(getter)]
    pub fn epoch(&self) -> usize {
        self.0.position.get().epoch
    }
}

/// One step of a model with one weight, `prediction = weight · input`, against the squared error: the prediction, the loss,
/// its gradient by the weight, and the weight after a step of gradient descent.
#[wasm_bindgen]
pub fn one_step(weight: f64, input: f64, target: f64, lr: f64) -> Result<Vec<f64>, JsError> {
    step_of_one(weight, input, target, lr).map_err(|error| js_error(&error))
}

/// The same, with an error for those who are no page.
pub fn step_of_one(weight: f64, input: f64, target: f64, lr: f64) -> Result<Vec<f64>> {
    let number = |value: f64| Tensor::new(value, &Device::Cpu);
    let (input, target) = (number(input)?, number(target)?);
    let weight = Var::from_tensor(&number(weight)?)?;
    let model = |input: &Tensor| weight.as_tensor() * input;
    let mut optimizer = SGD::new(vec![weight.clone()], lr)?;
    // ANCHOR: four_steps
    let prediction = model(&input)?; // forward
    let loss = loss::MseLoss::default().forward(&prediction, &target)?; // loss
    let gradients = loss.backward()?; // backward
    optimizer.step(&gradients)?; // step
    // ANCHOR_END: four_steps
    let gradient = gradients.get(&weight).context("the weight has a gradient")?.to_scalar()?;
    Ok(vec![prediction.to_scalar()?, loss.to_scalar()?, gradient, weight.to_scalar()?])
}
