//! Large batches in `f32`, which several threads share, against `f64`, which tensor ops compute.

mod common;

use candle_core::{DType, Result, Tensor, Var};
use candle_losses::loss::*;
use common::device;

const ROWS: usize = 301;
const COLUMNS: usize = 257;

/// Numbers spread over `low..high`.
fn spread(low: f64, high: f64, seed: usize) -> Tensor {
    let value = |i: usize| low + (high - low) * (((i + 1) * (7919 + 611 * seed)) % 10_007) as f64 / 10_007.0;
    // What f32 holds exactly, so that both precisions start from the same.
    let values = (0..ROWS * COLUMNS).map(|i| f64::from(value(i) as f32)).collect::<Vec<_>>();
    Tensor::from_vec(values, (ROWS, COLUMNS), &device()).unwrap()
}

type Loss = (&'static str, fn(&Tensor, &Tensor, Reduction) -> Result<Tensor>);

const OF_REAL: [Loss; 7] = [
    ("l1", |x, y, reduction| L1Loss { reduction }.forward(x, y)),
    ("mse", |x, y, reduction| MseLoss { reduction }.forward(x, y)),
    ("smooth_l1", |x, y, reduction| SmoothL1Loss { beta: 0.7, reduction }.forward(x, y)),
    ("huber", |x, y, reduction| HuberLoss { delta: 0.7, reduction }.forward(x, y)),
    ("poisson_nll", |x, y, reduction| PoissonNllLoss { reduction, ..Default::default() }.forward(x, y)),
    ("soft_margin", |x, y, reduction| SoftMarginLoss { reduction }.forward(x, &y.sign()?)),
    ("hinge_embedding", |x, y, reduction| HingeEmbeddingLoss { margin: 0.7, reduction }.forward(x, &y.sign()?)),
];

const OF_SHARES: [Loss; 5] = [
    ("bce", |x, y, reduction| BceLoss { weight: None, reduction }.forward(x, y)),
    ("bce_with_logits", |x, y, reduction| BceWithLogitsLoss { reduction, ..Default::default() }.forward(x, y)),
    ("multilabel_soft_margin", |x, y, reduction| MultiLabelSoftMarginLoss { weight: None, reduction }.forward(x, y)),
    ("kl_div", |x, y, reduction| KlDivLoss { log_target: false, reduction }.forward(&x.log()?, y)),
    ("poisson_nll of rates", |x, y, reduction| {
        PoissonNllLoss { log_input: false, reduction, ..Default::default() }.forward(x, y)
    }),
];

const OF_CLASSES: [Loss; 3] = [
    ("cross_entropy", |x, y, reduction| CrossEntropyLoss { reduction, ..Default::default() }.forward(x, y)),
    ("multi_margin", |x, y, reduction| MultiMarginLoss { reduction, ..Default::default() }.forward(x, y)),
    ("multi_margin, squared", |x, y, reduction| {
        MultiMarginLoss { p: 2, reduction, ..Default::default() }.forward(x, y)
    }),
];

/// Value and gradient, in double precision.
fn results(x: &Tensor, y: &Tensor, loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<(f64, Vec<f64>)> {
    let x = Var::from_tensor(x)?;
    let value = loss(&x, y)?;
    let grads = value.backward()?;
    let grad = grads.get(&x).unwrap().to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
    Ok((value.to_dtype(DType::F64)?.to_scalar()?, grad))
}

#[test]
fn several_threads_compute_the_same() -> Result<()> {
    let classes = Tensor::from_iter((0..ROWS).map(|row| (row * 31 % COLUMNS) as u32), &device())?;
    let (real, share) = ((spread(-3.0, 3.0, 1), spread(-3.0, 3.0, 2)), (spread(0.01, 0.99, 1), spread(0.01, 0.99, 2)));
    let all = OF_REAL.map(|loss| (loss, &real.0, &real.1)).into_iter();
    let all = all.chain(OF_SHARES.map(|loss| (loss, &share.0, &share.1)));
    let all = all.chain(OF_CLASSES.map(|loss| (loss, &real.0, &classes)));
    for ((name, loss), x, y) in all {
        for reduction in [Reduction::Mean, Reduction::Sum, Reduction::BatchMean] {
            let (value, grad) = results(x, y, |x, y| loss(x, y, reduction))?;
            let y = if y.dtype().is_float() { &y.to_dtype(DType::F32)? } else { y };
            let (found, found_grad) = results(&x.to_dtype(DType::F32)?, y, |x, y| loss(x, y, reduction))?;
            assert!((found - value).abs() <= 2e-6 * value.abs(), "{name}, {reduction:?}: {found}, not {value}");
            let largest = grad.iter().fold(0f64, |largest, grad| largest.max(grad.abs()));
            for (found, grad) in found_grad.iter().zip(&grad) {
                assert!((found - grad).abs() <= 2e-6 * largest, "{name}, {reduction:?}: {found}, not {grad}");
            }
        }
    }
    Ok(())
}
