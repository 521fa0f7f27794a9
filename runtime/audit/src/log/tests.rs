use std::os::unix::fs::PermissionsExt;

use serde_json::value::RawValue;

use super::*;
use crate::files::{self, HEAD_NAME};
use crate::{Broken, Report, verify_export, verify_folder};

const LIMITS: Limits = Limits {
    max_file_bytes: 1 << 20,
    max_files: 4,
};

/// A folder for a log and one for its keys.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("log/audit")
    }

    fn keys(&self) -> NodeKeys {
        NodeKeys::open(&self.0.path().join("keys")).unwrap()
    }

    fn open(&self, limits: Limits) -> Log {
        Log::open(&self.dir(), limits, self.keys()).unwrap()
    }

    /// A log with `count` entries beside the one that opens it, closed.
    fn with(count: usize, limits: Limits) -> Place {
        let place = Place::new();
        let log = place.open(limits);
        for number in 0..count {
            log.append(&event(number)).unwrap();
        }
        place
    }

    fn verify(&self) -> Result<Report, Broken> {
        verify_folder(&self.dir(), self.keys().public()).unwrap()
    }

    fn file(&self, first: u64) -> PathBuf {
        self.dir().join(files::name(first))
    }

    /// The notes of the newest entry.
    fn notes(&self) -> String {
        let lines = crate::entries(&self.dir()).unwrap();
        let (_, line) = lines.last().unwrap().unwrap();
        let record = entry::parse(&line.bytes).unwrap().record.unwrap();
        let record: serde_json::Value = serde_json::from_str(record.get()).unwrap();
        assert_eq!(record["event"], "opened");
        record["notes"].to_string()
    }
}

fn event(number: usize) -> Event {
    Event {
        kind: Kind::Start,
        subject: Subject {
            container_id: format!("c{number}"),
            ..Subject::default()
        },
        record: Some(RawValue::from_string(format!("{{\"pid\":{number}}}")).unwrap()),
    }
}

#[test]
fn a_chain_goes_on_over_restarts() {
    let place = Place::with(3, LIMITS);
    let log = place.open(LIMITS);
    assert_eq!(log.append(&event(3)).unwrap(), 6);
    let head = log.seal().unwrap();
    assert_eq!(files::read_head(&place.dir()).unwrap(), Some(head));
    let report = place.verify().unwrap();
    assert_eq!((report.entries, report.first, report.last), (6, Some(1), 6));
    assert_eq!(report.head.last.seq, 6);
    assert_eq!(files::list(&place.dir()).unwrap(), [1]);
}

#[test]
fn files_rotate_and_the_oldest_go() {
    let small = Limits {
        max_file_bytes: 1200,
        max_files: 3,
    };
    let place = Place::with(40, small);
    let files = files::list(&place.dir()).unwrap();
    assert_eq!(files.len(), 3, "{files:?}");
    let report = place.verify().unwrap();
    assert_eq!((report.first, report.last), (Some(files[0]), 41));
    assert_eq!(report.head.first.seq, files[0]);
    for first in files {
        assert!(std::fs::metadata(place.file(first)).unwrap().len() <= 1200);
    }
    // An older beginning than is signed is what a crash before the removal leaves.
    std::fs::remove_file(place.file(report.head.first.seq)).unwrap();
    let broken = place.verify().unwrap_err();
    assert_eq!(broken.seq, Some(report.head.first.seq));
}

#[test]
fn a_file_given_up_goes_at_the_next_start() {
    let small = Limits {
        max_file_bytes: 1200,
        max_files: 3,
    };
    let place = Place::with(3, small);
    let oldest = std::fs::read(place.file(1)).unwrap();
    let log = place.open(small);
    for number in 0..40 {
        log.append(&event(number)).unwrap();
    }
    drop(log);
    std::fs::write(place.file(1), oldest).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(place.file(1), private).unwrap();
    drop(place.open(small));
    assert!(!place.file(1).exists());
    place.verify().unwrap();
}

#[test]
fn every_changed_byte_of_a_log_is_found() {
    let place = Place::with(3, LIMITS);
    let whole = std::fs::read(place.file(1)).unwrap();
    let mut line = 1;
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(place.file(1), &changed).unwrap();
        let broken = place.verify().unwrap_err();
        assert!(
            broken.seq.is_some_and(|seq| seq <= line),
            "byte {at}: {broken}"
        );
        line += u64::from(whole[at] == b'\n');
    }
    std::fs::write(place.file(1), &whole).unwrap();
    place.verify().unwrap();
}

#[test]
fn an_entry_taken_out_or_put_in_is_found() {
    let place = Place::with(3, LIMITS);
    let text = std::fs::read_to_string(place.file(1)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let expect = |lines: &[&str], seq| {
        std::fs::write(place.file(1), lines.join("\n") + "\n").unwrap();
        assert_eq!(place.verify().unwrap_err().seq, Some(seq), "{lines:?}");
    };
    expect(&[lines[1], lines[2], lines[3]], 1);
    expect(&[lines[0], lines[2], lines[3]], 2);
    expect(&[lines[0], lines[1], lines[1], lines[2], lines[3]], 3);
    expect(&[lines[0], lines[1], lines[2]], 4);
    // An entry with a right hash that continues the right one, but for the head.
    let before = entry::parse(lines[2].as_bytes()).unwrap();
    let (forged, _) = entry::seal(&event(9), 4, &entry::now(), before.hash).unwrap();
    let forged = String::from_utf8(forged).unwrap();
    expect(&[lines[0], lines[1], lines[2], forged.trim_end()], 4);
}

#[test]
fn modes_and_links_are_looked_at() {
    let place = Place::with(1, LIMITS);
    for (name, good, bad) in [(".", 0o700, 0o750), (HEAD_NAME, 0o600, 0o644)] {
        let path = place.dir().join(name);
        let set = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(bad);
        let reason = place.verify().unwrap_err().reason;
        assert!(reason.starts_with("its mode is"), "{reason}");
        set(good);
    }
    let elsewhere = place.0.path().join("elsewhere");
    std::fs::rename(place.file(1), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, place.file(1)).unwrap();
    assert_eq!(place.verify().unwrap_err().reason, "is a symbolic link");
    std::fs::remove_file(place.dir().join(HEAD_NAME)).unwrap();
    std::fs::remove_file(place.file(1)).unwrap();
    let broken = place.verify().unwrap_err();
    assert_eq!(broken.reason, "there is no signed head");
}

#[test]
fn a_log_cut_off_anywhere_converges() {
    let place = Place::with(3, LIMITS);
    let whole = std::fs::read(place.file(1)).unwrap();
    let ends = |at: usize| whole[at.saturating_sub(2)..whole.len().min(at + 1)].contains(&b'\n');
    // Before the first sealing: entries without a head.
    for length in (0..=whole.len()).filter(|at| at % 61 == 0 || ends(*at)) {
        std::fs::remove_file(place.dir().join(HEAD_NAME)).ok();
        for file in files::list(&place.dir()).unwrap() {
            std::fs::remove_file(place.file(file)).unwrap();
        }
        std::fs::write(place.file(1), &whole[..length]).unwrap();
        drop(place.open(LIMITS));
        let complete = whole[..length]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count() as u64;
        let report = place.verify().unwrap();
        assert_eq!(report.last, complete + 1, "cut at {length}");
        let torn = length > 0 && whole[length - 1] != b'\n';
        let noted = place.notes().contains("the last line was torn");
        assert_eq!(noted, torn, "cut at {length}");
    }
}

#[test]
fn half_an_entry_is_told_and_cut_off() {
    let place = Place::with(1, LIMITS);
    let mut file = std::fs::File::options()
        .append(true)
        .open(place.file(1))
        .unwrap();
    file.write_all(b"{\"seq\":3").unwrap();
    let report = place.verify().unwrap();
    assert_eq!((report.last, report.notes.len()), (2, 1));
    drop(place.open(LIMITS));
    assert!(place.notes().contains("8 bytes of entry 3 are cut off"));
    place.verify().unwrap();
}

#[test]
fn a_changed_log_is_kept_as_evidence_and_goes_on() {
    let place = Place::with(3, LIMITS);
    let text = std::fs::read_to_string(place.file(1)).unwrap();
    let changed = text.replacen("\"pid\":1", "\"pid\":7", 1);
    std::fs::write(place.file(1), &changed).unwrap();
    drop(place.open(LIMITS));
    assert_eq!(std::fs::read_to_string(place.file(1)).unwrap(), changed);
    assert!(place.notes().contains("entry 3 was changed"));
    assert_eq!(place.verify().unwrap_err().seq, Some(3));
    assert_eq!(files::list(&place.dir()).unwrap(), [1, 5]);
}

#[test]
fn signed_entries_that_are_gone_are_told() {
    let place = Place::with(3, LIMITS);
    let text = std::fs::read_to_string(place.file(1)).unwrap();
    let (kept, _) = text.trim_end().rsplit_once('\n').unwrap();
    std::fs::write(place.file(1), format!("{kept}\n")).unwrap();
    drop(place.open(LIMITS));
    assert!(
        place
            .notes()
            .contains("entries up to 4 are missing after 3")
    );
    assert_eq!(place.verify().unwrap_err().seq, Some(4));
    std::fs::remove_dir_all(place.dir()).unwrap();
    drop(place.open(LIMITS));
    assert_eq!(place.verify().unwrap().last, 1);
}

#[test]
fn another_key_is_told_and_signs_from_now_on() {
    let place = Place::with(1, LIMITS);
    std::fs::remove_dir_all(place.0.path().join("keys")).unwrap();
    let broken = place.verify().unwrap_err();
    assert!(broken.reason.contains("is signed with the key"), "{broken}");
    drop(place.open(LIMITS));
    assert!(place.notes().contains("is signed with the key"));
    assert_eq!(place.verify().unwrap().last, 3);
}

#[test]
fn one_process_writes() {
    let place = Place::with(1, LIMITS);
    let log = place.open(LIMITS);
    let second = Log::open(&place.dir(), LIMITS, place.keys());
    assert!(matches!(second.err(), Some(OpenError::Locked(_))));
    drop(log);
    place.open(LIMITS);
}

#[test]
fn a_log_that_was_removed_takes_no_entry() {
    let place = Place::with(1, LIMITS);
    let log = place.open(LIMITS);
    std::fs::remove_dir_all(place.dir()).unwrap();
    let error = log.append(&event(0)).unwrap_err().to_string();
    assert!(error.contains("was removed"), "{error}");
    assert!(matches!(log.append(&event(0)), Err(AppendError::Failed(_))));
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let place = Place::new();
    std::fs::write(place.0.path().join("log"), "").unwrap();
    let error = Log::open(&place.dir(), LIMITS, place.keys()).err().unwrap();
    assert!(error.to_string().starts_with("cannot make"), "{error}");
}

#[test]
fn entries_of_many_threads_are_all_there() {
    let place = Place::new();
    let small = Limits {
        max_file_bytes: 4000,
        max_files: 1000,
    };
    let log = place.open(small);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..50).for_each(|number| {
                    log.append(&event(number)).unwrap();
                })
            });
        }
    });
    drop(log);
    let report = place.verify().unwrap();
    assert_eq!((report.entries, report.head.last.seq), (201, 201));
}

#[test]
fn an_export_is_verified_elsewhere() {
    let place = Place::with(3, LIMITS);
    let head = files::read_head(&place.dir()).unwrap().unwrap();
    let text = std::fs::read_to_string(place.file(1)).unwrap();
    let keys = place.keys();
    let verify = |text: &str| verify_export(text.as_bytes(), keys.public()).unwrap();
    let whole = format!("{head}{text}");
    assert_eq!(verify(&whole).unwrap().entries, 4);
    let lines: Vec<&str> = whole.lines().collect();
    let since_3 = [lines[0], lines[3], lines[4]].join("\n");
    let report = verify(&since_3).unwrap();
    assert_eq!((report.first, report.last), (Some(3), 4));
    assert_eq!(verify(lines[0]).unwrap().entries, 0);
    let cut = verify(&lines[..4].join("\n")).unwrap_err();
    assert_eq!(cut.seq, Some(4));
    assert_eq!(verify("{}\n").unwrap_err().place, "line 1");
    let longer = format!("{whole}{}", lines[4]);
    assert_eq!(verify(&longer).unwrap_err().place, "line 6");
}
