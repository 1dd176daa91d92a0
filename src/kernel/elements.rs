//! Losses whose every element stands for itself.

use super::{CHUNK, LANES, Lanes, Slopes, elements, in_parallel, is_plain, join};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// `factor · Σ l(a)` over the elements `a` of the arguments, where `loss` gives `l` and its derivatives by the first `D` of
/// them. `None` where that can't be fused: without a factor, or where somebody wants another gradient.
pub(crate) fn fused<const N: usize, const D: usize, F>(
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
