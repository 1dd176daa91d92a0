use super::table::{OwnTable, Table, TableArgs, Target, test_fraction};
use super::{Samples, Source};
use anyhow::{Result, ensure};
use candle_core::Device;

/// 506 districts of Boston in 1970, 13 features each, with the median house price in 1,000 dollars as target, (N, 1).
///
/// The features are standardized with the mean and the population standard deviation of the training part.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::data::{BostonHousing, Source};
///
/// let (train, test) = BostonHousing { test_fraction: 0.2 }.load(42, &Device::Cpu)?;
/// assert_eq!((train.len(), test.len(), train.features()), (405, 101, 13));
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
    const BATCH_SIZE: usize = 10;
    const PRINT_EVERY: usize = 10;
    const IMAGES: bool = false;

    fn load(&self, seed: u64, device: &Device) -> Result<(Samples, Samples)> {
        let csv = include_bytes!("../../assets/boston_housing.csv");
        let table = Table::read("the bundled Boston housing data", csv.as_slice())?;
        ensure!(table.len() == 506, "the bundled Boston housing data has {} rows, not 506", table.len());
        let (train, test, _) = table.split(("MEDV", Target::Number), &[], self.test_fraction, seed, None, device)?;
        Ok((train, test))
    }
}

/// Boston housing, or a table of the reader's own with a number to predict.
///
/// ```
/// use candle_losses::{Args, data::Regression};
/// use clap::Parser;
///
/// #[derive(Parser)]
/// struct Options {
///     #[command(flatten)]
///     args: Args<Regression>,
/// }
///
/// let folder = tempfile::tempdir()?;
/// let csv = folder.path().join("table.csv");
/// std::fs::write(&csv, "size,price\n1,10\n2,20\n")?;
/// let options = ["mine".as_ref(), "--csv".as_ref(), csv.as_os_str(), "--target".as_ref(), "price".as_ref()];
/// let session = Options::parse_from(options).args.start()?;
/// assert!(session.device().is_cpu());
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None)]
pub struct Regression {
    #[command(flatten)]
    boston: BostonHousing,
    #[command(flatten)]
    table: TableArgs,
}

impl Source for Regression {
    const BATCH_SIZE: usize = BostonHousing::BATCH_SIZE;
    const PRINT_EVERY: usize = BostonHousing::PRINT_EVERY;
    const IMAGES: bool = BostonHousing::IMAGES;

    fn load(&self, seed: u64, device: &Device) -> Result<(Samples, Samples)> {
        self.boston.load(seed, device)
    }

    fn own_table(&self) -> Option<OwnTable<'_>> {
        let test_fraction = self.boston.test_fraction;
        Some(OwnTable { args: &self.table, target: Target::Number, test_fraction, is_ambiguous: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: usize = 13;

    fn load(test_fraction: f64, seed: u64) -> (Samples, Samples) {
        BostonHousing { test_fraction }.load(seed, &Device::Cpu).unwrap()
    }

    fn prices(samples: &Samples) -> Vec<f32> {
        samples.targets().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn all_rows_in_file_order_standardized() -> Result<()> {
        let (train, test) = load(0.0, 42);
        assert_eq!((train.len(), train.features(), test.len()), (506, 13, 0));
        assert_eq!(prices(&train)[..4], [24.0, 21.6, 34.7, 33.4]);
        let (features, _) = train.batch(None, 0, 506)?;
        for i in 0..FEATURES {
            let column = features.narrow(1, i, 1)?;
            let (mean, square) =
                (column.mean_all()?.to_scalar::<f32>()?, column.sqr()?.mean_all()?.to_scalar::<f32>()?);
            assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-4, "column {i}: {mean}, {square}");
        }
        Ok(())
    }

    #[test]
    fn what_is_held_out_is_a_fifth_that_the_seed_chooses() -> Result<()> {
        let (train, test) = load(0.2, 42);
        assert_eq!((train.len(), test.len()), (405, 101));
        let mut together = [prices(&train), prices(&test)].concat();
        let mut all = prices(&load(0.0, 0).0);
        together.sort_by(f32::total_cmp);
        all.sort_by(f32::total_cmp);
        assert_eq!(together, all, "every row is in one part");
        assert_eq!(prices(&test), prices(&load(0.2, 42).1));
        assert_ne!(prices(&test), prices(&load(0.2, 43).1));
        Ok(())
    }

    #[test]
    fn nothing_of_the_held_out_rows_is_in_the_scale() -> Result<()> {
        let (train, _) = load(0.5, 42);
        let mean = train.batch(None, 0, train.len())?.0.mean(0)?.to_vec1::<f32>()?;
        assert!(mean.iter().all(|mean| mean.abs() < 1e-5), "{mean:?}");
        Ok(())
    }

    #[test]
    fn fractions_outside_0_to_1_are_refused() {
        assert!(["-0.1", "1", "NaN", "x"].iter().all(|text| test_fraction(text).is_err()));
        assert_eq!(test_fraction("0.25"), Ok(0.25));
    }
}
