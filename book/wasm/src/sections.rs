//! The examples of the sections, unchanged but for what they use of a terminal ([`crate::cli`]).

/// A section's example.
pub struct Section {
    pub name: &'static str,
    pub main: fn() -> std::process::ExitCode,
}

include!(concat!(env!("OUT_DIR"), "/sections.rs"));
