use super::class_targets::{ClassTargets, class_weight, denominator};
use super::validate::{check_option, class_indices, float, float_dtype, same_kind};
use super::{CrossEntropyLoss, Reduction};
use crate::kernel::gemm::{ProductSum, product};
use crate::kernel::graph::{Value, node};
use crate::kernel::ops;
use crate::kernel::switches::{has_kernels, keeps_graph_of_gradients, reads_values};
use crate::kernel::tensor_loss::Scale;
use candle_core::{DType, Device, Result, Tensor, bail};

/// Cross-entropy of the outputs of a linear layer, without storing all outputs at once:
///
/// ```text
/// l = cross_entropy(x·Wᵀ + b, y)
/// ```
///
/// Use it for a last layer with very many classes, such as the last layer of a language model. For 2048 tokens and
/// 32,000 words the logits take 262 MB, and their gradient takes as much again. This loss stores neither: it computes
/// the logits of `chunk` samples at a time, and their gradients together with the value. With few classes, use a linear
/// layer and [`CrossEntropyLoss`].
///
/// Source:
/// [`torch.nn.LinearCrossEntropyLoss`](https://pytorch.org/docs/stable/generated/torch.nn.LinearCrossEntropyLoss.html),
/// without its `out_features`.
///
/// Example: [`examples/linear_cross_entropy.rs`][example], run by `cargo run --example linear_cross_entropy`.
///
/// [example]: https://docs.rs/crate/candle-losses/latest/source/examples/linear_cross_entropy.rs
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::loss::{CrossEntropyLoss, LinearCrossEntropyLoss};
///
/// let input = Tensor::new(&[[1.0, 2.0], [0.5, -1.0], [0.0, 1.0]], &Device::Cpu)?;
/// let weight = Var::new(&[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.5]], &Device::Cpu)?;
/// let target = Tensor::new(&[2u32, 0, 1], &Device::Cpu)?;
/// let value = LinearCrossEntropyLoss::default().forward(&input, &weight, None, &target)?;
/// let logits = input.matmul(&weight.t()?)?;
/// let same = CrossEntropyLoss::default().forward(&logits, &target)?;
/// assert!((value.to_scalar::<f64>()? - same.to_scalar::<f64>()?).abs() < 1e-12);
/// assert_eq!(value.backward()?.get(&weight).unwrap().dims(), [4, 2]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/linear_cross_entropy.svg"))]
#[derive(Debug, Clone)]
pub struct LinearCrossEntropyLoss {
    /// Weight of each class, of shape `(C)` and any float dtype. It gets no gradient. Default: `None`, a weight of 1.
    pub weight: Option<Tensor>,
    /// Class of samples to ignore: their loss and gradient are 0, and the mean leaves them out. It does not have to be
    /// in `0..C`, and has no effect on targets of probabilities. Default: -100.
    pub ignore_index: i64,
    /// Fraction of the target that is spread over all classes, in [0, 1]. Default: 0.
    pub label_smoothing: f64,
    /// Number of samples whose logits are computed at a time; 1 or more. Default: `None`, which is about 4 million
    /// logits on the CPU, and about as many logits as `input` has elements on other devices.
    pub chunk: Option<usize>,
    /// Reduction of the sample losses. Default: the mean. For targets of classes it divides by the sum of the samples'
    /// class weights, and for targets of probabilities by the number of samples.
    pub reduction: Reduction,
}

impl Default for LinearCrossEntropyLoss {
    fn default() -> Self {
        let CrossEntropyLoss { weight, ignore_index, label_smoothing, reduction } = CrossEntropyLoss::default();
        Self { weight, ignore_index, label_smoothing, chunk: None, reduction }
    }
}

const LOSS: &str = "LinearCrossEntropyLoss";

impl LinearCrossEntropyLoss {
    /// Returns the loss of the logits `input · linear_weightᵀ + linear_bias` against `target`, which holds classes in
    /// `0..C` or probabilities.
    ///
    /// - Shapes: `input` is `(N, D)`, `linear_weight` is `(C, D)` and `linear_bias` is `(C)`. Classes are `(N)`, and
    ///   probabilities are `(N, C)`.
    /// - Dtypes: `input`, `linear_weight`, `linear_bias` and probabilities have the same dtype: `f16`, `bf16`, `f32` or
    ///   `f64`. Classes are of any integer dtype: `u8`, `u32`, `i16`, `i32` or `i64`.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it is `(N)`. If all samples are ignored, the
    ///   mean is NaN, as in PyTorch, and its gradient is 0.
    /// - Gradient: by `input`, `linear_weight` and `linear_bias`. Probabilities get no gradient. With
    ///   [`Reduction::None`] backward computes the logits again.
    ///
    /// # Errors
    /// If a class is out of range (checked on the CPU only), if `label_smoothing` is outside [0, 1], if `chunk` is 0,
    /// if the shapes, dtypes or devices do not fit together, or if `weight` does not have the shape `(C)`, is not of a
    /// float dtype, or is on another device.
    pub fn forward(
        &self,
        input: &Tensor,
        linear_weight: &Tensor,
        linear_bias: Option<&Tensor>,
        target: &Tensor,
    ) -> Result<Tensor> {
        let s = self.label_smoothing;
        check_option(LOSS, "label_smoothing", s, (0.0..=1.0).contains(&s), "in [0, 1]")?;
        if self.chunk == Some(0) {
            bail!("{LOSS}: chunk is 0 but must be 1 or more")
        }
        let (&[n, d], &[c, width]) = (input.dims(), linear_weight.dims()) else {
            bail!(
                "{LOSS}: input has shape {:?} and linear_weight {:?}; they need (N, D) and (C, D)",
                input.dims(),
                linear_weight.dims()
            )
        };
        if width != d {
            bail!("{LOSS}: linear_weight has shape {:?} but input of shape {:?} needs (C, {d})", [c, width], [n, d])
        }
        float_dtype(LOSS, "input", input)?;
        same_kind(LOSS, ("linear_weight", linear_weight), ("input", input))?;
        if let Some(bias) = linear_bias {
            same_kind(LOSS, ("linear_bias", bias), ("input", input))?;
            if bias.dims() != [c] {
                bail!("{LOSS}: linear_bias has shape {:?} but linear_weight {:?} needs ({c})", bias.dims(), [c, d])
            }
        }
        let weight = self.weight.as_ref().map(|weight| class_weight(LOSS, weight, input, c)).transpose()?;
        let scale = self.scale(input, target, &weight, [n, c])?;
        let input = &self.drop_ignored(input, target)?;

        // A GPU multiplies half precision as it is. The CPU multiplies it as `f32`.
        let convert =
            |x: &Tensor| if has_kernels(x.device()) || n * c * d == 0 { float(LOSS, "", x) } else { Ok(x.clone()) };
        let (x, w, b) = (convert(input)?, convert(linear_weight)?, linear_bias.map(convert).transpose()?);
        let target = if target.dtype().is_float() { target.detach() } else { target.clone() };
        let criterion = CrossEntropyLoss {
            weight: weight.map(|weight| weight.to_device(x.device())).transpose()?,
            ignore_index: self.ignore_index,
            label_smoothing: s,
            reduction: Reduction::None,
        };
        if keeps_graph_of_gradients() {
            // All logits at once, because the gradients must be differentiable.
            let logits = ops::matmul(&x, &w.t()?)?;
            let logits = if let Some(b) = &b { logits.broadcast_add(b)? } else { logits };
            return CrossEntropyLoss { reduction: self.reduction, ..criterion }.forward(&logits, &target);
        }
        let args = [&x, &w, b.as_ref().unwrap_or(&x)];
        let wanted = [x.track_op(), w.track_op(), b.as_ref().is_some_and(Tensor::track_op)];
        let layer = Layer {
            x: x.detach(),
            w: w.detach(),
            b: b.as_ref().map(Tensor::detach),
            target: target.to_device(x.device())?,
            chunk: self.chunk.unwrap_or_else(|| default_chunk([n, d, c], x.device())).max(1),
            criterion,
        };
        let Some([factor, grad_factor]) = scale else {
            let losses = layer.losses()?;
            let loss = node(args, Value::Tensor(losses), move |args, grad| {
                cast_to_args(layer.gradients(wanted, Some(grad))?.1, args)
            })?;
            return ops::like(&loss, input);
        };
        let (sum, gradients) = layer.gradients(wanted, None)?;
        let loss = node(args, Value::Tensor((sum * &factor)?), move |args, grad| {
            let grad = (grad * &grad_factor)?;
            let mut scaled = gradients.clone();
            for gradient in scaled.iter_mut().flatten() {
                *gradient = ops::times_scalar(&ops::to_compute([&*gradient])?[0], &grad)?;
            }
            cast_to_args(scaled, args)
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
    /// use candle_losses::loss::LinearCrossEntropyLoss;
    ///
    /// let loss = LinearCrossEntropyLoss {
    ///     weight: Some(Tensor::new(&[1f32, 3.0], &Device::Cpu)?),
    ///     ..Default::default()
    /// };
    /// let target = Tensor::new(&[0i64, 1, -100, 1], &Device::Cpu)?; // the third sample is ignored
    /// assert_eq!(loss.denominator(&target)?, 1.0 + 3.0 + 3.0);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// If classes are not `(N)` or probabilities not `(N, C)`; if a class is negative or, with a `weight`, not less than its
    /// length; or if `weight` is not of shape `(C)` or not of a float dtype.
    pub fn denominator(&self, target: &Tensor) -> Result<f64> {
        if target.rank() != if target.dtype().is_float() { 2 } else { 1 } {
            bail!("{LOSS}: target has shape {:?} but needs (N) for classes or (N, C) for probabilities", target.dims())
        }
        denominator(LOSS, target, self.weight.as_ref(), self.ignore_index, true)
    }

    /// Returns `input` with 0 in the rows that are ignored. The gradient of their logits is 0, but 0 times NaN is NaN.
    fn drop_ignored(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        if target.dtype().is_float() || target.elem_count() == 0 || input.elem_count() == 0 {
            return Ok(input.clone());
        }
        let is_ignored = class_indices(LOSS, "target", target)?.eq(self.ignore_index)?;
        if reads_values(target.device()) && is_ignored.max_all()?.to_scalar::<u8>()? == 0 {
            return Ok(input.clone());
        }
        ops::masked_fill(input, &is_ignored.unsqueeze(1)?, 0.0)
    }

    /// Checks the target. Returns the factors of the sum of the losses and of its gradients, or `None` without a
    /// reduction.
    fn scale(
        &self,
        input: &Tensor,
        target: &Tensor,
        weight: &Option<Tensor>,
        [n, c]: [usize; 2],
    ) -> Result<Option<[Tensor; 2]>> {
        let dtype = ops::compute_dtype(input.dtype());
        let scalar = |factor: f64| -> Result<[Tensor; 2]> {
            let device = if n * c == 0 { &Device::Cpu } else { input.device() };
            let factor = Tensor::new(factor, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
            Ok([factor.clone(), factor])
        };
        if target.dtype().is_float() {
            same_kind(LOSS, ("target", target), ("input", input))?;
            if target.dims() != [n, c] {
                bail!(
                    "{LOSS}: target has dtype {:?}, so it is taken for probabilities and needs shape {:?}, not {:?}; \
                     classes need an integer dtype",
                    target.dtype(),
                    [n, c],
                    target.dims()
                )
            }
            return self.reduction.factor(&[n]).map(scalar).transpose();
        }
        let targets =
            ClassTargets::of_shape(LOSS, input, (&[n, c], 1), target, weight.clone(), Some(self.ignore_index))?;
        let Some(classes) = targets.for_kernel()? else {
            let classes = targets.for_gather(dtype)?;
            return match (targets.scale(self.reduction, &classes)?, &classes.is_ignored) {
                (Scale::None, _) => Ok(None),
                (Scale::Number(factor), _) => scalar(factor).map(Some),
                // If all samples are ignored, the mean is NaN and its gradient is 0.
                (Scale::Tensor(factor), Some(is_ignored)) => {
                    let is_empty = ops::cast(&is_ignored.eq(0u8)?, DType::F32)?.sum_all()?.eq(0f64)?;
                    Ok(Some([factor.clone(), ops::masked_fill(&factor, &is_empty, 0.0)?]))
                }
                (Scale::Tensor(factor), None) => Ok(Some([factor.clone(), factor])),
            };
        };
        let factor = targets.factor(self.reduction, &classes).map(scalar).transpose()?;
        let is_empty = self.reduction == Reduction::Mean && classes.are_all_ignored();
        factor.map(|[value, grad]| Ok([value, if is_empty { grad.zeros_like()? } else { grad }])).transpose()
    }
}

/// Converts each gradient to the dtype of its argument.
fn cast_to_args(mut gradients: [Option<Tensor>; 3], args: [&Tensor; 3]) -> Result<[Option<Tensor>; 3]> {
    for (gradient, arg) in gradients.iter_mut().zip(args) {
        if let Some(gradient) = gradient {
            *gradient = gradient.to_dtype(arg.dtype())?;
        }
    }
    Ok(gradients)
}

/// Returns the default number of samples whose logits are computed at a time.
fn default_chunk([n, d, c]: [usize; 3], device: &Device) -> usize {
    if has_kernels(device) {
        // About 4 million logits.
        return (1 << 22) / c.max(1);
    }
    // The logits of a chunk are about as large as the input.
    n.div_ceil(c.div_ceil(d.max(1)).max(1)).next_power_of_two()
}

/// The linear layer and the target, computed in chunks of samples.
struct Layer {
    x: Tensor,
    w: Tensor,
    b: Option<Tensor>,
    target: Tensor,
    chunk: usize,
    criterion: CrossEntropyLoss,
}

impl Layer {
    /// Returns the losses of the samples, (N).
    fn losses(&self) -> Result<Tensor> {
        let losses = self.chunk_starts().map(|start| {
            let (_, logits, target) = self.chunk(start)?;
            self.criterion.forward(&ops::to_compute([&logits])?[0], &self.to_compute(&target)?)
        });
        cat_or_empty(losses.collect::<Result<Vec<_>>>()?, &[0], &ops::to_compute([&self.x])?[0])
    }

    /// Returns the sum of the losses, and its `wanted` gradients by input, weight and bias. If there is a `loss_grad`,
    /// each loss is multiplied by its element before the gradients are taken.
    fn gradients(&self, wanted: [bool; 3], loss_grad: Option<&Tensor>) -> Result<(Tensor, [Option<Tensor>; 3])> {
        let (d, c) = (self.x.dim(1)?, self.w.dim(0)?);
        let [wants_x, wants_w, wants_b] = wanted;
        let (mut sums, mut by_x) = (Vec::new(), Vec::new());
        let (mut by_w, mut by_b) = (ProductSum::new(c, d, &self.w), ProductSum::new(1, c, &self.w));
        for start in self.chunk_starts() {
            let (x, logits, target) = self.chunk(start)?;
            if !wants_x && !wants_w && !wants_b {
                let logits = &ops::to_compute([&logits])?[0];
                sums.push(ops::sum_all(&self.criterion.forward(logits, &self.to_compute(&target)?)?)?);
                continue;
            }
            let len = target.dim(0)?;
            let loss_grad = loss_grad.map(|grad| grad.narrow(0, start, len)).transpose()?;
            let (sum, grad) = self.criterion.sum_and_grad(&logits, &target, loss_grad.as_ref())?;
            drop(logits);
            sums.push(sum);
            if wants_b {
                by_b.add(&Tensor::ones((len, 1), grad.dtype(), grad.device())?, &grad)?;
            }
            let grad = grad.to_dtype(self.x.dtype())?;
            if wants_x {
                by_x.push(product(&grad, &self.w, None)?);
            }
            if wants_w {
                by_w.add(&grad, &x)?;
            }
        }
        let zeros = |of: &Tensor| of.zeros_like();
        let by_x = if wants_x { Some(cat_or_empty(by_x, &[0, d], &self.x)?) } else { None };
        let by_w = if wants_w { Some(by_w.finish(&self.w)?.map_or_else(|| zeros(&self.w), Ok)?) } else { None };
        let by_b = match &self.b {
            Some(b) if wants_b => Some(by_b.finish(&self.w)?.map_or_else(|| zeros(b), |sum| sum.squeeze(0))?),
            _ => None,
        };
        let sums = sums.iter().map(|sum| sum.reshape(1)).collect::<Result<Vec<_>>>()?;
        Ok((ops::sum_all(&cat_or_empty(sums, &[0], &ops::to_compute([&self.x])?[0])?)?, [by_x, by_w, by_b]))
    }

    /// Converts probabilities to the compute dtype, and returns classes unchanged.
    fn to_compute(&self, target: &Tensor) -> Result<Tensor> {
        if target.dtype().is_float() { float(LOSS, "target", target) } else { Ok(target.clone()) }
    }

    /// Returns the index of the first sample of each chunk.
    fn chunk_starts(&self) -> impl Iterator<Item = usize> {
        (0..self.x.dims()[0]).step_by(self.chunk)
    }

    /// Returns the input, logits and target of the chunk that begins at `start`.
    fn chunk(&self, start: usize) -> Result<(Tensor, Tensor, Tensor)> {
        let len = self.chunk.min(self.x.dim(0)? - start);
        let x = self.x.narrow(0, start, len)?;
        let logits = product(&x, &self.w.t()?, self.b.as_ref())?;
        Ok((x, logits, self.target.narrow(0, start, len)?))
    }
}

/// Concatenates the parts. Without parts, returns a tensor of shape `empty`, with the dtype and device of `like`.
fn cat_or_empty(parts: Vec<Tensor>, empty: &[usize], like: &Tensor) -> Result<Tensor> {
    if parts.is_empty() { Tensor::zeros(empty, like.dtype(), like.device()) } else { Tensor::cat(&parts, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn equals_cross_entropy_of_a_linear_layer() -> Result<()> {
        let (x, w) = (
            vector(&[1.0, 2.0, 0.5, -1.0, 0.0, 1.0]).reshape((3, 2))?,
            vector(&[1., 0., 0., 1., 1., 1.]).reshape((3, 2))?,
        );
        let (b, y) = (vector(&[0.5, 0.0, -0.5]), Tensor::new(&[2u32, 0, 1], &device())?);
        let expected = CrossEntropyLoss::default().forward(&x.matmul(&w.t()?)?.broadcast_add(&b)?, &y)?;
        for chunk in [None, Some(1), Some(2), Some(99)] {
            let loss = LinearCrossEntropyLoss { chunk, ..Default::default() };
            assert_values(loss.forward(&x, &w, Some(&b), &y), &[expected.to_scalar::<f64>()?])?;
        }
        Ok(())
    }

    #[test]
    fn denominators_need_targets_that_forward_takes() -> Result<()> {
        let loss = LinearCrossEntropyLoss::default();
        assert_eq!(loss.denominator(&Tensor::new(&[1i64, -100, 0], &Device::Cpu)?)?, 2.0);
        assert_eq!(loss.denominator(&Tensor::ones((3, 4), DType::F32, &Device::Cpu)?)?, 3.0);
        for (shape, dtype) in [(vec![3, 4], DType::I64), (vec![3, 4, 5], DType::F32), (vec![3], DType::F32)] {
            let error =
                loss.denominator(&Tensor::ones(shape.as_slice(), dtype, &Device::Cpu)?).unwrap_err().to_string();
            assert!(error.contains(&format!("{shape:?}")) && error.contains("(N, C)"), "{error}");
        }
        Ok(())
    }

    #[test]
    fn rejects_invalid_arguments() -> Result<()> {
        let (x, w, y) = (
            vector(&[0.0; 6]).reshape((3, 2))?,
            vector(&[0.0; 8]).reshape((4, 2))?,
            Tensor::new(&[0u32, 1, 3], &device())?,
        );
        let loss = LinearCrossEntropyLoss::default();
        refuses(loss.forward(&x, &w.t()?, None, &y), &[LOSS, "linear_weight", "[2, 4]", "(C, 2)"]);
        refuses(loss.forward(&x.flatten_all()?, &w, None, &y), &[LOSS, "input", "[6]", "(N, D)"]);
        refuses(loss.forward(&x, &w, Some(&vector(&[0.0; 3])), &y), &[LOSS, "linear_bias", "[3]", "(4)"]);
        refuses(
            loss.forward(&x, &w.to_dtype(candle_core::DType::F32)?, None, &y),
            &[LOSS, "linear_weight", "F32", "F64"],
        );
        refuses(loss.forward(&x, &w, None, &Tensor::new(&[0u32, 1], &device())?), &["target", "[2]", "[3]"]);
        let none = LinearCrossEntropyLoss { chunk: Some(0), ..Default::default() };
        refuses(none.forward(&x, &w, None, &y), &[LOSS, "chunk is 0"]);
        let smooth = LinearCrossEntropyLoss { label_smoothing: 1.5, ..Default::default() };
        refuses(smooth.forward(&x, &w, None, &y), &[LOSS, "label_smoothing is 1.5"]);
        if device().is_cpu() {
            refuses(
                loss.forward(&x, &w, None, &Tensor::new(&[0u32, 1, 4], &device())?),
                &["target", "class 4", "4 classes"],
            );
        }
        Ok(())
    }
}
