use super::{Draw, Samples, Source, generator};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;

const FEATURES: usize = 13;

/// 506 districts of Boston in 1970, 13 features each, with the median house price in 1,000 dollars as target, (N, 1).
///
/// The features are standardized with the mean and the population standard deviation of the training part.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Data")]
pub struct BostonHousing {
    /// Share of the rows to hold out, chosen by the seed; 0 trains on all of them
    #[arg(long, value_name = "F", default_value_t = 0.2, value_parser = test_fraction)]
    pub test_fraction: f64,
}

fn test_fraction(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(fraction) if (0.0..1.0).contains(&fraction) => Ok(fraction),
        _ => Err("needs a number from 0 up to, but not including, 1".into()),
    }
}

impl Source for BostonHousing {
    const BATCH_SIZE: usize = 10;
    const PRINT_EVERY: usize = 10;
    const IMAGES: bool = false;

    fn load(&self, seed: u64, device: &Device) -> Result<(Samples, Samples)> {
        let rows = rows()?;
        let held_out = (rows.len() as f64 * self.test_fraction).round() as usize;
        ensure!(held_out < rows.len(), "--test-fraction {} leaves nothing to train on", self.test_fraction);
        let mut shuffled = (0..rows.len()).collect::<Vec<_>>();
        shuffled.shuffle(&mut generator(seed, Draw::Split));
        let mut is_held_out = vec![false; rows.len()];
        for &row in &shuffled[..held_out] {
            is_held_out[row] = true;
        }
        let part =
            |held_out| rows.iter().zip(&is_held_out).filter(move |(_, out)| **out == held_out).map(|(row, _)| row);

        let count = (rows.len() - held_out) as f64;
        let mean: [f64; FEATURES] = std::array::from_fn(|i| part(false).map(|row| row[i]).sum::<f64>() / count);
        let deviation: [f64; FEATURES] =
            std::array::from_fn(|i| (part(false).map(|row| (row[i] - mean[i]).powi(2)).sum::<f64>() / count).sqrt());
        // A feature that is constant in the training part says nothing: it stays 0.
        let standardized = |row: &Row| -> [f32; FEATURES] {
            std::array::from_fn(|i| {
                let scale = if deviation[i] > 0.0 { deviation[i] } else { 1.0 };
                ((row[i] - mean[i]) / scale) as f32
            })
        };
        let samples = |held_out| {
            let features = part(held_out).flat_map(standardized).collect::<Vec<_>>();
            let prices = part(held_out).map(|row| row[FEATURES] as f32).collect::<Vec<_>>();
            let count = prices.len();
            Samples::new(
                Tensor::from_vec(features, (count, FEATURES), device)?,
                Tensor::from_vec(prices, (count, 1), device)?,
            )
        };
        Ok((samples(false)?, samples(true)?))
    }
}

/// The features, then the price.
type Row = [f64; FEATURES + 1];

fn rows() -> Result<Vec<Row>> {
    let mut csv = csv::Reader::from_reader(include_bytes!("../../assets/boston_housing.csv").as_slice());
    let rows = csv.deserialize().collect::<Result<Vec<Row>, _>>()?;
    ensure!(rows.len() == 506, "the bundled Boston housing data has {} rows, not 506", rows.len());
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

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
