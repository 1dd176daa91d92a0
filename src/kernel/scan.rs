//! Passes over the elements of one tensor on the CPU.

use super::element::with_element;
use super::lanes::{CHUNK, LANES};
use super::parallel::in_parallel;
use super::scalar::Float;
use super::storage::{with_elements, with_storages};
use super::strided::Strided;
use candle_core::{Result, Tensor, WithDType};
use pulp::{Simd, WithSimd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The sum of all elements of an `f32` tensor, computed in `f64`.
pub(crate) fn sum(t: &Tensor) -> Result<f64> {
    with_elements(t, |values: &[f32]| {
        let mut sums = vec![0f64; values.len().div_ceil(CHUNK)];
        in_parallel(values.chunks(CHUNK).zip(&mut sums), |(values, sum)| {
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

/// The first element that is not `ok`, and its index.
pub(crate) fn find_invalid(t: &Tensor, ok: impl Fn(f64) -> bool + Sync) -> Result<Option<(usize, f64)>> {
    let len = t.elem_count();
    with_element!(t.dtype(), T => with_storages(&[t], |storages| {
        let (storage, layout) = storages[0];
        let source = Strided::<T>::new(storage.as_slice()?, layout);
        let first = AtomicUsize::new(len);
        in_parallel((0..len).step_by(CHUNK), |start| {
            let mut buffer = Vec::new();
            let values = source.tile(start, CHUNK.min(len - start), &mut buffer);
            if !pulp::Arch::new().dispatch(All { values, ok: &ok }) {
                let bad = values.iter().position(|value| !ok(value.to_f64())).unwrap_or(0);
                first.fetch_min(start + bad, Ordering::Relaxed);
            }
        });
        let first = first.into_inner();
        Ok((first < len).then(|| (first, source.get(first).to_f64())))
    }))
}

struct All<'a, W, F> {
    values: &'a [W],
    ok: &'a F,
}

impl<W: Float, F: Fn(f64) -> bool> WithSimd for All<'_, W, F> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> bool {
        // Without an early return, so that the loop becomes vector instructions.
        self.values.iter().fold(true, |all, value| all & (self.ok)(value.to_f64()))
    }
}
