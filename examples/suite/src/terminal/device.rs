use super::quiet::quietly;
use crate::frontend::Ui;
use anyhow::{Context, Result};
use candle_core::Device;

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum DeviceName {
    Auto,
    Cpu,
    Cuda,
    Metal,
}

impl DeviceName {
    pub fn open(self, ui: &Ui) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(0).context("no CUDA device (is this built with `--features cuda`?)"),
            Self::Metal => Device::new_metal(0).context("no Metal device (is this built with `--features metal`?)"),
            Self::Auto => Ok(Self::gpu_or_cpu(candle_core::utils::cuda_is_available().then_some(Device::new_cuda), ui)),
        }
    }

    /// The GPU that this was built for, if it can be used, otherwise the CPU. What candle reports as available is only how it was
    /// built; whether there is a driver and a device shows when one is opened.
    fn gpu_or_cpu(cuda: Option<fn(usize) -> candle_core::Result<Device>>, ui: &Ui) -> Device {
        let metal = || candle_core::utils::metal_is_available().then_some(Device::new_metal as fn(usize) -> _);
        let Some(open) = cuda.or_else(metal) else { return Device::Cpu };
        // Without a driver the bindings panic.
        match quietly(|| open(0)) {
            Some(Ok(device)) => device,
            _ => {
                ui.note("No GPU can be used, so this runs on the CPU (run with --device cuda or metal to see why).");
                Device::Cpu
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::Frontend;

    struct Silent;

    impl Frontend for Silent {
        fn print(&self, _: &str) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_device_that_was_not_built_in_is_an_error() {
        let ui = &(std::rc::Rc::new(Silent) as Ui);
        if !candle_core::utils::cuda_is_available() {
            assert!(format!("{:#}", DeviceName::Cuda.open(ui).unwrap_err()).contains("--features cuda"));
        }
        assert!(DeviceName::Cpu.open(ui).unwrap().is_cpu());
        // A build for a GPU that is not there.
        assert!(DeviceName::gpu_or_cpu(Some(|_| candle_core::bail!("no device")), ui).is_cpu());
        assert!(DeviceName::gpu_or_cpu(Some(|_| panic!("no driver")), ui).is_cpu());
    }
}
