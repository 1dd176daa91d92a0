use super::{Classes, Reduction, check_option, class_dim, class_weight, float, log_softmax, matching};
use crate::kernel::scalar::{exp, ln};
use crate::kernel::{Counted, Lanes, RowLoss, fused_rows, has_plain_rows, is_plain_as, map, map_both, ops};
use candle_core::{DType, Result, Tensor, bail};

/// Cross-entropy of logits `x` against a class `y`, or against a distribution over the classes:
///
/// ```text
/// l = -w_y · log softmax(x)_y           for a class
///     -Σ_c w_c · y_c · log softmax(x)_c for probabilities
/// ```
///
/// The usual loss of a classifier that chooses one class. The last layer is linear, since the softmax is in the loss,
/// where it can't overflow. `label_smoothing` `s` takes the share `s` from the target and spreads it evenly over the
/// `C` classes (`y_c·(1 - s) + s/C`), against overconfidence. Where several labels can hold at once, see
/// [`MultiLabelSoftMarginLoss`](super::MultiLabelSoftMarginLoss).
///
/// Source: [`torch.nn.CrossEntropyLoss`](https://pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html);
/// label smoothing: Szegedy et al., [Rethinking the Inception Architecture](https://arxiv.org/abs/1512.00567), 2015.
///
/// Example: [`examples/cross_entropy.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/cross_entropy.rs),
/// run by `cargo run --example cross_entropy`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::loss::CrossEntropyLoss;
///
/// let input = Var::new(&[[2f64.ln(), 0.0, 0.0]], &Device::Cpu)?; // probabilities 1/2, 1/4, 1/4
/// let target = Tensor::new(&[0u32], &Device::Cpu)?;
/// let loss = CrossEntropyLoss { label_smoothing: 0.3, ..Default::default() }; // class 0 becomes 0.8, 0.1, 0.1
/// let value = loss.forward(&input, &target)?;
/// assert!((value.to_scalar::<f64>()? - 1.2 * 2f64.ln()).abs() < 1e-9); // 0.8 · log 2 + 2 · 0.1 · log 4
/// let grads = value.backward()?;
/// let slope = grads.get(&input).unwrap().to_vec2::<f64>()?[0][0];
/// assert!((slope - (0.5 - 0.8)).abs() < 1e-9); // the probability less the target
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/cross_entropy.svg"))]
#[derive(Debug, Clone)]
pub struct CrossEntropyLoss {
    /// `w`, one weight per class, shape `(C)`, any float dtype; no gradient flows to it. Default: none, all count 1.
    pub weight: Option<Tensor>,
    /// Samples of this class cost nothing and don't count in the mean; need not be a class. Without effect on a target
    /// of probabilities. Default -100.
    pub ignore_index: i64,
    /// The share of the target to spread over all classes, in [0, 1]. Default 0.
    pub label_smoothing: f64,
    /// How the sample losses are reduced. Default: the mean, which divides by the sum of the samples' class weights for
    /// a target of classes, and by the number of samples for one of probabilities.
    pub reduction: Reduction,
}

impl Default for CrossEntropyLoss {
    fn default() -> Self {
        Self { weight: None, ignore_index: -100, label_smoothing: 0.0, reduction: Reduction::default() }
    }
}

impl CrossEntropyLoss {
    /// The loss of the logits `input` against `target`: classes, `0..C`, or probabilities.
    ///
    /// Shapes: `(C)` with a scalar class, `(N, C, d1, …, dK)` with classes `(N, d1, …, dK)`, or either with
    /// probabilities of the same shape. Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`; `target` is `u8`, `u32` or
    /// `i64` if it is classes, and of input's dtype if it is probabilities. The result has input's dtype and is a
    /// scalar, or with [`Reduction::None`] of input's shape without `C`. The mean over no sample, all being ignored, is
    /// NaN, as in PyTorch.
    ///
    /// # Errors
    /// If a class is out of range (seen on the CPU only), if `label_smoothing` is outside [0, 1], if shapes, dtypes or
    /// devices don't fit, or if `weight` has not `C` elements, is not of a float dtype or is on another device.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let s = self.label_smoothing;
        check_option("CrossEntropyLoss", "label_smoothing", s, (0.0..=1.0).contains(&s), "in [0, 1]")?;
        if target.dtype().is_float() {
            return self.against_probabilities(input, target);
        }
        let target = Classes::new("CrossEntropyLoss", input, target, self.weight.as_ref(), Some(self.ignore_index))?;

        if has_plain_rows(input) {
            let rows = target.counted()?;
            let factor = target.factor(self.reduction, &rows);
            return match s {
                0.0 => fused_rows(input, None, factor, NllOfSoftmax { rows }),
                _ => fused_rows(
                    input,
                    None,
                    factor,
                    Shares { smoothed: self.smoothed(input, target.dim)?, rows: Some(rows) },
                ),
            };
        }
        let x = float("CrossEntropyLoss", "input", input)?;
        let loss = self.against_classes(&x, &target)?;

        self.reduction.reduce_weighted(&loss, target.weight.as_ref(), input)
    }

    /// `(1 - s) · w_y · l + s/C · Σ_c w_c · l_c`, where `l_c` is the loss if the class were `c`.
    fn against_classes(&self, x: &Tensor, target: &Classes) -> Result<Tensor> {
        let s = self.label_smoothing;
        let log_p = log_softmax(&target.drop_ignored_rows(x)?, target.dim)?;
        let loss = target.negative_log_likelihood(&log_p)?;
        if s == 0.0 {
            return Ok(loss);
        }
        let even = target.drop_ignored(&self.sum_classes(&log_p.neg()?, target.dim)?)?;
        (loss * (1. - s))? + (even * (s / target.count as f64))?
    }

    fn against_probabilities(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        if target.rank() + 1 == input.rank() {
            bail!(
                "CrossEntropyLoss: target has dtype {:?}, so it is taken for probabilities and needs input's shape {:?}, not \
                 {:?}; classes need an integer dtype",
                target.dtype(),
                input.dims(),
                target.dims()
            )
        }
        let [x, y] = matching("CrossEntropyLoss", [("input", input), ("target", target)])?;
        let dim = class_dim("CrossEntropyLoss", &x)?;
        let samples = [&x.dims()[..dim], &x.dims()[dim + 1..]].concat();

        if has_plain_rows(input) && is_plain_as(target, input.dtype()) && !target.track_op() {
            let shares = Shares { rows: None, smoothed: self.smoothed(input, dim)? };
            return fused_rows(input, Some(target), self.reduction.factor(&samples), shares);
        }
        let s = self.label_smoothing;
        let y = if s > 0.0 { y.affine(1. - s, s / x.dim(dim)? as f64)? } else { y };
        let loss = self.sum_classes(&ops::times(&y, &log_softmax(&x, dim)?.neg()?)?, dim)?;

        self.reduction.reduce(&loss, input)
    }

    /// `Σ_c w_c · values_c`.
    fn sum_classes(&self, values: &Tensor, dim: usize) -> Result<Tensor> {
        match &self.weight {
            Some(weight) => {
                let mut shape = vec![1; values.rank()];
                shape[dim] = values.dim(dim)?;
                let weight = class_weight("CrossEntropyLoss", weight, values, dim)?.reshape(shape)?;
                values.broadcast_mul(&weight)?.sum(dim)
            }
            None => values.sum(dim),
        }
    }

    fn smoothed(&self, input: &Tensor, dim: usize) -> Result<Smoothed> {
        let weight = self.weight.as_ref().map(|weight| class_weight("CrossEntropyLoss", weight, input, dim));
        let weight = weight.transpose()?.map(|weight| weight.to_dtype(DType::F32)?.to_vec1());
        Ok(Smoothed { weight: weight.transpose()?, label_smoothing: self.label_smoothing as f32 })
    }
}

/// `-log softmax(x)_y` for the class `y`. The derivatives are `softmax(x)` less 1 at `y`, in the unit of the exponentials.
struct NllOfSoftmax {
    rows: Vec<Counted>,
}

impl RowLoss for NllOfSoftmax {
    #[inline(always)]
    fn take(&self, i: usize, row: &mut [Lanes], max: f32, _: usize, _: &mut [Lanes]) -> Option<(f32, f32)> {
        let (class, weight) = self.rows[i]?;
        let class = class as usize;
        let own = row.as_flattened()[class] - max;
        let [sum] = map(row, |x| {
            let e = exp(x - max);
            (e, [e])
        });
        row.as_flattened_mut()[class] -= sum;
        Some((weight * (ln(sum) - own), weight / sum))
    }
}

/// What smoothing and weights make of a share: `((1 - s)·y + s/C) · w`.
struct Smoothed {
    weight: Option<Vec<f32>>,
    label_smoothing: f32,
}

impl Smoothed {
    #[inline(always)]
    fn apply(&self, shares: &mut [f32]) {
        let even = self.label_smoothing / shares.len() as f32;
        if self.label_smoothing != 0.0 {
            shares.iter_mut().for_each(|share| *share = (1.0 - self.label_smoothing) * *share + even);
        }
        if let Some(weight) = &self.weight {
            shares.iter_mut().zip(weight).for_each(|(share, weight)| *share *= weight);
        }
    }
}

/// `-Σ_c y_c · log softmax(x)_c` for shares `y`, which are those of the class in `rows`, or else the second argument. Its
/// derivatives are `softmax(x) · Σ y - y`. A share of 0 costs nothing, even of a class that `x` makes impossible.
struct Shares {
    rows: Option<Vec<Counted>>,
    smoothed: Smoothed,
}

impl RowLoss for Shares {
    #[inline(always)]
    fn take(&self, i: usize, row: &mut [Lanes], max: f32, count: usize, y: &mut [Lanes]) -> Option<(f32, f32)> {
        let shares = &mut y.as_flattened_mut()[..count];
        if let Some(rows) = &self.rows {
            let (class, _) = rows[i]?;
            shares.fill(0.0);
            shares[class as usize] = 1.0;
        }
        self.smoothed.apply(shares);
        let [sum, total, cost] = map_both(row, &*y, |x, y| {
            let e = exp(x - max);
            (e, [e, y, if y == 0.0 { 0.0 } else { y * (max - x) }])
        });
        let scale = total / sum;
        map_both(row, &*y, |e, y| (e * scale - y, []));
        Some((cost + total * ln(sum), 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn even_logits_cost_the_logarithm_of_the_number_of_classes() -> Result<()> {
        let (x, y) = (Tensor::new(&[[5.0; 4]; 2], &device())?, Tensor::new(&[0i64, 3], &device())?);
        for label_smoothing in [0.0, 0.3] {
            let loss = CrossEntropyLoss { label_smoothing, ..Default::default() };
            assert_values(loss.forward(&x, &y), &[4f64.ln()])?;
        }
        assert_values(CrossEntropyLoss::default().forward(&x, &Tensor::new(&[[0.25; 4]; 2], &device())?), &[4f64.ln()])
    }

    #[test]
    fn finite_where_the_softmax_has_rounded_to_0() -> Result<()> {
        let (x, y) = (Tensor::new(&[[1e4, -1e4]], &device())?, Tensor::new(&[1u8], &device())?);
        assert_values(CrossEntropyLoss::default().forward(&x, &y), &[2e4])
    }

    #[test]
    fn refuses_a_smoothing_outside_0_to_1() -> Result<()> {
        let (x, y) = (vector(&[1.0, 2.0]), Tensor::new(0u32, &device())?);
        for label_smoothing in [-0.1, 1.1, f64::NAN] {
            let loss = CrossEntropyLoss { label_smoothing, ..Default::default() };
            refuses(loss.forward(&x, &y), &["CrossEntropyLoss", "label_smoothing", "[0, 1]"]);
        }
        Ok(())
    }

    #[test]
    fn refuses_classes_weights_and_probabilities_that_do_not_fit() -> Result<()> {
        let forward = |x: &Tensor, y: &Tensor, weight| CrossEntropyLoss { weight, ..Default::default() }.forward(x, y);
        let scalar = forward(&vector(&[1.0]).get(0)?, &Tensor::new(0u32, &device())?, None);
        refuses(scalar, &["CrossEntropyLoss", "input", "scalar"]);
        refuses_bad_classes("CrossEntropyLoss", forward)?;
        refuses_mismatches("CrossEntropyLoss", |x, y| forward(x, y, None));
        refuses(
            forward(&vector(&[1.0, 2.0]), &vector(&[0.5, 0.5]), Some(vector(&[1.0]))),
            &["weight", "[1]", "2 classes"],
        );
        Ok(())
    }
}
