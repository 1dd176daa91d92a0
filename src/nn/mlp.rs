use super::linear::linear;
use crate::kernel::ops::log_softmax;
use candle_core::{Module, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};

/// What follows the last linear layer.
///
/// ```
/// use candle_losses::OutputActivation;
///
/// assert_eq!(OutputActivation::default(), OutputActivation::Linear);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutputActivation {
    /// Nothing: the outputs are logits, scores or real numbers.
    #[default]
    Linear,
    /// Log-probabilities of classes, over dimension 1.
    LogSoftmax,
    /// A probability for each output.
    Sigmoid,
    /// A number in [-1, 1] for each output.
    Tanh,
}

/// How many numbers the images of the sections' data have: MNIST, the fake images, CIFAR-10.
const IMAGES: [usize; 3] = [28 * 28, 3 * 28 * 28, 3 * 32 * 32];

/// The examples' model, a multilayer perceptron: linear layers with ReLU between them. `widths` are the number of inputs,
/// those of the hidden layers, and the number of outputs.
///
/// Weights and biases have the names and shapes that the tutorial's PyTorch model has in its `state_dict`, and `Parameters`
/// draws them as `nn.Linear` does, from U(-1/√fan_in, 1/√fan_in): `layers.{i}.weight` of shape (outputs, inputs) and
/// `layers.{i}.bias`, where `i` counts the layers with their activations: 0, 2, 4, …. Images are flattened by a layer of
/// their own, which is layer 0, so that theirs are 1, 3, 5, …: that is where the inputs are 784, 2352 or 3072, the images
/// of MNIST, 3×28×28 and CIFAR-10.
///
/// # Errors
/// If there are fewer than two widths or one is 0, or if `vb` has other parameters under these names.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_losses::{OutputActivation, Parameters, mlp};
///
/// let parameters = Parameters::seeded(42);
/// let model = mlp(&[784, 64, 32, 10], OutputActivation::LogSoftmax, parameters.var_builder(DType::F32, &Device::Cpu))?;
/// let images = Tensor::zeros((5, 28, 28), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&images)?.dims(), [5, 10]);
/// assert_eq!(parameters.pp("layers.1.weight").trainable_vars()[0].dims(), [64, 784]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn mlp(widths: &[usize], last: OutputActivation, vb: VarBuilder) -> Result<Mlp> {
    if widths.len() < 2 || widths.contains(&0) {
        bail!("mlp: widths are {widths:?} but need two or more, none of them 0: inputs, hidden layers, outputs")
    }
    let first = usize::from(IMAGES.contains(&widths[0]));
    let layers = widths.windows(2).enumerate().map(|(i, pair)| {
        let (inputs, outputs) = (pair[0], pair[1]);
        let vb = vb.pp("layers").pp(first + 2 * i);
        let bound = 1.0 / (inputs as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        Ok((vb.get_with_hints((outputs, inputs), "weight", init)?, vb.get_with_hints(outputs, "bias", init)?))
    });
    Ok(Mlp { layers: layers.collect::<Result<_>>()?, last })
}

/// A multilayer perceptron, as [`mlp`] makes it.
#[derive(Debug, Clone)]
pub struct Mlp {
    /// Weight and bias of each layer.
    layers: Vec<(Tensor, Tensor)>,
    last: OutputActivation,
}

impl Module for Mlp {
    /// From (N, …), flattened from its second dimension on, to (N, outputs).
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let mut x = input.flatten_from(1)?;
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            let is_hidden = i + 1 < self.layers.len();
            x = linear(&x, weight, bias, is_hidden)?;
        }
        match self.last {
            OutputActivation::Linear => Ok(x),
            OutputActivation::LogSoftmax => log_softmax(&x, 1),
            OutputActivation::Sigmoid => candle_nn::ops::sigmoid(&x),
            OutputActivation::Tanh => x.tanh(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Parameters;
    use candle_core::{DType, Device};

    fn build(widths: &[usize], last: OutputActivation, seed: u64) -> (Parameters, Mlp) {
        let parameters = Parameters::seeded(seed);
        let model = mlp(widths, last, parameters.var_builder(DType::F32, &Device::Cpu)).unwrap();
        (parameters, model)
    }

    fn outputs(model: &Mlp, input: &Tensor) -> Vec<f32> {
        model.forward(input).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// The model of `tests/golden/make_mlp.py`, whose few inputs are flattened too.
    #[test]
    fn takes_pytorchs_state_dict_and_computes_the_same() -> Result<()> {
        let golden = |file: &str| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
            candle_core::safetensors::load(path, &Device::Cpu)
        };
        let renamed = golden("mlp.safetensors")?.into_iter().map(|(name, tensor)| {
            let (layer, rest) = name.strip_prefix("layers.").unwrap().split_once('.').unwrap();
            (format!("layers.{}.{rest}", layer.parse::<usize>().unwrap() - 1), tensor)
        });
        let vb = VarBuilder::from_tensors(renamed.collect(), DType::F32, &Device::Cpu);
        let model = mlp(&[12, 5, 4, 3], OutputActivation::LogSoftmax, vb)?;
        let pytorch = golden("mlp_outputs.safetensors")?;
        let expected = pytorch["output"].flatten_all()?.to_vec1::<f32>()?;
        for (found, expected) in outputs(&model, &pytorch["input"]).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        Ok(())
    }

    #[test]
    fn names_and_shapes_are_those_of_the_tutorials_models() {
        for (widths, first) in [([784, 64, 32, 10], 1), ([2352, 64, 32, 1], 1), ([13, 64, 32, 1], 0)] {
            let (parameters, _) = build(&widths, OutputActivation::Linear, 1);
            let found = parameters.named_vars().into_iter().map(|(name, var)| (name, var.dims().to_vec()));
            let expected = (0..3).flat_map(|i| {
                let at = first + 2 * i;
                [
                    (format!("layers.{at}.bias"), vec![widths[i + 1]]),
                    (format!("layers.{at}.weight"), vec![widths[i + 1], widths[i]]),
                ]
            });
            assert!(found.eq(expected), "{parameters:?}");
        }
    }

    #[test]
    fn weights_are_drawn_as_pytorchs_linear_draws_them() -> Result<()> {
        let (parameters, _) = build(&[100, 200, 50], OutputActivation::Linear, 3);
        for (layer, fan_in) in [("layers.0", 100f32), ("layers.2", 200.0)] {
            let bound = 1.0 / fan_in.sqrt();
            let values = |name: &str| parameters.pp(layer).pp(name).trainable_vars()[0].flatten_all()?.to_vec1::<f32>();
            let (weights, bias) = (values("weight")?, values("bias")?);
            assert!(weights.iter().chain(&bias).all(|w| w.abs() <= bound));
            let square = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
            assert!((square / (bound * bound / 3.0) - 1.0).abs() < 0.05, "the variance of a uniform distribution");
        }
        Ok(())
    }

    #[test]
    fn each_last_layer_is_what_it_says() -> Result<()> {
        let input = Tensor::rand(-1f32, 1.0, (4, 6), &Device::Cpu)?;
        let output = |last| outputs(&build(&[6, 3], last, 5).1, &input);
        let linear = output(OutputActivation::Linear);
        for (i, x) in linear.iter().enumerate() {
            assert!((output(OutputActivation::Sigmoid)[i] - 1.0 / (1.0 + (-x).exp())).abs() < 1e-6);
            assert!((output(OutputActivation::Tanh)[i] - x.tanh()).abs() < 1e-6);
            let row = &linear[i / 3 * 3..][..3];
            let log_sum = row.iter().map(|x| x.exp()).sum::<f32>().ln();
            assert!((output(OutputActivation::LogSoftmax)[i] - (x - log_sum)).abs() < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn computes_in_the_builders_dtype() -> Result<()> {
        let parameters = Parameters::seeded(5);
        let model = mlp(&[6, 4, 3], OutputActivation::Linear, parameters.var_builder(DType::F64, &Device::Cpu))?;
        let input = Tensor::rand(-1f64, 1.0, (4, 6), &Device::Cpu)?;
        let (double, single) = (model.forward(&input)?, build(&[6, 4, 3], OutputActivation::Linear, 5).1);
        assert_eq!(double.dtype(), DType::F64);
        let double = double.flatten_all()?.to_vec1::<f64>()?;
        for (single, double) in outputs(&single, &input.to_dtype(DType::F32)?).iter().zip(double) {
            assert!((f64::from(*single) - double).abs() < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn refuses_widths_that_make_no_layer() {
        for widths in [&[][..], &[3], &[3, 0, 1]] {
            let vb = Parameters::seeded(1).var_builder(DType::F32, &Device::Cpu);
            assert!(mlp(widths, OutputActivation::Linear, vb).unwrap_err().to_string().contains("widths"));
        }
    }
}
