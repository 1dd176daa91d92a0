use super::{Images, TrainTestSplit};
use crate::kernel::parallel::in_parallel;
use candle_core::{Device, Error, Result, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use std::io::Read;

const SMALL: usize = 8;
const SIDE: usize = 28;
/// The originals that training images are made of; test images are made of the others.
const TRAIN_ORIGINALS: usize = 1500;
const TRAIN: usize = 60_000;
const TEST: usize = 10_000;

/// How far a copy may differ from its original.
const ROTATION: f32 = 10.0 * std::f32::consts::PI / 180.0;
const SCALE: std::ops::Range<f32> = 0.8..1.0;
const SHIFT: f32 = 2.0;

/// The bundled digits: 60,000 training and 10,000 test images, always the same. Batches are `f32` (N, 28, 28) in [0, 1], and
/// targets `u32` (N).
///
/// They are made of 1,797 handwritten originals of 8×8 pixels (Alpaydin & Kaynak 1998, UCI, CC BY 4.0), enlarged, turned,
/// scaled and shifted a little. No original is in both parts.
///
/// ```
/// let data = candle_losses::data::digits(&candle_core::Device::Cpu)?;
/// assert_eq!((data.train.len(), data.test.len(), data.train.features()), (60_000, 10_000, 28 * 28));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If a tensor can't be created on `device`.
pub fn digits(device: &Device) -> Result<TrainTestSplit> {
    let (train, test) = load()?;
    Ok(TrainTestSplit {
        train: train.into_samples(&[SIDE, SIDE], device)?,
        test: test.into_samples(&[SIDE, SIDE], device)?,
    })
}

fn load() -> Result<(Images, Images)> {
    let originals = originals()?;
    if originals.len() != 1797 {
        bail!("the bundled file has {} digits, not 1797", originals.len())
    }
    let (train, test) = originals.split_at(TRAIN_ORIGINALS);
    Ok((jittered(train, TRAIN, 0), jittered(test, TEST, 1)))
}

struct Original {
    pixels: [f32; SMALL * SMALL],
    digit: u8,
}

fn originals() -> Result<Vec<Original>> {
    let packed = include_bytes!("../../assets/digits.csv.gz");
    let mut csv = String::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_string(&mut csv)?;
    let originals = csv.lines().map(|line| {
        let numbers = line.split(',').map(|number| number.parse().map_err(Error::wrap)).collect::<Result<Vec<u8>>>()?;
        if numbers.len() != SMALL * SMALL + 1 || numbers[SMALL * SMALL] >= 10 {
            bail!("the bundled digits are damaged: {line}")
        }
        let pixels = std::array::from_fn(|i| f32::from(numbers[i]) * (255.0 / 16.0));
        Ok(Original { pixels, digit: numbers[SMALL * SMALL] })
    });
    originals.collect()
}

/// `count` images, each original's turn coming round and round. The draws depend on `seed` and the image's number only.
fn jittered(originals: &[Original], count: usize, seed: u64) -> Images {
    let mut pixels = vec![0; count * SIDE * SIDE];
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let images = pixels.chunks_exact_mut(SIDE * SIDE).zip(originals.iter().cycle());
    let draws = images.map(|(image, original)| {
        let angle = rng.random_range(-ROTATION..ROTATION);
        let scale = rng.random_range(SCALE);
        let shift = [rng.random_range(-SHIFT..SHIFT), rng.random_range(-SHIFT..SHIFT)];
        move || draw(&original.pixels, angle, scale, shift, image)
    });
    in_parallel(draws.collect::<Vec<_>>().chunks_mut(1000), |draws| draws.iter_mut().for_each(|draw| draw()));
    Images { pixels, labels: originals.iter().map(|original| original.digit).cycle().take(count).collect() }
}

/// Draws the original about the image's middle, turned, scaled and shifted, between its pixels by bilinear interpolation.
fn draw(original: &[f32; SMALL * SMALL], angle: f32, scale: f32, shift: [f32; 2], image: &mut [u8]) {
    // A border of ink-free pixels all round, so that every place has four neighbours.
    const WIDE: usize = SMALL + 3;
    let mut framed = [0f32; WIDE * WIDE];
    for (row, line) in original.chunks_exact(SMALL).enumerate() {
        framed[(row + 1) * WIDE + 1..][..SMALL].copy_from_slice(line);
    }
    let per_pixel = SMALL as f32 / (SIDE as f32 * scale);
    let (sin, cos) = (angle.sin() * per_pixel, angle.cos() * per_pixel);
    let (middle, small_middle) = ((SIDE as f32 - 1.0) / 2.0, (SMALL as f32 - 1.0) / 2.0 + 1.0);
    for (row, line) in image.chunks_exact_mut(SIDE).enumerate() {
        let y = row as f32 - middle - shift[0];
        for (column, pixel) in line.iter_mut().enumerate() {
            let x = column as f32 - middle - shift[1];
            let u = (x * cos + y * sin + small_middle).clamp(0.0, SMALL as f32 + 1.0);
            let v = (y * cos - x * sin + small_middle).clamp(0.0, SMALL as f32 + 1.0);
            let (left, top) = (u as usize, v as usize);
            let (right_share, low_share) = (u - left as f32, v - top as f32);
            let at = top * WIDE + left;
            let upper = framed[at] + (framed[at + 1] - framed[at]) * right_share;
            let lower = framed[at + WIDE] + (framed[at + WIDE + 1] - framed[at + WIDE]) * right_share;
            *pixel = (upper + (lower - upper) * low_share + 0.5) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_mnist_and_every_class_about_as_often() -> Result<()> {
        let (train, test) = load()?;
        assert_eq!((train.labels.len(), test.labels.len()), (60_000, 10_000));
        assert_eq!((train.pixels.len(), test.pixels.len()), (60_000 * 784, 10_000 * 784));
        for part in [&train, &test] {
            for digit in 0..10 {
                let share = part.labels.iter().filter(|&&label| label == digit).count() * 100 / part.labels.len();
                assert!((8..=12).contains(&share), "{share} % are {digit}");
            }
        }
        assert!(train.pixels.chunks(784).all(|image| image.iter().any(|&pixel| pixel > 128)), "an image is blank");
        Ok(())
    }

    #[test]
    fn no_original_is_in_both_parts() -> Result<()> {
        let all = originals()?;
        let (train, test) = all.split_at(TRAIN_ORIGINALS);
        assert!(test.iter().all(|t| train.iter().all(|o| o.pixels != t.pixels)));
        Ok(())
    }

    #[test]
    fn drawn_straight_an_original_is_only_enlarged() {
        let mut original = [0.0; SMALL * SMALL];
        original[3 * SMALL + 2] = 240.0;
        let mut image = [0; SIDE * SIDE];
        draw(&original, 0.0, 1.0, [0.0, 0.0], &mut image);
        let brightest = image.iter().enumerate().max_by_key(|(_, pixel)| **pixel).unwrap().0;
        // The middle of a small pixel (2, 3) lies at (2.5, 3.5) · 28 / 8 - 0.5 of the large ones.
        assert!([8, 9].contains(&(brightest % SIDE)) && [11, 12].contains(&(brightest / SIDE)), "{brightest}");
        assert_eq!((image[0], image[SIDE * SIDE - 1]), (0, 0));
    }

    #[test]
    fn always_the_same() -> Result<()> {
        let originals = originals()?;
        assert_eq!(jittered(&originals, 50, 3).pixels, jittered(&originals, 50, 3).pixels);
        assert_ne!(jittered(&originals, 50, 3).pixels, jittered(&originals, 50, 4).pixels);
        Ok(())
    }
}
