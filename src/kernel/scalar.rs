//! Functions of one `f32` that the fused losses are written in. They have no branches and call nothing, so that a loop over
//! them becomes vector instructions; the standard library's would be called one by one.

use std::f32::consts::LOG2_E;

// The logarithm of 2 in two parts: the first has so few digits that its multiples are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Adding it to a small number leaves that number, rounded, in the lowest bits.
const ROUND: f32 = 12_582_912.0;

/// -1, ±0 or 1; NaN of NaN.
#[inline(always)]
pub(crate) fn sign(x: f32) -> f32 {
    if x.abs() > 0.0 { 1f32.copysign(x) } else { x }
}

/// `x` within ±`bound`; NaN of NaN. The standard library's may panic, which keeps a loop from becoming vectors.
#[inline(always)]
pub(crate) fn clamp(x: f32, bound: f32) -> f32 {
    if x < -bound {
        -bound
    } else if x > bound {
        bound
    } else {
        x
    }
}

/// `e^x` to 2 units in the last place; 0 and infinity where they are due.
///
/// With `x = n·log 2 + r` it is `2^n · e^r`. The polynomial is that of Moshier's Cephes library.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
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

/// `log x` to 2 units in the last place; -∞ of 0, NaN of negative numbers.
///
/// With `x = 2^e · m` and `m` around 1 it is `e·log 2 + log m`. The polynomial is that of Moshier's Cephes library.
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
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

/// `log(1 + y)` for `y >= -1`, without losing a `y` that vanishes beside 1.
#[inline(always)]
pub(crate) fn ln_1p(y: f32) -> f32 {
    let sum = 1.0 + y;
    // At y = -1 nothing was lost, and the bound keeps 0 / 0 out.
    ln(sum) + (y - (sum - 1.0)) / sum.max(1e-30)
}

/// `log(1 + e^-|x|)` and the sigmoid `1 / (1 + e^-x)`, both exact in both tails.
#[inline(always)]
pub(crate) fn logistic(x: f32) -> (f32, f32) {
    let e = exp(-x.abs());
    (ln_1p(e), (if x >= 0.0 { 1.0 } else { e }) / (1.0 + e))
}

/// `x` where it is positive, else 0.
#[inline(always)]
pub(crate) fn positive(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every size, and those where something changes.
    fn numbers() -> impl Iterator<Item = f32> {
        let sizes = (0..=u32::from(u16::MAX)).map(|high| f32::from_bits(high << 16 | 0x5a5a));
        sizes.chain((-2000..2000).map(|i| i as f32 / 16.0)).chain([f32::MIN_POSITIVE, 1e-45, 1.0, f32::MAX])
    }

    /// The worst difference from what double precision gives, in units of the last place.
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

    #[test]
    fn as_good_as_single_precision_allows() {
        let all = f32::NEG_INFINITY..=f32::INFINITY;
        for (name, (units, at)) in [
            ("exp", worst(exp, f64::exp, all.clone())),
            ("ln", worst(ln, f64::ln, 0.0..=f32::INFINITY)),
            ("ln_1p", worst(ln_1p, f64::ln_1p, -1.0..=1.0)),
            ("tail", worst(|x| logistic(x).0, |x| (-x.abs()).exp().ln_1p(), -80.0..=80.0)),
            ("sigmoid", worst(|x| logistic(x).1, |x| 1.0 / (1.0 + (-x).exp()), -80.0..=f32::INFINITY)),
        ] {
            println!("{name}: {units:.2} units at {at:e}");
            assert!(units <= 4.0, "{name} is {units} units off at {at:e}");
        }
    }

    #[test]
    fn what_is_no_number_stays_so() {
        for f in [exp, ln, ln_1p, sign, |x| logistic(x).0, |x| logistic(x).1] {
            assert!(f(f32::NAN).is_nan());
        }
        assert!(ln(-1.0).is_nan() && ln_1p(-2.0).is_nan());
        assert_eq!((ln(0.0), ln(f32::INFINITY), ln_1p(-1.0)), (f32::NEG_INFINITY, f32::INFINITY, f32::NEG_INFINITY));
        assert_eq!((exp(f32::NEG_INFINITY), exp(f32::INFINITY), exp(0.0)), (0.0, f32::INFINITY, 1.0));
        assert_eq!((sign(-3.0), sign(0.0), sign(3.0)), (-1.0, 0.0, 1.0));
    }
}
