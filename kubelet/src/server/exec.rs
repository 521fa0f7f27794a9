//! Exec, attach, port-forward and run: the session is made over CRI, its bytes are
//! tunnelled (`tunnel`), never redirected.

use std::time::Duration;

use berth_proto::cri::{self as v1};
use http::{Request, StatusCode};
use hyper::body::Incoming;

use super::reply::{self, Refusal, Reply};
use super::route::{ContainerRef, PodRef, Query};
use super::serve::Tasks;
use super::tunnel::{check_upgrade, tunnel};
use super::view::PodView;
use crate::pod::runtime::ContainerState;
use crate::pod::store::Entry;
use crate::pod::uid;

/// Longest time a command of `/run` may take.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// The streams a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Streams {
    fn parse(query: &Query) -> Result<Streams, Refusal> {
        let tty = query.flag("tty");
        let streams = Streams {
            stdin: query.flag("input"),
            stdout: query.flag("output"),
            // A terminal has one output.
            stderr: query.flag("error") && !tty,
            tty,
        };
        if streams.stdin || streams.stdout || streams.stderr {
            Ok(streams)
        } else {
            let text = "you must specify at least 1 of stdin, stdout, stderr";
            Err(Refusal::bad_request(text))
        }
    }
}

/// A pod by the name, and where given the UID, in a path.
pub fn find(view: &PodView, pod: &PodRef) -> Result<Entry, Refusal> {
    view.find(&pod.namespace, &pod.name)
        .filter(|entry| {
            pod.uid
                .as_deref()
                .is_none_or(|asked| asked == uid(&entry.pod))
        })
        .ok_or_else(|| Refusal::not_found(format!("pod \"{}\" does not exist", pod.name)))
}

/// CRI id of the running container.
fn running(view: &PodView, target: &ContainerRef) -> Result<String, Refusal> {
    let entry = find(view, &target.pod)?;
    let newest = view.container(&entry, &target.name, false);
    newest
        .filter(|container| container.state == ContainerState::Running)
        .map(|container| container.id)
        .ok_or_else(|| Refusal::not_found(format!("container not found (\"{}\")", target.name)))
}

/// A command as a stream.
pub async fn exec(
    view: &PodView,
    target: &ContainerRef,
    request: Request<Incoming>,
    tasks: &Tasks,
) -> Result<Reply, Refusal> {
    check_upgrade(request.headers())?;
    let query = Query::parse(request.uri().query());
    let streams = Streams::parse(&query)?;
    let cmd = query.all("command");
    if cmd.is_empty() {
        let text = "you must specify at least 1 command for the container";
        return Err(Refusal::bad_request(text));
    }
    let session = v1::ExecRequest {
        container_id: running(view, target)?,
        cmd,
        tty: streams.tty,
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
    };
    let url = view.cri().exec(session).await?;
    tunnel(request, &url, tasks).await
}

/// The streams of the main process.
pub async fn attach(
    view: &PodView,
    target: &ContainerRef,
    request: Request<Incoming>,
    tasks: &Tasks,
) -> Result<Reply, Refusal> {
    check_upgrade(request.headers())?;
    let streams = Streams::parse(&Query::parse(request.uri().query()))?;
    let session = v1::AttachRequest {
        container_id: running(view, target)?,
        stdin: streams.stdin,
        tty: streams.tty,
        stdout: streams.stdout,
        stderr: streams.stderr,
    };
    let url = view.cri().attach(session).await?;
    tunnel(request, &url, tasks).await
}

/// Connections to ports of the pod.
pub async fn port_forward(
    view: &PodView,
    target: &PodRef,
    request: Request<Incoming>,
    tasks: &Tasks,
) -> Result<Reply, Refusal> {
    check_upgrade(request.headers())?;
    let entry = find(view, target)?;
    let sandbox = view.sandbox_id(&entry).ok_or_else(|| {
        Refusal::internal(format!("pod \"{}\" has no running sandbox", target.name))
    })?;
    let url = view.cri().port_forward(&sandbox).await?;
    tunnel(request, &url, tasks).await
}

/// A command run to its end, its output as the answer.
pub async fn run(view: &PodView, target: &ContainerRef, query: &Query) -> Result<Reply, Refusal> {
    let command = query.first("cmd").unwrap_or_default();
    let command: Vec<String> = command.split_whitespace().map(ToOwned::to_owned).collect();
    if command.is_empty() {
        return Err(Refusal::bad_request("you must specify `cmd`"));
    }
    let id = running(view, target)?;
    let done = view.cri().exec_sync(&id, command, RUN_LIMIT).await?;
    if done.code == 0 {
        return Ok(reply::text(StatusCode::OK, done.output));
    }
    let output = String::from_utf8_lossy(&done.output);
    let text = format!("command terminated with exit code {}: {output}", done.code);
    Err(Refusal::internal(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_query() {
        let streams = |stdin, stdout, stderr, tty| {
            Some(Streams {
                stdin,
                stdout,
                stderr,
                tty,
            })
        };
        for (query, expected) in [
            ("output=1&error=1", streams(false, true, true, false)),
            (
                "input=1&output=1&error=1&tty=1",
                streams(true, true, false, true),
            ),
            ("input=true", streams(true, false, false, false)),
            ("tty=1&error=1", None),
            ("", None),
        ] {
            let got = Streams::parse(&Query::parse(Some(query))).ok();
            assert_eq!(got, expected, "{query}");
        }
    }
}
