//! A file tree in memory and its reproducible tar form.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tar::{EntryType, Header};

/// One entry of a layer. Everything is owned by root and dated the epoch.
#[derive(Clone)]
enum Entry {
    Folder { mode: u32 },
    File { source: PathBuf, mode: u32 },
    Text { text: String, mode: u32 },
    Symlink { target: String },
    HardLink { target: String },
}

/// Path without leading slash → entry, in the order the tar holds them.
#[derive(Clone, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// Adds a folder and the ones above it.
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.parents(path);
        self.entries.insert(path.into(), Entry::Folder { mode });
    }

    /// Adds a file with the content and mode of one on this machine.
    pub fn file(&mut self, path: &str, source: &Path) -> Result<()> {
        self.parents(path);
        let metadata = fs::metadata(source)
            .with_context(|| format!("the packages lack {}", source.display()))?;
        let mode = metadata.permissions().mode() & 0o7777;
        self.entries.insert(
            path.into(),
            Entry::File {
                source: source.into(),
                mode,
            },
        );
        Ok(())
    }

    /// Adds a file with this text.
    pub fn text(&mut self, path: &str, mode: u32, text: impl Into<String>) {
        self.parents(path);
        self.entries.insert(
            path.into(),
            Entry::Text {
                text: text.into(),
                mode,
            },
        );
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entries.insert(
            path.into(),
            Entry::Symlink {
                target: target.into(),
            },
        );
    }

    /// Adds a second name of a file of this tree.
    pub fn hard_link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entries.insert(
            path.into(),
            Entry::HardLink {
                target: target.into(),
            },
        );
    }

    /// Whether the path has an entry.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Writes the tree as a tar stream; hard links follow the files they name.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(out);
        let (links, files): (Vec<_>, Vec<_>) = self
            .entries
            .iter()
            .partition(|(_, e)| matches!(e, Entry::HardLink { .. }));
        for (path, entry) in files.into_iter().chain(links) {
            append(&mut tar, path, entry).with_context(|| format!("cannot add /{path}"))?;
        }
        tar.into_inner()?.flush()?;
        Ok(())
    }

    fn parents(&mut self, path: &str) {
        let folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        for folder in folders {
            let entry = Entry::Folder { mode: 0o755 };
            self.entries.entry(folder.to_owned()).or_insert(entry);
        }
    }
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, entry: &Entry) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    match entry {
        Entry::Folder { mode } => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(*mode);
            tar.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Entry::File { source, mode } => {
            let file = File::open(source)?;
            header.set_mode(*mode);
            header.set_size(file.metadata()?.len());
            tar.append_data(&mut header, path, file)?;
        }
        Entry::Text { text, mode } => {
            header.set_mode(*mode);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, path, text.as_bytes())?;
        }
        Entry::Symlink { target } => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, path, target)?;
        }
        Entry::HardLink { target } => {
            header.set_entry_type(EntryType::Link);
            header.set_mode(0o755);
            tar.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_same_bytes_each_time_with_links_last() {
        let mut tree = Tree::default();
        tree.hard_link("bin/ls", "bin/tool");
        tree.text("bin/tool", 0o755, "x");
        tree.folder("tmp", 0o1777);
        let bytes = |tree: &Tree| {
            let mut out = Vec::new();
            tree.write(&mut out).unwrap();
            out
        };
        assert_eq!(bytes(&tree), bytes(&tree.clone()));
        let content = bytes(&tree);
        let names: Vec<String> = tar::Archive::new(content.as_slice())
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["bin/", "bin/tool", "tmp/", "bin/ls"]);
    }
}
