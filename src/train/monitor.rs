use super::gradients::variables;
use super::trainer::SkipReason;
use crate::nn::{Adam, all_finite};
use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, bail};
use candle_nn::Optimizer;
use std::any::Any;

/// Checks during training: whether the optimizer changes any variable that the loss depends on, and whether variables stay finite.
pub(super) struct Monitor {
    is_adam: bool,
    /// The variables of an `Adam`, or those that the last loss depends on: other optimizers do not say which they have.
    variables: Vec<Tensor>,
    /// Whether the optimizer is known to train some of the variables.
    has_changed: bool,
    /// Whether a step changed none although there was a gradient.
    has_missed: bool,
    /// Whether the epoch had a step, and whether one was skipped because a gradient was not finite.
    has_stepped: bool,
    has_overflowed: bool,
}

impl Monitor {
    pub fn new(optimizer: &impl Any) -> Self {
        let adam = (optimizer as &dyn Any).downcast_ref::<Adam>();
        let variables = adam.iter().flat_map(|adam| adam.vars()).map(|var| var.as_tensor().clone()).collect();
        Self {
            is_adam: adam.is_some(),
            variables,
            has_changed: adam.is_some(),
            has_missed: false,
            has_stepped: false,
            has_overflowed: false,
        }
    }

    pub fn is_adam(&self) -> bool {
        self.is_adam
    }

    /// Returns the variables with respect to which the loss is differentiated.
    pub fn variables(&mut self, loss: &Tensor) -> &[Tensor] {
        if !self.is_adam {
            self.variables = variables(loss);
        }
        &self.variables
    }

    /// Takes a step of the optimizer.
    pub fn step<O: Optimizer>(&mut self, optimizer: &mut O, grads: &GradStore) -> Result<()> {
        self.has_stepped = true;
        if self.has_changed || optimizer.learning_rate() == 0.0 {
            return optimizer.step(grads);
        }
        // Until a step has changed a variable, the optimizer may hold none of these variables, so compare them before and after.
        let before = self.variables.iter().map(|var| var.detach().force_contiguous()).collect::<Result<Vec<_>>>()?;
        optimizer.step(grads)?;
        for (variable, before) in self.variables.iter().zip(&before) {
            self.has_changed |= any(variable.ne(before)?)?;
            if let Some(grad) = grads.get(variable) {
                self.has_missed |= any(grad.ne(0.0)?)?;
            }
        }
        Ok(())
    }

    pub fn skip(&mut self, reason: SkipReason) {
        self.has_overflowed |= reason == SkipReason::NonFiniteGradient;
    }

    /// Checks the variables after an epoch. The host waits for them.
    pub fn end_epoch(&mut self, epoch: usize, lr: f64) -> Result<()> {
        if self.has_missed && !self.has_changed {
            bail!(
                "Trainer: epoch {epoch} changed none of the variables that the loss depends on; give them to the optimizer, or raise its learning rate of {lr}"
            )
        }
        if self.has_overflowed && !self.has_stepped {
            bail!("Trainer: no step of epoch {epoch} had finite gradients; a smaller loss_scale may help")
        }
        if !all_finite(self.variables.iter())? {
            bail!("Trainer: the weights are not finite after epoch {epoch}; a learning rate below {lr} may help")
        }
        (self.has_stepped, self.has_overflowed) = (false, false);
        Ok(())
    }
}

/// Whether any element of a mask is set. The host waits for it.
fn any(mask: Tensor) -> Result<bool> {
    Ok(mask.max_all()?.to_device(&Device::Cpu)?.to_scalar::<u8>()? > 0)
}
