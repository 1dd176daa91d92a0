// Each test that includes this file uses a part of it.
#![allow(dead_code)]

use candle_core::Device;
use std::sync::OnceLock;

/// Where tests of the losses run: the CPU, or as `CANDLE_LOSSES_DEVICE` says, `cuda` or `metal`.
pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(open).clone()
}

fn open() -> Device {
    let device = match std::env::var("CANDLE_LOSSES_DEVICE").as_deref() {
        Err(_) | Ok("cpu") => Ok(Device::Cpu),
        Ok("cuda") => Device::new_cuda(0),
        Ok("metal") => Device::new_metal(0),
        Ok(other) => panic!("CANDLE_LOSSES_DEVICE is {other}, not cpu, cuda or metal"),
    };
    device.expect("the device that CANDLE_LOSSES_DEVICE names")
}

/// The resident memory of this process, in kB.
#[cfg(target_os = "linux")]
pub fn resident_kb() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    4 * pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
}
