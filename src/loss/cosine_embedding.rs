use super::{Reduction, check_option, matching, same_device, whole, wide};
use crate::kernel::scalar::{Float, of};
use crate::kernel::{Lanes, RowLoss, can_be_fused, fused_rows, map_both, ops};
use candle_core::{D, DType, Result, Tensor, bail};

/// A loss on the angle between two vectors that belong together (`y = 1`) or don't (`y = -1`):
///
/// ```text
/// l = 1 - cos(x1, x2)              if y =  1
///     max(0, cos(x1, x2) - margin) if y = -1
/// ```
///
/// For embeddings of which only the direction counts: sentences, faces. With a margin of 0 unlike things are content at
/// a right angle. Where lengths count too, take [`TripletMarginLoss`](super::TripletMarginLoss) or, for pairs, a
/// distance under [`HingeEmbeddingLoss`](super::HingeEmbeddingLoss).
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
#[derive(Debug, Clone, Default)]
pub struct CosineEmbeddingLoss {
    /// The cosine up to which unlike vectors cost nothing; 0 to 0.5 is usual, -1 to 1 makes sense. Default 0.
    pub margin: f64,
    /// How the pair losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

impl CosineEmbeddingLoss {
    /// The loss of the vectors `input1` and `input2` against `target`, 1 or -1; other values cost nothing.
    ///
    /// Shapes: `(N, D)`, `(N, D)` and `(N)`, or `(D)`, `(D)` and a scalar. Dtypes: both inputs `f16`, `bf16`, `f32` or
    /// `f64`, the same; `target` any that holds its values. The result has the inputs' dtype and is a scalar, or of
    /// target's shape with [`Reduction::None`]. Squared lengths have 1e-12 added, as in PyTorch: the cosine of a zero
    /// vector is 0.
    ///
    /// # Errors
    /// If `margin` is NaN, if the shapes don't fit, if dtype or device of the inputs differ, if their dtype is not a
    /// float, or if `target` is on another device.
    pub fn forward(&self, input1: &Tensor, input2: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option("CosineEmbeddingLoss", "margin", self.margin, !self.margin.is_nan(), "a number")?;
        let args = matching("CosineEmbeddingLoss", [("input1", input1), ("input2", input2)])?;
        same_device("CosineEmbeddingLoss", ("target", target), ("input1", input1))?;
        match (input1.dims(), target.dims()) {
            ([_], []) => {}
            ([n, _], [t]) if n == t => {}
            (x, t) => bail!(
                "CosineEmbeddingLoss: target has shape {t:?} but inputs of shape {x:?}; (N, D) needs (N), (D) a scalar"
            ),
        }
        if can_be_fused(&[input1, input2]) {
            let sides = target.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
            let loss = Cosine { sides, margin: self.margin };
            return fused_rows([input1, input2], input1.rank() - 1, self.reduction.factor(target.dims()), loss);
        }
        let [x1, x2] = wide(args)?;
        let y = whole(target, input1)?.to_dtype(x1.dtype())?.to_device(x1.device())?;

        let square = |x: &Tensor| x.sqr()?.sum(D::Minus1)? + ops::TINY;
        let lengths = (square(&x1)? * square(&x2)?)?.sqrt()?;
        let cosine = ((x1 * x2)?.sum(D::Minus1)? / lengths)?;
        let zeros = cosine.zeros_like()?;
        let alike = y.eq(1f64)?.where_cond(&(1. - &cosine)?, &zeros)?;
        let unlike = y.eq(-1f64)?.where_cond(&ops::relu(&(cosine - self.margin)?)?, &zeros)?;
        let loss = (alike + unlike)?;

        self.reduction.reduce(&loss, input1)
    }
}

struct Cosine {
    /// 1 for rows that are to be alike, -1 for those that are not; any other costs nothing.
    sides: Vec<f64>,
    margin: f64,
}

impl RowLoss<2> for Cosine {
    const PADDING: [f64; 2] = [0.0; 2];

    #[inline(always)]
    fn take<W: Float>(&self, i: usize, rows: [&mut [Lanes<W>]; 2], _: usize) -> Option<(W, W)> {
        let ([a, b], (zero, one)) = (rows, (W::ZERO, W::ONE));
        let [product, of_a, of_b] = map_both([a, b], |a, b| ([a, b], [a * b, a * a, b * b]));
        let (of_a, of_b) = (of_a + of(ops::TINY), of_b + of(ops::TINY));
        let lengths = (of_a * of_b).sqrt();
        let cosine = product / lengths;
        let (excess, slope) = (cosine - of(self.margin), one / lengths);
        let (loss, unit) = match self.sides[i] {
            1.0 => (one - cosine, -one),
            -1.0 if excess <= zero => (zero, zero),
            -1.0 => (excess, one),
            _ => (zero, zero),
        };
        // The derivative of the cosine by each row.
        let (by_a, by_b) = (cosine / of_a, cosine / of_b);
        map_both([a, b], |a, b| ([b * slope - a * by_a, a * slope - b * by_b], []));
        Some((loss, unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn like_vectors_should_align_and_unlike_ones_not() -> Result<()> {
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
    fn refuses_what_does_not_fit() -> Result<()> {
        let (loss, x) = (CosineEmbeddingLoss::default(), Tensor::new(&[[1.0, 2.0], [3.0, 4.0]], &device())?);
        refuses(loss.forward(&x, &x, &vector(&[1.0])), &["CosineEmbeddingLoss", "target", "[1]", "[2, 2]"]);
        refuses(loss.forward(&x, &x.get(0)?, &vector(&[1.0])), &["input2", "[2]", "input1", "[2, 2]"]);
        let loss = CosineEmbeddingLoss { margin: f64::NAN, ..loss };
        refuses(loss.forward(&x, &x, &vector(&[1.0, 1.0])), &["CosineEmbeddingLoss", "margin", "NaN"]);
        Ok(())
    }
}
