use super::Reduction;
use super::validate::{check_option, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, one, relu, zero};
use candle_core::{Result, Tensor};

/// A loss on a distance `x` between two things that are alike (`y = 1`) or not (`y = -1`):
///
/// ```text
/// l = x                  if y =  1
///     max(0, margin - x) if y = -1
/// ```
///
/// Pulls like things together without end and pushes unlike ones apart until they are `margin` away. Made for
/// distances, which are not negative: on a signed score in [-1, 1] it works as a classifier whose sign is turned round,
/// `y = 1` getting the *lowest* scores; [`SoftMarginLoss`](super::SoftMarginLoss) is the plain choice for that. Where
/// it is only known which of two things is nearer to a third, take [`TripletMarginLoss`](super::TripletMarginLoss).
///
/// Source: [`torch.nn.HingeEmbeddingLoss`](https://pytorch.org/docs/stable/generated/torch.nn.HingeEmbeddingLoss.html).
///
/// Example:
/// [`examples/hinge_embedding.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/hinge_embedding.rs), run
/// by `cargo run --example hinge_embedding`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::HingeEmbeddingLoss;
///
/// let input = Tensor::new(&[0.25, 0.75], &Device::Cpu)?;
/// let target = Tensor::new(&[1.0, -1.0], &Device::Cpu)?;
/// let loss = HingeEmbeddingLoss { margin: 2.0, ..Default::default() };
/// let value = loss.forward(&input, &target)?.to_scalar::<f64>()?;
/// assert_eq!(value, 0.75); // (0.25 + (2 - 0.75)) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/hinge_embedding.svg"))]
#[derive(Debug, Clone, Copy)]
pub struct HingeEmbeddingLoss {
    /// The distance from which unlike things cost nothing, in the input's unit. Default 1.
    pub margin: f64,
    /// How the element losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

impl Default for HingeEmbeddingLoss {
    fn default() -> Self {
        Self { margin: 1.0, reduction: Reduction::default() }
    }
}

const LOSS: &str = "HingeEmbeddingLoss";

impl HingeEmbeddingLoss {
    /// The loss of the distances `input` against `target`, 1 or -1; at other values it is the sum of both branches, as
    /// in PyTorch.
    ///
    /// Shapes: both of any shape, the same. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same. The result has that
    /// dtype and is a scalar, or of the arguments' shape with [`Reduction::None`]. The derivative at `x = margin` is 0.
    ///
    /// # Errors
    /// If `margin` is NaN, if shape, dtype or device of the two differ, or the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "margin", self.margin, !self.margin.is_nan(), "a number")?;
        let [input, target] = matching_integers(LOSS, [("input", input), ("target", target)])?;

        self.reduction.elements(&[input, target.detach()], None, *self)
    }
}

impl Elementwise<2> for HingeEmbeddingLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let (zero, one) = (zero::<S>(), one::<S>());
        let (is_alike, is_unlike) = (y.eq(one), y.eq(-one));
        let missing = S::select(is_alike, zero, S::constant(self.margin) - x);
        let loss = S::select(is_unlike, zero, x) + relu(missing);
        let grad = S::select(is_unlike, zero, one) - S::select(missing.le(zero), zero, one);
        (loss, [grad, zero])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn like_things_cost_their_distance_and_unlike_ones_what_is_missing_to_the_margin() -> Result<()> {
        let loss = HingeEmbeddingLoss { margin: 2.0, reduction: Reduction::None };
        let y = vector(&[1.0, -1.0, -1.0]);
        assert_values(loss.forward(&vector(&[0.5, 0.5, 3.0]), &y), &[0.5, 1.5, 0.0])
    }

    #[test]
    fn refuses_a_margin_that_is_no_number() {
        let loss = HingeEmbeddingLoss { margin: f64::NAN, ..Default::default() };
        let x = vector(&[1.0]);
        refuses(loss.forward(&x, &x), &["HingeEmbeddingLoss", "margin", "NaN"]);
    }

    #[test]
    fn refuses_what_does_not_match() {
        refuses_mismatches("HingeEmbeddingLoss", |x, y| HingeEmbeddingLoss::default().forward(x, y));
    }
}
