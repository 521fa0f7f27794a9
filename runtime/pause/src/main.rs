//! Holds the namespaces of a pod and reaps orphans; nothing else.
//!
//! Invariant: allocates nothing after start and ends only by SIGTERM, SIGINT or SIGKILL.

use std::process::ExitCode;

use berth_sys::reap;
use berth_sys::signal::Blocked;

// Numbers of signal(7), the same on every architecture that Linux containers run on.
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCHLD: i32 = 17;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == "--version")
    {
        println!("berth-pause {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    // Blocked, not handled: the first process of a PID namespace gets a signal from inside only if it wants it,
    // and a blocked one is kept pending for it.
    let Ok(signals) = Blocked::block(&[SIGINT, SIGTERM, SIGCHLD]) else {
        return ExitCode::from(1);
    };
    loop {
        while let Ok(Some(_)) = reap::next_ended() {}
        match signals.wait() {
            Ok(SIGCHLD) => {}
            Ok(_) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::from(1),
        }
    }
}
