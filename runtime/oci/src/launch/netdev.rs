//! Network devices of the host that go to the container (config-linux.md, "Network Devices").

use std::fs::File;

use berth_netlink::{NetlinkError, Socket, netns};

use super::error::At;
use super::{LaunchError, Stage};
use crate::plan::NetDevice;
use std::os::fd::AsFd;

/// Moves devices from the caller's network namespace into that of process `pid`, each renamed with
/// the move, up, and with the addresses that were given to it for good.
pub(super) fn hand_over(devices: &[NetDevice], pid: i32) -> Result<(), LaunchError> {
    if devices.is_empty() {
        return Ok(());
    }
    let step = || "open the container's network namespace".to_owned();
    let namespace = File::open(format!("/proc/{pid}/ns/net")).at(Stage::Join, step)?;
    let mut moved = Vec::new();
    for device in devices {
        let away = take_away(device, &namespace);
        moved.push((device, away.map_err(|error| failed(device, &error))?));
    }
    netns::run_in(&namespace, || {
        moved.iter().try_for_each(|(device, addresses)| {
            set_up(device, addresses).map_err(|error| failed(device, &error))
        })
    })
    .map_err(|error| LaunchError::from_chain(Stage::Join, step(), &error))?
}

type Addresses = Vec<(std::net::IpAddr, u8)>;

fn take_away(device: &NetDevice, namespace: &File) -> Result<Addresses, NetlinkError> {
    let mut socket = Socket::open()?;
    let index = index_of(&mut socket, &device.outside)?;
    let addresses = socket.lasting_addresses(index)?;
    socket.move_link(index, namespace.as_fd(), &device.inside)?;
    Ok(addresses)
}

fn set_up(device: &NetDevice, addresses: &Addresses) -> Result<(), NetlinkError> {
    let mut socket = Socket::open()?;
    let index = index_of(&mut socket, &device.inside)?;
    for (address, prefix) in addresses {
        socket.add_address(index, *address, *prefix)?;
    }
    socket.set_up(index)
}

fn index_of(socket: &mut Socket, name: &str) -> Result<u32, NetlinkError> {
    let link = socket.link(name)?;
    link.map(|link| link.index)
        .ok_or_else(|| NetlinkError::Refused {
            step: format!("look up link {name}"),
            errno: rustix::io::Errno::NODEV,
        })
}

fn failed(device: &NetDevice, error: &NetlinkError) -> LaunchError {
    let step = format!("move network device `{}`", device.outside);
    let mut out = LaunchError::from_chain(Stage::Join, step, error);
    out.errno = error.errno().map(rustix::io::Errno::raw_os_error);
    out
}
