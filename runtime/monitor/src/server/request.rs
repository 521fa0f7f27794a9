//! One request: decode, carry out, answer.

use std::io;
use std::os::fd::OwnedFd;

use super::{Role, Server};
use crate::failure::RequestError;
use crate::protocol::{ExecSession, OLDEST_VERSION, Reply, Request, VERSION};
use crate::streams::AttachFds;

/// The reply to send now with its descriptor; none when it comes later.
type Answer = Result<Option<(Reply, Option<OwnedFd>)>, RequestError>;

impl Server {
    pub(super) fn perform(&mut self, client: u32, bytes: &[u8], fds: Vec<OwnedFd>) -> Answer {
        let role = self.role(client);
        let request: Request = serde_json::from_slice(bytes).map_err(RequestError::Decode)?;
        match role {
            Role::Fresh => return self.hello(client, &request, &fds),
            Role::Ready => {}
            Role::Reopening(_)
            | Role::ShuttingDown
            | Role::Exec(_)
            | Role::Attach(_)
            | Role::Subscriber(_) => {
                return Err(RequestError::Occupied);
            }
        }
        let wanted = descriptors(&request);
        if fds.len() != wanted {
            return Err(RequestError::Descriptors {
                expected: wanted,
                found: fds.len(),
            });
        }
        if self.shutdown.is_some() && starts_something(&request) {
            return Err(RequestError::ShuttingDown);
        }
        match request {
            Request::Exec(session) => self.exec(client, &session, fds),
            Request::Attach {
                container,
                stdin,
                stdout,
                stderr,
            } => self.attach(client, &container, [stdin, stdout, stderr], fds),
            Request::ReopenLog { container } => self.reopen_log(client, &container),
            Request::Subscribe { after } => {
                self.set_role(client, Role::Subscriber(after.min(self.pod.events.last())));
                let missed = self.pod.events.missed(after);
                if missed {
                    // It starts over from here, with the state that it is going to ask for.
                    self.set_role(client, Role::Subscriber(self.pod.events.last()));
                }
                let last = self.pod.events.last();
                reply(Reply::Subscribed { last, missed })
            }
            Request::Shutdown => {
                self.set_role(client, Role::ShuttingDown);
                self.begin_shutdown();
                Ok(None)
            }
            other => self.simple(other),
        }
    }

    /// The requests that are answered at once and leave the connection as it is.
    fn simple(&mut self, request: Request) -> Answer {
        match request {
            Request::StartPod(config) => {
                let pause_pid = self.pod.start(&config)?;
                reply(Reply::PodStarted { pause_pid })
            }
            Request::Launch(container) => reply(Reply::Launched(self.pod.launch(&container)?)),
            Request::Signal {
                container,
                signal,
                all,
            } => {
                self.pod.signal(&container, signal, all)?;
                reply(Reply::Done)
            }
            Request::Resize {
                container,
                exec_id,
                rows,
                cols,
            } => {
                self.pod.resize(&container, exec_id, rows, cols)?;
                reply(Reply::Done)
            }
            Request::CloseStdin { container } => {
                let number = self.pod.number(&container)?;
                self.pod.streams.close_stdin(number);
                reply(Reply::Done)
            }
            Request::Forget { container } => {
                self.pod.forget(&container)?;
                reply(Reply::Done)
            }
            Request::State => reply(Reply::State(self.pod.state())),
            Request::Hello { .. }
            | Request::Exec(_)
            | Request::Attach { .. }
            | Request::ReopenLog { .. }
            | Request::Subscribe { .. }
            | Request::Shutdown => Err(RequestError::Occupied),
        }
    }

    fn hello(&mut self, client: u32, request: &Request, fds: &[OwnedFd]) -> Answer {
        let Request::Hello { version } = *request else {
            return Err(RequestError::NoHello);
        };
        if !fds.is_empty() {
            return Err(RequestError::Descriptors {
                expected: 0,
                found: fds.len(),
            });
        }
        if version < OLDEST_VERSION {
            return Err(RequestError::Version(version));
        }
        self.set_role(client, Role::Ready);
        // A newer daemon gets our version and decides whether it still speaks it.
        reply(Reply::Hello {
            version: VERSION,
            pid: std::process::id().cast_signed(),
        })
    }

    fn exec(&mut self, client: u32, session: &ExecSession, fds: Vec<OwnedFd>) -> Answer {
        let started = self.pod.exec(client, session, fds)?;
        self.set_role(client, Role::Exec(started.id));
        let started_reply = Reply::ExecStarted {
            exec_id: started.id,
            pid: started.pid,
            record: started.record,
        };
        Ok(Some((started_reply, started.console)))
    }

    fn attach(
        &mut self,
        client: u32,
        container: &str,
        wanted: [bool; 3],
        fds: Vec<OwnedFd>,
    ) -> Answer {
        let number = self.pod.number(container)?;
        let mut fds = fds.into_iter();
        let mut take = |wanted: bool| if wanted { fds.next() } else { None };
        let fds = AttachFds {
            stdin: take(wanted[0]),
            stdout: take(wanted[1]),
            stderr: take(wanted[2]),
        };
        let attachment = self
            .pod
            .streams
            .attach(number, fds)
            .map_err(RequestError::Attach)?;
        self.set_role(client, Role::Attach(attachment));
        reply(Reply::Attached)
    }

    fn reopen_log(&mut self, client: u32, container: &str) -> Answer {
        let number = self.pod.number(container)?;
        let asked = self
            .pod
            .streams
            .reopen(number)
            .map_err(|source: io::Error| RequestError::System {
                step: "open the log anew".to_owned(),
                source,
            })?;
        if !asked {
            return reply(Reply::Done);
        }
        self.set_role(client, Role::Reopening(number));
        Ok(None)
    }

    fn role(&self, client: u32) -> Role {
        self.clients
            .get(&client)
            .map_or(Role::Fresh, |client| client.role)
    }

    fn set_role(&mut self, client: u32, role: Role) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.role = role;
        }
    }
}

fn reply(reply: Reply) -> Answer {
    Ok(Some((reply, None)))
}

/// How many descriptors must go along with a request.
fn descriptors(request: &Request) -> usize {
    match request {
        Request::Exec(session) if !session.tty => 3,
        Request::Attach {
            stdin,
            stdout,
            stderr,
            ..
        } => [*stdin, *stdout, *stderr]
            .into_iter()
            .map(usize::from)
            .sum(),
        _ => 0,
    }
}

fn starts_something(request: &Request) -> bool {
    matches!(
        request,
        Request::StartPod(_) | Request::Launch(_) | Request::Exec(_) | Request::Attach { .. }
    )
}
