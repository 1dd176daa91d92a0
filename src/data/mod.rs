//! The data of the sections: [`Digits`], [`FakeImages`] and [`BostonHousing`], each a set of options that loads
//! tensors on the device, a row per sample, training and held-out apart; and CSV tables of the reader's own.

mod boston;
mod digits;
mod enlarge;
mod fake;
mod groups;
#[cfg(feature = "hub")]
mod hub;
pub(crate) mod idx;
pub(crate) mod table;

pub use boston::{BostonHousing, Regression};
pub use digits::{Classification, Digits, Named};
pub use fake::FakeImages;
pub use groups::Partners;
pub use table::{OwnTable, TableArgs, Target};

use crate::loss::fused::{CHUNK, elements, in_parallel};
use anyhow::{Result, ensure};
use candle_core::{DType, Device, Storage, Tensor};
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};

/// Where the samples come from: options on the command line that load them.
///
/// ```
/// use candle_core::Device;
/// use candle_losses::data::{BostonHousing, Source};
///
/// fn sizes<S: Source>(source: &S) -> anyhow::Result<(usize, usize)> {
///     let (train, test) = source.load(42, &Device::Cpu)?;
///     Ok((train.len(), test.len()))
/// }
/// assert_eq!(sizes(&BostonHousing { test_fraction: 0.5 })?, (253, 253));
/// # Ok::<(), anyhow::Error>(())
/// ```
pub trait Source: clap::Args {
    /// Samples in a step unless `--batch-size` says otherwise.
    const BATCH_SIZE: usize;
    /// Mini-batches from one line of the output to the next.
    const PRINT_EVERY: usize;
    /// Whether the samples are images, so that the tutorial's model flattens them in a layer of its own.
    const IMAGES: bool;

    /// The training and the held-out samples, on `device`.
    ///
    /// # Errors
    /// If the data can't be had, or is not what it should be.
    fn load(&self, seed: u64, device: &Device) -> Result<(Samples, Samples)>;

    /// The options for a table of the reader's own in place of these, where the section takes one.
    fn own_table(&self) -> Option<OwnTable<'_>> {
        None
    }
}

/// Samples on the device: a row of inputs and a target each, or several rows together and a target for the group.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::data::Samples;
///
/// let pixels = Tensor::new(&[[0u8, 255], [255, 0]], &Device::Cpu)?;
/// let samples = Samples::new(pixels, Tensor::new(&[7u32, 3], &Device::Cpu)?)?;
/// let (inputs, targets) = samples.batch(None, 1, 1)?;
/// assert_eq!(inputs.to_vec2::<f32>()?, [[1.0, 0.0]]);
/// assert_eq!(targets.to_vec1::<u32>()?, [3]);
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Samples {
    inputs: Tensor,
    targets: Tensor,
    /// The rows of each group, (N, members); without it each row is a sample.
    groups: Option<Tensor>,
}

impl Samples {
    /// `inputs` is (N, …), real numbers as `f32` or pixels as `u8` (0 to 255 for 0 to 1); `targets` is (N, …).
    pub fn new(inputs: Tensor, targets: Tensor) -> Result<Self> {
        Self { inputs, targets, groups: None }.checked()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows().dims()[0]
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many numbers a row of inputs has.
    pub fn features(&self) -> usize {
        self.inputs.dims()[1..].iter().product()
    }

    /// The targets, (N, …).
    pub fn targets(&self) -> &Tensor {
        &self.targets
    }

    /// The first `n`, or all if there are fewer.
    pub fn take(&self, n: usize) -> candle_core::Result<Self> {
        let n = n.min(self.len());
        let first = |rows: &Tensor| rows.narrow(0, 0, n);
        Ok(match &self.groups {
            Some(groups) => {
                Self { inputs: self.inputs.clone(), targets: first(&self.targets)?, groups: Some(first(groups)?) }
            }
            None => Self { inputs: first(&self.inputs)?, targets: first(&self.targets)?, groups: None },
        })
    }

    /// The same inputs with other targets.
    pub fn map_targets(&self, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result<Self> {
        Self { targets: f(&self.targets)?, ..self.clone() }.checked()
    }

    /// `len` of the samples from `start`, as inputs in `f32` and targets; in `order` if there is one. The rows of groups
    /// follow each other: `members` times `len` of them.
    pub fn batch(&self, order: Option<&Tensor>, start: usize, len: usize) -> candle_core::Result<(Tensor, Tensor)> {
        let select = |rows: &Tensor| match order {
            Some(order) => rows.index_select(&order.narrow(0, start, len)?, 0),
            None => rows.narrow(0, start, len),
        };
        let inputs = match &self.groups {
            Some(groups) => self.inputs.index_select(&select(groups)?.flatten_all()?, 0)?,
            None => select(&self.inputs)?,
        };
        let inputs = match inputs.dtype() {
            DType::U8 => brightness(&inputs)?,
            _ => inputs,
        };
        Ok((inputs, select(&self.targets)?))
    }

    /// The samples' numbers, shuffled.
    pub(crate) fn order(&self, rng: &mut StdRng) -> candle_core::Result<Tensor> {
        let mut order = (0..self.len() as u32).collect::<Vec<_>>();
        order.shuffle(rng);
        Tensor::from_vec(order, self.len(), self.targets.device())
    }

    /// What has one entry per sample.
    fn rows(&self) -> &Tensor {
        self.groups.as_ref().unwrap_or(&self.inputs)
    }

    fn checked(self) -> Result<Self> {
        let targets = self.targets.dim(0)?;
        ensure!(self.len() == targets, "there are {} samples but {targets} targets", self.len());
        Ok(self)
    }
}

/// Pixels as numbers from 0 to 1.
fn brightness(pixels: &Tensor) -> candle_core::Result<Tensor> {
    const UNIT: f32 = 1.0 / 255.0;
    let pixels = pixels.contiguous()?;
    let (storage, layout) = pixels.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { return pixels.to_dtype(DType::F32)? * f64::from(UNIT) };
    let bytes = elements::<u8>(storage, layout)?;
    let mut values = vec![0f32; bytes.len()];
    let chunks = values.chunks_mut(CHUNK).zip(bytes.chunks(CHUNK));
    in_parallel(chunks.collect(), |(values, bytes)| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || values.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = f32::from(byte) * UNIT),
        );
    });
    Tensor::from_vec(values, layout.shape(), pixels.device())
}

/// What a generator is for, so that no two draw the same numbers from one seed.
#[derive(Clone, Copy)]
pub(crate) enum Draw {
    Weights,
    Order,
    Split,
    FakeImages,
    Groups,
}

/// The generator for one purpose.
pub(crate) fn generator(seed: u64, draw: Draw) -> StdRng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = draw as u8;
    StdRng::from_seed(key)
}

/// Images as bytes and their labels, not yet on a device.
#[derive(Debug)]
pub(crate) struct Images {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Images {
    /// As tensors on the device, where each image has the shape `image`.
    fn into_samples(self, image: &[usize], device: &Device) -> Result<Samples> {
        let count = self.labels.len();
        let inputs = Tensor::from_vec(self.pixels, [&[count], image].concat(), device)?;
        let targets = Tensor::from_vec(self.labels, count, device)?.to_dtype(DType::U32)?;
        Samples::new(inputs, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Samples {
        let inputs = Tensor::new(&[[0u8, 255], [51, 102], [255, 0]], &Device::Cpu).unwrap();
        Samples::new(inputs, Tensor::new(&[0u32, 1, 2], &Device::Cpu).unwrap()).unwrap()
    }

    #[test]
    fn batches_in_order_and_shuffled() -> Result<()> {
        let (x, y) = samples().batch(None, 1, 2)?;
        let expected = Tensor::new(&[[0.2f32, 0.4], [1.0, 0.0]], &Device::Cpu)?;
        assert!((x - expected)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-6);
        assert_eq!(y.to_vec1::<u32>()?, [1, 2]);
        let order = Tensor::new(&[2u32, 0, 1], &Device::Cpu)?;
        let (x, y) = samples().batch(Some(&order), 0, 2)?;
        assert_eq!(x.to_vec2::<f32>()?, [[1.0, 0.0], [0.0, 1.0]]);
        assert_eq!(y.to_vec1::<u32>()?, [2, 0]);
        Ok(())
    }

    #[test]
    fn takes_the_first() -> Result<()> {
        assert_eq!(samples().take(2)?.targets().to_vec1::<u32>()?, [0, 1]);
        assert_eq!(samples().take(9)?.len(), 3);
        Ok(())
    }

    #[test]
    fn refuses_a_target_too_few() {
        let error = samples().map_targets(|targets| targets.narrow(0, 0, 2)).unwrap_err().to_string();
        assert_eq!(error, "there are 3 samples but 2 targets");
    }

    #[test]
    fn generators_differ_by_seed_and_purpose() {
        use rand::RngCore;
        let first = |seed, draw| generator(seed, draw).next_u64();
        assert_eq!(first(1, Draw::Order), first(1, Draw::Order));
        assert_ne!(first(1, Draw::Order), first(2, Draw::Order));
        assert_ne!(first(1, Draw::Order), first(1, Draw::Split));
    }
}
