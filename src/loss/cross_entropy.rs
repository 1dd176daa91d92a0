use super::{Classes, Gathered, Reduction, check_option, class_dim, class_weight, float, log_softmax, matching, wide};
use crate::kernel::scalar::{Float, of};
use crate::kernel::{
    Counted, LANES, Lanes, RowLoss, can_be_fused, fused_rows, larger, largest, map, map_both, ops, row_slopes, sum_of,
};
use candle_core::{DType, Result, Tensor, Var, bail};

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

        if let Some(rows) = target.read()? {
            let factor = target.factor(self.reduction, &rows);
            return fused_rows([input], target.dim, factor, self.of_rows(rows, target.count));
        }
        let target = target.gathered()?;
        let loss = self.against_classes(&float("CrossEntropyLoss", "input", input)?, &target)?;

        self.reduction.reduce_classes(&loss, &target, input)
    }

    /// The sum of the losses and its gradient by the logits, or that of the losses each times `grad`: as backward gives it,
    /// without copies of the logits and of the gradient where there can be.
    pub(super) fn sum_and_slopes(
        &self,
        logits: &Tensor,
        target: &Tensor,
        grad: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        if !target.dtype().is_float() {
            let target =
                Classes::new("CrossEntropyLoss", logits, target, self.weight.as_ref(), Some(self.ignore_index))?;
            if let Some(rows) = target.read()? {
                let (sum, slopes) = row_slopes(logits, target.dim, grad, self.of_rows(rows, target.count))?;
                return Ok((Tensor::new(sum, logits.device())?.to_dtype(logits.dtype())?, slopes));
            }
        }
        let logits = Var::from_tensor(logits)?;
        let reduction = if grad.is_some() { Reduction::None } else { Reduction::Sum };
        let loss = Self { reduction, ..self.clone() }.forward(&logits, target)?;
        let sum = grad.map_or(Ok(loss.clone()), |grad| (&loss * grad)?.sum_all())?;
        let slopes = sum.backward()?.remove(&logits);
        Ok((sum.detach(), slopes.map_or_else(|| logits.zeros_like(), |slopes| Ok(slopes.detach()))?))
    }

    fn of_rows(&self, rows: Counted, classes: usize) -> AgainstClass {
        let s = self.label_smoothing;
        let weight = if s > 0.0 { rows.weight.clone() } else { None };
        AgainstClass { total: self.total(weight.as_deref(), classes), rows, weight, s }
    }

    /// `(1 - s) · w_y · l + s/C · Σ_c w_c · l_c`, where `l_c` is the loss if the class were `c`.
    fn against_classes(&self, x: &Tensor, target: &Gathered) -> Result<Tensor> {
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
        let args = matching("CrossEntropyLoss", [("input", input), ("target", target)])?;
        let dim = class_dim("CrossEntropyLoss", input)?;
        let samples = [&input.dims()[..dim], &input.dims()[dim + 1..]].concat();
        let (s, weight) = (self.label_smoothing, self.class_weight(input, dim)?);

        if can_be_fused(&[input, target]) {
            let weight = weight.map(|weight| weight.to_dtype(DType::F64)?.to_vec1()).transpose()?;
            let loss = AgainstShares { weight, s, is_tracked: target.track_op() };
            return fused_rows([input, target], dim, self.reduction.factor(&samples), loss);
        }
        let [x, y] = wide(args)?;
        let y = if s > 0.0 { y.affine(1. - s, s / x.dim(dim)? as f64)? } else { y };
        let loss = self.sum_classes(&ops::times(&y, &log_softmax(&x, dim)?.neg()?)?, dim)?;

        self.reduction.reduce(&loss, input)
    }

    fn class_weight(&self, input: &Tensor, dim: usize) -> Result<Option<Tensor>> {
        self.weight.as_ref().map(|weight| class_weight("CrossEntropyLoss", weight, input, dim)).transpose()
    }

    /// What smoothing gives to all classes together.
    fn total(&self, weight: Option<&[f64]>, classes: usize) -> f64 {
        self.label_smoothing * weight.map_or(1.0, |weight| weight.iter().sum::<f64>() / classes as f64)
    }

    /// `Σ_c w_c · values_c`.
    fn sum_classes(&self, values: &Tensor, dim: usize) -> Result<Tensor> {
        match self.class_weight(values, dim)? {
            Some(weight) => {
                let mut shape = vec![1; values.rank()];
                shape[dim] = values.dim(dim)?;
                values.broadcast_mul(&weight.reshape(shape)?)?.sum(dim)
            }
            None => values.sum(dim),
        }
    }
}

/// `(1 - s)·w_y·l_y + s/C · Σ_c w_c·l_c` for the class `y`, where `l = -log softmax(x)`. The derivatives are the shares of the
/// classes together times `softmax(x)`, less each its own.
struct AgainstClass {
    rows: Counted,
    /// For smoothing.
    weight: Option<Vec<f64>>,
    /// What smoothing gives to all classes together.
    total: f64,
    s: f64,
}

impl RowLoss<1> for AgainstClass {
    const PADDING: [f64; 1] = [f64::NEG_INFINITY];

    #[inline(always)]
    fn take<W: Float>(&self, i: usize, [row]: [&mut [Lanes<W>]; 1], count: usize) -> Option<(W, W)> {
        let (class, weight) = self.rows.get(i)?;
        let own = of::<W>((1.0 - self.s) * weight);
        let max = largest(row);
        let lead = max - row.as_flattened()[class];
        let even = of::<W>(self.s / count as f64);
        let leads = if self.s == 0.0 { W::ZERO } else { even * self.leads(&row.as_flattened()[..count], max) };
        let [sum] = map(row, |x| {
            let e = (x - max).exp();
            (e, [e])
        });
        let shares = own + of(self.total);
        let loss = own * lead + leads + shares * sum.ln();
        if self.s == 0.0 {
            row.as_flattened_mut()[class] -= sum;
            return Some((loss, own / sum));
        }
        let scale = shares / sum;
        match &self.weight {
            None => _ = map(row, |e| (e * scale - even, [])),
            Some(weight) => {
                let each = row.as_flattened_mut().iter_mut().zip(weight);
                each.for_each(|(e, &weight)| *e = *e * scale - even * of(weight));
            }
        }
        row.as_flattened_mut()[class] -= own;
        Some((loss, W::ONE))
    }

    const BESIDE: bool = true;

    #[inline(always)]
    fn take_beside<W: Float>(&self, first: usize, [columns]: [&mut [Lanes<W>]; 1]) -> [Option<(W, W)>; LANES] {
        let even = self.s / columns.len() as f64;
        let share = |class: usize| of::<W>(even * self.weight.as_ref().map_or(1.0, |weight| weight[class]));
        let mut max = [-W::INFINITY; LANES];
        for column in &*columns {
            for lane in 0..LANES {
                max[lane] = larger(max[lane], column[lane]);
            }
        }
        let mut counted = [None; LANES];
        let rows = counted.iter_mut().enumerate().take(self.rows.classes.len() - first);
        for (lane, counted) in rows {
            *counted = self.rows.get(first + lane).map(|(class, weight)| {
                let own = of::<W>((1.0 - self.s) * weight);
                (class, own, own * (max[lane] - columns[class][lane]))
            });
        }
        let (mut sums, mut leads) = ([W::ZERO; LANES], [W::ZERO; LANES]);
        for (class, column) in columns.iter_mut().enumerate() {
            let share = share(class);
            if share != W::ZERO {
                for lane in 0..LANES {
                    leads[lane] += share * (max[lane] - column[lane]);
                }
            }
            for lane in 0..LANES {
                column[lane] = (column[lane] - max[lane]).exp();
                sums[lane] += column[lane];
            }
        }
        let (mut taken, mut scales) = ([None; LANES], [W::ZERO; LANES]);
        for (lane, counted) in counted.iter().enumerate() {
            if let Some((class, own, lead)) = *counted {
                let shares = own + of(self.total);
                let loss = lead + leads[lane] + shares * sums[lane].ln();
                scales[lane] = shares / sums[lane];
                if self.s == 0.0 {
                    columns[class][lane] -= sums[lane];
                }
                taken[lane] = Some((loss, if self.s == 0.0 { scales[lane] } else { W::ONE }));
            }
        }
        if self.s == 0.0 {
            return taken;
        }
        for (class, column) in columns.iter_mut().enumerate() {
            let share = share(class);
            for lane in 0..LANES {
                column[lane] = column[lane] * scales[lane] - share;
            }
        }
        for (lane, counted) in counted.iter().enumerate() {
            if let Some((class, own, _)) = *counted {
                columns[class][lane] -= own;
            }
        }
        taken
    }
}

impl AgainstClass {
    /// `Σ_c w_c·(max - x_c)`.
    #[inline(always)]
    fn leads<W: Float>(&self, row: &[W], max: W) -> W {
        match &self.weight {
            None => sum_of(row.len(), |c| max - row[c]),
            Some(weight) => {
                sum_of(row.len(), |c| if weight[c] == 0.0 { W::ZERO } else { of::<W>(weight[c]) * (max - row[c]) })
            }
        }
    }
}

/// `-Σ_c q_c·log softmax(x)_c` for the shares `q_c = ((1 - s)·y_c + s/C)·w_c`. A share of 0 costs nothing, even of a class
/// that `x` makes impossible.
struct AgainstShares {
    weight: Option<Vec<f64>>,
    s: f64,
    /// Whether a gradient by the shares is wanted, too.
    is_tracked: bool,
}

impl RowLoss<2> for AgainstShares {
    const PADDING: [f64; 2] = [f64::NEG_INFINITY, 0.0];

    #[inline(always)]
    fn take<W: Float>(&self, _: usize, [row, y]: [&mut [Lanes<W>]; 2], count: usize) -> Option<(W, W)> {
        let (zero, kept, even) = (W::ZERO, of::<W>(1.0 - self.s), of::<W>(self.s / count as f64));
        let weighted = |shares: &mut [W]| {
            if let Some(weight) = &self.weight {
                shares.iter_mut().zip(weight).for_each(|(share, &weight)| *share *= of(weight));
            }
        };
        let shares = &mut y.as_flattened_mut()[..count];
        if self.s != 0.0 {
            shares.iter_mut().for_each(|share| *share = kept * *share + even);
        }
        weighted(shares);
        let max = largest(row);
        let cost = |share: W, lead: W| if share == zero { zero } else { share * lead };
        if self.is_tracked {
            let [sum, total, cost] =
                map_both([&mut *row, &mut *y], |x, y| ([x, y], [(x - max).exp(), y, cost(y, max - x)]));
            let (scale, log) = (total / sum, sum.ln());
            map_both([&mut *row, &mut *y], |x, y| {
                let nll = log + max - x;
                let by_share = if y == zero && nll == W::INFINITY { zero } else { kept * nll };
                ([(x - max).exp() * scale - y, by_share], [])
            });
            weighted(&mut y.as_flattened_mut()[..count]);
            return Some((cost + total * log, W::ONE));
        }
        let [sum, total, cost] = map_both([&mut *row, &mut *y], |x, y| {
            let e = (x - max).exp();
            ([e, y], [e, y, cost(y, max - x)])
        });
        let scale = total / sum;
        map_both([row, y], |e, y| ([e * scale - y, y], []));
        Some((cost + total * sum.ln(), W::ONE))
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
