//! Data to train on: [`Samples`] of any kind, in a training and a held-out part as [`Split`]; the data of the sections,
//! [`digits`], [`fake_images`], [`boston_housing`] and a text, [`constitution`]; MNIST's files ([`idx`]); tables of the reader's own ([`table`]); and
//! with the feature `hub` data sets from the Hugging Face Hub and from candle-datasets.

mod boston;
mod digits;
mod fake;
mod groups;
#[cfg(feature = "hub")]
pub mod hub;
mod idx;
mod samples;
pub mod table;
mod text;

pub use boston::boston_housing;
pub use digits::digits;
pub use fake::fake_images;
pub use groups::Partners;
pub use idx::idx;
#[cfg(all(feature = "cli", any(fuzzing, test)))]
pub(crate) use idx::{images as idx_images, labels as idx_labels};
pub use samples::{Samples, Split};
pub use text::{Piece, constitution};

use candle_core::{DType, Device, Result, Tensor};
use rand::{SeedableRng, rngs::StdRng};

/// What a generator is for, so that no two draw the same numbers from one seed.
#[derive(Clone, Copy)]
pub(crate) enum Draw {
    Order = 1,
    Split = 2,
    FakeImages = 3,
    Groups = 4,
}

/// The generator for one purpose.
pub(crate) fn generator(seed: u64, draw: Draw) -> StdRng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = draw as u8;
    StdRng::from_seed(key)
}

/// What a safetensors file has under a name among its metadata.
pub(crate) fn metadata(bytes: &[u8], name: &str) -> anyhow::Result<Option<String>> {
    let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes)?;
    Ok(metadata.metadata().as_ref().and_then(|metadata| metadata.get(name).cloned()))
}

/// An error as one of candle's, for what is called beside candle's own.
fn told<T>(result: anyhow::Result<T>) -> Result<T> {
    result.map_err(|error| match error.downcast() {
        Ok(error) => error,
        Err(error) => candle_core::Error::msg(format!("{error:#}")),
    })
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

    #[test]
    fn generators_differ_by_seed_and_purpose() {
        use rand::RngCore;
        let first = |seed, draw| generator(seed, draw).next_u64();
        assert_eq!(first(1, Draw::Order), first(1, Draw::Order));
        assert_ne!(first(1, Draw::Order), first(2, Draw::Order));
        assert_ne!(first(1, Draw::Order), first(1, Draw::Split));
    }
}
