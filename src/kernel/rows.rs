//! Losses of a row of scores against what holds there: a class, or a share of each.

use super::{CHUNK, LANES, Lanes, Number, Slopes, elements, in_parallel, is_plain_as, join};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor};
use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// What a row counts for: the class that holds there and a weight. `None` where the row is ignored.
pub(crate) type Counted = Option<(u32, f32)>;

/// A loss of a row of scores.
pub(crate) trait RowLoss: Send + Sync + 'static {
    /// The loss of row `i` of `scores`, and the unit of its derivatives, which take the scores' place; `None` where the row
    /// is ignored. `scores` are filled up with -∞, `max` is the largest, and `count` says how many they are. `other` is the
    /// row of the second argument, filled up with 0, or room for one where there is none.
    fn take(&self, i: usize, scores: &mut [Lanes], max: f32, count: usize, other: &mut [Lanes]) -> Option<(f32, f32)>;
}

/// Whether [`fused_rows`] takes these scores: (N, C) or (C), so that a sample's stand beside each other.
pub(crate) fn has_plain_rows(x: &Tensor) -> bool {
    let is_known = [DType::F32, DType::BF16, DType::F16].into_iter().any(|dtype| is_plain_as(x, dtype));
    is_known && (1..=2).contains(&x.rank()) && x.elem_count() > 0
}

/// `factor · Σ l` over the rows of `x`, or each `l`, one to a row, where there is no factor. A second argument has a row for
/// each of the first, and the same dtype.
pub(crate) fn fused_rows<R: RowLoss>(
    x: &Tensor,
    other: Option<&Tensor>,
    factor: Option<f64>,
    loss: R,
) -> Result<Tensor> {
    fn op<T: Number, R: RowLoss>(x: &Tensor, other: Option<&Tensor>, factor: Option<f64>, loss: R) -> Result<Tensor> {
        let op = Rows::<T, R> { has_other: other.is_some(), factor, loss, slopes: Slopes::new(&[x]) };
        x.apply_op2(other.unwrap_or(x), op)
    }
    match x.dtype() {
        DType::BF16 => op::<bf16, R>(x, other, factor, loss),
        DType::F16 => op::<f16, R>(x, other, factor, loss),
        _ => op::<f32, R>(x, other, factor, loss),
    }
}

struct Rows<T, R> {
    has_other: bool,
    factor: Option<f64>,
    loss: R,
    slopes: Slopes<1, T>,
}

#[allow(unsafe_code)]
impl<T: Number, R: RowLoss> CustomOp2 for Rows<T, R> {
    fn name(&self) -> &'static str {
        "fused-row-loss"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_at: &Layout, y: &CpuStorage, y_at: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = elements::<T>(x, x_at)?;
        let y = if self.has_other { elements::<T>(y, y_at)? } else { &[] };
        let (samples, width) = match x_at.dims() {
            [rows, width] => (Shape::from(*rows), *width),
            _ => (Shape::from(()), x.len()),
        };
        let rows = CHUNK.div_ceil(width);
        let mut losses = vec![0f32; if self.factor.is_none() { samples.elem_count() } else { 0 }];
        let mut sums = vec![0f64; samples.elem_count().div_ceil(rows)];
        let fill = |[slopes]: [&mut [MaybeUninit<T>]; 1]| {
            let (mut slopes, mut losses) = (slopes.chunks_mut(rows * width), losses.chunks_mut(rows));
            let mut y = y.chunks(rows * width);
            let tasks = x.chunks(rows * width).zip(&mut sums).enumerate().map(|(i, (x, sum))| {
                let chunk = RowChunk {
                    first: i * rows,
                    x,
                    y: y.next().unwrap_or_default(),
                    width,
                    slopes: slopes.next().unwrap_or_default(),
                    losses: losses.next().unwrap_or_default(),
                    loss: &self.loss,
                    factor: self.factor.unwrap_or(1.0) as f32,
                };
                (chunk, sum)
            });
            in_parallel(tasks.collect(), |(chunk, sum)| *sum = pulp::Arch::new().dispatch(chunk));
        };
        // SAFETY: there are as many slopes as scores, a row of them for each row, and of each row all is written.
        unsafe { self.slopes.fill(x_at.shape(), fill)? };
        Ok(match self.factor {
            Some(factor) => {
                (T::to_cpu_storage_owned(vec![T::from_f32((sums.iter().sum::<f64>() * factor) as f32)]), ().into())
            }
            None => (T::to_cpu_storage_owned(losses.into_iter().map(T::from_f32).collect()), samples),
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [gradient] = self.slopes.gradients(grad)?;
        Ok((gradient, None))
    }
}

struct RowChunk<'a, T, R> {
    first: usize,
    x: &'a [T],
    y: &'a [T],
    width: usize,
    slopes: &'a mut [MaybeUninit<T>],
    losses: &'a mut [f32],
    loss: &'a R,
    factor: f32,
}

impl<T: Number, R: RowLoss> WithSimd for RowChunk<'_, T, R> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        // One row at a time is worked on in a place that stays in the cache.
        let blocks = self.width.div_ceil(LANES);
        let (mut scores, mut other) = (vec![[0.0; LANES]; blocks], vec![[0.0; LANES]; blocks]);
        let mut slopes = self.slopes.chunks_exact_mut(self.width);
        let (mut y, mut losses) = (self.y.chunks_exact(self.width), self.losses.iter_mut());
        let mut sum = 0.0;
        for (i, x) in self.x.chunks_exact(self.width).enumerate() {
            let (slopes, place) = (slopes.next().unwrap_or_default(), losses.next());
            let max = copy_in(&mut scores, x);
            if let Some(y) = y.next() {
                T::widen(y, other.as_flattened_mut());
            }
            let taken = self.loss.take(self.first + i, &mut scores, max, self.width, &mut other);
            // An ignored row costs nothing, whatever stands in it.
            let Some((loss, unit)) = taken else {
                slopes.fill(MaybeUninit::new(T::from_f32(0.0)));
                continue;
            };
            sum += f64::from(loss);
            if let Some(place) = place {
                *place = loss;
            }
            let derivatives = &scores.as_flattened()[..slopes.len()];
            T::copy_scaled(simd, slopes, derivatives, self.factor * unit);
        }
        sum
    }
}

/// Copies `x` to the place of work, with -∞ behind it, and finds its largest. Of what is not a number nothing is promised:
/// a softmax of it is none whatever is subtracted.
#[inline(always)]
fn copy_in<T: Number>(work: &mut [Lanes], x: &[T]) -> f32 {
    let larger = |max: f32, x: f32| if x <= max { max } else { x };
    T::widen(x, work.as_flattened_mut());
    work.as_flattened_mut()[x.len()..].fill(f32::NEG_INFINITY);
    let mut max = [f32::NEG_INFINITY; LANES];
    for block in work {
        for lane in 0..LANES {
            max[lane] = larger(max[lane], block[lane]);
        }
    }
    join(max, larger)
}

/// Each `x` of a row becomes the first of `f(x)`; the sums of the others.
#[inline(always)]
pub(crate) fn map<const K: usize>(row: &mut [Lanes], f: impl Fn(f32) -> (f32, [f32; K])) -> [f32; K] {
    map_both(row, std::iter::repeat(&[0.0; LANES]), |x, _| f(x))
}

/// The same for each `x` and the `y` beside it.
#[inline(always)]
pub(crate) fn map_both<'a, const K: usize>(
    row: &mut [Lanes],
    other: impl IntoIterator<Item = &'a Lanes>,
    f: impl Fn(f32, f32) -> (f32, [f32; K]),
) -> [f32; K] {
    let mut sums = [[0.0; LANES]; K];
    for (block, other) in row.iter_mut().zip(other) {
        for lane in 0..LANES {
            let (mapped, summands) = f(block[lane], other[lane]);
            block[lane] = mapped;
            for (sums, summand) in sums.iter_mut().zip(summands) {
                sums[lane] += summand;
            }
        }
    }
    sums.map(|lanes| join(lanes, |a, b| a + b))
}
