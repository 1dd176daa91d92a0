//! A loss from tensor ops, on any device.

use super::graph::{Value, node};
use super::ops::{self, Scaled};
use super::switches::keeps_graph_of_gradients;
use candle_core::{Result, Tensor};

/// How losses are reduced to the value.
pub(crate) enum Scale {
    /// Not at all.
    None,
    /// Their sum times a number.
    Number(f64),
    /// Their sum times a scalar tensor, which the host does not wait for.
    Tensor(Tensor),
}

impl From<Option<f64>> for Scale {
    fn from(factor: Option<f64>) -> Self {
        factor.map_or(Self::None, Self::Number)
    }
}

/// The reduced losses of some samples, as one node of the graph.
///
/// `compute` returns the loss of each sample and the gradients of those losses by the arguments that are marked as wanted.
/// A gradient broadcasts to the shape of its argument. The losses have the arguments' shape, without `dim` if it is given.
///
/// `is_ignored` marks samples whose gradient is 0, in a shape that broadcasts to the arguments'.
///
/// `compute` is called once, with detached arguments: no op of it is part of the graph, and backward multiplies gradients
/// that are there. If the graph of gradients is kept, backward calls it again with the arguments themselves, so that its
/// gradients are differentiable.
pub(crate) fn tensor_loss<const N: usize, F>(
    args: [&Tensor; N],
    dim: Option<usize>,
    scale: Scale,
    is_ignored: Option<Tensor>,
    compute: F,
) -> Result<Tensor>
where
    F: Fn([&Tensor; N], [bool; N]) -> Result<(Scaled, [Option<Scaled>; N])> + Send + Sync + 'static,
{
    let wanted = args.map(Tensor::track_op);
    let detached = args.map(Tensor::detach);
    let (losses, grads) = compute(detached.each_ref(), wanted)?;
    let value = match &scale {
        Scale::None => ops::times(&losses.tensor, losses.factor)?,
        Scale::Number(number) => ops::times(&ops::sum_all(&losses.tensor)?, losses.factor * number)?,
        Scale::Tensor(scalar) => (ops::times(&ops::sum_all(&losses.tensor)?, losses.factor)? * scalar)?,
    };
    if !wanted.contains(&true) {
        return Ok(value);
    }
    drop(losses);
    node(args, Value::Tensor(value), move |args, grad| {
        let again = keeps_graph_of_gradients().then(|| compute(args, wanted)).transpose()?;
        let grads = again.as_ref().map_or(&grads, |(_, grads)| grads);
        let grad = match (&scale, dim) {
            (Scale::None, Some(dim)) => grad.unsqueeze(dim)?,
            (Scale::Tensor(scalar), _) => (grad * scalar)?,
            _ => grad.clone(),
        };
        // The gradient of an ignored sample is 0, whatever the gradient of its loss is.
        let grad = match &is_ignored {
            Some(is_ignored) => ops::masked_fill(&grad.broadcast_as(is_ignored.shape())?, is_ignored, 0.0)?,
            None => grad,
        };
        let number = if let Scale::Number(number) = scale { number } else { 1.0 };
        let mut scaled = [const { None }; N];
        for ((scaled, gradient), arg) in scaled.iter_mut().zip(grads).zip(args) {
            if let Some(Scaled { tensor, factor }) = gradient {
                let product = tensor.broadcast_mul(&ops::times(&grad, factor * number)?)?;
                *scaled =
                    Some(if product.dims() == arg.dims() { product } else { product.broadcast_as(arg.shape())? });
            }
        }
        Ok(scaled)
    })
}
