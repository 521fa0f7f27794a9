//! Named points at which a test kills the process, between two effects on the kernel or the disk.
//!
//! A crate that has points has a feature `test-util` that turns this crate's on; without it they
//! compile to nothing.

/// Dies by SIGKILL here if a test asks for the point of this name; nothing in an ordinary build.
#[macro_export]
macro_rules! crash_point {
    ($name:expr) => {{
        #[cfg(feature = "test-util")]
        $crate::crash::reach($name);
    }};
}

/// Names the point to die at, in builds for tests.
pub const VARIABLE: &str = "BERTH_CRASH_POINT";

/// Dies if `name` is the point asked for.
#[cfg(feature = "test-util")]
pub fn reach(name: &str) {
    if std::env::var_os(VARIABLE).is_some_and(|asked| asked == *name) {
        let own = rustix::process::getpid();
        // Not an exit: no guard may run, as if power had gone.
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    }
}
