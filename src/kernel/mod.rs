//! One pass over memory on the CPU: by elements ([`elements`]), by rows of up to three arguments ([`rows`]), by the paths of
//! a label sequence ([`paths`]), and products of matrices ([`product`]); and tensor ops with PyTorch's gradients ([`ops`]),
//! which compute the same on every device.
//!
//! Made of tensor ops, a loss takes a pass and a temporary for each op. What is small stays in the cache and hardly
//! notices; a million elements take ten times as long as they need. Here a loss is one formula for its value and its
//! derivatives, written once for single and double precision ([`scalar`]). How numbers are stored and where they lie
//! ([`number`]), what is reduced and whose gradient is wanted ([`fused`]) is the business of the walks, which are compiled
//! once for all losses. On other devices the tensor ops compute a loss, and the golden cases hold both to the same results.

mod elements;
mod fused;
mod number;
pub(crate) mod ops;
mod paths;
pub(crate) mod pool;
pub(crate) mod product;
mod rows;
pub(crate) mod scalar;
mod stash;

pub(crate) use elements::{Formula, fused_elements};
pub(crate) use fused::can_be_fused;
pub(crate) use paths::{Sequence, path_losses};
pub(crate) use rows::{
    Counted, Lanes, RowLoss, fused_rows, larger, largest, map, map_both, picked, row_slopes, sum_of,
};
pub(crate) use stash::keep;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Tensor, WithDType, bail};
use fused::on_host;
use number::{Source, with_number};
use pool::in_parallel_for;
use pulp::{Simd, WithSimd};
use scalar::Float;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one thread takes at a time, and the least that is worth a second thread.
pub(crate) const CHUNK: usize = 1 << 15;

/// How many elements a loop takes at once: as many as the widest vector holds. A remainder is filled up to as many.
pub(crate) const LANES: usize = 16;

/// Whether the host may work on the memory of this device: on that of the CPU, unless `CANDLE_LOSSES_KERNELS=off` has it
/// take the way of a GPU, of tensor ops alone, so that this can be tested where there is none.
pub(crate) fn is_host(device: &Device) -> bool {
    static IS_ON: OnceLock<bool> = OnceLock::new();
    device.is_cpu()
        && *IS_ON.get_or_init(|| std::env::var_os("CANDLE_LOSSES_KERNELS").is_none_or(|value| value != "off"))
}

/// Whether a tensor can be read as `f32` by the host.
fn is_single(t: &Tensor) -> bool {
    is_host(t.device()) && t.dtype() == DType::F32
}

/// Whether a tensor can be read as a slice of `f32`.
pub(crate) fn is_plain(t: &Tensor) -> bool {
    is_single(t) && t.is_contiguous()
}

/// The sum of all elements of a tensor on the host, in double precision.
pub(crate) fn sum(t: &Tensor) -> Result<f64> {
    with_elements(t, |values: &[f32]| {
        let mut sums = vec![0f64; values.len().div_ceil(CHUNK)];
        in_parallel_for(values.len(), values.chunks(CHUNK).zip(&mut sums), |(values, sum)| {
            *sum = pulp::Arch::new().dispatch(Sum(values));
        });
        sums.iter().sum()
    })
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

/// The elements of a contiguous tensor on the CPU.
pub(crate) fn elements<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice()?[start..end]),
        None => bail!("a tensor of shape {:?} is not contiguous", layout.dims()),
    }
}

/// What `f` makes of the elements of a tensor on the host, copied only if they don't follow each other.
pub(crate) fn with_elements<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    Ok(f(elements(on_host(&storage)?, layout)?))
}

/// The first element that is not `ok`, of a tensor of floats on the host, and where it is.
pub(crate) fn find_not(t: &Tensor, ok: impl Fn(f64) -> bool + Sync) -> Result<Option<(usize, f64)>> {
    let len = t.elem_count();
    with_number!(t.dtype(), T => {
        let (storage, layout) = t.storage_and_layout();
        let source = Source::<T>::new(on_host(&storage)?, layout)?;
        let first = AtomicUsize::new(len);
        in_parallel_for(len, (0..len).step_by(CHUNK), |start| {
            let mut room = Vec::new();
            let values = source.tile(start, CHUNK.min(len - start), &mut room);
            if !pulp::Arch::new().dispatch(All { values, ok: &ok }) {
                let bad = values.iter().position(|value| !ok(value.to_f64())).unwrap_or(0);
                first.fetch_min(start + bad, Ordering::Relaxed);
            }
        });
        let first = first.into_inner();
        Ok((first < len).then(|| (first, source.get(first).to_f64())))
    })
}

/// Whether all values are `ok`.
struct All<'a, W, F> {
    values: &'a [W],
    ok: &'a F,
}

impl<W: Float, F: Fn(f64) -> bool> WithSimd for All<'_, W, F> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        // Without a way out of the loop, so that it becomes vectors.
        self.values.iter().fold(true, |all, value| all & (self.ok)(value.to_f64()))
    }
}

/// `f` of all lanes, in halves.
#[inline(always)]
fn join<W: Copy>(mut lanes: [W; LANES], f: impl Fn(W, W) -> W) -> W {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn multiply<W: Float>(values: &mut Lanes<W>, by: &Lanes<W>) {
    for lane in 0..LANES {
        values[lane] *= by[lane];
    }
}
