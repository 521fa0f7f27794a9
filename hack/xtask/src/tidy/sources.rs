//! Length, place of `unsafe`, and names of the source files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process;

/// A file that is longer has to give a reason in review; it is listed.
const ARGUE_ABOVE: usize = 500;
/// A file that is longer is refused.
const REFUSE_ABOVE: usize = 800;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 7] = [
    "util", "utils", "common", "helper", "helpers", "misc", "types",
];

/// Every source file that breaks a rule.
pub fn check() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in tracked(".rs")? {
        let text = std::fs::read_to_string(process::workspace().join(&path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text.lines().count();
        if lines > REFUSE_ABOVE {
            found.push(format!(
                "{}: {lines} lines, at most {REFUSE_ABOVE}",
                path.display()
            ));
        } else if lines > ARGUE_ABOVE {
            println!("  note: {}: {lines} lines", path.display());
        }
        found.extend(misplaced(&path, &text));
    }
    Ok(found)
}

/// The files git knows that end in `suffix`, relative to the workspace.
pub fn tracked(suffix: &str) -> Result<Vec<PathBuf>> {
    let mut git = std::process::Command::new("git");
    git.current_dir(process::workspace())
        .args(["ls-files", "-z"]);
    let listing = process::output(&mut git)?;
    let files = listing
        .split('\0')
        .filter(|name| name.ends_with(suffix))
        .map(PathBuf::from);
    Ok(files
        .filter(|path| process::workspace().join(path).is_file())
        .collect())
}

fn misplaced(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let unsafe_word = concat!("uns", "afe");
    let blocks = [
        format!("{unsafe_word} {{"),
        format!("{unsafe_word} fn"),
        format!("{unsafe_word} impl"),
    ];
    let says_unsafe = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| blocks.iter().any(|block| line.contains(block)));
    if says_unsafe && !path.starts_with("runtime/sys") {
        found.push(format!(
            "{}: only runtime/sys may say {unsafe_word}",
            path.display()
        ));
    }
    for part in path
        .with_extension("")
        .iter()
        .filter_map(|part| part.to_str())
    {
        if EMPTY_NAMES.contains(&part) {
            found.push(format!(
                "{}: `{part}` says nothing; name the thing",
                path.display()
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_empty_names_and_misplaced_words() {
        let word = concat!("uns", "afe");
        let text = format!("fn a() {{ {word} {{ b() }} }}");
        assert_eq!(misplaced(Path::new("kubelet/src/a.rs"), &text).len(), 1);
        assert_eq!(misplaced(Path::new("runtime/sys/src/a.rs"), &text).len(), 0);
        assert_eq!(misplaced(Path::new("kubelet/src/util/a.rs"), "").len(), 1);
        assert_eq!(misplaced(Path::new("kubelet/src/common.rs"), "").len(), 1);
    }
}
