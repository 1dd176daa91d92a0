//! Takes the examples of the sections as they stand, each as a module, so that what a page trains is what `cargo run` does:
//! only what they use of a terminal is that of the browser.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// In the order of the book.
const SECTIONS: [&str; 23] = [
    "bce",
    "bce_with_logits",
    "nll",
    "cross_entropy",
    "poisson_nll",
    "gaussian_nll",
    "hinge_embedding",
    "soft_margin",
    "multi_margin",
    "multilabel_soft_margin",
    "kl_div",
    "l1",
    "mse",
    "smooth_l1",
    "huber",
    "multilabel_margin",
    "margin_ranking",
    "cosine_embedding",
    "triplet_margin",
    "triplet_margin_with_distance",
    "ctc",
    "linear_cross_entropy",
    "adaptive_log_softmax",
];

fn main() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut modules = String::new();
    let mut table = String::new();
    for name in SECTIONS {
        let path = examples.join(format!("{name}.rs"));
        println!("cargo::rerun-if-changed={}", path.display());
        let source = std::fs::read_to_string(&path).expect("an example of each section");
        // A module inside of another has no first lines of its own, and no allocator.
        let lines = source.lines().filter(|line| !line.starts_with("//!") && *line != "mod common;");
        let source = lines.collect::<Vec<_>>().join("\n");
        let source = source.replace("candle_losses::cli", "crate::cli").replace("fn main()", "pub fn main()");
        writeln!(modules, "mod {name} {{\n{source}\n}}").expect("a string takes all");
        writeln!(table, "    Section {{ name: {name:?}, main: {name}::main }},").expect("a string takes all");
    }
    let generated = format!("{modules}\npub const SECTIONS: &[Section] = &[\n{table}];\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by cargo")).join("sections.rs");
    std::fs::write(out, generated).expect("OUT_DIR can be written");
}
