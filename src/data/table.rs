//! Tables of numbers and categories from CSV files: a row becomes the inputs of a model, one of its columns the target.

use super::{Draw, Samples, Split, generator, metadata};
use crate::kernel::ops::log_softmax;
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;

/// The name that an [`Encoding`] has among the metadata of a model's file.
const ENCODING: &str = "candle-losses.table";

/// What a target is: a number to come near to, or a class to choose.
///
/// ```
/// use candle_losses::data::table::Target;
///
/// assert_ne!(Target::Number, Target::Class);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `f32`, (N, 1).
    Number,
    /// `u32`, (N).
    Class,
}

const INPUT: &str = "if the column holds categories, name it in --categories";
const TARGET: &str = "if the target is a class, take --loss cross_entropy";

/// More classes, or categories of a column, are likely numbers.
const MOST: usize = 1000;

/// How a row becomes the inputs of a model and its target: scales as learned from the training part, categories and classes
/// from all of the table. It goes with the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoding {
    /// The column that is predicted.
    pub target: String,
    /// The classes in the order of the outputs; none where the target is a number.
    pub classes: Option<Vec<String>>,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    /// Standardized: minus the mean, over the population standard deviation, if there is any.
    Number { mean: f64, deviation: f64 },
    /// 1 for the category that holds, 0 for the others.
    Categories(Vec<String>),
}

/// A CSV file with its header, each row with the line it starts on.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::data::table::{Table, Target};
///
/// let csv = "size,district,price\n50,north,100\n80,south,170\n";
/// let table = Table::read("houses.csv", csv.as_bytes())?;
/// let (data, encoding) =
///     table.split(("price", Target::Number), &["district".into()], 0.0, 42, None, &Device::Cpu)?;
/// let (inputs, prices) = data.train.batch(None, 0, 2)?;
/// assert_eq!(inputs.to_vec2::<f32>()?, [[-1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]); // standardized; one-hot
/// assert_eq!(prices.to_vec2::<f32>()?, [[100.0], [170.0]]);
/// assert_eq!(encoding.features(), 3);
/// # Ok::<(), anyhow::Error>(())
/// ```
pub struct Table {
    name: String,
    header: Vec<String>,
    rows: Vec<(u64, csv::StringRecord)>,
}

impl Table {
    /// Reads a file.
    ///
    /// # Errors
    /// If it can't be read, has no rows, or its columns have not each a name of their own.
    pub fn open(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("reading {}", path.display()))?;
        Self::read(&path.display().to_string(), file)
    }

    /// The same from a reader; `name` is what errors call it.
    pub fn read(name: &str, csv: impl Read) -> Result<Self> {
        let reading = || format!("reading {name}");
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(csv);
        let header = reader.headers().with_context(reading)?.iter().map(str::to_owned).collect::<Vec<_>>();
        for (i, column) in header.iter().enumerate() {
            ensure!(!column.is_empty(), "{name}: column {} has no name", i + 1);
            ensure!(!header[..i].contains(column), "{name}: two columns are called {column}");
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.with_context(reading)?;
            rows.push((record.position().map_or(0, csv::Position::line), record));
        }
        ensure!(!rows.is_empty(), "{name} has no rows");
        Ok(Self { name: name.to_owned(), header, rows })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The names of the columns.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    fn column(&self, name: &str) -> Result<usize> {
        let found = self.header.iter().position(|column| column == name);
        found.with_context(|| format!("{} has no column {name}; it has {}", self.name, self.header.join(", ")))
    }

    /// What stands there, which must not be nothing.
    fn text(&self, row: usize, column: usize) -> Result<&str> {
        let (line, record) = &self.rows[row];
        match &record[column] {
            "" => bail!("{}, line {line}, column {}: there is no value", self.name, self.header[column]),
            text => Ok(text),
        }
    }

    /// The number that stands there; `hint` says what to do where it is none.
    fn number(&self, row: usize, column: usize, hint: &str) -> Result<f64> {
        let text = self.text(row, column)?;
        match text.parse::<f64>() {
            Ok(number) if (number as f32).is_finite() => Ok(number),
            Ok(_) => bail!("{}: {text} is not a finite number", self.place(row, column)),
            Err(_) => bail!("{}: {text:?} is not a number ({hint})", self.place(row, column)),
        }
    }

    fn place(&self, row: usize, column: usize) -> String {
        format!("{}, line {}, column {}", self.name, self.rows[row].0, self.header[column])
    }

    /// As [`Self::distinct`], if they are few enough to be that.
    fn few(&self, what: &str, column: usize) -> Result<Vec<String>> {
        let (name, found) = (&self.header[column], self.distinct(column)?);
        ensure!(
            found.len() <= MOST,
            "{}: {name} has {} different values, too many for {what} (are they numbers?)",
            self.name,
            found.len()
        );
        Ok(found)
    }

    /// What stands in a column, each once: in the order of the numbers if all are numbers, else of the alphabet.
    fn distinct(&self, column: usize) -> Result<Vec<String>> {
        let mut found = std::collections::BTreeSet::new();
        for row in 0..self.len() {
            found.insert(self.text(row, column)?);
        }
        let mut found = found.into_iter().map(str::to_owned).collect::<Vec<_>>();
        if let Ok(mut numbers) =
            found.iter().map(|text| Ok((text.parse::<f64>()?, text.clone()))).collect::<Result<Vec<_>>>()
        {
            numbers.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            found = numbers.into_iter().map(|(_, text)| text).collect();
        }
        Ok(found)
    }

    /// The training part and a `test_fraction` to hold out, chosen by the seed, with what was learned from the former, or
    /// was known before. `categories` are the columns that hold no numbers; the target is a column and what it is.
    ///
    /// # Errors
    /// If a column is not there, a value is missing or not what its column holds, or nothing is left to train on.
    pub fn split(
        &self,
        (target, kind): (&str, Target),
        categories: &[String],
        test_fraction: f64,
        seed: u64,
        known: Option<Encoding>,
        device: &Device,
    ) -> Result<(Split, Encoding)> {
        ensure!((0.0..1.0).contains(&test_fraction), "the test fraction is {test_fraction} but must be in [0, 1)");
        let held_out = (self.len() as f64 * test_fraction).round() as usize;
        ensure!(held_out < self.len(), "a test fraction of {test_fraction} leaves nothing to train on");
        let mut shuffled = (0..self.len()).collect::<Vec<_>>();
        shuffled.shuffle(&mut generator(seed, Draw::Split));
        let mut is_held_out = vec![false; self.len()];
        for &row in &shuffled[..held_out] {
            is_held_out[row] = true;
        }
        let (test, train): (Vec<_>, Vec<_>) = (0..self.len()).partition(|&row| is_held_out[row]);
        let encoding = match known {
            Some(known) => {
                ensure!(known.target == target, "the weights of --init predict {}, not {target}", known.target);
                ensure!(
                    known.classes.is_some() == (kind == Target::Class),
                    "the weights of --init predict {target} as a {}, which asks for another loss",
                    if known.classes.is_some() { "class" } else { "number" }
                );
                known
            }
            None => self.learn((target, kind), categories, &train)?,
        };
        let samples = |rows: &[usize]| {
            anyhow::Ok(Samples::new(self.inputs(&encoding, rows, device)?, self.targets(&encoding, rows, device)?)?)
        };
        Ok((Split { train: samples(&train)?, test: samples(&test)? }, encoding))
    }

    fn learn(&self, (target, kind): (&str, Target), categories: &[String], train: &[usize]) -> Result<Encoding> {
        let target_at = self.column(target)?;
        for name in categories {
            ensure!(self.column(name)? != target_at, "{name} is the target, so it can't be among --categories");
        }
        let mut columns = Vec::new();
        for (at, name) in self.header.iter().enumerate().filter(|&(at, _)| at != target_at) {
            let kind = if categories.contains(name) {
                Kind::Categories(self.few("categories", at)?)
            } else {
                let numbers = train.iter().map(|&row| self.number(row, at, INPUT)).collect::<Result<Vec<_>>>()?;
                let count = numbers.len() as f64;
                let mean = numbers.iter().sum::<f64>() / count;
                let deviation = (numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
                // By itself, as of equal numbers the mean may be another by a rounding.
                let is_constant = numbers.iter().all(|&x| x == numbers[0]);
                let deviation = if is_constant { 0.0 } else { deviation };
                Kind::Number { mean, deviation }
            };
            columns.push(Column { name: name.clone(), kind });
        }
        ensure!(!columns.is_empty(), "{} has no column but the target", self.name);
        let classes = match kind {
            Target::Number => None,
            Target::Class => Some(self.few("classes", target_at)?),
        };
        if let Some(classes) = &classes {
            ensure!(classes.len() > 1, "{}: all rows have the same {target}, {}", self.name, classes[0]);
        }
        Ok(Encoding { target: target.to_owned(), classes, columns })
    }

    /// The inputs of these rows, (N, inputs).
    ///
    /// # Errors
    /// If a column is not there, or a value is missing or not what was learned of its column.
    pub fn inputs(&self, encoding: &Encoding, rows: &[usize], device: &Device) -> Result<Tensor> {
        let places = encoding.columns.iter().map(|column| self.column(&column.name)).collect::<Result<Vec<_>>>()?;
        let mut inputs = Vec::new();
        for &row in rows {
            for (column, &at) in encoding.columns.iter().zip(&places) {
                match &column.kind {
                    Kind::Number { mean, deviation } => {
                        let number = self.number(row, at, INPUT)?;
                        // One that is constant in the training part says nothing: it stays 0.
                        inputs.push(if *deviation > 0.0 { ((number - mean) / deviation) as f32 } else { 0.0 });
                    }
                    Kind::Categories(known) => {
                        let holds = self.index(row, at, known)?;
                        inputs.extend((0..known.len()).map(|i| f32::from(i == holds)));
                    }
                }
            }
        }
        Ok(Tensor::from_vec(inputs, (rows.len(), encoding.features()), device)?)
    }

    fn targets(&self, encoding: &Encoding, rows: &[usize], device: &Device) -> Result<Tensor> {
        let at = self.column(&encoding.target)?;
        Ok(match &encoding.classes {
            None => {
                let numbers =
                    rows.iter().map(|&row| Ok(self.number(row, at, TARGET)? as f32)).collect::<Result<Vec<_>>>()?;
                Tensor::from_vec(numbers, (rows.len(), 1), device)?
            }
            Some(classes) => {
                let indices = rows.iter().map(|&row| Ok(self.index(row, at, classes)? as u32));
                Tensor::from_vec(indices.collect::<Result<Vec<_>>>()?, rows.len(), device)?
            }
        })
    }

    /// Which of the known ones stands there.
    fn index(&self, row: usize, column: usize, known: &[String]) -> Result<usize> {
        let text = self.text(row, column)?;
        let found = known.iter().position(|other| other == text);
        found.with_context(|| format!("{}: {text:?} is none of {}", self.place(row, column), known.join(", ")))
    }
}

impl Encoding {
    /// How many numbers a row becomes.
    pub fn features(&self) -> usize {
        let widths = self.columns.iter().map(|column| match &column.kind {
            Kind::Number { .. } => 1,
            Kind::Categories(known) => known.len(),
        });
        widths.sum()
    }

    /// How many outputs the model has: one for each class, or the number.
    pub fn outputs(&self) -> usize {
        self.classes.as_ref().map_or(1, Vec::len)
    }

    /// What goes with the weights into a safetensors file, among its metadata.
    pub fn to_metadata(&self) -> Result<(String, String)> {
        Ok((ENCODING.to_owned(), serde_json::to_string(self)?))
    }

    /// That of the table which the model in a safetensors file was trained on.
    pub fn of_model(bytes: &[u8]) -> Result<Self> {
        let encoding = metadata(bytes, ENCODING)?
            .context("this model was not trained on a table: make it with --csv FILE --target COLUMN --save")?;
        Ok(serde_json::from_str(&encoding)?)
    }

    /// A model's outputs, (N, outputs), as CSV: the number, or the class with its probability, of each row.
    pub fn predictions(&self, output: &Tensor) -> Result<Vec<u8>> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        match &self.classes {
            None => {
                csv.write_record([&self.target])?;
                for number in output.flatten_all()?.to_vec1::<f32>()? {
                    csv.write_record([number.to_string()])?;
                }
            }
            Some(classes) => {
                csv.write_record([self.target.as_str(), "probability"])?;
                let probabilities = log_softmax(output, 1)?.exp()?;
                let (choices, sure) =
                    (probabilities.argmax(1)?.to_vec1::<u32>()?, probabilities.max(1)?.to_vec1::<f32>()?);
                for (choice, sure) in choices.into_iter().zip(sure) {
                    csv.write_record([&classes[choice as usize], &sure.to_string()])?;
                }
            }
        }
        Ok(csv.into_inner()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(csv: &str) -> Result<Table> {
        Table::read("t.csv", csv.as_bytes())
    }

    fn split(csv: &str, target: (&str, Target), categories: &[&str]) -> Result<(Samples, Samples, Encoding)> {
        let categories = categories.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let (data, encoding) = table(csv)?.split(target, &categories, 0.0, 1, None, &Device::Cpu)?;
        Ok((data.train, data.test, encoding))
    }

    fn inputs(samples: &Samples) -> Vec<Vec<f32>> {
        samples.batch(None, 0, samples.len()).unwrap().0.to_vec2().unwrap()
    }

    #[test]
    fn numbers_are_standardized_and_categories_one_hot() -> Result<()> {
        let csv = "\u{feff}size,\"colour\",price\r\n1,red,10\r\n3, blue ,30\r\n";
        let (train, _, encoding) = split(csv, ("price", Target::Number), &["colour"])?;
        assert_eq!(inputs(&train), [[-1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]);
        assert_eq!(train.targets().to_vec2::<f32>()?, [[10.0], [30.0]]);
        assert_eq!(encoding.classes, None);
        Ok(())
    }

    #[test]
    fn a_constant_says_nothing_whatever_comes_later() -> Result<()> {
        let csv = format!("x,z,y\n{}", "0.1,1,2\n".repeat(30) + "0.1,2,3\n");
        let (train, _, encoding) = split(&csv, ("y", Target::Number), &[])?;
        assert!(inputs(&train).iter().all(|row| row[0] == 0.0));
        let other = table("x,z\n0.2,1\n")?.inputs(&encoding, &[0], &Device::Cpu)?.to_vec2::<f32>()?;
        assert_eq!(other[0][0], 0.0);
        Ok(())
    }

    #[test]
    fn more_training_keeps_what_was_learned_of_the_columns() -> Result<()> {
        let (_, _, known) = split("x,y\n0,1\n2,2\n", ("y", Target::Number), &[])?;
        let more = table("y,x\n5,3\n")?;
        let (data, _) = more.split(("y", Target::Number), &[], 0.0, 1, Some(known.clone()), &Device::Cpu)?;
        assert_eq!(inputs(&data.train), [[2.0]]);
        let other = more.split(("x", Target::Number), &[], 0.0, 1, Some(known), &Device::Cpu);
        assert_eq!(other.unwrap_err().to_string(), "the weights of --init predict y, not x");
        Ok(())
    }

    #[test]
    fn classes_are_numbered_in_their_order() -> Result<()> {
        let (train, _, encoding) = split("x,y\n1,10\n2,9\n3,10\n", ("y", Target::Class), &[])?;
        assert_eq!(train.targets().to_vec1::<u32>()?, [1, 0, 1]);
        assert_eq!(encoding.classes.unwrap(), ["9", "10"]);
        Ok(())
    }

    #[test]
    fn what_was_learned_goes_for_other_rows() -> Result<()> {
        let (_, _, encoding) = split("a,b,y\n1,u,1\n3,v,2\n", ("y", Target::Number), &["b"])?;
        let stored: Encoding = serde_json::from_str(&serde_json::to_string(&encoding)?)?;
        assert_eq!(stored, encoding);
        let other = table("b,a\nv,5\n")?;
        assert_eq!(other.inputs(&stored, &[0], &Device::Cpu)?.to_vec2::<f32>()?, [[3.0, 0.0, 1.0]]);
        let error = table("b,a\nw,5\n")?.inputs(&stored, &[0], &Device::Cpu).unwrap_err().to_string();
        assert_eq!(error, "t.csv, line 2, column b: \"w\" is none of u, v");
        Ok(())
    }

    #[test]
    fn refuses_with_line_and_column() {
        let refused = |csv: &str, parts: &[&str]| {
            let error = format!("{:#}", split(csv, ("y", Target::Number), &[]).unwrap_err());
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        };
        refused("x,y\n1,2\n,3\n", &["t.csv, line 3, column x", "no value"]);
        refused("x,y\n1,2\nred,3\n", &["line 3, column x", "\"red\" is not a number", "--categories"]);
        refused("x,y\n1,2\n1,NaN\n", &["line 3, column y", "finite"]);
        refused("x,y\n1,2\n1\n", &["t.csv", "line: 3"]);
        refused("x,x,y\n1,2,3\n", &["two columns are called x"]);
        refused("x,z\n1,2\n", &["no column y", "x, z"]);
        refused("y\n1\n", &["no column but the target"]);
        refused("x,y\n", &["no rows"]);
        let classes = split("x,y\n1,a\n2,a\n", ("y", Target::Class), &[]).unwrap_err().to_string();
        assert!(classes.contains("all rows have the same y, a"), "{classes}");
        assert!(table("x,y\n1,\"2\n").is_ok_and(|table| table.len() == 1));
        assert!(Table::read("t.csv", &b"x,y\n\xff,1\n"[..]).is_err());
    }
}
