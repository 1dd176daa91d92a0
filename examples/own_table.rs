//! A table of your own: any column of a CSV file learned from the others, by the loss that you name.
//!
//! Columns are numbers, or categories where you say so. The encoding, how a row becomes the model's inputs, is saved with the
//! weights, so that `--init MODEL --predict OUT` needs nothing else to read other rows.
//!
//!     cargo run --example own_table -- --csv assets/boston_housing.csv --target MEDV

mod common;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Module, Tensor};
use candle_losses::cli::{Kind, Options, Session, run, test_fraction, write};
use candle_losses::data::table::{Encoding, Table, Target};
use candle_losses::loss::{CrossEntropyLoss, HuberLoss, L1Loss, MseLoss, SmoothL1Loss};
use candle_losses::{Activation, Parameters, mlp};
use std::path::{Path, PathBuf};

#[derive(clap::Parser)]
#[command(about = "A table of your own: any column of a CSV file learned from the others")]
struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    choice: Choice,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Data")]
struct Data {
    /// The table: names in the first line, then a sample in each
    #[arg(long, value_name = "FILE")]
    csv: PathBuf,

    /// The column to predict
    #[arg(long, value_name = "COLUMN", required_unless_present = "predict")]
    target: Option<String>,

    /// Columns that hold categories, not numbers
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    categories: Vec<String>,

    /// Share of the rows to hold out, chosen by the seed; 0 trains on all of them
    #[arg(long, value_name = "F", default_value_t = 0.2, value_parser = test_fraction)]
    test_fraction: f64,

    /// Train nothing; write what the model of --init makes of each row of --csv to this CSV file
    #[arg(long, value_name = "FILE", requires = "init")]
    #[arg(conflicts_with_all = ["target", "resume", "checkpoint", "save", "log", "plot"])]
    predict: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Loss")]
struct Choice {
    /// The loss: the first four for a number, cross_entropy for a class
    #[arg(long, value_name = "NAME", default_value = "mse")]
    #[arg(value_parser = ["l1", "mse", "smooth_l1", "huber", "cross_entropy"])]
    loss: String,

    /// Of smooth_l1: the error below which it is a parabola, in the target's unit
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    beta: f64,

    /// Of huber: the error beyond which it is a line, in the target's unit
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    delta: f64,

    /// Of cross_entropy: share of the target spread evenly over all classes
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    label_smoothing: f64,
}

const HIDDEN: [usize; 2] = [64, 32];

fn main() -> std::process::ExitCode {
    run(|Arguments { options, data, choice }| match &data.predict {
        Some(predict) => predictions(&options, &data.csv, predict),
        None => train(options, &data, &choice),
    })
}

fn train(options: Options, data: &Data, choice: &Choice) -> Result<()> {
    options.check_files(&[("--csv", &data.csv)], &[])?;
    let kind = if choice.loss == "cross_entropy" { Target::Class } else { Target::Number };
    let target = data.target.as_deref().context("--target says which column to predict")?;
    // Weights that were trained on a table go on with what was learned of its columns.
    let read = |model: &Path| std::fs::read(model).with_context(|| format!("reading {}", model.display()));
    let known = options.init().map(read).transpose()?.and_then(|bytes| Encoding::of_model(&bytes).ok());
    let categories = data.categories.iter().map(|name| name.trim().to_owned()).collect::<Vec<_>>();
    let (device, seed) = (options.device()?, options.seed());
    let table = Table::open(&data.csv)?;
    let (split, encoding) = table.split((target, kind), &categories, data.test_fraction, seed, known, &device)?;
    let reduction = options.reduction(Default::default());
    let session = Session::new(options, Kind::Table, split, device)?.with_metadata(encoding.to_metadata()?);
    let model = session.mlp(&[&HIDDEN[..], &[encoding.outputs()]].concat(), Activation::Linear)?;

    let &Choice { beta, delta, label_smoothing, .. } = choice;
    session.fit(|inputs, target| {
        let output = model.forward(inputs)?;
        match choice.loss.as_str() {
            "l1" => L1Loss { reduction }.forward(&output, target),
            "smooth_l1" => SmoothL1Loss { beta, reduction }.forward(&output, target),
            "huber" => HuberLoss { delta, reduction }.forward(&output, target),
            "cross_entropy" => {
                CrossEntropyLoss { label_smoothing, reduction, ..Default::default() }.forward(&output, target)
            }
            _ => MseLoss { reduction }.forward(&output, target),
        }
    })?;

    let report = session.report(&model)?;
    match kind {
        Target::Class => report.share("accuracy", &report.output.argmax(1)?.eq(&report.target)?)?,
        Target::Number => {
            report.mae(&report.output)?;
            report.rmse(&report.output)?;
        }
    }
    session.finish("--help")
}

/// Writes what the model of `--init` makes of each row.
fn predictions(options: &Options, csv: &Path, predict: &Path) -> Result<()> {
    options.check_files(&[("--csv", csv)], &[("--predict", predict)])?;
    let path = options.init().context("--predict needs --init FILE, the model")?;
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let encoding = Encoding::of_model(&bytes).with_context(|| format!("reading {}", path.display()))?;
    let (table, device) = (Table::open(csv)?, options.device()?);
    let inputs: Tensor = table.inputs(&encoding, &(0..table.len()).collect::<Vec<_>>(), &device)?;
    let parameters = Parameters::seeded(options.seed());
    let widths = [&[encoding.features()], &HIDDEN[..], &[encoding.outputs()]].concat();
    let model = mlp(&widths, Activation::Linear, parameters.builder(DType::F32, &device))?;
    parameters.load_safetensors(&bytes).with_context(|| format!("reading {}", path.display()))?;
    let output = model.forward(&inputs)?;
    ensure!(
        output.flatten_all()?.to_vec1::<f32>()?.iter().all(|x| x.is_finite()),
        "a prediction is not a finite number"
    );
    write(predict, &encoding.predictions(&output)?)?;
    println!("Predictions of {}: {}", encoding.target, predict.display());
    Ok(())
}
