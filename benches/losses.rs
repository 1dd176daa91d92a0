//! Forward and backward of each loss, as JSON lines `{"loss", "case", "size", "dtype", "us", "floor_us"}`.
//!
//! `us` is the median of many runs, and `floor_us` that of an op with nothing to do in the loss's place: see
//! `losses/floor.rs`. What there is to time stands in `cells.txt`. After `--`:
//!
//! - `cross_entropy`, or `cross_entropy/weight`, or `cross_entropy/weight/512x1000/f32`: that only
//! - `--all`: the sizes in brackets as well
//! - `--seconds 0.1`: how long to repeat each, at least eight times; else half a second
//! - `--values`: what comes out of each, not how long it takes: the loss as `value`, the sum of its slopes, without
//!   their signs, as `slopes`
//! - `--memory`: how far one cell, the only one named, raises the peak of the process's memory, as `peak_kib` (on Linux)
//!
//! The allocator is the system's; in `losses_mimalloc.rs` it is the examples'.

use candle_core::{Context, DType, Result, Tensor, bail};
use cells::{Cell, Prepared};
use floor::Floor;
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[path = "losses/cells.rs"]
mod cells;
#[path = "losses/floor.rs"]
mod floor;

struct Options {
    name: String,
    all: bool,
    seconds: Duration,
    values: bool,
    memory: bool,
}

pub fn main() -> Result<()> {
    let options = options()?;
    let is_named = |cell: &Cell| format!("{}/", cell.name()).starts_with(&options.name);
    let wanted = |cell: &Cell| is_named(cell) && (options.all || options.memory || !cell.rest);
    let cells = Cell::all().into_iter().filter(wanted).collect::<Vec<_>>();
    if cells.is_empty() || (options.memory && cells.len() > 1) {
        bail!("{} of the cells in benches/cells.txt are named so", cells.len())
    }
    let mut floors = HashMap::new();
    for cell in cells {
        let figures = figures(&cell, &options, &mut floors).map_err(|error| error.context(cell.name()))?;
        let Cell { loss, case, size, dtype, .. } = cell;
        println!(r#"{{"loss":"{loss}","case":"{case}","size":"{size}","dtype":"{dtype}"{figures}}}"#);
    }
    Ok(())
}

fn options() -> Result<Options> {
    let (name, seconds) = (String::new(), Duration::from_millis(500));
    let mut options = Options { name, all: false, seconds, values: false, memory: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bench" => {} // from cargo
            "--all" => options.all = true,
            "--seconds" => {
                let seconds = args.next().context("--seconds needs a number")?;
                options.seconds = Duration::from_secs_f64(seconds.parse().map_err(candle_core::Error::wrap)?);
            }
            "--values" => options.values = true,
            "--memory" => options.memory = true,
            name if !name.starts_with('-') => options.name = format!("{}/", name.trim_end_matches('/')),
            other => bail!("{other} is no option: see benches/losses.rs"),
        }
    }
    Ok(options)
}

/// What is asked of the cell, as the end of its line.
fn figures(cell: &Cell, options: &Options, floors: &mut HashMap<String, f64>) -> Result<String> {
    let cell = cell.prepare()?;
    let loss = |cell: &Prepared| forward(cell, |arguments| cell.loss(arguments));
    if options.values {
        let value = loss(&cell)?;
        let gradients = value.backward()?;
        let slopes = cell.tracked.iter().map(|x| {
            let gradient = gradients.get(x).context("no gradient")?;
            gradient.to_dtype(DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()
        });
        let (value, slopes) = (value.to_dtype(DType::F64)?.to_scalar::<f64>()?, slopes.sum::<Result<f64>>()?);
        return Ok(format!(r#","value":{value:e},"slopes":{slopes:e}"#));
    }
    if options.memory {
        let runs = || (0..3).try_for_each(|_| loss(&cell)?.backward().map(drop));
        return Ok(peak_kib(runs)?.map_or_else(String::new, |kib| format!(r#","peak_kib":{kib}"#)));
    }
    let us = median_us(options.seconds, || loss(&cell))?;
    let floor = Floor::new(&cell)?;
    let floor_us = match floors.get(&floor.key) {
        Some(&us) => us,
        None => median_us(options.seconds, || forward(&cell, |arguments| floor.forward(arguments)))?,
    };
    floors.insert(floor.key, floor_us);
    Ok(format!(r#","us":{us:.2},"floor_us":{floor_us:.2}"#))
}

/// The loss, or what stands in its place, summed where it is not reduced.
fn forward(cell: &Prepared, loss: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Tensor> {
    let value = cell.with_arguments(loss)?;
    if value.rank() == 0 { Ok(value) } else { value.sum_all() }
}

/// Runs for about so long, at least five times after the first three.
fn median_us(time: Duration, forward: impl Fn() -> Result<Tensor>) -> Result<f64> {
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 8 || (start.elapsed() < time && times.len() < 5000) {
        let start = Instant::now();
        forward()?.backward()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let times = &mut times[3..];
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// How far `run` raises the peak of what is resident; `None` where the system doesn't tell.
fn peak_kib(run: impl Fn() -> Result<()>) -> Result<Option<u64>> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    let kib = |key| {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
        line.trim().trim_end_matches(" kB").parse::<u64>().map_err(candle_core::Error::wrap)
    };
    std::fs::write("/proc/self/clear_refs", "5")?; // the peak is now what is resident
    let before = kib("VmHWM:")?;
    run()?;
    Ok(Some(kib("VmHWM:")? - before))
}
