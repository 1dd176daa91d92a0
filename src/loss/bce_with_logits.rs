use super::{Reduction, broadcast_weight, matching, whole};
use crate::kernel::fused;
use crate::kernel::ops;
use crate::kernel::scalar::{logistic, positive};
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
        let [x, y] = matching("BceWithLogitsLoss", [("input", input), ("target", &whole(target, input)?)])?;
        let unweighted = self.weight.is_none() && self.pos_weight.is_none();
        let factor = self.reduction.factor(x.dims()).filter(|_| unweighted);
        if let Some(loss) = fused([&x, &y], factor, formula)? {
            return loss.to_dtype(input.dtype());
        }

        let weight = |name, weight: &Option<Tensor>| match weight {
            Some(weight) => broadcast_weight("BceWithLogitsLoss", name, &weight.detach(), &x).map(Some),
            None => Ok(None),
        };

        let mut of_yes = y.clone();
        if let Some(p) = weight("pos_weight", &self.pos_weight)? {
            of_yes = y.broadcast_mul(&p)?;
        }
        let mut loss = costs(&x, &(1. - y)?, &of_yes)?;
        if let Some(w) = weight("weight", &self.weight)? {
            loss = loss.broadcast_mul(&w)?;
        }

        self.reduction.reduce(&loss, input)
    }
}

/// What a logit costs against a share of yes, and its derivative; a share of 0 costs nothing, even where that is infinite.
#[inline(always)]
pub(super) fn formula([x, y]: [f32; 2]) -> (f32, [f32; 1]) {
    let (tail, sigmoid) = logistic(x);
    let no = if y == 1.0 { 0.0 } else { positive(x) + tail };
    let yes = if y == 0.0 { 0.0 } else { positive(-x) + tail };
    ((1.0 - y) * no + y * yes, [sigmoid - y])
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
