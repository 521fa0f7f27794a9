//! A NETLINK_ROUTE socket: request, acknowledgement, dump (rtnetlink(7)).

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

/// A dump of this size is read at once; larger ones take several reads.
const RECEIVE_BYTES: usize = 32 * 1024;

/// A request that the kernel refused, or that did not reach it.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket cannot be opened.
    #[error("cannot open a netlink socket")]
    Open(#[source] std::io::Error),
    /// Sending or receiving failed.
    #[error("cannot {step}: netlink transport failed")]
    Transport {
        /// What was being done, and to what.
        step: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The kernel answered with an error.
    #[error("cannot {step}")]
    Refused {
        /// What was being done, and to what.
        step: String,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
    /// The kernel's answer could not be read.
    #[error("cannot {step}: the kernel's answer is malformed: {reason}")]
    Malformed {
        /// What was being done, and to what.
        step: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl NetlinkError {
    /// The kernel's errno, where it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the object is already as asked for.
    pub fn already_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }

    /// Whether the object is not there.
    pub fn not_found(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::NODEV | Errno::NOENT | Errno::ADDRNOTAVAIL | Errno::SRCH | Errno::NXIO)
        )
    }
}

/// A netlink socket. It acts in the network namespace in which it was opened,
/// whichever thread uses it later.
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Socket, NetlinkError> {
        let mut inner = netlink_sys::Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        inner.bind_auto().map_err(NetlinkError::Open)?;
        inner
            .connect(&SocketAddr::new(0, 0))
            .map_err(NetlinkError::Open)?;
        Ok(Socket { inner, sequence: 0 })
    }

    /// Sends a request and waits for its acknowledgement.
    pub(crate) fn request(
        &mut self,
        step: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.exchange(step, message, NLM_F_REQUEST | NLM_F_ACK | flags, |_| {})
    }

    /// Asks for one object; the kernel answers with it, then acknowledges.
    pub(crate) fn get(
        &mut self,
        step: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let mut found = None;
        self.exchange(step, message, NLM_F_REQUEST | NLM_F_ACK, |m| {
            found = Some(m)
        })?;
        Ok(found)
    }

    /// Asks for all objects of a kind.
    pub(crate) fn dump(
        &mut self,
        step: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut found = Vec::new();
        self.exchange(step, message, NLM_F_REQUEST | NLM_F_DUMP, |m| found.push(m))?;
        Ok(found)
    }

    fn exchange(
        &mut self,
        step: &str,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), NetlinkError> {
        self.sequence += 1;
        self.send(step, message, flags)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let size = self
                .inner
                .recv(&mut &mut buffer[..], 0)
                .map_err(|source| transport(step, source))?;
            let mut rest = &buffer[..size];
            while !rest.is_empty() {
                let answer =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|e| {
                        NetlinkError::Malformed {
                            step: step.to_owned(),
                            reason: e.to_string(),
                        }
                    })?;
                let length = (answer.header.length as usize).next_multiple_of(4).max(16);
                rest = rest.get(length..).unwrap_or_default();
                if answer.header.sequence_number != self.sequence {
                    continue; // the late answer to a request that failed half-way
                }
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return match error.code {
                            None => Ok(()),
                            Some(code) => Err(NetlinkError::Refused {
                                step: step.to_owned(),
                                errno: Errno::from_raw_os_error(code.get().abs()),
                            }),
                        };
                    }
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    _ => {}
                }
            }
        }
    }

    fn send(
        &mut self,
        step: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.inner
            .send(&bytes, 0)
            .map_err(|source| transport(step, source))?;
        Ok(())
    }
}

fn transport(step: &str, source: std::io::Error) -> NetlinkError {
    NetlinkError::Transport {
        step: step.to_owned(),
        source,
    }
}
