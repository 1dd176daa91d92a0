//! Datasets from the Hugging Face Hub: downloaded by hf-hub, read by candle-datasets.
//!
//! Each is two parquet files of images, kept in the Hub's cache. candle-datasets 0.11 panics on some damaged files, and reads others
//! as something else. So a file is only read if it has the SHA-256 that the Hub names it by and, in each row, an image of the right
//! size and a label that is a class.

use super::checkpoint::hex;
use super::quiet::quietly;
use crate::frontend::Ui;
use anyhow::{Context, Result, bail, ensure};
use candle_core::Device;
use candle_datasets::vision;
use candle_losses::data::{TrainTestSplit, digits};
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::repository::HFRepository;
use hf_hub::{HFClient, RepoTypeDataset};
use image::ImageReader;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const REVISION: &str = "refs/convert/parquet";
/// How long the Hub may be silent.
const SILENCE: Duration = Duration::from_secs(20);
/// The same where the bundled digits can take the place of the dataset.
const SHORT_SILENCE: Duration = Duration::from_secs(8);
/// When the wait is mentioned.
const NOTED: Duration = Duration::from_secs(2);
/// How often a request that failed is repeated if nothing can take the place of the dataset.
const ATTEMPTS: usize = 5;
/// The same where something can: three take about 0.7 s if the connection is refused.
const FEW_ATTEMPTS: usize = 3;

/// A dataset by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum DatasetName {
    // Documentation of a value would make each option of `--help` take two lines.
    Mnist,
    FashionMnist,
    #[value(name = "cifar-10")]
    Cifar10,
    Digits,
}

/// The named dataset, or without a name MNIST if it can be downloaded and otherwise the bundled digits.
pub(crate) fn load(name: Option<DatasetName>, device: &Device, ui: &Ui) -> Result<TrainTestSplit> {
    let images = match name {
        Some(DatasetName::Digits) => return Ok(digits(device)?),
        Some(DatasetName::FashionMnist) => Images::FashionMnist,
        Some(DatasetName::Cifar10) => Images::Cifar10,
        Some(DatasetName::Mnist) | None => Images::Mnist,
    };
    let (attempts, silence) = if name.is_some() { (ATTEMPTS, SILENCE) } else { (FEW_ATTEMPTS, SHORT_SILENCE) };
    match fetch(images, attempts, silence, ui) {
        Ok(data) => Ok(data.to_device(device)?),
        Err(_) if name.is_none() => {
            ui.note(
                "MNIST can't be downloaded, so this uses the bundled digits (run with --dataset mnist to see why).",
            );
            Ok(digits(device)?)
        }
        Err(error) => {
            Err(error.context(format!("{} can't be loaded (--dataset digits needs no network)", images.title())))
        }
    }
}

/// A dataset of the Hub: ten classes of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// Handwritten digits, 28×28.
    Mnist,
    /// Clothes, 28×28.
    FashionMnist,
    /// Animals and vehicles in color, 3×32×32.
    Cifar10,
}

/// Downloads a dataset, or takes it from the Hub's cache: images of shape (N, 28, 28) or (N, 3, 32, 32), with the class as target, on
/// the CPU. With `HF_HUB_OFFLINE` only the cache is asked.
///
/// `attempts` is how often a failed request is repeated, after growing pauses.
///
/// # Errors
/// If the Hub can't be reached, does not have the file, or is silent for that long; if a file is damaged, or holds something else than
/// images of the dataset and their classes. Such a file is dropped from the cache, and nothing of it is used.
pub fn fetch(images: Images, attempts: usize, silence: Duration, ui: &Ui) -> Result<TrainTestSplit> {
    // One that ends with this function, and with it all that is downloaded on it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let files = runtime.block_on(images.download(attempts, silence, ui));
    runtime.shutdown_background();
    ui.progress(images.title(), 0, 0);
    images.read(files?)
}

/// Whether the environment forbids requests, as for Python's `huggingface_hub`.
fn is_offline() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "true", "yes", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
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

    fn title(self) -> &'static str {
        match self {
            Self::Mnist => "MNIST",
            Self::FashionMnist => "Fashion-MNIST",
            Self::Cifar10 => "CIFAR-10",
        }
    }

    /// The shape of an image.
    fn shape(self) -> &'static [usize] {
        match self {
            Self::Mnist | Self::FashionMnist => &[28, 28],
            Self::Cifar10 => &[3, 32, 32],
        }
    }

    /// The files of both parts in the cache, complete.
    async fn download(self, attempts: usize, silence: Duration, ui: &Ui) -> Result<[PathBuf; 2]> {
        let (owner, name, folder) = self.repository();
        let client = HFClient::builder().retry_max_attempts(attempts).build()?;
        let repository = client.dataset(owner, name);
        let part = async |part: &str| {
            let file = format!("{folder}/{part}/0000.parquet");
            let path = self.fetched(&repository, &file, silence, ui).await?;
            intact(&path).inspect_err(|_| forget(&path)).with_context(|| format!("the {part} images of {name}"))?;
            anyhow::Ok(path)
        };
        Ok([part("train").await?, part("test").await?])
    }

    /// The path of a file of the dataset in the cache; it is downloaded only once.
    async fn fetched(
        self,
        repository: &HFRepository<RepoTypeDataset>,
        file: &str,
        silence: Duration,
        ui: &Ui,
    ) -> Result<PathBuf> {
        let download = repository.download_file().filename(file).revision(REVISION);
        // Not there, or remembered as missing on the Hub, which may have been a passing failure.
        if let Ok(path) = download.clone().local_files_only(true).send().await {
            return Ok(path);
        }
        ensure!(!is_offline(), "it is not in the cache, and HF_HUB_OFFLINE forbids downloading it");
        let listener = Listener::default();
        let (heard, start) = (listener.0.clone(), Instant::now());
        let mut is_noted = false;
        let mut download = pin!(download.progress(listener).send());
        loop {
            // A future that is dropped ends its download.
            if let Ok(path) = tokio::time::timeout(Duration::from_millis(100), &mut download).await {
                return Ok(path?);
            }
            let Heard { last, done, total } = *heard.lock().unwrap_or_else(PoisonError::into_inner);
            if total > 0 {
                ui.progress(self.title(), done, total);
            } else if start.elapsed() > NOTED && !is_noted {
                ui.note(&format!("Waiting for the Hugging Face Hub, up to {} s …", silence.as_secs()));
                is_noted = true;
            }
            ensure!(last.elapsed() < silence, "the Hub has been silent for {} s", silence.as_secs());
        }
    }

    fn read(self, files: [PathBuf; 2]) -> Result<TrainTestSplit> {
        let (_, name, _) = self.repository();
        let side = self.shape()[self.shape().len() - 1];
        // A reader may panic on a damaged file.
        let inspected = |check: Check| {
            files.iter().zip(["train", "test"]).try_for_each(|(path, part)| {
                let inspected = quietly(|| inspect(path, side, check)).unwrap_or_else(|| bail!("it can't be read"));
                inspected.inspect_err(|_| forget(path)).with_context(|| format!("the {part} images of {name}"))
            })
        };
        inspected(|bytes| ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.into_dimensions())?;
        let read = || match self {
            Self::Mnist => vision::mnist::load(),
            Self::FashionMnist => vision::fashion_mnist::load(),
            Self::Cifar10 => vision::cifar::load(),
        };
        let Some(read) = quietly(read) else {
            // An image can't be decoded. Decoding all of them finds it; done before, it would double the time of reading.
            inspected(|bytes| image::load_from_memory(bytes).map(|image| (image.width(), image.height())))?;
            bail!("{name} can't be read")
        };
        let mut dataset = read.with_context(|| format!("reading {name}"))?;
        if self == Self::Cifar10 {
            // From parquet it has (N, 3, width, height), where its own `load_dir` has (N, 3, height, width).
            for images in [&mut dataset.train_images, &mut dataset.test_images] {
                *images = images.transpose(2, 3)?;
            }
        }
        let TrainTestSplit { train, test } = dataset.try_into()?;
        Ok(TrainTestSplit { train: train.with_shape(self.shape())?, test: test.with_shape(self.shape())? })
    }
}

/// The time of the last message from the Hub, and the bytes done of the total; 0 of 0 if the size is unknown.
#[derive(Clone, Copy)]
struct Heard {
    last: Instant,
    done: u64,
    total: u64,
}

struct Listener(Arc<Mutex<Heard>>);

impl Default for Listener {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Heard { last: Instant::now(), done: 0, total: 0 })))
    }
}

impl ProgressHandler for Listener {
    fn on_progress(&self, event: &ProgressEvent) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.last = Instant::now();
        let ProgressEvent::Download(event) = event else { return };
        match event {
            DownloadEvent::Progress { files } => {
                if let Some(file) = files.last() {
                    (heard.done, heard.total) = (file.bytes_completed, file.total_bytes);
                }
            }
            &DownloadEvent::AggregateProgress { bytes_completed, total_bytes, .. } => {
                (heard.done, heard.total) = (bytes_completed, total_bytes);
            }
            _ => {}
        }
    }
}

/// In the cache a file is a link `snapshots/…` to `blobs/…`, where its name is the ETag that it came with, which for a large file is
/// its SHA-256. A blob may be a link itself, to a store that is shared; that is not followed here.
fn blob(path: &Path) -> Option<PathBuf> {
    let link = std::fs::read_link(path).ok()?;
    let snapshots = path.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "snapshots"))?;
    Some(snapshots.parent()?.join("blobs").join(link.file_name()?))
}

/// Drops a damaged file from the cache, so that the next run downloads it again. A link is removed, never its target.
fn forget(path: &Path) {
    if let Some(blob) = blob(path) {
        let _ = std::fs::remove_file(blob);
    }
    let _ = std::fs::remove_file(path);
}

/// Checks that a file has the SHA-256 that the Hub names it by.
fn intact(path: &Path) -> Result<()> {
    // Where the cache has no links the name is lost, and only the content can be checked.
    let Some(blob) = blob(path) else { return Ok(()) };
    let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_digest = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(is_digest, "the server's name for the file, {name:?}, is not a SHA-256, so the file can't be verified");
    let (mut file, mut digest, mut buffer) = (File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => digest.update(&buffer[..length]),
        }
    }
    let found = hex(&digest.finalize());
    ensure!(found.eq_ignore_ascii_case(&name), "the file is damaged: its SHA-256 is {found}, not {name}");
    Ok(())
}

/// Checks that each row of a parquet file has one image of this size, which can be decoded, and one label in 0 to 9.
/// candle-datasets skips a row that can't be read, unwraps the images, accepts any size, and keeps the lowest byte of a label.
fn inspect(path: &Path, side: usize, check: Check) -> Result<()> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let rows = reader.metadata().file_metadata().num_rows();
    ensure!(rows > 0, "there are no images");
    let mut count = 0;
    for (i, row) in reader.get_row_iter(None)?.enumerate() {
        inspect_row(&row?, side, check).with_context(|| format!("row {i}"))?;
        count += 1;
    }
    ensure!(count == rows, "{count} rows can be read, of {rows}");
    Ok(())
}

fn inspect_row(row: &Row, side: usize, check: Check) -> Result<()> {
    let (mut images, mut labels) = (0, 0);
    for (_, field) in row.get_column_iter() {
        match field {
            Field::Group(image) => {
                for (_, field) in image.get_column_iter() {
                    if let Field::Bytes(bytes) = field {
                        ensure_image(bytes.data(), side, check)?;
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

fn ensure_image(bytes: &[u8], side: usize, check: Check) -> Result<()> {
    let (width, height) = check(bytes)?;
    ensure!(
        (width as usize, height as usize) == (side, side),
        "an image of {width}×{height} pixels, not {side}×{side}"
    );
    Ok(())
}

/// The width and height of an image, from its header or by decoding it.
type Check = fn(&[u8]) -> image::ImageResult<(u32, u32)>;
