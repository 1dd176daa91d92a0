//! 500 training steps of eleven sections against PyTorch's losses, step by step, from the same weights on the same
//! batches (`tests/golden/make_trajectories.py`). `--nocapture` shows the worst difference of each.

mod common;

use candle_core::Device;
use std::path::Path;

const STEPS: usize = 500;
const TOLERANCE: f32 = 1e-3;

#[test]
fn training_follows_pytorch_step_by_step() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = include_bytes!("golden/trajectories.safetensors");
    let expected = candle_core::safetensors::load_buffer(golden, &Device::Cpu).unwrap();
    assert_eq!(expected.len(), 11);
    let mnist = root.join("../shared/mnist");
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log.csv");
    for (name, expected) in &expected {
        let expected = expected.to_vec1::<f32>().unwrap();
        let is_boston = ["l1", "mse", "smooth_l1", "huber"].contains(&name.as_str());
        if !is_boston && !mnist.exists() {
            println!("{name}: skipped, there are no MNIST files in {}", mnist.display());
            continue;
        }
        let mut command = common::example(name);
        command.arg("--no-shuffle").arg("--log").arg(&log);
        if is_boston {
            command.args(["--test-fraction", "0", "--epochs", "10", "--lr", "1e-4"]);
        } else {
            command.args(["--epochs", "1", "--limit", "5000", "--data-dir"]).arg(&mnist);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {output:?}");
        let text = std::fs::read_to_string(&log).unwrap();
        let losses = text.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse::<f32>().unwrap());
        let losses = losses.take(STEPS).collect::<Vec<_>>();
        assert_eq!((losses.len(), expected.len()), (STEPS, STEPS), "{name}");
        let differences =
            losses.iter().zip(&expected).map(|(found, expected)| (found - expected).abs() / expected.abs());
        let worst = differences.fold(0.0, f32::max);
        println!("{name}: at most {worst:.1e}");
        assert!(worst <= TOLERANCE, "{name} leaves PyTorch's path by {worst:.1e}");
    }
}
