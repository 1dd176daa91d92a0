use super::{TensorDataset, TrainTestSplit};
use candle_core::{DType, Device, Result, Tensor, bail};
use candle_datasets::vision::Dataset;

impl TryFrom<Dataset> for TrainTestSplit {
    type Error = candle_core::Error;

    /// Keeps the shape of the images and stores them on the CPU. Images made from bytes, as all of candle-datasets are, are stored
    /// as `u8`, in a quarter of the memory; a batch has the same `f32` values.
    ///
    /// # Errors
    /// If a label is not below `labels`, or the numbers of images and labels differ.
    fn try_from(dataset: Dataset) -> Result<Self> {
        let Dataset { train_images, train_labels, test_images, test_labels, labels } = dataset;
        let part = |images: Tensor, classes: Tensor| {
            let classes = classes.to_dtype(DType::U32)?;
            let values = classes.to_vec1::<u32>()?;
            if let Some(at) = values.iter().position(|&class| class as usize >= labels) {
                bail!("label {at} is {}, but there are {labels} classes, numbered from 0", values[at])
            }
            match bytes(&images)? {
                Some(bytes) => TensorDataset::images(bytes, classes),
                None => TensorDataset::new(images, classes),
            }
        };
        Ok(Self { train: part(train_images, train_labels)?, test: part(test_images, test_labels)? })
    }
}

/// The bytes that brightnesses from 0 to 1 were made of; `None` if one of them was not made of a byte.
fn bytes(images: &Tensor) -> Result<Option<Tensor>> {
    if images.dtype() != DType::F32 || images.elem_count() == 0 {
        return Ok(None);
    }
    let images = images.to_device(&Device::Cpu)?;
    let count = images.dim(0)?;
    let mut bytes = Vec::with_capacity(images.elem_count());
    // In parts, so that no second copy of all images is made.
    for start in (0..count).step_by(1000) {
        for value in images.narrow(0, start, 1000.min(count - start))?.flatten_all()?.to_vec1::<f32>()? {
            let byte = (value * 255.0).round();
            if !(0.0..=255.0).contains(&byte) || byte * (1.0 / 255.0) != value {
                return Ok(None);
            }
            bytes.push(byte as u8);
        }
    }
    Tensor::from_vec(bytes, images.shape(), &Device::Cpu).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(images: usize, labels: &[u8]) -> Dataset {
        let pixels = |count: usize| {
            let bytes = (0..count * 6).map(|i| (i * 37 % 256) as u8).collect::<Vec<_>>();
            let bytes = Tensor::from_vec(bytes, (count, 6), &Device::Cpu).unwrap();
            (bytes.to_dtype(DType::F32).unwrap() / 255.).unwrap()
        };
        let labels = Tensor::new(labels, &Device::Cpu).unwrap();
        Dataset {
            train_images: pixels(images),
            train_labels: labels.clone(),
            test_images: pixels(labels.dim(0).unwrap()),
            test_labels: labels,
            labels: 10,
        }
    }

    #[test]
    fn brightnesses_are_kept_as_bytes_and_come_back_the_same() -> Result<()> {
        let images = (Tensor::arange(0u32, 256, &Device::Cpu)?.to_dtype(DType::F32)?.reshape((256, 1))? / 255.)?;
        let packed = bytes(&images)?.unwrap();
        assert_eq!(packed.dtype(), DType::U8);
        let dataset = TensorDataset::images(packed, Tensor::zeros(256, DType::U32, &Device::Cpu)?)?;
        assert_eq!(dataset.batch(None, 0, 256)?.0.to_vec2::<f32>()?, images.to_vec2::<f32>()?);
        assert!(bytes(&Tensor::new(&[[0.1f32], [-1.0]], &Device::Cpu)?)?.is_none());
        Ok(())
    }

    #[test]
    fn images_and_labels_must_agree() {
        let split = TrainTestSplit::try_from(dataset(3, &[1, 9, 0])).unwrap();
        assert_eq!((split.train.len(), split.train.targets().to_vec1::<u32>().unwrap()), (3, vec![1, 9, 0]));
        let error = |dataset: Dataset| TrainTestSplit::try_from(dataset).unwrap_err().to_string();
        assert!(error(dataset(2, &[1, 9, 0])).contains("2 samples but 3 targets"));
        assert!(error(dataset(2, &[1, 10])).contains("label 1 is 10, but there are 10 classes"));
    }
}
