//! Archives by hand: every field can be wrong.

use std::io::Write;

/// One member to be written.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub name: Vec<u8>,
    pub flag: u8,
    pub mode: u32,
    pub owner: (u32, u32),
    pub link: Vec<u8>,
    pub data: Vec<u8>,
    pub device: (u32, u32),
    pub pax: Vec<(String, Vec<u8>)>,
}

fn entry(name: &str, flag: u8, mode: u32) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        flag,
        mode,
        owner: (0, 0),
        link: Vec::new(),
        data: Vec::new(),
        device: (0, 0),
        pax: Vec::new(),
    }
}

pub(crate) fn file(name: &str, data: &str) -> Entry {
    Entry {
        data: data.as_bytes().to_vec(),
        ..entry(name, b'0', 0o644)
    }
}

pub(crate) fn dir(name: &str) -> Entry {
    entry(name, b'5', 0o755)
}

pub(crate) fn symlink(name: &str, target: &str) -> Entry {
    Entry {
        link: target.as_bytes().to_vec(),
        ..entry(name, b'2', 0o777)
    }
}

pub(crate) fn hardlink(name: &str, target: &str) -> Entry {
    Entry {
        link: target.as_bytes().to_vec(),
        ..entry(name, b'1', 0o644)
    }
}

pub(crate) fn device(name: &str, flag: u8, major: u32, minor: u32) -> Entry {
    Entry {
        device: (major, minor),
        ..entry(name, flag, 0o600)
    }
}

impl Entry {
    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn owner(self, uid: u32, gid: u32) -> Self {
        Self {
            owner: (uid, gid),
            ..self
        }
    }

    pub fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.pax.push((key.to_owned(), value.to_vec()));
        self
    }

    fn write(&self, out: &mut Vec<u8>) {
        if !self.pax.is_empty() {
            let records: Vec<u8> = self
                .pax
                .iter()
                .flat_map(|(key, value)| record(key, value))
                .collect();
            block(
                out,
                &Entry {
                    flag: b'x',
                    data: records,
                    pax: Vec::new(),
                    ..entry("pax", b'x', 0)
                },
            );
        }
        block(out, self);
    }
}

/// A PAX record; its length counts its own digits.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// The member's header (names over 100 bytes as GNU long names) and data.
pub(crate) fn block(out: &mut Vec<u8>, entry: &Entry) {
    for (flag, long) in [(b'L', &entry.name), (b'K', &entry.link)] {
        if long.len() > 100 {
            let data = [&long[..], b"\0"].concat();
            block(
                out,
                &Entry {
                    flag,
                    data,
                    link: Vec::new(),
                    name: b"long".to_vec(),
                    pax: Vec::new(),
                    ..entry.clone()
                },
            );
        }
    }
    let mut header = [0u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &entry.name[..entry.name.len().min(100)]);
    put(100, format!("{:07o}", entry.mode).as_bytes());
    put(
        108,
        format!("{:07o}", entry.owner.0 & 0o7_777_777).as_bytes(),
    );
    put(
        116,
        format!("{:07o}", entry.owner.1 & 0o7_777_777).as_bytes(),
    );
    put(124, format!("{:011o}", entry.data.len()).as_bytes());
    put(136, format!("{:011o}", 1_600_000_000).as_bytes());
    put(156, &[entry.flag]);
    put(157, &entry.link[..entry.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}", entry.device.0).as_bytes());
    put(337, format!("{:07o}", entry.device.1).as_bytes());
    put(148, b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(&entry.data);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// A whole archive.
pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    entries.iter().for_each(|entry| entry.write(&mut out));
    out.resize(out.len() + 1024, 0);
    out
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
