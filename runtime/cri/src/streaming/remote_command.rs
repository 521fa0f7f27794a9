//! `v4.channel.k8s.io`: the streams of exec and attach, and the status at their end.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::sessions::Streams;
use super::spdy::{Connection, StreamReader, StreamWriter, value};

/// How long a client may take to open all its streams.
const OPENED_WITHIN: Duration = Duration::from_secs(30);
/// Longest message about a terminal's size, in bytes.
const MAX_SIZE_MESSAGE: usize = 4096;

/// The client's streams, all open.
pub struct Channels {
    /// Carries the status at the end.
    pub error: StreamWriter,
    /// What the client types.
    pub stdin: Option<StreamReader>,
    /// What it sees.
    pub stdout: Option<StreamWriter>,
    /// What it sees in red.
    pub stderr: Option<StreamWriter>,
    /// How large its terminal is.
    pub resize: Option<Sizes>,
}

/// Accepts streams until all that `wanted` says are open; None when the client does not
/// open them.
pub async fn accept(connection: &mut Connection, wanted: Streams) -> Option<Channels> {
    tokio::time::timeout(OPENED_WITHIN, accept_all(connection, wanted))
        .await
        .ok()
        .flatten()
}

async fn accept_all(connection: &mut Connection, wanted: Streams) -> Option<Channels> {
    let (mut error, mut stdin, mut stdout, mut stderr, mut resize) = (None, None, None, None, None);
    loop {
        let complete = stdin.is_some() == wanted.stdin
            && stdout.is_some() == wanted.stdout
            && stderr.is_some() == wanted.stderr
            && resize.is_some() == wanted.tty;
        if complete && let Some(error) = error {
            return Some(Channels {
                error,
                stdin,
                stdout,
                stderr,
                resize,
            });
        }
        let stream = connection.accept().await?;
        match value(&stream.headers, "streamType") {
            Some("error") => error = Some(stream.writer),
            Some("stdin") if wanted.stdin => stdin = Some(stream.reader),
            Some("stdout") if wanted.stdout => stdout = Some(stream.writer),
            Some("stderr") if wanted.stderr => stderr = Some(stream.writer),
            Some("resize") if wanted.tty => resize = Some(Sizes::new(stream.reader)),
            // One that means nothing here; the client goes on without it.
            _ => drop(stream.writer.reset().await),
        }
    }
}

/// Sizes of the client's terminal, as JSON objects one after the other.
pub struct Sizes {
    reader: StreamReader,
    text: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

impl Sizes {
    fn new(reader: StreamReader) -> Self {
        Sizes {
            reader,
            text: Vec::new(),
        }
    }

    /// The next size, as rows and columns; None when there will be none any more.
    pub async fn next(&mut self) -> Option<(u16, u16)> {
        loop {
            let mut sizes = serde_json::Deserializer::from_slice(&self.text).into_iter::<Size>();
            match sizes.next() {
                Some(Ok(size)) => {
                    let used = sizes.byte_offset();
                    self.text.drain(..used);
                    return Some((size.height, size.width));
                }
                Some(Err(error)) if !error.is_eof() => return None,
                _ => {}
            }
            let more = self.reader.data().await?;
            if self.text.len() + more.len() > MAX_SIZE_MESSAGE {
                return None;
            }
            self.text.extend_from_slice(&more);
        }
    }
}

/// The status of a command that ended by itself.
pub fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

/// The status of what could not be done.
pub fn failure(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "details": { "causes": [{ "message": message }] },
        "code": 500,
    })
}

/// Sends the status, the last thing before the connection closes.
pub async fn send_status(error: &StreamWriter, status: &Value) {
    // A client that is gone asks for no status.
    if error.send(Bytes::from(status.to_string())).await.is_ok() {
        let _ = error.finish().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_the_exit_code() {
        assert_eq!(exit_status(0)["status"], "Success");
        let status = exit_status(42);
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "42");
        assert_eq!(failure("no")["code"], 500);
    }
}
