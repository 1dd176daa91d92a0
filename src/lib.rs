//! PyTorch's loss functions for [Candle](https://github.com/huggingface/candle), and a runnable example for each.
//!
//! # Take one loss
//!
//! The losses are in [`loss`] and need nothing but candle: a crate that only wants them takes this one with
//! `default-features = false`. A loss is a struct with PyTorch's options as fields, `Default` has PyTorch's defaults, and
//! `forward` gives a tensor that backpropagates, on the CPU, on CUDA and on Metal:
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use candle_losses::loss::{HuberLoss, Reduction};
//!
//! let prediction = Var::new(&[1.0f32, 5.0], &Device::Cpu)?;
//! let target = Tensor::new(&[1.5f32, 2.0], &Device::Cpu)?;
//! let loss = HuberLoss { delta: 1.0, reduction: Reduction::Sum };
//! let value = loss.forward(&prediction, &target)?;
//! assert_eq!(value.to_scalar::<f32>()?, 2.625); // 0.5² / 2 + (3 - 1/2)
//! let gradient = value.backward()?;
//! assert_eq!(gradient.get(&prediction).unwrap().to_vec1::<f32>()?, [-0.5, 1.0]);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # Which loss?
//!
//! | the target is | take | with a last layer |
//! |---|---|---|
//! | a number | [`MseLoss`](loss::MseLoss); with outliers [`HuberLoss`](loss::HuberLoss), [`SmoothL1Loss`](loss::SmoothL1Loss) or [`L1Loss`](loss::L1Loss) | linear |
//! | a number, and how sure the model is matters | [`GaussianNllLoss`](loss::GaussianNllLoss) | linear: mean and log variance |
//! | a count | [`PoissonNllLoss`](loss::PoissonNllLoss) | linear: the log rate |
//! | yes or no | [`BceWithLogitsLoss`](loss::BceWithLogitsLoss); [`BceLoss`](loss::BceLoss) where a probability is given, [`SoftMarginLoss`](loss::SoftMarginLoss) for ±1 | linear |
//! | one class of several | [`CrossEntropyLoss`](loss::CrossEntropyLoss); [`NllLoss`](loss::NllLoss) for log-probabilities, [`MultiMarginLoss`](loss::MultiMarginLoss) for a decision without probabilities | linear |
//! | any number of labels | [`MultiLabelSoftMarginLoss`](loss::MultiLabelSoftMarginLoss), [`MultiLabelMarginLoss`](loss::MultiLabelMarginLoss) | linear |
//! | a distribution | [`KlDivLoss`](loss::KlDivLoss) | log-softmax |
//! | an order | [`MarginRankingLoss`](loss::MarginRankingLoss) | linear: a score |
//! | alike or not | [`CosineEmbeddingLoss`](loss::CosineEmbeddingLoss), [`HingeEmbeddingLoss`](loss::HingeEmbeddingLoss) | linear: a place in space |
//! | nearer than another | [`TripletMarginLoss`](loss::TripletMarginLoss), [`TripletMarginWithDistanceLoss`](loss::TripletMarginWithDistanceLoss) | linear: a place in space |
//! | a sequence, not aligned | [`CtcLoss`](loss::CtcLoss) | log-softmax at each step |
//!
//! # The examples' common ground
//!
//! All else is behind the feature `suite`: a multilayer perceptron with PyTorch's weights and names (`Mlp`), the data
//! (`data`), PyTorch's Adam (`Adam`), one training loop (`Training`, and `Session` with what an example prints and
//! writes), comparisons over seeds (`Comparison`) and pictures (`plot`).
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod loss;

#[cfg(feature = "suite")]
mod adam;
#[cfg(feature = "suite")]
mod checkpoint;
#[cfg(feature = "suite")]
mod cli;
#[cfg(feature = "suite")]
mod compare;
#[cfg(feature = "suite")]
pub mod data;
#[cfg(all(feature = "suite", any(fuzzing, test)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "suite")]
mod interrupt;
#[cfg(feature = "suite")]
mod linear;
#[cfg(feature = "suite")]
mod mlp;
#[cfg(feature = "suite")]
mod output;
#[cfg(feature = "suite")]
pub mod plot;
#[cfg(feature = "suite")]
mod report;
#[cfg(feature = "suite")]
mod terminal;
#[cfg(feature = "suite")]
mod train;

#[cfg(feature = "suite")]
pub use adam::Adam;
#[cfg(feature = "suite")]
pub use cli::{Args, Session, class_weights, run};
#[cfg(feature = "suite")]
pub use compare::Comparison;
#[cfg(feature = "suite")]
pub use mlp::{Activation, Mlp};
#[cfg(feature = "suite")]
pub use report::{Report, outputs};
#[cfg(feature = "suite")]
pub use train::Training;
