//! The runtime's own program, which must not be writable from a container.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result};
use berth_test_harness::Need;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

use crate::arena::Arena;
use crate::bundle::Bundle;
use crate::case::{Case, Findings, Verdict};
use crate::probe::{CAUGHT, END, LOG};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "entrypoint-is-the-runtime",
        ids: &["CVE-2019-5736", "G5"],
        what: "exec, and a container in the same PID namespace, run `#!/proc/self/exe`, held up by a \
               named pipe as its log, while a process of the container holds every foreign \
               `/proc/N/exe` and writes to it: the program keeps its digest",
        needs: &[Need::Root, Need::Program("ldd")],
        run: self_exe,
    },
    Case {
        name: "library-inside-the-runtime",
        ids: &["CVE-2019-5736", "G5"],
        what: "the same with a library of the image that its loader preloads into the runtime: \
               the program keeps its digest",
        needs: &[Need::Root, Need::Program("cc"), Need::Program("ldd")],
        run: preloaded,
    },
];

/// A script that is interpreted by whatever program executes it: its own name is a state folder then.
const SCRIPT: &str = "#!/proc/self/exe --root\n";
/// What the interpreter is to do: it waits for a reader of its log.
const CALL: [&str; 5] = ["/bin/self", "--log", LOG, "state", "nobody"];
/// Opens its own program, and becomes the probe, so that the program is no longer busy.
const LIBRARY: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
__attribute__((constructor)) static void take(void) {
    char number[16];
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd < 0) return;
    snprintf(number, sizeof number, "%d", fd);
    unsetenv("LD_PRELOAD");
    execl("/bin/probe", "probe", "overwrite", number, (char *)0);
}
"#;

fn self_exe(arena: &Arena) -> Result<Verdict> {
    let before = arena.program_digest()?;
    let mut findings = Findings::default();
    let watcher = arena.bundle("watcher", &["hunt-programs"])?;
    plant(arena, &watcher)?;
    let mut neighbour = arena.bundle("neighbour", &[])?;
    plant(arena, &neighbour)?;
    neighbour.spec["process"]["args"] = json!(CALL);
    let log = watcher.inside(LOG);
    mknodat(CWD, &log, FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
    fs::hard_link(log, neighbour.inside(LOG))?;
    let container = watcher.start()?;
    let shared = json!({"type": "pid", "path": format!("/proc/{}/ns/pid", container.pid()?)});
    neighbour.spec["linux"]["namespaces"][0] = shared;
    for _ in 0..arena.rounds.min(100) / 10 {
        for output in [
            container.call(&[&["exec", "ID"], &CALL[..]].concat())?,
            neighbour.run()?,
        ] {
            match output.ok() {
                true => findings.made(),
                false => findings.refused(),
            }
        }
    }
    fs::write(watcher.inside(END), "")?;
    let caught = wait_for(&watcher, CAUGHT)?;
    findings.demand(arena.program_digest()? == before, || {
        format!("the program was written: {caught}")
    });
    Ok(findings.verdict())
}

fn preloaded(arena: &Arena) -> Result<Verdict> {
    if !arena.runtime.is_dynamic() {
        return Ok(Verdict::Pass("a static program has no loader".into()));
    }
    let before = arena.program_digest()?;
    let mut findings = Findings::default();
    let mut bundle = arena.bundle("image", &[])?;
    plant(arena, &bundle)?;
    let (source, library) = (arena.folder().join("take.c"), bundle.inside("take.so"));
    fs::write(&source, LIBRARY)?;
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-w", "-o"])
        .arg(&library)
        .arg(&source)
        .output()?;
    anyhow::ensure!(compiled.status.success(), "cc failed: {compiled:?}");
    fs::write(bundle.inside("etc/ld.so.preload"), "/take.so\n")?;
    bundle.spec["process"]["args"] = json!(["/bin/self"]);
    // not by `run`: that would keep the program busy
    let container = bundle.container()?;
    let mut caught = String::new();
    if container.create()?.ok() && container.call(&["start", "ID"])?.ok() {
        findings.made();
        caught = wait_for(&bundle, CAUGHT).unwrap_or_default();
    } else {
        findings.refused();
    }
    findings.demand(arena.program_digest()? == before, || {
        format!("the program was written: {caught}")
    });
    Ok(findings.verdict())
}

/// Puts the script at `/bin/self`, and into the image what the runtime needs to run inside it.
fn plant(arena: &Arena, bundle: &Bundle<'_>) -> Result<()> {
    let path = bundle.inside("bin/self");
    fs::write(&path, SCRIPT)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let listing = Command::new("ldd").arg(arena.program()).output()?;
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = bundle.inside(library);
        fs::create_dir_all(inside.parent().context("a library has a folder")?)?;
        fs::copy(library, inside)?;
    }
    Ok(())
}

/// The text of a file that the container writes when it ends.
fn wait_for(bundle: &Bundle<'_>, path: &str) -> Result<String> {
    let file = bundle.inside(path);
    for _ in 0..500 {
        if let Ok(text) = fs::read_to_string(&file)
            && !text.is_empty()
        {
            return Ok(text);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    anyhow::bail!("the container did not write `{path}`")
}
