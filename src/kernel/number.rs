//! Numbers as they are stored, and as they are computed with; and where the numbers of an argument lie.

use super::scalar::Float;
use candle_core::{CpuStorage, Layout, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// A float as it is stored. The half precisions are widened as they are read, and rounded as they are written.
pub(crate) trait Number: WithDType {
    /// What is computed with.
    type Wide: Float;

    const ZERO: Self;

    /// Whether it is stored so, too.
    const IS_WIDE: bool;

    /// The number in the precision that is computed in.
    fn wide(self) -> Self::Wide;

    /// The nearest that can be stored.
    fn nearest(value: Self::Wide) -> Self;

    /// [`wide`](Self::wide) of each.
    #[inline(always)]
    fn widen(from: &[Self], to: &mut [Self::Wide]) {
        from.iter().zip(to).for_each(|(from, to)| *to = from.wide());
    }

    /// [`nearest`](Self::nearest) of each.
    #[inline(always)]
    fn narrow(from: &[Self::Wide], to: &mut [MaybeUninit<Self>]) {
        from.iter().zip(to).for_each(|(&from, to)| _ = to.write(Self::nearest(from)));
    }

    /// The nearest of each `from` times `scale`.
    #[inline(always)]
    fn narrow_times(from: &mut [Self::Wide], scale: Self::Wide, to: &mut [MaybeUninit<Self>]) {
        if Self::IS_WIDE {
            from.iter().zip(to).for_each(|(&from, to)| _ = to.write(Self::nearest(from * scale)));
        } else {
            from.iter_mut().for_each(|from| *from *= scale);
            Self::narrow(from, to);
        }
    }

    /// The numbers of a storage of this kind.
    fn numbers(storage: &mut CpuStorage) -> Option<&mut [Self]>;

    /// The same numbers if they are stored as they are computed with, else none.
    fn as_wide(values: &[Self]) -> &[Self::Wide];

    /// The same room.
    fn as_wide_room(room: &mut [MaybeUninit<Self>]) -> &mut [MaybeUninit<Self::Wide>];
}

macro_rules! numbers {
    ($variant:ident) => {
        fn numbers(storage: &mut CpuStorage) -> Option<&mut [Self]> {
            match storage {
                CpuStorage::$variant(numbers) => Some(numbers),
                _ => None,
            }
        }
    };
}

macro_rules! wide_number {
    ($t:ty, $variant:ident) => {
        impl Number for $t {
            type Wide = $t;

            const ZERO: $t = 0.0;

            numbers!($variant);

            const IS_WIDE: bool = true;

            #[inline(always)]
            fn wide(self) -> $t {
                self
            }

            #[inline(always)]
            fn nearest(value: $t) -> $t {
                value
            }

            fn as_wide(values: &[$t]) -> &[$t] {
                values
            }

            fn as_wide_room(room: &mut [MaybeUninit<$t>]) -> &mut [MaybeUninit<$t>] {
                room
            }
        }
    };
}
wide_number!(f32, F32);
wide_number!(f64, F64);

impl Number for bf16 {
    type Wide = f32;

    const ZERO: Self = bf16::ZERO;

    numbers!(BF16);

    const IS_WIDE: bool = false;

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    // As the half crate rounds, to even, but without a branch.
    #[inline(always)]
    fn nearest(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        bf16::from_bits(if value.is_nan() { bits >> 16 | 0x40 } else { rounded } as u16)
    }

    fn as_wide(_: &[Self]) -> &[f32] {
        &[]
    }

    fn as_wide_room(_: &mut [MaybeUninit<Self>]) -> &mut [MaybeUninit<f32>] {
        &mut []
    }
}

impl Number for f16 {
    type Wide = f32;

    const ZERO: Self = f16::ZERO;

    numbers!(F16);

    const IS_WIDE: bool = false;

    fn wide(self) -> f32 {
        self.to_f32()
    }

    fn nearest(value: f32) -> Self {
        f16::from_f32(value)
    }

    // Eight at a time, where the processor has an instruction for it.
    fn widen(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(&mut to[..from.len()]);
    }

    fn narrow(from: &[f32], to: &mut [MaybeUninit<Self>]) {
        let mut some = [f16::ZERO; 64];
        for (from, to) in from.chunks(some.len()).zip(to.chunks_mut(some.len())) {
            some[..from.len()].convert_from_f32_slice(from);
            to.write_copy_of_slice(&some[..from.len()]);
        }
    }

    fn as_wide(_: &[Self]) -> &[f32] {
        &[]
    }

    fn as_wide_room(_: &mut [MaybeUninit<Self>]) -> &mut [MaybeUninit<f32>] {
        &mut []
    }
}

/// `$body` with `$t` for the type of a float dtype.
macro_rules! with_number {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $t = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $t = f64;
                $body
            }
            candle_core::DType::BF16 => {
                type $t = half::bf16;
                $body
            }
            candle_core::DType::F16 => {
                type $t = half::f16;
                $body
            }
            other => candle_core::bail!("{other:?} is none of F16, BF16, F32, F64"),
        }
    };
}
pub(crate) use with_number;

/// The elements of an argument, wherever they lie: beside each other, turned round or repeated.
pub(crate) struct Source<'a, T> {
    pub values: &'a [T],
    start: usize,
    /// Size and stride of each dimension, the last first, those that continue each other as one. None where all lie beside
    /// each other.
    steps: Vec<(usize, usize)>,
}

impl<'a, T: Number> Source<'a, T> {
    pub fn new(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<Self> {
        Ok(Self::strided(storage.as_slice()?, layout.start_offset(), layout.dims(), layout.stride()))
    }

    /// The elements from `start` on, by the sizes and strides of their dimensions.
    pub fn strided(values: &'a [T], start: usize, dims: &[usize], strides: &[usize]) -> Self {
        let mut steps = Vec::<(usize, usize)>::new();
        let mut beside = 1;
        let is_plain = dims.iter().zip(strides).rev().all(|(&size, &stride)| {
            let is_next = size == 1 || stride == beside;
            beside *= size;
            is_next
        });
        if is_plain {
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

    /// Where the element `i` is.
    #[inline]
    pub fn at(&self, mut i: usize) -> usize {
        if self.steps.is_empty() {
            return self.start + i;
        }
        let mut at = self.start;
        for &(size, stride) in &self.steps {
            at += i % size * stride;
            i /= size;
        }
        at
    }

    pub fn get(&self, i: usize) -> T::Wide {
        self.values[self.at(i)].wide()
    }

    /// The elements `i..i + len`: where they are if that will do, else in the first places of `room`.
    pub fn tile<'b>(&'b self, i: usize, len: usize, room: &'b mut Vec<T::Wide>) -> &'b [T::Wide] {
        if T::IS_WIDE && self.steps.is_empty() {
            return T::as_wide(&self.values[self.start + i..self.start + i + len]);
        }
        if room.len() < len {
            room.resize(len, T::Wide::ZERO);
        }
        self.read(i, &mut room[..len]);
        &room[..len]
    }

    /// Where the element `i` is, how far it is from there to the next, and how many come so, with it.
    pub fn run(&self, i: usize) -> (usize, usize, usize) {
        let (size, stride) = self.steps.first().copied().unwrap_or((usize::MAX, 1));
        (self.at(i), stride, size - i % size)
    }

    /// Copies the elements from `i` on, as many as there is room for.
    pub fn read(&self, mut i: usize, mut to: &mut [T::Wide]) {
        while !to.is_empty() {
            let (start, stride, run) = self.run(i);
            let run = to.len().min(run);
            let (run_to, rest) = to.split_at_mut(run);
            let values = &self.values[start..];
            match stride {
                1 => T::widen(&values[..run], run_to),
                0 => run_to.fill(values[0].wide()),
                _ => run_to.iter_mut().zip(values.iter().step_by(stride)).for_each(|(to, value)| *to = value.wide()),
            }
            (i, to) = (i + run, rest);
        }
    }
}

/// Room for a result that several threads write to.
pub(crate) struct Shared<'a, T> {
    start: *mut MaybeUninit<T>,
    len: usize,
    lent: PhantomData<&'a mut [MaybeUninit<T>]>,
}

// SAFETY: whoever takes room promises that it is nobody else's.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(room: &'a mut [MaybeUninit<T>]) -> Self {
        Self { start: room.as_mut_ptr(), len: room.len(), lent: PhantomData }
    }

    /// Room for `len` numbers from `start` on.
    ///
    /// # Safety
    /// Nobody else may have a part of it at the same time.
    #[allow(unsafe_code)]
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn room(&self, start: usize, len: usize) -> &mut [MaybeUninit<T>] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: it is within the room that was lent, and as the caller promises nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// Room for a part of a result.
pub(crate) struct Sink<'a, T: Number> {
    room: &'a mut [MaybeUninit<T>],
    /// What is to be rounded, where the room is for another precision.
    wide: Vec<MaybeUninit<T::Wide>>,
}

impl<'a, T: Number> Sink<'a, T> {
    pub fn new(room: &'a mut [MaybeUninit<T>]) -> Self {
        Self { room, wide: Vec::new() }
    }

    /// Room for `len` numbers from `start` on, which [`keep`](Self::keep) has to be told of when they are written.
    pub fn room(&mut self, start: usize, len: usize) -> &mut [MaybeUninit<T::Wide>] {
        if T::IS_WIDE {
            return T::as_wide_room(&mut self.room[start..start + len]);
        }
        if self.wide.len() < len {
            self.wide.resize(len, MaybeUninit::uninit());
        }
        &mut self.wide[..len]
    }

    /// Rounds the numbers where they have to be.
    ///
    /// # Safety
    /// All of the room that was given last, for the same numbers, must be written.
    #[allow(unsafe_code)]
    pub unsafe fn keep(&mut self, start: usize, len: usize) {
        if !T::IS_WIDE {
            // SAFETY: as the caller promises.
            T::narrow(unsafe { self.wide[..len].assume_init_ref() }, &mut self.room[start..start + len]);
        }
    }
}
