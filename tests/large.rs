//! Large batches, which several threads share, against the same in pieces that one thread takes, in every precision and
//! layout.

mod common;

use candle_core::{DType, Result, Tensor, Var};
use candle_losses::loss::*;
use common::device;

const ROWS: usize = 301;
const COLUMNS: usize = 257;

/// Numbers spread over `low..high`.
fn spread(low: f64, high: f64, seed: usize) -> Tensor {
    let value = |i: usize| low + (high - low) * (((i + 1) * (7919 + 611 * seed)) % 10_007) as f64 / 10_007.0;
    let values = (0..ROWS * COLUMNS).map(value).collect::<Vec<_>>();
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

const OF_TWO: [Loss; 4] = [
    ("margin_ranking", |x, y, reduction| {
        MarginRankingLoss { margin: 0.7, reduction }.forward(x, y, &(x - y)?.detach().sign()?)
    }),
    ("cosine_embedding", |x, y, reduction| {
        let sides = y.narrow(1, 0, 1)?.squeeze(1)?.detach().sign()?;
        CosineEmbeddingLoss { margin: 0.0, reduction }.forward(x, y, &sides)
    }),
    ("triplet_margin", |x, y, reduction| {
        TripletMarginLoss { swap: true, reduction, ..Default::default() }.forward(x, y, &(y * 0.7)?)
    }),
    ("cross_entropy against shares", |x, y, reduction| {
        CrossEntropyLoss { label_smoothing: 0.1, reduction, ..Default::default() }.forward(x, &y.abs()?)
    }),
];

const OF_CLASSES: [Loss; 6] = [
    ("nll", |x, y, reduction| NllLoss { reduction, ..Default::default() }.forward(x, y)),
    ("cross_entropy, smoothed", |x, y, reduction| {
        let weight = Some(Tensor::arange(1f32, 1.0 + COLUMNS as f32, x.device())?);
        CrossEntropyLoss { weight, label_smoothing: 0.1, ignore_index: 3, reduction }.forward(x, y)
    }),
    ("multilabel_margin", |x, y, reduction| {
        let lists = (x.ones_like()?.to_dtype(DType::F32)?.broadcast_mul(&y.to_dtype(DType::F32)?.unsqueeze(1)?)?)
            .to_dtype(DType::I64)?;
        MultiLabelMarginLoss { reduction }.forward(x, &lists)
    }),
    ("cross_entropy", |x, y, reduction| CrossEntropyLoss { reduction, ..Default::default() }.forward(x, y)),
    ("multi_margin", |x, y, reduction| MultiMarginLoss { reduction, ..Default::default() }.forward(x, y)),
    ("multi_margin, squared", |x, y, reduction| {
        MultiMarginLoss { p: 2, reduction, ..Default::default() }.forward(x, y)
    }),
];

/// The losses, one for each row or element, and the gradients by both arguments, as they are without a reduction and with
/// the sum.
fn results(x: &Tensor, y: &Tensor, loss: &Loss) -> Result<Vec<Vec<f64>>> {
    let list = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (x, y_var) = (Var::from_tensor(x)?, Var::from_tensor(y)?);
    let y = if y.dtype().is_float() { y_var.as_tensor() } else { y };
    let losses = loss.1(&x, y, Reduction::None)?;
    let mut results = vec![list(&losses)?];
    for value in [(losses * 2.0)?.sum_all()?, loss.1(&x, y, Reduction::Sum)?] {
        let grads = value.backward()?;
        for var in [&x, &y_var] {
            results.push(grads.get(var).map(list).transpose()?.unwrap_or_default());
        }
    }
    Ok(results)
}

/// The same to the last bit, or, of tensor ops, which may sum in another order, to half precision.
fn agree(a: &[Vec<f64>], b: &[Vec<f64>]) -> bool {
    if std::env::var_os("CANDLE_LOSSES_KERNELS").is_none() && device().is_cpu() {
        return a == b;
    }
    a.iter().zip(b).all(|(a, b)| {
        let largest = a.iter().fold(0f64, |largest, a| largest.max(a.abs()));
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= largest / 256.0)
    })
}

/// Whether numbers in double precision are the same but for the order in which they were added.
fn is_close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-12 * b.abs().max(1.0))
}

#[test]
fn several_threads_compute_the_same() -> Result<()> {
    let classes = Tensor::from_iter((0..ROWS).map(|row| (row * 31 % COLUMNS) as u32), &device())?;
    let (real, share) = ((spread(-3.0, 3.0, 1), spread(-3.0, 3.0, 2)), (spread(0.01, 0.99, 1), spread(0.01, 0.99, 2)));
    let all = OF_REAL.iter().chain(&OF_TWO).map(|loss| (loss, &real.0, &real.1));
    let all = all.chain(OF_SHARES.iter().map(|loss| (loss, &share.0, &share.1)));
    let all = all.chain(OF_CLASSES.iter().map(|loss| (loss, &real.0, &classes)));
    for (loss, x, y) in all {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            let x = x.to_dtype(dtype)?;
            let y = if y.dtype().is_float() { y.to_dtype(dtype)? } else { y.clone() };
            let whole = results(&x, &y, loss)?;
            let turned = if x.dims() == y.dims() { y.t()?.contiguous()?.t()? } else { y.clone() };
            let turned = results(&x.t()?.contiguous()?.t()?, &turned, loss)?;
            assert!(agree(&whole, &turned), "{}, {dtype:?}: turned round", loss.0);
            let mut pieces = vec![Vec::new(); whole.len()];
            for start in (0..ROWS).step_by(7) {
                let piece = |t: &Tensor| t.narrow(0, start, 7.min(ROWS - start));
                for (all, piece) in pieces.iter_mut().zip(results(&piece(&x)?, &piece(&y)?, loss)?) {
                    all.extend(piece);
                }
            }
            assert!(agree(&whole, &pieces), "{}, {dtype:?}", loss.0);
        }
    }
    Ok(())
}

/// The first and the last of sixteen pixels are where they would be if it were not turned round.
#[test]
fn images_may_be_turned_round() -> Result<()> {
    let (n, c, side) = (3, 5, 4);
    let x = spread(-3.0, 3.0, 1).flatten_all()?.narrow(0, 0, n * c * side * side)?.reshape((n, c, side, side))?;
    let classes = Tensor::from_iter((0..n * side * side).map(|i| (i * 7 % c) as u32), &device())?;
    let classes = classes.reshape((n, side, side))?;
    let loss = CrossEntropyLoss { reduction: Reduction::None, ..Default::default() };
    let losses = |x: &Tensor| loss.forward(x, &classes)?.flatten_all()?.to_vec1::<f64>();
    assert!(is_close(&losses(&x.transpose(2, 3)?)?, &losses(&x.transpose(2, 3)?.contiguous()?)?));
    Ok(())
}

#[test]
fn classes_may_lie_in_any_dimension() -> Result<()> {
    let (n, c, h, w) = (3, 21, 37, 41);
    let x = spread(-3.0, 3.0, 1).flatten_all()?.narrow(0, 0, 3 * 21 * 37 * 29)?;
    let x = Tensor::cat(&[&x, &x], 0)?.narrow(0, 0, n * c * h * w)?.reshape((n, c, h, w))?;
    let classes = Tensor::from_iter((0..n * h * w).map(|i| (i * 31 % c) as u32), &device())?.reshape((n, h, w))?;
    let cross_entropy: Loss = ("cross_entropy", |x, y, reduction| {
        CrossEntropyLoss { label_smoothing: 0.1, ignore_index: 3, reduction, ..Default::default() }.forward(x, y)
    });
    for loss in [&OF_CLASSES[0], &cross_entropy] {
        let images = results(&x, &classes, loss)?;
        let rows = x.permute((0, 2, 3, 1))?.reshape((n * h * w, c))?;
        let rows = results(&rows, &classes.flatten_all()?, loss)?;
        assert!(is_close(&images[0], &rows[0]), "{}", loss.0);
        for (images, rows) in images[1..].iter().zip(&rows[1..]).filter(|(images, _)| !images.is_empty()) {
            let rows = Tensor::from_slice(rows, (n, h, w, c), &device())?.permute((0, 3, 1, 2))?;
            assert!(is_close(images, &rows.flatten_all()?.to_vec1::<f64>()?), "{}", loss.0);
        }
    }
    Ok(())
}

/// The memory of derivatives is used again: for nothing that anybody still has.
#[test]
fn gradients_stay_what_they_were() -> Result<()> {
    let y = spread(-3.0, 3.0, 9).to_dtype(DType::F32)?;
    for reduction in [Reduction::Mean, Reduction::None] {
        let loss_of = |seed: usize| -> Result<(Var, Tensor)> {
            let x = Var::from_tensor(&spread(-3.0, 3.0, seed).to_dtype(DType::F32)?)?;
            let loss = HuberLoss { reduction, ..Default::default() }.forward(&x, &y)?.sum_all()?;
            Ok((x, loss))
        };
        let gradient = |(x, loss): &(Var, Tensor)| loss.backward()?.remove(x).unwrap().flatten_all()?.to_vec1::<f32>();
        let expected = (0..6).map(|seed| gradient(&loss_of(seed)?)).collect::<Result<Vec<_>>>()?;
        // All at once, each twice, some of them while others are dropped.
        let mut losses = (0..6).map(loss_of).collect::<Result<Vec<_>>>()?;
        let kept = losses[0].1.backward()?.remove(&losses[0].0).unwrap();
        for _ in 0..2 {
            for (loss, expected) in losses.iter().zip(&expected) {
                assert!(gradient(loss)? == *expected);
            }
            losses.truncate(3);
        }
        drop(losses);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (seed, expected) in expected.iter().enumerate() {
                        assert!(gradient(&loss_of(seed).unwrap()).unwrap() == *expected);
                    }
                });
            }
        });
        assert!(kept.flatten_all()?.to_vec1::<f32>()? == expected[0]);
    }
    Ok(())
}
