//! Losses in one pass over their arguments, on the CPU in `f32`.
//!
//! Made of tensor ops, a loss takes a pass and a temporary for each op. What is small stays in the cache and hardly
//! notices; a million elements take ten times as long as they need. Here a loss is one scalar formula for its value and its
//! derivatives. Forward computes both at once, as they share most of their work, and backward hands the derivatives on.
//! Everywhere else the tensor ops compute the loss, and the golden cases hold both to the same results.

use candle_core::utils::barrier_pool;
use candle_core::{CpuStorage, CustomOp1, CustomOp3, DType, Device, Layout, Result, Shape, Tensor};
use candle_core::{WithDType, bail};
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What one thread takes at a time, and the least that is worth a second thread.
pub(crate) const CHUNK: usize = 1 << 15;

/// How many elements a loop takes at once: as many as the widest vector holds. A remainder is filled up to as many.
const LANES: usize = 16;
pub(super) type Lanes = [f32; LANES];

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

/// Does `work` on each task, on as many cores as there are. The threads are candle's own: others would have to share
/// the cores with those, which keep spinning for a while after each of candle's ops. They do one call's tasks at a time, so
/// `work` must not itself call this, nor an op of candle's.
pub(crate) fn in_parallel<T: Send>(tasks: Vec<T>, work: impl Fn(T) + Sync) {
    if tasks.len() < 2 {
        return tasks.into_iter().for_each(work);
    }
    let tasks = tasks.into_iter().map(|task| Mutex::new(Some(task))).collect::<Vec<_>>();
    barrier_pool().execute_chunked(tasks.len(), |range| {
        for task in &tasks[range] {
            if let Some(task) = task.lock().unwrap_or_else(PoisonError::into_inner).take() {
                work(task);
            }
        }
    });
}

/// Whether all values are `ok`.
pub(super) fn all<T: Copy + Send + Sync>(values: &[T], ok: impl Fn(T) -> bool + Sync) -> bool {
    let all = AtomicBool::new(true);
    in_parallel(values.chunks(CHUNK).collect(), |values| {
        if !pulp::Arch::new().dispatch(All { values, ok: &ok }) {
            all.store(false, Ordering::Relaxed);
        }
    });
    all.into_inner()
}

struct All<'a, T, F> {
    values: &'a [T],
    ok: &'a F,
}

impl<T: Copy, F: Fn(T) -> bool> WithSimd for All<'_, T, F> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        // Without a way out of the loop, so that it becomes vectors.
        self.values.iter().fold(true, |all, &value| all & (self.ok)(value))
    }
}

/// `factor · Σ l(a)` over the elements `a` of the arguments, where `loss` gives `l` and its derivatives by the first `D` of
/// them. `None` where that can't be fused: without a factor, or where somebody wants another gradient.
pub(super) fn fused<const N: usize, const D: usize, F>(
    args: [&Tensor; N],
    factor: Option<f64>,
    loss: F,
) -> Result<Option<Tensor>>
where
    F: Fn([f32; N]) -> (f32, [f32; D]) + Send + Sync + 'static,
{
    const { assert!(N == 2 || N == 3) };
    let Some(factor) = factor else { return Ok(None) };
    let fit = args.iter().all(|arg| is_plain(arg) && arg.dims() == args[0].dims());
    if !fit || args[0].elem_count() == 0 || args[D..].iter().any(|arg| arg.track_op()) {
        return Ok(None);
    }
    let op = Elements::<F, N, D> { factor, loss, slopes: Slopes::new(&args[..D]) };
    args[0].apply_op3(args[1], args[N - 1], op).map(Some)
}

/// An op of three arguments, of which the formula takes the first `N`.
struct Elements<F, const N: usize, const D: usize> {
    factor: f64,
    loss: F,
    slopes: Slopes<D>,
}

#[allow(unsafe_code)]
impl<F, const N: usize, const D: usize> CustomOp3 for Elements<F, N, D>
where
    F: Fn([f32; N]) -> (f32, [f32; D]) + Send + Sync,
{
    fn name(&self) -> &'static str {
        "fused-loss"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        y: &CpuStorage,
        y_at: &Layout,
        z: &CpuStorage,
        z_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut values: [&[f32]; N] = [&[]; N];
        for (values, (storage, layout)) in values.iter_mut().zip([(x, x_at), (y, y_at), (z, z_at)]) {
            *values = elements(storage, layout)?;
        }
        let mut sums = vec![0f64; values[0].len().div_ceil(CHUNK)];
        let fill = |slopes: [&mut [MaybeUninit<f32>]; D]| {
            let mut args = values.map(|values| values.chunks(CHUNK));
            let mut slopes = slopes.map(|slopes| slopes.chunks_mut(CHUNK));
            let tasks = sums.iter_mut().map(|sum| {
                let args = args.each_mut().map(|chunks| chunks.next().unwrap_or_default());
                (args, slopes.each_mut().map(|chunks| chunks.next().unwrap_or_default()), sum)
            });
            in_parallel(tasks.collect(), |(args, slopes, sum)| {
                let chunk = Chunk { args, slopes, loss: &self.loss, factor: self.factor as f32 };
                *sum = pulp::Arch::new().dispatch(chunk);
            });
        };
        // SAFETY: slopes and arguments have the same length and chunks, and of each chunk all is written.
        unsafe { self.slopes.fill(x_at.shape(), fill)? };
        Ok((CpuStorage::F32(vec![(sums.iter().sum::<f64>() * self.factor) as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [x, y, z] = self.slopes.gradients(grad)?;
        Ok((x, y, z))
    }
}

/// The gradients of a fused loss by its first `D` arguments, as forward found them.
struct Slopes<const D: usize> {
    /// Whether a backward pass can follow.
    wanted: bool,
    found: OnceLock<[Tensor; D]>,
}

impl<const D: usize> Slopes<D> {
    fn new(args: &[&Tensor]) -> Self {
        Self { wanted: args.iter().any(|arg| arg.track_op()), found: OnceLock::new() }
    }

    /// Keeps the gradients of arguments of this shape that `fill` writes. Where none are wanted it gets room for none.
    ///
    /// # Safety
    /// `fill` must write every element of the room that it gets.
    #[allow(unsafe_code)] // To write zeros first would take as long as the pass that overwrites them.
    unsafe fn fill(&self, shape: &Shape, fill: impl FnOnce([&mut [MaybeUninit<f32>]; D])) -> Result<()> {
        let len = if self.wanted { shape.elem_count() } else { 0 };
        let mut slopes = [(); D].map(|()| Vec::with_capacity(len));
        fill(slopes.each_mut().map(|slopes| &mut slopes.spare_capacity_mut()[..len]));
        if self.wanted {
            let mut found = Vec::with_capacity(D);
            for mut slopes in slopes {
                // SAFETY: the capacity is `len`, and as the caller promises so much is written.
                unsafe { slopes.set_len(len) };
                found.push(Tensor::from_vec(slopes, shape, &Device::Cpu)?);
            }
            // Set once, as an op runs forward once.
            let _ = found.try_into().map(|found| self.found.set(found));
        }
        Ok(())
    }

    /// The gradients by all `N` arguments, from that of the loss.
    fn gradients<const N: usize>(&self, grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let Some(slopes) = self.found.get() else { bail!("a fused loss was computed without its gradient") };
        let grad = grad.to_scalar::<f32>()?;
        let mut gradients = [const { None }; N];
        for (gradient, slopes) in gradients.iter_mut().zip(slopes) {
            // Where backward starts at the loss itself there is nothing left to do.
            *gradient = Some(if grad == 1.0 { slopes.clone() } else { slopes.affine(grad.into(), 0.0)? });
        }
        Ok(gradients)
    }
}

/// The sum of a chunk's losses, and into `slopes`, if there is room, their derivatives times `factor`. In single precision
/// and sixteen lanes here, in double precision over the chunks.
struct Chunk<'a, F, const N: usize, const D: usize> {
    args: [&'a [f32]; N],
    slopes: [&'a mut [MaybeUninit<f32>]; D],
    loss: &'a F,
    factor: f32,
}

// A struct, not a closure: of that it is not certain that it ends up inside the code for the processor's vectors.
impl<F, const N: usize, const D: usize> WithSimd for Chunk<'_, F, N, D>
where
    F: Fn([f32; N]) -> (f32, [f32; D]),
{
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let at_once = |args: [&Lanes; N]| {
            let (mut losses, mut slopes) = ([0.0; LANES], [[0.0; LANES]; D]);
            for lane in 0..LANES {
                let (loss, derivatives) = (self.loss)(args.map(|arg| arg[lane]));
                losses[lane] = loss;
                for (slopes, derivative) in slopes.iter_mut().zip(derivatives) {
                    slopes[lane] = derivative * self.factor;
                }
            }
            (losses, slopes)
        };
        let args = self.args.map(|arg| arg.as_chunks::<LANES>());
        let mut slopes = self.slopes.map(|slopes| slopes.as_chunks_mut::<LANES>());
        let wanted = slopes.iter().any(|(blocks, rest)| !blocks.is_empty() || !rest.is_empty());
        let mut sums = [0.0; LANES];
        for i in 0..args[0].0.len() {
            let (losses, derivatives) = at_once(args.map(|(blocks, _)| &blocks[i]));
            for lane in 0..LANES {
                sums[lane] += losses[lane];
            }
            if wanted {
                for ((blocks, _), derivatives) in slopes.iter_mut().zip(derivatives) {
                    blocks[i] = derivatives.map(MaybeUninit::new);
                }
            }
        }
        let mut last = [[0.0; LANES]; N];
        for (last, (_, rest)) in last.iter_mut().zip(args) {
            last[..rest.len()].copy_from_slice(rest);
        }
        let (losses, derivatives) = at_once(last.each_ref());
        for ((_, rest), derivatives) in slopes.iter_mut().zip(derivatives) {
            rest.write_copy_of_slice(&derivatives[..rest.len()]);
        }
        f64::from(join(sums, |a, b| a + b) + losses[..args[0].1.len()].iter().sum::<f32>())
    }
}

/// What a row counts for: the class that holds there and a weight. `None` where the row is ignored.
pub(super) type Counted = Option<(u32, f32)>;

/// A loss of a row of scores and the row's class.
pub(super) trait RowLoss: Copy + Send + Sync + 'static {
    /// The loss of a row of `count` scores, filled up with -∞, of which `max` is the largest. The row becomes that of its
    /// derivatives, in a unit that is returned as well.
    fn take(&self, row: &mut [Lanes], max: f32, class: usize, count: usize) -> (f32, f32);
}

/// Whether [`fused_rows`] takes these scores: (N, C) or (C), so that a sample's stand beside each other.
pub(super) fn has_plain_rows(x: &Tensor) -> bool {
    is_plain(x) && x.rank() <= 2 && x.elem_count() > 0
}

/// `factor · Σ w·l` over the rows of `x`, each with its class and its weight `w`.
pub(super) fn fused_rows<R: RowLoss>(x: &Tensor, rows: Vec<Counted>, factor: f64, loss: R) -> Result<Tensor> {
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
pub(super) fn map<const K: usize>(row: &mut [Lanes], f: impl Fn(f32) -> (f32, [f32; K])) -> [f32; K] {
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

/// `f` of all lanes, in halves.
#[inline(always)]
fn join(mut lanes: Lanes, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}
