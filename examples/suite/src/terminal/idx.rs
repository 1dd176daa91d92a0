//! MNIST's IDX format: a magic number, the sizes as big-endian `u32`, then bytes.

use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_losses::data::{TensorDataset, TrainTestSplit};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

const SIDE: u64 = 28;
const CLASSES: u8 = 10;
/// More than any data set of this kind has. A small .gz can hold a great many.
const MOST: u64 = 5_000_000;

/// MNIST, or a dataset like it, from its four IDX files in `dir`, plain or `.gz`: 28×28 images with the class as target, on the CPU.
///
/// # Errors
/// If a file can't be read or is damaged, the numbers of images and labels differ, or a label is not in 0 to 9.
pub fn load(dir: &Path) -> Result<TrainTestSplit> {
    let part = |name| {
        let (pixels, labels) = part(dir, name)?;
        let count = labels.len();
        let images = Tensor::from_vec(pixels, (count, SIDE as usize, SIDE as usize), &Device::Cpu)?;
        anyhow::Ok(TensorDataset::images(images, Tensor::from_vec(labels, count, &Device::Cpu)?.to_dtype(DType::U32)?)?)
    };
    Ok(TrainTestSplit { train: part("train")?, test: part("t10k")? })
}

/// The pixels and labels of one part, `train` or `t10k`, in `dir`.
fn part(dir: &Path, part: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    // The labels first: their number is small, and then bounds what is read of the images.
    let labels = read(dir, &format!("{part}-labels-idx1-ubyte"), |file| labels(file))?;
    let pixels = read(dir, &format!("{part}-images-idx3-ubyte"), |file| images(file, labels.len() as u64))?;
    Ok((pixels, labels))
}

/// Reads `name` in `dir`, or else `name.gz`.
fn read(dir: &Path, name: &str, parse: impl Fn(&mut dyn Read) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let plain = dir.join(name);
    let packed = dir.join(format!("{name}.gz"));
    let path = if packed.exists() && !plain.exists() { packed } else { plain };
    let parse = || {
        let mut file = BufReader::new(File::open(&path)?);
        if path.extension().is_some_and(|extension| extension == "gz") {
            parse(&mut flate2::bufread::MultiGzDecoder::new(file))
        } else {
            parse(&mut file)
        }
    };
    parse().with_context(|| format!("reading {}", path.display()))
}

/// The pixels of a file of images, of which there must be as many as labels.
///
/// # Errors
/// If it is damaged.
pub fn images(file: &mut dyn Read, labels: u64) -> Result<Vec<u8>> {
    let [count, rows, columns] = header(file, 0x0803)?;
    ensure!(rows == SIDE && columns == SIDE, "the images are {rows}×{columns}, not {SIDE}×{SIDE}");
    ensure!(count == labels, "there are {count} images but {labels} labels");
    body(file, count * SIDE * SIDE)
}

/// The labels of a file, 0 to 9.
///
/// # Errors
/// If it is damaged.
pub fn labels(file: &mut dyn Read) -> Result<Vec<u8>> {
    let [count] = header(file, 0x0801)?;
    ensure!(count <= MOST, "it announces {count} labels, more than {MOST}");
    let labels = body(file, count)?;
    if let Some(at) = labels.iter().position(|&label| label >= CLASSES) {
        bail!("label {at} is {}, not a class in 0 to {}", labels[at], CLASSES - 1)
    }
    Ok(labels)
}

/// The `N` sizes behind the magic number.
fn header<const N: usize>(file: &mut dyn Read, magic: u32) -> Result<[u64; N]> {
    let mut next = || {
        let mut word = [0; 4];
        file.read_exact(&mut word).context("the header is cut short")?;
        anyhow::Ok(u32::from_be_bytes(word))
    };
    let found = next()?;
    ensure!(found == magic, "it starts with {found:#010x}, not with IDX's {magic:#010x}");
    let mut sizes = [0; N];
    for size in &mut sizes {
        *size = next()?.into();
    }
    Ok(sizes)
}

/// Exactly `len` bytes to the end of the file. Memory grows with what is read, not with what the header claims.
fn body(file: &mut dyn Read, len: u64) -> Result<Vec<u8>> {
    ensure!(len > 0, "it is empty");
    let mut bytes = Vec::new();
    file.take(len + 1).read_to_end(&mut bytes)?;
    let found = bytes.len() as u64;
    ensure!(found >= len, "the header announces {len} bytes but only {found} follow");
    ensure!(found == len, "more follows than the {len} bytes that the header announces");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn idx(magic: u32, sizes: &[u32], body: &[u8]) -> Vec<u8> {
        let words = [&[magic], sizes].concat();
        [words.iter().flat_map(|word| word.to_be_bytes()).collect(), body.to_vec()].concat()
    }

    fn folder(images: &[u8], labels: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("train-images-idx3-ubyte"), images).unwrap();
        std::fs::write(folder.path().join("train-labels-idx1-ubyte"), labels).unwrap();
        folder
    }

    fn good_images() -> Vec<u8> {
        idx(0x0803, &[2, 28, 28], &(0..2 * 784).map(|i| (i % 251) as u8).collect::<Vec<_>>())
    }

    fn good_labels() -> Vec<u8> {
        idx(0x0801, &[2], &[7, 9])
    }

    #[test]
    fn reads_plain_and_gzip() -> Result<()> {
        let plain = folder(&good_images(), &good_labels());
        let (pixels, labels) = part(plain.path(), "train")?;
        assert_eq!((pixels.len(), pixels[300], labels), (2 * 784, 49, vec![7, 9]));

        let packed = tempfile::tempdir()?;
        for (name, bytes) in [("images-idx3", good_images()), ("labels-idx1", good_labels())] {
            let file = File::create(packed.path().join(format!("train-{name}-ubyte.gz")))?;
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            gzip.write_all(&bytes)?;
            gzip.finish()?;
        }
        assert_eq!(part(packed.path(), "train")?.0, pixels);
        Ok(())
    }

    #[test]
    fn refuses_broken_files_and_says_which() {
        let refused = |images: &[u8], labels: &[u8], file: &str, why: &str| {
            let message = format!("{:#}", part(folder(images, labels).path(), "train").unwrap_err());
            assert!(message.contains(file) && message.contains(why), "{message}");
        };
        let (images, labels) = (good_images(), good_labels());
        for cut in 0..16 {
            refused(&images[..cut], &labels, "train-images", "header is cut short");
        }
        refused(&images[..1000], &labels, "train-images", "announces 1568 bytes but only 984 follow");
        refused(&[images.clone(), vec![0]].concat(), &labels, "train-images", "more follows");
        refused(&labels, &labels, "train-images", "0x00000801");
        refused(&idx(0x0803, &[1, 28, 27], &[0; 756]), &labels, "train-images", "28×27");
        refused(&idx(0x0803, &[u32::MAX, 28, 28], &[0; 784]), &labels, "train-images", "4294967295 images");
        refused(&images, &idx(0x0801, &[0], &[]), "train-labels", "empty");
        refused(&images, &idx(0x0801, &[2], &[7, 10]), "train-labels", "label 1 is 10");
        refused(&images, &idx(0x0801, &[3], &[7, 9, 1]), "train-images", "2 images but 3 labels");
        refused(&images, &idx(0x0801, &[u32::MAX], &[7; 9]), "train-labels", "4294967295 labels");
        for cut in 0..8 {
            refused(&images, &labels[..cut], "train-labels", "header is cut short");
        }
    }

    /// 30 MB of zeros in 30 kB.
    #[test]
    fn reads_no_more_of_a_gzip_bomb_than_its_labels_allow() {
        let packed = tempfile::tempdir().unwrap();
        let write = |name: &str, header: &[u8], zeros: usize| {
            let file = File::create(packed.path().join(format!("train-{name}-ubyte.gz"))).unwrap();
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            gzip.write_all(header).unwrap();
            (0..zeros / 1_000_000).for_each(|_| gzip.write_all(&[0; 1_000_000]).unwrap());
            gzip.finish().unwrap();
        };
        write("labels-idx1", &good_labels(), 30_000_000);
        write("images-idx3", &good_images(), 30_000_000);
        let message = format!("{:#}", part(packed.path(), "train").unwrap_err());
        assert!(message.contains("train-labels") && message.contains("more follows"), "{message}");
        write("labels-idx1", &good_labels(), 0);
        let message = format!("{:#}", part(packed.path(), "train").unwrap_err());
        assert!(message.contains("train-images") && message.contains("more follows"), "{message}");
    }

    #[test]
    fn refuses_a_folder_without_them() {
        let folder = tempfile::tempdir().unwrap();
        let message = format!("{:#}", part(folder.path(), "t10k").unwrap_err());
        assert!(message.contains("t10k-labels-idx1-ubyte"), "{message}");
    }
}
