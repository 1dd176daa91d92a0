//! Every example as a user runs it, offline and on a few hundred samples.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Name, data, and how each line of the report starts.
const EXAMPLES: [(&str, &str, &[&str]); 23] = [
    ("bce", "fake", &["Test accuracy: "]),
    ("bce_with_logits", "fake", &["Test accuracy: "]),
    ("nll", "digits", &["Test accuracy: "]),
    ("cross_entropy", "digits", &["Test accuracy: "]),
    ("poisson_nll", "digits", &["Test MAE: "]),
    ("gaussian_nll", "digits", &["Test MAE: ", "Test within ±2σ: "]),
    ("hinge_embedding", "fake", &["Test accuracy: "]),
    ("soft_margin", "fake", &["Test accuracy: "]),
    ("multi_margin", "digits", &["Test accuracy: "]),
    ("multilabel_soft_margin", "digits", &["Test tag accuracy: ", "Test exact-match accuracy: "]),
    ("kl_div", "digits", &["Test accuracy: "]),
    ("l1", "boston", &["Test MAE: ", "Test RMSE: "]),
    ("mse", "boston", &["Test MAE: ", "Test RMSE: "]),
    ("smooth_l1", "boston", &["Test MAE: ", "Test RMSE: "]),
    ("huber", "boston", &["Test MAE: ", "Test RMSE: "]),
    ("multilabel_margin", "digits", &["Test exact-match accuracy: "]),
    ("margin_ranking", "digits", &["Test accuracy: "]),
    ("cosine_embedding", "digits", &["Test accuracy: "]),
    ("triplet_margin", "digits", &["Test nearest-neighbor accuracy: "]),
    ("triplet_margin_with_distance", "digits", &["Test nearest-neighbor accuracy: "]),
    ("ctc", "digits", &["Test exact-sequence accuracy: "]),
    ("linear_cross_entropy", "characters", &["Test accuracy: "]),
    ("adaptive_log_softmax", "words", &["Test accuracy: "]),
];

fn example(name: &str) -> Command {
    let mut command = common::example(name);
    if EXAMPLES.iter().any(|(example, data, _)| *example == name && *data == "digits") {
        command.args(["--dataset", "digits"]);
    }
    command
}

fn run(name: &str, args: &[&str]) -> Output {
    example(name).args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line of an error.
fn refused(name: &str, args: &[&str]) -> String {
    let output = run(name, args);
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn losses(log: &Path) -> Vec<f32> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse().unwrap()).collect()
}

fn in_folder(folder: &tempfile::TempDir, file: &str) -> (PathBuf, String) {
    let path = folder.path().join(file);
    (path.clone(), path.to_str().unwrap().to_owned())
}

#[test]
fn each_trains_reports_and_leaves_its_files() {
    for (name, data, report) in EXAMPLES {
        let folder = tempfile::tempdir().unwrap();
        let ((save, s), (log, l), (plot, p)) =
            (in_folder(&folder, "w.safetensors"), in_folder(&folder, "log.csv"), in_folder(&folder, "curve.svg"));
        let output = run(name, &["--limit", "320", "--epochs", "2", "--save", &s, "--log", &l, "--plot", &p]);
        let text = stdout(&output);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{name}");

        let lines = text.lines().collect::<Vec<_>>();
        if data == "boston" {
            let is_line = |n: usize| lines[n - 1].starts_with(&format!("Loss after epoch     {n}: "));
            assert!(is_line(1) && is_line(2) && !text.contains("Starting"), "{name}: {text}");
        } else {
            assert_eq!(lines[0], "Starting epoch 1", "{name}");
            assert!(lines.contains(&"Starting epoch 2"), "{name}: {text}");
        }
        let (training, reported) = lines.split_at(lines.len() - report.len());
        assert_eq!(training.last(), Some(&"Training process has finished."), "{name}: {text}");
        let samples = match data {
            "fake" => " (3000 samples)",
            "digits" => " (10000 samples)",
            "characters" => " (4486 samples)",
            "words" => " (865 samples)",
            _ => " (101 samples)",
        };
        for (line, start) in reported.iter().zip(report) {
            assert!(line.starts_with(start) && line.ends_with(samples), "{name}: {line}");
        }

        let steps = 2 * 320usize.div_ceil(if ["fake", "characters", "words"].contains(&data) { 64 } else { 10 });
        let logged = std::fs::read_to_string(&log).unwrap();
        assert!(logged.starts_with("step,epoch,loss\n1,1,"), "{name}: {logged}");
        assert!(logged.lines().last().unwrap().starts_with(&format!("{steps},2,")), "{name}: {logged}");
        assert!(std::fs::read_to_string(&plot).unwrap().starts_with("<svg"), "{name}");
        assert!(std::fs::metadata(&save).unwrap().len() > 1000, "{name}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "{name} leaves other files");
    }
}

#[test]
fn the_printed_loss_is_the_mean_since_the_line_before() {
    let folder = tempfile::tempdir().unwrap();
    let (log, l) = in_folder(&folder, "log.csv");
    let mean = |losses: &[f32]| losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len() as f64;

    let text = stdout(&run("bce", &["--epochs", "1", "--limit", "1900", "--log", &l]));
    let found = losses(&log);
    assert_eq!(found.len(), 30, "1900 images in batches of 64, the last of 44");
    let lines = (1..=3).map(|line| {
        format!("Loss after mini-batch {:>5}: {:.3}\n", 10 * line, mean(&found[10 * line - 10..10 * line]))
    });
    assert!(text.contains(&lines.collect::<String>()), "{text}");

    // A tenth of 25 epochs is two or three of them.
    let text = stdout(&run("mse", &["--epochs", "25", "--log", &l]));
    let found = losses(&log);
    assert_eq!(found.len(), 25 * 41, "405 rows in batches of 10, the last of 5");
    let ends = [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25];
    let lines = ends.windows(2).map(|epochs| {
        format!("Loss after epoch {:>5}: {:.3}\n", epochs[1], mean(&found[41 * epochs[0]..41 * epochs[1]]))
    });
    assert!(text.starts_with(&lines.collect::<String>()), "{text}");
}

#[test]
fn one_seed_gives_the_same_numbers_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let train = |name, seed, file| {
        let ((weights, w), (log, l)) = (in_folder(&folder, file), in_folder(&folder, "log.csv"));
        let text = stdout(&run(name, &["--limit", "200", "--epochs", "2", "--seed", seed, "--save", &w, "--log", &l]));
        (text, std::fs::read(weights).unwrap(), std::fs::read(log).unwrap())
    };
    for name in ["cross_entropy", "bce", "huber"] {
        assert_eq!(train(name, "7", "a"), train(name, "7", "b"), "{name}");
        assert_ne!(train(name, "7", "a").1, train(name, "8", "b").1, "{name}");
    }
}

#[test]
fn two_ways_to_the_same_loss_train_alike() {
    let folder = tempfile::tempdir().unwrap();
    for (pair, limit) in [(["nll", "cross_entropy"], "300"), (["bce", "bce_with_logits"], "1920")] {
        let [one, other] = pair.map(|name| {
            let (log, l) = in_folder(&folder, name);
            stdout(&run(name, &["--limit", limit, "--epochs", "1", "--log", &l]));
            losses(&log)
        });
        assert_eq!(one.len(), 30);
        for (step, (a, b)) in one.iter().zip(&other).enumerate() {
            assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{pair:?}, step {}: {a} {b}", step + 1);
        }
    }
}

#[test]
fn training_goes_on_from_saved_weights() {
    let folder = tempfile::tempdir().unwrap();
    let ((_, weights), (log, l)) = (in_folder(&folder, "w.safetensors"), in_folder(&folder, "log.csv"));
    stdout(&run("mse", &["--epochs", "40", "--lr", "1e-3", "--save", &weights, "--log", &l]));
    let first = losses(&log);
    stdout(&run("mse", &["--epochs", "1", "--init", &weights, "--log", &l]));
    let (start, end, again) = (first[0], first[first.len() - 41..].iter().sum::<f32>() / 41.0, losses(&log)[0]);
    assert!(again < start / 2.0 && again < end * 5.0, "from {start} to {end}, then {again}");
}

#[test]
fn all_rows_are_trained_on_where_none_is_held_out() {
    let text = stdout(&run("l1", &["--test-fraction", "0", "--epochs", "1", "--no-shuffle"]));
    assert!(text.contains("Training MAE: "), "{text}");
    assert!(text.trim_end().ends_with("(506 samples)"), "{text}");
}

#[test]
fn mnist_files_are_read_and_learned() {
    let mnist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/mnist");
    if !mnist.exists() {
        println!("skipped: there are no MNIST files in {}", mnist.display());
        return;
    }
    let mut command = Command::new(example("cross_entropy").get_program());
    let output = command.arg("--data-dir").arg(&mnist).args(["--epochs", "1"]).output().unwrap();
    let text = stdout(&output);
    let accuracy = text.split("Test accuracy: ").nth(1).unwrap().split('%').next().unwrap().parse::<f64>().unwrap();
    assert!(accuracy > 75.0, "{text}");
}

#[test]
fn a_diverging_run_says_where_and_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, w) = in_folder(&folder, "w.safetensors");
    std::fs::write(&weights, "an older file").unwrap();
    let message = refused("mse", &["--lr", "1e30", "--save", &w]);
    assert!(message.starts_with("error: the loss is ") && message.lines().count() == 1, "{message}");
    assert!(message.contains("epoch 1, step ") && message.contains("--lr"), "{message}");
    assert_eq!(std::fs::read_to_string(&weights).unwrap(), "an older file");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // Also where it is the last step that goes too far, of whose weights no loss is made.
    let message = refused("mse", &["--lr", "1e40", "--limit", "10", "--epochs", "1", "--save", &w]);
    assert!(message.contains("the weights are not finite after epoch 1"), "{message}");
    assert_eq!(std::fs::read_to_string(&weights).unwrap(), "an older file");
}

#[test]
fn bad_options_are_refused_in_one_line_that_names_them() {
    for (name, args, parts) in [
        ("huber", ["--delta", "0"], ["HuberLoss", "delta"]),
        ("smooth_l1", ["--beta", "-1"], ["SmoothL1Loss", "beta"]),
        ("multi_margin", ["--p", "3"], ["MultiMarginLoss", "p is 3"]),
        ("cross_entropy", ["--label-smoothing", "1.5"], ["CrossEntropyLoss", "label_smoothing"]),
        ("nll", ["--weight", "1,2"], ["NllLoss", "10 classes"]),
        ("mse", ["--init", "missing.safetensors"], ["missing.safetensors", "No such file"]),
        ("mse", ["--init", "Cargo.toml"], ["Cargo.toml", "not a safetensors file"]),
        ("adaptive_log_softmax", ["--cutoffs", "2000"], ["--cutoffs goes up to 1155", "1156 words"]),
        ("compare_regression", ["--plot", "missing/p.svg"], ["can't write missing/p.svg", "No such file"]),
        ("mse", ["--save", "missing/w.safetensors"], ["missing/w.safetensors", "No such file"]),
        ("mse", ["--log", "."], ["can't write .", "directory"]),
        ("mse", ["--checkpoint", "missing/c"], ["can't write missing/c", "No such file"]),
    ] {
        let message = refused(name, &args);
        assert!(message.starts_with("error: ") && message.lines().count() == 1, "{name} {args:?}: {message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{name} {args:?}: {message}");
    }
    for (args, part) in [
        (["--epochs", "-1"], "--epochs"),
        (["--batch-size", "0"], "--batch-size"),
        (["--lr", "0"], "--lr"),
        (["--limit", "0"], "--limit"),
        (["--test-fraction", "1"], "--test-fraction"),
        (["--device", "tpu"], "--device"),
        (["--reduction", "none"], "--reduction"),
        (["--accumulate", "0"], "--accumulate"),
        (["--clip-norm", "0"], "--clip-norm"),
        (["--clip-norm", "NaN"], "--clip-norm"),
    ] {
        assert!(refused("mse", &args).contains(part), "{args:?}");
    }
}

#[test]
fn a_named_data_set_is_used_or_an_error() {
    let mut command = Command::new(example("nll").get_program());
    let output = command.args(["--data-dir", "no/such/folder"]).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(message.contains("no/such/folder/train-labels-idx1-ubyte"), "{message}");
}

#[test]
fn help_explains_every_option() {
    for (name, ..) in EXAMPLES {
        let help = stdout(&run(name, &["--help"]));
        let options = help.lines().filter(|line| line.trim_start().starts_with("--"));
        for option in options {
            assert!(option.trim().split("  ").filter(|part| !part.is_empty()).count() > 1, "{name}: {option}");
        }
        assert!(["--epochs", "--seed", "--device", "--save"].iter().all(|option| help.contains(option)), "{name}");
    }
}

#[test]
fn a_reader_who_has_seen_enough_ends_the_run_quietly_and_keeps_the_files() {
    use std::process::Stdio;
    let unread = |args: &[&str]| {
        let mut child = example("mse").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    };
    unread(&["--epochs", "20000"]);
    let folder = tempfile::tempdir().unwrap();
    for option in ["--save", "--log", "--plot", "--checkpoint"] {
        let ((written, w), (read, r)) = (in_folder(&folder, "unread"), in_folder(&folder, "read"));
        unread(&["--epochs", "3", option, &w]);
        stdout(&run("mse", &["--epochs", "3", option, &r]));
        assert!(std::fs::read(written).unwrap() == std::fs::read(read).unwrap(), "{option}");
    }
}

#[test]
fn a_file_is_read_or_written_but_not_both() {
    let folder = tempfile::tempdir().unwrap();
    let ((weights, w), (_, other)) = (in_folder(&folder, "w.safetensors"), in_folder(&folder, "other"));
    stdout(&run("mse", &["--epochs", "1", "--save", &w]));
    let kept = std::fs::read(&weights).unwrap();
    let elsewhere =
        format!("{}/../{}/w.safetensors", folder.path().display(), folder.path().file_name().unwrap().display());
    // A link to a file that is not there yet.
    let (_, target) = in_folder(&folder, "target");
    let (link_path, link) = in_folder(&folder, "link");
    std::os::unix::fs::symlink("target", &link_path).unwrap();
    for (args, options) in [
        (["--init", &w, "--save", &w], ["--save", "--init"]),
        (["--init", &w, "--save", &elsewhere], ["--save", "--init"]),
        (["--resume", &w, "--save", &w], ["--save", "--resume"]),
        (["--save", &link, "--log", &target], ["--log", "--save"]),
        (["--save", &other, "--log", &other], ["--log", "--save"]),
    ] {
        let error = refused("mse", &args);
        assert!(options.iter().all(|option| error.contains(option)) && error.lines().count() == 1, "{error}");
    }
    assert!(std::fs::read(&weights).unwrap() == kept && !Path::new(&other).exists());
}

#[test]
fn gradients_are_accumulated_and_clipped() {
    let folder = tempfile::tempdir().unwrap();
    let (log, l) = in_folder(&folder, "log.csv");
    let with = |args: &[&str]| {
        stdout(&run("mse", &[&["--epochs", "2", "--log", &l], args].concat()));
        losses(&log)
    };
    let (accumulated, whole) = (with(&["--batch-size", "5", "--accumulate", "4"]), with(&["--batch-size", "20"]));
    assert_eq!((accumulated.len(), whole.len()), (42, 42));
    assert!(accumulated.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-3 * b.abs()), "{accumulated:?} {whole:?}");
    assert_ne!(with(&["--clip-norm", "0.01"]), with(&[]));
}

/// What goes to standard output stays in its order, also where that is a file that had something in it.
#[test]
#[cfg(unix)]
fn a_log_to_standard_output_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.txt");
    std::fs::write(&path, "before\n").unwrap();
    let file = std::fs::File::options().append(true).open(&path).unwrap();
    let args = ["--epochs", "1", "--log", "/dev/stdout"];
    assert!(example("mse").args(args).stdout(file).status().unwrap().success());
    let text = std::fs::read_to_string(&path).unwrap();
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
    assert!(
        text.starts_with("before\n")
            && at("Training process") < at("step,epoch,loss")
            && at("step,epoch") < at("Test MAE"),
        "{text}"
    );
}

/// A program without the suite: no options, the weights in a file that PyTorch could read.
#[test]
fn own_model_learns_and_saves_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let text = stdout(&run("own_model", &[path.to_str().unwrap()]));
    let accuracy = text.lines().last().and_then(|line| line.strip_prefix("Epoch 2: test accuracy ")?.strip_suffix('%'));
    assert!(accuracy.unwrap().parse::<f64>().unwrap() > 85.0, "{text}");
    let weights = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
    assert_eq!(weights.len(), 12);
    assert_eq!(weights["norm.running_var"].dims(), [16]);
}

#[test]
fn the_pictures_of_the_losses_are_what_the_gallery_draws() {
    let folder = tempfile::tempdir().unwrap();
    stdout(&run("gallery", &["--curves-only", "--folder", folder.path().to_str().unwrap()]));
    for file in EXAMPLES.iter().flat_map(|(name, ..)| [format!("{name}.svg"), format!("{name}_thumbnail.svg")]) {
        let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(&file)).unwrap();
        let drawn = std::fs::read_to_string(folder.path().join(&file)).unwrap();
        assert!(kept == drawn, "assets/{file} is not as the code draws it: run `cargo run --example gallery`");
    }
}

#[test]
fn comparisons_print_a_row_for_each_loss() {
    for name in ["compare_regression", "compare_classification"] {
        let folder = tempfile::tempdir().unwrap();
        let (plot, p) = in_folder(&folder, "picture.svg");
        let text = stdout(&run(name, &["--seeds", "1", "--epochs", "0", "--plot", &p]));
        assert_eq!(text.lines().filter(|line| line.contains(" ± ")).count(), 8, "{name}: {text}");
        assert!(std::fs::read_to_string(&plot).unwrap().starts_with("<svg"), "{name}");
    }
}
