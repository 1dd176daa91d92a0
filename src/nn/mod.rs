//! Models and how they are trained, in candle-nn's own terms: parameters for its `VarBuilder`, an [`Adam`] that is one of
//! its `Optimizer`s, the examples' [`mlp`], and clipping of gradients.

mod adam;
mod clip;
mod linear;
mod mlp;
mod parameters;

pub use adam::{Adam, ParamsAdam};
pub(crate) use clip::clip;
pub use clip::clip_grad_norm;
pub use mlp::{Mlp, OutputActivation, mlp};
pub use parameters::Parameters;
