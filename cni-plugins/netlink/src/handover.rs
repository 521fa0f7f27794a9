//! A link that goes to another network namespace, with its addresses.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};

use crate::addr::read;
use crate::{NetlinkError, Socket};

impl Socket {
    /// Moves a link into another network namespace under a new name, in one request. The kernel
    /// takes it down and its addresses away.
    ///
    /// # Errors
    /// EEXIST when the name is taken there, EINVAL for a link that cannot leave, such as `lo`.
    pub fn move_link(
        &mut self,
        index: u32,
        netns: BorrowedFd<'_>,
        name: &str,
    ) -> Result<(), NetlinkError> {
        let mut change = LinkMessage::default();
        change.header.index = index;
        change
            .attributes
            .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        change
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let step = format!("move link {index} away as {name}");
        self.request(&step, RouteNetlinkMessage::SetLink(change), 0)
    }

    /// The addresses that somebody gave to a link for use everywhere: permanent, of global scope.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn lasting_addresses(&mut self, index: u32) -> Result<Vec<(IpAddr, u8)>, NetlinkError> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.dump("list addresses", all)?;
        let lasting = found.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(address)
                if address.header.index == index
                    && address.header.scope == AddressScope::Universe
                    && address.header.flags.contains(AddressHeaderFlags::Permanent) =>
            {
                read(&address)
            }
            _ => None,
        });
        Ok(lasting.collect())
    }
}
