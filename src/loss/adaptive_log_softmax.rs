use super::validate::{float, read_indices, same_device, same_kind};
use super::{CrossEntropyLoss, Reduction, log_softmax};
use crate::kernel::ops;
use candle_core::{D, DType, Result, Tensor, bail};

/// An approximate softmax over very many classes that are not equally frequent, and its negative log-likelihood:
///
/// ```text
/// log p(c) = h_c                         for the frequent classes c, c < cutoffs[0]
/// log p(c) = h_i + log softmax(O_i·P_i·x)_c    for the classes of cluster i
/// l = -mean log p(y)                     h = log softmax(H·x + b), over the frequent classes and the clusters
/// ```
///
/// The head decides between the frequent classes and clusters of rarer ones; a cluster is only looked into by the samples
/// whose class is in it, through a projection to fewer dimensions. So classes must be numbered by their frequency, the most
/// frequent 0: words of a vocabulary, articles of a shop. With some thousand classes
/// [`CrossEntropyLoss`](super::CrossEntropyLoss), or [`LinearCrossEntropyLoss`](super::LinearCrossEntropyLoss), is exact and
/// fast enough.
///
/// The weights are the caller's, in PyTorch's shapes; PyTorch makes the width of projection `i` `D / 4^(i + 1)`.
///
/// Source: Grave et al., [Efficient softmax approximation for GPUs](https://arxiv.org/abs/1609.04309), 2017;
/// [`torch.nn.AdaptiveLogSoftmaxWithLoss`](https://pytorch.org/docs/stable/generated/torch.nn.AdaptiveLogSoftmaxWithLoss.html).
///
/// Example: [`examples/adaptive_log_softmax.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/adaptive_log_softmax.rs),
/// run by `cargo run --example adaptive_log_softmax`.
///
/// # Example
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_losses::loss::AdaptiveLogSoftmaxWithLoss;
///
/// let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F64, &Device::Cpu);
/// let loss = AdaptiveLogSoftmaxWithLoss {
///     cutoffs: vec![2], // classes 0 and 1 are frequent, 2 to 4 the rest
///     head: zeros((3, 4))?,
///     head_bias: None,
///     tails: vec![(zeros((1, 4))?, zeros((3, 1))?)],
/// };
/// let (output, loss) = loss.forward(&zeros((2, 4))?, &Tensor::new(&[0u32, 4], &Device::Cpu)?)?;
/// let output = output.to_vec1::<f64>()?; // a third for the frequent class, a third of a third for the other
/// assert!((output[0] + 3f64.ln()).abs() < 1e-12 && (output[1] + 9f64.ln()).abs() < 1e-12);
/// assert!((loss.to_scalar::<f64>()? - 27f64.ln() / 2.0).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/adaptive_log_softmax.svg"))]
#[derive(Debug, Clone)]
pub struct AdaptiveLogSoftmaxWithLoss {
    /// Where each cluster begins, rising, from 1: the first ends the frequent classes. The last cluster ends with its own
    /// weights.
    pub cutoffs: Vec<usize>,
    /// The weight of the head, `(cutoffs[0] + clusters, D)`.
    pub head: Tensor,
    /// The bias of the head, `(cutoffs[0] + clusters)`. PyTorch has none by default.
    pub head_bias: Option<Tensor>,
    /// For each cluster its projection, `(width, D)`, and its classes, `(classes, width)`.
    pub tails: Vec<(Tensor, Tensor)>,
}

const LOSS: &str = "AdaptiveLogSoftmaxWithLoss";

impl AdaptiveLogSoftmaxWithLoss {
    /// The log-probability of each sample's class, and the mean of their negatives.
    ///
    /// Shapes: `input` is `(N, D)` and `target` `(N)`, or `(D)` and a scalar; the first result has target's shape, the second
    /// is a scalar. Dtypes: `input` and all weights are `f16`, `bf16`, `f32` or `f64`, the same; classes are of any integer
    /// dtype. The results have input's dtype.
    ///
    /// The classes are read by the host, on a GPU too, as they are in PyTorch.
    ///
    /// # Errors
    /// If a class is out of range, if `cutoffs` don't rise from 1, or if the shapes of the weights, of `input` or of `target`
    /// don't fit.
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

        // In the head each sample has its class, or the cluster that this is in.
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
            // In two dimensions, as a single one takes a single thread of a GPU.
            output = output.unsqueeze(1)?.index_add(&samples, &log_p.unsqueeze(1)?, 0)?.squeeze(1)?;
        }
        let loss = ops::sum_all(&output)?.affine(-1.0 / target.len() as f64, 0.0)?;
        Ok((ops::like(&output.reshape(batch)?, input)?, ops::like(&loss, input)?))
    }

    /// The log-probabilities of all classes, `(N, classes)` for `input` `(N, D)`.
    ///
    /// # Errors
    /// If the shapes don't fit.
    pub fn log_prob(&self, input: &Tensor) -> Result<Tensor> {
        self.check(input)?;
        let x = rows(&float(LOSS, "input", input)?)?;
        let head = self.head_log_p(&x)?;
        let mut parts = vec![head.narrow(1, 0, self.cutoffs[0])?];
        for (i, tail) in self.tails.iter().enumerate() {
            parts.push(tail_log_p(tail, &x)?.broadcast_add(&head.narrow(1, self.cutoffs[0] + i, 1)?)?);
        }
        let log_p = Tensor::cat(&parts, 1)?.to_dtype(input.dtype())?;
        if input.rank() == 1 { log_p.squeeze(0) } else { Ok(log_p) }
    }

    /// The most probable class of each sample, `u32` of shape `(N)` for `input` `(N, D)`. Only those samples look into the
    /// clusters whose head says that it is one.
    ///
    /// # Errors
    /// If the shapes don't fit.
    pub fn predict(&self, input: &Tensor) -> Result<Tensor> {
        self.check(input)?;
        let x = rows(&float(LOSS, "input", input)?)?;
        let mut classes = self.head_log_p(&x)?.argmax(1)?.to_vec1::<u32>()?;
        let is_cluster = |(_, class): &(usize, &u32)| **class as usize >= self.cutoffs[0];
        let samples = classes.iter().enumerate().filter(is_cluster).map(|(i, _)| i as u32).collect::<Vec<_>>();
        if !samples.is_empty() {
            let index = Tensor::from_slice(&samples, samples.len(), x.device())?;
            let inputs = rows(input)?.contiguous()?.index_select(&index, 0)?;
            let found = self.log_prob(&inputs)?.to_dtype(DType::F32)?.argmax(1)?.to_vec1::<u32>()?;
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

    /// Checks that the weights fit each other and `input`, and returns the number of classes.
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

/// (N, D) of (N, D) or (D).
fn rows(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 1 { x.unsqueeze(0) } else { Ok(x.clone()) }
}

/// The log-probability at one place of each row of scores.
fn log_p_at(scores: &Tensor, places: Vec<u32>) -> Result<Tensor> {
    let places = Tensor::from_vec(places, scores.dim(0)?, scores.device())?;
    CrossEntropyLoss { reduction: Reduction::None, ..Default::default() }.forward(scores, &places)?.neg()
}

fn tail_log_p(tail: &(Tensor, Tensor), x: &Tensor) -> Result<Tensor> {
    log_softmax(&tail_scores(tail, x)?, D::Minus1)
}

fn tail_scores((projection, classes): &(Tensor, Tensor), x: &Tensor) -> Result<Tensor> {
    // PyTorch makes a projection of width 0 where the input has few dimensions: every class is as likely then.
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

    /// Two frequent classes, a cluster of two and one of three; the weights are what comes.
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
    fn probabilities_add_up_and_the_loss_is_of_them() -> Result<()> {
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
    fn refuses_what_does_not_fit() -> Result<()> {
        let (x, y) = (vector(&[0.0; 8]).reshape((2, 4))?, Tensor::new(&[0u32, 1], &device())?);
        let refused =
            |loss: AdaptiveLogSoftmaxWithLoss, parts: &[&str]| refuses(loss.forward(&x, &y).map(|(_, loss)| loss), parts);
        refused(AdaptiveLogSoftmaxWithLoss { cutoffs: vec![0, 4], ..loss() }, &[LOSS, "cutoffs", "[0, 4]"]);
        refused(AdaptiveLogSoftmaxWithLoss { cutoffs: vec![4, 2], ..loss() }, &[LOSS, "cutoffs", "[4, 2]"]);
        refused(AdaptiveLogSoftmaxWithLoss { cutoffs: vec![2], ..loss() }, &[LOSS, "2 tails", "1 cutoffs"]);
        refused(AdaptiveLogSoftmaxWithLoss { head: x.clone(), ..loss() }, &[LOSS, "head", "[2, 4]", "[4, 4]"]);
        refused(
            AdaptiveLogSoftmaxWithLoss { cutoffs: vec![2, 5], ..loss() },
            &[LOSS, "a tail's classes", "[2, 2]", "[3, 2]"],
        );
        refused(AdaptiveLogSoftmaxWithLoss { head: loss().head.to_dtype(DType::F32)?, ..loss() }, &[LOSS, "head", "F32"]);
        let forward = |x: &Tensor, y: &Tensor| loss().forward(x, y).map(|(_, loss)| loss);
        refuses(forward(&x, &Tensor::new(&[0u32, 7], &device())?), &[LOSS, "target", "class 7", "7 classes"]);
        refuses(forward(&x, &y.get(0)?), &[LOSS, "target", "[]", "[2]"]);
        refuses(forward(&x.unsqueeze(0)?, &y), &[LOSS, "input", "[1, 2, 4]"]);
        Ok(())
    }
}
