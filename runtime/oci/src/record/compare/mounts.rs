//! The mount table: every mount asked for is there as asked, and no other is.

use std::collections::BTreeMap;
use std::path::Path;

use crate::record::schema::Mount;

use super::Comparison;

/// Types whose source, or the part of it that is shown, is not what was asked: a bind shows what it
/// is part of, cgroup2 the reader's view, an overlay is checked by its file system.
const SOURCE_DIFFERS: [&str; 3] = ["bind", "cgroup2", "overlay"];

impl Comparison<'_> {
    pub(super) fn mounts(&mut self) {
        let requested = self.requested;
        let asked = requested.mounts.as_deref().unwrap_or_default();
        let seen = self.observed.applied.mounts.as_deref().unwrap_or_default();
        let mut by_target = BTreeMap::<&str, Vec<usize>>::new();
        for (index, mount) in seen.iter().enumerate().rev() {
            by_target.entry(&mount.target).or_default().push(index);
        }
        for (target, found) in &mut by_target {
            let brought = self.brought_along(target, found.len());
            found.truncate(found.len() - brought); // the lowest
        }
        let mut used = vec![false; seen.len()];
        for (index, mount) in asked.iter().enumerate() {
            let found = by_target.get_mut(mount.target.as_str()).and_then(Vec::pop);
            let Some(found) = found else {
                let place = self.observed.targets.get(&mount.target);
                if !place.is_some_and(|place| place.link) {
                    let field = format!("mounts.{}", mount.target);
                    self.out
                        .wrong(field, format!("asked {}, got no mount", mount.kind));
                }
                continue;
            };
            used[found] = true;
            self.mount(asked, index, &seen[found]);
        }
        for (mount, used) in seen.iter().zip(used) {
            if !used && !self.is_explained(mount) {
                let field = format!("mounts.{}", mount.target);
                let reason = format!("nobody asked for {} from {}", mount.kind, mount.source);
                self.out.wrong(field, reason);
            }
        }
        self.recursive_flags(seen);
    }

    /// How many of the `found` mounts on `target` came with a tree that was bound before: they lie below
    /// what was asked for there.
    fn brought_along(&self, target: &str, found: usize) -> usize {
        let requested = self.requested;
        let asked = requested.mounts.as_deref().unwrap_or_default();
        let Some(first) = asked.iter().position(|mount| mount.target == target) else {
            return 0;
        };
        let is_tree = |mount: &Mount| requested.context.trees.contains(&mount.target);
        let mut before = asked[..first].iter();
        let in_tree = before.any(|mount| is_tree(mount) && is_below(target, &mount.target));
        let protected = || {
            let masked = requested.masked_paths.iter().flatten();
            let readonly = requested.readonly_paths.iter().flatten();
            masked.chain(readonly).map(|(path, _)| path)
        };
        // A protected path covers itself once more, and copies what is below it.
        if !in_tree || protected().any(|path| is_below(target, path)) {
            return 0;
        }
        let here = asked.iter().filter(|mount| mount.target == target).count();
        let above = protected().filter(|path| *path == target).count();
        found.saturating_sub(here + above)
    }

    fn mount(&mut self, all: &[Mount], index: usize, got: &Mount) {
        let asked = &all[index];
        let field = |part: &str| format!("mounts.{}.{part}", asked.target);
        if asked.kind != "bind" && asked.kind != got.kind {
            self.out.differs(&field("type"), &asked.kind, &got.kind);
        }
        if !SOURCE_DIFFERS.contains(&asked.kind.as_str()) && asked.source != got.source {
            self.out
                .differs(&field("source"), &asked.source, &got.source);
        }
        let missing: Vec<&String> = asked.flags.iter().filter(|word| !has(got, word)).collect();
        if !missing.is_empty() {
            self.out.differs(&field("flags"), missing, &got.flags);
        }
        let above = all[..index].iter();
        let under_shared = above
            .filter(|other| is_below(&asked.target, &other.target))
            .any(|other| other.propagation == "shared");
        if !spreads(&asked.propagation, &got.propagation, under_shared) {
            self.out
                .differs(&field("propagation"), &asked.propagation, &got.propagation);
        }
        let covered = all[index + 1..]
            .iter()
            .map(|later| later.target.as_str())
            .chain(
                self.requested
                    .masked_paths
                    .iter()
                    .flatten()
                    .map(|(path, _)| path.as_str()),
            )
            .any(|later| later == asked.target || is_below(&asked.target, later));
        if let (Some(file), Some(place)) = (asked.file, self.observed.targets.get(&asked.target))
            && !covered
            && !place.link
            && place.file != file
        {
            self.out.wrong(
                field("source"),
                format!(
                    "{} is not what was bound: another file is there",
                    asked.source
                ),
            );
        }
    }

    /// Mounts that no request names: nodes that are bound, protected paths, what a tree brings along.
    fn is_explained(&self, mount: &Mount) -> bool {
        let requested = self.requested;
        let named = |path: &String| *path == mount.target;
        let masked = requested.masked_paths.iter().flatten();
        let readonly = requested.readonly_paths.iter().flatten();
        requested.context.tolerated.iter().any(named)
            || masked.map(|(path, _)| path).any(named)
            || readonly
                .map(|(path, _)| path)
                .any(|path| named(path) || is_below(&mount.target, path))
            || self.observed.inherited.iter().any(named)
            || requested
                .context
                .trees
                .iter()
                .any(|tree| tree != "/" && is_below(&mount.target, tree))
    }

    fn recursive_flags(&mut self, seen: &[Mount]) {
        for (tree, words) in &self.requested.context.recursive_flags {
            let below = seen.iter().filter(|mount| is_below(&mount.target, tree));
            for mount in below {
                let own = self.requested.mounts.iter().flatten();
                let mut own = own.filter(|asked| asked.target == mount.target);
                if own.next().is_none() && !words.iter().all(|word| has(mount, word)) {
                    let field = format!("mounts.{}.flags", mount.target);
                    self.out.differs(&field, words, &mount.flags);
                }
            }
        }
    }

    pub(super) fn protected_paths(&mut self) {
        let seen = self.observed.applied.mounts.as_deref().unwrap_or_default();
        let last = |path: &str| seen.iter().rfind(|mount| mount.target == path);
        for path in self
            .requested
            .masked_paths
            .iter()
            .flatten()
            .map(|(path, _)| path)
        {
            let fine = match last(path) {
                Some(mount) => is_mask(mount),
                None => self.observed.absent.contains(path),
            };
            if !fine {
                self.out
                    .wrong(format!("masked_paths.{path}"), "it is not masked");
            }
        }
        for path in self
            .requested
            .readonly_paths
            .iter()
            .flatten()
            .map(|(path, _)| path)
        {
            let fine = match last(path) {
                Some(mount) => has(mount, "ro"),
                None => self.observed.absent.contains(path),
            };
            if !fine {
                self.out
                    .wrong(format!("readonly_paths.{path}"), "it can be written");
            }
        }
    }
}

/// The null device, or an empty directory that cannot be written (rootfs/protect.rs).
pub(in crate::record) fn is_mask(mount: &Mount) -> bool {
    let null = mount.source.ends_with(":/null") || mount.source.ends_with("/null");
    has(mount, "ro") && has(mount, "noexec") && (null || mount.kind == "tmpfs")
}

fn has(mount: &Mount, word: &str) -> bool {
    let set = |word: &str| mount.flags.iter().any(|flag| flag == word);
    match word {
        "rw" => !set("ro"),
        "suid" => !set("nosuid"),
        "dev" => !set("nodev"),
        "exec" => !set("noexec"),
        "diratime" => !set("nodiratime"),
        "symfollow" => !set("nosymfollow"),
        "strictatime" => !set("noatime") && !set("relatime"),
        word => set(word),
    }
}

/// A slave without a master is private, and what is mounted below a shared mount becomes shared
/// (mount_namespaces(7)).
fn spreads(asked: &str, got: &str, under_shared: bool) -> bool {
    match asked {
        "shared" => got.starts_with("shared"),
        "slave" => got.ends_with("slave") || got == "private",
        asked => got == asked || under_shared && got == "shared",
    }
}

fn is_below(path: &str, tree: &str) -> bool {
    path != tree && Path::new(path).starts_with(tree)
}
