use crate::nn::{Adam, AdamState, Parameters, assign, replace};
use candle_core::{DType, Device, Error, Result, Tensor, bail};
use candle_nn::Optimizer;
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::path::Path;

/// A snapshot of a training run: the parameters, the state and the learning rate of [`Adam`], the number of completed steps, and
/// the number of dropout masks drawn.
///
/// A resumed run continues as if it had not been interrupted, on the CPU to the same bits, if its code, data, seeds and options are
/// the same. The options of `Adam` other than the learning rate are not saved.
///
/// [`save_checkpoint`] and [`load_checkpoint`] are shorthands. A `Checkpoint` can also hold tensors and text of your own, such as
/// the state of [`EarlyStopping`](crate::EarlyStopping):
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_losses::{Adam, Checkpoint, EarlyStopping, Parameters, ParamsAdam, Trainer};
/// use candle_nn::Optimizer;
///
/// let parameters = Parameters::seeded(42);
/// let model = candle_nn::linear(4, 2, parameters.var_builder(DType::F32, &Device::Cpu))?;
/// let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam::default())?;
/// let mut stopping = EarlyStopping::new(parameters.all_vars(), 3);
/// stopping.should_stop(0.5)?;
///
/// // While it trains, for example at each `Event::Epoch`:
/// let mut checkpoint = Checkpoint::new(&parameters, &adam, 100)?;
/// checkpoint.tensors.extend(stopping.state()?);
/// let bytes = checkpoint.to_bytes()?; // or `checkpoint.save("checkpoint.safetensors")`
///
/// // In a later process, once the model, the optimizer and the early stopping are built again:
/// let checkpoint = Checkpoint::from_bytes(&bytes)?; // or `Checkpoint::load("checkpoint.safetensors")`
/// checkpoint.restore(&parameters, &mut adam)?;
/// stopping.load_state(&checkpoint.tensors)?;
/// let trainer = Trainer { completed_steps: checkpoint.completed_steps, ..Default::default() };
/// assert_eq!((trainer.completed_steps, stopping.epochs()), (100, 1));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The steps of the run so far, as [`Event`](crate::Event) counts them, for [`Trainer::completed_steps`](crate::Trainer).
    pub completed_steps: usize,
    /// Tensors of your own. Names that begin with `parameters.` or `adam.` are reserved, and so is `run`.
    pub tensors: HashMap<String, Tensor>,
    /// Text of your own, stored in the header of the safetensors file.
    pub metadata: HashMap<String, String>,
    /// The parameters and the state of the optimizer, on the CPU.
    state: HashMap<String, Tensor>,
    learning_rate: f64,
    dropout_draws: u64,
}

/// Completed steps and dropout masks.
const RUN: &str = "run";
const PARAMETERS: &str = "parameters.";
const ADAM: &str = "adam.";
const LEARNING_RATE: &str = "adam.learning_rate";
const STEP: &str = "adam.step.";
const EXP_AVG: &str = "adam.exp_avg.";
const EXP_AVG_SQ: &str = "adam.exp_avg_sq.";
const MASTER: &str = "adam.master_weights.";

impl Checkpoint {
    /// Copies the state of a run after `completed_steps` steps.
    ///
    /// # Errors
    /// If `adam` has a variable that is not one of `parameters`.
    pub fn new(parameters: &Parameters, adam: &Adam, completed_steps: usize) -> Result<Self> {
        let mut state = HashMap::new();
        for (name, var) in parameters.named_vars() {
            state.insert(format!("{PARAMETERS}{name}"), copy_on_cpu(&var)?);
        }
        for (name, AdamState { step, exp_avg, exp_avg_sq, master_weights }) in
            names(parameters, adam)?.iter().zip(adam.state()?)
        {
            state.insert(format!("{STEP}{name}"), Tensor::new(step as i64, &Device::Cpu)?);
            state.insert(format!("{EXP_AVG}{name}"), copy_on_cpu(&exp_avg)?);
            state.insert(format!("{EXP_AVG_SQ}{name}"), copy_on_cpu(&exp_avg_sq)?);
            if let Some(master) = master_weights {
                state.insert(format!("{MASTER}{name}"), copy_on_cpu(&master)?);
            }
        }
        let (tensors, metadata) = (HashMap::new(), HashMap::new());
        let (learning_rate, dropout_draws) = (adam.learning_rate(), parameters.dropout_draws());
        Ok(Self { completed_steps, tensors, metadata, state, learning_rate, dropout_draws })
    }

    /// Sets the parameters, the state and the learning rate of the optimizer, and the number of dropout masks to the values in this
    /// checkpoint.
    ///
    /// # Errors
    /// If the names or shapes of the parameters, or of the variables of the optimizer, differ from the checkpoint's. On error,
    /// nothing changes.
    pub fn restore(&self, parameters: &Parameters, adam: &mut Adam) -> Result<()> {
        let own = self.state.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(PARAMETERS)?, tensor)));
        let own = own.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect::<HashMap<_, _>>();
        let matched = parameters.matched(own.keys().cloned().collect(), own)?;
        let trained = names(parameters, adam)?;
        let stored = self.state.keys().filter_map(|name| name.strip_prefix(STEP));
        let unused = stored.filter(|name| !trained.iter().any(|trained| trained == name)).min();
        if let Some(name) = unused {
            bail!("the checkpoint has Adam state for {name}, which is not a variable of this optimizer")
        }
        let state = trained.iter().map(|name| {
            let stored = |kind: &str| self.state.get(&format!("{kind}{name}")).cloned();
            match (stored(STEP), stored(EXP_AVG), stored(EXP_AVG_SQ)) {
                (Some(step), Some(exp_avg), Some(exp_avg_sq)) => {
                    Ok(AdamState { step: count(&step, 1)?[0], exp_avg, exp_avg_sq, master_weights: stored(MASTER) })
                }
                _ => bail!("the checkpoint has no Adam state for {name}"),
            }
        });
        adam.load_state(&state.collect::<Result<Vec<_>>>()?)?;
        adam.set_learning_rate(self.learning_rate);
        parameters.set_dropout_draws(self.dropout_draws);
        assign(matched)
    }

    /// Serializes the checkpoint as a safetensors file.
    ///
    /// # Errors
    /// If a tensor of your own has a reserved name, or a tensor can't be serialized.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if let Some(name) = self.tensors.keys().find(|name| is_reserved(name)) {
            bail!("the tensor {name} of a checkpoint needs another name: {RUN}, {PARAMETERS}… and {ADAM}… are reserved")
        }
        let counts = (i64::try_from(self.completed_steps), i64::try_from(self.dropout_draws));
        let (Ok(completed_steps), Ok(dropout_draws)) = counts else {
            bail!("a checkpoint can't hold {} steps and {} masks", self.completed_steps, self.dropout_draws)
        };
        let run = Tensor::new(&[completed_steps, dropout_draws], &Device::Cpu)?;
        let learning_rate = Tensor::new(self.learning_rate, &Device::Cpu)?;
        let tensors = self.state.iter().chain(&self.tensors).map(|(name, tensor)| (name.as_str(), tensor));
        let tensors = tensors.chain([(RUN, &run), (LEARNING_RATE, &learning_rate)]);
        Ok(safetensors::serialize(tensors, (!self.metadata.is_empty()).then(|| self.metadata.clone()))?)
    }

    /// Reads the bytes of a safetensors file.
    ///
    /// # Errors
    /// If `bytes` is not a safetensors file, or the file is not a checkpoint.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let header = SafeTensors::read_metadata(bytes);
        let (_, header) =
            header.map_err(|error| Error::msg(format!("not a safetensors file, or a truncated one: {error}")))?;
        let mut tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        if let Some(name) = header.tensors().keys().find(|name| !tensors.contains_key(*name)) {
            bail!("the checkpoint has a tensor {name} of a dtype that Candle can't read")
        }
        let (Some(run), Some(learning_rate)) = (tensors.remove(RUN), tensors.remove(LEARNING_RATE)) else {
            bail!("not a checkpoint: there is no tensor {RUN} or {LEARNING_RATE}")
        };
        let run = count(&run, 2)?;
        if learning_rate.dtype() != DType::F64 || learning_rate.rank() > 0 {
            bail!("the checkpoint is damaged: {LEARNING_RATE} has shape {:?}", learning_rate.dims())
        }
        let learning_rate = learning_rate.to_scalar::<f64>()?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let (state, tensors) = tensors.into_iter().partition(|(name, _)| is_reserved(name));
        Ok(Self { completed_steps: run[0], tensors, metadata, state, learning_rate, dropout_draws: run[1] as u64 })
    }

    /// Writes the checkpoint to a safetensors file. An existing file is replaced only when the new one is complete.
    ///
    /// # Errors
    /// If the file can't be written. On error, an existing file is kept.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        replace(path.as_ref(), &self.to_bytes()?)
    }

    /// Reads a checkpoint from a file.
    ///
    /// # Errors
    /// If the file can't be read or is not a checkpoint.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let load = || Self::from_bytes(&std::fs::read(path)?);
        load().map_err(|error| error.with_path(path))
    }
}

/// Writes the parameters, the state of the optimizer and the number of completed steps to a safetensors file. An existing file is
/// replaced only when the new one is complete.
///
/// ```
/// use candle_core::{DType, Device, Error, Module, Tensor};
/// use candle_losses::data::TensorDataset;
/// use candle_losses::{Adam, Event, Parameters, ParamsAdam, Trainer, load_checkpoint, loss::MseLoss, save_checkpoint};
/// use candle_nn::Optimizer;
/// use std::ops::ControlFlow;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("checkpoint.safetensors");
/// # let x = Tensor::arange(0f32, 8.0, &Device::Cpu)?.unsqueeze(1)?;
/// # let dataset = TensorDataset::new(x.clone(), x)?;
/// let parameters = Parameters::seeded(42);
/// let model = candle_nn::linear(1, 1, parameters.var_builder(DType::F32, &Device::Cpu))?;
/// let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam::default())?;
/// let mut trainer = Trainer { epochs: 3, batch_size: 4, ..Default::default() };
/// if path.exists() {
///     trainer.completed_steps = load_checkpoint(&path, &parameters, &mut adam)?;
/// }
/// let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&model.forward(x)?, y);
/// trainer.fit_with(&mut adam, &dataset, loss, |adam, event| {
///     if let Event::Epoch { completed_steps, .. } = event {
///         save_checkpoint(&path, &parameters, adam, completed_steps)?;
///     }
///     Ok::<_, Error>(ControlFlow::Continue(()))
/// })?;
/// assert_eq!(load_checkpoint(&path, &parameters, &mut adam)?, 6);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If `adam` has a variable that is not one of `parameters`, or the file can't be written. On error, an existing file is kept.
pub fn save_checkpoint(
    path: impl AsRef<Path>,
    parameters: &Parameters,
    adam: &Adam,
    completed_steps: usize,
) -> Result<()> {
    Checkpoint::new(parameters, adam, completed_steps)?.save(path)
}

/// Loads the state that [`save_checkpoint`] wrote into the parameters and the optimizer, and returns the number of completed steps.
/// Build the model and the optimizer first. The learning rate of `adam` becomes the saved one.
///
/// # Errors
/// If the file can't be read or is not a checkpoint of this model and these variables. On error, nothing changes.
pub fn load_checkpoint(path: impl AsRef<Path>, parameters: &Parameters, adam: &mut Adam) -> Result<usize> {
    let path = path.as_ref();
    let checkpoint = Checkpoint::load(path)?;
    checkpoint.restore(parameters, adam).map_err(|error| error.with_path(path))?;
    Ok(checkpoint.completed_steps)
}

/// Whether a name is one of those that a checkpoint has for its own tensors.
fn is_reserved(name: &str) -> bool {
    name == RUN || name.starts_with(PARAMETERS) || name.starts_with(ADAM)
}

/// The names of the optimizer's variables.
fn names(parameters: &Parameters, adam: &Adam) -> Result<Vec<String>> {
    let names = parameters.named_vars().into_iter().map(|(name, var)| (var.id(), name)).collect::<HashMap<_, _>>();
    let found = adam.vars().map(|var| match names.get(&var.id()) {
        Some(name) => Ok(name.clone()),
        None => bail!("the optimizer has a variable of shape {:?} that is not one of the parameters", var.dims()),
    });
    found.collect()
}

/// A snapshot: a variable changes in place.
fn copy_on_cpu(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.detach();
    if tensor.device().is_cpu() { tensor.force_contiguous() } else { tensor.to_device(&Device::Cpu) }
}

/// Reads `len` numbers of 0 or more.
fn count(tensor: &Tensor, len: usize) -> Result<Vec<usize>> {
    if tensor.dtype() != DType::I64 || tensor.elem_count() != len {
        bail!(
            "the checkpoint is damaged: a counter has dtype {:?} and shape {:?} but needs I64 and {len} elements",
            tensor.dtype(),
            tensor.dims()
        )
    }
    let counts = tensor.flatten_all()?.to_vec1::<i64>()?;
    let checked = counts.iter().map(|&count| match usize::try_from(count) {
        Ok(count) => Ok(count),
        Err(_) => bail!("the checkpoint is damaged: a counter is {count} but must be 0 or more"),
    });
    checked.collect()
}
