//! Routes.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{NetlinkError, Socket};

impl Socket {
    /// Adds a route by a gateway, or by the link alone.
    ///
    /// # Errors
    /// EEXIST when there is one to the same destination.
    pub fn add_route(
        &mut self,
        destination: IpAddr,
        prefix: u8,
        gateway: Option<IpAddr>,
        link: u32,
    ) -> Result<(), NetlinkError> {
        let mut new = RouteMessage::default();
        new.header.address_family = match destination {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        new.header.table = RouteHeader::RT_TABLE_MAIN;
        new.header.protocol = RouteProtocol::Boot;
        new.header.kind = RouteType::Unicast;
        new.header.scope = if gateway.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        new.header.destination_prefix_length = prefix;
        if prefix > 0 {
            new.attributes
                .push(RouteAttribute::Destination(RouteAddress::from(destination)));
        }
        new.attributes
            .extend(gateway.map(|g| RouteAttribute::Gateway(RouteAddress::from(g))));
        new.attributes.push(RouteAttribute::Oif(link));
        self.request(
            &format!("add route to {destination}/{prefix} on link {link}"),
            RouteNetlinkMessage::NewRoute(new),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }
}
