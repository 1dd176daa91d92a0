use super::{Draw, TensorDataset, TrainTestSplit, generator};
use candle_core::{DType, Device, Result, Tensor, bail};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use std::ops::Range;

/// Draws the samples that form a tuple with one sample, by their classes.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::data::TensorDataset;
///
/// let images = Tensor::new(&[[0f32], [1.0], [2.0], [3.0]], &Device::Cpu)?;
/// let dataset = TensorDataset::new(images, Tensor::new(&[5u32, 8, 5, 8], &Device::Cpu)?)?;
/// let pairs = dataset.sample_tuples(|sampler| [sampler.anchor(), sampler.same_class()], 42)?;
/// let (images, classes) = pairs.batch(None, 0, 1)?;
/// assert_eq!(images.to_vec2::<f32>()?, [[0.0], [2.0]]);
/// assert_eq!(classes.to_vec2::<u32>()?, [[5, 5]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct TupleSampler<'a> {
    classes: &'a Classes,
    row: u32,
    rng: &'a mut ChaCha12Rng,
}

/// The rows of each class.
struct Classes {
    /// All rows, sorted by class.
    rows: Vec<u32>,
    /// For each row, the range in `rows` of its class.
    ranges: Vec<Range<usize>>,
}

impl Classes {
    fn new(targets: &Tensor) -> Result<Self> {
        if targets.rank() != 1 {
            bail!("sample_tuples: the targets have shape {:?} but need one class for each sample, (N)", targets.dims())
        }
        let classes = if targets.dtype().is_int() {
            targets.to_dtype(DType::I64)?.to_vec1::<i64>()?
        } else {
            let numbers = targets.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
            if let Some(number) = numbers.iter().find(|number| number.fract() != 0.0 || number.abs() > 2f64.powi(53)) {
                bail!("sample_tuples: a target is {number}, but classes are whole numbers")
            }
            numbers.into_iter().map(|number| number as i64).collect()
        };
        let mut rows = (0..classes.len() as u32).collect::<Vec<_>>();
        rows.sort_by_key(|&row| classes[row as usize]);
        let mut ranges = vec![0..0; rows.len()];
        let mut start = 0;
        for same in rows.chunk_by(|&a, &b| classes[a as usize] == classes[b as usize]) {
            for &row in same {
                ranges[row as usize] = start..start + same.len();
            }
            start += same.len();
        }
        Ok(Self { rows, ranges })
    }

    fn len(&self) -> usize {
        self.rows.len()
    }
}

impl TupleSampler<'_> {
    /// Returns the row index of the anchor: the sample that the tuple is drawn for.
    pub fn anchor(&self) -> u32 {
        self.row
    }

    /// Returns the row index of a random sample, possibly the anchor.
    pub fn any(&mut self) -> u32 {
        self.rng.random_range(0..self.classes.len() as u32)
    }

    /// Returns the row index of a random sample of the anchor's class. It is the anchor only if its class has no other sample.
    pub fn same_class(&mut self) -> u32 {
        let rows = &self.classes.rows[self.range()];
        loop {
            let row = rows[self.rng.random_range(0..rows.len())];
            if row != self.row || rows.len() == 1 {
                return row;
            }
        }
    }

    /// Returns the row index of a random sample of another class, or of any sample if there is only one class.
    pub fn other_class(&mut self) -> u32 {
        let (own, all) = (self.range(), self.classes.len());
        if own.len() == all {
            return self.any();
        }
        if own.len() > all / 2 {
            // The rejection sampling below would mostly draw the anchor's own class.
            let other = self.rng.random_range(0..all - own.len());
            return self.classes.rows[if other < own.start { other } else { other + own.len() }];
        }
        loop {
            let row = self.any();
            if self.classes.ranges[row as usize] != own {
                return row;
            }
        }
    }

    /// Returns true with a probability of 1/2.
    pub fn coin_flip(&mut self) -> bool {
        self.rng.random()
    }

    fn range(&self) -> Range<usize> {
        self.classes.ranges[self.row as usize].clone()
    }
}

impl TensorDataset {
    /// Returns a dataset of tuples, one for each sample. `draw` returns the row indices of the `N` members of a tuple, which
    /// its `TupleSampler` draws from `seed`. The targets of the new dataset are the classes of the members, (samples, N). The
    /// inputs of a batch are the members of the first tuple, then of the second, and so on: `len · N` rows.
    ///
    /// # Errors
    /// If the targets are not of shape (samples), or not integers or floats that are whole numbers; or if `draw` returns a row
    /// index that is out of range.
    pub fn sample_tuples<const N: usize>(
        &self,
        draw: impl Fn(&mut TupleSampler) -> [u32; N],
        seed: u64,
    ) -> Result<Self> {
        self.tuples_by(draw, &mut generator(seed, Draw::Tuples))
    }

    fn tuples_by<const N: usize>(
        &self,
        draw: impl Fn(&mut TupleSampler) -> [u32; N],
        rng: &mut ChaCha12Rng,
    ) -> Result<Self> {
        let classes = Classes::new(&self.targets)?;
        let mut rows = Vec::with_capacity(classes.len() * N);
        for row in 0..classes.len() as u32 {
            rows.extend(draw(&mut TupleSampler { classes: &classes, row, rng }));
        }
        if let Some(row) = rows.iter().find(|&&row| row as usize >= classes.len()) {
            bail!("sample_tuples: draw returned row {row}, but there are {} samples", classes.len())
        }
        let tuples = Tensor::from_vec(rows, (classes.len(), N), self.inputs.device())?;
        let targets = self.targets.index_select(&tuples.flatten_all()?, 0)?.reshape(tuples.shape())?;
        // The samples may be tuples already.
        let tuples = match &self.tuples {
            Some(earlier) => {
                let members = N * earlier.dim(1)?;
                earlier.index_select(&tuples.flatten_all()?, 0)?.reshape((classes.len(), members))?
            }
            None => tuples,
        };
        Ok(Self { targets, tuples: Some(tuples), ..self.clone() })
    }
}

impl TrainTestSplit {
    /// Returns datasets of tuples of both parts, like [`TensorDataset::sample_tuples`].
    ///
    /// # Errors
    /// Those of [`TensorDataset::sample_tuples`].
    pub fn sample_tuples<const N: usize>(
        &self,
        draw: impl Fn(&mut TupleSampler) -> [u32; N],
        seed: u64,
    ) -> Result<Self> {
        let mut rng = generator(seed, Draw::Tuples);
        Ok(Self { train: self.train.tuples_by(&draw, &mut rng)?, test: self.test.tuples_by(&draw, &mut rng)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn samples(classes: &[u32]) -> TensorDataset {
        let inputs = Tensor::arange(0u32, classes.len() as u32, &Device::Cpu).unwrap();
        let inputs = inputs.to_dtype(DType::F32).unwrap().unsqueeze(1).unwrap();
        TensorDataset::new(inputs, Tensor::new(classes, &Device::Cpu).unwrap()).unwrap()
    }

    #[test]
    fn members_have_the_requested_class() -> Result<()> {
        let samples = samples(&[0, 1, 2, 0, 1, 2, 2, 0]);
        let groups = samples.sample_tuples(|draw| [draw.anchor(), draw.same_class(), draw.other_class()], 1)?;
        let (inputs, targets) = groups.batch(None, 0, 8)?;
        let (rows, targets) = (inputs.reshape((8, 3))?.to_vec2::<f32>()?, targets.to_vec2::<u32>()?);
        for (i, (rows, classes)) in rows.iter().zip(&targets).enumerate() {
            assert_eq!(rows[0], i as f32);
            assert!(rows[1] != rows[0] && classes[1] == classes[0] && classes[2] != classes[0]);
        }
        assert_eq!(groups.take(3)?.batch(None, 2, 1)?.0.flatten_all()?.to_vec1::<f32>()?, rows[2]);
        let order = Tensor::new(&[5u32, 4], &Device::Cpu)?;
        assert_eq!(
            groups.batch(Some(&order), 0, 2)?.0.flatten_all()?.to_vec1::<f32>()?,
            [rows[5].clone(), rows[4].clone()].concat()
        );
        Ok(())
    }

    #[test]
    fn classes_are_any_whole_numbers_of_any_dtype() -> Result<()> {
        let x = Tensor::arange(0f32, 6.0, &Device::Cpu)?;
        let pairs = |targets: Tensor| {
            let dataset = TensorDataset::new(x.clone(), targets)?;
            dataset.sample_tuples(|sampler| [sampler.same_class(), sampler.other_class()], 1)
        };
        let sparse = [-1i64, i64::MAX, -1, 0, i64::MAX, 0];
        for (row, classes) in pairs(Tensor::new(&sparse, &Device::Cpu)?)?.targets().to_vec2::<i64>()?.iter().enumerate()
        {
            assert!(classes[0] == sparse[row] && classes[1] != sparse[row], "{row}: {classes:?}");
        }
        let signs = [-1f32, 0.0, -1.0, 0.0, 0.0, -1.0];
        for (row, classes) in pairs(Tensor::new(&signs, &Device::Cpu)?)?.targets().to_vec2::<f32>()?.iter().enumerate()
        {
            assert!(classes[0] == signs[row] && classes[1] != signs[row], "{row}: {classes:?}");
        }
        for bad in [0.5f32, f32::NAN, f32::INFINITY] {
            let error = pairs(Tensor::new(&[bad; 6], &Device::Cpu)?).unwrap_err().to_string();
            assert!(error.contains(&format!("a target is {bad}")), "{error}");
        }
        let error = pairs(Tensor::zeros((6, 1), DType::U32, &Device::Cpu)?).unwrap_err().to_string();
        assert!(error.contains("[6, 1]") && error.contains("(N)"), "{error}");
        Ok(())
    }

    #[test]
    fn a_class_of_nearly_all_rows_is_no_slower() -> Result<()> {
        let mut classes = vec![1u32; 200_000];
        classes[77] = 0;
        classes[100_000] = 2;
        let pairs = samples(&classes).sample_tuples(|sampler| [sampler.other_class()], 1)?;
        let found = pairs.targets().flatten_all()?.to_vec1::<u32>()?;
        assert!(found.iter().zip(&classes).all(|(found, class)| found != class));
        let share = found.iter().filter(|class| **class == 0).count() as f64 / found.len() as f64;
        assert!((share - 0.5).abs() < 0.01, "{share}");
        Ok(())
    }

    #[test]
    fn a_row_that_does_not_exist_is_an_error() {
        let error = samples(&[0, 1]).sample_tuples(|sampler| [sampler.anchor() + 1], 1).unwrap_err().to_string();
        assert!(error.contains("row 2") && error.contains("2 samples"), "{error}");
    }

    #[test]
    fn a_class_on_its_own_still_gets_partners() -> Result<()> {
        for classes in [[0u32].as_slice(), &[3, 3, 3], &[0, 1]] {
            let groups = samples(classes).sample_tuples(|draw| [draw.same_class(), draw.other_class()], 1)?;
            assert_eq!(groups.targets().dims(), [classes.len(), 2]);
        }
        Ok(())
    }
}
