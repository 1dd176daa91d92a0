//! Which column is what, and which rows count.

use super::{Table, Target, value};
use crate::data::{Draw, generator};
use anyhow::{Result, bail, ensure};
use rand::seq::SliceRandom;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// What is to be done with columns and missing values. What is not said is found out.
#[derive(Debug, Clone, Default)]
pub struct Roles {
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
pub struct Plan {
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

/// What stands in a column.
struct Column<'a> {
    values: usize,
    numbers: usize,
    dates: usize,
    /// How often each stands there, as long as they are not more than can be levels.
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
    pub fn plan(&self, target: &str, wanted: Option<Target>, roles: &Roles) -> Result<Plan> {
        let at = self.column(target)?;
        let mut plan = self.target(at, wanted)?;
        let mut problems = Vec::new();
        let mut named = HashMap::new();
        for (option, columns) in
            [("--numbers", &roles.numbers), ("--categories", &roles.categories), ("--ignore", &roles.ignore)]
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
                plan.left.push((i, "--ignore".into()));
                continue;
            }
            let column = Column::new(self, i);
            let distinct = column.counts.len();
            match named.get(&i) {
                Some(&"--numbers") if !column.is_numbers() => {
                    let cells = column.odd.iter().map(|&row| self.named(row, i)).collect::<Vec<_>>().join(", ");
                    let count = plural(column.values - column.numbers, "cell");
                    problems.push(format!("--numbers names {name}, but {count} of it are no numbers ({cells})"));
                }
                Some(&"--categories") if column.is_many => {
                    problems.push(format!("--categories names {name}, which has more than {MOST} different values"));
                }
                Some(&"--numbers") => plan.numbers.push(i),
                Some(_) => plan.categories.push(i),
                None if column.values == 0 => plan.left.push((i, "empty".into())),
                None if distinct == 1 => plan.left.push((i, format!("all {}", column.examples()))),
                None if column.is_count && self.len() > 2 => plan.left.push((i, "row numbers".into())),
                None if column.is_numbers() => plan.numbers.push(i),
                None if column.dates * 10 > column.values * 9 => {
                    plan.left.push((i, format!("dates, such as {}", self.named_first(i))));
                }
                None if column.numbers * 10 >= column.values * 9 => {
                    let cells = column.odd.iter().map(|&row| self.named(row, i)).collect::<Vec<_>>().join(", ");
                    let count = column.values - column.numbers;
                    plan.notes.push(format!(
                        "{} of {name} count as missing, as they are no numbers ({cells})",
                        plural(count, "cell")
                    ));
                    plan.numbers.push(i);
                }
                None if column.is_many || distinct > FEW || distinct * 2 > self.len() => {
                    let many = if column.is_many { format!("more than {MOST}") } else { distinct.to_string() };
                    plan.left.push((i, format!("text, {many} different values")));
                }
                None => plan.categories.push(i),
            }
        }
        if plan.numbers.is_empty() && plan.categories.is_empty() && problems.is_empty() {
            let left = plan.left.iter().map(|(i, why)| format!("{} ({why})", self.header()[*i])).collect::<Vec<_>>();
            let left = if left.is_empty() { String::new() } else { format!(": {} left out", left.join(", ")) };
            problems.push(format!(
                "there is no column to predict {target} from{left}; --numbers or --categories takes one"
            ));
        }
        if !problems.is_empty() {
            bail!("{}: {}", self.name, problems.join("; "));
        }
        if roles.drop_missing {
            let before = plan.rows.len();
            let used = plan.numbers.iter().map(|&at| (at, true)).chain(plan.categories.iter().map(|&at| (at, false)));
            let used = used.collect::<Vec<_>>();
            plan.rows.retain(|&row| {
                used.iter().all(
                    |&(at, is_number)| {
                        if is_number { self.number(row, at).is_some() } else { self.value(row, at).is_some() }
                    },
                )
            });
            plan.with_missing = before - plan.rows.len();
            ensure!(
                !plan.rows.is_empty(),
                "{}: every row has a missing value; without --missing drop they are filled",
                self.name
            );
            for (class, count) in &mut plan.classes {
                *count = plan.rows.iter().filter(|&&row| self.text(row, at) == class).count();
            }
        }
        Ok(plan)
    }

    fn named_first(&self, column: usize) -> String {
        (0..self.len()).find_map(|row| self.value(row, column)).unwrap_or_default().to_owned()
    }

    /// A plan with the target alone.
    fn target(&self, at: usize, wanted: Option<Target>) -> Result<Plan> {
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
                let cells = column.odd.iter().map(|&row| self.named(row, at)).collect::<Vec<_>>().join(", ");
                bail!(
                    "{file}: {} of {name} are no numbers ({cells}): mend them, or empty them to leave their rows out",
                    plural(column.values - column.numbers, "cell")
                )
            }
            Some(Target::Number) if !is_number => {
                bail!("{file}: {name} is not a number but a class ({}): take --loss cross_entropy", column.examples())
            }
            Some(Target::Class) if is_number && (!column.is_whole || column.is_many || distinct > FEW) => bail!(
                "{file}: {name} is a number with {} different values, too many for classes: take --loss mse",
                if column.is_many { format!("more than {MOST}") } else { distinct.to_string() }
            ),
            Some(kind) => kind,
            None if is_number => {
                if column.is_whole && distinct <= 10 {
                    notes.push(format!(
                        "{name} has only {distinct} different values ({}): if they are classes, take --loss cross_entropy",
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
                let cells = column.odd.iter().map(|&row| self.named(row, at)).collect::<Vec<_>>().join(", ");
                bail!(
                    "{file}: most of {name} is numbers, but {} are not ({cells}): mend them, or empty them to leave \
                     their rows out",
                    plural(column.values - column.numbers, "cell")
                )
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
        Ok(Plan {
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

impl Plan {
    /// The plan in words, some lines, where `held_out` of the rows are.
    pub fn description(&self, table: &Table, held_out: usize, for_validation: usize) -> String {
        let mut text = String::new();
        let names = |columns: &[usize]| {
            let some = columns.iter().take(12).map(|&at| table.header()[at].as_str()).collect::<Vec<_>>().join(", ");
            if columns.len() > 12 { format!("{some}, … ({})", columns.len()) } else { some }
        };
        let mut line = |what: &str, value: String| _ = writeln!(text, "{what:>11}  {value}");
        let train = self.rows.len() - held_out - for_validation;
        let validation =
            if for_validation > 0 { format!(", {for_validation} to know when to stop") } else { String::new() };
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

    /// Two parts of some of the rows, each in the rows' order: the rest, and a share chosen by the seed; of classes as near
    /// to that share of each as can be, and never all of one.
    pub fn split(&self, table: &Table, rows: &[usize], share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
        let mut shuffled = rows.to_vec();
        shuffled.shuffle(&mut generator(seed, Draw::Split));
        let count = (rows.len() as f64 * share).round() as usize;
        let mut chosen = vec![false; table.len()];
        match self.kind {
            Target::Number => shuffled[..count].iter().for_each(|&row| chosen[row] = true),
            Target::Class => {
                // Every so-manyth of the rows in the order of their classes, those first of which there are fewest.
                let counts =
                    self.classes.iter().map(|(class, count)| (class.as_str(), *count)).collect::<HashMap<_, _>>();
                shuffled.sort_by_key(|&row| {
                    let class = table.text(row, self.target);
                    (counts.get(class).copied().unwrap_or(0), class)
                });
                (0..count).for_each(|i| chosen[shuffled[(i * 2 + 1) * rows.len() / (2 * count)]] = true);
            }
        }
        if self.kind == Target::Class {
            let mut kept = HashMap::<&str, usize>::new();
            for &row in rows.iter().filter(|&&row| !chosen[row]) {
                *kept.entry(table.text(row, self.target)).or_default() += 1;
            }
            for &row in rows {
                if chosen[row] && !kept.contains_key(table.text(row, self.target)) {
                    chosen[row] = false;
                    kept.insert(table.text(row, self.target), 1);
                }
            }
        }
        rows.iter().partition(|&&row| !chosen[row])
    }
}
