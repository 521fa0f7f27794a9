//! One container of `/bin/true` under berth-oci, crun and runc.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::floor::Floor;
use super::monitor::Monitor;
use super::runtime::Runtime;
use super::sample::Comparison;
use super::{Terms, counts, hierarchy, stages};
use crate::cache::Cache;
use crate::signal::Interrupts;
use crate::{bundle, peers};

/// A named operation, and how many command lines it is.
struct Case {
    name: &'static str,
    lines: u64,
    run: fn(&Runtime, &Bundles) -> Result<()>,
}

const BRIEF: [Case; 2] = [
    Case {
        name: "create+start+delete",
        lines: 3,
        run: |runtime, bundles| runtime.three_processes(&bundles.brief),
    },
    Case {
        name: "run",
        lines: 1,
        run: |runtime, bundles| runtime.run(&bundles.brief),
    },
];

const EXEC: Case = Case {
    name: "exec",
    lines: 1,
    run: |runtime, _| runtime.exec(),
};

/// What the heavy container has more than the plain one.
const MOUNTS: usize = 64;
const RULES: usize = 400;
/// The calls that its rules are about, in turn, each time with another argument.
const RULED: [&str; 20] = [
    "accept4",
    "bind",
    "chmod",
    "chown",
    "connect",
    "dup2",
    "fchmod",
    "fchown",
    "flock",
    "ftruncate",
    "getpriority",
    "kill",
    "lseek",
    "madvise",
    "mkdir",
    "mremap",
    "prctl",
    "rename",
    "setpriority",
    "socket",
];

/// Bundles over one root file system.
struct Bundles {
    rootfs: PathBuf,
    /// The process ends at once.
    brief: PathBuf,
    /// As brief, with many mounts and a long seccomp profile.
    heavy: PathBuf,
    /// The process stays.
    lasting: PathBuf,
    /// The process prints which cgroups it is in.
    telling: PathBuf,
    /// What their specifications are made from.
    specification: Value,
}

/// berth and a peer under the same terms.
struct Sides<'a> {
    folder: &'a Path,
    bundles: &'a Bundles,
    ours: Runtime,
    theirs: Runtime,
    note: String,
}

/// Measures every case against every peer and tells each result as soon as it is known.
pub fn run(
    programs: &Path,
    terms: &Terms,
    mut tell: impl FnMut(&Comparison) -> Result<()>,
) -> Result<()> {
    let cache = Cache::open()?;
    let mut interrupts = Interrupts::take()?;
    let floor = Floor::build()?;
    let hierarchy = hierarchy::unify()?;
    let folder = tempfile::Builder::new().prefix("berth-bench-").tempdir()?;
    let bundles = make_bundles(folder.path())?;
    // as /run is on a host with an init: a disk's journal is not what is compared
    let state = tempfile::Builder::new()
        .prefix("berth-bench-")
        .tempdir_in("/dev/shm")?;
    for peer in [peers::crun(&cache)?, peers::runc(&cache)?] {
        let mut sides = Sides {
            folder: folder.path(),
            bundles: &bundles,
            ours: Runtime::new(programs.join("berth-oci"), state.path())?,
            theirs: Runtime::new(peer.program(peer.name), state.path())?,
            note: String::new(),
        };
        sides.note = format!("cgroups: {hierarchy}; {}", sides.cgroups()?);
        if terms.counts {
            let parts = stages::of(&sides.ours, &bundles.brief, terms.pairs)?;
            sides.note.push_str(&format!("; a create in ms: {parts}"));
        }
        for case in &BRIEF {
            tell(&sides.compare(case, terms, &mut interrupts)?)?;
        }
        tell(&sides.heavy(terms, &mut interrupts)?)?;
        tell(&sides.bare_run(&floor, terms, &mut interrupts)?)?;
        let pod = state.path().join(format!("pod-beside-{}", peer.name));
        fs::create_dir(&pod)?;
        let mut monitor = Monitor::start(programs, &pod, &bundles.specification)?;
        let started = terms.pairs(&mut interrupts, || {
            let theirs = sides.theirs.two_processes(&bundles.brief)?;
            Ok((monitor.container()?, theirs))
        })?;
        tell(&sides.comparison("start-in-monitor", started, String::new()))?;
        let _ours = sides.ours.lasting(&bundles.lasting)?;
        let theirs = sides.theirs.lasting(&bundles.lasting)?;
        tell(&sides.compare(&EXEC, terms, &mut interrupts)?)?;
        tell(&sides.bare_exec(&floor, theirs.pid(), terms, &mut interrupts)?)?;
        let executed = terms.pairs(&mut interrupts, || {
            Ok((monitor.exec()?, sides.theirs.exec_detached()?))
        })?;
        tell(&sides.comparison("exec-in-monitor", executed, String::new()))?;
    }
    Ok(())
}

impl Sides<'_> {
    /// In which group each side put its container, as the container sees it.
    fn cgroups(&self) -> Result<String> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let told: Result<Vec<String>> = [&self.ours, &self.theirs]
            .into_iter()
            .map(|runtime| {
                let name = &runtime.name;
                let text = runtime.output(&self.bundles.telling)?;
                let groups = groups_made(&own, &text);
                Ok(format!("{name} made {groups}"))
            })
            .collect();
        Ok(told?.join(", "))
    }

    fn compare(
        &self,
        case: &Case,
        terms: &Terms,
        interrupts: &mut Interrupts,
    ) -> Result<Comparison> {
        let measure = |runtime: &Runtime| timed(|| (case.run)(runtime, self.bundles));
        let measured = terms.pairs(interrupts, || {
            Ok((measure(&self.ours)?, measure(&self.theirs)?))
        })?;
        let mut counted = String::new();
        if terms.counts {
            for runtime in [&self.ours, &self.theirs] {
                let run = |runtime: &Runtime| (case.run)(runtime, self.bundles);
                let counts = counts::of(runtime, self.folder, case.lines, run)?;
                counted.push_str(&format!(
                    "; {}: {} system calls, {} processes and threads",
                    runtime.name, counts.calls, counts.processes
                ));
            }
        }
        Ok(self.comparison(case.name, measured, counted))
    }

    /// The container with many mounts and rules, against the one without.
    fn heavy(&self, terms: &Terms, interrupts: &mut Interrupts) -> Result<Comparison> {
        let measured = terms.pairs(interrupts, || {
            let heavy = timed(|| self.ours.three_processes(&self.bundles.heavy))?;
            let brief = timed(|| self.ours.three_processes(&self.bundles.brief))?;
            Ok((heavy, brief))
        })?;
        let case = format!("{MOUNTS} mounts, {RULES} rules");
        let mut comparison = self.comparison(&case, measured, String::new());
        comparison.peer = "itself without them".into();
        Ok(comparison)
    }

    /// The system calls of a container alone, instead of berth.
    fn bare_run(
        &self,
        floor: &Floor,
        terms: &Terms,
        interrupts: &mut Interrupts,
    ) -> Result<Comparison> {
        let measured = terms.pairs(interrupts, || {
            let bare = timed(|| floor.run(&self.bundles.rootfs))?;
            Ok((bare, timed(|| self.theirs.run(&self.bundles.brief))?))
        })?;
        Ok(self.comparison("run, calls alone", measured, String::new()))
    }

    /// The system calls of an exec into process `pid` alone, instead of berth.
    fn bare_exec(
        &self,
        floor: &Floor,
        pid: i32,
        terms: &Terms,
        interrupts: &mut Interrupts,
    ) -> Result<Comparison> {
        let pair = || Ok((timed(|| floor.exec(pid))?, timed(|| self.theirs.exec())?));
        let measured = floor.with_group(|| terms.pairs(interrupts, pair))?;
        Ok(self.comparison("exec, calls alone", measured, String::new()))
    }

    fn comparison(&self, case: &str, pairs: Vec<(f64, f64)>, counted: String) -> Comparison {
        Comparison {
            bench: "oci",
            case: case.into(),
            unit: "ms",
            peer: self.theirs.name.clone(),
            pairs,
            note: format!("{}{counted}", self.note),
        }
    }
}

/// Milliseconds that it takes.
fn timed(act: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    act()?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

/// The hierarchies in which a container is elsewhere than this process.
fn groups_made(own: &str, container: &str) -> String {
    let places = |text: &str| -> Vec<(String, String)> {
        let lines = text
            .lines()
            .filter_map(|line| line.split_once(':')?.1.split_once(':'));
        lines
            .map(|(kind, path)| (kind.to_owned(), path.to_owned()))
            .collect()
    };
    let own = places(own);
    let made: Vec<String> = places(container)
        .into_iter()
        .filter(|place| !own.contains(place))
        .map(|(kind, _)| match kind.as_str() {
            "" => "v2".to_owned(),
            _ => format!("v1 {kind}"),
        })
        .collect();
    if made.is_empty() {
        return "no group".into();
    }
    format!("{} ({})", made.len(), made.join(" "))
}

/// The specification with many bind mounts and seccomp rules more.
fn laden(specification: &Value, folder: &Path) -> Value {
    let mut spec = specification.clone();
    let mounts = (0..MOUNTS).map(|number| {
        json!({"destination": format!("/mnt/{number}"), "type": "bind", "source": folder,
               "options": ["rbind", "ro", "nosuid"]})
    });
    if let Some(list) = spec["mounts"].as_array_mut() {
        list.extend(mounts);
    }
    let rules: Vec<Value> = (0..RULES)
        .map(|number| {
            let name = RULED[number % RULED.len()];
            json!({"names": [name], "action": "SCMP_ACT_ERRNO",
                   "args": [{"index": 0, "value": 1_000_000 + number, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": rules,
    });
    spec
}

fn make_bundles(folder: &Path) -> Result<Bundles> {
    let rootfs = folder.join("rootfs");
    bundle::unpack_busybox(&rootfs)?;
    // the oldest peer here knows version 1.0.2
    let mut specification = bundle::specification(&["/bin/true"], &rootfs);
    specification["ociVersion"] = json!("1.0.2");
    let make_of = |specification: &Value, name: &str, arguments: &[&str]| -> Result<PathBuf> {
        let bundle = folder.join(name);
        fs::create_dir(&bundle)?;
        let mut spec = specification.clone();
        spec["process"]["args"] = json!(arguments);
        fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)?;
        Ok(bundle)
    };
    let make = |name, arguments| make_of(&specification, name, arguments);
    Ok(Bundles {
        rootfs: rootfs.clone(),
        brief: make("brief", &["/bin/true"])?,
        heavy: make_of(&laden(&specification, folder), "heavy", &["/bin/true"])?,
        lasting: make("lasting", &["/bin/sleep", "100000"])?,
        telling: make("telling", &["/bin/cat", "/proc/self/cgroup"])?,
        specification,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_which_groups_a_runtime_made() {
        let own = "2:pids:/\n1:cpu,cpuacct:/here\n0::/\n";
        let both = groups_made(own, "2:pids:/x\n1:cpu,cpuacct:/here\n0::/x\n");
        assert_eq!(both, "2 (v1 pids v2)");
        assert_eq!(groups_made(own, own), "no group");
    }
}
