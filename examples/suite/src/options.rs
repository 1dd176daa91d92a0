use crate::frontend::Ui;
use crate::parsers::{at_least_one, positive, reduction};
use crate::preset::Preset;
use crate::session::Session;
use anyhow::Result;
use candle_core::Device;
use candle_losses::data::TrainTestSplit;
use candle_losses::loss::Reduction;
use clap::{ArgMatches, Command, FromArgMatches};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Options that load a dataset.
pub trait DatasetArgs: clap::Args + std::fmt::Debug {
    /// The defaults that go with the data.
    const PRESET: Preset;

    /// The training and the held-out samples, on `device`.
    ///
    /// # Errors
    /// If the data can't be loaded, or is damaged.
    fn load(&self, seed: u64, device: &Device, ui: &Ui) -> Result<TrainTestSplit>;

    /// The files that are read, each with the option that names it.
    fn files(&self) -> Vec<(&'static str, PathBuf)> {
        Vec::new()
    }
}

/// The options that every example takes, with those of its data.
///
/// ```ignore
/// #[derive(clap::Parser)]
/// struct MyOptions {
///     #[command(flatten)]
///     args: Args<BostonHousing>,
/// }
/// ```
#[derive(Debug, Clone, clap::Args)]
#[command(about = None, long_about = None)]
pub struct Args<D: DatasetArgs> {
    // First, as it reads the options that the others take away.
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    dataset: D,
}

impl<D: DatasetArgs> Args<D> {
    /// The loss's reduction; `default` is the example's own.
    pub fn reduction(&self, default: Reduction) -> Reduction {
        self.options.reduction(default)
    }

    /// Opens the device, loads the data, and starts a session on it.
    ///
    /// # Errors
    /// If the device can't be opened, the data can't be loaded, or a file would be both read and written.
    pub fn start(self, ui: &Ui) -> Result<Session> {
        let Self { options, dataset } = self;
        #[cfg(feature = "terminal")]
        {
            let read = dataset.files();
            options
                .check_files(&read.iter().map(|(option, path)| (*option, path.as_path())).collect::<Vec<_>>(), &[])?;
        }
        ui.started(&options, D::PRESET)?;
        let (device, seed) = (options.device(ui)?, options.seed);
        let name = format!("{dataset:?} {seed}");
        let data = ui.data(&name, &mut || dataset.load(seed, &device, ui))?;
        Session::with(options, D::PRESET, data, device, ui)
    }
}

/// How to train, and on a terminal the files that are read and written.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Training")]
pub struct Options {
    // First, as reading the others takes them away.
    #[command(flatten)]
    given: Given,

    /// Passes over the training samples [default: 5; 100 for tables]
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,

    /// Samples in a mini-batch [default: 10; 64 for fake images and text; 10 to 256 for own_table, by its rows]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch_size: Option<usize>,

    /// Adam's learning rate [default: 1e-4; 1e-3 for tables and text]
    #[arg(long, value_name = "LR", value_parser = positive)]
    lr: Option<f64>,

    /// Mini-batches per step of Adam, which takes the mean of their gradients
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub(crate) accumulate: usize,

    /// Clip the gradients of each step to this norm
    #[arg(long, value_name = "NORM", value_parser = positive)]
    pub(crate) clip_norm: Option<f64>,

    /// How the losses of a batch are reduced: mean, sum, batchmean [default: mean, for kl_div batchmean]
    #[arg(long, value_name = "HOW", value_parser = reduction)]
    reduction: Option<Reduction>,

    /// Seed of the initial weights, the sample order and all other random numbers
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,

    /// Train on the first N samples only
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) limit: Option<usize>,

    /// Take the samples in their own order instead of shuffling them each epoch
    #[arg(long)]
    pub(crate) no_shuffle: bool,

    #[cfg(feature = "terminal")]
    #[command(flatten)]
    pub(crate) files: crate::terminal::FileOptions,

    #[arg(skip)]
    pub(crate) is_quiet: bool,
}

impl Options {
    /// The loss's reduction; `default` is the example's own.
    pub fn reduction(&self, default: Reduction) -> Reduction {
        let reduction = self.reduction.unwrap_or(default);
        self.record("--reduction", &reduction.to_string());
        reduction
    }

    /// What random numbers are drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Records the value of an option that the command line leaves to the example, for a checkpoint to compare.
    pub fn record(&self, option: &str, value: &str) {
        self.given.0.borrow_mut().insert(option.to_owned(), value.to_owned());
    }

    /// The file of `--init` and its bytes. It is read once, so that it may be a pipe.
    ///
    /// # Errors
    /// If it can't be read.
    #[cfg(feature = "terminal")]
    pub fn init(&self) -> Result<Option<crate::terminal::InputFile>> {
        self.files.init()
    }

    /// Checks that no file is written that is also read, or written twice, by these options or by `read` and `written`, those of the
    /// example.
    ///
    /// # Errors
    /// One that names both options.
    #[cfg(feature = "terminal")]
    pub fn check_files(
        &self,
        read: &[(&'static str, &std::path::Path)],
        written: &[(&'static str, &std::path::Path)],
    ) -> Result<()> {
        self.files.check(read, written)
    }

    /// Prints nothing while training.
    pub fn quiet(&mut self) {
        self.is_quiet = true;
    }

    /// Opens the device.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn device(&self, ui: &Ui) -> Result<Device> {
        #[cfg(feature = "terminal")]
        return self.files.device(ui);
        #[cfg(not(feature = "terminal"))]
        {
            let _ = ui;
            Ok(Device::Cpu)
        }
    }

    /// Passes over the samples.
    pub fn epochs(&self, preset: Preset) -> usize {
        self.epochs.unwrap_or(preset.epochs())
    }

    /// Samples in a mini-batch.
    pub fn batch_size(&self, preset: Preset) -> usize {
        self.batch_size.unwrap_or(preset.batch_size())
    }

    /// Adam's learning rate.
    pub fn lr(&self, preset: Preset) -> f64 {
        self.lr.unwrap_or(preset.lr())
    }

    /// Returns the value of an option that was given or recorded, such as `--reduction`.
    pub fn recorded(&self, option: &str) -> Option<String> {
        self.given.0.borrow().get(option).cloned()
    }

    /// What decides the course of the training, by option: as given, or the default.
    #[cfg(feature = "terminal")]
    pub(crate) fn given(&self, preset: Preset) -> BTreeMap<String, String> {
        let mut given = self.given.0.borrow().clone();
        // Their defaults depend on the data.
        given.insert("--batch-size".into(), self.batch_size(preset).to_string());
        given.insert("--lr".into(), self.lr(preset).to_string());
        given
    }
}

/// Options that a resumed run may change: how far to train, where, and with which files.
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

/// The value of every option of the command that decides the course of the training, by its name.
#[derive(Debug, Clone, Default)]
struct Given(RefCell<BTreeMap<String, String>>);

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        // clap derives a group for each struct, of its name.
        let is_group = |id: &str| id.starts_with(char::is_uppercase);
        let options = matches.ids().map(clap::Id::as_str).filter(|id| !is_group(id) && !FREE.contains(id));
        let given = options.filter_map(|id| {
            let values = matches.try_get_raw(id).ok()??;
            let values = values.map(|value| normal(&value.to_string_lossy())).collect::<Vec<_>>();
            Some((format!("--{}", id.replace('_', "-")), values.join(",")))
        });
        Ok(Self(RefCell::new(given.collect())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The same text for the same number, however it is written.
fn normal(text: &str) -> String {
    let whole = text.parse::<i128>().map(|number| number.to_string());
    let number = || text.parse::<f64>().map(|number| number.to_string());
    whole.or_else(|_| number()).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Mine {
        #[command(flatten)]
        options: Options,
        #[arg(long, default_value_t = 0.5)]
        margin: f64,
        #[arg(long, value_delimiter = ',')]
        weight: Vec<f32>,
    }

    #[test]
    fn options_travel_with_their_defaults_and_in_one_form() {
        let line = ["mine", "--weight", "1.0,2", "--epochs", "3", "--lr", "1e-2"];
        let mine = Mine::parse_from(line);
        assert_eq!((mine.margin, mine.weight), (0.5, vec![1.0, 2.0]));
        let given = mine.options.given(Preset::Table);
        let found = |option: &str| given.get(option).map(String::as_str);
        assert_eq!((found("--margin"), found("--weight"), found("--lr")), (Some("0.5"), Some("1,2"), Some("0.01")));
        assert_eq!((found("--no-shuffle"), found("--epochs"), found("--clip-norm")), (Some("false"), None, None));
        assert_eq!(
            (found("--batch-size"), found("--seed"), found("--accumulate")),
            (Some("10"), Some("42"), Some("1"))
        );
    }
}
