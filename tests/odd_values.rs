//! A hundred thousand calls of all losses with whatever comes: NaN, infinities, subnormal and huge numbers, no elements at
//! all, views that are transposed, broadcast or cut out, ranks, dtypes, devices' limits and options that make no sense.
//! Each is a value or an error that says which loss it is of; none panics. Where the same call in double precision gives a
//! finite value of a size that single precision can hold, single precision gives about the same.

mod common;

use candle_core::{DType, Result, Tensor, Var};
use candle_losses::loss::*;
use common::device;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::panic::{AssertUnwindSafe, catch_unwind};

const CALLS: u64 = 100_000;
const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];
const OTHERS: [DType; 3] = [DType::U8, DType::U32, DType::I64];
const ODD: [f64; 12] =
    [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -100.0, 100.0, 1e-7];
/// Single precision has no room to compute with these: a square overflows or vanishes.
const EXTREME: [f64; 6] = [1e-40, -1e-40, 1e-30, 1e38, -1e38, 1e30];

/// How odd the numbers of a call may be.
#[derive(Clone, Copy, PartialEq)]
enum Oddness {
    None,
    Odd,
    Extreme,
}

/// The first that a call draws.
fn oddness(rng: &mut StdRng) -> Oddness {
    *[Oddness::None, Oddness::Odd, Oddness::Extreme].choose(rng).unwrap()
}

fn number(rng: &mut StdRng, oddness: Oddness) -> f64 {
    match oddness {
        Oddness::Extreme if rng.random_bool(0.15) => *EXTREME.choose(rng).unwrap(),
        Oddness::Odd | Oddness::Extreme if rng.random_bool(0.15) => *ODD.choose(rng).unwrap(),
        _ => rng.random_range(-3.0..3.0),
    }
}

fn dims(rng: &mut StdRng) -> Vec<usize> {
    let rank = rng.random_range(0..=4);
    (0..rank).map(|_| *[0, 1, 1, 2, 3, 4, 5, 17].choose(rng).unwrap()).collect()
}

/// A tensor of these values in this shape, now and then a view of a larger one.
fn tensor(rng: &mut StdRng, dims: &[usize], dtype: DType, mut value: impl FnMut(&mut StdRng) -> f64) -> Result<Tensor> {
    let mut make = |rng: &mut StdRng, dims: &[usize]| {
        let values = (0..dims.iter().product()).map(|_| value(rng)).collect::<Vec<_>>();
        Tensor::from_vec(values, dims, &device())?.to_dtype(dtype)
    };
    match rng.random_range(0..6) {
        0 if dims.len() >= 2 => {
            let mut turned = dims.to_vec();
            turned.swap(0, 1);
            make(rng, &turned)?.transpose(0, 1)
        }
        1 if !dims.is_empty() => {
            let mut one = dims.to_vec();
            one[0] = 1;
            make(rng, &one)?.broadcast_as(dims)
        }
        2 if !dims.is_empty() => {
            let mut more = dims.to_vec();
            more[0] += 2;
            make(rng, &more)?.narrow(0, 1, dims[0])
        }
        _ => make(rng, dims),
    }
}

/// The arguments of a call, before they have a dtype for floats.
struct Call {
    loss: usize,
    seed: u64,
}

const NAMES: [&str; 21] = [
    "L1Loss",
    "MseLoss",
    "SmoothL1Loss",
    "HuberLoss",
    "BceLoss",
    "BceWithLogitsLoss",
    "NllLoss",
    "CrossEntropyLoss",
    "PoissonNllLoss",
    "GaussianNllLoss",
    "HingeEmbeddingLoss",
    "SoftMarginLoss",
    "MultiMarginLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss",
    "KlDivLoss",
    "MarginRankingLoss",
    "CosineEmbeddingLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
    "CtcLoss",
];

impl Call {
    /// The result, with the floats in `float` if that is given, else in what the call draws; and whether it backpropagates.
    fn run(&self, float: Option<DType>) -> Result<(Tensor, Option<Tensor>)> {
        let rng = &mut StdRng::seed_from_u64(self.seed);
        let odd = oddness(rng);
        let drawn = *FLOATS.choose(rng).unwrap();
        let reduction = *[Reduction::None, Reduction::Mean, Reduction::Sum, Reduction::BatchMean].choose(rng).unwrap();
        let option = |rng: &mut StdRng| {
            if odd == Oddness::Extreme && rng.random_bool(0.2) { number(rng, odd) } else { rng.random_range(0.1..2.0) }
        };
        let shape = dims(rng);
        // Mostly what fits.
        let other = |rng: &mut StdRng, shape: &[usize]| if rng.random_bool(0.1) { dims(rng) } else { shape.to_vec() };
        let dtype = |rng: &mut StdRng| {
            let strange = rng.random_bool(0.05);
            let strange_dtype = *[FLOATS.as_slice(), &OTHERS].concat().choose(rng).unwrap();
            if strange { strange_dtype } else { float.unwrap_or(drawn) }
        };
        let kind = dtype(rng);
        let within = matches!(self.loss, 4 | 15);
        let input = tensor(rng, &shape, kind, |rng| {
            let x = number(rng, odd);
            if within && x.abs() <= 3.0 { (x + 3.0) / 6.0 } else { x }
        })?;
        let input = Var::from_tensor(&input)?;
        // Tracked, and a view all the same.
        let x =
            if shape.len() >= 2 && rng.random_bool(0.2) { input.transpose(0, 1)? } else { input.as_tensor().clone() };
        let shape = x.dims().to_vec();
        let float_like = |rng: &mut StdRng, low: f64, high: f64| {
            let (shape, kind) = (other(rng, &shape), dtype(rng));
            tensor(rng, &shape, kind, |rng| {
                if rng.random_bool(0.05) { number(rng, odd) } else { rng.random_range(low..=high) }
            })
        };
        let classes = |rng: &mut StdRng, shape: &[usize], count: usize| {
            let (shape, kind) = (other(rng, shape), *OTHERS.choose(rng).unwrap());
            let low = if kind == DType::I64 && rng.random_bool(0.2) { -1.0 } else { 0.0 };
            let count = count as f64 + f64::from(u8::from(rng.random_bool(0.05)));
            tensor(rng, &shape, kind, |rng| rng.random_range(low..=f64::max(low, count - 1.0)).round())
        };
        let class_dim = shape.len().min(2).saturating_sub(1);
        let count = shape.get(class_dim).copied().unwrap_or(1);
        let mut samples = shape.clone();
        if !samples.is_empty() {
            samples.remove(class_dim);
        }
        let weight = |rng: &mut StdRng, shape: &[usize]| {
            let is_there = rng.random_bool(0.3);
            let shape = other(rng, shape);
            let weight = tensor(rng, &shape, float.unwrap_or(drawn), |rng| rng.random_range(0.1..2.0))?;
            Ok::<_, candle_core::Error>(is_there.then_some(weight))
        };
        let sign = |rng: &mut StdRng, shape: &[usize]| {
            let (shape, kind) = (other(rng, shape), dtype(rng));
            tensor(rng, &shape, kind, |rng| if rng.random() { 1.0 } else { -1.0 })
        };
        let loss = match self.loss {
            0 => L1Loss { reduction }.forward(&x, &float_like(rng, -3.0, 3.0)?),
            1 => MseLoss { reduction }.forward(&x, &float_like(rng, -3.0, 3.0)?),
            2 => SmoothL1Loss { beta: option(rng), reduction }.forward(&x, &float_like(rng, -3.0, 3.0)?),
            3 => HuberLoss { delta: option(rng), reduction }.forward(&x, &float_like(rng, -3.0, 3.0)?),
            4 => BceLoss { weight: weight(rng, &shape)?, reduction }.forward(&x, &float_like(rng, 0.0, 1.0)?),
            5 => BceWithLogitsLoss { weight: weight(rng, &shape)?, pos_weight: weight(rng, &shape)?, reduction }
                .forward(&x, &float_like(rng, 0.0, 1.0)?),
            6 => NllLoss { weight: weight(rng, &[count])?, ignore_index: rng.random_range(-1..3), reduction }
                .forward(&x, &classes(rng, &samples, count)?),
            7 => {
                let label_smoothing = if rng.random() { 0.0 } else { option(rng) };
                let weight = weight(rng, &[count])?;
                let loss =
                    CrossEntropyLoss { weight, ignore_index: rng.random_range(-1..3), label_smoothing, reduction };
                let target = if rng.random() { classes(rng, &samples, count)? } else { float_like(rng, 0.0, 1.0)? };
                loss.forward(&x, &target)
            }
            8 => PoissonNllLoss { log_input: rng.random(), full: rng.random(), eps: option(rng), reduction }
                .forward(&x, &float_like(rng, 0.0, 5.0)?),
            9 => GaussianNllLoss { full: rng.random(), eps: option(rng), reduction }.forward(
                &x,
                &float_like(rng, -3.0, 3.0)?,
                &float_like(rng, 0.1, 3.0)?,
            ),
            10 => HingeEmbeddingLoss { margin: option(rng), reduction }.forward(&x, &sign(rng, &shape)?),
            11 => SoftMarginLoss { reduction }.forward(&x, &sign(rng, &shape)?),
            12 => {
                let (p, margin) = (rng.random_range(0..4), option(rng));
                let loss = MultiMarginLoss { p, margin, weight: weight(rng, &[count])?, reduction };
                loss.forward(&x, &classes(rng, &samples, count)?)
            }
            13 => MultiLabelMarginLoss { reduction }.forward(&x, &classes(rng, &shape, count)?),
            14 => MultiLabelSoftMarginLoss { weight: weight(rng, &shape)?, reduction }
                .forward(&x, &float_like(rng, 0.0, 1.0)?),
            15 => KlDivLoss { log_target: rng.random(), reduction }.forward(&x, &float_like(rng, 0.0, 1.0)?),
            16 => MarginRankingLoss { margin: option(rng), reduction }.forward(
                &x,
                &float_like(rng, -3.0, 3.0)?,
                &sign(rng, &shape)?,
            ),
            17 => {
                let pairs = shape.split_last().map_or(Vec::new(), |(_, pairs)| pairs.to_vec());
                CosineEmbeddingLoss { margin: option(rng), reduction }.forward(
                    &x,
                    &float_like(rng, -3.0, 3.0)?,
                    &sign(rng, &pairs)?,
                )
            }
            18 => TripletMarginLoss { margin: option(rng), p: option(rng), eps: 1e-6, swap: rng.random(), reduction }
                .forward(&x, &float_like(rng, -3.0, 3.0)?, &float_like(rng, -3.0, 3.0)?),
            19 => TripletMarginWithDistanceLoss {
                margin: option(rng),
                swap: rng.random(),
                reduction,
                ..Default::default()
            }
            .forward(&x, &float_like(rng, -3.0, 3.0)?, &float_like(rng, -3.0, 3.0)?),
            _ => {
                let classes_dim = shape.last().copied().unwrap_or(1);
                let batch = if shape.len() == 3 { vec![shape[1]] } else { Vec::new() };
                let steps = shape.first().copied().unwrap_or(1);
                let longest = rng.random_range(0..4);
                let targets = classes(rng, &[batch.as_slice(), &[longest]].concat(), classes_dim)?;
                let (input_lengths, target_lengths) =
                    (classes(rng, &batch, steps + 1)?, classes(rng, &batch, longest + 1)?);
                CtcLoss { blank: rng.random_range(0..3), zero_infinity: rng.random(), reduction }.forward(
                    &x,
                    &targets,
                    &input_lengths,
                    &target_lengths,
                )
            }
        }?;
        let gradient = loss.sum_all()?.backward()?.get(&input).cloned();
        Ok((loss, gradient))
    }
}

#[test]
fn a_hundred_thousand_calls_end_in_a_value_or_an_error() {
    // What a panic says is kept for the message below.
    std::panic::set_hook(Box::new(|_| {}));
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let outcomes = std::thread::scope(|scope| {
        let parts = (0..threads)
            .map(|part| scope.spawn(move || (part..CALLS).step_by(threads as usize).map(outcome).collect::<Vec<_>>()));
        let parts = parts.collect::<Vec<_>>();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect::<Vec<_>>()
    });
    let _ = std::panic::take_hook();
    let faults = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect::<Vec<_>>();
    assert!(faults.is_empty(), "{} faults, such as: {:#?}", faults.len(), &faults[..faults.len().min(12)]);
    let count = |wanted: &str| outcomes.iter().flatten().filter(|outcome| **outcome == wanted).count();
    println!(
        "values {}, of which compared with f64 {}, errors {}",
        count("value") + count("compared"),
        count("compared"),
        count("error")
    );
    assert!(count("compared") > 10_000 && count("error") > 10_000, "the calls are too much alike");
}

/// What came of a call, or what should not have.
fn outcome(seed: u64) -> std::result::Result<&'static str, String> {
    let call = Call { loss: (seed % 21) as usize, seed };
    let name = NAMES[call.loss];
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let given = call.run(None);
        let exact = call.run(Some(DType::F64));
        (given, exact, call.run(Some(DType::F32)))
    }));
    let Ok((given, exact, single)) = caught else { return Err(format!("{name}, seed {seed}: panicked")) };
    if let Err(error) = &given {
        let text = error.to_string();
        return if text.contains(name) { Ok("error") } else { Err(format!("{name}, seed {seed}: {text}")) };
    }
    let (Ok(exact), Ok(single)) = (exact, single) else { return Ok("value") };
    let values = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let numbers = |(loss, gradient): &(Tensor, Option<Tensor>)| {
        Ok::<_, candle_core::Error>((values(loss)?, gradient.as_ref().map(values).transpose()?.unwrap_or_default()))
    };
    let (Ok(exact), Ok(single)) = (numbers(&exact), numbers(&single)) else {
        return Err(format!("{name}, seed {seed}: a value can't be read"));
    };
    if oddness(&mut StdRng::seed_from_u64(seed)) == Oddness::Extreme {
        return Ok("value");
    }
    // Nothing hides what is no number.
    if exact.0.iter().zip(&single.0).any(|(a, b)| a.is_nan() && !b.is_nan()) {
        return Err(format!("{name}, seed {seed}: NaN in f64 {exact:?} but in f32 {single:?}"));
    }
    // Where the result is large single precision may have run out of digits on the way.
    let ordinary = |numbers: &[f64]| numbers.iter().all(|x| x.is_finite() && x.abs() < 1e3);
    if !ordinary(&exact.0) || !ordinary(&exact.1) {
        return Ok("value");
    }
    let close = |a: &[f64], b: &[f64]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3 * (1.0 + b.abs()))
    };
    if close(&single.0, &exact.0) && close(&single.1, &exact.1) {
        Ok("compared")
    } else {
        Err(format!("{name}, seed {seed}: in f32 {:?} but in f64 {:?}", single, exact))
    }
}
