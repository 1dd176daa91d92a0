//! Tables of the reader's own: a file is read, its columns are recognized, and its rows become the inputs and targets of a model.
//!
//! [`Table`] reads the file, [`Schema`] has the type of each column and the rows that are used, and [`Encoding`] is fitted to the
//! training part and saved with the weights.
#![deny(unsafe_code)]

mod encoding;
mod read;
mod schema;
mod value;

pub use encoding::{Encoding, UnknownCategories, median};
pub use read::{Delimiter, ReadOptions};
pub use schema::{ColumnTypes, Schema};
pub use value::Decimal;

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;
use value::Evidence;

/// What a target is: a number to come near to, or a class to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `f32`, (N, 1).
    Number,
    /// `u32`, (N).
    Class,
}

/// The cells of a file, with the names of its columns.
pub struct Table {
    name: String,
    cells: read::Cells,
    places: HashMap<String, usize>,
    /// For each column, whether its decimal mark is a comma.
    comma: Vec<bool>,
    /// For each column, whether its own cells decide that.
    is_certain: Vec<bool>,
    /// For each column, whether - is a value beside +.
    has_signs: Vec<bool>,
    /// The first spelling of true and of false.
    booleans: [Option<String>; 2],
}

impl Table {
    /// Reads a file, packed by gzip or not, in UTF-8, UTF-16 or Latin-1.
    ///
    /// # Errors
    /// If it can't be read, is no text, has no rows, or rows of another number of cells than the header: with the lines.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| format!("reading {}", path.display()))?;
        Self::read(&path.display().to_string(), file, options)
    }

    /// The same from a reader; `name` is what errors call it.
    pub fn read(name: &str, file: impl Read, options: &ReadOptions) -> Result<Self> {
        let cells = read::read(name, file, options)?;
        let places = cells.header.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        let mut table = Self {
            name: name.to_owned(),
            cells,
            places,
            comma: Vec::new(),
            is_certain: Vec::new(),
            has_signs: Vec::new(),
            booleans: [None, None],
        };
        table.examine(options.decimal);
        Ok(table)
    }

    /// Examines each cell once: finds the decimal mark of each column (if its cells allow both, from the other columns), units, signs
    /// and booleans.
    fn examine(&mut self, decimal: Option<Decimal>) {
        let columns = self.header().len();
        let (mut points, mut commas, mut either) = (vec![0usize; columns], vec![0usize; columns], vec![None; columns]);
        self.has_signs = vec![false; columns];
        let mut booleans = [None, None];
        for column in 0..columns {
            // Without a unit they are the most, and are counted apart.
            let (mut units, mut has_plain) = (BTreeSet::new(), false);
            for row in 0..self.len() {
                let text = self.cell(row, column);
                match value::evidence(text) {
                    Evidence::Nothing => {}
                    Evidence::Only(Decimal::Point) => points[column] += 1,
                    Evidence::Only(Decimal::Comma) => commas[column] += 1,
                    Evidence::Either => _ = either[column].get_or_insert(row),
                }
                // What is a number is only asked where that would add a unit.
                let is_number = || value::number(text, false).or_else(|| value::number(text, true)).is_some();
                match value::unit(text) {
                    None => has_plain = has_plain || is_number(),
                    Some(unit) if units.len() < 3 && !units.contains(&unit) && is_number() => _ = units.insert(unit),
                    Some(_) => {}
                }
                if text == "+" {
                    self.has_signs[column] = true;
                } else if value::is_boolean(text) {
                    booleans[usize::from(text.eq_ignore_ascii_case("true"))].get_or_insert((row, column));
                }
            }
            if units.len() + usize::from(has_plain) > 1 {
                let units = has_plain.then_some("none").into_iter().chain(units.iter().map(String::as_str));
                let units = units.collect::<Vec<_>>();
                let note = format!("{} has numbers with different units ({})", self.header()[column], units.join(", "));
                self.cells.notes.push(note + ", which are read as if they were the same");
            }
        }
        self.booleans = booleans.map(|at| at.map(|(row, column)| self.cell(row, column).to_owned()));
        let (all_points, all_commas) = (points.iter().sum::<usize>(), commas.iter().sum::<usize>());
        // Where commas separate the cells, those in one column say nothing about another.
        let usual = !self.cells.has_commas && all_commas > all_points;
        self.is_certain = (0..columns).map(|at| points[at] != commas[at]).collect();
        let found = |at: usize| if points[at] == commas[at] { usual } else { commas[at] > points[at] };
        self.comma = (0..columns).map(|at| decimal.map_or(found(at), |decimal| decimal == Decimal::Comma)).collect();
        if decimal.is_some() {
            return;
        }
        if all_commas > 0 {
            self.cells
                .notes
                .push("Numbers are read with a comma before decimals (--decimal point for the other way)".into());
        }
        for (column, row) in either.iter().enumerate().filter_map(|(column, row)| Some((column, (*row)?))) {
            let is_told = points[column] + commas[column] > 0 || (all_points > 0 && all_commas == 0);
            if let (false, Some(number)) = (is_told, self.number(row, column)) {
                let (name, text) = (&self.header()[column], self.cell(row, column));
                let note = format!("{name}: {text:?} is read as {number}; --decimal point or comma says which it is");
                self.cells.notes.push(note);
            }
        }
    }

    /// Leaves out a last row that has the sums of the others, and says so in the notes. For a table to train on.
    pub fn leave_sum_out(&mut self) {
        const WORDS: [&str; 9] =
            ["total", "totals", "grand total", "sum", "summe", "gesamt", "insgesamt", "somme", "suma"];
        let is_filled = |row: &usize| (0..self.header().len()).any(|at| self.value(*row, at).is_some());
        let Some(last) = (0..self.len()).rev().find(is_filled).filter(|&last| last > 2) else { return };
        let cells = (0..self.header().len()).filter(|&at| self.value(last, at).is_some()).collect::<Vec<_>>();
        let Some(&first) = cells.first() else { return };
        let label = self.cell(last, first).trim_end_matches([':', '.']);
        let is_labelled = WORDS.iter().any(|word| label.eq_ignore_ascii_case(word));
        // Not where the word is a value like the others.
        let is_labelled = is_labelled && !(0..last).any(|row| self.cell(row, first).eq_ignore_ascii_case(label));
        // Without a label there is an empty cell where the others have one.
        if !is_labelled && cells.len() == self.header().len() {
            return;
        }
        let is_sum = |at: usize| {
            let numbers = (0..last).filter_map(|row| self.number(row, at)).collect::<Vec<_>>();
            let sum = numbers.iter().sum::<f64>();
            let is_close = |found: f64| (found - sum).abs() <= 1e-9 * sum.abs().max(1.0);
            sum != 0.0 && numbers.len() * 10 >= last * 9 && self.number(last, at).is_some_and(is_close)
        };
        let sums = cells.iter().filter(|&&at| is_sum(at)).count();
        let numbers = cells.iter().filter(|&&at| self.number(last, at).is_some()).count();
        if sums > 0 && (is_labelled || (sums == numbers && sums > 1)) {
            let line = self.cells.lines[last];
            while self.len() > last {
                self.cells.pop();
            }
            self.cells.notes.push(format!("Line {line}, the last row, has the sums of the others and is left out"));
        }
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

    /// The text of a cell.
    ///
    /// # Errors
    /// If there is no such row or column.
    pub fn text(&self, row: usize, column: usize) -> Result<&str> {
        ensure!(
            row < self.len() && column < self.header().len(),
            "{} has {} rows of {} cells, but not row {row}, cell {column}",
            self.name,
            self.len(),
            self.header().len()
        );
        Ok(self.cell(row, column))
    }

    fn cell(&self, row: usize, column: usize) -> &str {
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

    /// The text of a cell, if it is not missing; true and false in their first spelling, whatever it is here.
    fn value(&self, row: usize, column: usize) -> Option<&str> {
        let is_sign = |text: &str| text == "-" && self.has_signs.get(column).is_some_and(|&has_signs| has_signs);
        let text = Some(self.cell(row, column)).filter(|text| is_sign(text) || !value::is_missing(text))?;
        if !value::is_boolean(text) {
            return Some(text);
        }
        self.booleans[usize::from(text.eq_ignore_ascii_case("true"))].as_deref().or(Some(text))
    }

    /// The number in a cell, if there is one.
    fn number(&self, row: usize, column: usize) -> Option<f64> {
        value::number(self.cell(row, column), self.comma[column])
    }

    /// The number in a cell of a column whose decimal mark in training was this one; it decides if the cells here do not.
    fn number_as(&self, row: usize, column: usize, comma: bool) -> Option<f64> {
        value::number(self.cell(row, column), if self.is_certain[column] { self.comma[column] } else { comma })
    }

    /// A cell as an error names it.
    fn named(&self, row: usize, column: usize) -> String {
        format!("line {}: {:?}", self.cells.lines[row], self.cell(row, column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(csv: &str) -> Table {
        Table::read("t.csv", csv.as_bytes(), &ReadOptions::default()).unwrap()
    }

    #[test]
    fn there_is_no_cell_past_a_row() -> Result<()> {
        let table = table("a,b\n1,2\n3,4\n");
        assert_eq!((table.text(0, 1)?, table.text(1, 0)?), ("2", "3"));
        for (row, column) in [(0, 2), (2, 0), (9, 9)] {
            let error = table.text(row, column).unwrap_err().to_string();
            assert!(error.contains(&format!("not row {row}, cell {column}")), "{error}");
        }
        Ok(())
    }

    #[test]
    fn the_decimal_mark_is_that_of_the_column_or_of_the_table() {
        let numbers = |csv: &str, column: usize| {
            let table = table(csv);
            (0..table.len()).map(|row| table.number(row, column)).collect::<Vec<_>>()
        };
        assert_eq!(numbers("a;b\n1,5;1.234\n2,25;5.678\n", 1), [Some(1234.0), Some(5678.0)]);
        assert_eq!(numbers("a;b\n1,5;1.5\n2,25;2.5\n", 1), [Some(1.5), Some(2.5)]);
        assert_eq!(numbers("a;b\n1,5;1.5\n2,25;2.5\n", 0), [Some(1.5), Some(2.25)]);
        assert_eq!(numbers("a,b\n\"1,5\",x\n\"2,25\",y\n", 0), [Some(1.5), Some(2.25)]);
        assert_eq!(numbers("a;b\n1.234.567;x\n2.000;y\n", 0), [Some(1_234_567.0), Some(2000.0)]);
        assert_eq!(numbers("a;b\n1.234,50 €;x\n12,5 €;y\n", 0), [Some(1234.5), Some(12.5)]);
    }

    #[test]
    fn commas_between_cells_say_nothing_about_other_columns() {
        let table = table("tags,dist\n\"1,5\",2.784\n\"2,7\",3.123\n");
        assert_eq!(table.number(0, 1), Some(2.784));
    }

    #[test]
    fn a_minus_beside_a_plus_is_a_value() {
        let signs = table("a,b\n+,1\n-,-\n");
        assert_eq!((signs.value(1, 0), signs.value(1, 1)), (Some("-"), None));
    }

    #[test]
    fn true_and_false_are_the_same_in_any_spelling() {
        let table = table("a,b\nTRUE,1\ntrue,2\nTrue,3\nFALSE,4\nfalse,5\nnone,6\n");
        let values = (0..table.len()).map(|row| table.value(row, 0)).collect::<Vec<_>>();
        let [yes, no] = [Some("TRUE"), Some("FALSE")];
        assert_eq!(values, [yes, yes, yes, no, no, Some("none")]);
    }

    #[test]
    fn a_last_row_of_sums_is_left_out() {
        for (csv, rows) in [
            ("k,a,b\nx,1,2\ny,3,4\nz,5,6\n,9,12\n", 3),
            ("k,a,b\nx,1,2\ny,3,4\nz,5,6\nTotal,9,\n", 3),
            ("k,a,b\nx,1,2\ny,3,4\nz,5,6\nTotal,9,12\n,,\n,,\n", 3),
            ("brand,price,rating\nShell,1.6,4\nBP,1.5,3\nEsso,1.4,4\nTotal,1.7,5\n", 4),
            ("a,b,y\n1,2,3\n2,4,6\n3,6,9\n6,12,18\n", 4),
            ("k;a\nx;1\ny;3\nz;5\nSumme:;9\n", 3),
            ("k,a,b\nx,1,2\ny,3,4\nz,5,6\nw,9,13\n", 4),
            ("k,a\ntotal,1\ny,3\nz,5\ntotal,9\n", 4),
        ] {
            let mut table = table(csv);
            table.leave_sum_out();
            assert_eq!(table.len(), rows, "{csv}");
            assert_eq!(table.notes().iter().any(|note| note.contains("sums")), rows == 3, "{:?}", table.notes());
        }
    }
}
