//! Training runs that are interrupted, killed and resumed, as processes.

#![cfg(unix)]

mod common;

use common::example;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn run(name: &str, args: &[&str]) -> Output {
    example(name).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn resumed_a_run_ends_where_an_unbroken_run_does() {
    for (name, data) in
        [("mse", &[][..]), ("cross_entropy", &["--dataset", "digits", "--limit", "700"]), ("bce", &["--limit", "1000"])]
    {
        let folder = Folder::new();
        let with = |args: &[&str]| stdout(&run(name, &[data, args].concat()));
        let (whole, log) = (folder.arg("whole"), folder.arg("whole.csv"));
        let unbroken = with(&["--epochs", "4", "--save", &whole, "--log", &log]);
        let checkpoint = folder.arg("checkpoint");
        with(&["--epochs", "2", "--checkpoint", &checkpoint]);
        let (rest, rest_log) = (folder.arg("rest"), folder.arg("rest.csv"));
        let resumed = with(&["--epochs", "4", "--resume", &checkpoint, "--save", &rest, "--log", &rest_log]);
        let first = if name == "mse" { "Loss after epoch     3: " } else { "Starting epoch 3\n" };
        assert!(resumed.starts_with(first) && unbroken.ends_with(&resumed), "{name}: {resumed}");
        assert_eq!(tensors(&folder.path("whole")), tensors(&folder.path("rest")), "{name}");
        assert_eq!(std::fs::read(&log).unwrap(), std::fs::read(&rest_log).unwrap(), "{name}");
    }
}

/// Each tensor's bytes.
fn tensors(path: &Path) -> HashMap<String, Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let folder = Folder::new();
    let checkpoint = folder.arg("checkpoint");
    stdout(&run("mse", &["--epochs", "1", "--checkpoint", &checkpoint]));
    let refused = |name: &str, args: &[&str], part: &str| {
        let output = run(name, &[&["--resume", &checkpoint], args].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && error.contains(part) && error.lines().count() == 1, "{error}");
    };
    refused("mse", &["--lr", "1e-4"], "its --lr was 0.001, but is 0.0001 now");
    refused("mse", &["--seed", "1"], "--seed");
    refused("mse", &["--batch-size", "5"], "--batch-size");
    refused("mse", &["--no-shuffle"], "its --no-shuffle was false, but is true now");
    refused("mse", &["--limit", "20"], "number of samples");
    refused("l1", &[], "example was mse");
    refused("mse", &["--epochs", "1"], "1 epochs already");
    refused("mse", &["--accumulate", "2"], "--accumulate");
    refused("mse", &["--clip-norm", "2"], "--clip-norm");
    refused("mse", &["--test-fraction", "0.1"], "--test-fraction");
    refused("mse", &["--reduction", "sum"], "--reduction");
    // Also what the loss is made with.
    let (digits, smoothed) = (["--dataset", "digits", "--limit", "100"], folder.arg("smoothed"));
    stdout(&run("cross_entropy", &[&digits[..], &["--epochs", "1", "--checkpoint", &smoothed]].concat()));
    let output = run("cross_entropy", &[&digits[..], &["--resume", &smoothed, "--label-smoothing", "0.3"]].concat());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("its --label-smoothing was 0, but is 0.3 now"), "{error}");

    let weights = folder.arg("weights");
    stdout(&run("mse", &["--epochs", "1", "--save", &weights]));
    let output = run("mse", &["--resume", &weights]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("it is not a checkpoint"));
    // Cut anywhere, it is an error and never something else.
    let whole = std::fs::read(&checkpoint).unwrap();
    for cut in [0, 1, 7, 8, 9, 100, 900, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&checkpoint, &whole[..cut]).unwrap();
        refused("mse", &[], "checkpoint");
    }
}

#[test]
fn files_that_are_none_are_written_to_and_not_replaced() {
    let files = ["--log", "/dev/null", "--plot", "/dev/stdout", "--save", "/dev/null", "--checkpoint", "/dev/null"];
    let output = run("mse", &[&["--epochs", "1"], &files[..]].concat());
    assert!(stdout(&output).contains("<svg") && !Path::new("/dev/null").is_file());
    let output = run("mse", &["--epochs", "1", "--log", "/dev/full"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("space") && error.lines().count() == 1, "{error}");
    assert!(error.contains("can't write /dev/full"), "{error}");
}

#[test]
fn each_file_that_can_be_written_is_and_each_failure_is_named() {
    let folder = Folder::new();
    let [log, plot] = ["log.csv", "plot.svg"].map(|name| folder.arg(name));
    let full = ["--epochs", "2", "--save", "/dev/full", "--log", &log, "--plot", &plot, "--checkpoint", "/dev/full"];
    let output = run("huber", &full);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.matches("can't write /dev/full").count()), (Some(1), 3), "{error}");
    assert!(error.lines().count() == 2 && error.contains("\nerror: "), "the first checkpoint, and the end: {error}");
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 83);
    assert!(std::fs::read_to_string(&plot).unwrap().starts_with("<svg"));
}

#[test]
fn weights_are_read_from_a_pipe() {
    let folder = Folder::new();
    let (weights, again) = (folder.arg("weights"), folder.arg("again"));
    stdout(&run("mse", &["--epochs", "2", "--save", &weights]));
    let file = std::fs::File::open(&weights).unwrap();
    let mut cat = Command::new("cat").stdin(file).stdout(Stdio::piped()).spawn().unwrap();
    let args = ["--epochs", "0", "--init", "/dev/stdin", "--save", &again];
    let output = example("mse").args(args).stdin(cat.stdout.take().unwrap()).output().unwrap();
    stdout(&output);
    cat.wait().unwrap();
    assert_eq!(tensors(&folder.path("weights")), tensors(&folder.path("again")));
}

/// The loop of every restart: the same line again and again.
#[test]
fn a_checkpoint_is_resumed_from_and_written() {
    let folder = Folder::new();
    let (checkpoint, rest, whole) = (folder.arg("checkpoint"), folder.arg("rest"), folder.arg("whole"));
    stdout(&run("mse", &["--epochs", "1", "--checkpoint", &checkpoint]));
    for epochs in ["2", "3"] {
        let args = ["--epochs", epochs, "--checkpoint", &checkpoint, "--resume", &checkpoint, "--save", &rest];
        stdout(&run("mse", &args));
    }
    stdout(&run("mse", &["--epochs", "3", "--save", &whole]));
    assert_eq!(tensors(&folder.path("rest")), tensors(&folder.path("whole")));
}

#[test]
fn standard_error_that_fails_is_no_failure() {
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let output = example("mse").args(["--epochs", "1"]).stderr(full()).output().unwrap();
    assert!(stdout(&output).contains("Test MAE"));
    // A remark, that the Hub can't be asked; and an error, which is not seen but is one.
    let digits = ["--epochs", "1", "--limit", "20"];
    let output = example("cross_entropy").args(digits).stderr(full()).output().unwrap();
    assert!(stdout(&output).contains("Test accuracy"));
    assert_eq!(example("mse").args(["--lr", "1e30"]).stderr(full()).status().unwrap().code(), Some(1));
    // A pipe that is no longer read.
    let mut child =
        example("cross_entropy").args(digits).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert!(stdout(&child.wait_with_output().unwrap()).contains("Test accuracy"));
}

/// Ctrl-C between the last step and the files: here while a file waits for its reader.
#[test]
fn a_finished_run_is_written_whenever_it_is_interrupted() {
    let folder = Folder::new();
    let [pipe, log] = ["pipe", "log.csv"].map(|name| folder.arg(name));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let args = ["--epochs", "2", "--no-progress", "--save", &pipe, "--log", &log];
    let mut child = example("mse").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("Training process has finished")));
    std::thread::sleep(Duration::from_millis(100));
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none(), "it ends before the files are written");
    let weights = std::fs::read(&pipe).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(safetensors::SafeTensors::deserialize(&weights).unwrap().len(), 6);
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 83);
}

/// Starts a training that would take hours, and waits until an epoch is over, after which there is a new checkpoint.
fn started(args: &[&str], checkpoint: &Path) -> Child {
    let mut command = example("mse");
    command.args(["--epochs", "1000000", "--no-progress"]).args(args).arg("--checkpoint").arg(checkpoint);
    let _ = std::fs::remove_file(checkpoint);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !checkpoint.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn ctrl_c_writes_what_was_asked_for() {
    let folder = Folder::new();
    let [save, log, plot, checkpoint] = ["save", "log.csv", "plot.svg", "checkpoint"].map(|name| folder.arg(name));
    let child = started(&["--save", &save, "--log", &log, "--plot", &plot], &folder.path("checkpoint"));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("Interrupted after ") && said.lines().count() == 1, "{said}");
    let steps = said.split(' ').nth(2).unwrap().parse::<usize>().unwrap();
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), steps + 1);
    assert!(std::fs::read_to_string(&plot).unwrap().starts_with("<svg"));

    // Interrupted in the middle of an epoch and resumed, it ends where an uninterrupted run does.
    let epochs = (steps / 41 + 2).to_string();
    let (rest, whole) = (folder.arg("rest"), folder.arg("whole"));
    stdout(&run("mse", &["--epochs", &epochs, "--resume", &checkpoint, "--save", &rest]));
    stdout(&run("mse", &["--epochs", &epochs, "--save", &whole]));
    assert_eq!(tensors(&folder.path("rest")), tensors(&folder.path("whole")));
}

#[test]
fn no_signal_leaves_a_temporary_file() {
    for (signal, count, code) in [("-TERM", 1, None), ("-INT", 2, Some(130)), ("-KILL", 1, None)] {
        let folder = Folder::new();
        let [save, log, plot] = ["save", "log.csv", "plot.svg"].map(|name| folder.arg(name));
        let args = ["--epochs", "1000000", "--save", &save, "--log", &log, "--plot", &plot];
        let mut child = example("mse").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(150));
        assert_eq!(std::fs::read_dir(folder.0.path()).unwrap().count(), 0, "files are made when they are written");
        drop(child.stdout.take());
        for _ in 0..count {
            assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), code, "{signal}: {output:?}");
        let left = std::fs::read_dir(folder.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left = left.filter(|name| name.to_string_lossy().starts_with('.')).collect::<Vec<_>>();
        assert!(left.is_empty(), "{signal}: {left:?}");
    }
}

/// As `nohup` and a shell do for what runs in the background.
#[test]
fn a_signal_that_the_parent_ignores_is_ignored() {
    for signal in ["HUP", "INT"] {
        let program = example("mse").get_program().to_str().unwrap().to_owned();
        let line = format!("trap '' {signal}; exec {program} --epochs 3000 --no-progress");
        let child =
            Command::new("sh").args(["-c", &line]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap().success()
        );
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{signal}: {output:?}");
    }
}

#[test]
fn a_pipe_that_is_no_longer_read_is_a_failure_unless_it_is_standard_output() {
    let folder = Folder::new();
    let (pipe, weights) = (folder.arg("pipe"), folder.path("weights"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // More than a pipe holds.
    let args = ["--epochs", "300", "--no-progress", "--save", weights.to_str().unwrap(), "--log"];
    let child = example("mse").args(args).arg(&pipe).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(std::fs::File::open(&pipe).unwrap());
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains(&format!("can't write {pipe}")), "{error}");
    let mut child = example("mse").args(args).arg("-").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty() && weights.exists(), "{output:?}");
}

#[test]
fn ctrl_c_twice_ends_at_once() {
    // A step of all samples takes a tenth of a second, and the first Ctrl-C would wait for its end.
    let mut command = example("cross_entropy");
    command.args(["--dataset", "digits", "--batch-size", "60000", "--epochs", "1000000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().contains("epoch 3")).unwrap().unwrap();
    // It goes on printing, and somebody has to read that.
    std::thread::spawn(move || lines.for_each(drop));
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(10));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code() == Some(130) && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn killed_at_any_moment_the_checkpoint_is_whole() {
    let folder = Folder::new();
    let checkpoint = folder.arg("checkpoint");
    let mut sizes = Vec::new();
    for round in 0..50u64 {
        let mut child = started(&[], &folder.path("checkpoint"));
        // Moments spread over some milliseconds, in which an epoch ends about every two.
        std::thread::sleep(Duration::from_micros(round * 7919 % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = tensors(&folder.path("checkpoint"));
        // Parameters, three tensors of Adam for each, its learning rate, losses and counts.
        assert_eq!(found.len(), 6 + 18 + 3, "round {round}");
        sizes.push(found["losses"].len() / 4);
    }
    assert!(sizes.iter().all(|steps| *steps >= 41 && steps % 41 == 0), "{sizes:?}");
    println!("steps in the checkpoints: {sizes:?}");
    let last = sizes[49] / 41 + 1;
    stdout(&run("mse", &["--epochs", &last.to_string(), "--resume", &checkpoint]));
}
