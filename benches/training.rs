//! A step of `cross_entropy`'s training at several batch sizes, the preparation of its data, and losses at growing sizes.
//!
//! criterion prints each with its confidence interval and leaves the estimates under `target/criterion`.

use candle_core::{DType, Device, Module, Tensor, Var};
use candle_losses::data::{TensorDataset, digits};
use candle_losses::loss::{CrossEntropyLoss, HuberLoss};
use candle_losses::{Adam, OutputActivation, Parameters, ParamsAdam, mlp};
use candle_nn::Optimizer;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SAMPLES: usize = 10_000;

/// As many images as the largest batch, of no content: what they show makes no difference to the time.
fn samples() -> TensorDataset {
    let device = &Device::Cpu;
    let pixels = (0..SAMPLES * 784).map(|i| (i * 7919 % 256) as u8).collect::<Vec<_>>();
    let images = Tensor::from_vec(pixels, (SAMPLES, 28, 28), device).unwrap();
    let classes = Tensor::from_iter((0..SAMPLES as u32).map(|i| i % 10), device).unwrap();
    TensorDataset::images(images, classes).unwrap()
}

/// What happens from one batch to the next: gather, forward, loss, its value, backward, Adam.
fn steps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    let samples = samples();
    // 7919 is a prime that doesn't divide their number, so each comes once.
    let order = Tensor::from_iter((0..SAMPLES).map(|i| (i * 7919 % SAMPLES) as u32), &Device::Cpu).unwrap();
    for batch in [1, 10, 64, 100, 512, 1000, 10_000] {
        let parameters = Parameters::seeded(1);
        let vb = parameters.var_builder(DType::F32, &Device::Cpu);
        let model = mlp(&[784, 64, 32, 10], OutputActivation::Linear, vb).unwrap();
        let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam { lr: 1e-4, ..Default::default() }).unwrap();
        let mut starts = (0..SAMPLES - SAMPLES % batch).step_by(batch).cycle();
        let mut step = || -> candle_core::Result<f32> {
            let (inputs, targets) = samples.batch(Some(&order), starts.next().unwrap_or(0), batch)?;
            let loss = CrossEntropyLoss::default().forward(&model.forward(&inputs)?, &targets)?;
            adam.step(&loss.backward()?)?;
            loss.to_scalar::<f32>()
        };
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| bencher.iter(|| step().unwrap()));
    }
}

fn preparation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("data");
    group.sample_size(10).bench_function("bundled digits", |bencher| {
        bencher.iter(|| digits(&Device::Cpu).unwrap());
    });
}

/// Forward and backward: time per element should stay level from a thousand to ten million of them.
fn sizes(criterion: &mut Criterion) {
    let device = &Device::Cpu;
    for elements in [1_000usize, 10_000, 100_000, 1_000_000, 10_000_000] {
        let scores = Var::from_tensor(&Tensor::randn(0f32, 1.0, (elements / 100, 100), device).unwrap()).unwrap();
        let real = Tensor::rand(0f32, 1.0, scores.shape(), device).unwrap();
        let classes = Tensor::from_iter((0..elements as u32 / 100).map(|row| row % 100), device).unwrap();
        let mut measure = |name, forward: &dyn Fn() -> candle_core::Result<Tensor>| {
            let mut group = criterion.benchmark_group(name);
            group.throughput(Throughput::Elements(elements as u64));
            group.bench_function(BenchmarkId::from_parameter(elements), |bencher| {
                bencher.iter(|| forward().and_then(|loss| loss.backward()).unwrap());
            });
        };
        measure("huber", &|| HuberLoss::default().forward(&scores, &real));
        measure("cross_entropy", &|| CrossEntropyLoss::default().forward(&scores, &classes));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots().warm_up_time(std::time::Duration::from_secs(1));
    targets = steps, preparation, sizes
}
criterion_main!(benches);
