//! The likelihood of a label sequence under per-step predictions, summed over all paths that read so.
//!
//! A path visits places: the labels, with a blank before, between and after them. From one step to the next it stays, goes
//! on by one place, or skips the blank between two labels that differ. In logarithms, as the sums range over hundreds of
//! orders of magnitude; the places of a step side by side in vectors, the sequences of a batch on several cores.

use super::fused::on_host;
use super::number::{Number, Shared, Source, with_number};
use super::pool::in_parallel_for;
use super::scalar::{Float, of};
use super::{LANES, ops};
use candle_core::{Device, Result, Tensor, WithDType};
use pulp::{Simd, WithSimd};
use std::sync::Arc;

/// A sequence of a batch: how many steps it has, and its labels.
pub(crate) struct Sequence {
    pub steps: usize,
    pub labels: Vec<u32>,
}

/// The negative log-likelihood of each sequence under `log_p` (T, N, C), shape (N), in the precision that is computed in.
/// `shown` is what becomes of it. A sequence that no path reads has no gradient.
pub(crate) fn path_losses(
    log_p: &Tensor,
    sequences: Vec<Sequence>,
    blank: usize,
    shown: impl Fn(f64) -> f64,
) -> Result<Tensor> {
    with_number!(log_p.dtype(), T => losses::<T>(log_p, sequences, blank, shown))
}

fn losses<T: Number>(
    log_p: &Tensor,
    sequences: Vec<Sequence>,
    blank: usize,
    shown: impl Fn(f64) -> f64,
) -> Result<Tensor> {
    let mut lattices =
        sequences.into_iter().map(|sequence| Lattice::<T::Wide>::new(sequence, blank)).collect::<Vec<_>>();
    {
        let (storage, layout) = log_p.storage_and_layout();
        let values = on_host(&storage)?.as_slice::<T>()?;
        in_parallel_for(log_p.elem_count(), lattices.iter_mut().enumerate(), |(n, lattice)| {
            let steps = Steps::new(values, layout.start_offset(), layout.stride(), n);
            lattice.loss = pulp::Arch::new().dispatch(Forward { steps, lattice });
        });
    }
    let shown = lattices.iter().map(|lattice| of(shown(lattice.loss.to_f64()))).collect::<Vec<T::Wide>>();
    let shown = Tensor::from_vec(shown, lattices.len(), &Device::Cpu)?;
    let (predicted, lattices) = (log_p.detach(), Arc::new(lattices));
    ops::with_gradient(log_p, &shown, move |grad| gradient::<T>(&predicted, &lattices, grad))
}

/// `p - posterior` at each step, (T, N, C), times the gradient of its sequence's loss; 0 at steps that don't count.
#[allow(unsafe_code)]
fn gradient<T: Number>(log_p: &Tensor, lattices: &[Lattice<T::Wide>], grad: &Tensor) -> Result<Tensor> {
    let (storage, layout) = log_p.storage_and_layout();
    let values = on_host(&storage)?.as_slice::<T>()?;
    let (grad_storage, grad_layout) = grad.storage_and_layout();
    let grad = Source::<T::Wide>::new(on_host(&grad_storage)?, grad_layout)?;
    let (steps, batch, classes) = log_p.dims3()?;
    let len = steps * batch * classes;
    let mut gradient = Vec::<T>::with_capacity(len);
    let room = Shared::new(&mut gradient.spare_capacity_mut()[..len]);
    in_parallel_for(len, 0..batch, |n| {
        let lattice = &lattices[n];
        let (mut row, zeros) = (vec![T::Wide::ZERO; classes], vec![T::Wide::ZERO; classes]);
        // SAFETY: the rows of a sequence are its own.
        let room = |t: usize| unsafe { room.room((t * batch + n) * classes, classes) };
        let possible = if lattice.loss == T::Wide::INFINITY { 0 } else { lattice.steps };
        for t in possible..steps {
            T::narrow(&zeros, room(t));
        }
        let mut beta = lattice.end();
        for t in (0..possible).rev() {
            let steps = Steps::new(values, layout.start_offset(), layout.stride(), n);
            let scale = grad.get(n);
            pulp::Arch::new().dispatch(Backward { steps, lattice, t, beta: &mut beta, scale, row: &mut row });
            T::narrow(&row, room(t));
        }
    });
    // SAFETY: each row of each sequence is written.
    unsafe { gradient.set_len(len) };
    Tensor::from_vec(gradient, (steps, batch, classes), &Device::Cpu)
}

/// The predictions for one sequence.
struct Steps<'a, T> {
    values: &'a [T],
    start: usize,
    /// From a step to the next, and from a class to the next.
    strides: [usize; 2],
}

impl<'a, T: Number> Steps<'a, T> {
    fn new(values: &'a [T], start: usize, strides: &[usize], n: usize) -> Self {
        Self { values, start: start + n * strides[1], strides: [strides[0], strides[2]] }
    }

    #[inline(always)]
    fn get(&self, t: usize, class: usize) -> T::Wide {
        self.values[self.start + t * self.strides[0] + class * self.strides[1]].wide()
    }
}

/// The places of a sequence, and what all beginnings of paths up to each come to.
struct Lattice<W> {
    steps: usize,
    /// The class of each place.
    places: Vec<u32>,
    /// The length of a row of places: lanes of -∞ on either side, so that every place has others before and behind it.
    width: usize,
    /// Added to what comes from two places before: 0 where a path may skip the blank between two labels, else -∞.
    skip: Vec<W>,
    /// The log-probability of all beginnings of paths up to each step and place, one row per step.
    alphas: Vec<W>,
    loss: W,
}

impl<W: Float> Lattice<W> {
    fn new(Sequence { steps, labels }: Sequence, blank: usize) -> Self {
        let mut places = vec![blank as u32; 2 * labels.len() + 1];
        labels.iter().enumerate().for_each(|(i, &label)| places[2 * i + 1] = label);
        let width = (places.len().div_ceil(LANES) + 2) * LANES;
        let mut skip = vec![-W::INFINITY; width];
        for s in 2..places.len() {
            if places[s] != places[s - 2] {
                skip[LANES + s] = W::ZERO;
            }
        }
        let loss = if labels.is_empty() { W::ZERO } else { W::INFINITY };
        Self { steps, places, width, skip, alphas: vec![-W::INFINITY; steps * width], loss }
    }

    /// 0 where a path may end, else -∞.
    fn end(&self) -> Vec<W> {
        let mut end = vec![-W::INFINITY; self.width];
        let last = LANES + self.places.len();
        end[last - self.places.len().min(2)..last].fill(W::ZERO);
        end
    }
}

/// As many places as are worked on at once, from `at` on.
#[inline(always)]
fn lanes<W: Float>(row: &[W], at: usize) -> [W; LANES] {
    let mut lanes = [W::ZERO; LANES];
    lanes.copy_from_slice(&row[at..at + LANES]);
    lanes
}

/// `log(e^a + e^b + e^c)`; -∞ where all are.
#[inline(always)]
fn log_sum<W: Float>(a: W, b: W, c: W) -> W {
    let larger = |a: W, b: W| if a > b { a } else { b };
    let max = larger(larger(a, b), c);
    let max = if max == -W::INFINITY { W::ZERO } else { max };
    ((a - max).exp() + (b - max).exp() + (c - max).exp()).ln() + max
}

struct Forward<'a, T: Number> {
    steps: Steps<'a, T>,
    lattice: &'a mut Lattice<T::Wide>,
}

impl<T: Number> WithSimd for Forward<'_, T> {
    /// The loss.
    type Output = T::Wide;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> T::Wide {
        let Self { steps, lattice: Lattice { steps: count, places, width, skip, alphas, loss } } = self;
        let (width, mut emitted) = (*width, vec![-T::Wide::INFINITY; *width]);
        for t in 0..*count {
            for (emitted, &class) in emitted[LANES..].iter_mut().zip(&*places) {
                *emitted = steps.get(t, class as usize);
            }
            let (before, row) = alphas.split_at_mut(t * width);
            if t == 0 {
                let begin = LANES..LANES + places.len().min(2);
                row[begin.clone()].copy_from_slice(&emitted[begin]);
                continue;
            }
            let before = &before[(t - 1) * width..];
            for at in (LANES..width - LANES).step_by(LANES) {
                let [stay, next, over] = [0, 1, 2].map(|by| lanes(before, at - by));
                let (emitted, skip) = (lanes(&emitted, at), lanes(skip, at));
                let mut alpha = [T::Wide::ZERO; LANES];
                for lane in 0..LANES {
                    alpha[lane] = log_sum(stay[lane], next[lane], over[lane] + skip[lane]) + emitted[lane];
                }
                row[at..at + LANES].copy_from_slice(&alpha);
            }
        }
        let Some(last) = count.checked_sub(1) else { return *loss };
        let end = last * width + LANES + places.len();
        -log_sum(
            alphas[end - 1],
            if places.len() > 1 { alphas[end - 2] } else { -T::Wide::INFINITY },
            -T::Wide::INFINITY,
        )
    }
}

/// A step backward, after which `beta` is what a path costs from each place on, that place not counted.
struct Backward<'a, T: Number> {
    steps: Steps<'a, T>,
    lattice: &'a Lattice<T::Wide>,
    t: usize,
    beta: &'a mut Vec<T::Wide>,
    scale: T::Wide,
    /// The derivatives by the step's predictions.
    row: &'a mut [T::Wide],
}

impl<T: Number> WithSimd for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { steps, lattice: Lattice { places, width, skip, alphas, loss, .. }, t, beta, scale, row } = self;
        for (class, slope) in row.iter_mut().enumerate() {
            *slope = steps.get(t, class);
        }
        row.iter_mut().for_each(|slope| *slope = slope.exp() * scale);
        let alphas = &alphas[t * width..];
        let mut posterior = vec![T::Wide::ZERO; *width];
        for at in (LANES..width - LANES).step_by(LANES) {
            let (alpha, beta) = (lanes(alphas, at), lanes(beta, at));
            let mut sum = [T::Wide::ZERO; LANES];
            for lane in 0..LANES {
                sum[lane] = (alpha[lane] + beta[lane] + *loss).exp() * scale;
            }
            posterior[at..at + LANES].copy_from_slice(&sum);
        }
        for (&class, &posterior) in places.iter().zip(&posterior[LANES..]) {
            row[class as usize] -= posterior;
        }
        let next = &mut *beta;
        for (next, &class) in next[LANES..].iter_mut().zip(places) {
            *next += steps.get(t, class as usize);
        }
        for at in (LANES..width - LANES).step_by(LANES) {
            let [stay, on, over] = [0, 1, 2].map(|by| lanes(next, at + by));
            let skip = lanes(skip, at + 2);
            let mut beta = [T::Wide::ZERO; LANES];
            for lane in 0..LANES {
                beta[lane] = log_sum(stay[lane], on[lane], over[lane] + skip[lane]);
            }
            // What is behind has been read, and is read no more.
            next[at..at + LANES].copy_from_slice(&beta);
        }
    }
}
