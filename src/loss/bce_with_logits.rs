use super::Reduction;
use super::validate::{broadcast_weight, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::ops;
use crate::kernel::scalar::{Scalar, logistic, one, zero};
use candle_core::{Result, Tensor};

/// Binary cross-entropy of a logit `x` against a target `y`, with the sigmoid `σ` included:
///
/// ```text
/// l = -w · (p · y · log σ(x) + (1 - y) · log(1 - σ(x)))
/// ```
///
/// Use it for yes-or-no labels, with a linear last layer. A sample may have several labels (multi-label
/// classification), and a target may be any probability. `pos_weight` (`p`) above 1 gives positive labels more weight,
/// for labels that are rare. The loss is accurate and finite for every finite logit, because it computes `log σ`
/// without computing `σ` first. If each sample has exactly one of several classes, use
/// [`CrossEntropyLoss`](super::CrossEntropyLoss). If only probabilities are available, use [`BceLoss`](super::BceLoss).
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
    /// Weight `w` of each element, of any float dtype. It is broadcast to the shape of the input and gets no gradient.
    /// Default: `None`, a weight of 1.
    pub weight: Option<Tensor>,
    /// Weight `p` of the positive labels, of any float dtype. It is broadcast to the shape of the input and gets no
    /// gradient. Default: `None`, a weight of 1.
    pub pos_weight: Option<Tensor>,
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "BceWithLogitsLoss";

impl BceWithLogitsLoss {
    /// Returns the loss of the logits `input` against `target`. Targets should be in [0, 1]; this is not checked.
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. `target` is of the same dtype or of any integer dtype.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it has the shape of the arguments.
    ///
    /// # Errors
    /// If the shapes, dtypes or devices do not fit together, if `input` is not of a float dtype, or if a weight does
    /// not broadcast to `input`, is not of a float dtype, or is on another device.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let [x, y] = matching_integers(LOSS, [("input", input), ("target", target)])?;
        let weight = broadcast_weight(LOSS, "weight", self.weight.as_ref(), input)?;
        let Some(pos_weight) = broadcast_weight(LOSS, "pos_weight", self.pos_weight.as_ref(), input)? else {
            return self.reduction.elements(&[x, y], weight.as_ref(), LogisticLoss);
        };

        // In the precision of the weight, whose values may not be representable in half precision.
        let [x, y] = ops::to_compute([&x, &y])?;
        let args = [x, y, pos_weight.broadcast_as(input.shape())?];
        ops::like(&self.reduction.elements(&args, weight.as_ref(), LogisticLoss)?, input)
    }
}

/// `-(1 - y)·log(1 - σ(x)) - y·log σ(x)`. With three arguments, the third is a weight of the second term.
#[derive(Clone, Copy)]
pub(super) struct LogisticLoss;

impl Elementwise<2> for LogisticLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        // One of the terms is the tail alone. The other is |x| plus the tail.
        let linear = times_unless_0(x.abs(), S::select(x.lt(zero()), y, one::<S>() - y));
        let (tail, sigmoid, _) = logistic(x);
        let loss = linear + tail;
        let (negative, positive) = terms(x, y, y, tail);
        (loss, [sigmoid - y, positive - negative])
    }
}

impl Elementwise<3> for LogisticLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y, pos_weight]: [S; 3]) -> (S, [S; 3]) {
        let (tail, sigmoid, _) = logistic(x);
        let (of_negative, of_positive) = (one::<S>() - y, y * pos_weight);
        let (negative, positive) = terms(x, y, of_positive, tail);
        let loss = of_negative * negative + of_positive * positive;
        let grad = (one::<S>() + (pos_weight - one()) * y) * sigmoid - of_positive;
        (loss, [grad, pos_weight * positive - negative, y * positive])
    }
}

/// `-log(1 - σ(x))` and `-log σ(x)`. A term is 0 if it is infinite and its factor is 0: the logit is infinite and
/// agrees with its target.
#[inline(always)]
fn terms<S: Scalar>(x: S, y: S, of_positive: S, tail: S) -> (S, S) {
    let is_below = x.lt(zero());
    let (negative, positive) = (S::select(is_below, zero(), x) + tail, S::select(is_below, -x, zero()) + tail);
    (unless_0(negative, one::<S>() - y), unless_0(positive, of_positive))
}

#[inline(always)]
fn unless_0<S: Scalar>(term: S, factor: S) -> S {
    let finite = S::select(term.eq(S::constant(f64::INFINITY)), zero(), term);
    S::select(factor.eq(zero()), finite, term)
}

/// `a·b`, or 0 if `b` is 0, even if `a` is infinite.
#[inline(always)]
fn times_unless_0<S: Scalar>(a: S, b: S) -> S {
    S::select(b.eq(zero()), zero(), a * b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn finite_for_large_logits() -> Result<()> {
        let loss = BceWithLogitsLoss { reduction: Reduction::None, ..Default::default() };
        assert_values(
            loss.forward(&vector(&[0.0, 1e4, -1e4, 1e4]), &vector(&[1.0, 0.0, 1.0, 1.0])),
            &[2f64.ln(), 1e4, 1e4, 0.0],
        )
    }

    #[test]
    fn pos_weight_scales_positive_labels() -> Result<()> {
        let loss = BceWithLogitsLoss { pos_weight: Some(vector(&[3.0])), reduction: Reduction::None, weight: None };
        let ln2 = 2f64.ln();
        assert_values(loss.forward(&vector(&[0.0, 0.0]), &vector(&[1.0, 0.0])), &[3.0 * ln2, ln2])
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("BceWithLogitsLoss", |x, y| BceWithLogitsLoss::default().forward(x, y));
        let (x, three) = (vector(&[0.5, 0.5]), Some(vector(&[1.0, 2.0, 3.0])));
        let loss = BceWithLogitsLoss { weight: three.clone(), ..Default::default() };
        refuses(loss.forward(&x, &x), &["BceWithLogitsLoss", "weight", "[3]", "[2]"]);
        let loss = BceWithLogitsLoss { pos_weight: three, ..Default::default() };
        refuses(loss.forward(&x, &x), &["BceWithLogitsLoss", "pos_weight", "[3]", "[2]"]);
    }
}
