//! Sections: every example that trains one loss, one after the other, and what each reports at its end.
//!
//! The options go to every example; an option that one of them lacks is an error. The book uses the same list.
//!
//!     cargo run --example sections -- --limit 640 --epochs 1

pub mod adaptive_log_softmax;
pub mod bce;
pub mod bce_with_logits;
pub mod cosine_embedding;
pub mod cross_entropy;
pub mod ctc;
pub mod gaussian_nll;
pub mod hinge_embedding;
pub mod huber;
pub mod kl_div;
pub mod l1;
pub mod linear_cross_entropy;
pub mod margin_ranking;
pub mod mse;
pub mod multi_margin;
pub mod multilabel_margin;
pub mod multilabel_soft_margin;
pub mod nll;
pub mod poisson_nll;
pub mod smooth_l1;
pub mod soft_margin;
pub mod triplet_margin;
pub mod triplet_margin_with_distance;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use std::ffi::OsString;
use suite::{Ui, parse_arguments, run};

/// An example that trains one loss.
pub struct Section {
    /// The name of the example.
    pub name: &'static str,
    /// Its options.
    pub command: fn() -> Command,
    /// Runs it with these arguments, the first of which is a name.
    pub run: fn(Vec<OsString>, &Ui) -> Result<()>,
}

macro_rules! section {
    ($name:ident) => {
        section!($name, Options)
    };
    ($name:ident, $options:ident) => {
        Section {
            name: stringify!($name),
            command: $name::$options::command,
            run: |arguments, ui| $name::example(parse_arguments::<$name::$options>(arguments)?, ui),
        }
    };
}

/// In the order of the book.
pub static SECTIONS: [Section; 23] = [
    section!(bce),
    section!(bce_with_logits),
    section!(nll),
    section!(cross_entropy),
    section!(poisson_nll),
    section!(gaussian_nll),
    section!(hinge_embedding),
    section!(soft_margin),
    section!(multi_margin),
    section!(multilabel_soft_margin),
    section!(kl_div),
    section!(l1),
    section!(mse),
    section!(smooth_l1),
    section!(huber),
    section!(multilabel_margin),
    section!(margin_ranking),
    section!(cosine_embedding),
    section!(triplet_margin),
    section!(triplet_margin_with_distance),
    section!(ctc),
    section!(linear_cross_entropy, Arguments),
    section!(adaptive_log_softmax, Arguments),
];

#[derive(clap::Parser)]
#[command(about = "Sections: every example that trains one loss, one after the other")]
pub struct Options {
    /// Options of the examples, such as --limit 640 --epochs 1
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

pub fn example(Options { options }: Options, ui: &Ui) -> Result<()> {
    for section in &SECTIONS {
        ui.print(&format!("== {}", section.name))?;
        let arguments = [OsString::from(section.name)].into_iter().chain(options.clone());
        (section.run)(arguments.collect(), ui).with_context(|| section.name)?;
    }
    Ok(())
}

pub fn main() -> std::process::ExitCode {
    run(example)
}
