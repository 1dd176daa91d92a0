use crate::data::table::Encoding;
use crate::linear::linear;
use crate::loss::log_softmax;
use crate::output::Output;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Module, Tensor, Var};
use rand::{Rng, rngs::StdRng};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::path::Path;

/// The name that a table's encoding has among the metadata.
const ENCODING: &str = "candle-losses.table";

/// What follows the last linear layer.
///
/// ```
/// use candle_losses::Activation;
///
/// assert_eq!(Activation::default(), Activation::Linear);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
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

/// A multilayer perceptron: linear layers with ReLU between them.
///
/// Weights are drawn as `nn.Linear` draws them, from U(-1/√fan_in, 1/√fan_in), and stored under the names and shapes that
/// the tutorial's PyTorch model has in its `state_dict`: `layers.{i}.weight` of shape (outputs, inputs) and
/// `layers.{i}.bias`, where `i` counts the layers with their activations, after an `nn.Flatten` if there is one.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_losses::{Activation, Mlp};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let mut rng = StdRng::seed_from_u64(42);
/// let model = Mlp::new(&[784, 64, 32, 10], Activation::LogSoftmax, true, &mut rng, &Device::Cpu)?;
/// let images = Tensor::zeros((5, 28, 28), DType::F32, &Device::Cpu)?;
/// assert_eq!(model.forward(&images)?.dims(), [5, 10]);
/// assert_eq!(model.variables().len(), 6); // a weight and a bias for each of three layers
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
    last: Activation,
    /// Whether a flattening layer comes first. It takes a place in the names.
    flatten: bool,
}

/// The weight is kept as (inputs, outputs): the product and both its gradients then need no copy to transpose.
#[derive(Debug)]
struct Linear {
    weight: Var,
    bias: Var,
}

impl Mlp {
    /// Layers of these widths, the first being the number of inputs, with weights drawn from `rng`.
    pub fn new(
        widths: &[usize],
        last: Activation,
        flatten: bool,
        rng: &mut StdRng,
        device: &Device,
    ) -> candle_core::Result<Self> {
        let mut layers = Vec::new();
        for pair in widths.windows(2) {
            let (inputs, outputs) = (pair[0], pair[1]);
            let bound = 1.0 / (inputs as f32).sqrt();
            let mut draw = |shape: &[usize]| {
                let values = (0..shape.iter().product()).map(|_| rng.random_range(-bound..bound)).collect::<Vec<f32>>();
                Var::from_tensor(&Tensor::from_vec(values, shape, device)?)
            };
            layers.push(Linear { weight: draw(&[inputs, outputs])?, bias: draw(&[outputs])? });
        }
        Ok(Self { layers, last, flatten })
    }

    /// The parameters, for an optimizer.
    pub fn variables(&self) -> Vec<Var> {
        self.layers.iter().flat_map(|layer| [layer.weight.clone(), layer.bias.clone()]).collect()
    }

    /// The parameters under PyTorch's names, with the weights in PyTorch's shape.
    pub(crate) fn state(&self) -> candle_core::Result<HashMap<String, Tensor>> {
        let mut state = HashMap::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let at = 2 * i + usize::from(self.flatten);
            state.insert(format!("layers.{at}.weight"), layer.weight.t()?.contiguous()?);
            state.insert(format!("layers.{at}.bias"), layer.bias.as_tensor().clone());
        }
        Ok(state)
    }

    /// Writes the parameters to a safetensors file that PyTorch can load as the model's `state_dict`.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let output = Output::create(path)?;
        output.write(&self.bytes(None)?)
    }

    /// What the file holds; with how a table's rows become inputs among its metadata.
    pub(crate) fn bytes(&self, encoding: Option<&Encoding>) -> Result<Vec<u8>> {
        let encoding = encoding.map(serde_json::to_string).transpose()?;
        let metadata = encoding.map(|encoding| HashMap::from([(ENCODING.to_owned(), encoding)]));
        Ok(safetensors::serialize(&self.state()?, metadata)?)
    }

    /// Whether each parameter is a number.
    pub(crate) fn is_finite(&self) -> candle_core::Result<bool> {
        for variable in self.variables() {
            if !variable.flatten_all()?.to_vec1::<f32>()?.iter().all(|value| value.is_finite()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How the rows of the table that the model in a file was trained on became its inputs.
    pub(crate) fn encoding(path: &Path) -> Result<Encoding> {
        let reading = || format!("reading {}", path.display());
        Self::encoding_in(&std::fs::read(path).with_context(reading)?, &reading)
    }

    pub(crate) fn encoding_in(bytes: &[u8], context: &dyn Fn() -> String) -> Result<Encoding> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).with_context(context)?;
        let encoding = metadata.metadata().as_ref().and_then(|metadata| metadata.get(ENCODING));
        let encoding = encoding
            .context("this model was not trained on a table: make it with --csv FILE --target COLUMN --save")
            .with_context(context)?;
        serde_json::from_str(encoding).with_context(context)
    }

    /// Replaces the parameters by those in a safetensors file, which must have exactly this model's names and shapes.
    pub fn load(&self, path: &Path) -> Result<()> {
        let context = || format!("loading weights from {}", path.display());
        self.load_from(&std::fs::read(path).with_context(context)?, &context)
    }

    /// The same from the file's bytes. `context` begins an error.
    pub(crate) fn load_from(&self, bytes: &[u8], context: &dyn Fn() -> String) -> Result<()> {
        self.set_state(candle_core::safetensors::load_buffer(bytes, &Device::Cpu).with_context(context)?, context)
    }

    /// Takes parameters under PyTorch's names, which must be exactly this model's. `context` begins an error.
    pub(crate) fn set_state(&self, mut stored: HashMap<String, Tensor>, context: &dyn Fn() -> String) -> Result<()> {
        let device = self.layers[0].weight.device();
        let mut loaded = HashMap::new();
        for (name, own) in self.state()? {
            let tensor = stored.remove(&name).with_context(|| format!("there is no {name}")).with_context(context)?;
            ensure!(
                tensor.dims() == own.dims() && tensor.dtype().is_float(),
                "{}: {name} is {:?} of shape {:?} but needs floats of shape {:?}",
                context(),
                tensor.dtype(),
                tensor.dims(),
                own.dims()
            );
            loaded.insert(name, tensor.to_dtype(DType::F32)?.to_device(device)?);
        }
        if let Some(name) = stored.keys().min() {
            bail!("{}: it also holds {name}, which this model has not", context());
        }
        for (i, layer) in self.layers.iter().enumerate() {
            let at = 2 * i + usize::from(self.flatten);
            layer.weight.set(&loaded[&format!("layers.{at}.weight")].t()?.contiguous()?)?;
            layer.bias.set(&loaded[&format!("layers.{at}.bias")])?;
        }
        Ok(())
    }
}

impl Module for Mlp {
    /// From (N, inputs), or (N, …) with a flattening layer, to (N, outputs).
    fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = if self.flatten { input.flatten_from(1)? } else { input.clone() };
        for (i, layer) in self.layers.iter().enumerate() {
            let is_hidden = i + 1 < self.layers.len();
            x = linear(&x, &layer.weight, &layer.bias, is_hidden)?;
        }
        match self.last {
            Activation::Linear => Ok(x),
            Activation::LogSoftmax => log_softmax(&x, 1),
            Activation::Sigmoid => candle_nn::ops::sigmoid(&x),
            Activation::Tanh => x.tanh(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn model(seed: u64) -> Mlp {
        let mut rng = StdRng::seed_from_u64(seed);
        Mlp::new(&[12, 5, 4, 3], Activation::LogSoftmax, true, &mut rng, &Device::Cpu).unwrap()
    }

    fn golden(file: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
    }

    fn outputs(model: &Mlp, input: &Tensor) -> Vec<f32> {
        model.forward(input).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn loads_pytorchs_state_dict_and_computes_the_same() -> Result<()> {
        let model = model(1);
        model.load(&golden("mlp.safetensors"))?;
        let pytorch = candle_core::safetensors::load(golden("mlp_outputs.safetensors"), &Device::Cpu)?;
        let expected = pytorch["output"].flatten_all()?.to_vec1::<f32>()?;
        for (found, expected) in outputs(&model, &pytorch["input"]).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        Ok(())
    }

    #[test]
    fn saves_under_pytorchs_names_and_shapes_and_loads_again() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("weights.safetensors");
        let saved = model(1);
        saved.save(&path)?;
        let shapes = |file: &Path| -> Result<std::collections::BTreeMap<String, Vec<usize>>> {
            let tensors = candle_core::safetensors::load(file, &Device::Cpu)?;
            Ok(tensors.into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect())
        };
        assert_eq!(shapes(&path)?, shapes(&golden("mlp.safetensors"))?);

        let input = Tensor::rand(0f32, 1.0, (2, 3, 4), &Device::Cpu)?;
        let other = model(2);
        assert_ne!(outputs(&other, &input), outputs(&saved, &input));
        other.load(&path)?;
        assert_eq!(outputs(&other, &input), outputs(&saved, &input));
        Ok(())
    }

    #[test]
    fn weights_are_drawn_as_pytorchs_linear_draws_them() -> Result<()> {
        let mut rng = StdRng::seed_from_u64(3);
        let model = Mlp::new(&[100, 200, 50], Activation::Linear, false, &mut rng, &Device::Cpu)?;
        for (layer, fan_in) in model.layers.iter().zip([100f32, 200.0]) {
            let bound = 1.0 / fan_in.sqrt();
            let weights = layer.weight.flatten_all()?.to_vec1::<f32>()?;
            let bias = layer.bias.to_vec1::<f32>()?;
            assert!(weights.iter().chain(&bias).all(|w| w.abs() <= bound));
            let square = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
            assert!((square / (bound * bound / 3.0) - 1.0).abs() < 0.05, "the variance of a uniform distribution");
        }
        Ok(())
    }

    #[test]
    fn each_last_layer_is_what_it_says() -> Result<()> {
        let input = Tensor::rand(-1f32, 1.0, (4, 6), &Device::Cpu)?;
        let output = |last| {
            let mut rng = StdRng::seed_from_u64(5);
            let model = Mlp::new(&[6, 3], last, false, &mut rng, &Device::Cpu).unwrap();
            outputs(&model, &input)
        };
        let linear = output(Activation::Linear);
        for (i, x) in linear.iter().enumerate() {
            assert!((output(Activation::Sigmoid)[i] - 1.0 / (1.0 + (-x).exp())).abs() < 1e-6);
            assert!((output(Activation::Tanh)[i] - x.tanh()).abs() < 1e-6);
            let row = &linear[i / 3 * 3..][..3];
            let log_sum = row.iter().map(|x| x.exp()).sum::<f32>().ln();
            assert!((output(Activation::LogSoftmax)[i] - (x - log_sum)).abs() < 1e-6);
        }
        Ok(())
    }

    #[test]
    fn refuses_weights_of_another_model() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("weights.safetensors");
        let refused = |widths: &[usize], flatten, parts: &[&str]| {
            let mut rng = StdRng::seed_from_u64(1);
            Mlp::new(widths, Activation::Linear, flatten, &mut rng, &Device::Cpu).unwrap().save(&path).unwrap();
            let message = format!("{:#}", model(1).load(&path).unwrap_err());
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        };
        refused(&[12, 5, 4, 3], false, &["weights.safetensors", "there is no layers."]);
        refused(&[12, 5, 4, 3, 2], true, &["layers.7.bias"]);
        refused(&[13, 5, 4, 3], true, &["layers.1.weight", "[5, 13]", "[5, 12]"]);
        std::fs::write(&path, b"no weights")?;
        assert!(format!("{:#}", model(1).load(&path).unwrap_err()).contains("weights.safetensors"));
        Ok(())
    }
}
