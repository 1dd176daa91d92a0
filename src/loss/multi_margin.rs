use super::{Classes, Gathered, Reduction, check_option, float};
use crate::kernel::scalar::{Float, indicator, of, positive};
use crate::kernel::{Counted, Lanes, RowLoss, fused_rows, map};
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
        check_option("MultiMarginLoss", "p", self.p.into(), matches!(self.p, 1 | 2), "1 or 2")?;
        check_option("MultiMarginLoss", "margin", self.margin, !self.margin.is_nan(), "a number")?;
        if input.rank() > 2 {
            bail!("MultiMarginLoss: input has shape {:?} but needs (N, C) or (C)", input.dims())
        }
        // One score is a class of its own.
        let scores = if input.rank() == 0 { input.unsqueeze(0)? } else { input.clone() };
        let classes = Classes::new("MultiMarginLoss", &scores, target, self.weight.as_ref(), None)?;

        if let Some(rows) = classes.read()? {
            let factor = self.reduction.factor(target.dims());
            let loss = Violations { rows, p: self.p, margin: self.margin };
            let loss = fused_rows([&scores], classes.dim, factor, loss)?;
            return if factor.is_some() { Ok(loss) } else { loss.reshape(target.shape()) };
        }
        let (x, classes) = (float("MultiMarginLoss", "input", &scores)?, classes.gathered()?);
        let loss = classes.weighted(&self.violations(&x, &classes)?)?.reshape(target.shape())?;

        self.reduction.reduce(&loss, input)
    }

    /// The loss of each sample, before its weight.
    fn violations(&self, x: &Tensor, classes: &Gathered) -> Result<Tensor> {
        let right = classes.pick(x)?.unsqueeze(classes.dim)?;
        let violation = (self.margin - right)?.broadcast_add(x)?;
        let counts = (violation.gt(0f64)? * classes.others()?)?;
        let violation = counts.where_cond(&violation, &x.zeros_like()?)?;
        let violation = if self.p == 1 { violation } else { violation.sqr()? };
        violation.sum(classes.dim)? / classes.count as f64
    }
}

/// `Σ_{j≠y} max(0, margin - x_y + x_j)^p / C`.
struct Violations {
    rows: Counted,
    p: u32,
    margin: f64,
}

impl RowLoss<1> for Violations {
    const PADDING: [f64; 1] = [f64::NEG_INFINITY];

    #[inline(always)]
    fn take<W: Float>(&self, i: usize, [row]: [&mut [Lanes<W>]; 1], count: usize) -> Option<(W, W)> {
        let (class, weight) = self.rows.get(i)?;
        let lead = of::<W>(self.margin) - row.as_flattened()[class];
        // The class itself is no violation.
        row.as_flattened_mut()[class] = -W::INFINITY;
        let [loss, slopes] = map(row, |x| {
            let z = positive(lead + x);
            let (loss, slope) = if self.p == 1 { (z, indicator(z > W::ZERO)) } else { (z * z, z + z) };
            (slope, [loss, slope])
        });
        row.as_flattened_mut()[class] = -slopes;
        let share = of(weight / count as f64);
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
