//! A root file system of this host's own shell and a few programs, as a tar.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The programs a test may count on.
pub const PROGRAMS: &[&str] = &[
    "cat", "echo", "id", "ls", "mkdir", "readlink", "sh", "sleep", "stty", "touch", "true", "wc",
];

/// The tar of a file system with [`PROGRAMS`], their libraries, and the users `root` and
/// `app` (1000).
///
/// # Errors
/// A program is missing on this host.
pub fn shell_tar() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(true);
    let mut files: BTreeSet<PathBuf> = BTreeSet::new();
    for name in PROGRAMS {
        let program = find(name).with_context(|| format!("no `{name}` on this host"))?;
        files.extend(libraries(&program)?);
        tar.append_path_with_name(&program, format!("bin/{name}"))?;
    }
    for file in files {
        let inside = file.strip_prefix("/").unwrap_or(&file).to_owned();
        tar.append_path_with_name(&file, inside)?;
    }
    for (name, text) in [
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
        ),
        ("etc/group", "root:x:0:\napp:x:1000:\nextra:x:2000:app\n"),
    ] {
        append(
            &mut tar,
            name,
            tar::EntryType::Regular,
            0o644,
            text.as_bytes(),
        )?;
    }
    append(&mut tar, "tmp/", tar::EntryType::Directory, 0o1777, b"")?;
    Ok(tar.into_inner()?)
}

fn append(
    tar: &mut tar::Builder<Vec<u8>>,
    name: &str,
    kind: tar::EntryType,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append_data(&mut header, name, content)?;
    Ok(())
}

fn find(name: &str) -> Option<PathBuf> {
    let folders = ["/bin", "/usr/bin"].map(Path::new);
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}

/// What `ldd` says the program needs, the loader included.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(words.map(PathBuf::from).collect())
}
