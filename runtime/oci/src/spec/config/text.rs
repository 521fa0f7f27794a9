//! A JSON text → its tree, in one pass that borrows every string and number it can.
//!
//! Only what every configuration is made of is read here. Text with escapes, and numbers that are no
//! short integers, are left to serde_json word by word; a text in which anything is wrong is left to it
//! whole, so that it is refused by one reader, for one reason.

use std::borrow::Cow;
use std::str::from_utf8;

use super::node::{Members, Node};

/// Deeper texts are left to serde_json, whose bound is 128.
const DEPTH: usize = 64;

/// Digits of a number that a `u64` always holds.
const DIGITS: usize = 18;

/// The tree of a text.
///
/// # Errors
/// Where the text is no JSON, with line and column.
pub(crate) fn tree(text: &[u8]) -> Result<Node<'_>, serde_json::Error> {
    match from_utf8(text).ok().and_then(quick) {
        Some(node) => Ok(node),
        None => serde_json::from_slice(text),
    }
}

fn quick(text: &str) -> Option<Node<'_>> {
    let mut scan = Scan {
        text,
        at: 0,
        nodes: Vec::new(),
        members: Vec::new(),
    };
    let node = scan.value(DEPTH)?;
    scan.peek().is_none().then_some(node)
}

/// A reading: whatever it cannot take ends it with `None`.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// Elements of the lists that are open, those of the innermost last: a list is made when its
    /// length is known.
    nodes: Vec<Node<'a>>,
    /// As `nodes`, of objects.
    members: Members<'a>,
}

impl<'a> Scan<'a> {
    fn value(&mut self, depth: usize) -> Option<Node<'a>> {
        match self.peek()? {
            b'"' => self.string().map(Node::Text),
            b'{' => self.object(depth.checked_sub(1)?),
            b'[' => self.list(depth.checked_sub(1)?),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true", Node::Bool(true)),
            b'f' => self.word("false", Node::Bool(false)),
            b'n' => self.word("null", Node::Null),
            _ => None,
        }
    }

    fn object(&mut self, depth: usize) -> Option<Node<'a>> {
        let first = self.members.len();
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(Node::Object(Vec::new()));
        }
        loop {
            if self.peek()? != b'"' {
                return None;
            }
            let key = self.string()?;
            self.take(b':')?;
            let value = self.value(depth)?;
            self.members.push((key, value));
            if self.ends(b'}')? {
                return Some(Node::Object(self.members.split_off(first)));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Option<Node<'a>> {
        let first = self.nodes.len();
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(Node::List(Vec::new()));
        }
        loop {
            let value = self.value(depth)?;
            self.nodes.push(value);
            if self.ends(b']')? {
                return Some(Node::List(self.nodes.split_off(first)));
            }
        }
    }

    /// Takes the byte `end`, or else a comma.
    fn ends(&mut self, end: u8) -> Option<bool> {
        let next = self.peek()?;
        self.at += 1;
        match next {
            b',' => Some(false),
            _ if next == end => Some(true),
            _ => None,
        }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at + 1;
        let rest = &self.text.as_bytes()[start..];
        let length = rest.iter().position(|&byte| !is_plain(byte))?;
        match rest[length] {
            b'"' => {
                self.at = start + length + 1;
                Some(Cow::Borrowed(&self.text[start..start + length]))
            }
            b'\\' => self.escaped(start + length),
            _ => None, // a control character
        }
    }

    /// The string that begins here and has its first escape at `escape`.
    fn escaped(&mut self, mut escape: usize) -> Option<Cow<'a, str>> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(escape)? {
                b'"' => break,
                b'\\' => escape += 2,
                _ => escape += 1,
            }
        }
        let word = &self.text[self.at..=escape];
        self.at = escape + 1;
        serde_json::from_str(word).ok().map(Cow::Owned)
    }

    fn number(&mut self) -> Option<Node<'a>> {
        let rest = &self.text[self.at..];
        let strange = |byte: u8| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let end = rest.bytes().position(strange).unwrap_or(rest.len());
        let word = &rest[..end];
        self.at += end;
        let bytes = word.as_bytes();
        let is_short = end <= DIGITS && bytes.iter().all(u8::is_ascii_digit);
        if is_short && (end == 1 || bytes[0] != b'0') {
            let value = |sum, byte: &u8| 10 * sum + u64::from(byte - b'0');
            return Some(Node::Unsigned(bytes.iter().fold(0, value)));
        }
        serde_json::from_str(word).ok()
    }

    fn word(&mut self, word: &str, node: Node<'a>) -> Option<Node<'a>> {
        let found = self.text[self.at..].starts_with(word);
        self.at += word.len();
        found.then_some(node)
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let found = self.peek()? == byte;
        self.at += 1;
        found.then_some(())
    }

    /// Goes to the next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.text.as_bytes().get(self.at)? {
                b' ' | b'\n' | b'\t' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }
}

/// Whether a byte of a string stands for itself.
fn is_plain(byte: u8) -> bool {
    byte != b'"' && byte != b'\\' && byte >= b' '
}
