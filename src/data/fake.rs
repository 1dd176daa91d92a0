use super::{Draw, Images, TrainTestSplit, generator};
use candle_core::{Device, Result, bail};
use rand::{Rng, RngCore};
use rand_chacha::ChaCha12Rng;

const TRAIN: usize = 15_000;
/// The number of test images: a fifth of the training images.
const TEST: usize = TRAIN / 5;
const SIDE: usize = 28;
const CHANNELS: usize = 3;
const PIXELS: usize = CHANNELS * SIDE * SIDE;
/// The side of a square of the pattern.
const SQUARE: usize = 7;

/// Noise images of 3×28×28 in two classes, with the class, 0 or 1, as target: 15,000 to train on and 3,000 held out.
///
/// Each pixel is uniform noise from 0 to 255, like the images of `torchvision.datasets.FakeData` after conversion to bytes.
/// A checkerboard of 7×7 squares is added, with bright and dark squares swapped between the classes; `signal` is its
/// amplitude, as a fraction of the range of a pixel. With a `signal` of 0 nothing depends on the class, so nothing can be learned.
///
/// ```
/// let data = candle_losses::data::fake_images(0.02, 42, &candle_core::Device::Cpu)?;
/// assert_eq!((data.train.len(), data.test.len(), data.train.features()), (15_000, 3_000, 3 * 28 * 28));
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If `signal` is not in [0, 1].
pub fn fake_images(signal: f32, seed: u64, device: &Device) -> Result<TrainTestSplit> {
    if !(0.0..=1.0).contains(&signal) {
        bail!("fake_images: signal is {signal} but must be in [0, 1]")
    }
    let mut rng = generator(seed, Draw::FakeImages);
    let mut part = |count| images(count, signal, &mut rng).into_samples(&[CHANNELS, SIDE, SIDE], device);
    Ok(TrainTestSplit { train: part(TRAIN)?, test: part(TEST)? })
}

fn images(count: usize, signal: f32, rng: &mut ChaCha12Rng) -> Images {
    let labels = (0..count).map(|_| rng.random_range(0..2)).collect::<Vec<u8>>();
    let mut pixels = vec![0; count * PIXELS];
    rng.fill_bytes(&mut pixels);
    let shift = (signal * 255.0).round() as i16;
    if shift != 0 {
        for (image, &label) in pixels.chunks_exact_mut(PIXELS).zip(&labels) {
            for (row, line) in image.chunks_exact_mut(SIDE).enumerate() {
                for (square, run) in line.chunks_exact_mut(SQUARE).enumerate() {
                    let bright = (row / SQUARE + square) % 2 == usize::from(label);
                    let shift = if bright { shift } else { -shift };
                    for pixel in run {
                        *pixel = (i16::from(*pixel) + shift).clamp(0, 255) as u8;
                    }
                }
            }
        }
    }
    Images { pixels, labels }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(signal: f32) -> TrainTestSplit {
        fake_images(signal, 42, &Device::Cpu).unwrap()
    }

    #[test]
    fn two_classes_of_noise() -> Result<()> {
        let TrainTestSplit { train, test } = both(0.0);
        assert_eq!((train.len(), test.len(), train.features()), (15_000, 3_000, 2352));
        let labels = train.targets().to_vec1::<u32>()?;
        let ones = labels.iter().filter(|&&label| label == 1).count();
        assert!(labels.iter().all(|&label| label < 2) && (7_000..8_000).contains(&ones));
        let mean = train.take(500)?.batch(None, 0, 500)?.0.mean_all()?.to_scalar::<f32>()?;
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        Ok(())
    }

    #[test]
    fn the_classes_differ_by_the_signal_and_only_by_it() -> Result<()> {
        for (signal, least, most) in [(0.0, -0.02, 0.02), (0.25, 0.3, 0.5)] {
            let train = both(signal).train;
            let (images, classes) = train.batch(None, 0, 2000)?;
            let corner = images.flatten_from(1)?.narrow(1, 0, SQUARE)?.mean(1)?.to_vec1::<f32>()?;
            let mean = |class| {
                let of_class = classes.to_vec1::<u32>().unwrap().into_iter().zip(&corner).filter(|(c, _)| *c == class);
                let values = of_class.map(|(_, value)| *value).collect::<Vec<_>>();
                values.iter().sum::<f32>() / values.len() as f32
            };
            let difference = mean(0) - mean(1);
            assert!((least..most).contains(&difference), "{signal}: {difference}");
        }
        Ok(())
    }

    #[test]
    fn the_seed_decides() -> Result<()> {
        let pixels = |seed| {
            let train = fake_images(0.1, seed, &Device::Cpu).unwrap().train;
            train.batch(None, 0, 1).unwrap().0.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(pixels(1), pixels(1));
        assert_ne!(pixels(1), pixels(2));
        Ok(())
    }
}
