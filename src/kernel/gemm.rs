//! Products of matrices on several threads, by the `gemm` crate.

use super::lanes::LANES;
use super::ops;
use super::parallel::{in_parallel, threads};
use super::storage::{with_elements, with_storages};
use super::switches::{is_f32, is_f32_slice};
use candle_core::{CpuStorage, Layout, Result, Tensor};

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
    /// An empty sum, of matrices like `like`.
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
    let mut values = match bias {
        Some(bias) => with_elements(bias, |bias: &[f32]| bias.repeat(rows))?,
        None => vec![0.0; rows * columns],
    };
    with_storages(&[a, b], |storages| {
        let [a, b] = [0, 1].map(|i| Matrix::from_storage(storages[i].0, storages[i].1));
        add_product(&mut values, a?, b?);
        Ok(())
    })?;
    Tensor::from_vec(values, (rows, columns), a.device())
}

/// The least number of multiplications for which several threads are faster than one.
const THREADING_THRESHOLD: usize = 1 << 20;

/// `c += a·b`, where `c` is row-major. A large product is split into a block for each thread, of rows or of columns,
/// whichever `c` has more of: each thread packs all of the other matrix.
#[allow(unsafe_code)]
pub(crate) fn add_product(c: &mut [f32], a: Matrix, b: Matrix) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(a.is_within() && b.is_within() && b.rows == k && c.len() == m * n);
    if m * k * n == 0 {
        return;
    }
    let parts = if m * k * n < THREADING_THRESHOLD { 1 } else { threads() };
    let places = OutputPointer(c.as_mut_ptr());
    // SAFETY: `c` has the asserted size and is borrowed mutably, and each block has places of its own.
    if m >= n {
        let rows = m.div_ceil(parts).max(1);
        in_parallel((0..m).step_by(rows), |row| unsafe { places.add_block(row * n, n, a.block(row, rows), b) });
    } else {
        // Whole vectors in every block but the last.
        let columns = n.div_ceil(parts).next_multiple_of(LANES);
        in_parallel((0..n).step_by(columns), |column| unsafe {
            places.add_block(column, n, a, b.transposed().block(column, columns).transposed());
        });
    }
}

/// The places of a product that several threads write.
struct OutputPointer(*mut f32);

// SAFETY: whoever calls `add_block` promises that nobody else has its places.
#[allow(unsafe_code)]
unsafe impl Sync for OutputPointer {}

impl OutputPointer {
    /// Adds `a·b` to a block that begins at `start` and has rows `stride` apart.
    ///
    /// # Safety
    /// The block must lie within the places, and nobody else may have it.
    #[allow(unsafe_code)] // `gemm` takes pointers.
    unsafe fn add_block(&self, start: usize, stride: usize, a: Matrix, b: Matrix) {
        assert!(a.is_within() && b.is_within() && a.columns == b.rows);
        // SAFETY: by the assertion and the caller's promise.
        unsafe {
            gemm::gemm(
                a.rows,
                b.columns,
                a.columns,
                self.0.add(start),
                1,
                stride as isize,
                true,
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
