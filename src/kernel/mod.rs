//! One pass over memory on the CPU: by elements ([`elements`]), by rows ([`rows`]), and products of matrices; and tensor ops
//! with PyTorch's gradients ([`ops`]), which compute the same on every device.
//!
//! Made of tensor ops, a loss takes a pass and a temporary for each op. What is small stays in the cache and hardly
//! notices; a million elements take ten times as long as they need. Here a loss is one scalar formula for its value and its
//! derivatives. Forward computes both at once, as they share most of their work, and backward hands the derivatives on.
//! Everywhere else the tensor ops compute the loss, and the golden cases hold both to the same results.

mod elements;
pub(crate) mod ops;
#[cfg(feature = "train")]
pub(crate) mod product;
mod rows;
pub(crate) mod scalar;

pub(crate) use elements::fused;
pub(crate) use rows::{Counted, RowLoss, fused_rows, has_plain_rows, map};

use candle_core::utils::barrier_pool;
use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Tensor, WithDType, bail};
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What one thread takes at a time, and the least that is worth a second thread.
pub(crate) const CHUNK: usize = 1 << 15;

/// How many elements a loop takes at once: as many as the widest vector holds. A remainder is filled up to as many.
const LANES: usize = 16;
pub(crate) type Lanes = [f32; LANES];

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
