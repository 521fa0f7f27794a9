//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{NetlinkError, Socket};

fn message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

impl Socket {
    /// Gives a link an address. An IPv6 address skips duplicate address detection:
    /// IPAM has already made it unique, and detection costs a second or more.
    ///
    /// # Errors
    /// EEXIST when the link has it already.
    pub fn add_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let mut new = message(index, address, prefix);
        match address {
            IpAddr::V4(v4) if prefix < 31 => {
                new.attributes
                    .push(AddressAttribute::Broadcast(broadcast(v4, prefix)));
            }
            IpAddr::V4(_) => {}
            IpAddr::V6(_) => new.header.flags |= AddressHeaderFlags::Nodad,
        }
        self.request(
            &format!("add address {address}/{prefix} to link {index}"),
            RouteNetlinkMessage::NewAddress(new),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Takes an address from a link; nothing to do when it has it not.
    ///
    /// # Errors
    /// Any refusal but "no such address".
    pub fn delete_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), NetlinkError> {
        let step = format!("delete address {address}/{prefix} from link {index}");
        match self.request(
            &step,
            RouteNetlinkMessage::DelAddress(message(index, address, prefix)),
            0,
        ) {
            Err(error) if error.not_found() => Ok(()),
            done => done,
        }
    }

    /// The addresses of a link with their prefix lengths.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<(IpAddr, u8)>, NetlinkError> {
        let found = self.dump(
            "list addresses",
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        )?;
        Ok(found
            .into_iter()
            .filter_map(|m| match m {
                RouteNetlinkMessage::NewAddress(a) if a.header.index == index => read(&a),
                _ => None,
            })
            .collect())
    }
}

pub(crate) fn read(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    Some((local.or(address)?, message.header.prefix_len))
}

fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() | host_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcast_is_the_last_address() {
        let ip = "10.88.3.4".parse().unwrap();
        assert_eq!(broadcast(ip, 16).to_string(), "10.88.255.255");
        assert_eq!(broadcast(ip, 24).to_string(), "10.88.3.255");
        assert_eq!(broadcast(ip, 0).to_string(), "255.255.255.255");
    }
}
