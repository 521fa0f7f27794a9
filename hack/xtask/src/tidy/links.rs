//! Links of the documents: every relative one names a file that is there.

use anyhow::Result;

use super::sources::tracked;
use crate::process;

/// Every link whose target is absent.
pub fn check() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in tracked(".md")? {
        let file = process::workspace().join(&path);
        let text = std::fs::read_to_string(&file)?;
        let folder = file.parent().unwrap_or(process::workspace());
        for target in targets(&text) {
            let target = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !outside && !folder.join(target).exists() {
                found.push(format!("{}: no file for the link {target}", path.display()));
            }
        }
    }
    Ok(found)
}

/// Targets of `[text](target)` outside code blocks.
fn targets(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            found.extend(rest.split_once(')').map(|(target, _)| target));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_links_outside_code() {
        let text = "See [a](docs/a.md#x) and [b](https://b.example).\n```\n[c](c)\n```\n";
        assert_eq!(targets(text), ["docs/a.md#x", "https://b.example"]);
    }
}
