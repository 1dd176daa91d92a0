//! Data to train on: a [`TensorDataset`], split into a training and a held-out part as [`TrainTestSplit`], and the bundled data of
//! the examples: [`digits`], [`fake_images`], [`boston_housing`] and a text, [`constitution`]. With the feature `datasets`, a
//! `TrainTestSplit` is made of any vision data of candle-datasets.

mod boston;
#[cfg(feature = "datasets")]
mod datasets;
mod digits;
mod fake;
mod tensor_dataset;
mod text;
mod tuples;

pub use boston::boston_housing;
pub use digits::digits;
pub use fake::fake_images;
pub use tensor_dataset::{TensorDataset, TrainTestSplit};
pub use text::{Piece, constitution};
pub use tuples::TupleSampler;

use candle_core::{DType, Device, Result, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

/// What a generator is for, so that no two draw the same numbers from one seed.
#[derive(Clone, Copy)]
pub(crate) enum Draw {
    Order = 1,
    Split = 2,
    FakeImages = 3,
    Tuples = 4,
}

/// The generator for one purpose.
pub(crate) fn generator(seed: u64, draw: Draw) -> ChaCha12Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = draw as u8;
    ChaCha12Rng::from_seed(key)
}

/// Images as bytes and their labels, not yet on a device.
#[derive(Debug)]
pub(crate) struct Images {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Images {
    /// As tensors on the device, where each image has the shape `image`.
    fn into_samples(self, image: &[usize], device: &Device) -> Result<TensorDataset> {
        let count = self.labels.len();
        let inputs = Tensor::from_vec(self.pixels, [&[count], image].concat(), device)?;
        let targets = Tensor::from_vec(self.labels, count, device)?.to_dtype(DType::U32)?;
        TensorDataset::images(inputs, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_differ_by_seed_and_purpose() {
        use rand::RngCore;
        let first = |seed, draw| generator(seed, draw).next_u64();
        assert_eq!(first(1, Draw::Order), first(1, Draw::Order));
        assert_ne!(first(1, Draw::Order), first(2, Draw::Order));
        assert_ne!(first(1, Draw::Order), first(1, Draw::Split));
    }
}
