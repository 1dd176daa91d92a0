use super::Reduction;
use super::class_targets::ClassTargets;
use super::validate::{check_option, float};
use crate::kernel::lanes::Lanes;
use crate::kernel::ops::{self, Scaled};
use crate::kernel::rows::{RowLoss, WeightedTargets, map, row_loss};
use crate::kernel::scalar::{Float, Scalar, relu};
use crate::kernel::tensor_loss::tensor_loss;
use candle_core::{Result, Tensor, bail};

/// Hinge loss between the score of the right class `y` and each other score of the `C`:
///
/// ```text
/// l = w_y · Σ_{j≠y} max(0, margin - x_y + x_j)^p / C
/// ```
///
/// Asks that the right class lead every other by `margin`, and is then content: a classifier for decisions, not for
/// probabilities. With `p = 2` a class that lags far costs more than proportionally. Where probabilities are wanted,
/// take [`CrossEntropyLoss`](super::CrossEntropyLoss); for several classes per sample,
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
/// assert!((value - 0.25 / 3.0).abs() < 1e-9); // ((1 - 3 + 2.5)² + 0) / 3: class 0 leads class 2 by more than 1
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/multi_margin.svg"))]
#[derive(Debug, Clone)]
pub struct MultiMarginLoss {
    /// The power of a violation, 1 or 2. Default 1.
    pub p: u32,
    /// The lead from which a class costs nothing, in the unit of the scores. Default 1.
    pub margin: f64,
    /// `w`, one weight per class, shape `(C)`, any float dtype; no gradient flows to it. The mean is over the samples,
    /// not the weights. Default: none, all count 1.
    pub weight: Option<Tensor>,
    /// How the sample losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

impl Default for MultiMarginLoss {
    fn default() -> Self {
        Self { p: 1, margin: 1.0, weight: None, reduction: Reduction::default() }
    }
}

const LOSS: &str = "MultiMarginLoss";

impl MultiMarginLoss {
    /// The loss of the scores `input` against the classes `target`, `0..C`.
    ///
    /// Shapes: `(N, C)` with `(N)`, or `(C)` with a scalar. Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`, `target`
    /// is `u8`, `u32` or `i64`. The result has input's dtype and is a scalar, or of target's shape with
    /// [`Reduction::None`]. The derivative of a margin that is met exactly is 0.
    ///
    /// # Errors
    /// If a class is out of range (seen on the CPU only), if `p` is neither 1 nor 2, if `margin` is NaN, if the shapes
    /// don't fit, if `input` is not of a float dtype or `target` not of one for classes, if the devices differ, or if
    /// `weight` has not `C` elements or is not of a float dtype.
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
            row_loss([&scores], dim, factor, Violations { targets, p, margin })?
        } else {
            let x = float(LOSS, "input", &scores)?;
            let classes = targets.for_gather(x.dtype())?;
            let loss = tensor_loss([&x], Some(dim), factor.into(), move |[x], _| {
                let (weight, own) = (classes.row_weight()?, classes.gather(x)?);
                let mut excess = x.broadcast_add(&own.affine(-1.0, margin)?)?;
                let is_none = (excess.le(0f64)? + classes.is_class()?)?;
                excess = ops::masked_fill(&excess, &is_none, 0.0)?;
                let (losses, by_x, power) = if p == 1 {
                    (excess, is_none.where_cond(&ops::constant(0.0, x)?, &ops::constant(1.0, x)?)?, 1.0)
                } else {
                    (excess.sqr()?, excess, 2.0)
                };
                // The score of the class itself: also a NaN that no other class sees.
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
struct Violations {
    targets: WeightedTargets,
    p: u32,
    margin: f64,
}

impl RowLoss<1> for Violations {
    const PADDING: [f64; 1] = [f64::NEG_INFINITY];

    #[inline(always)]
    fn loss_and_grad_in_place<W: Float>(&self, i: usize, [row]: [&mut [Lanes<W>]; 1], len: usize) -> Option<(W, W)> {
        let (class, weight) = self.targets.get(i)?;
        let lead = W::constant(self.margin) - row.as_flattened()[class];
        // The class itself is no violation.
        row.as_flattened_mut()[class] = -W::INFINITY;
        let [loss, grads] = map(row, |x| {
            let excess = relu(lead + x);
            let (loss, grad) = if self.p == 1 {
                (excess, W::select(Scalar::le(excess, W::ZERO), W::ZERO, W::ONE))
            } else {
                (excess * excess, excess + excess)
            };
            (grad, [loss, grad])
        });
        row.as_flattened_mut()[class] = -grads;
        let share = W::constant(weight / len as f64);
        Some((loss * share, share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn every_class_within_the_margin_costs() -> Result<()> {
        let (x, y) = (vector(&[1.0, 0.5, 0.0, 3.0]), Tensor::new(0u32, &device())?);
        assert_values(MultiMarginLoss::default().forward(&x, &y), &[(0.5 + 0.0 + 3.0) / 4.0])?;
        let loss = MultiMarginLoss { p: 2, ..Default::default() };
        assert_values(loss.forward(&x, &y), &[(0.25 + 0.0 + 9.0) / 4.0])
    }

    #[test]
    fn refuses_another_power_and_a_margin_that_is_no_number() -> Result<()> {
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
    fn refuses_classes_and_weights_that_do_not_fit() -> Result<()> {
        refuses_bad_classes("MultiMarginLoss", |x, y, weight| {
            MultiMarginLoss { weight, ..Default::default() }.forward(x, y)
        })
    }
}
