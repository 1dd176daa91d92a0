//! Adam and AdamW against PyTorch, step by step, for variables that get gradients at different steps, in every float dtype
//! (`tests/golden/make_training.py`).

mod common;

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var};
use candle_losses::{Adam, AdamState, ParamsAdam};
use candle_nn::Optimizer;
use common::device;
use std::collections::HashMap;

const STEPS: usize = 12;
/// PyTorch's numbers for `extremes_match_pytorch`.
const EXTREMES: [f64; 4] = [-100.0, -1.9999, -3.0, -2.188015];
const VARIABLES: [&str; 3] = ["always", "late", "rarely"];

fn has_gradient(variable: &str, step: usize) -> bool {
    match variable {
        "always" => true,
        "late" => step >= 4,
        _ => [2, 7, 11].contains(&step),
    }
}

fn optimizers() -> [(&'static str, ParamsAdam); 3] {
    let others = ParamsAdam { lr: 0.05, beta1: 0.8, beta2: 0.99, eps: 1e-3, weight_decay: 0.1, ..Default::default() };
    [
        ("adam", ParamsAdam { lr: 0.1, ..Default::default() }),
        ("adam_l2", others.clone()),
        ("adamw", ParamsAdam { decoupled_weight_decay: true, ..others }),
    ]
}

/// The variables of one dtype and their gradients.
struct Golden {
    dtype: &'static str,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn new(dtype: &'static str) -> Self {
        let bytes = include_bytes!("golden/training.safetensors");
        Self { dtype, tensors: candle_core::safetensors::load_buffer(bytes, &device()).unwrap() }
    }

    fn get(&self, name: &str) -> &Tensor {
        &self.tensors[&format!("{}.{name}", self.dtype)]
    }

    fn variables(&self) -> Vec<Var> {
        VARIABLES.map(|name| Var::from_tensor(self.get(&format!("{name}.start"))).unwrap()).to_vec()
    }

    fn step(&self, adam: &mut Adam, vars: &[Var], step: usize) -> Result<()> {
        let mut grads = GradStore::default();
        for (name, var) in VARIABLES.iter().zip(vars).filter(|(name, _)| has_gradient(name, step)) {
            grads.insert(var, self.get(&format!("{name}.grads")).get(step - 1)?);
        }
        adam.step(&grads)
    }
}

fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_near(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    for (found, expected) in values(found).iter().zip(values(expected)) {
        assert!((found - expected).abs() <= tolerance * expected.abs().max(0.1), "{what}: {found}, not {expected}");
    }
}

/// Half-precision values may differ by one rounding step, because the master weights may differ in the last bit.
#[test]
fn steps_match_pytorch_in_every_dtype() -> Result<()> {
    for (dtype, tolerance, copy_tolerance) in
        [("f64", 1e-13, 1e-13), ("f32", 3e-6, 3e-6), ("f16", 1e-3, 3e-6), ("bf16", 8e-3, 3e-6)]
    {
        let golden = Golden::new(dtype);
        for (optimizer, params) in optimizers() {
            let vars = golden.variables();
            let mut adam = Adam::new(vars.clone(), params)?;
            for step in 1..=STEPS {
                golden.step(&mut adam, &vars, step)?;
                for (name, var) in VARIABLES.iter().zip(&vars) {
                    let expected = golden.get(&format!("{name}.{optimizer}")).get(step - 1)?;
                    assert_near(&format!("{dtype} {optimizer} {name}, step {step}"), var, &expected, tolerance);
                }
            }
            for (name, state) in VARIABLES.iter().zip(adam.state()?) {
                let steps = (1..=STEPS).filter(|step| has_gradient(name, *step)).count();
                assert_eq!(state.step, steps, "{name}");
                let what = format!("{dtype} {optimizer} {name}");
                for (moment, found) in [("exp_avg", &state.exp_avg), ("exp_avg_sq", &state.exp_avg_sq)] {
                    let expected = golden.get(&format!("{name}.{optimizer}.{moment}"));
                    assert_eq!(found.dtype(), expected.dtype());
                    for (found, expected) in values(found).iter().zip(values(expected)) {
                        assert!(
                            (found - expected).abs() <= copy_tolerance * expected.abs().max(1e-2),
                            "{what} {moment}"
                        );
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_loaded_state_continues_to_the_same_bits() -> Result<()> {
    for dtype in ["f64", "f32", "f16", "bf16"] {
        let golden = Golden::new(dtype);
        for (_, params) in optimizers() {
            let vars = golden.variables();
            let mut adam = Adam::new(vars.clone(), params.clone())?;
            for step in 1..=6 {
                golden.step(&mut adam, &vars, step)?;
            }
            let copies = vars.iter().map(|var| Var::from_tensor(&var.as_detached_tensor().copy()?));
            let copies = copies.collect::<Result<Vec<_>>>()?;
            let mut other = Adam::new(copies.clone(), params)?;
            other.load_state(&adam.state()?)?;
            for step in 7..=STEPS {
                golden.step(&mut adam, &vars, step)?;
                golden.step(&mut other, &copies, step)?;
            }
            for (var, copy) in vars.iter().zip(&copies) {
                assert_eq!(values(var), values(copy), "{dtype}");
            }
        }
    }
    Ok(())
}

/// A variable that first appears at step 4 moves by the whole learning rate there.
#[test]
fn a_late_variable_starts_with_a_full_step() -> Result<()> {
    let (early, late) = (Var::new(&[1f32], &device())?, Var::new(&[1f32], &device())?);
    let mut adam = Adam::new(vec![early.clone(), late.clone()], ParamsAdam { lr: 0.1, ..Default::default() })?;
    for step in 1..=4 {
        let loss = if step < 4 { early.sum_all()? } else { (&early.sum_all()? + late.sum_all()?)? };
        adam.backward_step(&loss)?;
    }
    assert!((late.to_vec1::<f32>()?[0] - 0.9).abs() < 1e-6);
    Ok(())
}

/// 1000 steps of 1e-4 move a weight of 1 by 0.1. In `f16` and `bf16` alone none of them would move it, and the square of a gradient
/// of 1e-4 would be 0 in `f16`.
#[test]
fn small_steps_and_gradients_are_not_lost_in_half_precision() -> Result<()> {
    for dtype in [DType::F16, DType::BF16] {
        let x = Var::from_tensor(&Tensor::ones(3, dtype, &device())?)?;
        let mut adam = Adam::new(vec![x.clone()], ParamsAdam { lr: 1e-4, ..Default::default() })?;
        let mut grads = GradStore::default();
        grads.insert(&x, Tensor::full(1e-4f32, 3, &device())?.to_dtype(dtype)?);
        for _ in 0..1000 {
            adam.step(&grads)?;
        }
        assert!(values(&x).iter().all(|x| (x - 0.9).abs() < 4e-3), "{dtype:?}: {:?}", values(&x));
        // The next step starts from the values that were set, and for the other elements from the master weights.
        let before = values(&adam.state()?[0].master_weights.clone().unwrap());
        x.set(&Tensor::new(&[5f32, values(&x)[1] as f32, 7.0], &device())?.to_dtype(dtype)?)?;
        adam.step(&grads)?;
        let after = values(&adam.state()?[0].master_weights.clone().unwrap());
        for (found, expected) in after.iter().zip([5.0, before[1], 7.0]) {
            assert!((found - (expected - 1e-4)).abs() < 1e-6, "{dtype:?}: {found} after {expected}");
        }
    }
    Ok(())
}

/// On a GPU small variables step as one tensor: more of them than fit into one, of several shapes.
#[test]
fn many_variables_step_as_each_alone() -> Result<()> {
    let size = |i: usize| [1, 7, 600_000, 3, 500_000][i % 5];
    let var = |i: usize| Var::from_tensor(&(Tensor::arange(0f64, size(i) as f64, &device())?.sin()? * (i + 1) as f64)?);
    let vars = (0..10).map(var).collect::<Result<Vec<_>>>()?;
    let alone = (0..10).map(var).collect::<Result<Vec<_>>>()?;
    let loss = |vars: &[Var]| -> Result<Tensor> {
        let sums = vars.iter().map(|var| var.sqr()?.sum_all()).collect::<Result<Vec<_>>>()?;
        Tensor::stack(&sums, 0)?.sum_all()
    };
    let mut together = Adam::new(vars.clone(), ParamsAdam { lr: 0.1, ..Default::default() })?;
    let each = alone.iter().map(|var| Adam::new(vec![var.clone()], ParamsAdam { lr: 0.1, ..Default::default() }));
    let mut each = each.collect::<Result<Vec<_>>>()?;
    for _ in 0..2 {
        together.step(&loss(&vars)?.backward()?)?;
        let grads = loss(&alone)?.backward()?;
        each.iter_mut().try_for_each(|adam| adam.step(&grads))?;
    }
    for (a, b) in vars.iter().zip(&alone) {
        assert_eq!(values(a), values(b));
    }
    Ok(())
}

/// On the CPU a large variable is shared among threads: its elements step as in a small variable.
#[test]
fn a_large_variable_steps_as_a_small_one() -> Result<()> {
    let all = Tensor::arange(0f32, 300_001.0, &device())?.sin()?;
    for start in [0, 65_530, 131_066, 150_000, 299_990] {
        let part = all.narrow(0, start, 11)?;
        let (large, small) = (Var::from_tensor(&all)?, Var::from_tensor(&part)?);
        let params = ParamsAdam { lr: 0.1, weight_decay: 0.1, ..Default::default() };
        let mut adams = [&large, &small].map(|var| Adam::new(vec![var.clone()], params.clone()).unwrap());
        for _ in 0..3 {
            adams[0].backward_step(&large.sqr()?.sum_all()?)?;
            adams[1].backward_step(&small.sqr()?.sum_all()?)?;
        }
        assert_eq!(values(&large.narrow(0, start, 11)?), values(&small), "{start}");
    }
    Ok(())
}

#[test]
fn invalid_gradients_and_states_are_rejected() -> Result<()> {
    for dtype in [DType::F32, DType::F64, DType::F16] {
        let (x, y) = (Tensor::ones(2, dtype, &device())?, Tensor::ones((2, 3), dtype, &device())?);
        let (x, y) = (Var::from_tensor(&x)?, Var::from_tensor(&y)?);
        let twice = Adam::new(vec![x.clone(), y.clone(), x.clone()], ParamsAdam::default()).unwrap_err().to_string();
        assert!(twice.contains("shape [2] is listed twice"), "{twice}");

        let mut adam = Adam::new(vec![x.clone(), y.clone()], ParamsAdam::default())?;
        let mut grads = GradStore::default();
        grads.insert(&x, Tensor::ones(2, dtype, &device())?);
        grads.insert(&y, Tensor::ones((3, 2), dtype, &device())?);
        let error = adam.step(&grads).unwrap_err().to_string();
        assert!(error.contains("of shape [3, 2]") && error.contains("[2, 3]"), "{error}");
        grads.insert(&y, Tensor::ones((2, 3), dtype, &device())?);
        for lr in [f64::NAN, -1.0, f64::INFINITY] {
            adam.set_learning_rate(lr);
            assert!(adam.step(&grads).unwrap_err().to_string().contains(&format!("lr is {lr}")));
        }
        assert_eq!((values(&x), values(&y)), (vec![1.0; 2], vec![1.0; 6]));
        assert!(adam.state()?.iter().all(|state| state.step == 0));

        let mut state = adam.state()?;
        let error = adam.load_state(&state[..1]).unwrap_err().to_string();
        assert!(error.contains("1 states for 2 variables"), "{error}");
        state[1] = AdamState { step: 3, exp_avg: Tensor::ones((3, 2), DType::F32, &device())?, ..state[1].clone() };
        state[0].step = 3;
        let error = adam.load_state(&state).unwrap_err().to_string();
        assert!(error.contains("exp_avg is F32 of shape [3, 2]") && error.contains("[2, 3]"), "{error}");
        assert!(adam.state()?.iter().all(|state| state.step == 0));
    }
    Ok(())
}

/// The numbers of `torch.optim.Adam` in `f32`, on the gradients in turn, from 0. Neither a mean that is tiny, nor a large gradient,
/// nor β = 0 makes a difference.
///
/// ```python
/// def after(gradients, **options):
///     x = torch.zeros(1, requires_grad=True)
///     opt = torch.optim.Adam([x], lr=1, **options)
///     for g in gradients:
///         x.grad = torch.tensor([g]); opt.step()
///     return x.item()
/// after([1e-18] * 100, eps=1e-30), after([1., 1e-8], betas=(0., 0.), eps=1e-12)
/// after([1e10, 1., 1.], betas=(0., 0.), eps=1e-12), after([1e20, 1., 1.])
/// ```
#[test]
fn extremes_match_pytorch() -> Result<()> {
    let none = ParamsAdam { beta1: 0.0, beta2: 0.0, eps: 1e-12, lr: 1.0, ..Default::default() };
    let defaults = ParamsAdam { lr: 1.0, ..Default::default() };
    for (gradients, params, expected) in [
        (vec![1e-18f32; 100], ParamsAdam { eps: 1e-30, ..defaults.clone() }, EXTREMES[0]),
        (vec![1.0, 1e-8], none.clone(), EXTREMES[1]),
        (vec![1e10, 1.0, 1.0], none, EXTREMES[2]),
        (vec![1e20, 1.0, 1.0], defaults, EXTREMES[3]),
    ] {
        let x = Var::new(&[0f32], &device())?;
        let mut adam = Adam::new(vec![x.clone()], params)?;
        for &gradient in &gradients {
            let mut grads = GradStore::default();
            grads.insert(&x, Tensor::new(&[gradient], &device())?);
            adam.step(&grads)?;
        }
        assert!((values(&x)[0] - expected).abs() < 1e-3 * expected.abs(), "{gradients:?}: {:?}", values(&x));
    }
    Ok(())
}

#[test]
fn variables_without_elements_and_integer_gradients() -> Result<()> {
    let (w, empty) = (Var::new(&[1f32], &device())?, Var::zeros((0, 3), DType::F64, &device())?);
    let mut adam = Adam::new(vec![w.clone(), empty.clone()], ParamsAdam { lr: 0.1, ..Default::default() })?;
    let mut grads = GradStore::default();
    grads.insert(&w, Tensor::new(&[1f32], &device())?);
    grads.insert(&empty, Tensor::zeros((0, 3), DType::F64, &device())?);
    adam.step(&grads)?;
    assert!((values(&w)[0] - 0.9).abs() < 1e-6);
    grads.insert(&w, Tensor::new(&[1u32], &device())?);
    assert!(adam.step(&grads).unwrap_err().to_string().contains("a gradient is U32"));
    Ok(())
}

/// A gradient may share its memory with the variable, or with another gradient.
#[test]
fn gradients_that_share_memory() -> Result<()> {
    let (x, y) = (Var::new(&[1f32, -2.0], &device())?, Var::new(&[3f32, 4.0], &device())?);
    let mut adam = Adam::new(vec![x.clone(), y.clone()], ParamsAdam { lr: 0.1, ..Default::default() })?;
    let mut grads = GradStore::default();
    grads.insert(&x, x.as_tensor().clone());
    grads.insert(&y, x.as_tensor().clone());
    x.set(&Tensor::new(&[1f32, -1e-6], &device())?)?;
    adam.step(&grads)?;
    // The gradient of `y` is what `x` was before the step.
    for (found, expected) in values(&x).iter().chain(&values(&y)).zip([0.9, 0.1, 2.9, 4.1]) {
        assert!((found - expected).abs() < 2e-3, "{found} {expected}");
    }
    Ok(())
}
