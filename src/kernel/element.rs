//! The floats that tensors store, and their conversion to the precision that losses are computed in.

use super::scalar::Float;
use candle_core::WithDType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::mem::MaybeUninit;

/// A float that a tensor stores. `f16` and `bf16` are converted to `f32` when they are read, and rounded when they are
/// written.
pub(crate) trait Element: WithDType {
    /// The precision that losses are computed in.
    type Compute: Float + Element<Compute = Self::Compute>;

    /// Whether the stored type is also the one that is computed with.
    const IS_COMPUTE: bool;

    fn to_compute(self) -> Self::Compute;

    /// Rounds to the nearest, ties to even.
    fn from_compute(value: Self::Compute) -> Self;

    /// Converts a slice.
    #[inline(always)]
    fn to_compute_slice(from: &[Self], to: &mut [Self::Compute]) {
        from.iter().zip(to).for_each(|(from, to)| *to = from.to_compute());
    }

    /// Rounds a slice.
    #[inline(always)]
    fn from_compute_slice(from: &[Self::Compute], to: &mut [MaybeUninit<Self>]) {
        from.iter().zip(to).for_each(|(&from, to)| _ = to.write(Self::from_compute(from)));
    }

    /// Rounds each `from · scale`, once.
    #[inline(always)]
    fn from_compute_scaled(from: &mut [Self::Compute], scale: Self::Compute, to: &mut [MaybeUninit<Self>]) {
        if Self::IS_COMPUTE {
            from.iter().zip(to).for_each(|(&from, to)| _ = to.write(Self::from_compute(from * scale)));
        } else {
            from.iter_mut().for_each(|from| *from *= scale);
            Self::from_compute_slice(from, to);
        }
    }

    /// The same slice, or an empty one where elements must be converted.
    fn as_compute_slice(values: &[Self]) -> &[Self::Compute];

    /// The same buffer, or an empty one where elements must be converted.
    fn as_compute_buffer(buffer: &mut [MaybeUninit<Self>]) -> &mut [MaybeUninit<Self::Compute>];
}

macro_rules! compute_element {
    ($t:ty) => {
        impl Element for $t {
            type Compute = $t;

            const IS_COMPUTE: bool = true;

            #[inline(always)]
            fn to_compute(self) -> $t {
                self
            }

            #[inline(always)]
            fn from_compute(value: $t) -> $t {
                value
            }

            fn as_compute_slice(values: &[$t]) -> &[$t] {
                values
            }

            fn as_compute_buffer(buffer: &mut [MaybeUninit<$t>]) -> &mut [MaybeUninit<$t>] {
                buffer
            }
        }
    };
}
compute_element!(f32);
compute_element!(f64);

impl Element for bf16 {
    type Compute = f32;

    const IS_COMPUTE: bool = false;

    #[inline(always)]
    fn to_compute(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    // The rounding of the half crate, without a branch.
    #[inline(always)]
    fn from_compute(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        bf16::from_bits(if value.is_nan() { bits >> 16 | 0x40 } else { rounded } as u16)
    }

    fn as_compute_slice(_: &[Self]) -> &[f32] {
        &[]
    }

    fn as_compute_buffer(_: &mut [MaybeUninit<Self>]) -> &mut [MaybeUninit<f32>] {
        &mut []
    }
}

impl Element for f16 {
    type Compute = f32;

    const IS_COMPUTE: bool = false;

    fn to_compute(self) -> f32 {
        self.to_f32()
    }

    fn from_compute(value: f32) -> Self {
        f16::from_f32(value)
    }

    // The half crate converts eight at a time where the processor has an instruction for that.
    fn to_compute_slice(from: &[Self], to: &mut [f32]) {
        from.convert_to_f32_slice(&mut to[..from.len()]);
    }

    fn from_compute_slice(from: &[f32], to: &mut [MaybeUninit<Self>]) {
        let mut part = [f16::ZERO; 64];
        for (from, to) in from.chunks(part.len()).zip(to.chunks_mut(part.len())) {
            part[..from.len()].convert_from_f32_slice(from);
            to.write_copy_of_slice(&part[..from.len()]);
        }
    }

    fn as_compute_slice(_: &[Self]) -> &[f32] {
        &[]
    }

    fn as_compute_buffer(_: &mut [MaybeUninit<Self>]) -> &mut [MaybeUninit<f32>] {
        &mut []
    }
}

/// `$body` with `$t` for the type of a float dtype.
macro_rules! with_element {
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
pub(crate) use with_element;
