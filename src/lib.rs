//! PyTorch's loss functions for [Candle](https://github.com/huggingface/candle), and a runnable example for each.
//!
//! # Use a loss
//!
//! The losses are in [`loss`] and depend on candle-core alone. A loss is a struct with PyTorch's options as fields, `Default` has
//! PyTorch's defaults, and `forward` returns a tensor that backpropagates, on the CPU, on CUDA and on Metal:
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
//! | target | loss | last layer |
//! |---|---|---|
//! | a number | [`MseLoss`](loss::MseLoss); with outliers [`HuberLoss`](loss::HuberLoss), [`SmoothL1Loss`](loss::SmoothL1Loss) or [`L1Loss`](loss::L1Loss) | linear |
//! | a number with its uncertainty | [`GaussianNllLoss`](loss::GaussianNllLoss) | linear: mean and log variance |
//! | a count | [`PoissonNllLoss`](loss::PoissonNllLoss) | linear: the log rate |
//! | yes or no | [`BceWithLogitsLoss`](loss::BceWithLogitsLoss), or [`SoftMarginLoss`](loss::SoftMarginLoss) for targets of ±1 | linear |
//! | yes or no, from a probability | [`BceLoss`](loss::BceLoss) | sigmoid |
//! | one of several classes | [`CrossEntropyLoss`](loss::CrossEntropyLoss), or [`MultiMarginLoss`](loss::MultiMarginLoss) if no probabilities are needed | linear |
//! | one of several classes, from log-probabilities | [`NllLoss`](loss::NllLoss) | log-softmax |
//! | one of very many classes | [`LinearCrossEntropyLoss`](loss::LinearCrossEntropyLoss), or [`AdaptiveLogSoftmaxWithLoss`](loss::AdaptiveLogSoftmaxWithLoss) if most classes are rare | in the loss |
//! | any number of labels | [`MultiLabelSoftMarginLoss`](loss::MultiLabelSoftMarginLoss), [`MultiLabelMarginLoss`](loss::MultiLabelMarginLoss) | linear |
//! | a distribution | [`KlDivLoss`](loss::KlDivLoss) | log-softmax |
//! | a ranking | [`MarginRankingLoss`](loss::MarginRankingLoss) | linear: a score |
//! | similar or not | [`CosineEmbeddingLoss`](loss::CosineEmbeddingLoss), [`HingeEmbeddingLoss`](loss::HingeEmbeddingLoss) | linear: an embedding |
//! | closer to one example than to another | [`TripletMarginLoss`](loss::TripletMarginLoss), [`TripletMarginWithDistanceLoss`](loss::TripletMarginWithDistanceLoss) | linear: an embedding |
//! | a sequence without alignment | [`CtcLoss`](loss::CtcLoss) | log-softmax at each step |
//!
//! # Model, data, training
//!
//! The feature `train` adds training for any model built on candle-nn's `VarBuilder`: [`Parameters`], named variables that are
//! initialized from a seed; [`Adam`], a `candle_nn::Optimizer`; [`Trainer`], the training loop; [`evaluate`], [`EarlyStopping`] and
//! [`Checkpoint`]; and [`data`], your own and bundled datasets. `Trainer` also takes a model on candle-nn's `VarMap` and any other
//! optimizer, such as `AdamW`:
//!
#![cfg_attr(feature = "train", doc = "```")]
#![cfg_attr(not(feature = "train"), doc = "```ignore")]
//! use candle_core::{DType, Device, Module};
//! use candle_losses::{Trainer, data, loss::CrossEntropyLoss};
//! use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap};
//!
//! let data = data::digits(&Device::Cpu)?;
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let hidden = candle_nn::linear(784, 32, vb.pp("hidden"))?;
//! let output = candle_nn::linear(32, 10, vb.pp("output"))?;
//! let model = |x: &candle_core::Tensor| output.forward(&hidden.forward(&x.flatten_from(1)?)?.relu()?);
//!
//! let mut optimizer = AdamW::new(variables.all_vars(), ParamsAdamW { lr: 1e-3, ..Default::default() })?;
//! Trainer { epochs: 1, batch_size: 64, ..Default::default() }.fit(&mut optimizer, &data.train.take(6400)?, |x, y| {
//!     CrossEntropyLoss::default().forward(&model(x)?, y)
//! })?;
//! let (images, digits) = data.test.batch(None, 0, 1000)?;
//! let right = model(&images)?.argmax(1)?.eq(&digits)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
//! assert!(right > 0.5, "{right}");
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! The feature `datasets` converts any vision dataset of candle-datasets into a [`data::TrainTestSplit`].
#![deny(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod kernel;
pub mod loss;

#[cfg(feature = "train")]
pub mod data;
#[cfg(feature = "train")]
mod nn;
#[cfg(feature = "train")]
mod train;

#[cfg(feature = "train")]
pub use nn::{Adam, AdamState, Dropout, Mlp, OutputActivation, Parameters, ParamsAdam, clip_grad_norm, mlp};
#[cfg(feature = "train")]
pub use train::{
    BatchLoss, BestEpoch, Checkpoint, EarlyStopping, Event, SkipReason, Trainer, evaluate, load_checkpoint,
    save_checkpoint,
};
