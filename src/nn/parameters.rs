use super::dropout::Dropout;
use super::files;
use crate::kernel::ops;
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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The named parameters of a model: like `candle_nn::VarMap`, but initialized reproducibly from a seed.
///
/// A model gets its parameters from [`var_builder`](Self::var_builder), like any model built on `candle_nn::VarBuilder`.
/// Each parameter is initialized on first use by the layer's `Init`, from the seed, its name and its shape. The values do not
/// depend on the device, on the dtype (except for rounding) or on the order of the layers. `VarMap` can't do this on the CPU, where
/// Candle's random number generator can't be seeded.
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
/// assert_eq!(parameters.trainable_vars().len(), 2); // the weight and the bias of the head, for an optimizer
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Parameters {
    shared: Arc<Shared>,
    prefix: String,
}

struct Shared {
    seed: u64,
    draws: Arc<Draws>,
    state: Mutex<State>,
}

/// The masks of dropout drawn so far: each has a generator of its own.
#[derive(Debug)]
pub(super) struct Draws {
    seed: u64,
    count: AtomicU64,
}

impl Draws {
    pub(super) fn next(&self) -> ChaCha12Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        // Makes these keys differ from the keys of all other generators.
        key[8..16].copy_from_slice(b"dropout\0");
        key[16..24].copy_from_slice(&self.count.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        ChaCha12Rng::from_seed(key)
    }
}

#[derive(Default)]
struct State {
    drawn: BTreeMap<String, Var>,
    /// Names of the parameters that were frozen when the model was last built, so that it computes no gradient for them.
    detached: BTreeSet<String>,
    /// Prefixes in the order they were frozen (true) or unfrozen (false). The last entry that matches a name decides.
    frozen: Vec<(String, bool)>,
}

impl State {
    fn is_frozen(&self, name: &str) -> bool {
        self.frozen.iter().rev().find(|(prefix, _)| is_under(prefix, name)).is_some_and(|&(_, frozen)| frozen)
    }
}

/// Whether a name is a running statistic of a `BatchNorm`, which is saved and loaded but not trained.
fn is_statistic(name: &str) -> bool {
    let last = name.rsplit('.').next();
    last == Some("running_mean") || last == Some("running_var")
}

/// Whether `name` is `prefix` or begins with it and a dot.
fn is_under(prefix: &str, name: &str) -> bool {
    prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Parameters {
    /// Creates an empty set of parameters, which are initialized from `seed`.
    ///
    /// Two training runs with one seed are equal if everything random in them comes from a seed: the parameters, the order of the
    /// samples ([`Trainer::seed`](crate::Trainer)) and dropout, which [`dropout`](Self::dropout) provides. `candle_nn::Dropout` has
    /// no seed on the CPU, so runs with it differ.
    pub fn seeded(seed: u64) -> Self {
        let draws = Arc::new(Draws { seed, count: AtomicU64::new(0) });
        Self { shared: Arc::new(Shared { seed, draws, state: Mutex::default() }), prefix: String::new() }
    }

    /// Creates a dropout layer whose masks are drawn from the seed. All dropout layers of these parameters draw from one
    /// sequence of masks, so the order in which they are called matters.
    ///
    /// # Errors
    /// If `rate` is not in [0, 1].
    pub fn dropout(&self, rate: f64) -> Result<Dropout> {
        Dropout::new(rate, self.shared.draws.clone())
    }

    /// Returns the number of dropout masks drawn so far.
    pub fn dropout_draws(&self) -> u64 {
        self.shared.draws.count.load(Ordering::Relaxed)
    }

    /// Sets the number of dropout masks drawn so far, to resume a run. [`Checkpoint::restore`](crate::Checkpoint) calls it.
    pub fn set_dropout_draws(&self, draws: u64) {
        self.shared.draws.count.store(draws, Ordering::Relaxed);
    }

    /// Returns a `VarBuilder` for the parameters under the prefix, in `dtype` and on `device`.
    ///
    /// A repeated name returns the same parameter; a repeated name with another shape, dtype or device is an error.
    pub fn var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        let builder = VarBuilder::from_backend(Box::new(self.clone()), dtype, device.clone());
        if self.prefix.is_empty() { builder } else { builder.set_prefix(&self.prefix) }
    }

    /// Returns a `VarBuilder` for a second model that shares the memory of the first, frozen or not, but builds no graph. The
    /// second model sees each training step at once, and evaluates in less time and memory. `dtype` and `device` must match the
    /// first model's.
    ///
    /// ```
    /// use candle_core::{DType, Device, Module, Tensor};
    /// use candle_losses::Parameters;
    ///
    /// let parameters = Parameters::seeded(42);
    /// let device = &Device::Cpu;
    /// let trained = candle_nn::linear(2, 1, parameters.var_builder(DType::F32, device))?;
    /// let evaluated = candle_nn::linear(2, 1, parameters.detached_var_builder(DType::F32, device))?;
    /// parameters.named_vars()[1].1.set(&Tensor::new(&[[3f32, 4.0]], device)?)?;
    /// let x = Tensor::new(&[[1f32, 1.0]], device)?;
    /// let (a, b) = (trained.forward(&x)?, evaluated.forward(&x)?);
    /// assert_eq!(a.to_vec2::<f32>()?, b.to_vec2::<f32>()?);
    /// assert!(a.track_op() && !b.track_op());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn detached_var_builder(&self, dtype: DType, device: &Device) -> VarBuilder<'static> {
        let builder = VarBuilder::from_backend(Box::new(Detached(self.clone())), dtype, device.clone());
        if self.prefix.is_empty() { builder } else { builder.set_prefix(&self.prefix) }
    }

    /// Returns the same parameters, restricted to the prefix `name`: `pp("encoder").pp("0")` selects `encoder.0` and `encoder.0.…`.
    /// Methods such as [`freeze`](Self::freeze) and [`save`](Self::save) then apply to the parameters under this prefix alone.
    pub fn pp(&self, name: impl ToString) -> Self {
        let name = name.to_string();
        let prefix = if self.prefix.is_empty() { name } else { format!("{}.{name}", self.prefix) };
        Self { prefix, ..self.clone() }
    }

    /// Returns the variables under the prefix with their full names, sorted by name.
    pub fn named_vars(&self) -> Vec<(String, Var)> {
        let state = self.state();
        let named = state.drawn.iter().filter(|(name, _)| is_under(&self.prefix, name));
        named.map(|(name, var)| (name.clone(), var.clone())).collect()
    }

    /// Returns all variables under the prefix, sorted by name, the running statistics of a `BatchNorm` included.
    pub fn all_vars(&self) -> Vec<Var> {
        self.named_vars().into_iter().map(|(_, var)| var).collect()
    }

    /// Returns the variables under the prefix for an optimizer, sorted by name: all that are not frozen, except the running
    /// statistics of a `BatchNorm`.
    pub fn trainable_vars(&self) -> Vec<Var> {
        let state = self.state();
        let is_trained = |name: &str| !state.is_frozen(name) && !state.detached.contains(name) && !is_statistic(name);
        let trained = state.drawn.iter().filter(|(name, _)| is_under(&self.prefix, name) && is_trained(name));
        trained.map(|(_, var)| var.clone()).collect()
    }

    /// Freezes the parameters under the prefix: [`trainable_vars`](Self::trainable_vars) leaves them out.
    ///
    /// A model that is built later computes no gradient for them, which saves time. A model that is already built still computes
    /// one, and an optimizer that already has the variables still trains them. So freeze first, then build the model and the
    /// optimizer. The running statistics of a `BatchNorm` are updated in training even if they are frozen: run frozen layers in
    /// evaluation mode.
    pub fn freeze(&self) {
        self.state().frozen.push((self.prefix.clone(), true));
    }

    /// Unfreezes the parameters under the prefix.
    ///
    /// A model that was built while they were frozen computes no gradient for them, so [`trainable_vars`](Self::trainable_vars)
    /// leaves them out until a model is built again. So unfreeze, then build the model and the optimizer again: the parameters keep
    /// their values.
    pub fn unfreeze(&self) {
        self.state().frozen.push((self.prefix.clone(), false));
    }

    /// Returns whether all values under the prefix are finite. On a GPU the host waits for the values.
    ///
    /// # Errors
    /// If memory on the device can't be allocated.
    pub fn are_finite(&self) -> Result<bool> {
        all_finite(self.all_vars().iter().map(Var::as_tensor))
    }

    /// Writes the parameters under the prefix to a safetensors file under their full names, the way PyTorch's
    /// `safetensors.torch.save_file` writes a `state_dict`.
    ///
    /// The file is replaced atomically: an existing file stays intact until the new one is complete, and its permissions are kept.
    /// Symbolic links are followed. Several threads and processes may save to the same path at once.
    ///
    /// # Errors
    /// If the file can't be written. On error, an existing file is kept.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        files::replace(path.as_ref(), &self.to_safetensors(None)?)
    }

    /// Returns the bytes that [`save`](Self::save) writes, with optional `metadata`.
    pub fn to_safetensors(&self, metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
        let tensors = self.named_vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone()));
        Ok(safetensors::serialize(tensors, metadata)?)
    }

    /// Loads the parameters under the prefix from a safetensors file and converts them from any float dtype. Build the model first.
    ///
    /// The file must hold a tensor for each parameter under the prefix, and no other tensor under the prefix. Tensors outside the
    /// prefix are ignored, and so is PyTorch's `num_batches_tracked`.
    ///
    /// # Errors
    /// If the file can't be read, or a name is missing, unexpected or of another shape. On error, nothing changes.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let load = || self.load_safetensors(&std::fs::read(path)?);
        load().map_err(|error| error.with_path(path))
    }

    /// Loads the parameters under the prefix from the bytes of a safetensors file, like [`load`](Self::load).
    ///
    /// # Errors
    /// The errors of [`load`](Self::load), except that there is no file to read.
    pub fn load_safetensors(&self, bytes: &[u8]) -> Result<()> {
        let file = SafeTensors::deserialize(bytes);
        let file = file.map_err(|error| Error::msg(format!("not a safetensors file, or a truncated one: {error}")))?;
        // The names from the header: candle skips tensors of a dtype that it does not have.
        let names = file.names().into_iter().map(str::to_owned).collect();
        assign(self.matched(names, candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?)?)
    }

    /// Pairs each variable under the prefix with its stored tensor. `names` are the names of all stored tensors.
    pub(crate) fn matched(
        &self,
        names: BTreeSet<String>,
        mut stored: HashMap<String, Tensor>,
    ) -> Result<Vec<(Tensor, Var)>> {
        let mut left_over = names;
        left_over.retain(|name| is_under(&self.prefix, name) && !name.ends_with(".num_batches_tracked"));
        let own = self.named_vars();
        if own.is_empty() {
            bail!("there is no parameter{} yet to load; build the model first", self.of_this_part())
        }
        let mut matched = Vec::new();
        for (name, var) in own {
            left_over.remove(&name);
            let Some(tensor) = stored.remove(&name) else { bail!("the file has no tensor {name}") };
            matched.push((stored_for(&var, var.dtype(), &name, &tensor)?, var));
        }
        if let Some(name) = left_over.first() {
            bail!("the file also holds {name}, which is not in this model")
        }
        Ok(matched)
    }

    fn of_this_part(&self) -> String {
        if self.prefix.is_empty() { String::new() } else { format!(" under {}", self.prefix) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the tensor that a model gets for a variable. A frozen parameter is detached, so that no gradient is computed for it,
    /// but shares the memory of the variable, so that the model sees values that are loaded later. Statistics are never detached,
    /// because `BatchNorm` copies a tensor that is not a variable.
    fn given(state: &mut State, name: &str, var: &Var) -> Tensor {
        if state.is_frozen(name) && !is_statistic(name) {
            state.detached.insert(name.to_owned());
            return var.as_detached_tensor();
        }
        state.detached.remove(name);
        var.as_tensor().clone()
    }
}

/// Whether all elements of the tensors are finite. The host waits for them, once for each device.
pub(crate) fn all_finite<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<bool> {
    // 0 or NaN.
    let sums = tensors.map(|tensor| ops::sum_all(&(tensor.detach() * 0.0)?)?.to_dtype(DType::F32));
    let sums = sums.collect::<Result<Vec<_>>>()?;
    for group in sums.chunk_by(|a, b| a.device().same_device(b.device())) {
        let sums = Tensor::stack(group, 0)?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
        if sums.iter().any(|sum| sum.is_nan()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns a stored tensor on the device of its variable and in `dtype`, if it has the shape of the variable and a float dtype.
pub(super) fn stored_for(var: &Var, dtype: DType, name: &str, stored: &Tensor) -> Result<Tensor> {
    if stored.dims() != var.dims() || !stored.dtype().is_float() {
        bail!(
            "{name} is {:?} of shape {:?} but needs a float dtype and shape {:?}",
            stored.dtype(),
            stored.dims(),
            var.dims()
        )
    }
    stored.detach().to_dtype(dtype)?.to_device(var.device())
}

/// Sets variables to the tensors that [`Parameters::matched`] found for them.
pub(crate) fn assign(matched: Vec<(Tensor, Var)>) -> Result<()> {
    matched.into_iter().try_for_each(|(tensor, var)| var.set(&tensor))
}

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let shapes = self.named_vars().into_iter().map(|(name, var)| (name, var.dims().to_vec()));
        f.debug_map().entries(shapes).finish()
    }
}

impl Parameters {
    /// Returns the variable of a name, and draws its values if it is new.
    fn variable(
        &self,
        state: &mut State,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Var> {
        let Some(var) = state.drawn.get(name) else {
            let var = Var::from_tensor(&draw(self.shared.seed, name, shape, init, dtype)?.to_device(device)?)?;
            state.drawn.insert(name.to_owned(), var.clone());
            return Ok(var);
        };
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
        Ok(var.clone())
    }

    fn existing(&self, state: &mut State, name: &str, dtype: DType, device: &Device) -> Result<Var> {
        let Some(shape) = state.drawn.get(name).map(|var| var.shape().clone()) else {
            bail!("there is no parameter {name}, and it can't be initialized without a shape")
        };
        self.variable(state, shape, name, Init::Const(0.0), dtype, device)
    }
}

impl SimpleBackend for Parameters {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let state = &mut *self.state();
        let var = self.variable(state, shape, name, init, dtype, device)?;
        Ok(Self::given(state, name, &var))
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let state = &mut *self.state();
        let var = self.existing(state, name, dtype, device)?;
        Ok(Self::given(state, name, &var))
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.state().drawn.contains_key(name)
    }
}

/// The backend of [`Parameters::detached_var_builder`]. Statistics are variables here as well, because a `BatchNorm` copies a tensor
/// that is not a variable.
struct Detached(Parameters);

impl Detached {
    fn given(name: &str, var: Var) -> Tensor {
        if is_statistic(name) { var.into_inner() } else { var.as_detached_tensor() }
    }
}

impl SimpleBackend for Detached {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        Ok(Self::given(name, self.0.variable(&mut self.0.state(), shape, name, init, dtype, device)?))
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        Ok(Self::given(name, self.0.existing(&mut self.0.state(), name, dtype, device)?))
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains_tensor(name)
    }
}

/// Draws the values on the CPU in `f64` and then rounds them, so that they are the same for every device and dtype.
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
    // FNV-1a hash. 0xff does not occur in UTF-8, so it marks the end of the name.
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
    fn values_depend_only_on_seed_name_and_shape() {
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
    fn prefix_matches_whole_path_segments() {
        let parameters = model(1);
        let names = |part: &Parameters| part.named_vars().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&parameters.pp("head")), ["head.bias", "head.weight"]);
        assert_eq!(names(&parameters.pp("head").pp("bias")), ["head.bias"]);
        assert_eq!(parameters.pp("nothing").named_vars().len(), 0);
    }

    #[test]
    fn frozen_parameters_get_no_gradient_after_rebuild() -> Result<()> {
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

    #[test]
    fn statistics_without_a_prefix_are_statistics() -> Result<()> {
        let parameters = Parameters::seeded(1);
        candle_nn::batch_norm(2, 1e-5, parameters.var_builder(DType::F32, &Device::Cpu))?;
        assert_eq!((parameters.all_vars().len(), parameters.trainable_vars().len()), (4, 2));
        Ok(())
    }

    /// It has the memory of the trained model, statistics included, and freezes nothing.
    #[test]
    fn a_detached_model_follows_training_without_a_graph() -> Result<()> {
        use candle_nn::{ModuleT, batch_norm};
        let parameters = Parameters::seeded(1);
        let detached = |parameters: &Parameters| parameters.detached_var_builder(DType::F32, &Device::Cpu);
        let evaluated = batch_norm(2, 1e-5, detached(&parameters.pp("norm")))?;
        let trained = batch_norm(2, 1e-5, parameters.var_builder(DType::F32, &Device::Cpu).pp("norm"))?;
        assert_eq!(parameters.trainable_vars().len(), 2);
        let x = Tensor::new(&[[1f32, -2.0], [3.0, 5.0]], &Device::Cpu)?;
        trained.forward_train(&x)?;
        let (expected, found) = (trained.forward_t(&x, false)?, evaluated.forward_t(&x, false)?);
        assert_eq!(found.to_vec2::<f32>()?, expected.to_vec2::<f32>()?);
        assert!(!evaluated.weight_and_bias().unwrap().0.track_op());
        for var in parameters.trainable_vars() {
            var.set(&Tensor::new(&[7f32, 7.0], &Device::Cpu)?)?;
        }
        assert_eq!(evaluated.weight_and_bias().unwrap().0.to_vec1::<f32>()?, [7.0, 7.0]);
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
        // A copy in another dtype would not follow the variable.
        let vb = parameters.var_builder(DType::F32, &Device::Cpu);
        assert_eq!(vb.get_unchecked("a")?.id(), first.id());
        assert!(vb.get_unchecked_dtype("a", DType::F64).unwrap_err().to_string().contains("F64"));
        Ok(())
    }
}
