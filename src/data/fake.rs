use super::{Draw, Images, Samples, Source, generator};
use anyhow::Result;
use candle_core::Device;
use rand::{Rng, RngCore, rngs::StdRng};

const TRAIN: usize = 15_000;
/// A fifth more.
const TEST: usize = TRAIN / 5;
const SIDE: usize = 28;
const CHANNELS: usize = 3;
const PIXELS: usize = CHANNELS * SIDE * SIDE;
/// The side of a square of the pattern.
const SQUARE: usize = 7;

/// Noise images of 3×28×28 in two classes, with the class, 0 or 1, as target.
///
/// Each pixel is noise, uniform over 0 to 255, as `torchvision.datasets.FakeData` comes out once its images are bytes.
/// Under the noise lies a chequerboard of 7×7 squares, brighter by `signal` where the other class has it darker. Noise
/// alone, as in the tutorial, can't be learned: nothing in it depends on the class.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::data::{FakeImages, Source};
///
/// let (train, test) = FakeImages { signal: 0.02 }.load(42, &Device::Cpu)?;
/// assert_eq!((train.len(), test.len(), train.features()), (15_000, 3_000, 3 * 28 * 28));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None, next_help_heading = "Data")]
pub struct FakeImages {
    /// Strength of the class's pattern under the noise, as a share of the range of a pixel; 0 is pure noise
    #[arg(long, value_name = "S", default_value_t = 0.02, value_parser = signal)]
    pub signal: f32,
}

fn signal(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(signal) if (0.0..=1.0).contains(&signal) => Ok(signal),
        _ => Err("needs a number from 0 to 1".into()),
    }
}

impl Source for FakeImages {
    const BATCH_SIZE: usize = 64;
    const PRINT_EVERY: usize = 10;
    const IMAGES: bool = true;

    fn load(&self, seed: u64, device: &Device) -> Result<(Samples, Samples)> {
        let mut rng = generator(seed, Draw::FakeImages);
        let mut part = |count| images(count, self.signal, &mut rng).into_samples(&[CHANNELS, SIDE, SIDE], device);
        Ok((part(TRAIN)?, part(TEST)?))
    }
}

fn images(count: usize, signal: f32, rng: &mut StdRng) -> Images {
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

    fn both(signal: f32) -> (Samples, Samples) {
        FakeImages { signal }.load(42, &Device::Cpu).unwrap()
    }

    #[test]
    fn two_classes_of_noise() -> Result<()> {
        let (train, test) = both(0.0);
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
            let (train, _) = both(signal);
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
            let (train, _) = FakeImages { signal: 0.1 }.load(seed, &Device::Cpu).unwrap();
            train.batch(None, 0, 1).unwrap().0.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(pixels(1), pixels(1));
        assert_ne!(pixels(1), pixels(2));
        Ok(())
    }
}
