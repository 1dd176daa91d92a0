//! Each loss as a curve over one number, with all that can be turned: what the gallery draws and what the book lets its
//! readers move.
//!
//! A curve is what the loss itself makes of a batch of predictions; a derivative is what backward gives.

use candle_core::{DType, Device, Result, Tensor, Var, bail};
use candle_losses::loss::*;
use std::sync::Arc;

/// A loss as a curve over one number.
pub struct View {
    /// The example's name, and the pictures'.
    pub name: &'static str,
    pub title: &'static str,
    /// What the number is.
    pub x: &'static str,
    pub range: [f64; 2],
    pub controls: &'static [Control],
    /// The values of the controls that tell most, a line of a picture each.
    pub lines: &'static [&'static [f64]],
    /// The loss at each of several numbers, (N) to (N), under the values of the controls.
    pub curve: fn(&Tensor, &[f64]) -> Result<Tensor>,
}

/// What can be turned.
pub struct Control {
    pub name: &'static str,
    pub range: [f64; 2],
    pub default: f64,
    /// The only values there are, if not all between the ends of the range, in words where a number says too little.
    pub choices: &'static [(f64, &'static str)],
    /// Whether it lies on the axis of the prediction.
    pub is_on_axis: bool,
}

pub const fn slider(name: &'static str, range: [f64; 2], default: f64) -> Control {
    Control { name, range, default, choices: &[], is_on_axis: false }
}

pub const fn choice(name: &'static str, choices: &'static [(f64, &'static str)]) -> Control {
    let default = choices[0].0;
    Control { name, range: [default, choices[choices.len() - 1].0], default, choices, is_on_axis: false }
}

/// A target, or whatever else is a number like the prediction.
const fn on_axis(name: &'static str, range: [f64; 2], default: f64) -> Control {
    Control { is_on_axis: true, ..slider(name, range, default) }
}

const OFF_ON: &[(f64, &str)] = &[(0.0, "off"), (1.0, "on")];
const ON_OFF: &[(f64, &str)] = &[(1.0, "on"), (0.0, "off")];
const SIDES: &[(f64, &str)] = &[(1.0, "1"), (-1.0, "-1")];
const YES_NO: &[(f64, &str)] = &[(1.0, "1"), (0.0, "0")];
const POWERS: &[(f64, &str)] = &[(1.0, "1"), (2.0, "2")];

/// The loss and its derivative at each of several places.
///
/// # Errors
/// Those of the loss.
pub fn value_and_grad(view: &View, places: &[f64], values: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    let x = Var::from_tensor(&Tensor::new(places, &Device::Cpu)?)?;
    let loss = (view.curve)(&x, values)?;
    let gradients = loss.sum_all()?.backward()?;
    let slopes = match gradients.get(&x) {
        Some(slopes) => slopes.to_vec1()?,
        None => vec![0.0; places.len()],
    };
    Ok((loss.to_vec1()?, slopes))
}

impl View {
    /// What a line of a picture is called: the values that are not the same on all.
    pub fn label(&self, line: &[f64]) -> String {
        let differ = |i: &usize| self.lines.iter().any(|other| other[*i] != line[*i]);
        let named = |i: usize| {
            let control = &self.controls[i];
            let word = control.choices.iter().find(|(value, _)| *value == line[i]).map(|(_, word)| (*word).to_owned());
            format!("{} {}", control.name, word.unwrap_or_else(|| line[i].to_string()))
        };
        let differing = (0..line.len()).filter(differ).map(named).collect::<Vec<_>>();
        if differing.is_empty() { named(0) } else { differing.join(", ") }
    }
}

/// `value` at every place of `x`.
pub fn all(x: &Tensor, value: f64) -> Result<Tensor> {
    x.zeros_like()? + value
}

/// The same class for every place of `x`.
pub fn class(x: &Tensor, class: u32) -> Result<Tensor> {
    Tensor::full(class, x.dims(), x.device())
}

/// Rows of scores, the first of which is `x`; the second is `best` and the others are 0.
pub fn scores(x: &Tensor, best: f64, others: usize) -> Result<Tensor> {
    let mut scores = vec![x.clone(), all(x, best)?];
    scores.resize(others + 1, x.zeros_like()?);
    Tensor::stack(&scores, 1)
}

/// `first` for class 0 of so many, and 1 for the others, if it is not 1 for all.
fn first_weight(first: f64, classes: usize, x: &Tensor) -> Result<Option<Tensor>> {
    let mut weights = vec![1.0; classes];
    weights[0] = first;
    if first == 1.0 { Ok(None) } else { Tensor::new(weights, x.device()).map(Some) }
}

/// The same weight everywhere, if it is not 1.
fn weight(weight: f64, x: &Tensor) -> Result<Option<Tensor>> {
    if weight == 1.0 { Ok(None) } else { Tensor::new(&[weight], x.device()).map(Some) }
}

/// `log(p)` and `log(1 - p)`, beside each other.
pub fn logs(p: &Tensor) -> Result<Tensor> {
    Tensor::stack(&[p, &(1. - p)?], 1)?.log()
}

/// Places on a line as points of a plane.
fn along(distance: &Tensor) -> Result<Tensor> {
    Tensor::stack(&[distance, &distance.zeros_like()?], 1)
}

/// A whole number that an option of the loss takes.
fn whole(name: &str, value: f64) -> Result<u32> {
    if value.fract() != 0.0 || !(0.0..=1e6).contains(&value) {
        bail!("{name} is {value} but must be a whole number, 0 or more")
    }
    Ok(value as u32)
}

pub const NONE: Reduction = Reduction::None;

/// Every loss, in the order of the book.
pub const LOSSES: &[View] = &[
    View {
        name: "bce",
        title: "Binary cross-entropy: a confident error is dear",
        x: "predicted probability",
        range: [0.02, 0.98],
        controls: &[slider("target", [0.0, 1.0], 1.0), slider("weight", [0.0, 5.0], 1.0)],
        lines: &[&[1.0, 1.0], &[0.0, 1.0], &[0.5, 1.0]],
        curve: |x, v| BceLoss { weight: weight(v[1], x)?, reduction: NONE }.forward(x, &all(x, v[0])?),
    },
    View {
        name: "bce_with_logits",
        title: "Binary cross-entropy on a logit: at most as steep as 1",
        x: "logit",
        range: [-6.0, 6.0],
        controls: &[
            slider("target", [0.0, 1.0], 1.0),
            slider("weight", [0.0, 5.0], 1.0),
            slider("pos_weight", [0.0, 5.0], 1.0),
        ],
        lines: &[&[1.0, 1.0, 1.0], &[0.0, 1.0, 1.0], &[0.5, 1.0, 1.0]],
        curve: |x, v| {
            let (weight, pos_weight) = (weight(v[1], x)?, weight(v[2], x)?);
            BceWithLogitsLoss { weight, pos_weight, reduction: NONE }.forward(x, &all(x, v[0])?)
        },
    },
    View {
        name: "nll",
        title: "Negative log-likelihood: of the right class's probability",
        x: "probability of the right class",
        range: [0.02, 0.98],
        controls: &[slider("class weight", [0.0, 5.0], 1.0)],
        lines: &[&[1.0], &[2.0], &[0.5]],
        curve: |p, v| {
            let loss = NllLoss { weight: first_weight(v[0], 2, p)?, reduction: NONE, ..Default::default() };
            loss.forward(&logs(p)?, &class(p, 0)?)
        },
    },
    View {
        name: "cross_entropy",
        title: "Cross-entropy: the right class's logit against nine others of 0",
        x: "logit of the right class",
        range: [-6.0, 8.0],
        controls: &[
            slider("label_smoothing", [0.0, 1.0], 0.0),
            slider("class weight", [0.0, 5.0], 1.0),
            on_axis("best other logit", [-6.0, 8.0], 0.0),
        ],
        lines: &[&[0.0, 1.0, 0.0], &[0.1, 1.0, 0.0], &[0.3, 1.0, 0.0]],
        curve: |x, v| {
            let weight = first_weight(v[1], 10, x)?;
            let loss = CrossEntropyLoss { label_smoothing: v[0], weight, reduction: NONE, ..Default::default() };
            loss.forward(&scores(x, v[2], 9)?, &class(x, 0)?)
        },
    },
    View {
        name: "poisson_nll",
        title: "Poisson: least where the rate is the count",
        x: "log rate",
        range: [-2.0, 2.5],
        controls: &[
            slider("count", [0.0, 12.0], 1.0),
            choice("log_input", ON_OFF),
            choice("full", OFF_ON),
            slider("eps", [0.0, 0.1], 1e-8),
        ],
        lines: &[&[0.0, 1.0, 0.0, 1e-8], &[1.0, 1.0, 0.0, 1e-8], &[5.0, 1.0, 0.0, 1e-8]],
        curve: |x, v| {
            let log_input = v[1] != 0.0;
            let rate = if log_input { x.clone() } else { x.exp()? };
            let loss = PoissonNllLoss { log_input, full: v[2] != 0.0, eps: v[3], reduction: NONE };
            loss.forward(&rate, &all(x, v[0])?)
        },
    },
    View {
        name: "gaussian_nll",
        title: "Gaussian: an error costs less where the model says it is unsure",
        x: "predicted mean",
        range: [-3.0, 3.0],
        controls: &[
            on_axis("target", [-3.0, 3.0], 0.0),
            slider("σ", [0.1, 3.0], 1.0),
            choice("full", OFF_ON),
            slider("eps", [1e-6, 2.0], 1e-6),
        ],
        lines: &[&[0.0, 0.5, 0.0, 1e-6], &[0.0, 1.0, 0.0, 1e-6], &[0.0, 2.0, 0.0, 1e-6]],
        curve: |x, v| {
            let loss = GaussianNllLoss { full: v[2] != 0.0, eps: v[3], reduction: NONE };
            loss.forward(x, &all(x, v[0])?, &all(x, v[1] * v[1])?)
        },
    },
    View {
        name: "hinge_embedding",
        title: "Hinge embedding: near if alike, a margin apart if not",
        x: "distance",
        range: [0.0, 3.0],
        controls: &[choice("target", SIDES), slider("margin", [0.0, 3.0], 1.0)],
        lines: &[&[1.0, 1.0], &[-1.0, 0.5], &[-1.0, 1.0], &[-1.0, 2.0]],
        curve: |x, v| HingeEmbeddingLoss { margin: v[1], reduction: NONE }.forward(x, &all(x, v[0])?),
    },
    View {
        name: "soft_margin",
        title: "Soft margin: the side that the score is on",
        x: "score",
        range: [-4.0, 4.0],
        controls: &[choice("target", SIDES)],
        lines: &[&[1.0], &[-1.0]],
        curve: |x, v| SoftMarginLoss { reduction: NONE }.forward(x, &all(x, v[0])?),
    },
    View {
        name: "multi_margin",
        title: "Multi-margin: the right class's score against two others of 0",
        x: "score of the right class",
        range: [-2.0, 3.0],
        controls: &[
            choice("p", POWERS),
            slider("margin", [0.0, 3.0], 1.0),
            slider("class weight", [0.0, 5.0], 1.0),
            on_axis("best other score", [-2.0, 3.0], 0.0),
        ],
        lines: &[&[1.0, 1.0, 1.0, 0.0], &[1.0, 2.0, 1.0, 0.0], &[2.0, 1.0, 1.0, 0.0]],
        curve: |x, v| {
            let weight = first_weight(v[2], 3, x)?;
            let loss = MultiMarginLoss { p: whole("p", v[0])?, margin: v[1], weight, reduction: NONE };
            loss.forward(&scores(x, v[3], 2)?, &class(x, 0)?)
        },
    },
    View {
        name: "multilabel_soft_margin",
        title: "Multilabel soft margin: each label a yes or no of its own",
        x: "logit of the label",
        range: [-6.0, 6.0],
        controls: &[choice("label", YES_NO), slider("weight", [0.0, 5.0], 1.0)],
        lines: &[&[1.0, 1.0], &[0.0, 1.0]],
        curve: |x, v| {
            let loss = MultiLabelSoftMarginLoss { weight: weight(v[1], x)?, reduction: NONE };
            loss.forward(&x.unsqueeze(1)?, &all(x, v[0])?.unsqueeze(1)?)
        },
    },
    View {
        name: "kl_div",
        title: "KL divergence: 0 where the distributions are the same",
        x: "predicted probability of the first of two classes",
        range: [0.02, 0.98],
        controls: &[on_axis("target", [0.0, 1.0], 0.5), choice("log_target", OFF_ON)],
        lines: &[&[0.1, 0.0], &[0.5, 0.0], &[0.9, 0.0]],
        curve: |p, v| {
            let target = Tensor::stack(&[all(p, v[0])?, all(p, 1. - v[0])?], 1)?;
            let log_target = v[1] != 0.0;
            let target = if log_target { target.log()? } else { target };
            KlDivLoss { log_target, reduction: NONE }.forward(&logs(p)?, &target)?.sum(1)
        },
    },
    View {
        name: "l1",
        title: "L1: the absolute error",
        x: "prediction",
        range: [-3.0, 3.0],
        controls: &[on_axis("target", [-3.0, 3.0], 0.0)],
        lines: &[&[0.0]],
        curve: |x, v| L1Loss { reduction: NONE }.forward(x, &all(x, v[0])?),
    },
    View {
        name: "mse",
        title: "MSE: the squared error",
        x: "prediction",
        range: [-3.0, 3.0],
        controls: &[on_axis("target", [-3.0, 3.0], 0.0)],
        lines: &[&[0.0]],
        curve: |x, v| MseLoss { reduction: NONE }.forward(x, &all(x, v[0])?),
    },
    View {
        name: "smooth_l1",
        title: "Smooth L1: a line far off, a parabola near; its slope is never more than 1",
        x: "prediction",
        range: [-3.0, 3.0],
        controls: &[on_axis("target", [-3.0, 3.0], 0.0), slider("beta", [0.0, 3.0], 1.0)],
        lines: &[&[0.0, 0.0], &[0.0, 0.5], &[0.0, 1.0], &[0.0, 2.0]],
        curve: |x, v| SmoothL1Loss { beta: v[1], reduction: NONE }.forward(x, &all(x, v[0])?),
    },
    View {
        name: "huber",
        title: "Huber: a parabola near, a line of slope delta far off",
        x: "prediction",
        range: [-10.0, 10.0],
        controls: &[on_axis("target", [-10.0, 10.0], 0.0), slider("delta", [0.05, 10.0], 1.0)],
        lines: &[&[0.0, 0.25], &[0.0, 0.5], &[0.0, 1.0], &[0.0, 2.0], &[0.0, 5.0], &[0.0, 10.0]],
        curve: |x, v| HuberLoss { delta: v[1], reduction: NONE }.forward(x, &all(x, v[0])?),
    },
    View {
        name: "multilabel_margin",
        title: "Multilabel margin: the score of a class that holds against two others of 0",
        x: "score of the class that holds",
        range: [-2.0, 3.0],
        controls: &[on_axis("best other score", [-2.0, 3.0], 0.0)],
        lines: &[&[0.0]],
        curve: |x, v| {
            let scores = scores(x, v[0], 2)?;
            let target = Tensor::new(&[[0i64, -1, -1]], x.device())?.broadcast_as(scores.dims())?;
            MultiLabelMarginLoss { reduction: NONE }.forward(&scores, &target.contiguous()?)
        },
    },
    View {
        name: "margin_ranking",
        title: "Margin ranking: the first is to score higher",
        x: "first score",
        range: [-2.0, 3.0],
        controls: &[
            choice("target", SIDES),
            slider("margin", [0.0, 3.0], 0.0),
            on_axis("second score", [-2.0, 3.0], 0.0),
        ],
        lines: &[&[1.0, 0.0, 0.0], &[1.0, 0.5, 0.0], &[1.0, 1.0, 0.0], &[1.0, 2.0, 0.0]],
        curve: |x, v| MarginRankingLoss { margin: v[1], reduction: NONE }.forward(x, &all(x, v[2])?, &all(x, v[0])?),
    },
    View {
        name: "cosine_embedding",
        title: "Cosine embedding: one direction if alike, another if not",
        x: "angle between the two, in radians",
        range: [0.0, std::f64::consts::PI],
        controls: &[choice("target", SIDES), slider("margin", [-1.0, 1.0], 0.0)],
        lines: &[&[1.0, 0.0], &[-1.0, 0.0], &[-1.0, 0.5]],
        curve: |angle, v| {
            let turned = Tensor::stack(&[angle.cos()?, angle.sin()?], 1)?;
            let straight = along(&all(angle, 1.)?)?;
            CosineEmbeddingLoss { margin: v[1], reduction: NONE }.forward(&turned, &straight, &all(angle, v[0])?)
        },
    },
    View {
        name: "triplet_margin",
        title: "Triplet margin: the positive is to be nearer than the negative, which is at 1",
        x: "distance of the positive",
        range: [0.01, 2.0],
        controls: &[
            slider("margin", [0.0, 3.0], 1.0),
            on_axis("distance of the negative", [0.0, 2.0], 1.0),
            slider("p", [1.0, 4.0], 2.0),
            choice("swap", OFF_ON),
        ],
        lines: &[&[0.5, 1.0, 2.0, 0.0], &[1.0, 1.0, 2.0, 0.0], &[2.0, 1.0, 2.0, 0.0]],
        curve: |x, v| {
            let loss =
                TripletMarginLoss { margin: v[0], p: v[2], swap: v[3] != 0.0, reduction: NONE, ..Default::default() };
            loss.forward(&along(&x.zeros_like()?)?, &along(x)?, &along(&all(x, v[1])?)?)
        },
    },
    View {
        name: "triplet_margin_with_distance",
        title: "Triplet margin with a distance of your own; the negative is at 1",
        x: "distance of the positive",
        range: [0.01, 2.0],
        controls: &[
            slider("the distance to the power", [0.5, 3.0], 1.0),
            slider("margin", [0.0, 3.0], 1.0),
            choice("swap", OFF_ON),
        ],
        lines: &[&[1.0, 1.0, 0.0], &[2.0, 1.0, 0.0]],
        curve: |x, v| {
            let power = v[0];
            let loss = TripletMarginWithDistanceLoss {
                distance_function: Arc::new(move |a, b| (a - b)?.sqr()?.sum(1)?.powf(power / 2.)),
                margin: v[1],
                swap: v[2] != 0.0,
                reduction: NONE,
            };
            loss.forward(&along(&x.zeros_like()?)?, &along(x)?, &along(&all(x, 1.)?)?)
        },
    },
    View {
        name: "ctc",
        title: "CTC: one label somewhere among steps of which each gives it the same probability",
        x: "probability of the label at each step, else blank",
        range: [0.02, 0.98],
        controls: &[slider("steps", [1.0, 16.0], 4.0)],
        lines: &[&[1.0], &[2.0], &[4.0], &[8.0]],
        curve: |p, v| {
            let (steps, batch) = (v[0].round().clamp(1.0, 100.0) as u32, p.dims1()?);
            let log_probs = Tensor::stack(&vec![logs(p)?; steps as usize], 0)?;
            // Class 0 is the label and 1 the blank.
            let targets = Tensor::zeros((batch, 1), DType::U32, p.device())?;
            let lengths = |length: u32| Tensor::full(length, batch, p.device());
            let loss = CtcLoss { blank: 1, reduction: NONE, ..Default::default() };
            loss.forward(&log_probs, &targets, &lengths(steps)?, &lengths(1)?)
        },
    },
    View {
        name: "linear_cross_entropy",
        title: "Linear cross-entropy: one feature, weights 1, 0 and -1 for three classes",
        x: "feature",
        range: [-6.0, 6.0],
        controls: &[choice("class", &[(0.0, "0"), (1.0, "1"), (2.0, "2")]), slider("label_smoothing", [0.0, 1.0], 0.0)],
        lines: &[&[0.0, 0.0], &[1.0, 0.0], &[2.0, 0.0]],
        curve: |x, v| {
            let weight = Tensor::new(&[[1.0f64], [0.0], [-1.0]], x.device())?;
            let loss = LinearCrossEntropyLoss { label_smoothing: v[1], reduction: NONE, ..Default::default() };
            loss.forward(&x.unsqueeze(1)?, &weight, None, &class(x, whole("class", v[0])?)?)
        },
    },
    View {
        name: "adaptive_log_softmax",
        title: "Adaptive log-softmax: a cluster's score is shared by its classes",
        x: "score of the cluster against two frequent classes of 0",
        range: [-6.0, 6.0],
        controls: &[choice("class", &[(0.0, "that is frequent"), (2.0, "of a cluster of three")])],
        lines: &[&[0.0], &[2.0]],
        curve: |x, v| {
            let zeros = |shape| Tensor::zeros(shape, x.dtype(), x.device());
            let head = Tensor::new(&[[0.0f64], [0.0], [1.0]], x.device())?;
            let tails = vec![(zeros((1, 1))?, zeros((3, 1))?)];
            let loss = AdaptiveLogSoftmaxWithLoss { cutoffs: vec![2], head, head_bias: None, tails };
            loss.forward(&x.unsqueeze(1)?, &class(x, whole("class", v[0])?)?)?.0.neg()
        },
    },
];
