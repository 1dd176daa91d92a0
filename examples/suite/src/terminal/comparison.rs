use super::files::write;
use super::plot::{Panel, panels};
use crate::frontend::Ui;
use anyhow::{Result, ensure};
use indicatif::ProgressBar;
use std::path::Path;

/// Losses compared: each trained under several conditions with several seeds, each time with the same metrics.
pub struct Comparison {
    losses: Vec<String>,
    conditions: Vec<f64>,
    metrics: Vec<String>,
    /// By loss, then by condition, then by metric: mean and standard deviation over the seeds.
    results: Vec<Vec<Vec<(f64, f64)>>>,
}

impl Comparison {
    /// `train` gets a loss's number, a condition and a seed, 0 to `seeds`, and gives the metrics on held-out samples.
    ///
    /// # Errors
    /// If a training fails, or there is no seed.
    pub fn run<const M: usize>(
        losses: &[&str],
        conditions: &[f64],
        metrics: &[&str; M],
        seeds: u64,
        train: impl Fn(usize, f64, u64) -> Result<[f64; M]>,
    ) -> Result<Self> {
        ensure!(seeds > 0, "without a seed there is nothing to compare");
        let bar = ProgressBar::new((losses.len() * conditions.len()) as u64 * seeds);
        let mut results = Vec::new();
        for loss in 0..losses.len() {
            let mut of_loss = Vec::new();
            for &condition in conditions {
                let mut runs = Vec::new();
                for seed in 0..seeds {
                    runs.push(train(loss, condition, seed)?);
                    bar.inc(1);
                }
                of_loss.push((0..M).map(|metric| mean_and_deviation(runs.iter().map(|run| run[metric]))).collect());
            }
            results.push(of_loss);
        }
        bar.finish_and_clear();
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Ok(Self { losses: owned(losses), conditions: conditions.into(), metrics: owned(metrics), results })
    }

    /// The mean of a metric over the seeds.
    pub fn mean(&self, loss: &str, condition: f64, metric: &str) -> Option<f64> {
        let loss = self.losses.iter().position(|name| name == loss)?;
        let condition = self.conditions.iter().position(|&other| other == condition)?;
        let metric = self.metrics.iter().position(|name| name == metric)?;
        Some(self.results[loss][condition][metric].0)
    }

    /// Prints a table for each metric: a row for each loss, a column for each condition with its `unit`.
    ///
    /// # Errors
    /// If stdout can't be written to.
    pub fn print(&self, unit: &str, digits: usize, ui: &Ui) -> Result<()> {
        let width = self.losses.iter().map(|loss| loss.chars().count()).max().unwrap_or(0);
        for (metric, name) in self.metrics.iter().enumerate() {
            let width = width.max(name.chars().count());
            let head = self.conditions.iter().map(|condition| format!(" | {:>15}", format!("{condition} {unit}")));
            ui.print(&format!("| {name:width$}{} |", head.collect::<String>()))?;
            ui.print(&format!("|-{}-{}|", "-".repeat(width), "|----------------:".repeat(self.conditions.len())))?;
            for (loss, results) in self.losses.iter().zip(&self.results) {
                let cells = results.iter().map(|of_condition| {
                    let (mean, deviation) = of_condition[metric];
                    format!(" | {:>15}", format!("{mean:.digits$} ± {deviation:.digits$}"))
                });
                ui.print(&format!("| {loss:width$}{} |", cells.collect::<String>()))?;
            }
            ui.print("")?;
        }
        Ok(())
    }

    /// Draws each metric over the condition `x` to an SVG file, with a standard deviation up and down, and says so.
    ///
    /// # Errors
    /// If the file can't be written; one that was there stays as it was.
    pub fn plot(&self, title: &str, x: &str, path: &Path, ui: &Ui) -> Result<()> {
        let panel = |(metric, name): (usize, &String)| Panel {
            x: x.into(),
            y: name.clone(),
            lines: self.of(|(i, of_condition)| (self.conditions[i], of_condition[metric].0)),
            spread: self.of(|(_, of_condition)| of_condition[metric].1),
        };
        let svg = panels(title, &self.losses, &self.metrics.iter().enumerate().map(panel).collect::<Vec<_>>())?;
        write(path, svg.as_bytes())?;
        ui.print(&format!("Picture: {}", path.display()))
    }

    /// For each loss what `f` makes of the results under each condition.
    fn of<T>(&self, f: impl Fn((usize, &Vec<(f64, f64)>)) -> T) -> Vec<Vec<T>> {
        self.results.iter().map(|results| results.iter().enumerate().map(&f).collect()).collect()
    }
}

/// The standard deviation is that of a sample.
fn mean_and_deviation(values: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let squares = values.map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::Frontend;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Default)]
    struct Lines(RefCell<Vec<String>>);

    impl Frontend for Lines {
        fn print(&self, line: &str) -> Result<()> {
            self.0.borrow_mut().push(line.to_owned());
            Ok(())
        }
    }

    #[test]
    fn deviation_of_a_sample() {
        assert_eq!(mean_and_deviation([1.0, 2.0, 3.0].into_iter()), (2.0, 1.0));
        assert_eq!(mean_and_deviation([5.0].into_iter()), (5.0, 0.0));
    }

    #[test]
    fn a_picture_with_every_loss() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("picture.svg");
        let comparison =
            Comparison::run(&["one", "two"], &[0.0, 5.0], &["MAE", "RMSE"], 2, |loss, condition, seed| {
                Ok([condition + seed as f64, loss as f64])
            })?;
        let lines = Rc::new(Lines::default());
        let ui: Ui = lines.clone();
        comparison.plot("a title", "share", &path, &ui)?;
        comparison.print("%", 1, &ui)?;
        assert_eq!(comparison.mean("one", 5.0, "MAE"), Some(5.5));
        assert!(
            lines.0.borrow().iter().any(|line| line == "| one |       0.5 ± 0.7 |       5.5 ± 0.7 |"),
            "{:?}",
            lines.0
        );
        let svg = std::fs::read_to_string(&path)?;
        assert!(["one", "two", "MAE", "RMSE"].iter().all(|name| svg.contains(name)));
        Ok(())
    }
}
