//! Where a training is: weights, Adam's moments, the losses so far, and what it was started with. In one safetensors
//! file, so that a run which goes on from it ends where an unbroken one would, bit for bit.

use super::example_name;
use super::files::Output;
use crate::data::{Samples, metadata};
use crate::{Adam, Parameters};
use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The name that the plan has among the file's metadata.
const PLAN: &str = "candle-losses.plan";
const LOSSES: &str = "losses";

/// What a training was started with: the options of training, loss and data, the data itself, and the model's names and
/// shapes. The random state is the seed and the number of epochs that drew from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    example: String,
    options: BTreeMap<String, String>,
    samples: usize,
    parameters: BTreeMap<String, Vec<usize>>,
    /// Of the first samples and their targets.
    digest: u64,
}

impl Plan {
    pub fn new(
        options: BTreeMap<String, String>,
        samples: &Samples,
        parameters: &Parameters,
    ) -> candle_core::Result<Self> {
        let named = parameters.named().into_iter();
        Ok(Self {
            example: example_name(),
            options,
            samples: samples.len(),
            parameters: named.map(|(name, var)| (name, var.dims().to_vec())).collect(),
            digest: digest(samples)?,
        })
    }

    /// The first part that differs, in words.
    fn difference(&self, other: &Self) -> Option<String> {
        let said =
            |what: &str, was: String, is: String| (was != is).then(|| format!("{what} was {was}, but is {is} now"));
        said("example", self.example.clone(), other.example.clone())
            .or_else(|| {
                let (name, was, is) = first_difference(&self.options, &other.options)?;
                let text = |value: Option<&String>| value.map_or("not given".to_owned(), String::clone);
                said(name, text(was), text(is))
            })
            .or_else(|| said("number of samples", self.samples.to_string(), other.samples.to_string()))
            .or_else(|| {
                let (name, was, is) = first_difference(&self.parameters, &other.parameters)?;
                let text =
                    |shape: Option<&Vec<usize>>| shape.map_or("not there".to_owned(), |shape| format!("{shape:?}"));
                said(&format!("model is another: {name}"), text(was), text(is))
            })
            .or_else(|| said("data", format!("{:x}", self.digest), format!("{:x}", other.digest)))
    }
}

/// The first name whose values differ, with both.
fn first_difference<'a, T: PartialEq>(
    a: &'a BTreeMap<String, T>,
    b: &'a BTreeMap<String, T>,
) -> Option<(&'a str, Option<&'a T>, Option<&'a T>)> {
    a.keys().chain(b.keys()).map(|name| (name.as_str(), a.get(name), b.get(name))).find(|(_, a, b)| a != b)
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

/// That a file of weights is not a checkpoint, which has more in it.
pub(super) fn ensure_is_none(path: &Path) -> Result<()> {
    let plan = std::fs::read(path).ok().and_then(|bytes| metadata(&bytes, PLAN).ok()?);
    ensure!(plan.is_none(), "{} is a checkpoint: go on from it by --resume", path.display());
    Ok(())
}

/// Writes where the training is, whole or not at all.
pub(super) fn write(path: &Path, plan: &Plan, parameters: &Parameters, adam: &Adam, losses: &[f32]) -> Result<()> {
    let output = Output::create(path)?;
    let named = parameters.named().into_iter();
    let mut tensors = named.map(|(name, var)| (name, var.as_tensor().clone())).collect::<HashMap<_, _>>();
    for (i, (mean, square)) in adam.moments()?.into_iter().enumerate() {
        tensors.insert(format!("adam.{i}.mean"), mean);
        tensors.insert(format!("adam.{i}.square"), square);
    }
    tensors.insert(LOSSES.to_owned(), Tensor::new(losses, &Device::Cpu)?);
    let metadata = HashMap::from([(PLAN.to_owned(), serde_json::to_string(plan)?)]);
    output.write(&safetensors::serialize(&tensors, Some(metadata))?)
}

/// Puts a training where a file says it was, and gives the losses until then. `steps` is how many steps so many of these
/// were.
pub(super) fn read(
    path: &Path,
    plan: &Plan,
    parameters: &Parameters,
    adam: &mut Adam,
    steps: impl FnOnce(usize) -> usize,
) -> Result<Vec<f32>> {
    let read = || read_from(&std::fs::read(path)?, plan, parameters, adam, steps);
    read().with_context(|| format!("reading the checkpoint {}", path.display()))
}

/// The same from the file's bytes.
pub(crate) fn read_from(
    bytes: &[u8],
    plan: &Plan,
    parameters: &Parameters,
    adam: &mut Adam,
    steps: impl FnOnce(usize) -> usize,
) -> Result<Vec<f32>> {
    let stored = metadata(bytes, PLAN)?.context("it is no checkpoint of a training")?;
    let stored = serde_json::from_str::<Plan>(&stored).context("it is of another version of this program")?;
    if let Some(difference) = stored.difference(plan) {
        return Err(anyhow!("its {difference}"));
    }
    let mut tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
    let mut take = |name: &str| tensors.remove(name).with_context(|| format!("there is no {name}"));
    let losses = take(LOSSES)?.to_vec1::<f32>()?;
    let mut moments = Vec::new();
    for i in 0..adam.moments()?.len() {
        moments.push((take(&format!("adam.{i}.mean"))?, take(&format!("adam.{i}.square"))?));
    }
    ensure!(losses.iter().all(|loss| loss.is_finite()), "a loss is no number");
    adam.set_moments(steps(losses.len()), &moments)?;
    parameters.load_safetensors(&safetensors::serialize(&tensors, None)?)?;
    Ok(losses)
}
