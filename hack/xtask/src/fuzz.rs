//! `cargo xtask fuzz`: random input for a parser or a compiler, for as long as asked.
//!
//! The targets are unit tests of their crate which proptest drives: no sanitizer and no nightly
//! toolchain are needed, and what they find is minimised and printed.

use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::{Args, ValueEnum};

/// What is fuzzed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Target {
    /// config.json → plan
    Spec,
    /// The reader of JSON against serde_json
    Json,
    /// The option words of a mount
    MountOptions,
    /// Id mappings
    IdMaps,
    /// The seccomp compiler against a direct reading of the profile
    Seccomp,
    /// The record of a container's state
    State,
}

/// Options of `fuzz`.
#[derive(Debug, Args)]
pub struct Options {
    /// What to fuzz
    #[arg(value_enum)]
    target: Target,
    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Runs one target; fails with what it found.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let name = match options.target {
        Target::Spec => "fuzz_spec",
        Target::Json => "fuzz_json",
        Target::MountOptions => "fuzz_mount_options",
        Target::IdMaps => "fuzz_id_maps",
        Target::Seccomp => "fuzz_seccomp",
        Target::State => "fuzz_state",
    };
    let status = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "--package", "berth-oci", "--lib", name])
        .env("BERTH_FUZZ_SECONDS", options.seconds.to_string())
        .status()
        .context("cannot run cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
