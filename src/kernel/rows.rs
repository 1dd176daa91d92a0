//! Losses of a row: of scores, against what holds there, or of two places in space.

use super::fused::{Arg, Walk, Wanted, fused, sum_and_slopes};
use super::number::{Number, Shared, Source};
use super::pool::in_parallel_for;
use super::scalar::{Float, of};
use super::{CHUNK, LANES, join, multiply};
use candle_core::{Layout, Result, Tensor, WithDType};
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;

/// Some numbers of a row, as many as are worked on at once.
pub(crate) type Lanes<W> = [W; LANES];

/// A loss of a row of each argument.
pub(crate) trait RowLoss<const N: usize>: Send + Sync + 'static {
    /// What the rows of each argument are filled up with.
    const PADDING: [f64; N];

    /// The loss of the rows `i`, and the unit of its derivatives, which take the rows' place; `None` where the row is
    /// ignored. `count` says how many numbers a row has.
    fn take<W: Float>(&self, i: usize, rows: [&mut [Lanes<W>]; N], count: usize) -> Option<(W, W)>;

    /// Whether [`take_beside`](Self::take_beside) is there; else rows that lie beside each other are turned round.
    const BESIDE: bool = false;

    /// The same of a row in each lane, `first` and those behind it: a block has a number of every row. What comes of lanes
    /// that are no rows is nobody's.
    fn take_beside<W: Float>(&self, _first: usize, _columns: [&mut [Lanes<W>]; N]) -> [Option<(W, W)>; LANES] {
        [None; LANES]
    }
}

/// The losses of the rows of all arguments along `dim`, and their sum times `factor`, if there is one.
pub(crate) fn fused_rows<const N: usize>(
    args: [&Tensor; N],
    dim: usize,
    factor: Option<f64>,
    loss: impl RowLoss<N>,
) -> Result<Tensor> {
    fused(args, factor, Rows { dim, loss: Box::new(loss) })
}

/// [`sum_and_slopes`] of such losses.
pub(crate) fn row_slopes(
    arg: &Tensor,
    dim: usize,
    grad: Option<&Tensor>,
    loss: impl RowLoss<1>,
) -> Result<(f64, Tensor)> {
    sum_and_slopes(arg, grad, Rows { dim, loss: Box::new(loss) })
}

/// What holds in each row: a class, or that it is to be ignored; and what each class counts.
pub(crate) struct Counted {
    pub classes: Vec<u32>,
    /// Else all count 1.
    pub weight: Option<Vec<f64>>,
}

impl Counted {
    /// No class, of a row that is ignored.
    pub const IGNORED: u32 = u32::MAX;

    /// The class of row `i` and its weight; `None` where the row is ignored.
    #[inline(always)]
    pub fn get(&self, i: usize) -> Option<(usize, f64)> {
        let class = self.classes[i];
        if class == Self::IGNORED {
            return None;
        }
        Some((class as usize, self.weight.as_ref().map_or(1.0, |weight| weight[class as usize])))
    }

    /// What all rows count together.
    pub fn total(&self) -> f64 {
        (0..self.classes.len()).filter_map(|i| self.get(i)).map(|(_, weight)| weight).sum()
    }
}

/// `-w·x` of each row's number `x` at its class, and their sum times `factor`, if there is one.
pub(crate) fn picked(x: &Tensor, dim: usize, counted: Counted, factor: Option<f64>) -> Result<Tensor> {
    fused([x], factor, Picks { dim, counted })
}

/// The sizes of all dimensions but one.
fn without(dims: &[usize], dim: usize) -> Vec<usize> {
    [&dims[..dim], &dims[dim + 1..]].concat()
}

struct Picks {
    /// Which dimension is along the rows.
    dim: usize,
    counted: Counted,
}

#[allow(unsafe_code)]
impl Walk<1> for Picks {
    fn losses(&self, dims: &[usize]) -> Vec<usize> {
        without(dims, self.dim)
    }

    unsafe fn walk<T: Number>(&self, [arg]: [&Arg; 1], wanted: Wanted<T, 1>) -> Result<f64> {
        let shape = arg.layout.shape();
        let from = RowsAt::<T>::new(arg.storage.as_slice()?, arg.layout, self.dim);
        let to = RowsAt::<T>::new(&[], &Layout::contiguous(shape), self.dim);
        let Wanted { losses, slopes: [slopes], factor, grad } = wanted;
        let (losses, slopes) = (losses.map(Shared::new), slopes.map(Shared::new));
        let (rows, width) = (self.counted.classes.len(), shape.dims()[self.dim]);
        let at_once = CHUNK.div_ceil(width);
        let mut sums = vec![0f64; rows.div_ceil(at_once)];
        in_parallel_for(shape.elem_count(), sums.iter_mut().enumerate(), |(chunk, sum)| {
            let (mut i, end) = (chunk * at_once, rows.min((chunk + 1) * at_once));
            while i < end {
                let ((start, step, run), (start_to, step_to, run_to)) = (from.starts.run(i), to.starts.run(i));
                let run = run.min(run_to).min(end - i);
                if let Some(slopes) = &slopes {
                    // The rows one after the other, or the numbers that they have of one class.
                    let (pieces, len) = if to.stride == 1 { (1, run * width) } else { (width, run) };
                    for piece in 0..pieces {
                        // SAFETY: each row has places of its own.
                        unsafe { slopes.room(start_to + piece * to.stride, len) }.fill(MaybeUninit::new(T::ZERO));
                    }
                }
                for k in 0..run {
                    // An ignored row costs nothing, whatever stands in it.
                    let mut loss = T::Wide::ZERO;
                    if let Some((class, weight)) = self.counted.get(i) {
                        loss = from.starts.values[start + k * step + class * from.stride].wide() * of(-weight);
                        if let Some(slopes) = &slopes {
                            let grad = grad.as_ref().map_or(T::Wide::ONE, |grad| grad.get(i));
                            let slope = T::nearest(of::<T::Wide>(-weight * factor) * grad);
                            // SAFETY: each row has places of its own.
                            unsafe { slopes.room(start_to + k * step_to + class * to.stride, 1)[0].write(slope) };
                        }
                    }
                    *sum += loss.to_f64();
                    if let Some(losses) = &losses {
                        // SAFETY: each row has a place of its own.
                        unsafe { losses.room(i, 1)[0].write(T::nearest(loss)) };
                    }
                    i += 1;
                }
            }
        });
        Ok(sums.iter().sum())
    }
}

struct Rows<const N: usize> {
    /// Which dimension is along the rows.
    dim: usize,
    loss: Box<dyn AnyRowLoss<N>>,
}

/// Some rows of each argument, in a place that stays in the cache.
pub(crate) struct Group<'a, W, const N: usize> {
    /// The first.
    pub first: usize,
    /// How many numbers each has.
    pub width: usize,
    /// The rows, each a whole number of lanes, or each in a lane. The derivatives take their place.
    pub rows: [&'a mut [Lanes<W>]; N],
    pub is_beside: bool,
    /// What becomes of each: its loss and the unit of its derivatives, or that it is ignored.
    pub taken: &'a mut [Option<(W, W)>],
}

/// A loss behind a pointer: the way through the rows is compiled once for all losses.
pub(crate) trait AnyRowLoss<const N: usize>: Send + Sync + 'static {
    fn padding(&self) -> [f64; N];
    fn is_taken_beside(&self) -> bool;
    fn single(&self, group: Group<f32, N>);
    fn double(&self, group: Group<f64, N>);
}

impl<R: RowLoss<N>, const N: usize> AnyRowLoss<N> for R {
    fn padding(&self) -> [f64; N] {
        R::PADDING
    }

    fn is_taken_beside(&self) -> bool {
        R::BESIDE
    }

    fn single(&self, group: Group<f32, N>) {
        pulp::Arch::new().dispatch(Take { loss: self, group });
    }

    fn double(&self, group: Group<f64, N>) {
        pulp::Arch::new().dispatch(Take { loss: self, group });
    }
}

struct Take<'a, R, W, const N: usize> {
    loss: &'a R,
    group: Group<'a, W, N>,
}

impl<R: RowLoss<N>, W: Float, const N: usize> WithSimd for Take<'_, R, W, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Group { first, width, rows, is_beside, taken } = self.group;
        if is_beside {
            return taken.copy_from_slice(&self.loss.take_beside(first, rows)[..taken.len()]);
        }
        let mut rows = rows.map(|rows| rows.chunks_exact_mut(width.div_ceil(LANES)));
        for (i, taken) in taken.iter_mut().enumerate() {
            let rows = rows.each_mut().map(|rows| rows.next().unwrap_or_default());
            *taken = self.loss.take(first + i, rows, width);
        }
    }
}

/// Where the rows of an argument, or of a result, lie.
struct RowsAt<'a, T> {
    /// The first number of each row.
    starts: Source<'a, T>,
    /// From a number of a row to the next.
    stride: usize,
}

impl<'a, T: Number> RowsAt<'a, T> {
    fn new(values: &'a [T], layout: &Layout, dim: usize) -> Self {
        let (mut dims, mut strides) = (layout.dims().to_vec(), layout.stride().to_vec());
        dims.remove(dim);
        let stride = strides.remove(dim);
        Self { starts: Source::strided(values, layout.start_offset(), &dims, &strides), stride }
    }
}

#[allow(unsafe_code)]
impl<const N: usize> Walk<N> for Rows<N> {
    fn losses(&self, dims: &[usize]) -> Vec<usize> {
        without(dims, self.dim)
    }

    unsafe fn walk<T: Number>(&self, args: [&Arg; N], wanted: Wanted<T, N>) -> Result<f64> {
        let shape = args[0].layout.shape();
        let width = shape.dims()[self.dim];
        let rows = shape.elem_count() / width;
        let mut from = Vec::with_capacity(N);
        for arg in args {
            from.push(RowsAt::<T>::new(arg.storage.as_slice()?, arg.layout, self.dim));
        }
        let to = RowsAt::<T>::new(&[], &Layout::contiguous(shape), self.dim);
        let Wanted { losses, slopes, factor, grad } = wanted;
        let (losses, slopes) = (losses.map(Shared::new), slopes.map(|slopes| slopes.map(Shared::new)));
        let factor = of::<T::Wide>(factor);
        let (blocks, at_once) = (width.div_ceil(LANES), CHUNK.div_ceil(width));
        let is_apart = from.iter().chain([&to]).any(|rows| rows.stride != 1);
        let group = if is_apart { GROUP } else { (TILE / width).clamp(1, GROUP) };
        let mut sums = vec![0f64; rows.div_ceil(at_once)];
        in_parallel_for(rows * width, sums.iter_mut().enumerate(), |(chunk, sum)| {
            let (start, end) = (chunk * at_once, rows.min((chunk + 1) * at_once));
            let mut work = [(); N].map(|()| vec![[T::Wide::ZERO; LANES]; blocks * group]);
            for first in (start..end).step_by(group) {
                let count = group.min(end - first);
                let is_beside = self.loss.is_taken_beside()
                    && from.iter().chain([&to]).all(|rows| rows.stride != 1 && rows.beside(first, count).is_some());
                for ((work, from), padding) in work.iter_mut().zip(&from).zip(self.loss.padding()) {
                    match from.beside(first, count) {
                        Some(start) if is_beside => from.read_beside(start, count, &mut work[..width]),
                        _ => from.read(first, count, width, work, of(padding)),
                    }
                }
                let mut taken = [None; GROUP];
                let taken = &mut taken[..count];
                let filled = if is_beside { width } else { count * blocks };
                let rows = work.each_mut().map(|work| &mut work[..filled]);
                T::Wide::rows(&*self.loss, Group { first, width, rows, is_beside, taken });
                let mut units = [T::Wide::ZERO; GROUP];
                for (i, taken) in taken.iter().enumerate() {
                    let loss = match *taken {
                        Some((loss, unit)) => {
                            let grad = grad.as_ref().map_or(T::Wide::ONE, |grad| grad.get(first + i));
                            units[i] = unit * factor * grad;
                            loss
                        }
                        // An ignored row costs nothing, whatever stands in it and whatever it is multiplied by.
                        None => {
                            for work in &mut work {
                                if is_beside {
                                    work[..width].iter_mut().for_each(|column| column[i] = T::Wide::ZERO);
                                } else {
                                    work[i * blocks..(i + 1) * blocks].as_flattened_mut().fill(T::Wide::ZERO);
                                }
                            }
                            T::Wide::ZERO
                        }
                    };
                    *sum += loss.to_f64();
                    if let Some(losses) = &losses {
                        // SAFETY: each row has a place of its own.
                        unsafe { losses.room(first + i, 1)[0].write(T::nearest(loss)) };
                    }
                }
                for (slopes, work) in slopes.iter().zip(&mut work) {
                    if let Some(slopes) = slopes {
                        // SAFETY: each row has places of its own.
                        match to.beside(first, count) {
                            Some(start) if is_beside => unsafe {
                                to.write_beside(start, &units, count, &mut work[..width], slopes)
                            },
                            _ => unsafe { to.write(first, &units[..count], width, work, slopes) },
                        }
                    }
                }
            }
        });
        Ok(sums.iter().sum())
    }
}

/// How many rows are taken at once at the most, and where their numbers lie apart: what is beside one is of the next.
const GROUP: usize = LANES;

/// How many numbers are worked on at once where they lie together.
const TILE: usize = 2048;

#[allow(unsafe_code)]
impl<T: Number> RowsAt<'_, T> {
    /// Where the first of `count` rows begins, if the others begin beside it, one after the other.
    fn beside(&self, first: usize, count: usize) -> Option<usize> {
        let (start, stride, run) = self.starts.run(first);
        (stride == 1 && count <= run).then_some(start)
    }

    /// Copies the `count` rows that lie beside each other from `start` on, each to a lane.
    fn read_beside(&self, start: usize, count: usize, columns: &mut [Lanes<T::Wide>]) {
        for (i, column) in columns.iter_mut().enumerate() {
            let values = &self.starts.values[start + i * self.stride..][..count];
            match values.first_chunk::<LANES>() {
                // Of a length that is known.
                Some(values) => T::widen(values, column),
                None => T::widen(values, &mut column[..count]),
            }
        }
    }

    /// Writes the `count` rows that lie beside each other from `start` on, each times its unit.
    ///
    /// # Safety
    /// Nobody else may write them.
    unsafe fn write_beside(
        &self,
        start: usize,
        units: &Lanes<T::Wide>,
        count: usize,
        columns: &mut [Lanes<T::Wide>],
        to: &Shared<T>,
    ) {
        for (i, column) in columns.iter_mut().enumerate() {
            multiply(column, units);
            // SAFETY: as the caller promises.
            let room = unsafe { to.room(start + i * self.stride, count) };
            match room.first_chunk_mut::<LANES>() {
                Some(room) => T::narrow(column, room),
                None => T::narrow(&column[..count], room),
            }
        }
    }

    /// Copies `count` rows from `first` on, of this width, to `work`, a whole number of lanes each.
    fn read(&self, first: usize, count: usize, width: usize, work: &mut [Lanes<T::Wide>], padding: T::Wide) {
        let blocks = width.div_ceil(LANES);
        let (values, work) = (self.starts.values, work.as_flattened_mut());
        if self.stride == 1 {
            for (i, row) in work.chunks_exact_mut(blocks * LANES).take(count).enumerate() {
                let start = self.starts.at(first + i);
                T::widen(&values[start..start + width], &mut row[..width]);
                row[width..].fill(padding);
            }
            return;
        }
        let long = blocks * LANES;
        work.chunks_exact_mut(long).take(count).for_each(|row| row[width..].fill(padding));
        if let Some(start) = self.beside(first, count) {
            for column in 0..width {
                let numbers = &values[start + column * self.stride..][..count];
                let places = work[column..].iter_mut().step_by(long);
                places.zip(numbers).for_each(|(place, number)| *place = number.wide());
            }
            return;
        }
        for (i, row) in work.chunks_exact_mut(long).take(count).enumerate() {
            let start = self.starts.at(first + i);
            for (column, place) in row[..width].iter_mut().enumerate() {
                *place = values[start + column * self.stride].wide();
            }
        }
    }

    /// Writes the rows from `first` on, each times its unit.
    ///
    /// # Safety
    /// Nobody else may write them.
    unsafe fn write(&self, first: usize, units: &[T::Wide], width: usize, work: &mut [Lanes<T::Wide>], to: &Shared<T>) {
        let long = width.div_ceil(LANES) * LANES;
        let work = work.as_flattened_mut();
        if self.stride == 1 {
            for (i, (row, unit)) in work.chunks_exact_mut(long).zip(units).enumerate() {
                // SAFETY: as the caller promises.
                T::narrow_times(&mut row[..width], *unit, unsafe { to.room(self.starts.at(first + i), width) });
            }
            return;
        }
        if let Some(start) = self.beside(first, units.len()) {
            for column in 0..width {
                // SAFETY: as the caller promises.
                let places = unsafe { to.room(start + column * self.stride, units.len()) };
                let numbers = work[column..].iter().step_by(long).zip(units);
                places.iter_mut().zip(numbers).for_each(|(place, (&number, &unit))| {
                    place.write(T::nearest(number * unit));
                });
            }
            return;
        }
        for (i, (row, unit)) in work.chunks_exact(long).zip(units).enumerate() {
            let start = self.starts.at(first + i);
            for (column, &number) in row[..width].iter().enumerate() {
                // SAFETY: as the caller promises.
                unsafe { to.room(start + column * self.stride, 1)[0].write(T::nearest(number * *unit)) };
            }
        }
    }
}

/// The largest number of a row. Of what is none nothing is promised: a softmax of it is none whatever is subtracted.
#[inline(always)]
pub(crate) fn largest<W: Float>(row: &[Lanes<W>]) -> W {
    let mut max = [-W::INFINITY; LANES];
    for block in row {
        for lane in 0..LANES {
            max[lane] = larger(max[lane], block[lane]);
        }
    }
    join(max, larger)
}

/// The larger, or `x` if one is none.
#[inline(always)]
pub(crate) fn larger<W: Float>(max: W, x: W) -> W {
    if x <= max { max } else { x }
}

/// Each `x` of a row becomes the first of `f(x)`; the sums of the others.
#[inline(always)]
pub(crate) fn map<W: Float, const K: usize>(row: &mut [Lanes<W>], f: impl Fn(W) -> (W, [W; K])) -> [W; K] {
    let mut sums = [[W::ZERO; LANES]; K];
    for block in row {
        for lane in 0..LANES {
            let (mapped, summands) = f(block[lane]);
            block[lane] = mapped;
            for (sums, summand) in sums.iter_mut().zip(summands) {
                sums[lane] += summand;
            }
        }
    }
    sums.map(|lanes| join(lanes, |a, b| a + b))
}

/// Each `x` of a row and the `y` beside it become the first of `f(x, y)`; the sums of the others.
#[inline(always)]
pub(crate) fn map_both<W: Float, const K: usize>(
    [a, b]: [&mut [Lanes<W>]; 2],
    f: impl Fn(W, W) -> ([W; 2], [W; K]),
) -> [W; K] {
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
    sums.map(|lanes| join(lanes, |a, b| a + b))
}

/// The sum of `f` from 0 to `count`.
#[inline(always)]
pub(crate) fn sum_of<W: Float>(count: usize, f: impl Fn(usize) -> W) -> W {
    let whole = count / LANES * LANES;
    let mut sums = [W::ZERO; LANES];
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    (whole..count).fold(join(sums, |a, b| a + b), |sum, i| sum + f(i))
}
