//! The training loop with models and optimizers that are not this crate's.

use candle_core::{DType, Device, Error, Module, Result, Tensor, Var};
use candle_losses::data::TensorDataset;
use candle_losses::loss::{CrossEntropyLoss, MseLoss};
use candle_losses::{Adam, Event, OutputActivation, Parameters, ParamsAdam, Trainer, mlp};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, SGD, VarBuilder, VarMap};
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

/// A weight, what `f` makes of it, and the weight after that.
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
fn a_training_goes_on_to_the_same_end() {
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
fn an_error_or_a_break_of_the_observer_ends_the_run() {
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
fn an_observer_is_told_of_batches_steps_and_epochs_in_turn() {
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
fn this_crates_adam_trains_a_model_of_parameters_in_every_float() -> anyhow::Result<()> {
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
fn what_can_not_be_trained_is_one_clear_error() {
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

/// What has nothing to train on is over at once, and says nothing.
#[test]
fn no_samples_or_no_epochs_are_no_error() -> Result<()> {
    let none = samples(3).take(0)?;
    let weight = Var::new(&[[0f64], [0.0]], &CPU)?;
    let mut sgd = SGD::new(vec![weight.clone()], 0.05)?;
    let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
    Trainer::default().fit(&mut sgd, &none, loss)?;
    Trainer { epochs: 0, ..Default::default() }.fit(&mut sgd, &samples(3), loss)?;
    assert_eq!(weight.to_vec2::<f64>()?, [[0.0], [0.0]]);
    assert!(none.is_empty());
    Ok(())
}
