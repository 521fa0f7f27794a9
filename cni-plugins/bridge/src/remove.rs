//! DEL: the lease and the link go; succeeds when they are gone already.

use berth_cni::{Call, CniError, Code};
use berth_netlink::Socket;

use crate::add::kernel;
use crate::config::Config;

pub(crate) fn del(call: &Call<'_>) -> Result<(), CniError> {
    let config = Config::from_conf(&call.config)?;
    let mut host = Socket::open().map_err(kernel)?;
    links_and_leases(call, &config, &mut host)
}

/// Tries everything, returns all that failed. Without a namespace its links went
/// with it: deleting one by name would only wait for the kernel (18 to 30 ms).
pub(crate) fn links_and_leases(
    call: &Call<'_>,
    config: &Config,
    host: &mut Socket,
) -> Result<(), CniError> {
    let mut errors = Vec::new();
    if call.netns.is_some()
        && let Err(error) = host.delete_link(&host_link_name(call))
    {
        errors.push(kernel(error));
    }
    if let Some(kind) = &config.ipam
        && let Err(error) = call.delegates.del(kind, call)
    {
        errors.push(error);
    }
    let Some(first) = errors.first() else {
        return Ok(());
    };
    let code = first.kind().unwrap_or(Code::Kernel);
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(CniError::new(code, text.join("; ")))
}

/// Name of the end on the host: derived from the container and its interface, so
/// that DEL finds it without a stored result. FNV-1a, 44 bits in hexadecimal.
pub(crate) fn host_link_name(call: &Call<'_>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in call
        .container_id
        .bytes()
        .chain([b'/'])
        .chain(call.ifname.bytes())
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("veth{:011x}", hash >> 20)
}
