use super::{Classes, CrossEntropyLoss, Reduction, check_option, float, same_device, same_kind};
use crate::kernel::product::{ProductSum, product};
use crate::kernel::{keep, ops};
use candle_core::{Device, Result, Tensor, bail};

/// Cross-entropy on the outputs of a linear layer, which are never all there at once:
///
/// ```text
/// l = cross_entropy(x·Wᵀ + b, y)
/// ```
///
/// For a last layer with very many classes, as a language model's: with 2048 tokens and 32,000 words the logits alone
/// take 262 MB, their gradient as much again, and this takes neither. It works on `chunk` samples at a time, and makes the
/// gradients along with the value. With few classes a linear layer and [`CrossEntropyLoss`] do the same.
///
/// Source: [`torch.nn.LinearCrossEntropyLoss`](https://pytorch.org/docs/stable/generated/torch.nn.LinearCrossEntropyLoss.html)
/// without its `out_features`.
///
/// Example: [`examples/linear_cross_entropy.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/linear_cross_entropy.rs),
/// run by `cargo run --example linear_cross_entropy`.
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
    /// A weight for each class, `(C)`; `None` weighs all as 1. It has no gradient. Default `None`.
    pub weight: Option<Tensor>,
    /// A target that costs nothing and does not count in the mean. Default -100.
    pub ignore_index: i64,
    /// The share of the target that is spread evenly over all classes, in [0, 1]. Default 0.
    pub label_smoothing: f64,
    /// How many samples are worked on at a time; `None` takes as many as make some 4 million logits. Default `None`.
    pub chunk: Option<usize>,
    /// How the samples' losses are reduced. Default: the mean, over the class weights of the targets.
    pub reduction: Reduction,
}

impl Default for LinearCrossEntropyLoss {
    fn default() -> Self {
        let CrossEntropyLoss { weight, ignore_index, label_smoothing, reduction } = CrossEntropyLoss::default();
        Self { weight, ignore_index, label_smoothing, chunk: None, reduction }
    }
}

const LOSS: &str = "LinearCrossEntropyLoss";

/// Logits at a time, where the caller does not say how many samples.
const AT_ONCE: usize = 1 << 22;

impl LinearCrossEntropyLoss {
    /// The loss of the linear layer's outputs on `input` against `target`.
    ///
    /// Shapes: `input` is `(N, D)`, `linear_weight` `(C, D)`, `linear_bias` `(C)`; `target` is `(N)` classes or `(N, C)`
    /// probabilities. Dtypes: `input`, weight, bias and probabilities are `f16`, `bf16`, `f32` or `f64`, all the same;
    /// classes are of any integer dtype. The result has input's dtype and is a scalar, or, with [`Reduction::None`], `(N)`.
    ///
    /// A gradient by probabilities is not given. With [`Reduction::None`] backward computes the logits once more.
    ///
    /// # Errors
    /// Those of [`CrossEntropyLoss`]; if the shapes don't fit, or `chunk` is 0.
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
        same_kind(LOSS, ("linear_weight", linear_weight), ("input", input))?;
        if let Some(bias) = linear_bias {
            same_kind(LOSS, ("linear_bias", bias), ("input", input))?;
            if bias.dims() != [c] {
                bail!("{LOSS}: linear_bias has shape {:?} but linear_weight {:?} needs ({c})", bias.dims(), [c, d])
            }
        }
        same_device(LOSS, ("target", target), ("input", input))?;

        let x = float(LOSS, "input", input)?;
        let w = float(LOSS, "linear_weight", linear_weight)?.to_device(x.device())?;
        let b = linear_bias.map(|bias| float(LOSS, "linear_bias", bias)?.to_device(x.device())).transpose()?;
        let variables = [Some(&x), Some(&w), b.as_ref()];
        let wanted = variables.map(|variable| variable.is_some_and(Tensor::track_op));
        let layer = Layer {
            x: x.detach(),
            w: w.detach(),
            b: b.as_ref().map(Tensor::detach),
            target: if target.dtype().is_float() {
                same_kind(LOSS, ("target", target), ("input", input))?;
                float(LOSS, "target", &target.detach())?.to_device(x.device())?
            } else {
                target.to_device(x.device())?
            },
            chunk: self.chunk.unwrap_or(AT_ONCE / c.max(1)).max(1),
            criterion: CrossEntropyLoss {
                weight: self.weight.as_ref().map(|weight| weight.to_device(x.device())).transpose()?,
                ignore_index: self.ignore_index,
                label_smoothing: s,
                reduction: Reduction::None,
            },
        };
        let args = [&x, &w, b.as_ref().unwrap_or(&x)];
        let loss = match self.factor(&layer, c)? {
            None => {
                let losses = layer.losses()?;
                ops::with_gradients(args, &losses, move |grad| Ok(layer.gradients(wanted, Some(grad))?.1))?
            }
            Some(factor) => {
                let (sum, mut gradients) = layer.gradients(wanted, None)?;
                for gradient in gradients.iter_mut().flatten() {
                    *gradient = gradient.broadcast_mul(&factor)?;
                }
                let value = sum.broadcast_mul(&factor)?;
                let scaled = move |gradient: &Option<Tensor>, grad: &Tensor| {
                    gradient.as_ref().map(|gradient| ops::scaled(gradient, grad)).transpose()
                };
                ops::with_gradients(args, &value, move |grad| {
                    let [x, w, b] = &gradients;
                    Ok([scaled(x, grad)?, scaled(w, grad)?, scaled(b, grad)?])
                })?
            }
        };
        loss.to_dtype(input.dtype())?.to_device(input.device())
    }

    /// What the sum of the samples' losses is multiplied by; `None` where they are not reduced.
    fn factor(&self, layer: &Layer, classes: usize) -> Result<Option<Tensor>> {
        let (n, d) = layer.x.dims2()?;
        let of_one =
            |factor: f64| Tensor::new(factor, &Device::Cpu)?.to_dtype(layer.x.dtype())?.to_device(layer.x.device());
        if self.reduction == Reduction::Mean && !layer.target.dtype().is_float() {
            // Logits of the right shape, which nobody looks into, to check the target as a whole and sum its weights.
            let column = if d > 0 {
                layer.x.narrow(1, 0, 1)?
            } else {
                Tensor::zeros((n, 1), layer.x.dtype(), layer.x.device())?
            };
            let logits = column.broadcast_as((n, classes))?;
            let weight = layer.criterion.weight.as_ref();
            let target = Classes::new(LOSS, &logits, &layer.target, weight, Some(self.ignore_index))?;
            return match target.read()? {
                Some(counted) => of_one(1.0 / counted.total()).map(Some),
                None => target.gathered()?.total(layer.x.dtype())?.recip().map(Some),
            };
        }
        self.reduction.factor(&[n]).map(of_one).transpose()
    }
}

/// The layer and what its outputs are compared with, a chunk of samples at a time.
struct Layer {
    x: Tensor,
    w: Tensor,
    b: Option<Tensor>,
    target: Tensor,
    chunk: usize,
    criterion: CrossEntropyLoss,
}

impl Layer {
    /// The samples' losses, (N).
    fn losses(&self) -> Result<Tensor> {
        let losses = self.starts().map(|start| {
            let (_, logits, target) = self.chunk(start)?;
            self.criterion.forward(&logits, &target)
        });
        joined(losses.collect::<Result<Vec<_>>>()?, &[0], &self.x)
    }

    /// The sum of the losses and those gradients by input, weight and bias that are `wanted`, of the sum, or of the losses
    /// each times `grad`.
    fn gradients(&self, wanted: [bool; 3], grad: Option<&Tensor>) -> Result<(Tensor, [Option<Tensor>; 3])> {
        let (d, c) = (self.x.dim(1)?, self.w.dim(0)?);
        let [of_x, of_w, of_b] = wanted;
        let (mut sums, mut by_x) = (Vec::new(), Vec::new());
        let (mut by_w, mut by_b) = (ProductSum::new(c, d, &self.w)?, ProductSum::new(1, c, &self.w)?);
        for start in self.starts() {
            let (x, logits, target) = self.chunk(start)?;
            if !of_x && !of_w && !of_b {
                sums.push(self.criterion.forward(&logits, &target)?.sum_all()?);
                continue;
            }
            let len = target.dim(0)?;
            let grad = grad.map(|grad| grad.narrow(0, start, len)).transpose()?;
            let (sum, slopes) = self.criterion.sum_and_slopes(&logits, &target, grad.as_ref())?;
            drop(logits);
            sums.push(sum);
            if of_x {
                by_x.push(product(&slopes, &self.w, None)?);
            }
            if of_b {
                by_b.add(&Tensor::ones((len, 1), slopes.dtype(), slopes.device())?, &slopes)?;
            }
            if of_w {
                by_w.add(&slopes, &x)?;
            }
            keep(slopes);
        }
        let by_x = if of_x { Some(joined(by_x, &[0, d], &self.x)?) } else { None };
        let by_w = if of_w { Some(by_w.finish(&self.w)?) } else { None };
        let by_b = if of_b { Some(by_b.finish(&self.w)?.squeeze(0)?) } else { None };
        let sums = sums.iter().map(|sum| sum.reshape(1)).collect::<Result<Vec<_>>>()?;
        Ok((ops::sum_all(&joined(sums, &[0], &self.x)?)?, [by_x, by_w, by_b]))
    }

    /// Where the chunks begin.
    fn starts(&self) -> impl Iterator<Item = usize> {
        (0..self.x.dims()[0]).step_by(self.chunk)
    }

    /// Input, logits and target of the chunk from `start` on.
    fn chunk(&self, start: usize) -> Result<(Tensor, Tensor, Tensor)> {
        let len = self.chunk.min(self.x.dim(0)? - start);
        let x = self.x.narrow(0, start, len)?;
        let logits = product(&x, &self.w.t()?, self.b.as_ref())?;
        Ok((x, logits, self.target.narrow(0, start, len)?))
    }
}

/// The parts one after the other; where there are none, a tensor of this shape and otherwise like `like`.
fn joined(parts: Vec<Tensor>, empty: &[usize], like: &Tensor) -> Result<Tensor> {
    if parts.is_empty() { Tensor::zeros(empty, like.dtype(), like.device()) } else { Tensor::cat(&parts, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn as_a_linear_layer_under_cross_entropy() -> Result<()> {
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
    fn refuses_what_does_not_fit() -> Result<()> {
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
