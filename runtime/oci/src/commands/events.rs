//! `events`: what a container uses, once or again and again, and when it ran out of memory.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_oci::cgroup::{Cgroup, Usage};
use berth_oci::state::{Status, Store};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde_json::json;

use super::{Failure, cgroup};
use crate::cli::EventsArgs;

pub(super) fn run(store: &Store, args: &EventsArgs) -> Result<ExitCode, Failure> {
    let interval = duration(&args.interval)
        .ok_or_else(|| Failure::Usage(format!("--interval `{}` is no time", args.interval)))?;
    let record = store.load(&args.id)?;
    let status = store.status(&record)?;
    let init = record
        .init()
        .map_err(Failure::io("find the container's init"))?;
    let Some(init) = init else {
        return Err(Failure::wrong_status(
            "tell the events of",
            &args.id,
            status,
        ));
    };
    let group = cgroup(&record)?;
    if args.stats {
        print_usage(&args.id, &group);
        return Ok(ExitCode::SUCCESS);
    }
    let mut kills = group.oom_kills().unwrap_or(0);
    let memory = group.watch("memory.events").ok();
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            print_usage(&args.id, &group);
            next += interval;
        }
        let mut fds = vec![PollFd::new(&init, PollFlags::IN)];
        fds.extend(memory.iter().map(|file| PollFd::new(file, PollFlags::PRI)));
        let ended = wait(&mut fds, next.saturating_duration_since(Instant::now()))
            .map_err(Failure::io("wait for events"))?;
        let now = group.oom_kills().unwrap_or(kills);
        for _ in kills..now {
            println!("{}", json!({"type": "oom", "id": args.id}));
        }
        kills = now;
        if ended
            || store
                .status(&record)
                .is_ok_and(|status| status == Status::Stopped)
        {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn print_usage(id: &str, group: &Cgroup) {
    let data = Usage::read(group);
    println!("{}", json!({"type": "stats", "id": id, "data": data}));
}

/// Waits for an event; true when the first descriptor, init's, is ready: it has ended.
fn wait(fds: &mut [PollFd<'_>], time: Duration) -> Result<bool, std::io::Error> {
    let time = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    match rustix::event::poll(fds, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty()))
}

/// A time as Go writes it: numbers with units, `1h30m`, `1.5s`, `500ms`; above zero.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_as_in_go() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1.5s", 1500),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for text in ["", "5", "0s", "-1s", "s", "5 s", "1y"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
