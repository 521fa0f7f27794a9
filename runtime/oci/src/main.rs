//! `berth-oci`: the OCI runtime's command line.

mod cli;
mod commands;
mod log;
mod probe;

use std::ffi::OsString;
use std::process::ExitCode;

use berth_oci::fault;
use cli::Request;

/// Every command line lives for a moment, in one thread.
#[global_allocator]
static HEAP: berth_sys::heap::Heap = berth_sys::heap::Heap::new();

/// What a wrong command line ends with.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Inside of a sandbox there is nothing to log and nothing to withhold.
    if let Some(code) = probe::run_if_asked() {
        return code;
    }
    // What comes before this is done twice; a word that is no verb does no harm. What fails is told
    // below, where the verb is known.
    let makes = |word: OsString| ["create", "run", "exec"].iter().any(|verb| word == *verb);
    let shielded = std::env::args_os().any(makes) && shield().is_ok();
    let mut global = cli::Global::default();
    let cli = match cli::parse(std::env::args_os().skip(1), &mut global) {
        Ok(Request::Run(cli)) => cli,
        Ok(Request::Version) => {
            println!("{}", cli::version());
            return ExitCode::SUCCESS;
        }
        Ok(Request::Help(verb)) => return help(verb.as_deref()),
        Err(error) => return misused(&global, &error),
    };
    let log = match log::Log::open(&cli.global) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("berth-oci: cannot open the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = withhold(&cli.command, shielded) {
        log.error(&format!(
            "cannot withhold the runtime's own files from containers: {error}"
        ));
        return ExitCode::FAILURE;
    }
    match commands::run(&cli, &log) {
        Ok(code) => code,
        Err(failure) => {
            log.error(&failure.to_string());
            failure.exit_code()
        }
    }
}

/// Tells a wrong command line, also to the log if that is named before.
fn misused(global: &cli::Global, error: &cli::UsageError) -> ExitCode {
    match log::Log::open(global) {
        Ok(log) => log.error(&error.to_string()),
        Err(_) => eprintln!("berth-oci: {error}"), // worth more than why there is no log
    }
    let verb = error.verb().map(|verb| format!(" {verb}"));
    eprintln!("See `berth-oci help{}`.", verb.unwrap_or_default());
    ExitCode::from(USAGE)
}

fn help(verb: Option<&str>) -> ExitCode {
    match cli::help(verb) {
        Some(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("berth-oci: unknown verb `{}`", verb.unwrap_or_default());
            ExitCode::from(USAGE)
        }
    }
}

/// Keeps what only the runtime and its caller may have from containers and hooks: the program
/// itself (CVE-2019-5736), unless it is `shielded` already, and descriptors that the caller left open.
/// Verbs that make processes know themselves which of those to preserve.
fn withhold(command: &cli::Command, shielded: bool) -> std::io::Result<()> {
    match command.makes_processes() {
        true if shielded => Ok(()),
        true => shield(),
        false => berth_sys::process::close_on_exec_from(3),
    }
}

fn shield() -> std::io::Result<()> {
    if fault::is(fault::defence::PROGRAM) {
        return Ok(());
    }
    berth_sys::program::shield()
}
