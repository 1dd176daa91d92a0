use super::{Reduction, broadcast_weight, matching, whole, wide};
use crate::kernel::scalar::{Float, logistic, positive};
use crate::kernel::{Formula, ops};
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
        const LOSS: &str = "BceWithLogitsLoss";
        let args = matching(LOSS, [("input", input), ("target", &whole(target, input)?)])?;
        let weight = broadcast_weight(LOSS, "weight", self.weight.as_ref(), input)?;
        let pos_weight = broadcast_weight(LOSS, "pos_weight", self.pos_weight.as_ref(), input)?;

        let Some(p) = pos_weight else {
            return self.reduction.elements(args, weight.as_ref(), Costs, |[x, y]| costs(&x, &(1. - &y)?, &y));
        };
        // In one dtype with its weight, which may not fit into a half precision.
        let [x, y] = wide(args)?;
        let args = [x, y, p.broadcast_as(input.shape())?];
        let loss =
            self.reduction.elements(args, weight.as_ref(), Costs, |[x, y, p]| costs(&x, &(1. - &y)?, &(y * p)?))?;
        loss.to_dtype(input.dtype())
    }
}

/// What a logit costs against a share of yes, which may have a weight; a share of 0 costs nothing, even where that is infinite.
#[derive(Clone, Copy)]
pub(super) struct Costs;

impl Formula<3> for Costs {
    #[inline(always)]
    fn at<W: Float>(&self, [x, y, p]: [W; 3]) -> (W, [W; 3]) {
        let (tail, sigmoid) = logistic(x);
        let (no, yes) = (positive(x) + tail, positive(-x) + tail);
        let (of_no, of_yes) = (W::ONE - y, y * p);
        let nothing = |share: W, cost: W| share == W::ZERO && cost == W::INFINITY;
        let no = if nothing(of_no, no) { W::ZERO } else { no };
        let yes = if nothing(of_yes, yes) { W::ZERO } else { yes };
        (of_no * no + of_yes * yes, [(W::ONE + (p - W::ONE) * y) * sigmoid - of_yes, p * yes - no, y * yes])
    }
}

impl Formula<2> for Costs {
    #[inline(always)]
    fn at<W: Float>(&self, [x, y]: [W; 2]) -> (W, [W; 2]) {
        let (loss, [of_x, of_y, _]) = self.at([x, y, W::ONE]);
        (loss, [of_x, of_y])
    }
}

/// The same of tensors, for shares of no and of yes.
pub(super) fn costs(x: &Tensor, of_no: &Tensor, of_yes: &Tensor) -> Result<Tensor> {
    let [no, yes] = ops::softplus(x)?;
    ops::times(of_no, &no)? + ops::times(of_yes, &yes)?
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
