//! The training loop with models and optimizers that are not this crate's.

use candle_core::{DType, Device, Error, Module, Result, Tensor, Var};
use candle_losses::data::Samples;
use candle_losses::loss::{CrossEntropyLoss, MseLoss};
use candle_losses::{Activation, Adam, Event, Parameters, ParamsAdam, Training, mlp};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, SGD, VarBuilder, VarMap};

const CPU: Device = Device::Cpu;

/// `y = 2 x1 - x2 + noise`, in `f64`.
fn samples(n: usize) -> Samples {
    let numbers = (0..n).map(|i| {
        let (a, b) = ((i * 37 % 101) as f64 / 50.0 - 1.0, (i * 61 % 97) as f64 / 48.0 - 1.0);
        ([a, b], 2.0 * a - b + ((i * 13 % 7) as f64 - 3.0) / 30.0)
    });
    let (x, y): (Vec<_>, Vec<_>) = numbers.unzip();
    let y = Tensor::new(y.as_slice(), &CPU).unwrap().unsqueeze(1).unwrap();
    Samples::new(Tensor::from_iter(x.into_iter().flatten(), &CPU).unwrap().reshape((n, 2)).unwrap(), y).unwrap()
}

/// A weight, what `f` makes of it, and the weight after that.
fn trained(training: &Training, samples: &Samples, sum: bool) -> Vec<f64> {
    let weight = Var::new(&[[0.5f64], [-0.5]], &CPU).unwrap();
    let mut sgd = SGD::new(vec![weight.clone()], 0.05).unwrap();
    let reduction = if sum { candle_losses::loss::Reduction::Sum } else { Default::default() };
    let loss = |x: &Tensor, y: &Tensor| MseLoss { reduction }.forward(&x.matmul(&weight)?, y);
    training.run(&mut sgd, samples, loss).unwrap();
    weight.flatten_all().unwrap().to_vec1().unwrap()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
}

#[test]
fn an_accumulated_step_is_that_of_one_large_batch() {
    // 25 in batches of 4: groups of 3 batches, of which the last has one of 1.
    let small = Training { epochs: 3, batch_size: 4, accumulate: 3, ..Default::default() };
    let large = Training { epochs: 3, batch_size: 12, ..Default::default() };
    let (accumulated, whole) = (trained(&small, &samples(25), false), trained(&large, &samples(25), false));
    assert!(near(&accumulated, &whole), "{accumulated:?} {whole:?}");
    let each = Training { epochs: 3, batch_size: 4, ..Default::default() };
    assert!(!near(&accumulated, &trained(&each, &samples(25), false)));
}

#[test]
fn clipping_bounds_a_step_and_leaves_a_small_one() {
    let one = Training { epochs: 1, batch_size: 50, ..Default::default() };
    let step = |training: &Training| {
        let after = trained(training, &samples(50), true);
        (after[0] - 0.5).hypot(after[1] + 0.5) / 0.05
    };
    let free = step(&one);
    let clipped = step(&Training { clip_norm: Some(1.5), ..one.clone() });
    assert!(free > 1.5 && (clipped - 1.5).abs() < 1e-6, "{free} {clipped}");
    assert_eq!(step(&Training { clip_norm: Some(1e6), ..one.clone() }), free);
}

#[test]
fn a_training_goes_on_to_the_same_end() {
    let whole = Training { epochs: 4, batch_size: 4, accumulate: 2, ..Default::default() };
    let samples = samples(22);
    let end = trained(&whole, &samples, false);
    // Three steps in an epoch: 7 is after the first of the third.
    for taken in [1, 3, 7, 12] {
        let weight = Var::new(&[[0.5f64], [-0.5]], &CPU).unwrap();
        let mut sgd = SGD::new(vec![weight.clone()], 0.05).unwrap();
        let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
        let stop = whole.observed(&mut sgd, &samples, loss, |_, event| match event {
            Event::Step { taken: now, .. } if now == taken => Err(Error::Msg("stop".into())),
            _ => Ok(()),
        });
        assert!(stop.unwrap_err().to_string().contains("stop"));
        let mut told = Vec::new();
        let rest = Training { taken, ..whole.clone() };
        rest.observed(&mut sgd, &samples, loss, |_, event| {
            if let Event::Step { taken, .. } = event {
                told.push(taken);
            }
            Ok::<_, Error>(())
        })
        .unwrap();
        assert_eq!(told, (taken + 1..=12).collect::<Vec<_>>());
        assert_eq!(weight.flatten_all().unwrap().to_vec1::<f64>().unwrap(), end);
    }
}

#[test]
fn an_observer_is_told_of_batches_steps_and_epochs_in_turn() {
    let weight = Var::new(&[[0f64], [0.0]], &CPU).unwrap();
    let mut sgd = SGD::new(vec![weight.clone()], 0.05).unwrap();
    let mut told = Vec::new();
    Training { epochs: 2, batch_size: 4, accumulate: 2, ..Default::default() }
        .observed(
            &mut sgd,
            &samples(10),
            |x, y| MseLoss::default().forward(&x.matmul(&weight)?, y),
            |sgd, event| {
                assert_eq!(sgd.learning_rate(), 0.05);
                told.push(match event {
                    Event::Batch { epoch, samples, loss } => format!("{epoch}:{samples}{:?}", loss.dims()),
                    Event::Step { epoch, taken } => format!("{epoch}:step {taken}"),
                    Event::Epoch { epoch, taken } => format!("{epoch}:epoch {taken}"),
                });
                Ok::<_, Error>(())
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
    Training { epochs: 1, ..Default::default() }.run(&mut adam, &data.train, |x, y| loss.forward(&model(x)?, y))?;
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
        let model = mlp(&[2, 8, 1], Activation::Linear, parameters.builder(dtype, &CPU))?;
        let mut adam = Adam::new(parameters.vars(), ParamsAdam { lr: 0.01, ..Default::default() })?;
        let mut losses = Vec::new();
        Training { epochs: 30, batch_size: 20, clip_norm: Some(5.0), ..Default::default() }.observed(
            &mut adam,
            &samples,
            |x, y| MseLoss::default().forward(&model.forward(&x.to_dtype(dtype)?)?, &y.to_dtype(dtype)?),
            |_, event| {
                if let Event::Batch { loss, .. } = event {
                    losses.push(loss.to_dtype(DType::F64)?.to_scalar::<f64>()?);
                }
                Ok::<_, Error>(())
            },
        )?;
        assert!(losses[losses.len() - 1] < losses[0] / 20.0, "{losses:?}");
    }
    Ok(())
}

#[test]
fn what_can_not_be_trained_is_one_clear_error() {
    let weight = Var::new(&[[0f64], [0.0]], &CPU).unwrap();
    let refused = |training: Training, shape: &[usize]| {
        let mut sgd = SGD::new(vec![weight.clone()], 0.05).unwrap();
        let loss = |x: &Tensor, _: &Tensor| x.matmul(&weight)?.sum_all()?.broadcast_as(shape);
        training.run(&mut sgd, &samples(10), loss).unwrap_err().to_string()
    };
    let error = refused(Training { batch_size: 0, ..Default::default() }, &[]);
    assert!(error.contains("batch_size is 0"), "{error}");
    let error = refused(Training { accumulate: 0, ..Default::default() }, &[]);
    assert!(error.contains("accumulate 0"), "{error}");
    for norm in [0.0, -1.0, f64::NAN] {
        let error = refused(Training { clip_norm: Some(norm), ..Default::default() }, &[]);
        assert!(error.contains("clip_norm is") && error.contains("positive"), "{error}");
    }
    let error = refused(Training::default(), &[2]);
    assert!(error.contains("shape [2]") && error.contains("scalar"), "{error}");
    let zeros = |n: usize| Tensor::zeros((n, 2), DType::F32, &CPU).unwrap();
    let error = Samples::new(zeros(3), zeros(2)).unwrap_err().to_string();
    assert!(error.contains("3 samples but 2 targets"), "{error}");
}

/// What has nothing to train on is over at once, and says nothing.
#[test]
fn no_samples_or_no_epochs_are_no_error() -> Result<()> {
    let none = samples(3).take(0)?;
    let weight = Var::new(&[[0f64], [0.0]], &CPU)?;
    let mut sgd = SGD::new(vec![weight.clone()], 0.05)?;
    let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
    Training::default().run(&mut sgd, &none, loss)?;
    Training { epochs: 0, ..Default::default() }.run(&mut sgd, &samples(3), loss)?;
    assert_eq!(weight.to_vec2::<f64>()?, [[0.0], [0.0]]);
    assert!(none.is_empty());
    Ok(())
}
