//! Losses of rows on the CPU: of scores against a class or a distribution, or of points in space.

use super::cpu::{Arg, GradOutputs, LossKernel, cpu_loss, sum_and_grad};
use super::element::{Element, with_element};
use super::lanes::{CHUNK, LANES, Lanes, add, multiply, reduce_lanes};
use super::parallel::in_parallel;
use super::scalar::{Float, Scalar, relu};
use super::strided::{SharedBuffer, Strided};
use candle_core::{Layout, Result, Tensor, WithDType};
use pulp::{Simd, WithSimd};

/// The loss of a row of each argument.
pub(crate) trait RowLoss<const N: usize>: Send + Sync + 'static {
    /// The values that the rows of each argument are padded with, to a multiple of `LANES` elements.
    const PADDING: [f64; N];

    /// Returns the loss of the rows `i`, of `len` elements each, and a factor of their gradients; `None` for a row that is
    /// ignored. The gradients without that factor take the rows' place.
    fn loss_and_grad_in_place<W: Float>(&self, i: usize, rows: [&mut [Lanes<W>]; N], len: usize) -> Option<(W, W)>;

    /// Whether [`loss_and_grad_of_columns`](Self::loss_and_grad_of_columns) is implemented.
    const HAS_COLUMNS: bool = false;

    /// The same for `LANES` rows from `first` on whose elements lie beside each other in memory: a block holds one element
    /// of each. Lanes beyond the last row are ignored.
    fn loss_and_grad_of_columns<W: Float>(
        &self,
        _first: usize,
        _columns: [&mut [Lanes<W>]; N],
    ) -> [Option<(W, W)>; LANES] {
        [None; LANES]
    }
}

/// The losses of the rows along `dim`, and their sum times `factor` if there is one.
pub(crate) fn row_loss<const N: usize>(
    args: [&Tensor; N],
    dim: usize,
    factor: Option<f64>,
    loss: impl RowLoss<N>,
) -> Result<Tensor> {
    with_element!(args[0].dtype(), T => {
        let loss = Box::new(loss) as Box<dyn RowsFunction<<T as Element>::Compute, N>>;
        cpu_loss::<T, N>(args, factor, RowKernel { dim, loss })
    })
}

/// The sum of the losses, and the gradient of the argument: that of the sum, or, with `loss_grad`, of the losses each
/// times its own.
pub(crate) fn row_sum_and_grad(
    arg: &Tensor,
    dim: usize,
    loss_grad: Option<&Tensor>,
    loss: impl RowLoss<1>,
) -> Result<(f64, Tensor)> {
    with_element!(arg.dtype(), T => {
        let loss = Box::new(loss) as Box<dyn RowsFunction<<T as Element>::Compute, 1>>;
        sum_and_grad::<T>(arg, loss_grad, &RowKernel { dim, loss })
    })
}

/// The class of each row, and the weight of each class.
#[derive(Clone)]
pub(crate) struct WeightedTargets {
    pub classes: Vec<u32>,
    /// All 1 if there are none.
    pub weight: Option<Vec<f64>>,
}

impl WeightedTargets {
    /// The class of a row that is ignored.
    pub const IGNORED: u32 = u32::MAX;

    /// The class of row `i` and its weight; `None` for a row that is ignored.
    #[inline(always)]
    pub fn get(&self, i: usize) -> Option<(usize, f64)> {
        let class = self.classes[i];
        if class == Self::IGNORED {
            return None;
        }
        Some((class as usize, self.weight.as_ref().map_or(1.0, |weight| weight[class as usize])))
    }

    pub fn are_all_ignored(&self) -> bool {
        self.classes.iter().all(|&class| class == Self::IGNORED)
    }

    /// The sum of the rows' weights, which a weighted mean divides by.
    pub fn total_weight(&self) -> f64 {
        (0..self.classes.len()).filter_map(|i| self.get(i)).map(|(_, weight)| weight).sum()
    }
}

/// The sizes of all dimensions but one.
pub(crate) fn without_dim(dims: &[usize], dim: usize) -> Vec<usize> {
    [&dims[..dim], &dims[dim + 1..]].concat()
}

/// A row loss as a kernel, in the precision `W`.
struct RowKernel<W, const N: usize> {
    /// The dimension that rows run along.
    dim: usize,
    loss: Box<dyn RowsFunction<W, N>>,
}

/// Some rows of each argument, copied so that gradients can take their place.
struct RowGroup<'a, W, const N: usize> {
    first: usize,
    /// The number of elements of a row.
    len: usize,
    /// The rows, each padded to whole blocks; or, `by_columns`, each in a lane.
    rows: [&'a mut [Lanes<W>]; N],
    by_columns: bool,
    /// The results: loss and factor of each row, or that it is ignored.
    results: &'a mut [Option<(W, W)>],
}

/// A row loss behind a pointer, so that the loop over rows is compiled once for all losses.
trait RowsFunction<W, const N: usize>: Send + Sync {
    fn padding(&self) -> [f64; N];
    fn has_columns(&self) -> bool;
    fn run(&self, group: RowGroup<W, N>);
}

impl<R: RowLoss<N>, W: Float, const N: usize> RowsFunction<W, N> for R {
    fn padding(&self) -> [f64; N] {
        R::PADDING
    }

    fn has_columns(&self) -> bool {
        R::HAS_COLUMNS
    }

    fn run(&self, group: RowGroup<W, N>) {
        pulp::Arch::new().dispatch(Job { loss: self, group });
    }
}

struct Job<'a, R, W, const N: usize> {
    loss: &'a R,
    group: RowGroup<'a, W, N>,
}

impl<R: RowLoss<N>, W: Float, const N: usize> WithSimd for Job<'_, R, W, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let RowGroup { first, len, rows, by_columns, results } = self.group;
        if by_columns {
            return results.copy_from_slice(&self.loss.loss_and_grad_of_columns(first, rows)[..results.len()]);
        }
        let mut rows = rows.map(|rows| rows.chunks_exact_mut(len.div_ceil(LANES)));
        for (i, result) in results.iter_mut().enumerate() {
            let rows = rows.each_mut().map(|rows| rows.next().unwrap_or_default());
            *result = self.loss.loss_and_grad_in_place(first + i, rows, len);
        }
    }
}

/// Where the rows of a tensor lie.
pub(crate) struct RowLayout<'a, T> {
    /// The first element of each row.
    starts: Strided<'a, T>,
    /// The stride between the elements of a row.
    pub stride: usize,
}

impl<'a, T: Element> RowLayout<'a, T> {
    pub fn new(values: &'a [T], layout: &Layout, dim: usize) -> Self {
        let (mut dims, mut strides) = (layout.dims().to_vec(), layout.stride().to_vec());
        dims.remove(dim);
        let stride = strides.remove(dim);
        Self { starts: Strided::with_strides(values, layout.start_offset(), &dims, &strides), stride }
    }

    /// The place of an element of row `i`.
    fn index(&self, i: usize, column: usize) -> usize {
        self.starts.offset(i) + column * self.stride
    }

    /// A run of equally spaced rows from `i` on: the place of the first element, the stride, and the number of rows.
    pub fn run(&self, i: usize) -> (usize, usize, usize) {
        self.starts.run(i)
    }
}

// SAFETY: the chunks cover every row, and each row writes its loss and its gradient.
#[allow(unsafe_code)]
unsafe impl<T: Element, const N: usize> LossKernel<T, N> for RowKernel<T::Compute, N> {
    fn loss_dims(&self, arg_dims: &[usize]) -> Vec<usize> {
        without_dim(arg_dims, self.dim)
    }

    fn run(&self, args: [Arg<T>; N], _: Option<Arg<T::Compute>>, outputs: GradOutputs<T, N>) -> Result<f64> {
        let shape = args[0].layout.shape();
        let len = shape.dims()[self.dim];
        let rows = shape.elem_count() / len;
        let from = args.map(|arg| RowLayout::<T>::new(arg.values, arg.layout, self.dim));
        let to = RowLayout::<T>::new(&[], &Layout::contiguous(shape), self.dim);
        let GradOutputs { losses, grads, factor, loss_grad } = outputs;
        let (losses, grads) = (losses.map(SharedBuffer::new), grads.map(|grad| grad.map(SharedBuffer::new)));
        let factor = T::Compute::constant(factor);
        let (blocks, at_once) = (len.div_ceil(LANES), CHUNK.div_ceil(len));
        let is_apart = from.iter().chain([&to]).any(|rows| rows.stride != 1);
        let group = if is_apart { GROUP } else { (TILE / len).clamp(1, GROUP) };
        let mut sums = vec![0f64; rows.div_ceil(at_once)];
        in_parallel(sums.iter_mut().enumerate(), |(chunk, sum)| {
            let (start, end) = (chunk * at_once, rows.min((chunk + 1) * at_once));
            let mut work = [(); N].map(|()| vec![[T::Compute::ZERO; LANES]; blocks * group]);
            for first in (start..end).step_by(group) {
                let count = group.min(end - first);
                let by_columns = self.loss.has_columns()
                    && from.iter().chain([&to]).all(|rows| rows.stride != 1 && rows.beside(first, count).is_some());
                for ((work, from), padding) in work.iter_mut().zip(&from).zip(self.loss.padding()) {
                    match from.beside(first, count) {
                        Some(start) if by_columns => from.read_columns(start, count, &mut work[..len]),
                        _ => from.read(first, count, len, work, T::Compute::constant(padding)),
                    }
                }
                let mut results = [None; GROUP];
                let results = &mut results[..count];
                let filled = if by_columns { len } else { count * blocks };
                let rows = work.each_mut().map(|work| &mut work[..filled]);
                self.loss.run(RowGroup { first, len, rows, by_columns, results });
                let mut factors = [T::Compute::ZERO; GROUP];
                for (i, result) in results.iter().enumerate() {
                    let loss = match *result {
                        Some((loss, row_factor)) => {
                            let loss_grad = loss_grad.as_ref().map_or(T::Compute::ONE, |grad| grad.get(first + i));
                            factors[i] = row_factor * factor * loss_grad;
                            loss
                        }
                        // Loss and gradient of an ignored row are 0, whatever its elements and its factor are.
                        None => {
                            for work in &mut work {
                                if by_columns {
                                    work[..len].iter_mut().for_each(|column| column[i] = T::Compute::ZERO);
                                } else {
                                    work[i * blocks..(i + 1) * blocks].as_flattened_mut().fill(T::Compute::ZERO);
                                }
                            }
                            T::Compute::ZERO
                        }
                    };
                    *sum += loss.to_f64();
                    if let Some(losses) = &losses {
                        // SAFETY: each row has one place.
                        unsafe { losses.slice_mut(first + i, 1)[0].write(T::from_compute(loss)) };
                    }
                }
                for (grad, work) in grads.iter().zip(&mut work) {
                    if let Some(grad) = grad {
                        // SAFETY: each row has places of its own.
                        match to.beside(first, count) {
                            Some(start) if by_columns => unsafe {
                                to.write_columns(start, &factors, count, &mut work[..len], grad)
                            },
                            _ => unsafe { to.write(first, &factors[..count], len, work, grad) },
                        }
                    }
                }
            }
        });
        Ok(sums.iter().sum())
    }
}

/// The most rows in a group.
const GROUP: usize = LANES;

/// The number of elements in a group of rows that are contiguous.
const TILE: usize = 2048;

#[allow(unsafe_code)]
impl<T: Element> RowLayout<'_, T> {
    /// The place of the first element of `count` rows, if their first elements are contiguous.
    fn beside(&self, first: usize, count: usize) -> Option<usize> {
        let (start, stride, run) = self.starts.run(first);
        (stride == 1 && count <= run).then_some(start)
    }

    /// Copies `count` rows whose first elements are contiguous from `start` on, each to a lane.
    fn read_columns(&self, start: usize, count: usize, columns: &mut [Lanes<T::Compute>]) {
        for (i, column) in columns.iter_mut().enumerate() {
            let values = &self.starts.values[start + i * self.stride..][..count];
            match values.first_chunk::<LANES>() {
                // The length is known at compile time.
                Some(values) => T::to_compute_slice(values, column),
                None => T::to_compute_slice(values, &mut column[..count]),
            }
        }
    }

    /// Writes the `count` rows of [`read_columns`](Self::read_columns), each times its factor.
    ///
    /// # Safety
    /// Nobody else may have their places.
    unsafe fn write_columns(
        &self,
        start: usize,
        factors: &Lanes<T::Compute>,
        count: usize,
        columns: &mut [Lanes<T::Compute>],
        to: &SharedBuffer<T>,
    ) {
        for (i, column) in columns.iter_mut().enumerate() {
            multiply(column, factors);
            // SAFETY: by the caller's promise.
            let places = unsafe { to.slice_mut(start + i * self.stride, count) };
            match places.first_chunk_mut::<LANES>() {
                Some(places) => T::from_compute_slice(column, places),
                None => T::from_compute_slice(&column[..count], places),
            }
        }
    }

    /// Copies `count` rows of `len` elements from `first` on, each padded to whole blocks.
    fn read(&self, first: usize, count: usize, len: usize, work: &mut [Lanes<T::Compute>], padding: T::Compute) {
        let padded = len.div_ceil(LANES) * LANES;
        let (values, work) = (self.starts.values, work.as_flattened_mut());
        work.chunks_exact_mut(padded).take(count).for_each(|row| row[len..].fill(padding));
        if self.stride == 1 {
            for (i, row) in work.chunks_exact_mut(padded).enumerate().take(count) {
                let start = self.starts.offset(first + i);
                T::to_compute_slice(&values[start..start + len], &mut row[..len]);
            }
            return;
        }
        for (i, row) in work.chunks_exact_mut(padded).enumerate().take(count) {
            let start = self.starts.offset(first + i);
            for (column, place) in row[..len].iter_mut().enumerate() {
                *place = values[start + column * self.stride].to_compute();
            }
        }
    }

    /// Writes rows of `len` elements from `first` on, each times its factor.
    ///
    /// # Safety
    /// Nobody else may have their places.
    unsafe fn write(
        &self,
        first: usize,
        factors: &[T::Compute],
        len: usize,
        work: &mut [Lanes<T::Compute>],
        to: &SharedBuffer<T>,
    ) {
        let padded = len.div_ceil(LANES) * LANES;
        let work = work.as_flattened_mut();
        if self.stride == 1 {
            for (i, (row, factor)) in work.chunks_exact_mut(padded).zip(factors).enumerate() {
                // SAFETY: by the caller's promise.
                let places = unsafe { to.slice_mut(self.starts.offset(first + i), len) };
                T::from_compute_scaled(&mut row[..len], *factor, places);
            }
            return;
        }
        for (i, (row, factor)) in work.chunks_exact(padded).zip(factors).enumerate() {
            for (column, &element) in row[..len].iter().enumerate() {
                // SAFETY: by the caller's promise.
                let place = unsafe { &mut to.slice_mut(self.index(first + i, column), 1)[0] };
                place.write(T::from_compute(element * *factor));
            }
        }
    }
}

/// The largest element of a row. If one is NaN, the result may be NaN or not: a softmax is NaN either way.
#[inline(always)]
pub(crate) fn row_max<W: Float>(row: &[Lanes<W>]) -> W {
    let mut max = [-W::INFINITY; LANES];
    for block in row {
        for lane in 0..LANES {
            max[lane] = larger(max[lane], block[lane]);
        }
    }
    reduce_lanes(max, larger)
}

/// `max(0, lead + x)`, but 0 where `x` is -∞: an element that is not compared, or that no lead is too small for.
#[inline(always)]
pub(crate) fn hinge<W: Float>(lead: W, x: W) -> W {
    if x == -W::INFINITY { W::ZERO } else { relu(lead + x) }
}

/// The larger, or `b` if one is NaN.
#[inline(always)]
pub(crate) fn larger<W: Float>(a: W, b: W) -> W {
    if b <= a { a } else { b }
}

/// The larger; NaN if one is NaN.
#[inline(always)]
pub(crate) fn nan_max<W: Float>(a: W, b: W) -> W {
    if a.is_nan() { a } else { larger(a, b) }
}

/// The number of blocks whose sums are added up before they join the sums of the row: a single sum drifts in long rows.
const SEGMENT: usize = 256;

/// Replaces each element `x` of a row by the first part of `f(x)`, and returns the sums of the others.
#[inline(always)]
pub(crate) fn map_sum<W: Float, const K: usize>(row: &mut [Lanes<W>], f: impl Fn(W) -> (W, [W; K])) -> [W; K] {
    let mut totals = [[W::ZERO; LANES]; K];
    for segment in row.chunks_mut(SEGMENT) {
        let mut sums = [[W::ZERO; LANES]; K];
        for block in segment {
            for lane in 0..LANES {
                let (mapped, summands) = f(block[lane]);
                block[lane] = mapped;
                for (sums, summand) in sums.iter_mut().zip(summands) {
                    sums[lane] += summand;
                }
            }
        }
        totals.iter_mut().zip(&sums).for_each(|(totals, sums)| add(totals, sums));
    }
    totals.map(|lanes| reduce_lanes(lanes, |a, b| a + b))
}

/// Replaces each pair of elements `x` and `y` by the first part of `f(x, y)`, and returns the sums of the others.
#[inline(always)]
pub(crate) fn map2_sum<W: Float, const K: usize>(
    [a, b]: [&mut [Lanes<W>]; 2],
    f: impl Fn(W, W) -> ([W; 2], [W; K]),
) -> [W; K] {
    let mut totals = [[W::ZERO; LANES]; K];
    for (a, b) in a.chunks_mut(SEGMENT).zip(b.chunks_mut(SEGMENT)) {
        let mut sums = [[W::ZERO; LANES]; K];
        for (a, b) in a.iter_mut().zip(b) {
            for lane in 0..LANES {
                let (mapped, summands) = f(a[lane], b[lane]);
                [a[lane], b[lane]] = mapped;
                for (sums, summand) in sums.iter_mut().zip(summands) {
                    sums[lane] += summand;
                }
            }
        }
        totals.iter_mut().zip(&sums).for_each(|(totals, sums)| add(totals, sums));
    }
    totals.map(|lanes| reduce_lanes(lanes, |a, b| a + b))
}

/// The sum of `f(i)` for `i` in `0..count`.
#[inline(always)]
pub(crate) fn lane_sum<W: Float>(count: usize, f: impl Fn(usize) -> W) -> W {
    let whole = count / LANES * LANES;
    let mut sums = [W::ZERO; LANES];
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    (whole..count).fold(reduce_lanes(sums, |a, b| a + b), |sum, i| sum + f(i))
}
