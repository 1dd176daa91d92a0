use crate::kernel::elementwise::{Elementwise, elementwise_loss};
use crate::kernel::ops;
use candle_core::{Error, Result, Tensor};
use std::fmt::{self, Display};
use std::str::FromStr;

/// Reduction of the losses of elements or samples to the result.
///
/// It is parsed from and displayed as PyTorch's name: `none`, `mean`, `sum` or `batchmean`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::{L1Loss, Reduction};
///
/// let input = Tensor::new(&[[1.0, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// let reduced = |reduction| L1Loss { reduction }.forward(&input, &input.zeros_like()?);
/// assert_eq!(reduced(Reduction::None)?.to_vec2::<f64>()?, [[1.0, 2.0], [3.0, 4.0]]);
/// assert_eq!(reduced(Reduction::Mean)?.to_scalar::<f64>()?, 2.5); // 10 / 4 elements
/// assert_eq!(reduced(Reduction::Sum)?.to_scalar::<f64>()?, 10.0);
/// assert_eq!(reduced("batchmean".parse()?)?.to_scalar::<f64>()?, 5.0); // 10 / 2 rows
/// assert_eq!(Reduction::BatchMean.to_string(), "batchmean");
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reduction {
    /// No reduction. The result has the loss of each element, or of each sample if the loss is defined for samples.
    None,
    /// Mean. For classes, [`NllLoss`](super::NllLoss), [`CrossEntropyLoss`](super::CrossEntropyLoss) and
    /// [`LinearCrossEntropyLoss`](super::LinearCrossEntropyLoss) divide by the sum of the samples' class weights, where
    /// an ignored sample has weight 0. [`CtcLoss`](super::CtcLoss) first divides each loss by the length of its target.
    #[default]
    Mean,
    /// Sum.
    Sum,
    /// Sum divided by the size of the first dimension (1 for a scalar).
    BatchMean,
}

impl Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Mean => "mean",
            Self::Sum => "sum",
            Self::BatchMean => "batchmean",
        })
    }
}

impl FromStr for Reduction {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let all = [Self::None, Self::Mean, Self::Sum, Self::BatchMean];
        all.into_iter().find(|reduction| reduction.to_string() == word).ok_or_else(|| {
            Error::Msg(format!("reduction is {word:?} but must be \"none\", \"mean\", \"sum\" or \"batchmean\"")).bt()
        })
    }
}

impl Reduction {
    /// Returns the factor of the sum of losses of this shape, or `None` without a reduction.
    pub(super) fn factor(self, dims: &[usize]) -> Option<f64> {
        match self {
            Self::None => None,
            Self::Mean => Some(1.0 / dims.iter().product::<usize>() as f64),
            Self::Sum => Some(1.0),
            Self::BatchMean => Some(dims.first().map_or(1.0, |&batch| 1.0 / batch as f64)),
        }
    }

    /// Reduces losses of elements or samples, and returns the result in the dtype and on the device of `input`.
    pub(super) fn reduce(self, loss: &Tensor, input: &Tensor) -> Result<Tensor> {
        let loss = match self.factor(loss.dims()) {
            Some(factor) => ops::times(&ops::sum_all(loss)?, factor)?,
            None => loss.clone(),
        };
        ops::like(&loss, input)
    }

    /// Computes the losses of the elements of the arguments, multiplies each by its weight, and reduces them.
    pub(super) fn elements<const N: usize>(
        self,
        args: &[Tensor; N],
        weight: Option<&Tensor>,
        formula: impl Elementwise<N>,
    ) -> Result<Tensor> {
        elementwise_loss(args.each_ref(), weight, self.factor(args[0].dims()), formula)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_pytorch() -> Result<()> {
        for word in ["none", "mean", "sum", "batchmean"] {
            assert_eq!(word.parse::<Reduction>()?.to_string(), word);
        }
        let error = "average".parse::<Reduction>().unwrap_err().to_string();
        assert!(error.starts_with("reduction is \"average\" but must be \"none\", \"mean\""), "{error}");
        Ok(())
    }
}
