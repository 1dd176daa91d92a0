use super::{Draw, TensorDataset, TrainTestSplit, generator};
use candle_core::{DType, Result, Tensor};
use rand::Rng;
use rand_chacha::ChaCha12Rng;

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
    /// The rows of each class.
    rows: &'a [Vec<u32>],
    classes: &'a [u32],
    row: u32,
    rng: &'a mut ChaCha12Rng,
}

impl TupleSampler<'_> {
    /// The sample itself.
    pub fn anchor(&self) -> u32 {
        self.row
    }

    /// Any sample.
    pub fn any(&mut self) -> u32 {
        self.rng.random_range(0..self.classes.len() as u32)
    }

    /// A sample of the same class; the sample itself only if its class has no other.
    pub fn same_class(&mut self) -> u32 {
        let rows = &self.rows[self.class()];
        loop {
            let row = rows[self.rng.random_range(0..rows.len())];
            if row != self.row || rows.len() == 1 {
                return row;
            }
        }
    }

    /// A sample of another class; any sample if there is only one class.
    pub fn other_class(&mut self) -> u32 {
        let all_alike = self.rows[self.class()].len() == self.classes.len();
        loop {
            let row = self.any();
            if all_alike || self.classes[row as usize] != self.classes[self.row as usize] {
                return row;
            }
        }
    }

    /// True with a probability of one half.
    pub fn coin_flip(&mut self) -> bool {
        self.rng.random()
    }

    fn class(&self) -> usize {
        self.classes[self.row as usize] as usize
    }
}

impl TensorDataset {
    /// A dataset of tuples, one for each sample: `draw` gives the rows of its members, drawn by `seed`. The targets are the classes of
    /// the members, (N, members); the rows of a batch are those of its first tuple, then those of the second, and so on.
    ///
    /// # Errors
    /// If the targets are not classes, (N).
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
        let classes = self.targets.to_dtype(DType::U32)?.to_vec1::<u32>()?;
        let mut rows = vec![Vec::new(); classes.iter().max().map_or(0, |class| *class as usize + 1)];
        for (row, &class) in classes.iter().enumerate() {
            rows[class as usize].push(row as u32);
        }
        let mut tuples = Vec::with_capacity(classes.len() * N);
        for row in 0..classes.len() as u32 {
            tuples.extend(draw(&mut TupleSampler { rows: &rows, classes: &classes, row, rng }));
        }
        let targets = tuples.iter().map(|&row| classes[row as usize]).collect::<Vec<_>>();
        let shape = (classes.len(), N);
        Ok(Self {
            targets: Tensor::from_vec(targets, shape, self.inputs.device())?,
            tuples: Some(Tensor::from_vec(tuples, shape, self.inputs.device())?),
            ..self.clone()
        })
    }
}

impl TrainTestSplit {
    /// Datasets of tuples of each part, drawn by `seed`: [`TensorDataset::sample_tuples`].
    ///
    /// # Errors
    /// If the targets are not classes, (N).
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
    fn partners_are_of_the_class_they_should_be() -> Result<()> {
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
    fn a_class_on_its_own_still_gets_partners() -> Result<()> {
        for classes in [[0u32].as_slice(), &[3, 3, 3], &[0, 1]] {
            let groups = samples(classes).sample_tuples(|draw| [draw.same_class(), draw.other_class()], 1)?;
            assert_eq!(groups.targets().dims(), [classes.len(), 2]);
        }
        Ok(())
    }
}
