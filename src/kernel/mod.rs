//! One pass over memory on the CPU: by elements ([`elements`]), by rows ([`rows`]), and products of matrices; and tensor ops
//! with PyTorch's gradients ([`ops`]), which compute the same on every device.
//!
//! Made of tensor ops, a loss takes a pass and a temporary for each op. What is small stays in the cache and hardly
//! notices; a million elements take ten times as long as they need. Here a loss is one scalar formula for its value and its
//! derivatives. Forward computes both at once, as they share most of their work, and backward hands the derivatives on.
//! Everywhere else the tensor ops compute the loss, and the golden cases hold both to the same results.

mod elements;
pub(crate) mod ops;
pub(crate) mod product;
mod rows;
pub(crate) mod scalar;

pub(crate) use elements::fused;
pub(crate) use rows::{Counted, RowLoss, fused_rows, has_plain_rows, map, map_both};

use candle_core::utils::barrier_pool;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, Tensor, WithDType, bail};
use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What one thread takes at a time, and the least that is worth a second thread.
pub(crate) const CHUNK: usize = 1 << 15;

/// How many elements a loop takes at once: as many as the widest vector holds. A remainder is filled up to as many.
const LANES: usize = 16;
pub(crate) type Lanes = [f32; LANES];

/// Whether the host may work on the memory of this device: on that of the CPU, unless `CANDLE_LOSSES_KERNELS=off` has it
/// take the way of a GPU, of tensor ops alone, so that this can be tested where there is none.
pub(crate) fn is_host(device: &Device) -> bool {
    static IS_ON: OnceLock<bool> = OnceLock::new();
    device.is_cpu()
        && *IS_ON.get_or_init(|| std::env::var_os("CANDLE_LOSSES_KERNELS").is_none_or(|value| value != "off"))
}

/// Whether a tensor can be read as a slice of `f32`.
pub(crate) fn is_plain(t: &Tensor) -> bool {
    is_plain_as(t, DType::F32)
}

/// The same for another dtype.
pub(crate) fn is_plain_as(t: &Tensor, dtype: DType) -> bool {
    is_host(t.device()) && t.dtype() == dtype && t.is_contiguous()
}

/// The sum of all elements of a tensor on the host, in double precision.
pub(crate) fn sum(t: &Tensor) -> Result<f64> {
    let t = t.contiguous()?;
    let (storage, layout) = t.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("a sum on the host of a tensor that is not there") };
    let values = elements::<f32>(storage, layout)?;
    let mut sums = vec![0f64; values.len().div_ceil(CHUNK)];
    in_parallel(values.chunks(CHUNK).zip(&mut sums).collect(), |(values, sum)| {
        *sum = pulp::Arch::new().dispatch(Sum(values));
    });
    Ok(sums.iter().sum())
}

struct Sum<'a>(&'a [f32]);

impl WithSimd for Sum<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let (blocks, rest) = self.0.as_chunks::<LANES>();
        let mut sums = [0f64; LANES];
        for block in blocks {
            for lane in 0..LANES {
                sums[lane] += f64::from(block[lane]);
            }
        }
        sums.iter().sum::<f64>() + rest.iter().map(|&value| f64::from(value)).sum::<f64>()
    }
}

/// A float that is read and written in its own precision, and worked on in single precision.
pub(crate) trait Number: WithDType {
    fn from_f32(value: f32) -> Self;

    /// Copies to the first places of `to`.
    fn widen(from: &[Self], to: &mut [f32]);

    /// Writes `from` times `scale`, as many as there is room for.
    #[inline(always)]
    fn copy_scaled<S: Simd>(_: S, to: &mut [MaybeUninit<Self>], from: &[f32], scale: f32) {
        for (to, from) in to.iter_mut().zip(from) {
            to.write(Self::from_f32(from * scale));
        }
    }
}

impl Number for f32 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn widen(from: &[Self], to: &mut [f32]) {
        to[..from.len()].copy_from_slice(from);
    }

    #[inline(always)]
    fn copy_scaled<S: Simd>(simd: S, to: &mut [MaybeUninit<f32>], from: &[f32], scale: f32) {
        let (blocks, rest) = S::as_uninit_mut_simd_f32s(to);
        let (from, from_rest) = S::as_simd_f32s(from);
        let factor = simd.splat_f32s(scale);
        for (to, from) in blocks.iter_mut().zip(from) {
            to.write(simd.mul_f32s(*from, factor));
        }
        for (to, from) in rest.iter_mut().zip(from_rest) {
            to.write(from * scale);
        }
    }
}

macro_rules! half_number {
    ($t:ty) => {
        impl Number for $t {
            #[inline(always)]
            fn from_f32(value: f32) -> Self {
                <$t>::from_f32(value)
            }

            #[inline(always)]
            fn widen(from: &[Self], to: &mut [f32]) {
                from.iter().zip(to).for_each(|(from, to)| *to = from.to_f32());
            }
        }
    };
}
half_number!(bf16);
half_number!(f16);

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
pub(crate) fn all<T: Copy + Send + Sync>(values: &[T], ok: impl Fn(T) -> bool + Sync) -> bool {
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

/// The gradients of a fused loss by its first `D` arguments, as forward found them: of the reduced loss, or of each
/// row's.
struct Slopes<const D: usize, T = f32> {
    /// Whether a backward pass can follow.
    wanted: bool,
    found: OnceLock<[Tensor; D]>,
    dtype: PhantomData<T>,
}

impl<const D: usize, T: Number> Slopes<D, T> {
    fn new(args: &[&Tensor]) -> Self {
        Self { wanted: args.iter().any(|arg| arg.track_op()), found: OnceLock::new(), dtype: PhantomData }
    }

    /// Keeps the gradients of arguments of this shape that `fill` writes. Where none are wanted it gets room for none.
    ///
    /// # Safety
    /// `fill` must write every element of the room that it gets.
    #[allow(unsafe_code)] // To write zeros first would take as long as the pass that overwrites them.
    unsafe fn fill(&self, shape: &Shape, fill: impl FnOnce([&mut [MaybeUninit<T>]; D])) -> Result<()> {
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
        let mut gradients = [const { None }; N];
        for (gradient, slopes) in gradients.iter_mut().zip(slopes) {
            *gradient = Some(match grad.rank() {
                0 => ops::scaled(slopes, grad)?,
                rank => slopes.broadcast_mul(&grad.unsqueeze(rank)?)?,
            });
        }
        Ok(gradients)
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
