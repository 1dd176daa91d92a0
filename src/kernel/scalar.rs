//! The numbers that formulas are written in: `f32` and `f64` on the CPU, and [`Expr`](super::expr::Expr) anywhere else.
//!
//! The functions of `f32` and `f64` have no branches and call nothing, so that a loop over them becomes vector
//! instructions. Calls of the standard library's functions would not.

use candle_core::WithDType;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number that a formula computes with.
///
/// A formula has no `if`: a choice is a [`select`](Self::select), which computes both sides. So the same formula can run
/// on vectors and can be recorded.
pub(crate) trait Scalar:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// The result of a comparison. A comparison with NaN is false.
    type Mask: Copy;

    fn constant(value: f64) -> Self;
    fn lt(self, other: Self) -> Self::Mask;
    fn le(self, other: Self) -> Self::Mask;
    fn eq(self, other: Self) -> Self::Mask;
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;

    fn abs(self) -> Self;
    /// `e^x` to 2 units in the last place.
    fn exp(self) -> Self;
    /// `log x` to 2 units in the last place; -∞ at 0, NaN below it.
    fn ln(self) -> Self;
}

/// `f32` or `f64`, the precisions that the CPU computes in.
pub(crate) trait Float: Scalar<Mask = bool> + WithDType + std::iter::Sum {
    const ZERO: Self;
    const ONE: Self;
    const INFINITY: Self;

    fn sqrt(self) -> Self;
    fn powf(self, exponent: Self) -> Self;
    fn is_nan(self) -> bool;
}

macro_rules! float {
    ($t:ty, $precision:ident) => {
        impl Scalar for $t {
            type Mask = bool;

            #[inline(always)]
            fn constant(value: f64) -> Self {
                value as $t
            }

            #[inline(always)]
            fn lt(self, other: Self) -> bool {
                self < other
            }

            #[inline(always)]
            fn le(self, other: Self) -> bool {
                self <= other
            }

            #[inline(always)]
            fn eq(self, other: Self) -> bool {
                self == other
            }

            #[inline(always)]
            fn select(mask: bool, yes: Self, no: Self) -> Self {
                if mask { yes } else { no }
            }

            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }

            #[inline(always)]
            fn exp(self) -> Self {
                $precision::exp(self)
            }

            #[inline(always)]
            fn ln(self) -> Self {
                $precision::ln(self)
            }
        }

        impl Float for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = <$t>::INFINITY;

            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn powf(self, exponent: Self) -> Self {
                self.powf(exponent)
            }

            #[inline(always)]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
        }
    };
}
float!(f32, single);
float!(f64, double);

#[inline(always)]
pub(crate) fn zero<S: Scalar>() -> S {
    S::constant(0.0)
}

#[inline(always)]
pub(crate) fn one<S: Scalar>() -> S {
    S::constant(1.0)
}

/// -1, 0 or 1; NaN of NaN.
#[inline(always)]
pub(crate) fn sign<S: Scalar>(x: S) -> S {
    S::select(x.lt(zero()), -one::<S>(), S::select(zero::<S>().lt(x), one(), x))
}

/// `x`, but not below `bound`; NaN of NaN.
#[inline(always)]
pub(crate) fn clamp_min<S: Scalar>(x: S, bound: S) -> S {
    S::select(x.lt(bound), bound, x)
}

/// `x` within ±`bound`; NaN of NaN.
#[inline(always)]
pub(crate) fn clamp<S: Scalar>(x: S, bound: S) -> S {
    S::select(x.lt(-bound), -bound, S::select(bound.lt(x), bound, x))
}

/// `max(x, 0)`; NaN of NaN.
#[inline(always)]
pub(crate) fn relu<S: Scalar>(x: S) -> S {
    S::select(x.le(zero()), zero(), x)
}

/// `log(1 + y)` for `y` in [-1, 1], exact for small `y` as well.
///
/// `1 + y` is rounded. The digits of `y` that it lost are added to its logarithm: their factor `1 / (1 + y)` is 1 to
/// rounding wherever digits are lost.
#[inline(always)]
pub(crate) fn ln_1p<S: Scalar>(y: S) -> S {
    let sum = y + one();
    sum.ln() + (y - (sum - one()))
}

/// `log(1 + e^-|x|)`, the sigmoid `1 / (1 + e^-x)`, and that of `-x`, all exact in both tails.
///
/// At 0 each takes the branch of `x >= 0`, as candle's derivative of `|x|` does: so the derivatives that a recording is
/// differentiated to are right there.
#[inline(always)]
pub(crate) fn logistic<S: Scalar>(x: S) -> (S, S, S) {
    // The logarithm last, so that a recording holds few temporaries at once.
    let e = (-x.abs()).exp();
    let sum = e + one();
    let lost = e - (sum - one());
    let is_below = x.lt(zero());
    let [sigmoid, complement] = [S::select(is_below, e, one()) / sum, S::select(is_below, one(), e) / sum];
    (sum.ln() + lost, sigmoid, complement)
}

mod single {
    use std::f32::consts::LOG2_E;

    // The logarithm of 2 in two parts: the first has so few digits that its multiples are exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    /// Adding it to a small number leaves that number, rounded, in the lowest bits.
    const ROUND: f32 = 12_582_912.0;

    /// `2^n · e^r` with `x = n·log 2 + r`. The polynomial is that of Moshier's Cephes library.
    #[inline(always)]
    pub(super) fn exp(x: f32) -> f32 {
        let x = x.clamp(-104.0, 89.0);
        let shifted = x * LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = x - n * LN_2_HIGH - n * LN_2_LOW;
        let p = 1.987_569_1e-4;
        let p = p * r + 1.398_199_9e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 1.666_666_5e-1;
        let p = p * r + 0.5;
        let e_r = p * r * r + r + 1.0;
        // In two steps, as 2^n alone may be too large or too small for a number.
        let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        let half = n >> 1;
        e_r * power_of_2(half) * power_of_2(n.wrapping_sub(half))
    }

    #[inline(always)]
    fn power_of_2(n: i32) -> f32 {
        f32::from_bits((n.wrapping_add(127) << 23) as u32)
    }

    /// `e·log 2 + log m` with `x = 2^e · m` and `m` around 1. The polynomial is that of Moshier's Cephes library.
    #[inline(always)]
    pub(super) fn ln(x: f32) -> f32 {
        // The smallest numbers have no leading 1; here they get one.
        let tiny = x < f32::MIN_POSITIVE;
        let bits = (if tiny { x * 8_388_608.0 } else { x }).to_bits() as i32;
        // The exponent as it is when the rest is between √½ and √2.
        let e = bits.wrapping_sub(0x3f35_04f3) >> 23;
        let f = f32::from_bits(bits.wrapping_sub(e << 23) as u32) - 1.0;
        let e = e as f32 - if tiny { 23.0 } else { 0.0 };
        let p = 7.037_683_6e-2;
        let p = p * f - 1.151_461e-1;
        let p = p * f + 1.167_699_9e-1;
        let p = p * f - 1.242_014_1e-1;
        let p = p * f + 1.424_932_3e-1;
        let p = p * f - 1.666_805_8e-1;
        let p = p * f + 2.000_071_5e-1;
        let p = p * f - 2.499_999_4e-1;
        let p = p * f + 3.333_333e-1;
        let log_m = f * f * f * p + e * LN_2_LOW - 0.5 * f * f + f;
        let log = log_m + e * LN_2_HIGH;
        if x == 0.0 {
            f32::NEG_INFINITY
        } else if x > 0.0 {
            if x == f32::INFINITY { x } else { log }
        } else {
            f32::NAN
        }
    }
}

/// The same in double precision.
mod double {
    use std::f64::consts::LOG2_E;

    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const ROUND: f64 = 6_755_399_441_055_744.0;

    /// The polynomial is the series of `e^r`, as far as it counts for |r| up to half of log 2.
    #[inline(always)]
    pub(super) fn exp(x: f64) -> f64 {
        let x = x.clamp(-746.0, 710.0);
        let shifted = x * LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = x - n * LN_2_HIGH - n * LN_2_LOW;
        let mut p = 1.0 / 6_227_020_800.0;
        for k in [479_001_600.0, 39_916_800.0, 3_628_800.0, 362_880.0, 40_320.0, 5_040.0, 720.0, 120.0, 24.0, 6.0, 2.0]
        {
            p = p * r + 1.0 / k;
        }
        let e_r = p * r * r + r + 1.0;
        let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
        // Half of n, rounded down, without a shift that keeps the sign: not every processor has it for vectors.
        let half = (n.wrapping_add(4096) >> 1).wrapping_sub(2048);
        e_r * power_of_2(half) * power_of_2(n.wrapping_sub(half))
    }

    #[inline(always)]
    fn power_of_2(n: u64) -> f64 {
        f64::from_bits(n.wrapping_add(1023) << 52)
    }

    /// With `s = f / (2 + f)` `log(1 + f)` is `2·atanh(s)`. The polynomial is that of Sun's fdlibm.
    #[inline(always)]
    pub(super) fn ln(x: f64) -> f64 {
        let tiny = x < f64::MIN_POSITIVE;
        let bits = (if tiny { x * 18_014_398_509_481_984.0 } else { x }).to_bits();
        // Counted from -1024, so that it needs no shift that keeps the sign.
        let e = (bits.wrapping_sub(0x3fe6_a09e_667f_3bcd).wrapping_add(1024 << 52) >> 52).wrapping_sub(1024);
        let f = f64::from_bits(bits.wrapping_sub(e << 52)) - 1.0;
        let e = f64::from_bits(ROUND.to_bits().wrapping_add(e)) - ROUND - if tiny { 54.0 } else { 0.0 };
        let s = f / (2.0 + f);
        let z = s * s;
        let p = 1.479_819_860_511_658_6e-1;
        let p = p * z + 1.531_383_769_920_937_3e-1;
        let p = p * z + 1.818_357_216_161_805e-1;
        let p = p * z + 2.222_219_843_214_978_4e-1;
        let p = p * z + 2.857_142_874_366_239e-1;
        let p = p * z + 3.999_999_999_940_942e-1;
        let p = p * z + 6.666_666_666_666_735e-1;
        let half_square = 0.5 * f * f;
        let log_m = f - (half_square - (s * (half_square + p * z) + e * LN_2_LOW));
        let log = log_m + e * LN_2_HIGH;
        if x == 0.0 {
            f64::NEG_INFINITY
        } else if x > 0.0 {
            if x == f64::INFINITY { x } else { log }
        } else {
            f64::NAN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every magnitude, and the limits of the type.
    fn numbers() -> impl Iterator<Item = f32> {
        let sizes = (0..=u32::from(u16::MAX)).map(|high| f32::from_bits(high << 16 | 0x5a5a));
        sizes.chain((-2000..2000).map(|i| i as f32 / 16.0)).chain([f32::MIN_POSITIVE, 1e-45, 1.0, f32::MAX])
    }

    /// The same in double precision.
    fn doubles() -> impl Iterator<Item = f64> {
        let sizes = (0..=u64::from(u16::MAX)).map(|high| f64::from_bits(high << 48 | 0x5a5a_5a5a_5a5a));
        sizes.chain((-20_000..20_000).map(|i| f64::from(i) / 27.0)).chain([f64::MIN_POSITIVE, 5e-324, 1.0, f64::MAX])
    }

    /// The worst error against `f64`, in units in the last place, and where it is.
    fn worst(f: fn(f32) -> f32, exact: fn(f64) -> f64, range: std::ops::RangeInclusive<f32>) -> (f64, f32) {
        let difference = |x: f32| {
            let exact = exact(f64::from(x));
            let unit = 2f64.powi((exact.abs().log2().floor() as i32).max(-126) - 23);
            if f(x) == exact as f32 { 0.0 } else { (f64::from(f(x)) - exact).abs() / unit }
        };
        numbers()
            .filter(|x| range.contains(x))
            .map(|x| (difference(x), x))
            .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    }

    /// The same for `f64`, against the standard library.
    fn worst_double(f: fn(f64) -> f64, exact: fn(f64) -> f64, range: std::ops::RangeInclusive<f64>) -> (f64, f64) {
        let difference = |x: f64| {
            let exact = exact(x);
            let unit = f64::from_bits(exact.abs().to_bits() + 1) - exact.abs();
            if f(x) == exact { 0.0 } else { (f(x) - exact).abs() / unit }
        };
        doubles()
            .filter(|x| range.contains(x))
            .map(|x| (difference(x), x))
            .fold((0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a })
    }

    #[test]
    fn functions_are_exact_to_4_units_in_f32() {
        let all = f32::NEG_INFINITY..=f32::INFINITY;
        for (name, (units, at)) in [
            ("exp", worst(Scalar::exp, f64::exp, all.clone())),
            ("ln", worst(Scalar::ln, f64::ln, 0.0..=f32::INFINITY)),
            ("ln_1p", worst(ln_1p, f64::ln_1p, -1.0..=1.0)),
            ("tail", worst(|x| logistic(x).0, |x| (-x.abs()).exp().ln_1p(), -80.0..=80.0)),
            ("sigmoid", worst(|x| logistic(x).1, |x| 1.0 / (1.0 + (-x).exp()), -80.0..=f32::INFINITY)),
        ] {
            println!("{name}: {units:.2} units at {at:e}");
            assert!(units <= 4.0, "{name} is {units} units off at {at:e}");
        }
    }

    #[test]
    fn functions_are_exact_to_4_units_in_f64() {
        let all = f64::NEG_INFINITY..=f64::INFINITY;
        for (name, (units, at)) in [
            ("exp", worst_double(Scalar::exp, f64::exp, all.clone())),
            ("ln", worst_double(Scalar::ln, f64::ln, 0.0..=f64::INFINITY)),
            ("ln_1p", worst_double(ln_1p, f64::ln_1p, -1.0..=1.0)),
            ("tail", worst_double(|x| logistic(x).0, |x| (-x.abs()).exp().ln_1p(), -700.0..=700.0)),
            ("sigmoid", worst_double(|x| logistic(x).1, |x| 1.0 / (1.0 + (-x).exp()), -700.0..=f64::INFINITY)),
        ] {
            println!("{name}: {units:.2} units at {at:e}");
            assert!(units <= 4.0, "{name} is {units} units off at {at:e}");
        }
    }

    fn nan_propagates<W: Float>() {
        let nan = W::constant(f64::NAN);
        for f in [W::exp, W::ln, ln_1p::<W>, sign, |x| logistic(x).0, |x| logistic(x).1] {
            assert!(f(nan).to_f64().is_nan());
        }
        let [zero, one, infinity] = [W::constant(0.0), W::constant(1.0), W::INFINITY];
        assert!((-one).ln().to_f64().is_nan() && ln_1p(-one - one).to_f64().is_nan());
        assert!((zero.ln(), infinity.ln(), ln_1p(-one)) == (-infinity, infinity, -infinity));
        assert!(((-infinity).exp(), infinity.exp(), zero.exp()) == (zero, infinity, one));
        assert!((sign(W::constant(-3.0)), sign(zero), sign(W::constant(3.0))) == (-one, zero, one));
    }

    #[test]
    fn nan_propagates_in_both_precisions() {
        nan_propagates::<f32>();
        nan_propagates::<f64>();
    }
}
