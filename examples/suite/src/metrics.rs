//! Metrics of the outputs of a model.

use anyhow::Result;
use candle_core::{D, DType, Device, Module, Tensor};
use candle_losses::data::TensorDataset;

/// Number of samples in an evaluation batch.
pub(crate) const BATCH: usize = 1000;

/// The outputs of the model on all samples, (N, outputs), detached.
///
/// # Errors
/// Those of the model.
pub fn outputs(model: &impl Module, samples: &TensorDataset) -> candle_core::Result<Tensor> {
    let mut outputs = Vec::new();
    for start in (0..samples.len()).step_by(BATCH) {
        let (inputs, _) = samples.batch(None, start, BATCH.min(samples.len() - start))?;
        outputs.push(model.forward(&inputs)?.detach());
    }
    Tensor::cat(&outputs, 0)
}

/// The class of the sample among the first 10,000 of `known` whose embedding, the output of the model, is nearest to each of
/// `places`, (N, outputs).
pub fn nearest_classes(model: &impl Module, known: &TensorDataset, places: &Tensor) -> Result<Tensor> {
    let known = known.take(10_000)?;
    let others = outputs(model, &known)?;
    // The nearest y to x is where x·y - |y|²/2 is largest.
    let half_squares = (others.sqr()?.sum(D::Minus1)? / 2.)?;
    let mut nearest = Vec::new();
    let count = places.dim(0)?;
    for start in (0..count).step_by(BATCH) {
        let here = places.narrow(0, start, BATCH.min(count - start))?;
        nearest.push(here.matmul(&others.t()?)?.broadcast_sub(&half_squares)?.argmax(1)?);
    }
    Ok(known.targets().index_select(&Tensor::cat(&nearest, 0)?, 0)?)
}

/// The fraction of `hits` that are 1, a `u8` tensor, in %.
pub fn rate(hits: &Tensor) -> Result<String> {
    let rate = precise(hits)?.mean_all()?.to_scalar::<f64>()?;
    Ok(format!("{:.2}%", 100.0 * rate))
}

/// The mean absolute error.
pub fn mae(prediction: &Tensor, target: &Tensor) -> Result<String> {
    let error = error(prediction, target)?.abs()?.mean_all()?.to_scalar::<f64>()?;
    Ok(format!("{error:.3}"))
}

/// The root of the mean squared error.
pub fn rmse(prediction: &Tensor, target: &Tensor) -> Result<String> {
    let error = error(prediction, target)?.sqr()?.mean_all()?.to_scalar::<f64>()?.sqrt();
    Ok(format!("{error:.3}"))
}

fn error(prediction: &Tensor, target: &Tensor) -> candle_core::Result<Tensor> {
    precise(prediction)? - precise(target)?
}

/// In `f64`, on the CPU, as not every device has it.
fn precise(x: &Tensor) -> candle_core::Result<Tensor> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)
}

/// The first rows of a tensor in words.
pub fn described(values: &Tensor, rows: usize) -> Result<Vec<String>> {
    let is_whole = !values.dtype().is_float();
    let values = values.narrow(0, 0, rows)?.to_dtype(DType::F32)?.reshape((rows, ()))?.to_vec2::<f32>()?;
    let words = values.iter().map(|row| match row.as_slice() {
        [number] if is_whole || number.fract() == 0.0 => format!("{number:.0}"),
        [number] => format!("{number:.1}"),
        tags => {
            let holding = tags.iter().enumerate().filter(|(_, tag)| **tag > 0.5).map(|(i, _)| i.to_string());
            holding.collect::<Vec<_>>().join(" ")
        }
    });
    Ok(words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_tags_in_words() -> Result<()> {
        let words = |values: &Tensor| described(values, 2).unwrap();
        assert_eq!(words(&Tensor::new(&[3u32, 4, 5], &Device::Cpu)?), ["3", "4"]);
        assert_eq!(words(&Tensor::new(&[[3f32], [4.27]], &Device::Cpu)?), ["3", "4.3"]);
        assert_eq!(words(&Tensor::new(&[[0u8, 1, 1], [0, 0, 1]], &Device::Cpu)?), ["1 2", "2"]);
        Ok(())
    }
}
