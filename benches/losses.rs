//! Forward and backward of each loss, as JSON lines `{"loss", "size", "us"}`: the median of many runs.
//!
//! Sizes: 10x10 and 64x10 (the tutorial's), 512x1000, 4096x1000. A loss's name after `--` runs that one only.

use candle_core::{Device, Result, Tensor, Var};
use candle_losses::loss::*;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Forward = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

fn main() -> Result<()> {
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    for (rows, columns) in [(10, 10), (64, 10), (512, 1000), (4096, 1000)] {
        for (name, input, forward) in losses(rows, columns)? {
            if only.as_ref().is_none_or(|only| only == name) {
                let us = median_us(&input, &forward)?;
                println!(r#"{{"loss":"{name}","size":"{rows}x{columns}","us":{us:.1}}}"#);
            }
        }
    }
    Ok(())
}

/// Runs for about half a second, at least five times after the first three.
fn median_us(input: &Var, forward: &Forward) -> Result<f64> {
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 8 || (start.elapsed() < Duration::from_millis(500) && times.len() < 5000) {
        let start = Instant::now();
        forward(input)?.backward()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let times = &mut times[3..];
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn losses(rows: usize, columns: usize) -> Result<Vec<(&'static str, Var, Forward)>> {
    let device = &Device::Cpu;
    let shape = (rows, columns);
    let normal = || Tensor::randn(0f32, 1.0, shape, device);
    let uniform = |low: f32, high: f32| Tensor::rand(low, high, shape, device);
    let scores = Var::from_tensor(&normal()?)?;
    let probabilities = Var::from_tensor(&uniform(0.01, 0.99)?)?;
    let log_probabilities = Var::from_tensor(&log_softmax(&normal()?, 1)?)?;
    let classes = Tensor::from_iter((0..rows).map(|row| (row % columns) as u32), device)?;
    let (zero_one, real) = (uniform(0.0, 1.0)?.round()?, uniform(0.0, 1.0)?);
    let sign = zero_one.affine(2., -1.)?;
    let distribution = log_softmax(&normal()?, 1)?.exp()?;
    let variance = (uniform(0.0, 1.0)? + 0.1)?;

    let mut losses: Vec<(&'static str, Var, Forward)> = Vec::new();
    let mut add = |name, input: &Var, target: &Tensor, forward: fn(&Tensor, &Tensor) -> Result<Tensor>| {
        let target = target.clone();
        losses.push((name, input.clone(), Box::new(move |input| forward(input, &target))));
    };
    add("l1", &scores, &real, |x, y| L1Loss::default().forward(x, y));
    add("mse", &scores, &real, |x, y| MseLoss::default().forward(x, y));
    add("smooth_l1", &scores, &real, |x, y| SmoothL1Loss::default().forward(x, y));
    add("huber", &scores, &real, |x, y| HuberLoss::default().forward(x, y));
    add("bce", &probabilities, &zero_one, |x, y| BceLoss::default().forward(x, y));
    add("bce_with_logits", &scores, &zero_one, |x, y| BceWithLogitsLoss::default().forward(x, y));
    add("nll", &log_probabilities, &classes, |x, y| NllLoss::default().forward(x, y));
    add("cross_entropy", &scores, &classes, |x, y| CrossEntropyLoss::default().forward(x, y));
    add("poisson_nll", &scores, &zero_one, |x, y| PoissonNllLoss::default().forward(x, y));
    add("hinge_embedding", &scores, &sign, |x, y| HingeEmbeddingLoss::default().forward(x, y));
    add("soft_margin", &scores, &sign, |x, y| SoftMarginLoss::default().forward(x, y));
    add("multi_margin", &scores, &classes, |x, y| MultiMarginLoss::default().forward(x, y));
    add("multilabel_soft_margin", &scores, &zero_one, |x, y| MultiLabelSoftMarginLoss::default().forward(x, y));
    add("kl_div", &log_probabilities, &distribution, |x, y| {
        KlDivLoss { reduction: Reduction::BatchMean, ..Default::default() }.forward(x, y)
    });
    let gaussian: Forward = Box::new(move |x| GaussianNllLoss::default().forward(x, &real, &variance));
    losses.push(("gaussian_nll", scores, gaussian));
    Ok(losses)
}
