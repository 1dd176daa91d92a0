use super::Reduction;
use super::class_targets::{ClassTargets, GatherTargets, class_dim, class_weight, denominator};
use super::validate::{check_option, float, matching};
use crate::kernel::lanes::{LANES, Lanes};
use crate::kernel::ops::{self, Scaled};
use crate::kernel::rows::{
    RowLoss, WeightedTargets, lane_sum, larger, map_sum, map2_sum, row_loss, row_max, row_sum_and_grad, without_dim,
};
use crate::kernel::scalar::Float;
use crate::kernel::switches::has_kernels_for;
use crate::kernel::tensor_loss::tensor_loss;
use candle_core::{DType, Result, Tensor, bail};

/// Cross-entropy of logits `x` against a class `y` or against a probability `y_c` for each class:
///
/// ```text
/// l = -w_y · log softmax(x)_y           for a class
///     -Σ_c w_c · y_c · log softmax(x)_c for probabilities
/// ```
///
/// Use it for a classifier that predicts one of several classes, with a linear last layer: the loss includes the
/// softmax and computes it without overflow. `label_smoothing` (`s`) reduces overconfidence: it moves the fraction `s`
/// of the target to all `C` classes evenly, `y_c·(1 - s) + s/C`. If a sample can have several labels at once, use
/// [`MultiLabelSoftMarginLoss`](super::MultiLabelSoftMarginLoss) or [`BceWithLogitsLoss`](super::BceWithLogitsLoss).
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
/// let grad = grads.get(&input).unwrap().to_vec2::<f64>()?[0][0];
/// assert!((grad - (0.5 - 0.8)).abs() < 1e-9); // the probability minus the target
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/cross_entropy.svg"))]
#[derive(Debug, Clone)]
pub struct CrossEntropyLoss {
    /// Weight `w` of each class, of shape `(C)` and any float dtype. It gets no gradient. Default: `None`, a weight of
    /// 1.
    pub weight: Option<Tensor>,
    /// Class of samples to ignore: their loss and gradient are 0, and the mean leaves them out. It does not have to be
    /// in `0..C`, and has no effect on targets of probabilities. Default: -100.
    pub ignore_index: i64,
    /// Fraction of the target that is spread over all classes, in [0, 1]. Default: 0.
    pub label_smoothing: f64,
    /// Reduction of the sample losses. Default: the mean. For targets of classes it divides by the sum of the samples'
    /// class weights, and for targets of probabilities by the number of samples.
    pub reduction: Reduction,
}

impl Default for CrossEntropyLoss {
    fn default() -> Self {
        Self { weight: None, ignore_index: -100, label_smoothing: 0.0, reduction: Reduction::default() }
    }
}

const LOSS: &str = "CrossEntropyLoss";

impl CrossEntropyLoss {
    /// Returns the loss of the logits `input` against `target`, which holds classes in `0..C` or probabilities.
    ///
    /// - Shapes: `input` is `(N, C, d1, …, dK)`, or `(C)` without a batch. Classes are `(N, d1, …, dK)`, or a scalar or
    ///   `(1)` without a batch. Probabilities have the shape of `input`.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. Classes are of any integer dtype: `u8`, `u32`, `i16`, `i32`
    ///   or `i64`. Probabilities are of the input's dtype.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it is `(N, d1, …, dK)`, or a scalar without a
    ///   batch. If all samples are ignored, the mean is NaN, as in PyTorch, and its gradient is 0.
    /// - Gradient: `softmax(x)` minus the target, for a weight of 1. Probabilities get a gradient too.
    ///
    /// # Errors
    /// If a class is out of range (checked on the CPU only), if `label_smoothing` is outside [0, 1], if the shapes,
    /// dtypes or devices do not fit together, or if `weight` does not have the shape `(C)`, is not of a float dtype, or
    /// is on another device.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let s = self.label_smoothing;
        check_option(LOSS, "label_smoothing", s, (0.0..=1.0).contains(&s), "in [0, 1]")?;
        if target.dtype().is_float() {
            return self.of_probabilities(input, target);
        }
        let targets = ClassTargets::new(LOSS, input, target, self.weight.as_ref(), Some(self.ignore_index))?;

        if let Some(classes) = targets.for_kernel()? {
            let factor = targets.factor(self.reduction, &classes);
            return row_loss([input], targets.dim, factor, ClassLoss::new(classes, targets.count, s));
        }
        let x = float(LOSS, "input", input)?;
        let classes = targets.for_gather(x.dtype())?;
        let (dim, scale) = (targets.dim, targets.scale(self.reduction, &classes)?);
        let smoothing = Smoothing::new(s, self.weight(&x, dim)?, &x, dim)?;
        let is_ignored = classes.is_ignored.clone();
        let loss = tensor_loss([&x], Some(dim), scale, is_ignored, move |[x], [is_wanted]| {
            let (losses, grad) = class_loss(x, &classes, &smoothing, is_wanted)?;
            Ok((losses.into(), [grad.map(Scaled::from)]))
        })?;
        ops::like(&loss, input)
    }

    /// Returns the denominator of the mean loss against `target`, whatever `reduction` is.
    ///
    /// - For classes, it is the sum of the class weights of the samples that are not ignored: 0 if all samples are ignored.
    /// - For probabilities, it is the number of samples.
    ///
    /// Weight the losses of several batches by their denominators to get the loss of one large batch. `Trainer` and `evaluate` do
    /// so if their closure returns the pair `(loss, denominator)`. On a GPU the host waits for classes and for `weight`.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_losses::loss::CrossEntropyLoss;
    ///
    /// let loss = CrossEntropyLoss {
    ///     weight: Some(Tensor::new(&[1f32, 3.0], &Device::Cpu)?),
    ///     ..Default::default()
    /// };
    /// let target = Tensor::new(&[0i64, 1, -100, 1], &Device::Cpu)?; // the third sample is ignored
    /// assert_eq!(loss.denominator(&target)?, 1.0 + 3.0 + 3.0);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a class is negative or, with a `weight`, not less than its length; if probabilities are a scalar; or if `weight` is
    /// not of shape `(C)` or not of a float dtype.
    pub fn denominator(&self, target: &Tensor) -> Result<f64> {
        denominator(LOSS, target, self.weight.as_ref(), self.ignore_index, true)
    }

    /// Returns the sum of the losses against `target`, and the gradient of this sum by the logits. If there is a
    /// `loss_grad`, each loss is multiplied by its element before the gradient is taken. The result has no graph.
    pub(super) fn sum_and_grad(
        &self,
        logits: &Tensor,
        target: &Tensor,
        loss_grad: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let s = self.label_smoothing;
        let weighted = |losses: &Tensor, grad: Tensor, is_ignored: Option<&Tensor>, dim| -> Result<(Tensor, Tensor)> {
            let Some(loss_grad) = loss_grad else { return Ok((ops::sum_all(losses)?, grad)) };
            let mut loss_grad = loss_grad.unsqueeze(dim)?;
            if let Some(is_ignored) = is_ignored {
                loss_grad = ops::masked_fill(&loss_grad, is_ignored, 0.0)?;
            }
            Ok((ops::sum_all(losses)?, grad.broadcast_mul(&loss_grad)?))
        };
        let x = float(LOSS, "input", logits)?;
        if target.dtype().is_float() {
            let (dim, y) = (class_dim(LOSS, "input", &x)?, float(LOSS, "target", target)?);
            let smoothing = Smoothing::new(s, self.weight(&x, dim)?, &x, dim)?;
            let (losses, [grad, _]) = probability_loss([&x, &y], dim, &smoothing, [true, false])?;
            return weighted(&losses, grad.map_or_else(|| x.zeros_like(), Ok)?, None, dim);
        }
        let targets = ClassTargets::new(LOSS, logits, target, self.weight.as_ref(), Some(self.ignore_index))?;
        if let Some(classes) = targets.for_kernel()? {
            let loss = ClassLoss::new(classes, targets.count, s);
            let (sum, grad) = row_sum_and_grad(logits, targets.dim, loss_grad, loss)?;
            return Ok((ops::scalar(sum, &x)?, grad));
        }
        let classes = targets.for_gather(x.dtype())?;
        let smoothing = Smoothing::new(s, self.weight(&x, targets.dim)?, &x, targets.dim)?;
        let (losses, grad) = class_loss(&x, &classes, &smoothing, true)?;
        let grad = grad.map_or_else(|| x.zeros_like(), Ok)?;
        weighted(&losses, grad, classes.is_ignored.as_ref(), targets.dim)
    }

    fn of_probabilities(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        if target.rank() + 1 == input.rank() {
            bail!(
                "{LOSS}: target has dtype {:?}, so it is taken for probabilities and needs input's shape {:?}, not {:?}; \
                 classes need an integer dtype",
                target.dtype(),
                input.dims(),
                target.dims()
            )
        }
        let [x, y] = matching(LOSS, [("input", input), ("target", target)])?;
        let dim = class_dim(LOSS, "input", input)?;
        let factor = self.reduction.factor(&without_dim(input.dims(), dim));
        let weight = self.weight(&x, dim)?;

        if has_kernels_for(&[&x, &y]) {
            let weight = weight.map(|weight| weight.to_dtype(DType::F64)?.to_vec1()).transpose()?;
            let loss = ProbabilityLoss { weight, smoothing: self.label_smoothing, by_target: y.track_op() };
            return row_loss([&x, &y], dim, factor, loss);
        }
        let [x, y] = ops::to_compute([&x, &y])?;
        let smoothing = Smoothing::new(self.label_smoothing, weight, &x, dim)?;
        let loss = tensor_loss([&x, &y], Some(dim), factor.into(), None, move |args, wanted| {
            let (losses, grads) = probability_loss(args, dim, &smoothing, wanted)?;
            Ok((losses.into(), grads.map(|grad| grad.map(Scaled::from))))
        })?;
        ops::like(&loss, input)
    }

    /// Returns the class weights for the classes in dimension `dim`.
    fn weight(&self, input: &Tensor, dim: usize) -> Result<Option<Tensor>> {
        self.weight.as_ref().map(|weight| class_weight(LOSS, weight, input, input.dim(dim)?)).transpose()
    }
}

/// `label_smoothing` and the class weights, for tensor ops.
struct Smoothing {
    smoothing: f64,
    classes: usize,
    /// Class weights, in a shape that broadcasts to the shape of the input.
    weight: Option<Tensor>,
    /// Mask of the classes whose weight is 0.
    has_no_weight: Option<Tensor>,
}

impl Smoothing {
    fn new(smoothing: f64, weight: Option<Tensor>, input: &Tensor, dim: usize) -> Result<Self> {
        let classes = input.dim(dim)?;
        let mut shape = vec![1; input.rank()];
        shape[dim] = classes;
        let weight = weight.map(|weight| weight.to_device(input.device())?.reshape(shape)).transpose()?;
        let has_no_weight = weight.as_ref().map(|weight| weight.eq(0f64)).transpose()?;
        Ok(Self { smoothing, classes, weight, has_no_weight })
    }

    /// Returns the fraction of the target that each class gets, without the class weight: `s / C`.
    fn uniform(&self) -> f64 {
        self.smoothing / self.classes as f64
    }

    fn weigh(&self, x: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Some(weight) => x.broadcast_mul(weight),
            None => Ok(x.clone()),
        }
    }
}

/// Returns the logits minus their maximum, the exponentials of these differences, and the sum of the exponentials, for
/// a softmax over `dim`.
fn shifted_exp(x: &Tensor, dim: usize) -> Result<(Tensor, Tensor, Tensor)> {
    let shifted = x.broadcast_sub(&ops::max_keepdim(x, dim)?)?;
    let exp = shifted.exp()?;
    // Without classes, 1 in place of 0, whose logarithm is infinite.
    let sum = if x.dim(dim)? == 0 { exp.sum_keepdim(dim)?.ones_like()? } else { exp.sum_keepdim(dim)? };
    Ok((shifted, exp, sum))
}

/// Returns the loss of each sample against its class, and the gradients by the logits. It uses tensor ops.
fn class_loss(
    x: &Tensor,
    classes: &GatherTargets,
    smoothing: &Smoothing,
    is_wanted: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (dim, s, uniform) = (classes.dim, smoothing.smoothing, smoothing.uniform());
    // First, so that no derivative of a NaN is taken.
    let (shifted, exp, sum) = shifted_exp(&classes.drop_ignored(x)?, dim)?;
    let log_sum = sum.log()?;
    let own = ops::times(&classes.row_weight()?, 1.0 - s)?;
    let mut losses = (&own * (&log_sum - classes.gather(&shifted)?)?)?;
    // The sum of the weights of all terms of a sample.
    let mut total = own.clone();
    if s > 0.0 {
        let counted = match &smoothing.has_no_weight {
            Some(has_no_weight) => ops::masked_fill(&smoothing.weigh(&shifted)?, has_no_weight, 0.0)?,
            None => shifted.clone(),
        };
        let all = match &smoothing.weight {
            Some(weight) => ops::times(&weight.sum_keepdim(dim)?, uniform)?,
            None => ops::scalar(s, x)?,
        };
        losses = (losses + (log_sum.broadcast_mul(&all)? - ops::times(&counted.sum_keepdim(dim)?, uniform)?)?)?;
        total = total.broadcast_add(&all)?;
    }
    drop(shifted);
    let losses = classes.drop_ignored(&losses)?.squeeze(dim)?;
    if !is_wanted {
        return Ok((losses, None));
    }
    // total · softmax(x) - s / C · w - own · onehot(class)
    let mut grad = exp.broadcast_mul(&(total / sum)?)?;
    drop(exp);
    if s > 0.0 {
        grad = match &smoothing.weight {
            Some(weight) => grad.broadcast_sub(&ops::times(weight, uniform)?)?,
            None => grad.affine(1.0, -uniform)?,
        };
    }
    let grad = classes.scatter_add(&grad, &own.neg()?)?;
    // Without smoothing, the weights of ignored rows are all 0.
    Ok((losses, Some(if s > 0.0 { classes.drop_ignored(&grad)? } else { grad })))
}

/// Returns the loss of each sample against probabilities, and the gradients by the logits and by the probabilities. It
/// uses tensor ops.
fn probability_loss(
    [x, y]: [&Tensor; 2],
    dim: usize,
    smoothing: &Smoothing,
    [by_x, by_y]: [bool; 2],
) -> Result<(Tensor, [Option<Tensor>; 2])> {
    let s = smoothing.smoothing;
    let (shifted, exp, sum) = shifted_exp(x, dim)?;
    let log_sum = sum.log()?;
    let y = if s > 0.0 { &y.affine(1.0 - s, smoothing.uniform())? } else { y };
    let y = &smoothing.weigh(y)?;
    let total = y.sum_keepdim(dim)?;
    // The term of a probability of 0 is 0, even if the logit is -∞.
    let is_0 = y.eq(0f64)?;
    let products = ops::masked_fill(&(y * &shifted)?, &is_0, 0.0)?;
    let losses = ((&total * &log_sum)? - products.sum_keepdim(dim)?)?.squeeze(dim)?;
    drop(products);
    let of_y = match by_y {
        true => {
            let nll = shifted.broadcast_sub(&log_sum)?.neg()?;
            let is_lost = (&is_0 * nll.eq(f64::INFINITY)?)?;
            let nll = ops::masked_fill(&ops::times(&nll, 1.0 - s)?, &is_lost, 0.0)?;
            Some(smoothing.weigh(&nll)?)
        }
        false => None,
    };
    drop(shifted);
    let of_x = if by_x { Some((exp.broadcast_mul(&(total / sum)?)? - y)?) } else { None };
    Ok((losses, [of_x, of_y]))
}

/// `(1 - s)·w_y·l_y + s/C · Σ_c w_c·l_c` for the class `y`, where `l = -log softmax(x)`. The gradient is `softmax(x)`
/// times the sum of the factors of all `l_c`, minus the factor of `l_c` for each class `c`.
struct ClassLoss {
    targets: WeightedTargets,
    smoothing: f64,
    /// `s/C · Σ_c w_c`
    total: f64,
}

impl ClassLoss {
    fn new(targets: WeightedTargets, classes: usize, smoothing: f64) -> Self {
        let mean = targets.weight.as_ref().map_or(1.0, |weight| weight.iter().sum::<f64>() / classes as f64);
        Self { targets, smoothing, total: smoothing * mean }
    }

    /// `Σ_c w_c·(max - x_c)`
    #[inline(always)]
    fn weighted_gaps<W: Float>(&self, row: &[W], max: W) -> W {
        match &self.targets.weight {
            None => lane_sum(row.len(), |c| max - row[c]),
            Some(weight) => {
                lane_sum(
                    row.len(),
                    |c| if weight[c] == 0.0 { W::ZERO } else { W::constant(weight[c]) * (max - row[c]) },
                )
            }
        }
    }
}

impl RowLoss<1> for ClassLoss {
    const PADDING: [f64; 1] = [f64::NEG_INFINITY];

    #[inline(always)]
    fn loss_and_grad_in_place<W: Float>(&self, i: usize, [row]: [&mut [Lanes<W>]; 1], len: usize) -> Option<(W, W)> {
        let (class, weight) = self.targets.get(i)?;
        let (own, uniform) = (W::constant((1.0 - self.smoothing) * weight), W::constant(self.smoothing / len as f64));
        let is_smooth = self.smoothing > 0.0;
        let max = row_max(row);
        let gap = max - row.as_flattened()[class];
        let gaps = if is_smooth { uniform * self.weighted_gaps(&row.as_flattened()[..len], max) } else { W::ZERO };
        let [sum] = map_sum(row, |x| {
            let e = (x - max).exp();
            (e, [e])
        });
        let total = own + W::constant(self.total);
        let loss = own * gap + gaps + total * sum.ln();
        if !is_smooth {
            row.as_flattened_mut()[class] -= sum;
            return Some((loss, own / sum));
        }
        let scale = total / sum;
        match &self.targets.weight {
            None => _ = map_sum(row, |e| (e * scale - uniform, [])),
            Some(weight) => {
                let each = row.as_flattened_mut().iter_mut().zip(weight);
                each.for_each(|(e, &weight)| *e = *e * scale - uniform * W::constant(weight));
            }
        }
        row.as_flattened_mut()[class] -= own;
        Some((loss, W::ONE))
    }

    const HAS_COLUMNS: bool = true;

    #[inline(always)]
    fn loss_and_grad_of_columns<W: Float>(
        &self,
        first: usize,
        [columns]: [&mut [Lanes<W>]; 1],
    ) -> [Option<(W, W)>; LANES] {
        let uniform = self.smoothing / columns.len() as f64;
        let is_smooth = self.smoothing > 0.0;
        let uniform_of =
            |class: usize| W::constant(uniform * self.targets.weight.as_ref().map_or(1.0, |weight| weight[class]));
        let mut max = [-W::INFINITY; LANES];
        for column in &*columns {
            for lane in 0..LANES {
                max[lane] = larger(max[lane], column[lane]);
            }
        }
        let mut classes = [None; LANES];
        let rows = self.targets.classes.len() - first;
        for (lane, row) in classes.iter_mut().enumerate().take(rows) {
            *row = self.targets.get(first + lane).map(|(class, weight)| {
                let own = W::constant((1.0 - self.smoothing) * weight);
                (class, own, own * (max[lane] - columns[class][lane]))
            });
        }
        let (mut sums, mut gaps) = ([W::ZERO; LANES], [W::ZERO; LANES]);
        for (class, column) in columns.iter_mut().enumerate() {
            let uniform = uniform_of(class);
            if uniform != W::ZERO {
                for lane in 0..LANES {
                    gaps[lane] += uniform * (max[lane] - column[lane]);
                }
            }
            for lane in 0..LANES {
                column[lane] = (column[lane] - max[lane]).exp();
                sums[lane] += column[lane];
            }
        }
        let (mut results, mut scales) = ([None; LANES], [W::ZERO; LANES]);
        for (lane, row) in classes.iter().enumerate() {
            if let Some((class, own, gap)) = *row {
                let total = own + W::constant(self.total);
                let loss = gap + gaps[lane] + total * sums[lane].ln();
                scales[lane] = total / sums[lane];
                if !is_smooth {
                    columns[class][lane] -= sums[lane];
                }
                results[lane] = Some((loss, if is_smooth { W::ONE } else { scales[lane] }));
            }
        }
        if !is_smooth {
            return results;
        }
        for (class, column) in columns.iter_mut().enumerate() {
            let uniform = uniform_of(class);
            for lane in 0..LANES {
                column[lane] = column[lane] * scales[lane] - uniform;
            }
        }
        for (lane, row) in classes.iter().enumerate() {
            if let Some((class, own, _)) = *row {
                columns[class][lane] -= own;
            }
        }
        results
    }
}

/// `-Σ_c q_c·log softmax(x)_c` for `q_c = ((1 - s)·y_c + s/C)·w_c`. The term of a `q_c` of 0 is 0, even if the logit is
/// -∞.
struct ProbabilityLoss {
    weight: Option<Vec<f64>>,
    smoothing: f64,
    /// Whether the gradient by the probabilities is computed.
    by_target: bool,
}

impl RowLoss<2> for ProbabilityLoss {
    const PADDING: [f64; 2] = [f64::NEG_INFINITY, 0.0];

    #[inline(always)]
    fn loss_and_grad_in_place<W: Float>(&self, _: usize, [row, y]: [&mut [Lanes<W>]; 2], len: usize) -> Option<(W, W)> {
        let (zero, kept) = (W::ZERO, W::constant(1.0 - self.smoothing));
        let uniform = W::constant(self.smoothing / len as f64);
        let weigh = |values: &mut [W]| {
            if let Some(weight) = &self.weight {
                values.iter_mut().zip(weight).for_each(|(value, &weight)| *value *= W::constant(weight));
            }
        };
        let q = &mut y.as_flattened_mut()[..len];
        if self.smoothing != 0.0 {
            q.iter_mut().for_each(|q| *q = kept * *q + uniform);
        }
        weigh(q);
        let max = row_max(row);
        let term = |q: W, gap: W| if q == zero { zero } else { q * gap };
        if self.by_target {
            let [sum, total, term] =
                map2_sum([&mut *row, &mut *y], |x, q| ([x, q], [(x - max).exp(), q, term(q, max - x)]));
            let (scale, log) = (total / sum, sum.ln());
            map2_sum([&mut *row, &mut *y], |x, q| {
                let nll = log + max - x;
                let by_y = if q == zero && nll == W::INFINITY { zero } else { kept * nll };
                ([(x - max).exp() * scale - q, by_y], [])
            });
            weigh(&mut y.as_flattened_mut()[..len]);
            return Some((term + total * log, W::ONE));
        }
        let [sum, total, term] = map2_sum([&mut *row, &mut *y], |x, q| {
            let e = (x - max).exp();
            ([e, q], [e, q, term(q, max - x)])
        });
        let scale = total / sum;
        map2_sum([row, y], |e, q| ([e * scale - q, q], []));
        Some((term + total * sum.ln(), W::ONE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn loss_of_equal_logits_is_log_of_class_count() -> Result<()> {
        let (x, y) = (Tensor::new(&[[5.0; 4]; 2], &device())?, Tensor::new(&[0i64, 3], &device())?);
        for label_smoothing in [0.0, 0.3] {
            let loss = CrossEntropyLoss { label_smoothing, ..Default::default() };
            assert_values(loss.forward(&x, &y), &[4f64.ln()])?;
        }
        assert_values(CrossEntropyLoss::default().forward(&x, &Tensor::new(&[[0.25; 4]; 2], &device())?), &[4f64.ln()])
    }

    #[test]
    fn finite_for_large_logits() -> Result<()> {
        let (x, y) = (Tensor::new(&[[1e4, -1e4]], &device())?, Tensor::new(&[1u8], &device())?);
        assert_values(CrossEntropyLoss::default().forward(&x, &y), &[2e4])
    }

    #[test]
    fn rejects_smoothing_outside_0_to_1() -> Result<()> {
        let (x, y) = (vector(&[1.0, 2.0]), Tensor::new(0u32, &device())?);
        for label_smoothing in [-0.1, 1.1, f64::NAN] {
            let loss = CrossEntropyLoss { label_smoothing, ..Default::default() };
            refuses(loss.forward(&x, &y), &["CrossEntropyLoss", "label_smoothing", "[0, 1]"]);
        }
        Ok(())
    }

    #[test]
    fn rejects_invalid_classes_weights_and_probabilities() -> Result<()> {
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
