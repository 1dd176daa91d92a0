//! A loss as a part of a graph: scaled, summed, called twice, with one tensor in several arguments, from several threads, under
//! higher derivatives, with backward taken again and again.
//!
//! Tests that need a process of their own, for an environment variable or for their memory, start this binary again with
//! one of the ignored tests.

mod common;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_losses::loss::*;
use common::device;
#[cfg(target_os = "linux")]
use common::resident_kb;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs an ignored test of this binary in a process of its own, which must end well within two minutes.
fn in_own_process(test: &str, variables: &[(&str, &str)]) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            None if start.elapsed() < Duration::from_secs(120) => std::thread::sleep(Duration::from_millis(20)),
            status => break status,
        }
    };
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let outcome = status.map_or("hangs".to_owned(), |status| status.to_string());
    assert!(status.is_some_and(|status| status.success()), "{test} with {variables:?}: {outcome}");
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Numbers spread over `low..high`, no two alike.
fn spread(shape: &[usize], low: f64, high: f64, seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values = (0..count).map(|i| low + (high - low) * (((i + 1) * (7919 + 611 * seed)) % 10_007) as f64 / 10_007.0);
    Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap().to_device(&device()).unwrap()
}

type Loss = Box<dyn Fn(&[Tensor], Reduction) -> Result<Tensor>>;

/// A name, the values to differentiate at, and the loss of them. The losses are away from their kinks there.
fn cases() -> Vec<(&'static str, Vec<Tensor>, Loss)> {
    let mut cases: Vec<(&'static str, Vec<Tensor>, Loss)> = Vec::new();
    let real = |seed| spread(&[4, 3], -2.0, 2.0, seed);
    let probability = |seed| spread(&[4, 3], 0.1, 0.9, seed);
    let side = || spread(&[4, 3], -2.0, 2.0, 5).sign().unwrap();
    let classes = || Tensor::new(&[2u32, 0, 1, 1], &device()).unwrap();
    // Weights that f16 holds, in the dtype of the case.
    let weight = |like: &Tensor| {
        let weight = Tensor::new(&[0.5f32, 2.0, 1.25], &device()).unwrap();
        Some(weight.to_dtype(like.dtype()).unwrap())
    };
    let typed = |x: Tensor, like: &Tensor| x.to_dtype(like.dtype()).unwrap();
    let mut add = |name, at: Vec<Tensor>, loss: Loss| cases.push((name, at, loss));

    add("L1Loss", vec![real(1), real(2)], Box::new(|v, reduction| L1Loss { reduction }.forward(&v[0], &v[1])));
    add("MseLoss", vec![real(1), real(2)], Box::new(|v, reduction| MseLoss { reduction }.forward(&v[0], &v[1])));
    add(
        "SmoothL1Loss",
        vec![real(1), real(2)],
        Box::new(|v, reduction| SmoothL1Loss { beta: 0.7, reduction }.forward(&v[0], &v[1])),
    );
    add(
        "HuberLoss",
        vec![real(1), real(2)],
        Box::new(|v, reduction| HuberLoss { delta: 0.7, reduction }.forward(&v[0], &v[1])),
    );
    add(
        "BceLoss",
        vec![probability(1), probability(2)],
        Box::new(move |v, reduction| BceLoss { weight: weight(&v[0]), reduction }.forward(&v[0], &v[1])),
    );
    for has_weight in [false, true] {
        add(
            "BceWithLogitsLoss",
            vec![real(1), probability(2)],
            Box::new(move |v, reduction| {
                let pos_weight = if has_weight { weight(&v[0]) } else { None };
                BceWithLogitsLoss { weight: None, pos_weight, reduction }.forward(&v[0], &v[1])
            }),
        );
    }
    add(
        "NllLoss",
        vec![real(1)],
        Box::new(move |v, reduction| {
            NllLoss { weight: weight(&v[0]), ignore_index: 0, reduction }.forward(&v[0], &classes())
        }),
    );
    for label_smoothing in [0.0, 0.2] {
        add(
            "CrossEntropyLoss",
            vec![real(1)],
            Box::new(move |v, reduction| {
                CrossEntropyLoss { weight: weight(&v[0]), ignore_index: 0, label_smoothing, reduction }
                    .forward(&v[0], &classes())
            }),
        );
        add(
            "CrossEntropyLoss",
            vec![real(1), probability(2)],
            Box::new(move |v, reduction| {
                CrossEntropyLoss { weight: weight(&v[0]), ignore_index: 0, label_smoothing, reduction }
                    .forward(&v[0], &v[1])
            }),
        );
    }
    add(
        "LinearCrossEntropyLoss",
        vec![real(1), spread(&[3, 3], -1.0, 1.0, 2), spread(&[3], -1.0, 1.0, 3)],
        Box::new(move |v, reduction| {
            let loss =
                LinearCrossEntropyLoss { weight: weight(&v[0]), chunk: Some(3), reduction, ..Default::default() };
            loss.forward(&v[0], &v[1], Some(&v[2]), &classes())
        }),
    );
    let tail = (spread(&[1, 3], -1.0, 1.0, 3), spread(&[4, 1], -1.0, 1.0, 4));
    add(
        "AdaptiveLogSoftmaxWithLoss",
        vec![real(1), spread(&[3, 3], -1.0, 1.0, 2), tail.0, tail.1],
        Box::new(|v, reduction| {
            let tails = vec![(v[2].clone(), v[3].clone())];
            let loss = AdaptiveLogSoftmaxWithLoss { cutoffs: vec![2], head: v[1].clone(), head_bias: None, tails };
            let (output, mean) = loss.forward(&v[0], &Tensor::new(&[5i64, 0, 2, 1], &device())?)?;
            if reduction == Reduction::None { Ok(output) } else { Ok(mean) }
        }),
    );
    for log_input in [true, false] {
        add(
            "PoissonNllLoss",
            vec![probability(1), spread(&[4, 3], 1.2, 5.0, 2)],
            Box::new(move |v, reduction| {
                PoissonNllLoss { log_input, full: true, eps: 0.01, reduction }.forward(&v[0], &v[1])
            }),
        );
    }
    for var in [spread(&[4, 3], 0.5, 2.0, 3), spread(&[4, 1], 0.5, 2.0, 3)] {
        add(
            "GaussianNllLoss",
            vec![real(1), real(2), var],
            Box::new(|v, reduction| {
                GaussianNllLoss { full: true, reduction, ..Default::default() }.forward(&v[0], &v[1], &v[2])
            }),
        );
    }
    add(
        "HingeEmbeddingLoss",
        vec![real(1)],
        Box::new(move |v, reduction| {
            HingeEmbeddingLoss { margin: 0.7, reduction }.forward(&v[0], &typed(side(), &v[0]))
        }),
    );
    add(
        "SoftMarginLoss",
        vec![real(1), real(2)],
        Box::new(|v, reduction| SoftMarginLoss { reduction }.forward(&v[0], &v[1])),
    );
    // At 0, where a formula passes from one branch to the other though its derivatives are smooth.
    let zeros = || Tensor::zeros((4, 3), DType::F64, &device()).unwrap();
    add(
        "SoftMarginLoss",
        vec![zeros(), real(2)],
        Box::new(|v, reduction| SoftMarginLoss { reduction }.forward(&v[0], &v[1])),
    );
    for has_weight in [false, true] {
        add(
            "BceWithLogitsLoss",
            vec![zeros(), probability(2)],
            Box::new(move |v, reduction| {
                let pos_weight = if has_weight { weight(&v[0]) } else { None };
                BceWithLogitsLoss { weight: None, pos_weight, reduction }.forward(&v[0], &v[1])
            }),
        );
    }
    add(
        "PoissonNllLoss",
        vec![probability(1), zeros()],
        Box::new(|v, reduction| {
            PoissonNllLoss { log_input: false, full: false, eps: 0.01, reduction }.forward(&v[0], &v[1])
        }),
    );
    for p in [1, 2] {
        add(
            "MultiMarginLoss",
            vec![real(1)],
            Box::new(move |v, reduction| {
                MultiMarginLoss { p, margin: 0.7, weight: weight(&v[0]), reduction }.forward(&v[0], &classes())
            }),
        );
    }
    add(
        "MultiLabelMarginLoss",
        vec![real(1)],
        Box::new(|v, reduction| {
            let lists = Tensor::new(&[[2i64, 0, -1], [-1, 0, 1], [1, -1, 2], [0, 1, 2]], &device())?;
            MultiLabelMarginLoss { reduction }.forward(&v[0], &lists)
        }),
    );
    add(
        "MultiLabelSoftMarginLoss",
        vec![real(1), probability(2)],
        Box::new(move |v, reduction| {
            MultiLabelSoftMarginLoss { weight: weight(&v[0]), reduction }.forward(&v[0], &v[1])
        }),
    );
    for log_target in [false, true] {
        add(
            "KlDivLoss",
            vec![real(1), probability(2)],
            Box::new(move |v, reduction| KlDivLoss { log_target, reduction }.forward(&v[0], &v[1])),
        );
    }
    add(
        "MarginRankingLoss",
        vec![real(1), real(2)],
        Box::new(move |v, reduction| {
            MarginRankingLoss { margin: 0.7, reduction }.forward(&v[0], &v[1], &typed(side(), &v[0]))
        }),
    );
    add(
        "CosineEmbeddingLoss",
        vec![real(1), real(2)],
        Box::new(|v, reduction| {
            let target = Tensor::new(&[1i64, -1, -1, 1], &device())?;
            CosineEmbeddingLoss { margin: -0.9, reduction }.forward(&v[0], &v[1], &target)
        }),
    );
    for (p, swap) in [(2.0, false), (2.0, true), (1.0, true), (3.0, false), (0.5, true), (f64::INFINITY, false)] {
        add(
            "TripletMarginLoss",
            vec![real(1), real(2), real(3)],
            Box::new(move |v, reduction| {
                let loss = TripletMarginLoss { margin: 4.0, p, swap, reduction, ..Default::default() };
                loss.forward(&v[0], &v[1], &v[2])
            }),
        );
    }
    add(
        "TripletMarginWithDistanceLoss",
        vec![real(1), real(2), real(3)],
        Box::new(|v, reduction| {
            let loss = TripletMarginWithDistanceLoss { margin: 4.0, swap: true, reduction, ..Default::default() };
            loss.forward(&v[0], &v[1], &v[2])
        }),
    );
    cases
}

fn ctc(x: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let ints = |values: &[i64]| Tensor::new(values, &device());
    let log_p = log_softmax(x, 2)?;
    CtcLoss { reduction, ..Default::default() }.forward(&log_p, &ints(&[1, 2])?, &ints(&[4, 4])?, &ints(&[1, 1])?)
}

#[test]
fn every_loss_has_a_case() {
    let source = include_str!("../src/loss/mod.rs");
    let losses = source.lines().filter_map(|line| {
        line.strip_prefix("pub use ")?.split(&[':', ';', ' ', ',', '}'][..]).find(|word| word.ends_with("Loss"))
    });
    let losses = losses.filter(|loss| *loss != "CtcLoss").collect::<Vec<_>>();
    assert_eq!(losses.len(), 22);
    for loss in losses {
        assert!(cases().iter().any(|(name, ..)| *name == loss), "{loss} has no case");
    }
}

fn variables(at: &[Tensor], dtype: DType) -> Result<(Vec<Var>, Vec<Tensor>)> {
    let variables = at.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype)?)).collect::<Result<Vec<_>>>()?;
    let tensors = variables.iter().map(|var| var.as_tensor().clone()).collect();
    Ok((variables, tensors))
}

#[test]
fn losses_of_one_type_in_a_list() -> Result<()> {
    let criteria: [Box<dyn Criterion>; 3] =
        [Box::new(MseLoss::default()), Box::new(L1Loss::default()), Box::new(SoftMarginLoss::default())];
    let x = Var::from_tensor(&spread(&[5], -1.0, 1.0, 1))?;
    let y = x.sign()?.detach();
    for criterion in &criteria {
        assert!(criterion.forward(&x, &y)?.backward()?.get(&x).is_some());
    }
    Ok(())
}

/// A gradient is scaled before it is rounded, so that loss scaling keeps what half precision alone would lose.
#[test]
fn loss_scaling_comes_before_rounding() -> Result<()> {
    let n = 1 << 20;
    for dtype in [DType::F16, DType::BF16] {
        let x = Var::from_tensor(&Tensor::full(0.01f32, n, &device())?.to_dtype(dtype)?)?;
        let zeros = x.zeros_like()?;
        let largest = |loss: Tensor| -> Result<f64> {
            let grads = (loss * 32768.)?.backward()?;
            Ok(values(grads.get(&x).unwrap()).into_iter().fold(0.0, |largest, x| x.abs().max(largest)))
        };
        let x_of_dtype = values(&x)[0];
        let mse = largest(MseLoss::default().forward(&x, &zeros)?)?;
        assert!((mse / (2.0 * x_of_dtype * 32768.0 / n as f64) - 1.0).abs() < 4e-3, "{dtype:?} {mse}");
        let bce = largest(BceWithLogitsLoss::default().forward(&x, &zeros)?)?;
        let sigmoid = 1.0 / (1.0 + (-x_of_dtype).exp());
        assert!((bce / (sigmoid * 32768.0 / n as f64) - 1.0).abs() < 4e-3, "{dtype:?} {bce}");
    }
    Ok(())
}

/// In `f16` every gradient of a scaled loss is that of `f32`, rounded once.
#[test]
fn half_precision_gradients_are_rounded_once() -> Result<()> {
    let has_kernels = device().is_cpu() && std::env::var_os("CANDLE_LOSSES_KERNELS").is_none();
    for (name, at, loss) in cases() {
        // Products of matrices are in half precision elsewhere.
        if ["LinearCrossEntropyLoss", "AdaptiveLogSoftmaxWithLoss"].contains(&name) && !has_kernels {
            continue;
        }
        for reduction in [Reduction::Mean, Reduction::None] {
            let half = at.iter().map(|x| x.to_dtype(DType::F16)).collect::<Result<Vec<_>>>()?;
            // Small enough that a gradient without the scale loses its last digits in f16.
            let gradients = |dtype, down: f64| -> Result<Vec<Vec<f64>>> {
                let (variables, tensors) = variables(&half, dtype)?;
                let loss = loss(&tensors, reduction)?;
                let loss = if reduction == Reduction::None { loss.sum_all()? } else { loss };
                let grads = (loss * down)?.backward()?;
                Ok(variables.iter().map(|var| grads.get(var).map(values).unwrap_or_default()).collect())
            };
            for factor in [2f64.powi(-14), 1024.0] {
                let (found, expected) = (gradients(DType::F16, factor)?, gradients(DType::F32, factor)?);
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    let rounded = f64::from(half::f16::from_f64(*expected));
                    let unit = 2f64.powi((rounded.abs().log2().floor() as i32).max(-14) - 10);
                    assert!(
                        (found - rounded).abs() <= 2.0 * unit,
                        "{name} {reduction} {factor}: {found}, not {rounded}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// Twice the same loss, scaled, and another one of the same tensor: the sum of the gradients of each.
#[test]
fn a_loss_may_stand_anywhere() -> Result<()> {
    for (name, at, loss) in cases() {
        for reduction in [Reduction::Mean, Reduction::None] {
            let (variables, tensors) = variables(&at, DType::F64)?;
            let once = |factor: f64| -> Result<Vec<Vec<f64>>> {
                let grads = (loss(&tensors, reduction)?.sum_all()? * factor)?.backward()?;
                Ok(variables.iter().map(|var| grads.get(var).map(values).unwrap_or_default()).collect())
            };
            let single = once(1.0)?;
            let value = loss(&tensors, reduction)?.sum_all()?;
            let other = (tensors[0].sqr()?.sum_all()? * 0.5)?;
            let sum = ((&value * 3.)? + (loss(&tensors, reduction)?.sum_all()? + other)?)?;
            // Backward again and again gives the same.
            for _ in 0..3 {
                let grads = sum.backward()?;
                for (i, (var, single)) in variables.iter().zip(&single).enumerate() {
                    let found = grads.get(var).map(values).unwrap_or_default();
                    let own = if i == 0 { values(var) } else { vec![0.0; single.len()] };
                    for ((found, single), own) in found.iter().zip(single).zip(own) {
                        let expected = 4.0 * single + own;
                        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{name} {reduction} {i}");
                    }
                }
            }
        }
    }
    Ok(())
}

/// One tensor in two arguments, and two views of one storage: the gradients of copies, added.
#[test]
fn one_tensor_in_several_arguments() -> Result<()> {
    type Two = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let losses: [(&str, Two); 6] = [
        ("mse", |a, b| MseLoss { reduction: Reduction::None }.forward(a, b)?.sum_all()),
        ("bce_with_logits", |a, b| BceWithLogitsLoss::default().forward(a, b)),
        ("kl_div", |a, b| KlDivLoss { log_target: true, ..Default::default() }.forward(a, b)),
        ("cosine", |a, b| {
            CosineEmbeddingLoss { margin: -0.5, ..Default::default() }.forward(
                a,
                b,
                &Tensor::new(&[1i64, -1, 1, -1], a.device())?,
            )
        }),
        ("triplet", |a, b| TripletMarginLoss { margin: 3.0, swap: true, ..Default::default() }.forward(a, b, b)),
        ("cross_entropy", |a, b| CrossEntropyLoss::default().forward(a, b)),
    ];
    for (name, loss) in losses {
        let x = Var::from_tensor(&spread(&[4, 4], 0.1, 0.9, 1))?;
        for view in [|x: &Tensor| Ok(x.clone()), |x: &Tensor| x.t()] {
            let found = loss(&x, &view(&x)?)?.backward()?;
            let [a, b] = [(); 2].map(|()| Var::from_tensor(&x.as_tensor().copy()?.detach()));
            let (a, b) = (a?, b?);
            let expected = loss(&a, &view(&b)?)?.backward()?;
            let expected = (expected.get(&a).unwrap() + expected.get(&b).unwrap())?;
            for (found, expected) in values(found.get(&x).unwrap()).iter().zip(values(&expected)) {
                assert!((found - expected).abs() < 1e-12, "{name}: {found} {expected}");
            }
        }
    }
    Ok(())
}

/// Gradients that are handed out stay what they are, whatever happens to their loss and whatever is computed next.
#[test]
fn gradients_stay_what_they_are() -> Result<()> {
    let n = 1 << 17;
    let y = spread(&[n], -3.0, 3.0, 9).to_dtype(DType::F32)?;
    for reduction in [Reduction::Mean, Reduction::None] {
        let gradient = |seed: usize| -> Result<Tensor> {
            let x = Var::from_tensor(&spread(&[n], -3.0, 3.0, seed).to_dtype(DType::F32)?)?;
            let loss = HuberLoss { reduction, ..Default::default() }.forward(&x, &y)?.sum_all()?;
            let first = loss.backward()?.remove(&x).unwrap();
            assert_eq!(values(&first), values(loss.backward()?.get(&x).unwrap()));
            Ok(first)
        };
        let kept = (0..6).map(gradient).collect::<Result<Vec<_>>>()?;
        let then = kept.iter().map(values).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..6).for_each(|seed| assert_eq!(values(&gradient(seed).unwrap()), then[seed])));
            }
        });
        assert_eq!(kept.iter().map(values).collect::<Vec<_>>(), then);
    }
    Ok(())
}

// --- Memory. ---------------------------------------------------------------------------------------------------------

#[cfg(target_os = "linux")]
#[test]
fn repeated_backward_holds_memory_level() {
    in_own_process("child_repeats_backward", &[]);
    in_own_process("child_repeats_backward", &[("CANDLE_LOSSES_KERNELS", "off")]);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by repeated_backward_holds_memory_level"]
fn child_repeats_backward() -> Result<()> {
    let x = Var::rand(0f32, 1.0, (1000, 1000), &Device::Cpu)?;
    let (y, classes) = (x.zeros_like()?, Tensor::zeros(1000, DType::U32, &Device::Cpu)?);
    let mse = MseLoss { reduction: Reduction::None }.forward(&x, &y)?.sum(1)?;
    let cross_entropy = CrossEntropyLoss { reduction: Reduction::None, ..Default::default() }.forward(&x, &classes)?;
    let mean = MseLoss::default().forward(&x, &y)?;
    let steps = |steps: std::ops::Range<usize>| {
        steps.into_iter().try_for_each(|i| {
            mse.get(i)?.backward()?;
            cross_entropy.get(i)?.backward()?;
            mean.backward().map(drop)
        })
    };
    steps(0..20)?;
    let before = resident_kb();
    steps(20..220)?;
    let grown = resident_kb().saturating_sub(before);
    assert!(grown < 40_000, "{grown} kB more after 200 calls of backward");
    Ok(())
}

// --- Threads. --------------------------------------------------------------------------------------------------------

#[test]
fn no_thread_waits_for_itself() {
    for test in ["child_sets_what_another_thread_reads", "child_sets_what_is_read_in_both_orders"] {
        in_own_process(test, &[("CANDLE_LOSSES_KERNELS", "on")]);
        in_own_process(test, &[("CANDLE_LOSSES_KERNELS", "off")]);
    }
}

/// Two threads have the same two variables, in different orders, and two threads set them. If each loss locked its
/// arguments in the order it was given them, each thread could wait for the next of the four.
#[test]
#[ignore = "run by no_thread_waits_for_itself"]
fn child_sets_what_is_read_in_both_orders() -> Result<()> {
    let [a, b] = [(); 2].map(|()| Var::rand(0f32, 1.0, (256, 256), &Device::Cpu));
    let (a, b) = (a?, b?);
    let (new_a, new_b) = (a.as_tensor().copy()?, b.as_tensor().copy()?);
    let classes = Tensor::zeros(256, DType::U32, &Device::Cpu)?;
    let end = Instant::now() + Duration::from_secs(1);
    let should_stop = || Instant::now() > end;
    std::thread::scope(|scope| {
        for (var, value) in [(&a, &new_a), (&b, &new_b)] {
            scope.spawn(move || {
                while !should_stop() {
                    var.set(value).unwrap();
                }
            });
        }
        for (x, y) in [(&a, &b), (&b, &a)] {
            let classes = &classes;
            scope.spawn(move || {
                while !should_stop() {
                    MseLoss { reduction: Reduction::None }.forward(x, y).unwrap().backward().unwrap();
                    let linear = LinearCrossEntropyLoss::default().forward(x, y, None, classes).unwrap();
                    linear.backward().unwrap();
                }
            });
        }
    });
    Ok(())
}

/// One thread sets a variable while others have it in several arguments: a thread that locked its storage twice would wait
/// for the one that wants to write, which waits for the first lock.
#[test]
#[ignore = "run by no_thread_waits_for_itself"]
fn child_sets_what_another_thread_reads() -> Result<()> {
    let long = Var::rand(0f32, 1.0, 1 << 16, &Device::Cpu)?;
    let square = Var::rand(0f32, 1.0, (64, 64), &Device::Cpu)?;
    let (new_long, new_square) = (long.as_tensor().copy()?, square.as_tensor().copy()?);
    let classes = Tensor::zeros(64, DType::U32, &Device::Cpu)?;
    let sides = Tensor::ones(64, DType::F32, &Device::Cpu)?;
    let end = Instant::now() + Duration::from_secs(1);
    let should_stop = || Instant::now() > end;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !should_stop() {
                    long.set(&new_long).unwrap();
                    square.set(&new_square).unwrap();
                }
            });
        }
        scope.spawn(|| {
            while !should_stop() {
                MseLoss { reduction: Reduction::None }.forward(&long, &long).unwrap().backward().unwrap();
            }
        });
        scope.spawn(|| {
            while !should_stop() {
                let mean = MseLoss::default().forward(&long, &long).unwrap();
                let other = L1Loss::default().forward(&long, &long).unwrap();
                (mean + other).unwrap().backward().unwrap();
            }
        });
        scope.spawn(|| {
            while !should_stop() {
                let linear = LinearCrossEntropyLoss::default().forward(&square, &square, None, &classes).unwrap();
                linear.backward().unwrap();
                let cosine = CosineEmbeddingLoss::default().forward(&square, &square, &sides).unwrap();
                let triplet = TripletMarginLoss::default().forward(&square, &square, &square).unwrap();
                (cosine + triplet).unwrap().backward().unwrap();
                CrossEntropyLoss::default().forward(&square, &square).unwrap().backward().unwrap();
            }
        });
    });
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn candle_num_threads_is_honored() {
    // Tensor ops are candle's, and so are the threads that they start.
    in_own_process("child_starts_no_thread", &[("CANDLE_NUM_THREADS", "1"), ("CANDLE_LOSSES_KERNELS", "on")]);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by candle_num_threads_is_honored"]
fn child_starts_no_thread() -> Result<()> {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let x = Var::rand(0f32, 1.0, 40_000, &Device::Cpu)?;
    MseLoss::default().forward(&x, &x.zeros_like()?)?.backward()?;
    let logits = x.reshape((400, 100))?;
    let classes = Tensor::zeros(400, DType::U32, &Device::Cpu)?;
    CrossEntropyLoss::default().forward(&logits, &classes)?.backward()?;
    let weight = Var::rand(0f32, 1.0, (3000, 100), &Device::Cpu)?;
    LinearCrossEntropyLoss::default().forward(&logits, &weight, None, &classes)?.backward()?;
    let (labels, lengths) = (Tensor::ones((100, 2), DType::U32, &Device::Cpu)?, Tensor::full(2u32, 100, &Device::Cpu)?);
    let steps = x.reshape((4, 100, 100))?;
    let ctc = CtcLoss { zero_infinity: true, ..Default::default() };
    ctc.forward(&log_softmax(&steps, 2)?, &labels, &Tensor::full(4u32, 100, &Device::Cpu)?, &lengths)?.backward()?;
    assert_eq!(threads(), before, "threads were started");
    Ok(())
}

// --- Second derivatives. ---------------------------------------------------------------------------------------------

#[test]
fn second_derivatives_are_right_or_an_error() {
    let switch = ("CANDLE_GRAD_DO_NOT_DETACH", "1");
    for test in ["child_differentiates_twice", "child_trains_with_a_gradient_penalty", "child_refuses_ctc"] {
        in_own_process(test, &[switch]);
        in_own_process(test, &[switch, ("CANDLE_LOSSES_KERNELS", "off")]);
    }
}

/// The squares of all gradients, and their own gradients, against central differences.
#[test]
#[ignore = "run by second_derivatives_are_right_or_an_error"]
fn child_differentiates_twice() -> Result<()> {
    const STEP: f64 = 1e-5;
    let mut curved = 0;
    for (name, at, loss) in cases() {
        for reduction in [Reduction::Mean, Reduction::None] {
            let penalty = |at: &[Tensor]| -> Result<(Vec<Var>, Tensor)> {
                let (variables, tensors) = variables(at, DType::F64)?;
                let loss = loss(&tensors, reduction)?;
                let loss = if reduction == Reduction::None { loss.sqr()?.sum_all()? } else { loss };
                let grads = loss.backward()?;
                let squares = variables.iter().filter_map(|var| Some(grads.get(var)?.sqr().and_then(|x| x.sum_all())));
                let sum = squares.reduce(|a, b| a? + b?).unwrap()?;
                Ok((variables, sum))
            };
            let (variables, sum) = penalty(&at)?;
            let grads = sum.backward()?;
            for (i, var) in variables.iter().enumerate() {
                let shape = at[i].shape();
                let found = grads.get(var).map(values).unwrap_or_else(|| vec![0.0; shape.elem_count()]);
                for (j, found) in found.iter().enumerate() {
                    let beside = |step: f64| -> Result<f64> {
                        let mut moved = values(&at[i]);
                        moved[j] += step;
                        let mut at = at.clone();
                        at[i] = Tensor::from_vec(moved, shape, &device())?;
                        penalty(&at)?.1.to_scalar::<f64>()
                    };
                    let expected = (beside(STEP)? - beside(-STEP)?) / (2.0 * STEP);
                    let tolerance = 1e-6 * expected.abs().max(values(&sum)[0]).max(1.0);
                    assert!(
                        (found - expected).abs() < tolerance,
                        "{name} {reduction} {i}[{j}]: {found}, not {expected}"
                    );
                    curved += usize::from(expected.abs() > 1e-3);
                }
            }
        }
    }
    assert!(curved > 300, "{curved} second derivatives are not 0: too few were tested");
    Ok(())
}

/// `loss + 0.1 · ‖gradient‖²` of a network with one hidden layer, as in a gradient penalty.
#[test]
#[ignore = "run by second_derivatives_are_right_or_an_error"]
fn child_trains_with_a_gradient_penalty() -> Result<()> {
    let (x, y) = (spread(&[6, 3], -1.0, 1.0, 1), Tensor::new(&[0u32, 1, 2, 1, 0, 2], &device())?);
    let total = |weights: &[Tensor]| -> Result<(Vec<Var>, Tensor)> {
        let weights = weights.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let logits = x.matmul(&weights[0].t()?)?.tanh()?.matmul(&weights[1].t()?)?;
        let loss = CrossEntropyLoss { label_smoothing: 0.1, ..Default::default() }.forward(&logits, &y)?;
        let grads = loss.backward()?;
        let norm =
            (grads.get(&weights[0]).unwrap().sqr()?.sum_all()? + grads.get(&weights[1]).unwrap().sqr()?.sum_all()?)?;
        Ok((weights, (loss + (norm * 0.1)?)?))
    };
    let weights = [spread(&[5, 3], -1.0, 1.0, 2), spread(&[3, 5], -1.0, 1.0, 3)];
    let (variables, loss) = total(&weights)?;
    let grads = loss.backward()?;
    for (i, var) in variables.iter().enumerate() {
        for (j, found) in values(grads.get(var).unwrap()).into_iter().enumerate() {
            let beside = |step: f64| -> Result<f64> {
                let mut moved = values(&weights[i]);
                moved[j] += step;
                let mut weights = weights.clone();
                weights[i] = Tensor::from_vec(moved, weights[i].shape(), &device())?;
                total(&weights)?.1.to_scalar::<f64>()
            };
            let expected = (beside(1e-5)? - beside(-1e-5)?) / 2e-5;
            assert!((found - expected).abs() < 1e-7, "{i}[{j}]: {found}, not {expected}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "run by second_derivatives_are_right_or_an_error"]
fn child_refuses_ctc() -> Result<()> {
    let x = Var::from_tensor(&spread(&[4, 2, 3], -1.0, 1.0, 1))?;
    let grads = ctc(&x, Reduction::Mean)?.backward()?;
    let gradient = grads.get(&x).unwrap();
    assert!(values(gradient).iter().any(|x| *x != 0.0), "the first derivative is there");
    let error = gradient.sqr()?.sum_all()?.backward().unwrap_err().to_string();
    assert!(error.contains("CtcLoss: second derivatives"), "{error}");
    Ok(())
}

/// Without the switch the gradients of a model are those of candle's own ops.
#[test]
fn gradients_flow_through_a_model() -> Result<()> {
    let (x, y) = (spread(&[6, 3], -1.0, 1.0, 1), Tensor::new(&[0u32, 1, 2, 1, 0, 2], &device())?);
    let weight = Var::from_tensor(&spread(&[3, 3], -1.0, 1.0, 2))?;
    let logits = x.matmul(&weight.t()?)?;
    let own = CrossEntropyLoss::default().forward(&logits, &y)?.backward()?;
    let log_p = log_softmax(&logits, D::Minus1)?;
    let composed = log_p.gather(&y.unsqueeze(1)?, 1)?.mean_all()?.neg()?.backward()?;
    for (own, composed) in values(own.get(&weight).unwrap()).iter().zip(values(composed.get(&weight).unwrap())) {
        assert!((own - composed).abs() < 1e-12);
    }
    Ok(())
}
