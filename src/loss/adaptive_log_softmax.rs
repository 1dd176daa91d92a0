use super::validate::{float, read_indices, same_device, same_kind};
use super::{CrossEntropyLoss, Reduction, log_softmax};
use crate::kernel::ops;
use candle_core::{D, DType, Result, Tensor, bail};

/// Approximate softmax over very many classes of unequal frequency, and its negative log-likelihood:
///
/// ```text
/// h = log softmax(H·x + b)                     over the frequent classes and the clusters
/// log p(c) = h_c                               for a frequent class c, c < cutoffs[0]
///            h_i + log softmax(O_i·P_i·x)_c    for a class c of cluster i
/// l = -mean log p(y)
/// ```
///
/// Use it for a very large vocabulary or catalog. The head `H` scores the frequent classes and the clusters, which are
/// groups of rare classes. A cluster has a projection `P_i` to fewer dimensions and the weights `O_i` of its classes.
/// Only samples whose class is in a cluster compute its scores. Classes must be numbered by frequency, and the most
/// frequent class is 0. For a few thousand classes, use [`CrossEntropyLoss`](super::CrossEntropyLoss) or
/// [`LinearCrossEntropyLoss`](super::LinearCrossEntropyLoss), which are exact and fast enough.
///
/// The caller creates the weights, in PyTorch's shapes. In PyTorch the width of projection `i` is `D / 4^(i + 1)`.
///
/// Source: Grave et al., [Efficient softmax approximation for GPUs](https://arxiv.org/abs/1609.04309), 2017;
/// [`torch.nn.AdaptiveLogSoftmaxWithLoss`][pytorch].
///
/// Example: [`examples/adaptive_log_softmax.rs`][example], run by `cargo run --example adaptive_log_softmax`.
///
/// [pytorch]: https://pytorch.org/docs/stable/generated/torch.nn.AdaptiveLogSoftmaxWithLoss.html
/// [example]: https://docs.rs/crate/candle-losses/latest/source/examples/adaptive_log_softmax.rs
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_losses::loss::AdaptiveLogSoftmaxWithLoss;
///
/// let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F64, &Device::Cpu);
/// let loss = AdaptiveLogSoftmaxWithLoss {
///     cutoffs: vec![2], // classes 0 and 1 are frequent, and classes 2 to 4 are a cluster
///     head: zeros((3, 4))?,
///     head_bias: None,
///     tails: vec![(zeros((1, 4))?, zeros((3, 1))?)],
/// };
/// let (output, loss) = loss.forward(&zeros((2, 4))?, &Tensor::new(&[0u32, 4], &Device::Cpu)?)?;
/// let output = output.to_vec1::<f64>()?; // probabilities: 1/3 for class 0, and 1/3 · 1/3 for class 4
/// assert!((output[0] + 3f64.ln()).abs() < 1e-12 && (output[1] + 9f64.ln()).abs() < 1e-12);
/// assert!((loss.to_scalar::<f64>()? - 27f64.ln() / 2.0).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/adaptive_log_softmax.svg"))]
#[derive(Debug, Clone)]
pub struct AdaptiveLogSoftmaxWithLoss {
    /// First class of each cluster: one or more, 1 or above, ascending. The classes below `cutoffs[0]` are the frequent
    /// classes. The number of classes in the last cluster follows from its weights in `tails`.
    pub cutoffs: Vec<usize>,
    /// Weight of the head, `(cutoffs[0] + clusters, D)`.
    pub head: Tensor,
    /// Bias of the head, `(cutoffs[0] + clusters)`. PyTorch's default is no bias.
    pub head_bias: Option<Tensor>,
    /// Weights of each cluster: the projection, `(width, D)`, and the classes, `(classes, width)`.
    pub tails: Vec<(Tensor, Tensor)>,
}

const LOSS: &str = "AdaptiveLogSoftmaxWithLoss";

impl AdaptiveLogSoftmaxWithLoss {
    /// Returns the log-probability of the class of each sample, and the loss: the negative mean of these
    /// log-probabilities.
    ///
    /// - Shapes: `input` is `(N, D)` and `target` `(N)`. Without a batch, `input` is `(D)` and `target` a scalar.
    /// - Dtypes: `input` and all weights have the same dtype: `f16`, `bf16`, `f32` or `f64`. `target` is of any integer
    ///   dtype: `u8`, `u32`, `i16`, `i32` or `i64`.
    /// - Result: both tensors have the input's dtype. The first has the shape of `target`, and the second is a scalar:
    ///   NaN if there are no samples, as in PyTorch.
    ///
    /// The host reads the classes, also from a GPU, as in PyTorch.
    ///
    /// # Errors
    /// If a class is out of range, if `cutoffs` is empty, not ascending or below 1, if the shapes, dtypes or devices of
    /// the weights, `input` and `target` do not fit together, or if the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<(Tensor, Tensor)> {
        let classes = self.check(input)?;
        same_device(LOSS, ("target", target), ("input", input))?;
        let batch = &input.dims()[..input.rank() - 1];
        if target.dims() != batch {
            bail!("{LOSS}: target has shape {:?} but input of shape {:?} needs {batch:?}", target.dims(), input.dims())
        }
        let target = read_indices(LOSS, "target", target)?;
        if let Some(class) = target.iter().find(|&&class| !(0..classes as i64).contains(&class)) {
            bail!("{LOSS}: target holds class {class} but there are {classes} classes, numbered from 0")
        }
        let x = rows(&float(LOSS, "input", input)?)?;
        let head = self.head_scores(&x)?;

        // In the head, a sample's target is its class or the cluster of its class.
        let first = self.cutoffs[0];
        let cluster = |class: usize| self.cutoffs.iter().rposition(|&cutoff| class >= cutoff);
        let places = target.iter().map(|&class| class as usize);
        let in_head = places.clone().map(|class| cluster(class).map_or(class, |i| first + i) as u32).collect();
        let mut output = log_p_at(&head, in_head)?;
        for (i, tail) in self.tails.iter().enumerate() {
            let mine = places.clone().enumerate().filter(|&(_, class)| cluster(class) == Some(i));
            let (samples, own): (Vec<_>, Vec<_>) =
                mine.map(|(sample, class)| (sample as u32, (class - self.cutoffs[i]) as u32)).unzip();
            if samples.is_empty() {
                continue;
            }
            let samples = Tensor::from_vec(samples, own.len(), x.device())?;
            let log_p = log_p_at(&tail_scores(tail, &x.contiguous()?.index_select(&samples, 0)?)?, own)?;
            // In two dimensions, because `index_add` in one dimension uses one thread of a GPU.
            output = output.unsqueeze(1)?.index_add(&samples, &log_p.unsqueeze(1)?, 0)?.squeeze(1)?;
        }
        let loss = ops::sum_all(&output)?.affine(-1.0 / target.len() as f64, 0.0)?;
        Ok((ops::like(&output.reshape(batch)?, input)?, ops::like(&loss, input)?))
    }

    /// Returns the log-probabilities of all classes: `(N, classes)` for an input `(N, D)`, and `(classes)` for `(D)`.
    ///
    /// # Errors
    /// If the weights and `input` do not fit together, as in [`forward`](Self::forward).
    pub fn log_prob(&self, input: &Tensor) -> Result<Tensor> {
        self.check(input)?;
        let log_p = self.all_log_p(&rows(&float(LOSS, "input", input)?)?)?.to_dtype(input.dtype())?;
        if input.rank() == 1 { log_p.squeeze(0) } else { Ok(log_p) }
    }

    /// Returns the log-probabilities of all classes, (N, classes), in the compute dtype.
    fn all_log_p(&self, x: &Tensor) -> Result<Tensor> {
        let head = self.head_log_p(x)?;
        let mut parts = vec![head.narrow(1, 0, self.cutoffs[0])?];
        for (i, tail) in self.tails.iter().enumerate() {
            parts.push(tail_log_p(tail, x)?.broadcast_add(&head.narrow(1, self.cutoffs[0] + i, 1)?)?);
        }
        Tensor::cat(&parts, 1)
    }

    /// Returns the most probable class of each sample as `u32`: `(N)` for an input `(N, D)`, and a scalar for `(D)`.
    ///
    /// Only samples for which the head prefers a cluster compute the scores of the clusters.
    ///
    /// # Errors
    /// If the weights and `input` do not fit together, as in [`forward`](Self::forward).
    pub fn predict(&self, input: &Tensor) -> Result<Tensor> {
        self.check(input)?;
        let x = rows(&float(LOSS, "input", input)?)?;
        if x.dim(0)? == 0 {
            return Tensor::zeros(0, DType::U32, input.device());
        }
        let mut classes = self.head_log_p(&x)?.argmax(1)?.to_vec1::<u32>()?;
        let is_cluster = |(_, class): &(usize, &u32)| **class as usize >= self.cutoffs[0];
        let samples = classes.iter().enumerate().filter(is_cluster).map(|(i, _)| i as u32).collect::<Vec<_>>();
        if !samples.is_empty() {
            let index = Tensor::from_slice(&samples, samples.len(), x.device())?;
            let inputs = x.contiguous()?.index_select(&index, 0)?;
            let found = self.all_log_p(&inputs)?.argmax(1)?.to_vec1::<u32>()?;
            samples.iter().zip(found).for_each(|(&sample, class)| classes[sample as usize] = class);
        }
        let shape = &input.dims()[..input.rank() - 1];
        Tensor::from_vec(classes, shape, input.device())
    }

    fn head_log_p(&self, x: &Tensor) -> Result<Tensor> {
        log_softmax(&self.head_scores(x)?, D::Minus1)
    }

    fn head_scores(&self, x: &Tensor) -> Result<Tensor> {
        let scores = ops::matmul(x, &float(LOSS, "head", &self.head)?.t()?)?;
        match &self.head_bias {
            Some(bias) => scores.broadcast_add(&float(LOSS, "head_bias", bias)?),
            None => Ok(scores),
        }
    }

    /// Checks that the weights and `input` fit together, and returns the number of classes.
    fn check(&self, input: &Tensor) -> Result<usize> {
        let Self { cutoffs, head, head_bias, tails } = self;
        let d = match input.dims() {
            &[d] | &[_, d] => d,
            dims => bail!("{LOSS}: input has shape {dims:?} but needs (N, D) or (D)"),
        };
        if cutoffs.first().is_none_or(|&first| first == 0) || !cutoffs.is_sorted_by(|a, b| a < b) {
            bail!("{LOSS}: cutoffs are {cutoffs:?} but must be one or more, rising, from 1")
        }
        if tails.len() != cutoffs.len() {
            bail!("{LOSS}: there are {} tails but {} cutoffs; each begins a cluster", tails.len(), cutoffs.len())
        }
        let size = cutoffs[0] + tails.len();
        let mut weights = vec![("head", head, vec![size, d])];
        if let Some(bias) = head_bias {
            weights.push(("head_bias", bias, vec![size]));
        }
        for (i, (projection, classes)) in tails.iter().enumerate() {
            let width = projection.dims().first().copied().unwrap_or(0);
            weights.push(("a tail's projection", projection, vec![width, d]));
            let count = match cutoffs.get(i + 1) {
                Some(next) => next - cutoffs[i],
                None => classes.dims().first().copied().unwrap_or(0),
            };
            weights.push(("a tail's classes", classes, vec![count, width]));
        }
        for (name, weight, shape) in weights {
            same_kind(LOSS, (name, weight), ("input", input))?;
            if weight.dims() != shape {
                bail!("{LOSS}: {name} has shape {:?} but needs {shape:?}", weight.dims())
            }
        }
        let last = tails.last().map_or(0, |(_, classes)| classes.dims()[0]);
        Ok(cutoffs[cutoffs.len() - 1] + last)
    }
}

/// Adds a batch dimension to (D), and returns (N, D) unchanged.
fn rows(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 1 { x.unsqueeze(0) } else { Ok(x.clone()) }
}

/// Returns the log-probability at one index of each row of scores.
fn log_p_at(scores: &Tensor, places: Vec<u32>) -> Result<Tensor> {
    let places = Tensor::from_vec(places, scores.dim(0)?, scores.device())?;
    CrossEntropyLoss { reduction: Reduction::None, ..Default::default() }.forward(scores, &places)?.neg()
}

fn tail_log_p(tail: &(Tensor, Tensor), x: &Tensor) -> Result<Tensor> {
    log_softmax(&tail_scores(tail, x)?, D::Minus1)
}

fn tail_scores((projection, classes): &(Tensor, Tensor), x: &Tensor) -> Result<Tensor> {
    // In PyTorch an input with few dimensions gets a projection of width 0: all classes are equally probable.
    if projection.dim(0)? == 0 {
        return Tensor::zeros((x.dim(0)?, classes.dim(0)?), x.dtype(), x.device());
    }
    let projected = ops::matmul(x, &float(LOSS, "a tail's projection", projection)?.t()?)?;
    ops::matmul(&projected, &float(LOSS, "a tail's classes", classes)?.t()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    /// Two frequent classes, a cluster of two classes and a cluster of three, with arbitrary weights.
    fn loss() -> AdaptiveLogSoftmaxWithLoss {
        let some = |rows: usize, columns: usize, by: usize| {
            let values = (0..rows * columns).map(|i| ((i * 37 + by) % 17) as f64 / 8.0 - 1.0).collect::<Vec<_>>();
            vector(&values).reshape((rows, columns)).unwrap()
        };
        AdaptiveLogSoftmaxWithLoss {
            cutoffs: vec![2, 4],
            head: some(4, 4, 1),
            head_bias: Some(vector(&[0.1, -0.2, 0.3, 0.0])),
            tails: vec![(some(2, 4, 2), some(2, 2, 3)), (some(1, 4, 4), some(3, 1, 5))],
        }
    }

    #[test]
    fn loss_matches_probabilities_that_sum_to_1() -> Result<()> {
        let x = vector(&[0.5, -1.0, 2.0, 0.0, 1.0, 1.0, -1.0, 0.5, 3.0, 0.0, -2.0, 1.0]).reshape((3, 4))?;
        let log_p = loss().log_prob(&x)?;
        assert_values(log_p.exp()?.sum(1), &[1.0; 3])?;
        let target = Tensor::new(&[1i64, 6, 2], &device())?;
        let (output, mean) = loss().forward(&x, &target)?;
        let log_p_at = |(row, class): (usize, usize)| log_p.get(row)?.get(class)?.to_scalar::<f64>();
        let expected = [1, 6, 2].into_iter().enumerate().map(log_p_at).collect::<Result<Vec<_>>>()?;
        assert_values(Ok(output), &expected)?;
        assert_values(Ok(mean), &[-expected.iter().sum::<f64>() / 3.0])?;
        assert_eq!(loss().predict(&x)?.to_vec1::<u32>()?, log_p.argmax(1)?.to_vec1::<u32>()?);
        let (one, _) = loss().forward(&x.get(1)?, &Tensor::new(6u32, &device())?)?;
        assert_values(Ok(one), &expected[1..2])?;
        assert_eq!(loss().log_prob(&x.get(0)?)?.dims(), [7]);
        Ok(())
    }

    #[test]
    fn rejects_invalid_arguments() -> Result<()> {
        let (x, y) = (vector(&[0.0; 8]).reshape((2, 4))?, Tensor::new(&[0u32, 1], &device())?);
        let refused = |loss: AdaptiveLogSoftmaxWithLoss, parts: &[&str]| {
            refuses(loss.forward(&x, &y).map(|(_, loss)| loss), parts)
        };
        refused(AdaptiveLogSoftmaxWithLoss { cutoffs: vec![0, 4], ..loss() }, &[LOSS, "cutoffs", "[0, 4]"]);
        refused(AdaptiveLogSoftmaxWithLoss { cutoffs: vec![4, 2], ..loss() }, &[LOSS, "cutoffs", "[4, 2]"]);
        refused(AdaptiveLogSoftmaxWithLoss { cutoffs: vec![2], ..loss() }, &[LOSS, "2 tails", "1 cutoffs"]);
        refused(AdaptiveLogSoftmaxWithLoss { head: x.clone(), ..loss() }, &[LOSS, "head", "[2, 4]", "[4, 4]"]);
        refused(
            AdaptiveLogSoftmaxWithLoss { cutoffs: vec![2, 5], ..loss() },
            &[LOSS, "a tail's classes", "[2, 2]", "[3, 2]"],
        );
        refused(
            AdaptiveLogSoftmaxWithLoss { head: loss().head.to_dtype(DType::F32)?, ..loss() },
            &[LOSS, "head", "F32"],
        );
        let forward = |x: &Tensor, y: &Tensor| loss().forward(x, y).map(|(_, loss)| loss);
        refuses(forward(&x, &Tensor::new(&[0u32, 7], &device())?), &[LOSS, "target", "class 7", "7 classes"]);
        refuses(forward(&x, &y.get(0)?), &[LOSS, "target", "[]", "[2]"]);
        refuses(forward(&x.unsqueeze(0)?, &y), &[LOSS, "input", "[1, 2, 4]"]);
        Ok(())
    }
}
