use super::Session;
use super::files::is_stdout;
use super::kind::Kind;
use super::values::{at_least_one, positive, reduction};
use crate::data::Split;
use crate::loss::Reduction;
use anyhow::{Context, Result, ensure};
use candle_core::Device;
use clap::{ArgMatches, Command};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where a section's samples come from: options on the command line that load them.
pub trait Source: clap::Args {
    /// What they are.
    const KIND: Kind;

    /// The training and the held-out samples, on `device`.
    ///
    /// # Errors
    /// If the data can't be had, or is not what it should be.
    fn load(&self, seed: u64, device: &Device, is_watched: bool) -> Result<Split>;

    /// The files that it reads, each with the option that named it.
    fn files(&self) -> Vec<(&'static str, PathBuf)> {
        Vec::new()
    }
}

/// The options that every example takes, with those of its data.
///
/// ```
/// use candle_losses::cli::{Args, BostonHousing};
/// use candle_losses::loss::Reduction;
/// use clap::Parser;
///
/// #[derive(Parser)]
/// struct Options {
///     #[command(flatten)]
///     args: Args<BostonHousing>,
/// }
///
/// let args = Options::parse_from(["mine", "--device", "cpu", "--reduction", "sum"]).args;
/// assert_eq!(args.reduction(Reduction::Mean), Reduction::Sum);
/// assert!(args.start()?.device().is_cpu());
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None)]
pub struct Args<S: Source> {
    #[command(flatten)]
    source: S,
    #[command(flatten)]
    options: Options,
}

impl<S: Source> Args<S> {
    /// The loss's reduction, where `default` is the section's own.
    pub fn reduction(&self, default: Reduction) -> Reduction {
        self.options.reduction(default)
    }

    /// Opens the device and loads the data.
    pub fn start(self) -> Result<Session> {
        let read = self.source.files();
        let read = read.iter().map(|(option, path)| (*option, path.as_path())).collect::<Vec<_>>();
        self.options.check_files(&read, &[])?;
        let device = self.options.device()?;
        let split = self.source.load(self.options.seed, &device, self.options.is_watched())?;
        Session::new(self.options, S::KIND, split, device)
    }
}

/// How to train, and the files that are read and written.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct Options {
    /// Passes over the training samples [default: 5, for tables 100]
    #[arg(long, value_name = "N")]
    pub(super) epochs: Option<usize>,

    /// Samples in a mini-batch [default: 10, for fake images and text 64, for own_table 10 to 256 by its rows]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch_size: Option<usize>,

    /// Adam's learning rate [default: 1e-4, for tables and text 1e-3]
    #[arg(long, value_parser = positive)]
    lr: Option<f64>,

    /// Mini-batches to a step of Adam, which takes their gradients' mean
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(super) accumulate: usize,

    /// Scale the gradients of a step down to this norm
    #[arg(long, value_name = "NORM", value_parser = positive)]
    pub(super) clip_norm: Option<f64>,

    /// How losses become one: mean, sum, batchmean [default: mean, for kl_div batchmean]
    #[arg(long, value_name = "HOW", value_parser = reduction)]
    reduction: Option<Reduction>,

    /// Decides weights, order and whatever else is drawn
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(super) seed: u64,

    /// Where to compute; auto takes a GPU if this is built for one (`--features cuda` or `metal`) and it is there
    #[arg(long, value_enum, value_name = "WHERE", default_value = "auto")]
    device: DeviceName,

    /// Train on the first N samples only
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(super) limit: Option<usize>,

    /// Take the samples in their own order instead of shuffling them each epoch
    #[arg(long)]
    pub(super) no_shuffle: bool,

    /// Start from the weights in this safetensors file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(super) init: Option<PathBuf>,

    /// After each epoch, and on Ctrl-C, write to this file all that it takes to go on
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(super) checkpoint: Option<PathBuf>,

    /// Go on from a checkpoint, to the same end as without a break
    #[arg(long, value_name = "FILE", help_heading = "Files", conflicts_with = "init")]
    pub(super) resume: Option<PathBuf>,

    /// Write the trained weights to this safetensors file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(super) save: Option<PathBuf>,

    /// Write each step's loss to this CSV file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(super) log: Option<PathBuf>,

    /// Draw the training curve to this SVG file
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(super) plot: Option<PathBuf>,

    /// Show no progress bar
    #[arg(long)]
    no_progress: bool,

    #[arg(skip)]
    pub(super) is_quiet: bool,

    /// What the example takes where the command line does not say it.
    #[arg(skip)]
    chosen: RefCell<BTreeMap<String, String>>,
}

impl Options {
    /// The loss's reduction, where `default` is the section's own.
    pub fn reduction(&self, default: Reduction) -> Reduction {
        let reduction = self.reduction.unwrap_or(default);
        self.choose("--reduction", &format!("{reduction:?}").to_lowercase());
        reduction
    }

    /// What random numbers are drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The weights to start from.
    pub fn init(&self) -> Option<&Path> {
        self.init.as_deref()
    }

    /// Whether the training is to be gone on with, or goes on with one.
    pub fn goes_on(&self) -> bool {
        self.checkpoint.is_some() || self.resume.is_some()
    }

    /// Says what an option of the example's own is where the command line does not, for a checkpoint to know.
    pub fn choose(&self, option: &str, value: &str) {
        self.chosen.borrow_mut().insert(option.to_owned(), value.to_owned());
    }

    /// Prints nothing of how the training goes.
    pub fn quiet(&mut self) {
        self.is_quiet = true;
    }

    /// Opens the device.
    pub fn device(&self) -> Result<Device> {
        self.device.open()
    }

    pub(super) fn epochs(&self, kind: Kind) -> usize {
        self.epochs.unwrap_or(kind.epochs())
    }

    pub(super) fn batch_size(&self, kind: Kind) -> usize {
        self.batch_size.unwrap_or(kind.batch_size())
    }

    pub(super) fn lr(&self, kind: Kind) -> f64 {
        self.lr.unwrap_or(kind.lr())
    }

    /// What the command line says of the training, its loss and its data, by option.
    pub(super) fn given(&self, kind: Kind) -> BTreeMap<String, String> {
        let mut given = GIVEN.get().cloned().unwrap_or_default();
        given.extend(self.chosen.borrow().clone());
        // Their defaults depend on the data.
        given.insert("--batch-size".into(), self.batch_size(kind).to_string());
        given.insert("--lr".into(), self.lr(kind).to_string());
        given
    }

    /// Whether somebody sits there and looks.
    pub(super) fn is_watched(&self) -> bool {
        !self.no_progress && console::user_attended_stderr()
    }

    /// The files that a training leaves, each with its option.
    pub(super) fn written(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files =
            [("--save", &self.save), ("--log", &self.log), ("--plot", &self.plot), ("--checkpoint", &self.checkpoint)];
        files.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)))
    }

    /// That no file is written that is also read, or written twice, by these options or by others that the example has.
    ///
    /// # Errors
    /// One that names both options.
    pub fn check_files(&self, read: &[(&'static str, &Path)], written: &[(&'static str, &Path)]) -> Result<()> {
        let own = [("--init", &self.init), ("--resume", &self.resume)];
        let own = own.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)));
        let mut taken = own.chain(read.iter().copied()).collect::<Vec<_>>();
        for (option, path) in self.written().chain(written.iter().copied()) {
            if is_stdout(path) {
                continue;
            }
            for &(other, other_path) in &taken {
                ensure!(
                    !is_same_file(path, other_path),
                    "{option} would write over {}, which is also the file of {other}; name another",
                    path.display()
                );
            }
            taken.push((option, path));
        }
        Ok(())
    }
}

/// Whether two paths lead to one file; what is no file, such as /dev/null, can be shared.
fn is_same_file(a: &Path, b: &Path) -> bool {
    // What is not there yet will be in a folder that is.
    let real = |path: &Path| {
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

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum DeviceName {
    Auto,
    Cpu,
    Cuda,
    Metal,
}

impl DeviceName {
    fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda => Device::new_cuda(0).context("no CUDA device (is this built with `--features cuda`?)"),
            Self::Metal => Device::new_metal(0).context("no Metal device (is this built with `--features metal`?)"),
            Self::Auto => Ok(Self::gpu_or_cpu(candle_core::utils::cuda_is_available().then_some(Device::new_cuda))),
        }
    }

    /// The GPU that this is built for, if it is there, else the CPU. What candle says to be available is how it was built,
    /// no more: only to try shows whether there is a driver and a device.
    fn gpu_or_cpu(cuda: Option<fn(usize) -> candle_core::Result<Device>>) -> Device {
        let metal = || candle_core::utils::metal_is_available().then_some(Device::new_metal as fn(usize) -> _);
        let Some(open) = cuda.or_else(metal) else { return Device::Cpu };
        // Without a driver the bindings panic, and would say so at length.
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let opened = std::panic::catch_unwind(|| open(0));
        std::panic::set_hook(report);
        match opened {
            Ok(Ok(device)) => device,
            _ => {
                eprintln!("There is no GPU that can be used; going on with the CPU (--device cuda or metal says why).");
                Device::Cpu
            }
        }
    }
}

/// Options that a run may change and still go on from a checkpoint: how far to go, where to, with which files.
const FREE: [&str; 13] = [
    "epochs",
    "device",
    "limit",
    "init",
    "checkpoint",
    "resume",
    "save",
    "log",
    "plot",
    "no_progress",
    "data_dir",
    "csv",
    "predict",
];

static GIVEN: OnceLock<BTreeMap<String, String>> = OnceLock::new();

/// Keeps what the command line says of the training, its loss and its data, for a checkpoint to know.
pub(super) fn remember(command: &Command, matches: &ArgMatches) {
    let options = command.get_arguments().filter(|option| !FREE.contains(&option.get_id().as_str()));
    let given = options.filter_map(|option| {
        let values = matches.try_get_raw(option.get_id().as_str()).ok()??;
        let values = values.map(|value| normal(&value.to_string_lossy())).collect::<Vec<_>>();
        Some((format!("--{}", option.get_long()?), values.join(",")))
    });
    let _ = GIVEN.set(given.collect());
}

/// A number in one way of writing it.
fn normal(text: &str) -> String {
    text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_was_not_built_in_is_an_error() {
        #[cfg(not(feature = "cuda"))]
        assert!(format!("{:#}", DeviceName::Cuda.open().unwrap_err()).contains("--features cuda"));
        assert!(DeviceName::Cpu.open().unwrap().is_cpu());
        // A build for a GPU that is not there.
        assert!(DeviceName::gpu_or_cpu(Some(|_| candle_core::bail!("no device"))).is_cpu());
        assert!(DeviceName::gpu_or_cpu(Some(|_| panic!("no driver"))).is_cpu());
    }

    #[test]
    fn what_the_command_line_says_is_kept_with_its_defaults_and_in_one_form() {
        #[derive(clap::Parser)]
        struct Mine {
            #[arg(long, default_value_t = 0.5)]
            margin: f64,
            #[arg(long, value_delimiter = ',')]
            weight: Vec<f32>,
            #[command(flatten)]
            options: Options,
        }
        use clap::{CommandFactory, FromArgMatches};
        let mut command = <Mine as CommandFactory>::command();
        let line = ["mine", "--weight", "1.0,2", "--epochs", "3", "--lr", "1e-2"];
        let matches = command.try_get_matches_from_mut(line).unwrap();
        remember(&command, &matches);
        let given = Mine::from_arg_matches(&matches).unwrap().options.given(Kind::Table);
        let found = |option: &str| given.get(option).map(String::as_str);
        assert_eq!((found("--margin"), found("--weight"), found("--lr")), (Some("0.5"), Some("1,2"), Some("0.01")));
        assert_eq!((found("--no-shuffle"), found("--epochs"), found("--clip-norm")), (Some("false"), None, None));
        assert_eq!(found("--batch-size"), Some("10"));
    }
}
