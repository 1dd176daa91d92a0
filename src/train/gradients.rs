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
    /// The weight of the first batch. The gradient of each batch is multiplied by the ratio of its weight to this one, which is
    /// usually 1.
    first_weight: f64,
    total_weight: f64,
}

impl Gradients {
    pub fn new(loss_scale: Option<f64>) -> Self {
        Self { loss_scale, store: GradStore::default(), found: Vec::new(), first_weight: 0.0, total_weight: 0.0 }
    }

    /// Adds the gradients of the loss of one batch with respect to the variables. A batch of weight 0 adds nothing, even if its
    /// loss is NaN.
    pub fn add(&mut self, loss: &Tensor, weight: f64, variables: &[Tensor]) -> Result<()> {
        if weight == 0.0 {
            return Ok(());
        }
        if self.total_weight == 0.0 {
            self.first_weight = weight;
        }
        self.total_weight += weight;
        let mut grads = times(loss, self.loss_scale.unwrap_or(1.0))?.backward()?;
        let mut is_used = false;
        for variable in variables {
            let Some(grad) = grads.remove(variable) else { continue };
            is_used = true;
            let (id, dtype) = (variable.id(), grad.dtype());
            // Here and not in the loss, where half precision could overflow.
            let grad = times(&grad.to_dtype(compute_dtype(dtype))?, weight / self.first_weight)?;
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

    /// Returns the averaged gradients, or the reason to skip the step. Half-precision gradients stay in `f32` for `Adam`; other
    /// optimizers get them in the dtype of the variable.
    pub fn average(
        mut self,
        clip_norm: Option<f64>,
        for_adam: bool,
    ) -> Result<std::result::Result<GradStore, SkipReason>> {
        if self.total_weight == 0.0 {
            return Ok(Err(SkipReason::ZeroWeight));
        }
        let scale = self.first_weight / self.total_weight / self.loss_scale.unwrap_or(1.0);
        self.map(|sum, _| times(sum, scale))?;
        if self.loss_scale.is_some() && !all_finite(self.found.iter().filter_map(|(id, _)| self.store.get_id(*id)))? {
            return Ok(Err(SkipReason::NonFiniteGradient));
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
