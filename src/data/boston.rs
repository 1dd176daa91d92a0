use super::table::{Encoding, Reading, Roles, Table, Target};
use super::{Split, told};
use anyhow::ensure;
use candle_core::{Device, Result};

/// 506 districts of Boston in 1970, 13 features each, with the median house price in 1,000 dollars as target, (N, 1).
///
/// `test_fraction` of the rows, chosen by the seed, are held out; with 0 all are trained on, in file order. The features are
/// standardized with the mean and the population standard deviation of the training part. (Harrison & Rubinfeld 1978,
/// StatLib; see `assets/README.md` for why it is here to compare losses on, and for nothing else.)
///
/// ```
/// let data = candle_losses::data::boston_housing(0.2, 42, &candle_core::Device::Cpu)?;
/// assert_eq!((data.train.len(), data.test.len(), data.train.features()), (405, 101, 13));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If `test_fraction` is not in [0, 1).
pub fn boston_housing(test_fraction: f64, seed: u64, device: &Device) -> Result<Split> {
    let csv = include_bytes!("../../assets/boston_housing.csv");
    let split = || {
        ensure!((0.0..1.0).contains(&test_fraction), "the test fraction is {test_fraction} but must be in [0, 1)");
        let table = Table::read("the bundled Boston housing data", csv.as_slice(), &Reading::default())?;
        ensure!(table.len() == 506, "the bundled Boston housing data has {} rows, not 506", table.len());
        let plan = table.plan("MEDV", Some(Target::Number), &Roles::default())?;
        let (train, test) = plan.split(&table, &plan.rows, test_fraction, seed);
        let mut encoding = Encoding::learn(&table, &plan, &train, "mse")?;
        // The prices as they are.
        encoding.scale = (0.0, 1.0);
        let samples = |rows: &[usize]| anyhow::Ok(encoding.samples(&table, rows, device)?.0);
        Ok(Split { train: samples(&train)?, test: samples(&test)? })
    };
    told(split())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Samples;

    const FEATURES: usize = 13;

    fn load(test_fraction: f64, seed: u64) -> (Samples, Samples) {
        let Split { train, test } = boston_housing(test_fraction, seed, &Device::Cpu).unwrap();
        (train, test)
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
    fn refuses_a_fraction_outside_0_to_1() {
        for fraction in [-0.1, 1.0, f64::NAN] {
            let error = boston_housing(fraction, 1, &Device::Cpu).unwrap_err().to_string();
            assert!(error.contains("test fraction"), "{error}");
        }
    }
}
