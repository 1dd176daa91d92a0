use super::Reduction;
use super::bce_with_logits::LogisticLoss;
use super::validate::{broadcast_weight, matching_integers};
use crate::kernel::ops;
use candle_core::{D, Result, Tensor, bail};

/// Binary cross-entropy of each of `C` labels that a sample has or has not, averaged over the labels:
///
/// ```text
/// l = -Σ_c w_c · (y_c · log σ(x_c) + (1 - y_c) · log(1 - σ(x_c))) / C
/// ```
///
/// For tags: any number of them may hold at once, one logit for each. It is
/// [`BceWithLogitsLoss`](super::BceWithLogitsLoss), reduced to one value per sample first. Where exactly one class
/// holds, [`CrossEntropyLoss`](super::CrossEntropyLoss) uses that.
///
/// Source:
/// [`torch.nn.MultiLabelSoftMarginLoss`](https://pytorch.org/docs/stable/generated/torch.nn.MultiLabelSoftMarginLoss.html).
///
/// Example: [`examples/multilabel_soft_margin.rs`][example], run by `cargo run --example multilabel_soft_margin`.
///
/// [example]: https://docs.rs/crate/candle-losses/latest/source/examples/multilabel_soft_margin.rs
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::MultiLabelSoftMarginLoss;
///
/// let input = Tensor::new(&[[0.0, 3f64.ln()]], &Device::Cpu)?; // probabilities 1/2 and 3/4
/// let target = Tensor::new(&[[1.0, 0.0]], &Device::Cpu)?;
/// let weight = Some(Tensor::new(&[1.0, 0.5], &Device::Cpu)?);
/// let loss = MultiLabelSoftMarginLoss { weight, ..Default::default() };
/// let value = loss.forward(&input, &target)?.to_scalar::<f64>()?;
/// assert!((value - 2f64.ln()).abs() < 1e-9); // (log 2 + 0.5 · log 4) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/multilabel_soft_margin.svg"))]
#[derive(Debug, Clone, Default)]
pub struct MultiLabelSoftMarginLoss {
    /// `w`, of any float dtype, broadcast to the input's shape, so `(C)` weighs the labels; no gradient flows to it.
    /// Default: none, all count 1.
    pub weight: Option<Tensor>,
    /// How the sample losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "MultiLabelSoftMarginLoss";

impl MultiLabelSoftMarginLoss {
    /// The loss of the logits `input` against `target`, 1 for the labels that hold and 0 for the others.
    ///
    /// Shapes: both `(…, C)`, the same, of one dimension or more. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same.
    /// The result has that dtype and is a scalar, or of shape `(…)` with [`Reduction::None`].
    ///
    /// # Errors
    /// If `input` is a scalar, if shape, dtype or device of the two differ, if the dtype is not a float, or if `weight`
    /// does not broadcast to `input`, is not of a float dtype or is on another device.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let args = matching_integers(LOSS, [("input", input), ("target", target)])?;
        if input.rank() == 0 {
            bail!("{LOSS}: input is a scalar but needs a dimension of labels, (…, C)")
        }
        let weight = broadcast_weight(LOSS, "weight", self.weight.as_ref(), input)?;
        let elements = |reduction: Reduction, args| reduction.elements(args, weight.as_ref(), LogisticLoss);

        // The mean over samples of means over labels is the mean over all.
        if self.reduction == Reduction::Mean {
            return elements(Reduction::Mean, &args);
        }
        // Summed before they are rounded.
        let args = ops::to_compute(args.each_ref())?;
        let labels = input.dim(D::Minus1)? as f64;
        let loss = match self.reduction.factor(&input.dims()[..input.rank() - 1]) {
            None => (elements(Reduction::None, &args)?.sum(D::Minus1)? / labels)?,
            Some(factor) => (elements(Reduction::Sum, &args)? * (factor / labels))?,
        };
        ops::like(&loss, input)
    }
}



#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn the_mean_over_the_labels() -> Result<()> {
        let (x, y) = (vector(&[0.0, 0.0, 1e4]), vector(&[1.0, 0.0, 0.0]));
        assert_values(MultiLabelSoftMarginLoss::default().forward(&x, &y), &[(2.0 * 2f64.ln() + 1e4) / 3.0])
    }

    #[test]
    fn refuses_what_does_not_match() -> Result<()> {
        refuses_mismatches("MultiLabelSoftMarginLoss", |x, y| MultiLabelSoftMarginLoss::default().forward(x, y));
        let scalar = Tensor::new(1f64, &device())?;
        refuses(MultiLabelSoftMarginLoss::default().forward(&scalar, &scalar), &["MultiLabelSoftMarginLoss", "scalar"]);
        let loss = MultiLabelSoftMarginLoss { weight: Some(vector(&[1.0, 2.0, 3.0])), ..Default::default() };
        let x = vector(&[0.5, 0.5]);
        refuses(loss.forward(&x, &x), &["MultiLabelSoftMarginLoss", "weight", "[3]", "[2]"]);
        Ok(())
    }
}
