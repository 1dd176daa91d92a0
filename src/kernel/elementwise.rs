//! Losses of single elements: one formula each, for the CPU and for every other device.

use super::cpu::{Arg, GradOutputs, LossKernel, cpu_loss};
use super::element::{Element, with_element};
use super::expr::{Expr, Recording};
use super::lanes::{CHUNK, LANES, multiply, reduce_lanes};
use super::ops::{self, Scaled};
use super::parallel::in_parallel;
use super::scalar::{Float, Scalar};
use super::strided::{OutputTile, Strided};
use super::switches::has_kernels_for;
use super::tensor_loss::tensor_loss;
use candle_core::{Result, Tensor};
use pulp::{Simd, WithSimd};
use std::array::from_fn;
use std::mem::MaybeUninit;

/// The loss of one element of each argument, and its gradients by the arguments.
pub(crate) trait Elementwise<const N: usize>: Copy + Send + Sync + 'static {
    fn value_and_grad<S: Scalar>(self, args: [S; N]) -> (S, [S; N]);
}

/// The losses of all elements, each times its `weight`, and their sum times `factor` if there is one.
///
/// The arguments have one shape, float dtype and device. `weight` broadcasts to that shape, has the precision that is
/// computed in, and is not differentiated.
pub(crate) fn elementwise_loss<const N: usize>(
    args: [&Tensor; N],
    weight: Option<&Tensor>,
    factor: Option<f64>,
    formula: impl Elementwise<N>,
) -> Result<Tensor> {
    let weight = weight.map(|weight| weight.detach().broadcast_as(args[0].shape())).transpose()?;
    if has_kernels_for(&args) {
        return with_element!(args[0].dtype(), T => {
            let formula = Box::new(formula) as Box<dyn TileFormula<<T as Element>::Compute, N>>;
            cpu_loss::<T, N>(args, factor, ElementwiseKernel { formula, weight })
        });
    }
    let input = args[0];
    let args = ops::to_compute(args)?;
    let loss = tensor_loss(args.each_ref(), None, factor.into(), None, move |args, wanted| {
        let recording = Recording::default();
        let (value, grads) = formula.value_and_grad::<Expr>(from_fn(|i| recording.arg(i)));
        let wanted_grads = grads.into_iter().zip(wanted).filter_map(|(grad, is_wanted)| is_wanted.then_some(grad));
        let outputs = [value].into_iter().chain(wanted_grads).collect::<Vec<_>>();
        let mut outputs = recording.evaluate(&outputs, &args)?.into_iter();
        let weigh = |tensor: Tensor| match &weight {
            Some(weight) => tensor.broadcast_mul(weight),
            None => Ok(tensor),
        };
        let losses = match outputs.next().flatten() {
            Some(losses) => Scaled { tensor: weigh(losses.tensor)?, factor: losses.factor },
            None => ops::constant(0.0, args[0])?.into(),
        };
        let mut grads = [const { None }; N];
        for grad in grads.iter_mut().zip(wanted).filter_map(|(grad, is_wanted)| is_wanted.then_some(grad)) {
            if let Some(output) = outputs.next().flatten() {
                *grad = Some(Scaled { tensor: weigh(output.tensor)?, factor: output.factor });
            }
        }
        Ok((losses, grads))
    })?;
    ops::like(&loss, input)
}

/// A formula as a kernel, in the precision `W`.
struct ElementwiseKernel<W, const N: usize> {
    formula: Box<dyn TileFormula<W, N>>,
    weight: Option<Tensor>,
}

/// The number of elements that are computed at once: so few that they stay in the fastest cache.
const TILE: usize = 1024;

// SAFETY: the tiles of the chunks cover every element, and a tile is written whole.
#[allow(unsafe_code)]
unsafe impl<T: Element, const N: usize> LossKernel<T, N> for ElementwiseKernel<T::Compute, N> {
    fn loss_dims(&self, arg_dims: &[usize]) -> Vec<usize> {
        arg_dims.to_vec()
    }

    fn weight(&self) -> Option<&Tensor> {
        self.weight.as_ref()
    }

    fn run(&self, args: [Arg<T>; N], weight: Option<Arg<T::Compute>>, outputs: GradOutputs<T, N>) -> Result<f64> {
        let len = args[0].layout.shape().elem_count();
        let args = args.map(|arg| Strided::new(arg.values, arg.layout));
        let weight = weight.map(|weight| Strided::new(weight.values, weight.layout));
        let GradOutputs { losses, grads, factor, loss_grad } = outputs;
        let factor = T::Compute::constant(factor);
        let mask = match (loss_grad.is_none(), grads.iter().all(Option::is_none)) {
            (_, true) => OutputMask::Losses,
            (false, false) => OutputMask::Grads,
            (true, false) => OutputMask::Both,
        };

        let mut sums = vec![0f64; len.div_ceil(CHUNK)];
        let mut losses = losses.map(|losses| losses.chunks_mut(CHUNK));
        let mut grads = grads.map(|grad| grad.map(|grad| grad.chunks_mut(CHUNK)));
        let tasks = sums.iter_mut().enumerate().map(|(chunk, sum)| {
            let losses = losses.as_mut().and_then(Iterator::next).map(OutputTile::new);
            let grads = grads.each_mut().map(|grad| grad.as_mut().and_then(Iterator::next).map(OutputTile::new));
            (chunk * CHUNK, losses, grads, sum)
        });
        in_parallel(tasks, |(start, mut losses, mut grads, sum)| {
            let mut buffers = [const { Vec::new() }; N];
            let (mut weight_buffer, mut loss_grad_buffer) = (Vec::new(), Vec::new());
            let end = len.min(start + CHUNK);
            for i in (start..end).step_by(TILE) {
                let count = TILE.min(end - i);
                let mut each = args.iter().zip(&mut buffers);
                let args = [(); N].map(|()| each.next().map_or(&[][..], |(arg, buffer)| arg.tile(i, count, buffer)));
                let tile = Tile {
                    args,
                    weight: weight.as_ref().map(|weight| weight.tile(i, count, &mut weight_buffer)),
                    loss_grad: loss_grad.as_ref().map(|grad| grad.tile(i, count, &mut loss_grad_buffer)),
                    factor,
                    losses: losses.as_mut().map(|output| output.slice_mut(i - start, count)),
                    grads: grads
                        .each_mut()
                        .map(|output| output.as_mut().map(|output| output.slice_mut(i - start, count))),
                };
                *sum += tile.run(&*self.formula, mask);
                // SAFETY: the tile has written every element that it was given.
                unsafe { losses.iter_mut().chain(grads.iter_mut().flatten()).for_each(|it| it.flush(i - start, count)) }
            }
        });
        Ok(sums.iter().sum())
    }
}

/// Which outputs are computed.
#[derive(Clone, Copy)]
enum OutputMask {
    Losses,
    Grads,
    Both,
}

/// A formula behind a pointer, so that the loop over tiles is compiled once for all formulas.
trait TileFormula<W: Float, const N: usize>: Send + Sync {
    /// Writes the outputs of a tile, which holds a multiple of `LANES` elements, and returns the sums of the losses by
    /// lanes.
    fn run(&self, tile: Tile<W, N>, mask: OutputMask) -> [W; LANES];
}

impl<W: Float, F: Elementwise<N>, const N: usize> TileFormula<W, N> for F {
    fn run(&self, tile: Tile<W, N>, mask: OutputMask) -> [W; LANES] {
        pulp::Arch::new().dispatch(Job { formula: self, tile, mask })
    }
}

/// Some elements of all arguments, and places for their outputs.
struct Tile<'a, W, const N: usize> {
    args: [&'a [W]; N],
    weight: Option<&'a [W]>,
    loss_grad: Option<&'a [W]>,
    factor: W,
    losses: Option<&'a mut [MaybeUninit<W>]>,
    grads: [Option<&'a mut [MaybeUninit<W>]>; N],
}

impl<W: Float, const N: usize> Tile<'_, W, N> {
    /// Writes the outputs and returns the sum of the losses.
    fn run(self, formula: &dyn TileFormula<W, N>, mask: OutputMask) -> f64 {
        let len = self.args[0].len();
        let whole = len / LANES * LANES;
        let args = self.args.map(|arg| arg.split_at(whole));
        let scales = [self.weight, self.loss_grad].map(|scale| scale.map(|scale| scale.split_at(whole)));
        let mut losses = self.losses.map(|losses| losses.split_at_mut(whole));
        let mut grads = self.grads.map(|grad| grad.map(|grad| grad.split_at_mut(whole)));
        let tile = Tile {
            args: args.map(|(args, _)| args),
            weight: scales[0].map(|(weight, _)| weight),
            loss_grad: scales[1].map(|(grad, _)| grad),
            factor: self.factor,
            losses: losses.as_mut().map(|(losses, _)| &mut **losses),
            grads: grads.each_mut().map(|grad| grad.as_mut().map(|(grad, _)| &mut **grad)),
        };
        let sum = reduce_lanes(formula.run(tile, mask), |a, b| a + b).to_f64();
        let rest = len - whole;
        if rest == 0 {
            return sum;
        }
        // The rest is padded with 0. Outputs of the padding are dropped.
        let padded = |values: &[W]| {
            let mut padded = [W::ZERO; LANES];
            padded[..rest].copy_from_slice(values);
            padded
        };
        let args = args.map(|(_, rest)| padded(rest));
        let [weight, loss_grad] = scales.map(|scale| scale.map(|(_, rest)| padded(rest)));
        let mut rest_losses = [MaybeUninit::uninit(); LANES];
        let mut rest_grads = [[MaybeUninit::uninit(); LANES]; N];
        let tile = Tile {
            args: args.each_ref().map(|arg| &arg[..]),
            weight: weight.as_ref().map(|weight| &weight[..]),
            loss_grad: loss_grad.as_ref().map(|grad| &grad[..]),
            factor: self.factor,
            losses: Some(&mut rest_losses),
            grads: rest_grads.each_mut().map(|grad| Some(&mut grad[..])),
        };
        let sums = formula.run(tile, mask);
        if let Some((_, to)) = losses {
            to.copy_from_slice(&rest_losses[..rest]);
        }
        for (to, grad) in grads.into_iter().zip(&rest_grads) {
            if let Some((_, to)) = to {
                to.copy_from_slice(&grad[..rest]);
            }
        }
        sum + sums[..rest].iter().copied().sum::<W>().to_f64()
    }
}

// A struct, as a closure might not be inlined into the code for the processor's vectors.
struct Job<'a, F, W, const N: usize> {
    formula: &'a F,
    tile: Tile<'a, W, N>,
    mask: OutputMask,
}

impl<F: Elementwise<N>, W: Float, const N: usize> WithSimd for Job<'_, F, W, N> {
    type Output = [W; LANES];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [W; LANES] {
        match self.mask {
            OutputMask::Losses => self.run::<true, 0>(),
            OutputMask::Grads => self.run::<false, N>(),
            OutputMask::Both => self.run::<true, N>(),
        }
    }
}

impl<F: Elementwise<N>, W: Float, const N: usize> Job<'_, F, W, N> {
    /// Computes the losses, or 0, and the gradients of the first `K` arguments.
    #[inline(always)]
    fn run<const LOSSES: bool, const K: usize>(self) -> [W; LANES] {
        let Self { formula, tile, .. } = self;
        // A copy, which no write to the outputs could change: so the options stay in registers.
        let formula = *formula;
        let blocks = tile.args[0].len() / LANES;
        let args = tile.args.map(|arg| &arg.as_chunks::<LANES>().0[..blocks]);
        let [weight, loss_grad] =
            [tile.weight, tile.loss_grad].map(|scale| scale.map(|scale| &scale.as_chunks::<LANES>().0[..blocks]));
        let mut losses_to = tile.losses.map(|losses| &mut losses.as_chunks_mut::<LANES>().0[..blocks]);
        let mut grads_to = tile.grads.map(|grad| grad.map(|grad| &mut grad.as_chunks_mut::<LANES>().0[..blocks]));
        let mut sums = [W::ZERO; LANES];
        for i in 0..blocks {
            let (mut losses, mut grads) = ([W::ZERO; LANES], [[W::ZERO; LANES]; K]);
            let block = args.map(|arg| &arg[i]);
            for lane in 0..LANES {
                let (loss, by_arg) = formula.value_and_grad(block.map(|arg| arg[lane]));
                if LOSSES {
                    losses[lane] = loss;
                }
                // With an iterator over the gradients, the loop would not become vector instructions.
                #[allow(clippy::needless_range_loop)]
                for k in 0..K {
                    grads[k][lane] = by_arg[k] * tile.factor;
                }
            }
            if let Some(weight) = weight {
                multiply(&mut losses, &weight[i]);
                grads.iter_mut().for_each(|grad| multiply(grad, &weight[i]));
            }
            if let Some(loss_grad) = loss_grad {
                grads.iter_mut().for_each(|grad| multiply(grad, &loss_grad[i]));
            }
            for lane in 0..LANES {
                sums[lane] += losses[lane];
            }
            if let Some(to) = &mut losses_to {
                to[i] = losses.map(MaybeUninit::new);
            }
            for (to, grad) in grads_to.iter_mut().zip(grads) {
                if let Some(to) = to {
                    to[i] = grad.map(MaybeUninit::new);
                }
            }
        }
        sums
    }
}
