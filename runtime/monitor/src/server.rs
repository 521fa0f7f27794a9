//! The event loop and the clients: accepts, answers, publishes.
//!
//! One turn: wait, serve what is ready, do what is due, then tell: notes of streams, events to subscribers, the state
//! file. A client that cannot take an answer at once is dropped; subscribers alone may lag, as their events are kept.

mod request;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use berth_sys::reap;
use berth_sys::seqpacket::{Listener, Socket};
use berth_sys::signal::SignalFd;

use crate::failure::RequestError;
use crate::pod::{Pod, SessionEnd};
use crate::protocol::{Reply, STATE_NAME};
use crate::reactor::{Interest, Reactor, Token, Watched};
use crate::streams::Note;

/// Most connections at a time.
const CLIENTS_MAX: usize = 128;
/// How long not to accept after the system refused a connection (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a shutdown waits for killed processes.
const SHUTDOWN: Duration = Duration::from_secs(30);
const SIGTERM: i32 = 15;

/// What a connection is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// No Hello yet.
    Fresh,
    /// Takes requests.
    Ready,
    /// Waits for the answer to a ReopenLog of this container.
    Reopening(u32),
    /// Waits for the end of a Shutdown.
    ShuttingDown,
    /// Stands for an exec session.
    Exec(u64),
    /// Stands for an attachment.
    Attach(u32),
    /// Has got all events up to this number.
    Subscriber(u64),
}

struct Client {
    socket: Watched<Socket>,
    role: Role,
}

/// The running monitor.
pub struct Server {
    directory: PathBuf,
    reactor: Rc<Reactor>,
    listener: Watched<Listener>,
    /// When to accept again.
    accept_again: Option<Instant>,
    signals: SignalFd,
    /// Everything but the clients.
    pod: Pod,
    clients: BTreeMap<u32, Client>,
    next_client: u32,
    /// Since when the pod is being shut down.
    shutdown: Option<Instant>,
}

/// Why the loop ended other than by a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A descriptor cannot be watched.
    #[error("cannot watch the {what}")]
    Watch {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// epoll failed.
    #[error("cannot wait for events")]
    Wait(#[source] io::Error),
}

impl Server {
    /// Takes over what start has made.
    pub fn new(
        directory: PathBuf,
        reactor: &Rc<Reactor>,
        listener: Listener,
        signals: SignalFd,
        pod: Pod,
    ) -> Result<Self, RunError> {
        let watch = |fd, token, what| {
            let watched = reactor.watch(fd, token, Interest::Read);
            watched.map_err(|source| RunError::Watch { what, source })
        };
        let mut listener = Watched::new(reactor, listener, Token::Listener);
        let listening = listener.want(Some(Interest::Read));
        let what = "listening socket";
        listening.map_err(|source| RunError::Watch { what, source })?;
        watch(signals.as_fd(), Token::Signals, "signals")?;
        Ok(Self {
            directory,
            reactor: Rc::clone(reactor),
            listener,
            accept_again: None,
            signals,
            pod,
            clients: BTreeMap::new(),
            next_client: 1,
            shutdown: None,
        })
    }

    /// Serves until a shutdown is complete.
    pub fn run(mut self) -> Result<(), RunError> {
        loop {
            self.tell();
            if self.shutdown.is_some() && self.shutdown_step() {
                break;
            }
            let ready = self.reactor.wait(self.deadline()).map_err(RunError::Wait)?;
            for token in ready {
                self.serve(token);
            }
            self.deadlines_passed();
        }
        // Before the answer: whoever has it kills what is left in our cgroup.
        self.pod.streams.finish();
        self.write_state();
        let waiting: Vec<u32> = self.clients_with(|role| role == Role::ShuttingDown);
        for client in waiting {
            self.send(client, &Reply::Done, None);
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let shutdown = self.shutdown.map(|since| since + SHUTDOWN);
        let accept = self.accept_again;
        self.pod
            .deadline()
            .into_iter()
            .chain(shutdown)
            .chain(accept)
            .min()
    }

    fn deadlines_passed(&mut self) {
        let now = Instant::now();
        if self.pod.deadline().is_some_and(|deadline| deadline <= now) {
            self.pod.deadline_passed();
        }
        if self.accept_again.is_some_and(|again| again <= now) {
            let watched = self.listener.want(Some(Interest::Read));
            self.accept_again = watched.is_err().then_some(now + ACCEPT_PAUSE);
        }
    }

    fn serve(&mut self, token: Token) {
        let served = match token {
            Token::Listener => self.accept(),
            Token::Signals => self.signals_ready(),
            Token::Client(client) => {
                self.client_ready(client);
                Ok(())
            }
            Token::Logs => self.pod.streams.logs_ready(),
            Token::Output(container, stream) => self.pod.streams.output_ready(container, stream),
            Token::Input(container) => self.pod.streams.input_ready(container),
            Token::AttachInput(number) => self.pod.streams.attach_input_ready(number),
            Token::AttachOutput(number, stream) => {
                self.pod.streams.attach_output_ready(number, stream)
            }
            Token::Memory(container) => {
                self.pod.memory_changed(container);
                Ok(())
            }
        };
        // Each of these concerns one stream or one connection, which is closed by then; there is no one to ask, and
        // the pod must go on.
        drop(served);
    }

    fn accept(&mut self) -> io::Result<()> {
        let socket = match self.listener.get().accept() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                // It would be reported as ready again and again.
                self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                return self.listener.want(None);
            }
            accepted => accepted?,
        };
        let peer = socket.peer_cred()?;
        let own = rustix::process::geteuid().as_raw();
        if (peer.uid != 0 && peer.uid != own) || self.clients.len() >= CLIENTS_MAX {
            return Ok(());
        }
        socket.set_nonblocking(true)?;
        let client = self.next_client;
        self.next_client += 1;
        let mut socket = Watched::new(&self.reactor, socket, Token::Client(client));
        socket.want(Some(Interest::Read))?;
        let role = Role::Fresh;
        self.clients.insert(client, Client { socket, role });
        Ok(())
    }

    fn signals_ready(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.next()? {
            // A hangup or interrupt meant for whoever started us is no reason to end a pod.
            if signal == SIGTERM {
                self.begin_shutdown();
            }
        }
        while let Some((pid, ended)) = reap::next_ended()? {
            if let Some(end) = self.pod.ended(pid, ended) {
                self.session_ended(&end);
            }
        }
        Ok(())
    }

    fn session_ended(&mut self, end: &SessionEnd) {
        let Some(client) = self.clients.get_mut(&end.client) else {
            return;
        };
        client.role = Role::Ready;
        let reply = Reply::ExecExited {
            code: end.code,
            signal: end.signal,
        };
        self.send(end.client, &reply, None);
        if !self.pod.has_sessions() {
            // The client has its answer; now the heap's peak can go.
            berth_sys::memory::trim();
        }
    }

    fn client_ready(&mut self, number: u32) {
        let Some(client) = self.clients.get(&number) else {
            return;
        };
        match client.socket.get().recv() {
            Ok(Some((bytes, fds))) => self.answer(number, &bytes, fds),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => self.drop_client(number),
        }
    }

    fn answer(&mut self, number: u32, bytes: &[u8], fds: Vec<OwnedFd>) {
        let performed = self.perform(number, bytes, fds);
        self.write_state();
        match performed {
            Ok(Some((reply, fd))) => self.send(number, &reply, fd.as_ref()),
            Ok(None) => {}
            Err(error) => self.send(number, &error.reply(), None),
        }
    }

    /// Sends to a client; one that cannot take it at once is dropped.
    fn send(&mut self, number: u32, reply: &Reply, fd: Option<&OwnedFd>) {
        let Some(client) = self.clients.get(&number) else {
            return;
        };
        let fds: Vec<_> = fd.map(AsFd::as_fd).into_iter().collect();
        let sent = serde_json::to_vec(reply)
            .map_err(io::Error::from)
            .and_then(|bytes| client.socket.get().send(&bytes, &fds));
        if sent.is_err() {
            self.drop_client(number);
        }
    }

    /// Closes a connection and ends what it stands for.
    fn drop_client(&mut self, number: u32) {
        let Some(client) = self.clients.remove(&number) else {
            return;
        };
        match client.role {
            Role::Exec(session) => self.pod.kill_session(session),
            Role::Attach(attachment) => self.pod.streams.detach(attachment),
            Role::Fresh
            | Role::Ready
            | Role::Reopening(_)
            | Role::ShuttingDown
            | Role::Subscriber(_) => {}
        }
    }

    fn clients_with(&self, wanted: impl Fn(Role) -> bool) -> Vec<u32> {
        let found = self
            .clients
            .iter()
            .filter(|(_, client)| wanted(client.role));
        found.map(|(number, _)| *number).collect()
    }

    /// Tells clients and disk what has changed in this turn.
    fn tell(&mut self) {
        for note in self.pod.streams.notes() {
            match note {
                Note::Drained(container) => self.pod.drained(container),
                Note::Lost(container, bytes) => self.pod.lost(container, bytes),
                Note::Reopened(container, error) => self.reopened(container, error),
                Note::AttachEnded(attachment) => self.attach_ended(attachment),
            }
        }
        self.write_state();
        let subscribers = self.clients_with(|role| matches!(role, Role::Subscriber(_)));
        for client in subscribers {
            self.publish(client);
        }
    }

    fn reopened(&mut self, container: u32, error: Option<String>) {
        let reply = match error {
            None => Reply::Done,
            Some(reason) => RequestError::System {
                step: "open the log anew".to_owned(),
                source: io::Error::other(reason),
            }
            .reply(),
        };
        for client in self.clients_with(|role| role == Role::Reopening(container)) {
            if let Some(client) = self.clients.get_mut(&client) {
                client.role = Role::Ready;
            }
            self.send(client, &reply, None);
        }
    }

    fn attach_ended(&mut self, attachment: u32) {
        for client in self.clients_with(|role| role == Role::Attach(attachment)) {
            if let Some(client) = self.clients.get_mut(&client) {
                client.role = Role::Ready;
            }
            self.send(client, &Reply::AttachEnded, None);
        }
    }

    /// Sends a subscriber the events that it lacks, as many as it takes.
    fn publish(&mut self, number: u32) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let Role::Subscriber(mut seen) = client.role else {
            return;
        };
        let mut interest = Interest::Read;
        let mut lost = self.pod.events.missed(seen);
        while let Some(event) = self.pod.events.after(seen) {
            let Ok(bytes) = serde_json::to_vec(&Reply::Event(event.clone())) else {
                break;
            };
            match client.socket.get().send(&bytes, &[]) {
                Ok(()) => seen = event.seq,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    interest = Interest::ReadWrite;
                    break;
                }
                Err(_) => {
                    lost = true;
                    break;
                }
            }
        }
        client.role = Role::Subscriber(seen);
        // One that lagged behind what is kept must come again and learn that it missed something.
        if lost || client.socket.want(Some(interest)).is_err() {
            self.drop_client(number);
        }
    }

    /// Writes the state file if something in it has changed: complete or not at all.
    fn write_state(&mut self) {
        if !std::mem::take(&mut self.pod.dirty) {
            return;
        }
        let path = self.directory.join(STATE_NAME);
        let partial = self.directory.join(".monitor.json");
        let written = serde_json::to_vec(&self.pod.state())
            .map_err(io::Error::from)
            .and_then(|bytes| std::fs::write(&partial, bytes))
            .and_then(|()| std::fs::rename(&partial, &path));
        // Kept dirty, so that the next turn tries again: a full /run must not stop the pod.
        self.pod.dirty = written.is_err();
    }

    fn begin_shutdown(&mut self) {
        if self.shutdown.is_none() {
            self.shutdown = Some(Instant::now());
            self.pod.kill_all();
        }
    }

    /// Goes on with the shutdown; true when it is complete.
    fn shutdown_step(&mut self) -> bool {
        if self.pod.is_quiet() {
            if !self.pod.has_pause() {
                return true;
            }
            self.pod.stop_pause();
        }
        let expired = self
            .shutdown
            .is_some_and(|since| since.elapsed() >= SHUTDOWN);
        if expired {
            // Stay: as long as a process of the pod lives, somebody must be its parent.
            self.shutdown = None;
            let reply = RequestError::DoesNotEnd(self.pod.unfinished()).reply();
            for client in self.clients_with(|role| role == Role::ShuttingDown) {
                if let Some(client) = self.clients.get_mut(&client) {
                    client.role = Role::Ready;
                }
                self.send(client, &reply, None);
            }
        }
        false
    }
}
