//! Targets of class indices: their checks, and their forms for kernels and for tensor ops.

use super::Reduction;
use super::validate::{class_indices, float, float_dtype, same_device};
use crate::kernel::ops;
use crate::kernel::rows::WeightedTargets;
use crate::kernel::storage::with_elements;
use crate::kernel::switches::{has_kernels, reads_values};
use crate::kernel::tensor_loss::Scale;
use candle_core::{DType, Device, Result, Tensor, bail};

/// Returns the dimension of the classes: 0 for `(C)`, and 1 for `(N, C, d1, …, dK)`.
pub(super) fn class_dim(loss: &str, name: &str, arg: &Tensor) -> Result<usize> {
    match arg.dims() {
        [] => bail!("{loss}: {name} is a scalar but needs a class dimension, (C) or (N, C, …)"),
        dims => Ok(dims.len().min(2) - 1),
    }
}

/// Returns the weight of each class, `(C)`, in the compute dtype.
pub(super) fn class_weight(loss: &str, weight: &Tensor, input: &Tensor, classes: usize) -> Result<Tensor> {
    same_device(loss, ("weight", weight), ("input", input))?;
    if weight.dims() != [classes] {
        bail!("{loss}: weight has shape {:?} but needs one value for each of the {classes} classes", weight.dims())
    }
    float(loss, "weight", &weight.detach())?.to_dtype(float_dtype(loss, "input", input)?)?.contiguous()
}

/// Returns the denominator of the mean loss against `target`, as a host number: the sum of the samples' class weights, or the
/// number of samples for probabilities.
pub(super) fn denominator(
    loss: &str,
    target: &Tensor,
    weight: Option<&Tensor>,
    ignore_index: i64,
    takes_probabilities: bool,
) -> Result<f64> {
    if takes_probabilities && target.dtype().is_float() {
        let dim = class_dim(loss, "target", target)?;
        return Ok((target.elem_count() / target.dims()[dim].max(1)) as f64);
    }
    let weight = match weight {
        Some(weight) if weight.rank() == 1 => {
            let weight = float(loss, "weight", &weight.detach())?.to_device(&Device::Cpu)?;
            Some(weight.to_dtype(DType::F64)?.to_vec1::<f64>()?)
        }
        Some(weight) => bail!("{loss}: weight has shape {:?} but needs one value for each class", weight.dims()),
        None => None,
    };
    let classes = class_indices(loss, "target", target)?.to_device(&Device::Cpu)?;
    with_elements(&classes, |classes: &[i64]| {
        let mut sum = 0.0;
        for &class in classes.iter().filter(|class| **class != ignore_index) {
            sum += match (&weight, usize::try_from(class)) {
                (None, Ok(_)) => 1.0,
                (Some(weight), Ok(class)) if class < weight.len() => weight[class],
                (Some(weight), _) => {
                    bail!("{loss}: target holds class {class} but there are {} classes, numbered from 0", weight.len())
                }
                (None, Err(_)) => bail!("{loss}: target holds class {class}, but classes are numbered from 0"),
            };
        }
        Ok(sum)
    })?
}

/// The class of each sample, checked against the shape of the input.
pub(super) struct ClassTargets {
    loss: &'static str,
    /// Dimension of the classes in the input.
    pub dim: usize,
    /// Number of classes.
    pub count: usize,
    /// Class of each sample, `i64`, in the shape of the samples.
    target: Tensor,
    /// Weight of each class, in the compute dtype.
    weight: Option<Tensor>,
    ignore_index: Option<i64>,
    device: Device,
    has_elements: bool,
}

impl ClassTargets {
    /// Checks the dtypes, devices and shapes, but not the classes.
    pub fn new(
        loss: &'static str,
        input: &Tensor,
        target: &Tensor,
        weight: Option<&Tensor>,
        ignore_index: Option<i64>,
    ) -> Result<Self> {
        let dim = class_dim(loss, "input", input)?;
        float_dtype(loss, "input", input)?;
        let count = input.dims()[dim];
        let weight = weight.map(|weight| class_weight(loss, weight, input, count)).transpose()?;
        Self::of_shape(loss, input, (input.dims(), dim), target, weight, ignore_index)
    }

    /// Checks a target like [`new`](Self::new), for logits of shape `dims` that are computed from `input` later. The
    /// classes are in dimension `dim`.
    pub fn of_shape(
        loss: &'static str,
        input: &Tensor,
        (dims, dim): (&[usize], usize),
        target: &Tensor,
        weight: Option<Tensor>,
        ignore_index: Option<i64>,
    ) -> Result<Self> {
        let mut samples = dims.to_vec();
        let count = samples.remove(dim);
        same_device(loss, ("target", target), ("input", input))?;
        let target = &class_indices(loss, "target", target)?;
        // As in PyTorch, the class of an input without a batch is a scalar or a vector of one element.
        if target.dims() != samples && !(samples.is_empty() && target.dims() == [1]) {
            let mut hint = String::new();
            if dims.len() > 2 && target.dims() == &dims[..dims.len() - 1] {
                let order = if dims.len() == 3 { "input.transpose(1, 2)" } else { "input.permute" };
                hint = format!(
                    "; as in PyTorch, classes are dimension 1: if they are the last dimension of input, move them with {order}"
                );
            }
            bail!(
                "{loss}: target has shape {:?} but input of shape {dims:?} needs class indices of shape {samples:?}{hint}",
                target.dims()
            )
        }
        let has_elements = dims.iter().product::<usize>() > 0;
        let target = target.reshape(samples)?;
        let target = if has_elements { target } else { target.to_device(&Device::Cpu)? };
        Ok(Self { loss, dim, count, target, weight, ignore_index, device: input.device().clone(), has_elements })
    }

    /// Reads the classes and weights on the host, if a kernel computes the loss.
    pub fn for_kernel(&self) -> Result<Option<WeightedTargets>> {
        if !self.has_elements || !has_kernels(&self.device) {
            return Ok(None);
        }
        let weight = self.weight.as_ref().map(|weight| weight.to_dtype(DType::F64)?.to_vec1()).transpose()?;
        Ok(Some(WeightedTargets { classes: self.read()?, weight }))
    }

    /// Reads the classes, with [`WeightedTargets::IGNORED`] for ignored samples.
    fn read(&self) -> Result<Vec<u32>> {
        let class = |&class: &i64| match class {
            class if Some(class) == self.ignore_index => Ok(WeightedTargets::IGNORED),
            class if (0..self.count as i64).contains(&class) => Ok(class as u32),
            class => {
                bail!("{}: target holds class {class} but input has {} classes, numbered from 0", self.loss, self.count)
            }
        };
        with_elements(&self.target, |target| target.iter().map(class).collect())?
    }

    /// Returns the factor of the sum of the losses, or `None` without a reduction. The mean divides by the sum of the
    /// samples' weights.
    pub fn factor(&self, reduction: Reduction, targets: &WeightedTargets) -> Option<f64> {
        match reduction {
            Reduction::Mean => Some(1.0 / targets.total_weight()),
            _ => reduction.factor(self.target.dims()),
        }
    }

    /// Returns the scale of the sum of the losses, for tensor ops.
    pub fn scale(&self, reduction: Reduction, targets: &GatherTargets) -> Result<Scale> {
        match reduction {
            Reduction::Mean => Ok(Scale::Tensor(ops::sum_all(&targets.weight)?.recip()?)),
            _ => Ok(reduction.factor(self.target.dims()).into()),
        }
    }

    /// Returns the targets as tensors for `gather`, with weights in `dtype`. The host does not wait for a GPU: a class
    /// out of range makes the loss NaN there.
    pub fn for_gather(&self, dtype: DType) -> Result<GatherTargets> {
        let Self { dim, count, target, .. } = self;
        if reads_values(target.device()) || target.elem_count() == 0 {
            self.read()?;
        }
        let zero = ops::constant(0.0, target)?;
        let is_ignored = self.ignore_index.map(|ignore_index| target.eq(ignore_index)).transpose()?;
        let is_outside = (target.lt(0i64)? + target.ge(*count as i64)?)?;
        let index = is_outside.where_cond(&zero, target)?;
        let index = match &is_ignored {
            Some(is_ignored) => is_ignored.where_cond(&zero, &index)?,
            None => index,
        };
        let index = ops::cast(&index, DType::U32)?;
        let mut weight = match &self.weight {
            Some(weight) if *count > 0 => {
                let weight = weight.to_device(index.device())?.to_dtype(dtype)?;
                weight.index_select(&index.flatten_all()?, 0)?.reshape(index.shape())?
            }
            _ => Tensor::ones(index.shape(), dtype, index.device())?,
        };
        weight = ops::masked_fill(&weight, &is_outside, f64::NAN)?;
        if let Some(is_ignored) = &is_ignored {
            weight = ops::masked_fill(&weight, is_ignored, 0.0)?;
        }
        let is_ignored = is_ignored.map(|is_ignored| is_ignored.unsqueeze(*dim)).transpose()?;
        Ok(GatherTargets { dim: *dim, count: *count, index: index.unsqueeze(*dim)?.contiguous()?, is_ignored, weight })
    }
}

/// Class targets as tensors, for any device.
pub(super) struct GatherTargets {
    pub dim: usize,
    pub count: usize,
    /// Classes as `u32`, in the shape of the input with size 1 in `dim`. 0 for ignored samples.
    pub index: Tensor,
    /// `u8`, in the shape of `index`, 1 for ignored samples.
    pub is_ignored: Option<Tensor>,
    /// Weight of the class of each sample, in the shape of the samples. 0 for ignored samples, and NaN for a class out
    /// of range.
    pub weight: Tensor,
}

impl GatherTargets {
    /// Returns the element of each row at its class, in the shape of `index`.
    pub fn gather(&self, x: &Tensor) -> Result<Tensor> {
        if self.count == 0 {
            // All samples are ignored, and the input has no elements.
            return x.sum_keepdim(self.dim);
        }
        x.contiguous()?.gather(&self.index, self.dim)
    }

    /// Returns `x` plus `values` at the class of each row.
    pub fn scatter_add(&self, x: &Tensor, values: &Tensor) -> Result<Tensor> {
        if self.count == 0 {
            return Ok(x.clone());
        }
        if x.track_op() || values.track_op() {
            // Candle's `scatter_add` can't be differentiated with an index of another shape.
            let values = self.is_class()?.where_cond(&values.broadcast_as(x.shape())?, &ops::constant(0.0, x)?)?;
            return x + values;
        }
        x.contiguous()?.scatter_add(&self.index, &values.contiguous()?, self.dim)
    }

    /// Returns `x` with 0 in ignored rows, even if their elements are NaN. `x` has the rank of the input.
    pub fn drop_ignored(&self, x: &Tensor) -> Result<Tensor> {
        match &self.is_ignored {
            Some(is_ignored) => ops::masked_fill(x, is_ignored, 0.0),
            None => Ok(x.clone()),
        }
    }

    /// Returns the weights in the shape of `index`.
    pub fn row_weight(&self) -> Result<Tensor> {
        self.weight.unsqueeze(self.dim)
    }

    /// Returns a `u8` mask in the shape of the input, 1 at the class of each row.
    pub fn is_class(&self) -> Result<Tensor> {
        let mut shape = vec![1; self.index.rank()];
        shape[self.dim] = self.count;
        let all = Tensor::arange(0u32, self.count as u32, self.index.device())?.reshape(shape)?;
        all.broadcast_eq(&self.index)
    }
}
