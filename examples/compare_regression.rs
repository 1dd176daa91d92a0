//! Compare regression losses: which one keeps its head when some of the training prices are wrong?
//!
//! A network learns the prices of Boston housing with L1, MSE, smooth L1 and Huber, while a share of the training prices
//! has its decimal point one place too far right. The held-out prices are left as they are. Prints a table of the errors
//! there, mean ± standard deviation over the seeds, and draws it.
//!
//!     cargo run --example compare_regression

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_losses::data::{TensorDataset, boston_housing};
use candle_losses::loss::{HuberLoss, L1Loss, MseLoss, SmoothL1Loss};
use candle_losses::{Adam, OutputActivation, Parameters, ParamsAdam, Trainer, mlp};
use candle_nn::Optimizer;
use rand::{SeedableRng, seq::index::sample};
use rand_chacha::ChaCha12Rng;
use std::path::PathBuf;
use suite::{Comparison, Ui, outputs, run};

#[derive(clap::Parser)]
#[command(about = "Regression losses on prices of which some are wrong")]
pub struct Options {
    /// Passes over the training samples
    #[arg(long, value_name = "N", default_value_t = 100)]
    epochs: usize,

    /// Adam's learning rate
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,

    /// Trainings of each loss, each with other weights and other houses held out
    #[arg(long, value_name = "N", default_value_t = 5)]
    seeds: u64,

    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "compare_regression.svg")]
    plot: PathBuf,
}

const SHARES: [f64; 3] = [0.0, 5.0, 20.0];
const LOSSES: [&str; 4] = ["L1", "MSE", "Smooth L1 (beta 1)", "Huber (delta 5)"];

fn loss(number: usize, input: &Tensor, target: &Tensor) -> Result<Tensor> {
    match number {
        0 => L1Loss::default().forward(input, target),
        1 => MseLoss::default().forward(input, target),
        2 => SmoothL1Loss::default().forward(input, target),
        _ => HuberLoss { delta: 5.0, ..Default::default() }.forward(input, target),
    }
}

pub fn example(Options { epochs, lr, seeds, plot }: Options, ui: &Ui) -> anyhow::Result<()> {
    suite::probe(&plot)?;
    let comparison = Comparison::run(&LOSSES, &SHARES, &["MAE", "RMSE"], seeds, |number, share, seed| {
        let data = boston_housing(0.2, seed, &Device::Cpu)?;
        let train = corrupted(&data.train, share, seed)?;
        let parameters = Parameters::seeded(seed);
        let vb = parameters.var_builder(DType::F32, &Device::Cpu);
        let model = mlp(&[train.features(), 64, 32, 1], OutputActivation::Linear, vb)?;
        let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam { lr, ..Default::default() })?;

        let trainer = Trainer { epochs, batch_size: 10, seed, ..Default::default() };
        trainer.fit(&mut adam, &train, |x, y| loss(number, &model.forward(x)?, y))?;

        let error = (outputs(&model, &data.test)? - data.test.targets())?;
        let (mae, mse) = (error.abs()?.mean_all()?, error.sqr()?.mean_all()?);
        Ok([mae.to_scalar::<f32>()?.into(), f64::from(mse.to_scalar::<f32>()?).sqrt()])
    })?;
    comparison.print("% wrong", 2, ui)?;
    comparison.plot("Held-out error, where some training prices are ten times too high", "% wrong", &plot, ui)
}

pub fn main() -> std::process::ExitCode {
    run(example)
}

/// `share` per cent of the prices ten times too high.
fn corrupted(samples: &TensorDataset, share: f64, seed: u64) -> Result<TensorDataset> {
    let count = (samples.len() as f64 * share / 100.0).round() as usize;
    let mut factors = vec![1f32; samples.len()];
    for row in sample(&mut ChaCha12Rng::seed_from_u64(seed + 1000), samples.len(), count) {
        factors[row] = 10.0;
    }
    let factors = Tensor::from_vec(factors, (samples.len(), 1), &Device::Cpu)?;
    samples.map_targets(|prices| prices * &factors)
}
