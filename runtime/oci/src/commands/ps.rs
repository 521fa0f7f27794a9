//! `ps`: the processes of a container.

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};

use berth_oci::state::{Status, Store};

use super::{Failure, cgroup};
use crate::cli::{OutputFormat, PsArgs};

/// What ps(1) is asked for where the caller names nothing.
const DEFAULT_OPTIONS: [&str; 1] = ["-ef"];

pub(super) fn run(store: &Store, args: &PsArgs) -> Result<ExitCode, Failure> {
    let record = store.load(&args.id)?;
    let status = store.status(&record)?;
    if status == Status::Stopped {
        return Err(Failure::wrong_status("ps", &args.id, status));
    }
    let pids = match record.cgroup {
        Some(_) => cgroup(&record)?.all_processes()?,
        None => vec![record.pid],
    };
    match args.format {
        OutputFormat::Json => println!("{}", serde_json::Value::from(pids)),
        OutputFormat::Table => {
            let pids = pids.into_iter().collect();
            print!("{}", select(&ps(&args.options)?, &pids)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The output of ps(1) with the caller's options.
fn ps(options: &[String]) -> Result<String, Failure> {
    let mut command = Command::new("ps");
    if options.is_empty() {
        command.args(DEFAULT_OPTIONS);
    } else {
        command.args(options);
    }
    let output = command.output().map_err(Failure::io("execute `ps`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::Usage(format!("`ps` failed: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The heading and the lines whose column PID is one of `pids`.
fn select(output: &str, pids: &BTreeSet<i32>) -> Result<String, Failure> {
    let mut lines = output.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading
        .split_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Failure::Usage("the output of `ps` has no column PID".into()))?;
    let ours = lines.filter(|line| {
        let pid = line.split_whitespace().nth(column);
        pid.and_then(|pid| pid.parse().ok())
            .is_some_and(|pid| pids.contains(&pid))
    });
    Ok(std::iter::once(heading)
        .chain(ours)
        .flat_map(|line| [line, "\n"])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn only_the_containers_lines_are_kept() {
        let output = "UID PID PPID CMD\nroot 7 1 a\nroot 71 7 b\nme 8 7 c 71\n";
        let kept = select(output, &[7, 8].into()).unwrap();
        assert_eq!(kept, "UID PID PPID CMD\nroot 7 1 a\nme 8 7 c 71\n");
        assert!(select("A B\n", &[7].into()).is_err());
    }
}
