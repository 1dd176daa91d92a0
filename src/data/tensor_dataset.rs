use crate::kernel::parallel;
use crate::kernel::storage::elements;
use crate::kernel::switches::reads_values;
use candle_core::{DType, Device, Result, Storage, Tensor, bail};

/// A dataset of tensors on one device: each sample is a row of the inputs and a row of the targets, or a tuple of input rows and
/// one row of the targets ([`sample_tuples`](Self::sample_tuples)).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::data::TensorDataset;
///
/// let pixels = Tensor::new(&[[0u8, 255], [255, 0]], &Device::Cpu)?;
/// let dataset = TensorDataset::images(pixels, Tensor::new(&[7u32, 3], &Device::Cpu)?)?;
/// let (inputs, targets) = dataset.batch(None, 1, 1)?;
/// assert_eq!(inputs.to_vec2::<f32>()?, [[1.0, 0.0]]);
/// assert_eq!(targets.to_vec1::<u32>()?, [3]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TensorDataset {
    pub(super) inputs: Tensor,
    pub(super) targets: Tensor,
    /// The rows of each tuple, (N, members); without it each row is a sample.
    pub(super) tuples: Option<Tensor>,
    /// Whether the inputs are bytes to be scaled to [0, 1].
    pub(super) is_image: bool,
}

impl TensorDataset {
    /// Creates a dataset of `inputs`, (N, …), and `targets`, (N, …), of any dtype. Batches have the values unchanged.
    ///
    /// # Errors
    /// If the numbers of inputs and targets differ, or one of the tensors is a scalar.
    pub fn new(inputs: Tensor, targets: Tensor) -> Result<Self> {
        Self { inputs, targets, tuples: None, is_image: false }.checked()
    }

    /// Creates a dataset of images: `inputs` are `u8` pixels, (N, …), and `targets` are (N, …), of any dtype. In a batch the
    /// pixels are `f32`, scaled from 0..=255 to [0, 1].
    ///
    /// # Errors
    /// If `inputs` is not `u8`, the numbers of inputs and targets differ, or one of the tensors is a scalar.
    pub fn images(inputs: Tensor, targets: Tensor) -> Result<Self> {
        if inputs.dtype() != DType::U8 {
            bail!("TensorDataset: images need pixels of dtype U8 but got {:?}", inputs.dtype())
        }
        Self { inputs, targets, tuples: None, is_image: true }.checked()
    }

    /// The same dataset on another device. Batches are on the device of the dataset.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let tuples = self.tuples.as_ref().map(|tuples| tuples.to_device(device)).transpose()?;
        let (inputs, targets) = (self.inputs.to_device(device)?, self.targets.to_device(device)?);
        Ok(Self { inputs, targets, tuples, is_image: self.is_image })
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.rows().dims()[0]
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of elements in a row of inputs.
    pub fn features(&self) -> usize {
        self.inputs.dims()[1..].iter().product()
    }

    /// The targets, (N, …).
    pub fn targets(&self) -> &Tensor {
        &self.targets
    }

    /// The first `n` samples, or all if there are fewer.
    pub fn take(&self, n: usize) -> Result<Self> {
        let n = n.min(self.len());
        let mut taken = self.clone();
        taken.targets = self.targets.narrow(0, 0, n)?;
        match &self.tuples {
            Some(tuples) => taken.tuples = Some(tuples.narrow(0, 0, n)?),
            None => taken.inputs = self.inputs.narrow(0, 0, n)?,
        }
        Ok(taken)
    }

    /// Returns a dataset with the same inputs and the targets `f(targets)`, which must be (N, …).
    ///
    /// # Errors
    /// If `f` fails or returns another number of targets.
    pub fn map_targets(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Self { targets: f(&self.targets)?, ..self.clone() }.checked()
    }

    /// Returns the dataset with each row of the inputs reshaped to `shape`, which leaves out the dimension N.
    ///
    /// # Errors
    /// If the shape has another number of elements than a row.
    pub fn with_shape(&self, shape: &[usize]) -> Result<Self> {
        let inputs = self.inputs.reshape([&[self.inputs.dims()[0]], shape].concat())?;
        Ok(Self { inputs, ..self.clone() })
    }

    /// Returns the inputs and targets of `len` samples from position `start`. `order`, `u32` of shape (N), permutes the samples
    /// if given. For tuples the inputs have `len · members` rows, tuple by tuple.
    ///
    /// # Errors
    /// If `start + len` is more than the number of samples, or `order` holds an index out of range or is on another device.
    pub fn batch(&self, order: Option<&Tensor>, start: usize, len: usize) -> Result<(Tensor, Tensor)> {
        let select = |rows: &Tensor| match order {
            Some(order) => rows.index_select(&order.narrow(0, start, len)?, 0),
            None => rows.narrow(0, start, len),
        };
        let targets = select(&self.targets)?;
        if self.is_image && reads_values(self.inputs.device()) {
            let rows = match (&self.tuples, order) {
                (Some(tuples), _) => select(tuples)?.flatten_all()?.to_vec1()?,
                (None, Some(order)) => order.narrow(0, start, len)?.to_dtype(DType::U32)?.to_vec1()?,
                (None, None) => (start as u32..(start + len) as u32).collect(),
            };
            return Ok((brightness_of_rows(&self.inputs, &rows)?, targets));
        }
        let inputs = match &self.tuples {
            Some(tuples) => self.inputs.index_select(&select(tuples)?.flatten_all()?, 0)?,
            None => select(&self.inputs)?,
        };
        let inputs = if self.is_image { (inputs.to_dtype(DType::F32)? * f64::from(UNIT))? } else { inputs };
        Ok((inputs, targets))
    }

    /// Returns the inputs and targets of the samples at these indices, like [`batch`](Self::batch).
    ///
    /// # Errors
    /// If an index is out of range.
    pub fn select(&self, rows: &[u32]) -> Result<(Tensor, Tensor)> {
        if let Some(row) = rows.iter().find(|&&row| row as usize >= self.len()) {
            bail!("TensorDataset: there is no sample {row} among {}", self.len())
        }
        // Consecutive samples need no copy: they are a view.
        if let Some(&first) = rows.first()
            && rows.iter().zip(first..).all(|(&row, expected)| row == expected)
        {
            return self.batch(None, first as usize, rows.len());
        }
        self.batch(Some(&Tensor::new(rows, self.targets.device())?), 0, rows.len())
    }

    /// The tensor with one row per sample.
    fn rows(&self) -> &Tensor {
        self.tuples.as_ref().unwrap_or(&self.inputs)
    }

    fn checked(mut self) -> Result<Self> {
        let (Some(&samples), Some(&targets)) = (self.rows().dims().first(), self.targets.dims().first()) else {
            bail!(
                "TensorDataset: inputs have shape {:?} and targets {:?}, but both need a first dimension N, the number of samples",
                self.inputs.dims(),
                self.targets.dims()
            )
        };
        if samples != targets {
            bail!("TensorDataset: there are {samples} samples but {targets} targets")
        }
        // Rows are selected by their numbers, which candle does in contiguous tensors only.
        (self.inputs, self.targets) = (self.inputs.contiguous()?, self.targets.contiguous()?);
        Ok(self)
    }
}

/// A dataset split into a training part and a held-out test part.
///
/// With the feature `datasets`, `try_into` converts any vision dataset of candle-datasets:
///
/// ```no_run
/// # #[cfg(feature = "datasets")] {
/// use candle_losses::data::TrainTestSplit;
///
/// let data: TrainTestSplit = candle_datasets::vision::mnist::load_dir("mnist")?.try_into()?;
/// println!("{} images to train on, {} held out", data.train.len(), data.test.len());
/// # }
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct TrainTestSplit {
    /// The samples to train on.
    pub train: TensorDataset,
    /// The held-out samples.
    pub test: TensorDataset,
}

impl TrainTestSplit {
    /// The same data on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self { train: self.train.to_device(device)?, test: self.test.to_device(device)? })
    }

    /// The same inputs with other targets, in both parts.
    pub fn map_targets(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { train: self.train.map_targets(&f)?, test: self.test.map_targets(&f)? })
    }
}

/// The factor from bytes to brightness. As in candle-datasets: a division by 255 would round some values differently.
const UNIT: f32 = 1.0 / 255.0;

/// Returns rows of pixels on the CPU as numbers from 0 to 1: selected and scaled in one pass.
fn brightness_of_rows(pixels: &Tensor, rows: &[u32]) -> Result<Tensor> {
    let mut dims = pixels.dims().to_vec();
    let width = dims[1..].iter().product();
    let values = {
        let (storage, layout) = pixels.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { bail!("the pixels are not in CPU storage") };
        parallel::map_rows(elements::<u8>(storage, layout)?, width, rows, |&byte| f32::from(byte) * UNIT)?
    };
    dims[0] = rows.len();
    Tensor::from_vec(values, dims, pixels.device())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> TensorDataset {
        let inputs = Tensor::new(&[[0u8, 255], [51, 102], [255, 0]], &Device::Cpu).unwrap();
        TensorDataset::images(inputs, Tensor::new(&[0u32, 1, 2], &Device::Cpu).unwrap()).unwrap()
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

    /// Many rows are read by several threads.
    #[test]
    fn images_are_selected_and_scaled_in_any_order() -> Result<()> {
        let pixels = (0..500 * 300).map(|i| (i * 31 % 256) as u8).collect::<Vec<_>>();
        let classes = Tensor::arange(0u32, 500, &Device::Cpu)?;
        let images = TensorDataset::images(Tensor::from_vec(pixels.clone(), (500, 20, 15), &Device::Cpu)?, classes)?;
        let rows = (0..500).map(|i| i * 7 % 500).collect::<Vec<u32>>();
        let orders = [
            Tensor::new(rows.as_slice(), &Device::Cpu)?,
            Tensor::new(rows.as_slice(), &Device::Cpu)?.to_dtype(DType::I64)?,
        ];
        for order in orders {
            let (x, y) = images.batch(Some(&order), 3, 490)?;
            assert_eq!((x.dims(), y.to_vec1::<u32>()?.as_slice()), (&[490, 20, 15][..], &rows[3..493]));
            for (row, image) in rows[3..493].iter().zip(x.flatten_from(1)?.to_vec2::<f32>()?) {
                let expected = pixels[*row as usize * 300..][..300].iter().map(|&byte| f32::from(byte) / 255.0);
                assert!(image.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{row}");
            }
        }
        assert!(images.batch(Some(&Tensor::new(&[500u32], &Device::Cpu)?), 0, 1).is_err());
        assert!(images.batch(None, 499, 2).is_err());
        assert_eq!(images.batch(None, 0, 0)?.0.dims(), [0, 20, 15]);
        Ok(())
    }

    #[test]
    fn bytes_that_are_no_images_stay_as_they_are() -> Result<()> {
        let tokens =
            TensorDataset::new(Tensor::new(&[[7u8, 255]], &Device::Cpu)?, Tensor::new(&[0u32], &Device::Cpu)?)?;
        assert_eq!(tokens.batch(None, 0, 1)?.0.to_vec2::<u8>()?, [[7, 255]]);
        Ok(())
    }

    #[test]
    fn views_of_any_layout_are_shuffled() -> Result<()> {
        let x = Tensor::arange(0f32, 12., &Device::Cpu)?.reshape((3, 4))?;
        let order = Tensor::new(&[2u32, 0, 1], &Device::Cpu)?;
        for view in [x.t()?.narrow(0, 0, 3)?, x.narrow(1, 0, 3)?, x.narrow(0, 0, 1)?.broadcast_as((3, 4))?] {
            let dataset = TensorDataset::new(view.clone(), view.clone())?;
            let (inputs, targets) = dataset.batch(Some(&order), 0, 1)?;
            assert_eq!(inputs.to_vec2::<f32>()?, view.narrow(0, 2, 1)?.to_vec2::<f32>()?);
            assert_eq!(targets.to_vec2::<f32>()?, inputs.to_vec2::<f32>()?);
        }
        Ok(())
    }

    #[test]
    fn takes_the_first() -> Result<()> {
        assert_eq!(samples().take(2)?.targets().to_vec1::<u32>()?, [0, 1]);
        assert_eq!(samples().take(9)?.len(), 3);
        Ok(())
    }

    #[test]
    fn rejects_mismatched_lengths_and_scalars() {
        let error = samples().map_targets(|targets| targets.narrow(0, 0, 2)).unwrap_err().to_string();
        assert!(error.contains("there are 3 samples but 2 targets"), "{error}");
        let error = TensorDataset::images(Tensor::new(&[1f32], &Device::Cpu).unwrap(), samples().targets().clone());
        assert!(error.unwrap_err().to_string().contains("F32"));
        let scalar = Tensor::new(1f32, &Device::Cpu).unwrap();
        assert!(TensorDataset::new(scalar.clone(), scalar).unwrap_err().to_string().contains("first dimension N"));
    }
}
