//! A loss as one node of candle's graph, with a backward of its own.

use super::storage::on_cpu;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor, bail};
use std::sync::{Mutex, PoisonError};

/// The value of a node.
pub(crate) enum Value {
    /// On the CPU, moved into the graph.
    Cpu(CpuStorage, Shape),
    /// On any device, copied into the graph.
    Tensor(Tensor),
}

/// Makes `value` a function of `args`. `backward` is given `args` and the gradient of the value, and returns the gradients
/// of `args`.
pub(crate) fn node<const N: usize, F>(args: [&Tensor; N], value: Value, backward: F) -> Result<Tensor>
where
    F: Fn([&Tensor; N], &Tensor) -> Result<[Option<Tensor>; N]> + Send + Sync + 'static,
{
    const { assert!(1 <= N && N <= 3) };
    let value = match value {
        // Not `contiguous`, which keeps a view into a larger storage as it is.
        Value::Tensor(value) => Value::Tensor(value.detach().force_contiguous()?),
        value => value,
    };
    // Candle has ops of up to three arguments. One op serves for fewer, with an argument repeated.
    args[0].apply_op3(args[1.min(N - 1)], args[N - 1], Node { value: Mutex::new(Some(value)), backward })
}

struct Node<F, const N: usize>
where
    F: Fn([&Tensor; N], &Tensor) -> Result<[Option<Tensor>; N]>,
{
    value: Mutex<Option<Value>>,
    backward: F,
}

impl<F, const N: usize> Node<F, N>
where
    F: Fn([&Tensor; N], &Tensor) -> Result<[Option<Tensor>; N]>,
{
    fn take(&self) -> Result<Value> {
        match self.value.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(value) => Ok(value),
            None => bail!("the value of a loss was taken twice"),
        }
    }

    /// The value on a GPU, in the backend whose storage `pick` finds.
    fn gpu_value<S: BackendStorage>(&self, pick: impl Fn(&Storage) -> Option<&S>) -> Result<(S, Shape)> {
        if let Value::Tensor(value) = self.take()? {
            let (storage, layout) = value.storage_and_layout();
            if let Some(storage) = pick(&storage) {
                return Ok((storage.try_clone(layout)?, layout.shape().clone()));
            }
        }
        bail!("a loss and its argument are on different devices")
    }
}

macro_rules! gpu_forward {
    ($name:ident, $storage:ident, $variant:ident) => {
        fn $name(
            &self,
            _: &$storage,
            _: &Layout,
            _: &$storage,
            _: &Layout,
            _: &$storage,
            _: &Layout,
        ) -> Result<($storage, Shape)> {
            self.gpu_value(|storage| match storage {
                Storage::$variant(storage) => Some(storage),
                _ => None,
            })
        }
    };
}

impl<F, const N: usize> CustomOp3 for Node<F, N>
where
    F: Fn([&Tensor; N], &Tensor) -> Result<[Option<Tensor>; N]>,
{
    fn name(&self) -> &'static str {
        "loss"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        match self.take()? {
            Value::Cpu(storage, shape) => Ok((storage, shape)),
            Value::Tensor(value) => {
                let (storage, layout) = value.storage_and_layout();
                Ok((on_cpu(&storage)?.try_clone(layout)?, layout.shape().clone()))
            }
        }
    }

    gpu_forward!(cuda_fwd, CudaStorage, Cuda);
    gpu_forward!(metal_fwd, MetalStorage, Metal);

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut grads = (self.backward)(std::array::from_fn(|i| [a, b, c][i]), grad)?.into_iter();
        let mut next = || grads.next().flatten();
        Ok((next(), next(), next()))
    }
}
