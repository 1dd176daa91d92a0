//! Gallery: draws each loss with its derivative, and how each example's training went, for the README and the docs.
//!
//! A curve is the loss itself at 241 places, and its derivative the gradient there (`suite::views`). A training curve is that of the
//! example, which is run for it. `--curves-only` leaves those out.
//!
//!     cargo run --example gallery

use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use suite::plot::{Panel, panels, thumbnail, training_curve};
use suite::views::{LOSSES, View, value_and_grad};
use suite::{Ui, run};

#[derive(clap::Parser)]
#[command(about = "Gallery: every picture of the README and the docs")]
struct Options {
    /// Where the pictures go
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets"))]
    folder: PathBuf,

    /// Draw this loss only
    #[arg(long, value_name = "NAME")]
    only: Option<String>,

    /// Draw the losses, but train nothing
    #[arg(long)]
    curves_only: bool,
}

fn example(Options { folder, only, curves_only }: Options, ui: &Ui) -> Result<()> {
    let chosen = LOSSES.iter().filter(|view| only.as_ref().is_none_or(|only| only == view.name));
    let chosen = chosen.collect::<Vec<_>>();
    ensure!(!chosen.is_empty(), "there is no loss of the name {}", only.unwrap_or_default());
    let write = |name: &str, svg: &str| {
        let path = folder.join(name);
        suite::write(&path, svg.as_bytes())?;
        ui.print(&path.display().to_string())
    };
    for view in chosen {
        let (curves, thumbnail) = curves(view)?;
        write(&format!("{}.svg", view.name), &curves)?;
        write(&format!("{}_thumbnail.svg", view.name), &thumbnail)?;
        if !curves_only {
            write(&format!("{}_training.svg", view.name), &training(view.name)?)?;
        }
    }
    if !curves_only && only.is_none() {
        for name in ["compare_regression", "compare_classification"] {
            let path = folder.join(format!("{name}.svg"));
            run_example(name, &["--plot".as_ref(), path.as_ref()])?;
            ui.print(&path.display().to_string())?;
        }
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    run(example)
}

/// The output of an example, which is built first if needed.
fn run_example(name: &str, arguments: &[&OsStr]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--quiet", "--example", name, "--"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the example {name} failed");
    Ok(String::from_utf8(output.stdout)?)
}

/// Value and derivative of a loss, and the value alone for a thumbnail.
fn curves(view: &View) -> Result<(String, String)> {
    let [start, end] = view.range;
    let places = (0..=240).map(|i| start + (end - start) * f64::from(i) / 240.0).collect::<Vec<_>>();
    let (mut values, mut slopes, mut legend) = (Vec::new(), Vec::new(), Vec::new());
    for line in view.lines {
        let (value, slope) = value_and_grad(view, &places, line)?;
        values.push(places.iter().copied().zip(value).collect());
        slopes.push(places.iter().copied().zip(slope).collect());
        legend.push(view.label(line));
    }
    // What the prediction is compared with, if that is the same on all lines.
    let fixed = (0..view.controls.len()).filter(|&i| view.controls[i].is_on_axis);
    let fixed = fixed.filter(|&i| view.lines.iter().all(|line| line[i] == view.lines[0][i]));
    let fixed = fixed.map(|i| format!(", {} {}", view.controls[i].name, view.lines[0][i])).collect::<String>();
    let x = format!("{}{fixed}", view.x);
    let panel = |y: &str, lines| Panel { x: x.clone(), y: y.into(), lines, spread: Vec::new() };
    let thumbnail = thumbnail(&values)?;
    Ok((panels(view.title, &legend, &[panel("loss", values), panel("derivative", slopes)])?, thumbnail))
}

/// The training curve of an example.
fn training(name: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log.csv");
    let mut arguments: Vec<&OsStr> = vec!["--no-progress".as_ref(), "--log".as_ref(), log.as_ref()];
    // MNIST may not be available.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs"));
    if std::fs::read_to_string(source)?.contains("Digits") {
        arguments.extend(["--dataset".as_ref(), OsStr::new("digits")]);
    }
    let printed = run_example(name, &arguments)?;
    // "Test accuracy: 86.35% (10000 samples)" in fewer words.
    let metrics = printed.lines().filter_map(|line| line.strip_prefix("Test ")?.split_once(" ("));
    let held_out = metrics.map(|(metric, _)| metric.replace(':', "")).collect::<Vec<_>>().join(", ");
    let mut losses = Vec::new();
    for line in std::fs::read_to_string(&log)?.lines().skip(1) {
        losses.push(line.rsplit(',').next().context("a row of the log is empty")?.parse::<f64>()?);
    }
    training_curve(&format!("{name}: held-out {held_out}"), &losses)
}
