//! Every loss against values and gradients that PyTorch computed (`tests/golden/make.py`), in two precisions, on
//! contiguous arguments and on transposed ones. `--nocapture` shows the worst difference of each loss.

mod common;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_losses::loss::*;
use common::device;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

/// How a case's arguments are given.
#[derive(Clone, Copy, PartialEq)]
enum Given {
    AsIs,
    /// The same elements, not contiguous in memory.
    Transposed,
    /// The target is no variable.
    ConstantTarget,
}

struct Case<'a> {
    number: usize,
    json: &'a Value,
    tensors: &'a HashMap<String, Tensor>,
}

impl<'a> Case<'a> {
    fn tensor(&self, name: &str, dtype: DType) -> Option<Tensor> {
        let tensor = self.tensors.get(&format!("{}.{name}", self.number))?;
        // Converted on the CPU: Metal has no `f64`.
        let tensor = if tensor.dtype().is_float() { tensor.to_dtype(dtype).unwrap() } else { tensor.clone() };
        Some(tensor.to_device(&device()).unwrap())
    }

    /// What PyTorch computed, which stays on the CPU.
    fn expected(&self, name: &str) -> &'a Tensor {
        &self.tensors[&format!("{}.{name}", self.number)]
    }

    /// Off the CPU the products of linear cross-entropy are in the arguments' own precision, as a GPU multiplies fastest.
    fn multiplies_in_half_precision(&self) -> bool {
        let has_kernels = device().is_cpu() && std::env::var_os("CANDLE_LOSSES_KERNELS").is_none();
        self.loss() == "LinearCrossEntropyLoss" && !has_kernels
    }

    fn number(&self, option: &str) -> f64 {
        self.json["options"][option].as_f64().unwrap()
    }

    fn flag(&self, option: &str) -> bool {
        self.json["options"][option].as_bool().unwrap()
    }

    fn or(&self, option: &str, default: f64) -> f64 {
        self.json["options"][option].as_f64().unwrap_or(default)
    }

    fn loss(&self) -> &'a str {
        self.json["loss"].as_str().unwrap()
    }

    fn forward(&self, dtype: DType, args: &HashMap<&str, Tensor>) -> Result<Tensor> {
        let reduction = match self.json["reduction"].as_str().unwrap() {
            "none" => Reduction::None,
            "mean" => Reduction::Mean,
            "sum" => Reduction::Sum,
            "batchmean" => Reduction::BatchMean,
            other => panic!("{other} is no reduction"),
        };
        let weight = self.tensor("option.weight", dtype);
        let ignore_index = self.or("ignore_index", -100.0) as i64;
        let names: &[&str] = match self.loss() {
            "MarginRankingLoss" | "CosineEmbeddingLoss" => &["input1", "input2", "target"],
            "TripletMarginLoss" | "TripletMarginWithDistanceLoss" => &["anchor", "positive", "negative"],
            "CtcLoss" => &["log_probs", "targets", "input_lengths", "target_lengths"],
            "GaussianNllLoss" => &["input", "target", "var"],
            "LinearCrossEntropyLoss" => &["input", "linear_weight"],
            _ => &["input", "target"],
        };
        let all = args;
        let args = names.iter().map(|name| &all[name]).collect::<Vec<_>>();
        let (x, y) = (args[0], args[1]);
        match self.loss() {
            "L1Loss" => L1Loss { reduction }.forward(x, y),
            "MseLoss" => MseLoss { reduction }.forward(x, y),
            "SmoothL1Loss" => SmoothL1Loss { beta: self.or("beta", 1.0), reduction }.forward(x, y),
            "HuberLoss" => HuberLoss { delta: self.or("delta", 1.0), reduction }.forward(x, y),
            "BceLoss" => BceLoss { weight, reduction }.forward(x, y),
            "BceWithLogitsLoss" => {
                let pos_weight = self.tensor("option.pos_weight", dtype);
                BceWithLogitsLoss { weight, pos_weight, reduction }.forward(x, y)
            }
            "NllLoss" => NllLoss { weight, ignore_index, reduction }.forward(x, y),
            "LinearCrossEntropyLoss" => {
                let label_smoothing = self.or("label_smoothing", 0.0);
                // Chunks of one size and of another.
                let chunk = if self.number.is_multiple_of(2) { None } else { Some(2) };
                let loss = LinearCrossEntropyLoss { weight, ignore_index, label_smoothing, chunk, reduction };
                loss.forward(x, y, all.get("linear_bias"), &all["target"])
            }
            "AdaptiveLogSoftmaxWithLoss" => {
                let cutoffs = self.json["options"]["cutoffs"].as_array().unwrap();
                let cutoffs = cutoffs.iter().map(|cutoff| cutoff.as_u64().unwrap() as usize).collect::<Vec<_>>();
                let tail = |i: usize| {
                    let part = |name: &str| all[format!("{name}{i}").as_str()].clone();
                    (part("projection"), part("classes"))
                };
                let tails = (0..cutoffs.len()).map(tail).collect();
                let (head, head_bias) = (all["head"].clone(), all.get("head_bias").cloned());
                let (output, loss) = AdaptiveLogSoftmaxWithLoss { cutoffs, head, head_bias, tails }.forward(x, y)?;
                Ok(if reduction == Reduction::None { output } else { loss })
            }
            "CrossEntropyLoss" => {
                let label_smoothing = self.or("label_smoothing", 0.0);
                CrossEntropyLoss { weight, ignore_index, label_smoothing, reduction }.forward(x, y)
            }
            "PoissonNllLoss" => {
                let (log_input, full) = (self.flag("log_input"), self.flag("full"));
                PoissonNllLoss { log_input, full, eps: self.number("eps"), reduction }.forward(x, y)
            }
            "GaussianNllLoss" => {
                let loss = GaussianNllLoss { full: self.flag("full"), eps: self.number("eps"), reduction };
                loss.forward(x, y, args[2])
            }
            "HingeEmbeddingLoss" => HingeEmbeddingLoss { margin: self.number("margin"), reduction }.forward(x, y),
            "SoftMarginLoss" => SoftMarginLoss { reduction }.forward(x, y),
            "MultiMarginLoss" => {
                let (p, margin) = (self.number("p") as u32, self.number("margin"));
                MultiMarginLoss { p, margin, weight, reduction }.forward(x, y)
            }
            "MultiLabelSoftMarginLoss" => MultiLabelSoftMarginLoss { weight, reduction }.forward(x, y),
            "KlDivLoss" => KlDivLoss { log_target: self.flag("log_target"), reduction }.forward(x, y),
            "MultiLabelMarginLoss" => MultiLabelMarginLoss { reduction }.forward(x, y),
            "MarginRankingLoss" => {
                MarginRankingLoss { margin: self.number("margin"), reduction }.forward(x, y, args[2])
            }
            "CosineEmbeddingLoss" => {
                CosineEmbeddingLoss { margin: self.number("margin"), reduction }.forward(x, y, args[2])
            }
            "TripletMarginLoss" => {
                // JSON has no infinity: it is written as text.
                let p = self.json["options"]["p"].as_f64().unwrap_or(f64::INFINITY);
                let (margin, eps, swap) = (self.number("margin"), self.number("eps"), self.flag("swap"));
                TripletMarginLoss { margin, p, eps, swap, reduction }.forward(x, y, args[2])
            }
            "TripletMarginWithDistanceLoss" => {
                let mut loss = TripletMarginWithDistanceLoss {
                    margin: self.number("margin"),
                    swap: self.flag("swap"),
                    reduction,
                    ..Default::default()
                };
                if self.flag("distance") {
                    // |d| = d · sign(d), whose derivative at 0 is 0 as PyTorch's.
                    loss.distance_function = std::sync::Arc::new(|u, v| {
                        let d = (u - v)?;
                        (&d * d.detach().sign()?)?.sum(candle_core::D::Minus1)
                    });
                }
                loss.forward(x, y, args[2])
            }
            "CtcLoss" => {
                let (blank, zero_infinity) = (self.number("blank") as usize, self.flag("zero_infinity"));
                CtcLoss { blank, zero_infinity, reduction }.forward(x, y, args[2], args[3])
            }
            other => panic!("{other} has golden cases but no test"),
        }
    }

    /// The worst difference of the value and of the gradients, as multiples of what they may differ.
    fn check(&self, dtype: DType, tolerance: f64, given: Given) -> Result<(f64, f64)> {
        let mut args = HashMap::new();
        let mut variables = Vec::new();
        for (name, kind) in self.json["args"].as_object().unwrap() {
            let mut arg = self.tensor(&format!("arg.{name}"), dtype).unwrap();
            // A target that nobody differentiates may take another way through a loss.
            let is_target = name.starts_with("target");
            if kind == "variable" && !(given == Given::ConstantTarget && is_target) {
                let var = Var::from_tensor(&arg)?;
                arg = var.as_tensor().clone();
                variables.push((name, var));
            }
            args.insert(name.as_str(), if given == Given::Transposed { strided(&arg)? } else { arg });
        }
        let value = self.forward(dtype, &args)?;
        assert_eq!(value.dtype(), dtype);
        let cotangent = self.tensor("cotangent", dtype).unwrap();
        assert_eq!(value.dims(), cotangent.dims(), "shape of the result");
        let grads = (&value * cotangent)?.sum_all()?.backward()?;
        let mut worst_grad = 0f64;
        for (name, var) in variables {
            let expected = self.expected(&format!("grad.{name}"));
            // candle leaves out a gradient that is 0 because of a factor 0.
            let grad = grads.get(&var).cloned().map_or_else(|| expected.zeros_like(), Ok)?;
            worst_grad = worst_grad.max(difference(&grad, expected)?);
        }
        Ok((difference(&value, self.expected("value"))? / tolerance, worst_grad / tolerance))
    }
}

/// The same elements, differentiable still, but not contiguous in memory where there are dimensions to swap.
fn strided(arg: &Tensor) -> Result<Tensor> {
    match arg.rank() {
        0 => Ok(arg.clone()),
        1 => Tensor::stack(&[arg, arg], 1)?.narrow(1, 1, 1)?.squeeze(1),
        _ => arg.transpose(0, 1)?.contiguous()?.transpose(0, 1),
    }
}

/// All elements, converted on the CPU.
fn list(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// The largest difference, relative where the expected value is above 1; infinite where only one is finite.
fn difference(found: &Tensor, expected: &Tensor) -> Result<f64> {
    assert_eq!(found.dims(), expected.dims());
    let differences = list(found)?.into_iter().zip(list(expected)?).map(|(found, expected)| {
        if found == expected || (found.is_nan() && expected.is_nan()) {
            0.0
        } else if !found.is_finite() || !expected.is_finite() {
            f64::INFINITY
        } else {
            (found - expected).abs() / expected.abs().max(1.0)
        }
    });
    Ok(differences.fold(0.0, f64::max))
}

/// The cases and their tensors, read once for all tests.
fn load() -> &'static (Value, HashMap<String, Tensor>) {
    static CASES: OnceLock<(Value, HashMap<String, Tensor>)> = OnceLock::new();
    CASES.get_or_init(|| {
        let json = serde_json::from_str(include_str!("golden/cases.json")).unwrap();
        let tensors = candle_core::safetensors::load_buffer(include_bytes!("golden/cases.safetensors"), &Device::Cpu);
        (json, tensors.unwrap())
    })
}

/// How many units in the last place of `dtype` two numbers differ by.
fn ulps(a: f64, b: f64, dtype: DType) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    // Below 2^-20 PyTorch's own value is what is left of larger terms in single precision: of a logit of -20 it says that a
    // no costs 0, not 2e-9.
    let (digits, least) = if dtype == DType::F16 { (10, -14) } else { (7, -20) };
    let exponent = (a.abs().max(b.abs()).log2().floor() as i32).max(least);
    (a - b).abs() / 2f64.powi(exponent - digits)
}

#[test]
fn half_precision_is_rounded_once() -> Result<()> {
    let (json, tensors) = load();
    let mut table: BTreeMap<(&str, &str), (usize, usize, f64)> = BTreeMap::new();
    for (number, json) in json["cases"].as_array().unwrap().iter().enumerate() {
        let case = Case { number, json, tensors };
        for (name, dtype) in [("f16", DType::F16), ("bf16", DType::BF16)] {
            let Some(expected) = tensors.get(&format!("{number}.value.{name}")) else { continue };
            let names = json["args"].as_object().unwrap().keys();
            let args = names.map(|name| (name.as_str(), case.tensor(&format!("arg.{name}"), dtype).unwrap())).collect();
            let value = case.forward(dtype, &args)?;
            assert_eq!(value.dtype(), dtype, "{json}");
            let worst =
                list(&value)?.into_iter().zip(list(expected)?).map(|(a, b)| ulps(a, b, dtype)).fold(0.0, f64::max);
            let (passed, total, most) = table.entry((case.loss(), name)).or_insert((0, 0, 0.0));
            *total += 1;
            *passed += usize::from(worst <= if case.multiplies_in_half_precision() { 4.0 } else { 1.0 });
            *most = most.max(worst);
        }
    }
    for ((loss, precision), (passed, total, most)) in &table {
        println!("{loss:<30}{precision:<5} {passed:>4} of {total:<4}  at most {most:.1} units in the last place");
    }
    assert_eq!(table.len(), 2 * 23);
    for ((loss, precision), (passed, total, _)) in &table {
        assert!(passed * 100 >= total * 99, "{loss} in {precision}: {passed} of {total}");
    }
    Ok(())
}

#[test]
fn gradients_in_half_precision_are_those_of_single_precision_rounded() -> Result<()> {
    let (json, tensors) = load();
    for (number, json) in json["cases"].as_array().unwrap().iter().enumerate() {
        let case = Case { number, json, tensors };
        for dtype in [DType::F16, DType::BF16] {
            let gradients = |computed: DType| -> Result<Vec<Vec<f64>>> {
                let (mut args, mut variables) = (HashMap::new(), Vec::new());
                for (name, kind) in json["args"].as_object().unwrap() {
                    let arg = case.tensor(&format!("arg.{name}"), dtype).unwrap();
                    let arg = if arg.dtype().is_float() { arg.to_dtype(computed)? } else { arg };
                    let arg = Var::from_tensor(&arg)?;
                    args.insert(name.as_str(), if kind == "variable" { arg.as_tensor().clone() } else { arg.detach() });
                    variables.push(arg);
                }
                let grads = case.forward(dtype, &args)?.sum_all()?.backward()?;
                variables.iter().filter_map(|var| grads.get(var)).map(list).collect()
            };
            let (found, expected) = (gradients(dtype)?, gradients(DType::F32)?);
            assert_eq!(found.len(), expected.len(), "{json}");
            if case.multiplies_in_half_precision() {
                let unit = if dtype == DType::F16 { 2f64.powi(-10) } else { 2f64.powi(-7) };
                for (found, expected) in found.iter().zip(&expected) {
                    let largest = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
                    let is_close = |(f, e): (&f64, &f64)| (f - e).abs() <= 4.0 * unit * largest || e.is_nan();
                    assert!(found.iter().zip(expected).all(is_close), "{dtype:?} {json}: {found:?}, not {expected:?}");
                }
                continue;
            }
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                // Some are rounded on the way, as candle passes them on.
                let is_out_of_range = expected.abs() > 60_000.0 || expected.is_nan();
                let worst = ulps(*found, *expected, dtype);
                assert!(is_out_of_range || worst <= 4.0, "{dtype:?} {json}: {found}, not {expected}: {worst} units");
            }
        }
    }
    Ok(())
}

#[test]
fn losses_are_pytorchs_in_value_and_gradient() {
    let (json, tensors) = load();
    let mut failures = Vec::new();
    let mut table: BTreeMap<(&str, &str), (usize, usize, f64, f64)> = BTreeMap::new();
    for (number, json) in json["cases"].as_array().unwrap().iter().enumerate() {
        let case = Case { number, json, tensors };
        let precisions = [("f32", DType::F32, 2e-5), ("f64", DType::F64, 1e-9)];
        let count = if device().is_metal() { 1 } else { 2 };
        for (precision, dtype, tolerance) in precisions.into_iter().take(count) {
            let (passed, total, value, grad) =
                table.entry((json["loss"].as_str().unwrap(), precision)).or_insert((0, 0, 0.0, 0.0));
            *total += 1;
            let results = [Given::AsIs, Given::Transposed, Given::ConstantTarget]
                .map(|given| case.check(dtype, tolerance, given));
            if results.iter().all(|result| matches!(result, Ok((value, grad)) if value.max(*grad) <= 1.0)) {
                *passed += 1;
            } else {
                failures.push(format!("{precision} {number}: {json}: {results:?}"));
            }
            for (v, g) in results.into_iter().flatten() {
                (*value, *grad) = (value.max(v * tolerance), grad.max(g * tolerance));
            }
        }
    }
    for ((loss, precision), (passed, total, value, grad)) in &table {
        println!("{loss:<30}{precision}  {passed:>4} of {total:<4}  worst value {value:.1e}, gradient {grad:.1e}");
    }
    assert!(
        failures.is_empty(),
        "{} cases failed, first:\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
    assert!(table.values().all(|(_, total, ..)| *total >= 40), "some loss has fewer than 40 cases");
}
