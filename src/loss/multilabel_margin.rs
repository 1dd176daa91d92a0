use super::Reduction;
use super::validate::{class_indices, float, float_dtype, read_indices, same_device};
use crate::kernel::lanes::{LANES, Lanes};
use crate::kernel::ops::{self, Scaled};
use crate::kernel::rows::{RowLoss, hinge, map2_sum, row_loss};
use crate::kernel::scalar::{Float, Scalar};
use crate::kernel::switches::{has_kernels_for, reads_values};
use crate::kernel::tensor_loss::tensor_loss;
use candle_core::{D, DType, Result, Tensor, bail};

/// Hinge loss between the scores of the classes `Y` of a sample and the scores of all other classes:
///
/// ```text
/// l = Σ_{j∈Y} Σ_{k∉Y} max(0, 1 - (x_j - x_k)) / C
/// ```
///
/// Use it if a sample can have several classes and only the order of the scores matters: the loss is 0 once the score
/// of each class of the sample is higher than the score of each other class by 1. If you need a yes or no for each
/// class, use [`MultiLabelSoftMarginLoss`](super::MultiLabelSoftMarginLoss).
///
/// Source:
/// [`torch.nn.MultiLabelMarginLoss`](https://pytorch.org/docs/stable/generated/torch.nn.MultiLabelMarginLoss.html).
///
/// Example:
/// [`examples/multilabel_margin.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/multilabel_margin.rs),
/// run by `cargo run --example multilabel_margin`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::MultiLabelMarginLoss;
///
/// let input = Tensor::new(&[[0.5, 0.25, 2.0]], &Device::Cpu)?;
/// let target = Tensor::new(&[[0i64, 2, -1]], &Device::Cpu)?; // classes 0 and 2
/// let value = MultiLabelMarginLoss::default().forward(&input, &target)?.to_scalar::<f64>()?;
/// assert_eq!(value, 0.25); // (1 - (0.5 - 0.25) + 0) / 3: the score of class 2 is above the score of class 1 by 1.75
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/multilabel_margin.svg"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct MultiLabelMarginLoss {
    /// Reduction of the sample losses. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "MultiLabelMarginLoss";

impl MultiLabelMarginLoss {
    /// Returns the loss of the scores `input` against `target`. Each row of `target` is a list of classes. The first -1
    /// ends the list; a list without -1 fills the row. A class that is listed twice counts twice.
    ///
    /// - Shapes: `input` and `target` are both `(N, C)`, both `(C)`, or both scalars.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. `target` is of any integer dtype: `i16`, `i32`, `i64`, or,
    ///   for lists that fill the row, `u8` or `u32`.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] and a batch it is `(N)`.
    /// - Gradient at `x_j - x_k = 1`: 0.
    ///
    /// # Errors
    /// If a class is neither -1 nor in `0..C` (checked on the CPU only), if the shapes or devices do not fit together,
    /// if `input` is not of a float dtype, or if `target` is not of an integer dtype.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        float_dtype(LOSS, "input", input)?;
        if target.dims() != input.dims() || input.rank() > 2 {
            bail!(
                "{LOSS}: target has shape {:?} and input {:?}; both must be (N, C), or both (C)",
                target.dims(),
                input.dims()
            )
        }
        same_device(LOSS, ("target", target), ("input", input))?;
        // (N, C) from here on.
        let count = input.dims().last().copied().unwrap_or(1);
        if count == 0 {
            bail!("{LOSS}: input has shape {:?} but needs one class or more", input.dims())
        }
        let shape = (input.elem_count() / count, count);
        let factor = self.reduction.factor(&input.dims()[..input.rank().saturating_sub(1)]);
        let loss = if has_kernels_for(&[input]) {
            row_loss([&input.reshape(shape)?], 1, factor, MultiLabelRows { lists: read_lists(target, count)? })?
        } else {
            if reads_values(input.device()) {
                read_lists(target, count)?;
            }
            let x = float(LOSS, "input", input)?.reshape(shape)?;
            let lists = TargetLists::new(target, &x)?;
            let loss = tensor_loss([&x], Some(1), factor.into(), None, move |[x], _| {
                let (losses, grad) = lists.loss_and_grad(x)?;
                let factor = 1.0 / count as f64;
                Ok((Scaled { tensor: losses, factor }, [Some(Scaled { tensor: grad, factor })]))
            })?;
            ops::like(&loss, input)?
        };
        if factor.is_none() && input.rank() < 2 { loss.squeeze(0) } else { Ok(loss) }
    }
}

struct MultiLabelRows {
    /// Listed classes of each sample.
    lists: Vec<Vec<usize>>,
}

impl RowLoss<1> for MultiLabelRows {
    const PADDING: [f64; 1] = [f64::NEG_INFINITY];

    #[inline(always)]
    fn loss_and_grad_in_place<W: Float>(&self, i: usize, [row]: [&mut [Lanes<W>]; 1], len: usize) -> Option<(W, W)> {
        let listed = self.lists[i].iter().map(|&class| (class, row.as_flattened()[class])).collect::<Vec<_>>();
        // Listed classes are not compared with each other.
        for &(class, _) in &listed {
            row.as_flattened_mut()[class] = -W::INFINITY;
        }
        let mut grads = vec![[W::ZERO; LANES]; row.len()];
        let (mut loss, mut of_listed) = (W::ZERO, Vec::with_capacity(listed.len()));
        for &(_, score) in &listed {
            let lead = W::ONE - score;
            if score.is_nan() {
                loss = score;
            }
            let [missing, hits] = map2_sum([&mut *row, &mut grads], |x, grad| {
                let missing = hinge(lead, x);
                let hit = W::select(Scalar::le(missing, W::ZERO), W::ZERO, W::ONE);
                ([x, grad + hit], [missing, hit])
            });
            loss += missing;
            of_listed.push(hits);
        }
        row.copy_from_slice(&grads);
        for (&(class, _), hits) in listed.iter().zip(of_listed) {
            row.as_flattened_mut()[class] -= hits;
        }
        let scale = W::constant(1.0 / len as f64);
        Some((loss * scale, scale))
    }
}

/// Reads the listed classes of each sample on the host.
fn read_lists(target: &Tensor, count: usize) -> Result<Vec<Vec<usize>>> {
    let classes = read_indices(LOSS, "target", target)?;
    if let Some(class) = classes.iter().find(|&&class| !(-1..count as i64).contains(&class)) {
        bail!("{LOSS}: target holds {class} but must hold classes, 0 to {}, or -1", count - 1)
    }
    let list = |row: &[i64]| row.iter().map_while(|&class| usize::try_from(class).ok()).collect();
    Ok(classes.chunks(count).map(list).collect())
}

/// The listed classes as tensors. Their width is the length of the longest list.
struct TargetLists {
    /// Listed classes, (N, L), `u32`, 0 past the end of a list.
    index: Tensor,
    /// (N, L), 1 at a listed class and 0 past the end of a list.
    is_listed: Tensor,
    /// (N, 1), `u8`, 1 for a list with a class out of range.
    is_invalid: Tensor,
}

impl TargetLists {
    /// Reads the length of the longest list on the host, also from a GPU: the computing time is proportional to it, and
    /// most lists are short.
    fn new(target: &Tensor, x: &Tensor) -> Result<Self> {
        let target = class_indices(LOSS, "target", &target.to_device(x.device())?)?.reshape(x.dims())?.contiguous()?;
        let (rows, count) = x.dims2()?;
        if rows == 0 {
            let index = Tensor::zeros((0, 1), DType::U32, x.device())?;
            return Ok(Self { is_listed: index.to_dtype(x.dtype())?, is_invalid: index.to_dtype(DType::U8)?, index });
        }
        // The length of each list is the position of its first negative number.
        let positions = Tensor::arange(0u32, count as u32, x.device())?.broadcast_as(x.dims())?;
        let end = Tensor::new(count as u32, x.device())?.broadcast_as(x.dims())?;
        let lengths = target.lt(0i64)?.where_cond(&positions, &end)?.min_keepdim(1)?;
        let longest = lengths.flatten_all()?.max(0)?.to_scalar::<u32>()? as usize;
        let target = target.narrow(1, 0, longest.max(1))?;
        let has_ended = positions.narrow(1, 0, longest.max(1))?.broadcast_ge(&lengths)?;
        let is_outside = (target.ge(count as i64)? * has_ended.eq(0u8)?)?;
        let is_none = (&has_ended + &is_outside)?;
        let index = ops::cast(&is_none.where_cond(&ops::constant(0.0, &target)?, &target)?, DType::U32)?;
        let is_listed = ops::cast(&is_none.eq(0u8)?, x.dtype())?;
        let is_invalid = ops::cast(&is_outside, DType::F32)?.sum_keepdim(1)?.gt(0f64)?;
        Ok(Self { index, is_listed, is_invalid })
    }

    /// Returns the loss of each sample, (N), and its gradient, (N, C), without the factor `1 / C`. All pairs of classes
    /// at once would take (N, L, C) elements, so the loop takes a part of each list at a time.
    fn loss_and_grad(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (rows, count) = x.dims2()?;
        let longest = self.index.dim(1)?;
        let scores = x.contiguous()?.gather(&self.index, 1)?;
        let zeros = x.detach().zeros_like()?;
        let is_listed = zeros.scatter_add(&self.index, &self.is_listed, 1)?.gt(0f64)?;
        let is_out = (is_listed + x.eq(f64::NEG_INFINITY)?)?.unsqueeze(1)?;
        let lead = scores.affine(-1.0, 1.0)?.unsqueeze(2)?;
        let is_past_end = self.is_listed.eq(0f64)?.unsqueeze(2)?;
        let (mut losses, mut grad, mut of_listed) = (Vec::new(), zeros, Vec::new());
        let columns = (MAX_TEMPORARY / (rows * count).max(1)).max(1);
        for start in (0..longest).step_by(columns) {
            let narrow_list = |all: &Tensor| all.narrow(1, start, columns.min(longest - start));
            let missing = narrow_list(&lead)?.broadcast_add(&x.unsqueeze(1)?)?;
            let is_none = (missing.le(0f64)? + is_out.broadcast_as(missing.shape())?)?;
            let is_none = is_none.broadcast_add(&narrow_list(&is_past_end)?)?;
            losses.push(ops::masked_fill(&missing, &is_none, 0.0)?.sum(D::Minus1)?);
            let hits = is_none.where_cond(&ops::constant(0.0, &missing)?, &ops::constant(1.0, &missing.detach())?)?;
            grad = (grad + hits.sum(1)?)?;
            of_listed.push(hits.sum(D::Minus1)?);
        }
        let losses = Tensor::cat(&losses, 1)?;
        // If all classes are listed, there are no pairs, and a NaN score has not reached the loss.
        let is_number = (scores.eq(&scores)? + self.is_listed.eq(0f64)?)?;
        let losses = is_number.where_cond(&losses, &ops::constant(f64::NAN, &losses.detach())?)?.sum(1)?;
        let losses = ops::masked_fill(&losses, &self.is_invalid.squeeze(1)?, f64::NAN)?;
        Ok((losses, grad.scatter_add(&self.index, &Tensor::cat(&of_listed, 1)?.neg()?, 1)?))
    }
}

/// Limit for the elements of a temporary. One listed class of each sample with all classes may exceed it.
const MAX_TEMPORARY: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn pairs_of_listed_and_unlisted_classes() -> Result<()> {
        let (x, y) = (vector(&[0.1, 0.2, 0.4, 0.8]), Tensor::new(&[3i64, 0, -1, 1], &device())?);
        let expected = (0.4 + 0.6 + 1.1 + 1.3) / 4.0;
        assert_values(MultiLabelMarginLoss::default().forward(&x, &y), &[expected])
    }

    #[test]
    fn loss_without_classes_is_0() -> Result<()> {
        let (x, y) = (vector(&[0.1, 0.2]), Tensor::new(&[-1i64, 0], &device())?);
        assert_values(MultiLabelMarginLoss::default().forward(&x, &y), &[0.0])
    }

    #[test]
    fn rejects_invalid_arguments() -> Result<()> {
        let (x, loss) = (vector(&[0.1, 0.2]), MultiLabelMarginLoss::default());
        let classes = |values: &[i64]| Tensor::new(values, &device());
        if device().is_cpu() {
            refuses(loss.forward(&x, &classes(&[2, -1])?), &["MultiLabelMarginLoss", "target holds 2", "0 to 1"]);
            refuses(loss.forward(&x, &classes(&[-1, -2])?), &["MultiLabelMarginLoss", "target holds -2"]);
        }
        refuses(loss.forward(&x, &classes(&[0])?), &["MultiLabelMarginLoss", "target", "[1]", "[2]"]);
        refuses(loss.forward(&x, &x), &["MultiLabelMarginLoss", "target", "F64", "I64"]);
        refuses(loss.forward(&classes(&[0, 1])?, &classes(&[0, 1])?), &["MultiLabelMarginLoss", "input", "I64"]);
        Ok(())
    }
}
