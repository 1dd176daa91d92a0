//! Where a training is: weights, Adam's moments, the losses so far, and what it was started with. In one safetensors
//! file, so that a run which goes on from it ends where an unbroken one would, bit for bit.

use crate::cli::example_name;
use crate::data::Samples;
use crate::output::Output;
use crate::train::{Position, Training};
use crate::{Adam, Mlp};
use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{DType, Device, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// The name that the plan has among the file's metadata.
const PLAN: &str = "candle-losses.plan";
const LOSSES: &str = "losses";

/// What a training was started with, as far as it can be told here; the loss's own options it can't. The random state is
/// the seed and the number of epochs that drew from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    example: String,
    samples: usize,
    /// Of the first samples and their targets.
    digest: u64,
    batch_size: usize,
    lr: f64,
    seed: u64,
    shuffle: bool,
}

impl Plan {
    pub fn new(training: &Training, samples: &Samples) -> candle_core::Result<Self> {
        let &Training { batch_size, lr, seed, shuffle, .. } = training;
        let digest = digest(samples)?;
        Ok(Self { example: example_name(), samples: samples.len(), digest, batch_size, lr, seed, shuffle })
    }

    /// The first part that differs, in words.
    fn difference(&self, other: &Self) -> Option<String> {
        let parts = [
            ("example", self.example.clone(), other.example.clone()),
            ("number of samples", self.samples.to_string(), other.samples.to_string()),
            ("--batch-size", self.batch_size.to_string(), other.batch_size.to_string()),
            ("--lr", self.lr.to_string(), other.lr.to_string()),
            ("--seed", self.seed.to_string(), other.seed.to_string()),
            ("shuffling", self.shuffle.to_string(), other.shuffle.to_string()),
            ("data", format!("{:x}", self.digest), format!("{:x}", other.digest)),
        ];
        parts.into_iter().find(|(_, a, b)| a != b).map(|(name, a, b)| format!("{name} was {a}, but is {b} now"))
    }
}

/// FNV-1a over what a model would see of up to a thousand samples.
fn digest(samples: &Samples) -> candle_core::Result<u64> {
    let (inputs, targets) = samples.batch(None, 0, samples.len().min(1000))?;
    let mut digest = 0xcbf2_9ce4_8422_2325u64;
    for part in [inputs, targets] {
        for value in part.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()? {
            digest = (digest ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(digest)
}

/// Writes where the training is, whole or not at all.
pub(crate) fn write(path: &Path, plan: &Plan, model: &Mlp, adam: &Adam, losses: &[f32]) -> Result<()> {
    let output = Output::create(path)?;
    let mut tensors = model.state()?;
    for (i, (mean, square)) in adam.moments()?.into_iter().enumerate() {
        tensors.insert(format!("adam.{i}.mean"), mean);
        tensors.insert(format!("adam.{i}.square"), square);
    }
    tensors.insert(LOSSES.to_owned(), Tensor::new(losses, &Device::Cpu)?);
    let metadata = HashMap::from([(PLAN.to_owned(), serde_json::to_string(plan)?)]);
    output.write(&safetensors::serialize(&tensors, Some(metadata))?)
}

/// Puts a training where a file says it was, and gives the losses until then.
pub(crate) fn read(path: &Path, plan: &Plan, model: &Mlp, position: &mut Position) -> Result<Vec<f32>> {
    let reading = || format!("reading the checkpoint {}", path.display());
    read_from(&std::fs::read(path).with_context(reading)?, plan, model, position, &reading)
}

/// The same from the file's bytes. `context` begins an error.
pub(crate) fn read_from(
    bytes: &[u8],
    plan: &Plan,
    model: &Mlp,
    position: &mut Position,
    context: &dyn Fn() -> String,
) -> Result<Vec<f32>> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).with_context(context)?;
    let stored = metadata.metadata().as_ref().and_then(|metadata| metadata.get(PLAN));
    let stored = stored.context("it is no checkpoint of a training").with_context(context)?;
    let stored = serde_json::from_str::<Plan>(stored).with_context(context)?;
    if let Some(difference) = stored.difference(plan) {
        return Err(anyhow!("its {difference}")).with_context(context);
    }
    let mut tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu).with_context(context)?;
    let mut take = |name: &str| tensors.remove(name).with_context(|| format!("{}: there is no {name}", context()));
    let losses = take(LOSSES)?.to_vec1::<f32>()?;
    let mut moments = Vec::new();
    for i in 0..model.variables().len() {
        moments.push((take(&format!("adam.{i}.mean"))?, take(&format!("adam.{i}.square"))?));
    }
    ensure!(losses.len() <= i32::MAX as usize, "{}: too many steps", context());
    position.adam.set_moments(losses.len() as i32, &moments).with_context(context)?;
    model.set_state(tensors, context)?;
    position.steps = losses.len();
    Ok(losses)
}
