//! Which of two ways a loss is computed: by kernels on the CPU, or by tensor ops on any device.

use candle_core::{DType, Device, Tensor};
use std::sync::OnceLock;

thread_local! {
    static KEEPS_GRAPH: bool =
        std::env::var("CANDLE_GRAD_DO_NOT_DETACH").is_ok_and(|value| !value.is_empty() && value != "0");
}

/// Whether candle keeps the graph of a gradient, for higher derivatives: its switch is `CANDLE_GRAD_DO_NOT_DETACH`.
pub(crate) fn keeps_graph_of_gradients() -> bool {
    KEEPS_GRAPH.with(|keeps_graph| *keeps_graph)
}

/// Whether losses on this device are computed by kernels.
///
/// `CANDLE_LOSSES_KERNELS=off` takes tensor ops on the CPU too, so that a GPU's path can be tested where there is none.
/// Higher derivatives take tensor ops as well, which are differentiable again.
pub(crate) fn has_kernels(device: &Device) -> bool {
    reads_values(device) && !keeps_graph_of_gradients()
}

/// Whether the host may look at values on this device: without `CANDLE_LOSSES_KERNELS=off`, those of the CPU.
pub(crate) fn reads_values(device: &Device) -> bool {
    static IS_ON: OnceLock<bool> = OnceLock::new();
    let is_on = || std::env::var_os("CANDLE_LOSSES_KERNELS").is_none_or(|value| value != "off");
    device.is_cpu() && *IS_ON.get_or_init(is_on)
}

/// Whether a loss of these arguments is computed by kernels: they are on the CPU and not empty.
pub(crate) fn has_kernels_for(args: &[&Tensor]) -> bool {
    args[0].elem_count() > 0 && args.iter().all(|arg| has_kernels(arg.device()))
}

/// Whether a tensor has `f32` elements that kernels can read.
pub(crate) fn is_f32(t: &Tensor) -> bool {
    has_kernels(t.device()) && t.dtype() == DType::F32
}

/// Whether kernels can read a tensor as one slice of `f32`.
pub(crate) fn is_f32_slice(t: &Tensor) -> bool {
    is_f32(t) && t.is_contiguous()
}
