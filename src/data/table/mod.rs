//! Tables of the reader's own: what a file holds is found out, a row becomes the inputs of a model, one column the target.
//!
//! [`Table`] reads the file, [`Plan`] says which column is what and which rows count, [`Encoding`] is learned from the
//! training part and goes with the weights.

mod encoding;
mod plan;
mod read;
mod value;

pub use encoding::{Encoding, Unseen, median};
pub use plan::{Plan, Roles};
pub use read::{Delimiter, Reading};

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

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

/// The cells of a file, with the names of its columns.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::data::table::{Encoding, Reading, Roles, Table};
///
/// let csv = "size;district;price\n50;north;$100\n80;south;$170\n65;north;NA\n";
/// let table = Table::read("houses.csv", csv.as_bytes(), &Reading::default())?;
/// let plan = table.plan("price", None, &Roles { categories: vec!["district".into()], ..Default::default() })?;
/// assert_eq!(plan.rows, [0, 1]); // one has no price
/// let encoding = Encoding::learn(&table, &plan, &plan.rows, "mse")?;
/// let inputs = encoding.inputs(&table, &[0, 1], &Device::Cpu)?.0;
/// assert_eq!(encoding.expand(&inputs)?.to_vec2::<f32>()?, [[-1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]); // standardized; one-hot
/// # Ok::<(), anyhow::Error>(())
/// ```
pub struct Table {
    name: String,
    cells: read::Cells,
    places: HashMap<String, usize>,
    /// Whether a comma stands before decimals.
    comma: bool,
}

impl Table {
    /// Reads a file, packed by gzip or not, in UTF-8, UTF-16 or Latin-1.
    ///
    /// # Errors
    /// If it can't be read, is no text, has no rows, or rows of another number of cells than the header: with the lines.
    pub fn open(path: &Path, reading: &Reading) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("reading {}", path.display()))?;
        Self::read(&path.display().to_string(), file, reading)
    }

    /// The same from a reader; `name` is what errors call it.
    pub fn read(name: &str, file: impl Read, reading: &Reading) -> Result<Self> {
        let cells = read::read(name, file, reading)?;
        let places = cells.header.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        let mut table = Self { name: name.to_owned(), cells, places, comma: false };
        if table.cells.delimiter != Some(Delimiter::Byte(b',')) {
            let mut all = (0..table.len()).flat_map(|row| (0..table.header().len()).map(move |column| (row, column)));
            table.comma = all.any(|(row, column)| value::has_decimal_comma(table.text(row, column)));
        }
        Ok(table)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.cells.rows()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the columns; those without one are called by their number.
    pub fn header(&self) -> &[String] {
        &self.cells.header
    }

    /// What was found out of the file that is out of the ordinary, or was done about it.
    pub fn notes(&self) -> &[String] {
        &self.cells.notes
    }

    /// Whether it has a column of this name.
    pub fn has(&self, column: &str) -> bool {
        self.places.contains_key(column)
    }

    /// What stands in a cell.
    pub fn text(&self, row: usize, column: usize) -> &str {
        self.cells.get(row, column)
    }

    fn column(&self, name: &str) -> Result<usize> {
        self.places.get(name).copied().with_context(|| {
            let alike = self.header().iter().find(|other| other.eq_ignore_ascii_case(name));
            let some = self.header().iter().take(30).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if self.header().len() > 30 { ", …" } else { "" };
            match alike {
                Some(alike) => format!("{} has no column {name}; did you mean {alike}?", self.name),
                None => format!("{} has no column {name}; it has {some}{more}", self.name),
            }
        })
    }

    /// What stands in a cell, if it is not missing.
    fn value(&self, row: usize, column: usize) -> Option<&str> {
        Some(self.text(row, column)).filter(|text| !value::is_missing(text))
    }

    /// The number that stands in a cell, if one does.
    fn number(&self, row: usize, column: usize) -> Option<f64> {
        value::number(self.text(row, column), self.comma)
    }

    /// A cell as an error names it.
    fn named(&self, row: usize, column: usize) -> String {
        format!("line {}: {:?}", self.cells.lines[row], self.text(row, column))
    }
}
