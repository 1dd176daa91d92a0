use super::Reduction;
use super::class_targets::ClassTargets;
use super::validate::{check_option, float};
use crate::kernel::lanes::Lanes;
use crate::kernel::ops::{self, Scaled};
use crate::kernel::rows::{RowLoss, WeightedTargets, hinge, map_sum, row_loss};
use crate::kernel::scalar::{Float, Scalar};
use crate::kernel::tensor_loss::tensor_loss;
use candle_core::{Result, Tensor, bail};

/// Hinge loss between the score of the right class `y` and the scores of the other classes, for `C` classes:
///
/// ```text
/// l = w_y · Σ_{j≠y} max(0, margin - x_y + x_j)^p / C
/// ```
///
/// Use it for a classifier that only needs the right decision: the loss is 0 once the score of the right class is
/// higher than every other score by `margin`. With `p = 2`, large violations of the margin get more weight. If you need
/// probabilities, use [`CrossEntropyLoss`](super::CrossEntropyLoss). If a sample can have several classes, use
/// [`MultiLabelMarginLoss`](super::MultiLabelMarginLoss).
///
/// Source: Crammer & Singer, [On the Algorithmic Implementation of Multiclass Kernel-based Vector
/// Machines](https://www.jmlr.org/papers/v2/crammer01a.html), 2001;
/// [`torch.nn.MultiMarginLoss`](https://pytorch.org/docs/stable/generated/torch.nn.MultiMarginLoss.html).
///
/// Example: [`examples/multi_margin.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/multi_margin.rs),
/// run by `cargo run --example multi_margin`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::MultiMarginLoss;
///
/// let input = Tensor::new(&[[3.0, 2.5, 0.0]], &Device::Cpu)?;
/// let target = Tensor::new(&[0u32], &Device::Cpu)?;
/// let loss = MultiMarginLoss { p: 2, ..Default::default() };
/// let value = loss.forward(&input, &target)?.to_scalar::<f64>()?;
/// assert!((value - 0.25 / 3.0).abs() < 1e-9); // ((1 - 3 + 2.5)² + 0) / 3: class 0 is above class 2 by more than 1
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/multi_margin.svg"))]
#[derive(Debug, Clone)]
pub struct MultiMarginLoss {
    /// Power of a violation of the margin, 1 or 2. Default: 1.
    pub p: u32,
    /// Difference of the scores at which the loss becomes 0, in the unit of the scores. Default: 1.
    pub margin: f64,
    /// Weight `w` of each class, of shape `(C)` and any float dtype. It gets no gradient. Default: `None`, a weight of
    /// 1.
    pub weight: Option<Tensor>,
    /// Reduction of the sample losses. Default: the mean, which divides by the number of samples, not by their weights.
    pub reduction: Reduction,
}

impl Default for MultiMarginLoss {
    fn default() -> Self {
        Self { p: 1, margin: 1.0, weight: None, reduction: Reduction::default() }
    }
}

const LOSS: &str = "MultiMarginLoss";

impl MultiMarginLoss {
    /// Returns the loss of the scores `input` against the classes `target`, which are in `0..C`.
    ///
    /// - Shapes: `input` is `(N, C)` and `target` `(N)`. Without a batch, `input` is `(C)` and `target` a scalar or
    ///   `(1)`.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. `target` is of any integer dtype: `u8`, `u32`, `i16`, `i32`
    ///   or `i64`.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it has the shape of `target`.
    /// - Gradient at the margin, `x_y - x_j = margin`: 0.
    ///
    /// # Errors
    /// If a class is out of range (checked on the CPU only), if `p` is neither 1 nor 2, if `margin` is NaN, if the
    /// shapes or devices do not fit together, if `input` is not of a float dtype, if `target` is not of an integer
    /// dtype, or if `weight` does not have the shape `(C)` or is not of a float dtype.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "p", self.p.into(), matches!(self.p, 1 | 2), "1 or 2")?;
        check_option(LOSS, "margin", self.margin, !self.margin.is_nan(), "a number")?;
        if input.rank() > 2 {
            bail!("{LOSS}: input has shape {:?} but needs (N, C) or (C)", input.dims())
        }
        // A scalar is the score of a single class.
        let scores = if input.rank() == 0 { input.unsqueeze(0)? } else { input.clone() };
        let targets = ClassTargets::new(LOSS, &scores, target, self.weight.as_ref(), None)?;
        let (p, margin, dim) = (self.p, self.margin, targets.dim);
        let factor = self.reduction.factor(target.dims());

        let loss = if let Some(targets) = targets.for_kernel()? {
            row_loss([&scores], dim, factor, MultiMarginRows { targets, p, margin })?
        } else {
            let x = float(LOSS, "input", &scores)?;
            let classes = targets.for_gather(x.dtype())?;
            let loss = tensor_loss([&x], Some(dim), factor.into(), None, move |[x], _| {
                let (weight, own) = (classes.row_weight()?, classes.gather(x)?);
                let mut excess = x.broadcast_add(&own.affine(-1.0, margin)?)?;
                let is_none = ((excess.le(0f64)? + x.eq(f64::NEG_INFINITY)?)? + classes.is_class()?)?;
                excess = ops::masked_fill(&excess, &is_none, 0.0)?;
                let (losses, by_x, power) = if p == 1 {
                    (excess, is_none.where_cond(&ops::constant(0.0, x)?, &ops::constant(1.0, x)?)?, 1.0)
                } else {
                    (excess.sqr()?, excess, 2.0)
                };
                // With a single class, a NaN score has not reached the loss.
                let losses = (losses.sum_keepdim(dim)? * &weight)?;
                let losses = own.eq(&own)?.where_cond(&losses, &own)?.squeeze(dim)?;
                let by_x = classes.scatter_add(&by_x, &by_x.sum_keepdim(dim)?.neg()?)?.broadcast_mul(&weight)?;
                let factor = 1.0 / classes.count as f64;
                let grad = Scaled { tensor: by_x, factor: power * factor };
                Ok((Scaled { tensor: losses, factor }, [Some(grad)]))
            })?;
            ops::like(&loss, input)?
        };
        if factor.is_some() { Ok(loss) } else { loss.reshape(target.shape()) }
    }
}

/// `w_y · Σ_{j≠y} max(0, margin - x_y + x_j)^p / C`
struct MultiMarginRows {
    targets: WeightedTargets,
    p: u32,
    margin: f64,
}

impl RowLoss<1> for MultiMarginRows {
    const PADDING: [f64; 1] = [f64::NEG_INFINITY];

    #[inline(always)]
    fn loss_and_grad_in_place<W: Float>(&self, i: usize, [row]: [&mut [Lanes<W>]; 1], len: usize) -> Option<(W, W)> {
        let (class, weight) = self.targets.get(i)?;
        let own = row.as_flattened()[class];
        let lead = W::constant(self.margin) - own;
        // The class is not compared with itself.
        row.as_flattened_mut()[class] = -W::INFINITY;
        let [loss, grads] = map_sum(row, |x| {
            let excess = hinge(lead, x);
            let (loss, grad) = if self.p == 1 {
                (excess, W::select(Scalar::le(excess, W::ZERO), W::ZERO, W::ONE))
            } else {
                (excess * excess, excess + excess)
            };
            (grad, [loss, grad])
        });
        row.as_flattened_mut()[class] = -grads;
        let loss = if own.is_nan() { own } else { loss };
        let scale = W::constant(weight / len as f64);
        Some((loss * scale, scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn violations_of_the_margin() -> Result<()> {
        let (x, y) = (vector(&[1.0, 0.5, 0.0, 3.0]), Tensor::new(0u32, &device())?);
        assert_values(MultiMarginLoss::default().forward(&x, &y), &[(0.5 + 0.0 + 3.0) / 4.0])?;
        let loss = MultiMarginLoss { p: 2, ..Default::default() };
        assert_values(loss.forward(&x, &y), &[(0.25 + 0.0 + 9.0) / 4.0])
    }

    #[test]
    fn rejects_invalid_p_and_nan_margin() -> Result<()> {
        let (x, y) = (vector(&[1.0, 0.5]), Tensor::new(0u32, &device())?);
        for p in [0, 3] {
            refuses(
                MultiMarginLoss { p, ..Default::default() }.forward(&x, &y),
                &["MultiMarginLoss", "p is", "1 or 2"],
            );
        }
        let loss = MultiMarginLoss { margin: f64::NAN, ..Default::default() };
        refuses(loss.forward(&x, &y), &["MultiMarginLoss", "margin", "NaN"]);
        Ok(())
    }

    #[test]
    fn rejects_invalid_classes_and_weights() -> Result<()> {
        refuses_bad_classes("MultiMarginLoss", |x, y, weight| {
            MultiMarginLoss { weight, ..Default::default() }.forward(x, y)
        })
    }
}
