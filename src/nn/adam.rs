use super::parameters::stored_for;
use crate::kernel::ops;
use crate::kernel::parallel::{in_parallel, threads};
use crate::kernel::storage::{address, elements};
use crate::kernel::switches::is_f32_slice;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var, bail};
use candle_nn::Optimizer;
use std::cell::RefCell;
use std::collections::HashSet;

/// The options of [`Adam`], with the defaults of `torch.optim.Adam`. `beta1` and `beta2` are PyTorch's `betas`.
///
/// ```
/// use candle_losses::ParamsAdam;
///
/// let params = ParamsAdam { lr: 1e-4, ..Default::default() };
/// assert_eq!((params.beta1, params.beta2, params.eps, params.weight_decay), (0.9, 0.999, 1e-8, 0.0));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ParamsAdam {
    /// Learning rate: roughly the size of a step in each parameter. Default: 1e-3.
    pub lr: f64,
    /// Decay rate of the running mean of the gradient, in [0, 1). Default: 0.9.
    pub beta1: f64,
    /// Decay rate of the running mean of the squared gradient, in [0, 1). Default: 0.999.
    pub beta2: f64,
    /// Term added to the denominator, against division by 0. Default: 1e-8.
    pub eps: f64,
    /// Coefficient of the weight decay. Default: 0, also for AdamW, where PyTorch and candle-nn have 0.01.
    pub weight_decay: f64,
    /// Whether weight decay is decoupled from the gradient. If false, `weight_decay` times the parameter is added to the
    /// gradient, as in `torch.optim.Adam`. If true, each step multiplies the parameter by `1 - lr * weight_decay`, as in
    /// `torch.optim.AdamW`. Default: false.
    pub decoupled_weight_decay: bool,
}

impl Default for ParamsAdam {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled_weight_decay: false }
    }
}

impl ParamsAdam {
    fn check(&self) -> Result<()> {
        let at_least_0 = |x: f64| x >= 0.0 && x.is_finite();
        for (name, value, ok, need) in [
            ("lr", self.lr, at_least_0(self.lr), "0 or more"),
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "in [0, 1)"),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "in [0, 1)"),
            ("eps", self.eps, at_least_0(self.eps), "0 or more"),
            ("weight_decay", self.weight_decay, at_least_0(self.weight_decay), "0 or more"),
        ] {
            if !ok {
                bail!("Adam: {name} is {value} but must be {need}")
            }
        }
        Ok(())
    }
}

/// PyTorch's Adam and AdamW, as a `candle_nn::Optimizer`.
///
/// A variable without a gradient does not change. As in PyTorch, each variable has its own step count for the bias correction, so a
/// variable that gets its first gradient late still starts with a step of the size of the learning rate.
///
/// For `f16` and `bf16` variables, `Adam` keeps the moments and master weights in `f32`, so that steps smaller than the
/// precision of the variable are not lost. If you set such a variable yourself, the next step starts from the new value.
///
/// `f32` variables on the CPU are updated in place, in one pass, and large ones on several threads. Other variables are updated by
/// tensor ops, small variables together, without the host waiting for the device.
///
/// Source: Kingma & Ba, [Adam](https://arxiv.org/abs/1412.6980), 2015; Loshchilov & Hutter, [Decoupled weight decay
/// regularization](https://arxiv.org/abs/1711.05101), 2019; Micikevicius et al., [Mixed precision
/// training](https://arxiv.org/abs/1710.03740), 2018;
/// [`torch.optim.Adam`](https://pytorch.org/docs/stable/generated/torch.optim.Adam.html).
///
/// # Errors
/// `new` returns an error for options out of range, for a variable that is listed twice, and if there is no variable of a float
/// dtype; variables of an integer dtype are ignored. (`Optimizer::empty`, which starts without variables, is therefore an error.)
/// `step` returns an error, and changes nothing, if a gradient does not have the shape of its variable or the learning rate is not
/// a finite number of 0 or more.
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_losses::{Adam, ParamsAdam};
/// use candle_nn::Optimizer;
///
/// let x = Var::new(&[1.0f32, -2.0], &Device::Cpu)?;
/// let mut adam = Adam::new(vec![x.clone()], ParamsAdam { lr: 0.1, ..Default::default() })?;
/// adam.backward_step(&x.sqr()?.sum_all()?)?;
/// let values = x.to_vec1::<f32>()?; // the first step is the learning rate, against the gradient's sign
/// assert!((values[0] - 0.9).abs() < 1e-5 && (values[1] + 1.9).abs() < 1e-5);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Adam {
    params: ParamsAdam,
    slots: Vec<Slot>,
}

/// The state of one variable of an [`Adam`]. `step`, `exp_avg` and `exp_avg_sq` have PyTorch's names.
#[derive(Debug, Clone)]
pub struct AdamState {
    /// The number of steps that the variable took.
    pub step: usize,
    /// Running mean of the gradient, in the shape of the variable: `f64` for an `f64` variable, otherwise `f32`.
    pub exp_avg: Tensor,
    /// Running mean of the squared gradient, in the same shape and dtype.
    pub exp_avg_sq: Tensor,
    /// Master weights: the `f32` values of an `f16` or `bf16` variable, in its shape. `None` for other variables.
    pub master_weights: Option<Tensor>,
}

/// A variable and its state.
#[derive(Debug)]
struct Slot {
    var: Var,
    step: usize,
    moments: Moments,
}

#[derive(Debug)]
enum Moments {
    /// For the CPU's kernel: the running means of the gradient and of its square.
    InPlace(RefCell<(Vec<f32>, Vec<f32>)>),
    Tensors {
        exp_avg: Tensor,
        exp_avg_sq: Tensor,
        master: Option<Tensor>,
    },
}

/// The scalars of one step: `x = keep · x - rate · exp_avg / (√exp_avg_sq + eps)`.
struct Step {
    beta1: f64,
    beta2: f64,
    eps: f64,
    /// L2 penalty: this times the parameter is added to its gradient.
    l2: f64,
    /// Factor of the parameter, below 1 with decoupled weight decay.
    keep: f64,
    /// Learning rate with both bias corrections.
    rate: f64,
}

impl Step {
    /// PyTorch divides the root of the second moment by `correction`. Here the rate and `eps` are multiplied by `correction`, which
    /// saves a division for each element.
    fn new(params: &ParamsAdam, step: usize) -> Self {
        let &ParamsAdam { lr, beta1, beta2, eps, weight_decay, decoupled_weight_decay } = params;
        let correction = (1.0 - beta2.powf(step as f64)).sqrt();
        let rate = lr / (1.0 - beta1.powf(step as f64)) * correction;
        let (l2, keep) = if decoupled_weight_decay { (0.0, 1.0 - lr * weight_decay) } else { (weight_decay, 1.0) };
        Self { beta1, beta2, eps: eps * correction, l2, keep, rate }
    }
}

impl Optimizer for Adam {
    type Config = ParamsAdam;

    fn new(vars: Vec<Var>, params: ParamsAdam) -> Result<Self> {
        params.check()?;
        let (mut slots, mut ids) = (Vec::new(), HashSet::new());
        for var in vars.into_iter().filter(|var| var.dtype().is_float()) {
            if !ids.insert(var.id()) {
                bail!("Adam: a variable of shape {:?} is listed twice", var.dims())
            }
            let moments = if is_f32_slice(&var) {
                let zeros = vec![0.0; var.elem_count()];
                Moments::InPlace(RefCell::new((zeros.clone(), zeros)))
            } else {
                let dtype = ops::compute_dtype(var.dtype());
                let zeros = Tensor::zeros(var.shape(), dtype, var.device())?;
                let master = (dtype != var.dtype()).then(|| var.as_detached_tensor().to_dtype(dtype)).transpose()?;
                Moments::Tensors { exp_avg: zeros.clone(), exp_avg_sq: zeros, master }
            };
            slots.push(Slot { var, step: 0, moments });
        }
        if slots.is_empty() {
            bail!("Adam: there is no variable of a float dtype to train; build the model before the optimizer")
        }
        Ok(Self { params, slots })
    }

    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.params.check()?;
        let (mut found, memory) = (Vec::new(), self.vars().map(|var| address(var)).collect::<HashSet<_>>());
        for (i, Slot { var, .. }) in self.slots.iter().enumerate() {
            let Some(grad) = grads.get(var) else { continue };
            if grad.dims() != var.dims() || !grad.dtype().is_float() {
                bail!(
                    "Adam: a gradient is {:?} of shape {:?} but needs a float dtype and the shape of its variable, {:?}",
                    grad.dtype(),
                    grad.dims(),
                    var.dims()
                )
            }
            if var.elem_count() == 0 {
                continue;
            }
            // Detached: the moments are computed from the gradient and must not keep the graph of every step.
            let dtype = ops::compute_dtype(var.dtype());
            let grad = grad.detach().to_dtype(dtype)?.contiguous()?;
            // A copy if the gradient shares memory with a variable, which the step changes.
            found.push((i, if memory.contains(&address(&grad)) { grad.copy()? } else { grad }));
        }
        let mut bundles: Vec<Bundle> = Vec::new();
        for (i, grad) in found {
            let slot = &mut self.slots[i];
            slot.step += 1;
            match &slot.moments {
                Moments::InPlace(moments) => {
                    slot.var.inplace_op2(&grad, &Update { moments, step: Step::new(&self.params, slot.step) })?;
                }
                Moments::Tensors { .. } => {
                    let slots = &self.slots;
                    match bundles.iter_mut().find(|bundle| bundle.takes(slots, &slots[i])) {
                        Some(bundle) => bundle.push((i, grad), &slots[i]),
                        None => bundles.push(Bundle { size: slots[i].var.elem_count(), members: vec![(i, grad)] }),
                    }
                }
            }
        }
        bundles.iter().try_for_each(|bundle| bundle.step(&mut self.slots, &self.params))
    }

    fn learning_rate(&self) -> f64 {
        self.params.lr
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.params.lr = lr;
    }
}

impl Adam {
    /// Returns the variables in the order in which `new` got them, without variables of an integer dtype.
    pub fn vars(&self) -> impl ExactSizeIterator<Item = &Var> {
        self.slots.iter().map(|slot| &slot.var)
    }

    /// Returns the state of each variable, in the order of [`vars`](Self::vars).
    ///
    /// # Errors
    /// If memory on the device can't be allocated.
    pub fn state(&self) -> Result<Vec<AdamState>> {
        let state = self.slots.iter().map(|Slot { var, step, moments }| {
            let (exp_avg, exp_avg_sq, master_weights) = match moments {
                Moments::InPlace(moments) => {
                    let (exp_avg, exp_avg_sq) = &*moments.borrow();
                    let tensor = |values: &[f32]| Tensor::from_slice(values, var.shape(), var.device());
                    (tensor(exp_avg)?, tensor(exp_avg_sq)?, None)
                }
                Moments::Tensors { exp_avg, exp_avg_sq, master } => {
                    (exp_avg.clone(), exp_avg_sq.clone(), master.clone())
                }
            };
            Ok(AdamState { step: *step, exp_avg, exp_avg_sq, master_weights })
        });
        state.collect()
    }

    /// Loads the [`state`](Self::state) of another `Adam` whose variables have the same shapes. The options, such as the learning
    /// rate, are not part of the state. Without `master_weights`, they are taken from the variable.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_losses::{Adam, ParamsAdam};
    /// use candle_nn::Optimizer;
    ///
    /// let x = Var::new(&[1.0f32, -2.0], &Device::Cpu)?;
    /// let mut adam = Adam::new(vec![x.clone()], ParamsAdam::default())?;
    /// adam.backward_step(&x.sqr()?.sum_all()?)?;
    ///
    /// let mut other = Adam::new(vec![x.clone()], ParamsAdam::default())?;
    /// other.load_state(&adam.state()?)?;
    /// other.backward_step(&x.sqr()?.sum_all()?)?; // the step that `adam` would take
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the number of states differs from the number of variables, or a tensor has another shape than its variable or no float
    /// dtype. On error, nothing changes.
    pub fn load_state(&mut self, state: &[AdamState]) -> Result<()> {
        if state.len() != self.slots.len() {
            bail!("Adam: there are {} states for {} variables", state.len(), self.slots.len())
        }
        let moments = self.slots.iter().zip(state).map(|(slot, state)| slot.moments_of(state));
        let moments = moments.collect::<Result<Vec<_>>>()?;
        for ((slot, state), moments) in self.slots.iter_mut().zip(state).zip(moments) {
            (slot.step, slot.moments) = (state.step, moments);
        }
        Ok(())
    }
}

impl Slot {
    fn moments_of(&self, state: &AdamState) -> Result<Moments> {
        let dtype = ops::compute_dtype(self.var.dtype());
        let own = |name: &str, stored: &Tensor| stored_for(&self.var, dtype, &format!("Adam: {name}"), stored);
        let (exp_avg, exp_avg_sq) = (own("exp_avg", &state.exp_avg)?, own("exp_avg_sq", &state.exp_avg_sq)?);
        Ok(match &self.moments {
            Moments::InPlace(_) => {
                let values = |moment: &Tensor| moment.flatten_all()?.to_vec1::<f32>();
                Moments::InPlace(RefCell::new((values(&exp_avg)?, values(&exp_avg_sq)?)))
            }
            Moments::Tensors { master: None, .. } => Moments::Tensors { exp_avg, exp_avg_sq, master: None },
            Moments::Tensors { master: Some(_), .. } => {
                let master = match &state.master_weights {
                    Some(master) => own("master_weights", master)?,
                    None => self.var.as_detached_tensor().to_dtype(dtype)?,
                };
                Moments::Tensors { exp_avg, exp_avg_sq, master: Some(master) }
            }
        })
    }
}

/// Variables that take a step together as one tensor, because on a GPU a launch costs more than a copy of a small tensor. All have
/// the same dtype, device and number of steps.
struct Bundle {
    /// The number of elements.
    size: usize,
    /// The slots and their gradients.
    members: Vec<(usize, Tensor)>,
}

impl Bundle {
    const MAX_SIZE: usize = 1 << 20;

    fn takes(&self, slots: &[Slot], slot: &Slot) -> bool {
        let first = &slots[self.members[0].0];
        self.size + slot.var.elem_count() <= Self::MAX_SIZE
            && first.step == slot.step
            && first.var.dtype() == slot.var.dtype()
            && first.var.device().same_device(slot.var.device())
    }

    fn push(&mut self, member: (usize, Tensor), slot: &Slot) {
        self.size += slot.var.elem_count();
        self.members.push(member);
    }

    fn step(&self, slots: &mut [Slot], params: &ParamsAdam) -> Result<()> {
        let Step { beta1, beta2, eps, l2, keep, rate } = Step::new(params, slots[self.members[0].0].step);
        let (mut x, mut grad, mut exp_avg, mut exp_avg_sq) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (i, own) in &self.members {
            let Slot { var, moments: Moments::Tensors { exp_avg: mean, exp_avg_sq: square, master }, .. } = &slots[*i]
            else {
                continue;
            };
            let current = var.as_detached_tensor();
            x.push(match master {
                // The master weights, except where the variable was set by someone else.
                Some(master) => {
                    let is_own = master.to_dtype(var.dtype())?.eq(&current)?;
                    is_own.where_cond(master, &current.to_dtype(master.dtype())?)?
                }
                None => current,
            });
            grad.push(own.clone());
            exp_avg.push(mean.clone());
            exp_avg_sq.push(square.clone());
        }
        let join = |tensors: Vec<Tensor>| match tensors.as_slice() {
            [one] => Ok(one.clone()),
            several => Tensor::cat(&several.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?, 0),
        };
        let (x, mut grad, exp_avg, exp_avg_sq) = (join(x)?, join(grad)?, join(exp_avg)?, join(exp_avg_sq)?);
        if l2 != 0.0 {
            grad = (grad + (&x * l2)?)?;
        }
        let exp_avg = ((exp_avg * beta1)? + (&grad * (1.0 - beta1))?)?;
        // Not the square first, which would overflow sooner.
        let exp_avg_sq = ((exp_avg_sq * beta2)? + ((&grad * (1.0 - beta2))? * &grad)?)?;
        let update = ((&exp_avg / (exp_avg_sq.sqrt()? + eps)?)? * rate)?;
        let x = (ops::times(&x, keep)? - update)?;
        let mut at = 0;
        for (i, _) in &self.members {
            let Slot { var, moments, .. } = &mut slots[*i];
            let view = |joined: &Tensor| match self.members.len() {
                1 => Ok(joined.clone()),
                _ => joined.narrow(0, at, var.elem_count())?.reshape(var.shape()),
            };
            // What is kept is a copy, because a view would keep all of `joined`.
            let copy = |joined: &Tensor| match self.members.len() {
                1 => Ok(joined.clone()),
                _ => view(joined)?.force_contiguous(),
            };
            var.set(&view(&x)?.to_dtype(var.dtype())?)?;
            let master = if x.dtype() == var.dtype() { None } else { Some(copy(&x)?) };
            *moments = Moments::Tensors { exp_avg: copy(&exp_avg)?, exp_avg_sq: copy(&exp_avg_sq)?, master };
            at += var.elem_count();
        }
        Ok(())
    }
}

/// The CPU's kernel, for one variable. Locking all variables for a single parallel pass could deadlock with an op of another thread
/// that reads two of them.
struct Update<'a> {
    moments: &'a RefCell<(Vec<f32>, Vec<f32>)>,
    step: Step,
}

impl Update<'_> {
    /// The smallest number of elements for a thread, about 30 µs of work. With fewer, a step takes as long on two idle cores as on
    /// one, and several times as long if another process occupies a core.
    const MIN_CHUNK: usize = 1 << 16;
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, var: &mut CpuStorage, at: &Layout, grad: &CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(var) = var else { bail!("adam: not of dtype F32") };
        let Some((start, end)) = at.contiguous_offsets() else { bail!("adam: a variable is not contiguous") };
        let var = &mut var[start..end];
        let grad = elements::<f32>(grad, layout)?;
        let &Step { beta1, beta2, eps, l2, keep, rate } = &self.step;
        // As in PyTorch, 1 - β is rounded to single precision, not taken from the rounded β.
        let [old1, new1, old2, new2] = [beta1, 1.0 - beta1, beta2, 1.0 - beta2].map(|x| x as f32);
        let [eps, l2, keep, rate] = [eps, l2, keep, rate].map(|x| x as f32);
        // Where gradients have become 0, the means would decay to subnormal numbers, on which arithmetic is a hundred times slower.
        // So small a mean has no effect on a step, unless `eps` is as small, so it is set to 0.
        let least = if eps > 1e-12 { f32::MIN_POSITIVE } else { 0.0 };
        let (m, v) = &mut *self.moments.borrow_mut();
        let chunk = var.len().div_ceil(threads()).max(Self::MIN_CHUNK);
        let chunks = var.chunks_mut(chunk).zip(grad.chunks(chunk)).zip(m.chunks_mut(chunk)).zip(v.chunks_mut(chunk));
        in_parallel(chunks, |(((x, grad), m), v)| {
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (((x, &g), m), v) in x.iter_mut().zip(grad).zip(m).zip(v) {
                        let g = g + l2 * *x;
                        // Like PyTorch's `lerp`, from the nearer of the two.
                        let mean = if new1 < 0.5 { *m + (g - *m) * new1 } else { g - (g - *m) * old1 };
                        // Not the square first, which would overflow sooner.
                        let square = *v * old2 + g * new2 * g;
                        *x = *x * keep - rate * mean / (square.sqrt() + eps);
                        *m = if mean.abs() < least { 0.0 } else { mean };
                        *v = if square < least { 0.0 } else { square };
                    }
                },
            );
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// How many steps, and the variable after them.
    type After = (usize, [f64; 3]);

    /// `x -= Adam(…)` on the loss `Σ x³` from (1, -2, 0.5), after 1 and 10 steps: at the defaults but lr 0.1, then with
    /// every option another, without and with weight decay.
    ///
    /// ```python
    /// x = torch.tensor([1., -2., .5], dtype=torch.float64, requires_grad=True)
    /// opt = torch.optim.Adam([x], lr=.05, betas=(.8, .99), eps=1e-3, weight_decay=.1)
    /// for step in range(1, 11):
    ///     opt.zero_grad(); (x ** 3).sum().backward(); opt.step()
    ///     if step in (1, 10): print(x.tolist())
    /// ```
    fn pytorch() -> [(ParamsAdam, [After; 2]); 3] {
        let defaults = ParamsAdam { lr: 0.1, ..Default::default() };
        let others = ParamsAdam { lr: 0.05, beta1: 0.8, beta2: 0.99, eps: 1e-3, ..Default::default() };
        let decaying = ParamsAdam { weight_decay: 0.1, ..others.clone() };
        [
            (
                defaults,
                [
                    (1, [0.9000000003333333, -2.0999999999166667, 0.40000000133333335]),
                    (10, [0.1495504193328808, -3.015996819967722, -0.19424503170342694]),
                ],
            ),
            (
                others,
                [
                    (1, [0.9500166611129623, -2.0499958336805264, 0.45006657789613846]),
                    (10, [0.5438367875838539, -2.5129286538216826, 0.10401821497857065]),
                ],
            ),
            (
                decaying,
                [
                    (1, [0.9500161238310223, -2.049995763070926, 0.4500624219725343]),
                    (10, [0.5429523679604962, -2.513015925545109, 0.10027070677893124]),
                ],
            ),
        ]
    }

    #[test]
    fn steps_as_pytorch_in_place_and_by_tensor_ops() -> Result<()> {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-12)] {
            for (params, expected) in pytorch() {
                let x = Var::from_tensor(&Tensor::new(&[1f64, -2.0, 0.5], &Device::Cpu)?.to_dtype(dtype)?)?;
                let mut adam = Adam::new(vec![x.clone()], params)?;
                for step in 1..=10 {
                    adam.backward_step(&x.powf(3.0)?.sum_all()?)?;
                    let Some((_, expected)) = expected.iter().find(|(at, _)| *at == step) else { continue };
                    for (found, expected) in x.to_dtype(DType::F64)?.to_vec1::<f64>()?.iter().zip(expected) {
                        assert!((found - expected).abs() < tolerance, "{dtype:?}, step {step}: {found} {expected}");
                    }
                }
            }
        }
        Ok(())
    }

    /// What it keeps of one step must not lead to that step's graph, or the graphs of all steps are kept.
    #[test]
    fn moments_are_detached_from_the_graph() -> Result<()> {
        let weight = Var::from_tensor(&Tensor::ones((3, 3), DType::F64, &Device::Cpu)?)?;
        let input = Tensor::ones((2, 3), DType::F64, &Device::Cpu)?;
        let params = ParamsAdam { weight_decay: 0.1, ..Default::default() };
        let mut adam = Adam::new(vec![weight.clone()], params)?;
        for _ in 0..3 {
            // The gradient of a product of two that are tracked is itself tracked.
            let hidden = input.matmul(&weight)?.matmul(&weight)?;
            let grads = hidden.sqr()?.sum_all()?.backward()?;
            adam.step(&grads)?;
            for AdamState { exp_avg, exp_avg_sq, .. } in adam.state()? {
                assert!(!exp_avg.track_op() && !exp_avg_sq.track_op());
            }
            assert_eq!(weight.sorted_nodes().len(), 1);
        }
        Ok(())
    }

    #[test]
    fn rejects_missing_variables_and_invalid_options() -> Result<()> {
        let refused = |vars: Vec<Var>, params, part: &str| {
            let error = Adam::new(vars, params).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        let integers = Var::from_tensor(&Tensor::new(&[1u32], &Device::Cpu)?)?;
        refused(vec![], ParamsAdam::default(), "no variable");
        refused(vec![integers], ParamsAdam::default(), "no variable");
        let x = || Var::new(&[1f32], &Device::Cpu).unwrap();
        refused(vec![x()], ParamsAdam { lr: f64::NAN, ..Default::default() }, "lr is NaN");
        refused(vec![x()], ParamsAdam { beta1: 1.0, ..Default::default() }, "beta1 is 1");
        refused(vec![x()], ParamsAdam { beta2: -0.1, ..Default::default() }, "beta2 is -0.1");
        refused(vec![x()], ParamsAdam { eps: -1.0, ..Default::default() }, "eps is -1");
        refused(vec![x()], ParamsAdam { weight_decay: -1.0, ..Default::default() }, "weight_decay is -1");
        Ok(())
    }
}
