//! Losses whose every element stands for itself.

use super::fused::{Arg, Walk, Wanted, can_be_fused, fused, on_host};
use super::number::{Number, Sink, Source};
use super::pool::in_parallel_for;
use super::scalar::{Float, of};
use super::{CHUNK, LANES, join, multiply};
use candle_core::{Result, Tensor};
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// The loss of one element of each argument.
pub(crate) trait Formula<const N: usize>: Copy + Send + Sync + 'static {
    /// The loss, and its derivatives by the arguments. Of those that nobody asks for no more than the code is there.
    fn at<W: Float>(&self, args: [W; N]) -> (W, [W; N]);
}

/// The losses of the elements of all arguments, each times its `weight`, which broadcasts and is of the precision that is
/// computed in; and their sum times `factor`, if there is one. `None` where that can't be fused.
pub(crate) fn fused_elements<const N: usize>(
    args: [&Tensor; N],
    weight: Option<&Tensor>,
    factor: Option<f64>,
    formula: impl Formula<N>,
) -> Result<Option<Tensor>> {
    if !can_be_fused(&args) {
        return Ok(None);
    }
    let weight = weight.map(|weight| weight.detach().broadcast_as(args[0].shape())).transpose()?;
    fused(args, factor, Elements { formula: Box::new(formula), weight }).map(Some)
}

struct Elements<const N: usize> {
    formula: Box<dyn AnyFormula<N>>,
    /// In the precision that is computed in.
    weight: Option<Tensor>,
}

/// How many elements are worked on at once, so few that they stay in the fastest cache.
const TILE: usize = 1024;

#[allow(unsafe_code)]
impl<const N: usize> Walk<N> for Elements<N> {
    fn losses(&self, dims: &[usize]) -> Vec<usize> {
        dims.to_vec()
    }

    unsafe fn walk<T: Number>(&self, args: [&Arg; N], wanted: Wanted<T, N>) -> Result<f64> {
        let len = args[0].layout.shape().elem_count();
        let mut sources = Vec::with_capacity(N);
        for arg in args {
            sources.push(Source::<T>::new(arg.storage, arg.layout)?);
        }
        let weight = self.weight.as_ref().map(Tensor::storage_and_layout);
        let weight = match &weight {
            Some((storage, layout)) => Some(Source::<T::Wide>::new(on_host(storage)?, layout)?),
            None => None,
        };
        let Wanted { losses, slopes, factor, grad } = wanted;
        let factor = of::<T::Wide>(factor);
        // What nobody wants is not computed.
        let asked = match (grad.is_none(), slopes.iter().all(Option::is_none)) {
            (_, true) => Asked::Losses,
            (false, false) => Asked::Slopes,
            (true, false) => Asked::Both,
        };

        let mut sums = vec![0f64; len.div_ceil(CHUNK)];
        let mut losses = losses.map(|losses| losses.chunks_mut(CHUNK));
        let mut slopes = slopes.map(|slopes| slopes.map(|slopes| slopes.chunks_mut(CHUNK)));
        let tasks = sums.iter_mut().enumerate().map(|(chunk, sum)| {
            let losses = losses.as_mut().and_then(Iterator::next).map(Sink::new);
            let slopes = slopes.each_mut().map(|slopes| slopes.as_mut().and_then(Iterator::next).map(Sink::new));
            (chunk * CHUNK, losses, slopes, sum)
        });
        in_parallel_for(len, tasks, |(start, mut losses, mut slopes, sum)| {
            let mut rooms = [const { Vec::new() }; N];
            let (mut weight_room, mut grad_room) = (Vec::new(), Vec::new());
            let end = len.min(start + CHUNK);
            for at in (start..end).step_by(TILE) {
                let count = TILE.min(end - at);
                let mut each = sources.iter().zip(&mut rooms);
                let args = [(); N].map(|()| each.next().map_or(&[][..], |(source, room)| source.tile(at, count, room)));
                let weight = weight.as_ref().map(|weight| weight.tile(at, count, &mut weight_room));
                let grad = grad.as_ref().map(|grad| grad.tile(at, count, &mut grad_room));
                let tile = Tile {
                    args,
                    weight,
                    grad,
                    factor,
                    losses: losses.as_mut().map(|sink| sink.room(at - start, count)),
                    slopes: slopes.each_mut().map(|sink| sink.as_mut().map(|sink| sink.room(at - start, count))),
                };
                *sum += tile.run(&*self.formula, asked);
                // SAFETY: of a tile all is written.
                unsafe {
                    losses.iter_mut().chain(slopes.iter_mut().flatten()).for_each(|sink| sink.keep(at - start, count))
                }
            }
        });
        Ok(sums.iter().sum())
    }
}

/// What is to be computed.
#[derive(Clone, Copy)]
pub(crate) enum Asked {
    Losses,
    Slopes,
    Both,
}

/// A formula behind a pointer: the way through the elements is compiled once for all formulas.
pub(crate) trait AnyFormula<const N: usize>: Send + Sync + 'static {
    /// Writes what there is room for, and gives the sums of the losses by lanes. A tile has a whole number of lanes.
    fn single(&self, tile: Tile<f32, N>, asked: Asked) -> [f32; LANES];

    /// The same in double precision.
    fn double(&self, tile: Tile<f64, N>, asked: Asked) -> [f64; LANES];
}

impl<F: Formula<N>, const N: usize> AnyFormula<N> for F {
    fn single(&self, tile: Tile<f32, N>, asked: Asked) -> [f32; LANES] {
        pulp::Arch::new().dispatch(Job { formula: self, tile, asked })
    }

    fn double(&self, tile: Tile<f64, N>, asked: Asked) -> [f64; LANES] {
        pulp::Arch::new().dispatch(Job { formula: self, tile, asked })
    }
}

/// Elements of all arguments, and room for what comes of them.
pub(crate) struct Tile<'a, W, const N: usize> {
    args: [&'a [W]; N],
    weight: Option<&'a [W]>,
    grad: Option<&'a [W]>,
    factor: W,
    losses: Option<&'a mut [MaybeUninit<W>]>,
    slopes: [Option<&'a mut [MaybeUninit<W>]>; N],
}

impl<W: Float, const N: usize> Tile<'_, W, N> {
    /// The sum of the losses.
    fn run(self, formula: &dyn AnyFormula<N>, asked: Asked) -> f64 {
        let len = self.args[0].len();
        let whole = len / LANES * LANES;
        let args = self.args.map(|arg| arg.split_at(whole));
        let scales = [self.weight, self.grad].map(|scale| scale.map(|scale| scale.split_at(whole)));
        let mut losses = self.losses.map(|losses| losses.split_at_mut(whole));
        let mut slopes = self.slopes.map(|slopes| slopes.map(|slopes| slopes.split_at_mut(whole)));
        let sums = W::elements(
            formula,
            Tile {
                args: args.map(|(args, _)| args),
                weight: scales[0].map(|(weight, _)| weight),
                grad: scales[1].map(|(grad, _)| grad),
                factor: self.factor,
                losses: losses.as_mut().map(|(losses, _)| &mut **losses),
                slopes: slopes.each_mut().map(|slopes| slopes.as_mut().map(|(slopes, _)| &mut **slopes)),
            },
            asked,
        );
        let sum = join(sums, |a, b| a + b).to_f64();
        let rest = len - whole;
        if rest == 0 {
            return sum;
        }
        // The last are filled up with 0, and what becomes of those is nobody's.
        let filled = |values: &[W]| {
            let mut filled = [W::ZERO; LANES];
            filled[..rest].copy_from_slice(values);
            filled
        };
        let args = args.map(|(_, rest)| filled(rest));
        let [weight, grad] = scales.map(|scale| scale.map(|(_, rest)| filled(rest)));
        let mut rest_losses = [MaybeUninit::uninit(); LANES];
        let mut rest_slopes = [[MaybeUninit::uninit(); LANES]; N];
        let sums = W::elements(
            formula,
            Tile {
                args: args.each_ref().map(|arg| &arg[..]),
                weight: weight.as_ref().map(|weight| &weight[..]),
                grad: grad.as_ref().map(|grad| &grad[..]),
                factor: self.factor,
                losses: Some(&mut rest_losses),
                slopes: rest_slopes.each_mut().map(|slopes| Some(&mut slopes[..])),
            },
            asked,
        );
        if let Some((_, to)) = losses {
            to.copy_from_slice(&rest_losses[..rest]);
        }
        for (to, slopes) in slopes.into_iter().zip(&rest_slopes) {
            if let Some((_, to)) = to {
                to.copy_from_slice(&slopes[..rest]);
            }
        }
        sum + sums[..rest].iter().copied().sum::<W>().to_f64()
    }
}

// A struct, not a closure: of that it is not certain that it ends up inside the code for the processor's vectors.
struct Job<'a, F, W, const N: usize> {
    formula: &'a F,
    tile: Tile<'a, W, N>,
    asked: Asked,
}

impl<F: Formula<N>, W: Float, const N: usize> WithSimd for Job<'_, F, W, N> {
    type Output = [W; LANES];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [W; LANES] {
        match self.asked {
            Asked::Losses => self.run::<true, 0>(),
            Asked::Slopes => self.run::<false, N>(),
            Asked::Both => self.run::<true, N>(),
        }
    }
}

impl<F: Formula<N>, W: Float, const N: usize> Job<'_, F, W, N> {
    /// The losses, or 0, and the derivatives by the first `K` arguments.
    #[inline(always)]
    fn run<const LOSSES: bool, const K: usize>(self) -> [W; LANES] {
        let Self { formula, tile, .. } = self;
        // Of its own, so that nothing that is written could change it and the options stay in registers.
        let formula = *formula;
        let blocks = tile.args[0].len() / LANES;
        let args = tile.args.map(|arg| &arg.as_chunks::<LANES>().0[..blocks]);
        let [weight, grad] =
            [tile.weight, tile.grad].map(|scale| scale.map(|scale| &scale.as_chunks::<LANES>().0[..blocks]));
        let mut losses_to = tile.losses.map(|losses| &mut losses.as_chunks_mut::<LANES>().0[..blocks]);
        let mut slopes_to =
            tile.slopes.map(|slopes| slopes.map(|slopes| &mut slopes.as_chunks_mut::<LANES>().0[..blocks]));
        let mut sums = [W::ZERO; LANES];
        for i in 0..blocks {
            let (mut losses, mut slopes) = ([W::ZERO; LANES], [[W::ZERO; LANES]; K]);
            let block = args.map(|arg| &arg[i]);
            for lane in 0..LANES {
                let (loss, derivatives) = formula.at(block.map(|arg| arg[lane]));
                if LOSSES {
                    losses[lane] = loss;
                }
                // By number: an iterator over them keeps the loop from becoming vectors.
                #[allow(clippy::needless_range_loop)]
                for k in 0..K {
                    slopes[k][lane] = derivatives[k] * tile.factor;
                }
            }
            if let Some(weight) = weight {
                multiply(&mut losses, &weight[i]);
                slopes.iter_mut().for_each(|slopes| multiply(slopes, &weight[i]));
            }
            if let Some(grad) = grad {
                slopes.iter_mut().for_each(|slopes| multiply(slopes, &grad[i]));
            }
            for lane in 0..LANES {
                sums[lane] += losses[lane];
            }
            if let Some(to) = &mut losses_to {
                to[i] = losses.map(MaybeUninit::new);
            }
            for (to, slopes) in slopes_to.iter_mut().zip(slopes) {
                if let Some(to) = to {
                    to[i] = slopes.map(MaybeUninit::new);
                }
            }
        }
        sums
    }
}
