//! How losses are computed.
//!
//! A loss of single elements is one [formula](elementwise::Elementwise) for value and gradients. On the CPU it runs on
//! vectors, in one pass over memory ([`cpu`]). For other devices it is [recorded](expr) and evaluated by tensor ops
//! ([`tensor_loss`]). A [loss of rows](rows) has a loop of its own on the CPU, and tensor ops elsewhere. Either way the
//! loss is one [node](graph) of candle's graph.
//!
//! Each module uses only modules above it: [`scalar`], [`element`], [`strided`], [`lanes`], [`parallel`], [`switches`],
//! [`storage`], [`scan`], [`graph`], [`ops`], [`cpu`] and [`tensor_loss`], [`expr`], [`elementwise`], [`rows`], [`nll`],
//! [`ctc`], [`gemm`].

mod cpu;
mod ctc;
pub(crate) mod element;
pub(crate) mod elementwise;
mod expr;
pub(crate) mod gemm;
pub(crate) mod graph;
pub(crate) mod lanes;
pub(crate) mod nll;
pub(crate) mod ops;
pub(crate) mod parallel;
pub(crate) mod rows;
pub(crate) mod scalar;
pub(crate) mod scan;
pub(crate) mod storage;
mod strided;
pub(crate) mod switches;
pub(crate) mod tensor_loss;

pub(crate) use ctc::{LabelSequence, ctc_losses};
