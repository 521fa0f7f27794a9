//! Licences and sources of every dependency, against the lists of deny.toml.
//!
//! The same lists are read by `cargo deny`, where it is installed.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;

use crate::process;

/// Every dependency whose licence or source is not allowed.
pub fn check() -> Result<Vec<String>> {
    let allowed = allowed()?;
    let metadata = MetadataCommand::new()
        .current_dir(process::workspace())
        .other_options([
            "--filter-platform".into(),
            "x86_64-unknown-linux-gnu".into(),
        ])
        .exec()?;
    let resolve = metadata
        .resolve
        .as_ref()
        .context("cargo resolves nothing")?;
    let used: BTreeSet<_> = resolve.nodes.iter().map(|node| &node.id).collect();
    let mut found = Vec::new();
    for package in metadata
        .packages
        .iter()
        .filter(|package| used.contains(&package.id))
    {
        let Some(source) = &package.source else {
            continue;
        };
        if !source.is_crates_io() {
            found.push(format!("{} comes from {source}", package.name));
        }
        let licence = package.license.as_deref().unwrap_or("none named");
        if !permits(licence, &allowed) {
            found.push(format!(
                "{} {}: licence {licence}",
                package.name, package.version
            ));
        }
    }
    Ok(found)
}

fn allowed() -> Result<BTreeSet<String>> {
    let path = process::workspace().join("deny.toml");
    let text = std::fs::read_to_string(&path).context("cannot read deny.toml")?;
    let table: toml::Table = text.parse()?;
    let list = table
        .get("licenses")
        .and_then(|l| l.get("allow"))
        .and_then(|a| a.as_array());
    let list = list.context("deny.toml has no licenses.allow")?;
    Ok(list
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect())
}

/// Whether an SPDX expression can be met with the allowed licences. AND binds
/// closer than OR; a slash is the registry's old form of OR.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (met, rest) = any(&words, allowed);
    met && rest.is_empty()
}

fn any<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = all(words, allowed);
    while let Some((&"OR", tail)) = rest.split_first() {
        let (next, after) = all(tail, allowed);
        (met, rest) = (met || next, after);
    }
    (met, rest)
}

fn all<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = one(words, allowed);
    while let Some((&"AND", tail)) = rest.split_first() {
        let (next, after) = one(tail, allowed);
        (met, rest) = (met && next, after);
    }
    (met, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    match words {
        ["(", rest @ ..] => {
            let (met, rest) = any(rest, allowed);
            (met, rest.strip_prefix(&[")"]).unwrap_or(rest))
        }
        [licence, "WITH", exception, rest @ ..] => (
            allowed.contains(&format!("{licence} WITH {exception}")),
            rest,
        ),
        [licence, rest @ ..] => (allowed.contains(*licence), rest),
        [] => (false, words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_spdx_expressions() {
        let allowed = [
            "MIT",
            "Apache-2.0",
            "Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ];
        let allowed = allowed.iter().map(|a| (*a).to_owned()).collect();
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("GPL-3.0 OR MIT AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
            ("Apache-2.0 WITH Other-exception", false),
            ("", false),
        ] {
            assert_eq!(permits(expression, &allowed), expected, "{expression}");
        }
    }
}
