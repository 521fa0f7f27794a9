//! Who calls, as the audit log tells it.

use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

/// The peer of the CRI socket: uid and process id as the kernel saw them when it connected
/// (SO_PEERCRED, unix(7)), and the name that the process has now, which is its own choice.
pub fn who<T>(request: &Request<T>) -> String {
    let info = request.extensions().get::<UdsConnectInfo>();
    let Some(peer) = info.and_then(|info| info.peer_cred.as_ref()) else {
        return "unknown".to_owned();
    };
    let uid = peer.uid();
    let Some(pid) = peer.pid() else {
        return format!("uid {uid}");
    };
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("uid {uid}, pid {pid}, {}", name.trim_end())
}
