//! The least that forward and backward can take: candle starts each gradient from zeros and adds to it, whatever the loss.

use super::cells::Prepared;
use candle_core::backend::BackendDevice;
use candle_core::cpu_backend::CpuDevice;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor};
use std::sync::Arc;

/// Ops with nothing to do, for the same arguments as the cell's loss and to a result of the same shape.
pub struct Floor {
    ops: Vec<Nothing>,
    /// The same for cells that have the same floor.
    pub key: String,
}

impl Floor {
    pub fn new(cell: &Prepared) -> Result<Self> {
        cell.with_arguments(|arguments| {
            let result = cell.loss(arguments)?;
            let ops = arguments.chunks(3).map(|chunk| {
                let gradients = chunk.iter().map(|x| Tensor::ones(x.shape(), x.dtype(), x.device()));
                let (dtype, shape) = (result.dtype(), result.shape().clone());
                Ok(Nothing { dtype, result: shape, gradients: gradients.collect::<Result<_>>()? })
            });
            let layouts = arguments.iter().map(|x| (x.dtype(), x.layout())).collect::<Vec<_>>();
            Ok(Self { ops: ops.collect::<Result<_>>()?, key: format!("{layouts:?} {:?}", result.shape()) })
        })
    }

    /// In the loss's place: an op takes three arguments at most, the results of several are added.
    pub fn forward(&self, arguments: &[Tensor]) -> Result<Tensor> {
        let results = arguments.chunks(3).zip(&self.ops).map(|(chunk, op)| match chunk {
            [x] => x.apply_op1(op.clone()),
            [x, y] => x.apply_op2(y, op.clone()),
            _ => chunk[0].apply_op3(&chunk[1], &chunk[2], op.clone()),
        });
        results.reduce(|sum, result| sum? + result?).unwrap()
    }
}

/// An op with nothing to do: its result is zeros, and its gradients are ready.
#[derive(Clone)]
struct Nothing {
    dtype: DType,
    result: Shape,
    gradients: Arc<[Tensor]>,
}

impl Nothing {
    fn zeros(&self) -> Result<(CpuStorage, Shape)> {
        Ok((CpuDevice.zeros_impl(&self.result, self.dtype)?, self.result.clone()))
    }

    fn gradient(&self, of: usize) -> Option<Tensor> {
        Some(self.gradients[of].clone())
    }
}

impl CustomOp1 for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.zeros()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.gradient(0))
    }
}

impl CustomOp2 for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.zeros()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((self.gradient(0), self.gradient(1)))
    }
}

impl CustomOp3 for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
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
        self.zeros()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((self.gradient(0), self.gradient(1), self.gradient(2)))
    }
}
