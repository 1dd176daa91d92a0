use super::checkpoint;
use super::device::DeviceName;
use super::files::{followed, is_stdout, write};
use super::plot;
use crate::frontend::Ui;
use crate::session::Session;
use anyhow::{Context, Result, ensure};
use candle_core::Device;
use std::cell::RefCell;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A file that was read.
#[derive(Debug, Clone)]
pub struct InputFile {
    /// Its path, which may be that of a pipe.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Rc<[u8]>,
}

/// Where to compute, what to show, and the files that are read and written.
#[derive(Debug, Clone, clap::Args)]
pub struct FileOptions {
    /// Device; auto uses a GPU if this was built for one (`--features cuda` or `metal`) and it works
    #[arg(long, value_enum, value_name = "WHERE", default_value = "auto")]
    device: DeviceName,

    /// Hide the progress bar
    #[arg(long)]
    no_progress: bool,

    /// Start from the weights in this safetensors file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    init: Option<PathBuf>,

    #[arg(skip)]
    init_file: RefCell<Option<InputFile>>,

    /// Write a checkpoint to this file after each epoch and on Ctrl-C
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(super) checkpoint: Option<PathBuf>,

    /// Resume from this checkpoint, with the same result as an uninterrupted run
    #[arg(long, value_name = "FILE", help_heading = "Files", conflicts_with = "init")]
    pub(super) resume: Option<PathBuf>,

    /// Write the trained weights to this safetensors file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    save: Option<PathBuf>,

    /// Write the loss of each step to this CSV file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    log: Option<PathBuf>,

    /// Draw the training curve to this SVG file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(super) plot: Option<PathBuf>,
}

impl FileOptions {
    /// The file of `--init`, which is read once.
    pub(crate) fn init(&self) -> Result<Option<InputFile>> {
        let Some(path) = &self.init else { return Ok(None) };
        if self.init_file.borrow().is_none() {
            let bytes = std::fs::read(path).with_context(|| format!("loading weights from {}", path.display()))?;
            *self.init_file.borrow_mut() = Some(InputFile { path: path.clone(), bytes: bytes.into() });
        }
        Ok(self.init_file.borrow().clone())
    }

    /// Opens the device.
    ///
    /// # Errors
    /// If it can't be opened.
    pub(crate) fn device(&self, ui: &Ui) -> Result<Device> {
        self.device.open(ui)
    }

    /// Whether progress is shown: standard error is a terminal, and --no-progress is not given.
    pub(super) fn is_watched(&self) -> bool {
        !self.no_progress && console::user_attended_stderr()
    }

    /// The files that a training writes, each with its option.
    pub(super) fn written(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files =
            [("--save", &self.save), ("--log", &self.log), ("--plot", &self.plot), ("--checkpoint", &self.checkpoint)];
        files.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)))
    }

    /// Checks that no file is written that is also read, or written twice, by these options or by `read` and `written`, those of the
    /// example. A checkpoint may be resumed from and written, which is how a run is restarted in a loop.
    ///
    /// # Errors
    /// One that names both options.
    pub(crate) fn check(&self, read: &[(&'static str, &Path)], written: &[(&'static str, &Path)]) -> Result<()> {
        let own = [("--init", &self.init), ("--resume", &self.resume)];
        let own = own.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)));
        let mut taken = own.chain(read.iter().copied()).collect::<Vec<_>>();
        for (option, path) in self.written().chain(written.iter().copied()) {
            if is_stdout(path) {
                continue;
            }
            for &(other, other_path) in &taken {
                ensure!(
                    (option, other) == ("--checkpoint", "--resume") || !is_same_file(path, other_path),
                    "{option} would overwrite {}, which is also the file of {other}; name another file",
                    path.display()
                );
            }
            taken.push((option, path));
        }
        Ok(())
    }

    /// Writes the files of a trained session; the errors are of those that can't be written.
    pub(super) fn write(&self, session: &Session) -> Vec<anyhow::Error> {
        let weights = || checkpoint::weights(session);
        let log = || {
            let mut log = "step,epoch,loss\n".to_owned();
            for (i, (epoch, loss)) in session.steps().iter().enumerate() {
                writeln!(log, "{},{epoch},{loss}", i + 1)?;
            }
            Ok(log.into_bytes())
        };
        let plot = || Ok(plot::training_curve("Loss of each training step", &losses(session))?.into_bytes());
        let files: [(_, &dyn Fn() -> Result<Vec<u8>>); 3] =
            [(&self.save, &weights), (&self.log, &log), (&self.plot, &plot)];
        let written = files.into_iter().filter_map(|(path, bytes)| {
            let path = path.as_deref()?;
            bytes().and_then(|bytes| write(path, &bytes)).err()
        });
        written.collect()
    }
}

/// The loss of each step, to be drawn.
pub(super) fn losses(session: &Session) -> Vec<f64> {
    session.steps().iter().map(|&(_, loss)| f64::from(loss)).collect()
}

/// Whether two paths lead to the same file. Devices such as /dev/null can be shared.
fn is_same_file(a: &Path, b: &Path) -> bool {
    // What is not there yet will be in a folder that is.
    let real = |path: &Path| {
        let path = &followed(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let new = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
        path.canonicalize().ok().or_else(new).unwrap_or_else(|| path.to_owned())
    };
    let (a, b) = (real(a), real(b));
    // Two names of one file are no different.
    #[cfg(unix)]
    let is_linked = {
        use std::os::unix::fs::MetadataExt;
        let place = |path: &Path| path.metadata().ok().map(|there| (there.dev(), there.ino()));
        place(&a).is_some() && place(&a) == place(&b)
    };
    #[cfg(not(unix))]
    let is_linked = false;
    (a == b || is_linked) && (a.is_file() || !a.exists())
}
