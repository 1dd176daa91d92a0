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
//! [`AdaptiveLogSoftmaxWithLoss`] and [`TripletMarginWithDistanceLoss`] in a few. The memory of large derivatives, up to 64 MiB, is
//! kept for the next call.
//!
//! # Start with these three
//!
//! [`CrossEntropyLoss`] for one class of several, [`BceWithLogitsLoss`] for yes or no, [`HuberLoss`] for a number. The others
//! are for what those can't do; each says so.
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

/// A loss of an input and a target, so that a program can hold any of them.
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
    /// Those of the loss itself.
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
