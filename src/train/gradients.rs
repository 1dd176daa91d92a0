use super::trainer::SkipReason;
use crate::kernel::ops::{compute_dtype, times};
use crate::nn::{all_finite, clip};
use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, TensorId, bail};

/// The gradients of the batches of one step, averaged by the weights of the batches.
pub(super) struct Gradients {
    loss_scale: Option<f64>,
    /// The averages so far, times the loss scale. In at least `f32`, so that small gradients in half precision are not lost.
    store: GradStore,
    /// The variables with a gradient, and its dtype.
    found: Vec<(TensorId, DType)>,
    total_weight: f64,
}

impl Gradients {
    pub fn new(loss_scale: Option<f64>) -> Self {
        Self { loss_scale, store: GradStore::default(), found: Vec::new(), total_weight: 0.0 }
    }

    /// Adds the gradients of the loss of one batch with respect to the variables. A batch of weight 0 adds nothing, even if its
    /// loss is NaN.
    pub fn add(&mut self, loss: &Tensor, weight: f64, variables: &[Tensor]) -> Result<()> {
        if weight == 0.0 {
            return Ok(());
        }
        let total_weight = self.total_weight + weight;
        if total_weight.is_infinite() {
            bail!("Trainer: the denominators of one step add up to infinity")
        }
        // The averages so far have this part of the new total. A gradient is multiplied here and not in the loss, where half
        // precision could overflow.
        let rest = self.total_weight / total_weight;
        self.total_weight = total_weight;
        if rest > 0.0 {
            self.map(|average, _| times(average, rest))?;
        }
        let mut grads = times(loss, self.loss_scale.unwrap_or(1.0))?.backward()?;
        let mut is_used = false;
        for variable in variables {
            let Some(grad) = grads.remove(variable) else { continue };
            is_used = true;
            let (id, dtype) = (variable.id(), grad.dtype());
            let grad = times(&grad.to_dtype(compute_dtype(dtype))?, weight / total_weight)?;
            let average = match self.store.get_id(id) {
                Some(before) => (before + grad)?,
                None => {
                    self.found.push((id, dtype));
                    grad
                }
            };
            // A gradient may keep the graph that it was computed by.
            self.store.insert_id(id, average.detach());
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
        if let Some(scale) = self.loss_scale {
            self.map(|average, _| times(average, 1.0 / scale))?;
            if !all_finite(self.found.iter().filter_map(|(id, _)| self.store.get_id(*id)))? {
                return Ok(Err(SkipReason::NonFiniteGradient));
            }
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
