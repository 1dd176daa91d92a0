//! PyTorch's loss functions for [Candle](https://github.com/huggingface/candle), and a runnable example for each.
//!
//! The losses are in [`loss`] and need nothing but candle: a crate that only wants them takes this one with
//! `default-features = false`. All else is the examples' common ground, behind the feature `suite`: a multilayer
//! perceptron with PyTorch's weights and names ([`Mlp`]), the data ([`data`]), PyTorch's Adam ([`Adam`]), one training
//! loop and what it prints ([`Session`]).
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod loss;

#[cfg(feature = "suite")]
mod adam;
#[cfg(feature = "suite")]
mod cli;
#[cfg(feature = "suite")]
pub mod data;
#[cfg(feature = "suite")]
mod linear;
#[cfg(feature = "suite")]
mod mlp;
#[cfg(feature = "suite")]
mod output;
#[cfg(feature = "suite")]
mod plot;
#[cfg(feature = "suite")]
mod report;
#[cfg(feature = "suite")]
mod train;

#[cfg(feature = "suite")]
pub use adam::Adam;
#[cfg(feature = "suite")]
pub use cli::{Args, Session, class_weights, run};
#[cfg(feature = "suite")]
pub use mlp::{Activation, Mlp};
#[cfg(feature = "suite")]
pub use report::Report;
