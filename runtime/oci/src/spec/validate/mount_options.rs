//! The option words of a mount (config.md "Linux mount options", mount(8)), each given its meaning.

use berth_sys::mount::{AttributeChange, Propagation, attr};

use crate::spec::config::Mount;

/// What a list of option words asks for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// A bind mount, and whether with the mounts below.
    pub(super) bind: Option<bool>,
    /// `remount`.
    pub(super) remount: bool,
    /// `idmap` (false) or `ridmap` (true).
    pub(super) id_map: Option<bool>,
    /// `tmpcopyup`.
    pub(super) copy_up: bool,
    /// `copy-symlink`.
    pub(super) copy_symlink: bool,
    /// Of the mount itself.
    pub(super) attributes: AttributeChange,
    /// Of the mount and all below it.
    pub(super) recursive: AttributeChange,
    /// In order.
    pub(super) propagation: Vec<(Propagation, bool)>,
    /// Parameters of the file system without value.
    pub(super) flags: Vec<String>,
    /// Parameters of the file system with their values.
    pub(super) values: Vec<(String, String)>,
}

/// Flags of any file system, which the kernel takes by these names (fs/fs_context.c); on a bind
/// mount, which has no file system of its own, they are without effect, as mount(2) has it.
const COMMON: [&str; 11] = [
    "sync",
    "async",
    "dirsync",
    "lazytime",
    "nolazytime",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "acl",
    "noacl",
];

/// Those of [`COMMON`] which only some file systems know, and which others take as they are.
const OPTIONAL: [&str; 4] = ["iversion", "noiversion", "acl", "noacl"];

/// Options whose value may hold a comma (selinux labels; a layer's path).
const WHOLE: [&str; 7] = [
    "context",
    "fscontext",
    "defcontext",
    "rootcontext",
    "lowerdir",
    "upperdir",
    "workdir",
];

/// Every word but those of a single file system, sorted: what `features` lists.
pub const WORDS: &[&str] = &[
    "acl",
    "async",
    "atime",
    "bind",
    "copy-symlink",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noacl",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// Whether the word is a flag that any file system takes.
pub(super) fn is_common(word: &str) -> bool {
    COMMON.contains(&word)
}

/// Whether a file system may refuse the flag without harm.
pub(crate) fn is_optional(flag: &str) -> bool {
    OPTIONAL.contains(&flag)
}

/// Parameters of tmpfs(5) with a value: engines leave them on a mount which they made a bind.
const OF_TMPFS: [&str; 8] = [
    "gid",
    "huge",
    "mode",
    "mpol",
    "nr_blocks",
    "nr_inodes",
    "size",
    "uid",
];

/// Takes the parameters of a tmpfs out of a bind mount: mount(2) passes over them, for such a mount has no
/// file system of its own. Other words stay, and are refused: one may be a misspelt one that was
/// to protect something.
pub(crate) fn take_parameters_of_bind(mount: &mut Mount) -> Vec<String> {
    let options = parse(&mount.options);
    if options.remount || options.bind.is_none() && mount.kind != "bind" {
        return Vec::new();
    }
    let is_parameter = |word: &mut String| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| OF_TMPFS.contains(&name))
    };
    mount.options.extract_if(.., is_parameter).collect()
}

/// Reads the words in order; of two that contradict each other the last counts.
pub(super) fn parse(words: &[String]) -> Options {
    let mut out = Options::default();
    for word in words {
        if attribute(word, &mut out) || propagation(word, &mut out) {
            continue;
        }
        match word.as_str() {
            "bind" => out.bind = Some(out.bind.unwrap_or(false)),
            "rbind" => out.bind = Some(true),
            "remount" => out.remount = true,
            "idmap" => out.id_map = Some(out.id_map.unwrap_or(false)),
            "ridmap" => out.id_map = Some(true),
            "tmpcopyup" => out.copy_up = true,
            "copy-symlink" => out.copy_symlink = true,
            "defaults" | "loud" | "silent" | "" => {}
            word => data(word, &mut out),
        }
    }
    out
}

/// What is left belongs to the file system; a word with commas is several, as in mount(2)'s data.
fn data(word: &str, out: &mut Options) {
    let key = word.split('=').next().unwrap_or_default();
    let parts: Vec<&str> = if WHOLE.contains(&key) {
        vec![word]
    } else {
        word.split(',').filter(|part| !part.is_empty()).collect()
    };
    for part in parts {
        match part.split_once('=') {
            Some((key, value)) => out.values.push((key.to_owned(), value.to_owned())),
            None => out.flags.push(part.to_owned()),
        }
    }
}

/// Bits to set and to clear.
fn bits(word: &str) -> Option<(u64, u64)> {
    Some(match word {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "noatime" => (attr::NOATIME, attr::ATIME),
        "atime" | "relatime" | "nostrictatime" => (attr::RELATIME, attr::ATIME),
        "norelatime" => (0, 0), // what the kernel does without any of these words
        "strictatime" => (attr::STRICTATIME, attr::ATIME),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        _ => return None,
    })
}

/// Applies a word that changes an attribute of the mount; `r` in front makes it recursive.
fn attribute(word: &str, out: &mut Options) -> bool {
    let (change, (set, clear)) = match bits(word) {
        Some(bits) => (&mut out.attributes, bits),
        None => match word.strip_prefix('r').and_then(bits) {
            Some(bits) => (&mut out.recursive, bits),
            None => return false,
        },
    };
    change.set = change.set & !clear | set;
    change.clear = change.clear & !set | clear;
    true
}

fn propagation(word: &str, out: &mut Options) -> bool {
    let known = |word: &str| match word {
        "shared" => Some(Propagation::Shared),
        "slave" => Some(Propagation::Slave),
        "private" => Some(Propagation::Private),
        "unbindable" => Some(Propagation::Unbindable),
        _ => None,
    };
    let recursive = || {
        word.strip_prefix('r')
            .and_then(known)
            .map(|kind| (kind, true))
    };
    match known(word).map(|kind| (kind, false)).or_else(recursive) {
        Some(kind) => {
            out.propagation.push(kind);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_word_is_understood_and_none_reaches_the_file_system_by_accident() {
        assert!(WORDS.is_sorted());
        for word in WORDS {
            let options = parse(&[(*word).to_owned()]);
            assert!(options.values.is_empty(), "{word}");
            assert!(options.flags.iter().all(|flag| is_common(flag)), "{word}");
        }
    }

    #[test]
    fn a_word_with_commas_is_several_unless_its_value_may_hold_them() {
        let words = ["size=1m,mode=755,noswap", "context=\"a:b:c1,c2\""].map(str::to_owned);
        let options = parse(&words);
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let label = pair("context", "\"a:b:c1,c2\"");
        assert_eq!(
            options.values,
            [pair("size", "1m"), pair("mode", "755"), label]
        );
        assert_eq!(options.flags, ["noswap"]);
    }

    #[test]
    fn of_two_words_the_last_counts_and_the_recursive_form_is_kept_apart() {
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            parse(&words)
        };
        assert_eq!(of(&["idmap", "ridmap"]).id_map, Some(true));
        assert_eq!(of(&["ridmap", "idmap"]).id_map, Some(true));
        let times = of(&["noatime", "rstrictatime", "relatime"]);
        assert_eq!(
            (times.attributes.set, times.attributes.clear),
            (0, attr::ATIME)
        );
        assert_eq!(times.recursive.set, attr::STRICTATIME);
        assert_eq!(of(&["rdev", "rsuid", "rexec"]).recursive.clear, 14);
    }
}
