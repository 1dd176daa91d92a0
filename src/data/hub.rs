//! MNIST and Fashion-MNIST from the Hugging Face Hub: two parquet files of PNG images each, kept in the Hub's cache.

use super::Images;
use anyhow::{Context, Result, bail, ensure};
use hf_hub::progress::{ProgressEvent, ProgressHandler};
use hf_hub::{HFClientSync, HFRepositorySync, RepoTypeDataset, split_id};
use image::{ImageReader, Limits};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use std::fs::File;
use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

const REVISION: &str = "refs/convert/parquet";
const SIDE: u32 = 28;
/// How long the Hub may say nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// The thread that talks to it.
const THREAD: &str = "hub";

/// The training and the test images of MNIST.
pub fn mnist() -> Result<(Images, Images)> {
    load("ylecun/mnist", "mnist")
}

/// The training and the test images of Fashion-MNIST.
pub fn fashion_mnist() -> Result<(Images, Images)> {
    load("zalando-datasets/fashion_mnist", "fashion_mnist")
}

enum News {
    Progress,
    Done(Result<(Images, Images)>),
}

/// In a thread of its own, so that a Hub which falls silent can be left behind.
fn load(dataset: &'static str, folder: &'static str) -> Result<(Images, Images)> {
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
    let (sender, news) = channel();
    std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        let images = parts(dataset, folder, &sender);
        let _ = sender.send(News::Done(images));
    })?;
    loop {
        match news.recv_timeout(SILENCE) {
            Ok(News::Progress) => {}
            Ok(News::Done(images)) => return images,
            Err(RecvTimeoutError::Timeout) => bail!("the Hub has said nothing for {} s", SILENCE.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("{dataset} can't be fetched"),
        }
    }
}

fn parts(dataset: &str, folder: &str, sender: &Sender<News>) -> Result<(Images, Images)> {
    let (owner, name) = split_id(dataset);
    let repository = HFClientSync::new()?.dataset(owner, name);
    let part = |part: &str| {
        let path = fetched(&repository, &format!("{folder}/{part}/0000.parquet"), sender)?;
        let file = File::open(&path).with_context(|| format!("reading {}", path.display()))?;
        let decoded = catch_unwind(|| images(file, sender)).unwrap_or_else(|_| bail!("it can't be decoded"));
        if decoded.is_err() {
            forget(&path);
        }
        decoded.with_context(|| format!("the {part} images of {dataset}"))
    };
    Ok((part("train")?, part("test")?))
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
    fn on_progress(&self, _: &ProgressEvent) {
        let _ = self.0.send(News::Progress);
    }
}

/// Takes a file out of the cache, as it is not what it should be: the next run fetches it anew.
fn forget(path: &Path) {
    if let Ok(blob) = path.canonicalize() {
        let _ = std::fs::remove_file(blob);
    }
    let _ = std::fs::remove_file(path);
}

/// The images and labels of a file: in each row an `image`, of which `bytes` are a PNG, and a `label`.
fn images(file: File, sender: &Sender<News>) -> Result<Images> {
    let reader = SerializedFileReader::new(file)?;
    let mut images = Images { pixels: Vec::new(), labels: Vec::new() };
    for (i, row) in reader.get_row_iter(None)?.enumerate() {
        let row = row?;
        if i % 1000 == 0 {
            let _ = sender.send(News::Progress);
        }
        let column = |wanted: &str| {
            let found = row.get_column_iter().find(|(name, _)| *name == wanted).map(|(_, field)| field);
            found.with_context(|| format!("row {i} has no {wanted}"))
        };
        let png = match column("image")? {
            Field::Group(image) => image.get_column_iter().find_map(|(_, field)| match field {
                Field::Bytes(bytes) => Some(bytes.data()),
                _ => None,
            }),
            _ => None,
        };
        let png = png.with_context(|| format!("row {i} has no image bytes"))?;
        images.pixels.extend(decoded(png).with_context(|| format!("row {i}"))?);
        match column("label")? {
            Field::Long(label @ 0..10) => images.labels.push(*label as u8),
            other => bail!("row {i}: the label {other} is not a class in 0 to 9"),
        }
    }
    ensure!(!images.labels.is_empty(), "there are no images");
    Ok(images)
}

fn decoded(png: &[u8]) -> Result<Vec<u8>> {
    let mut reader = ImageReader::with_format(Cursor::new(png), image::ImageFormat::Png);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(SIDE), Some(SIDE));
    reader.limits(limits);
    let image = reader.decode()?.into_luma8();
    ensure!(image.dimensions() == (SIDE, SIDE), "an image of {:?} pixels, not 28×28", image.dimensions());
    Ok(image.into_raw())
}
