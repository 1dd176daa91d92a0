//! The table of what each loss refuses, in the documentation of `loss`: every entry is refused, and every refusal that is
//! tested here is an entry.

mod common;

use candle_core::{Result, Tensor};
use candle_losses::loss::*;
use common::device;
use std::collections::BTreeSet;

fn real(values: &[f64]) -> Tensor {
    Tensor::new(values, &device()).unwrap()
}

fn ints(values: &[i64]) -> Tensor {
    Tensor::new(values, &device()).unwrap()
}

type BadArgument = (&'static str, &'static str, Result<Tensor>);

/// Loss, argument, what it does with a bad one.
fn bad_arguments() -> Vec<BadArgument> {
    let (x, three) = (real(&[0.5, 0.5]), Some(real(&[1.0, 1.0, 1.0])));
    let (scalar, scores, class) = (real(&[0.5]).get(0).unwrap(), real(&[0.25, 0.75]), ints(&[1]).get(0).unwrap());
    let (no_class, nan) = (ints(&[2]).get(0).unwrap(), f64::NAN);
    let log_p = log_softmax(&Tensor::zeros((3, 1, 2), candle_core::DType::F64, &device()).unwrap(), 2).unwrap();
    let ctc =
        |loss: CtcLoss, label, steps, count| loss.forward(&log_p, &ints(&[label]), &ints(&[steps]), &ints(&[count]));
    let (rows, tail) = (real(&[0.5, 1.0]).reshape((1, 2)).unwrap(), real(&[1.0, 1.0]).reshape((1, 2)).unwrap());
    let linear = |loss: LinearCrossEntropyLoss, w: &Tensor, bias: Option<&Tensor>, class: i64| {
        loss.forward(&rows, w, bias, &ints(&[class]))
    };
    let adaptive = |cutoffs: Vec<usize>, head: usize, class: i64| {
        let head = Tensor::zeros((head, 2), candle_core::DType::F64, &device())?;
        let tails = vec![(tail.clone(), real(&[1.0]).reshape((1, 1))?)];
        let loss = AdaptiveLogSoftmaxWithLoss { cutoffs, head, head_bias: None, tails };
        Ok(loss.forward(&rows, &ints(&[class]))?.1)
    };
    let two = rows.broadcast_as((2, 2)).unwrap();
    vec![
        ("AdaptiveLogSoftmaxWithLoss", "cutoffs", adaptive(vec![0], 1, 0)),
        ("AdaptiveLogSoftmaxWithLoss", "head", adaptive(vec![1], 5, 0)),
        ("AdaptiveLogSoftmaxWithLoss", "target", adaptive(vec![1], 2, 2)),
        ("LinearCrossEntropyLoss", "target", linear(Default::default(), &two, None, 2)),
        ("LinearCrossEntropyLoss", "linear_weight", linear(Default::default(), &x, None, 0)),
        ("LinearCrossEntropyLoss", "linear_bias", linear(Default::default(), &two, three.as_ref(), 0)),
        (
            "LinearCrossEntropyLoss",
            "weight",
            linear(LinearCrossEntropyLoss { weight: three.clone(), ..Default::default() }, &two, None, 0),
        ),
        (
            "LinearCrossEntropyLoss",
            "label_smoothing",
            linear(LinearCrossEntropyLoss { label_smoothing: 1.5, ..Default::default() }, &two, None, 0),
        ),
        (
            "LinearCrossEntropyLoss",
            "chunk",
            linear(LinearCrossEntropyLoss { chunk: Some(0), ..Default::default() }, &two, None, 0),
        ),
        ("BceLoss", "input", BceLoss::default().forward(&real(&[0.5, 1.5]), &x)),
        ("BceLoss", "target", BceLoss::default().forward(&x, &real(&[0.5, -0.5]))),
        ("BceLoss", "weight", BceLoss { weight: three.clone(), ..Default::default() }.forward(&x, &x)),
        (
            "BceWithLogitsLoss",
            "weight",
            BceWithLogitsLoss { weight: three.clone(), ..Default::default() }.forward(&x, &x),
        ),
        (
            "BceWithLogitsLoss",
            "pos_weight",
            BceWithLogitsLoss { pos_weight: three.clone(), ..Default::default() }.forward(&x, &x),
        ),
        (
            "CosineEmbeddingLoss",
            "margin",
            CosineEmbeddingLoss { margin: nan, ..Default::default() }.forward(&x, &x, &scalar),
        ),
        ("CrossEntropyLoss", "target", CrossEntropyLoss::default().forward(&scores, &no_class)),
        (
            "CrossEntropyLoss",
            "weight",
            CrossEntropyLoss { weight: three.clone(), ..Default::default() }.forward(&scores, &class),
        ),
        (
            "CrossEntropyLoss",
            "label_smoothing",
            CrossEntropyLoss { label_smoothing: 1.5, ..Default::default() }.forward(&scores, &class),
        ),
        ("CtcLoss", "targets", ctc(CtcLoss::default(), 2, 3, 1)),
        ("CtcLoss", "input_lengths", ctc(CtcLoss::default(), 1, 4, 1)),
        ("CtcLoss", "target_lengths", ctc(CtcLoss::default(), 1, 3, 2)),
        ("CtcLoss", "blank", ctc(CtcLoss { blank: 2, ..Default::default() }, 1, 3, 1)),
        ("GaussianNllLoss", "var", GaussianNllLoss::default().forward(&x, &x, &real(&[1.0, -1.0]))),
        ("GaussianNllLoss", "eps", GaussianNllLoss { eps: 0.0, ..Default::default() }.forward(&x, &x, &x)),
        ("HingeEmbeddingLoss", "margin", HingeEmbeddingLoss { margin: nan, ..Default::default() }.forward(&x, &x)),
        ("HuberLoss", "delta", HuberLoss { delta: 0.0, ..Default::default() }.forward(&x, &x)),
        ("KlDivLoss", "target", KlDivLoss::default().forward(&x, &real(&[1.5, -0.5]))),
        ("MarginRankingLoss", "margin", MarginRankingLoss { margin: nan, ..Default::default() }.forward(&x, &x, &x)),
        ("MultiLabelMarginLoss", "target", MultiLabelMarginLoss::default().forward(&x, &ints(&[2, -1]))),
        ("MultiLabelSoftMarginLoss", "input", MultiLabelSoftMarginLoss::default().forward(&scalar, &scalar)),
        (
            "MultiLabelSoftMarginLoss",
            "weight",
            MultiLabelSoftMarginLoss { weight: three.clone(), ..Default::default() }.forward(&x, &x),
        ),
        ("MultiMarginLoss", "target", MultiMarginLoss::default().forward(&scores, &no_class)),
        (
            "MultiMarginLoss",
            "weight",
            MultiMarginLoss { weight: three.clone(), ..Default::default() }.forward(&scores, &class),
        ),
        ("MultiMarginLoss", "p", MultiMarginLoss { p: 3, ..Default::default() }.forward(&scores, &class)),
        ("MultiMarginLoss", "margin", MultiMarginLoss { margin: nan, ..Default::default() }.forward(&scores, &class)),
        ("NllLoss", "target", NllLoss::default().forward(&scores, &no_class)),
        ("NllLoss", "weight", NllLoss { weight: three, ..Default::default() }.forward(&scores, &class)),
        (
            "PoissonNllLoss",
            "input",
            PoissonNllLoss { log_input: false, ..Default::default() }.forward(&real(&[1.0, -1.0]), &x),
        ),
        ("PoissonNllLoss", "eps", PoissonNllLoss { eps: nan, ..Default::default() }.forward(&x, &x)),
        ("SmoothL1Loss", "beta", SmoothL1Loss { beta: -1.0, ..Default::default() }.forward(&x, &x)),
        ("TripletMarginLoss", "margin", TripletMarginLoss { margin: 0.0, ..Default::default() }.forward(&x, &x, &x)),
        ("TripletMarginLoss", "p", TripletMarginLoss { p: -1.0, ..Default::default() }.forward(&x, &x, &x)),
        ("TripletMarginLoss", "eps", TripletMarginLoss { eps: nan, ..Default::default() }.forward(&x, &x, &x)),
        ("TripletMarginLoss", "anchor", TripletMarginLoss::default().forward(&scalar, &scalar, &scalar)),
        (
            "TripletMarginWithDistanceLoss",
            "margin",
            TripletMarginWithDistanceLoss { margin: -1.0, ..Default::default() }.forward(&x, &x, &x),
        ),
    ]
}

/// Each row's loss and its arguments.
fn table() -> Vec<(String, Vec<String>)> {
    let rows = include_str!("../src/loss/validation.md").lines().filter_map(|line| line.strip_prefix("| [`"));
    let row = |row: &str| {
        let (loss, entries) = row.split_once("`] |").unwrap();
        let arguments = entries.split('`').collect::<Vec<_>>();
        // An argument stands in backticks and is followed by a colon.
        let arguments = arguments.windows(2).filter(|pair| pair[1].starts_with(": ")).map(|pair| pair[0].to_owned());
        (loss.to_owned(), arguments.collect())
    };
    rows.map(row).collect()
}

#[test]
fn what_the_table_says_is_refused_is_refused_and_named() {
    let of_cpu_only = ["input", "target"];
    for (loss, argument, result) in bad_arguments() {
        if !device().is_cpu() && of_cpu_only.contains(&argument) {
            continue;
        }
        let message = result.expect_err(&format!("{loss} accepts a bad {argument}")).to_string();
        let line = message.lines().next().unwrap();
        assert!(line.starts_with(&format!("{loss}: ")) && line.contains(argument), "{loss}, {argument}: {line}");
    }
}

#[test]
fn the_table_is_complete() {
    let tested = bad_arguments()
        .iter()
        .map(|(loss, argument, _)| (loss.to_string(), argument.to_string()))
        .collect::<BTreeSet<_>>();
    let table = table();
    let listed =
        table.iter().flat_map(|(loss, arguments)| arguments.iter().map(|argument| (loss.clone(), argument.clone())));
    assert_eq!(listed.collect::<BTreeSet<_>>(), tested);
    assert_eq!(table.len(), 23, "a row for each loss");
}
