//! Termination messages: what a container left to say, read once it has exited.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::runtime::{ContainerState, PodRuntime};

/// Longest message of one container, bytes.
const MAX_MESSAGE: u64 = 4096;
/// Most that is taken from the log instead: bytes and lines.
const MAX_FALLBACK: usize = 2048;
const MAX_FALLBACK_LINES: usize = 80;

/// Messages already read, by container id: a container exits once.
#[derive(Debug, Default)]
pub struct Messages {
    known: HashMap<String, String>,
}

impl Messages {
    /// Puts the message of every exited container into its record.
    pub fn fill(&mut self, runtime: &mut PodRuntime) {
        self.known
            .retain(|id, _| runtime.containers.iter().any(|c| c.id == *id));
        for record in &mut runtime.containers {
            if record.state != ContainerState::Exited {
                continue;
            }
            let message = self.known.entry(record.id.clone()).or_insert_with(|| {
                let own = read_message(Path::new(&record.message_host_path));
                let fall_back = own.is_empty()
                    && record.exit_code != 0
                    && record.message_policy == "FallbackToLogsOnError";
                if fall_back {
                    log_tail(Path::new(&record.log_path)).unwrap_or_default()
                } else {
                    own
                }
            });
            if !message.is_empty() {
                record.message.clone_from(message);
            }
        }
    }
}

fn read_message(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What cannot be read is no message; the exit itself is reported in any case.
        let _ = file.take(MAX_MESSAGE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The last lines of a CRI log, without time stamps.
fn log_tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text
        .lines()
        .filter_map(|line| line.splitn(4, ' ').nth(3))
        .collect();
    let first = lines.len().saturating_sub(MAX_FALLBACK_LINES);
    lines.drain(..first);
    let mut tail = lines.join("\n");
    if !tail.is_empty() {
        tail.push('\n');
    }
    let mut start = tail.len().saturating_sub(MAX_FALLBACK);
    while !tail.is_char_boundary(start) {
        start += 1;
    }
    Ok(tail[start..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::runtime::ContainerRecord;

    #[test]
    fn the_file_wins_and_the_log_stands_in_for_failures() {
        let dir = tempfile::tempdir().unwrap();
        let (message, log) = (dir.path().join("m"), dir.path().join("l"));
        std::fs::write(
            &log,
            "2026-01-01T00:00:00Z stderr F one\n2026-01-01T00:00:00Z stderr F two words\n",
        )
        .unwrap();
        for (content, code, policy, expected) in [
            ("bye", 1, "File", "bye"),
            ("bye", 1, "FallbackToLogsOnError", "bye"),
            ("", 1, "File", ""),
            ("", 0, "FallbackToLogsOnError", ""),
            ("", 1, "FallbackToLogsOnError", "one\ntwo words\n"),
        ] {
            std::fs::write(&message, content).unwrap();
            let mut runtime = PodRuntime {
                containers: vec![ContainerRecord {
                    id: "c".into(),
                    state: ContainerState::Exited,
                    exit_code: code,
                    message_policy: policy.into(),
                    message_host_path: message.to_string_lossy().into(),
                    log_path: log.to_string_lossy().into(),
                    ..ContainerRecord::default()
                }],
                ..PodRuntime::default()
            };
            Messages::default().fill(&mut runtime);
            assert_eq!(runtime.containers[0].message, expected, "{policy} {code}");
        }
    }
}
