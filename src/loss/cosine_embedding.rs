use super::Reduction;
use super::validate::{check_option, matching, same_device};
use crate::kernel::lanes::Lanes;
use crate::kernel::ops::{self, EPSILON, Scaled};
use crate::kernel::rows::{RowLoss, map2_sum, row_loss};
use crate::kernel::scalar::Float;
use crate::kernel::switches::has_kernels_for;
use crate::kernel::tensor_loss::tensor_loss;
use candle_core::{DType, Result, Tensor, bail};

/// Loss on the cosine of the angle between two vectors that should be similar (`y = 1`) or dissimilar (`y = -1`):
///
/// ```text
/// l = 1 - cos(x1, x2)              if y =  1
///     max(0, cos(x1, x2) - margin) if y = -1
/// ```
///
/// Use it for embeddings that are compared by direction, such as embeddings of sentences or faces. With a margin of 0,
/// the loss of dissimilar vectors is 0 once they are at a right angle. If the lengths of the vectors matter too, use
/// [`TripletMarginLoss`](super::TripletMarginLoss), or compute a distance and use
/// [`HingeEmbeddingLoss`](super::HingeEmbeddingLoss).
///
/// Source:
/// [`torch.nn.CosineEmbeddingLoss`](https://pytorch.org/docs/stable/generated/torch.nn.CosineEmbeddingLoss.html).
///
/// Example:
/// [`examples/cosine_embedding.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/cosine_embedding.rs),
/// run by `cargo run --example cosine_embedding`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::CosineEmbeddingLoss;
///
/// let input1 = Tensor::new(&[[3.0, 4.0], [3.0, 4.0]], &Device::Cpu)?;
/// let input2 = Tensor::new(&[[4.0, 3.0], [5.0, 0.0]], &Device::Cpu)?; // cosines 24/25 and 15/25
/// let target = Tensor::new(&[1i64, -1], &Device::Cpu)?;
/// let loss = CosineEmbeddingLoss { margin: 0.1, ..Default::default() };
/// let value = loss.forward(&input1, &input2, &target)?.to_scalar::<f64>()?;
/// assert!((value - 0.27).abs() < 1e-9); // ((1 - 0.96) + (0.6 - 0.1)) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/cosine_embedding.svg"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct CosineEmbeddingLoss {
    /// Cosine up to which the loss of dissimilar vectors is 0; in -1 to 1, usually 0 to 0.5. Default: 0.
    pub margin: f64,
    /// Reduction of the pair losses. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "CosineEmbeddingLoss";

impl CosineEmbeddingLoss {
    /// Returns the loss of the vectors `input1` and `input2` against `target`, which holds 1 and -1. For any other
    /// target the loss is 0.
    ///
    /// - Shapes: `input1` and `input2` are `(N, D)` and `target` is `(N)`. Without a batch, the inputs are `(D)` and
    ///   `target` is a scalar.
    /// - Dtypes: both inputs have the same dtype: `f16`, `bf16`, `f32` or `f64`. `target` is of any dtype.
    /// - Result: a scalar of the inputs' dtype. With [`Reduction::None`] it has the shape of `target`. As in PyTorch,
    ///   1e-12 is added to the squared lengths, so the cosine of a zero vector is 0.
    /// - Gradient at `cos(x1, x2) = margin` for `y = -1`: 0.
    ///
    /// # Errors
    /// If `margin` is NaN, if the shapes or devices do not fit together, or if the inputs are not of one float dtype.
    pub fn forward(&self, input1: &Tensor, input2: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "margin", self.margin, !self.margin.is_nan(), "a number")?;
        let args = matching(LOSS, [("input1", input1), ("input2", input2)])?;
        same_device(LOSS, ("target", target), ("input1", input1))?;
        match (input1.dims(), target.dims()) {
            ([_], []) => {}
            ([n, _], [t]) if n == t => {}
            (x, t) => bail!("{LOSS}: target has shape {t:?} but inputs of shape {x:?}; (N, D) needs (N), (D) a scalar"),
        }
        let (dim, margin, factor) = (input1.rank() - 1, self.margin, self.reduction.factor(target.dims()));
        if has_kernels_for(&[input1, input2]) {
            let targets = target.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
            return row_loss([input1, input2], dim, factor, Cosine { targets, margin });
        }
        let args = ops::to_compute(args.each_ref())?;
        let target = if target.elem_count() == 0 { target.to_device(args[0].device())? } else { target.detach() };
        let target = ops::cast(&target, args[0].dtype())?.unsqueeze(dim)?;
        let loss = tensor_loss(args.each_ref(), Some(dim), factor.into(), None, move |[a, b], wanted| {
            let dot = |a: &Tensor, b: &Tensor| (a * b)?.sum_keepdim(dim);
            let (aa, bb) = (dot(a, a)?.affine(1.0, EPSILON)?, dot(b, b)?.affine(1.0, EPSILON)?);
            let squared = (&aa * &bb)?;
            let lengths = squared.lt(f64::INFINITY)?.where_cond(&squared.sqrt()?, &(aa.sqrt()? * bb.sqrt()?)?)?;
            let cosine = (dot(a, b)? / &lengths)?;
            let excess = cosine.affine(1.0, -margin)?;
            let zero = cosine.detach().zeros_like()?;
            let (is_alike, is_unlike) = (target.eq(1f64)?, target.eq(-1f64)?);
            let one = zero.ones_like()?;
            let is_met = excess.le(0f64)?;
            let unlike = |value: &Tensor| is_unlike.where_cond(&is_met.where_cond(&zero, value)?, &zero);
            let losses = is_alike.where_cond(&cosine.affine(-1.0, 1.0)?, &unlike(&excess)?)?;
            let by_cosine = is_alike.where_cond(&one.neg()?, &unlike(&one)?)?;
            let inverse_length = (&by_cosine / &lengths)?;
            let by_cosine = (by_cosine * cosine)?;
            let grad = |is_wanted: bool, x: &Tensor, other: &Tensor, xx: &Tensor| -> Result<Option<Scaled>> {
                if !is_wanted {
                    return Ok(None);
                }
                Ok(Some((other.broadcast_mul(&inverse_length)? - x.broadcast_mul(&(&by_cosine / xx)?)?)?.into()))
            };
            Ok((losses.squeeze(dim)?.into(), [grad(wanted[0], a, b, &aa)?, grad(wanted[1], b, a, &bb)?]))
        })?;
        ops::like(&loss, input1)
    }
}

struct Cosine {
    /// 1 for similar rows, and -1 for dissimilar rows. For any other value the loss is 0.
    targets: Vec<f64>,
    margin: f64,
}

impl RowLoss<2> for Cosine {
    const PADDING: [f64; 2] = [0.0; 2];

    #[inline(always)]
    fn loss_and_grad_in_place<W: Float>(&self, i: usize, [a, b]: [&mut [Lanes<W>]; 2], _: usize) -> Option<(W, W)> {
        let (zero, one) = (W::ZERO, W::ONE);
        let [ab, aa, bb] = map2_sum([&mut *a, &mut *b], |a, b| ([a, b], [a * b, a * a, b * b]));
        let (aa, bb) = (aa + W::constant(EPSILON), bb + W::constant(EPSILON));
        // The product of the squared lengths may overflow even if the product of the lengths does not.
        let squared = aa * bb;
        let lengths = if squared < W::INFINITY { squared.sqrt() } else { aa.sqrt() * bb.sqrt() };
        let cosine = ab / lengths;
        let (excess, inverse_length) = (cosine - W::constant(self.margin), one / lengths);
        let (loss, factor) = match self.targets[i] {
            1.0 => (one - cosine, -one),
            -1.0 if excess <= zero => (zero, zero),
            -1.0 => (excess, one),
            _ => (zero, zero),
        };
        // The gradients of the cosine by both rows.
        let (by_a, by_b) = (cosine / aa, cosine / bb);
        map2_sum([a, b], |a, b| ([b * inverse_length - a * by_a, a * inverse_length - b * by_b], []));
        Some((loss, factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn loss_of_similar_and_dissimilar_vectors() -> Result<()> {
        let (x1, x2) =
            (Tensor::new(&[[3.0, 0.0]; 3], &device())?, Tensor::new(&[[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], &device())?);
        let loss = CosineEmbeddingLoss { margin: 0.25, reduction: Reduction::None };
        let close = |result: Result<Tensor>, expected: [f64; 3]| -> Result<()> {
            let found = result?.to_vec1::<f64>()?;
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-9), "{found:?}");
            Ok(())
        };
        close(loss.forward(&x1, &x2, &Tensor::new(&[1i64, 1, -1], &device())?), [0.0, 1.0, 0.75])
    }

    #[test]
    fn rejects_invalid_arguments() -> Result<()> {
        let (loss, x) = (CosineEmbeddingLoss::default(), Tensor::new(&[[1.0, 2.0], [3.0, 4.0]], &device())?);
        refuses(loss.forward(&x, &x, &vector(&[1.0])), &["CosineEmbeddingLoss", "target", "[1]", "[2, 2]"]);
        refuses(loss.forward(&x, &x.get(0)?, &vector(&[1.0])), &["input2", "[2]", "input1", "[2, 2]"]);
        let loss = CosineEmbeddingLoss { margin: f64::NAN, ..loss };
        refuses(loss.forward(&x, &x, &vector(&[1.0, 1.0])), &["CosineEmbeddingLoss", "margin", "NaN"]);
        Ok(())
    }
}
