//! Gallery: draws each loss with its derivative, and how each example's training went, for the README and the docs.
//!
//! A curve is what the loss itself computes at 241 places, and its derivative what backward gives there. A training
//! curve is that of the example, which is run for it. `--curves-only` leaves those out.
//!
//!     cargo run --example gallery

mod common;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use candle_losses::cli::plot::{Panel, panels, thumbnail, training_curve};
use candle_losses::cli::run;
use candle_losses::loss::*;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Parser)]
#[command(about = "Gallery: every picture of the README and the docs")]
struct Options {
    /// Where the pictures go
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets"))]
    folder: PathBuf,

    /// Draw this loss only
    #[arg(long, value_name = "NAME")]
    only: Option<String>,

    /// Draw the losses, but train nothing
    #[arg(long)]
    curves_only: bool,
}

fn main() -> std::process::ExitCode {
    run(|Options { folder, only, curves_only }| {
        let pictures = pictures()?;
        let chosen = pictures.iter().filter(|picture| only.as_ref().is_none_or(|only| only == picture.name));
        let chosen = chosen.collect::<Vec<_>>();
        ensure!(!chosen.is_empty(), "there is no loss of the name {}", only.unwrap_or_default());
        for picture in chosen {
            let (curves, thumbnail) = picture.curves()?;
            write(&folder, &format!("{}.svg", picture.name), &curves)?;
            write(&folder, &format!("{}_thumbnail.svg", picture.name), &thumbnail)?;
            if !curves_only {
                write(&folder, &format!("{}_training.svg", picture.name), &picture.training()?)?;
            }
        }
        if !curves_only && only.is_none() {
            for name in ["compare_regression", "compare_classification"] {
                run_example(name, &["--plot".as_ref(), folder.join(format!("{name}.svg")).as_ref()])?;
                println!("{}", folder.join(format!("{name}.svg")).display());
            }
        }
        Ok(())
    })
}

fn write(folder: &Path, name: &str, svg: &str) -> Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// What it prints. Built first if need be.
fn run_example(name: &str, arguments: &[&std::ffi::OsStr]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--example", name, "--"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the example {name} failed");
    Ok(String::from_utf8(output.stdout)?)
}

/// The loss at each of several predictions, (N) to (N).
type Curve = Box<dyn Fn(&Tensor) -> candle_core::Result<Tensor>>;

/// A loss's pictures: the curves, and the example's training.
struct Picture {
    /// The example's name, and the pictures'.
    name: &'static str,
    title: &'static str,
    x: &'static str,
    range: std::ops::Range<f64>,
    lines: Vec<(String, Curve)>,
    /// The example's options.
    training: &'static str,
}

impl Picture {
    /// Value and derivative, and the value alone for a thumbnail.
    fn curves(&self) -> Result<(String, String)> {
        let places = (0..=240).map(|i| self.range.start + (self.range.end - self.range.start) * f64::from(i) / 240.0);
        let places = places.collect::<Vec<_>>();
        let (mut values, mut slopes, mut legend) = (Vec::new(), Vec::new(), Vec::new());
        for (label, curve) in &self.lines {
            let x = Var::from_tensor(&Tensor::new(places.as_slice(), &Device::Cpu)?)?;
            let loss = curve(&x)?;
            let gradients = loss.sum_all()?.backward()?;
            let slope = gradients.get(&x).context("no gradient")?.to_vec1::<f64>()?;
            values.push(places.iter().copied().zip(loss.to_vec1::<f64>()?).collect());
            slopes.push(places.iter().copied().zip(slope).collect());
            legend.push(label.clone());
        }
        let panel = |y: &str, lines| Panel { x: self.x.into(), y: y.into(), lines, spread: Vec::new() };
        let thumbnail = thumbnail(&values)?;
        Ok((panels(self.title, &legend, &[panel("loss", values), panel("derivative", slopes)])?, thumbnail))
    }

    fn training(&self) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log.csv");
        let mut arguments = vec!["--no-progress".as_ref(), "--log".as_ref(), log.as_os_str()];
        arguments.extend(self.training.split_whitespace().map(std::ffi::OsStr::new));
        let printed = run_example(self.name, &arguments)?;
        // "Test accuracy: 86.35% (10000 samples)" in fewer words.
        let metrics = printed.lines().filter_map(|line| line.strip_prefix("Test ")?.split_once(" ("));
        let held_out = metrics.map(|(metric, _)| metric.replace(':', "")).collect::<Vec<_>>().join(", ");
        let mut losses = Vec::new();
        for record in csv::Reader::from_path(&log)?.records() {
            losses.push(record?[2].parse::<f64>()?);
        }
        let options = self.training.replace(DIGITS, "");
        let title = [self.name, options.as_str()].join(" ");
        training_curve(&format!("{}: held-out {held_out}", title.trim()), &losses)
    }
}

/// The option's values that tell most, as lines of one picture.
fn each<const N: usize, F, C>(name: &str, values: [f64; N], curve: F) -> Vec<(String, Curve)>
where
    F: Fn(f64) -> C,
    C: Fn(&Tensor) -> candle_core::Result<Tensor> + 'static,
{
    values.map(|value| (format!("{name} {value}"), Box::new(curve(value)) as Curve)).into()
}

/// `value` at every place of `x`.
fn all(x: &Tensor, value: f64) -> candle_core::Result<Tensor> {
    x.zeros_like()? + value
}

/// Rows of scores: the first is `x`, `others` are 0. With class 0 for each row.
fn against_zeros(x: &Tensor, others: usize) -> candle_core::Result<(Tensor, Tensor)> {
    let zeros = vec![x.zeros_like()?; others];
    let scores = [std::slice::from_ref(x), &zeros].concat();
    Ok((Tensor::stack(&scores, 1)?, Tensor::zeros(x.dims(), candle_core::DType::U32, x.device())?))
}

/// `log(p)` and `log(1 - p)`, beside each other.
fn logs(p: &Tensor) -> candle_core::Result<Tensor> {
    Tensor::stack(&[p, &(1. - p)?], 1)?.log()
}

const DIGITS: &str = "--dataset digits";

fn pictures() -> Result<Vec<Picture>> {
    const NONE: Reduction = Reduction::None;
    let error = "prediction, target 0";
    let triplet = |x: &Tensor| -> candle_core::Result<[Tensor; 3]> {
        let along = |distance: &Tensor| Tensor::stack(&[distance, &distance.zeros_like()?], 1);
        Ok([along(&x.zeros_like()?)?, along(x)?, along(&all(x, 1.)?)?])
    };
    Ok(vec![
        Picture {
            name: "l1",
            title: "L1: the absolute error",
            x: error,
            range: -3.0..3.0,
            lines: vec![("target 0".into(), Box::new(|x| L1Loss { reduction: NONE }.forward(x, &x.zeros_like()?)))],
            training: "",
        },
        Picture {
            name: "mse",
            title: "MSE: the squared error",
            x: error,
            range: -3.0..3.0,
            lines: vec![("target 0".into(), Box::new(|x| MseLoss { reduction: NONE }.forward(x, &x.zeros_like()?)))],
            training: "",
        },
        Picture {
            name: "smooth_l1",
            title: "Smooth L1: a line far off, a parabola near; its slope is never more than 1",
            x: error,
            range: -3.0..3.0,
            lines: each("beta", [0.0, 0.5, 1.0, 2.0], |beta| {
                move |x| SmoothL1Loss { beta, reduction: NONE }.forward(x, &x.zeros_like()?)
            }),
            training: "",
        },
        Picture {
            name: "huber",
            title: "Huber: a parabola near, a line of slope delta far off",
            x: error,
            range: -10.0..10.0,
            lines: each("delta", [0.25, 0.5, 1.0, 2.0, 5.0, 10.0], |delta| {
                move |x| HuberLoss { delta, reduction: NONE }.forward(x, &x.zeros_like()?)
            }),
            training: "",
        },
        Picture {
            name: "bce",
            title: "Binary cross-entropy: a confident error is dear",
            x: "predicted probability",
            range: 0.02..0.98,
            lines: each("target", [1.0, 0.0, 0.5], |y| {
                move |x| BceLoss { reduction: NONE, ..Default::default() }.forward(x, &all(x, y)?)
            }),
            training: "",
        },
        Picture {
            name: "bce_with_logits",
            title: "Binary cross-entropy on a logit: at most as steep as 1",
            x: "logit",
            range: -6.0..6.0,
            lines: each("target", [1.0, 0.0, 0.5], |y| {
                move |x| BceWithLogitsLoss { reduction: NONE, ..Default::default() }.forward(x, &all(x, y)?)
            }),
            training: "",
        },
        Picture {
            name: "nll",
            title: "Negative log-likelihood: of the right class's probability",
            x: "probability of the right class",
            range: 0.02..0.98,
            lines: each("class weight", [1.0, 2.0, 0.5], |weight| {
                move |p| {
                    let weight = Some(Tensor::new(&[weight, 1.0], p.device())?);
                    let loss = NllLoss { weight, reduction: NONE, ..Default::default() };
                    loss.forward(&logs(p)?, &against_zeros(p, 0)?.1)
                }
            }),
            training: DIGITS,
        },
        Picture {
            name: "cross_entropy",
            title: "Cross-entropy: the right class's logit against nine others of 0",
            x: "logit of the right class",
            range: -6.0..8.0,
            lines: each("label smoothing", [0.0, 0.1, 0.3], |label_smoothing| {
                move |x| {
                    let (logits, classes) = against_zeros(x, 9)?;
                    let loss = CrossEntropyLoss { label_smoothing, reduction: NONE, ..Default::default() };
                    loss.forward(&logits, &classes)
                }
            }),
            training: DIGITS,
        },
        Picture {
            name: "linear_cross_entropy",
            title: "Linear cross-entropy: one feature, weights 1, 0 and -1 for three classes",
            x: "feature",
            range: -6.0..6.0,
            lines: each("class", [0.0, 1.0, 2.0], |class| {
                move |x| {
                    let weight = Tensor::new(&[[1.0f64], [0.0], [-1.0]], x.device())?;
                    let classes = all(x, class)?.to_dtype(candle_core::DType::U32)?;
                    let loss = LinearCrossEntropyLoss { reduction: NONE, ..Default::default() };
                    loss.forward(&x.unsqueeze(1)?, &weight, None, &classes)
                }
            }),
            training: "",
        },
        Picture {
            name: "adaptive_log_softmax",
            title: "Adaptive log-softmax: a cluster's score is shared by its classes",
            x: "score of the cluster against two frequent classes of 0",
            range: -6.0..6.0,
            lines: [("frequent class", 0u32), ("class of a cluster of three", 2)]
                .map(|(label, class)| {
                    let curve = move |x: &Tensor| {
                        let zeros = |shape| Tensor::zeros(shape, x.dtype(), x.device());
                        let head = Tensor::new(&[[0.0f64], [0.0], [1.0]], x.device())?;
                        let tails = vec![(zeros((1, 1))?, zeros((3, 1))?)];
                        let loss = AdaptiveLogSoftmaxLoss { cutoffs: vec![2], head, head_bias: None, tails };
                        let classes = Tensor::full(class, x.dims(), x.device())?;
                        loss.forward(&x.unsqueeze(1)?, &classes)?.0.neg()
                    };
                    (label.to_owned(), Box::new(curve) as Curve)
                })
                .into(),
            training: "",
        },
        Picture {
            name: "poisson_nll",
            title: "Poisson: least where the rate is the count",
            x: "log rate",
            range: -2.0..2.5,
            lines: each("count", [0.0, 1.0, 5.0], |count| {
                move |x| PoissonNllLoss { reduction: NONE, ..Default::default() }.forward(x, &all(x, count)?)
            }),
            training: DIGITS,
        },
        Picture {
            name: "gaussian_nll",
            title: "Gaussian: an error costs less where the model says it is unsure",
            x: "error",
            range: -3.0..3.0,
            lines: each("σ", [0.5, 1.0, 2.0], |sigma| {
                move |x| {
                    let loss = GaussianNllLoss { reduction: NONE, ..Default::default() };
                    loss.forward(x, &x.zeros_like()?, &all(x, sigma * sigma)?)
                }
            }),
            training: DIGITS,
        },
        Picture {
            name: "hinge_embedding",
            title: "Hinge embedding: near if alike, a margin apart if not",
            x: "distance",
            range: 0.0..3.0,
            lines: [(1.0, 1.0), (-1.0, 0.5), (-1.0, 1.0), (-1.0, 2.0)]
                .map(|(y, margin)| {
                    let loss = HingeEmbeddingLoss { margin, reduction: NONE };
                    let curve = move |x: &Tensor| loss.forward(x, &all(x, y)?);
                    (format!("target {y}, margin {margin}"), Box::new(curve) as Curve)
                })
                .into(),
            training: "",
        },
        Picture {
            name: "soft_margin",
            title: "Soft margin: the side that the score is on",
            x: "score",
            range: -4.0..4.0,
            lines: each("target", [1.0, -1.0], |y| move |x| SoftMarginLoss { reduction: NONE }.forward(x, &all(x, y)?)),
            training: "",
        },
        Picture {
            name: "multi_margin",
            title: "Multi-margin: the right class's score against two others of 0",
            x: "score of the right class",
            range: -2.0..3.0,
            lines: [(1, 1.0), (1, 2.0), (2, 1.0)]
                .map(|(p, margin)| {
                    let curve = move |x: &Tensor| {
                        let (scores, classes) = against_zeros(x, 2)?;
                        let loss = MultiMarginLoss { p, margin, reduction: NONE, ..Default::default() };
                        loss.forward(&scores, &classes)
                    };
                    (format!("p {p}, margin {margin}"), Box::new(curve) as Curve)
                })
                .into(),
            training: DIGITS,
        },
        Picture {
            name: "multilabel_margin",
            title: "Multilabel margin: the score of a class that holds against two others of 0",
            x: "score of the class that holds",
            range: -2.0..3.0,
            lines: vec![(
                "one of three holds".into(),
                Box::new(|x| {
                    let (scores, _) = against_zeros(x, 2)?;
                    let target = Tensor::new(&[[0i64, -1, -1]], x.device())?.broadcast_as(scores.dims())?;
                    MultiLabelMarginLoss { reduction: NONE }.forward(&scores, &target.contiguous()?)
                }),
            )],
            training: DIGITS,
        },
        Picture {
            name: "multilabel_soft_margin",
            title: "Multilabel soft margin: each label a yes or no of its own",
            x: "logit of the label",
            range: -6.0..6.0,
            lines: each("label", [1.0, 0.0], |y| {
                move |x| {
                    let loss = MultiLabelSoftMarginLoss { reduction: NONE, ..Default::default() };
                    loss.forward(&x.unsqueeze(1)?, &all(x, y)?.unsqueeze(1)?)
                }
            }),
            training: DIGITS,
        },
        Picture {
            name: "kl_div",
            title: "KL divergence: 0 where the distributions are the same",
            x: "predicted probability of the first of two classes",
            range: 0.02..0.98,
            lines: each("target", [0.1, 0.5, 0.9], |q| {
                move |p| {
                    let target = Tensor::stack(&[all(p, q)?, all(p, 1. - q)?], 1)?;
                    KlDivLoss { reduction: NONE, ..Default::default() }.forward(&logs(p)?, &target)?.sum(1)
                }
            }),
            training: DIGITS,
        },
        Picture {
            name: "margin_ranking",
            title: "Margin ranking: the first is to score higher",
            x: "first score, the second 0",
            range: -2.0..3.0,
            lines: each("margin", [0.0, 0.5, 1.0, 2.0], |margin| {
                move |x| MarginRankingLoss { margin, reduction: NONE }.forward(x, &x.zeros_like()?, &all(x, 1.)?)
            }),
            training: DIGITS,
        },
        Picture {
            name: "cosine_embedding",
            title: "Cosine embedding: one direction if alike, another if not",
            x: "angle between the two, in radians",
            range: 0.0..std::f64::consts::PI,
            lines: [(1.0, 0.0), (-1.0, 0.0), (-1.0, 0.5)]
                .map(|(y, margin)| {
                    let curve = move |angle: &Tensor| {
                        let turned = Tensor::stack(&[angle.cos()?, angle.sin()?], 1)?;
                        let straight = Tensor::stack(&[all(angle, 1.)?, angle.zeros_like()?], 1)?;
                        let loss = CosineEmbeddingLoss { margin, reduction: NONE };
                        loss.forward(&turned, &straight, &all(angle, y)?)
                    };
                    (format!("target {y}, margin {margin}"), Box::new(curve) as Curve)
                })
                .into(),
            training: DIGITS,
        },
        Picture {
            name: "triplet_margin",
            title: "Triplet margin: the positive is to be nearer than the negative, which is at 1",
            x: "distance of the positive",
            range: 0.01..2.0,
            lines: each("margin", [0.5, 1.0, 2.0], |margin| {
                move |x| {
                    let [anchor, positive, negative] = triplet(x)?;
                    let loss = TripletMarginLoss { margin, reduction: NONE, ..Default::default() };
                    loss.forward(&anchor, &positive, &negative)
                }
            }),
            training: DIGITS,
        },
        Picture {
            name: "triplet_margin_with_distance",
            title: "Triplet margin with a distance of your own; the negative is at 1",
            x: "distance of the positive",
            range: 0.01..2.0,
            lines: each("the distance to the power", [1.0, 2.0], |power| {
                move |x| {
                    let [anchor, positive, negative] = triplet(x)?;
                    let loss = TripletMarginWithDistanceLoss {
                        distance: Box::new(move |a, b| (a - b)?.sqr()?.sum(1)?.powf(power / 2.)),
                        margin: 1.0,
                        swap: false,
                        reduction: NONE,
                    };
                    loss.forward(&anchor, &positive, &negative)
                }
            }),
            training: DIGITS,
        },
        Picture {
            name: "ctc",
            title: "CTC: one label somewhere among steps of which each gives it the same probability",
            x: "probability of the label at each step, else blank",
            range: 0.02..0.98,
            lines: each("steps", [1.0, 2.0, 4.0, 8.0], |steps| {
                move |p| {
                    let (steps, batch) = (steps as u32, p.dims1()?);
                    let log_probs = Tensor::stack(&vec![logs(p)?; steps as usize], 0)?;
                    // Class 0 is the label and 1 the blank.
                    let targets = Tensor::zeros((batch, 1), candle_core::DType::U32, p.device())?;
                    let lengths = |length: u32| Tensor::full(length, batch, p.device());
                    CtcLoss { blank: 1, reduction: NONE, ..Default::default() }.forward(
                        &log_probs,
                        &targets,
                        &lengths(steps)?,
                        &lengths(1)?,
                    )
                }
            }),
            training: DIGITS,
        },
    ])
}
