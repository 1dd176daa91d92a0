//! Properties of the losses for random input.

use candle_core::{DType, Device, Result, Tensor};
use candle_losses::loss::*;
use proptest::prelude::*;

fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::new(values, &Device::Cpu).unwrap().reshape(shape).unwrap()
}

fn list(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn close(a: &Tensor, b: &Tensor) {
    assert_eq!(a.dims(), b.dims());
    for (a, b) in list(a).into_iter().zip(list(b)) {
        assert!((a - b).abs() <= 1e-10 * a.abs().max(1.0), "{a} {b}");
    }
}

/// Any rows of `C` numbers, with as many targets of each kind.
#[derive(Debug, Clone)]
struct Batch {
    scores: Tensor,
    real: Tensor,
    share: Tensor,
    side: Tensor,
    classes: Tensor,
    /// The rows in another order.
    order: Tensor,
}

impl Batch {
    fn rows(&self) -> usize {
        self.scores.dims()[0]
    }

    fn distribution(&self) -> Tensor {
        log_softmax(&self.real, 1).unwrap().exp().unwrap()
    }

    fn shuffled(&self) -> Self {
        let pick = |rows: &Tensor| rows.index_select(&self.order, 0).unwrap();
        Self {
            scores: pick(&self.scores),
            real: pick(&self.real),
            share: pick(&self.share),
            side: pick(&self.side),
            classes: pick(&self.classes),
            order: self.order.clone(),
        }
    }
}

fn batches() -> impl Strategy<Value = Batch> {
    (1usize..6, 1usize..5).prop_flat_map(|(rows, columns)| {
        let count = rows * columns;
        let numbers = move |range: std::ops::Range<f64>| prop::collection::vec(range, count);
        let order = Just((0..rows as u32).collect::<Vec<_>>()).prop_shuffle();
        let classes = prop::collection::vec(0..columns as u32, rows);
        let sides = prop::collection::vec(prop::bool::ANY, count);
        (numbers(-30.0..30.0), numbers(-5.0..5.0), numbers(0.0..1.0), sides, classes, order).prop_map(
            move |(scores, real, share, sides, classes, order)| {
                let shape = [rows, columns];
                let side = sides.iter().map(|side| if *side { 1.0 } else { -1.0 }).collect::<Vec<_>>();
                Batch {
                    scores: tensor(&scores, &shape),
                    real: tensor(&real, &shape),
                    share: tensor(&share, &shape),
                    side: tensor(&side, &shape),
                    classes: Tensor::new(classes, &Device::Cpu).unwrap(),
                    order: Tensor::new(order, &Device::Cpu).unwrap(),
                }
            },
        )
    })
}

type Loss = (&'static str, fn(&Batch, Reduction) -> Result<Tensor>);

/// Losses of one row on its own, none of which can be negative, with unweighted means.
const NON_NEGATIVE: [Loss; 15] = [
    ("l1", |b, reduction| L1Loss { reduction }.forward(&b.scores, &b.real)),
    ("mse", |b, reduction| MseLoss { reduction }.forward(&b.scores, &b.real)),
    ("smooth_l1", |b, reduction| SmoothL1Loss { beta: 0.5, reduction }.forward(&b.scores, &b.real)),
    ("huber", |b, reduction| HuberLoss { delta: 0.5, reduction }.forward(&b.scores, &b.real)),
    ("bce", |b, reduction| BceLoss { weight: None, reduction }.forward(&b.share, &b.share.sqr()?)),
    ("bce_with_logits", |b, reduction| {
        BceWithLogitsLoss { reduction, ..Default::default() }.forward(&b.scores, &b.share)
    }),
    ("nll", |b, reduction| {
        NllLoss { reduction, ..Default::default() }.forward(&log_softmax(&b.scores, 1)?, &b.classes)
    }),
    ("cross_entropy", |b, reduction| {
        CrossEntropyLoss { reduction, label_smoothing: 0.1, ..Default::default() }.forward(&b.scores, &b.classes)
    }),
    ("soft_margin", |b, reduction| SoftMarginLoss { reduction }.forward(&b.scores, &b.side)),
    ("multi_margin", |b, reduction| MultiMarginLoss { reduction, ..Default::default() }.forward(&b.scores, &b.classes)),
    ("multilabel_soft_margin", |b, reduction| {
        MultiLabelSoftMarginLoss { weight: None, reduction }.forward(&b.scores, &b.share)
    }),
    ("multilabel_margin", |b, reduction| {
        let lists = b.classes.to_dtype(DType::I64)?.unsqueeze(1)?;
        let ends = Tensor::full(-1i64, b.scores.shape(), &Device::Cpu)?.narrow(1, 1, b.scores.dim(1)? - 1)?;
        let lists = if ends.elem_count() > 0 { Tensor::cat(&[lists, ends], 1)? } else { lists };
        MultiLabelMarginLoss { reduction }.forward(&b.scores, &lists)
    }),
    ("margin_ranking", |b, reduction| {
        MarginRankingLoss { margin: 0.5, reduction }.forward(&b.scores, &b.real, &b.side)
    }),
    ("triplet_margin", |b, reduction| {
        TripletMarginLoss { reduction, ..Default::default() }.forward(&b.scores, &b.real, &b.share)
    }),
    ("triplet_margin_with_distance", |b, reduction| {
        TripletMarginWithDistanceLoss { reduction, ..Default::default() }.forward(&b.scores, &b.real, &b.share)
    }),
];

/// The others with unweighted means.
const SIGNED: [Loss; 5] = [
    ("poisson_nll", |b, reduction| PoissonNllLoss { reduction, ..Default::default() }.forward(&b.real, &b.share)),
    ("gaussian_nll", |b, reduction| {
        GaussianNllLoss { reduction, ..Default::default() }.forward(&b.scores, &b.real, &b.share)
    }),
    ("hinge_embedding", |b, reduction| HingeEmbeddingLoss { margin: 1.0, reduction }.forward(&b.scores, &b.side)),
    ("kl_div", |b, reduction| {
        KlDivLoss { log_target: false, reduction }.forward(&log_softmax(&b.scores, 1)?, &b.distribution())
    }),
    // Non-negative but for rounding: the cosine of equal vectors may come out a little above 1.
    ("cosine_embedding", |b, reduction| {
        CosineEmbeddingLoss { margin: 0.0, reduction }.forward(&b.scores, &b.real, &b.side.narrow(1, 0, 1)?.squeeze(1)?)
    }),
];

proptest! {
    #[test]
    fn no_loss_is_negative_that_can_not_be(batch in batches()) {
        for (name, loss) in NON_NEGATIVE {
            let losses = list(&loss(&batch, Reduction::None).unwrap());
            prop_assert!(losses.iter().all(|loss| *loss >= 0.0), "{}: {:?}", name, losses);
        }
    }

    #[test]
    fn reductions_agree(batch in batches()) {
        for (_, loss) in NON_NEGATIVE.iter().chain(&SIGNED) {
            let all = loss(&batch, Reduction::None).unwrap();
            let [mean, sum, batch_mean] = [Reduction::Mean, Reduction::Sum, Reduction::BatchMean].map(|r| loss(&batch, r).unwrap());
            close(&sum, &all.sum_all().unwrap());
            close(&(mean * all.elem_count() as f64).unwrap(), &sum);
            close(&(batch_mean * batch.rows() as f64).unwrap(), &sum);
        }
    }

    #[test]
    fn the_order_of_the_batch_does_not_matter(batch in batches()) {
        let shuffled = batch.shuffled();
        for (_, loss) in NON_NEGATIVE.iter().chain(&SIGNED) {
            close(&loss(&batch, Reduction::Mean).unwrap(), &loss(&shuffled, Reduction::Mean).unwrap());
            let rows = loss(&batch, Reduction::None).unwrap().index_select(&batch.order, 0).unwrap();
            close(&rows, &loss(&shuffled, Reduction::None).unwrap());
        }
    }

    #[test]
    fn a_divergence_is_not_negative(batch in batches()) {
        let loss = KlDivLoss { reduction: Reduction::None, ..Default::default() };
        let log_p = log_softmax(&batch.scores, 1).unwrap();
        let rows = loss.forward(&log_p, &batch.distribution()).unwrap().sum(1).unwrap();
        prop_assert!(list(&rows).iter().all(|row| *row >= -1e-12));
    }

    #[test]
    fn cross_entropy_is_nll_of_the_log_softmax(batch in batches(), ignore_index in -1i64..4) {
        let reduction = Reduction::None;
        let weight = Some(batch.share.get(0).unwrap());
        let nll = NllLoss { weight: weight.clone(), ignore_index, reduction };
        let cross_entropy = CrossEntropyLoss { weight, ignore_index, label_smoothing: 0.0, reduction };
        close(
            &nll.forward(&log_softmax(&batch.scores, 1).unwrap(), &batch.classes).unwrap(),
            &cross_entropy.forward(&batch.scores, &batch.classes).unwrap(),
        );
    }

    #[test]
    fn bce_with_logits_is_bce_of_the_sigmoid(batch in batches()) {
        // Where the sigmoid still has digits to tell 1 - σ by.
        let x = batch.real;
        let sigmoid = (1.0 + x.neg().unwrap().exp().unwrap()).unwrap().recip().unwrap();
        close(
            &BceLoss::default().forward(&sigmoid, &batch.share).unwrap(),
            &BceWithLogitsLoss::default().forward(&x, &batch.share).unwrap(),
        );
    }

    #[test]
    fn huber_and_smooth_l1_differ_by_their_threshold(batch in batches(), threshold in 0.1..3.0) {
        let huber = HuberLoss { delta: threshold, ..Default::default() }.forward(&batch.scores, &batch.real).unwrap();
        let smooth = SmoothL1Loss { beta: threshold, ..Default::default() }.forward(&batch.scores, &batch.real).unwrap();
        close(&huber, &(smooth * threshold).unwrap());
    }

    #[test]
    fn a_ranking_may_be_told_either_way(batch in batches(), margin in -1.0..1.0) {
        let loss = MarginRankingLoss { margin, ..Default::default() };
        close(
            &loss.forward(&batch.scores, &batch.real, &batch.side).unwrap(),
            &loss.forward(&batch.real, &batch.scores, &batch.side.neg().unwrap()).unwrap(),
        );
    }

    #[test]
    fn ctc_sums_over_all_alignments(
        logits in prop::collection::vec(-3.0..3.0, 12),
        labels in prop::collection::vec(0i64..3, 0..4),
        steps in 0usize..5,
        blank in 0usize..3,
    ) {
        // A label that is the blank has no alignment of its own.
        let labels = labels.into_iter().filter(|label| *label != blank as i64).collect::<Vec<_>>();
        let log_p = log_softmax(&tensor(&logits, &[4, 1, 3]), 2).unwrap();
        let p = list(&log_p.exp().unwrap());
        let mut likelihood = 0.0;
        for path in 0..3usize.pow(steps as u32) {
            let path = (0..steps).map(|t| path / 3usize.pow(t as u32) % 3).collect::<Vec<_>>();
            let mut read = path.clone();
            read.dedup();
            read.retain(|label| *label != blank);
            if read.iter().map(|label| *label as i64).eq(labels.iter().copied()) {
                likelihood += path.iter().enumerate().map(|(t, label)| p[t * 3 + label]).product::<f64>();
            }
        }
        let ints = |values: &[i64]| Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap();
        // One label too many behind the target, as a padded target has.
        let targets = ints(&[labels.as_slice(), &[9]].concat()).unsqueeze(0).unwrap();
        let loss = CtcLoss { blank, reduction: Reduction::Sum, ..Default::default() };
        let value = loss.forward(&log_p, &targets, &ints(&[steps as i64]), &ints(&[labels.len() as i64])).unwrap();
        let value = value.to_scalar::<f64>().unwrap();
        prop_assert!((value - -likelihood.ln()).abs() < 1e-9 || value == -likelihood.ln(), "{} {}", value, likelihood);
    }
}
