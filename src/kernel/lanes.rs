//! Blocks of numbers that become one vector, or a few.

use super::scalar::Float;

/// The number of elements that one thread takes at a time.
pub(crate) const CHUNK: usize = 1 << 15;

/// The number of elements in a block: those of the widest vector of `f32`.
pub(crate) const LANES: usize = 16;

/// A block of numbers.
pub(crate) type Lanes<W> = [W; LANES];

/// `f` over all lanes.
#[inline(always)]
pub(crate) fn reduce_lanes<W: Copy>(mut lanes: Lanes<W>, f: impl Fn(W, W) -> W) -> W {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub(crate) fn multiply<W: Float>(values: &mut Lanes<W>, by: &Lanes<W>) {
    for lane in 0..LANES {
        values[lane] *= by[lane];
    }
}

#[inline(always)]
pub(crate) fn add<W: Float>(sums: &mut Lanes<W>, values: &Lanes<W>) {
    for lane in 0..LANES {
        sums[lane] += values[lane];
    }
}
