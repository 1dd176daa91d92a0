//! What stands after an option, read and checked; on a page of the book as on a terminal.

use crate::loss::Reduction;
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};

pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("needs a whole number, 1 or more".into()),
    }
}

pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("needs a positive number".into()),
    }
}

/// Reads a share to hold out, for `value_parser`.
///
/// ```
/// use candle_losses::cli::test_fraction;
///
/// assert_eq!(test_fraction("0.25"), Ok(0.25));
/// assert!(test_fraction("1").is_err());
/// ```
pub fn test_fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if (0.0..1.0).contains(&fraction) => Ok(fraction),
        _ => Err("needs a number from 0 up to, but not including, 1".into()),
    }
}

pub fn reduction(text: &str) -> Result<Reduction, String> {
    match text {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "batchmean" => Ok(Reduction::BatchMean),
        _ => Err("needs one of mean, sum, batchmean".into()),
    }
}

/// A `--weight` of one number per class as the tensor that a loss takes; `None` if none was given.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::cli::class_weights;
///
/// assert!(class_weights(&[], &Device::Cpu)?.is_none());
/// assert_eq!(class_weights(&[1.0, 2.0], &Device::Cpu)?.unwrap().dims(), [2]);
/// # Ok::<(), anyhow::Error>(())
/// ```
pub fn class_weights(weights: &[f32], device: &Device) -> Result<Option<Tensor>> {
    ensure!(weights.iter().all(|weight| weight.is_finite()), "a weight is not a finite number");
    if weights.is_empty() { Ok(None) } else { Ok(Some(Tensor::new(weights, device)?)) }
}

pub fn signal(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(signal) if (0.0..=1.0).contains(&signal) => Ok(signal),
        _ => Err("needs a number from 0 to 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        assert!(["0", "-1", "x"].iter().all(|text| at_least_one(text).is_err()));
        assert!(["0", "-1e-3", "inf", "NaN", "x"].iter().all(|text| positive(text).is_err()));
        assert!(["-0.1", "1", "NaN", "x"].iter().all(|text| test_fraction(text).is_err()));
        assert!(["none", "x"].iter().all(|text| reduction(text).is_err()));
        assert!(["-0.1", "1.1", "NaN", "x"].iter().all(|text| signal(text).is_err()));
        assert!(class_weights(&[1.0, f32::NAN], &Device::Cpu).is_err());
    }
}
