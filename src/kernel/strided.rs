//! Reading the elements of a tensor in any layout, and writing results from several threads.

use super::element::Element;
use super::scalar::Float;
use candle_core::Layout;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// The elements of a tensor in logical order, whatever its layout: contiguous, transposed, narrowed or broadcast.
pub(crate) struct Strided<'a, T> {
    pub values: &'a [T],
    start: usize,
    /// Size and stride of each dimension, the last first. Dimensions that continue each other are merged; a contiguous
    /// tensor has none.
    steps: Vec<(usize, usize)>,
}

impl<'a, T: Element> Strided<'a, T> {
    pub fn new(values: &'a [T], layout: &Layout) -> Self {
        Self::with_strides(values, layout.start_offset(), layout.dims(), layout.stride())
    }

    pub fn with_strides(values: &'a [T], start: usize, dims: &[usize], strides: &[usize]) -> Self {
        let mut steps = Vec::<(usize, usize)>::new();
        let mut expected = 1;
        let is_contiguous = dims.iter().zip(strides).rev().all(|(&size, &stride)| {
            let is_next = size == 1 || stride == expected;
            expected *= size;
            is_next
        });
        if is_contiguous {
            return Self { values, start, steps };
        }
        for (&size, &stride) in dims.iter().zip(strides).rev().filter(|(size, _)| **size != 1) {
            match steps.last_mut() {
                Some((inner, step)) if stride == *inner * *step => *inner *= size,
                _ => steps.push((size, stride)),
            }
        }
        Self { values, start, steps }
    }

    /// The index in `values` of the element `i`.
    #[inline]
    pub fn offset(&self, mut i: usize) -> usize {
        if self.steps.is_empty() {
            return self.start + i;
        }
        let mut offset = self.start;
        for &(size, stride) in &self.steps {
            offset += i % size * stride;
            i /= size;
        }
        offset
    }

    pub fn get(&self, i: usize) -> T::Compute {
        self.values[self.offset(i)].to_compute()
    }

    /// The elements `i..i + len`: borrowed if they can be, else copied to the front of `buffer`.
    pub fn tile<'b>(&'b self, i: usize, len: usize, buffer: &'b mut Vec<T::Compute>) -> &'b [T::Compute] {
        if T::IS_COMPUTE && self.steps.is_empty() {
            return T::as_compute_slice(&self.values[self.start + i..self.start + i + len]);
        }
        if buffer.len() < len {
            buffer.resize(len, T::Compute::ZERO);
        }
        self.read(i, &mut buffer[..len]);
        &buffer[..len]
    }

    /// A run of equally spaced elements from `i` on: the index of the first, the stride, and the length.
    pub fn run(&self, i: usize) -> (usize, usize, usize) {
        let (size, stride) = self.steps.first().copied().unwrap_or((usize::MAX, 1));
        (self.offset(i), stride, size - i % size)
    }

    /// Copies the elements from `i` on until `to` is full.
    pub fn read(&self, mut i: usize, mut to: &mut [T::Compute]) {
        while !to.is_empty() {
            let (start, stride, run) = self.run(i);
            let run = to.len().min(run);
            let (run_to, rest) = to.split_at_mut(run);
            let values = &self.values[start..];
            match stride {
                1 => T::to_compute_slice(&values[..run], run_to),
                0 => run_to.fill(values[0].to_compute()),
                _ => {
                    run_to
                        .iter_mut()
                        .zip(values.iter().step_by(stride))
                        .for_each(|(to, value)| *to = value.to_compute());
                }
            }
            (i, to) = (i + run, rest);
        }
    }
}

/// A buffer that several threads write to, each in places of its own.
pub(crate) struct SharedBuffer<'a, T> {
    start: *mut MaybeUninit<T>,
    len: usize,
    borrow: PhantomData<&'a mut [MaybeUninit<T>]>,
}

// SAFETY: whoever calls `slice_mut` promises that nobody else has that part of the buffer.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for SharedBuffer<'_, T> {}

impl<'a, T> SharedBuffer<'a, T> {
    pub fn new(buffer: &'a mut [MaybeUninit<T>]) -> Self {
        Self { start: buffer.as_mut_ptr(), len: buffer.len(), borrow: PhantomData }
    }

    /// The places `start..start + len`.
    ///
    /// # Safety
    /// No other slice of these places may exist at the same time.
    #[allow(unsafe_code)]
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn slice_mut(&self, start: usize, len: usize) -> &mut [MaybeUninit<T>] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: the places are within the buffer, and by the caller's promise nobody else has them.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// A part of an output: the results of a tile are written in the precision that is computed in, and rounded if need be.
pub(crate) struct OutputTile<'a, T: Element> {
    output: &'a mut [MaybeUninit<T>],
    /// Where results wait to be rounded.
    buffer: Vec<MaybeUninit<T::Compute>>,
}

impl<'a, T: Element> OutputTile<'a, T> {
    pub fn new(output: &'a mut [MaybeUninit<T>]) -> Self {
        Self { output, buffer: Vec::new() }
    }

    /// Places for the results `start..start + len`. After they are written, [`flush`](Self::flush) must be called.
    pub fn slice_mut(&mut self, start: usize, len: usize) -> &mut [MaybeUninit<T::Compute>] {
        if T::IS_COMPUTE {
            return T::as_compute_buffer(&mut self.output[start..start + len]);
        }
        if self.buffer.len() < len {
            self.buffer.resize(len, MaybeUninit::uninit());
        }
        &mut self.buffer[..len]
    }

    /// Rounds the results to the output.
    ///
    /// # Safety
    /// `start` and `len` must be those of the last call of [`slice_mut`](Self::slice_mut), and its places written.
    #[allow(unsafe_code)]
    pub unsafe fn flush(&mut self, start: usize, len: usize) {
        if !T::IS_COMPUTE {
            // SAFETY: by the caller's promise the places are written.
            T::from_compute_slice(
                unsafe { self.buffer[..len].assume_init_ref() },
                &mut self.output[start..start + len],
            );
        }
    }
}
