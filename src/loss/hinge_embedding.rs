use super::Reduction;
use super::validate::{check_option, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, one, relu, zero};
use candle_core::{Result, Tensor};

/// Hinge loss on the distance `x` between two similar (`y = 1`) or dissimilar (`y = -1`) samples:
///
/// ```text
/// l = x                  if y =  1
///     max(0, margin - x) if y = -1
/// ```
///
/// Use it to learn embeddings from labeled pairs. It reduces the distance of similar samples to 0, and increases the
/// distance of dissimilar samples up to `margin`. The input should be a distance, which is not negative. With a signed
/// score in [-1, 1] as the input, the loss trains a classifier with the opposite sign: samples with `y = 1` get the
/// *lowest* scores. For classification use [`SoftMarginLoss`](super::SoftMarginLoss). If you only know which of two
/// samples is closer to a third sample, use [`TripletMarginLoss`](super::TripletMarginLoss).
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
    /// Distance at which the loss of dissimilar samples becomes 0, in the unit of the input. Default: 1.
    pub margin: f64,
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

impl Default for HingeEmbeddingLoss {
    fn default() -> Self {
        Self { margin: 1.0, reduction: Reduction::default() }
    }
}

const LOSS: &str = "HingeEmbeddingLoss";

impl HingeEmbeddingLoss {
    /// Returns the loss of the distances `input` against `target`, which holds 1 and -1. For any other target the loss
    /// is the sum of both branches, as in PyTorch.
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. `target` is of the same dtype or of any integer dtype.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it has the shape of the arguments.
    /// - Gradient at `x = margin` for `y = -1`: 0. The target gets no gradient.
    ///
    /// # Errors
    /// If `margin` is NaN, if the shapes, dtypes or devices do not fit together, or if `input` is not of a float dtype.
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
    fn losses_of_similar_and_dissimilar_samples() -> Result<()> {
        let loss = HingeEmbeddingLoss { margin: 2.0, reduction: Reduction::None };
        let y = vector(&[1.0, -1.0, -1.0]);
        assert_values(loss.forward(&vector(&[0.5, 0.5, 3.0]), &y), &[0.5, 1.5, 0.0])
    }

    #[test]
    fn rejects_nan_margin() {
        let loss = HingeEmbeddingLoss { margin: f64::NAN, ..Default::default() };
        let x = vector(&[1.0]);
        refuses(loss.forward(&x, &x), &["HingeEmbeddingLoss", "margin", "NaN"]);
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("HingeEmbeddingLoss", |x, y| HingeEmbeddingLoss::default().forward(x, y));
    }
}
