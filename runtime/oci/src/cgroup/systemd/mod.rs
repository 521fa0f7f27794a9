//! systemd as the maker of a container's group: a transient scope, as runc asks for it (docs/adr/0014).
//!
//! A scope lives as long as it has processes, and is made of one that exists. So a placeholder of
//! ours is what it is made of, and goes once the container's first process was born into the group.
//! The limits are given as properties too: systemd would reset them otherwise at its next reload.

mod bus;
mod message;

use std::io;
use std::path::{Path, PathBuf};

use berth_sys::process::{self, Child, CloneArgs};

use super::CgroupError;
use super::resources::{self, Setting};
use crate::spec::config::LinuxResources;
use bus::Bus;
use message::{Value, Writer};

/// Why systemd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// Nobody listens on its socket.
    #[error("it does not run here: nothing listens on `{}`", bus::SOCKET)]
    NotRunning,
    /// The connection failed.
    #[error("the talk with it failed")]
    Talk(#[source] io::Error),
    /// It answered with what is no answer.
    #[error("its answer makes no sense")]
    Nonsense,
    /// It refused a call.
    #[error("{said} ({name})")]
    Refused {
        /// The error's name.
        name: String,
        /// Its words.
        said: String,
    },
    /// A job did not end as it should.
    #[error("the job ended as `{0}`")]
    Job(String),
    /// The process that a scope is made of cannot be made.
    #[error("cannot make the scope's first process")]
    Placeholder(#[source] io::Error),
}

/// A scope below a slice, by the `slice:prefix:name` of `linux.cgroupsPath`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The slice, such as `system.slice`.
    slice: String,
    /// The unit, such as `docker-0123.scope`.
    unit: String,
}

impl Scope {
    /// Whether systemd is PID 1 here, and lets this process talk to it.
    pub fn is_available() -> bool {
        rustix::fs::access(bus::SOCKET, rustix::fs::Access::WRITE_OK).is_ok()
    }

    /// Reads `slice:prefix:name`; an empty slice is `system.slice`, the unit `prefix-name.scope`.
    pub fn parse(text: &str) -> Result<Scope, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(format!("`{text}` is not slice:prefix:name"));
        };
        let slice = if slice.is_empty() {
            "system.slice"
        } else {
            slice
        };
        let bare = slice.strip_suffix(".slice");
        let bare = bare.filter(|bare| plain(bare) || *bare == "-");
        if bare.is_none_or(|bare| bare != "-" && bare.split('-').any(str::is_empty)) {
            return Err(format!("`{slice}` is not the name of a slice"));
        }
        let unit = match prefix {
            "" => format!("{name}.scope"),
            prefix => format!("{prefix}-{name}.scope"),
        };
        if name.is_empty() || name.ends_with(".slice") || !plain(&unit) || unit.len() > 255 {
            return Err(format!("`{prefix}:{name}` names no scope"));
        }
        Ok(Scope {
            slice: slice.to_owned(),
            unit,
        })
    }

    /// The unit's name.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Where systemd puts the group, relative to the hierarchy: `a-b.slice` lies in `a.slice`
    /// (systemd.slice(5)).
    pub fn path(&self) -> PathBuf {
        let bare = self.slice.strip_suffix(".slice").unwrap_or(&self.slice);
        let mut path = PathBuf::new();
        if bare != "-" {
            for (at, _) in bare.match_indices('-') {
                path.push(format!("{}.slice", &bare[..at]));
            }
            path.push(&self.slice);
        }
        path.join(&self.unit)
    }

    /// Makes the scope with these limits. It stays while the returned process, or another, is in it.
    pub fn start(&self, resources: &LinuxResources) -> Result<Placeholder, CgroupError> {
        let settings = resources::settings(resources)?;
        let placeholder = Placeholder::start().map_err(SystemdError::Placeholder)?;
        let mut properties = vec![
            (
                "Description",
                Value::Text(format!("berth container {}", self.unit)),
            ),
            ("Slice", Value::Text(self.slice.clone())),
            ("PIDs", Value::Numbers(vec![placeholder.0.pid() as u32])),
            ("DefaultDependencies", Value::Bool(false)),
            ("Delegate", Value::Bool(true)),
        ];
        let accounting = [
            "CPUAccounting",
            "IOAccounting",
            "MemoryAccounting",
            "TasksAccounting",
        ];
        properties.extend(accounting.map(|name| (name, Value::Bool(true))));
        properties.extend(limits(&settings));
        let mut bus = Bus::open(Path::new(bus::SOCKET))?;
        let job = start_unit(&mut bus, &self.unit, &properties)?;
        bus.wait_for_job(&job)?;
        Ok(placeholder)
    }

    /// Tells systemd of other limits; the group's files are written besides.
    pub fn update(unit: &str, resources: &LinuxResources) -> Result<(), CgroupError> {
        let settings = resources::settings(resources)?;
        let mut body = Writer::default();
        body.text(unit);
        body.bool(true); // until the next boot, as the scope itself
        body.properties(&limits(&settings));
        Bus::open(Path::new(bus::SOCKET))?.call("SetUnitProperties", "sba(sv)", &body)?;
        Ok(())
    }

    /// Ends the scope with all in it; one that is gone already is fine.
    pub fn stop(unit: &str) -> Result<(), CgroupError> {
        let mut bus = Bus::open(Path::new(bus::SOCKET))?;
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        match bus.call("StopUnit", "ss", &body) {
            Ok(job) => bus.wait_for_job(&job)?,
            Err(SystemdError::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => {}
            Err(error) => return Err(error.into()),
        }
        // A scope whose processes were killed is remembered as failed, and its name stays taken.
        let mut body = Writer::default();
        body.text(unit);
        let _ = bus.call("ResetFailedUnit", "s", &body); // NoSuchUnit where it was not
        Ok(())
    }
}

fn plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.@:\\".contains(c);
    !name.is_empty() && name.chars().all(allowed)
}

/// `StartTransientUnit(s name, s mode, a(sv) properties, a(sa(sv)) aux)`
fn start_unit(
    bus: &mut Bus,
    unit: &str,
    properties: &[(&str, Value)],
) -> Result<Vec<u8>, SystemdError> {
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    body.properties(properties);
    body.array(8, |_| {});
    bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)
}

/// The limits that systemd knows too, by the names of systemd.resource-control(5).
fn limits(settings: &[Setting]) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    for setting in settings {
        let number = || match setting.value.as_str() {
            "max" => Some(u64::MAX),
            text => text.parse().ok(),
        };
        let property = match setting.file.as_str() {
            "memory.max" => "MemoryMax",
            "memory.low" => "MemoryLow",
            "memory.swap.max" => "MemorySwapMax",
            "cpu.weight" => "CPUWeight",
            "pids.max" => "TasksMax",
            "cpu.max" => {
                out.extend(quota(&setting.value));
                continue;
            }
            "cpuset.cpus" => {
                out.extend(mask(&setting.value).map(|mask| ("AllowedCPUs", Value::Bytes(mask))));
                continue;
            }
            "cpuset.mems" => {
                let mask = mask(&setting.value);
                out.extend(mask.map(|mask| ("AllowedMemoryNodes", Value::Bytes(mask))));
                continue;
            }
            _ => continue,
        };
        out.extend(number().map(|number| (property, Value::U64(number))));
    }
    out
}

/// `quota period` in µs as µs a second, in whole steps of 10 ms, as systemd keeps it.
fn quota(value: &str) -> Vec<(&'static str, Value)> {
    const DEFAULT_PERIOD: u64 = 100_000;
    const STEP: u64 = 10_000;
    let mut words = value.split(' ');
    let quota: Option<u64> = words.next().and_then(|word| word.parse().ok());
    let period = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(DEFAULT_PERIOD);
    let a_second = quota.map_or(u64::MAX, |quota| {
        (quota.saturating_mul(1_000_000) / period.max(1)).next_multiple_of(STEP)
    });
    vec![
        ("CPUQuotaPerSecUSec", Value::U64(a_second)),
        ("CPUQuotaPeriodUSec", Value::U64(period)),
    ]
}

/// A list such as `0-2,7` as bits, the first byte for 0 to 7.
fn mask(list: &str) -> Option<Vec<u8>> {
    const MOST: usize = 8192;
    let mut bits = Vec::new();
    for part in list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        for bit in first..=last.min(MOST) {
            if bits.len() <= bit / 8 {
                bits.resize(bit / 8 + 1, 0u8);
            }
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    Some(bits)
}

/// A process that only waits, and ends with this handle or with its maker.
#[derive(Debug)]
pub struct Placeholder(Child);

impl Placeholder {
    fn start() -> io::Result<Placeholder> {
        let parent = rustix::process::getpid();
        process::clone_with(&CloneArgs::default(), || {
            let kill = rustix::process::Signal::KILL;
            let bound = rustix::process::set_parent_process_death_signal(Some(kill));
            while bound.is_ok() && rustix::process::getppid() == Some(parent) {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
            0
        })
        .map(Placeholder)
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        let _ = process::pidfd_send_signal(self.0.pidfd(), libc::SIGKILL);
        let _ = process::wait(self.0.pidfd());
    }
}

#[cfg(test)]
mod tests;
