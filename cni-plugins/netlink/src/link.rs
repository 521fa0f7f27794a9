//! Links: bridges, veth pairs, their flags and masters.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};

use crate::{NetlinkError, Socket};

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address, `02:42:…`; empty for links without.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its driver: `bridge`, `veth` …
    pub kind: Option<String>,
}

/// A veth pair to make: one end here, on a bridge, the other in a namespace.
pub struct VethPair<'a> {
    /// Name of the end in this namespace.
    pub host: &'a str,
    /// Name of the other end.
    pub peer: &'a str,
    /// Namespace of the other end.
    pub netns: BorrowedFd<'a>,
    /// Bridge of which the end here becomes a port.
    pub bridge: u32,
    /// MTU of both ends in bytes; the kernel's default when absent.
    pub mtu: Option<u32>,
}

fn message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
    message
}

impl Socket {
    /// The link of this name, or `None`.
    ///
    /// # Errors
    /// Any refusal but "no such device".
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let mut query = message(0);
        query
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let step = format!("look up link {name}");
        match self.get(&step, RouteNetlinkMessage::GetLink(query)) {
            Ok(Some(RouteNetlinkMessage::NewLink(found))) => Ok(Some(read(found))),
            Ok(_) => Ok(None),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links of the namespace.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let found = self.dump("list links", RouteNetlinkMessage::GetLink(message(0)))?;
        Ok(found
            .into_iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewLink(link) => Some(read(link)),
                _ => None,
            })
            .collect())
    }

    /// Makes a bridge and brings it up.
    ///
    /// # Errors
    /// EEXIST when the name is taken.
    pub fn add_bridge(&mut self, name: &str, mtu: Option<u32>) -> Result<(), NetlinkError> {
        let mut new = up(message(0));
        new.attributes.push(LinkAttribute::IfName(name.to_owned()));
        new.attributes.extend(mtu.map(LinkAttribute::Mtu));
        new.attributes
            .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                InfoKind::Bridge,
            )]));
        self.create(&format!("make bridge {name}"), new)
    }

    /// Makes a veth pair in one request: the near end up and on its bridge, the far
    /// end already inside its namespace.
    ///
    /// # Errors
    /// EEXIST when either name is taken.
    pub fn add_veth(&mut self, pair: &VethPair<'_>) -> Result<(), NetlinkError> {
        let mut peer = message(0);
        peer.attributes
            .push(LinkAttribute::IfName(pair.peer.to_owned()));
        peer.attributes
            .push(LinkAttribute::NetNsFd(pair.netns.as_raw_fd()));
        peer.attributes.extend(pair.mtu.map(LinkAttribute::Mtu));
        let mut new = up(message(0));
        new.attributes
            .push(LinkAttribute::IfName(pair.host.to_owned()));
        new.attributes.push(LinkAttribute::Controller(pair.bridge));
        new.attributes.extend(pair.mtu.map(LinkAttribute::Mtu));
        new.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.create(
            &format!("make veth {} with peer {}", pair.host, pair.peer),
            new,
        )
    }

    fn create(&mut self, step: &str, new: LinkMessage) -> Result<(), NetlinkError> {
        self.request(
            step,
            RouteNetlinkMessage::NewLink(new),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.change(&format!("bring link {index} up"), up(message(index)))
    }

    /// Puts a link into promiscuous mode.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_promiscuous(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut change = message(index);
        change.header.flags |= LinkFlags::Promisc;
        change.header.change_mask |= LinkFlags::Promisc;
        self.change(&format!("set link {index} promiscuous"), change)
    }

    /// Lets a bridge port send frames back out of the port they came from, so that
    /// a pod reaches itself through a Service.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_hairpin(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut change = message(index);
        change.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
                true,
            )])),
        ]));
        self.request(
            &format!("set hairpin mode on link {index}"),
            RouteNetlinkMessage::NewLink(change),
            0,
        )
    }

    /// Deletes the link of this name; nothing to do when it is gone.
    ///
    /// # Errors
    /// Any refusal but "no such device".
    pub fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let mut gone = message(0);
        gone.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.request(
            &format!("delete link {name}"),
            RouteNetlinkMessage::DelLink(gone),
            0,
        ) {
            Err(error) if error.not_found() => Ok(()),
            done => done,
        }
    }

    fn change(&mut self, step: &str, change: LinkMessage) -> Result<(), NetlinkError> {
        self.request(step, RouteNetlinkMessage::SetLink(change), 0)
    }
}

fn read(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: String::new(),
        mtu: 0,
        master: None,
        up: message.header.flags.contains(LinkFlags::Up),
        kind: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::Address(bytes) => {
                let parts: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
                link.mac = parts.join(":");
            }
            LinkAttribute::LinkInfo(info) => {
                link.kind = info.iter().find_map(|i| match i {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}
