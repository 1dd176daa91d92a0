use crate::kernel::lanes::CHUNK;
use crate::kernel::parallel::in_parallel;
use crate::kernel::storage::elements;
use crate::kernel::switches::reads_values;
use candle_core::{DType, Device, Result, Storage, Tensor, bail};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

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
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Samples {
    pub(super) inputs: Tensor,
    pub(super) targets: Tensor,
    /// The rows of each group, (N, members); without it each row is a sample.
    pub(super) groups: Option<Tensor>,
}

impl Samples {
    /// `inputs` is (N, …), of any dtype; `u8` are pixels, 0 to 255 for 0 to 1. `targets` is (N, …).
    ///
    /// # Errors
    /// If there are not as many targets as inputs, or one of the two is a scalar.
    pub fn new(inputs: Tensor, targets: Tensor) -> Result<Self> {
        Self { inputs, targets, groups: None }.checked()
    }

    /// The same on another device. A model takes its batches from where the samples are.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let groups = self.groups.as_ref().map(|groups| groups.to_device(device)).transpose()?;
        Ok(Self { inputs: self.inputs.to_device(device)?, targets: self.targets.to_device(device)?, groups })
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
    pub fn take(&self, n: usize) -> Result<Self> {
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
    pub fn map_targets(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Self { targets: f(&self.targets)?, ..self.clone() }.checked()
    }

    /// `len` of the samples from `start`, as inputs (pixels in `f32`) and targets; in `order` if there is one. The rows of groups
    /// follow each other: `members` times `len` of them.
    pub fn batch(&self, order: Option<&Tensor>, start: usize, len: usize) -> Result<(Tensor, Tensor)> {
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
    pub(crate) fn order(&self, rng: &mut StdRng) -> Result<Tensor> {
        let mut order = (0..self.len() as u32).collect::<Vec<_>>();
        order.shuffle(rng);
        Tensor::from_vec(order, self.len(), self.targets.device())
    }

    /// What has one entry per sample.
    fn rows(&self) -> &Tensor {
        self.groups.as_ref().unwrap_or(&self.inputs)
    }

    fn checked(self) -> Result<Self> {
        let (Some(&samples), Some(&targets)) = (self.rows().dims().first(), self.targets.dims().first()) else {
            bail!(
                "Samples: inputs have shape {:?} and targets {:?}, but both need a first dimension that counts them",
                self.inputs.dims(),
                self.targets.dims()
            )
        };
        if samples != targets {
            bail!("Samples: there are {samples} samples but {targets} targets")
        }
        Ok(self)
    }
}

/// A data set in two parts: what is trained on, and what is held out to see how well that went.
///
/// With the feature `hub`, it is made of any of candle-datasets' vision data:
///
/// ```no_run
/// # #[cfg(feature = "hub")] {
/// use candle_losses::data::Split;
///
/// let data: Split = candle_datasets::vision::mnist::load_dir("mnist")?.try_into()?;
/// println!("{} images to train on, {} held out", data.train.len(), data.test.len());
/// # }
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Split {
    /// To train on.
    pub train: Samples,
    /// Held out.
    pub test: Samples,
}

impl Split {
    /// The same on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { train: self.train.to_device(device)?, test: self.test.to_device(device)? })
    }

    /// The same inputs with other targets, in both parts.
    pub fn map_targets(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { train: self.train.map_targets(&f)?, test: self.test.map_targets(&f)? })
    }
}

/// Pixels as numbers from 0 to 1.
fn brightness(pixels: &Tensor) -> Result<Tensor> {
    // Times it, as candle-datasets does: a division rounds some of them otherwise.
    const UNIT: f32 = 1.0 / 255.0;
    if !reads_values(pixels.device()) {
        return pixels.to_dtype(DType::F32)? * f64::from(UNIT);
    }
    let pixels = pixels.contiguous()?;
    let (storage, layout) = pixels.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("pixels on the host that are not there") };
    let bytes = elements::<u8>(storage, layout)?;
    let mut values = vec![0f32; bytes.len()];
    let chunks = values.chunks_mut(CHUNK).zip(bytes.chunks(CHUNK));
    in_parallel(chunks, |(values, bytes)| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || values.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = f32::from(byte) * UNIT),
        );
    });
    Tensor::from_vec(values, layout.shape(), pixels.device())
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
    fn refuses_a_target_too_few_and_what_can_not_be_counted() {
        let error = samples().map_targets(|targets| targets.narrow(0, 0, 2)).unwrap_err().to_string();
        assert!(error.contains("there are 3 samples but 2 targets"), "{error}");
        let scalar = Tensor::new(1f32, &Device::Cpu).unwrap();
        assert!(Samples::new(scalar.clone(), scalar).unwrap_err().to_string().contains("first dimension"));
    }
}
