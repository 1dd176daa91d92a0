//! What the README promises is there, and what is there is in the README.

use std::collections::BTreeSet;
use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn examples() -> BTreeSet<String> {
    let folder = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let names = files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    names.chain(["own_table".to_owned()]).collect()
}

#[test]
fn every_example_has_its_row_and_every_row_its_example() {
    let readme = read("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| [`")?.split_once("`](examples/"));
    let rows = rows.map(|(name, rest)| {
        let file = if name == "own_table" { "own_table/own_table.rs)".into() } else { format!("{name}.rs)") };
        assert!(rest.starts_with(&file), "the row of {name} links to another example");
        name.to_owned()
    });
    assert_eq!(rows.collect::<BTreeSet<_>>(), examples());
}

#[test]
fn every_picture_is_shown_and_every_loss_has_its_two() {
    let readme = read("README.md");
    let folder = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets")).unwrap();
    let files = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>();
    let pictures = files.iter().filter(|file| file.ends_with(".svg")).cloned().collect::<BTreeSet<_>>();
    let shown = readme.split("assets/").skip(1).filter_map(|rest| rest.split([')', '"']).next());
    let shown = shown.filter(|file| file.ends_with(".svg")).map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(shown, pictures);
    let without = ["gallery", "own_model", "own_table", "sections"];
    for name in examples().into_iter().filter(|name| !without.contains(&name.as_str())) {
        assert!(pictures.contains(&format!("{name}.svg")), "{name} has no picture");
        let trains = !name.starts_with("compare_");
        assert_eq!(pictures.contains(&format!("{name}_training.svg")), trains, "{name}");
        assert_eq!(pictures.contains(&format!("{name}_thumbnail.svg")), trains, "{name}");
    }
}

#[test]
fn every_example_says_first_what_it_shows() {
    for name in examples() {
        let source = read(&format!(
            "examples/{}",
            if name == "own_table" { "own_table/own_table.rs".into() } else { format!("{name}.rs") }
        ));
        assert!(source.starts_with("//! "), "{name} has no opening line");
        let says = |end: &str| source.contains(&format!("//!     cargo run --example {name}{end}"));
        assert!(says("\n") || says(" -- "), "{name} does not say how it is run");
    }
}

#[test]
fn nothing_is_left_to_be_filled_in() {
    let readme = read("README.md");
    let is_blank = |word: &&str| word.contains('_') && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let words = readme.split(|c: char| !c.is_alphanumeric() && c != '_');
    let blanks = words
        .filter(is_blank)
        // The last marks what the book takes from the README.
        .filter(|word| !["CANDLE_LOSSES_DEVICE", "CANDLE_LOSSES_KERNELS", "NO_COLOR", "ANCHOR_END"].contains(word));
    assert_eq!(blanks.collect::<Vec<_>>(), [""; 0]);
    assert!(readme.contains("assets/speed.svg"), "the section on speed is empty: make bench-vs-pytorch");
}

#[test]
fn every_loss_is_named() {
    let (readme, losses) = (read("README.md"), read("src/loss/mod.rs"));
    let exports = losses.lines().filter_map(|line| line.strip_prefix("pub use "));
    let words = exports.flat_map(|line| line.split(|c: char| !c.is_alphanumeric()));
    let names = words.filter(|word| word.ends_with("Loss")).collect::<BTreeSet<_>>();
    assert_eq!(names.len(), 23);
    let from_pytorch = readme.lines().filter(|line| line.starts_with("| `nn.")).collect::<Vec<_>>();
    assert_eq!(from_pytorch.len(), 23);
    for name in names {
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README");
        let is_this = |line: &&&str| line.contains(&format!("| `{name} {{")) || line.contains(&format!("| `{name}::"));
        assert_eq!(from_pytorch.iter().filter(is_this).count(), 1, "{name} in the table from PyTorch");
    }
}
