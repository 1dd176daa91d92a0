//! The usual mistakes, each as a curve beside that of what was meant, and what this crate says to it.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_losses::loss::*;
use suite::views::{Control, NONE, View, all, choice, class, logs, scores, slider};

/// What goes wrong, by the first control's values: the first is what was meant.
pub struct Mistake {
    pub view: View,
    /// What this crate refuses, in words, and what is called for it.
    pub refused: Option<(&'static str, Call)>,
}

pub type Call = fn() -> Result<Tensor>;

fn softmax(x: &Tensor) -> Result<Tensor> {
    candle_nn::ops::softmax(x, D::Minus1)
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    candle_nn::ops::sigmoid(x)
}

/// Predictions `x`, 0 and 1 as a column, (N, 3, 1), and what they should be: 2, 0 and 1, (1, 3, 1).
fn three_of_each(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let predictions = Tensor::stack(&[x, &all(x, 0.)?, &all(x, 1.)?], 1)?.unsqueeze(2)?;
    Ok((predictions, Tensor::new(&[2.0f64, 0.0, 1.0], x.device())?.reshape((1, 3, 1))?))
}

/// The mean over three predictions and their targets, or over all nine pairs, as where the shapes are left to broadcasting.
fn pairs(x: &Tensor, how: f64, loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (predictions, targets) = three_of_each(x)?;
    let targets = if how == 0.0 { targets } else { targets.t()? };
    let shape = [x.dim(0)?, 3, if how == 0.0 { 1 } else { 3 }];
    let spread = |t: &Tensor| t.broadcast_as(&shape)?.contiguous();
    loss(&spread(&predictions)?, &spread(&targets)?)?.flatten_from(1)?.mean(1)
}

/// A column of predictions against a row of targets.
fn column_and_row() -> Result<(Tensor, Tensor)> {
    Ok((Tensor::zeros((3, 1), DType::F32, &Device::Cpu)?, Tensor::zeros(3, DType::F32, &Device::Cpu)?))
}

const BROADCAST: &[Control] =
    &[choice("shapes", &[(0.0, "(3, 1) against (3, 1)"), (1.0, "(3, 1) against (3), broadcast to (3, 3)")])];
const ONE_CONTROL: &[&[f64]] = &[&[0.0], &[1.0]];

/// The usual mistakes, each beside what was meant.
pub const MISTAKES: &[Mistake] = &[
    Mistake {
        view: View {
            name: "broadcast_mse",
            title: "Three predictions, x, 0 and 1, of 2, 0 and 1: broadcasting compares each with each",
            x: "first prediction, which should be 2",
            range: [-1.0, 4.0],
            controls: BROADCAST,
            lines: ONE_CONTROL,
            curve: |x, v| pairs(x, v[0], |x, y| MseLoss { reduction: NONE }.forward(x, y)),
        },
        refused: Some(("A column of predictions against a row of targets", || {
            column_and_row().and_then(|(x, y)| MseLoss::default().forward(&x, &y))
        })),
    },
    Mistake {
        view: View {
            name: "broadcast_l1",
            title: "Three predictions, x, 0 and 1, of 2, 0 and 1: broadcasting compares each with each",
            x: "first prediction, which should be 2",
            range: [-1.0, 4.0],
            controls: BROADCAST,
            lines: ONE_CONTROL,
            curve: |x, v| pairs(x, v[0], |x, y| L1Loss { reduction: NONE }.forward(x, y)),
        },
        refused: Some(("A column of predictions against a row of targets", || {
            column_and_row().and_then(|(x, y)| L1Loss::default().forward(&x, &y))
        })),
    },
    Mistake {
        view: View {
            name: "huber_unit",
            title: "delta is in the target's unit: 1 is a thousand dollars or one dollar",
            x: "error, in thousand dollars",
            range: [-3.0, 3.0],
            controls: &[choice("prices", &[(0.0, "in thousand dollars"), (1.0, "in dollars")])],
            lines: ONE_CONTROL,
            curve: |x, v| {
                let unit = if v[0] == 0.0 { 1.0 } else { 1000.0 };
                HuberLoss { reduction: NONE, ..Default::default() }.forward(&(x * unit)?, &x.zeros_like()?)? / unit
            },
        },
        refused: Some(("A delta of 0", || {
            let x = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
            HuberLoss { delta: 0.0, ..Default::default() }.forward(&x, &x)
        })),
    },
    Mistake {
        view: View {
            name: "beta_and_delta",
            title: "Smooth L1 with beta is Huber with that delta, divided by it",
            x: "error",
            range: [-4.0, 4.0],
            controls: &[
                choice("loss", &[(0.0, "SmoothL1Loss, beta"), (1.0, "HuberLoss, delta")]),
                slider("beta and delta", [0.1, 4.0], 2.0),
            ],
            lines: &[&[0.0, 2.0], &[1.0, 2.0]],
            curve: |x, v| match v[0] {
                0.0 => SmoothL1Loss { beta: v[1], reduction: NONE }.forward(x, &x.zeros_like()?),
                _ => HuberLoss { delta: v[1], reduction: NONE }.forward(x, &x.zeros_like()?),
            },
        },
        refused: Some(("A beta of -1", || {
            let x = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
            SmoothL1Loss { beta: -1.0, ..Default::default() }.forward(&x, &x)
        })),
    },
    Mistake {
        view: View {
            name: "softmax_first",
            title: "A softmax before cross-entropy: it has one already",
            x: "logit of the right class, nine others being 0",
            range: [-6.0, 12.0],
            controls: &[choice("input", &[(0.0, "logits"), (1.0, "softmax of the logits")])],
            lines: ONE_CONTROL,
            curve: |x, v| {
                let logits = scores(x, 0.0, 9)?;
                let input = if v[0] == 0.0 { logits } else { softmax(&logits)? };
                CrossEntropyLoss { reduction: NONE, ..Default::default() }.forward(&input, &class(x, 0)?)
            },
        },
        refused: Some(("Class 10 of ten, which are 0 to 9", || {
            let logits = Tensor::zeros((3, 10), DType::F32, &Device::Cpu)?;
            CrossEntropyLoss::default().forward(&logits, &Tensor::new(&[1u32, 2, 10], &Device::Cpu)?)
        })),
    },
    Mistake {
        view: View {
            name: "nll_of_logits",
            title: "NLL wants log-probabilities: of logits it has no floor",
            x: "logit of the right class, nine others being 0",
            range: [-6.0, 6.0],
            controls: &[choice("input", &[(0.0, "log-softmax of the logits"), (1.0, "logits")])],
            lines: ONE_CONTROL,
            curve: |x, v| {
                let logits = scores(x, 0.0, 9)?;
                let input = if v[0] == 0.0 { softmax(&logits)?.log()? } else { logits };
                NllLoss { reduction: NONE, ..Default::default() }.forward(&input, &class(x, 0)?)
            },
        },
        refused: None,
    },
    Mistake {
        view: View {
            name: "sigmoid_first",
            title: "A sigmoid before the loss on logits: it has one already",
            x: "logit, the target being 1",
            range: [-6.0, 6.0],
            controls: &[choice("input", &[(0.0, "logit"), (1.0, "sigmoid of the logit")])],
            lines: ONE_CONTROL,
            curve: |x, v| {
                let input = if v[0] == 0.0 { x.clone() } else { sigmoid(x)? };
                BceWithLogitsLoss { reduction: NONE, ..Default::default() }.forward(&input, &all(x, 1.)?)
            },
        },
        refused: None,
    },
    Mistake {
        view: View {
            name: "bce_of_logits",
            title: "A sigmoid that has rounded to 1 tells nothing back",
            x: "logit, the target being 0",
            range: [-6.0, 24.0],
            controls: &[choice(
                "loss",
                &[(0.0, "BceWithLogitsLoss of the logit"), (1.0, "BceLoss of its sigmoid, in f32")],
            )],
            lines: ONE_CONTROL,
            curve: |x, v| {
                if v[0] == 0.0 {
                    return BceWithLogitsLoss { reduction: NONE, ..Default::default() }.forward(x, &x.zeros_like()?);
                }
                let p = sigmoid(&x.to_dtype(DType::F32)?)?;
                BceLoss { reduction: NONE, ..Default::default() }.forward(&p, &p.zeros_like()?)?.to_dtype(DType::F64)
            },
        },
        refused: Some(("A logit of 2.5 as a probability", || {
            let logits = Tensor::new(&[2.5f32, -1.0], &Device::Cpu)?;
            BceLoss::default().forward(&logits, &logits.zeros_like()?)
        })),
    },
    Mistake {
        view: View {
            name: "kl_mean",
            title: "The mean over all elements is not the divergence, and probabilities are not their logarithms",
            x: "predicted probability of the first of two classes, the target being 0.7",
            range: [0.02, 0.98],
            controls: &[choice(
                "how",
                &[
                    (0.0, "log-probabilities, BatchMean"),
                    (1.0, "log-probabilities, Mean"),
                    (2.0, "probabilities, BatchMean"),
                ],
            )],
            lines: &[&[0.0], &[1.0], &[2.0]],
            curve: |p, v| {
                let loss = KlDivLoss { reduction: NONE, ..Default::default() };
                let log_p = logs(p)?;
                let input = if v[0] == 2.0 { log_p.exp()? } else { log_p };
                let target = Tensor::stack(&[all(p, 0.7)?, all(p, 0.3)?], 1)?;
                let elements = loss.forward(&input, &target)?;
                if v[0] == 1.0 { elements.mean(1) } else { elements.sum(1) }
            },
        },
        refused: None,
    },
    Mistake {
        view: View {
            name: "poisson_rate",
            title: "A rate where its logarithm is meant: the least loss is at the logarithm of the count",
            x: "the model's output, the count being 3",
            range: [0.1, 3.6],
            controls: &[choice("output", &[(0.0, "is the rate: log_input off"), (1.0, "is taken for its logarithm")])],
            lines: ONE_CONTROL,
            curve: |x, v| {
                PoissonNllLoss { log_input: v[0] != 0.0, reduction: NONE, ..Default::default() }
                    .forward(x, &all(x, 3.)?)
            },
        },
        refused: None,
    },
    Mistake {
        view: View {
            name: "gaussian_deviation",
            title: "A deviation where a variance is meant, for an error of 2",
            x: "σ that the model means",
            range: [0.5, 6.0],
            controls: &[choice("var", &[(0.0, "σ²"), (1.0, "σ")])],
            lines: ONE_CONTROL,
            curve: |sigma, v| {
                let var = if v[0] == 0.0 { sigma.sqr()? } else { sigma.clone() };
                let loss = GaussianNllLoss { reduction: NONE, ..Default::default() };
                loss.forward(&all(sigma, 2.)?, &sigma.zeros_like()?, &var)
            },
        },
        refused: Some(("A variance of -1", || {
            let x = Tensor::zeros((3, 1), DType::F32, &Device::Cpu)?;
            GaussianNllLoss::default().forward(&x, &x, &(&x - 1.)?)
        })),
    },
    Mistake {
        view: View {
            name: "hinge_score",
            title: "A score where a distance is meant: below 0 there is no floor",
            x: "the model's output, the two being alike",
            range: [-3.0, 3.0],
            controls: &[choice(
                "input",
                &[(0.0, "its absolute value, a distance"), (1.0, "the output itself, a score")],
            )],
            lines: ONE_CONTROL,
            curve: |x, v| {
                let input = if v[0] == 0.0 { x.abs()? } else { x.clone() };
                HingeEmbeddingLoss { reduction: NONE, ..Default::default() }.forward(&input, &all(x, 1.)?)
            },
        },
        refused: None,
    },
    Mistake {
        view: View {
            name: "zero_for_a_side",
            title: "Sides are 1 and -1: with a target of 0 nothing is learned",
            x: "score",
            range: [-4.0, 4.0],
            controls: &[choice("target", &[(-1.0, "-1"), (0.0, "0")])],
            lines: &[&[-1.0], &[0.0]],
            curve: |x, v| SoftMarginLoss { reduction: NONE }.forward(x, &all(x, v[0])?),
        },
        refused: None,
    },
    Mistake {
        view: View {
            name: "margin_of_probabilities",
            title: "A margin of 1 between probabilities: it can't be had",
            x: "score of the right class, two others being 0",
            range: [-2.0, 6.0],
            controls: &[choice("input", &[(0.0, "scores"), (1.0, "softmax of the scores")])],
            lines: ONE_CONTROL,
            curve: |x, v| {
                let scores = scores(x, 0.0, 2)?;
                let input = if v[0] == 0.0 { scores } else { softmax(&scores)? };
                MultiMarginLoss { reduction: NONE, ..Default::default() }.forward(&input, &class(x, 0)?)
            },
        },
        refused: Some(("A p of 3", || {
            let scores = Tensor::zeros((1, 3), DType::F32, &Device::Cpu)?;
            MultiMarginLoss { p: 3, ..Default::default() }
                .forward(&scores, &Tensor::zeros(1, DType::U32, &Device::Cpu)?)
        })),
    },
    Mistake {
        view: View {
            name: "softmax_for_labels",
            title: "Labels that hold together can't share a softmax",
            x: "logit of each of two labels that hold",
            range: [-6.0, 6.0],
            controls: &[choice("input", &[(0.0, "logits"), (1.0, "softmax of the logits")])],
            lines: ONE_CONTROL,
            curve: |x, v| {
                let logits = Tensor::stack(&[x, x, &all(x, -6.)?], 1)?;
                let input = if v[0] == 0.0 { logits } else { softmax(&logits)? };
                let target =
                    Tensor::new(&[[1.0f64, 1.0, 0.0]], x.device())?.broadcast_as(input.dims())?.contiguous()?;
                MultiLabelSoftMarginLoss { reduction: NONE, ..Default::default() }.forward(&input, &target)
            },
        },
        refused: None,
    },
];
