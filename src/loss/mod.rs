//! Every loss is one struct with public fields, PyTorch's defaults and one `forward`:
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use candle_losses::loss::{HuberLoss, Reduction};
//!
//! let input = Var::new(&[0.5f32, 3.0], &Device::Cpu)?;
//! let target = Tensor::new(&[0f32, 0.0], &Device::Cpu)?;
//! let loss = HuberLoss { delta: 1.0, reduction: Reduction::Sum };
//! let value = loss.forward(&input, &target)?;
//! assert_eq!(value.to_scalar::<f32>()?, 0.125 + 2.5);
//! let grads = value.backward()?;
//! assert_eq!(grads.get(&input).unwrap().to_vec1::<f32>()?, [0.5, 1.0]);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! Values, gradients and shapes are PyTorch's, for every option. Inputs may be `f16`, `bf16`, `f32` or `f64`, contiguous or
//! not; the half precisions are computed in `f32` and the result is rounded once. Class indices and lengths may be of any
//! integer dtype, and targets of 0 and 1, ±1 or counts as well. A mean or sum in `f32` is right to 2e-6 however many
//! elements it has.
//!
//! Each loss is made of tensor ops, for every device: the CPU, CUDA and Metal. (Metal has no `f64`, and backward in `bf16`
//! needs an NVIDIA GPU of compute capability 8.0 or later.) On the CPU they are computed in one pass instead, to the same
//! results, whatever the dtype, the reduction, the weights and the layout; [`LinearCrossEntropyLoss`],
//! [`AdaptiveLogSoftmaxLoss`] and [`TripletMarginWithDistanceLoss`] in a few. The memory of large derivatives, up to 64 MiB, is
//! kept for the next call.
//!
//! # Start with these three
//!
//! [`CrossEntropyLoss`] for one class of several, [`BceWithLogitsLoss`] for yes or no, [`HuberLoss`] for a number. The others
//! are for what those can't do; each says so.
//!
//! # How they are related
//!
//! Each line is held by `tests/relations.rs`.
//!
//! | loss | is |
//! |---|---|
//! | [`L1Loss`] | [`SmoothL1Loss`] at `beta` 0 |
//! | [`MseLoss`] | twice [`HuberLoss`] at a `delta` above every error |
//! | [`SmoothL1Loss`] | [`HuberLoss`] at `delta = beta`, divided by it |
//! | [`HuberLoss`] | `delta` times [`SmoothL1Loss`] at `beta = delta` |
//! | [`GaussianNllLoss`] | half of [`MseLoss`] at a variance of 1 |
//! | [`PoissonNllLoss`] | of log rates that of their rates, with `log_input: false` and `eps` 0 |
//! | [`BceLoss`] | [`NllLoss`] over `log(1 - p)` and `log p` |
//! | [`BceWithLogitsLoss`] | [`BceLoss`] of a sigmoid |
//! | [`SoftMarginLoss`] | [`BceWithLogitsLoss`] with -1 for 0 |
//! | [`MultiLabelSoftMarginLoss`] | [`BceWithLogitsLoss`], averaged over the labels of each sample |
//! | [`CrossEntropyLoss`] | [`NllLoss`] of [`log_softmax`] |
//! | [`NllLoss`] | [`CrossEntropyLoss`] of log-probabilities, which a softmax leaves as they are |
//! | [`KlDivLoss`] | [`CrossEntropyLoss`] against probabilities, less their entropy |
//! | [`LinearCrossEntropyLoss`] | [`CrossEntropyLoss`] of a linear layer |
//! | [`AdaptiveLogSoftmaxLoss`] | [`NllLoss`] of its own `log_prob` |
//! | [`CtcLoss`] | with one step and one label [`NllLoss`] |
//! | [`MultiMarginLoss`] | [`MultiLabelMarginLoss`] with one class in each list |
//! | [`MultiLabelMarginLoss`] | [`MultiMarginLoss`] summed over the list, where what is listed is no rival |
//! | [`MarginRankingLoss`] | [`HingeEmbeddingLoss`] of what `input1` leads by, at a target of -1 |
//! | [`HingeEmbeddingLoss`] | of `1 - cos` at margin `m` [`CosineEmbeddingLoss`] at margin `1 - m` |
//! | [`CosineEmbeddingLoss`] | [`HingeEmbeddingLoss`] of `1 - cos`, at 1 less its margin |
//! | [`TripletMarginLoss`] | [`MarginRankingLoss`] of the distances to the negative and to the positive |
//! | [`TripletMarginWithDistanceLoss`] | [`TripletMarginLoss`] with another distance |
//!
//! # Recipes
//!
//! What is often written by hand, made of what is here.
//!
//! **InfoNCE**, the contrast of each row of one batch of unit vectors with its partner among all of another:
//!
//! ```
//! # use candle_core::{Device, Result, Tensor};
//! use candle_losses::loss::CrossEntropyLoss;
//!
//! fn info_nce(a: &Tensor, b: &Tensor, temperature: f64) -> Result<Tensor> {
//!     let scores = (a.matmul(&b.t()?)? / temperature)?;
//!     let partners = Tensor::arange(0u32, a.dim(0)? as u32, a.device())?;
//!     CrossEntropyLoss::default().forward(&scores, &partners)
//! }
//! # let eye = Tensor::eye(4, candle_core::DType::F64, &Device::Cpu)?;
//! # let value = info_nce(&eye, &eye, 0.5)?.to_scalar::<f64>()?;
//! # assert!((value - (1.0 + 3.0 * (-2f64).exp()).ln()).abs() < 1e-12);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Distillation** from a teacher, whose gradient is not wanted, at a temperature `t`; `t²` keeps the gradient's size:
//!
//! ```
//! # use candle_core::{Device, Result, Tensor, Var};
//! use candle_losses::loss::{KlDivLoss, Reduction, log_softmax};
//!
//! fn distillation(student: &Tensor, teacher: &Tensor, t: f64) -> Result<Tensor> {
//!     let [student, teacher] = [student.clone(), teacher.detach()].map(|logits| log_softmax(&(logits / t)?, 1));
//!     let loss = KlDivLoss { log_target: true, reduction: Reduction::BatchMean };
//!     loss.forward(&student?, &teacher?)? * (t * t)
//! }
//! # let (student, teacher) = (Var::new(&[[1.0, 0.0]], &Device::Cpu)?, Var::new(&[[0.0, 1.0]], &Device::Cpu)?);
//! # let loss = distillation(&student, &teacher, 1.0)?;
//! # let p = 1.0 / (1.0 + (-1f64).exp());
//! # assert!((loss.to_scalar::<f64>()? - (2.0 * p - 1.0)).abs() < 1e-12);
//! # let grads = loss.backward()?;
//! # assert!(grads.get(&teacher).is_none() && grads.get(&student).is_some());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **DPO**, from the log-probabilities of the preferred and the other answer, under the policy and the reference:
//!
//! ```
//! # use candle_core::{Device, Result, Tensor};
//! use candle_losses::loss::SoftMarginLoss;
//!
//! fn dpo(policy: [&Tensor; 2], reference: [&Tensor; 2], beta: f64) -> Result<Tensor> {
//!     let [better, worse] = [0, 1].map(|i| policy[i] - reference[i].detach());
//!     let margin = ((better? - worse?)? * beta)?;
//!     SoftMarginLoss::default().forward(&margin, &margin.ones_like()?)
//! }
//! # let x = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
//! # let value = dpo([&x(-1.0), &x(-3.0)], [&x(-2.0), &x(-2.0)], 0.5)?.to_scalar::<f64>()?;
//! # assert!((value - (1.0 + (-1f64).exp()).ln()).abs() < 1e-12);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Focal loss**, which heeds what is hard: `-(1 - p)^γ · log p` of the class. Its factor is taken from `1 - p`, kept above
//! 0, so that the gradient is finite at `p = 1` for every `γ`:
//!
//! ```
//! # use candle_core::{Device, Result, Tensor, Var};
//! use candle_losses::loss::{NllLoss, Reduction, log_softmax};
//!
//! fn focal(logits: &Tensor, classes: &Tensor, gamma: f64) -> Result<Tensor> {
//!     let each = NllLoss { reduction: Reduction::None, ..Default::default() };
//!     let nll = each.forward(&log_softmax(logits, 1)?, classes)?;
//!     let rest = (1.0 - nll.neg()?.exp()?)?.maximum(1e-9)?;
//!     ((rest.log()? * gamma)?.exp()? * nll)?.mean_all()
//! }
//! # let logits = Var::new(&[[1000.0, 0.0], [0.0, 0.0]], &Device::Cpu)?;
//! # let classes = Tensor::new(&[0u32, 1], &Device::Cpu)?;
//! # for gamma in [0.0, 0.5, 1.0, 2.0] {
//! #     let loss = focal(&logits, &classes, gamma)?;
//! #     assert!((loss.to_scalar::<f64>()? - 0.5f64.powf(gamma) * 2f64.ln() / 2.0).abs() < 1e-12);
//! #     let grads = loss.backward()?.get(&logits).unwrap().flatten_all()?.to_vec1::<f64>()?;
//! #     assert!(grads.iter().all(|slope| slope.is_finite()), "{gamma} {grads:?}");
//! # }
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **A masked or weighted mean** of any loss:
//!
//! ```
//! # use candle_core::{Device, Result, Tensor};
//! use candle_losses::loss::{HuberLoss, Reduction};
//!
//! fn weighted_mean(input: &Tensor, target: &Tensor, weight: &Tensor) -> Result<Tensor> {
//!     let each = HuberLoss { reduction: Reduction::None, ..Default::default() }.forward(input, target)?;
//!     (each * weight)?.sum_all()? / weight.sum_all()?
//! }
//! # let x = |x: &[f64]| Tensor::new(x, &Device::Cpu).unwrap();
//! # let value = weighted_mean(&x(&[3.0, 9.0, 2.0]), &x(&[0.0; 3]), &x(&[1.0, 0.0, 1.0]))?.to_scalar::<f64>()?;
//! # assert_eq!(value, (2.5 + 1.5) / 2.0);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! **Padding in a `u32` target**, which can't hold -100: any number that is no class will do. A batch that is all padding has
//! no mean, which is NaN as in PyTorch; ask first, or take the sum:
//!
//! ```
//! # use candle_core::{Device, Result, Tensor};
//! use candle_losses::loss::{CrossEntropyLoss, Reduction};
//!
//! const PAD: u32 = u32::MAX;
//! fn padded(logits: &Tensor, classes: &Tensor) -> Result<Tensor> {
//!     let loss = CrossEntropyLoss { ignore_index: PAD.into(), reduction: Reduction::Sum, ..Default::default() };
//!     let count = classes.ne(PAD)?.to_dtype(logits.dtype())?.sum_all()?.maximum(1.0)?;
//!     loss.forward(logits, classes)? / count
//! }
//! # let logits = Tensor::zeros((2, 4), candle_core::DType::F64, &Device::Cpu)?;
//! # let value = |classes: [u32; 2]| padded(&logits, &Tensor::new(&classes, &Device::Cpu)?)?.to_scalar::<f64>();
//! # assert!((value([3, PAD])? - 4f64.ln()).abs() < 1e-12 && value([PAD, PAD])? == 0.0);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # What is refused
//!
//! An error names the loss, the argument, what it got and what it needs. Every loss refuses arguments whose shape, dtype
//! or device don't fit together. What each refuses besides (checked by `tests/refusals.rs`):
//!
//! | loss | argument: what it must not be |
//! |---|---|
//! | [`AdaptiveLogSoftmaxLoss`] | `cutoffs`: not rising from 1; `head`: not of a row for each frequent class and cluster; `target`: a class out of range |
//! | [`BceLoss`] | `input`: outside [0, 1] or NaN; `target`: outside [0, 1] or NaN; `weight`: not broadcasting to the input |
//! | [`BceWithLogitsLoss`] | `weight`: not broadcasting to the input; `pos_weight`: not broadcasting to the input |
//! | [`CosineEmbeddingLoss`] | `margin`: NaN |
//! | [`CrossEntropyLoss`] | `target`: a class out of range; `weight`: not one per class; `label_smoothing`: outside [0, 1] |
//! | [`CtcLoss`] | `targets`: a label out of range, or the blank; `input_lengths`: below 0 or above the steps; `target_lengths`: below 0 or above the labels; `blank`: not a class |
//! | [`GaussianNllLoss`] | `var`: negative; `eps`: not positive |
//! | [`HingeEmbeddingLoss`] | `margin`: NaN |
//! | [`HuberLoss`] | `delta`: not positive |
//! | [`KlDivLoss`] | `target`: negative, if it is probabilities |
//! | [`L1Loss`] | |
//! | [`LinearCrossEntropyLoss`] | `target`: a class out of range; `linear_weight`: not (C, D); `linear_bias`: not (C); `weight`: not one per class; `label_smoothing`: outside [0, 1]; `chunk`: 0 |
//! | [`MarginRankingLoss`] | `margin`: NaN |
//! | [`MseLoss`] | |
//! | [`MultiLabelMarginLoss`] | `target`: neither a class nor -1 |
//! | [`MultiLabelSoftMarginLoss`] | `input`: a scalar; `weight`: not broadcasting to the input |
//! | [`MultiMarginLoss`] | `target`: a class out of range; `weight`: not one per class; `p`: neither 1 nor 2; `margin`: NaN |
//! | [`NllLoss`] | `target`: a class out of range; `weight`: not one per class |
//! | [`PoissonNllLoss`] | `input`: a rate below `-eps`; `eps`: NaN |
//! | [`SmoothL1Loss`] | `beta`: negative |
//! | [`SoftMarginLoss`] | |
//! | [`TripletMarginLoss`] | `margin`: not positive; `p`: negative; `eps`: NaN; `anchor`: a scalar |
//! | [`TripletMarginWithDistanceLoss`] | `margin`: not positive |
//!
//! # What differs from PyTorch
//!
//! Three things are stricter. An input and a target of different shapes are an error where PyTorch would broadcast them.
//! What can only come out as NaN (a negative rate for a logarithm, a negative probability) is an error too, and so is the
//! blank inside a [`CtcLoss`] target. Checks that read values are made on the CPU only, as on a GPU each would wait for the
//! device; the exceptions are [`GaussianNllLoss`]'s variance, [`CtcLoss`]'s lengths and [`AdaptiveLogSoftmaxLoss`]'s classes,
//! which PyTorch reads on every device as well. A class out of range that was not looked for makes the loss NaN.
//!
//! Some are better defined, where PyTorch has NaN for what has one sensible value: [`SoftMarginLoss`] beyond ±88; the gradient
//! of an impossible [`CtcLoss`] target (0); `0 · log 0` and `0 · ∞`, that is [`CrossEntropyLoss`] against probabilities and
//! [`KlDivLoss`] where neither side, or the target alone, has a share, with the gradient by such a target (0), and
//! [`BceWithLogitsLoss`] and [`MultiLabelSoftMarginLoss`] at infinite logits where the target agrees (0); an ignored row of
//! [`CrossEntropyLoss`] that holds NaN. [`Reduction::BatchMean`] is there for every loss.

mod adaptive_log_softmax;
mod bce;
mod bce_with_logits;
mod cosine_embedding;
mod cross_entropy;
mod ctc;
mod gaussian_nll;
mod hinge_embedding;
mod huber;
mod kl_div;
mod l1;
mod linear_cross_entropy;
mod margin_ranking;
mod mse;
mod multi_margin;
mod multilabel_margin;
mod multilabel_soft_margin;
mod nll;
mod poisson_nll;
mod smooth_l1;
mod soft_margin;
mod triplet_margin;
mod triplet_margin_with_distance;

pub use crate::kernel::ops::log_softmax;
pub use adaptive_log_softmax::AdaptiveLogSoftmaxLoss;
pub use bce::BceLoss;
pub use bce_with_logits::BceWithLogitsLoss;
pub use cosine_embedding::CosineEmbeddingLoss;
pub use cross_entropy::CrossEntropyLoss;
pub use ctc::CtcLoss;
pub use gaussian_nll::GaussianNllLoss;
pub use hinge_embedding::HingeEmbeddingLoss;
pub use huber::HuberLoss;
pub use kl_div::KlDivLoss;
pub use l1::L1Loss;
pub use linear_cross_entropy::LinearCrossEntropyLoss;
pub use margin_ranking::MarginRankingLoss;
pub use mse::MseLoss;
pub use multi_margin::MultiMarginLoss;
pub use multilabel_margin::MultiLabelMarginLoss;
pub use multilabel_soft_margin::MultiLabelSoftMarginLoss;
pub use nll::NllLoss;
pub use poisson_nll::PoissonNllLoss;
pub use smooth_l1::SmoothL1Loss;
pub use soft_margin::SoftMarginLoss;
pub use triplet_margin::TripletMarginLoss;
pub use triplet_margin_with_distance::{Distance, TripletMarginWithDistanceLoss};

use crate::kernel::{Counted, Formula, find_not, fused_elements, is_host, ops, with_elements};
use candle_core::{DType, Device, Result, Shape, Tensor, bail};

/// How the losses of the single elements (or samples) become the result.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::{L1Loss, Reduction};
///
/// let input = Tensor::new(&[[1.0, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// let reduced = |reduction| L1Loss { reduction }.forward(&input, &input.zeros_like()?);
/// assert_eq!(reduced(Reduction::None)?.to_vec2::<f64>()?, [[1.0, 2.0], [3.0, 4.0]]);
/// assert_eq!(reduced(Reduction::Mean)?.to_scalar::<f64>()?, 2.5); // 10 / 4 elements
/// assert_eq!(reduced(Reduction::Sum)?.to_scalar::<f64>()?, 10.0);
/// assert_eq!(reduced(Reduction::BatchMean)?.to_scalar::<f64>()?, 5.0); // 10 / 2 rows
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reduction {
    /// No reduction: one loss per element, or per sample where a loss is defined per sample.
    None,
    /// The mean. [`NllLoss`] and [`CrossEntropyLoss`] against classes divide by the sum of the samples' class weights,
    /// 0 for an ignored sample; [`CtcLoss`] divides each loss by its target's length first.
    #[default]
    Mean,
    /// The sum.
    Sum,
    /// The sum divided by the size of the first dimension (1 for a scalar).
    BatchMean,
}

impl Reduction {
    /// What the sum of losses of this shape is to be multiplied by; `None` where they are not reduced.
    fn factor(self, dims: &[usize]) -> Option<f64> {
        match self {
            Self::None => None,
            Self::Mean => Some(1.0 / dims.iter().product::<usize>() as f64),
            Self::Sum => Some(1.0),
            Self::BatchMean => Some(dims.first().map_or(1.0, |&batch| 1.0 / batch as f64)),
        }
    }

    /// Reduces per-element losses, and gives the result the dtype and the device of the caller's input.
    fn reduce(self, loss: &Tensor, input: &Tensor) -> Result<Tensor> {
        let loss = match self.factor(loss.dims()) {
            Some(factor) => (ops::sum_all(loss)? * factor)?,
            None => loss.clone(),
        };
        loss.to_dtype(input.dtype())?.to_device(input.device())
    }

    /// The losses of the arguments' elements, each times its weight, reduced: by the formula in one pass where the host
    /// computes, else by tensor ops, which get the arguments in the precision that is computed in.
    fn elements<const N: usize>(
        self,
        args: [Tensor; N],
        weight: Option<&Tensor>,
        formula: impl Formula<N>,
        ops: impl FnOnce([Tensor; N]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        if let Some(loss) = fused_elements(args.each_ref(), weight, self.factor(args[0].dims()), formula)? {
            return Ok(loss);
        }
        let input = args[0].clone();
        let loss = ops(wide(args)?)?;
        let loss = match weight {
            Some(weight) => loss.broadcast_mul(weight)?,
            None => loss,
        };
        self.reduce(&loss, &input)
    }

    /// As [`Self::reduce`], for the losses of classes, which count by their weights.
    fn reduce_classes(self, loss: &Tensor, classes: &Gathered, input: &Tensor) -> Result<Tensor> {
        match self {
            Self::Mean => Self::Sum.reduce(&(ops::sum_all(loss)? / classes.total(loss.dtype())?)?, input),
            _ => self.reduce(loss, input),
        }
    }
}

/// The arguments of an element-wise loss, once they are seen to match: all of one shape, one float dtype and one device.
fn matching<const N: usize>(loss: &str, args: [(&str, &Tensor); N]) -> Result<[Tensor; N]> {
    let (first_name, first) = args[0];
    for (name, arg) in args {
        if arg.dims() != first.dims() {
            bail!(
                "{loss}: {name} has shape {:?} but {first_name} has shape {:?}; they must be equal",
                arg.dims(),
                first.dims()
            )
        }
        same_kind(loss, (name, arg), (first_name, first))?;
        precision(loss, name, arg)?;
    }
    Ok(args.map(|(_, arg)| arg.clone()))
}

/// Arguments in the dtype that they are computed in.
fn wide<const N: usize>(mut args: [Tensor; N]) -> Result<[Tensor; N]> {
    for arg in &mut args {
        *arg = float("a loss", "an argument", arg)?;
    }
    Ok(args)
}

/// Same dtype and same device.
fn same_kind(loss: &str, (name, arg): (&str, &Tensor), (other_name, other): (&str, &Tensor)) -> Result<()> {
    if arg.dtype() != other.dtype() {
        bail!(
            "{loss}: {name} has dtype {:?} but {other_name} has {:?}; convert one with to_dtype",
            arg.dtype(),
            other.dtype()
        )
    }
    same_device(loss, (name, arg), (other_name, other))
}

fn same_device(loss: &str, (name, arg): (&str, &Tensor), (other_name, other): (&str, &Tensor)) -> Result<()> {
    // By where they are, as candle does itself: a GPU that was opened twice is still one.
    if arg.device().location() != other.device().location() {
        bail!(
            "{loss}: {name} is on {:?} but {other_name} is on {:?}; move one with to_device",
            arg.device().location(),
            other.device().location()
        )
    }
    Ok(())
}

/// The dtype that losses are computed in: `f32` for the half precisions, else the input's own.
fn precision(loss: &str, name: &str, arg: &Tensor) -> Result<DType> {
    match arg.dtype() {
        DType::F16 | DType::BF16 | DType::F32 => Ok(DType::F32),
        DType::F64 => Ok(DType::F64),
        other => bail!("{loss}: {name} has dtype {other:?} but needs one of F16, BF16, F32, F64"),
    }
}

/// A float tensor in the dtype that losses are computed in. One without elements comes to the CPU, as a GPU's kernels fail
/// on it; [`Reduction::reduce`] takes the result back.
fn float(loss: &str, name: &str, arg: &Tensor) -> Result<Tensor> {
    at_hand(arg)?.to_dtype(precision(loss, name, arg)?)
}

/// The tensor itself, or on the CPU if it has no elements.
fn at_hand(arg: &Tensor) -> Result<Tensor> {
    if arg.elem_count() == 0 { arg.to_device(&Device::Cpu) } else { Ok(arg.clone()) }
}

/// Class indices or lengths as `i64`.
fn classes(loss: &str, name: &str, arg: &Tensor) -> Result<Tensor> {
    if !arg.dtype().is_int() {
        bail!("{loss}: {name} has dtype {:?} but needs one of U8, U32, I16, I32, I64", arg.dtype())
    }
    from_integers(arg, DType::I64)
}

/// Integers as another dtype, by way of the CPU where candle has no kernel on a GPU that converts them.
fn from_integers(arg: &Tensor, dtype: DType) -> Result<Tensor> {
    let has_kernel = arg.elem_count() > 0 && !matches!(arg.dtype(), DType::I16 | DType::I32);
    if !has_kernel && !arg.device().is_cpu() {
        return arg.to_device(&Device::Cpu)?.to_dtype(dtype)?.to_device(arg.device());
    }
    arg.to_dtype(dtype)
}

/// A target whose values are whole numbers, 0 or 1, ±1 or counts: integers become `input`'s dtype.
fn whole(target: &Tensor, input: &Tensor) -> Result<Tensor> {
    if target.dtype().is_int() && input.dtype().is_float() {
        return from_integers(target, input.dtype());
    }
    Ok(target.clone())
}

/// Class indices or lengths, read by the host.
fn integers(loss: &str, name: &str, arg: &Tensor) -> Result<Vec<i64>> {
    classes(loss, name, arg)?.flatten_all()?.to_vec1()
}

/// A weight that broadcasts to `input`'s shape, without a gradient, in the dtype that is computed in.
fn broadcast_weight(loss: &str, name: &str, weight: Option<&Tensor>, input: &Tensor) -> Result<Option<Tensor>> {
    let Some(weight) = weight else { return Ok(None) };
    same_device(loss, (name, weight), ("input", input))?;
    let fits = weight.rank() <= input.rank()
        && weight.dims().iter().rev().zip(input.dims().iter().rev()).all(|(&w, &i)| w == i || w == 1);
    if !fits {
        bail!("{loss}: {name} has shape {:?}, which does not broadcast to input's {:?}", weight.dims(), input.dims())
    }
    float(loss, name, &weight.detach())?.to_dtype(precision(loss, "input", input)?).map(Some)
}

/// An option of a loss that must satisfy `ok`.
fn check_option(loss: &str, name: &str, value: f64, ok: bool, need: &str) -> Result<()> {
    if !ok {
        bail!("{loss}: {name} is {value} but must be {need}")
    }
    Ok(())
}

/// Refuses the first element that does not satisfy `ok`, of a tensor that can be read without waiting for a device.
fn check_elements(loss: &str, name: &str, arg: &Tensor, ok: impl Fn(f64) -> bool + Sync, need: &str) -> Result<()> {
    if !is_host(arg.device()) {
        return Ok(());
    }
    if arg.elem_count() == 0 {
        return Ok(());
    }
    match find_not(arg, ok)? {
        Some((at, value)) => bail!("{loss}: {name} must be {need}, but element {at} is {value}"),
        None => Ok(()),
    }
}

/// The dimension of `input` that counts the classes: `(C)` has no batch, else it is `(N, C, d1, …, dK)`.
fn class_dim(loss: &str, input: &Tensor) -> Result<usize> {
    match input.dims() {
        [] => bail!("{loss}: input is a scalar but needs a class dimension, (C) or (N, C, …)"),
        dims => Ok(dims.len().min(2) - 1),
    }
}

/// A weight for each class, `(C)`, as many as `input` has in the dimension `dim`, in the dtype that it is computed in.
fn class_weight(loss: &str, weight: &Tensor, input: &Tensor, dim: usize) -> Result<Tensor> {
    same_device(loss, ("weight", weight), ("input", input))?;
    let classes = input.dim(dim)?;
    if weight.dims() != [classes] {
        bail!("{loss}: weight has shape {:?} but needs one value for each of the {classes} classes", weight.dims())
    }
    float(loss, "weight", &weight.detach())?.to_dtype(precision(loss, "input", input)?)?.contiguous()
}

/// A target of class indices, one for each sample of an input, seen to fit it.
struct Classes {
    loss: &'static str,
    /// The dimension of the input that counts the classes.
    dim: usize,
    /// How many classes there are.
    count: usize,
    /// One class for each sample, `i64`.
    target: Tensor,
    /// A weight for each class, in the dtype that is computed in.
    weight: Option<Tensor>,
    ignore_index: Option<i64>,
    /// Whether the host may read the target, and there is something to compute.
    is_read: bool,
}

impl Classes {
    /// Checks what can be seen without a look at the values.
    fn new(
        loss: &'static str,
        input: &Tensor,
        target: &Tensor,
        weight: Option<&Tensor>,
        ignore_index: Option<i64>,
    ) -> Result<Self> {
        let dim = class_dim(loss, input)?;
        let mut samples = input.dims().to_vec();
        let count = samples.remove(dim);
        precision(loss, "input", input)?;
        same_device(loss, ("target", target), ("input", input))?;
        let target = &classes(loss, "target", target)?;
        // Without a batch PyTorch takes one class as a scalar or as a vector of one.
        if target.dims() != samples && !(samples.is_empty() && target.dims() == [1]) {
            bail!(
                "{loss}: target has shape {:?} but input of shape {:?} needs class indices of shape {samples:?}",
                target.dims(),
                input.dims()
            )
        }
        let weight = weight.map(|weight| class_weight(loss, weight, input, dim)).transpose()?;
        let is_read = is_host(input.device()) && input.elem_count() > 0;
        let target = target.reshape(samples)?;
        let target = if input.elem_count() == 0 { target.to_device(&Device::Cpu)? } else { target };
        Ok(Self { loss, dim, count, target, weight, ignore_index, is_read })
    }

    /// What the host reads, where it may: whether all are classes, which, and what they count.
    fn read(&self) -> Result<Option<Counted>> {
        if !self.is_read {
            return Ok(None);
        }
        let weight = self.weight.as_ref().map(|weight| weight.to_dtype(DType::F64)?.to_vec1()).transpose()?;
        Ok(Some(Counted { classes: self.values()?, weight }))
    }

    /// The classes, [`Counted::IGNORED`] where they are to be ignored.
    fn values(&self) -> Result<Vec<u32>> {
        let class = |&class: &i64| match class {
            class if Some(class) == self.ignore_index => Ok(Counted::IGNORED),
            class if (0..self.count as i64).contains(&class) => Ok(class as u32),
            class => {
                bail!("{}: target holds class {class} but input has {} classes, numbered from 0", self.loss, self.count)
            }
        };
        with_elements(&self.target, |target| target.iter().map(class).collect())?
    }

    /// What the sum of the losses is to be multiplied by; `None` where they are not reduced.
    fn factor(&self, reduction: Reduction, counted: &Counted) -> Option<f64> {
        match reduction {
            Reduction::Mean => Some(1.0 / counted.total()),
            _ => reduction.factor(self.target.dims()),
        }
    }

    /// A form that is safe to gather with, on every device.
    fn gathered(&self) -> Result<Gathered> {
        let Self { dim, count, .. } = *self;
        let (index, ignored, invalid) = if is_host(self.target.device()) || self.target.elem_count() == 0 {
            let (index, ignored) = checked_index(&self.values()?, self.target.shape(), self.target.device())?;
            (index, ignored, None)
        } else {
            masked_index(&self.target, count, self.ignore_index)?
        };
        let index = index.to_dtype(DType::U32)?;
        let weight = match &self.weight {
            Some(weight) => {
                let weight = weight.to_device(index.device())?;
                Some(match count {
                    0 => Tensor::zeros(index.shape(), weight.dtype(), index.device())?,
                    _ => weight.index_select(&index.flatten_all()?, 0)?.reshape(index.shape())?,
                })
            }
            None => None,
        };
        let mut gathered = Gathered { dim, count, index: index.unsqueeze(dim)?, ignored, invalid, weight: None };
        gathered.weight = weight.map(|weight| gathered.drop_ignored(&weight)).transpose()?;
        Ok(gathered)
    }
}

/// Classes to gather with.
struct Gathered {
    dim: usize,
    count: usize,
    /// The classes as `u32`, 0 where ignored; in input's shape with `dim` of size 1.
    index: Tensor,
    /// `u8` of the samples' shape, 1 where target is the ignored index; `None` where it is known that none is.
    ignored: Option<Tensor>,
    /// The same where target is no class at all, on a device that can't be asked without waiting for it.
    invalid: Option<Tensor>,
    /// How much each sample counts: its class's weight, 0 if ignored. `None` where all that are not ignored count the same.
    weight: Option<Tensor>,
}

impl Gathered {
    /// `input`'s value at each sample's class.
    fn pick(&self, input: &Tensor) -> Result<Tensor> {
        if self.count == 0 {
            // Only samples to ignore are left, and there is nothing to pick from.
            return input.sum(self.dim);
        }
        input.contiguous()?.gather(&self.index, self.dim)?.squeeze(self.dim)
    }

    /// `values` with 0 at the samples to ignore, whatever stands there, NaN and infinities included.
    fn drop_ignored(&self, values: &Tensor) -> Result<Tensor> {
        match &self.ignored {
            Some(ignored) => ignored.where_cond(&values.zeros_like()?, values),
            None => Ok(values.clone()),
        }
    }

    /// `input` with 0 in the rows to ignore: a softmax of what is no number would make their gradient none either.
    fn drop_ignored_rows(&self, input: &Tensor) -> Result<Tensor> {
        match &self.ignored {
            Some(ignored) => {
                ignored.unsqueeze(self.dim)?.broadcast_as(input.shape())?.where_cond(&input.zeros_like()?, input)
            }
            None => Ok(input.clone()),
        }
    }

    /// `u8` of input's shape, 1 at every class but the sample's own.
    fn others(&self) -> Result<Tensor> {
        let mut shape = vec![1; self.index.rank()];
        shape[self.dim] = self.count;
        let all = Tensor::arange(0u32, self.count as u32, self.index.device())?.reshape(shape)?;
        all.broadcast_ne(&self.index)
    }

    /// What the samples count together, each by its weight.
    fn total(&self, dtype: DType) -> Result<Tensor> {
        match (&self.weight, &self.ignored) {
            (Some(weight), _) => ops::sum_all(weight),
            (None, Some(ignored)) => ops::sum_all(&ignored.eq(0u8)?.to_dtype(dtype)?),
            (None, None) => Tensor::new(self.index.elem_count() as f64, &Device::Cpu)?
                .to_dtype(dtype)?
                .to_device(self.index.device()),
        }
    }

    /// The negative log-likelihood of each sample, times what the sample counts.
    fn negative_log_likelihood(&self, log_p: &Tensor) -> Result<Tensor> {
        self.weighted(&self.pick(log_p)?.neg()?)
    }

    /// The losses of the samples, each times what the sample counts.
    fn weighted(&self, losses: &Tensor) -> Result<Tensor> {
        let mut losses = self.drop_ignored(losses)?;
        if let Some(invalid) = &self.invalid {
            losses = invalid.where_cond(&losses.zeros_like()?.affine(0., f64::NAN)?, &losses)?;
        }
        match &self.weight {
            Some(weight) => losses * weight,
            None => Ok(losses),
        }
    }
}

/// Classes, with 0 for those to ignore, and where those are.
fn checked_index(values: &[u32], shape: &Shape, device: &Device) -> Result<(Tensor, Option<Tensor>)> {
    let is_ignored = |class: u32| class == Counted::IGNORED;
    let index = values.iter().map(|&class| if is_ignored(class) { 0 } else { class }).collect();
    let index = Tensor::from_vec::<_, u32>(index, shape, device)?;
    if !values.iter().any(|&class| is_ignored(class)) {
        return Ok((index, None));
    }
    let ignored = values.iter().map(|&class| is_ignored(class) as u8).collect();
    Ok((index, Some(Tensor::from_vec::<_, u8>(ignored, shape, device)?)))
}

/// The classes in `target` with 0 in place of what is none, where it holds the ignored index, and where what is neither
/// that nor a class. This takes no look at the values, for which the host would have to wait.
#[allow(clippy::type_complexity)]
fn masked_index(
    target: &Tensor,
    count: usize,
    ignore_index: Option<i64>,
) -> Result<(Tensor, Option<Tensor>, Option<Tensor>)> {
    let zeros = target.zeros_like()?;
    let is_none = (target.lt(0i64)? + target.ge(count as i64)?)?;
    let ignored = ignore_index.map(|ignore_index| target.eq(ignore_index)).transpose()?;
    let invalid = match &ignored {
        Some(ignored) => ignored.where_cond(&is_none.zeros_like()?, &is_none)?,
        None => is_none.clone(),
    };
    let index = is_none.where_cond(&zeros, target)?;
    let index = match &ignored {
        Some(ignored) => ignored.where_cond(&zeros, &index)?,
        None => index,
    };
    Ok((index, ignored, Some(invalid)))
}

#[cfg(test)]
mod testing;
