use super::trainer::SkipReason;
use crate::kernel::ops::{compute_dtype, times};
use crate::nn::{all_finite, clip};
use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, TensorId, bail};

/// The gradients of the batches of one step, averaged by the weights of the batches.
pub(super) struct Gradients {
    loss_scale: Option<f64>,
    /// In at least `f32`, so that a sum of small gradients in half precision is not lost.
    store: GradStore,
    /// The variables with a gradient, and its dtype.
    found: Vec<(TensorId, DType)>,
    /// The weight of the first batch. The loss of each batch is multiplied by its weight over this one, which is 1 as a rule, so
    /// that gradients in half precision keep their size.
    first_weight: f64,
    total_weight: f64,
}

impl Gradients {
    pub fn new(loss_scale: Option<f64>) -> Self {
        Self { loss_scale, store: GradStore::default(), found: Vec::new(), first_weight: 0.0, total_weight: 0.0 }
    }

    /// Adds the gradients of one batch by the variables. A batch of weight 0 adds nothing, whatever its loss is.
    pub fn add(&mut self, loss: &Tensor, weight: f64, variables: &[Tensor]) -> Result<()> {
        if weight == 0.0 {
            return Ok(());
        }
        if self.total_weight == 0.0 {
            self.first_weight = weight;
        }
        self.total_weight += weight;
        let factor = weight / self.first_weight * self.loss_scale.unwrap_or(1.0);
        let mut grads = times(loss, factor)?.backward()?;
        let mut is_used = false;
        for variable in variables {
            let Some(grad) = grads.remove(variable) else { continue };
            is_used = true;
            let (id, dtype) = (variable.id(), grad.dtype());
            let grad = grad.to_dtype(compute_dtype(dtype))?;
            let sum = match self.store.get_id(id) {
                Some(before) => (before + grad)?,
                None => {
                    self.found.push((id, dtype));
                    grad
                }
            };
            // A gradient may keep the graph that it was computed by.
            self.store.insert_id(id, sum.detach());
        }
        if variables.is_empty() {
            bail!(
                "Trainer: the loss depends on no variable; build the model on variables, and do not detach its output"
            )
        }
        if !is_used {
            bail!(
                "Trainer: the loss depends on none of the {} variables of the optimizer; build the model on these variables, and do not detach its output",
                variables.len()
            )
        }
        Ok(())
    }

    /// Returns the average gradients for the optimizer, or why there are none. An `Adam` takes those of half precision in `f32`;
    /// other optimizers need the dtype of the variable.
    pub fn average(
        mut self,
        clip_norm: Option<f64>,
        for_adam: bool,
    ) -> Result<std::result::Result<GradStore, SkipReason>> {
        if self.total_weight == 0.0 {
            return Ok(Err(SkipReason::NoWeight));
        }
        let scale = self.first_weight / self.total_weight / self.loss_scale.unwrap_or(1.0);
        self.map(|sum, _| times(sum, scale))?;
        if self.loss_scale.is_some() && !all_finite(self.found.iter().filter_map(|(id, _)| self.store.get_id(*id)))? {
            return Ok(Err(SkipReason::NotFinite));
        }
        if let Some(max_norm) = clip_norm {
            clip(&mut self.store, self.found.iter().map(|(id, _)| *id), max_norm)?;
        }
        if !for_adam {
            self.map(|grad, dtype| grad.to_dtype(dtype))?;
        }
        Ok(Ok(self.store))
    }

    fn map(&mut self, f: impl Fn(&Tensor, DType) -> Result<Tensor>) -> Result<()> {
        for &(id, dtype) in &self.found {
            if let Some(grad) = self.store.get_id(id) {
                let grad = f(grad, dtype)?;
                self.store.insert_id(id, grad);
            }
        }
        Ok(())
    }
}

/// The variables that a loss is computed from.
pub(super) fn variables(loss: &Tensor) -> Vec<Tensor> {
    loss.sorted_nodes().into_iter().filter(|node| node.is_variable()).cloned().collect()
}
