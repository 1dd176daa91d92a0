//! How a row becomes the inputs of a model, and a model's outputs a prediction: as learned from the training part.

use super::schema::sort;
use super::{Schema, Table, Target};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use candle_losses::data::TensorDataset;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// The name that an [`Encoding`] has among the metadata of a model's file.
const ENCODING: &str = "candle-losses.table";

/// How a row becomes the inputs of a model and its target, as learned from the training part. It goes with the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoding {
    /// The column that is predicted.
    pub target: String,
    /// The classes in the order of the outputs; none where the target is a number.
    pub classes: Option<Vec<String>>,
    /// The loss that it was trained by, which says how its outputs are meant.
    pub loss: String,
    /// Offset and scale of the target, `(value in the table - offset) / scale`; (0, 1) for classes.
    pub scale: (f64, f64),
    numbers: Vec<Number>,
    categories: Vec<Categories>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Number {
    name: String,
    mean: f64,
    /// The population standard deviation; 0 where all are the same, which says nothing.
    deviation: f64,
    median: f64,
    /// Whether an input says that there was none.
    says_missing: bool,
    /// Whether a comma stood before decimals.
    #[serde(default)]
    comma: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Categories {
    name: String,
    levels: Vec<String>,
    /// Whether "missing" is a level, the last one.
    has_missing: bool,
}

impl Categories {
    fn count(&self) -> usize {
        self.levels.len() + usize::from(self.has_missing)
    }
}

/// Values not seen in training: the column, the number of cells, and an example.
pub type UnknownCategories = Vec<(String, usize, String)>;

impl Encoding {
    /// What the rows of the training part say of the columns that the schema takes. A target that is a number is standardized,
    /// for `poisson_nll` divided by its mean.
    ///
    /// # Errors
    /// If there is no row.
    pub fn fit(table: &Table, schema: &Schema, rows: &[usize], loss: &str) -> Result<Self> {
        if rows.is_empty() {
            bail!("no row is left to train on");
        }
        let numbers = schema.numbers.iter().map(|&at| {
            let mut values = rows.iter().filter_map(|&row| table.number(row, at)).collect::<Vec<_>>();
            let (mean, deviation) = mean_and_deviation(&values);
            let says_missing = values.len() < rows.len();
            Number {
                name: table.header()[at].clone(),
                mean,
                deviation,
                median: median(&mut values),
                says_missing,
                comma: table.comma[at],
            }
        });
        let categories = schema.categories.iter().map(|&at| {
            let levels = rows.iter().filter_map(|&row| table.value(row, at)).collect::<BTreeSet<_>>();
            let mut levels = levels.into_iter().map(str::to_owned).collect::<Vec<_>>();
            sort(&mut levels, |level| level);
            let has_missing = rows.iter().any(|&row| table.value(row, at).is_none());
            Categories { name: table.header()[at].clone(), levels, has_missing }
        });
        let scale = match schema.kind {
            Target::Class => (0.0, 1.0),
            Target::Number => {
                let values = rows.iter().filter_map(|&row| table.number(row, schema.target)).collect::<Vec<_>>();
                let (mean, deviation) = mean_and_deviation(&values);
                let unit = |size: f64| if size > 0.0 { size } else { 1.0 };
                if loss == "poisson_nll" { (0.0, unit(mean)) } else { (mean, unit(deviation)) }
            }
        };
        let classes = schema.classes.iter().map(|(class, _)| class.clone()).collect();
        Ok(Self {
            target: table.header()[schema.target].clone(),
            classes: (schema.kind == Target::Class).then_some(classes),
            loss: loss.to_owned(),
            scale,
            numbers: numbers.collect(),
            categories: categories.collect(),
        })
    }

    /// How many numbers a row becomes.
    pub fn features(&self) -> usize {
        self.width() + self.categories.iter().map(Categories::count).sum::<usize>() - self.categories.len()
    }

    /// How many numbers a row is kept as: a number, and whether it is missing, or the place of a level.
    fn width(&self) -> usize {
        let numbers = self.numbers.iter().map(|number| 1 + usize::from(number.says_missing)).sum::<usize>();
        numbers + self.categories.len()
    }

    /// The inputs of these rows, (N, …), each level as its place, and what was not known.
    ///
    /// # Errors
    /// If a column is not there.
    pub fn transform(&self, table: &Table, rows: &[usize], device: &Device) -> Result<(Tensor, UnknownCategories)> {
        let missing = self.columns().filter(|name| !table.has(name)).collect::<Vec<_>>();
        if !missing.is_empty() {
            bail!(
                "{} lacks the {} {}, which the model reads",
                table.name,
                if missing.len() == 1 { "column" } else { "columns" },
                missing.join(", ")
            );
        }
        let width = self.width();
        let mut inputs = vec![0f32; rows.len() * width];
        let mut unseen = UnknownCategories::new();
        let mut at = 0;
        for number in &self.numbers {
            let column = table.column(&number.name)?;
            let mut odd = (0, "");
            for (&row, inputs) in rows.iter().zip(inputs.chunks_exact_mut(width)) {
                let found = table.number_as(row, column, number.comma);
                if number.deviation > 0.0 {
                    inputs[at] = ((found.unwrap_or(number.median) - number.mean) / number.deviation) as f32;
                }
                if number.says_missing {
                    inputs[at + 1] = f32::from(u8::from(found.is_none()));
                }
                if let (None, Some(text)) = (found, table.value(row, column)) {
                    odd = (odd.0 + 1, text);
                }
            }
            if odd.0 > 0 {
                unseen.push((number.name.clone(), odd.0, odd.1.to_owned()));
            }
            at += 1 + usize::from(number.says_missing);
        }
        for categories in &self.categories {
            let column = table.column(&categories.name)?;
            let places = categories.levels.iter().enumerate().map(|(i, level)| (key(level), i));
            let places = places.collect::<HashMap<_, _>>();
            let mut odd = (0, "");
            for (&row, inputs) in rows.iter().zip(inputs.chunks_exact_mut(width)) {
                let place = match table.value(row, column) {
                    // Where training had no missing ones this is the place of no level.
                    None => categories.levels.len(),
                    Some(text) => places.get(&key(text)).copied().unwrap_or_else(|| {
                        odd = (odd.0 + 1, text);
                        categories.count()
                    }),
                };
                inputs[at] = place as f32;
            }
            if odd.0 > 0 {
                unseen.push((categories.name.clone(), odd.0, odd.1.to_owned()));
            }
            at += 1;
        }
        Ok((Tensor::from_vec(inputs, (rows.len(), width), device)?, unseen))
    }

    fn columns(&self) -> impl Iterator<Item = &str> {
        let numbers = self.numbers.iter().map(|number| number.name.as_str());
        numbers.chain(self.categories.iter().map(|categories| categories.name.as_str()))
    }

    /// The inputs of a batch as the model reads them, (N, features): a 1 at the place of each level. Only now, as all rows
    /// together may be too many for that.
    pub fn one_hot(&self, inputs: &Tensor) -> candle_core::Result<Tensor> {
        if self.categories.is_empty() {
            return Ok(inputs.clone());
        }
        let (rows, width) = inputs.dims2()?;
        let (numbers, features) = (width - self.categories.len(), self.features());
        let values = inputs.flatten_all()?.to_vec1::<f32>()?;
        let mut expanded = vec![0f32; rows * features];
        for (values, expanded) in values.chunks_exact(width).zip(expanded.chunks_exact_mut(features)) {
            expanded[..numbers].copy_from_slice(&values[..numbers]);
            let mut start = numbers;
            for (categories, &place) in self.categories.iter().zip(&values[numbers..]) {
                if (place as usize) < categories.count() {
                    expanded[start + place as usize] = 1.0;
                }
                start += categories.count();
            }
        }
        Tensor::from_vec(expanded, (rows, features), inputs.device())
    }

    /// Inputs and targets of these rows: numbers by the scale, classes by their place.
    ///
    /// # Errors
    /// If a row has no target, or a class that is none of the known.
    pub fn samples(
        &self,
        table: &Table,
        rows: &[usize],
        device: &Device,
    ) -> Result<(TensorDataset, UnknownCategories)> {
        let (inputs, unseen) = self.transform(table, rows, device)?;
        let targets = if self.classes.is_some() {
            let places = self.classes_of(table, rows)?.into_iter().map(|place| place as u32);
            Tensor::from_vec(places.collect::<Vec<_>>(), rows.len(), device)?
        } else {
            let (offset, unit) = self.scale;
            let numbers = self.numbers_of(table, rows)?.into_iter().map(|number| ((number - offset) / unit) as f32);
            Tensor::from_vec(numbers.collect::<Vec<_>>(), (rows.len(), 1), device)?
        };
        Ok((TensorDataset::new(inputs, targets)?, unseen))
    }

    /// The targets of these rows, which are numbers.
    ///
    /// # Errors
    /// If one is not.
    pub fn numbers_of(&self, table: &Table, rows: &[usize]) -> Result<Vec<f64>> {
        let at = table.column(&self.target)?;
        let number = |&row: &usize| {
            let named = || format!("{}, column {}, {} is not a number", table.name, self.target, table.named(row, at));
            table.number(row, at).with_context(named)
        };
        rows.iter().map(number).collect()
    }

    /// The targets of these rows, each as the place of its class.
    ///
    /// # Errors
    /// If one is none of the classes.
    pub fn classes_of(&self, table: &Table, rows: &[usize]) -> Result<Vec<usize>> {
        let (at, classes) = (table.column(&self.target)?, self.classes.as_deref().unwrap_or_default());
        let places = classes.iter().enumerate().map(|(i, class)| (key(class), i)).collect::<HashMap<_, _>>();
        let class = |&row: &usize| {
            let named = || {
                let classes = classes.join(", ");
                format!("{}, column {}, {} is none of {classes}", table.name, self.target, table.named(row, at))
            };
            places.get(&key(table.cell(row, at))).copied().with_context(named)
        };
        rows.iter().map(class).collect()
    }

    /// Whether a row has a target that the model knows.
    pub fn has_target(&self, table: &Table, row: usize) -> bool {
        let Ok(at) = table.column(&self.target) else { return false };
        match &self.classes {
            Some(classes) => {
                table.value(row, at).is_some_and(|text| classes.iter().any(|class| key(class) == key(text)))
            }
            None => table.number(row, at).is_some(),
        }
    }

    /// Whether a row has a target that is none of the model's classes, or no number.
    pub fn has_unknown_target(&self, table: &Table, row: usize) -> bool {
        let Ok(at) = table.column(&self.target) else { return false };
        table.value(row, at).is_some() && !self.has_target(table, row)
    }

    /// Whether the model reads a column of this name.
    pub fn reads(&self, column: &str) -> bool {
        self.columns().any(|name| name == column)
    }

    /// What goes with the weights into a safetensors file, among its metadata.
    pub fn to_metadata(&self) -> Result<(String, String)> {
        Ok((ENCODING.to_owned(), serde_json::to_string(self)?))
    }

    /// Reads the encoding from the metadata of a safetensors model.
    pub fn of_model(bytes: &[u8]) -> Result<Self> {
        let encoding = metadata(bytes)?
            .context("this model was not trained on a table: make it with --csv FILE --target COLUMN --save")?;
        serde_json::from_str(&encoding)
            .context("this model was trained by another version, or is damaged: train it again")
    }
}

/// Returns the lookup key of a category: true and false are case-insensitive.
fn key(text: &str) -> Cow<'_, str> {
    if super::value::is_boolean(text) { Cow::Owned(text.to_ascii_lowercase()) } else { Cow::Borrowed(text) }
}

/// The encoding in the metadata of a safetensors file.
fn metadata(bytes: &[u8]) -> Result<Option<String>> {
    let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes)?;
    Ok(metadata.metadata().as_ref().and_then(|metadata| metadata.get(ENCODING).cloned()))
}

/// With 0 for the deviation of numbers that are all the same, whatever the mean is rounded to.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let is_constant = values.iter().all(|value| *value == values[0]);
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, if is_constant { 0.0 } else { (squares / count).sqrt() })
}

/// The middle of some numbers, 0 of none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ColumnTypes, ReadOptions};
    use super::*;

    fn table(csv: &str) -> Table {
        Table::read("t.csv", csv.as_bytes(), &ReadOptions::default()).unwrap()
    }

    fn fitted(table: &Table, kind: Target) -> Result<(Schema, Encoding)> {
        let types = ColumnTypes { categories: vec!["k".into()], numbers: vec!["x".into()], ..Default::default() };
        let schema = table.schema("y", Some(kind), &types)?;
        let encoding = Encoding::fit(table, &schema, &schema.rows, "mse")?;
        Ok((schema, encoding))
    }

    fn expanded(encoding: &Encoding, table: &Table) -> Result<(Vec<Vec<f32>>, UnknownCategories)> {
        let (inputs, unseen) = encoding.transform(table, &(0..table.len()).collect::<Vec<_>>(), &Device::Cpu)?;
        Ok((encoding.one_hot(&inputs)?.to_vec2()?, unseen))
    }

    #[test]
    fn what_is_missing_is_the_median_and_a_level_of_its_own() -> Result<()> {
        let (_, encoding) = fitted(&table("x,k,y\n0,b,1\n,a,2\n0,,3\n3,a,4\n"), Target::Number)?;
        assert_eq!(encoding.features(), 5);
        let (inputs, unseen) = expanded(&encoding, &table("k,x\nb,1\n,NA\nc,oops\n"))?;
        // Of 0, 0 and 3 the mean is 1 and the median 0, less by one in 1.414.
        let low = (-1.0 / 2f64.sqrt()) as f32;
        assert_eq!(inputs, [[0.0, 0.0, 0.0, 1.0, 0.0], [low, 1.0, 0.0, 0.0, 1.0], [low, 1.0, 0.0, 0.0, 0.0]]);
        assert_eq!(unseen, [("x".into(), 1, "oops".into()), ("k".into(), 1, "c".into())]);
        Ok(())
    }

    #[test]
    fn a_constant_says_nothing_whatever_comes_later() -> Result<()> {
        let csv = format!("x,k,y\n{}", "0.1,a,2\n".repeat(30) + "0.1,b,3\n");
        let (_, encoding) = fitted(&table(&csv), Target::Number)?;
        assert_eq!(expanded(&encoding, &table("x,k\n0.2,a\n"))?.0, [[0.0, 1.0, 0.0]]);
        Ok(())
    }

    #[test]
    fn numbers_to_predict_are_standardized_and_classes_in_their_order() -> Result<()> {
        let numbers = table("x,k,y\n1,a,10\n2,b,30\n");
        let (schema, encoding) = fitted(&numbers, Target::Number)?;
        let (samples, _) = encoding.samples(&numbers, &schema.rows, &Device::Cpu)?;
        assert_eq!((samples.targets().to_vec2::<f32>()?, encoding.scale), (vec![vec![-1.0], vec![1.0]], (20.0, 10.0)));
        assert_eq!(Encoding::fit(&numbers, &schema, &schema.rows, "poisson_nll")?.scale, (0.0, 20.0));
        let classes = table("x,k,y\n1,a,10\n2,b,9\n3,b,10\n");
        let (schema, encoding) = fitted(&classes, Target::Class)?;
        assert_eq!(encoding.samples(&classes, &schema.rows, &Device::Cpu)?.0.targets().to_vec1::<u32>()?, [1, 0, 1]);
        assert_eq!(encoding.classes.as_deref(), Some(&["9".to_owned(), "10".to_owned()][..]));
        let other = encoding.samples(&table("x,k,y\n1,a,11\n"), &[0], &Device::Cpu).unwrap_err().to_string();
        assert_eq!(other, "t.csv, column y, line 2: \"11\" is none of 9, 10");
        Ok(())
    }

    #[test]
    fn it_goes_with_the_weights_and_names_what_it_does_not_find() -> Result<()> {
        let (_, encoding) = fitted(&table("x,k,y\n1,a,10\n2,b,30\n"), Target::Number)?;
        let stored: Encoding = serde_json::from_str(&encoding.to_metadata()?.1)?;
        assert_eq!(stored, encoding);
        let error = stored.transform(&table("k,z\na,1\n"), &[0], &Device::Cpu).unwrap_err().to_string();
        assert_eq!(error, "t.csv lacks the column x, which the model reads");
        Ok(())
    }
}
