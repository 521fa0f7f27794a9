//! Writes the content of a volume so that a reader sees all of the old or all of the new.
//!
//! ```text
//! <volume>/..2026_11_21_10_25_38.123/  the files, of one version
//! <volume>/..data -> ..2026_11_21_10_25_38.123   swapped by rename(2)
//! <volume>/key    -> ..data/key                  what containers read
//! ```
//!
//! Invariant: nothing in a version's directory changes once `..data` points to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use super::actual::IoStep;
use super::ownership;

/// The link that is swapped.
const DATA: &str = "..data";
/// The link before it is swapped.
const NEW_DATA: &str = "..data_tmp";
/// Mode of directories in a volume.
const DIR_MODE: u32 = 0o755;

/// The files of a volume by their relative paths.
pub type Payload = BTreeMap<PathBuf, Content>;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What is in it.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// The relative path in a volume that `text` names; `None` when it could lead anywhere
/// else or to the writer's own files.
pub fn relative(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    let ok = plain && !text.is_empty() && !text.starts_with("..") && !text.ends_with('/');
    // Without `.` and doubled slashes, so that equal files have equal paths.
    ok.then(|| path.components().collect())
}

/// Whether a version was ever written to the volume.
pub fn is_written(volume: &Path) -> bool {
    volume.join(DATA).symlink_metadata().is_ok()
}

/// Makes `payload` the content of `volume`, an existing directory. Writes nothing when it
/// is already.
///
/// # Errors
/// The step that failed; the old version then stays.
pub fn write(volume: &Path, payload: &Payload, group: Option<u32>) -> Result<(), IoStep> {
    let current = current_version(volume)?;
    let same = match &current {
        Some(version) => holds(&volume.join(version), payload, group)?,
        None => false,
    };
    if !same {
        let version = write_version(volume, payload, group)?;
        swap(volume, &version)?;
    }
    let tops = link_tops(volume, payload)?;
    remove_stale(volume, &tops)
}

fn current_version(volume: &Path) -> Result<Option<PathBuf>, IoStep> {
    let data = volume.join(DATA);
    match fs::read_link(&data) {
        Ok(version) => Ok(version.file_name().map(PathBuf::from)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IoStep::new("read the link", data, error)),
    }
}

/// Whether a version's directory holds exactly this payload.
fn holds(version: &Path, payload: &Payload, group: Option<u32>) -> Result<bool, IoStep> {
    let mut found = BTreeSet::new();
    files(version, Path::new(""), &mut found)?;
    if !found.iter().eq(payload.keys()) {
        return Ok(false);
    }
    for (path, content) in payload {
        let path = version.join(path);
        let metadata = fs::metadata(&path).map_err(IoStep::on("look at", &path))?;
        let mode = content.mode | group.map_or(0, |_| 0o440);
        let data = fs::read(&path).map_err(IoStep::on("read", &path))?;
        if data != content.data || metadata.mode() & 0o777 != mode {
            return Ok(false);
        }
    }
    Ok(true)
}

fn files(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), IoStep> {
    let dir = root.join(below);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(IoStep::on("list", &dir))?,
    };
    for entry in entries {
        let entry = entry.map_err(IoStep::on("list", &dir))?;
        let path = below.join(entry.file_name());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(root, &path, found)?,
            _ => drop(found.insert(path)),
        }
    }
    Ok(())
}

fn write_version(volume: &Path, payload: &Payload, group: Option<u32>) -> Result<PathBuf, IoStep> {
    let now = jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S");
    let name = PathBuf::from(format!("..{now}.{}", rand::random::<u32>()));
    let version = volume.join(&name);
    make_dir(&version, group)?;
    for (path, content) in payload {
        let mut dir = version.clone();
        for step in path.parent().into_iter().flat_map(Path::components) {
            dir.push(step);
            make_dir(&dir, group)?;
        }
        let path = version.join(path);
        let write = || {
            let mut open = File::options();
            let mut file = open.write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&content.data)?;
            ownership::apply(&file, content.mode, group)
        };
        write().map_err(IoStep::on("write", &path))?;
    }
    Ok(name)
}

fn make_dir(path: &Path, group: Option<u32>) -> Result<(), IoStep> {
    match fs::DirBuilder::new().mode(DIR_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(IoStep::on("make", path))?,
    }
    ownership::apply_to_dir(path, DIR_MODE, group).map_err(IoStep::on("hand over", path))
}

fn swap(volume: &Path, version: &Path) -> Result<(), IoStep> {
    let (new, data) = (volume.join(NEW_DATA), volume.join(DATA));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(IoStep::new("remove", new, error));
        }
        _ => {}
    }
    symlink(version, &new).map_err(IoStep::on("link", &new))?;
    fs::rename(&new, &data).map_err(IoStep::on("swap", &data))
}

/// Links the first step of every path into `..data`; returns those steps.
fn link_tops<'a>(
    volume: &Path,
    payload: &'a Payload,
) -> Result<BTreeSet<&'a std::ffi::OsStr>, IoStep> {
    let tops: BTreeSet<_> = payload
        .keys()
        .filter_map(|path| path.iter().next())
        .collect();
    for top in &tops {
        let link = volume.join(top);
        match symlink(Path::new(DATA).join(top), &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(IoStep::on("link", &link))?,
        }
    }
    Ok(tops)
}

/// Removes links to files that are no more, and versions other than the present one, one
/// cut off by a crash included.
fn remove_stale(volume: &Path, tops: &BTreeSet<&std::ffi::OsStr>) -> Result<(), IoStep> {
    let current = current_version(volume)?;
    for entry in fs::read_dir(volume).map_err(IoStep::on("list", volume))? {
        let entry = entry.map_err(IoStep::on("list", volume))?;
        let (name, path) = (entry.file_name(), entry.path());
        let is_current = current.as_deref() == Some(Path::new(&name));
        if name == DATA || is_current || tops.contains(name.as_os_str()) {
            continue;
        }
        let kind = entry.file_type().map_err(IoStep::on("look at", &path))?;
        let removed = if kind.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(IoStep::on("remove", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str, u32)]) -> Payload {
        let content = |(path, data, mode): &(&str, &str, u32)| {
            let data = data.as_bytes().to_vec();
            (PathBuf::from(path), Content { data, mode: *mode })
        };
        files.iter().map(content).collect()
    }

    fn names(volume: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = fs::read_dir(volume)
            .unwrap()
            .map(|entry| name(entry).into_string().unwrap())
            .map(|name| match name.starts_with("..2") {
                true => "..version".into(),
                false => name,
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn versions_replace_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        let read = |path: &str| fs::read_to_string(volume.join(path)).unwrap();
        assert!(!is_written(volume));
        let first = payload(&[("a", "1", 0o644), ("d/e/f", "2", 0o400)]);
        write(volume, &first, None).unwrap();
        assert_eq!(names(volume), ["..data", "..version", "a", "d"]);
        assert_eq!((read("a"), read("d/e/f")), ("1".into(), "2".into()));
        let mode = fs::metadata(volume.join("d/e/f")).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o400);
        let before = fs::read_link(volume.join(DATA)).unwrap();
        write(volume, &first, None).unwrap();
        assert_eq!(fs::read_link(volume.join(DATA)).unwrap(), before);
        let second = payload(&[("a", "1", 0o600), ("g", "3", 0o644)]);
        write(volume, &second, None).unwrap();
        assert_ne!(fs::read_link(volume.join(DATA)).unwrap(), before);
        assert_eq!(names(volume), ["..data", "..version", "a", "g"]);
        assert!(is_written(volume));
        write(volume, &Payload::new(), None).unwrap();
        assert_eq!(names(volume), ["..data", "..version"]);
    }

    #[test]
    fn what_a_crash_left_is_cleaned() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        fs::create_dir(volume.join("..2020_01_01_00_00_00.7")).unwrap();
        symlink("..2020_01_01_00_00_00.7", volume.join(NEW_DATA)).unwrap();
        write(volume, &payload(&[("a", "1", 0o644)]), None).unwrap();
        assert_eq!(names(volume), ["..data", "..version", "a"]);
    }

    #[test]
    fn paths_stay_inside() {
        for (text, path) in [
            ("a", Some("a")),
            ("a/b", Some("a/b")),
            ("a//b", Some("a/b")),
            ("..a", None),
            ("..", None),
            ("a/../b", None),
            ("/a", None),
            ("a/", None),
            ("./a", None),
            ("", None),
        ] {
            assert_eq!(relative(text), path.map(PathBuf::from), "{text}");
        }
    }

    #[test]
    fn root_the_group_gets_its_rights() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path();
        write(volume, &payload(&[("d/a", "1", 0o600)]), Some(1234)).unwrap();
        let file = fs::metadata(volume.join("d/a")).unwrap();
        assert_eq!((file.gid(), file.mode() & 0o7777), (1234, 0o640));
        let parent = fs::metadata(volume.join("d")).unwrap();
        assert_eq!((parent.gid(), parent.mode() & 0o7777), (1234, 0o2755));
        let before = fs::read_link(volume.join(DATA)).unwrap();
        write(volume, &payload(&[("d/a", "1", 0o600)]), Some(1234)).unwrap();
        assert_eq!(fs::read_link(volume.join(DATA)).unwrap(), before);
    }
}
