use super::{Draw, Samples, Split, generator};
use candle_core::{DType, Result, Tensor};
use rand::{Rng, rngs::StdRng};

/// Draws the images that go together with an image.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::data::{Partners, Samples};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let images = Tensor::new(&[[0f32], [1.0], [2.0], [3.0]], &Device::Cpu)?;
/// let samples = Samples::new(images, Tensor::new(&[5u32, 8, 5, 8], &Device::Cpu)?)?;
/// let pairs = samples.grouped(|draw: &mut Partners| [draw.own(), draw.same()], &mut StdRng::seed_from_u64(1))?;
/// let (images, classes) = pairs.batch(None, 0, 1)?;
/// assert_eq!(images.to_vec2::<f32>()?, [[0.0], [2.0]]);
/// assert_eq!(classes.to_vec2::<u32>()?, [[5, 5]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Partners<'a> {
    /// The rows of each class.
    rows: &'a [Vec<u32>],
    classes: &'a [u32],
    row: u32,
    rng: &'a mut StdRng,
}

impl Partners<'_> {
    /// The image itself.
    pub fn own(&self) -> u32 {
        self.row
    }

    /// Any image.
    pub fn any(&mut self) -> u32 {
        self.rng.random_range(0..self.classes.len() as u32)
    }

    /// An image of the same class; itself only if there is no other.
    pub fn same(&mut self) -> u32 {
        let rows = &self.rows[self.class()];
        loop {
            let row = rows[self.rng.random_range(0..rows.len())];
            if row != self.row || rows.len() == 1 {
                return row;
            }
        }
    }

    /// An image of another class, or any where there is no other.
    pub fn other(&mut self) -> u32 {
        let all_alike = self.rows[self.class()].len() == self.classes.len();
        loop {
            let row = self.any();
            if all_alike || self.classes[row as usize] != self.classes[self.row as usize] {
                return row;
            }
        }
    }

    /// True half of the time.
    pub fn coin(&mut self) -> bool {
        self.rng.random()
    }

    fn class(&self) -> usize {
        self.classes[self.row as usize] as usize
    }
}

impl Samples {
    /// Groups of samples, one for each: those that `draw` puts together with it. Their targets are the classes of the members,
    /// (N, members); a batch's rows are those of its first group, then those of the second, and so on.
    ///
    /// # Errors
    /// If the targets are no classes, (N).
    pub fn grouped<const N: usize>(&self, draw: impl Fn(&mut Partners) -> [u32; N], rng: &mut StdRng) -> Result<Self> {
        let classes = self.targets.to_dtype(DType::U32)?.to_vec1::<u32>()?;
        let mut rows = vec![Vec::new(); classes.iter().max().map_or(0, |class| *class as usize + 1)];
        for (row, &class) in classes.iter().enumerate() {
            rows[class as usize].push(row as u32);
        }
        let mut groups = Vec::with_capacity(classes.len() * N);
        for row in 0..classes.len() as u32 {
            groups.extend(draw(&mut Partners { rows: &rows, classes: &classes, row, rng }));
        }
        let targets = groups.iter().map(|&row| classes[row as usize]).collect::<Vec<_>>();
        let shape = (classes.len(), N);
        Ok(Self {
            inputs: self.inputs.clone(),
            targets: Tensor::from_vec(targets, shape, self.inputs.device())?,
            groups: Some(Tensor::from_vec(groups, shape, self.inputs.device())?),
        })
    }
}

impl Split {
    /// Groups of the samples of each part, drawn by the seed: [`Samples::grouped`].
    ///
    /// # Errors
    /// If the targets are no classes, (N).
    pub fn grouped<const N: usize>(&self, draw: impl Fn(&mut Partners) -> [u32; N], seed: u64) -> Result<Self> {
        let mut rng = generator(seed, Draw::Groups);
        Ok(Self { train: self.train.grouped(&draw, &mut rng)?, test: self.test.grouped(&draw, &mut rng)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use rand::SeedableRng;

    fn samples(classes: &[u32]) -> Samples {
        let inputs = Tensor::arange(0u32, classes.len() as u32, &Device::Cpu).unwrap();
        let inputs = inputs.to_dtype(DType::F32).unwrap().unsqueeze(1).unwrap();
        Samples::new(inputs, Tensor::new(classes, &Device::Cpu).unwrap()).unwrap()
    }

    #[test]
    fn partners_are_of_the_class_they_should_be() -> anyhow::Result<()> {
        let samples = samples(&[0, 1, 2, 0, 1, 2, 2, 0]);
        let mut rng = StdRng::seed_from_u64(1);
        let groups = samples.grouped(|draw| [draw.own(), draw.same(), draw.other()], &mut rng)?;
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
    fn a_class_on_its_own_still_gets_partners() -> anyhow::Result<()> {
        let mut rng = StdRng::seed_from_u64(1);
        for classes in [[0u32].as_slice(), &[3, 3, 3], &[0, 1]] {
            let groups = samples(classes).grouped(|draw| [draw.same(), draw.other()], &mut rng)?;
            assert_eq!(groups.targets().dims(), [classes.len(), 2]);
        }
        Ok(())
    }
}
