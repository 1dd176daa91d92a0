//! Data sets from the Hugging Face Hub: downloaded by hf-hub, read by candle-datasets.
//!
//! Each is two parquet files of images, kept in the Hub's cache. What candle-datasets 0.11 does with a file that is not
//! what it should be is contained here: a file is only read if it has the SHA-256 that the Hub names it by and, in each
//! row, an image of the right size and a label that is a class; and what is read is checked, and righted where it must be.

use super::{Samples, Split};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_datasets::vision::{self, Dataset};
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFClient, HFRepositorySync, RepoTypeDataset};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

const REVISION: &str = "refs/convert/parquet";
/// How long the Hub may say nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// The thread that talks to it.
const THREAD: &str = "hub";

/// A data set of ten classes of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// Handwritten digits, 28×28 (LeCun, Cortes & Burges).
    Mnist,
    /// Clothes, 28×28 (Zalando).
    FashionMnist,
    /// Animals and vehicles in colour, 3×32×32 (Krizhevsky).
    Cifar10,
}

/// How far a download is, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The file's place in its repository.
    pub file: String,
    /// What is there of it.
    pub done: u64,
    /// Its size; 0 where that is not known.
    pub total: u64,
}

/// Fetches a data set, or takes it from the Hub's cache, in the shape that its images have: (N, 28, 28) or (N, 3, 32, 32)
/// pixels, with the class as target.
///
/// `attempts` is how often a request is made again that failed for a moment, with growing breaks: 5 of them take about
/// three seconds. `progress` is told how the downloads go.
///
/// ```no_run
/// use candle_losses::data::hub::{Images, fetch};
///
/// let data = fetch(Images::Cifar10, 5, |at| eprintln!("{} of {} bytes of {}", at.done, at.total, at.file))?;
/// assert_eq!(data.train.features(), 3 * 32 * 32);
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If the Hub can't be reached, has not the file, or falls silent; if a file is damaged, or holds what is no image of the
/// data set or no class. Such a file is dropped from the cache, and nothing of it is used.
pub fn fetch(images: Images, attempts: usize, mut progress: impl FnMut(Progress)) -> Result<Split> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A decoder that panics there comes out as an error like any other, and is not told twice.
            if std::thread::current().name() != Some(THREAD) {
                report(info);
            }
        }));
    });
    // In a thread of its own, so that a Hub which falls silent can be left behind.
    let (sender, news) = channel();
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        let split = images.download(attempts, &sender).and_then(|files| {
            let _ = sender.send(News::Downloaded);
            images.read(files)
        });
        let _ = sender.send(News::Done(split));
    })?;
    let mut patience = SILENCE;
    loop {
        match news.recv_timeout(patience) {
            Ok(News::Alive) => {}
            Ok(News::Progress(at)) => progress(at),
            // From here on it is this machine that works.
            Ok(News::Downloaded) => patience = Duration::MAX,
            Ok(News::Done(split)) => return split,
            Err(RecvTimeoutError::Timeout) => bail!("the Hub has said nothing for {} s", SILENCE.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("it can't be read"),
        }
    }
}

enum News {
    Alive,
    Progress(Progress),
    Downloaded,
    Done(Result<Split>),
}

impl Images {
    /// Owner and name of the repository, as candle-datasets asks for it, and the folder of the files.
    fn repository(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Mnist => ("ylecun", "mnist", "mnist"),
            Self::FashionMnist => ("zalando-datasets", "fashion_mnist", "fashion_mnist"),
            Self::Cifar10 => ("", "cifar10", "plain_text"),
        }
    }

    /// The shape of an image.
    fn shape(self) -> &'static [usize] {
        match self {
            Self::Mnist | Self::FashionMnist => &[28, 28],
            Self::Cifar10 => &[3, 32, 32],
        }
    }

    /// The files of both parts in the cache, whole.
    fn download(self, attempts: usize, sender: &Sender<News>) -> Result<[PathBuf; 2]> {
        let (owner, name, folder) = self.repository();
        let client = HFClient::builder().retry_max_attempts(attempts).build_sync()?;
        let repository = client.dataset(owner, name);
        let part = |part: &str| {
            let path = fetched(&repository, &format!("{folder}/{part}/0000.parquet"), sender)?;
            intact(&path).inspect_err(|_| forget(&path)).with_context(|| format!("the {part} images of {name}"))?;
            anyhow::Ok(path)
        };
        Ok([part("train")?, part("test")?])
    }

    fn read(self, files: [PathBuf; 2]) -> Result<Split> {
        let (_, name, _) = self.repository();
        let side = self.shape()[self.shape().len() - 1];
        for (path, part) in files.iter().zip(["train", "test"]) {
            // Whatever a reader makes of a file that is odd inside.
            let inspected = catch_unwind(|| inspect(path, side)).unwrap_or_else(|_| bail!("it can't be read"));
            inspected.inspect_err(|_| forget(path)).with_context(|| format!("the {part} images of {name}"))?;
        }
        let mut dataset = match self {
            Self::Mnist => vision::mnist::load(),
            Self::FashionMnist => vision::fashion_mnist::load(),
            Self::Cifar10 => vision::cifar::load(),
        }
        .with_context(|| format!("reading {name}"))?;
        if self == Self::Cifar10 {
            // From parquet it has (N, 3, width, height), where its own `load_dir` has (N, 3, height, width).
            for images in [&mut dataset.train_images, &mut dataset.test_images] {
                *images = images.transpose(2, 3)?;
            }
        }
        let Split { train, test } = Split::try_from(dataset)?;
        Ok(Split { train: train.with_shape(self.shape())?, test: test.with_shape(self.shape())? })
    }
}

/// Where a file of the data set is in the cache, from where it is fetched only once.
fn fetched(repository: &HFRepositorySync<RepoTypeDataset>, file: &str, sender: &Sender<News>) -> Result<PathBuf> {
    let download = repository.download_file().filename(file).revision(REVISION);
    match download.clone().local_files_only(true).send() {
        Ok(path) => Ok(path),
        // Not there, or remembered as not being on the Hub, which may have been a moment's trouble.
        Err(_) => Ok(download.progress(Teller(sender.clone())).send()?),
    }
}

struct Teller(Sender<News>);

impl ProgressHandler for Teller {
    fn on_progress(&self, event: &ProgressEvent) {
        let _ = self.0.send(News::Alive);
        let ProgressEvent::Download(event) = event else { return };
        match event {
            DownloadEvent::Progress { files } => {
                for file in files {
                    let (done, total) = (file.bytes_completed, file.total_bytes);
                    let _ = self.0.send(News::Progress(Progress { file: file.filename.clone(), done, total }));
                }
            }
            &DownloadEvent::AggregateProgress { bytes_completed: done, total_bytes: total, .. } => {
                let _ = self.0.send(News::Progress(Progress { file: String::new(), done, total }));
            }
            _ => {}
        }
    }
}

/// Takes a file out of the cache, as it is not what it should be: the next run fetches it anew.
fn forget(path: &Path) {
    if let Ok(blob) = path.canonicalize() {
        let _ = std::fs::remove_file(blob);
    }
    let _ = std::fs::remove_file(path);
}

/// That a file is what the Hub says it is. In the cache a file is a link to one that is named by the ETag it came with,
/// which of a large file is its SHA-256.
fn intact(path: &Path) -> Result<()> {
    let blob = path.canonicalize()?;
    if blob.file_name() == path.file_name() {
        // Where there are no links the name is lost, and only the content can be looked at.
        return Ok(());
    }
    let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(is_digest, "the server names the file by {name:?}, which is no SHA-256 to check it by");
    let mut digest = Sha256::new();
    std::io::copy(&mut File::open(&blob)?, &mut digest)?;
    let found = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    ensure!(found.eq_ignore_ascii_case(&name), "the file is damaged: its SHA-256 is {found}, not {name}");
    Ok(())
}

/// That each row of a parquet file has one image of this size, which can be decoded, and one label in 0 to 9.
/// candle-datasets passes over a row that can't be read, unwraps the images, takes them in any size, and of a label the
/// lowest byte.
fn inspect(path: &Path, side: usize) -> Result<()> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let rows = reader.metadata().file_metadata().num_rows();
    ensure!(rows > 0, "there are no images");
    let mut count = 0;
    for (i, row) in reader.get_row_iter(None)?.enumerate() {
        inspect_row(&row?, side).with_context(|| format!("row {i}"))?;
        count += 1;
    }
    ensure!(count == rows, "{count} rows can be read, of {rows}");
    Ok(())
}

fn inspect_row(row: &Row, side: usize) -> Result<()> {
    let (mut images, mut labels) = (0, 0);
    for (_, field) in row.get_column_iter() {
        match field {
            Field::Group(image) => {
                for (_, field) in image.get_column_iter() {
                    if let Field::Bytes(bytes) = field {
                        ensure_image(bytes.data(), side)?;
                        images += 1;
                    }
                }
            }
            Field::Long(0..10) => labels += 1,
            Field::Long(label) => bail!("the label {label} is not a class in 0 to 9"),
            _ => {}
        }
    }
    ensure!(images == 1, "there are no image bytes, or too many");
    ensure!(labels == 1, "there is no label, or more than one");
    Ok(())
}

fn ensure_image(bytes: &[u8], side: usize) -> Result<()> {
    let image = image::load_from_memory(bytes)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    ensure!((width, height) == (side, side), "an image of {width}×{height} pixels, not {side}×{side}");
    Ok(())
}

impl Samples {
    /// Each sample's inputs in this shape.
    fn with_shape(&self, shape: &[usize]) -> candle_core::Result<Self> {
        let inputs = self.inputs.reshape([&[self.len()], shape].concat())?;
        Ok(Self { inputs, ..self.clone() })
    }
}

impl TryFrom<Dataset> for Split {
    type Error = candle_core::Error;

    /// Takes the images as they are shaped, on the CPU. Where they come from bytes, as all of candle-datasets' do, they are
    /// kept as bytes, in a quarter of the memory; a batch of them has the same numbers again.
    fn try_from(dataset: Dataset) -> candle_core::Result<Self> {
        let Dataset { train_images, train_labels, test_images, test_labels, labels } = dataset;
        let part = |images: Tensor, classes: Tensor| {
            let classes = classes.to_dtype(DType::U32)?;
            let values = classes.to_vec1::<u32>()?;
            if let Some(at) = values.iter().position(|&class| class as usize >= labels) {
                candle_core::bail!("label {at} is {}, but there are {labels} classes, numbered from 0", values[at])
            }
            Samples::new(pixels(images)?, classes)
        };
        Ok(Self { train: part(train_images, train_labels)?, test: part(test_images, test_labels)? })
    }
}

/// Brightnesses from 0 to 1 as the bytes that they are made of; as they are if one is not made so.
fn pixels(images: Tensor) -> candle_core::Result<Tensor> {
    if images.dtype() != DType::F32 || images.elem_count() == 0 {
        return Ok(images);
    }
    let images = images.to_device(&Device::Cpu)?;
    let count = images.dim(0)?;
    let mut bytes = Vec::with_capacity(images.elem_count());
    // Some at a time, so that no second copy of them all is made.
    for start in (0..count).step_by(1000) {
        for value in images.narrow(0, start, 1000.min(count - start))?.flatten_all()?.to_vec1::<f32>()? {
            let byte = (value * 255.0).round();
            if !(0.0..=255.0).contains(&byte) || byte * (1.0 / 255.0) != value {
                return Ok(images);
            }
            bytes.push(byte as u8);
        }
    }
    Tensor::from_vec(bytes, images.shape(), &Device::Cpu)
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
    fn every_brightness_is_kept_as_its_byte_and_comes_back_the_same() -> Result<()> {
        let images = (Tensor::arange(0u32, 256, &Device::Cpu)?.to_dtype(DType::F32)?.reshape((256, 1))? / 255.)?;
        let samples = Samples::new(pixels(images.clone())?, Tensor::zeros(256, DType::U32, &Device::Cpu)?)?;
        assert_eq!(samples.inputs.dtype(), DType::U8);
        assert_eq!(samples.batch(None, 0, 256)?.0.to_vec2::<f32>()?, images.to_vec2::<f32>()?);
        let others = Tensor::new(&[[0.1f32], [-1.0]], &Device::Cpu)?;
        assert_eq!(pixels(others.clone())?.to_vec2::<f32>()?, others.to_vec2::<f32>()?);
        Ok(())
    }

    #[test]
    fn images_and_labels_must_agree() {
        let split = Split::try_from(dataset(3, &[1, 9, 0])).unwrap();
        assert_eq!((split.train.len(), split.train.targets().to_vec1::<u32>().unwrap()), (3, vec![1, 9, 0]));
        let error = |dataset: Dataset| Split::try_from(dataset).unwrap_err().to_string();
        assert!(error(dataset(2, &[1, 9, 0])).contains("2 samples but 3 targets"));
        assert!(error(dataset(2, &[1, 10])).contains("label 1 is 10, but there are 10 classes"));
    }
}
