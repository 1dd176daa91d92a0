//! Losses of a row of scores and the class that holds there.

use super::{CHUNK, LANES, Lanes, Slopes, elements, in_parallel, is_plain, join};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// What a row counts for: the class that holds there and a weight. `None` where the row is ignored.
pub(crate) type Counted = Option<(u32, f32)>;

/// A loss of a row of scores and the row's class.
pub(crate) trait RowLoss: Copy + Send + Sync + 'static {
    /// The loss of a row of `count` scores, filled up with -∞, of which `max` is the largest. The row becomes that of its
    /// derivatives, in a unit that is returned as well.
    fn take(&self, row: &mut [Lanes], max: f32, class: usize, count: usize) -> (f32, f32);
}

/// Whether [`fused_rows`] takes these scores: (N, C) or (C), so that a sample's stand beside each other.
pub(crate) fn has_plain_rows(x: &Tensor) -> bool {
    is_plain(x) && x.rank() <= 2 && x.elem_count() > 0
}

/// `factor · Σ w·l` over the rows of `x`, each with its class and its weight `w`.
pub(crate) fn fused_rows<R: RowLoss>(x: &Tensor, rows: Vec<Counted>, factor: f64, loss: R) -> Result<Tensor> {
    x.apply_op1(Rows { rows, factor, loss, slopes: Slopes::new(&[x]) })
}

struct Rows<R> {
    rows: Vec<Counted>,
    factor: f64,
    loss: R,
    slopes: Slopes<1>,
}

#[allow(unsafe_code)]
impl<R: RowLoss> CustomOp1 for Rows<R> {
    fn name(&self) -> &'static str {
        "fused-row-loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements::<f32>(x, x_at)?;
        let width = x.len() / self.rows.len();
        let rows = CHUNK.div_ceil(width);
        let mut sums = vec![0f64; self.rows.len().div_ceil(rows)];
        let fill = |[slopes]: [&mut [MaybeUninit<f32>]; 1]| {
            let mut slopes = slopes.chunks_mut(rows * width);
            let tasks = self.rows.chunks(rows).zip(x.chunks(rows * width)).zip(&mut sums);
            let tasks = tasks.map(|((rows, x), sum)| (rows, x, slopes.next().unwrap_or_default(), sum));
            in_parallel(tasks.collect(), |(rows, x, slopes, sum)| {
                let chunk = RowChunk { rows, x, width, slopes, loss: self.loss, factor: self.factor };
                *sum = pulp::Arch::new().dispatch(chunk);
            });
        };
        // SAFETY: there are as many slopes as scores, a row of them for each row, and of each row all is written.
        unsafe { self.slopes.fill(x_at.shape(), fill)? };
        Ok((CpuStorage::F32(vec![(sums.iter().sum::<f64>() * self.factor) as f32]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [gradient] = self.slopes.gradients(grad)?;
        Ok(gradient)
    }
}

struct RowChunk<'a, R> {
    rows: &'a [Counted],
    x: &'a [f32],
    width: usize,
    slopes: &'a mut [MaybeUninit<f32>],
    loss: R,
    factor: f64,
}

impl<R: RowLoss> WithSimd for RowChunk<'_, R> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        // One row at a time is worked on in a place that stays in the cache.
        let mut work = vec![[0.0; LANES]; self.width.div_ceil(LANES)];
        let mut slopes = self.slopes.chunks_exact_mut(self.width);
        let mut sum = 0.0;
        for (row, x) in self.rows.iter().zip(self.x.chunks_exact(self.width)) {
            let slopes = slopes.next().unwrap_or_default();
            // An ignored row costs nothing, whatever stands in it.
            let Some((class, weight)) = *row else {
                slopes.fill(MaybeUninit::new(0.0));
                continue;
            };
            let max = copy_in(&mut work, x);
            let (loss, unit) = self.loss.take(&mut work, max, class as usize, self.width);
            sum += f64::from(weight) * f64::from(loss);
            copy_out(
                simd,
                slopes,
                &work.as_flattened()[..slopes.len()],
                (f64::from(weight) * self.factor) as f32 * unit,
            );
        }
        sum
    }
}

/// Each `x` of a row becomes the first of `f(x)`; the sums of the others.
#[inline(always)]
pub(crate) fn map<const K: usize>(row: &mut [Lanes], f: impl Fn(f32) -> (f32, [f32; K])) -> [f32; K] {
    let mut sums = [[0.0; LANES]; K];
    for block in row {
        for lane in 0..LANES {
            let (mapped, summands) = f(block[lane]);
            block[lane] = mapped;
            for (sums, summand) in sums.iter_mut().zip(summands) {
                sums[lane] += summand;
            }
        }
    }
    sums.map(|lanes| join(lanes, |a, b| a + b))
}

/// Copies `x` to the place of work, with -∞ behind it, and finds its largest. Of what is not a number nothing is promised:
/// a softmax of it is none whatever is subtracted.
#[inline(always)]
fn copy_in(work: &mut [Lanes], x: &[f32]) -> f32 {
    let larger = |max: f32, x: f32| if x <= max { max } else { x };
    let (blocks, rest) = x.as_chunks::<LANES>();
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut last = max;
    last[..rest.len()].copy_from_slice(rest);
    for (to, from) in work.iter_mut().zip(blocks.iter().chain([&last])) {
        *to = *from;
        for lane in 0..LANES {
            max[lane] = larger(max[lane], from[lane]);
        }
    }
    join(max, larger)
}

/// Writes `work` times `scale` to `slopes`, as many as there are to be.
#[inline(always)]
fn copy_out<S: Simd>(simd: S, slopes: &mut [MaybeUninit<f32>], work: &[f32], scale: f32) {
    let (blocks, rest) = S::as_uninit_mut_simd_f32s(slopes);
    let (from, from_rest) = S::as_simd_f32s(work);
    let factor = simd.splat_f32s(scale);
    for (to, from) in blocks.iter_mut().zip(from) {
        to.write(simd.mul_f32s(*from, factor));
    }
    for (to, from) in rest.iter_mut().zip(from_rest) {
        to.write(from * scale);
    }
}
