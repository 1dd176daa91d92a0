//! A table of your own: any column of a CSV file learned from the others, and which loss is good for it.
//!
//! What the file holds is found out: delimiter, encoding, numbers, categories, missing values; a table on stderr says it.
//! A fifth of the rows is held out, and a part of the rest says when to stop. What was learned of the columns is saved with the
//! weights, so that `--init MODEL --predict OUT` needs nothing else to read other rows.
//!
//!     cargo run --example own_table -- --csv assets/boston_housing.csv --target MEDV
//!     cargo run --example own_table -- --csv assets/boston_housing.csv --target MEDV --compare

use anyhow::{Context, Result, bail, ensure};
use candle_core::{D, DType, Device, Module, Tensor};
use candle_losses::data::{TensorDataset, TrainTestSplit};
use candle_losses::loss::{
    BceWithLogitsLoss, CrossEntropyLoss, GaussianNllLoss, HuberLoss, KlDivLoss, L1Loss, MseLoss,
    MultiLabelSoftMarginLoss, MultiMarginLoss, NllLoss, PoissonNllLoss, Reduction, SmoothL1Loss, SoftMarginLoss,
    log_softmax,
};
use candle_losses::{Mlp, OutputActivation, Parameters, mlp};
use candle_nn::VarBuilder;
use own_table::{
    ColumnTypes, Decimal, Delimiter, Encoding, ReadOptions, Schema, Table, Target, UnknownCategories, median,
};
use std::path::{Path, PathBuf};
use std::time::Instant;
use suite::plot::Outcome;
use suite::{InputFile, Options, Preset, Session, Ui, is_stdout, outputs, run, test_fraction, write};

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
    /// CSV file with the column names in the first line, then one sample per line; may be gzipped
    #[arg(long, value_name = "FILE")]
    csv: PathBuf,

    /// The column to predict
    #[arg(long, value_name = "COLUMN", required_unless_present = "predict")]
    target: Option<String>,

    /// Cell delimiter: comma, semicolon, tab, bar, blanks or a single character [default: detected]
    #[arg(long, value_name = "WHICH")]
    delimiter: Option<Delimiter>,

    /// Decimal mark: point or comma [default: detected from all rows]
    #[arg(long, value_name = "MARK", value_parser = decimal)]
    decimal: Option<Decimal>,

    /// The first line is a row, too; the columns are called "column 1" and so on
    #[arg(long)]
    no_header: bool,

    /// Columns to treat as categories; separate several by commas or repeat the option
    #[arg(long, value_name = "COLUMN,…")]
    categories: Vec<String>,

    /// Columns to treat as numbers
    #[arg(long, value_name = "COLUMN,…")]
    numbers: Vec<String>,

    /// Columns to leave out
    #[arg(long, value_name = "COLUMN,…")]
    ignore: Vec<String>,

    /// Missing values: fill takes the median, or a category of its own; drop leaves the row out
    #[arg(long, value_name = "HOW", default_value = "fill", value_parser = ["fill", "drop"])]
    missing: String,

    /// Fraction of the rows to hold out, chosen by the seed and stratified by class; 0 holds out none
    #[arg(long, value_name = "F", default_value_t = 0.2, value_parser = test_fraction)]
    test_fraction: f64,

    /// Don't train; write the predictions of the --init model for each row of --csv to this CSV file, - for stdout
    #[arg(long, value_name = "FILE", requires = "init")]
    #[arg(conflicts_with_all = ["resume", "checkpoint", "save", "log", "plot", "compare", "loss"])]
    predict: Option<PathBuf>,

    /// With --predict and two classes: minimum probability to predict the second class
    #[arg(long, value_name = "P", requires = "predict", value_parser = test_fraction)]
    threshold: Option<f64>,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Loss")]
struct Choice {
    /// The loss [default: mse for a number, cross_entropy for a class]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(LOSSES.map(|(name, _)| name)))]
    loss: Option<String>,

    /// Train with each loss that fits the target, and print which does best
    #[arg(long, conflicts_with_all = ["loss", "save", "log", "plot", "checkpoint", "resume", "init"])]
    compare: bool,

    /// Weight each class by its inverse frequency
    #[arg(long)]
    balance: bool,

    /// For smooth_l1: the error below which it is a parabola, in standard deviations of the target
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    beta: f64,

    /// For huber: the error beyond which it is a line, in standard deviations of the target
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    delta: f64,

    /// For cross_entropy: fraction of the target spread evenly over all classes
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    label_smoothing: f64,
}

/// What a loss is for.
#[derive(Clone, Copy, PartialEq)]
enum Fits {
    Number,
    /// A number that is not negative.
    Count,
    Classes,
    TwoClasses,
}

const LOSSES: [(&str, Fits); 13] = [
    ("mse", Fits::Number),
    ("l1", Fits::Number),
    ("smooth_l1", Fits::Number),
    ("huber", Fits::Number),
    ("gaussian_nll", Fits::Number),
    ("poisson_nll", Fits::Count),
    ("cross_entropy", Fits::Classes),
    ("nll", Fits::Classes),
    ("multi_margin", Fits::Classes),
    ("multilabel_soft_margin", Fits::Classes),
    ("kl_div", Fits::Classes),
    ("bce_with_logits", Fits::TwoClasses),
    ("soft_margin", Fits::TwoClasses),
];

/// Those that know no weight for each class.
const WITHOUT_WEIGHT: [&str; 2] = ["kl_div", "soft_margin"];

const HIDDEN: [usize; 2] = [64, 32];

/// With fewer rows to train on, all are trained on, to the last epoch.
const FEW: usize = 60;

/// How many epochs the validation loss may be no better before the training ends.
const PATIENCE: usize = 20;

fn decimal(text: &str) -> Result<Decimal, String> {
    match text {
        "point" => Ok(Decimal::Point),
        "comma" => Ok(Decimal::Comma),
        _ => Err("needs point or comma".into()),
    }
}

fn main() -> std::process::ExitCode {
    run(|Arguments { options, data, choice }, ui| {
        options.check_files(
            &[("--csv", &data.csv)],
            &data.predict.iter().map(|path| ("--predict", path.as_path())).collect::<Vec<_>>(),
        )?;
        let mut table = Table::open(
            &data.csv,
            &ReadOptions { delimiter: data.delimiter, no_header: data.no_header, decimal: data.decimal },
        )?;
        match &data.predict {
            Some(path) => predict(&options, &data, &table, path, ui),
            None => {
                table.leave_sum_out();
                train(options, &data, &choice, &table, ui)
            }
        }
    })
}

fn train(options: Options, data: &Data, choice: &Choice, table: &Table, ui: &Ui) -> Result<()> {
    let target = data.target.as_deref().context("--target says which column to predict")?;
    let (device, seed) = (options.device(ui)?, options.seed());
    // Weights that were trained on a table go on with what was learned of its columns.
    let known = options.init()?.map(|file| encoding_of(&file)).transpose()?;
    let loss = choice.loss.as_deref().or(known.as_ref().map(|known| known.loss.as_str()));
    let wanted = loss.and_then(fits).map(|fits| match fits {
        Fits::Number | Fits::Count => Target::Number,
        Fits::Classes | Fits::TwoClasses => Target::Class,
    });
    let types = ColumnTypes {
        numbers: columns(table, &data.numbers),
        categories: columns(table, &data.categories),
        ignore: columns(table, &data.ignore),
        drop_missing: data.missing == "drop",
    };
    let schema = table.schema(target, wanted, &types)?;
    if let Some(known) = &known {
        ensure!(known.target == target, "the weights of --init predict {}, not {target}", known.target);
        ensure!(loss == Some(&known.loss), "the weights of --init were trained by {}; use that --loss", known.loss);
    }
    let losses = match loss {
        Some(loss) => vec![loss],
        None if choice.compare => {
            LOSSES.iter().map(|(name, _)| *name).filter(|name| misfit(name, &schema, table, choice).is_none()).collect()
        }
        None if schema.kind == Target::Number => vec!["mse"],
        None => vec!["cross_entropy"],
    };
    for loss in &losses {
        if let Some(why) = misfit(loss, &schema, table, choice) {
            bail!("--loss {loss} does not fit: {why}");
        }
    }

    let (training, test) = schema.split(table, &schema.rows, data.test_fraction, seed)?;
    // Of few rows none can be spared.
    let share = if training.len() < FEW { 0.0 } else { 0.15 };
    let (training, validation) = schema.split(table, &training, share, seed)?;
    ui.note(schema.description(table, test.len(), validation.len()).trim_end());
    let parts = Parts { table, schema: &schema, training, validation, test, device, ui };
    if choice.compare {
        return compare(&options, choice, &parts, &losses);
    }
    let trained = parts.train(options, choice, losses[0], known.clone())?;
    let (part, rows) = if parts.test.is_empty() { ("Training", &parts.training) } else { ("Test", &parts.test) };
    // With --limit not all of them.
    let outcome = trained.outcome(table, &rows[..trained.session.eval_dataset().len()])?;
    report(part, &trained.network.encoding, table, &parts.training, &outcome, ui)?;
    trained.session.plot(&format!("{target} by {}", losses[0]), &outcome)?;
    trained.session.finish("--help")
}

fn fits(loss: &str) -> Option<Fits> {
    LOSSES.iter().find(|(name, _)| *name == loss).map(|(_, fits)| *fits)
}

/// Why a loss does not fit a target, if it does not.
fn misfit(loss: &str, schema: &Schema, table: &Table, choice: &Choice) -> Option<String> {
    let classes = schema.classes.len();
    match (fits(loss)?, schema.kind) {
        (Fits::Number | Fits::Count, Target::Class) => Some("the target is a class".into()),
        (Fits::Classes | Fits::TwoClasses, Target::Number) => Some("the target is a number".into()),
        (Fits::TwoClasses, _) if classes != 2 => Some(format!("it is for two classes, and there are {classes}")),
        (Fits::Count, _) => {
            let negative = schema.rows.iter().find_map(|&row| schema.number(table, row).filter(|number| *number < 0.0));
            negative.map(|number| format!("it is for counts, and a target is {number}"))
        }
        (Fits::Number, _) if choice.balance => Some("--balance is for classes".into()),
        _ if choice.balance && WITHOUT_WEIGHT.contains(&loss) => {
            Some("it has no class weights, so --balance can't be used".into())
        }
        _ => None,
    }
}

/// The columns that an option names: each by itself, or several with commas between them.
fn columns(table: &Table, names: &[String]) -> Vec<String> {
    let several = |name: &String| match table.has(name) {
        true => vec![name.clone()],
        false => name.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect(),
    };
    names.iter().flat_map(several).collect()
}

fn encoding_of(model: &InputFile) -> Result<Encoding> {
    Encoding::of_model(&model.bytes).with_context(|| format!("reading {}", model.path.display()))
}

struct Parts<'a> {
    table: &'a Table,
    schema: &'a Schema,
    training: Vec<usize>,
    validation: Vec<usize>,
    test: Vec<usize>,
    device: Device,
    ui: &'a Ui,
}

/// The network with what comes before it.
struct Network {
    encoding: Encoding,
    mlp: Mlp,
}

impl Network {
    fn new(encoding: Encoding, builder: VarBuilder) -> Result<Self> {
        let widths = [&[encoding.features()], &HIDDEN[..], &[width(&encoding)]].concat();
        Ok(Self { mlp: mlp(&widths, OutputActivation::Linear, builder)?, encoding })
    }
}

impl Module for Network {
    fn forward(&self, inputs: &Tensor) -> candle_core::Result<Tensor> {
        self.mlp.forward(&self.encoding.one_hot(inputs)?)
    }
}

struct Trained {
    network: Network,
    session: Session,
}

impl Trained {
    /// What it makes of these rows, which are the ones that the session reports on.
    fn outcome(&self, table: &Table, rows: &[usize]) -> Result<Outcome> {
        let output = outputs(&self.network, self.session.eval_dataset())?;
        Prediction::new(&self.network.encoding, &output, None)?.outcome(&self.network.encoding, table, rows)
    }
}

impl Parts<'_> {
    fn train(&self, options: Options, choice: &Choice, loss: &str, known: Option<Encoding>) -> Result<Trained> {
        let encoding = match known {
            Some(known) => known,
            None => Encoding::fit(self.table, self.schema, &self.training, loss)?,
        };
        let samples = |rows: &[usize]| Ok::<_, anyhow::Error>(encoding.samples(self.table, rows, &self.device)?.0);
        let (test, unseen) = encoding.samples(self.table, &self.test, &self.device)?;
        tell(&unseen, self.ui);
        let split = TrainTestSplit { train: samples(&self.training)?, test };
        options.record("--loss", loss);
        let reduction = options.reduction(Reduction::Mean);
        let session =
            Session::new(options, Preset::OwnTable { rows: self.training.len() }, split, self.device.clone(), self.ui)?
                .with_metadata(encoding.to_metadata()?)
                .with_validation(samples(&self.validation)?, PATIENCE);
        let network = Network::new(encoding, session.var_builder())?;
        let weights = if choice.balance { Some(balanced(self.schema, &network.encoding, &self.device)?) } else { None };
        let trained = Trained { network, session };
        let loss = |inputs: &Tensor, target: &Tensor| {
            loss_of(loss, choice, reduction, weights.as_ref(), &trained.network.forward(inputs)?, target)
        };
        // The network has no training mode, so one closure serves both.
        trained.session.fit_validated(loss, loss)?;
        Ok(trained)
    }
}

/// How many outputs the model has.
fn width(encoding: &Encoding) -> usize {
    match (encoding.loss.as_str(), &encoding.classes) {
        ("gaussian_nll", _) => 2,
        ("bce_with_logits" | "soft_margin", _) | (_, None) => 1,
        (_, Some(classes)) => classes.len(),
    }
}

/// A weight for each class, on the average of the samples 1.
fn balanced(schema: &Schema, encoding: &Encoding, device: &Device) -> Result<Tensor> {
    let (rows, classes) = (schema.rows.len() as f32, schema.classes.len() as f32);
    // A class that the weights of --init know may be missing here.
    let weights = encoding.classes.iter().flatten().map(|class| {
        let count = schema.classes.iter().find(|(name, _)| name == class).map(|(_, count)| *count);
        count.map_or(1.0, |count| rows / (classes * count as f32))
    });
    Ok(Tensor::new(weights.collect::<Vec<_>>(), device)?)
}

fn loss_of(
    loss: &str,
    choice: &Choice,
    reduction: Reduction,
    weight: Option<&Tensor>,
    output: &Tensor,
    target: &Tensor,
) -> candle_core::Result<Tensor> {
    let weight = weight.cloned();
    let classes = output.dim(1)?.max(2);
    let one_hot = || {
        let places = Tensor::arange(0u32, classes as u32, output.device())?;
        target.unsqueeze(1)?.broadcast_eq(&places.unsqueeze(0)?)?.to_dtype(DType::F32)
    };
    match loss {
        "mse" => MseLoss { reduction }.forward(output, target),
        "l1" => L1Loss { reduction }.forward(output, target),
        "smooth_l1" => SmoothL1Loss { beta: choice.beta, reduction }.forward(output, target),
        "huber" => HuberLoss { delta: choice.delta, reduction }.forward(output, target),
        "gaussian_nll" => {
            let (mean, log_var) = (output.narrow(1, 0, 1)?, output.narrow(1, 1, 1)?);
            GaussianNllLoss { reduction, ..Default::default() }.forward(&mean, target, &log_var.exp()?)
        }
        "poisson_nll" => PoissonNllLoss { reduction, ..Default::default() }.forward(output, target),
        "nll" => NllLoss { weight, reduction, ..Default::default() }.forward(&log_softmax(output, 1)?, target),
        "multi_margin" => MultiMarginLoss { weight, reduction, ..Default::default() }.forward(output, target),
        "multilabel_soft_margin" => MultiLabelSoftMarginLoss { weight, reduction }.forward(output, &one_hot()?),
        "kl_div" => {
            // A tenth of the target goes to all classes alike, as in the section of that name.
            let target = one_hot()?.affine(0.9, 0.1 / classes as f64)?;
            let reduction = if reduction == Reduction::Mean { Reduction::BatchMean } else { reduction };
            KlDivLoss { reduction, ..Default::default() }.forward(&log_softmax(output, 1)?, &target)
        }
        "bce_with_logits" => {
            // That of the second class over that of the first.
            let pos_weight = weight.map(|weight| weight.narrow(0, 1, 1)? / weight.narrow(0, 0, 1)?).transpose()?;
            let target = target.unsqueeze(1)?.to_dtype(DType::F32)?;
            BceWithLogitsLoss { pos_weight, reduction, ..Default::default() }.forward(output, &target)
        }
        "soft_margin" => {
            let sides = target.unsqueeze(1)?.to_dtype(DType::F32)?.affine(2., -1.)?;
            SoftMarginLoss { reduction }.forward(output, &sides)
        }
        _ => CrossEntropyLoss { weight, label_smoothing: choice.label_smoothing, reduction, ..Default::default() }
            .forward(output, target),
    }
}

/// Says what rows hold that the training part had not.
fn tell(unseen: &UnknownCategories, ui: &Ui) {
    for (column, count, example) in unseen {
        ui.note(&format!("{count} cells of {column} have values not seen in training, such as {example:?}: they count as no category, or as missing"));
    }
}

/// What a model says of rows: numbers in the unit of the table, or the place of a class and the probabilities of all.
enum Prediction {
    Numbers(Vec<f64>),
    Classes(Vec<usize>, Vec<Vec<f32>>),
}

impl Prediction {
    fn new(encoding: &Encoding, output: &Tensor, threshold: Option<f64>) -> Result<Self> {
        let output = output.to_device(&Device::Cpu)?;
        let is_finite = output.flatten_all()?.to_vec1::<f32>()?.iter().all(|x| x.is_finite());
        ensure!(is_finite, "a prediction is not a finite number");
        let Some(classes) = &encoding.classes else {
            let (offset, unit) = encoding.scale;
            let first = output.narrow(1, 0, 1)?;
            let first = if encoding.loss == "poisson_nll" { first.exp()? } else { first };
            let numbers = first.flatten_all()?.to_vec1::<f32>()?;
            return Ok(Self::Numbers(numbers.into_iter().map(|number| f64::from(number) * unit + offset).collect()));
        };
        let second = |probability: Tensor| Tensor::cat(&[probability.affine(-1., 1.)?, probability], 1);
        let probabilities = match encoding.loss.as_str() {
            "bce_with_logits" | "soft_margin" => second(candle_nn::ops::sigmoid(&output)?)?,
            "multilabel_soft_margin" => {
                let each = candle_nn::ops::sigmoid(&output)?;
                each.broadcast_div(&each.sum_keepdim(D::Minus1)?)?
            }
            _ => log_softmax(&output, 1)?.exp()?,
        };
        ensure!(
            threshold.is_none() || classes.len() == 2,
            "--threshold is for two classes, and there are {}",
            classes.len()
        );
        let probabilities = probabilities.to_vec2::<f32>()?;
        let choose = |row: &Vec<f32>| match threshold {
            Some(threshold) => usize::from(f64::from(row[1]) >= threshold),
            None => (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a))).unwrap_or(0),
        };
        Ok(Self::Classes(probabilities.iter().map(choose).collect(), probabilities))
    }

    /// Beside what is true of these rows.
    fn outcome(&self, encoding: &Encoding, table: &Table, rows: &[usize]) -> Result<Outcome> {
        Ok(match self {
            Self::Numbers(predicted) => {
                let truth = encoding.numbers_of(table, rows)?;
                Outcome::Numbers(truth.into_iter().zip(predicted.iter().copied()).collect())
            }
            Self::Classes(chosen, _) => {
                let names = encoding.classes.clone().unwrap_or_default();
                let mut counts = vec![vec![0; names.len()]; names.len()];
                for (truth, chosen) in encoding.classes_of(table, rows)?.into_iter().zip(chosen) {
                    counts[truth][*chosen] += 1;
                }
                Outcome::Classes { names, counts }
            }
        })
    }
}

/// Figures of an outcome beside those of the trivial guess, which the training rows give.
fn report(
    part: &str,
    encoding: &Encoding,
    table: &Table,
    training: &[usize],
    outcome: &Outcome,
    ui: &Ui,
) -> Result<()> {
    match outcome {
        Outcome::Numbers(points) => {
            let count = format!("({} samples)", points.len());
            let guess = median(&mut encoding.numbers_of(table, training)?);
            let guesses = points.iter().map(|(truth, _)| (*truth, guess)).collect::<Vec<_>>();
            let (figures, guessed) = (Figures::new(points), Figures::new(&guesses));
            ui.print(&format!("{part} MAE: {} {count}", short(figures.mae)))?;
            ui.print(&format!("{part} RMSE: {} {count}", short(figures.rmse)))?;
            // Of targets that are all alike there is none.
            let r2 = if figures.r2.is_finite() { format!("{:.3}", figures.r2) } else { "none".into() };
            ui.print(&format!("{part} R²: {r2} {count}"))?;
            ui.print(&format!("Guessing the median: MAE {}", short(guessed.mae)))?;
            if figures.mae >= guessed.mae {
                ui.note(&format!("The model is no better than the guess: the columns may say nothing of {}, or more rows, --epochs or another --lr are needed.",
                    encoding.target));
            }
        }
        Outcome::Classes { names, counts } => {
            let mut known = vec![0; names.len()];
            encoding.classes_of(table, training)?.into_iter().for_each(|class| known[class] += 1);
            let most = (0..known.len()).max_by_key(|&class| (known[class], std::cmp::Reverse(class))).unwrap_or(0);
            let guess = |row: &Vec<usize>| {
                let mut guessed = vec![0; row.len()];
                guessed[most] = row.iter().sum();
                guessed
            };
            let (rates, guessed) = (Rates::new(counts), Rates::new(&counts.iter().map(guess).collect::<Vec<_>>()));
            let count = format!("({} samples)", counts.iter().flatten().sum::<usize>());
            ui.print(&format!("{part} accuracy: {:.2}% {count}", 100.0 * rates.accuracy))?;
            ui.print(&format!("{part} balanced accuracy: {:.2}% {count}", 100.0 * rates.balanced()))?;
            ui.print(&format!("Always {:?}: accuracy {:.2}%", names[most], 100.0 * guessed.accuracy))?;
            for (class, recall) in names.iter().zip(&rates.recalls).take(20) {
                if let Some((right, all)) = recall {
                    ui.note(&format!("{:>11}  {class}: {right} of {all} found", "recall"));
                }
            }
            if rates.accuracy <= guessed.accuracy && rates.balanced() <= guessed.balanced() + 0.01 {
                ui.note(&format!("The model is no better than the guess: the columns may say nothing of {}, or more rows or --balance are needed.",
                    encoding.target));
            } else if rates.accuracy <= guessed.accuracy {
                ui.note("By accuracy the model is no better than the guess, as the classes are uneven; look at the balanced accuracy.");
            }
        }
    }
    Ok(())
}

struct Figures {
    mae: f64,
    rmse: f64,
    r2: f64,
}

impl Figures {
    /// Of true and predicted numbers.
    fn new(points: &[(f64, f64)]) -> Self {
        let count = points.len() as f64;
        let mean = points.iter().map(|(truth, _)| truth).sum::<f64>() / count;
        let errors = || points.iter().map(|(truth, predicted)| predicted - truth);
        let squares = errors().map(|error| error * error).sum::<f64>();
        let all = points.iter().map(|(truth, _)| (truth - mean).powi(2)).sum::<f64>();
        Self {
            mae: errors().map(f64::abs).sum::<f64>() / count,
            rmse: (squares / count).sqrt(),
            r2: 1.0 - squares / all,
        }
    }
}

struct Rates {
    accuracy: f64,
    /// Of each class how many were found, and how many there are.
    recalls: Vec<Option<(usize, usize)>>,
}

impl Rates {
    /// Of how often each class was taken for each.
    fn new(counts: &[Vec<usize>]) -> Self {
        let recall = |(class, row): (usize, &Vec<usize>)| {
            let all = row.iter().sum::<usize>();
            (all > 0).then_some((row[class], all))
        };
        let recalls = counts.iter().enumerate().map(recall).collect::<Vec<_>>();
        let (right, all) = recalls.iter().flatten().fold((0, 0), |sum, (right, all)| (sum.0 + right, sum.1 + all));
        Self { accuracy: right as f64 / all as f64, recalls }
    }

    fn each(&self) -> impl Iterator<Item = f64> {
        self.recalls.iter().flatten().map(|(right, all)| *right as f64 / *all as f64)
    }

    /// The mean of the classes' recalls.
    fn balanced(&self) -> f64 {
        self.each().sum::<f64>() / self.each().count() as f64
    }
}

/// Three decimals, or as many digits where that would be more than anybody reads.
fn short(number: f64) -> String {
    if number.abs() >= 1e6 { format!("{number:.4e}") } else { format!("{number:.3}") }
}

/// A row for each loss: its figures on the held-out rows, and the time that it took.
fn compare(options: &Options, choice: &Choice, parts: &Parts, losses: &[&str]) -> Result<()> {
    let ui = parts.ui;
    ensure!(!parts.test.is_empty(), "--compare needs rows that are held out: a --test-fraction above 0");
    let mut rows = Vec::new();
    for loss in losses {
        let start = Instant::now();
        let mut options = options.clone();
        options.quiet();
        let trained = parts.train(options, choice, loss, None)?;
        let figures = match trained.outcome(parts.table, &parts.test)? {
            Outcome::Numbers(points) => {
                let figures = Figures::new(&points);
                [
                    (short(figures.mae), -figures.mae),
                    (short(figures.rmse), -figures.rmse),
                    (format!("{:.3}", figures.r2), figures.r2),
                ]
            }
            Outcome::Classes { counts, .. } => {
                let rates = Rates::new(&counts);
                let least = rates.each().fold(1.0, f64::min);
                [rates.accuracy, rates.balanced(), least].map(|share| (format!("{:.2}%", 100.0 * share), share))
            }
        };
        rows.push((*loss, figures, start.elapsed().as_secs_f64()));
    }
    let names = match parts.schema.kind {
        Target::Number => ["MAE", "RMSE", "R²"],
        Target::Class => ["accuracy", "balanced", "least recall"],
    };
    ui.print(&format!("| {:22} | {:>12} | {:>12} | {:>12} | {:>8} |", "loss", names[0], names[1], names[2], "time"))?;
    ui.print(&format!(
        "|{}|{}",
        "-".repeat(24),
        format!("{}:|", "-".repeat(13)).repeat(3) + &format!("{}:|", "-".repeat(9))
    ))?;
    let best = |at: usize| rows.iter().map(|(_, figures, _)| figures[at].1).fold(f64::NEG_INFINITY, f64::max);
    let best = [best(0), best(1), best(2)];
    for (loss, figures, seconds) in &rows {
        let cell = |at: usize| format!("{}{}", if figures[at].1 == best[at] { "* " } else { "" }, figures[at].0);
        ui.print(&format!("| {loss:22} | {:>12} | {:>12} | {:>12} | {seconds:>6.1} s |", cell(0), cell(1), cell(2)))?;
    }
    ui.print(&format!("* the best, on {} rows held out", parts.test.len()))?;
    Ok(())
}

/// Writes each row with what the model of `--init` makes of it, and prints the figures where the target is there.
fn predict(options: &Options, data: &Data, table: &Table, path: &Path, ui: &Ui) -> Result<()> {
    let model = options.init()?.context("--predict needs --init FILE, the model")?;
    let encoding = encoding_of(&model)?;
    if let Some(other) = data.target.as_deref().filter(|other| *other != encoding.target) {
        bail!("the model of --init predicts {}, not {other}: leave --target out", encoding.target);
    }
    let device = options.device(ui)?;
    let parameters = Parameters::seeded(options.seed());
    let network = Network::new(encoding, parameters.var_builder(DType::F32, &device))?;
    let (encoding, target) = (&network.encoding, &network.encoding.target);
    parameters
        .load_safetensors(&model.bytes)
        .with_context(|| format!("loading weights from {}", model.path.display()))?;
    table.notes().iter().for_each(|note| ui.note(note));
    let rows = (0..table.len()).collect::<Vec<_>>();
    let (inputs, unseen) = encoding.transform(table, &rows, &device)?;
    tell(&unseen, ui);
    let extra = table.header().iter().filter(|name| *name != target && !encoding.reads(name)).count();
    if extra > 0 {
        ui.note(&format!("{extra} columns that the model does not read are passed on as they are."));
    }
    let samples = TensorDataset::new(inputs, Tensor::zeros(rows.len(), DType::F32, &device)?)?;
    let output = outputs(&network, &samples)?;
    let prediction = Prediction::new(encoding, &output, data.threshold)?;
    write(path, &predictions(encoding, table, &prediction)?)?;
    if !is_stdout(path) {
        ui.print(&format!("Predictions of {target}: {}", path.display()))?;
    }
    let labeled = rows.iter().copied().filter(|&row| encoding.has_target(table, row)).collect::<Vec<_>>();
    let unknown = rows.iter().filter(|&&row| encoding.has_unknown_target(table, row)).count();
    if unknown > 0 {
        ui.note(&format!("{unknown} rows have a {target} that the model does not know; they are not in the metrics."));
    }
    if !labeled.is_empty() && !is_stdout(path) {
        let of_labeled = match prediction {
            Prediction::Numbers(all) => Prediction::Numbers(labeled.iter().map(|&row| all[row]).collect()),
            Prediction::Classes(all, _) => {
                Prediction::Classes(labeled.iter().map(|&row| all[row]).collect(), Vec::new())
            }
        };
        report("Labeled", encoding, table, &labeled, &of_labeled.outcome(encoding, table, &labeled)?, ui)?;
    }
    Ok(())
}

/// The table, with the prediction and of classes the probability of each.
fn predictions(encoding: &Encoding, table: &Table, prediction: &Prediction) -> Result<Vec<u8>> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let classes = encoding.classes.as_deref().unwrap_or_default();
    let named = [format!("predicted {}", encoding.target)].into_iter();
    let named = named.chain(classes.iter().map(|class| format!("probability of {class}")));
    csv.write_record(table.header().iter().cloned().chain(named))?;
    for row in 0..table.len() {
        let cells = (0..table.header().len()).map(|at| table.text(row, at).unwrap_or_default().to_owned());
        let predicted = match prediction {
            Prediction::Numbers(numbers) => vec![numbers[row].to_string()],
            Prediction::Classes(chosen, probabilities) => {
                let all = probabilities[row].iter().map(f32::to_string);
                [classes[chosen[row]].clone()].into_iter().chain(all).collect()
            }
        };
        csv.write_record(cells.chain(predicted))?;
    }
    Ok(csv.into_inner()?)
}
