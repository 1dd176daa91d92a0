use super::trainer::SkipReason;
use crate::nn::{Adam, all_finite};
use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, TensorId, bail};
use candle_nn::{AdamW, Optimizer, SGD};
use std::any::Any;
use std::borrow::Cow;
use std::collections::HashSet;

/// Checks during training: whether the optimizer holds any variable that the loss depends on, and whether variables stay finite.
pub(super) struct Monitor {
    is_adam: bool,
    /// Whether each step of the optimizer changes its variables, as far as their precision allows.
    is_immediate: bool,
    /// The variables of an `Adam`, or all that a loss depended on so far: other optimizers do not expose their variables.
    variables: Vec<Tensor>,
    known: HashSet<TensorId>,
    /// Whether the optimizer is known to hold one of the variables.
    has_changed: bool,
    /// Whether a step changed no variable although it had to.
    has_missed: bool,
    /// The kinds of steps in the epoch.
    has_stepped: bool,
    has_overflowed: bool,
}

impl Monitor {
    pub fn new(optimizer: &impl Any) -> Self {
        let optimizer = optimizer as &dyn Any;
        let adam = optimizer.downcast_ref::<Adam>();
        let variables = adam.iter().flat_map(|adam| adam.vars()).map(|var| var.as_tensor().clone()).collect();
        Self {
            is_adam: adam.is_some(),
            is_immediate: optimizer.is::<SGD>() || optimizer.is::<AdamW>(),
            variables,
            known: HashSet::new(),
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
    pub fn variables(&mut self, loss: &Tensor) -> Cow<'_, [Tensor]> {
        if self.is_adam {
            return Cow::Borrowed(&self.variables);
        }
        let found = loss.sorted_nodes().into_iter().filter(|node| node.is_variable()).cloned().collect::<Vec<_>>();
        let new = found.iter().filter(|variable| self.known.insert(variable.id()));
        self.variables.extend(new.cloned());
        Cow::Owned(found)
    }

    /// Takes a step of the optimizer.
    pub fn step<O: Optimizer>(&mut self, optimizer: &mut O, grads: &GradStore) -> Result<()> {
        self.has_stepped = true;
        if self.has_changed || !self.is_immediate {
            return optimizer.step(grads);
        }
        // Until a step has changed a variable, the optimizer may hold none of these variables, so compare them before and after.
        let copy = |variable: &Tensor| Ok((variable.clone(), variable.detach().force_contiguous()?));
        let before = self.variables.iter().map(copy).collect::<Result<Vec<_>>>()?;
        let lr = optimizer.learning_rate();
        optimizer.step(grads)?;
        for (variable, before) in &before {
            self.has_changed |= any(&variable.ne(before)?)?;
            if let Some(grad) = grads.get(variable) {
                // SGD and AdamW change an element by about this, or more. It is not lost to rounding if it is as large as this part
                // of the element.
                let change = (grad.detach().abs()?.minimum(1.0)? * lr)?;
                let precision = if before.dtype().size_in_bytes() < 4 { 1e-2 } else { 1e-5 };
                self.has_missed |= any(&change.gt(&(before.abs()? * precision)?)?)?;
            }
        }
        Ok(())
    }

    pub fn skip(&mut self, reason: SkipReason) {
        self.has_overflowed |= reason == SkipReason::NonFiniteGradient;
    }

    /// Checks the variables after an epoch, of which the first steps may belong to an earlier run. The host waits for them.
    pub fn end_epoch(&mut self, epoch: usize, lr: f64, is_whole: bool) -> Result<()> {
        if self.has_missed && !self.has_changed {
            bail!(
                "Trainer: epoch {epoch} changed none of the variables that the loss depends on; give them to the optimizer"
            )
        }
        if is_whole && !self.has_stepped && self.has_overflowed {
            bail!("Trainer: no step of epoch {epoch} had finite gradients; a smaller loss_scale may help")
        }
        if is_whole && !self.has_stepped {
            bail!(
                "Trainer: each batch of epoch {epoch} has weight 0; check that not all targets are padding or ignored"
            )
        }
        if !all_finite(self.variables.iter())? {
            bail!("Trainer: the weights are not finite after epoch {epoch}; a learning rate below {lr} may help")
        }
        (self.has_stepped, self.has_overflowed) = (false, false);
        Ok(())
    }
}

/// Whether any element of a mask is set. The host waits for it.
fn any(mask: &Tensor) -> Result<bool> {
    Ok(mask.elem_count() > 0 && mask.max_all()?.to_device(&Device::Cpu)?.to_scalar::<u8>()? > 0)
}
