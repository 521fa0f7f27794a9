//! Logs of containers: which container is meant, and its log as a stream.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use tokio::time::Instant;

use super::exec::find;
use super::log_reader::{LogReader, Selection};
use super::reply::{Body, Refusal, Reply, typed};
use super::route::{ContainerRef, Query};
use super::view::PodView;
use crate::log::LogFiles;
use crate::pod::PodUid;
use crate::pod::runtime::{ContainerRecord, ContainerState};
use crate::pod::store::Entry;

/// How often a log that is followed is looked at when it has nothing new.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often the runtime is asked whether the container of a quiet log still runs.
const ASK_RUNTIME: Duration = Duration::from_secs(2);

/// The query of a log request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Options {
    follow: bool,
    previous: bool,
    selection: Selection,
}

impl Options {
    fn parse(query: &Query, now: Timestamp) -> Result<Options, Refusal> {
        let since = match (number(query, "sinceSeconds", 1)?, query.first("sinceTime")) {
            (Some(_), Some(_)) => {
                let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
                return Err(Refusal::bad_request(text));
            }
            (Some(seconds), None) => {
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                let ago = SignedDuration::from_secs(seconds);
                Some(now.checked_sub(ago).unwrap_or(Timestamp::MIN))
            }
            (None, Some(text)) => Some(text.parse().map_err(|_| {
                Refusal::bad_request(format!("sinceTime: `{text}` is not an RFC 3339 time"))
            })?),
            (None, None) => None,
        };
        let stream = match query.first("stream") {
            None | Some("" | "All") => None,
            Some("Stdout") => Some("stdout".to_owned()),
            Some("Stderr") => Some("stderr".to_owned()),
            Some(other) => {
                let text = format!("stream: `{other}` is none of All, Stdout, Stderr");
                return Err(Refusal::bad_request(text));
            }
        };
        Ok(Options {
            follow: query.flag("follow"),
            previous: query.flag("previous"),
            selection: Selection {
                tail: number(query, "tailLines", 0)?,
                limit: number(query, "limitBytes", 1)?,
                timestamps: query.flag("timestamps"),
                since,
                stream,
            },
        })
    }
}

fn number(query: &Query, name: &str, least: u64) -> Result<Option<u64>, Refusal> {
    let Some(text) = query.first(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(value) if value >= least => Ok(Some(value)),
        _ => Err(Refusal::bad_request(format!(
            "{name}: `{text}` must be a number of at least {least}"
        ))),
    }
}

/// A container's log.
pub async fn logs(view: &PodView, target: &ContainerRef, query: &Query) -> Result<Reply, Refusal> {
    let options = Options::parse(query, Timestamp::now())?;
    let entry = find(view, &target.pod)?;
    let (container, pod) = (&target.name, &target.pod.name);
    if !has_container(&entry.pod, container) {
        let text = format!("container \"{container}\" not found in pod \"{pod}\"");
        return Err(Refusal::not_found(text));
    }
    let record = choose(&entry, pod, container, options.previous).map_err(Refusal::bad_request)?;
    let path = PathBuf::from(&record.log_path);
    let failed = |error: io::Error| {
        let text = format!("failed to read the log of container \"{container}\": {error}");
        Refusal::internal(text)
    };
    let dir = view.pod_logs_dir().to_path_buf();
    let (at, selection) = ((dir.clone(), path.clone()), options.selection.clone());
    let reader =
        blocking(move || LogReader::new(LogFiles::open(&at.0, &at.1)?.newest()?, selection)).await;
    let following = Following {
        reader: Some(reader.map_err(failed)?),
        log: (dir, path),
        follow: options.follow.then(|| Container {
            view: view.clone(),
            uid: PodUid::of(&entry.pod),
            id: record.id,
            asked: Instant::now(),
        }),
        ended: 0,
    };
    Ok(typed(StatusCode::OK, "text/plain", body(following)))
}

fn has_container(pod: &Pod, name: &str) -> bool {
    crate::pod::container(pod, name).is_some()
}

/// The container whose log is meant, or the text for the client. As stock: the running
/// one, else the one that ended last; with `previous` the one before.
fn choose(
    entry: &Entry,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<ContainerRecord, String> {
    let records = entry.runtime.as_ref().map(|r| r.containers.as_slice());
    let records = records.unwrap_or_default();
    // A created container has no log, and may never have one.
    let has_log = |c: &&ContainerRecord| c.name == container && c.state != ContainerState::Created;
    let mut logged = records.iter().filter(has_log);
    let status = entry
        .status
        .as_deref()
        .and_then(|s| status_of(s, container));
    let state = status.and_then(|s| s.state.as_ref());
    let waiting = state.and_then(|s| s.waiting.as_ref());
    if previous {
        // While a container waits to be started again, the ended one is the previous one.
        let skip = usize::from(waiting.is_none());
        let missing =
            || format!("previous terminated container \"{container}\" in pod \"{pod}\" not found");
        return logged.nth(skip).cloned().ok_or_else(missing);
    }
    if let Some(record) = logged.next() {
        return Ok(record.clone());
    }
    let Some(waiting) = waiting else {
        return Err(match status {
            Some(_) => format!("container \"{container}\" in pod \"{pod}\" is terminated"),
            None => format!("container \"{container}\" in pod \"{pod}\" is not available"),
        });
    };
    let why = match waiting.reason.as_deref().unwrap_or_default() {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        "" => "ContainerCreating",
        reason => reason,
    };
    Err(format!(
        "container \"{container}\" in pod \"{pod}\" is waiting to start: {why}"
    ))
}

fn status_of<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerStatus> {
    let all = status.container_statuses.iter().flatten();
    all.chain(status.init_container_statuses.iter().flatten())
        .find(|s| s.name == container)
}

/// A log on its way to a client.
struct Following {
    /// `None` only while a blocking thread has it.
    reader: Option<LogReader>,
    /// The directory of all logs, and the log in it.
    log: (PathBuf, PathBuf),
    /// Whose end is the end of the log; `None` without `follow`.
    follow: Option<Container>,
    /// Looks without anything new since the container had ended.
    ended: u8,
}

/// The container of a log that is followed.
struct Container {
    view: PodView,
    uid: Option<PodUid>,
    id: String,
    asked: Instant,
}

impl Container {
    /// What was last observed decides; the runtime is asked now and then, in case nothing
    /// observes (any more).
    async fn has_ended(&mut self) -> bool {
        let seen = self.uid.as_ref().and_then(|uid| self.view.get(uid));
        let seen = seen.and_then(|entry| entry.runtime);
        let record = seen
            .as_ref()
            .and_then(|r| r.containers.iter().find(|c| c.id == self.id));
        if record.is_some_and(|c| c.state == ContainerState::Exited) {
            return true;
        }
        if record.is_some() && self.asked.elapsed() < ASK_RUNTIME {
            return false;
        }
        self.asked = Instant::now();
        match self.view.cri().container_status(&self.id).await {
            Ok(status) => status.state() == berth_proto::cri::ContainerState::ContainerExited,
            Err(error) => error.is_not_found(),
        }
    }
}

fn body(following: Following) -> Body {
    let frames = stream::unfold(following, |mut following| async move {
        let next = following.next().await.transpose()?;
        Some((next.map(Frame::data), following))
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Following {
    /// The next bytes; `None` at the end, which with `follow` is the container's end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let Some(mut reader) = self.reader.take() else {
                return Ok(None);
            };
            let read = blocking(move || Ok((reader.next()?, reader))).await;
            let (block, reader) = read?;
            let full = reader.is_full();
            self.reader = Some(reader);
            match block {
                Some(bytes) if bytes.is_empty() && !full => continue,
                Some(bytes) if !bytes.is_empty() => return Ok(Some(bytes.into())),
                _ if full => return Ok(None),
                _ => {}
            }
            let Some(container) = &mut self.follow else {
                return Ok(None);
            };
            // The writer may lag behind the container's end: one more look.
            if self.ended > 1 {
                return Ok(None);
            }
            if self.ended > 0 || container.has_ended().await {
                self.ended += 1;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            if self.follow_rotation().await? {
                self.ended = 0;
            }
        }
    }

    /// Goes on in the next file once the log was rotated and this one is read up; `false`
    /// when there is no next one.
    async fn follow_rotation(&mut self) -> io::Result<bool> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(false);
        };
        let (dir, path) = self.log.clone();
        let checked = blocking(move || {
            let inode = reader.file().metadata()?.ino();
            // Looked for first: once there is a next file, nothing is written to this one.
            let next = LogFiles::open(&dir, &path).and_then(|files| files.after(inode));
            let switched = match next {
                Ok(Some(file)) if reader.is_read_up()? => {
                    reader.switch(file);
                    true
                }
                // The directory goes with its pod, the opened file stays readable.
                _ => false,
            };
            Ok((switched, reader))
        });
        let (switched, reader) = checked.await?;
        self.reader = Some(reader);
        Ok(switched)
    }
}

/// Runs file I/O on a thread where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pod::runtime::PodRuntime;

    #[test]
    fn options_of_a_query() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let parse = |text: &str| Options::parse(&Query::parse(Some(text)), now);
        let options = parse("follow=true&tailLines=5&sinceSeconds=60&limitBytes=9").unwrap();
        assert!(options.follow && !options.previous);
        assert_eq!(options.selection.tail, Some(5));
        assert_eq!(options.selection.limit, Some(9));
        let since = options.selection.since.unwrap();
        assert_eq!(since.to_string(), "2026-01-01T00:00:00Z");
        for wrong in [
            "tailLines=-1",
            "tailLines=x",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceTime=yesterday",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "stream=both",
        ] {
            let code = parse(wrong).unwrap_err().code;
            assert_eq!(code, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }

    fn entry(states: &[ContainerState], state: serde_json::Value) -> Entry {
        let containers = states.iter().enumerate().map(|(i, state)| ContainerRecord {
            id: format!("id{i}"),
            name: "c".into(),
            state: *state,
            ..ContainerRecord::default()
        });
        let status = serde_json::json!({"containerStatuses": [{"name": "c", "ready": false,
            "restartCount": 0, "image": "", "imageID": "", "state": state}]});
        Entry {
            pod: Arc::new(crate::testing::pod_of(&["c"], "Always")),
            status: Some(Arc::new(serde_json::from_value(status).unwrap())),
            runtime: Some(Arc::new(PodRuntime {
                containers: containers.collect(),
                ..PodRuntime::default()
            })),
        }
    }

    const WAITS: &str = "container \"c\" in pod \"p\" is waiting to start: ";

    #[test]
    fn the_container_meant() {
        use ContainerState::{Created, Exited, Running};
        let running = serde_json::json!({"running": {}});
        let ended = serde_json::json!({"terminated": {"exitCode": 0}});
        let waits = |reason: &str| serde_json::json!({"waiting": {"reason": reason}});
        let none = "previous terminated container \"c\" in pod \"p\" not found";
        let wait_for = |why: &str| Err(format!("{WAITS}{why}"));
        let found = |id: &str| Ok(id.to_owned());
        for (states, state, previous, expected) in [
            (&[Running, Exited][..], &running, false, found("id0")),
            (&[Running, Exited], &running, true, found("id1")),
            (&[Running], &running, true, Err(none.to_owned())),
            (&[Exited, Exited], &ended, false, found("id0")),
            (
                &[Exited, Exited],
                &waits("CrashLoopBackOff"),
                false,
                found("id0"),
            ),
            (
                &[Exited, Exited],
                &waits("CrashLoopBackOff"),
                true,
                found("id0"),
            ),
            (
                &[Created, Exited],
                &waits("ContainerCreating"),
                false,
                found("id1"),
            ),
            (
                &[Created],
                &waits("ContainerCreating"),
                false,
                wait_for("ContainerCreating"),
            ),
            (
                &[],
                &waits("ContainerCreating"),
                false,
                wait_for("ContainerCreating"),
            ),
            (
                &[],
                &waits("ErrImagePull"),
                false,
                wait_for("image can't be pulled"),
            ),
            (
                &[],
                &waits("ImagePullBackOff"),
                false,
                wait_for("trying and failing to pull image"),
            ),
            (&[], &waits("PodInitializing"), true, Err(none.to_owned())),
        ] {
            let entry = entry(states, state.clone());
            let got = choose(&entry, "p", "c", previous).map(|record| record.id);
            assert_eq!(got, expected, "{states:?} {state} {previous}");
        }
    }
}
