#![expect(
    clippy::disallowed_methods,
    reason = "the tests look at the tree and the canary by path"
)]

mod random;

use super::*;
use crate::layer::merged::Merged;
use crate::testing::archive::{Entry, archive, device, dir, file, hardlink, symlink};
use crate::testing::{describe_tree, is_root};

const MAX_ENTRIES: u64 = 1000;

/// A layer's directory with a canary beside it.
struct Place {
    dir: tempfile::TempDir,
    before: Vec<String>,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("host/etc")).unwrap();
        std::fs::create_dir_all(dir.path().join("layer")).unwrap();
        std::fs::write(dir.path().join("host/etc/passwd"), "canary").unwrap();
        let before = describe_tree(&dir.path().join("host"));
        Self { dir, before }
    }

    fn layer(&self) -> std::path::PathBuf {
        self.dir.path().join("layer")
    }

    /// Applies, and demands that nothing outside changed.
    fn apply(&self, entries: &[Entry], below: Vec<Tree>) -> Result<Vec<String>, String> {
        let bytes = archive(entries);
        let tree = Tree::open(&self.layer()).unwrap();
        let result = apply(&mut Archive::new(&bytes[..]), &tree, MAX_ENTRIES)
            .and_then(|applied| Merged::new(below).complete(&tree, &applied));
        assert_eq!(
            describe_tree(&self.dir.path().join("host")),
            self.before,
            "the canary"
        );
        let names: Vec<_> = std::fs::read_dir(self.dir.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "nothing beside the layer");
        result
            .map(|()| describe_tree(&self.layer()))
            .map_err(|error| error.to_string())
    }
}

/// What hostile layers lead to: a tree within the layer, or an error that says why. `@` stands for
/// the absolute path of a host directory with a canary.
#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn root_hostile_layers_stay_inside() {
    if !is_root() {
        return;
    }
    let text = |name: &str| file(name, "evil");
    let evil = "\"evil\" links 1";
    type Outcome<'a> = Result<Vec<String>, &'a str>;
    let tree = |lines: &[String]| -> Outcome<'_> { Ok(lines.to_vec()) };
    let error = |text| -> Outcome<'_> { Err(text) };
    let table: Vec<(&str, Vec<Entry>, Outcome<'_>)> = vec![
        (
            "absolute path",
            vec![text("/etc/x")],
            tree(&["etc 755 0:0 dir".into(), format!("etc/x 644 0:0 {evil}")]),
        ),
        ("dot dot", vec![text("../host/etc/passwd")], error("`..`")),
        (
            "inner dot dot",
            vec![text("a/../../host/etc/passwd")],
            error("`..`"),
        ),
        (
            "pax override",
            vec![file("ok", "x").pax("path", b"../host/etc/passwd")],
            error("`..`"),
        ),
        (
            "pax link override",
            vec![hardlink("h", "ok").pax("linkpath", b"../host/etc/passwd")],
            error("`..`"),
        ),
        (
            "symlink parent",
            vec![symlink("s", "@"), text("s/passwd")],
            error("cannot open the directory"),
        ),
        (
            "relative symlink parent",
            vec![symlink("s", "../../../host/etc"), text("s/passwd")],
            error("cannot open the directory"),
        ),
        (
            "symlink parent inside",
            vec![dir("real/"), symlink("s", "/real"), text("s/x")],
            tree(&[
                "real 755 0:0 dir".into(),
                format!("real/x 644 0:0 {evil}"),
                "s 777 0:0 -> /real".into(),
            ]),
        ),
        (
            "file over symlink",
            vec![symlink("s", "@/passwd"), text("s")],
            tree(&[format!("s 644 0:0 {evil}")]),
        ),
        (
            "dir over symlink",
            vec![symlink("s", "@"), dir("s/"), text("s/passwd")],
            tree(&["s 755 0:0 dir".into(), format!("s/passwd 644 0:0 {evil}")]),
        ),
        (
            "hard link to the host",
            vec![hardlink("h", "@/passwd")],
            error("target is in no layer"),
        ),
        (
            "hard link by dot dot",
            vec![hardlink("h", "../host/etc/passwd")],
            error("`..`"),
        ),
        (
            "hard link through symlink",
            vec![symlink("s", "@"), hardlink("h", "s/passwd")],
            error("target is in no layer"),
        ),
        (
            "hard link to itself",
            vec![file("h", "x"), hardlink("h", "h")],
            error("links to itself"),
        ),
        (
            "chmod through a link to a symlink",
            vec![
                symlink("s", "@/passwd"),
                hardlink("h", "s").mode(0o777),
                file("s", "x").mode(0o600),
            ],
            tree(&[
                "h 777 0:0 -> @/passwd".into(),
                "s 600 0:0 \"x\" links 1".into(),
            ]),
        ),
        (
            "whiteout dot dot",
            vec![text(".wh...")],
            error("whiteout of no name"),
        ),
        (
            "whiteout dot",
            vec![text("a/.wh..")],
            error("whiteout of no name"),
        ),
        (
            "whiteout empty",
            vec![text(".wh.")],
            error("whiteout of no name"),
        ),
        (
            "whiteout through symlink",
            vec![symlink("s", "@"), text("s/.wh.passwd")],
            error("cannot open the directory"),
        ),
        (
            "opaque on symlink",
            vec![dir("d/"), symlink("s", "d"), text("s/.wh..wh..opq")],
            error("cannot open the directory"),
        ),
        (
            "below a whiteout",
            vec![text(".wh.d/x")],
            error("below a whiteout"),
        ),
        (
            "aufs book-keeping",
            vec![text(".wh..wh.plnk/1.2"), text(".wh..wh.aufs")],
            tree(&[]),
        ),
        (
            "overlay attribute",
            vec![dir("d/").pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc")],
            error("reserved to overlayfs"),
        ),
        (
            "user overlay attribute",
            vec![file("f", "").pax("SCHILY.xattr.user.overlay.opaque", b"y")],
            error("reserved to overlayfs"),
        ),
        (
            "root replaced",
            vec![symlink("./", "@")],
            error("replace the root"),
        ),
        (
            "owner beyond 32 bits",
            vec![file("f", "").pax("uid", b"4294967296")],
            error("32-bit"),
        ),
        (
            "owner that means unchanged",
            vec![file("f", "").pax("gid", b"4294967295")],
            error("32-bit"),
        ),
        (
            "empty symlink",
            vec![symlink("s", "")],
            error("make the symlink"),
        ),
        (
            "component too long",
            vec![text(&"n".repeat(300))],
            error("File name too long"),
        ),
        (
            "file as parent",
            vec![text("f"), text("f/x")],
            error("cannot open the directory"),
        ),
        (
            "symlink loop",
            vec![symlink("a", "b"), symlink("b", "a"), text("a/x")],
            error("cannot open the directory"),
        ),
        (
            "proc magic link",
            vec![symlink("p", "/proc/self/cwd"), text("p/x")],
            error("cannot open the directory"),
        ),
    ];
    for (name, entries, expected) in table {
        let place = Place::new();
        let host = place.dir.path().join("host/etc").display().to_string();
        let entries: Vec<Entry> = entries
            .into_iter()
            .map(|entry| {
                let link = String::from_utf8(entry.link)
                    .unwrap()
                    .replace('@', &host)
                    .into_bytes();
                Entry { link, ..entry }
            })
            .collect();
        match (place.apply(&entries, Vec::new()), expected) {
            (Ok(found), Ok(wanted)) => {
                let wanted: Vec<String> =
                    wanted.iter().map(|line| line.replace('@', &host)).collect();
                assert_eq!(found, wanted, "{name}");
            }
            (Err(found), Err(wanted)) => assert!(found.contains(wanted), "{name}: {found}"),
            (found, wanted) => panic!("{name}: {found:?} is not {wanted:?}"),
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one layer and its tree")]
fn root_ordinary_layers_come_out_whole() {
    if !is_root() {
        return;
    }
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let place = Place::new();
    let found = place
        .apply(
            &[
                dir("./").mode(0o711),
                dir("./bin/"),
                file("./bin/su", "su").mode(0o4755).owner(7, 8),
                file("./bin/ping", "p").pax("SCHILY.xattr.security.capability", &capability),
                hardlink("./bin/link", "./bin/su"),
                symlink("./lib", "usr/lib"),
                file("./bin/label", "").pax("SCHILY.xattr.security.selinux", b"x"),
                file("./bin/attr", "").pax("SCHILY.xattr.user.a", b"b"),
                device("./dev/null", b'3', 1, 3).mode(0o666),
                device("./dev/disk", b'4', 8, 1),
                device("./pipe", b'6', 0, 0),
                file("./twice", "first"),
                file("./twice", "second").mode(0o600),
                dir("./gone/"),
                file("./gone/x", "x"),
                file("./gone", "now a file"),
            ],
            Vec::new(),
        )
        .unwrap();
    assert_eq!(
        found,
        [
            "bin 755 0:0 dir",
            "bin/attr 644 0:0 \"\" links 1",
            "bin/label 644 0:0 \"\" links 1",
            "bin/link 4755 7:8 \"su\" links 2",
            "bin/ping 644 0:0 \"p\" links 1",
            "bin/su 4755 7:8 \"su\" links 2",
            "dev 755 0:0 dir",
            "dev/disk 600 0:0 device 8:1",
            "dev/null 666 0:0 device 1:3",
            "gone 644 0:0 \"now a file\" links 1",
            "lib 777 0:0 -> usr/lib",
            "pipe 600 0:0 fifo",
            "twice 600 0:0 \"second\" links 1",
        ]
    );
    let layer = place.layer();
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(
        layer.join("bin/ping"),
        "security.capability",
        &mut value[..],
    )
    .unwrap();
    assert_eq!(value[..length], capability);
    assert!(
        rustix::fs::getxattr(layer.join("bin/label"), "security.selinux", &mut value[..]).is_err()
    );
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&layer).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(
        std::fs::metadata(layer.join("bin")).unwrap().mtime(),
        1_600_000_000
    );
    assert_eq!(
        std::fs::symlink_metadata(layer.join("lib"))
            .unwrap()
            .mtime(),
        1_600_000_000
    );
}

#[test]
fn root_whiteouts_speak_of_the_layers_below_only() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let found = place
        .apply(
            &[
                file(".wh.gone", ""),
                dir("kept/"),
                file("kept/x", "x"),
                file(".wh.kept", ""),
                file(".wh.back", ""),
                dir("back/"),
                file("file", "x"),
                file(".wh.file", ""),
                device("zero", b'3', 0, 0),
                file("d/.wh..wh..opq", ""),
                file("d/y", "y"),
                file(".wh.swap", ""),
                file("swap", "s"),
            ],
            Vec::new(),
        )
        .unwrap();
    assert_eq!(
        found,
        [
            "back 755 0:0 dir opaque",
            "d 755 0:0 dir opaque",
            "d/y 644 0:0 \"y\" links 1",
            "file 644 0:0 \"x\" links 1",
            "gone whiteout",
            "kept 755 0:0 dir opaque",
            "kept/x 644 0:0 \"x\" links 1",
            "swap 644 0:0 \"s\" links 1",
            "zero whiteout",
        ]
    );
}

#[test]
fn root_layers_are_completed_from_those_below() {
    if !is_root() {
        return;
    }
    let below = Place::new();
    below
        .apply(
            &[
                dir("./").mode(0o700).owner(9, 9),
                dir("a/").mode(0o710).owner(1, 2),
                file("a/f", "below").mode(0o4711).owner(3, 4),
                symlink("l", "/a"),
            ],
            Vec::new(),
        )
        .unwrap();
    let place = Place::new();
    let lower = vec![Tree::open(&below.layer()).unwrap()];
    let found = place
        .apply(
            &[file("a/g", "g"), hardlink("h", "a/f"), hardlink("i", "a/f")],
            lower,
        )
        .unwrap();
    assert_eq!(
        found,
        [
            "a 710 1:2 dir",
            "a/g 644 0:0 \"g\" links 1",
            "h 4711 3:4 \"below\" links 2",
            "i 4711 3:4 \"below\" links 2",
        ]
    );
    use std::os::unix::fs::MetadataExt;
    let root = std::fs::metadata(place.layer()).unwrap();
    assert_eq!((root.mode() & 0o7777, root.uid()), (0o700, 9));
    let top = || {
        vec![
            Tree::open(&place.layer()).unwrap(),
            Tree::open(&below.layer()).unwrap(),
        ]
    };
    let read = |path: &str| {
        let mut text = String::new();
        Merged::new(top())
            .open_file(path.as_bytes())
            .unwrap()?
            .read_to_string(&mut text)
            .ok()?;
        Some(text)
    };
    assert_eq!(read("/l/g").as_deref(), Some("g"));
    assert_eq!(read("l/../l/f").as_deref(), Some("below"));
    assert_eq!(read("../../../a/f").as_deref(), Some("below"));
    assert_eq!(read("/a/none"), None);
    assert!(Merged::new(top()).open_file(b"a").is_err());
}

#[test]
fn root_entries_are_counted() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let many: Vec<Entry> = (0..=MAX_ENTRIES).map(|_| file("same", "")).collect();
    let error = place.apply(&many, Vec::new()).unwrap_err();
    assert!(error.contains("more than 1000 entries"), "{error}");
}

#[test]
fn root_bombs_are_defused() {
    use crate::config::Limits;
    use crate::digest::Digest;
    use crate::layer::decompress::Uncompressed;
    let zeros = vec![0; 3 << 20];
    let limits = Limits {
        ratio_free: 1 << 20,
        ratio: 10,
        ..Limits::default()
    };
    for bomb in [
        crate::testing::archive::gzip(&zeros),
        zstd::encode_all(&zeros[..], 3).unwrap(),
    ] {
        let digest = Digest::of(b"");
        let size = bomb.len() as u64;
        let mut reader = Uncompressed::new(&bomb[..], size, &digest, &limits).unwrap();
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(
            error.to_string().contains("unpacks to more than"),
            "{error}"
        );
    }
}
