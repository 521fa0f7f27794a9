use super::*;
use crate::testing::archive::{Entry, archive, block, dir, file, record};

fn members(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, ArchiveError> {
    let mut reader = Archive::new(bytes);
    let mut found = Vec::new();
    while let Some(member) = reader.next()? {
        let mut data = Vec::new();
        reader.read_to_end(&mut data).map_err(ArchiveError::Read)?;
        found.push((member, data));
    }
    reader.drain()?;
    Ok(found)
}

fn one(entry: Entry) -> Member {
    members(&archive(&[entry])).unwrap().remove(0).0
}

#[test]
fn members_come_with_their_data() {
    let long = format!("d/{}", "n".repeat(300));
    let read = members(&archive(&[
        dir("d/"),
        file("d/a", "hello"),
        file(&long, "x"),
    ]))
    .unwrap();
    let names: Vec<&[u8]> = read.iter().map(|(member, _)| &member.path[..]).collect();
    assert_eq!(names, [b"d/", &b"d/a"[..], long.as_bytes()]);
    assert_eq!(read[1].1, b"hello");
    assert_eq!(read[0].0.kind, Kind::Directory);
    assert_eq!(read[1].0.mtime, (1_600_000_000, 0));
}

#[test]
fn extended_headers_win() {
    let entry = file("short", "12345")
        .pax("path", "über/name".as_bytes())
        .pax("mtime", b"-1.25")
        .pax("uid", b"3000000000")
        .pax("SCHILY.xattr.user.a", b"v\0v")
        .pax("comment", b"any");
    let member = one(entry);
    assert_eq!(member.path, "über/name".as_bytes());
    assert_eq!(member.mtime, (-2, 750_000_000));
    assert_eq!(member.uid, 3_000_000_000);
    assert_eq!(member.xattrs, [(b"user.a".to_vec(), b"v\0v".to_vec())]);
    assert_eq!(one(file("kept", "").pax("path", b"")).path, b"kept");
}

/// The extended size decides where the next header is: a header hidden in the data stays data.
#[test]
fn a_size_override_cannot_smuggle_members() {
    let mut hidden = Vec::new();
    block(&mut hidden, &file("smuggled", ""));
    let mut bytes = Vec::new();
    let pax = Entry {
        flag: b'x',
        data: record("size", b"512"),
        ..file("pax", "")
    };
    block(&mut bytes, &pax);
    block(&mut bytes, &file("outer", ""));
    bytes.extend_from_slice(&hidden);
    let read = members(&bytes).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].1, hidden);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn damage_is_an_error() {
    let good = archive(&[file("a", "hello")]);
    let damaged = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (what, bytes) in [
        ("checksum", damaged(0, b'b')),
        ("truncated data", good[..514].to_vec()),
        ("truncated header", good[..100].to_vec()),
        (
            "sparse",
            archive(&[Entry {
                flag: b'S',
                ..file("s", "")
            }]),
        ),
        (
            "pax sparse",
            archive(&[file("s", "").pax("GNU.sparse.major", b"1")]),
        ),
        (
            "unknown type",
            archive(&[Entry {
                flag: b'V',
                ..file("s", "")
            }]),
        ),
        (
            "pax length",
            archive(&[Entry {
                flag: b'x',
                data: b"99 path=a\n".to_vec(),
                ..file("p", "")
            }]),
        ),
        ("pax nul", archive(&[file("a", "").pax("path", b"a\0b")])),
        ("pax number", archive(&[file("a", "").pax("size", b"-1")])),
        (
            "pax size",
            archive(&[file("a", "").pax("size", b"18446744073709551616")]),
        ),
        (
            "pax too long",
            archive(&[file("a", "").pax("comment", &vec![b'x'; 2 << 20])]),
        ),
        (
            "path too long",
            archive(&[file("a", "").pax("path", &vec![b'x'; 5000])]),
        ),
        (
            "endless extensions",
            archive(&vec![
                Entry {
                    flag: b'L',
                    ..file("l", "name")
                };
                20
            ]),
        ),
    ] {
        assert!(members(&bytes).is_err(), "{what}");
    }
}

#[test]
fn numbers_are_octal_or_base_256() {
    let field = |bytes: &[u8]| signed(bytes, "x").ok();
    assert_eq!(field(b"0000644\0"), Some(0o644));
    assert_eq!(field(b"   644 \0"), Some(0o644));
    assert_eq!(field(b"\0\0\0\0"), Some(0));
    assert_eq!(field(&[0x80, 0, 0, 0, 0, 0, 0x10, 0]), Some(4096));
    assert_eq!(field(&[0xff; 12]), Some(-1));
    assert_eq!(field(b"0000648\0"), None);
    assert_eq!(field(b"-000644\0"), None);
    assert_eq!(
        field(&[
            0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
        ]),
        None
    );
    assert!(number(&[0xff; 12], "x").is_err());
}

#[test]
fn the_end_may_be_short() {
    let bytes = archive(&[file("a", "")]);
    for end in [512, 1024, 1536] {
        assert_eq!(members(&bytes[..end]).unwrap().len(), 1);
    }
    assert!(members(b"").unwrap().is_empty());
}

proptest::proptest! {
    #[test]
    fn no_input_panics(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2048), valid: bool) {
        if valid && bytes.len() >= 512 {
            // A right checksum leads deeper.
            bytes[148..156].copy_from_slice(b"        ");
            let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let _ = members(&bytes);
    }
}
