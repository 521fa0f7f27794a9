//! The guest's kernel and first initramfs, taken from the root archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use super::cpio::Archive;

/// What must work before the root file system is mounted; modules that the kernel
/// has built in are simply absent from its module folder.
const MODULES: [&str; 10] = [
    "9pnet_virtio",
    "9p",
    "overlay",
    "virtio_blk",
    "crc32c_generic",
    "erofs",
    "virtio_net",
    "virtio-rng",
    "ext4",
    "crc32c",
];

/// Everything of the root archive that boots it.
struct Boot {
    kernel: Vec<u8>,
    busybox: Vec<u8>,
    /// Module path below `kernel/` → content.
    modules: BTreeMap<String, Vec<u8>>,
    dependencies: String,
}

/// Writes `kernel` and `base.initrd` into the folder.
pub fn write_boot_files(root_archive: &Path, into: &Path) -> Result<()> {
    let boot = read(root_archive)?;
    let order = load_order(&boot.dependencies, &MODULES);
    let mut initrd = Archive::new();
    for folder in ["bin", "m"] {
        initrd.folder(folder);
    }
    initrd.file("bin/busybox", &boot.busybox);
    let mut list = String::new();
    for path in order {
        let Some(content) = boot.modules.get(&path) else {
            continue;
        };
        let name = path.rsplit('/').next().unwrap_or(&path);
        initrd.file(&format!("m/{name}"), content);
        list.push_str(&format!("{name}\n"));
    }
    initrd.file("m/list", list.as_bytes());
    std::fs::write(into.join("base.initrd"), initrd.finish())?;
    std::fs::write(into.join("kernel"), boot.kernel)?;
    Ok(())
}

/// The modules and what they depend on, each after its dependencies
/// (modules.dep(5): `path: dependency …`, the nearest first).
fn load_order(dependencies: &str, wanted: &[&str]) -> Vec<String> {
    let stem = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.split('.').next().unwrap_or(name).replace('-', "_")
    };
    let table: BTreeMap<String, (&str, &str)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (stem(path), (path, needs)))
        .collect();
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in wanted {
        let Some((path, needs)) = table.get(&name.replace('-', "_")) else {
            continue;
        };
        for module in needs.split_whitespace().rev().chain([*path]) {
            if seen.insert(module.to_owned()) {
                order.push(module.to_owned());
            }
        }
    }
    order
}

fn read(root_archive: &Path) -> Result<Boot> {
    let mut boot = Boot {
        kernel: Vec::new(),
        busybox: Vec::new(),
        modules: BTreeMap::new(),
        dependencies: String::new(),
    };
    let mut archive = tar::Archive::new(File::open(root_archive)?);
    for entry in archive.entries_with_seek()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.display().to_string();
        let path = path.trim_start_matches("./");
        if path.starts_with("boot/vmlinuz-") {
            entry.read_to_end(&mut boot.kernel)?;
        } else if path == "usr/bin/busybox" {
            entry.read_to_end(&mut boot.busybox)?;
        } else if let Some(rest) = path.strip_prefix("usr/lib/modules/") {
            let (_, inside) = rest.split_once('/').context("a file beside the modules")?;
            if inside == "modules.dep" {
                entry.read_to_string(&mut boot.dependencies)?;
            } else if inside.ends_with(".ko") && is_early(inside) {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                boot.modules.insert(inside.to_owned(), content);
            }
        }
    }
    anyhow::ensure!(!boot.kernel.is_empty(), "the root archive holds no kernel");
    anyhow::ensure!(
        !boot.busybox.is_empty(),
        "the root archive holds no busybox"
    );
    Ok(boot)
}

fn is_early(module: &str) -> bool {
    let folders = [
        "kernel/fs/",
        "kernel/net/9p",
        "kernel/net/core",
        "kernel/lib/",
        "kernel/crypto/",
    ];
    let drivers = [
        "kernel/drivers/block/",
        "kernel/drivers/net/",
        "kernel/drivers/char/",
    ];
    folders
        .iter()
        .chain(&drivers)
        .chain(&["kernel/arch/"])
        .any(|f| module.starts_with(f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_follows_what_it_needs() {
        let table = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko\n\
                     kernel/fs/netfs/netfs.ko:\nkernel/net/9p/9pnet.ko: kernel/fs/netfs/netfs.ko\n";
        let order = load_order(table, &["9p", "absent", "9pnet"]);
        let expected = [
            "kernel/fs/netfs/netfs.ko",
            "kernel/net/9p/9pnet.ko",
            "kernel/fs/9p/9p.ko",
        ];
        assert_eq!(order, expected);
    }
}
