//! Memory for derivatives, used again.
//!
//! A large piece of memory that is given back goes to the operating system, and comes back in pages that have to be cleared
//! first: with the system's allocator that takes longer than to compute what is written there. The derivatives of a loss are
//! such a piece, of the same size in each step and needed by nobody between the steps, as candle adds them to zeros.

use super::number::Number;
use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Shape, Tensor, bail};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

/// What is smaller, in bytes, is left to the allocator, which keeps it.
const LEAST: usize = 1 << 17;

/// How much is kept at the most, in bytes.
const MOST: usize = 1 << 26;

/// What is not in use, the latest last.
static KEPT: Mutex<Vec<Tensor>> = Mutex::new(Vec::new());

/// Room for a tensor.
pub(crate) enum Room<T> {
    New(Vec<T>),
    Again(Tensor, *mut T),
}

impl<T: Number> Room<T> {
    /// Room for `len` numbers.
    pub fn new(len: usize) -> Result<Self> {
        let found = if len * T::DTYPE.size_in_bytes() < LEAST {
            None
        } else {
            let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
            let found = kept.iter().rposition(|kept| kept.elem_count() == len && kept.dtype() == T::DTYPE);
            found.map(|i| kept.remove(i))
        };
        match found {
            Some(tensor) => {
                let place = Place(AtomicPtr::new(null_mut::<T>()));
                tensor.inplace_op1(&place)?;
                Ok(Self::Again(tensor, place.0.into_inner()))
            }
            None => Ok(Self::New(Vec::with_capacity(len))),
        }
    }

    /// The room, of the length that was asked for.
    #[allow(unsafe_code)]
    pub fn room(&mut self, len: usize) -> &mut [MaybeUninit<T>] {
        match self {
            Self::New(numbers) => &mut numbers.spare_capacity_mut()[..len],
            // SAFETY: the tensor has `len` numbers there, and is in nobody else's hands: it was put away by `keep`.
            Self::Again(_, place) => unsafe { std::slice::from_raw_parts_mut(place.cast(), len) },
        }
    }

    /// What was written.
    ///
    /// # Safety
    /// All of the room must be written.
    #[allow(unsafe_code)]
    pub unsafe fn finish(self, shape: &Shape) -> Result<Tensor> {
        match self {
            Self::New(mut numbers) => {
                // SAFETY: as the caller promises.
                unsafe { numbers.set_len(shape.elem_count()) };
                Tensor::from_vec(numbers, shape, &Device::Cpu)
            }
            Self::Again(tensor, _) => tensor.reshape(shape),
        }
    }
}

/// Puts away the memory of a tensor that nobody has any more but the caller.
pub(crate) fn keep(tensor: Tensor) {
    let size = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
    // That of a GPU is not ours to write to.
    if !tensor.device().is_cpu() || !(LEAST..=MOST).contains(&size(&tensor)) {
        return;
    }
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    kept.push(tensor);
    while kept.iter().map(size).sum::<usize>() > MOST {
        kept.remove(0);
    }
}

/// Finds out where the numbers of a tensor are.
struct Place<T>(AtomicPtr<T>);

impl<T: Number> InplaceOp1 for Place<T> {
    fn name(&self) -> &'static str {
        "place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        match (T::numbers(storage), layout.contiguous_offsets()) {
            (Some(numbers), Some((start, end))) => {
                self.0.store(numbers[start..end].as_mut_ptr(), Ordering::Relaxed);
                Ok(())
            }
            _ => bail!("memory that was kept is of another kind"),
        }
    }
}
