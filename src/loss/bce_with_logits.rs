use super::Reduction;
use super::validate::{broadcast_weight, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::ops;
use crate::kernel::scalar::{Scalar, logistic, one, relu, zero};
use candle_core::{Result, Tensor};

/// Binary cross-entropy of a logit `x`, the value before the sigmoid `σ`, against a target `y`:
///
/// ```text
/// l = -w · (p · y · log σ(x) + (1 - y) · log(1 - σ(x)))
/// ```
///
/// For a model whose last layer is linear. Computed from `log σ` directly, so it is exact and finite for any finite
/// logit. The target may be soft, and there may be several per sample: then it is multi-label classification.
/// `pos_weight` (`p`) above 1 makes positives count more, for classes that are rare. Where exactly one of several
/// classes holds, take [`CrossEntropyLoss`](super::CrossEntropyLoss); where only probabilities are to be had,
/// [`BceLoss`](super::BceLoss).
///
/// Source: [`torch.nn.BCEWithLogitsLoss`](https://pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html).
///
/// Example:
/// [`examples/bce_with_logits.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/bce_with_logits.rs), run
/// by `cargo run --example bce_with_logits`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::BceWithLogitsLoss;
///
/// let input = Tensor::new(&[0.0, 0.0], &Device::Cpu)?; // probabilities of 1/2
/// let target = Tensor::new(&[1.0, 0.0], &Device::Cpu)?;
/// let pos_weight = Some(Tensor::new(3.0, &Device::Cpu)?);
/// let loss = BceWithLogitsLoss { pos_weight, ..Default::default() };
/// let value = loss.forward(&input, &target)?.to_scalar::<f64>()?;
/// assert!((value - 2.0 * 2f64.ln()).abs() < 1e-9); // (3 · log 2 + log 2) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/bce_with_logits.svg"))]
#[derive(Debug, Clone, Default)]
pub struct BceWithLogitsLoss {
    /// `w`, of any float dtype, broadcast to the input's shape; no gradient flows to it. Default: none, all count 1.
    pub weight: Option<Tensor>,
    /// `p`, of any float dtype, broadcast to the input's shape; no gradient flows to it. Default: none, all count 1.
    pub pos_weight: Option<Tensor>,
    /// How the element losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "BceWithLogitsLoss";

impl BceWithLogitsLoss {
    /// The loss of the logits `input` against `target`, 0 or 1 or between them, which is not checked.
    ///
    /// Shapes: both of any shape, the same. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same. The result has that
    /// dtype and is a scalar, or of the arguments' shape with [`Reduction::None`].
    ///
    /// # Errors
    /// If shape, dtype or device of the two differ, if the dtype is not a float, or if a weight does not broadcast to
    /// `input`, is not of a float dtype or is on another device.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let [x, y] = matching_integers(LOSS, [("input", input), ("target", target)])?;
        let weight = broadcast_weight(LOSS, "weight", self.weight.as_ref(), input)?;
        let Some(pos_weight) = broadcast_weight(LOSS, "pos_weight", self.pos_weight.as_ref(), input)? else {
            return self.reduction.elements(&[x, y], weight.as_ref(), LogisticLoss);
        };

        // In the precision of the weight, which half precision might not hold.
        let [x, y] = ops::to_compute([&x, &y])?;
        let args = [x, y, pos_weight.broadcast_as(input.shape())?];
        ops::like(&self.reduction.elements(&args, weight.as_ref(), LogisticLoss)?, input)
    }
}

/// `-(1 - y)·log(1 - σ(x)) - y·log σ(x)`, also with a weight of the second term.
#[derive(Clone, Copy)]
pub(super) struct LogisticLoss;

impl Elementwise<2> for LogisticLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let (tail, sigmoid) = logistic(x);
        // One of the terms is the tail alone, the other has |x| as well.
        let share = S::select(x.lt(zero()), y, one::<S>() - y);
        let loss = times_unless_0(x.abs(), share) + tail;
        let (negative, positive) = terms(x, y, y, tail);
        (loss, [sigmoid - y, positive - negative])
    }
}

impl Elementwise<3> for LogisticLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y, pos_weight]: [S; 3]) -> (S, [S; 3]) {
        let (tail, sigmoid) = logistic(x);
        let (of_negative, of_positive) = (one::<S>() - y, y * pos_weight);
        let (negative, positive) = terms(x, y, of_positive, tail);
        let loss = of_negative * negative + of_positive * positive;
        let grad = (one::<S>() + (pos_weight - one()) * y) * sigmoid - of_positive;
        (loss, [grad, pos_weight * positive - negative, y * positive])
    }
}

/// `-log(1 - σ(x))` and `-log σ(x)`, but 0 where the factor is 0: an infinite logit that agrees with its target.
#[inline(always)]
fn terms<S: Scalar>(x: S, y: S, of_positive: S, tail: S) -> (S, S) {
    let (negative, positive) = (relu(x) + tail, relu(-x) + tail);
    (unless_0(negative, one::<S>() - y), unless_0(positive, of_positive))
}

#[inline(always)]
fn unless_0<S: Scalar>(term: S, factor: S) -> S {
    let finite = S::select(term.lt(S::constant(f64::INFINITY)), term, zero());
    S::select(factor.eq(zero()), finite, term)
}

/// `a·b`, but 0 where `b` is 0, even if `a` is infinite.
#[inline(always)]
fn times_unless_0<S: Scalar>(a: S, b: S) -> S {
    S::select(b.eq(zero()), zero(), a * b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn finite_where_the_sigmoid_has_rounded_to_0_or_1() -> Result<()> {
        let loss = BceWithLogitsLoss { reduction: Reduction::None, ..Default::default() };
        assert_values(
            loss.forward(&vector(&[0.0, 1e4, -1e4, 1e4]), &vector(&[1.0, 0.0, 1.0, 1.0])),
            &[2f64.ln(), 1e4, 1e4, 0.0],
        )
    }

    #[test]
    fn pos_weight_counts_positives_more() -> Result<()> {
        let loss = BceWithLogitsLoss { pos_weight: Some(vector(&[3.0])), reduction: Reduction::None, weight: None };
        let ln2 = 2f64.ln();
        assert_values(loss.forward(&vector(&[0.0, 0.0]), &vector(&[1.0, 0.0])), &[3.0 * ln2, ln2])
    }

    #[test]
    fn refuses_what_does_not_match() {
        refuses_mismatches("BceWithLogitsLoss", |x, y| BceWithLogitsLoss::default().forward(x, y));
        let (x, three) = (vector(&[0.5, 0.5]), Some(vector(&[1.0, 2.0, 3.0])));
        let loss = BceWithLogitsLoss { weight: three.clone(), ..Default::default() };
        refuses(loss.forward(&x, &x), &["BceWithLogitsLoss", "weight", "[3]", "[2]"]);
        let loss = BceWithLogitsLoss { pos_weight: three, ..Default::default() };
        refuses(loss.forward(&x, &x), &["BceWithLogitsLoss", "pos_weight", "[3]", "[2]"]);
    }
}
