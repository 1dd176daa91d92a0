//! Parsers of the values of options.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use candle_losses::loss::Reduction;

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

/// Parses the fraction of the rows to hold out, in [0, 1).
pub fn test_fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if (0.0..1.0).contains(&fraction) => Ok(fraction),
        _ => Err("needs a number from 0 up to, but not including, 1".into()),
    }
}

pub fn reduction(text: &str) -> Result<Reduction, String> {
    match text.parse() {
        Ok(Reduction::None) | Err(_) => Err("needs one of mean, sum, batchmean".into()),
        Ok(reduction) => Ok(reduction),
    }
}

/// A `--weight` of one number per class as the tensor that a loss takes; `None` if none was given.
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
