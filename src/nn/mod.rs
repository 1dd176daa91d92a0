//! Building blocks of training for candle-nn: [`Parameters`] for its `VarBuilder`, the optimizer [`Adam`], reproducible
//! [`Dropout`], the examples' [`mlp`], and gradient clipping.

mod adam;
mod clip;
mod dropout;
mod files;
mod linear;
mod mlp;
mod parameters;

pub use adam::{Adam, AdamState, ParamsAdam};
pub(crate) use clip::clip;
pub use clip::clip_grad_norm;
pub use dropout::Dropout;
pub(crate) use files::replace;
pub use mlp::{Mlp, OutputActivation, mlp};
pub use parameters::Parameters;
pub(crate) use parameters::{all_finite, assign};
