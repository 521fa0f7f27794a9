//! How many system calls and processes a case costs, by strace.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::runtime::Runtime;

/// Calls by which a process or a thread begins.
const BIRTHS: [&str; 4] = ["clone", "clone3", "fork", "vfork"];
const SUMMARIES_WITHIN: Duration = Duration::from_secs(10);

/// What strace counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// System calls of every process.
    pub calls: u64,
    /// Processes and threads, with the command lines themselves.
    pub processes: u64,
}

/// Counts what `case` costs, which runs `lines` command lines.
///
/// The tracer goes to the background (`-D`): `create` must return while its container waits.
pub fn of(
    runtime: &Runtime,
    folder: &Path,
    lines: u64,
    case: impl Fn(&Runtime) -> Result<()>,
) -> Result<Counts> {
    let file = folder.join("strace");
    fs::write(&file, "")?;
    let path = file.display().to_string();
    let flags = ["-D", "-f", "-c", "-U", "calls,name", "-A", "-o", &path];
    case(&runtime.under(&[&["strace"], &flags[..]].concat()))?;
    let deadline = Instant::now() + SUMMARIES_WITHIN;
    loop {
        let text = fs::read_to_string(&file)?;
        if let Some(counts) = sum(&text, lines) {
            return Ok(counts);
        }
        if Instant::now() > deadline {
            bail!("strace wrote fewer than {lines} summaries");
        }
        sleep(Duration::from_millis(20));
    }
}

/// The sum of `lines` summaries; `None` while one is missing.
fn sum(text: &str, lines: u64) -> Option<Counts> {
    let mut counts = Counts::default();
    let mut summaries = 0;
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let (Some(number), Some(name)) = (fields.next(), fields.next()) else {
            continue;
        };
        let Ok(number) = number.parse::<u64>() else {
            continue;
        };
        if name == "total" {
            summaries += 1;
            counts.calls += number;
        } else if BIRTHS.contains(&name) {
            counts.processes += number;
        }
    }
    counts.processes += lines;
    (summaries == lines).then_some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_summaries_of_strace() {
        let one = "calls syscall\n--------- ----------------\n  7 read\n  2 clone3\n\
                   --------- ----------------\n  9 total\n";
        assert_eq!(sum(one, 2), None);
        let both = sum(&one.repeat(2), 2);
        assert_eq!(
            both,
            Some(Counts {
                calls: 18,
                processes: 6
            })
        );
    }
}
