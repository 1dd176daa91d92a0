//! Compare classification losses: which one still chooses well, and knows how sure it is, when labels are wrong?
//!
//! A network learns digits with cross-entropy (the same as NLL after a log-softmax), with label smoothing, with KL
//! divergence from a smoothed target and with the multi-margin loss, while a share of the training labels says another
//! digit. The held-out labels are left as they are. Prints the accuracy there and the calibration error: how far the
//! probability that the model gives its choice is from how often that is right. Mean ± standard deviation over the seeds.
//!
//!     cargo run --example compare_classification

use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_losses::data::{TensorDataset, digits};
use candle_losses::loss::{CrossEntropyLoss, KlDivLoss, MultiMarginLoss, NllLoss, Reduction};
use candle_losses::{Adam, OutputActivation, Parameters, ParamsAdam, Trainer, mlp};
use candle_nn::Optimizer;
use rand::{Rng, SeedableRng, seq::index::sample};
use rand_chacha::ChaCha12Rng;
use std::path::PathBuf;
use suite::{Comparison, Ui, outputs, run};

#[derive(clap::Parser)]
#[command(about = "Classification losses on digits of which some have a wrong label")]
pub struct Options {
    /// Read MNIST's four IDX files from this folder instead of using the bundled digits
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Passes over the training samples
    #[arg(long, value_name = "N", default_value_t = 3)]
    epochs: usize,

    /// Adam's learning rate
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,

    /// Trainings of each loss, each with other weights and other labels wrong
    #[arg(long, value_name = "N", default_value_t = 5)]
    seeds: u64,

    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "compare_classification.svg")]
    plot: PathBuf,
}

const SHARES: [f64; 3] = [0.0, 20.0, 40.0];
const LOSSES: [&str; 4] = ["NLL / cross-entropy", "Label smoothing 0.3", "KL, target 0.9", "Multi-margin"];

/// The input are log-probabilities, which are also logits: a log-softmax leaves them as they are.
fn loss(number: usize, input: &Tensor, target: &Tensor) -> Result<Tensor> {
    match number {
        0 => NllLoss::default().forward(input, target),
        1 => CrossEntropyLoss { label_smoothing: 0.3, ..Default::default() }.forward(input, target),
        2 => {
            let one_hot = Tensor::eye(10, input.dtype(), input.device())?.index_select(target, 0)?;
            let smoothed = one_hot.affine(0.9, 0.01)?;
            KlDivLoss { reduction: Reduction::BatchMean, ..Default::default() }.forward(input, &smoothed)
        }
        _ => MultiMarginLoss::default().forward(input, target),
    }
}

pub fn example(Options { data_dir, epochs, lr, seeds, plot }: Options, ui: &Ui) -> anyhow::Result<()> {
    suite::probe(&plot)?;
    let data = match data_dir {
        Some(dir) => suite::idx::load(&dir)?,
        None => digits(&Device::Cpu)?,
    };
    let metrics = ["Accuracy in %", "Calibration error in %"];
    let comparison = Comparison::run(&LOSSES, &SHARES, &metrics, seeds, |number, share, seed| {
        let train = corrupted(&data.train, share, seed)?;
        let parameters = Parameters::seeded(seed);
        let vb = parameters.var_builder(DType::F32, &Device::Cpu);
        let model = mlp(&[784, 64, 32, 10], OutputActivation::LogSoftmax, vb)?;
        let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam { lr, ..Default::default() })?;

        let trainer = Trainer { epochs, batch_size: 64, seed, ..Default::default() };
        trainer.fit(&mut adam, &train, |x, y| loss(number, &model.forward(x)?, y))?;

        let log_p = outputs(&model, &data.test)?;
        let hits = log_p.argmax(D::Minus1)?.eq(data.test.targets())?.to_vec1::<u8>()?;
        let sure = log_p.max(D::Minus1)?.exp()?.to_vec1::<f32>()?;
        let accuracy = hits.iter().map(|&hit| f64::from(hit)).sum::<f64>() / hits.len() as f64;
        Ok([100.0 * accuracy, 100.0 * calibration_error(&sure, &hits)])
    })?;
    comparison.print("% wrong", 1, ui)?;
    comparison.plot("Held-out digits, where some training labels are wrong", "% wrong", &plot, ui)
}

pub fn main() -> std::process::ExitCode {
    run(example)
}

/// The expected calibration error: over fifteen bins of the probability that was given to the choice, the distance between
/// the mean of that and the share of right choices, each bin by how many are in it (Guo et al., 2017).
fn calibration_error(sure: &[f32], hits: &[u8]) -> f64 {
    const BINS: usize = 15;
    let mut gaps = [0f64; BINS];
    for (&sure, &hit) in sure.iter().zip(hits) {
        let bin = ((sure * BINS as f32) as usize).min(BINS - 1);
        gaps[bin] += f64::from(sure) - f64::from(hit);
    }
    gaps.iter().map(|gap| gap.abs()).sum::<f64>() / sure.len() as f64
}

/// `share` per cent of the labels made another class's.
fn corrupted(samples: &TensorDataset, share: f64, seed: u64) -> Result<TensorDataset> {
    let mut labels = samples.targets().to_vec1::<u32>()?;
    let count = (labels.len() as f64 * share / 100.0).round() as usize;
    let mut rng = ChaCha12Rng::seed_from_u64(seed + 1000);
    for row in sample(&mut rng, labels.len(), count) {
        labels[row] = (labels[row] + rng.random_range(1..10)) % 10;
    }
    let labels = Tensor::from_vec(labels, samples.len(), &Device::Cpu)?;
    samples.map_targets(|_| Ok(labels.clone()))
}
