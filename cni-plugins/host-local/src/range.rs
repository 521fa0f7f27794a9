//! Ranges of addresses, and the order in which they are tried. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

/// Addresses looked at before a range counts as full.
const MAX_TRIES: usize = 1 << 16;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RawRange {
    pub subnet: String,
    pub range_start: Option<IpAddr>,
    pub range_end: Option<IpAddr>,
    pub gateway: Option<IpAddr>,
}

/// A range inside one subnet. Invariant: `start <= end`, all of one family, all inside the subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub prefix: u8,
    pub gateway: IpAddr,
    start: u128,
    end: u128,
    v6: bool,
}

impl Range {
    pub fn from_raw(raw: &RawRange) -> Result<Range, String> {
        let (address, prefix) = raw
            .subnet
            .split_once('/')
            .and_then(|(a, p)| Some((a.parse::<IpAddr>().ok()?, p.parse::<u8>().ok()?)))
            .ok_or(format!("subnet {:?} is not a CIDR", raw.subnet))?;
        let (bits, width) = number(address);
        if prefix > width - 2 {
            return Err(format!(
                "subnet {} is too small to allocate from",
                raw.subnet
            ));
        }
        let host_mask = (1_u128 << (width - prefix)) - 1;
        if bits & host_mask != 0 {
            return Err(format!("subnet {} has host bits set", raw.subnet));
        }
        let v6 = width == 128;
        // The last address of an IPv4 subnet is its broadcast address.
        let (first, last) = (bits + 1, bits + host_mask - u128::from(!v6));
        let inside = |name: &str, ip: Option<IpAddr>, default: u128| match ip {
            None => Ok(default),
            Some(ip) => match number(ip) {
                (n, w) if w == width && (first..=last).contains(&n) => Ok(n),
                _ => Err(format!("{name} {ip} is not in {}", raw.subnet)),
            },
        };
        let start = inside("rangeStart", raw.range_start, first)?;
        let end = inside("rangeEnd", raw.range_end, last)?;
        if start > end {
            return Err("rangeStart is after rangeEnd".into());
        }
        let gateway = inside("gateway", raw.gateway, first)?;
        Ok(Range {
            prefix,
            gateway: address_of(gateway, v6),
            start,
            end,
            v6,
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}",
            address_of(self.start, self.v6),
            address_of(self.end, self.v6)
        )
    }
}

fn number(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    }
}

fn address_of(number: u128, v6: bool) -> IpAddr {
    if v6 {
        return IpAddr::V6(Ipv6Addr::from_bits(number));
    }
    let bits = u32::try_from(number).expect("an IPv4 range holds 32-bit numbers");
    IpAddr::V4(Ipv4Addr::from_bits(bits))
}

/// The addresses of a set in the order to try: from the one after `last` round
/// to `last`, gateways left out, so that an address is reused as late as possible.
pub(crate) fn candidates(
    set: &[Range],
    last: Option<IpAddr>,
) -> impl Iterator<Item = (&Range, IpAddr)> {
    let position = last.and_then(|ip| {
        let (n, width) = number(ip);
        let index = set
            .iter()
            .position(|r| r.v6 == (width == 128) && (r.start..=r.end).contains(&n))?;
        Some((index, n))
    });
    let (first, after) = position.map_or((0, None), |(index, n)| (index, Some(n)));
    let head = set.get(first).into_iter().flat_map(move |range| {
        let from = after.map_or(range.start, |n| n + 1);
        (from..=range.end).map(move |n| (range, n))
    });
    let others = (1..set.len()).flat_map(move |step| {
        let range = &set[(first + step) % set.len()];
        (range.start..=range.end).map(move |n| (range, n))
    });
    let tail = set.get(first).into_iter().flat_map(move |range| {
        let to = after.unwrap_or(range.start);
        (range.start..=to.min(range.end))
            .take(if after.is_some() { usize::MAX } else { 0 })
            .map(move |n| (range, n))
    });
    head.chain(others)
        .chain(tail)
        .take(MAX_TRIES)
        .map(|(range, n)| (range, address_of(n, range.v6)))
        .filter(|(range, ip)| *ip != range.gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str, start: Option<&str>, end: Option<&str>) -> Result<Range, String> {
        Range::from_raw(&RawRange {
            subnet: subnet.into(),
            range_start: start.map(|s| s.parse().unwrap()),
            range_end: end.map(|s| s.parse().unwrap()),
            gateway: None,
        })
    }

    fn order(set: &[Range], last: Option<&str>) -> Vec<String> {
        candidates(set, last.map(|l| l.parse().unwrap()))
            .map(|(_, ip)| ip.to_string())
            .collect()
    }

    #[test]
    fn goes_round_from_the_last_and_leaves_out_gateway_and_broadcast() {
        let set = [range("10.0.0.0/29", None, None).unwrap()];
        let all = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
        assert_eq!(order(&set, None), all);
        assert_eq!(
            order(&set, Some("10.0.0.4")),
            ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4"]
        );
        assert_eq!(order(&set, Some("10.0.0.6")), all);
    }

    #[test]
    fn a_set_of_two_ranges_uses_both() {
        let set = [
            range("10.0.0.0/24", Some("10.0.0.10"), Some("10.0.0.11")).unwrap(),
            range("10.0.1.0/24", Some("10.0.1.10"), Some("10.0.1.10")).unwrap(),
        ];
        assert_eq!(
            order(&set, Some("10.0.0.10")),
            ["10.0.0.11", "10.0.1.10", "10.0.0.10"]
        );
    }

    #[test]
    fn wrong_ranges_are_refused_by_name() {
        for (subnet, start, word) in [
            ("10.0.0.1/24", None, "host bits"),
            ("10.0.0.0/31", None, "too small"),
            ("10.0.0.0", None, "CIDR"),
            ("10.0.0.0/24", Some("10.0.1.1"), "rangeStart"),
        ] {
            let error = range(subnet, start, None).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn ipv6_uses_its_last_address() {
        let set = [range("fd00::/126", None, None).unwrap()];
        assert_eq!(order(&set, None), ["fd00::2", "fd00::3"]);
    }
}
