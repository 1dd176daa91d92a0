#[cfg(feature = "hub")]
use super::hub;
use super::table::{OwnTable, TableArgs, Target, test_fraction};
use super::{Samples, Source, enlarge, idx};
use anyhow::{Context, Result};
use candle_core::Device;
use std::path::PathBuf;

/// Images of ten classes, 28×28, with the class as target: MNIST if it can be had, else the bundled digits.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::data::{Digits, Named, Source};
///
/// let digits = Digits { dataset: Some(Named::Digits), ..Default::default() };
/// let (train, test) = digits.load(42, &Device::Cpu)?;
/// assert_eq!((train.len(), test.len(), train.features()), (60_000, 10_000, 28 * 28));
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
/// use candle_losses::data::Named;
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
    /// 1,797 bundled originals, enlarged and jittered to 70,000.
    #[value(help = None::<&str>)]
    Digits,
}

impl Source for Digits {
    const BATCH_SIZE: usize = 10;
    const PRINT_EVERY: usize = 500;
    const IMAGES: bool = true;

    fn load(&self, _seed: u64, device: &Device) -> Result<(Samples, Samples)> {
        let (train, test) = match (&self.data_dir, self.dataset) {
            (Some(dir), _) => (idx::load(dir, "train")?, idx::load(dir, "t10k")?),
            (None, Some(Named::Mnist)) => {
                hub::mnist().context("MNIST can't be had (--dataset digits needs no network)")?
            }
            (None, Some(Named::FashionMnist)) => hub::fashion_mnist().context("Fashion-MNIST can't be had")?,
            (None, Some(Named::Digits)) => enlarge::load()?,
            (None, None) => match hub::mnist() {
                Ok(mnist) => mnist,
                Err(_) => {
                    eprintln!("MNIST can't be had; using the bundled digits (--dataset mnist says why).");
                    enlarge::load()?
                }
            },
        };
        Ok((train.into_samples(&[28, 28], device)?, test.into_samples(&[28, 28], device)?))
    }
}

/// Digits, or a table of the reader's own with a class to choose.
///
/// ```
/// use candle_losses::{Args, data::Classification};
/// use clap::Parser;
///
/// #[derive(Parser)]
/// struct Options {
///     #[command(flatten)]
///     args: Args<Classification>,
/// }
///
/// let folder = tempfile::tempdir()?;
/// let csv = folder.path().join("table.csv");
/// std::fs::write(&csv, "size,kind\n1,small\n9,large\n")?;
/// let options = ["mine".as_ref(), "--csv".as_ref(), csv.as_os_str(), "--target".as_ref(), "kind".as_ref()];
/// let session = Options::parse_from(options).args.start()?;
/// assert_eq!(session.classes(), 2);
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None)]
pub struct Classification {
    #[command(flatten)]
    digits: Digits,
    #[command(flatten)]
    table: TableArgs,

    /// Share of the rows of --csv to hold out, chosen by the seed
    #[arg(long, value_name = "F", default_value_t = 0.2, value_parser = test_fraction, help_heading = "Your own data")]
    test_fraction: f64,
}

impl Source for Classification {
    const BATCH_SIZE: usize = Digits::BATCH_SIZE;
    const PRINT_EVERY: usize = Digits::PRINT_EVERY;
    const IMAGES: bool = Digits::IMAGES;

    fn load(&self, seed: u64, device: &Device) -> Result<(Samples, Samples)> {
        self.digits.load(seed, device)
    }

    fn own_table(&self) -> Option<OwnTable<'_>> {
        let (test_fraction, digits) = (self.test_fraction, &self.digits);
        let is_ambiguous = digits.data_dir.is_some() || digits.dataset.is_some();
        Some(OwnTable { args: &self.table, target: Target::Class, test_fraction, is_ambiguous })
    }
}

#[cfg(not(feature = "hub"))]
mod hub {
    use crate::data::Images;
    use anyhow::{Result, bail};

    pub fn mnist() -> Result<(Images, Images)> {
        bail!("built without the feature `hub`")
    }

    pub fn fashion_mnist() -> Result<(Images, Images)> {
        mnist()
    }
}
