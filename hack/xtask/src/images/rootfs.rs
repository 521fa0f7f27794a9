//! Which files of the unpacked packages go into which layer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tree::Tree;
use crate::process;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// Debian's `pgrep` drags half of systemd in; the CRI suite only asks for ids.
const PGREP: &str = "#!/bin/sh\nexec pidof \"$1\"\n";

/// Every writable path is below /tmp, so that the root file system may be read-only.
const NGINX_CONFIGURATION: &str = "\
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr notice;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /dev/stdout;
    client_body_temp_path /tmp/client_body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {
        listen 8080;
        listen [::]:8080;
        root /usr/share/nginx/html;
    }
}
";

/// Debian's dynamic busybox with its libraries, bash as /bin/sh, users and groups.
///
/// The applets are hard links, as in the upstream image: masking one of them
/// must not mask the others.
pub fn busybox(packages: &Path) -> Result<Tree> {
    let mut tree = Tree::default();
    for name in ["bin", "sbin", "lib", "lib64"] {
        tree.folder(&format!("usr/{name}"), 0o755);
        tree.symlink(name, &format!("usr/{name}"));
    }
    for name in [
        "dev", "etc", "proc", "run", "sys", "usr", "var", "home", "mnt",
    ] {
        tree.folder(name, 0o755);
    }
    tree.folder("root", 0o700);
    tree.folder("tmp", 0o1777);
    tree.folder("var/tmp", 0o1777);
    tree.symlink("var/run", "/run");
    for name in ["passwd", "group"] {
        let source = format!("usr/share/base-passwd/{name}.master");
        let text = std::fs::read_to_string(packages.join(&source))
            .with_context(|| format!("the packages lack {source}"))?;
        tree.text(&format!("etc/{name}"), 0o644, text);
    }
    for name in ["services", "protocols"] {
        tree.file(&format!("etc/{name}"), &packages.join("etc").join(name))?;
    }
    tree.text(
        "etc/nsswitch.conf",
        0o644,
        "passwd: files\ngroup: files\nhosts: files dns\n",
    );
    for program in ["busybox", "bash", "ipcs"] {
        add_program(&mut tree, packages, &format!("usr/bin/{program}"))?;
    }
    tree.symlink("usr/bin/sh", "bash");
    tree.text("usr/bin/pgrep", 0o755, PGREP);
    for applet in applets(packages)? {
        let path = match applet.strip_prefix("usr/") {
            Some(_) => applet,
            None => format!("usr/{applet}"),
        };
        if !tree.has(&path) {
            tree.hard_link(&path, "usr/bin/busybox");
        }
    }
    Ok(tree)
}

/// What `web` adds to `base`: nginx on port 8080 for a user without rights, and curl.
pub fn web(packages: &Path, base: &Tree) -> Result<Tree> {
    let mut whole = base.clone();
    let mut tree = Tree::default();
    for program in ["usr/sbin/nginx", "usr/bin/curl"] {
        for (path, source) in program_files(packages, program)? {
            if !whole.has(&path) {
                whole.file(&path, &source)?;
                tree.file(&path, &source)?;
            }
        }
    }
    tree.file(
        "etc/nginx/mime.types",
        &packages.join("etc/nginx/mime.types"),
    )?;
    tree.text("etc/nginx/nginx.conf", 0o644, NGINX_CONFIGURATION);
    tree.text("usr/share/nginx/html/index.html", 0o644, "berth web\n");
    let mut user = |file: &str, line: &str| -> Result<()> {
        let master = packages.join(format!("usr/share/base-passwd/{file}.master"));
        let text = std::fs::read_to_string(master)? + line;
        tree.text(&format!("etc/{file}"), 0o644, text);
        Ok(())
    };
    user(
        "passwd",
        "nginx:*:101:101:nginx:/nonexistent:/usr/sbin/nologin\n",
    )?;
    user("group", "nginx:*:101:\n")?;
    Ok(tree)
}

fn add_program(tree: &mut Tree, packages: &Path, program: &str) -> Result<()> {
    for (path, source) in program_files(packages, program)? {
        tree.file(&path, &source)?;
    }
    Ok(())
}

/// The program, its loader and the libraries the loader finds for it, as
/// (path in the image, file on this machine).
fn program_files(packages: &Path, program: &str) -> Result<BTreeSet<(String, PathBuf)>> {
    let listing = process::output(loader(packages).arg("--list").arg(packages.join(program)))?;
    let mut files = BTreeSet::from([
        (program.to_owned(), packages.join(program)),
        // the symbolic link of the package is followed: the loader itself at its ABI path
        (LOADER.to_owned(), packages.join(LOADER)),
    ]);
    for line in listing.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let source = packages.join(LIBRARIES).join(name);
        if line.contains("=>") && !name.starts_with('/') {
            files.insert((format!("{LIBRARIES}/{name}"), source));
        }
    }
    Ok(files)
}

fn applets(packages: &Path) -> Result<Vec<String>> {
    let listing = process::output(
        loader(packages)
            .arg(packages.join("usr/bin/busybox"))
            .arg("--list-full"),
    )?;
    Ok(listing
        .lines()
        .filter(|name| name.contains('/'))
        .map(str::to_owned)
        .collect())
}

/// The packages' own loader and libraries: the host's may be older.
fn loader(packages: &Path) -> Command {
    let mut command = Command::new(packages.join(LOADER));
    command.arg("--library-path").arg(packages.join(LIBRARIES));
    command
}
