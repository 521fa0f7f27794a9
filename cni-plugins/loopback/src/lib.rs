//! The CNI plugin `loopback`: brings up `lo` in the container's namespace.

use berth_cni::{Call, CniError, CniResult, Code, Interface, IpConfig, Plugin};
use berth_netlink::{Link, NetlinkError, Socket, netns};

/// The plugin; its type is `loopback`.
pub struct Loopback;

impl Plugin for Loopback {
    fn kind(&self) -> &'static str {
        "loopback"
    }

    fn add(&self, call: &Call<'_>) -> Result<CniResult, CniError> {
        let lo = inside(call, |socket| {
            let lo = find(socket)?;
            socket.set_up(lo.index)?;
            Ok(lo)
        })?;
        // A chained loopback passes on what came before it.
        if let Some(previous) = call.config.prev_result()? {
            return Ok(previous);
        }
        let netns = call.netns.as_deref().unwrap_or(std::path::Path::new(""));
        Ok(CniResult {
            interfaces: vec![Interface {
                name: lo.name,
                mac: lo.mac,
                mtu: None,
                sandbox: netns.display().to_string(),
            }],
            ips: ["127.0.0.1/8", "::1/128"]
                .map(|address| IpConfig {
                    address: address.into(),
                    gateway: None,
                    interface: Some(0),
                })
                .into(),
            ..CniResult::default()
        })
    }

    fn del(&self, _call: &Call<'_>) -> Result<(), CniError> {
        Ok(()) // `lo` lives and dies with its namespace
    }

    fn check(&self, call: &Call<'_>) -> Result<(), CniError> {
        let lo = inside(call, find)?;
        if lo.up {
            Ok(())
        } else {
            Err(CniError::new(Code::CheckFailed, "lo is down"))
        }
    }
}

fn find(socket: &mut Socket) -> Result<Link, NetlinkError> {
    socket.link("lo")?.ok_or(NetlinkError::Refused {
        step: "look up link lo".into(),
        errno: rustix::io::Errno::NODEV,
    })
}

fn inside<T: Send>(
    call: &Call<'_>,
    work: impl FnOnce(&mut Socket) -> Result<T, NetlinkError> + Send,
) -> Result<T, CniError> {
    let path = call.netns.as_deref().ok_or_else(|| {
        CniError::new(Code::InvalidEnvironment, "a network namespace is required")
    })?;
    let failed =
        |e: &dyn std::error::Error| CniError::from_source(Code::Kernel, "cannot set up lo", e);
    let netns = netns::open(path).map_err(|e| failed(&e))?;
    netns::run_in(&netns, || work(&mut Socket::open()?))
        .map_err(|e| failed(&e))?
        .map_err(|e| failed(&e))
}
