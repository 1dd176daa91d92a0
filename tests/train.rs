//! The training loop with models and optimizers that are not this crate's.

use candle_core::{DType, Device, Error, Module, Result, Tensor, Var};
use candle_losses::data::TensorDataset;
use candle_losses::loss::{CrossEntropyLoss, MseLoss};
use candle_losses::{
    Adam, Checkpoint, EarlyStopping, Event, OutputActivation, Parameters, ParamsAdam, SkipReason, Trainer, evaluate,
    load_checkpoint, mlp, save_checkpoint,
};
use candle_nn::{AdamW, ModuleT, Optimizer, ParamsAdamW, SGD, VarBuilder, VarMap};
use std::ops::ControlFlow;

const CPU: Device = Device::Cpu;

/// `y = 2 x1 - x2 + noise`, in `f64`.
fn samples(n: usize) -> TensorDataset {
    let numbers = (0..n).map(|i| {
        let (a, b) = ((i * 37 % 101) as f64 / 50.0 - 1.0, (i * 61 % 97) as f64 / 48.0 - 1.0);
        ([a, b], 2.0 * a - b + ((i * 13 % 7) as f64 - 3.0) / 30.0)
    });
    let (x, y): (Vec<_>, Vec<_>) = numbers.unzip();
    let y = Tensor::new(y.as_slice(), &CPU).unwrap().unsqueeze(1).unwrap();
    TensorDataset::new(Tensor::from_iter(x.into_iter().flatten(), &CPU).unwrap().reshape((n, 2)).unwrap(), y).unwrap()
}

/// Returns the weights of a linear model after training with SGD, on the mean or the sum of the squared errors.
fn trained(trainer: &Trainer, samples: &TensorDataset, sum: bool) -> Vec<f64> {
    let weight = Var::new(&[[0.5f64], [-0.5]], &CPU).unwrap();
    let mut sgd = SGD::new(vec![weight.clone()], 0.05).unwrap();
    let reduction = if sum { candle_losses::loss::Reduction::Sum } else { Default::default() };
    let loss = |x: &Tensor, y: &Tensor| MseLoss { reduction }.forward(&x.matmul(&weight)?, y);
    trainer.fit(&mut sgd, samples, loss).unwrap();
    weight.flatten_all().unwrap().to_vec1().unwrap()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
}

#[test]
fn an_accumulated_step_is_that_of_one_large_batch() {
    // 25 in batches of 4: groups of 3 batches, of which the last has one of 1.
    let small = Trainer { epochs: 3, batch_size: 4, accumulate: 3, ..Default::default() };
    let large = Trainer { epochs: 3, batch_size: 12, ..Default::default() };
    let (accumulated, whole) = (trained(&small, &samples(25), false), trained(&large, &samples(25), false));
    assert!(near(&accumulated, &whole), "{accumulated:?} {whole:?}");
    let each = Trainer { epochs: 3, batch_size: 4, ..Default::default() };
    assert!(!near(&accumulated, &trained(&each, &samples(25), false)));
}

#[test]
fn clipping_bounds_a_step_and_leaves_a_small_one() {
    let one = Trainer { epochs: 1, batch_size: 50, ..Default::default() };
    let step = |trainer: &Trainer| {
        let after = trained(trainer, &samples(50), true);
        (after[0] - 0.5).hypot(after[1] + 0.5) / 0.05
    };
    let free = step(&one);
    let clipped = step(&Trainer { clip_norm: Some(1.5), ..one.clone() });
    assert!(free > 1.5 && (clipped - 1.5).abs() < 1e-6, "{free} {clipped}");
    assert_eq!(step(&Trainer { clip_norm: Some(1e6), ..one.clone() }), free);
}

#[test]
fn resumed_run_matches_an_uninterrupted_one() {
    let whole = Trainer { epochs: 4, batch_size: 4, accumulate: 2, ..Default::default() };
    let samples = samples(22);
    let end = trained(&whole, &samples, false);
    // Three steps in an epoch: 7 is after the first of the third.
    for taken in [1, 3, 7, 12] {
        let weight = Var::new(&[[0.5f64], [-0.5]], &CPU).unwrap();
        let mut sgd = SGD::new(vec![weight.clone()], 0.05).unwrap();
        let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
        let stop = whole.fit_with(&mut sgd, &samples, loss, |_, event| match event {
            Event::Step { completed_steps, .. } if completed_steps == taken => Ok(ControlFlow::Break(())),
            _ => Ok::<_, Error>(ControlFlow::Continue(())),
        });
        stop.unwrap();
        let mut told = Vec::new();
        let rest = Trainer { completed_steps: taken, ..whole.clone() };
        rest.fit_with(&mut sgd, &samples, loss, |_, event| {
            if let Event::Step { completed_steps, .. } = event {
                told.push(completed_steps);
            }
            Ok::<_, Error>(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(told, (taken + 1..=12).collect::<Vec<_>>());
        assert_eq!(weight.flatten_all().unwrap().to_vec1::<f64>().unwrap(), end);
    }
}

#[test]
fn observer_error_or_break_ends_the_run() {
    let weight = Var::new(&[[0f64], [0.0]], &CPU).unwrap();
    let mut sgd = SGD::new(vec![weight.clone()], 0.05).unwrap();
    let mut run = |stop_at: usize, with_error: bool| {
        let (mut events, trainer) = (0, Trainer { epochs: 2, batch_size: 4, ..Default::default() });
        let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
        let ended = trainer.fit_with(&mut sgd, &samples(8), loss, |_, _| {
            events += 1;
            match events == stop_at {
                true if with_error => Err(Error::Msg("stop".into())),
                true => Ok(ControlFlow::Break(())),
                false => Ok(ControlFlow::Continue(())),
            }
        });
        (events, ended.map_err(|error| error.to_string()))
    };
    // Two batches and two steps, and the epoch.
    for stop_at in 1..=6 {
        assert_eq!(run(stop_at, false), (stop_at, Ok(())));
        assert_eq!(run(stop_at, true), (stop_at, Err("stop".into())));
    }
    assert_eq!(run(11, true), (10, Ok(())));
}

#[test]
fn observer_gets_events_in_order() {
    let weight = Var::new(&[[0f64], [0.0]], &CPU).unwrap();
    let mut sgd = SGD::new(vec![weight.clone()], 0.05).unwrap();
    let mut told = Vec::new();
    Trainer { epochs: 2, batch_size: 4, accumulate: 2, ..Default::default() }
        .fit_with(
            &mut sgd,
            &samples(10),
            |x, y| MseLoss::default().forward(&x.matmul(&weight)?, y),
            |sgd, event| {
                assert_eq!(sgd.learning_rate(), 0.05);
                told.push(match event {
                    Event::Batch { epoch, samples, loss, .. } => format!("{epoch}:{samples}{:?}", loss.dims()),
                    Event::Step { epoch, completed_steps, .. } => format!("{epoch}:step {completed_steps}"),
                    Event::Epoch { epoch, completed_steps, .. } => format!("{epoch}:epoch {completed_steps}"),
                    _ => String::new(),
                });
                Ok::<_, Error>(ControlFlow::Continue(()))
            },
        )
        .unwrap();
    let first = ["1:4[]", "1:4[]", "1:step 1", "1:2[]", "1:step 2", "1:epoch 2"];
    let second = ["2:4[]", "2:4[]", "2:step 3", "2:2[]", "2:step 4", "2:epoch 4"];
    assert_eq!(told, [first, second].concat());
}

#[test]
fn candles_own_variables_and_optimizer_learn_the_digits() -> anyhow::Result<()> {
    let data = candle_losses::data::digits(&CPU)?;
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
    let hidden = candle_nn::linear(784, 32, vb.pp("hidden"))?;
    let output = candle_nn::linear(32, 10, vb.pp("output"))?;
    let model = |x: &Tensor| output.forward(&hidden.forward(&x.flatten_from(1)?)?.relu()?);
    let mut adam = AdamW::new(variables.all_vars(), ParamsAdamW { lr: 1e-3, ..Default::default() })?;
    let loss = CrossEntropyLoss::default();
    Trainer { epochs: 1, ..Default::default() }.fit(&mut adam, &data.train, |x, y| loss.forward(&model(x)?, y))?;
    let (images, digits) = data.test.batch(None, 0, data.test.len())?;
    let right = model(&images)?.argmax(1)?.eq(&digits)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
    assert!(right > 0.8, "{right}");
    Ok(())
}

#[test]
fn adam_trains_parameters_in_f32_and_f64() -> anyhow::Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let samples = samples(200);
        let parameters = Parameters::seeded(1);
        let model = mlp(&[2, 8, 1], OutputActivation::Linear, parameters.var_builder(dtype, &CPU))?;
        let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam { lr: 0.01, ..Default::default() })?;
        let mut losses = Vec::new();
        Trainer { epochs: 30, batch_size: 20, clip_norm: Some(5.0), ..Default::default() }.fit_with(
            &mut adam,
            &samples,
            |x, y| MseLoss::default().forward(&model.forward(&x.to_dtype(dtype)?)?, &y.to_dtype(dtype)?),
            |_, event| {
                if let Event::Batch { loss, .. } = event {
                    losses.push(loss.to_dtype(DType::F64)?.to_scalar::<f64>()?);
                }
                Ok::<_, Error>(ControlFlow::Continue(()))
            },
        )?;
        assert!(losses[losses.len() - 1] < losses[0] / 20.0, "{losses:?}");
    }
    Ok(())
}

#[test]
fn invalid_options_and_losses_are_rejected() {
    let weight = Var::new(&[[0f64], [0.0]], &CPU).unwrap();
    let refused = |trainer: Trainer, shape: &[usize]| {
        let mut sgd = SGD::new(vec![weight.clone()], 0.05).unwrap();
        let loss = |x: &Tensor, _: &Tensor| x.matmul(&weight)?.sum_all()?.broadcast_as(shape);
        trainer.fit(&mut sgd, &samples(10), loss).unwrap_err().to_string()
    };
    let error = refused(Trainer { batch_size: 0, ..Default::default() }, &[]);
    assert!(error.contains("batch_size is 0"), "{error}");
    let error = refused(Trainer { accumulate: 0, ..Default::default() }, &[]);
    assert!(error.contains("accumulate 0"), "{error}");
    for norm in [0.0, -1.0, f64::NAN] {
        let error = refused(Trainer { clip_norm: Some(norm), ..Default::default() }, &[]);
        assert!(error.contains("clip_norm is") && error.contains("positive"), "{error}");
    }
    let error = refused(Trainer::default(), &[2]);
    assert!(error.contains("shape [2]") && error.contains("scalar"), "{error}");
    let zeros = |n: usize| Tensor::zeros((n, 2), DType::F32, &CPU).unwrap();
    let error = TensorDataset::new(zeros(3), zeros(2)).unwrap_err().to_string();
    assert!(error.contains("3 samples but 2 targets"), "{error}");
}

#[test]
fn empty_data_is_rejected_but_zero_epochs_are_allowed() -> Result<()> {
    let weight = Var::new(&[[0f64], [0.0]], &CPU)?;
    let mut sgd = SGD::new(vec![weight.clone()], 0.05)?;
    let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
    let none = samples(3).take(0)?;
    let error = Trainer::default().fit(&mut sgd, &none, loss).unwrap_err().to_string();
    assert!(error.contains("no samples"), "{error}");
    let error = evaluate(&none, 64, loss).unwrap_err().to_string();
    assert!(error.contains("0 samples"), "{error}");
    assert!(evaluate(&samples(3), 0, loss).unwrap_err().to_string().contains("batch_size is 0"));
    let trainer = Trainer { batch_size: 4, drop_last: true, ..Default::default() };
    let error = trainer.fit(&mut sgd, &samples(3), loss).unwrap_err().to_string();
    assert!(error.contains("drop_last") && error.contains("3 samples"), "{error}");
    Trainer { epochs: 0, ..Default::default() }.fit(&mut sgd, &samples(3), loss)?;
    assert_eq!(weight.to_vec2::<f64>()?, [[0.0], [0.0]]);
    Ok(())
}

/// Each step must equal PyTorch's step on one batch (`tests/golden/make_training.py`). Some batches are only padding.
#[test]
fn batches_with_padding_accumulate_as_one_batch() -> Result<()> {
    let golden = candle_core::safetensors::load_buffer(include_bytes!("golden/training.safetensors"), &CPU)?;
    let golden = |name: &str| golden[&format!("padded.{name}")].clone();
    let dataset = TensorDataset::new(golden("x"), golden("y"))?;
    let cross_entropy = CrossEntropyLoss { weight: Some(golden("class_weight")), ..Default::default() };
    for (batch_size, accumulate) in [(6, 1), (3, 2), (2, 3), (1, 6)] {
        let weight = Var::from_tensor(&golden("start"))?;
        let loss = |x: &Tensor, y: &Tensor| {
            let logits = x.broadcast_matmul(&weight.t()?)?.transpose(1, 2)?;
            Ok((cross_entropy.forward(&logits, y)?, cross_entropy.denominator(y)?))
        };
        let params = ParamsAdam { lr: 0.1, weight_decay: 0.01, decoupled_weight_decay: true, ..Default::default() };
        let mut adam = Adam::new(vec![weight.clone()], params)?;
        let (mut after, mut empty) = (Vec::new(), 0);
        let trainer =
            Trainer { epochs: 3, batch_size, accumulate, shuffle: false, clip_norm: Some(0.1), ..Default::default() };
        trainer.fit_with(&mut adam, &dataset, loss, |_, event| {
            match event {
                Event::Batch { weight: 0.0, loss, .. } if loss.to_scalar::<f64>()?.is_nan() => empty += 1,
                Event::Step { .. } => after.push(weight.as_detached_tensor().copy()?),
                _ => {}
            }
            Ok::<_, Error>(ControlFlow::Continue(()))
        })?;
        // Rows 3, 6 and 7 have no token.
        assert_eq!(
            empty,
            [(6, 0), (3, 0), (2, 3), (1, 9)].into_iter().find(|(size, _)| *size == batch_size).unwrap().1
        );
        let expected = golden("after");
        assert_eq!(after.len(), 6);
        for (i, found) in after.iter().enumerate() {
            let difference = (found - expected.get(i)?)?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(difference < 1e-12, "{batch_size}x{accumulate}, step {i}: {difference}");
        }
        let mean = evaluate(&dataset, batch_size, loss)?;
        assert!((mean - golden("mean").to_scalar::<f64>()?).abs() < 1e-12);
    }
    Ok(())
}

#[test]
fn a_step_without_weight_is_skipped_and_reported() -> Result<()> {
    let x = Tensor::ones((6, 2), DType::F64, &CPU)?;
    // Rows 2 and 3 are padding.
    let dataset = TensorDataset::new(x, Tensor::new(&[0i64, 1, -100, -100, 1, 0], &CPU)?)?;
    let weight = Var::from_tensor(&Tensor::new(&[[0.1, 0.2], [0.3, -0.4]], &CPU)?)?;
    let cross_entropy = CrossEntropyLoss::default();
    let loss =
        |x: &Tensor, y: &Tensor| Ok((cross_entropy.forward(&x.matmul(&weight)?, y)?, cross_entropy.denominator(y)?));
    let mut adam = Adam::new(vec![weight.clone()], ParamsAdam { lr: 0.1, ..Default::default() })?;
    let mut told = Vec::new();
    let mut before = Vec::new();
    let trainer = Trainer { epochs: 1, batch_size: 2, shuffle: false, ..Default::default() };
    trainer.fit_with(&mut adam, &dataset, loss, |adam, event| {
        let now = weight.flatten_all()?.to_vec1::<f64>()?;
        match event {
            Event::Step { completed_steps, .. } => told.push((completed_steps, None)),
            Event::SkippedStep { completed_steps, reason, .. } => {
                assert_eq!((&now, adam.state()?[0].step), (&before, 1));
                told.push((completed_steps, Some(reason)));
            }
            _ => {}
        }
        before = now;
        Ok::<_, Error>(ControlFlow::Continue(()))
    })?;
    assert_eq!(told, [(1, None), (2, Some(SkipReason::ZeroWeight)), (3, None)]);
    let padding = TensorDataset::new(Tensor::ones((2, 2), DType::F64, &CPU)?, Tensor::new(&[-100i64, -100], &CPU)?)?;
    assert!(evaluate(&padding, 2, loss).unwrap_err().to_string().contains("weight of each batch is 0"));
    let error = trainer.fit(&mut adam, &padding, loss).unwrap_err().to_string();
    assert!(error.contains("each batch of epoch 1 has weight 0"), "{error}");
    let huge = |x: &Tensor, y: &Tensor| Ok((loss(x, y)?.0, 1e308));
    assert!(evaluate(&dataset, 2, huge).unwrap_err().to_string().contains("infinity"));
    let error = Trainer { accumulate: 3, ..trainer.clone() }.fit(&mut adam, &dataset, huge).unwrap_err().to_string();
    assert!(error.contains("infinity"), "{error}");
    for bad in [f64::NAN, -1.0, f64::INFINITY] {
        let error = evaluate(&dataset, 2, |x, y| Ok((loss(x, y)?.0, bad))).unwrap_err().to_string();
        assert!(error.contains(&format!("denominator of a loss is {bad}")), "{error}");
    }
    Ok(())
}

/// A `BatchNorm`'s running variance becomes NaN on a batch of one sample.
#[test]
fn drop_last_leaves_out_a_short_batch() -> Result<()> {
    for drop_last in [false, true] {
        let parameters = Parameters::seeded(1);
        let vb = parameters.var_builder(DType::F64, &CPU);
        let norm = candle_nn::batch_norm(2, 1e-5, vb.pp("norm"))?;
        let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam::default())?;
        let mut sizes = Vec::new();
        let trainer = Trainer { epochs: 1, batch_size: 4, drop_last, ..Default::default() };
        let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&norm.forward_train(x)?.sum_keepdim(1)?, y);
        let ended = trainer.fit_with(&mut adam, &samples(9), loss, |_, event| {
            if let Event::Batch { samples, .. } = event {
                sizes.push(samples);
            }
            Ok::<_, Error>(ControlFlow::Continue(()))
        });
        ended?;
        assert_eq!(sizes, if drop_last { vec![4, 4] } else { vec![4, 4, 1] });
        assert_eq!(parameters.are_finite()?, drop_last);
    }
    Ok(())
}

#[test]
fn an_optimizer_of_other_variables_is_an_error() -> Result<()> {
    let weight = Var::new(&[[0f64], [0.0]], &CPU)?;
    let other = Var::new(&[[0f64], [0.0]], &CPU)?;
    let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
    let trainer = Trainer { epochs: 3, batch_size: 4, ..Default::default() };
    let mut adam = Adam::new(vec![other.clone()], ParamsAdam::default())?;
    let error = trainer.fit(&mut adam, &samples(8), loss).unwrap_err().to_string();
    assert!(error.contains("none of the 1 variables of the optimizer"), "{error}");
    let mut sgd = SGD::new(vec![other.clone()], 0.1)?;
    let error = trainer.fit(&mut sgd, &samples(8), loss).unwrap_err().to_string();
    assert!(error.contains("epoch 1 changed none of the variables"), "{error}");
    let mut adamw = AdamW::new(vec![other], ParamsAdamW::default())?;
    assert!(trainer.fit(&mut adamw, &samples(8), loss).is_err());
    // What changes nothing for another reason is no mistake: a learning rate of 0, a gradient of 0, a step below the precision of
    // the variable, and an optimizer that takes every fourth step.
    let converged = Var::new(&[[1f32], [1.0]], &CPU)?;
    let mut sgd = SGD::new(vec![converged.clone()], 1e-2)?;
    trainer.fit(&mut sgd, &samples(8), |x, _| {
        ((x.to_dtype(DType::F32)?.matmul(&converged)? * 1e-7)?.sum_all()? * 1e-3)?.sum_all()
    })?;
    assert_eq!(converged.to_vec2::<f32>()?, [[1.0], [1.0]]);
    let mut patient = EveryFourth { sgd: SGD::new(vec![weight.clone()], 0.1)?, calls: 0 };
    trainer.fit(&mut patient, &samples(8), loss)?;
    assert_ne!(weight.to_vec2::<f64>()?, [[0.0], [0.0]]);
    let mut sgd = SGD::new(vec![weight.clone()], 0.0)?;
    trainer.fit(&mut sgd, &samples(8), loss)?;
    let mut sgd = SGD::new(vec![weight.clone()], 0.1)?;
    trainer.fit(&mut sgd, &samples(8), |x, _| (x.matmul(&weight)? - x.matmul(&weight)?)?.sum_all())?;
    Ok(())
}

struct EveryFourth {
    sgd: SGD,
    calls: usize,
}

impl Optimizer for EveryFourth {
    type Config = f64;

    fn new(vars: Vec<Var>, lr: f64) -> Result<Self> {
        Ok(Self { sgd: SGD::new(vars, lr)?, calls: 0 })
    }

    fn step(&mut self, grads: &candle_core::backprop::GradStore) -> Result<()> {
        self.calls += 1;
        if self.calls.is_multiple_of(4) { self.sgd.step(grads) } else { Ok(()) }
    }

    fn learning_rate(&self) -> f64 {
        self.sgd.learning_rate()
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.sgd.set_learning_rate(lr);
    }
}

/// The last loss of the epoch depends on another variable than the one that becomes NaN.
#[test]
fn every_variable_of_an_epoch_is_checked() -> Result<()> {
    let (a, b) = (Var::new(1f64, &CPU)?, Var::new(1f64, &CPU)?);
    let mut sgd = SGD::new(vec![a.clone(), b.clone()], 0.1)?;
    let loss = |rows: &[u32]| if rows[0] == 0 { a.as_tensor() * f64::NAN } else { b.sqr() };
    let trainer = Trainer { epochs: 1, batch_size: 1, shuffle: false, ..Default::default() };
    let ended = trainer.fit_rows(&mut sgd, 2, loss, |_, _| Ok::<_, Error>(ControlFlow::Continue(())));
    assert!(ended.unwrap_err().to_string().contains("not finite after epoch 1"));
    Ok(())
}

#[test]
fn weights_that_are_not_finite_are_an_error_after_the_epoch() -> Result<()> {
    let weight = Var::new(&[[0f64], [0.0]], &CPU)?;
    let mut sgd = SGD::new(vec![weight.clone()], 1e300)?;
    let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
    let error = Trainer { batch_size: 4, ..Default::default() }.fit(&mut sgd, &samples(16), loss).unwrap_err();
    assert!(error.to_string().contains("not finite after epoch 1"), "{error}");
    Ok(())
}

/// A backbone that is in the graph but not trained does not shrink the steps of the head.
#[test]
fn clipping_counts_the_variables_of_the_optimizer() -> Result<()> {
    let (backbone, head) = (Var::new(&[[1f64, 2.0], [3.0, 4.0]], &CPU)?, Var::new(&[[0.5f64], [0.5]], &CPU)?);
    let step = |backbone: &Tensor, accumulate: usize| -> Result<Vec<f64>> {
        head.set(&Tensor::new(&[[0.5f64], [0.5]], &CPU)?)?;
        // With this eps a step is as good as the gradient times the learning rate.
        let params = ParamsAdam { lr: 1e6, beta1: 0.0, beta2: 0.0, eps: 1e6, ..Default::default() };
        let mut adam = Adam::new(vec![head.clone()], params)?;
        let trainer =
            Trainer { epochs: 1, batch_size: 8 / accumulate, accumulate, clip_norm: Some(0.1), ..Default::default() };
        let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(backbone)?.matmul(&head)?, y);
        trainer.fit(&mut adam, &samples(8), loss)?;
        head.flatten_all()?.to_vec1()
    };
    for accumulate in [1, 4] {
        let (with, without) = (step(&backbone, accumulate)?, step(&backbone.as_detached_tensor(), accumulate)?);
        assert!(near(&with, &without), "{with:?} {without:?}");
        assert!(((with[0] - 0.5).hypot(with[1] - 0.5) - 0.1).abs() < 1e-6, "{with:?}");
    }
    Ok(())
}

#[test]
fn fit_rows_visits_the_same_batches_as_fit() -> Result<()> {
    let dataset = samples(25);
    let trainer = Trainer { epochs: 3, batch_size: 4, accumulate: 2, ..Default::default() };
    let weight = Var::new(&[[0.5f64], [-0.5]], &CPU)?;
    let mut sgd = SGD::new(vec![weight.clone()], 0.05)?;
    let mut seen = Vec::new();
    let loss = |rows: &[u32]| {
        seen.extend(rows.to_vec());
        let (x, y) = dataset.select(rows)?;
        MseLoss::default().forward(&x.matmul(&weight)?, &y)
    };
    trainer.fit_rows(&mut sgd, dataset.len(), loss, |_, _| Ok::<_, Error>(ControlFlow::Continue(())))?;
    assert_eq!(weight.flatten_all()?.to_vec1::<f64>()?, trained(&trainer, &dataset, false));
    for epoch in seen.chunks(25) {
        let mut rows = epoch.to_vec();
        rows.sort();
        assert_eq!(rows, (0..25).collect::<Vec<_>>());
    }
    assert!(dataset.select(&[25]).unwrap_err().to_string().contains("no sample 25 among 25"));
    Ok(())
}

/// Loss scaling must not change a step. Steps whose gradients overflow are skipped; an epoch of only such steps is an error.
#[test]
fn a_scaled_loss_steps_the_same_and_skips_overflows() -> Result<()> {
    let scaled = |loss_scale| Trainer { epochs: 2, batch_size: 4, accumulate: 2, loss_scale, ..Default::default() };
    assert_eq!(trained(&scaled(Some(1024.0)), &samples(25), false), trained(&scaled(None), &samples(25), false));
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let weight = Var::new(&[[0f64], [0.0]], &CPU)?;
        let mut sgd = SGD::new(vec![weight.clone()], 0.1)?;
        let loss = |x: &Tensor, _: &Tensor| x.matmul(&weight)?.sum_all();
        let error = scaled(Some(bad)).fit(&mut sgd, &samples(8), loss).unwrap_err().to_string();
        assert!(error.contains(&format!("loss_scale is {bad}")), "{error}");
    }

    let weight = Var::from_tensor(&Tensor::ones((2, 1), DType::F16, &CPU)?)?;
    let run = |scales: [f64; 2], completed_steps: usize| -> Result<Vec<bool>> {
        let mut adam = Adam::new(vec![weight.clone()], ParamsAdam::default())?;
        let mut steps = Vec::new();
        // The second batch has a gradient that overflows.
        let loss = |rows: &[u32]| {
            let x = Tensor::full(scales[rows[0] as usize] as f32, (1, 2), &CPU)?.to_dtype(DType::F16)?;
            x.matmul(&weight)?.sum_all()
        };
        let trainer = Trainer {
            epochs: 1,
            batch_size: 1,
            shuffle: false,
            loss_scale: Some(16384.0),
            completed_steps,
            ..Default::default()
        };
        trainer.fit_rows(&mut adam, 2, loss, |adam, event| {
            match event {
                Event::Step { .. } => steps.push(true),
                Event::SkippedStep { reason: SkipReason::NonFiniteGradient, .. } => steps.push(false),
                _ => return Ok(ControlFlow::Continue(())),
            }
            assert_eq!(adam.state()?[0].step, steps.iter().filter(|step| **step).count());
            Ok::<_, Error>(ControlFlow::Continue(()))
        })?;
        Ok(steps)
    };
    assert_eq!(run([1.0, 8.0], 0)?, [true, false]);
    assert!(run([8.0, 8.0], 0).unwrap_err().to_string().contains("smaller loss_scale"));
    // Resumed after the first step, the epoch is not one of overflows alone.
    assert_eq!(run([1.0, 8.0], 1)?, [false]);
    Ok(())
}

/// A batch of one token before one of 4096: in `f16` their ratio times the loss scale is infinite.
#[test]
fn batches_of_very_different_weight_do_not_overflow() -> Result<()> {
    let weight = Var::from_tensor(&Tensor::ones((2, 1), DType::F16, &CPU)?)?;
    let mut adam = Adam::new(vec![weight.clone()], ParamsAdam { lr: 0.125, ..Default::default() })?;
    let loss = |rows: &[u32]| {
        let x = Tensor::ones((1, 2), DType::F16, &CPU)?;
        Ok((x.matmul(&weight)?.sum_all()?, [1.0, 4096.0][rows[0] as usize]))
    };
    let trainer = Trainer {
        epochs: 1,
        batch_size: 1,
        accumulate: 2,
        shuffle: false,
        loss_scale: Some(1024.0),
        ..Default::default()
    };
    trainer.fit_rows(&mut adam, 2, loss, |_, _| Ok::<_, Error>(ControlFlow::Continue(())))?;
    assert_eq!(weight.to_dtype(DType::F32)?.to_vec2::<f32>()?, [[0.875], [0.875]]);
    Ok(())
}

/// In half precision, the accuracy on the bundled digits is within one percentage point of the accuracy in `f32`.
#[test]
fn half_precision_learns_the_digits_as_well() -> anyhow::Result<()> {
    let data = candle_losses::data::digits(&CPU)?;
    let accuracy = |dtype: DType, loss_scale: Option<f64>| -> Result<f64> {
        let parameters = Parameters::seeded(42);
        let model = mlp(&[784, 32, 10], OutputActivation::Linear, parameters.var_builder(dtype, &CPU))?;
        let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam { lr: 1e-3, ..Default::default() })?;
        let loss = CrossEntropyLoss::default();
        let trainer = Trainer { epochs: 1, loss_scale, ..Default::default() };
        trainer
            .fit(&mut adam, &data.train.take(20_000)?, |x, y| loss.forward(&model.forward(&x.to_dtype(dtype)?)?, y))?;
        let model = mlp(&[784, 32, 10], OutputActivation::Linear, parameters.detached_var_builder(dtype, &CPU))?;
        let wrong = evaluate(&data.test, 1000, |x, y| {
            model.forward(&x.to_dtype(dtype)?)?.argmax(1)?.ne(y)?.to_dtype(DType::F64)?.mean_all()
        })?;
        Ok(1.0 - wrong)
    };
    let single = accuracy(DType::F32, None)?;
    for (dtype, loss_scale) in [(DType::F16, Some(1024.0)), (DType::BF16, None)] {
        let half = accuracy(dtype, loss_scale)?;
        println!("{dtype:?}: {:.2} %, F32: {:.2} %", 100.0 * half, 100.0 * single);
        assert!((half - single).abs() < 0.01, "{dtype:?}: {half}, F32: {single}");
    }
    assert!(single > 0.75, "{single}");
    Ok(())
}

/// Dropout, running statistics, clipping and early stopping: a run that is stopped after any epoch and continued from a checkpoint
/// ends with the same bits.
#[test]
fn a_resumed_run_ends_with_the_same_bits() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("checkpoint");
    let run = |epochs: usize, resumes: bool| -> Result<(Vec<Vec<f64>>, Vec<f64>)> {
        let parameters = Parameters::seeded(3);
        let build = |vb: VarBuilder| {
            Ok::<_, Error>((
                candle_nn::linear(2, 8, vb.pp("hidden"))?,
                candle_nn::batch_norm(8, 1e-5, vb.pp("norm"))?,
                candle_nn::linear(8, 1, vb.pp("output"))?,
            ))
        };
        let (hidden, norm, output) = build(parameters.var_builder(DType::F64, &CPU))?;
        let evaluated = build(parameters.detached_var_builder(DType::F64, &CPU))?;
        let dropout = parameters.dropout(0.2)?;
        let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam { lr: 0.01, ..Default::default() })?;
        let mut stopping = EarlyStopping::new(parameters.all_vars(), 50);
        let mut trainer = Trainer { epochs, batch_size: 8, clip_norm: Some(1.0), ..Default::default() };
        if resumes {
            let checkpoint = Checkpoint::load(&path)?;
            checkpoint.restore(&parameters, &mut adam)?;
            stopping.load_state(&checkpoint.tensors)?;
            trainer.completed_steps = checkpoint.completed_steps;
        }
        let mut losses = Vec::new();
        let loss = |x: &Tensor, y: &Tensor| {
            let x = dropout.forward_t(&norm.forward_t(&hidden.forward(x)?, true)?.relu()?, true)?;
            MseLoss::default().forward(&output.forward(&x)?, y)
        };
        let (validation, draws) = (samples(30), parameters.clone());
        trainer.fit_with(&mut adam, &samples(40), loss, |adam, event| {
            if let Event::Step { completed_steps, .. } = event {
                adam.set_learning_rate(0.01 / (1.0 + completed_steps as f64));
            }
            if let Event::Epoch { completed_steps, .. } = event {
                let before = draws.dropout_draws();
                let current = evaluate(&validation, 16, |x, y| {
                    let (hidden, norm, output) = &evaluated;
                    let x = norm.forward_t(&hidden.forward(x)?, false)?.relu()?;
                    MseLoss::default().forward(&output.forward(&x)?, y)
                })?;
                assert_eq!(draws.dropout_draws(), before);
                losses.push(current);
                stopping.should_stop(current)?;
                let mut checkpoint = Checkpoint::new(&parameters, adam, completed_steps)?;
                checkpoint.tensors.extend(stopping.state()?);
                checkpoint.save(&path)?;
            }
            Ok::<_, Error>(ControlFlow::Continue(()))
        })?;
        stopping.restore()?;
        let values = parameters.all_vars().into_iter().map(|var| var.flatten_all()?.to_vec1::<f64>());
        Ok((values.collect::<Result<_>>()?, losses))
    };
    let (whole, losses) = run(6, false)?;
    for epochs in [1, 3, 5] {
        let (_, first) = run(epochs, false)?;
        let (resumed, rest) = run(6, true)?;
        assert_eq!((resumed, [first, rest].concat()), (whole.clone(), losses.clone()), "{epochs}");
    }
    Ok(())
}

#[test]
fn early_stopping_keeps_statistics_and_refuses_other_states() -> Result<()> {
    let parameters = Parameters::seeded(1);
    let norm = candle_nn::batch_norm(2, 1e-5, parameters.var_builder(DType::F64, &CPU).pp("norm"))?;
    let mut stopping = EarlyStopping::new(parameters.all_vars(), 2);
    let values = || parameters.all_vars().iter().map(|var| var.to_vec1::<f64>()).collect::<Result<Vec<_>>>();
    norm.forward_train(&samples(8).batch(None, 0, 8)?.0)?;
    let best = values()?;
    assert!(!stopping.should_stop(1.0)?);
    norm.forward_train(&(samples(8).batch(None, 0, 8)?.0 + 100.0)?)?;
    assert!(!stopping.should_stop(2.0)? && stopping.should_stop(f64::NAN)?);
    assert_ne!(values()?, best);
    stopping.restore()?;
    assert_eq!(values()?, best);

    let state = stopping.state()?;
    let mut other = EarlyStopping::new(parameters.all_vars(), 2);
    other.load_state(&state)?;
    assert!(other.is_stopped() && other.epochs() == 3 && other.best().unwrap().loss == 1.0);
    // After loading, `should_stop` continues to count; loading an empty state starts over.
    assert!(other.should_stop(3.0)?);
    other.load_state(&Default::default())?;
    assert!(other.best().is_none() && other.epochs() == 0 && !other.should_stop(5.0)?);
    for numbers in
        [[0.0, 0.0, 1.0], [3.0, 4.0, 1.0], [3.0, 0.0, 1.0], [2.5, 1.0, 1.0], [f64::NAN, 1.0, 1.0], [1e300, 1.0, 1.0]]
    {
        let mut bad = state.clone();
        bad.insert("early_stopping".into(), Tensor::new(&numbers, &CPU)?);
        let error = other.load_state(&bad).unwrap_err().to_string();
        assert!(error.contains("early_stopping is"), "{error}");
        assert_eq!(other.epochs(), 1);
    }
    let mut bad = state.clone();
    bad.insert("early_stopping.best.1".into(), Tensor::new(&[1.0, 2.0, 3.0], &CPU)?);
    assert!(other.load_state(&bad).unwrap_err().to_string().contains("early_stopping.best.1 is F64 of shape [3]"));
    let mut fewer = EarlyStopping::new(parameters.trainable_vars(), 2);
    assert!(fewer.load_state(&state).unwrap_err().to_string().contains("more than 2 variables"));
    Ok(())
}

#[test]
fn a_checkpoint_of_another_run_is_an_error_and_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("checkpoint");
    let build = |parts: &[(&str, usize)], seed: u64| -> Result<(Parameters, Adam)> {
        let parameters = Parameters::seeded(seed);
        for (name, outputs) in parts {
            candle_nn::linear(2, *outputs, parameters.var_builder(DType::F32, &CPU).pp(name))?;
        }
        let adam = Adam::new(parameters.trainable_vars(), ParamsAdam::default())?;
        Ok((parameters, adam))
    };
    let step = |parameters: &Parameters, adam: &mut Adam| -> Result<()> {
        let sums = parameters.trainable_vars().iter().map(|var| var.sqr()?.sum_all()).collect::<Result<Vec<_>>>()?;
        adam.backward_step(&Tensor::stack(&sums, 0)?.sum_all()?)
    };
    let state = |parameters: &Parameters, adam: &Adam| -> Result<Vec<Vec<f32>>> {
        let vars = parameters.all_vars().into_iter().map(|var| var.as_detached_tensor());
        let moments = adam.state()?.into_iter().flat_map(|state| [state.exp_avg, state.exp_avg_sq]);
        vars.chain(moments).map(|tensor| tensor.flatten_all()?.to_vec1()).collect()
    };
    let (saved, mut adam) = build(&[("a", 2), ("b", 3)], 1)?;
    step(&saved, &mut adam)?;
    save_checkpoint(&path, &saved, &adam, 7)?;
    let (other, mut other_adam) = build(&[("a", 2), ("b", 3)], 2)?;
    assert_eq!(load_checkpoint(&path, &other, &mut other_adam)?, 7);
    assert_eq!(state(&other, &other_adam)?, state(&saved, &adam)?);

    let refused = |parameters: &Parameters, adam: &mut Adam, part: &str| -> Result<()> {
        step(parameters, adam)?;
        let before = state(parameters, adam)?;
        let error = load_checkpoint(&path, parameters, adam).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("checkpoint"), "{error}");
        assert_eq!(state(parameters, adam)?, before);
        Ok(())
    };
    for (parts, part) in [
        (&[("a", 2)][..], "also holds b.bias"),
        (&[("a", 2), ("b", 3), ("c", 1)], "no tensor c.bias"),
        (&[("a", 2), ("b", 4)], "b.bias is F32 of shape [3]"),
    ] {
        let (parameters, mut adam) = build(parts, 3)?;
        refused(&parameters, &mut adam, part)?;
    }
    // A part was frozen, in the file or now.
    let (parameters, _) = build(&[("a", 2), ("b", 3)], 3)?;
    parameters.pp("b").freeze();
    let mut frozen = Adam::new(parameters.trainable_vars(), ParamsAdam::default())?;
    refused(&parameters, &mut frozen, "Adam state for b.bias")?;
    save_checkpoint(&path, &parameters, &frozen, 1)?;
    let (parameters, mut adam) = build(&[("a", 2), ("b", 3)], 3)?;
    refused(&parameters, &mut adam, "no Adam state for b.bias")?;
    let (_, stranger) = build(&[("a", 2)], 4)?;
    assert!(
        save_checkpoint(&path, &parameters, &stranger, 1).unwrap_err().to_string().contains("not one of the param")
    );
    // Names that are not free, and counts that are out of range.
    let mut checkpoint = Checkpoint::new(&saved, &Adam::new(saved.trainable_vars(), ParamsAdam::default())?, 1)?;
    for name in ["run", "parameters.mine", "adam.mine"] {
        checkpoint.tensors = [(name.to_owned(), Tensor::new(1f32, &CPU)?)].into();
        assert!(
            checkpoint.to_bytes().unwrap_err().to_string().contains(&format!("{name} of a checkpoint needs another"))
        );
    }
    checkpoint.tensors.clear();
    checkpoint.completed_steps = usize::MAX;
    assert!(checkpoint.to_bytes().unwrap_err().to_string().contains("can't hold"));
    // A message does not print a tensor: this one has 2⁴⁰ rows and no element.
    let rows = vec![1 << 40, 0];
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, rows, &[]).unwrap();
    let bytes = safetensors::serialize([("run", &view), ("adam.learning_rate", &view)], None).unwrap();
    let error = Checkpoint::from_bytes(&bytes).unwrap_err().to_string();
    assert!(error.contains("[1099511627776, 0]") && error.len() < 100_000, "{error}");
    // Weights alone, and a file cut anywhere.
    parameters.save(&path)?;
    refused(&parameters, &mut adam, "no tensor run")?;
    save_checkpoint(&path, &parameters, &adam, 1)?;
    let bytes = std::fs::read(&path)?;
    for cut in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut])?;
        refused(&parameters, &mut adam, "")?;
    }
    Ok(())
}
