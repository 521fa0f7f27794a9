//! `berth-oci`: the OCI runtime's command line.

mod cli;
mod commands;
mod log;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let log = match log::Log::open(&cli) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("berth-oci: cannot open the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    match commands::run(&cli, &log) {
        Ok(code) => code,
        Err(failure) => {
            log.error(&failure.to_string());
            failure.exit_code()
        }
    }
}
