//! A disk that stalls under the logs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_monitor::client::Connection;
use berth_monitor::protocol::*;

use crate::pod::{Pod, skipped, wait_until};

/// Numbers that the loud container writes: some 1.3 MB, ten times what lies between it and the disk.
const NUMBERS: usize = 200_000;
/// More than its pipe (64 KiB), the chunks under way (64 KiB) and a batch (32 KiB) hold, in bytes.
const UNDER_WAY_MAX: u64 = 256 * 1024;
/// What the monitor may grow by meanwhile, in KiB: a thread, the chunks, a batch.
const GROWTH_MAX: u64 = 1024;

/// A file system of its own that stalls as a dead disk does: while it is frozen, who writes to it waits where no
/// signal reaches (fsfreeze(8)).
struct Disk(PathBuf);

impl Disk {
    /// `None`, and said so, where the machine has no loop device or no ext4.
    fn mount() -> Option<Self> {
        let folder =
            std::env::temp_dir().join(format!("berth-monitor-disk-{}", std::process::id()));
        let image = folder.with_extension("img");
        std::fs::create_dir_all(&folder).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(32 << 20).unwrap();
        let (image, folder) = (image.to_str().unwrap(), folder.to_str().unwrap());
        let mounted = run("mkfs.ext4", &["-q", image])
            .and_then(|()| run("mount", &["-o", "loop", image, folder]));
        // The loop device keeps the file.
        std::fs::remove_file(image).unwrap();
        if let Err(reason) = mounted {
            assert!(std::env::var_os("BERTH_REQUIRE_ALL").is_none(), "{reason}");
            println!("skipped: {reason}");
            std::fs::remove_dir(folder).unwrap();
            return None;
        }
        Some(Self(folder.into()))
    }

    /// An empty log, made by somebody who can wait for the disk.
    fn log(&self, id: &str) -> PathBuf {
        let path = self.0.join(format!("{id}.log"));
        std::fs::File::create_new(&path).unwrap();
        path
    }

    fn freeze(&self) {
        run("fsfreeze", &["--freeze", self.0.to_str().unwrap()]).unwrap();
    }

    fn thaw(&self) {
        run("fsfreeze", &["--unfreeze", self.0.to_str().unwrap()]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let folder = self.0.to_str().unwrap();
        // After a test that failed it is frozen still, and the monitor cannot end.
        let _ = run("fsfreeze", &["--unfreeze", folder]);
        let _ = run("umount", &["--lazy", folder]);
        let _ = std::fs::remove_dir(folder);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).output() {
        Err(error) => Err(format!("cannot run {program}: {error}")),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{program}: {}", said.trim()))
        }
        Ok(_) => Ok(()),
    }
}

/// The number behind `key` in a file of procfs.
fn number(path: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    let digits = value.unwrap().split_whitespace().next().unwrap();
    digits.parse().unwrap()
}

/// What each entry of a log says.
fn contents(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap();
    let content = |line: &str| line.splitn(4, ' ').nth(3).unwrap().to_owned();
    text.lines().map(content).collect()
}

/// Whether the process has written more than its pipe holds and does not go on.
fn writes_no_more(io: &str) -> bool {
    let written = number(io, "wchar:");
    std::thread::sleep(Duration::from_millis(50));
    written > 64 * 1024 && written == number(io, "wchar:")
}

fn next_exit(events: &mut Connection) -> ExitRecord {
    loop {
        if let EventKind::Exited(record) = events.next_event().unwrap().kind {
            return record;
        }
    }
}

#[test]
fn root_a_stalled_log_disk_holds_up_writers_alone_and_loses_nothing() {
    if skipped() {
        return;
    }
    let pod = Pod::start();
    let Some(disk) = Disk::mount() else {
        return pod.shutdown();
    };
    let mut events = pod.connect();
    events.call(&Request::Subscribe { after: 0 }, &[]).unwrap();
    let trap = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut calm = pod.container("calm", trap);
    calm.log_path = Some(disk.log("calm"));
    let mut loud = pod.container("loud", &format!("exec seq {NUMBERS}"));
    loud.log_path = Some(disk.log("loud"));
    let [calm_log, loud_log] = [&calm, &loud].map(|one| one.log_path.clone().unwrap());
    pod.launch(&calm);
    wait_until("it is ready", || contents(&calm_log) == ["ready"]);
    let status = format!("/proc/{}/status", pod.monitor_pid());
    let before = number(&status, "RssAnon:");

    disk.freeze();
    // Everything until the thaw is seen while the disk stalls.
    let io = format!("/proc/{}/io", pod.launch(&loud).pid);
    wait_until("the loud one waits for the disk", || writes_no_more(&io));
    let executed = pod.exec_output("calm", "echo inside");
    assert_eq!(executed, ("inside\n".to_owned(), 0));
    pod.signal("calm", 15, false);
    let ended = next_exit(&mut events);
    assert_eq!((ended.container.as_str(), ended.code), ("calm", 7));
    let written = number(&io, "wchar:");
    assert!(written < UNDER_WAY_MAX, "{written} bytes are nowhere yet");
    let growth = number(&status, "RssAnon:").saturating_sub(before);
    assert!(growth < GROWTH_MAX, "the monitor grew by {growth} KiB");
    assert_eq!(contents(&calm_log), ["ready"], "the disk stalls still");
    assert!(contents(&loud_log).is_empty(), "the disk stalls still");

    disk.thaw();
    assert_eq!(pod.exit_of("loud").code, 0);
    wait_until("the last words are written", || {
        contents(&calm_log) == ["ready", "bye"]
    });
    wait_until("everything is written", || {
        contents(&loud_log).len() == NUMBERS
    });
    let numbers = contents(&loud_log);
    let in_order = |(at, text): (usize, &String)| *text == (at + 1).to_string();
    assert!(numbers.iter().enumerate().all(in_order));
    let lost = |container: &ContainerState| container.log_lost;
    assert!(
        pod.state()
            .containers
            .iter()
            .map(lost)
            .all(|lost| lost == 0)
    );
    pod.shutdown();
}
