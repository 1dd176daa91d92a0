//! What the documentation of `loss` says of how the losses are related: a line for each.

mod common;

use candle_core::{D, Result, Tensor};
use candle_losses::loss::*;
use common::device;
use std::collections::BTreeSet;

/// Numbers of both signs, none on a corner.
fn some(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values = (0..count).map(|i| ((i * 7919 + 61 * seed + 5) % 997) as f64 / 249.0 - 2.0).collect::<Vec<_>>();
    Tensor::from_vec(values, shape, &device()).unwrap()
}

fn values(x: Result<Tensor>) -> Vec<f64> {
    x.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Each with the two that are the same.
fn identities() -> Result<Vec<(&'static str, Tensor, Tensor)>> {
    const NONE: Reduction = Reduction::None;
    let (x, y) = (some(&[4, 3], 1), some(&[4, 3], 2));
    let classes = Tensor::new(&[2i64, 0, 1, 1], &device())?;
    let one_hot = Tensor::new(&[[0f64, 0., 1.], [1., 0., 0.], [0., 1., 0.], [0., 1., 0.]], &device())?;
    let side = (one_hot.affine(2., -1.))?;
    let (p, log_p) = (x.affine(0.2, 0.5)?, log_softmax(&x, 1)?);
    let shares = log_softmax(&y, 1)?.exp()?;
    let l1 = |x: &Tensor| L1Loss { reduction: NONE }.forward(x, &y);
    let huber = |delta| HuberLoss { delta, reduction: NONE }.forward(&x, &y);
    let smooth_l1 = |beta| SmoothL1Loss { beta, reduction: NONE }.forward(&x, &y);
    let mse = MseLoss { reduction: NONE }.forward(&x, &y)?;
    let gaussian = GaussianNllLoss { reduction: NONE, ..Default::default() }.forward(&x, &y, &x.ones_like()?)?;
    let poisson = |log_input, x: &Tensor, eps| {
        PoissonNllLoss { log_input, eps, full: false, reduction: NONE }.forward(x, &y.abs()?)
    };
    let nll =
        |log_p: &Tensor, classes: &Tensor| NllLoss { reduction: NONE, ..Default::default() }.forward(log_p, classes);
    let bce = |p: &Tensor| BceLoss { reduction: NONE, ..Default::default() }.forward(p, &one_hot);
    let logits = |x: &Tensor| BceWithLogitsLoss { reduction: NONE, ..Default::default() }.forward(x, &one_hot);
    let cross_entropy = |x: &Tensor| CrossEntropyLoss { reduction: NONE, ..Default::default() }.forward(x, &classes);
    let against_shares = CrossEntropyLoss { reduction: NONE, ..Default::default() }.forward(&x, &shares)?;
    let entropy = (&shares * shares.log()?)?.sum(1)?.neg()?;
    let two = Tensor::stack(&[(1. - &p)?.log()?, p.log()?], 2)?.reshape((12, 2))?;
    let which = one_hot.flatten_all()?.to_dtype(candle_core::DType::U32)?;
    let (w, b) = (some(&[5, 3], 3), some(&[5], 4));
    let linear = LinearCrossEntropyLoss { reduction: NONE, ..Default::default() };
    let tails = vec![(some(&[2, 3], 5), some(&[2, 2], 6))];
    let adaptive = AdaptiveLogSoftmaxWithLoss { cutoffs: vec![1], head: some(&[2, 3], 7), head_bias: None, tails };
    let ctc = CtcLoss { reduction: NONE, ..Default::default() };
    let (labels, one) = (Tensor::new(&[[2u32], [1], [1], [2]], &device())?, Tensor::new(&[1u32; 4], &device())?);
    let list = Tensor::new(&[[2i64, -1, -1], [0, -1, -1], [1, -1, -1], [1, -1, -1]], &device())?;
    let lists = Tensor::new(&[[0i64, 2, -1], [2, 1, -1], [0, 1, -1], [1, 0, -1]], &device())?;
    let of_list = |list: &Tensor| MultiLabelMarginLoss { reduction: NONE }.forward(&x, list);
    let multi_margin =
        |x: &Tensor, classes: &Tensor| MultiMarginLoss { reduction: NONE, ..Default::default() }.forward(x, classes);
    // Of each of the two that are listed, with the other at -∞, where it is no rival.
    let rivals = |column: usize, other: usize| -> Result<Tensor> {
        let out = Tensor::zeros((4, 3), x.dtype(), x.device())?.scatter_add(
            &lists.narrow(1, other, 1)?.contiguous()?,
            &Tensor::full(-1e9, (4, 1), x.device())?,
            1,
        )?;
        multi_margin(&(&x + out)?, &lists.narrow(1, column, 1)?.squeeze(1)?)
    };
    let hinge = |x: &Tensor, y: &Tensor, margin| HingeEmbeddingLoss { margin, reduction: NONE }.forward(x, y);
    let ranking =
        |a: &Tensor, b: &Tensor, y: &Tensor, margin| MarginRankingLoss { margin, reduction: NONE }.forward(a, b, y);
    let length = |x: &Tensor| x.sqr()?.sum(D::Minus1)?.sqrt();
    let cosine = ((&x * &y)?.sum(1)? / (length(&x)? * length(&y)?)?)?;
    let alike = Tensor::new(&[1f64, -1., -1., 1.], &device())?;
    let cosine_loss = CosineEmbeddingLoss { margin: 0.3, reduction: NONE }.forward(&x, &y, &alike)?;
    let far = some(&[4, 3], 9);
    let triplet = TripletMarginLoss { eps: 0.0, reduction: NONE, ..Default::default() }.forward(&x, &y, &far)?;
    let [to_far, to_near] = [&far, &y].map(|other| length(&(&x - other)?));
    let euclidean = TripletMarginWithDistanceLoss {
        distance_function: std::sync::Arc::new(move |u, v| (u - v)?.sqr()?.sum(D::Minus1)?.sqrt()),
        reduction: NONE,
        ..Default::default()
    };
    let ones = x.ones_like()?;
    Ok(vec![
        ("L1Loss", l1(&x)?, smooth_l1(0.0)?),
        ("MseLoss", mse.clone(), (huber(1e9)? * 2.)?),
        ("SmoothL1Loss", smooth_l1(0.7)?, (huber(0.7)? / 0.7)?),
        ("HuberLoss", huber(0.7)?, (smooth_l1(0.7)? * 0.7)?),
        ("GaussianNllLoss", gaussian, (mse / 2.)?),
        ("PoissonNllLoss", poisson(true, &x, 1e-8)?, poisson(false, &x.exp()?, 0.0)?),
        ("BceLoss", bce(&p)?.flatten_all()?, nll(&two, &which)?),
        ("BceWithLogitsLoss", logits(&x)?, bce(&(1. / (x.neg()?.exp()? + 1.)?)?)?),
        ("SoftMarginLoss", SoftMarginLoss { reduction: NONE }.forward(&x, &side)?, logits(&x)?),
        (
            "MultiLabelSoftMarginLoss",
            MultiLabelSoftMarginLoss { reduction: NONE, ..Default::default() }.forward(&x, &one_hot)?,
            logits(&x)?.mean(1)?,
        ),
        ("CrossEntropyLoss", cross_entropy(&x)?, nll(&log_p, &classes)?),
        ("NllLoss", nll(&log_p, &classes)?, cross_entropy(&log_p)?),
        (
            "KlDivLoss",
            KlDivLoss { reduction: NONE, ..Default::default() }.forward(&log_p, &shares)?.sum(1)?,
            (against_shares - entropy)?,
        ),
        (
            "LinearCrossEntropyLoss",
            linear.forward(&x, &w, Some(&b), &classes)?,
            cross_entropy(&x.matmul(&w.t()?)?.broadcast_add(&b)?)?,
        ),
        (
            "AdaptiveLogSoftmaxWithLoss",
            adaptive.forward(&x, &classes)?.1,
            nll(&adaptive.log_prob(&x)?, &classes)?.mean_all()?,
        ),
        ("CtcLoss", ctc.forward(&log_p.unsqueeze(0)?, &labels, &one, &one)?, nll(&log_p, &labels.squeeze(1)?)?),
        ("MultiMarginLoss", multi_margin(&x, &classes)?, of_list(&list)?),
        ("MultiLabelMarginLoss", of_list(&lists)?, (rivals(0, 1)? + rivals(1, 0)?)?),
        ("MarginRankingLoss", ranking(&x, &y, &ones, 0.5)?, hinge(&(&x - &y)?, &ones.neg()?, 0.5)?),
        ("HingeEmbeddingLoss", hinge(&(1. - &cosine)?, &alike, 0.7)?, cosine_loss.clone()),
        ("CosineEmbeddingLoss", cosine_loss, hinge(&(1. - &cosine)?, &alike, 0.7)?),
        ("TripletMarginLoss", triplet.clone(), ranking(&to_far?, &to_near?, &ones.narrow(1, 0, 1)?.squeeze(1)?, 1.0)?),
        ("TripletMarginWithDistanceLoss", euclidean.forward(&x, &y, &far)?, triplet),
    ])
}

#[test]
fn each_is_what_the_documentation_says_of_it() -> Result<()> {
    for (name, a, b) in identities()? {
        assert_eq!(a.dims(), b.dims(), "{name}");
        let (a, b) = (values(Ok(a)), values(Ok(b)));
        assert!(a.iter().any(|value| *value != 0.0), "{name}: nothing is tested");
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{name}: {a} {b}");
        }
    }
    Ok(())
}

#[test]
fn each_loss_has_its_line() -> Result<()> {
    let source = include_str!("../src/loss/identities.md");
    let rows = source.lines().filter_map(|line| line.strip_prefix("| [`")?.split('`').next());
    let rows = rows.map(str::to_owned).collect::<BTreeSet<_>>();
    let tested = identities()?.into_iter().map(|(name, ..)| name.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!((rows.len(), &rows), (23, &tested));
    Ok(())
}
