//! ADD: bridge, veth pair, addresses, routes, masquerade; undone when a step fails.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use berth_cni::{Call, CniError, CniResult, Code, Interface, Route};
use berth_netlink::{Link, NetlinkError, Socket, VethPair, netns};

use crate::config::Config;
use crate::{masquerade, remove, sysctl};

pub(crate) fn add(call: &Call<'_>) -> Result<CniResult, CniError> {
    let config = Config::from_conf(&call.config)?;
    let path = call.netns.as_deref().ok_or_else(|| {
        CniError::new(
            Code::InvalidEnvironment,
            "bridge: a network namespace is required",
        )
    })?;
    let netns = netns::open(path).map_err(|e| {
        CniError::from_source(Code::UnknownContainer, "bridge: no network namespace", &e)
    })?;
    let mut host = Socket::open().map_err(kernel)?;
    let bridge = ensure_bridge(&mut host, &config).map_err(kernel)?;
    let mut result = match &config.ipam {
        Some(kind) => call.delegates.add(kind, call)?,
        None => CniResult::default(),
    };
    let attach = Attach {
        call,
        config: &config,
        bridge: &bridge,
        netns: &netns,
    };
    match attach.run(&mut host, &mut result, path) {
        Ok(()) => Ok(result),
        Err(error) => {
            let _ = remove::links_and_leases(call, &config, &mut host);
            Err(error)
        }
    }
}

/// The bridge, made if need be. Two calls may make it at once: the loser finds it made.
pub(crate) fn ensure_bridge(host: &mut Socket, config: &Config) -> Result<Link, NetlinkError> {
    if let Some(link) = host.link(&config.bridge)? {
        return Ok(link);
    }
    match host.add_bridge(&config.bridge, config.mtu) {
        Err(error) if !error.already_exists() => return Err(error),
        _ => {}
    }
    let bridge = host.link(&config.bridge)?.ok_or(NetlinkError::Malformed {
        step: format!("make bridge {}", config.bridge),
        reason: "it is gone again".into(),
    })?;
    // Router advertisements from a pod must not configure the host (CVE-2020-10749).
    sysctl::set_if_present(&format!("net/ipv6/conf/{}/accept_ra", config.bridge), "0");
    if config.promiscuous {
        host.set_promiscuous(bridge.index)?;
    }
    Ok(bridge)
}

struct Attach<'a> {
    call: &'a Call<'a>,
    config: &'a Config,
    bridge: &'a Link,
    netns: &'a OwnedFd,
}

impl Attach<'_> {
    fn run(&self, host: &mut Socket, result: &mut CniResult, path: &Path) -> Result<(), CniError> {
        let name = remove::host_link_name(self.call);
        host.add_veth(&VethPair {
            host: &name,
            peer: &self.call.ifname,
            netns: self.netns.as_fd(),
            bridge: self.bridge.index,
            mtu: self.config.mtu,
        })
        .map_err(kernel)?;
        let near = host
            .link(&name)
            .map_err(kernel)?
            .ok_or_else(|| gone(&name))?;
        if self.config.hairpin {
            host.set_hairpin(near.index).map_err(kernel)?;
        }
        self.complete_routes(result);
        let far = self.inside(result)?;
        if self.config.is_gateway {
            self.ensure_gateway(host, result)?;
        }
        if self.config.ip_masq {
            masquerade::ensure(self.call.config.network(), &self.config.bridge, result)?;
        }
        let on_host = |link: &Link| Interface {
            name: link.name.clone(),
            mac: link.mac.clone(),
            mtu: Some(link.mtu),
            sandbox: String::new(),
        };
        result.interfaces = vec![
            on_host(self.bridge),
            on_host(&near),
            Interface {
                sandbox: path.display().to_string(),
                ..on_host(&far)
            },
        ];
        for ip in &mut result.ips {
            ip.interface = Some(2);
        }
        Ok(())
    }

    /// A route without a next hop goes by the gateway of its family; the default
    /// route is added where the bridge is the default gateway.
    fn complete_routes(&self, result: &mut CniResult) {
        let gateway = |v6: bool| {
            result
                .ips
                .iter()
                .filter_map(|ip| ip.gateway)
                .find(|g| g.is_ipv6() == v6)
        };
        let gateways = [gateway(false), gateway(true)];
        let routes = &mut result.routes;
        if self.config.is_default_gateway {
            for (gateway, dst) in gateways.iter().zip(["0.0.0.0/0", "::/0"]) {
                if gateway.is_some() && !routes.iter().any(|r| r.dst == dst) {
                    routes.push(Route {
                        dst: dst.into(),
                        gw: *gateway,
                    });
                }
            }
        }
        for route in routes {
            if route.gw.is_none() {
                route.gw = gateways[usize::from(route.dst.contains(':'))];
            }
        }
    }

    /// Everything that happens in the container's namespace, on one thread.
    fn inside(&self, result: &CniResult) -> Result<Link, CniError> {
        let ifname = &self.call.ifname;
        let work = || -> Result<Link, CniError> {
            sysctl::set_if_present(&format!("net/ipv6/conf/{ifname}/accept_ra"), "0");
            let mut socket = Socket::open().map_err(kernel)?;
            let far = socket
                .link(ifname)
                .map_err(kernel)?
                .ok_or_else(|| gone(ifname))?;
            for ip in &result.ips {
                let (address, prefix) = ip.parse().ok_or_else(|| not_a_cidr(&ip.address))?;
                socket
                    .add_address(far.index, address, prefix)
                    .map_err(kernel)?;
            }
            socket.set_up(far.index).map_err(kernel)?;
            for route in &result.routes {
                let (destination, prefix) =
                    parse_cidr(&route.dst).ok_or_else(|| not_a_cidr(&route.dst))?;
                match socket.add_route(destination, prefix, route.gw, far.index) {
                    Err(error) if !error.already_exists() => return Err(kernel(error)),
                    _ => {}
                }
            }
            Ok(far)
        };
        netns::run_in(self.netns, work).map_err(|e| {
            CniError::from_source(Code::Kernel, "bridge: cannot enter the namespace", &e)
        })?
    }

    fn ensure_gateway(&self, host: &mut Socket, result: &CniResult) -> Result<(), CniError> {
        for ip in &result.ips {
            let (Some(gateway), Some((_, prefix))) = (ip.gateway, ip.parse()) else {
                continue;
            };
            match host.add_address(self.bridge.index, gateway, prefix) {
                Err(error) if !error.already_exists() => return Err(kernel(error)),
                _ => {}
            }
            let key = match gateway {
                IpAddr::V4(_) => "net/ipv4/ip_forward",
                IpAddr::V6(_) => "net/ipv6/conf/all/forwarding",
            };
            sysctl::ensure(key, "1")?;
        }
        Ok(())
    }
}

pub(crate) fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

fn not_a_cidr(text: &str) -> CniError {
    CniError::new(
        Code::InvalidConfig,
        format!("bridge: {text:?} is not a CIDR"),
    )
}

fn gone(name: &str) -> CniError {
    CniError::new(
        Code::Kernel,
        format!("bridge: link {name} is gone right after it was made"),
    )
}

pub(crate) fn kernel(error: NetlinkError) -> CniError {
    CniError::from_source(Code::Kernel, "bridge", &error)
}
