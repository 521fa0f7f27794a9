//! `berth-monitor --dir DIR [--cgroup PATH] [--detach]`: parent of all processes of one pod.

use std::ffi::OsString;
use std::process::ExitCode;

use berth_monitor::protocol;
use berth_monitor::start::{self, Options};
use berth_sys::fork_alloc::ForkSafe;

/// The log thread may hold the heap's lock while a container is cloned.
#[global_allocator]
static ALLOCATOR: ForkSafe = ForkSafe;

const USAGE: &str = "usage: berth-monitor --dir DIR [--cgroup PATH] [--detach] | --version";

fn main() -> ExitCode {
    let options = match parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!(
                "berth-monitor {} protocol {}",
                env!("CARGO_PKG_VERSION"),
                protocol::VERSION
            );
            return ExitCode::SUCCESS;
        }
        Err(reason) => {
            eprintln!("berth-monitor: {reason}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    match start::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-monitor: {}", start::explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// `None` asks for the version.
fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut arguments = arguments;
    let mut directory = None;
    let mut cgroup = None;
    let mut detach = false;
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy().into_owned();
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{text} needs a value"))
        };
        match text.as_str() {
            "--dir" => directory = Some(value()?.into()),
            "--cgroup" => cgroup = Some(value()?.into()),
            "--detach" => detach = true,
            "--version" => return Ok(None),
            _ => return Err(format!("unknown argument `{text}`")),
        }
    }
    let directory: std::path::PathBuf = directory.ok_or("--dir is missing")?;
    if !directory.is_absolute() {
        return Err("--dir must be an absolute path".to_owned());
    }
    Ok(Some(Options {
        directory,
        cgroup,
        detach,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read() {
        let read = |line: &str| parse(line.split_whitespace().map(OsString::from));
        let options = read("--dir /d --cgroup a/b --detach").unwrap().unwrap();
        assert_eq!(options.directory.as_os_str(), "/d");
        assert_eq!(options.cgroup.unwrap().as_os_str(), "a/b");
        assert!(options.detach);
        assert!(read("--version").unwrap().is_none());
        for line in ["", "--dir", "--dir relative", "--what"] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
