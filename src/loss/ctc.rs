use super::Reduction;
use super::validate::{float, float_dtype, read_indices};
use crate::kernel::graph::{Value, node};
use crate::kernel::switches::{has_kernels, keeps_graph_of_gradients};
use crate::kernel::{LabelSequence, ctc_losses, ops};
use candle_core::{D, Device, Result, Shape, Tensor, bail};

/// Connectionist temporal classification (CTC): the negative log-likelihood of a label sequence, summed over all its
/// alignments with the input:
///
/// ```text
/// l = -log Σ_π Π_t p_t(π_t)    over all paths π that give the target after merging repeats and removing blanks
/// ```
///
/// Use it to predict a label sequence from a longer input sequence if the position of each label is unknown, as in
/// speech and handwriting recognition. At each step, the network outputs a log-softmax over the labels and a blank.
/// Repeated labels need a blank between them. A target that needs more steps than the input has is impossible: its loss
/// is infinity, or 0 with `zero_infinity`.
///
/// If every step has a label, use [`CrossEntropyLoss`](super::CrossEntropyLoss) for each step. If the order of the
/// labels differs from the order of the input, as in translation, there is no valid alignment: use a decoder that
/// outputs one label at a time, also with [`CrossEntropyLoss`](super::CrossEntropyLoss).
///
/// As in PyTorch, the gradient is `p - posterior`, which assumes that `log_probs` is the result of a log-softmax. The
/// gradient by the logits is then exact. If `log_probs` is not the result of a log-softmax, it is not the derivative.
/// The gradient of an impossible target is 0, where PyTorch gives NaN without `zero_infinity`.
///
/// Source: Graves et al., [Connectionist Temporal Classification](https://doi.org/10.1145/1143844.1143891), 2006;
/// [`torch.nn.CTCLoss`](https://pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html).
///
/// Example: [`examples/ctc.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/ctc.rs), run by
/// `cargo run --example ctc`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::CtcLoss;
///
/// let log_probs = Tensor::full(0.5f64.ln(), (2, 1, 2), &Device::Cpu)?; // two steps, one sequence, blank and one label
/// let targets = Tensor::new(&[[1u32]], &Device::Cpu)?;
/// let (steps, labels) = (Tensor::new(&[2u32], &Device::Cpu)?, Tensor::new(&[1u32], &Device::Cpu)?);
/// let value = CtcLoss::default().forward(&log_probs, &targets, &steps, &labels)?.to_scalar::<f64>()?;
/// assert!((value + 0.75f64.ln()).abs() < 1e-9); // 3 of the 4 paths read "1": 1-blank, blank-1, 1-1
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/ctc.svg"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct CtcLoss {
    /// Class of the blank. Default: 0.
    pub blank: usize,
    /// Whether the loss of an impossible target is 0 instead of infinity. Default: false.
    pub zero_infinity: bool,
    /// Reduction of the sequence losses. Default: the mean, which first divides each loss by the length of its target
    /// (by 1 for an empty target).
    pub reduction: Reduction,
}

const LOSS: &str = "CtcLoss";

impl CtcLoss {
    /// Returns the loss of the log-probabilities `log_probs` against the label sequences `targets`.
    ///
    /// - Shapes: `log_probs` is `(T, N, C)`, for T steps, N sequences and C classes (the blank included). `targets` is
    ///   `(N, S)`, padded to the longest sequence with any values, or it is the sequences concatenated,
    ///   `(sum of target_lengths)`. `input_lengths` and `target_lengths` are `(N)`: the number of steps and labels of
    ///   each sequence. Without a batch, the shapes are `(T, C)`, `(S)`, and scalars for the lengths.
    /// - Dtypes: `log_probs` is `f16`, `bf16`, `f32` or `f64`. Labels and lengths are of any integer dtype: `u8`,
    ///   `u32`, `i16`, `i32` or `i64`.
    /// - Result: a scalar with the dtype of `log_probs`. With [`Reduction::None`] and a batch it is `(N)`.
    /// - Second derivatives: an error.
    ///
    /// The host reads the labels and lengths, also from a GPU, as PyTorch reads the lengths.
    ///
    /// # Errors
    /// If a length is negative or exceeds the number of steps or labels, if a label is the blank or not in `0..C`, if
    /// `blank` is not in `0..C`, if the shapes do not fit together, if `log_probs` is empty or not of a float dtype, or
    /// if labels or lengths are not of an integer dtype.
    pub fn forward(
        &self,
        log_probs: &Tensor,
        targets: &Tensor,
        input_lengths: &Tensor,
        target_lengths: &Tensor,
    ) -> Result<Tensor> {
        float_dtype(LOSS, "log_probs", log_probs)?;
        let log_p = match log_probs.rank() {
            2 => log_probs.unsqueeze(1)?,
            3 => log_probs.clone(),
            _ => bail!("{LOSS}: log_probs has shape {:?} but needs (T, N, C) or (T, C)", log_probs.dims()),
        };
        let (_, batch, classes) = log_p.dims3()?;
        if log_p.elem_count() == 0 {
            bail!("{LOSS}: log_probs has shape {:?} but must not be empty", log_probs.dims())
        }
        if self.blank >= classes {
            bail!("{LOSS}: blank is {} but log_probs has {classes} classes, numbered from 0", self.blank)
        }
        let sequences = read(&log_p, targets, input_lengths, target_lengths, self.blank)?;
        let lengths = sequences.iter().map(|sequence| sequence.labels.len().max(1) as f64).collect::<Vec<_>>();
        let loss = if has_kernels(log_p.device()) {
            let map = |loss: f64| if self.zero_infinity && loss == f64::INFINITY { 0.0 } else { loss };
            ctc_losses(&log_p, sequences, self.blank, map)?
        } else {
            self.by_ops(&float(LOSS, "log_probs", &log_p)?, &sequences)?
        };
        let loss = match self.reduction {
            Reduction::Mean => (&loss / tensor_like(&lengths, batch, &loss)?)?,
            _ => loss,
        };
        let loss = if log_probs.rank() == 2 { loss.squeeze(0)? } else { loss };

        self.reduction.reduce(&loss, log_probs)
    }

    /// Returns the losses of the sequences, (N). It uses tensor ops.
    fn by_ops(&self, log_p: &Tensor, sequences: &[LabelSequence]) -> Result<Tensor> {
        let lattice = Lattice::new(&log_p.detach(), sequences, self.blank)?;
        let (alphas, loss) = lattice.forward()?;

        let is_impossible = loss.eq(f64::INFINITY)?;
        let value = if self.zero_infinity { ops::masked_fill(&loss, &is_impossible, 0.0)? } else { loss.clone() };
        let is_impossible = is_impossible.unsqueeze(1)?;
        node([log_p], Value::Tensor(value), move |[log_p], grad| {
            let gradient = lattice.gradient(&alphas, &loss)?.broadcast_mul(&grad.detach().unsqueeze(1)?)?;
            let gradient = ops::masked_fill(&gradient, &is_impossible, 0.0)?;
            if !keeps_graph_of_gradients() {
                return Ok([Some(gradient)]);
            }
            let once = node([log_p, grad], Value::Tensor(gradient), |_, _| {
                bail!("{LOSS}: second derivatives are not available")
            })?;
            Ok([Some(once)])
        })
    }
}

/// Reads the number of steps and the labels of each sequence on the host.
fn read(
    log_p: &Tensor,
    targets: &Tensor,
    input_lengths: &Tensor,
    target_lengths: &Tensor,
    blank: usize,
) -> Result<Vec<LabelSequence>> {
    let (steps, batch, classes) = log_p.dims3()?;
    let lengths = |name: &str, lengths: &Tensor, most: usize, of: &str| -> Result<Vec<usize>> {
        let values = read_indices(LOSS, name, lengths)?;
        if lengths.rank() > 1 || values.len() != batch {
            bail!("{LOSS}: {name} has shape {:?} but there are {batch} sequences", lengths.dims())
        }
        match values.iter().find(|&&length| !(0..=most as i64).contains(&length)) {
            Some(length) => bail!("{LOSS}: {name} holds {length} but must be 0 to {most}, the {of}"),
            None => Ok(values.into_iter().map(|length| length as usize).collect()),
        }
    };
    let all = read_indices(LOSS, "targets", targets)?;
    let input_lengths = lengths("input_lengths", input_lengths, steps, "steps in log_probs")?;
    let (lengths, stride) = match targets.dims() {
        &[n, width] if n == batch => {
            (lengths("target_lengths", target_lengths, width, "width of targets")?, Some(width))
        }
        &[total] => {
            let lengths = lengths("target_lengths", target_lengths, total, "labels in targets")?;
            let sum = lengths.iter().sum::<usize>();
            if sum != total {
                bail!("{LOSS}: target_lengths add up to {sum} but targets holds {total} labels")
            }
            (lengths, None)
        }
        dims => bail!("{LOSS}: targets has shape {dims:?} but needs ({batch}, S), or all labels joined"),
    };
    let mut start = 0;
    let mut sequences = Vec::with_capacity(batch);
    for (length, steps) in lengths.into_iter().zip(input_lengths) {
        let sequence = &all[start..start + length];
        start += stride.unwrap_or(length);
        if let Some(label) = sequence.iter().find(|&&label| !(0..classes as i64).contains(&label)) {
            bail!("{LOSS}: targets holds label {label} but log_probs has {classes} classes, numbered from 0")
        }
        if sequence.contains(&(blank as i64)) {
            bail!("{LOSS}: targets holds the blank, {blank}, which no label can be")
        }
        sequences.push(LabelSequence { steps, labels: sequence.iter().map(|&label| label as u32).collect() });
    }
    Ok(sequences)
}

/// Lattice of T steps by L = 2S + 1 extended labels (the labels with a blank before, between and after them), for each
/// of N sequences. Forward and backward sum the probabilities of its paths as logarithms, step by step.
struct Lattice {
    log_p: Tensor,
    /// Log-probabilities of the extended labels, (T, N, L).
    emitted: Tensor,
    /// Extended labels, (T, N, L), repeated for each step as `gather` needs them.
    index: Tensor,
    /// 0 where a path may skip the blank between two labels, else -∞, (N, L). Added to paths that move two places.
    skip: Tensor,
    /// 0 where a path may begin, else -∞, (N, L).
    begin: Tensor,
    /// 0 where a path may end, else -∞, (N, L).
    end: Tensor,
    /// `u8`, 1 at the last step of a sequence, (T, N, 1).
    last_step: Tensor,
    /// `u8`, 1 at the steps of a sequence, (T, N, 1).
    counts: Tensor,
    /// Loss of each sequence if it has no steps: 0 without labels, else ∞, (N).
    without_steps: Tensor,
}

impl Lattice {
    fn new(log_p: &Tensor, sequences: &[LabelSequence], blank: usize) -> Result<Self> {
        let (steps, batch, _) = log_p.dims3()?;
        let device = log_p.device();
        let longest = sequences.iter().map(|sequence| sequence.labels.len()).max().unwrap_or(0);
        let places = 2 * longest + 1;
        let mut extended = vec![blank as u32; batch * places];
        for (sequence, row) in sequences.iter().zip(extended.chunks_exact_mut(places)) {
            for (s, &label) in sequence.labels.iter().enumerate() {
                row[2 * s + 1] = label;
            }
        }
        let gate = |open: &dyn Fn(usize, usize) -> bool| -> Result<Tensor> {
            let value = |at| if open(at / places, at % places) { 0.0 } else { f64::NEG_INFINITY };
            let gate = (0..batch * places).map(value).collect::<Vec<_>>();
            tensor_like(&gate, (batch, places), log_p)
        };
        let of_steps = |f: &dyn Fn(usize, usize) -> bool| -> Result<Tensor> {
            let marks = (0..steps * batch).map(|at| f(at / batch, at % batch) as u8).collect::<Vec<_>>();
            Tensor::from_vec(marks, (steps, batch, 1), device)
        };
        let last_place = |n: usize| 2 * sequences[n].labels.len();
        let skip = gate(&|n, s| s >= 2 && extended[n * places + s] != extended[n * places + s - 2])?;
        let without_steps = |sequence: &LabelSequence| if sequence.labels.is_empty() { 0.0 } else { f64::INFINITY };
        let without_steps = sequences.iter().map(without_steps).collect::<Vec<f64>>();
        let index = Tensor::from_vec(extended, (1, batch, places), device)?;
        let index = index.broadcast_as((steps, batch, places))?.contiguous()?;
        Ok(Self {
            log_p: log_p.clone(),
            emitted: log_p.contiguous()?.gather(&index, D::Minus1)?,
            index,
            skip,
            begin: gate(&|n, s| s <= 1 && s <= last_place(n))?,
            end: gate(&|n, s| s == last_place(n) || s + 1 == last_place(n))?,
            last_step: of_steps(&|t, n| t + 1 == sequences[n].steps)?,
            counts: of_steps(&|t, n| t < sequences[n].steps)?,
            without_steps: tensor_like(&without_steps, batch, log_p)?,
        })
    }

    /// Returns the log-probability of all partial paths that end at each step and place, one (N, L) for each step, and
    /// the loss, (N).
    fn forward(&self) -> Result<(Vec<Tensor>, Tensor)> {
        let mut alphas: Vec<Tensor> = Vec::new();
        let mut loss = self.without_steps.clone();
        for t in 0..self.emitted.dim(0)? {
            let emitted = self.emitted.get(t)?;
            let alpha = match alphas.last() {
                Some(alpha) => {
                    let skipped = (shift_right(alpha, 2)? + &self.skip)?;
                    (log_sum_exp(&Tensor::stack(&[alpha, &shift_right(alpha, 1)?, &skipped], 0)?, 0)? + emitted)?
                }
                // A choice, not a sum with -∞: a NaN where no path begins touches nothing.
                None => self.begin.eq(0f64)?.where_cond(&emitted, &self.begin)?,
            };
            let ended = self.end.eq(0f64)?.where_cond(&alpha, &self.end)?;
            let ended = log_sum_exp(&ended, 1)?.neg()?;
            loss = self.last_step.get(t)?.squeeze(1)?.where_cond(&ended, &loss)?;
            alphas.push(alpha);
        }
        Ok((alphas, loss))
    }

    /// Returns `p - posterior` for each step, (T, N, C), which is 0 after the last step of a sequence.
    fn gradient(&self, alphas: &[Tensor], loss: &Tensor) -> Result<Tensor> {
        // If no path is possible, all log-probabilities are -∞ and the posterior is 0.
        let loss = loss.ne(f64::INFINITY)?.where_cond(loss, &loss.zeros_like()?)?.unsqueeze(1)?;
        // The log-probability of all paths from each place to the end, without the place itself.
        let mut beta = self.end.clone();
        let mut posteriors = Vec::new();
        for t in (0..alphas.len()).rev() {
            let end = self.last_step.get(t)?.broadcast_as(self.end.shape())?;
            beta = end.where_cond(&self.end, &beta)?;
            posteriors.push((&alphas[t] + &beta)?.broadcast_add(&loss)?.exp()?);
            let next = (beta + self.emitted.get(t)?)?;
            let skipped = shift_left(&(&next + &self.skip)?, 2)?;
            beta = log_sum_exp(&Tensor::stack(&[&next, &shift_left(&next, 1)?, &skipped], 0)?, 0)?;
        }
        posteriors.reverse();
        let posterior = Tensor::stack(&posteriors, 0)?;
        let posterior = self.log_p.zeros_like()?.scatter_add(&self.index, &posterior, D::Minus1)?;
        let gradient = (self.log_p.exp()? - posterior)?;
        self.counts.broadcast_as(gradient.shape())?.where_cond(&gradient, &gradient.zeros_like()?)
    }
}

/// Shifts the entries of each row `by` places to the right, and fills with -∞.
fn shift_right(x: &Tensor, by: usize) -> Result<Tensor> {
    let (columns_of_neg_inf, width) = columns_of_neg_inf(x, by)?;
    if by < width {
        Tensor::cat(&[&columns_of_neg_inf, &x.narrow(1, 0, width - by)?], 1)
    } else {
        Ok(columns_of_neg_inf)
    }
}

/// Shifts the entries of each row `by` places to the left, and fills with -∞.
fn shift_left(x: &Tensor, by: usize) -> Result<Tensor> {
    let (columns_of_neg_inf, width) = columns_of_neg_inf(x, by)?;
    if by < width {
        Tensor::cat(&[&x.narrow(1, by, width - by)?, &columns_of_neg_inf], 1)
    } else {
        Ok(columns_of_neg_inf)
    }
}

/// Returns `by` columns of -∞, but at most as many as `x` has, and the number of columns of `x`.
fn columns_of_neg_inf(x: &Tensor, by: usize) -> Result<(Tensor, usize)> {
    let (rows, width) = x.dims2()?;
    let columns_of_neg_inf = vec![f64::NEG_INFINITY; rows * by.min(width)];
    Ok((tensor_like(&columns_of_neg_inf, (rows, by.min(width)), x)?, width))
}

/// Returns the values as a tensor with the dtype and device of `x`. The CPU converts them, because some devices have no
/// `f64`.
fn tensor_like(values: &[f64], shape: impl Into<Shape>, x: &Tensor) -> Result<Tensor> {
    Tensor::from_slice(values, shape, &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())
}

/// Returns `log Σ e^x` over one dimension, which is -∞ if all elements are -∞.
fn log_sum_exp(x: &Tensor, dim: usize) -> Result<Tensor> {
    let max = x.max_keepdim(dim)?;
    let max = max.eq(f64::NEG_INFINITY)?.where_cond(&max.zeros_like()?, &max)?;
    x.broadcast_sub(&max)?.exp()?.sum(dim)?.log()? + max.squeeze(dim)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    /// Returns log-probabilities of `steps` steps, one sequence and three classes.
    fn log_p(steps: usize) -> Tensor {
        let logits = (0..steps * 3).map(|i| ((i * i) % 7) as f64 / 3.0).collect::<Vec<_>>();
        let logits = Tensor::from_vec(logits, (steps, 1, 3), &device()).unwrap();
        crate::loss::log_softmax(&logits, 2).unwrap()
    }

    fn ints(values: &[i64]) -> Tensor {
        Tensor::new(values, &device()).unwrap()
    }

    #[test]
    fn one_step_of_one_label_equals_nll() -> Result<()> {
        let log_p = log_p(1);
        let expected = -log_p.to_vec3::<f64>()?[0][0][2];
        assert_values(CtcLoss::default().forward(&log_p, &ints(&[2]), &ints(&[1]), &ints(&[1])), &[expected])
    }

    #[test]
    fn impossible_target_has_zero_gradient() -> Result<()> {
        let var = candle_core::Var::from_tensor(&log_p(2))?;
        for (zero_infinity, expected) in [(false, f64::INFINITY), (true, 0.0)] {
            let loss = CtcLoss { zero_infinity, ..Default::default() };
            // The two labels need a blank between them, so at least three steps.
            let value = loss.forward(&var, &ints(&[1, 1]), &ints(&[2]), &ints(&[2]))?;
            assert_eq!(value.to_scalar::<f64>()?, expected);
            let grad = value.backward()?.get(&var).unwrap().flatten_all()?.to_vec1::<f64>()?;
            assert_eq!(grad, [0.0; 6]);
        }
        Ok(())
    }

    #[test]
    fn rejects_invalid_lengths_labels_and_shapes() {
        let log_p = log_p(3);
        let refused = |targets: &[i64], steps: &[i64], labels: &[i64], parts: &[&str]| {
            let loss = CtcLoss::default();
            refuses(loss.forward(&log_p, &ints(targets), &ints(steps), &ints(labels)), &[&["CtcLoss"], parts].concat());
        };
        refused(&[1], &[4], &[1], &["input_lengths holds 4", "0 to 3"]);
        refused(&[1], &[-1], &[1], &["input_lengths holds -1"]);
        refused(&[1], &[3], &[2], &["target_lengths holds 2"]);
        refused(&[1, 2], &[3], &[1], &["target_lengths add up to 1", "2 labels"]);
        refused(&[3], &[3], &[1], &["label 3", "3 classes"]);
        refused(&[1], &[3, 3], &[1], &["input_lengths", "[2]", "1 sequences"]);
        let all = (&ints(&[1]), &ints(&[3]), &ints(&[1]));
        let loss = CtcLoss { blank: 3, ..Default::default() };
        refuses(loss.forward(&log_p, all.0, all.1, all.2), &["CtcLoss", "blank is 3", "3 classes"]);
        let loss = CtcLoss::default();
        refuses(loss.forward(&log_p.get(0).unwrap().get(0).unwrap(), all.0, all.1, all.2), &["log_probs", "[3]"]);
        refuses(loss.forward(&log_p, &log_p, all.1, all.2), &["CtcLoss", "targets", "F64", "I64"]);
        refuses(loss.forward(all.0, all.0, all.1, all.2), &["CtcLoss", "log_probs", "I64"]);
    }
}
