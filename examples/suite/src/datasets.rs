use crate::frontend::Ui;
use crate::options::DatasetArgs;
use crate::parsers::{signal, test_fraction};
use crate::preset::Preset;
use anyhow::Result;
use candle_core::Device;
use candle_losses::data::{self, TrainTestSplit};

/// Images of ten classes, with the class as target: on a terminal MNIST if it can be downloaded, otherwise the bundled digits.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct Digits {
    /// Read the four IDX files of MNIST (or of a dataset like it), plain or .gz, from this folder
    #[cfg(feature = "terminal")]
    #[arg(long, value_name = "DIR", conflicts_with = "dataset")]
    pub data_dir: Option<std::path::PathBuf>,

    /// Use this dataset or fail [default: mnist, or digits if the Hub can't be reached]
    #[cfg(feature = "terminal")]
    #[arg(long, value_enum, value_name = "NAME")]
    pub dataset: Option<crate::terminal::DatasetName>,
}

impl DatasetArgs for Digits {
    const PRESET: Preset = Preset::Digits;

    #[cfg(feature = "terminal")]
    fn load(&self, _seed: u64, device: &Device, ui: &Ui) -> Result<TrainTestSplit> {
        match &self.data_dir {
            Some(dir) => Ok(crate::terminal::idx::load(dir)?.to_device(device)?),
            None => crate::terminal::hub::load(self.dataset, device, ui),
        }
    }

    #[cfg(not(feature = "terminal"))]
    fn load(&self, _seed: u64, device: &Device, _ui: &Ui) -> Result<TrainTestSplit> {
        Ok(data::digits(device)?)
    }

    #[cfg(feature = "terminal")]
    fn files(&self) -> Vec<(&'static str, std::path::PathBuf)> {
        let dir = self.data_dir.iter().filter_map(|dir| std::fs::read_dir(dir).ok());
        let files = dir.flatten().flatten().map(|file| ("--data-dir", file.path()));
        files.filter(|(_, file)| file.to_string_lossy().contains("-ubyte")).collect()
    }
}

/// Noise images in two classes, with the class, 0 or 1, as target.
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct FakeImages {
    /// Strength of the pattern of a class under the noise, as a fraction of the range of a pixel; 0 is pure noise
    #[arg(long, value_name = "S", default_value_t = 0.02, value_parser = signal)]
    pub signal: f32,
}

impl DatasetArgs for FakeImages {
    const PRESET: Preset = Preset::FakeImages;

    fn load(&self, seed: u64, device: &Device, _ui: &Ui) -> Result<TrainTestSplit> {
        Ok(data::fake_images(self.signal, seed, device)?)
    }
}

/// Boston housing, with the median price in 1,000 dollars as target.
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct BostonHousing {
    /// Fraction of the rows to hold out, chosen by the seed; 0 trains on all of them
    #[arg(long, value_name = "F", default_value_t = 0.2, value_parser = test_fraction)]
    pub test_fraction: f64,
}

impl DatasetArgs for BostonHousing {
    const PRESET: Preset = Preset::Table;

    fn load(&self, seed: u64, device: &Device, _ui: &Ui) -> Result<TrainTestSplit> {
        Ok(data::boston_housing(self.test_fraction, seed, device)?)
    }
}
