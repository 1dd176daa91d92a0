//! `own_table` as a user runs it.

use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn command() -> Command {
    // Tests are built to target/PROFILE/deps, examples to target/PROFILE/examples.
    let deps = std::env::current_exe().unwrap();
    Command::new(deps.parent().unwrap().parent().unwrap().join("examples/own_table"))
}

fn run(args: &[&str]) -> Output {
    command().args(args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line of an error.
fn refused(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn in_folder(folder: &tempfile::TempDir, file: &str) -> (PathBuf, String) {
    let path = folder.path().join(file);
    (path.clone(), path.to_str().unwrap().to_owned())
}

/// The number behind this beginning of a line.
fn figure(text: &str, start: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
    line[start.len()..].split_whitespace().next().unwrap().parse().unwrap()
}

/// The text of a table with a number and two classes that follow from its columns.
fn houses(rows: usize) -> String {
    let row = |i: usize| {
        let (size, district) = (i * 7 % 50, ["north", "south"][i % 3 / 2]);
        let price = 1000 * (3 * size + 40 * (i % 3 / 2)) + i % 5;
        let big = ["no", "yes"][usize::from(size > 24)];
        let built = if i.is_multiple_of(9) { "NA".into() } else { (1900 + i % 90).to_string() };
        format!("{};\"{size},5\";{district};{built};2020-01-{:02};x{i};${price};{big}\r\n", i + 1, i % 28 + 1)
    };
    format!("\u{feff};size;district;built;sold;note;price;big\r\n{}", (0..rows).map(row).collect::<String>())
}

#[test]
fn a_table_of_ones_own_is_read_as_it_is_and_learned_without_an_option() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, c) = in_folder(&folder, "houses.csv");
    let (model, m) = in_folder(&folder, "model.safetensors");
    let (predictions, p) = in_folder(&folder, "predictions.csv");
    std::fs::write(&csv, houses(300)).unwrap();

    let output = run(&["--csv", &c, "--target", "price", "--save", &m]);
    let (text, told) = (stdout(&output), String::from_utf8(output.stderr.clone()).unwrap());
    assert!(
        figure(&text, "Test R²: ") > 0.95
            && figure(&text, "Test MAE: ") < figure(&text, "Guessing the median: MAE ") / 4.0,
        "{text}"
    );
    for part in [
        "numbers  size, built",
        "categories  district, big",
        "column 1 (row numbers)",
        "sold (dates",
        "note (text, 300 different values)",
        "60 held out",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // Another order of the columns, more of them, no target, and a level that was never seen.
    std::fs::write(&csv, "district,big,extra,size,built\nsouth,yes,a,40.5,1950\nwest,no,b,1.5,\n").unwrap();
    let output = run(&["--csv", &c, "--init", &m, "--predict", &p]);
    assert_eq!(stdout(&output), format!("Predictions of price: {p}\n"));
    assert!(String::from_utf8(output.stderr.clone()).unwrap().contains("1 cells of district"));
    let predicted = std::fs::read_to_string(&predictions).unwrap();
    let lines = predicted.lines().collect::<Vec<_>>();
    assert_eq!(lines[0], "district,big,extra,size,built,predicted price");
    let price = lines[1].rsplit(',').next().unwrap().parse::<f64>().unwrap();
    assert!(lines[1].starts_with("south,yes,a,40.5,1950,") && (price - 160_000.0).abs() < 25_000.0, "{predicted}");
    // To standard output it is the rows and nothing else.
    let text = stdout(&run(&["--csv", &c, "--init", &m, "--predict", "-"]));
    assert_eq!(text, predicted);
    // With the target the figures come, too.
    std::fs::write(&csv, houses(40)).unwrap();
    let text = stdout(&run(&["--csv", &c, "--init", &m, "--predict", &p]));
    assert!(figure(&text, "Labeled R²: ") > 0.95 && text.contains("(40 samples)"), "{text}");
    for (args, part) in [
        (["--target", "size", "--predict", &p], "predicts price, not size"),
        (["--target", "price", "--predict", &m], "--predict would overwrite"),
        (["--target", "price", "--predict", &c], "--predict would overwrite"),
        (["--target", "price", "--loss", "l1"], "trained by mse"),
    ] {
        let error = refused(&[&["--csv", &c, "--init", &m], &args[..]].concat());
        assert!(error.contains(part), "{error}");
    }
    let link = folder.path().join("link.csv");
    std::fs::hard_link(&csv, &link).unwrap();
    assert!(refused(&["--csv", &c, "--target", "price", "--log", link.to_str().unwrap()]).contains("--log"));
    assert_eq!(std::fs::read_to_string(&csv).unwrap(), houses(40));
    assert!(std::fs::metadata(&model).unwrap().len() > 1000);
}

#[test]
fn classes_of_ones_own_are_chosen_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, c) = in_folder(&folder, "houses.csv");
    let (_, m) = in_folder(&folder, "model.safetensors");
    let (predictions, p) = in_folder(&folder, "predictions.csv");
    std::fs::write(&csv, houses(300)).unwrap();
    let target = ["--csv", &c, "--target", "big", "--epochs", "40"];
    let text = stdout(&run(&[&target[..], &["--save", &m]].concat()));
    assert!(text.contains("Test accuracy: ") && text.contains("Test balanced accuracy: "), "{text}");
    assert!(text.lines().last().unwrap().starts_with("Always \""), "{text}");
    let predict = ["--csv", &c, "--init", &m, "--predict", &p];
    stdout(&run(&predict));
    let count =
        || std::fs::read_to_string(&predictions).unwrap().lines().filter(|line| line.contains(",yes,0.")).count();
    let half = count();
    let header = std::fs::read_to_string(&predictions).unwrap().lines().next().unwrap().to_owned();
    assert!(header.ends_with(",predicted big,probability of no,probability of yes"), "{header}");
    stdout(&run(&[&predict[..], &["--threshold", "0.999"]].concat()));
    assert!(count() < half);
    // All that fit, with a weight for each class.
    let text = stdout(&run(&["--csv", &c, "--target", "big", "--compare", "--epochs", "3", "--balance"]));
    for loss in ["cross_entropy", "nll", "multi_margin", "multilabel_soft_margin", "bce_with_logits"] {
        assert!(text.contains(&format!("| {loss}")), "{loss}: {text}");
    }
    assert!(!text.contains("soft_margin  ") || !text.contains("| soft_margin"), "{text}");
    let text = stdout(&run(&["--csv", &c, "--target", "price", "--compare", "--epochs", "3"]));
    assert!(
        ["mse", "l1", "smooth_l1", "huber", "gaussian_nll", "poisson_nll"]
            .iter()
            .all(|loss| text.contains(&format!("| {loss} "))),
        "{text}"
    );
}

#[test]
fn tables_that_can_t_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, c) = in_folder(&folder, "table.csv");
    let refused_as = |text: &str, args: &[&str], parts: &[&str]| {
        std::fs::write(&csv, text).unwrap();
        let error = refused(&[&["--csv", &c], args].concat());
        assert!(parts.iter().all(|part| error.contains(part)) && error.lines().count() == 1, "{error}");
    };
    let rows = |row: fn(usize) -> String| format!("x,z,y\n{}", (0..40).map(row).collect::<String>());
    let numbers = rows(|i| format!("{i},{},{}\n", i % 7, i * i % 31));
    let text = rows(|i| format!("{i},{},{}\n", i % 7, ["a", "b"][i % 2]));
    refused_as(&numbers, &["--target", "Y"], &["no column Y", "did you mean y"]);
    refused_as(&numbers, &["--target", "price"], &["no column price", "x, z, y"]);
    refused_as(&text, &["--target", "y", "--loss", "mse"], &["y is not a number", "--loss cross_entropy"]);
    refused_as(
        &rows(|i| format!("{i},{},{}\n", i % 7, i as f64 / 3.0)),
        &["--target", "y", "--loss", "cross_entropy"],
        &["too many for classes", "--loss mse"],
    );
    refused_as(
        &rows(|i| format!("{i},1,{}\n", if i == 3 { "x".into() } else { i.to_string() })),
        &["--target", "y"],
        &["1 cell without a number", "line 5: \"x\""],
    );
    refused_as(&numbers, &["--target", "y", "--delimiter", ";"], &["no column y"]);
    refused_as(&rows(|i| format!("{i},1,5\n")), &["--target", "y"], &["all rows have the same y"]);
    refused_as(&rows(|_| "1,1,\n".into()), &["--target", "y"], &["no row has a value of y"]);
    refused_as(
        &text,
        &["--target", "z", "--numbers", "y,w", "--ignore", "z"],
        &["--numbers names y", "line 2", "no column w", "--ignore names z"],
    );
    refused_as(&numbers, &["--target", "y", "--loss", "soft_margin"], &["two classes"]);
    refused_as(
        &text.replace("a\n", "c\n").replacen("b\n", "d\n", 9),
        &["--target", "y", "--loss", "bce_with_logits"],
        &["two classes", "3"],
    );
    refused_as("PK\x03\x04", &["--target", "y"], &["Excel"]);
    assert!(refused(&["--csv", &c]).contains("--target"));
    assert!(refused(&["--csv", &c, "--predict", "-"]).contains("--init"));
    let (model, m) = in_folder(&folder, "model.safetensors");
    let other = HashMap::from([("a".to_owned(), Tensor::new(&[1f32], &Device::Cpu).unwrap())]);
    candle_core::safetensors::save(&other, &model).unwrap();
    refused_as(&numbers, &["--init", &m, "--predict", "-"], &["not trained on a table"]);
    let kept = std::fs::read(&model).unwrap();
    refused_as(&numbers, &["--init", &m, "--predict", &m], &["--predict"]);
    assert_eq!(std::fs::read(&model).unwrap(), kept);
}

/// Of as many rows as are reported on, and of the classes that are left.
#[test]
fn figures_of_a_table_are_of_the_rows_that_count() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, c) = in_folder(&folder, "table.csv");
    let rows = |row: fn(usize) -> String| format!("x,k,y\n{}", (0..80).map(row).collect::<String>());
    std::fs::write(&csv, rows(|i| format!("{}.5,{},{}\n", i * 7 % 80, ["a", "b"][i % 2], 1000 + i % 3))).unwrap();
    let all = ["--csv", &c, "--target", "y", "--test-fraction", "0", "--limit", "20", "--epochs", "1"];
    let text = stdout(&run(&all));
    // One epoch learns next to nothing: each of 1000, 1001 and 1002 is on average two thirds from the middle.
    assert!(text.contains("Training MAE: ") && text.contains("(20 samples)"), "{text}");
    assert!(figure(&text, "Training MAE: ") > 0.4 && figure(&text, "Guessing the median: MAE ") > 0.6, "{text}");
    let rare = |i: usize| match i {
        78.. => format!("{i}.5,,rare\n"),
        _ => format!("{i}.5,{},c{}\n", ["a", "b"][i % 2], i % 2),
    };
    std::fs::write(&csv, rows(rare)).unwrap();
    let dropped = ["--csv", &c, "--target", "y", "--missing", "drop", "--balance", "--epochs", "3"];
    for loss in ["cross_entropy", "multilabel_soft_margin", "bce_with_logits"] {
        let output = run(&[&dropped[..], &["--loss", loss]].concat());
        assert!(stdout(&output).contains("(16 samples)"), "{output:?}");
    }
}

fn tensors(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    tensors.into_iter().map(|(name, tensor)| (name, tensor.flatten_all().unwrap().to_vec1().unwrap())).collect()
}

#[test]
fn a_checkpoint_of_other_data_or_another_loss_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ((csv, c), (_, checkpoint)) = (in_folder(&folder, "table.csv"), in_folder(&folder, "checkpoint"));
    // As many rows, of which only some late ones differ.
    let table = |late: u32| {
        (0..3000u32).fold("x,y\n".to_owned(), |text, i| {
            format!("{text}{},{}\n", i * 7 % 3000, if i < 2900 { i % 20 } else { late })
        })
    };
    std::fs::write(&csv, table(5)).unwrap();
    let start = ["--csv", &c, "--target", "y", "--epochs", "1", "--test-fraction", "0"];
    stdout(&run(&[&start[..], &["--checkpoint", &checkpoint]].concat()));
    let resumed = |args: &[&str]| {
        let start = ["--csv", &c, "--target", "y", "--test-fraction", "0", "--epochs", "2", "--resume", &checkpoint];
        String::from_utf8(run(&[&start[..], args].concat()).stderr).unwrap()
    };
    assert!(resumed(&["--loss", "huber"]).contains("its --loss was mse, but is huber now"));
    assert!(!resumed(&[]).contains("error"));
    std::fs::write(&csv, table(6)).unwrap();
    let error = resumed(&[]);
    assert!(error.contains("its data was ") || error.contains("its validation part was "), "{error}");
}

/// A run that a validation part may end, interrupted anywhere and resumed: its weights, the best ones, and how long they have been
/// the best. With one step in an epoch each interruption comes at the end of one.
#[cfg(unix)]
#[test]
fn interrupted_with_a_validation_part_it_resumes_to_the_same_end() {
    for (batch_size, lr) in [("60", "2e-4"), ("10000", "1e-2")] {
        let folder = tempfile::tempdir().unwrap();
        let ((_, checkpoint), (csv, c)) = (in_folder(&folder, "checkpoint"), in_folder(&folder, "table.csv"));
        let ((whole, w), (rest, r)) = (in_folder(&folder, "whole"), in_folder(&folder, "rest"));
        let row = |i: usize| format!("{}.5,{}.5,{}\n", i * 7 % 3000, i * 13 % 101, i * 7 % 3000 / 30 + i * i % 97);
        std::fs::write(csv, format!("x,z,y\n{}", (0..6000).map(row).collect::<String>())).unwrap();
        let start = ["--csv", &c, "--target", "y", "--lr", lr, "--batch-size", batch_size, "--no-progress"];
        let with = |args: &[&str]| start.iter().chain(args).map(|&word| word.to_owned()).collect::<Vec<_>>();
        stdout(&command().args(with(&["--epochs", "600", "--save", &w])).output().unwrap());
        stdout(&command().args(with(&["--epochs", "3", "--checkpoint", &checkpoint])).output().unwrap());
        let resume = with(&["--epochs", "600", "--checkpoint", &checkpoint, "--resume", &checkpoint, "--save", &r]);
        let mut interrupted = 0;
        for round in 0..200u64 {
            let mut child = command().args(&resume).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(40 + round * 7 % 30));
            Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
            let code = child.wait().unwrap().code();
            interrupted += usize::from(code == Some(130));
            if code == Some(0) {
                break;
            }
        }
        // A run that finished as it was interrupted has written its checkpoint, and can't be resumed any more.
        let last = command().args(&resume).output().unwrap();
        let error = String::from_utf8_lossy(&last.stderr);
        let is_over = error.contains("no longer improved") || error.contains("raise --epochs");
        assert!(last.status.success() || is_over, "{error}");
        assert!(interrupted > 2, "{interrupted}");
        assert_eq!(tensors(&rest), tensors(&whole), "batches of {batch_size}");
    }
}

#[test]
fn standard_error_that_fails_is_no_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let csv = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/boston_housing.csv");
    let output = command().args(["--csv", csv, "--target", "MEDV", "--epochs", "1"]).stderr(full).output().unwrap();
    assert!(stdout(&output).contains("Test MAE"));
}

#[test]
fn a_model_is_read_from_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let (model, m) = in_folder(&folder, "model.safetensors");
    let csv = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/boston_housing.csv");
    stdout(&run(&["--csv", csv, "--target", "MEDV", "--epochs", "1", "--save", &m]));
    let predicted = |model: &str, stdin: Stdio| {
        let args = ["--csv", csv, "--init", model, "--predict", "-"];
        stdout(&command().args(args).stdin(stdin).output().unwrap())
    };
    let mut cat = Command::new("cat").arg(&model).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(predicted("/dev/stdin", cat.stdout.take().unwrap().into()), predicted(&m, Stdio::null()));
    cat.wait().unwrap();
}

/// The notes on a table, and what its rows are taken for.
fn described(text: &str, args: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (csv, c) = in_folder(&folder, "table.csv");
    std::fs::write(csv, text).unwrap();
    let output = run(&[&["--csv", &c, "--epochs", "1"], args].concat());
    stdout(&output);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_table_is_read_as_its_owner_means_it() {
    let rows = |row: &dyn Fn(usize) -> String| (0..40).map(row).collect::<String>();
    let said = described(
        &format!(
            "sep=;\nUmsatz 2024;;\nGröße;Preis;Art\n{}Summe;{},00 €;\n",
            rows(&|i| {
                format!("{},5 %;1.{:03},50 €;{}\n", i * 7 % 40, i * i % 900, ["TRUE", "true", "False"][i % 3])
            }),
            40 * 1000 + 20 + (0..40).map(|i| i * i % 900).sum::<usize>()
        ),
        &["--target", "Preis"],
    );
    for part in
        ["separated by semicolons", "comma before decimals", "above the header", "has the sums", "numbers  Größe"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(said.contains("rows  40:") && said.contains("categories  Art"), "{said}");
    let said = described(
        &format!("x,y,k\n{}", rows(&|i| format!("{}.5,{},{}\n", i * 7 % 40, i % 9, ["<NA>", "None", ".", "a"][i % 4]))),
        &["--target", "y"],
    );
    assert!(said.contains("k (all \"a\")"), "what is missing is no category: {said}");
    // A point before three digits only, where nothing else says what it is.
    let text = format!("x;y\n{}", rows(&|i| format!("{}.{:03};{}\n", 1 + i % 9, i * 37 % 1000, i % 7)));
    let said = described(&text, &["--target", "y"]);
    assert!(
        said.contains("is read as 1; --decimal point or comma")
            || said.contains("--decimal point or comma says which it is"),
        "{said}"
    );
    assert!(!described(&text, &["--target", "y", "--decimal", "comma"]).contains("--decimal"));
    let said = described(
        &format!("x,y\n{}", rows(&|i| format!("{}{},{}\n", ["$", "€"][i % 2], i * 7 % 40, i % 9))),
        &["--target", "y"],
    );
    assert!(said.contains("different units ($, €)"), "{said}");
}

#[test]
fn every_row_is_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let ((csv, c), (_, m)) = (in_folder(&folder, "table.csv"), in_folder(&folder, "model.safetensors"));
    let row = |i: usize| format!("{};{}.{:03},50;{};c{}\n", i % 7, 1 + i % 9, i * 37 % 1000, i * i % 31, i % 3);
    std::fs::write(&csv, format!("a;b;y;k\n{}", (0..60).map(row).collect::<String>())).unwrap();
    stdout(&run(&["--csv", &c, "--target", "y", "--epochs", "1", "--save", &m]));
    let predicted = |text: &str| {
        std::fs::write(&csv, text).unwrap();
        stdout(&run(&["--csv", &c, "--init", &m, "--predict", "-"])).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // The last row is the sum of the others, which only matters to training.
    assert_eq!(predicted("a;b;k\n0;1,0;c0\n1;0,0;c1\n0;0,0;c2\n1;1,0;\n").len(), 5);
    // What a column was read as is remembered: here nothing else tells that a point separates thousands.
    let last = |line: &str| line.rsplit(',').next().unwrap().to_owned();
    let (plain, decimals) = (predicted("a;b;k\n0;1.234;c0\n"), predicted("a;b;k\n0;1.234,00;c0\n"));
    assert_eq!(last(&plain[1]), last(&decimals[1]));
}

#[test]
fn a_class_that_the_model_does_not_know_is_left_out_of_the_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let ((csv, c), (_, m), (_, o)) =
        (in_folder(&folder, "table.csv"), in_folder(&folder, "model.safetensors"), in_folder(&folder, "out.csv"));
    let table = |classes: &[&str]| {
        (0..90).fold("x,k\n".to_owned(), |text, i| format!("{text}{}.5,{}\n", i * 7 % 90, classes[i % classes.len()]))
    };
    std::fs::write(&csv, table(&["a", "b", "c"])).unwrap();
    stdout(&run(&["--csv", &c, "--target", "k", "--epochs", "1", "--save", &m]));
    std::fs::write(&csv, table(&["a", "d"])).unwrap();
    let output = run(&["--csv", &c, "--init", &m, "--predict", &o]);
    assert!(stdout(&output).contains("(45 samples)"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("45 rows have a k that the model does not know"));
    // Fewer classes than the weights of --init were trained for, each with its weight.
    std::fs::write(&csv, table(&["b", "c"])).unwrap();
    stdout(&run(&["--csv", &c, "--target", "k", "--init", &m, "--balance", "--epochs", "1"]));
}
