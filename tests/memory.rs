//! That a training does not hold on to what it leaves behind. Alone in its process, whose memory it looks at.

#![cfg(target_os = "linux")]

mod common;

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_losses::data::TensorDataset;
use candle_losses::loss::{CrossEntropyLoss, MultiLabelMarginLoss};
use candle_losses::{Adam, OutputActivation, Parameters, ParamsAdam, Trainer, mlp};
use candle_nn::Optimizer;
use common::resident_kb;

/// `f64` takes the way of tensor ops in any case, `f32` with `CANDLE_LOSSES_KERNELS=off`.
#[test]
fn five_thousand_steps_hold_memory_level() -> Result<()> {
    for dtype in [DType::F64, DType::F32] {
        let x = Tensor::rand(-1f32, 1.0, (100, 16), &Device::Cpu)?.to_dtype(dtype)?;
        let samples = TensorDataset::new(x, Tensor::from_iter((0..100u32).map(|i| i % 4), &Device::Cpu)?)?;
        let parameters = Parameters::seeded(1);
        let model = mlp(&[16, 16, 4], OutputActivation::Linear, parameters.var_builder(dtype, &Device::Cpu))?;
        let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam::default())?;
        let lists = Tensor::new(&[[0i64, 1, -1, -1]], &Device::Cpu)?;
        let mut steps = |epochs: usize| {
            let trainer = Trainer { epochs, batch_size: 10, accumulate: 2, clip_norm: Some(1.0), ..Default::default() };
            trainer.fit(&mut adam, &samples, |x, y| {
                let output = model.forward(x)?;
                let lists = lists.broadcast_as(output.dims())?.contiguous()?;
                CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() }.forward(&output, y)?
                    + MultiLabelMarginLoss::default().forward(&output, &lists)?
            })
        };
        steps(200)?;
        let before = resident_kb();
        steps(1000)?;
        let grown = resident_kb().saturating_sub(before);
        assert!(grown < 2048, "{dtype:?}: {grown} kB more after 5,000 steps");
    }
    Ok(())
}
