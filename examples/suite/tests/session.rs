//! Sessions of a program that does not call `run`.

use anyhow::Result;
use candle_core::Module;
use candle_losses::OutputActivation;
use candle_losses::loss::MseLoss;
use clap::Parser;
use std::rc::Rc;
use suite::{Args, BostonHousing, Terminal, Ui};

#[derive(clap::Parser)]
struct Options {
    #[command(flatten)]
    args: Args<BostonHousing>,
}

/// Trains a small model, and returns its weights.
fn trained(line: &str) -> Result<Vec<f32>> {
    let words = ["mine", "--device", "cpu", "--no-progress"].into_iter().chain(line.split(' '));
    let session = Options::parse_from(words).args.start(&(Rc::new(Terminal::default()) as Ui))?;
    let model = session.mlp(&[4, 1], OutputActivation::Linear)?;
    session.fit(|features, price| MseLoss::default().forward(&model.forward(features)?, price))?;
    session.report(&model)?;
    session.finish("--epochs 2")?;
    let weights = session.parameters().named_vars().into_iter();
    Ok(weights.map(|(_, var)| var.flatten_all()?.to_vec1::<f32>()).collect::<candle_core::Result<Vec<_>>>()?.concat())
}

#[test]
fn a_checkpoint_knows_what_the_session_was_started_with() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("checkpoint");
    let start = format!("--seed 5 --accumulate 2 --clip-norm 3 --epochs 2 --checkpoint {}", file.display());
    trained(&start)?;
    let resumed = format!("--epochs 3 --resume {}", file.display());
    for (options, part) in [
        ("--accumulate 2 --clip-norm 3", "its --seed was 5, but is 42 now"),
        ("--seed 5 --clip-norm 3", "its --accumulate was 2, but is 1 now"),
        ("--seed 5 --accumulate 2", "its --clip-norm was 3, but is not given now"),
        ("--seed 5 --accumulate 2 --clip-norm 3 --no-shuffle", "its --no-shuffle was false, but is true now"),
        ("--seed 5 --accumulate 2 --clip-norm 3 --test-fraction 0.3", "its --test-fraction was 0.2, but is 0.3 now"),
    ] {
        let error = format!("{:#}", trained(&format!("{options} {resumed}")).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
    let same = "--seed 5 --accumulate 2 --clip-norm 3";
    assert_eq!(trained(&format!("{same} {resumed}"))?, trained(&format!("{same} --epochs 3"))?);
    Ok(())
}

/// Names that a checkpoint has for something else.
#[test]
fn a_parameter_may_have_any_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let train = |epochs: usize, option: &str| -> Result<Vec<f32>> {
        let line = format!("mine --device cpu --no-progress --epochs {epochs} {option}");
        let session = Options::parse_from(line.split_whitespace()).args.start(&(Rc::new(Terminal::default()) as Ui))?;
        let vb = session.var_builder();
        let names = ["losses", "stopping", "adam.0.mean", "adam.0.square", "best.0", "parameters.losses"];
        let weights = names.map(|name| vb.get((1, 13), name)).into_iter().collect::<candle_core::Result<Vec<_>>>()?;
        session.fit(|features, price| {
            let sum = weights.iter().skip(1).try_fold(weights[0].clone(), |sum, weight| sum + weight)?;
            MseLoss::default().forward(&features.matmul(&sum.t()?)?, price)
        })?;
        let values = weights.iter().map(|weight| weight.flatten_all()?.to_vec1::<f32>());
        Ok(values.collect::<candle_core::Result<Vec<_>>>()?.concat())
    };
    let file = folder.path().join("checkpoint");
    train(2, &format!("--checkpoint {}", file.display()))?;
    assert_eq!(train(3, &format!("--resume {}", file.display()))?, train(3, "")?);
    Ok(())
}
