//! The likelihood of a label sequence under per-step predictions, summed over all paths that spell it, on the CPU.
//!
//! A path visits places: the labels, with a blank before, between and after them. From one step to the next it stays, moves
//! on by one place, or skips the blank between two labels that differ. The sums range over hundreds of orders of magnitude,
//! so they are kept as logarithms. The places of a step are computed in vectors, the sequences of a batch on several
//! threads.

use super::element::{Element, with_element};
use super::graph::{Value, node};
use super::lanes::LANES;
use super::parallel::in_parallel;
use super::scalar::{Float, Scalar};
use super::storage::with_storages;
use super::strided::{SharedBuffer, Strided};
use candle_core::{Device, Result, Tensor, WithDType};
use pulp::{Simd, WithSimd};

/// A sequence of a batch: its number of steps, and its labels.
pub(crate) struct LabelSequence {
    pub steps: usize,
    pub labels: Vec<u32>,
}

/// The loss of each sequence under `log_p` (T, N, C), shape (N), in the precision that is computed in. `map` is applied to
/// the negative log-likelihoods. The gradient of a sequence that no path spells is 0.
pub(crate) fn ctc_losses(
    log_p: &Tensor,
    sequences: Vec<LabelSequence>,
    blank: usize,
    map: impl Fn(f64) -> f64,
) -> Result<Tensor> {
    with_element!(log_p.dtype(), T => losses::<T>(log_p, sequences, blank, map))
}

fn losses<T: Element>(
    log_p: &Tensor,
    sequences: Vec<LabelSequence>,
    blank: usize,
    map: impl Fn(f64) -> f64,
) -> Result<Tensor> {
    let mut lattices =
        sequences.into_iter().map(|sequence| Lattice::<T::Compute>::new(sequence, blank)).collect::<Vec<_>>();
    with_storages(&[log_p], |storages| {
        let (storage, layout) = storages[0];
        let values = storage.as_slice::<T>()?;
        in_parallel(lattices.iter_mut().enumerate(), |(n, lattice)| {
            let steps = Steps::new(values, layout.start_offset(), layout.stride(), n);
            lattice.loss = pulp::Arch::new().dispatch(Forward { steps, lattice });
        });
        Ok(())
    })?;
    let mapped = lattices.iter().map(|lattice| T::Compute::constant(map(lattice.loss.to_f64()))).collect::<Vec<_>>();
    let value = Value::Tensor(Tensor::from_vec(mapped, lattices.len(), &Device::Cpu)?);
    node([log_p], value, move |[log_p], grad| Ok([Some(gradient::<T>(log_p, &lattices, grad)?)]))
}

/// `p - posterior` at each step, (T, N, C), times the gradient of its sequence's loss; 0 at steps past the input's length.
#[allow(unsafe_code)]
fn gradient<T: Element>(log_p: &Tensor, lattices: &[Lattice<T::Compute>], grad: &Tensor) -> Result<Tensor> {
    let (steps, batch, classes) = log_p.dims3()?;
    let len = steps * batch * classes;
    let mut gradient = Vec::<T>::with_capacity(len);
    with_storages(&[log_p, grad], |storages| {
        let [(log_p, layout), (grad, grad_layout)] = [storages[0], storages[1]];
        let values = log_p.as_slice::<T>()?;
        let grad = Strided::<T::Compute>::new(grad.as_slice()?, grad_layout);
        let buffer = SharedBuffer::new(&mut gradient.spare_capacity_mut()[..len]);
        in_parallel(0..batch, |n| {
            let lattice = &lattices[n];
            let (mut row, zeros) = (vec![T::Compute::ZERO; classes], vec![T::Compute::ZERO; classes]);
            // SAFETY: each sequence has rows of its own.
            let places = |t: usize| unsafe { buffer.slice_mut((t * batch + n) * classes, classes) };
            let possible = if lattice.loss == T::Compute::INFINITY { 0 } else { lattice.steps };
            for t in possible..steps {
                T::from_compute_slice(&zeros, places(t));
            }
            let mut beta = lattice.end();
            for t in (0..possible).rev() {
                let steps = Steps::new(values, layout.start_offset(), layout.stride(), n);
                let scale = grad.get(n);
                pulp::Arch::new().dispatch(Backward { steps, lattice, t, beta: &mut beta, scale, row: &mut row });
                T::from_compute_slice(&row, places(t));
            }
        });
        Ok(())
    })?;
    // SAFETY: each row of each sequence is written.
    unsafe { gradient.set_len(len) };
    Tensor::from_vec(gradient, (steps, batch, classes), &Device::Cpu)
}

/// The predictions for one sequence.
struct Steps<'a, T> {
    values: &'a [T],
    start: usize,
    /// The strides between steps and between classes.
    strides: [usize; 2],
}

impl<'a, T: Element> Steps<'a, T> {
    fn new(values: &'a [T], start: usize, strides: &[usize], n: usize) -> Self {
        Self { values, start: start + n * strides[1], strides: [strides[0], strides[2]] }
    }

    #[inline(always)]
    fn get(&self, t: usize, class: usize) -> T::Compute {
        self.values[self.start + t * self.strides[0] + class * self.strides[1]].to_compute()
    }
}

/// The places of a sequence, and the log-probability of all path prefixes that end at each.
struct Lattice<W> {
    steps: usize,
    /// The class at each place.
    places: Vec<u32>,
    /// The length of a row of places, with a block of -∞ on either side, so that every place has neighbors.
    width: usize,
    /// 0 where a path may come from two places before, skipping a blank, else -∞.
    skip: Vec<W>,
    /// The log-probability of all path prefixes up to each step and place, one row per step.
    alphas: Vec<W>,
    loss: W,
}

impl<W: Float> Lattice<W> {
    fn new(LabelSequence { steps, labels }: LabelSequence, blank: usize) -> Self {
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

/// The block of places from `at` on.
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

struct Forward<'a, T: Element> {
    steps: Steps<'a, T>,
    lattice: &'a mut Lattice<T::Compute>,
}

impl<T: Element> WithSimd for Forward<'_, T> {
    /// The loss.
    type Output = T::Compute;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> T::Compute {
        let Self { steps, lattice: Lattice { steps: count, places, width, skip, alphas, loss } } = self;
        let (width, mut emitted) = (*width, vec![-T::Compute::INFINITY; *width]);
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
                let mut alpha = [T::Compute::ZERO; LANES];
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
            if places.len() > 1 { alphas[end - 2] } else { -T::Compute::INFINITY },
            -T::Compute::INFINITY,
        )
    }
}

/// A step backward. Then `beta` is the log-probability of all path suffixes from each place on, without that place.
struct Backward<'a, T: Element> {
    steps: Steps<'a, T>,
    lattice: &'a Lattice<T::Compute>,
    t: usize,
    beta: &'a mut Vec<T::Compute>,
    scale: T::Compute,
    /// The gradient of the step's predictions.
    row: &'a mut [T::Compute],
}

impl<T: Element> WithSimd for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { steps, lattice: Lattice { places, width, skip, alphas, loss, .. }, t, beta, scale, row } = self;
        for (class, entry) in row.iter_mut().enumerate() {
            *entry = steps.get(t, class);
        }
        row.iter_mut().for_each(|entry| *entry = entry.exp() * scale);
        let alphas = &alphas[t * width..];
        let mut posterior = vec![T::Compute::ZERO; *width];
        for at in (LANES..width - LANES).step_by(LANES) {
            let (alpha, beta) = (lanes(alphas, at), lanes(beta, at));
            let mut sum = [T::Compute::ZERO; LANES];
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
            let mut beta = [T::Compute::ZERO; LANES];
            for lane in 0..LANES {
                beta[lane] = log_sum(stay[lane], on[lane], over[lane] + skip[lane]);
            }
            // Nothing reads this block again.
            next[at..at + LANES].copy_from_slice(&beta);
        }
    }
}
