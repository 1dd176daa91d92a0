use super::{Reduction, at_hand, classes, float, integers, precision, same_device};
use crate::kernel::scalar::{Float, indicator, of, positive};
use crate::kernel::{LANES, Lanes, RowLoss, can_be_fused, fused_rows, map_both, ops};
use candle_core::{D, DType, Result, Tensor, bail};

/// Hinge loss between the scores of the classes `Y` that a sample belongs to and the scores of those it does not:
///
/// ```text
/// l = Σ_{j∈Y} Σ_{k∉Y} max(0, 1 - (x_j - x_k)) / C
/// ```
///
/// For several classes at once, where the order of the scores decides: every class of the sample should lead every
/// other by 1. If a yes or no for each class is wanted, [`MultiLabelSoftMarginLoss`](super::MultiLabelSoftMarginLoss)
/// gives that.
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
/// assert_eq!(value, 0.25); // (1 - (0.5 - 0.25) + 0) / 3: class 2 leads class 1 by more than 1
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/multilabel_margin.svg"))]
#[derive(Debug, Clone, Default)]
pub struct MultiLabelMarginLoss {
    /// How the sample losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

impl MultiLabelMarginLoss {
    /// The loss of the scores `input` against `target`, each sample's classes as a list that the first -1 ends (it may
    /// fill the row): `i64`, or `u8` and `u32` for lists that fill the row.
    ///
    /// Shapes: both `(N, C)`, or both `(C)`, or both scalars. Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`,
    /// `target` as said. The result has input's dtype and is a scalar, or `(N)` with [`Reduction::None`] and a batch. A
    /// class that is listed twice counts twice. The derivative of a lead of exactly 1 is 0.
    ///
    /// # Errors
    /// If a class is neither -1 nor in `0..C` (seen on the CPU only), if the shapes don't fit, if `input` is not of a
    /// float dtype or `target` not of one for classes, or if the devices differ.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        precision("MultiLabelMarginLoss", "input", input)?;
        if target.dims() != input.dims() || input.rank() > 2 {
            bail!(
                "MultiLabelMarginLoss: target has shape {:?} and input {:?}; both must be (N, C), or both (C)",
                target.dims(),
                input.dims()
            )
        }
        same_device("MultiLabelMarginLoss", ("target", target), ("input", input))?;
        // (N, C) from here on.
        let count = input.dims().last().copied().unwrap_or(1);
        if count == 0 {
            bail!("MultiLabelMarginLoss: input has shape {:?} but needs one class or more", input.dims())
        }
        let shape = (input.elem_count() / count, count);
        if can_be_fused(&[input]) {
            let factor = self.reduction.factor(&input.dims()[..input.rank().saturating_sub(1)]);
            let loss = MissingLeads { lists: read_lists(target, count)? };
            let loss = fused_rows([&input.reshape(shape)?], 1, factor, loss)?;
            return if factor.is_none() && input.rank() < 2 { loss.squeeze(0) } else { Ok(loss) };
        }
        let x = float("MultiLabelMarginLoss", "input", input)?.reshape(shape)?;
        let (index, listed) = lists(&at_hand(target)?, x.dims(), x.dtype())?;

        let (value, slopes) = missing_leads(&x.detach(), &index, &listed)?;
        let loss = ops::with_gradient(&x, &value, move |grad| slopes.broadcast_mul(&grad.unsqueeze(1)?))?;
        let loss = if target.rank() < 2 { loss.squeeze(0)? } else { loss };

        self.reduction.reduce(&loss, input)
    }
}

struct MissingLeads {
    /// The classes that each sample lists.
    lists: Vec<Vec<usize>>,
}

impl RowLoss<1> for MissingLeads {
    const PADDING: [f64; 1] = [f64::NEG_INFINITY];

    #[inline(always)]
    fn take<W: Float>(&self, i: usize, [row]: [&mut [Lanes<W>]; 1], count: usize) -> Option<(W, W)> {
        let listed = self.lists[i].iter().map(|&class| (class, row.as_flattened()[class])).collect::<Vec<_>>();
        // What is listed is no rival, and infinitely far behind what is.
        for &(class, _) in &listed {
            row.as_flattened_mut()[class] = -W::INFINITY;
        }
        let mut slopes = vec![[W::ZERO; LANES]; row.len()];
        let (mut loss, mut of_listed) = (W::ZERO, Vec::with_capacity(listed.len()));
        for &(_, score) in &listed {
            let lead = W::ONE - score;
            let [missing, hits] = map_both([&mut *row, &mut slopes], |x, slope| {
                let missing = positive(lead + x);
                let hit = indicator(missing > W::ZERO);
                ([x, slope + hit], [missing, hit])
            });
            loss += missing;
            of_listed.push(hits);
        }
        row.copy_from_slice(&slopes);
        for (&(class, _), hits) in listed.iter().zip(of_listed) {
            row.as_flattened_mut()[class] -= hits;
        }
        let share = of(1.0 / count as f64);
        Some((loss * share, share))
    }
}

/// The classes that each sample lists, read by the host.
fn read_lists(target: &Tensor, count: usize) -> Result<Vec<Vec<usize>>> {
    let classes = integers("MultiLabelMarginLoss", "target", target)?;
    if let Some(class) = classes.iter().find(|&&class| !(-1..count as i64).contains(&class)) {
        bail!("MultiLabelMarginLoss: target holds {class} but must hold classes, 0 to {}, or -1", count - 1)
    }
    let list = |row: &[i64]| row.iter().map_while(|&class| usize::try_from(class).ok()).collect();
    Ok(classes.chunks(count).map(list).collect())
}

/// What each listed class of a sample, (N, L), is short of a lead of 1 over each class that is not listed, summed over both
/// and divided by the number of classes, (N); and its derivatives by `x`, (N, C). Some of the list at a time: all of it
/// against all classes is (N, L, C).
fn missing_leads(x: &Tensor, index: &Tensor, listed: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, count) = x.dims2()?;
    let longest = index.dim(1)?;
    let is_listed = x.zeros_like()?.scatter_add(index, listed, 1)?.gt(0f64)?.to_dtype(x.dtype())?;
    let not_listed = (1. - is_listed)?.unsqueeze(1)?;
    let (listed, scores) = (listed.unsqueeze(2)?, x.contiguous()?.gather(index, 1)?.unsqueeze(2)?);
    let (mut loss, mut of_others) = (x.zeros_like()?.sum(1)?, x.zeros_like()?);
    let mut of_listed = Vec::new();
    let at_once = (AT_ONCE / (rows * count).max(1)).max(1);
    for start in (0..longest).step_by(at_once) {
        let some = |all: &Tensor| all.narrow(1, start, at_once.min(longest - start));
        let missing = ops::relu(&(1. - some(&scores)?.broadcast_sub(&x.unsqueeze(1)?)?)?)?;
        let missing = missing.broadcast_mul(&some(&listed)?)?.broadcast_mul(&not_listed)?;
        let hits = missing.gt(0f64)?.to_dtype(x.dtype())?;
        loss = (loss + missing.sum(D::Minus1)?.sum(D::Minus1)?)?;
        of_others = (of_others + hits.sum(1)?)?;
        of_listed.push(hits.sum(D::Minus1)?.neg()?);
    }
    let slopes = of_others.scatter_add(index, &Tensor::cat(&of_listed, 1)?, 1)?;
    Ok(((loss / count as f64)?, (slopes / count as f64)?))
}

/// How many elements a temporary may have, or else one listed class of each sample against all.
const AT_ONCE: usize = 1 << 20;

/// The listed classes as `u32`, 0 behind a list's end, and 1 in `dtype` where one is listed, both of shape (N, L). On a
/// device that can't be asked without waiting for it, NaN where what is listed is no class.
fn lists(target: &Tensor, shape: &[usize], dtype: DType) -> Result<(Tensor, Tensor)> {
    let target = classes("MultiLabelMarginLoss", "target", target)?.reshape(shape)?.contiguous()?;
    let count = shape[1] as i64;
    let ended = target.lt(0i64)?.to_dtype(dtype)?.cumsum(1)?.gt(0f64)?;
    let is_none = target.ge(count)?;
    let listed = (1. - ended.to_dtype(dtype)?)?;
    let nan = listed.zeros_like()?.affine(0., f64::NAN)?;
    let listed = (&is_none * ended.eq(0u8)?)?.where_cond(&nan, &listed)?;
    let index = (ended + is_none)?.gt(0u8)?.where_cond(&target.zeros_like()?, &target)?.to_dtype(DType::U32)?;
    Ok((index, listed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn the_classes_of_the_list_should_lead_all_others() -> Result<()> {
        let (x, y) = (vector(&[0.1, 0.2, 0.4, 0.8]), Tensor::new(&[3i64, 0, -1, 1], &device())?);
        let expected = (0.4 + 0.6 + 1.1 + 1.3) / 4.0;
        assert_values(MultiLabelMarginLoss::default().forward(&x, &y), &[expected])
    }

    #[test]
    fn a_sample_of_no_class_costs_nothing() -> Result<()> {
        let (x, y) = (vector(&[0.1, 0.2]), Tensor::new(&[-1i64, 0], &device())?);
        assert_values(MultiLabelMarginLoss::default().forward(&x, &y), &[0.0])
    }

    #[test]
    fn refuses_what_does_not_fit() -> Result<()> {
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
