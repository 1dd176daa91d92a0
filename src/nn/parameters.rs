use candle_core::{DType, Device, Error, Result, Shape, Tensor, Var, bail};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use rand_distr::{Distribution, StandardNormal};
use safetensors::SafeTensors;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The named parameters of a model: like `candle_nn::VarMap`, but initialized reproducibly from a seed.
///
/// A model gets its parameters from [`var_builder`](Self::var_builder), like any model built on `candle_nn::VarBuilder`.
/// Each parameter is initialized on first use by the layer's `Init`, from the seed, its name and its shape. The values do not
/// depend on the device, on the dtype (except for rounding) or on the order of the layers. Candle's CPU generator can't be
/// seeded.
///
/// [`pp`](Self::pp) selects the parameters under a prefix, to freeze, save or load them alone. Clones share the parameters.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_losses::Parameters;
///
/// let parameters = Parameters::seeded(42);
/// let vb = parameters.var_builder(DType::F32, &Device::Cpu);
/// let encoder = candle_nn::linear(4, 3, vb.pp("encoder"))?;
/// let head = candle_nn::linear(3, 2, vb.pp("head"))?;
/// assert_eq!(head.forward(&encoder.forward(&Tensor::ones((1, 4), DType::F32, &Device::Cpu)?)?)?.dims(), [1, 2]);
/// let names = parameters.named_vars().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
/// assert_eq!(names, ["encoder.bias", "encoder.weight", "head.bias", "head.weight"]);
///
/// parameters.pp("encoder").freeze();
/// assert_eq!(parameters.trainable_vars().len(), 2); // what an optimizer is given: the head's
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Parameters {
    shared: Arc<Shared>,
    prefix: String,
}

struct Shared {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    drawn: BTreeMap<String, Var>,
    /// Those that a model has without a gradient, as they were frozen when it was built.
    detached: BTreeSet<String>,
    /// What was frozen or unfrozen, in this order: the last word on a name counts.
    frozen: Vec<(String, bool)>,
}

impl State {
    fn is_frozen(&self, name: &str) -> bool {
        self.frozen.iter().rev().find(|(prefix, _)| is_under(prefix, name)).is_some_and(|&(_, frozen)| frozen)
    }
}

/// Whether it is one of the statistics that a `BatchNorm` keeps: saved and loaded with the rest, but not trained.
fn is_statistic(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}

/// Whether `name` is `prefix` or begins with it and a dot.
fn is_under(prefix: &str, name: &str) -> bool {
    prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Parameters {
    /// Creates an empty set of parameters, which are initialized from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self { shared: Arc::new(Shared { seed, state: Mutex::default() }), prefix: String::new() }
    }

    /// Returns a `VarBuilder` for this part, in `dtype` and on `device`.
    ///
    /// A repeated name returns the same parameter; a repeated name with another shape, dtype or device is an error.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        let builder = VarBuilder::from_backend(Box::new(self.clone()), dtype, device.clone());
        if self.prefix.is_empty() { builder } else { builder.set_prefix(&self.prefix) }
    }

    /// Returns the parameters under `name`: `pp("encoder").pp("0")` selects `encoder.0` and every `encoder.0.…`.
    pub fn pp(&self, name: impl ToString) -> Self {
        let name = name.to_string();
        let prefix = if self.prefix.is_empty() { name } else { format!("{}.{name}", self.prefix) };
        Self { prefix, ..self.clone() }
    }

    /// Returns the variables of this part with their full names, sorted by name.
    pub fn named_vars(&self) -> Vec<(String, Var)> {
        let state = self.state();
        let named = state.drawn.iter().filter(|(name, _)| is_under(&self.prefix, name));
        named.map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    /// Returns the variables of this part for an optimizer, sorted by name: all that are not frozen, except the running
    /// statistics of a `BatchNorm`.
    pub fn trainable_vars(&self) -> Vec<Var> {
        let state = self.state();
        let is_trained = |name: &str| !state.is_frozen(name) && !state.detached.contains(name) && !is_statistic(name);
        let trained = state.drawn.iter().filter(|(name, _)| is_under(&self.prefix, name) && is_trained(name));
        trained.map(|(_, var)| var.clone()).collect()
    }

    /// Freezes this part: [`trainable_vars`](Self::trainable_vars) leaves it out. A model built afterwards computes no gradient
    /// for it, which saves time and keeps it out of the norm that `Trainer` clips. Freeze before building the model.
    pub fn freeze(&self) {
        self.state().frozen.push((self.prefix.clone(), true));
    }

    /// Unfreezes this part. A model built while it was frozen has no gradient for it, and
    /// [`trainable_vars`](Self::trainable_vars) leaves it out until the model is built again.
    pub fn unfreeze(&self) {
        self.state().frozen.push((self.prefix.clone(), false));
    }

    /// Returns whether every value of this part is finite. On a GPU the host waits for the values.
    pub fn are_finite(&self) -> Result<bool> {
        for (_, var) in self.named_vars() {
            let values = var.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            if !values.iter().all(|value| value.is_finite()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes this part to a safetensors file under its full names, the way PyTorch's `safetensors.torch.save_file` writes a
    /// `state_dict`. An older file is replaced once the new one is whole.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        // A link stays one, and what is no file, such as a device, is written to.
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut aside = real.as_os_str().to_owned();
        aside.push(format!(".{}.part", std::process::id()));
        let write = || {
            let bytes = self.to_safetensors(None)?;
            if real.exists() && !real.is_file() {
                return Ok(std::fs::write(&real, bytes)?);
            }
            std::fs::write(&aside, bytes)?;
            Ok(std::fs::rename(&aside, &real)?)
        };
        write().map_err(|error: Error| {
            let _ = std::fs::remove_file(&aside);
            error.with_path(path)
        })
    }

    /// Returns the bytes that [`save`](Self::save) writes, with optional `metadata`.
    pub fn to_safetensors(&self, metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
        let tensors = self.named_vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone()));
        Ok(safetensors::serialize(tensors, metadata)?)
    }

    /// Loads this part from a safetensors file, from any float dtype. Build the model first.
    ///
    /// For all the parameters the file must hold exactly their names; for a part, exactly those under its name, whatever
    /// else it holds. PyTorch's `num_batches_tracked` is ignored.
    ///
    /// # Errors
    /// If the file can't be read, or a name is missing, unexpected or of another shape. Nothing is changed then.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let load = || self.load_safetensors(&std::fs::read(path)?);
        load().map_err(|error| error.with_path(path))
    }

    /// [`load`](Self::load) from the file's bytes.
    pub fn load_safetensors(&self, bytes: &[u8]) -> Result<()> {
        let file = SafeTensors::deserialize(bytes);
        let file =
            file.map_err(|error| Error::msg(format!("it is not a safetensors file, or a truncated one: {error}")))?;
        let mut stored = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        // The names from the header: candle leaves out what it has no dtype for.
        let names = file.names().into_iter().filter(|name| is_under(&self.prefix, name));
        let names = names.filter(|name| !name.ends_with(".num_batches_tracked")).map(str::to_owned);
        let mut left_over = names.collect::<BTreeSet<_>>();
        let own = self.named_vars();
        if own.is_empty() {
            bail!("there is no parameter{} yet to load: build the model first", self.of_this_part())
        }
        let mut loaded = Vec::new();
        for (name, var) in own {
            left_over.remove(&name);
            let Some(tensor) = stored.remove(&name) else { bail!("the file has no tensor {name}") };
            if tensor.dims() != var.dims() || !tensor.dtype().is_float() {
                bail!(
                    "{name} is {:?} of shape {:?} but needs floats of shape {:?}",
                    tensor.dtype(),
                    tensor.dims(),
                    var.dims()
                )
            }
            loaded.push((tensor.to_dtype(var.dtype())?.to_device(var.device())?, var));
        }
        if let Some(name) = left_over.first() {
            bail!("the file also holds {name}, which is not in this model")
        }
        loaded.into_iter().try_for_each(|(tensor, var)| var.set(&tensor))
    }

    fn of_this_part(&self) -> String {
        if self.prefix.is_empty() { String::new() } else { format!(" under {}", self.prefix) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As a model gets it: without a gradient where it is frozen. The same memory, so that what is loaded later is there;
    /// statistics as a variable all the same, as a layer would take a copy of anything else.
    fn given(state: &mut State, name: &str, var: &Var) -> Tensor {
        if state.is_frozen(name) && !is_statistic(name) {
            state.detached.insert(name.to_owned());
            return var.as_detached_tensor();
        }
        state.detached.remove(name);
        var.as_tensor().clone()
    }
}

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let shapes = self.named_vars().into_iter().map(|(name, var)| (name, var.dims().to_vec()));
        f.debug_map().entries(shapes).finish()
    }
}

impl SimpleBackend for Parameters {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut state = self.state();
        if let Some(var) = state.drawn.get(name).cloned() {
            if var.shape() != &shape || var.dtype() != dtype || !var.device().same_device(device) {
                bail!(
                    "the parameter {name} is {:?} of shape {:?} on {:?}, but was requested as {dtype:?} of shape {:?} on {:?}",
                    var.dtype(),
                    var.dims(),
                    var.device().location(),
                    shape.dims(),
                    device.location()
                )
            }
            return Ok(Self::given(&mut state, name, &var));
        }
        let var = Var::from_tensor(&draw(self.shared.seed, name, shape, init, dtype)?.to_device(device)?)?;
        let given = Self::given(&mut state, name, &var);
        state.drawn.insert(name.to_owned(), var);
        Ok(given)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut state = self.state();
        match state.drawn.get(name).cloned() {
            Some(var) => Self::given(&mut state, name, &var).to_dtype(dtype)?.to_device(device),
            None => bail!("there is no parameter {name}, and without a shape it can't be drawn"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.state().drawn.contains_key(name)
    }
}

/// On the CPU and in double precision, then rounded: so that neither device nor dtype makes a difference.
fn draw(seed: u64, name: &str, shape: Shape, init: Init, dtype: DType) -> Result<Tensor> {
    if !dtype.is_float() {
        bail!("the parameter {name} was requested as {dtype:?} but must have a float dtype")
    }
    let mut rng = generator(seed, name, &shape);
    let count = shape.elem_count();
    let mut uniform = |lo: f64, up: f64| (0..count).map(|_| lo + (up - lo) * rng.random::<f64>()).collect::<Vec<_>>();
    let values = match init {
        Init::Const(value) => vec![value; count],
        Init::Uniform { lo, up } => uniform(lo, up),
        Init::Randn { mean, stdev } => normal(&mut rng, mean, stdev, count),
        Init::Kaiming { dist, fan, non_linearity } => {
            let deviation = non_linearity.gain() / (fan.for_shape(&shape) as f64).sqrt();
            match dist {
                NormalOrUniform::Uniform => uniform(-deviation * 3f64.sqrt(), deviation * 3f64.sqrt()),
                NormalOrUniform::Normal => normal(&mut rng, 0.0, deviation, count),
            }
        }
    };
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)
}

fn normal(rng: &mut ChaCha12Rng, mean: f64, deviation: f64, count: usize) -> Vec<f64> {
    let mut draw = || -> f64 { StandardNormal.sample(rng) };
    (0..count).map(|_| mean + deviation * draw()).collect()
}

/// A generator for each seed, name and shape.
fn generator(seed: u64, name: &str, shape: &Shape) -> ChaCha12Rng {
    let dims = shape.dims().iter().flat_map(|&dim| (dim as u64).to_le_bytes());
    // FNV-1a; 0xff is in no name and ends it.
    let digest = name
        .bytes()
        .chain([0xff])
        .chain(dims)
        .fold(0xcbf2_9ce4_8422_2325u64, |digest, byte| (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[24..].copy_from_slice(&digest.to_le_bytes());
    ChaCha12Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_nn::init;

    fn drawn(parameters: &Parameters, name: &str, shape: impl Into<Shape>, init: Init) -> Vec<f64> {
        let vb = parameters.var_builder(DType::F64, &Device::Cpu);
        vb.get_with_hints(shape, name, init).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn each_is_drawn_by_seed_name_and_shape_whoever_asks_first() {
        let uniform = Init::Uniform { lo: -1.0, up: 1.0 };
        let (one, other) = (Parameters::seeded(1), Parameters::seeded(1));
        let (a, b) = (drawn(&one, "a", 5, uniform), drawn(&one, "b", 5, uniform));
        assert_eq!((drawn(&other, "b", 5, uniform), drawn(&other, "a", 5, uniform)), (b.clone(), a.clone()));
        assert!(a != b && drawn(&Parameters::seeded(2), "a", 5, uniform) != a);
        assert_ne!(drawn(&Parameters::seeded(1), "a", (5, 1), uniform), a);
        let single =
            Parameters::seeded(1).var_builder(DType::F32, &Device::Cpu).get_with_hints(5, "a", uniform).unwrap();
        let rounded = a.iter().map(|&x| x as f32).collect::<Vec<_>>();
        assert_eq!(single.to_vec1::<f32>().unwrap(), rounded, "another dtype has the same numbers, rounded");
    }

    #[test]
    fn each_init_has_its_mean_and_deviation() {
        let parameters = Parameters::seeded(3);
        let (rows, columns) = (400, 100);
        for (name, init, mean, deviation, bound) in [
            ("constant", Init::Const(7.0), 7.0, 0.0, 0.0),
            ("uniform", Init::Uniform { lo: 1.0, up: 3.0 }, 2.0, 1.0 / 3f64.sqrt(), 1.0),
            ("normal", Init::Randn { mean: -1.0, stdev: 2.0 }, -1.0, 2.0, f64::INFINITY),
            ("he uniform", init::DEFAULT_KAIMING_UNIFORM, 0.0, (2.0 / 100f64).sqrt(), (6.0 / 100f64).sqrt()),
            ("he normal", init::DEFAULT_KAIMING_NORMAL, 0.0, (2.0 / 100f64).sqrt(), f64::INFINITY),
        ] {
            let values = drawn(&parameters, name, (rows, columns), init);
            let count = values.len() as f64;
            let found = values.iter().sum::<f64>() / count;
            let square = values.iter().map(|x| (x - found).powi(2)).sum::<f64>() / count;
            // Four standard errors.
            assert!((found - mean).abs() <= 4.0 * deviation / count.sqrt() + 1e-12, "{name}: {found}");
            assert!((square.sqrt() - deviation).abs() <= 0.02 * deviation, "{name}: {}", square.sqrt());
            assert!(values.iter().all(|x| (x - mean).abs() <= bound), "{name}");
        }
    }

    fn model(seed: u64) -> Parameters {
        let parameters = Parameters::seeded(seed);
        let vb = parameters.var_builder(DType::F32, &Device::Cpu);
        for (inputs, outputs, name) in [(3, 4, "body"), (4, 2, "head"), (2, 2, "headstand")] {
            candle_nn::linear(inputs, outputs, vb.pp(name)).unwrap();
        }
        parameters
    }

    fn values(parameters: &Parameters) -> Vec<(String, Vec<f32>)> {
        let named = parameters.named_vars().into_iter();
        named.map(|(name, var)| (name, var.flatten_all().unwrap().to_vec1().unwrap())).collect()
    }

    #[test]
    fn a_part_is_what_is_under_a_name_and_not_what_begins_like_it() {
        let parameters = model(1);
        let names = |part: &Parameters| part.named_vars().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&parameters.pp("head")), ["head.bias", "head.weight"]);
        assert_eq!(names(&parameters.pp("head").pp("bias")), ["head.bias"]);
        assert_eq!(parameters.pp("nothing").named_vars().len(), 0);
    }

    #[test]
    fn what_is_frozen_is_not_for_an_optimizer_and_has_no_gradient_once_built_again() -> Result<()> {
        let parameters = model(1);
        parameters.freeze();
        parameters.pp("head").unfreeze();
        assert_eq!(parameters.trainable_vars().len(), 2);
        let vb = parameters.var_builder(DType::F32, &Device::Cpu);
        assert!(!vb.get((4, 3), "body.weight")?.track_op() && vb.get((2, 4), "head.weight")?.track_op());
        parameters.unfreeze();
        // The model has no gradient of one until it is built again.
        assert_eq!(parameters.trainable_vars().len(), 5);
        assert!(parameters.var_builder(DType::F32, &Device::Cpu).get((4, 3), "body.weight")?.track_op());
        assert_eq!(parameters.trainable_vars().len(), 6);
        Ok(())
    }

    /// A `BatchNorm` takes a copy of what is no variable, and would not see what is loaded.
    #[test]
    fn statistics_are_loaded_and_saved_but_not_trained() -> Result<()> {
        use candle_nn::{BatchNorm, ModuleT, batch_norm};
        let built = |parameters: &Parameters| -> Result<BatchNorm> {
            batch_norm(2, 1e-5, parameters.var_builder(DType::F64, &Device::Cpu).pp("norm"))
        };
        let x = Tensor::new(&[[1.0, -2.0], [3.0, 5.0]], &Device::Cpu)?.reshape((2, 2, 1, 1))?;
        let trained = Parameters::seeded(1);
        let norm = built(&trained)?;
        norm.forward_train(&x)?;
        let names = |vars: usize| assert_eq!((trained.named_vars().len(), trained.trainable_vars().len()), (4, vars));
        names(2);
        let file = trained.to_safetensors(None)?;

        let other = Parameters::seeded(2);
        other.freeze();
        let frozen = built(&other)?;
        other.load_safetensors(&file)?;
        let flat = |x: Tensor| x.flatten_all()?.to_vec1::<f64>();
        assert_eq!(flat(frozen.forward_t(&x, false)?)?, flat(norm.forward_t(&x, false)?)?);

        // As PyTorch writes it, with a count that candle has no use for.
        let mut tensors = candle_core::safetensors::load_buffer(&file, &Device::Cpu)?;
        tensors.insert("norm.num_batches_tracked".into(), Tensor::new(7i64, &Device::Cpu)?);
        other.load_safetensors(&safetensors::serialize(&tensors, None)?)?;
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link_and_a_device_a_device() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "older")?;
        std::os::unix::fs::symlink(&file, &link)?;
        model(1).save(&link)?;
        assert!(link.is_symlink() && std::fs::read(&file)? == model(1).to_safetensors(None)?);
        model(1).save("/dev/null")?;
        assert!(!std::path::Path::new("/dev/null").is_file());
        Ok(())
    }

    #[test]
    fn saved_and_loaded_whole_and_by_part() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("weights.safetensors");
        let (saved, other) = (model(1), model(2));
        saved.save(&path)?;
        other.pp("head").load(&path)?;
        assert_eq!(values(&other.pp("head")), values(&saved.pp("head")));
        assert_ne!(values(&other.pp("body")), values(&saved.pp("body")));
        other.load(&path)?;
        assert_eq!(values(&other), values(&saved));
        saved.pp("body").save(&path)?;
        let third = model(3);
        third.pp("body").load(&path)?;
        assert_eq!(values(&third.pp("body")), values(&saved.pp("body")));
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn refuses_what_does_not_fit_and_changes_nothing() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("weights.safetensors");
        let parameters = model(1);
        let before = values(&parameters);
        let refused = |of: &Parameters, parts: &[&str]| {
            let error = of.load(&path).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)) && error.contains("weights.safetensors"), "{error}");
        };
        refused(&parameters, &["No such file"]);
        parameters.pp("head").save(&path)?;
        refused(&parameters, &["the file has no tensor body.bias"]);
        refused(&Parameters::seeded(1), &["build the model first"]);
        refused(&parameters.pp("tail"), &["under tail"]);
        let more = model(1);
        candle_nn::linear(2, 2, more.var_builder(DType::F32, &Device::Cpu).pp("tail"))?;
        more.save(&path)?;
        refused(&parameters, &["also holds tail.bias"]);
        let wider = Parameters::seeded(1);
        candle_nn::linear(5, 2, wider.var_builder(DType::F32, &Device::Cpu).pp("head"))?;
        wider.save(&path)?;
        refused(&parameters.pp("head"), &["head.weight", "[2, 5]", "[2, 4]"]);
        std::fs::write(&path, b"no weights")?;
        refused(&parameters, &[]);
        assert_eq!(values(&parameters), before);
        Ok(())
    }

    #[test]
    fn one_name_is_one_parameter() -> Result<()> {
        let parameters = Parameters::seeded(1);
        let ask = |shape: usize, dtype| parameters.var_builder(dtype, &Device::Cpu).get(shape, "a");
        let first = ask(2, DType::F32)?;
        assert_eq!(ask(2, DType::F32)?.id(), first.id());
        for (shape, dtype, part) in [(3, DType::F32, "[3]"), (2, DType::F64, "F64")] {
            let error = ask(shape, dtype).unwrap_err().to_string();
            assert!(error.contains("parameter a is F32 of shape [2]") && error.contains(part), "{error}");
        }
        assert!(parameters.var_builder(DType::U32, &Device::Cpu).get(1, "b").is_err());
        assert!(parameters.var_builder(DType::F32, &Device::Cpu).get_unchecked("c").is_err());
        Ok(())
    }
}
