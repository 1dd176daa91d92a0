//! PyTorch's loss functions. Each is a struct with public fields, PyTorch's defaults and one `forward`:
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
//! Values, gradients and shapes are PyTorch's, for every option, except for a few
//! [differences](#differences-from-pytorch).
//!
//! # Start with these three
//!
//! [`CrossEntropyLoss`] predicts one class of several, [`BceWithLogitsLoss`] yes or no, and [`HuberLoss`] a number. The
//! page of each other loss says when to use it.
//!
//! # Dtypes and precision
//!
//! Inputs are `f16`, `bf16`, `f32` or `f64`, contiguous or not. Classes, labels and lengths are of any integer dtype:
//! `u8`, `u32`, `i16`, `i32` or `i64`. Targets of 0 and 1, of ±1, or of counts are of the input's dtype or of any
//! integer dtype. The target of [`CosineEmbeddingLoss`] is of any dtype.
//!
//! Losses of `f16` and `bf16` inputs are computed in `f32`, and the result is rounded once. Gradients are also rounded
//! once, after the multiplication by the gradient of the loss. Loss scaling therefore works: a gradient that is too
//! small for `f16` is not lost. A mean or sum in `f32` has a relative error of at most 2e-6 for any number of elements.
//!
//! # Devices
//!
//! The losses run on the CPU, on CUDA and on Metal. (Metal has no `f64`, and backward in `bf16` needs an NVIDIA GPU of
//! compute capability 8.0 or later.) On the CPU a loss and its gradients are computed in one pass over memory.
//! [`LinearCrossEntropyLoss`], [`AdaptiveLogSoftmaxWithLoss`] and [`TripletMarginWithDistanceLoss`] take a few passes.
//! On other devices tensor ops compute a loss: from the same formula where each element has a loss of its own, from a
//! second one where each row has. The results are equal to rounding.
//!
//! # Losses in a graph
//!
//! A loss is one node of candle's graph, not one node for each op of its formula. (The formulas of
//! [`AdaptiveLogSoftmaxWithLoss`] and [`TripletMarginWithDistanceLoss`] take several nodes.) A loss can be anywhere in
//! a graph: it can be scaled, added to other losses, called twice, and called from several threads. One tensor can be
//! several of its arguments, and backward can run any number of times.
//!
//! Every loss of one input and one target implements [`Criterion`], so that a program can choose the loss at run time.
//!
//! # Second derivatives
//!
//! Candle detaches gradients by default, so they have no derivatives. Its environment variable
//! `CANDLE_GRAD_DO_NOT_DETACH=1`, set before the program starts, turns this off. The gradients of a loss are then
//! differentiable, and the CPU uses tensor ops as other devices do. Two losses are special: [`LinearCrossEntropyLoss`]
//! computes all logits at once, and backward through a gradient of [`CtcLoss`] returns an error.
//!
//! This gradient penalty adds the squared gradient to the loss:
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use candle_losses::loss::MseLoss;
//!
//! let (input, target) = (Var::new(&[3.0], &Device::Cpu)?, Tensor::new(&[1.0], &Device::Cpu)?);
//! let loss = MseLoss::default().forward(&input, &target)?; // (3 - 1)²
//! let grads = loss.backward()?;
//! let penalty = grads.get(&input).unwrap().sqr()?.sum_all()?; // (2 · (3 - 1))²
//! let total = (loss + penalty)?;
//! assert_eq!(total.to_scalar::<f64>()?, 4.0 + 16.0);
//!
//! let gradient = total.backward()?.get(&input).unwrap().to_vec1::<f64>()?[0];
//! # let is_on = std::env::var("CANDLE_GRAD_DO_NOT_DETACH").is_ok_and(|value| !value.is_empty() && value != "0");
//! # if is_on {
//! assert_eq!(gradient, 4.0 + 16.0); // 2 · (3 - 1) of the loss and 8 · (3 - 1) of the penalty
//! # } else {
//! #     assert_eq!(gradient, 4.0);
//! # }
//! # Ok::<(), candle_core::Error>(())
//! ```
#![doc = ""]
#![doc = include_str!("identities.md")]
#![doc = ""]
#![doc = include_str!("recipes.md")]
#![doc = ""]
#![doc = include_str!("validation.md")]
#![doc = ""]
#![doc = include_str!("differences.md")]

mod adaptive_log_softmax;
mod bce;
mod bce_with_logits;
mod class_targets;
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
mod reduction;
mod smooth_l1;
mod soft_margin;
mod triplet_margin;
mod triplet_margin_with_distance;
mod validate;

pub use crate::kernel::ops::log_softmax;
pub use adaptive_log_softmax::AdaptiveLogSoftmaxWithLoss;
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
pub use reduction::Reduction;
pub use smooth_l1::SmoothL1Loss;
pub use soft_margin::SoftMarginLoss;
pub use triplet_margin::TripletMarginLoss;
pub use triplet_margin_with_distance::{DistanceFunction, TripletMarginWithDistanceLoss};

use candle_core::{Result, Tensor};

/// A loss of an input and a target.
///
/// With `Box<dyn Criterion>` a program can choose the loss at run time.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::{Criterion, HuberLoss, L1Loss};
///
/// let criteria: [Box<dyn Criterion>; 2] = [Box::new(L1Loss::default()), Box::new(HuberLoss::default())];
/// let (input, target) = (Tensor::new(&[3.0], &Device::Cpu)?, Tensor::new(&[1.0], &Device::Cpu)?);
/// let values = criteria.iter().map(|criterion| criterion.forward(&input, &target)?.to_scalar::<f64>());
/// assert_eq!(values.collect::<Result<Vec<_>, _>>()?, [2.0, 1.5]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub trait Criterion {
    /// Returns the loss of `input` against `target`.
    ///
    /// # Errors
    /// If `forward` of the loss itself returns an error.
    fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor>;
}

macro_rules! criteria {
    ($($loss:ty),*) => {
        $(impl Criterion for $loss {
            fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
                self.forward(input, target)
            }
        })*
    };
}
criteria!(
    BceLoss,
    BceWithLogitsLoss,
    CrossEntropyLoss,
    HingeEmbeddingLoss,
    HuberLoss,
    KlDivLoss,
    L1Loss,
    MseLoss,
    MultiLabelMarginLoss,
    MultiLabelSoftMarginLoss,
    MultiMarginLoss,
    NllLoss,
    PoissonNllLoss,
    SmoothL1Loss,
    SoftMarginLoss
);

#[cfg(test)]
mod testing;
