//! What people report on loss functions elsewhere, each kind as a test here. A comment names where one like it was
//! reported; the numbers are computed from the formulas, or by PyTorch where it says so.

mod common;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_losses::loss::*;
use common::device;

const LN_2: f64 = std::f64::consts::LN_2;
const INF: f64 = f64::INFINITY;

/// Numbers of a shape, in `f64`.
fn t(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_device(&device()).unwrap()
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::new(values, &device()).unwrap()
}

/// As many as the shape holds, from -2 to 2 in no order.
fn some(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    t(&(0..count).map(|i| ((i * 7919 + 13) % 1009) as f64 / 252.0 - 2.0).collect::<Vec<_>>(), shape)
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn value(x: Result<Tensor>) -> f64 {
    values(&x.unwrap())[0]
}

/// The value and the gradient of a loss of `x`.
fn both(x: &Tensor, loss: impl Fn(&Tensor) -> Result<Tensor>) -> (Vec<f64>, Vec<f64>) {
    let x = Var::from_tensor(x).unwrap();
    let loss = loss(&x).unwrap();
    let grads = loss.sum_all().unwrap().backward().unwrap();
    (values(&loss), values(grads.get(&x).unwrap()))
}

#[track_caller]
fn near(found: &[f64], expected: &[f64], tolerance: f64) {
    let is_near = |(f, e): (&f64, &f64)| f == e || (f - e).abs() <= tolerance * e.abs().max(1.0);
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(is_near), "{found:?} is not {expected:?}");
}

fn mean_and_sum() -> [Reduction; 2] {
    [Reduction::Mean, Reduction::Sum]
}

// --- Sums of many. ---------------------------------------------------------------------------------------------------

/// Each of 2²² samples costs ln 2, by every way to say so. pytorch 55657, 8710, 19164, 38716.
#[test]
fn a_mean_of_many_does_not_drift() {
    let n = 1 << 22;
    let like = |value: f64, shape: &[usize]| Tensor::full(value as f32, shape, &device()).unwrap();
    let classes = Tensor::from_iter((0..n as u32).map(|i| i % 2), &Device::Cpu).unwrap().to_device(&device()).unwrap();
    let (zeros, half, log_half) = (like(0.0, &[n, 2]), like(0.5, &[n]), like(-LN_2, &[n, 2]));
    let weight = Some(Tensor::new(&[0.3f32, 0.7], &device()).unwrap());
    let segments =
        (zeros.reshape((4, n / 4, 2)).unwrap().transpose(1, 2).unwrap(), classes.reshape((4, n / 4)).unwrap());
    let even = like(0.5, &[n, 2]);
    let pairs = zeros.transpose(0, 1).unwrap().contiguous().unwrap();
    let strided = even.i_column();
    for (name, found) in [
        ("nll", NllLoss::default().forward(&log_half, &classes)),
        ("nll, weighted", NllLoss { weight: weight.clone(), ..Default::default() }.forward(&log_half, &classes)),
        ("cross-entropy", CrossEntropyLoss::default().forward(&zeros, &classes)),
        ("weighted", CrossEntropyLoss { weight, ..Default::default() }.forward(&zeros, &classes)),
        ("smoothed", CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() }.forward(&zeros, &classes)),
        ("strided logits", CrossEntropyLoss::default().forward(&pairs.t().unwrap(), &classes)),
        ("segments", CrossEntropyLoss::default().forward(&segments.0, &segments.1)),
        ("probabilities", CrossEntropyLoss::default().forward(&zeros, &even)),
        ("bce", BceLoss::default().forward(&half, &half)),
        (
            "bce, weighted",
            BceLoss { weight: Some(half.ones_like().unwrap()), ..Default::default() }.forward(&half, &half),
        ),
        ("bce, strided", BceLoss::default().forward(&strided, &strided)),
        ("soft margin", SoftMarginLoss::default().forward(&like(0.0, &[n]), &half.ones_like().unwrap())),
        ("multilabel", MultiLabelSoftMarginLoss::default().forward(&zeros, &even)),
        ("l1", L1Loss::default().forward(&like(LN_2, &[n, 2]).i_column(), &zeros.i_column())),
        ("ranking", MarginRankingLoss { margin: LN_2, ..Default::default() }.forward(&half, &half, &half)),
        ("cosine", {
            let x = like(1.0, &[n, 2]);
            CosineEmbeddingLoss { margin: 1.0 - LN_2, ..Default::default() }.forward(
                &x,
                &x,
                &half.ones_like().unwrap().neg().unwrap(),
            )
        }),
        ("triplet", TripletMarginLoss { margin: LN_2, ..Default::default() }.forward(&zeros, &zeros, &zeros)),
        (
            "huber",
            HuberLoss { delta: 1e9, ..Default::default() }
                .forward(&like((2.0 * LN_2).sqrt(), &[n, 2]).i_column(), &zeros.i_column()),
        ),
    ] {
        let found = value(found);
        assert!((found - LN_2).abs() < 2e-6 * LN_2, "{name}: {found}");
    }
    let full = PoissonNllLoss { full: true, ..Default::default() }.forward(&like(0.0, &[n]), &half).unwrap();
    near(&values(&full), &[1.0], 2e-6);
}

/// A column that does not lie in one piece.
trait Column {
    fn i_column(&self) -> Tensor;
}

impl Column for Tensor {
    fn i_column(&self) -> Tensor {
        self.narrow(1, 0, 1).unwrap().squeeze(1).unwrap()
    }
}

/// pytorch 12115, 91597, 29429, 61523; burn 4769.
#[test]
fn a_mean_in_half_precision_knows_how_many_they_are() {
    for dtype in [DType::F16, DType::BF16] {
        for n in [65_519, 65_520, 65_521, 100_000] {
            let ones = Tensor::ones(n, dtype, &device()).unwrap();
            let zeros = ones.zeros_like().unwrap();
            near(&[value(MseLoss::default().forward(&ones, &zeros))], &[1.0], 0.0);
            let (mean, gradient) = both(&ones, |x| L1Loss::default().forward(x, &zeros));
            assert!(
                mean == [1.0] && gradient[0] > 0.0 && (gradient[0] * n as f64 - 1.0).abs() < 0.02,
                "{}",
                gradient[0]
            );
        }
        let rows = Tensor::full(-0.5f32, (70_000, 2), &device()).unwrap().to_dtype(dtype).unwrap();
        let classes = Tensor::zeros(70_000, DType::U32, &device()).unwrap();
        near(&[value(NllLoss::default().forward(&rows, &classes))], &[0.5], 0.0);
        let large = Tensor::full(60_000f32, 100, &device()).unwrap().to_dtype(DType::F16).unwrap();
        near(&[value(L1Loss::default().forward(&large, &large.zeros_like().unwrap()))], &[60_000.0], 1e-3);
    }
}

/// Partial sums beyond what half precision holds. pytorch 2391.
#[test]
fn a_sum_of_signed_losses_may_be_small() {
    let x = t(&[32_000., 32_000., 32_000., 32_000., -32_000., -32_000., -32_000., -32_000.], &[8])
        .to_dtype(DType::F16)
        .unwrap();
    let loss = HingeEmbeddingLoss { reduction: Reduction::Sum, ..Default::default() };
    near(&[value(loss.forward(&x, &x.ones_like().unwrap()))], &[0.0], 0.0);
}

/// Losses of bf16 logits in one rounding. optax 1020; pytorch 24457.
#[test]
fn logits_in_bf16_are_rounded_once() {
    let logits = some(&[8, 100]).to_dtype(DType::BF16).unwrap();
    let classes = ints(&[0, 13, 99, 5, 50, 21, 8, 77]);
    for label_smoothing in [0.0, 0.1] {
        let loss = CrossEntropyLoss { label_smoothing, reduction: Reduction::None, ..Default::default() };
        let exact = values(&loss.forward(&logits.to_dtype(DType::F64).unwrap(), &classes).unwrap());
        for (found, exact) in values(&loss.forward(&logits, &classes).unwrap()).iter().zip(exact) {
            assert!((found - exact).abs() <= exact / 256.0, "{found} {exact}");
        }
    }
}

// --- Ignored rows. ---------------------------------------------------------------------------------------------------

/// With weight and smoothing, whatever stands in the ignored rows. pytorch 69339, 72056, 69511, 73205, 192685; burn 5568.
#[test]
fn padding_rows_change_nothing() {
    let x = some(&[5, 3]);
    let classes = [2, 0, 1, 1, 2];
    for dtype in [DType::F64, DType::F32] {
        for (ignore_index, label_smoothing, weight) in [
            (-100, 0.0, None),
            (-1, 0.2, None),
            (-100, 0.1, Some(t(&[0.2, 0.3, 1.5], &[3]))),
            (7, 0.0, Some(t(&[1.0, 16.0, 2.0], &[3]))),
        ] {
            for reduction in mean_and_sum() {
                let loss = CrossEntropyLoss { ignore_index, label_smoothing, weight: weight.clone(), reduction };
                let (plain, slopes) = both(&x.to_dtype(dtype).unwrap(), |x| loss.forward(x, &ints(&classes)));
                for junk in [0.0, 9.0, f64::NAN, INF] {
                    let pad = Tensor::full(junk, (2, 3), &device()).unwrap();
                    let padded = Tensor::cat(&[&pad, &x, &pad], 0).unwrap().to_dtype(dtype).unwrap();
                    let targets = [&[ignore_index; 2][..], &classes, &[ignore_index; 2]].concat();
                    let (value, gradient) = both(&padded, |x| loss.forward(x, &ints(&targets)));
                    near(&value, &plain, 1e-6);
                    near(&gradient[6..21], &slopes, 1e-6);
                    assert!(gradient[..6].iter().chain(&gradient[21..]).all(|&slope| slope == 0.0), "{gradient:?}");
                }
            }
        }
    }
}

/// pytorch 70348, 116349.
#[test]
fn where_all_is_ignored_there_is_no_mean() {
    let x = some(&[3, 2]);
    let with =
        |reduction| both(&x, |x| CrossEntropyLoss { reduction, ..Default::default() }.forward(x, &ints(&[-100; 3])));
    assert!(with(Reduction::Mean).0[0].is_nan());
    assert_eq!(with(Reduction::Sum), (vec![0.0], vec![0.0; 6]));
    assert_eq!(with(Reduction::None), (vec![0.0; 3], vec![0.0; 6]));
}

/// An ignored class still takes its part in the softmax of the others. pytorch 63004.
#[test]
fn an_ignored_class_keeps_its_probability() {
    let loss = CrossEntropyLoss { ignore_index: 0, ..Default::default() };
    near(&[value(loss.forward(&t(&[1.0; 6], &[2, 3]), &ints(&[1, 2])))], &[3f64.ln()], 1e-12);
    near(&[value(loss.forward(&t(&[-INF, 1.0, 1.0], &[1, 3]), &ints(&[1])))], &[LN_2], 1e-12);
}

/// Sentinels wide and narrow. pytorch 187559, 15508, 12670.
#[test]
fn what_is_ignored_is_the_very_number() {
    let x = some(&[3, 3]);
    let sum = |ignore_index| CrossEntropyLoss { ignore_index, reduction: Reduction::Sum, ..Default::default() };
    let all = value(sum(-100).forward(&x, &ints(&[0, 1, 0])));
    for wide in [1 << 32, 256, -(1 << 32)] {
        near(&[value(sum(wide).forward(&x, &ints(&[0, 1, 0])))], &[all], 0.0);
    }
    let bytes = Tensor::new(&[0u8, 255, 2], &device()).unwrap();
    let loss = CrossEntropyLoss { ignore_index: 255, reduction: Reduction::None, ..Default::default() };
    assert_eq!(values(&loss.forward(&x, &bytes).unwrap())[1], 0.0);
    refused_or_nan(CrossEntropyLoss { ignore_index: -1, ..Default::default() }.forward(&x, &ints(&[0, -4, 1])));
}

/// Out of range is an error where that costs no wait for the device, else NaN; never a number, and never a neighbour's
/// memory. pytorch 108148, 88648, 20522.
#[track_caller]
fn refused_or_nan(result: Result<Tensor>) {
    let is_off = std::env::var("CANDLE_LOSSES_KERNELS").is_ok_and(|value| value == "off");
    match result {
        Err(error) => assert!(error.to_string().contains("target holds"), "{error}"),
        Ok(loss) => assert!((is_off || !device().is_cpu()) && values(&loss)[0].is_nan(), "{loss}"),
    }
}

#[test]
fn a_class_that_is_none_is_never_taken_for_one() {
    let x = some(&[2, 3]);
    for class in [-1, 3, 5, i64::MAX, i64::MIN] {
        let target = ints(&[1, class]);
        refused_or_nan(CrossEntropyLoss::default().forward(&x, &target));
        refused_or_nan(CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() }.forward(&x, &target));
        refused_or_nan(
            CrossEntropyLoss { weight: Some(t(&[1., 2., 3.], &[3])), ..Default::default() }.forward(&x, &target),
        );
        refused_or_nan(NllLoss::default().forward(&x, &target));
        refused_or_nan(MultiMarginLoss::default().forward(&x, &target));
        if class != -1 && class != i64::MIN {
            refused_or_nan(
                MultiLabelMarginLoss::default().forward(&x, &ints(&[1, class, 0, 2, -1, -1]).reshape((2, 3)).unwrap()),
            );
        }
    }
}

// --- Weights. --------------------------------------------------------------------------------------------------------

/// pytorch 40560, 25571, 8062, 50528, 31295.
#[test]
fn a_weighted_mean_divides_by_the_weights() {
    let x = some(&[4, 3]);
    let classes = [2, 0, 2, 1];
    for weights in [[1.0, 2.0, 3.0], [25.0, 25.0, 100.0], [-1.0, 0.5, 2.5]] {
        let loss = |reduction| CrossEntropyLoss { weight: Some(t(&weights, &[3])), reduction, ..Default::default() };
        let each = values(&loss(Reduction::None).forward(&x, &ints(&classes)).unwrap());
        let total = classes.iter().map(|&class| weights[class as usize]).sum::<f64>();
        for dtype in [DType::F64, DType::F32] {
            let mean = value(loss(Reduction::Mean).forward(&x.to_dtype(dtype).unwrap(), &ints(&classes)));
            near(&[mean], &[each.iter().sum::<f64>() / total], 1e-6);
        }
    }
    let far = t(&[-100.0, 100.0, -100.0, 100.0], &[2, 2]).to_dtype(DType::F32).unwrap();
    let loss = CrossEntropyLoss { weight: Some(t(&[20.0, 10.0], &[2])), ..Default::default() };
    near(&[value(loss.forward(&far, &ints(&[0, 1])))], &[4000.0 / 30.0], 1e-6);
}

/// Probabilities divide by the batch instead. pytorch 107680.
#[test]
fn weights_of_probabilities_are_not_in_the_mean() {
    let logits = t(&[2.3, 2.1, 4.5, 4.2, 3.2, 5.1], &[2, 3]);
    let one_hot = t(&[0., 1., 0., 0., 0., 1.], &[2, 3]);
    let loss =
        |reduction| CrossEntropyLoss { weight: Some(t(&[25., 25., 100.], &[3])), reduction, ..Default::default() };
    let each = values(&loss(Reduction::None).forward(&logits, &ints(&[1, 2])).unwrap());
    let sum = each[0] + each[1];
    near(&[value(loss(Reduction::Mean).forward(&logits, &ints(&[1, 2])))], &[sum / 125.0], 1e-12);
    for dtype in [DType::F64, DType::F32] {
        let [logits, one_hot] = [&logits, &one_hot].map(|x| x.to_dtype(dtype).unwrap());
        near(&[value(loss(Reduction::Mean).forward(&logits, &one_hot))], &[sum / 2.0], 1e-6);
    }
}

/// A weight that is a view, or of another length. pytorch 104852, 27936.
#[test]
fn weights_are_read_as_they_lie() {
    let (x, target) = (some(&[2, 3]), ints(&[2, 0]));
    let view = t(&[1., 9., 2., 9., 3., 9.], &[3, 2]).i_column();
    let copy = t(&[1., 2., 3.], &[3]);
    let with = |weight: Tensor| MultiMarginLoss { weight: Some(weight), ..Default::default() }.forward(&x, &target);
    near(&[value(with(view))], &[value(with(copy))], 0.0);
    assert!(with(t(&[1., 2.], &[2])).is_err());
    let (logits, yes) = (some(&[2, 3, 4, 4]), some(&[2, 3, 4, 4]).ones_like().unwrap());
    let pos = |shape: &[usize]| {
        BceWithLogitsLoss { pos_weight: Some(some(shape).abs().unwrap()), ..Default::default() }.forward(&logits, &yes)
    };
    assert!(pos(&[3, 1, 1]).is_ok() && pos(&[4]).is_ok() && pos(&[3]).is_err());
}

// --- Numbers at their ends. ------------------------------------------------------------------------------------------

/// pytorch 11752.
#[test]
fn a_common_offset_makes_no_difference() {
    for c in [1e4, 1e8, 1e30, -1e30] {
        for dtype in [DType::F64, DType::F32] {
            let x = t(&[c, c], &[1, 2]).to_dtype(dtype).unwrap();
            let (value, gradient) = both(&x, |x| CrossEntropyLoss::default().forward(x, &ints(&[1])));
            near(&value, &[LN_2], 1e-6);
            near(&gradient, &[0.5, -0.5], 1e-6);
        }
    }
    let half = t(&[60_000.0, 60_000.0], &[1, 2]).to_dtype(DType::F16).unwrap();
    near(&[value(CrossEntropyLoss::default().forward(&half, &ints(&[0])))], &[LN_2], 1e-3);
}

/// optax 896, 1762; jax 16208; tensorflow 21271.
#[test]
fn an_impossible_class_that_nobody_expects_costs_nothing() {
    let (x, y) = (t(&[-INF, 0., 0.], &[1, 3]), t(&[0., 1., 0.], &[1, 3]));
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let [x, y] = [&x, &y].map(|x| x.to_dtype(dtype).unwrap());
        for weight in [None, Some(t(&[2., 1., 1.], &[3]))] {
            let (value, gradient) =
                both(&x, |x| CrossEntropyLoss { weight: weight.clone(), ..Default::default() }.forward(x, &y));
            near(&value, &[LN_2], 4e-3);
            near(&gradient, &[0.0, -0.5, 0.5], 1e-6);
        }
        let smoothed = CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() };
        assert_eq!(value(smoothed.forward(&x, &y)), INF);
    }
    let (x, y) = (t(&[-4885.46, 4878.03], &[1, 2]), t(&[0.2, 0.8], &[1, 2]));
    let (value, gradient) = both(&x, |x| CrossEntropyLoss::default().forward(x, &y));
    near(&value, &[0.2 * (4885.46 + 4878.03)], 1e-12);
    near(&gradient, &[-0.2, 0.2], 1e-12);
    let log_p = values(&log_softmax(&t(&[-INF, 1.0, 1.0], &[3]), 0).unwrap());
    near(&log_p, &[-INF, -LN_2, -LN_2], 1e-12);
}

/// optax 1786; pytorch 89558, 51910.
#[test]
fn what_is_impossible_on_both_sides_costs_nothing() {
    for dtype in [DType::F64, DType::F32] {
        let like = |values: &[f64]| t(values, &[1, 2]).to_dtype(dtype).unwrap();
        let sum = |log_target| KlDivLoss { log_target, reduction: Reduction::Sum };
        let (found, gradient) = both(&like(&[-INF, 0.0]), |x| sum(false).forward(x, &like(&[0.0, 1.0])));
        assert_eq!((found, gradient[1]), (vec![0.0], -1.0));
        assert_eq!(gradient[0], 0.0);
        let (found, gradient) = both(&like(&[-INF, 0.0]), |x| sum(true).forward(x, &like(&[-INF, 0.0])));
        assert_eq!((found, gradient), (vec![0.0], vec![0.0, -1.0]));
        let (_, by_target) = both(&like(&[0.0, 1.0]), |y| sum(false).forward(&like(&[-700.0, 0.0]), y));
        assert!(by_target.iter().all(|slope| slope.is_finite()), "{by_target:?}");
        near(&by_target[1..], &[1.0], 1e-6);
        let (_, by_target) = both(&like(&[-INF, 0.0]), |y| sum(true).forward(&like(&[-INF, -1.0]), y));
        near(&by_target, &[0.0, 2.0], 1e-6);
    }
    refused_or_negative(KlDivLoss::default().forward(&t(&[-1.0], &[1]), &t(&[-1.0], &[1])));
}

/// A negative probability is refused, or at least not 0. pytorch 69230; keras 19520.
#[track_caller]
fn refused_or_negative(result: Result<Tensor>) {
    assert!(result.is_err() || values(&result.unwrap())[0].is_nan());
}

/// candle 2561, 2562; pytorch 102894, 49844, 135359, 13773, 2221, 1792, 103316.
#[test]
fn logits_of_any_size_and_both_infinities() {
    for dtype in [DType::F64, DType::F32] {
        let like = |values: &[f64]| t(values, &[values.len()]).to_dtype(dtype).unwrap();
        for pos_weight in [None, Some(like(&[1.0]))] {
            let loss = BceWithLogitsLoss { pos_weight, reduction: Reduction::None, ..Default::default() };
            let x = [INF, -INF, INF, -INF, 50., 50., -200., -200., 3e38, -3e38, 0., 0., -120., INF];
            let y = [1., 0., 0., 1., 1., 0., 0., 1., 1., 0., 0., 1., 1., 0.5];
            let costs = [0., 0., INF, INF, 0., 50., 0., 200., 0., 0., LN_2, LN_2, 120., INF];
            near(&values(&loss.forward(&like(&x), &like(&y)).unwrap()), &costs, 1e-6);
            let tags = MultiLabelSoftMarginLoss::default();
            near(
                &[value(tags.forward(&like(&[INF, -INF, 1.0]), &like(&[1.0, 0.0, 0.0])))],
                &[(1.0 + 1f64.exp()).ln() / 3.0],
                1e-6,
            );
            let sum = BceWithLogitsLoss { reduction: Reduction::Sum, ..loss };
            let (found, slopes) =
                both(&like(&[INF, -INF, 0., 0., -50.]), |x| sum.forward(x, &like(&[1., 0., 0., 1., 1.])));
            near(&found, &[2.0 * LN_2 + 50.0], 1e-6);
            near(&slopes, &[0., 0., 0.5, -0.5, -1.], 1e-6);
        }
    }
}

/// keras 198; burn 2741; tensorflow 38457.
#[test]
fn probabilities_of_0_and_1() {
    for dtype in [DType::F64, DType::F32, DType::F16] {
        let like = |values: &[f64]| t(values, &[values.len()]).to_dtype(dtype).unwrap();
        let (x, y) = (like(&[0., 1., 0., 1., 6e-8]), like(&[0., 1., 1., 0., 0.]));
        let (value, gradient) =
            both(&x, |x| BceLoss { reduction: Reduction::None, ..Default::default() }.forward(x, &y));
        near(&value, &[0., 0., 100., 100., 0.], 1e-6);
        assert!(gradient.iter().all(|slope| slope.is_finite() || dtype == DType::F16), "{gradient:?}");
    }
}

/// A run that diverges must show. pytorch 187297.
#[test]
fn what_is_no_number_is_not_hidden() {
    let nan = t(&[f64::NAN, 0.5], &[2]);
    let y = t(&[0.25, 0.5], &[2]);
    for dtype in [DType::F64, DType::F32] {
        let [nan, y] = [&nan, &y].map(|x| x.to_dtype(dtype).unwrap());
        type Forward<'a> = &'a dyn Fn(&Tensor) -> Result<Tensor>;
        let losses: [Forward; 8] = [
            &|x| L1Loss::default().forward(x, &y),
            &|x| MseLoss::default().forward(x, &y),
            &|x| SmoothL1Loss::default().forward(x, &y),
            &|x| HuberLoss::default().forward(x, &y),
            &|x| BceWithLogitsLoss::default().forward(x, &y),
            &|x| SoftMarginLoss::default().forward(x, &y),
            &|x| PoissonNllLoss::default().forward(x, &y),
            &|x| KlDivLoss::default().forward(x, &y),
        ];
        for (i, loss) in losses.iter().enumerate() {
            let (value, gradient) = both(&nan, loss);
            assert!(value[0].is_nan(), "{i}: {value:?}");
            // KL's gradient is the target, whatever the input.
            assert!(gradient[0].is_nan() || i == 7, "{i}: {gradient:?}");
        }
        let bce = BceLoss::default().forward(&nan, &y);
        assert!(bce.is_err() || values(&bce.unwrap())[0].is_nan());
    }
}

/// pytorch 77529, 1516, 1835, 10729.
#[test]
fn margins_far_off() {
    let (x, y) = (t(&[20., -100., 300., -300.], &[4]), t(&[1.; 4], &[4]));
    let (value, gradient) = both(&x, |x| SoftMarginLoss { reduction: Reduction::None }.forward(x, &y));
    near(&value, &[(-20f64).exp().ln_1p(), 100., 0., 300.], 1e-12);
    near(&gradient, &[-1.0 / (1.0 + 20f64.exp()), -1., 0., -1.], 1e-12);
    let (_, gradient) =
        both(&t(&[-200.; 10], &[1, 10]), |x| MultiLabelSoftMarginLoss::default().forward(x, &x.ones_like()?));
    near(&gradient, &[-0.1; 10], 1e-12);
}

/// A beta that vanishes. pytorch 45532 and its kin.
#[test]
fn smooth_l1_with_hardly_a_parabola_is_l1() {
    for dtype in [DType::F64, DType::F32, DType::F16] {
        for beta in [1e-50, 1e-45, 1e-40, 1e-8, 0.0] {
            for reduction in [Reduction::Mean, Reduction::None] {
                let (x, y) =
                    (t(&[-2.0, 0.0, 3.0], &[3]).to_dtype(dtype).unwrap(), t(&[0.0; 3], &[3]).to_dtype(dtype).unwrap());
                let (found, slopes) = both(&x, |x| SmoothL1Loss { beta, reduction }.forward(x, &y));
                let (expected, expected_slopes) = both(&x, |x| L1Loss { reduction }.forward(x, &y));
                near(&found, &expected, 1e-6);
                near(&slopes, &expected_slopes, 1e-3);
            }
        }
    }
}

/// pytorch 166952, 17447; keras 23573.
#[test]
fn huber_in_half_precision_and_at_its_joint() {
    let far = t(&[400.0], &[1]).to_dtype(DType::F16).unwrap();
    let (value, gradient) = both(&far, |x| HuberLoss::default().forward(x, &x.zeros_like()?));
    assert_eq!((value, gradient), (vec![399.5], vec![1.0]));
    for delta in [0.1, 1.0, 3.0] {
        let near_joint =
            |d: f64| both(&t(&[d], &[1]), |x| HuberLoss { delta, ..Default::default() }.forward(x, &x.zeros_like()?));
        let (below, above) = (near_joint(delta * (1.0 - 1e-9)), near_joint(delta * (1.0 + 1e-9)));
        near(&below.0, &above.0, 1e-8);
        near(&below.1, &above.1, 1e-8);
    }
    for delta in [0.0, -1.0, f64::NAN] {
        assert!(HuberLoss { delta, ..Default::default() }.forward(&far, &far).is_err());
    }
}

/// pytorch 28575, 3336; burn 2765.
#[test]
fn stirlings_term_is_for_counts_above_1() {
    for dtype in [DType::F64, DType::F32] {
        let like = |values: &[f64]| t(values, &[values.len()]).to_dtype(dtype).unwrap();
        let full = PoissonNllLoss { full: true, reduction: Reduction::None, ..Default::default() };
        let at_2 = 1.0 + 2.0 * 2f64.ln() - 2.0 + (4.0 * std::f64::consts::PI).ln() / 2.0;
        let counts = like(&[0., 1., 2.]);
        near(&values(&full.forward(&like(&[0.; 3]), &counts).unwrap()), &[1., 1., at_2], 1e-6);
        let (_, by_target) = both(&counts, |y| full.forward(&like(&[0.5; 3]), y));
        assert!(by_target.iter().all(|slope| slope.is_finite()), "{by_target:?}");
        let rate = PoissonNllLoss { log_input: false, reduction: Reduction::None, ..Default::default() };
        near(&values(&rate.forward(&like(&[0., 0.]), &like(&[0., 1.])).unwrap()), &[0., 8.0 * 10f64.ln()], 1e-6);
    }
}

/// pytorch 53392, 147521, 176244, 190058, and a target that repeats.
#[test]
fn a_variance_and_a_target_that_repeat() {
    let (x, y) = (some(&[4, 3]), some(&[4, 3]).affine(0.5, 0.3).unwrap());
    let loss = GaussianNllLoss { reduction: Reduction::None, ..Default::default() };
    for shape in [&[4, 1][..], &[4], &[1, 3], &[]] {
        let var = some(shape).abs().unwrap().affine(1.0, 0.5).unwrap();
        let spread = if shape == [4] { var.unsqueeze(1).unwrap() } else { var.clone() };
        let spread = spread.broadcast_as((4, 3)).unwrap();
        near(&values(&loss.forward(&x, &y, &var).unwrap()), &values(&loss.forward(&x, &y, &spread).unwrap()), 1e-12);
    }
    let var = some(&[4, 3]).abs().unwrap();
    for shape in [[4, 1], [1, 3], [1, 1]] {
        let target = some(&shape);
        let spread = target.broadcast_as((4, 3)).unwrap();
        near(
            &values(&loss.forward(&x, &target, &var).unwrap()),
            &values(&loss.forward(&x, &spread, &var).unwrap()),
            1e-12,
        );
        let (_, gradient) = both(&target, |y| loss.forward(&x, y, &var));
        assert_eq!(gradient.len(), target.elem_count());
    }
    assert!(loss.forward(&x, &some(&[3]), &var).is_err() && loss.forward(&x, &some(&[2, 3]), &var).is_err());
    let floored = GaussianNllLoss { eps: 1.0, ..Default::default() };
    near(&[value(floored.forward(&x, &x, &t(&[0.25], &[]).broadcast_as((4, 3)).unwrap()))], &[0.0], 1e-12);
}

// --- Dtypes. ---------------------------------------------------------------------------------------------------------

const INTEGERS: [DType; 5] = [DType::U8, DType::U32, DType::I16, DType::I32, DType::I64];

fn as_integers(values: &[i64], shape: &[usize], dtype: DType) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap().to_device(&device()).unwrap()
}

/// pytorch 59765, 1842.
#[test]
fn classes_and_lengths_of_every_integer_dtype() {
    let (x, log_p) = (some(&[3, 4]), log_softmax(&some(&[5, 2, 4]), D::Minus1).unwrap());
    let forward = |dtype| {
        let classes = as_integers(&[2, 0, 3], &[3], dtype);
        let labels = as_integers(&[1, 2, 3, 3], &[2, 2], dtype);
        let lengths = [as_integers(&[5, 4], &[2], dtype), as_integers(&[2, 1], &[2], dtype)];
        [
            value(CrossEntropyLoss::default().forward(&x, &classes)),
            value(CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() }.forward(&x, &classes)),
            value(NllLoss::default().forward(&x, &classes)),
            value(MultiMarginLoss::default().forward(&x, &classes)),
            value(CtcLoss::default().forward(&log_p, &labels, &lengths[0], &lengths[1])),
        ]
    };
    let expected = forward(DType::I64);
    for dtype in INTEGERS {
        assert_eq!(forward(dtype), expected, "{dtype:?}");
    }
}

/// pytorch 76646 is the other side: floats must be of one kind.
#[test]
fn targets_of_0_and_1_or_plus_and_minus_1_may_be_integers() {
    let x = some(&[2, 3]);
    let p = x.affine(0.2, 0.5).unwrap();
    for dtype in INTEGERS {
        for float in [DType::F64, DType::F32, DType::F16] {
            let [x, p] = [&x, &p].map(|x| x.to_dtype(float).unwrap());
            let yes = as_integers(&[1, 0, 1, 1, 0, 0], &[2, 3], dtype);
            let side = as_integers(
                &[1, -1, 1, 1, -1, -1],
                &[2, 3],
                if dtype == DType::U8 || dtype == DType::U32 { DType::I64 } else { dtype },
            );
            let same = |name: &str, forward: &dyn Fn(&Tensor) -> Result<Tensor>, target: &Tensor| {
                let real =
                    target.to_device(&Device::Cpu).unwrap().to_dtype(float).unwrap().to_device(&device()).unwrap();
                assert_eq!(value(forward(target)), value(forward(&real)), "{name} {dtype:?}");
            };
            same("bce", &|y| BceLoss::default().forward(&p, y), &yes);
            same("bce with logits", &|y| BceWithLogitsLoss::default().forward(&x, y), &yes);
            same("multilabel", &|y| MultiLabelSoftMarginLoss::default().forward(&x, y), &yes);
            same("poisson", &|y| PoissonNllLoss::default().forward(&x, y), &yes);
            same("soft margin", &|y| SoftMarginLoss::default().forward(&x, y), &side);
            same("hinge", &|y| HingeEmbeddingLoss::default().forward(&x, y), &side);
            same("ranking", &|y| MarginRankingLoss::default().forward(&x, &p, y), &side);
            let of_pairs = side.narrow(0, 0, 1).unwrap().squeeze(0).unwrap().narrow(0, 0, 2).unwrap();
            same("cosine", &|y| CosineEmbeddingLoss::default().forward(&x, &p, y), &of_pairs);
        }
    }
    let single = x.to_dtype(DType::F32).unwrap();
    assert!(HuberLoss::default().forward(&x, &single).is_err(), "mixed floats are told at once, not at backward");
}

// --- Shapes and layouts. ---------------------------------------------------------------------------------------------

/// Every rank, channels last and strided. pytorch 67167, 175084; tensorflow 39329; keras 23451; mlx 2641.
#[test]
fn classes_may_lie_anywhere() {
    for places in [&[][..], &[2], &[2, 3], &[2, 3, 2]] {
        let shape = [&[4, 3], places].concat();
        let samples = [&[4], places].concat();
        let x = some(&shape);
        let count = samples.iter().product::<usize>();
        let classes =
            ints(&(0..count as i64).map(|i| i * 7 % 3).collect::<Vec<_>>()).reshape(samples.as_slice()).unwrap();
        // The same numbers with the classes last in memory, and every second of a target twice as long.
        let order = [&[0], &(2..shape.len()).collect::<Vec<_>>()[..], &[1]].concat();
        let back = [&[0, shape.len() - 1], &(1..shape.len() - 1).collect::<Vec<_>>()[..]].concat();
        let last = x.permute(order.clone()).unwrap().contiguous().unwrap().permute(back).unwrap();
        let twice = Tensor::stack(&[&classes, &classes], classes.rank()).unwrap();
        let strided = twice.narrow(classes.rank(), 0, 1).unwrap().squeeze(classes.rank()).unwrap();
        let rows = x.permute(order).unwrap().contiguous().unwrap().reshape((count, 3)).unwrap();
        for label_smoothing in [0.0, 0.1] {
            for weight in [None, Some(t(&[1., 2., 3.], &[3]))] {
                for reduction in [Reduction::Mean, Reduction::None] {
                    let loss =
                        CrossEntropyLoss { label_smoothing, weight: weight.clone(), reduction, ..Default::default() };
                    let (found, slopes) = both(&last, |x| loss.forward(x, &strided));
                    let (expected, expected_slopes) = both(&x, |x| loss.forward(x, &classes));
                    near(&found, &expected, 1e-12);
                    near(&slopes, &expected_slopes, 1e-12);
                    let flat = loss.forward(&rows, &classes.flatten_all().unwrap()).unwrap();
                    near(&found, &values(&flat), 1e-12);
                }
            }
        }
    }
}

/// Shapes that would broadcast. pytorch 16045, 19699, 4938, 5007, 53030, 112782, 30824; tensorflow 37770.
#[test]
fn nothing_broadcasts_by_accident() {
    for (a, b) in [(&[3, 1][..], &[3][..]), (&[2, 3], &[3, 2]), (&[2, 1], &[2, 1, 1]), (&[3], &[1])] {
        let (x, y) = (some(a), some(b));
        for result in [
            L1Loss::default().forward(&x, &y),
            MseLoss::default().forward(&x, &y),
            SmoothL1Loss::default().forward(&x, &y),
            HuberLoss::default().forward(&x, &y),
            BceWithLogitsLoss::default().forward(&x, &y),
            PoissonNllLoss::default().forward(&x, &y),
            KlDivLoss { log_target: true, ..Default::default() }.forward(&x, &y),
            SoftMarginLoss::default().forward(&x, &y),
            HingeEmbeddingLoss::default().forward(&x, &y),
            MarginRankingLoss::default().forward(&x, &x, &y),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(&format!("{a:?}")) && error.contains(&format!("{b:?}")), "{error}");
        }
    }
    let pairs = some(&[3, 2]);
    assert!(CosineEmbeddingLoss::default().forward(&pairs, &pairs, &some(&[3, 1])).is_err());
    assert!(CosineEmbeddingLoss::default().forward(&pairs, &some(&[2]), &some(&[3])).is_err());
    assert!(MultiMarginLoss::default().forward(&some(&[3]), &ints(&[0, 1])).is_err());
}

/// One score is one class. PyTorch takes a scalar there.
#[test]
fn multi_margin_of_one_score_costs_nothing() {
    let (x, class) = (t(&[0.5], &[]), ints(&[0]));
    for dtype in [DType::F64, DType::F32] {
        for reduction in [Reduction::Mean, Reduction::None] {
            let loss = MultiMarginLoss { reduction, ..Default::default() };
            let (found, slopes) = both(&x.to_dtype(dtype).unwrap(), |x| loss.forward(x, &class.get(0)?));
            assert_eq!((found, slopes), (vec![0.0], vec![0.0]));
            let of_one = loss.forward(&x.to_dtype(dtype).unwrap(), &class).unwrap();
            assert_eq!(of_one.dims().len(), usize::from(reduction == Reduction::None));
        }
    }
}

/// pytorch 50224, 15870, 196204, 51910.
#[test]
fn nothing_at_all() {
    for dtype in [DType::F64, DType::F32] {
        let none = |shape: &[usize]| Tensor::zeros(shape, dtype, &device()).unwrap();
        let classes = Tensor::zeros(0, DType::I64, &device()).unwrap();
        for (reduction, expected) in [(Reduction::Mean, f64::NAN), (Reduction::Sum, 0.0)] {
            for (i, loss) in [
                MseLoss { reduction }.forward(&none(&[0]), &none(&[0])),
                HuberLoss { reduction, ..Default::default() }.forward(&none(&[0, 3]), &none(&[0, 3])),
                BceLoss { reduction, ..Default::default() }.forward(&none(&[0]), &none(&[0])),
                BceWithLogitsLoss { reduction, pos_weight: Some(none(&[0])), ..Default::default() }
                    .forward(&none(&[0]), &none(&[0])),
                KlDivLoss { reduction, ..Default::default() }.forward(&none(&[0, 2]), &none(&[0, 2])),
                CrossEntropyLoss { reduction, ..Default::default() }.forward(&none(&[0, 3]), &classes),
                NllLoss { reduction, ..Default::default() }.forward(&none(&[0, 3]), &classes),
                MultiMarginLoss { reduction, ..Default::default() }.forward(&none(&[0, 3]), &classes),
                GaussianNllLoss { reduction, ..Default::default() }.forward(
                    &none(&[0, 3]),
                    &none(&[0, 3]),
                    &none(&[0, 3]),
                ),
                CosineEmbeddingLoss { reduction, ..Default::default() }.forward(
                    &none(&[0, 3]),
                    &none(&[0, 3]),
                    &none(&[0]),
                ),
                TripletMarginLoss { reduction, ..Default::default() }.forward(
                    &none(&[0, 3]),
                    &none(&[0, 3]),
                    &none(&[0, 3]),
                ),
            ]
            .into_iter()
            .enumerate()
            {
                let found = value(loss);
                assert!(found == expected || found.is_nan() && expected.is_nan(), "{i}, {reduction:?}: {found}");
            }
        }
        let each =
            CrossEntropyLoss { reduction: Reduction::None, ..Default::default() }.forward(&none(&[0, 3]), &classes);
        assert_eq!(each.unwrap().dims(), [0]);
    }
}

/// What `Reduction::None` gives, reduced by hand, is the reduced loss, in value and gradient.
#[test]
fn none_reduced_by_hand_is_the_mean() {
    for dtype in [DType::F64, DType::F32] {
        let (x, y) =
            (some(&[6, 5]).to_dtype(dtype).unwrap(), some(&[6, 5]).affine(0.1, 0.4).unwrap().to_dtype(dtype).unwrap());
        let classes = ints(&[0, 4, 2, 2, 1, 3]);
        type Forward<'a> = &'a dyn Fn(Reduction, &Tensor) -> Result<Tensor>;
        let losses: [Forward; 7] = [
            &|reduction, x| HuberLoss { reduction, ..Default::default() }.forward(x, &y),
            &|reduction, x| BceWithLogitsLoss { reduction, ..Default::default() }.forward(x, &y),
            &|reduction, x| CrossEntropyLoss { reduction, ..Default::default() }.forward(x, &classes),
            &|reduction, x| {
                CrossEntropyLoss { reduction, label_smoothing: 0.2, ..Default::default() }.forward(x, &classes)
            },
            &|reduction, x| CrossEntropyLoss { reduction, ..Default::default() }.forward(x, &y),
            &|reduction, x| NllLoss { reduction, ..Default::default() }.forward(x, &classes),
            &|reduction, x| MultiMarginLoss { reduction, ..Default::default() }.forward(x, &classes),
        ];
        for (i, loss) in losses.iter().enumerate() {
            let (by_hand, slopes) = both(&x, |x| loss(Reduction::None, x)?.mean_all());
            let (mean, expected) = both(&x, |x| loss(Reduction::Mean, x));
            near(&by_hand, &mean, 1e-6);
            near(&slopes, &expected, 1e-6);
            let scaled = both(&x, |x| loss(Reduction::None, x)? * 3.0);
            let summed = both(&x, |x| loss(Reduction::Sum, x)? * 3.0);
            near(&[scaled.0.iter().sum()], &summed.0, 1e-6);
            near(&scaled.1, &summed.1, 1e-6);
            assert!(expected.iter().any(|slope| *slope != 0.0), "{i}");
        }
    }
}

// --- Pairs, triplets, lists. -----------------------------------------------------------------------------------------

/// burn 5584; pytorch 14173, 78064, 69512, 51912, 169047; keras 6677; tensorflow 58031.
#[test]
fn vectors_of_no_length_and_of_any() {
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let like = |values: &[f64], shape: &[usize]| t(values, shape).to_dtype(dtype).unwrap();
        let loss = CosineEmbeddingLoss { reduction: Reduction::None, ..Default::default() };
        let (zeros, some_rows) = (like(&[0.; 6], &[2, 3]), like(&[1., 2., 3., 0., 0., 0.], &[2, 3]));
        let alike = like(&[1., 1.], &[2]);
        let (value, gradient) = both(&zeros, |x| loss.forward(x, &some_rows, &alike));
        near(&value, &[1., 1.], 1e-6);
        assert!(dtype == DType::F16 || gradient.iter().all(|slope| slope.is_finite()), "{dtype:?} {gradient:?}");
        let long = like(&(0..1024).map(|i| (i % 7) as f64 - 3.0).collect::<Vec<_>>(), &[2, 512]);
        near(&values(&loss.forward(&long, &long, &alike).unwrap()), &[0., 0.], 1e-6);
        near(&values(&loss.forward(&long, &long, &alike.neg().unwrap()).unwrap()), &[1., 1.], 1e-6);
    }
}

/// pytorch 83241; mlx 211; tensorflow 30199.
#[test]
fn a_triplet_whose_two_are_one() {
    let anchor = some(&[3, 4]);
    let positive = Tensor::cat(&[anchor.narrow(0, 0, 1).unwrap(), some(&[2, 4]).affine(0.7, 0.1).unwrap()], 0).unwrap();
    let negative = anchor.affine(1.0, 0.2).unwrap();
    let (value, gradient) = both(&anchor, |x| {
        TripletMarginLoss { reduction: Reduction::None, ..Default::default() }.forward(x, &positive, &negative)
    });
    assert!(value.iter().chain(&gradient).all(|x| x.is_finite()));
    let apart = TripletMarginLoss { margin: 1e-300, reduction: Reduction::None, ..Default::default() };
    let same = apart.forward(
        &positive.narrow(0, 0, 1).unwrap(),
        &positive.narrow(0, 0, 1).unwrap(),
        &anchor.narrow(0, 0, 1).unwrap(),
    );
    near(&values(&same.unwrap()), &[0.0], 1e-12);
    assert!(TripletMarginLoss { margin: -7.0, ..Default::default() }.forward(&anchor, &positive, &negative).is_err());
}

/// pytorch 189552, 77952.
#[test]
fn a_list_ends_at_the_first_minus_1() {
    let x = t(&[1., -1., 0.5, 0.3, -0.2], &[1, 5]);
    let list = |classes: &[i64]| MultiLabelMarginLoss::default().forward(&x, &ints(classes).reshape((1, 5))?);
    near(&[value(list(&[0, 1, -1, -1, -1]))], &[1.48], 1e-12);
    near(&[value(list(&[0, 1, -1, 2, 4]))], &[1.48], 1e-12);
    let large = some(&[16, 300]);
    let classes = (0..16 * 300).map(|i| if i % 300 < 120 { (i * 7 % 300) as i64 } else { -1 }).collect::<Vec<_>>();
    let classes = ints(&classes).reshape((16, 300)).unwrap();
    let (all, slopes) = both(&large, |x| MultiLabelMarginLoss { reduction: Reduction::Sum }.forward(x, &classes));
    let rows = (0..16).map(|i| {
        both(&large.narrow(0, i, 1).unwrap(), |x| {
            MultiLabelMarginLoss { reduction: Reduction::Sum }.forward(x, &classes.narrow(0, i, 1)?)
        })
    });
    let rows = rows.collect::<Vec<_>>();
    near(&all, &[rows.iter().map(|(value, _)| value[0]).sum()], 1e-9);
    near(&slopes, &rows.into_iter().flat_map(|(_, slopes)| slopes).collect::<Vec<_>>(), 1e-9);
}

/// pytorch 22965, 3773, 1378.
#[test]
fn a_hinge_is_not_clamped_for_what_is_alike() {
    let (x, y) = (t(&[-40., 2., 0.5], &[3]), t(&[1., -1., -1.], &[3]));
    let (value, gradient) =
        both(&x, |x| HingeEmbeddingLoss { reduction: Reduction::None, ..Default::default() }.forward(x, &y));
    assert_eq!((value, gradient), (vec![-40., 0., 0.5], vec![1., 0., -1.]));
}

// --- Sequences. ------------------------------------------------------------------------------------------------------

fn ctc(log_p: &Tensor, labels: &[i64], steps: &[i64], lengths: &[i64], zero_infinity: bool) -> Result<Tensor> {
    let loss = CtcLoss { zero_infinity, reduction: Reduction::None, ..Default::default() };
    let width = labels.len() / steps.len();
    loss.forward(log_p, &ints(labels).reshape((steps.len(), width))?, &ints(steps), &ints(lengths))
}

/// Empty and impossible targets beside a good one. pytorch 18215, 31557, 16199, 81459, 151080.
#[test]
fn a_batch_of_good_empty_and_impossible_targets() {
    let logits = some(&[3, 4, 3]);
    let labels = [1, 2, 1, 1, 0, 0, 1, 1];
    let (steps, lengths) = ([3, 2, 3, 0], [2, 2, 0, 1]);
    for zero_infinity in [false, true] {
        let (value, gradient) = both(&logits, |x| ctc(&log_softmax(x, 2)?, &labels, &steps, &lengths, zero_infinity));
        let impossible = if zero_infinity { 0.0 } else { INF };
        assert!(value[0].is_finite() && value[1] == impossible && value[3] == impossible, "{value:?}");
        let blanks = log_softmax(&logits, 2).unwrap().narrow(1, 2, 1).unwrap().narrow(2, 0, 1).unwrap();
        near(&value[2..3], &[-values(&blanks).iter().sum::<f64>()], 1e-12);
        let (alone, slopes) =
            both(&logits.narrow(1, 0, 1).unwrap(), |x| ctc(&log_softmax(x, 2)?, &[1, 2], &[3], &[2], false));
        near(&value[..1], &alone, 1e-12);
        for t in 0..3 {
            near(&gradient[12 * t..12 * t + 3], &slopes[3 * t..3 * t + 3], 1e-12);
            assert!(gradient[12 * t + 3..12 * t + 6].iter().all(|&slope| slope == 0.0));
        }
    }
}

/// optax 1771; keras 23684: a sure alignment costs nothing, and not less.
#[test]
fn a_sure_alignment_is_not_below_0() {
    let logits = t(&[0., 17., 0., 17.], &[2, 1, 2]);
    for dtype in [DType::F64, DType::F32] {
        let x = logits.to_dtype(dtype).unwrap();
        let (value, gradient) = both(&x, |x| ctc(&log_softmax(x, 2)?, &[1], &[2], &[1], false));
        assert!((0.0..1e-6).contains(&value[0]), "{dtype:?}: {value:?}");
        assert!(gradient.iter().all(|slope| slope.abs() < 1e-6), "{gradient:?}");
    }
}

/// pytorch 11750, 21244, 22234.
#[test]
fn ctc_scales_and_takes_labels_in_both_forms() {
    let logits = some(&[4, 2, 3]);
    let joined = |x: &Tensor| {
        let loss = CtcLoss { reduction: Reduction::Sum, ..Default::default() };
        loss.forward(&log_softmax(x, 2)?, &ints(&[1, 2, 1]), &ints(&[4, 3]), &ints(&[2, 1]))
    };
    let (once, slopes) = both(&logits, joined);
    let (twice, double) = both(&logits, |x| joined(x)? * 2.0);
    near(&twice, &[2.0 * once[0]], 1e-12);
    near(&double, &slopes.iter().map(|slope| 2.0 * slope).collect::<Vec<_>>(), 1e-12);
    let padded = both(&logits, |x| ctc(&log_softmax(x, 2)?, &[1, 2, 1, 99], &[4, 3], &[2, 1], false));
    near(&[padded.0.iter().sum()], &once, 1e-12);
    let far = t(&[0., -1e4, -INF, 0., -1e4, -INF], &[2, 1, 3]);
    let (value, gradient) = both(&far, |x| ctc(x, &[1], &[2], &[1], false));
    assert!(value[0].is_finite() && gradient.iter().all(|slope| !slope.is_nan()), "{value:?} {gradient:?}");
}

/// pytorch 20522.
#[test]
fn the_blank_is_no_label() {
    let log_p = log_softmax(&some(&[3, 1, 3]), 2).unwrap();
    for (labels, part) in [([1, 0], "blank"), ([1, 3], "label 3")] {
        let error = ctc(&log_p, &labels, &[3], &[2], false).unwrap_err().to_string();
        assert!(error.contains("targets") && error.contains(part), "{error}");
    }
    assert!(ctc(&log_p, &[1, 0], &[3], &[1], false).is_ok(), "what pads may be anything");
}
