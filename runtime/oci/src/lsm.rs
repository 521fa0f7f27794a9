//! Which security modules this host runs.

use std::fs::File;
use std::io::Read;

/// What a specification may ask of the host's security modules.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Modules {
    /// AppArmor confines programs.
    pub(crate) apparmor: bool,
    /// SELinux labels processes and files.
    pub(crate) selinux: bool,
}

impl Modules {
    /// Asks the kernel.
    pub(crate) fn probe() -> Modules {
        Modules {
            apparmor: starts_with("/sys/module/apparmor/parameters/enabled", b'Y'),
            // The file system is there, and mounted, only where a policy can be loaded.
            selinux: File::open("/sys/fs/selinux/enforce").is_ok(),
        }
    }
}

fn starts_with(path: &str, wanted: u8) -> bool {
    let mut first = [0u8];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut first).is_ok() && first[0] == wanted)
}
