// Each test that includes this file uses a part of it.
#![allow(dead_code)]

use candle_core::Device;
use std::process::Command;
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

/// An example, as a program. The Hub is not asked.
pub fn example(name: &str) -> Command {
    // Tests are built to target/PROFILE/deps, examples to target/PROFILE/examples.
    let deps = std::env::current_exe().unwrap();
    let path = deps.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(
        path.with_extension(std::env::consts::EXE_EXTENSION).exists(),
        "{path:?} is missing: run `cargo test`, it builds the examples"
    );
    let mut command = Command::new(path);
    command.env("HF_HUB_OFFLINE", "1");
    command
}

/// The resident memory of this process, in kB.
#[cfg(target_os = "linux")]
pub fn resident_kb() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    4 * pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
}
