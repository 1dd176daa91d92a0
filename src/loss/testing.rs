//! Helpers for the unit tests of the losses.

use candle_core::{DType, Device, Result, Tensor};

#[path = "../../tests/common/mod.rs"]
mod common;
pub use common::device;

pub fn vector(values: &[f64]) -> Tensor {
    Tensor::new(values, &device()).unwrap()
}

/// Asserts that the elements of the result equal `expected` to 1e-12.
pub fn assert_values(result: Result<Tensor>, expected: &[f64]) -> Result<()> {
    let values = result?.flatten_all()?.to_vec1::<f64>()?;
    assert_eq!(values.len(), expected.len(), "{values:?} {expected:?}");
    for (value, expected) in values.iter().zip(expected) {
        assert!((value - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{values:?} {expected:?}");
    }
    Ok(())
}

/// Asserts that the result is an error, and that the first line of its message contains each of `parts`.
pub fn refuses(result: Result<Tensor>, parts: &[&str]) {
    let message = result.expect_err("must be refused").to_string();
    let line = message.lines().next().unwrap();
    for part in parts {
        assert!(line.contains(part), "{part:?} is missing from: {line}");
    }
}

/// Asserts that a loss of an input and a target of the same shape rejects mismatched arguments.
pub fn refuses_mismatches(loss: &str, forward: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) {
    let x = vector(&[0.5, 0.5, 0.5]);
    refuses(forward(&x, &x.reshape((3, 1)).unwrap()), &[loss, "target", "[3, 1]", "[3]"]);
    refuses(forward(&x, &vector(&[0.5])), &[loss, "target", "[1]", "[3]"]);
    refuses(forward(&x, &x.to_dtype(DType::F32).unwrap()), &[loss, "target", "F32", "F64"]);
    let integers = x.to_dtype(DType::U32).unwrap();
    refuses(forward(&integers, &integers), &[loss, "input", "U32", "F32"]);
}

/// Asserts that a loss of class indices rejects invalid classes and weights, and takes classes of every integer dtype.
pub fn refuses_bad_classes(
    loss: &str,
    forward: impl Fn(&Tensor, &Tensor, Option<Tensor>) -> Result<Tensor>,
) -> Result<()> {
    let x = Tensor::zeros((2, 3), DType::F64, &device())?;
    let classes = |values: &[i64]| Tensor::new(values, &device());
    if device().is_cpu() {
        refuses(forward(&x, &classes(&[0, 3])?, None), &[loss, "target", "class 3", "3 classes"]);
        refuses(forward(&x, &classes(&[-1, 0])?, None), &[loss, "target", "class -1", "3 classes"]);
        refuses(forward(&x, &Tensor::new(&[7u8, 0], &device())?, None), &[loss, "target", "class 7"]);
    }
    refuses(forward(&x, &classes(&[0])?, None), &[loss, "target", "[1]", "[2, 3]", "[2]"]);
    refuses(forward(&x, &classes(&[0, 1])?.reshape((2, 1))?, None), &[loss, "target", "[2, 1]"]);
    let value = forward(&x, &classes(&[0, 1])?, None)?.to_scalar::<f64>()?;
    for dtype in [DType::U8, DType::U32, DType::I16, DType::I32] {
        let target = classes(&[0, 1])?.to_device(&Device::Cpu)?.to_dtype(dtype)?.to_device(&device())?;
        assert_eq!(forward(&x, &target, None)?.to_scalar::<f64>()?, value, "{dtype:?}");
    }
    refuses(forward(&x.to_dtype(DType::U8)?, &classes(&[0, 1])?, None), &[loss, "input", "U8"]);
    let weight = Tensor::ones(2, DType::F64, &device())?;
    refuses(forward(&x, &classes(&[0, 1])?, Some(weight)), &[loss, "weight", "[2]", "3 classes"]);
    Ok(())
}
