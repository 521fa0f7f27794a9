//! Leases on disk. Invariant: whoever holds a [`Store`] holds the network's lock.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use berth_cni::{CniError, Code};
use rustix::fs::FlockOperation;

/// The leases of one network, locked.
pub(crate) struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    pub fn lock(data_dir: &Path, network: &str) -> Result<Store, CniError> {
        let dir = data_dir.join(network);
        let failed = |e: std::io::Error| io("lock the leases", &dir, &e);
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))
            .map_err(failed)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        Ok(Store { dir, _lock: lock })
    }

    /// As [`Store::lock`], but `None` when the network never leased anything.
    pub fn lock_existing(data_dir: &Path, network: &str) -> Result<Option<Store>, CniError> {
        if !data_dir.join(network).is_dir() {
            return Ok(None);
        }
        Store::lock(data_dir, network).map(Some)
    }

    /// Leases an address; false when it is taken.
    pub fn reserve(
        &self,
        address: IpAddr,
        container: &str,
        ifname: &str,
    ) -> Result<bool, CniError> {
        let path = self.file(address);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => write!(file, "{container}\r\n{ifname}")
                .map(|()| true)
                .map_err(|e| {
                    let _ = std::fs::remove_file(&path);
                    io("write the lease", &path, &e)
                }),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(io("make the lease", &path, &e)),
        }
    }

    /// Gives back every address of the interface.
    pub fn release(&self, container: &str, ifname: &str) -> Result<(), CniError> {
        for path in self.leases_of(container, ifname)? {
            std::fs::remove_file(&path).map_err(|e| io("remove the lease", &path, &e))?;
        }
        Ok(())
    }

    /// The lease files of the interface.
    pub fn leases_of(&self, container: &str, ifname: &str) -> Result<Vec<PathBuf>, CniError> {
        let wanted = format!("{container}\r\n{ifname}");
        let entries =
            std::fs::read_dir(&self.dir).map_err(|e| io("list the leases", &self.dir, &e))?;
        Ok(entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                is_lease(path) && std::fs::read(path).is_ok_and(|held| held == wanted.as_bytes())
            })
            .collect())
    }

    pub fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let text = std::fs::read_to_string(self.last_file(set)).ok()?;
        text.trim().parse().ok()
    }

    pub fn remember_last(&self, set: usize, address: IpAddr) -> Result<(), CniError> {
        let path = self.last_file(set);
        std::fs::write(&path, address.to_string()).map_err(|e| io("write", &path, &e))
    }

    fn file(&self, address: IpAddr) -> PathBuf {
        // As the reference plugin: a colon is not kept in file names.
        self.dir.join(address.to_string().replace(':', "_"))
    }

    fn last_file(&self, set: usize) -> PathBuf {
        self.dir.join(format!("last_reserved_ip.{set}"))
    }
}

fn is_lease(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
    name.replace('_', ":").parse::<IpAddr>().is_ok()
}

fn io(step: &str, path: &Path, error: &std::io::Error) -> CniError {
    CniError::caused(
        Code::Io,
        format!("host-local: cannot {step} `{}`", path.display()),
        error,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_given_once_and_released_by_its_owner_only() {
        let dir = std::env::temp_dir().join(format!("host-local-{}", std::process::id()));
        let store = Store::lock(&dir, "net").unwrap();
        let ip: IpAddr = "10.0.0.2".parse().unwrap();
        assert!(store.reserve(ip, "a", "eth0").unwrap());
        assert!(!store.reserve(ip, "b", "eth0").unwrap());
        store.release("b", "eth0").unwrap();
        assert!(!store.reserve(ip, "b", "eth0").unwrap());
        store.release("a", "eth0").unwrap();
        store.release("a", "eth0").unwrap();
        assert!(store.reserve(ip, "b", "eth0").unwrap());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
