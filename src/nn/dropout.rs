use super::parameters::Draws;
use candle_core::{Device, Result, Tensor, bail};
use candle_nn::ModuleT;
use rand::RngCore;
use rand_chacha::ChaCha12Rng;
use std::sync::Arc;

/// Dropout with reproducible masks. In training, each element is set to 0 with the probability `rate` and otherwise divided by
/// `1 - rate`; the result has the shape and dtype of the input. In evaluation, the input is returned unchanged.
///
/// Create it with [`Parameters::dropout`](crate::Parameters::dropout). `candle_nn::Dropout` draws from Candle's generator,
/// which can't be seeded on the CPU. Here a mask depends only on the seed, on the number of masks drawn before it, which
/// [`Checkpoint`](crate::Checkpoint) saves, and on the number of elements. Runs with the same seed are therefore equal, and a
/// resumed run has the masks of an uninterrupted one. Masks are drawn on the CPU and copied to the device, so they are the same
/// everywhere.
///
/// Source: Srivastava et al., [Dropout](https://jmlr.org/papers/v15/srivastava14a.html), 2014;
/// [`torch.nn.Dropout`](https://pytorch.org/docs/stable/generated/torch.nn.Dropout.html).
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_losses::Parameters;
/// use candle_nn::ModuleT;
///
/// let dropout = Parameters::seeded(42).dropout(0.5)?;
/// let x = Tensor::ones(1000, DType::F32, &Device::Cpu)?;
/// let y = dropout.forward_t(&x, true)?.to_vec1::<f32>()?;
/// assert!(y.iter().all(|y| *y == 0.0 || *y == 2.0));
/// assert!((450..550).contains(&y.iter().filter(|y| **y == 0.0).count()));
/// assert_eq!(dropout.forward_t(&x, false)?.to_vec1::<f32>()?, [1.0; 1000]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dropout {
    rate: f64,
    draws: Arc<Draws>,
}

impl Dropout {
    pub(super) fn new(rate: f64, draws: Arc<Draws>) -> Result<Self> {
        if !(0.0..=1.0).contains(&rate) {
            bail!("Dropout: rate is {rate} but must be in [0, 1]")
        }
        Ok(Self { rate, draws })
    }

    /// Applies dropout to `x` if `train` is true, like `candle_nn::Dropout::forward`.
    ///
    /// # Errors
    /// If the mask can't be copied to the device.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if !train || self.rate == 0.0 {
            return Ok(x.clone());
        }
        let mask = mask(&mut self.draws.next(), self.rate, x.elem_count());
        let mask = Tensor::from_vec(mask, x.shape(), &Device::Cpu)?;
        x * mask.to_dtype(x.dtype())?.to_device(x.device())?
    }
}

impl ModuleT for Dropout {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.forward(x, train)
    }
}

fn mask(rng: &mut ChaCha12Rng, rate: f64, count: usize) -> Vec<f32> {
    // For a rate of 1 the threshold is 2³², above every `u32`.
    let threshold = (rate * 2f64.powi(32)) as u64;
    let scale = (1.0 / (1.0 - rate)) as f32;
    (0..count).map(|_| if u64::from(rng.next_u32()) < threshold { 0.0 } else { scale }).collect()
}

#[cfg(test)]
mod tests {
    use crate::Parameters;
    use candle_core::{DType, Device, Result, Tensor, Var};
    use candle_nn::ModuleT;

    fn masks(parameters: &Parameters, count: usize) -> Result<Vec<Vec<f32>>> {
        let (first, second) = (parameters.dropout(0.5)?, parameters.dropout(0.3)?);
        let x = Tensor::ones(64, DType::F32, &Device::Cpu)?;
        let pairs = (0..count).flat_map(|_| [first.forward_t(&x, true), second.forward_t(&x, true)]);
        pairs.map(|y| y?.to_vec1()).collect()
    }

    #[test]
    fn masks_depend_on_the_seed_and_on_the_position_alone() -> Result<()> {
        let parameters = Parameters::seeded(1);
        let all = masks(&parameters, 4)?;
        assert_eq!(masks(&Parameters::seeded(1), 4)?, all);
        assert_ne!(masks(&Parameters::seeded(2), 4)?, all);
        assert!((1..8).all(|i| all[i] != all[0]));
        assert_eq!(parameters.dropout_draws(), 8);
        let resumed = Parameters::seeded(1);
        resumed.set_dropout_draws(4);
        assert_eq!(masks(&resumed, 2)?, all[4..]);
        Ok(())
    }

    #[test]
    fn gradients_pass_where_elements_do() -> Result<()> {
        let x = Var::from_tensor(&Tensor::ones((4, 8), DType::F64, &Device::Cpu)?)?;
        let y = Parameters::seeded(1).dropout(0.25)?.forward_t(&x, true)?;
        let grads = y.sum_all()?.backward()?;
        let grad = grads.get(&x).unwrap().flatten_all()?.to_vec1::<f64>()?;
        assert_eq!(grad, y.flatten_all()?.to_vec1::<f64>()?);
        Ok(())
    }

    #[test]
    fn rates_from_0_to_1() -> Result<()> {
        let x = Tensor::ones(8, DType::F16, &Device::Cpu)?;
        let sum = |rate| -> Result<f32> {
            let y = Parameters::seeded(1).dropout(rate)?.forward_t(&x, true)?;
            assert_eq!(y.dtype(), DType::F16);
            y.to_dtype(DType::F32)?.sum_all()?.to_scalar()
        };
        assert_eq!(sum(0.0)?, 8.0);
        for rate in [-0.1, 1.1, f64::NAN] {
            let error = Parameters::seeded(1).dropout(rate).unwrap_err().to_string();
            assert!(error.contains("rate is") && error.contains("[0, 1]"), "{error}");
        }
        assert_eq!(sum(1.0)?, 0.0);
        Ok(())
    }
}
