//! What the book's pages compute with. A page holds what is drawn and typed; losses, gradients and training steps are
//! those of candle-losses, and the trainings are the examples themselves.

pub mod cli;
pub mod mistakes;
pub mod playground;
pub mod sections;
#[path = "../../../examples/common/views.rs"]
pub mod views;

// Where the parts of the crate that are compiled here as well look for them.
use candle_losses::{data, loss};

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use candle_nn::{Optimizer, SGD};
use cli::{Found, Run, Shown, Task, Visit};
use sections::{SECTIONS, Section};
use serde::Serialize;
use views::{Control, View, value_and_slope};
use wasm_bindgen::prelude::*;

/// An error in one line, for the page.
fn told(error: &anyhow::Error) -> JsError {
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
    described().map_err(|error| told(&error))
}

/// The loss at each of several places, then its derivative at each.
#[wasm_bindgen]
pub fn curve(name: &str, places: &[f64], values: &[f64]) -> Result<Vec<f64>, JsError> {
    value_and_slope_of(name, places, values).map_err(|error| told(&error))
}

/// The same, with an error for those who are no page.
pub fn value_and_slope_of(name: &str, places: &[f64], values: &[f64]) -> Result<Vec<f64>> {
    let view = view(name)?;
    ensure!(values.len() == view.controls.len(), "{name} has {} controls", view.controls.len());
    for (control, value) in view.controls.iter().zip(values) {
        ensure!(value.is_finite(), "{} needs a number", control.name);
    }
    let (value, slope) = value_and_slope(view, places, values)?;
    Ok([value, slope].concat())
}

/// What the crate refuses of a mistake, and what it says to it; nothing where it can't know.
#[wasm_bindgen]
pub fn refusal(name: &str) -> Option<Vec<String>> {
    let mistake = mistakes::MISTAKES.iter().find(|mistake| mistake.view.name == name)?;
    let (what, call) = mistake.refused?;
    Some(vec![what.to_owned(), call().err()?.to_string()])
}

/// A training of a section's example, which goes on as far as it is asked to.
#[wasm_bindgen]
pub struct Trainer {
    section: &'static Section,
    arguments: Vec<String>,
    run: Run,
}

/// What a page shows of a training, as JSON.
#[derive(Serialize)]
struct Outcome<'a> {
    lines: &'a [String],
    shown: &'a [Shown],
}

impl Trainer {
    /// The example of this name, with what stands after `--` on its command line.
    pub fn of(name: &str, arguments: Vec<String>) -> Result<Self> {
        let section = SECTIONS.iter().find(|section| section.name == name);
        let section = section.with_context(|| format!("{name} is no section that trains here"))?;
        let mut trainer = Self { section, arguments, run: Run::default() };
        // Options that can't be are told at once.
        trainer.visit(Task::Describe)?;
        Ok(trainer)
    }

    fn visit(&mut self, task: Task) -> Result<Found> {
        let (arguments, run) = (self.arguments.clone(), std::mem::take(&mut self.run));
        let visit = Visit { arguments, task, run, found: Found::default() }.pay(self.section.main);
        self.run = visit.run;
        match visit.found.error {
            Some(error) => Err(error),
            None => Ok(visit.found),
        }
    }

    /// Takes so many steps, or as many as are left; their losses.
    pub fn go(&mut self, steps: usize) -> Result<Vec<f32>> {
        Ok(self.visit(Task::Train(steps))?.losses)
    }

    /// What the example prints at its end.
    pub fn report_lines(&mut self) -> Result<Vec<String>> {
        Ok(self.visit(Task::Report)?.lines)
    }

    fn outcome(&mut self, task: Task) -> Result<String> {
        let Found { lines, shown, .. } = self.visit(task)?;
        Ok(serde_json::to_string(&Outcome { lines: &lines, shown: &shown })?)
    }
}

#[wasm_bindgen]
impl Trainer {
    #[wasm_bindgen(constructor)]
    pub fn new(name: &str, arguments: Vec<String>) -> Result<Self, JsError> {
        Self::of(name, arguments).map_err(|error| told(&error))
    }

    /// The example's options, as JSON.
    pub fn options(&mut self) -> Result<String, JsError> {
        let described = self.visit(Task::Describe).and_then(|found| Ok(serde_json::to_string(&found.description)?));
        described.map_err(|error| told(&error))
    }

    /// Takes so many steps, or as many as are left; their losses.
    pub fn step(&mut self, steps: usize) -> Result<Vec<f32>, JsError> {
        self.go(steps).map_err(|error| told(&error))
    }

    /// The held-out figures as the example prints them, and what it makes of the first images, as JSON.
    pub fn report(&mut self) -> Result<String, JsError> {
        self.outcome(Task::Report).map_err(|error| told(&error))
    }

    /// The same of one image of 28×28 pixels.
    pub fn look(&mut self, pixels: Vec<u8>) -> Result<String, JsError> {
        self.outcome(Task::Look(pixels)).map_err(|error| told(&error))
    }

    /// Steps so far.
    #[wasm_bindgen(getter)]
    pub fn taken(&self) -> usize {
        self.run.taken
    }

    /// Steps in all; known once one is taken.
    #[wasm_bindgen(getter)]
    pub fn total(&self) -> usize {
        self.run.total
    }

    /// The pass over the samples, counted from 1.
    #[wasm_bindgen(getter)]
    pub fn epoch(&self) -> usize {
        self.run.epoch
    }
}

/// One step of a model with one weight, `prediction = weight · input`, against the squared error: the prediction, the loss,
/// its gradient by the weight, and the weight after a step of gradient descent.
#[wasm_bindgen]
pub fn one_step(weight: f64, input: f64, target: f64, lr: f64) -> Result<Vec<f64>, JsError> {
    step_of_one(weight, input, target, lr).map_err(|error| told(&error))
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
