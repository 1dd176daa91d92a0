//! Products of matrices on several threads, by `gemm`.

use super::fused::on_host;
use super::pool::{in_parallel, threads};
use super::{LANES, is_plain, is_single, with_elements};
use candle_core::{CpuStorage, Layout, Result, Tensor};

/// A matrix whose rows or, transposed, columns follow each other.
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

    /// A matrix as it lies in a storage.
    fn of(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (rows, columns) = layout.shape().dims2()?;
        let (row_stride, column_stride) = (layout.stride()[0], layout.stride()[1]);
        let values = &storage.as_slice()?[layout.start_offset()..];
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

    /// These of its rows, or as many of them as there are.
    fn block(self, start: usize, rows: usize) -> Self {
        Self { values: &self.values[start * self.row_stride..], rows: rows.min(self.rows - start), ..self }
    }

    /// Whether the values hold all that the sizes and strides reach.
    fn is_within(self) -> bool {
        let last = (self.rows.max(1) - 1) * self.row_stride + (self.columns.max(1) - 1) * self.column_stride;
        self.rows * self.columns == 0 || last < self.values.len()
    }
}

/// A sum of products `aᵀ·b`, on the CPU in place: a temporary as large as the sum would come with each product otherwise.
pub(crate) enum ProductSum {
    Host { values: Vec<f32>, shape: (usize, usize) },
    Ops(Tensor),
}

impl ProductSum {
    /// Zeros, of this shape and otherwise like `like`.
    pub fn new(rows: usize, columns: usize, like: &Tensor) -> Result<Self> {
        if is_plain(like) {
            return Ok(Self::Host { values: vec![0.0; rows * columns], shape: (rows, columns) });
        }
        Ok(Self::Ops(Tensor::zeros((rows, columns), like.dtype(), like.device())?))
    }

    /// Adds `aᵀ·b` for `a` (K, rows) and `b` (K, columns).
    pub fn add(&mut self, a: &Tensor, b: &Tensor) -> Result<()> {
        match self {
            Self::Ops(sum) => *sum = (&*sum + a.t()?.matmul(b)?)?,
            Self::Host { values, .. } => {
                let ((a, a_at), (b, b_at)) = (a.storage_and_layout(), b.storage_and_layout());
                let (a, b) = (Matrix::of(on_host(&a)?, a_at)?, Matrix::of(on_host(&b)?, b_at)?);
                add_product(values, a.transposed(), b);
            }
        }
        Ok(())
    }

    pub fn finish(self, like: &Tensor) -> Result<Tensor> {
        match self {
            Self::Ops(sum) => Ok(sum),
            Self::Host { values, shape } => Tensor::from_vec(values, shape, like.device()),
        }
    }
}

/// `a·b`, and in each row `bias` added.
pub(crate) fn product(a: &Tensor, b: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if ![a, b].into_iter().chain(bias).all(is_single) {
        let product = a.matmul(b)?;
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
    {
        let ((a, a_at), (b, b_at)) = (a.storage_and_layout(), b.storage_and_layout());
        add_product(&mut values, Matrix::of(on_host(&a)?, a_at)?, Matrix::of(on_host(&b)?, b_at)?);
    }
    Tensor::from_vec(values, (rows, columns), a.device())
}

/// Below this many multiplications one core is faster than several.
const THREADING_THRESHOLD: usize = 1 << 20;

/// `c += a·b`, where `c` is row by row. Large ones are cut, one part for each core: into blocks of rows or of columns,
/// whichever `c` has more of, as each core prepares all of the other matrix for itself.
#[allow(unsafe_code)]
pub(crate) fn add_product(c: &mut [f32], a: Matrix, b: Matrix) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(a.is_within() && b.is_within() && b.rows == k && c.len() == m * n);
    let parts = if m * k * n < THREADING_THRESHOLD { 1 } else { threads() };
    let places = Places(c.as_mut_ptr());
    // SAFETY: `c` has as many places as asserted, is borrowed for writing alone, and each block has places of its own.
    if m >= n {
        let rows = m.div_ceil(parts).max(1);
        in_parallel((0..m).step_by(rows), |row| unsafe { places.add_block(row * n, n, a.block(row, rows), b) });
    } else {
        // Whole vectors, as far as may be.
        let columns = n.div_ceil(parts).next_multiple_of(LANES);
        in_parallel((0..n).step_by(columns), |column| unsafe {
            places.add_block(column, n, a, b.transposed().block(column, columns).transposed());
        });
    }
}

/// Where a product goes that several threads work on.
struct Places(*mut f32);

// SAFETY: whoever writes promises that the places are nobody else's.
#[allow(unsafe_code)]
unsafe impl Sync for Places {}

impl Places {
    /// Adds `a·b` to the block that begins at `start` and whose rows are `stride` apart.
    ///
    /// # Safety
    /// The block must be within the places, and nobody else may have it.
    #[allow(unsafe_code)] // The well-kept product of matrices, `gemm`, takes pointers.
    unsafe fn add_block(&self, start: usize, stride: usize, a: Matrix, b: Matrix) {
        assert!(a.is_within() && b.is_within() && a.columns == b.rows);
        // SAFETY: as asserted and as the caller promises.
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
