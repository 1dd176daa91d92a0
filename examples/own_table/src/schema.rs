//! Which column is what, and which rows count.

use super::{Table, Target, value};

use anyhow::{Result, bail, ensure};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha12Rng;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// What is to be done with columns and missing values. What is not said is found out.
#[derive(Debug, Clone, Default)]
pub struct ColumnTypes {
    /// Columns of numbers.
    pub numbers: Vec<String>,
    /// Columns of categories.
    pub categories: Vec<String>,
    /// Columns to leave out.
    pub ignore: Vec<String>,
    /// Whether rows with a missing value are left out. Else a number is taken for the median, with an input that says so,
    /// and a category for one of its own.
    pub drop_missing: bool,
}

/// What a table is to be used for.
#[derive(Debug)]
pub struct Schema {
    /// The rows that count.
    pub rows: Vec<usize>,
    /// What the target is.
    pub kind: Target,
    /// Of a target of classes these with their counts, numbers in their order, else by the alphabet.
    pub classes: Vec<(String, usize)>,
    pub(super) target: usize,
    pub(super) numbers: Vec<usize>,
    pub(super) categories: Vec<usize>,
    /// Columns that are left out, and why.
    left: Vec<(usize, String)>,
    without_target: usize,
    with_missing: usize,
    notes: Vec<String>,
}

/// More levels of a column are taken for text, unless it is named to be of categories.
const FEW: usize = 100;

/// More levels, or classes, there can't be.
const MOST: usize = 10_000;

const MEND: &str = "fix them, or empty them to leave their rows out";

/// Statistics of the cells of a column.
struct Column<'a> {
    values: usize,
    numbers: usize,
    dates: usize,
    /// The count of each value, while there are few enough to be levels.
    counts: HashMap<&'a str, usize>,
    is_many: bool,
    /// The first rows whose values are no numbers.
    odd: Vec<usize>,
    /// Whether it counts the rows.
    is_count: bool,
    is_whole: bool,
}

impl<'a> Column<'a> {
    fn new(table: &'a Table, at: usize) -> Self {
        let mut column = Self {
            values: 0,
            numbers: 0,
            dates: 0,
            counts: HashMap::new(),
            is_many: false,
            odd: Vec::new(),
            is_count: true,
            is_whole: true,
        };
        let mut first = 0.0;
        for row in 0..table.len() {
            let Some(text) = table.value(row, at) else {
                column.is_count = false;
                continue;
            };
            column.values += 1;
            if !column.is_many {
                *column.counts.entry(text).or_default() += 1;
                column.is_many = column.counts.len() > MOST;
            }
            match table.number(row, at) {
                Some(number) => {
                    column.numbers += 1;
                    if row == 0 {
                        first = number;
                    }
                    column.is_count &= number == first + row as f64;
                    column.is_whole &= number.fract() == 0.0;
                }
                None => {
                    column.is_count = false;
                    column.dates += usize::from(value::is_date(text));
                    if column.odd.len() < 3 {
                        column.odd.push(row);
                    }
                }
            }
        }
        column.is_count &= first == 0.0 || first == 1.0;
        column
    }

    fn is_numbers(&self) -> bool {
        self.numbers == self.values
    }

    /// The levels, numbers in their order, else by the alphabet.
    fn levels(&self) -> Vec<(String, usize)> {
        let mut levels = self.counts.iter().map(|(text, count)| ((*text).to_owned(), *count)).collect::<Vec<_>>();
        sort(&mut levels, |(text, _)| text);
        levels
    }

    /// How many values are no numbers, and the first of them.
    fn without_number(&self, table: &Table, at: usize) -> String {
        let cells = self.odd.iter().map(|&row| table.named(row, at)).collect::<Vec<_>>().join(", ");
        let count = self.values - self.numbers;
        format!(
            "{} without a number ({cells}{})",
            plural(count, "cell"),
            if count > self.odd.len() { ", …" } else { "" }
        )
    }

    fn examples(&self) -> String {
        let levels = self.levels();
        let some = levels.iter().take(3).map(|(text, _)| format!("{text:?}")).collect::<Vec<_>>().join(", ");
        if levels.len() > 3 { some + ", …" } else { some }
    }
}

/// Numbers in their order if all are numbers, else by the alphabet.
pub(super) fn sort<T>(levels: &mut [T], text: impl Fn(&T) -> &String) {
    let number = |level: &T| text(level).parse::<f64>().ok();
    if levels.iter().all(|level| number(level).is_some()) {
        levels.sort_by(|a, b| {
            number(a).unwrap_or(0.0).total_cmp(&number(b).unwrap_or(0.0)).then_with(|| text(a).cmp(text(b)))
        });
    } else {
        levels.sort_by(|a, b| text(a).cmp(text(b)));
    }
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

impl Table {
    /// What each column is, for a model that is to predict `target`, of the kind that is `wanted` if that is said.
    ///
    /// # Errors
    /// One that names all that is wrong: a column that is not there, a target that is not of its kind, cells that are no
    /// numbers where such are named.
    pub fn schema(&self, target: &str, wanted: Option<Target>, types: &ColumnTypes) -> Result<Schema> {
        let at = self.column(target)?;
        let mut schema = self.target(at, wanted)?;
        let mut problems = Vec::new();
        let mut named = HashMap::new();
        for (option, columns) in
            [("--numbers", &types.numbers), ("--categories", &types.categories), ("--ignore", &types.ignore)]
        {
            for name in columns {
                match self.column(name) {
                    Ok(found) if found == at => problems.push(format!("{option} names {name}, which is the target")),
                    Ok(found) => match named.insert(found, option) {
                        Some(other) if other != option => {
                            problems.push(format!("{name} is in {other} and in {option}"))
                        }
                        _ => (),
                    },
                    Err(error) => problems.push(format!("{option}: {error}")),
                }
            }
        }
        for (i, name) in self.header().iter().enumerate().filter(|(i, _)| *i != at) {
            if named.get(&i) == Some(&"--ignore") {
                schema.left.push((i, "--ignore".into()));
                continue;
            }
            let column = Column::new(self, i);
            let distinct = column.counts.len();
            match named.get(&i) {
                Some(&"--numbers") if !column.is_numbers() => {
                    problems.push(format!("--numbers names {name}, which has {}", column.without_number(self, i)));
                }
                Some(&"--categories") if column.is_many => {
                    problems.push(format!("--categories names {name}, which has more than {MOST} different values"));
                }
                Some(&"--numbers") => schema.numbers.push(i),
                Some(_) => schema.categories.push(i),
                None if column.values == 0 => schema.left.push((i, "empty".into())),
                None if distinct == 1 => schema.left.push((i, format!("all {}", column.examples()))),
                None if column.is_count && self.len() > 2 => schema.left.push((i, "row numbers".into())),
                None if column.is_numbers() => schema.numbers.push(i),
                None if column.dates * 10 > column.values * 9 => {
                    schema.left.push((i, format!("dates, such as {}", self.named_first(i))));
                }
                None if column.numbers * 10 >= column.values * 9 => {
                    schema.notes.push(format!("{name} has {}, taken for missing", column.without_number(self, i)));
                    schema.numbers.push(i);
                }
                None if column.is_many || distinct > FEW || distinct * 2 > self.len() => {
                    let many = if column.is_many { format!("more than {MOST}") } else { distinct.to_string() };
                    schema.left.push((i, format!("text, {many} different values")));
                }
                None => schema.categories.push(i),
            }
        }
        if schema.numbers.is_empty() && schema.categories.is_empty() && problems.is_empty() {
            let left = schema.left.iter().map(|(i, why)| format!("{} ({why})", self.header()[*i])).collect::<Vec<_>>();
            let left = if left.is_empty() { String::new() } else { format!(": {} left out", left.join(", ")) };
            problems.push(format!(
                "there is no column to predict {target} from{left}; --numbers or --categories takes one"
            ));
        }
        if !problems.is_empty() {
            bail!("{}: {}", self.name, problems.join("; "));
        }
        if types.drop_missing {
            let before = schema.rows.len();
            let used =
                schema.numbers.iter().map(|&at| (at, true)).chain(schema.categories.iter().map(|&at| (at, false)));
            let used = used.collect::<Vec<_>>();
            schema.rows.retain(|&row| {
                used.iter().all(
                    |&(at, is_number)| {
                        if is_number { self.number(row, at).is_some() } else { self.value(row, at).is_some() }
                    },
                )
            });
            schema.with_missing = before - schema.rows.len();
            ensure!(
                !schema.rows.is_empty(),
                "{}: every row has a missing value; without --missing drop they are filled",
                self.name
            );
            let mut counts = HashMap::<&str, usize>::new();
            for &row in &schema.rows {
                *counts.entry(self.value(row, at).unwrap_or_default()).or_default() += 1;
            }
            schema
                .classes
                .iter_mut()
                .for_each(|(class, count)| *count = counts.get(class.as_str()).copied().unwrap_or(0));
            schema.classes.retain(|(_, count)| *count > 0);
            ensure!(
                schema.kind == Target::Number || schema.classes.len() > 1,
                "{}: the rows without a missing value have all the same {target}; without --missing drop they are filled",
                self.name
            );
        }
        Ok(schema)
    }

    fn named_first(&self, column: usize) -> String {
        (0..self.len()).find_map(|row| self.value(row, column)).unwrap_or_default().to_owned()
    }

    /// A schema with the target alone.
    fn target(&self, at: usize, wanted: Option<Target>) -> Result<Schema> {
        let (name, file) = (&self.header()[at], &self.name);
        let column = Column::new(self, at);
        let distinct = column.counts.len();
        ensure!(column.values > 0, "{file}: no row has a value of {name}, which is to be predicted");
        ensure!(
            distinct > 1,
            "{file}: all rows have the same {name}, {}, so there is nothing to learn",
            column.examples()
        );
        let mut notes = Vec::new();
        let is_number = column.is_numbers();
        let kind = match wanted {
            Some(Target::Number) if !is_number && column.numbers * 2 >= column.values => {
                bail!("{file}: {name} has {}: {MEND}", column.without_number(self, at))
            }
            Some(Target::Number) if !is_number => {
                bail!("{file}: {name} is not a number but a class ({}): use --loss cross_entropy", column.examples())
            }
            Some(Target::Class) if is_number && (!column.is_whole || column.is_many || distinct > FEW) => bail!(
                "{file}: {name} is a number with {} different values, too many for classes: use --loss mse",
                if column.is_many { format!("more than {MOST}") } else { distinct.to_string() }
            ),
            Some(kind) => kind,
            None if is_number => {
                if column.is_whole && distinct <= 10 {
                    notes.push(format!(
                        "{name} has only {distinct} different values ({}): if they are classes, use --loss cross_entropy",
                        column.examples()
                    ));
                }
                Target::Number
            }
            None => Target::Class,
        };
        if kind == Target::Class {
            let most = FEW.max(column.values / 10);
            ensure!(
                column.dates * 2 < column.values,
                "{file}: {name} is dates, such as {:?}, which can't be predicted: name another --target",
                self.named_first(at)
            );
            if column.numbers * 10 >= column.values * 9 && !is_number {
                bail!("{file}: {name} has {}: {MEND}", column.without_number(self, at))
            }
            ensure!(
                !column.is_many && distinct <= most && (distinct * 2 <= column.values || distinct <= 5),
                "{file}: {name} is text with {} different values in {} rows, too many for classes",
                if column.is_many { format!("more than {MOST}") } else { distinct.to_string() },
                column.values
            );
        }
        let is_there = |row: &usize| match kind {
            Target::Number => self.number(*row, at).is_some(),
            Target::Class => self.value(*row, at).is_some(),
        };
        Ok(Schema {
            rows: (0..self.len()).filter(is_there).collect(),
            kind,
            classes: if kind == Target::Class { column.levels() } else { Vec::new() },
            target: at,
            numbers: Vec::new(),
            categories: Vec::new(),
            left: Vec::new(),
            without_target: self.len() - column.values,
            with_missing: 0,
            notes,
        })
    }
}

impl Schema {
    /// The schema in words, some lines, where `held_out` of the rows are.
    pub fn description(&self, table: &Table, held_out: usize, for_validation: usize) -> String {
        let mut text = String::new();
        let names = |columns: &[usize]| {
            let some = columns.iter().take(12).map(|&at| table.header()[at].as_str()).collect::<Vec<_>>().join(", ");
            if columns.len() > 12 { format!("{some}, … ({})", columns.len()) } else { some }
        };
        let mut line = |what: &str, value: String| _ = writeln!(text, "{what:>11}  {value}");
        let train = self.rows.len() - held_out - for_validation;
        let validation =
            if for_validation > 0 { format!(", {for_validation} for early stopping") } else { String::new() };
        line("rows", format!("{}: {train} to train on{validation}, {held_out} held out", self.rows.len()));
        for (count, why) in [(self.without_target, "no target"), (self.with_missing, "a missing value")] {
            if count > 0 {
                line("left out", format!("{} with {why}", plural(count, "row")));
            }
        }
        let target = &table.header()[self.target];
        match self.kind {
            Target::Number => line("target", format!("{target}, a number")),
            Target::Class => {
                let some = self.classes.iter().take(10).map(|(class, count)| format!("{class} {count}"));
                let more = if self.classes.len() > 10 { ", …" } else { "" };
                line("target", format!("{target}, a class: {}{more}", some.collect::<Vec<_>>().join(", ")));
            }
        }
        if !self.numbers.is_empty() {
            line("numbers", names(&self.numbers));
        }
        if !self.categories.is_empty() {
            line("categories", names(&self.categories));
        }
        let mut left = BTreeMap::<&str, Vec<usize>>::new();
        for (at, why) in &self.left {
            left.entry(why).or_default().push(*at);
        }
        for (why, columns) in left {
            line("left out", format!("{} ({why})", names(&columns)));
        }
        for note in table.notes().iter().chain(&self.notes) {
            line("note", note.clone());
        }
        text
    }

    /// The target of a row, where it is a number.
    pub fn number(&self, table: &Table, row: usize) -> Option<f64> {
        table.number(row, self.target)
    }

    fn class<'a>(&self, table: &'a Table, row: usize) -> &'a str {
        table.value(row, self.target).unwrap_or_default()
    }

    /// Two parts of some of the rows, each in the rows' order: the rest, and a share chosen by the seed; of classes as near
    /// to that share of each as can be, and never all of one.
    ///
    /// # Errors
    /// If `fraction` is not in [0, 1).
    pub fn split(&self, table: &Table, rows: &[usize], fraction: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
        ensure!((0.0..1.0).contains(&fraction), "the fraction to hold out is {fraction} but must be in [0, 1)");
        let mut shuffled = rows.to_vec();
        shuffled.shuffle(&mut generator(seed));
        let count = (rows.len() as f64 * fraction).round() as usize;
        let mut chosen = vec![false; table.len()];
        match self.kind {
            Target::Number => shuffled[..count].iter().for_each(|&row| chosen[row] = true),
            Target::Class => {
                // Every so-manyth of the rows in the order of their classes, those first of which there are fewest.
                let counts =
                    self.classes.iter().map(|(class, count)| (class.as_str(), *count)).collect::<HashMap<_, _>>();
                shuffled.sort_by_key(|&row| {
                    let class = self.class(table, row);
                    (counts.get(class).copied().unwrap_or(0), class)
                });
                (0..count).for_each(|i| chosen[shuffled[(i * 2 + 1) * rows.len() / (2 * count)]] = true);
            }
        }
        if self.kind == Target::Class {
            let mut kept = HashMap::<&str, usize>::new();
            for &row in rows.iter().filter(|&&row| !chosen[row]) {
                *kept.entry(self.class(table, row)).or_default() += 1;
            }
            for &row in rows {
                if chosen[row] && !kept.contains_key(self.class(table, row)) {
                    chosen[row] = false;
                    kept.insert(self.class(table, row), 1);
                }
            }
        }
        Ok(rows.iter().partition(|&&row| !chosen[row]))
    }
}

/// The generator of a seed; the key is that of the library's split of Boston housing.
fn generator(seed: u64) -> ChaCha12Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = 2;
    ChaCha12Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::super::ReadOptions;
    use super::*;

    /// These columns, the cells of row `i` of each by `cells`.
    fn made(columns: &str, rows: usize, cells: impl Fn(usize) -> String) -> Table {
        let csv = format!("{columns}\n{}", (0..rows).map(|i| cells(i) + "\n").collect::<String>());
        Table::read("t.csv", csv.as_bytes(), &ReadOptions::default()).unwrap()
    }

    #[test]
    fn each_column_is_taken_for_what_it_is() -> Result<()> {
        let table = made("n,x,flag,when,note,same,part,none,y", 40, |i| {
            let part = if i == 7 { "about 3".to_owned() } else { i.to_string() + ".5" };
            let x = i * 7 % 40;
            format!("{},{x}.5,{},2024-01-{:02},text {i},1,{part},,{}", i + 1, i % 2 == 0, i % 28 + 1, i * i % 17)
        });
        let schema = table.schema("y", None, &ColumnTypes::default())?;
        assert_eq!((schema.kind, &schema.numbers[..], &schema.categories[..]), (Target::Number, &[1, 6][..], &[2][..]));
        let left = schema.left.iter().map(|(at, why)| (*at, why.split([',', ' ']).next().unwrap())).collect::<Vec<_>>();
        assert_eq!(left, [(0, "row"), (3, "dates"), (4, "text"), (5, "all"), (7, "empty")]);
        let notes = schema.notes.join("\n");
        assert!(notes.contains("part has 1 cell without a number (line 9: \"about 3\")"), "{notes}");
        // Unless it is said otherwise.
        let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (numbers, categories, ignore) = (some(&["n"]), some(&["x", "note"]), some(&["flag", "part"]));
        let schema = table.schema("y", None, &ColumnTypes { numbers, categories, ignore, drop_missing: false })?;
        assert_eq!((&schema.numbers[..], &schema.categories[..]), (&[0][..], &[1, 4][..]));
        Ok(())
    }

    #[test]
    fn rows_without_a_target_do_not_count_and_others_on_request() -> Result<()> {
        let table = made("x,k,y", 40, |i| {
            let (x, k) =
                (if i == 3 { "?".into() } else { format!("{i}.5") }, if i == 5 { "NA" } else { ["a", "b"][i % 2] });
            format!("{x},{k},{}", if i < 2 { "-".into() } else { (i % 9).to_string() })
        });
        assert_eq!(table.schema("y", None, &ColumnTypes::default())?.rows.len(), 38);
        let schema =
            table.schema("y", Some(Target::Class), &ColumnTypes { drop_missing: true, ..Default::default() })?;
        assert_eq!((schema.rows.len(), schema.classes.iter().map(|(_, count)| count).sum::<usize>()), (36, 36));
        Ok(())
    }

    #[test]
    fn a_target_is_of_the_kind_that_it_can_be() -> Result<()> {
        let table = made("x,few,many,text,one,words,odd", 40, |i| {
            let odd = if i == 4 { "x".into() } else { i.to_string() };
            format!("{}.5,{},{i}.25,{},1,w{i},{odd}", i * 7 % 40, i % 3, ["a", "b"][i % 2])
        });
        let schema = |target, wanted| table.schema(target, wanted, &ColumnTypes::default());
        let few = schema("few", None)?;
        assert_eq!(few.kind, Target::Number);
        assert!(few.notes.iter().any(|note| note.contains("--loss cross_entropy")), "{:?}", few.notes);
        assert_eq!(schema("few", Some(Target::Class))?.classes.len(), 3);
        assert_eq!(schema("text", None)?.kind, Target::Class);
        for (target, wanted, part) in [
            ("text", Some(Target::Number), "--loss cross_entropy"),
            ("many", Some(Target::Class), "--loss mse"),
            ("one", None, "all rows have the same one"),
            ("words", None, "40 different values in 40 rows"),
            ("odd", None, "1 cell without a number (line 6: \"x\")"),
            ("odd", Some(Target::Number), "line 6"),
            ("X", None, "did you mean x?"),
        ] {
            let error = schema(target, wanted).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        Ok(())
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let table = made("x,k,y", 40, |i| format!("{}.5,{},{}", i * 7 % 40, ["a", "b"][i % 2], i % 9));
        let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (numbers, categories, ignore) = (some(&["k", "x"]), some(&["x"]), some(&["y", "z"]));
        let error = table.schema("y", None, &ColumnTypes { numbers, categories, ignore, drop_missing: false });
        let error = error.unwrap_err().to_string();
        for part in ["x is in --numbers and in --categories", "--ignore names y", "no column z", "--numbers names k"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn classes_are_held_out_alike_and_never_whole() -> Result<()> {
        let table = made("x,y", 200, |i| {
            let class = match i {
                0 => "once",
                1 | 2 => "twice",
                i if i % 10 == 0 => "some",
                _ => "most",
            };
            format!("{}.5,{class}", i * 7 % 200)
        });
        let schema = table.schema("y", None, &ColumnTypes::default())?;
        for (seed, share) in [(1, 0.2), (2, 0.2), (3, 0.5), (4, 0.9)] {
            let (train, test) = schema.split(&table, &schema.rows, share, seed)?;
            let count = |rows: &[usize], class: &str| rows.iter().filter(|&&row| table.cell(row, 1) == class).count();
            assert_eq!(train.len() + test.len(), 200);
            for class in ["once", "twice", "some", "most"] {
                assert!(count(&train, class) > 0, "{class}, {share}");
            }
            let some = count(&test, "some") as f64;
            assert!((some - 19.0 * share).abs() <= 1.5, "{some} of 19 at {share}");
        }
        assert_eq!(schema.split(&table, &schema.rows, 0.0, 1)?, (schema.rows.clone(), Vec::new()));
        for fraction in [-0.1, 1.0, 1.5, f64::NAN] {
            assert!(
                schema.split(&table, &schema.rows, fraction, 1).unwrap_err().to_string().contains("must be in [0, 1)")
            );
        }
        Ok(())
    }
}
