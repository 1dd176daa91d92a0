//! Element-wise losses in one pass over their arguments, forward and backward, on the CPU in `f32`.
//!
//! Made of tensor ops, a loss takes a pass and a temporary for each op. What is small stays in the cache and hardly
//! notices; a million elements take ten times as long as they need. Here a loss is a scalar formula for its value and one
//! for its slope. Everywhere else the tensor ops compute it, and the golden cases hold both to the same results.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Storage, Tensor, WithDType, bail};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// What one thread takes at a time, and the least that is worth a second thread.
const CHUNK: usize = 1 << 15;

/// Whether a tensor can be read as a slice of `f32`.
pub(crate) fn is_plain(t: &Tensor) -> bool {
    t.device().is_cpu() && t.dtype() == DType::F32 && t.is_contiguous()
}

/// The elements of a contiguous tensor on the CPU.
pub(crate) fn elements<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice()?[start..end]),
        None => bail!("a tensor of shape {:?} is not contiguous", layout.dims()),
    }
}

/// `factor · Σ value(x, y)`, with `slope` for the derivative of `value` by `x`. `None` where that can't be fused: without
/// a factor, or where somebody wants a gradient of `y`.
pub(super) fn fused<V, S>(x: &Tensor, y: &Tensor, factor: Option<f64>, value: V, slope: S) -> Result<Option<Tensor>>
where
    V: Fn(f32, f32) -> f32 + Send + Sync + 'static,
    S: Fn(f32, f32) -> f32 + Send + Sync + 'static,
{
    match factor {
        Some(factor) if is_plain(x) && is_plain(y) && !y.track_op() && x.elem_count() > 0 => {
            x.apply_op2(y, Fused { factor, value, slope }).map(Some)
        }
        _ => Ok(None),
    }
}

struct Fused<V, S> {
    factor: f64,
    value: V,
    slope: S,
}

impl<V, S> CustomOp2 for Fused<V, S>
where
    V: Fn(f32, f32) -> f32 + Send + Sync,
    S: Fn(f32, f32) -> f32 + Send + Sync,
{
    fn name(&self) -> &'static str {
        "fused-loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_at: &Layout, y: &CpuStorage, y_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, y) = (elements::<f32>(x, x_at)?, elements::<f32>(y, y_at)?);
        let sum = |x, y| pulp::Arch::new().dispatch(Sum { x, y, value: &self.value });
        let total = if x.len() <= CHUNK {
            sum(x, y)
        } else {
            x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)).map(|(x, y)| sum(x, y)).collect::<Vec<_>>().iter().sum()
        };
        Ok((CpuStorage::F32(vec![(total * self.factor) as f32]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = (f64::from(grad.to_scalar::<f32>()?) * self.factor) as f32;
        let (x_storage, x_at) = x.storage_and_layout();
        let (y_storage, y_at) = y.storage_and_layout();
        let (Storage::Cpu(x_storage), Storage::Cpu(y_storage)) = (&*x_storage, &*y_storage) else {
            bail!("fused-loss: needs to be on the CPU")
        };
        let (x_values, y_values) = (elements::<f32>(x_storage, x_at)?, elements::<f32>(y_storage, y_at)?);
        let mut slopes = vec![0f32; x_values.len()];
        let fill = |slopes, x, y| pulp::Arch::new().dispatch(Fill { slopes, x, y, slope: &self.slope, grad });
        if x_values.len() <= CHUNK {
            fill(&mut slopes, x_values, y_values);
        } else {
            let chunks = slopes.par_chunks_mut(CHUNK).zip(x_values.par_chunks(CHUNK)).zip(y_values.par_chunks(CHUNK));
            chunks.for_each(|((slopes, x), y)| fill(slopes, x, y));
        }
        Ok((Some(Tensor::from_vec(slopes, x.shape(), x.device())?), None))
    }
}

/// The sum of a chunk's losses: in single precision and sixteen lanes here, in double precision over the chunks.
struct Sum<'a, V> {
    x: &'a [f32],
    y: &'a [f32],
    value: &'a V,
}

// Structs, not closures: of those it is not certain that they end up inside the code for the processor's vectors.
impl<V: Fn(f32, f32) -> f32> WithSimd for Sum<'_, V> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let mut lanes = [0f32; 16];
        let (x, y) = (self.x.chunks_exact(16), self.y.chunks_exact(16));
        let rest = x.remainder().iter().zip(y.remainder()).map(|(&x, &y)| (self.value)(x, y)).sum::<f32>();
        for (x, y) in x.zip(y) {
            for lane in 0..16 {
                lanes[lane] += (self.value)(x[lane], y[lane]);
            }
        }
        f64::from(lanes.iter().sum::<f32>() + rest)
    }
}

/// A chunk's slopes, times `grad`.
struct Fill<'a, S> {
    slopes: &'a mut [f32],
    x: &'a [f32],
    y: &'a [f32],
    slope: &'a S,
    grad: f32,
}

impl<F: Fn(f32, f32) -> f32> WithSimd for Fill<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((slope, &x), &y) in self.slopes.iter_mut().zip(self.x).zip(self.y) {
            *slope = self.grad * (self.slope)(x, y);
        }
    }
}

/// A loss of a row of scores and the row's class, and its gradient by the scores.
pub(super) trait RowLoss: Copy + Send + Sync + 'static {
    /// The loss of one row.
    fn value(&self, row: &[f32], class: usize) -> f32;
    /// The derivatives of [`Self::value`] times `grad`, into `slopes`.
    fn slopes(&self, row: &[f32], class: usize, grad: f32, slopes: &mut [f32]);
}

/// The loss of each row of `x`, (N, C) or (C), for the classes `index`, `u32` in the same shape but for a 1 in place of C.
/// `None` where that can't be fused.
pub(super) fn fused_rows<R: RowLoss>(x: &Tensor, index: &Tensor, loss: R) -> Result<Option<Tensor>> {
    if !is_plain(x) || !index.is_contiguous() || x.rank() > 2 || x.elem_count() == 0 {
        return Ok(None);
    }
    x.apply_op2(index, Rows { loss }).map(Some)
}

struct Rows<R> {
    loss: R,
}

impl<R: RowLoss> CustomOp2 for Rows<R> {
    fn name(&self) -> &'static str {
        "fused-row-loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_at: &Layout, index: &CpuStorage, i_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, classes) = (elements::<f32>(x, x_at)?, elements::<u32>(index, i_at)?);
        let width = x.len() / classes.len();
        let values = |x: &[f32], classes: &[u32], losses: &mut [f32]| {
            for ((row, &class), loss) in x.chunks_exact(width).zip(classes).zip(losses) {
                *loss = pulp::Arch::new().dispatch(RowValue { loss: self.loss, row, class: class as usize });
            }
        };
        let mut losses = vec![0f32; classes.len()];
        let rows = CHUNK.div_ceil(width);
        if classes.len() <= rows {
            values(x, classes, &mut losses);
        } else {
            let chunks = x.par_chunks(rows * width).zip(classes.par_chunks(rows)).zip(losses.par_chunks_mut(rows));
            chunks.for_each(|((x, classes), losses)| values(x, classes, losses));
        }
        let samples = &x_at.dims()[..x_at.dims().len() - 1];
        Ok((CpuStorage::F32(losses), samples.into()))
    }

    fn bwd(&self, x: &Tensor, index: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.flatten_all()?.to_vec1::<f32>()?;
        let (x_storage, x_at) = x.storage_and_layout();
        let (i_storage, i_at) = index.storage_and_layout();
        let (Storage::Cpu(x_storage), Storage::Cpu(i_storage)) = (&*x_storage, &*i_storage) else {
            bail!("fused-row-loss: needs to be on the CPU")
        };
        let (values, classes) = (elements::<f32>(x_storage, x_at)?, elements::<u32>(i_storage, i_at)?);
        let width = values.len() / classes.len();
        let fill = |x: &[f32], classes: &[u32], grad: &[f32], slopes: &mut [f32]| {
            let rows = x.chunks_exact(width).zip(classes).zip(grad).zip(slopes.chunks_exact_mut(width));
            for (((row, &class), &grad), slopes) in rows {
                pulp::Arch::new().dispatch(RowSlopes { loss: self.loss, row, class: class as usize, grad, slopes });
            }
        };
        let mut slopes = vec![0f32; values.len()];
        let rows = CHUNK.div_ceil(width);
        if classes.len() <= rows {
            fill(values, classes, &grad, &mut slopes);
        } else {
            let chunks = values.par_chunks(rows * width).zip(classes.par_chunks(rows)).zip(grad.par_chunks(rows));
            let chunks = chunks.zip(slopes.par_chunks_mut(rows * width));
            chunks.for_each(|(((x, classes), grad), slopes)| fill(x, classes, grad, slopes));
        }
        Ok((Some(Tensor::from_vec(slopes, x.shape(), x.device())?), None))
    }
}

struct RowValue<'a, R> {
    loss: R,
    row: &'a [f32],
    class: usize,
}

impl<R: RowLoss> WithSimd for RowValue<'_, R> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        self.loss.value(self.row, self.class)
    }
}

struct RowSlopes<'a, R> {
    loss: R,
    row: &'a [f32],
    class: usize,
    grad: f32,
    slopes: &'a mut [f32],
}

impl<R: RowLoss> WithSimd for RowSlopes<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.loss.slopes(self.row, self.class, self.grad, self.slopes)
    }
}

/// `Σ f(x)` over a row, in sixteen lanes.
#[inline(always)]
pub(super) fn row_sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    fold(row, 0.0, |sum, x| sum + f(x), |a, b| a + b)
}

/// The largest of a row. Of what is not a number nothing is promised: a softmax of it is none whatever is subtracted.
#[inline(always)]
pub(super) fn row_max(row: &[f32]) -> f32 {
    let larger = |max: f32, x: f32| if x <= max { max } else { x };
    fold(row, f32::NEG_INFINITY, larger, larger)
}

#[inline(always)]
fn fold(row: &[f32], start: f32, step: impl Fn(f32, f32) -> f32, join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 16];
    let chunks = row.chunks_exact(16);
    let rest = chunks.remainder().iter().fold(start, |sum, &x| step(sum, x));
    for chunk in chunks {
        for lane in 0..16 {
            lanes[lane] = step(lanes[lane], chunk[lane]);
        }
    }
    lanes.iter().fold(rest, |sum, &lane| join(sum, lane))
}
