use super::kind::Kind;
use super::options::Source;
use super::values::{signal, test_fraction};
use crate::data::{self, Split};
#[cfg(feature = "hub")]
use anyhow::Context;
use anyhow::Result;
use candle_core::Device;
use std::path::PathBuf;

/// Images of ten classes, with the class as target: MNIST if it can be had, else the bundled digits.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::cli::{Digits, Named, Source};
///
/// let digits = Digits { dataset: Some(Named::Digits), ..Default::default() };
/// let data = digits.load(42, &Device::Cpu, false)?;
/// assert_eq!((data.train.len(), data.test.len(), data.train.features()), (60_000, 10_000, 28 * 28));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, Default, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct Digits {
    /// Read the four IDX files of MNIST (or one like it), plain or .gz, from this folder
    #[arg(long, value_name = "DIR", conflicts_with = "dataset")]
    pub data_dir: Option<PathBuf>,

    /// Use this data set or fail [default: mnist, or digits where the Hub can't be reached]
    #[arg(long, value_enum, value_name = "NAME")]
    pub dataset: Option<Named>,
}

/// A data set by its name.
///
/// ```
/// use candle_losses::cli::Named;
/// use clap::ValueEnum;
///
/// assert_eq!(Named::from_str("fashion-mnist", false), Ok(Named::FashionMnist));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Named {
    #[allow(missing_docs)]
    Mnist,
    #[allow(missing_docs)]
    FashionMnist,
    /// 32×32 pixels in three colours.
    #[value(name = "cifar-10", help = None::<&str>)]
    Cifar10,
    /// 1,797 bundled originals, enlarged and jittered to 70,000.
    #[value(help = None::<&str>)]
    Digits,
}

impl Source for Digits {
    const KIND: Kind = Kind::Digits;

    fn load(&self, _seed: u64, device: &Device, is_watched: bool) -> Result<Split> {
        if let Some(dir) = &self.data_dir {
            return Ok(data::idx(dir, device)?);
        }
        match self.dataset {
            Some(Named::Digits) => Ok(data::digits(device)?),
            Some(named) => downloaded(named, PATIENT, is_watched)?.to_device(device).map_err(Into::into),
            None => match downloaded(Named::Mnist, QUICK, is_watched) {
                Ok(mnist) => Ok(mnist.to_device(device)?),
                Err(_) => {
                    eprintln!("MNIST can't be had; using the bundled digits (--dataset mnist says why).");
                    Ok(data::digits(device)?)
                }
            },
        }
    }

    fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let dir = self.data_dir.iter().filter_map(|dir| std::fs::read_dir(dir).ok());
        let files = dir.flatten().flatten().map(|file| ("--data-dir", file.path()));
        files.filter(|(_, file)| file.to_string_lossy().contains("-ubyte")).collect()
    }
}

/// How often the Hub is asked again where nothing can take the place of what was named.
const PATIENT: usize = 5;
/// The same where something can: three take about 0.7 s if nobody is there.
const QUICK: usize = 3;

#[cfg(feature = "hub")]
fn downloaded(named: Named, attempts: usize, is_watched: bool) -> Result<Split> {
    use crate::data::hub::{Images, Progress, fetch};
    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
    let (images, name) = match named {
        Named::FashionMnist => (Images::FashionMnist, "Fashion-MNIST"),
        Named::Cifar10 => (Images::Cifar10, "CIFAR-10"),
        Named::Mnist | Named::Digits => (Images::Mnist, "MNIST"),
    };
    let target = if is_watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = "Downloading {msg} {bar:30.cyan/dim} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(None, target).with_style(style).with_message(name);
    let split = fetch(images, attempts, |Progress { done, total, .. }| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    split.with_context(|| format!("{name} can't be had (--dataset digits needs no network)"))
}

#[cfg(not(feature = "hub"))]
fn downloaded(_: Named, _: usize, _: bool) -> Result<Split> {
    anyhow::bail!("this is built without the feature `hub` (--dataset digits needs no network)")
}

/// Noise images in two classes, with the class, 0 or 1, as target.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::cli::{FakeImages, Source};
///
/// let data = FakeImages { signal: 0.02 }.load(42, &Device::Cpu, false)?;
/// assert_eq!((data.train.len(), data.test.len()), (15_000, 3_000));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct FakeImages {
    /// Strength of the class's pattern under the noise, as a share of the range of a pixel; 0 is pure noise
    #[arg(long, value_name = "S", default_value_t = 0.02, value_parser = signal)]
    pub signal: f32,
}

impl Source for FakeImages {
    const KIND: Kind = Kind::FakeImages;

    fn load(&self, seed: u64, device: &Device, _is_watched: bool) -> Result<Split> {
        Ok(data::fake_images(self.signal, seed, device)?)
    }
}

/// Boston housing, with the median price in 1,000 dollars as target.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::cli::{BostonHousing, Source};
///
/// let data = BostonHousing { test_fraction: 0.2 }.load(42, &Device::Cpu, false)?;
/// assert_eq!((data.train.len(), data.test.len()), (405, 101));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct BostonHousing {
    /// Share of the rows to hold out, chosen by the seed; 0 trains on all of them
    #[arg(long, value_name = "F", default_value_t = 0.2, value_parser = test_fraction)]
    pub test_fraction: f64,
}

impl Source for BostonHousing {
    const KIND: Kind = Kind::Table;

    fn load(&self, seed: u64, device: &Device, _is_watched: bool) -> Result<Split> {
        Ok(data::boston_housing(self.test_fraction, seed, device)?)
    }
}
