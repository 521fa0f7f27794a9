//! The sandbox record where the runtime may not trace: read at the last wait before execve, it says
//! why, it is degraded at best, and what differs is refused all the same.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use berth_oci::fault::VARIABLE;
use berth_test_harness::{Need, test};
use berth_test_oci::{Bundle, Profile, faulty};
use serde_json::{Value, json};

const PROBE: &str = env!("CARGO_BIN_EXE_berth-testinit");
const NEEDS: [Need; 3] = [Need::Root, Need::CgroupV2, Need::Program("ldd")];
const IN_A_DOMAIN: [Need; 2] = [Need::AppArmor, Need::Program("apparmor_parser")];
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// What of tracing a domain forbids.
const TRACING: &str = "deny ptrace (trace, tracedby),\n  ptrace (read, readby),";
/// The same, and every look into another process besides.
const LOOKING: &str = "deny ptrace,";

/// Runs a container that reports `ran`, with a root file system that has to be read-only.
fn run(fault: &str, domain: Option<&str>) -> anyhow::Result<(Output, Vec<Value>)> {
    let bundle = Bundle::new(PROBE, &["echo", "ran"])?.with(|spec| {
        spec["root"]["readonly"] = json!(true);
    });
    fs::write(bundle.folder().join("config.json"), bundle.spec.to_string())?;
    let runtime = faulty(bundle.folder())?;
    let enter = domain.map_or_else(
        || "true".to_owned(),
        |name| format!("echo 'exec {name}' >/proc/self/attr/apparmor/exec"),
    );
    let output = Command::new("sh")
        .args(["-c", &format!("{enter} && exec \"$0\" \"$@\"")])
        .arg(&runtime)
        .args(["--root", "state", "--record", "records", "run", "untraced"])
        .current_dir(bundle.folder())
        .stdin(Stdio::null())
        .env(VARIABLE, fault)
        .output()?;
    Ok((output, records(&bundle.folder().join("records"))?))
}

fn records(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

/// The one record of a container that ran.
fn of_a_run(domain: Option<&str>) -> anyhow::Result<Value> {
    let (output, mut records) = run("", domain)?;
    anyhow::ensure!(output.stdout == b"ran\n", "{output:?}");
    anyhow::ensure!(records.len() == 1, "{records:?}");
    Ok(records.remove(0))
}

fn assert_degraded(record: &Value, reason: &str) {
    assert_eq!(record["verdict"], "degraded", "{record:#}");
    let first = &record["degraded"][0];
    assert_eq!(first["field"], "read_at", "{record:#}");
    let told = first["reason"].as_str().unwrap_or_default();
    assert!(told.starts_with("exec-stop unavailable ("), "{told}");
    assert!(told.contains(reason), "{told}");
}

/// What the barrier shows is compared: a root that can be written does not start.
fn assert_refuses(domain: Option<&str>) -> anyhow::Result<()> {
    let (output, _) = run("the root can be written", domain)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(errors.contains("mounts./.flags: "), "{errors}");
    Ok(())
}

/// A domain in which everything is allowed but what `rule` says.
fn domain(name: &str, rule: &str) -> anyhow::Result<Profile> {
    Profile::load(&format!(
        "profile {name} flags=(attach_disconnected) {{\n  file,\n  capability,\n  network,\n  \
         mount,\n  remount,\n  umount,\n  pivot_root,\n  signal,\n  unix,\n  {rule}\n}}\n"
    ))
}

#[test]
fn root_a_domain_that_denies_tracing_is_read_at_the_barrier() {
    test(&[NEEDS.as_slice(), &IN_A_DOMAIN].concat(), || {
        let name = "berth-test-no-tracing";
        let _domain = domain(name, TRACING)?;
        let record = of_a_run(Some(name))?;
        assert_eq!(record["read_at"], "barrier", "{record:#}");
        assert_degraded(&record, name);
        assert!(record["fields"]["mounts"]["applied"].is_array());
        assert_refuses(Some(name))
    });
}

#[test]
fn root_a_domain_that_denies_looking_is_said_to_be_unread() {
    test(&[NEEDS.as_slice(), &IN_A_DOMAIN].concat(), || {
        let name = "berth-test-no-looking";
        let _domain = domain(name, LOOKING)?;
        let record = of_a_run(Some(name))?;
        assert_eq!(record["read_at"], "never", "{record:#}");
        assert_degraded(&record, name);
        Ok(())
    });
}

#[test]
fn root_yama_that_forbids_tracing_is_read_at_the_barrier() {
    let needs = [Need::Disposable, Need::File(YAMA)];
    test(&[NEEDS.as_slice(), &needs].concat(), || {
        // cannot be lowered again
        fs::write(YAMA, "3")?;
        let record = of_a_run(None)?;
        assert_eq!(record["read_at"], "barrier", "{record:#}");
        assert_degraded(&record, "kernel.yama.ptrace_scope is 3");
        assert_refuses(None)
    });
}
