//! The CNI plugins as one program, chosen by the name it is called by
//! (`bridge`, `host-local`, `loopback`, `portmap`) or by its first argument.

use std::path::Path;
use std::process::ExitCode;

use berth_cni::{Builtins, skel};
use berth_cni_bridge::Bridge;
use berth_cni_host_local::HostLocal;
use berth_cni_loopback::Loopback;
use berth_cni_portmap::Portmap;

fn main() -> ExitCode {
    let mut args = std::env::args();
    let called = args.next().unwrap_or_default();
    let base = Path::new(&called)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .to_owned();
    let name = if base == "berth-cni" {
        args.next().unwrap_or_default()
    } else {
        base
    };
    // host-local is at hand as IPAM, so a node needs no second file for it.
    let builtins = Builtins::new().with(HostLocal);
    match name.as_str() {
        "bridge" => skel::run(&Bridge, builtins),
        "host-local" => skel::run(&HostLocal, Builtins::new()),
        "loopback" => skel::run(&Loopback, Builtins::new()),
        "portmap" => skel::run(&Portmap, Builtins::new()),
        _ => {
            eprintln!(
                "berth-cni: CNI plugins in one program\n\n\
                 Link it as bridge, host-local, loopback or portmap into /opt/cni/bin, or name\n\
                 one as the first argument. The call itself is made by CNI_* variables and a\n\
                 configuration on stdin, as the CNI specification 1.1.0 says."
            );
            ExitCode::from(64)
        }
    }
}
