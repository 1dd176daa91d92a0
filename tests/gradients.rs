//! Every loss's gradient against central differences in `f64`, away from corners. It needs no reference but the value.

mod common;

use candle_core::{Result, Tensor, Var};
use candle_losses::loss::*;
use common::device;

/// Numbers spread over `low..high`, no two alike, none on a corner of a loss.
fn spread(shape: &[usize], low: f64, high: f64, seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values = (0..count).map(|i| low + (high - low) * (((i + 1) * (7919 + 611 * seed)) % 10_007) as f64 / 10_007.0);
    Tensor::from_vec(values.collect::<Vec<_>>(), shape, &device()).unwrap()
}

type Loss = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// Values to differentiate at, and the loss of them.
type Case = (&'static str, Vec<Tensor>, Loss);

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |name, at: Vec<Tensor>, loss: Loss| cases.push((name, at, loss));
    let real = |seed| spread(&[4, 3], -2.0, 2.0, seed);
    let share = |seed| spread(&[4, 3], 0.1, 0.9, seed);
    let side =
        || Tensor::new(&[[1f64, -1.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, -1.0]], &device()).unwrap();
    let classes = || Tensor::new(&[2u32, 0, 1, 1], &device()).unwrap();
    let weight = || Tensor::new(&[0.5f64, 2.0, 1.25], &device()).unwrap();
    let sum = Reduction::Sum;

    add("l1", vec![real(1), real(2)], Box::new(|v| L1Loss::default().forward(&v[0], &v[1])));
    add("mse", vec![real(1), real(2)], Box::new(|v| MseLoss::default().forward(&v[0], &v[1])));
    add(
        "smooth_l1",
        vec![real(1), real(2)],
        Box::new(move |v| SmoothL1Loss { beta: 0.7, reduction: sum }.forward(&v[0], &v[1])),
    );
    add(
        "huber",
        vec![real(1), real(2)],
        Box::new(|v| HuberLoss { delta: 0.7, ..Default::default() }.forward(&v[0], &v[1])),
    );
    add(
        "bce",
        vec![share(1), share(2)],
        Box::new(move |v| BceLoss { weight: Some(weight()), ..Default::default() }.forward(&v[0], &v[1])),
    );
    add(
        "bce_with_logits",
        vec![real(1), share(2)],
        Box::new(move |v| {
            let (weight, pos_weight) = (Some(weight()), Some(weight()));
            BceWithLogitsLoss { weight, pos_weight, reduction: sum }.forward(&v[0], &v[1])
        }),
    );
    add(
        "nll",
        vec![real(1)],
        Box::new(move |v| {
            NllLoss { weight: Some(weight()), ignore_index: 0, ..Default::default() }.forward(&v[0], &classes())
        }),
    );
    add(
        "cross_entropy",
        vec![real(1)],
        Box::new(move |v| {
            let loss = CrossEntropyLoss { weight: Some(weight()), label_smoothing: 0.2, ..Default::default() };
            loss.forward(&v[0], &classes())
        }),
    );
    for reduction in [Reduction::Mean, Reduction::None] {
        add(
            "linear_cross_entropy",
            vec![real(1), spread(&[3, 3], -1.0, 1.0, 2), spread(&[3], -1.0, 1.0, 3)],
            Box::new(move |v| {
                let (weight, chunk) = (Some(weight()), Some(3));
                let loss =
                    LinearCrossEntropyLoss { weight, chunk, label_smoothing: 0.2, reduction, ..Default::default() };
                loss.forward(&v[0], &v[1], Some(&v[2]), &classes())?.sqr()?.sum_all()
            }),
        );
    }
    let head = spread(&[3, 3], -1.0, 1.0, 2);
    let (projection, rare) = (spread(&[1, 3], -1.0, 1.0, 3), spread(&[4, 1], -1.0, 1.0, 4));
    add(
        "adaptive_log_softmax",
        vec![real(1), head, projection, rare],
        Box::new(|v| {
            let tails = vec![(v[2].clone(), v[3].clone())];
            let loss = AdaptiveLogSoftmaxWithLoss { cutoffs: vec![2], head: v[1].clone(), head_bias: None, tails };
            let (output, mean) = loss.forward(&v[0], &Tensor::new(&[5i64, 0, 2, 1], &device())?)?;
            output.sqr()?.sum_all()? + mean
        }),
    );
    add(
        "cross_entropy on probabilities",
        vec![real(1), share(2)],
        Box::new(move |v| {
            let loss = CrossEntropyLoss { weight: Some(weight()), label_smoothing: 0.2, ..Default::default() };
            loss.forward(&v[0], &v[1])
        }),
    );
    let counts = || spread(&[4, 3], 1.2, 5.0, 2);
    add(
        "poisson_nll",
        vec![real(1), counts()],
        Box::new(|v| PoissonNllLoss { full: true, ..Default::default() }.forward(&v[0], &v[1])),
    );
    add(
        "poisson_nll of rates",
        vec![share(1), counts()],
        Box::new(|v| PoissonNllLoss { log_input: false, eps: 0.01, ..Default::default() }.forward(&v[0], &v[1])),
    );
    add(
        "gaussian_nll",
        vec![real(1), real(2), spread(&[4, 1], 0.5, 2.0, 3)],
        Box::new(|v| GaussianNllLoss { full: true, ..Default::default() }.forward(&v[0], &v[1], &v[2])),
    );
    add(
        "hinge_embedding",
        vec![real(1)],
        Box::new(move |v| HingeEmbeddingLoss { margin: 0.7, reduction: sum }.forward(&v[0], &side())),
    );
    add("soft_margin", vec![real(1)], Box::new(move |v| SoftMarginLoss::default().forward(&v[0], &side())));
    for p in [1, 2] {
        add(
            "multi_margin",
            vec![real(1)],
            Box::new(move |v| {
                MultiMarginLoss { p, margin: 0.7, weight: Some(weight()), reduction: sum }.forward(&v[0], &classes())
            }),
        );
    }
    add(
        "multilabel_margin",
        vec![real(1)],
        Box::new(|v| {
            let lists = Tensor::new(&[[2i64, 0, -1], [-1, 0, 1], [1, -1, 2], [0, 1, 2]], &device())?;
            MultiLabelMarginLoss::default().forward(&v[0], &lists)
        }),
    );
    add(
        "multilabel_soft_margin",
        vec![real(1), share(2)],
        Box::new(move |v| {
            MultiLabelSoftMarginLoss { weight: Some(weight()), ..Default::default() }.forward(&v[0], &v[1])
        }),
    );
    for log_target in [false, true] {
        add(
            "kl_div",
            vec![real(1), share(2)],
            Box::new(move |v| KlDivLoss { log_target, reduction: Reduction::BatchMean }.forward(&v[0], &v[1])),
        );
    }
    add(
        "margin_ranking",
        vec![real(1), real(2)],
        Box::new(move |v| MarginRankingLoss { margin: 0.7, ..Default::default() }.forward(&v[0], &v[1], &side())),
    );
    add(
        "cosine_embedding",
        vec![real(1), real(2)],
        Box::new(|v| {
            let target = Tensor::new(&[1i64, -1, -1, 1], &device())?;
            CosineEmbeddingLoss { margin: -0.9, ..Default::default() }.forward(&v[0], &v[1], &target)
        }),
    );
    for (p, swap) in [(2.0, false), (1.0, true), (3.0, false), (0.5, true), (f64::INFINITY, false)] {
        add(
            "triplet_margin",
            vec![real(1), real(2), real(3)],
            Box::new(move |v| {
                TripletMarginLoss { margin: 4.0, p, swap, ..Default::default() }.forward(&v[0], &v[1], &v[2])
            }),
        );
    }
    add(
        "triplet_margin_with_distance",
        vec![real(1), real(2), real(3)],
        Box::new(|v| {
            TripletMarginWithDistanceLoss { margin: 4.0, swap: true, ..Default::default() }.forward(&v[0], &v[1], &v[2])
        }),
    );
    add(
        "ctc",
        vec![spread(&[7, 2, 4], -1.0, 1.0, 1)],
        Box::new(|v| {
            let ints = |values: &[i64]| Tensor::new(values, &device());
            // The gradient is that of the logits: see the loss's documentation.
            let log_p = log_softmax(&v[0], 2)?;
            CtcLoss::default().forward(&log_p, &ints(&[1, 1, 2, 3, 1])?, &ints(&[7, 6])?, &ints(&[3, 2])?)
        }),
    );
    cases
}

#[test]
fn gradients_are_the_slopes_of_the_values() -> Result<()> {
    const STEP: f64 = 1e-5;
    for (name, at, loss) in cases() {
        let variables = at.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let tensors = variables.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>();
        let grads = loss(&tensors)?.backward()?;
        let mut moved = 0;
        for (i, variable) in variables.iter().enumerate() {
            let grad = grads.get(variable).expect(name).flatten_all()?.to_vec1::<f64>()?;
            let values = at[i].flatten_all()?.to_vec1::<f64>()?;
            for (j, grad) in grad.iter().enumerate() {
                let beside = |step: f64| -> Result<f64> {
                    let mut values = values.clone();
                    values[j] += step;
                    let mut at = at.clone();
                    at[i] = Tensor::from_vec(values, at[i].shape(), &device())?;
                    loss(&at)?.to_scalar()
                };
                let slope = (beside(STEP)? - beside(-STEP)?) / (2.0 * STEP);
                assert!((grad - slope).abs() < 1e-7 * slope.abs().max(1.0), "{name}, {i}[{j}]: {grad}, slope {slope}");
                moved += usize::from(slope != 0.0);
            }
        }
        assert!(moved > 1, "{name} is flat here: nothing was tested");
    }
    Ok(())
}

#[test]
fn every_loss_is_differentiated() {
    let source = include_str!("../src/loss/mod.rs");
    let modules = source.lines().filter_map(|line| line.strip_prefix("pub use ")?.split("::").next());
    let cases = cases();
    for module in modules.filter(|module| !["crate", "reduction"].contains(module)) {
        assert!(cases.iter().any(|(name, ..)| name.starts_with(module)), "{module} has no case");
    }
}
