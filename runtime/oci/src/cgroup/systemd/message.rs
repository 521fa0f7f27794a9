//! Messages of D-Bus, as far as calls to systemd need them (D-Bus specification, "Message Protocol").
//!
//! Every value is aligned to its own size, counted from the start of the message; the body starts at
//! a multiple of eight, so it can be written apart.

/// A value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `b`
    Bool(bool),
    /// `t`
    U64(u64),
    /// `s`
    Text(String),
    /// `au`
    Numbers(Vec<u32>),
    /// `ay`
    Bytes(Vec<u8>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::U64(_) => "t",
            Value::Text(_) => "s",
            Value::Numbers(_) => "au",
            Value::Bytes(_) => "ay",
        }
    }
}

/// Bytes of a message or a body, little-endian.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array whose elements are aligned to `to`; its length does not count the padding before.
    pub(super) fn array(&mut self, to: usize, elements: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(to);
        let start = self.0.len();
        elements(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Bool(value) => self.bool(*value),
            Value::U64(value) => {
                self.align(8);
                self.0.extend(value.to_le_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Numbers(all) => self.array(4, |w| all.iter().for_each(|n| w.u32(*n))),
            Value::Bytes(all) => self.array(1, |w| w.0.extend(all)),
        }
    }

    /// `a(sv)`
    pub(super) fn properties(&mut self, all: &[(&str, Value)]) {
        self.array(8, |w| {
            for (name, value) in all {
                w.align(8);
                w.text(name);
                w.variant(value);
            }
        });
    }
}

/// A call of a method of systemd's manager.
pub(super) fn call(serial: u32, member: &str, signature: &str, body: &Writer) -> Vec<u8> {
    const METHOD_CALL: u8 = 1;
    const VERSION: u8 = 1;
    let mut out = Writer(vec![b'l', METHOD_CALL, 0, VERSION]);
    out.u32(body.0.len() as u32);
    out.u32(serial);
    out.array(8, |w| {
        for (code, kind, text) in [
            (1u8, "o", "/org/freedesktop/systemd1"),
            (2, "s", "org.freedesktop.systemd1.Manager"),
            (3, "s", member),
            (6, "s", "org.freedesktop.systemd1"),
            (8, "g", signature),
        ] {
            w.align(8);
            w.0.push(code);
            w.signature(kind);
            match kind {
                "g" => w.signature(text),
                _ => w.text(text),
            }
        }
    });
    out.align(8);
    out.0.extend(&body.0);
    out.0
}

/// A message from systemd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) reply_to: Option<u32>,
    pub(super) member: Option<String>,
    pub(super) error: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Length of the part of a header that tells how long the rest is.
pub(super) const START: usize = 16;

/// Length of a whole message by its first [`START`] bytes; `None` for what is no message of ours.
pub(super) fn length(start: &[u8]) -> Option<usize> {
    const LARGEST: usize = 1 << 20;
    let mut reader = Reader {
        bytes: start,
        at: 4,
    };
    let body = reader.u32()? as usize;
    reader.u32()?;
    let fields = reader.u32()? as usize;
    let little = start.first() == Some(&b'l');
    let all = (START + fields.min(LARGEST)).next_multiple_of(8) + body.min(LARGEST);
    (little && all <= LARGEST).then_some(all)
}

/// Reads a whole message.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    let mut reader = Reader { bytes, at: 12 };
    let end = reader.u32()? as usize + START;
    let mut message = Message {
        kind: *bytes.get(1)?,
        ..Message::default()
    };
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        match (code, reader.signature()?.as_str()) {
            (5, "u") => message.reply_to = Some(reader.u32()?),
            (3, "s") => message.member = Some(reader.text()?),
            (4, "s") => message.error = Some(reader.text()?),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "u") => drop(reader.u32()?),
            (_, "g") => drop(reader.signature()?),
            _ => return None,
        }
    }
    message.body = bytes.get(end.next_multiple_of(8)..)?.to_vec();
    Some(message)
}

/// Reads values in order.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.bytes.get(self.at..self.at.checked_add(4)?)?;
        self.at += 4;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        self.chars(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.chars(length)
    }

    fn chars(&mut self, length: usize) -> Option<String> {
        let end = self.at.checked_add(length)?;
        let text = String::from_utf8(self.bytes.get(self.at..end)?.to_vec()).ok()?;
        self.at = end + 1; // the zero byte
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that the specification's own rules give, counted by hand.
    #[test]
    fn properties_are_aligned() {
        let mut body = Writer::default();
        body.properties(&[
            ("A", Value::Bool(true)),
            ("B", Value::Numbers(vec![7])),
            ("C", Value::U64(9)),
        ]);
        let expected: Vec<u8> = [
            &[60, 0, 0, 0, 0, 0, 0, 0][..], // length, padding to 8
            &[1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0], // A, signature b, 1
            &[1, 0, 0, 0, b'B', 0, 2, b'a', b'u', 0, 0, 0], // B, signature au
            &[4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], // one number, padding
            &[1, 0, 0, 0, b'C', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0], // C, signature t, padding
            &[9, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        let length = (expected.len() - 8) as u8;
        let mut expected = expected;
        expected[0] = length;
        assert_eq!(body.0, expected);
    }

    #[test]
    fn a_message_reads_back() {
        let mut body = Writer::default();
        body.text("unit");
        let bytes = call(7, "GetUnit", "s", &body);
        assert_eq!(length(&bytes[..START]), Some(bytes.len()));
        let message = parse(&bytes).unwrap();
        assert_eq!(
            (message.kind, message.member.as_deref()),
            (1, Some("GetUnit"))
        );
        let mut reader = Reader {
            bytes: &message.body,
            at: 0,
        };
        assert_eq!(reader.text().as_deref(), Some("unit"));
        for cut in 0..bytes.len() {
            let _ = parse(&bytes[..cut]); // never past the end
        }
        assert_eq!(length(&[0; START]), None);
    }
}
