use super::{Draw, TensorDataset, TrainTestSplit, generator};
use candle_core::{Device, Error, Result, Tensor, bail};
use rand::seq::SliceRandom;

const ROWS: usize = 506;
const FEATURES: usize = 13;

/// Boston housing: 506 districts in 1970, 13 features, (N, 13), with the median price in 1,000 dollars as target, (N, 1).
///
/// `test_fraction` of the rows, chosen by the seed, are held out; with 0 all rows are trained on, in file order. The features are
/// standardized with the mean and the population standard deviation of the training part. (Harrison & Rubinfeld 1978,
/// StatLib; `assets/README.md` explains why this data set is used to compare losses, and for nothing else.)
///
/// ```
/// let data = candle_losses::data::boston_housing(0.2, 42, &candle_core::Device::Cpu)?;
/// assert_eq!((data.train.len(), data.test.len(), data.train.features()), (405, 101, 13));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If `test_fraction` is not in [0, 1), or leaves no row to train on.
pub fn boston_housing(test_fraction: f64, seed: u64, device: &Device) -> Result<TrainTestSplit> {
    if !(0.0..1.0).contains(&test_fraction) {
        bail!("boston_housing: the test fraction is {test_fraction} but must be in [0, 1)")
    }
    let rows = rows()?;
    let mut order = (0..ROWS).collect::<Vec<_>>();
    order.shuffle(&mut generator(seed, Draw::Split));
    let mut is_held_out = [false; ROWS];
    order[..(ROWS as f64 * test_fraction).round() as usize].iter().for_each(|&row| is_held_out[row] = true);
    let (test, train): (Vec<_>, Vec<_>) = rows.iter().zip(is_held_out).partition(|(_, held_out)| *held_out);

    if train.is_empty() {
        bail!("boston_housing: a test fraction of {test_fraction} leaves no row to train on")
    }
    let mean =
        |i: usize, f: &dyn Fn(f64) -> f64| train.iter().map(|(row, _)| f(row[i])).sum::<f64>() / train.len() as f64;
    let scales = (0..FEATURES).map(|i| {
        let center = mean(i, &|x| x);
        // A feature that is constant says nothing; its mean may be rounded.
        let is_constant = train.iter().all(|(row, _)| row[i] == train[0].0[i]);
        let deviation = mean(i, &|x| (x - center).powi(2)).sqrt();
        (center, if is_constant { f64::INFINITY } else { deviation })
    });
    let scales = scales.collect::<Vec<_>>();
    let dataset = |part: &[(&[f64; FEATURES + 1], bool)]| {
        let features = part.iter().flat_map(|(row, _)| {
            row.iter().zip(&scales).map(|(x, (center, deviation))| ((x - center) / deviation) as f32)
        });
        let features = Tensor::from_vec(features.collect::<Vec<_>>(), (part.len(), FEATURES), device)?;
        let prices = part.iter().map(|(row, _)| row[FEATURES] as f32).collect::<Vec<_>>();
        TensorDataset::new(features, Tensor::from_vec(prices, (part.len(), 1), device)?)
    };
    Ok(TrainTestSplit { train: dataset(&train)?, test: dataset(&test)? })
}

/// The features of each row, and the price.
fn rows() -> Result<Vec<[f64; FEATURES + 1]>> {
    let csv = include_str!("../../assets/boston_housing.csv");
    let rows = csv.lines().skip(1).map(|line| {
        let numbers =
            line.split(',').map(|number| number.parse().map_err(Error::wrap)).collect::<Result<Vec<f64>>>()?;
        numbers.try_into().map_err(|_| Error::msg(format!("the bundled Boston housing data is damaged: {line}")))
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    if rows.len() != ROWS {
        bail!("the bundled Boston housing data has {} rows, not {ROWS}", rows.len())
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(test_fraction: f64, seed: u64) -> (TensorDataset, TensorDataset) {
        let TrainTestSplit { train, test } = boston_housing(test_fraction, seed, &Device::Cpu).unwrap();
        (train, test)
    }

    fn prices(samples: &TensorDataset) -> Vec<f32> {
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
        for fraction in [-0.1, 0.9999, 1.0, 1.5, f64::NAN] {
            let error = boston_housing(fraction, 1, &Device::Cpu).unwrap_err().to_string();
            assert!(error.contains("test fraction"), "{error}");
        }
    }
}
