//! Matrix multiplication on several threads, by the `gemm` crate or, for few rows, by dot products.

use super::lanes::LANES;
use super::ops;
use super::parallel::{in_parallel, threads};
use super::storage::{with_elements, with_storages};
use super::switches::{is_f32, is_f32_slice};
use candle_core::{CpuStorage, Layout, Result, Tensor};
use pulp::{Simd, WithSimd};

/// A view of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    pub values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    fn from_storage(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (rows, columns) = layout.shape().dims2()?;
        let (row_stride, column_stride) = (layout.stride()[0], layout.stride()[1]);
        // The offset of an empty view may lie past the end.
        let values = storage.as_slice()?.get(layout.start_offset()..).unwrap_or_default();
        Ok(Self { row_stride, column_stride, ..Self::new(values, rows, columns) })
    }

    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// A row of a matrix whose rows are contiguous.
    fn row(self, row: usize) -> &'a [f32] {
        &self.values[row * self.row_stride..][..self.columns]
    }

    /// At most `rows` of its rows, from `start` on.
    fn block(self, start: usize, rows: usize) -> Self {
        let values = self.values.get(start * self.row_stride..).unwrap_or_default();
        Self { values, rows: rows.min(self.rows - start), ..self }
    }

    /// Whether every element lies within the values.
    fn is_within(self) -> bool {
        let last = (self.rows.max(1) - 1) * self.row_stride + (self.columns.max(1) - 1) * self.column_stride;
        self.rows * self.columns == 0 || last < self.values.len()
    }
}

/// A sum of products `aᵀ·b`. On the CPU it is added up in place, without a temporary of its size for each product.
pub(crate) enum ProductSum {
    Cpu { values: Vec<f32>, shape: (usize, usize) },
    Ops(Option<Tensor>),
}

impl ProductSum {
    /// Creates a zero sum for matrices of the dtype and device of `like`.
    pub fn new(rows: usize, columns: usize, like: &Tensor) -> Self {
        if is_f32_slice(like) {
            return Self::Cpu { values: vec![0.0; rows * columns], shape: (rows, columns) };
        }
        Self::Ops(None)
    }

    /// Adds `aᵀ·b` for `a` (K, rows) and `b` (K, columns). A sum of half-precision products is kept in `f32`.
    pub fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<()> {
        match self {
            Self::Ops(sum) => {
                let product = ops::matmul(&a.t()?, b)?;
                let product = product.to_dtype(ops::compute_dtype(product.dtype()))?;
                *sum = Some(match sum.take() {
                    Some(sum) => (sum + product)?,
                    None => product,
                });
                Ok(())
            }
            Self::Cpu { values, .. } => with_storages(&[a, b], |storages| {
                let [a, b] = [0, 1].map(|i| Matrix::from_storage(storages[i].0, storages[i].1));
                add_product(values, a?.transposed(), b?);
                Ok(())
            }),
        }
    }

    /// The sum; `None` if nothing was added by tensor ops.
    pub fn finish(self, like: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::Ops(sum) => Ok(sum),
            Self::Cpu { values, shape } => Tensor::from_vec(values, shape, like.device()).map(Some),
        }
    }
}

/// `a·b`, plus `bias` in each row.
pub(crate) fn product(a: &Tensor, b: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if ![a, b].into_iter().chain(bias).all(is_f32) {
        let product = ops::matmul(a, b)?;
        return match bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        };
    }
    let (rows, columns) = (a.dim(0)?, b.dim(1)?);
    let biases = bias.map(|bias| with_elements(bias, |bias: &[f32]| bias.repeat(rows))).transpose()?;
    let values = with_storages(&[a, b], |storages| {
        let [a, b] = [0, 1].map(|i| Matrix::from_storage(storages[i].0, storages[i].1));
        let (a, b) = (a?, b?);
        Ok(match biases {
            Some(mut values) => {
                add_product(&mut values, a, b);
                values
            }
            None => new_product(a, b),
        })
    })?;
    Tensor::from_vec(values, (rows, columns), a.device())
}

/// The least number of multiplications for which several threads are faster than one.
const THREADING_THRESHOLD: usize = 1 << 20;

/// The largest number of rows for which `add_row_dots` is faster than `gemm`.
const MAX_DOT_ROWS: usize = 64;

/// `c += a·b`, where `c` is row-major.
#[allow(unsafe_code)]
pub(crate) fn add_product(c: &mut [f32], a: Matrix, b: Matrix) {
    assert!(c.len() == a.rows * b.columns);
    if a.rows <= MAX_DOT_ROWS && a.column_stride == 1 && b.row_stride == 1 {
        return add_row_dots(c, a, b);
    }
    let output = OutputPointer { at: c.as_mut_ptr(), accumulates: true };
    // SAFETY: `c` has the asserted size, is initialized, and is borrowed mutably.
    unsafe { write_blocks(output, a, b) };
}

/// Returns `a·b` in row-major order. It does not first fill the output with zeros, which saves time.
#[allow(unsafe_code)]
pub(crate) fn new_product(a: Matrix, b: Matrix) -> Vec<f32> {
    let len = a.rows * b.columns;
    if a.columns == 0 {
        return vec![0.0; len];
    }
    let mut values = Vec::with_capacity(len);
    let output = OutputPointer { at: values.as_mut_ptr(), accumulates: false };
    // SAFETY: `values` has room for `len` elements, is not shared, and the blocks write all of these elements.
    unsafe {
        write_blocks(output, a, b);
        values.set_len(len);
    }
    values
}

/// Writes `a·b` to `output`. A large product is split into one block per thread, along the longer side of the output, because each
/// thread packs the whole of the other matrix.
///
/// # Safety
/// `output` must have `a.rows · b.columns` elements that no other thread accesses, initialized if it accumulates.
#[allow(unsafe_code)]
unsafe fn write_blocks(output: OutputPointer, a: Matrix, b: Matrix) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(a.is_within() && b.is_within() && b.rows == k);
    if m * k * n == 0 {
        return;
    }
    let parts = if m * k * n < THREADING_THRESHOLD { 1 } else { threads() };
    // SAFETY: the caller has the output to itself, and the blocks do not overlap.
    if m >= n {
        let rows = m.div_ceil(parts).max(1);
        in_parallel((0..m).step_by(rows), |row| unsafe { output.write_block(row * n, n, a.block(row, rows), b) });
    } else {
        // Whole vectors in every block but the last.
        let columns = n.div_ceil(parts).next_multiple_of(LANES);
        in_parallel((0..n).step_by(columns), |column| unsafe {
            output.write_block(column, n, a, b.transposed().block(column, columns).transposed());
        });
    }
}

/// `c += a·b` by dot products of the rows of `a` with the columns of `b`, both of them contiguous. `gemm` would first pack all of
/// `b`, which takes longer than the product itself if `a` has few rows.
fn add_row_dots(c: &mut [f32], a: Matrix, b: Matrix) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(a.is_within() && b.is_within() && b.rows == k);
    if m * k * n == 0 {
        return;
    }
    let parts = if m * k * n < THREADING_THRESHOLD { 1 } else { threads() };
    let rows = m.div_ceil(parts).next_multiple_of(2);
    in_parallel(c.chunks_mut(rows * n).enumerate(), |(i, c)| {
        pulp::Arch::new().dispatch(RowDots { c, a: a.block(i * rows, rows), columns: b.transposed() });
    });
}

struct RowDots<'a> {
    c: &'a mut [f32],
    a: Matrix<'a>,
    /// The columns of `b`, as rows.
    columns: Matrix<'a>,
}

impl RowDots<'_> {
    /// Adds the dot products of `R` rows and `C` columns.
    #[inline(always)]
    fn add_tile<S: Simd, const R: usize, const C: usize>(&mut self, simd: S, row: usize, column: usize) {
        let rows: [_; R] = std::array::from_fn(|i| S::as_simd_f32s(self.a.row(row + i)));
        let columns: [_; C] = std::array::from_fn(|j| S::as_simd_f32s(self.columns.row(column + j)));
        let mut sums = [[simd.splat_f32s(0.0); C]; R];
        for k in 0..rows[0].0.len() {
            let column = columns.map(|(vectors, _)| vectors[k]);
            for (sums, (vectors, _)) in sums.iter_mut().zip(&rows) {
                for (sum, &column) in sums.iter_mut().zip(&column) {
                    *sum = simd.mul_add_e_f32s(vectors[k], column, *sum);
                }
            }
        }
        for i in 0..R {
            for j in 0..C {
                let rest = rows[i].1.iter().zip(columns[j].1).map(|(a, b)| a * b).sum::<f32>();
                self.c[(row + i) * self.columns.rows + column + j] += simd.reduce_sum_f32s(sums[i][j]) + rest;
            }
        }
    }
}

impl WithSimd for RowDots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let (m, n) = (self.a.rows, self.columns.rows);
        // The outer loop is over columns, because all of them do not fit in the L1 cache.
        for column in (0..n - n % 4).step_by(4) {
            (0..m - m % 2).step_by(2).for_each(|row| self.add_tile::<S, 2, 4>(simd, row, column));
            (m - m % 2..m).for_each(|row| self.add_tile::<S, 1, 4>(simd, row, column));
        }
        for column in n - n % 4..n {
            (0..m).for_each(|row| self.add_tile::<S, 1, 1>(simd, row, column));
        }
    }
}

/// A pointer to the row-major output of a product, which several threads write. If `accumulates` is true, the product is added to
/// the output; otherwise the output is overwritten.
struct OutputPointer {
    at: *mut f32,
    accumulates: bool,
}

// SAFETY: the caller of `write_block` guarantees that no other thread accesses the elements of its block.
#[allow(unsafe_code)]
unsafe impl Sync for OutputPointer {}

impl OutputPointer {
    /// Computes `a·b` into a block that begins at `start` and has rows `stride` apart.
    ///
    /// # Safety
    /// The block must lie within the output. No other thread may access it. If `accumulates` is true, it must be initialized.
    #[allow(unsafe_code)] // `gemm` takes pointers.
    unsafe fn write_block(&self, start: usize, stride: usize, a: Matrix, b: Matrix) {
        assert!(a.is_within() && b.is_within() && a.columns == b.rows);
        // SAFETY: by the assertion and the caller's promise.
        unsafe {
            gemm::gemm(
                a.rows,
                b.columns,
                a.columns,
                self.at.add(start),
                1,
                stride as isize,
                self.accumulates,
                a.values.as_ptr(),
                a.column_stride as isize,
                a.row_stride as isize,
                b.values.as_ptr(),
                b.column_stride as isize,
                b.row_stride as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}
