use super::Reduction;
use super::bce_with_logits::LogisticLoss;
use super::validate::{broadcast_weight, matching_integers};
use crate::kernel::ops;
use candle_core::{D, Result, Tensor, bail};

/// Binary cross-entropy of logits `x` against `C` labels `y` for each sample, averaged over the labels:
///
/// ```text
/// l = -Σ_c w_c · (y_c · log σ(x_c) + (1 - y_c) · log(1 - σ(x_c))) / C
/// ```
///
/// Use it for tags, where a sample can have any number of labels and the network outputs a logit for each label. It is
/// [`BceWithLogitsLoss`](super::BceWithLogitsLoss), averaged to one value per sample. If each sample has exactly one
/// class, use [`CrossEntropyLoss`](super::CrossEntropyLoss).
///
/// Source: [`torch.nn.MultiLabelSoftMarginLoss`][pytorch].
///
/// Example: [`examples/multilabel_soft_margin.rs`][example], run by `cargo run --example multilabel_soft_margin`.
///
/// [pytorch]: https://pytorch.org/docs/stable/generated/torch.nn.MultiLabelSoftMarginLoss.html
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
    /// Weight `w` of each element, of any float dtype. It is broadcast to the shape of the input, so the shape `(C)`
    /// gives a weight for each label. It gets no gradient. Default: `None`, a weight of 1.
    pub weight: Option<Tensor>,
    /// Reduction of the sample losses. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "MultiLabelSoftMarginLoss";

impl MultiLabelSoftMarginLoss {
    /// Returns the loss of the logits `input` against `target`, which is 1 for the labels of a sample and 0 for all
    /// other labels.
    ///
    /// - Shapes: the same for both arguments, `(…, C)`.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. `target` is of the same dtype or of any integer dtype.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it has the shape `(…)`.
    ///
    /// # Errors
    /// If `input` is a scalar, if the shapes, dtypes or devices do not fit together, if `input` is not of a float
    /// dtype, or if `weight` does not broadcast to `input`, is not of a float dtype, or is on another device.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let args = matching_integers(LOSS, [("input", input), ("target", target)])?;
        if input.rank() == 0 {
            bail!("{LOSS}: input is a scalar but needs a dimension of labels, (…, C)")
        }
        let weight = broadcast_weight(LOSS, "weight", self.weight.as_ref(), input)?;
        let elements = |reduction: Reduction, args| reduction.elements(args, weight.as_ref(), LogisticLoss);

        // The mean over samples of the means over labels is the mean over all elements.
        if self.reduction == Reduction::Mean {
            return elements(Reduction::Mean, &args);
        }
        // In the compute dtype, so that the sum is computed before rounding.
        let args = ops::to_compute(args.each_ref())?;
        let labels = input.dim(D::Minus1)? as f64;
        let loss = match self.reduction.factor(&input.dims()[..input.rank() - 1]) {
            None => (ops::sum_last(&elements(Reduction::None, &args)?)? / labels)?,
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
    fn mean_over_labels() -> Result<()> {
        let (x, y) = (vector(&[0.0, 0.0, 1e4]), vector(&[1.0, 0.0, 0.0]));
        assert_values(MultiLabelSoftMarginLoss::default().forward(&x, &y), &[(2.0 * 2f64.ln() + 1e4) / 3.0])
    }

    #[test]
    fn rejects_mismatched_arguments() -> Result<()> {
        refuses_mismatches("MultiLabelSoftMarginLoss", |x, y| MultiLabelSoftMarginLoss::default().forward(x, y));
        let scalar = Tensor::new(1f64, &device())?;
        refuses(MultiLabelSoftMarginLoss::default().forward(&scalar, &scalar), &["MultiLabelSoftMarginLoss", "scalar"]);
        let loss = MultiLabelSoftMarginLoss { weight: Some(vector(&[1.0, 2.0, 3.0])), ..Default::default() };
        let x = vector(&[0.5, 0.5]);
        refuses(loss.forward(&x, &x), &["MultiLabelSoftMarginLoss", "weight", "[3]", "[2]"]);
        Ok(())
    }
}
