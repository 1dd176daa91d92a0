//! A training in a file: parameters, Adam's state, the losses so far, the best epoch, and what the run was started with. In one
//! safetensors file, so that a resumed run ends where an unbroken one would, bit for bit.

use super::example_name;
use super::file_options::InputFile;
use crate::progress::Run;
use crate::session::Session;
use anyhow::{Context, Result, anyhow, ensure};
use candle_core::{DType, Device, Tensor};
use candle_losses::data::TensorDataset;
use candle_losses::{Adam, Checkpoint, Parameters};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// The name of the plan in the metadata of the file.
const PLAN: &str = "candle-losses.plan";
const LOSSES: &str = "losses";

/// What a training was started with: the options of training, loss and data, the data itself, and the names and shapes of the
/// parameters. The random state is the seed and the number of epochs that have drawn from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    example: String,
    options: BTreeMap<String, String>,
    samples: usize,
    parameters: BTreeMap<String, Vec<usize>>,
    /// SHA-256 of the training data.
    digest: String,
    /// The patience, and SHA-256 of the validation data.
    validation: Option<(usize, String)>,
}

impl Plan {
    pub(super) fn new(session: &Session) -> Result<Self> {
        let named = session.parameters().named_vars().into_iter();
        let validation = session.validation();
        Ok(Self {
            example: example_name(),
            options: session.options().given(session.preset()),
            samples: session.data().train.len(),
            parameters: named.map(|(name, var)| (name, var.dims().to_vec())).collect(),
            digest: digest(&session.data().train)?,
            validation: validation.map(|(samples, patience)| anyhow::Ok((*patience, digest(samples)?))).transpose()?,
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
                said(&format!("model differs: {name}"), text(was), text(is))
            })
            .or_else(|| {
                let text = |validation: &Option<(usize, String)>| {
                    validation
                        .as_ref()
                        .map_or("none".to_owned(), |(patience, digest)| format!("{digest}, patience {patience}"))
                };
                said("validation part", text(&self.validation), text(&other.validation))
            })
            .or_else(|| said("data", self.digest.clone(), other.digest.clone()))
    }
}

/// The first name whose values differ, with both.
fn first_difference<'a, T: PartialEq>(
    a: &'a BTreeMap<String, T>,
    b: &'a BTreeMap<String, T>,
) -> Option<(&'a str, Option<&'a T>, Option<&'a T>)> {
    a.keys().chain(b.keys()).map(|name| (name.as_str(), a.get(name), b.get(name))).find(|(_, a, b)| a != b)
}

/// SHA-256 of the inputs and targets of every sample.
fn digest(samples: &TensorDataset) -> Result<String> {
    let mut digest = Sha256::new();
    for start in (0..samples.len()).step_by(1000) {
        let (inputs, targets) = samples.batch(None, start, 1000.min(samples.len() - start))?;
        for part in [inputs, targets] {
            digest.update(format!("{:?}{:?}", part.dtype(), part.dims()));
            // Exact for every dtype of data.
            let values = part.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            digest.update(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
        }
    }
    Ok(hex(&digest.finalize()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of a name in the metadata of a safetensors file.
fn metadata(bytes: &[u8], name: &str) -> Result<Option<String>> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    Ok(metadata.metadata().as_ref().and_then(|metadata| metadata.get(name).cloned()))
}

/// Loads a file of weights.
pub(super) fn load_weights(InputFile { path, bytes }: &InputFile, parameters: &Parameters) -> Result<()> {
    let load = || -> Result<()> {
        let is_checkpoint = metadata(bytes, PLAN).is_ok_and(|plan| plan.is_some());
        ensure!(!is_checkpoint, "it is a checkpoint; resume from it by --resume");
        Ok(parameters.load_safetensors(bytes)?)
    };
    load().with_context(|| format!("loading weights from {}", path.display()))
}

/// The file of `--save`.
pub(super) fn weights(session: &Session) -> Result<Vec<u8>> {
    let metadata = session.metadata().cloned().map(|metadata| [metadata].into());
    Ok(session.parameters().to_safetensors(metadata)?)
}

/// The file of `--checkpoint`.
pub(super) fn to_bytes(plan: &Plan, run: &mut Run, adam: &Adam) -> Result<Vec<u8>> {
    let losses = Tensor::new(run.losses()?, &Device::Cpu)?;
    let steps = run.steps(losses.elem_count());
    let mut checkpoint = Checkpoint::new(run.session.parameters(), adam, steps)?;
    checkpoint.tensors.insert(LOSSES.to_owned(), losses);
    if let Some(stopping) = &run.stopping {
        checkpoint.tensors.extend(stopping.state()?);
    }
    checkpoint.metadata.insert(PLAN.to_owned(), serde_json::to_string(plan)?);
    Ok(checkpoint.to_bytes()?)
}

/// Puts a training where a file says that it was.
pub(super) fn read(path: &Path, plan: &Plan, run: &mut Run, adam: &mut Adam) -> Result<()> {
    let mut read = || -> Result<()> {
        let (checkpoint, losses) = from_bytes(&std::fs::read(path)?, plan)?;
        ensure!(run.steps(losses.len()) == checkpoint.completed_steps, "its losses are not those of its steps");
        let mut stopping = run.stopping.take();
        if let Some(stopping) = &mut stopping {
            stopping.load_state(&checkpoint.tensors)?;
        }
        checkpoint.restore(run.session.parameters(), adam)?;
        run.stopping = stopping;
        run.resume(losses);
        Ok(())
    };
    read().with_context(|| format!("reading the checkpoint {}", path.display()))
}

/// The checkpoint in these bytes, and the losses so far.
///
/// # Errors
/// If they are not a checkpoint, or one of another training.
pub fn from_bytes(bytes: &[u8], plan: &Plan) -> Result<(Checkpoint, Vec<f32>)> {
    let stored = metadata(bytes, PLAN)?.context("it is not a checkpoint")?;
    let stored = serde_json::from_str::<Plan>(&stored).context("it is of another version of this program")?;
    if let Some(difference) = stored.difference(plan) {
        return Err(anyhow!("its {difference}"));
    }
    let mut checkpoint = Checkpoint::from_bytes(bytes)?;
    let losses =
        checkpoint.tensors.remove(LOSSES).with_context(|| format!("there is no {LOSSES}"))?.to_vec1::<f32>()?;
    ensure!(losses.iter().all(|loss| loss.is_finite()), "a loss is not finite");
    Ok((checkpoint, losses))
}
