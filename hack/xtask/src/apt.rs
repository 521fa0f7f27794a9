//! Debian packages without installing them: a private apt root on the host's mirror.
//!
//! The mirror's address, its keys and any proxy come from the host's own apt
//! configuration; only the suite's name is ours. Because the private root's list
//! of installed packages is empty, apt resolves the whole closure of what is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::process;

/// Debian 13: what the images and the reference VM are made of.
pub const TRIXIE: &str = "trixie";
/// Names another Debian mirror for hosts whose own apt has none.
const MIRROR_VARIABLE: &str = "BERTH_DEBIAN_MIRROR";
const LISTS_MAX_AGE: Duration = Duration::from_hours(24);

/// Where the host gets Debian from.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

/// A private apt root for one suite.
pub struct Apt {
    root: PathBuf,
}

impl Apt {
    /// The root for `suite`, with package lists not older than a day.
    pub fn suite(cache: &Cache, suite: &str) -> Result<Self> {
        if process::find("apt-get").is_none() || process::find("dpkg").is_none() {
            bail!("packages come from apt, and this machine has no apt-get and dpkg");
        }
        let root = cache.folder(&format!("apt-{suite}"))?;
        let _lock = cache.lock(&format!("apt-{suite}"))?;
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::write(root.join("status"), "")?;
        let source = source_line(&host_mirror()?, suite);
        let list = root.join("sources.list");
        let known = fs::read_to_string(&list).unwrap_or_default();
        fs::write(&list, &source)?;
        let apt = Self { root };
        if known != source || apt.lists_are_old() {
            eprintln!("xtask: reading the package lists of {suite}");
            process::output(apt.get().arg("update"))
                .with_context(|| format!("the host's Debian mirror does not serve {suite}"))?;
            fs::write(apt.root.join("updated"), "")?;
        }
        Ok(apt)
    }

    /// Downloads the packages and everything they depend on (not what they
    /// recommend) and returns the archives.
    pub fn download(&self, packages: &[&str], into: &Path) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(into.join("partial"))?;
        let archives = format!("Dir::Cache::archives={}", into.display());
        process::output(
            self.get()
                .args(["-o", &archives, "install", "--download-only", "--yes"])
                .arg("--no-install-recommends")
                .args(packages),
        )?;
        archives_in(into)
    }

    /// Unpacks the packages with all they depend on below `into`.
    pub fn extract(&self, packages: &[&str], into: &Path) -> Result<()> {
        let archives = tempfile::tempdir()?;
        // apt's downloader may run as its own user
        fs::set_permissions(
            archives.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        for archive in self.download(packages, archives.path())? {
            unpack(&archive, into)?;
        }
        Ok(())
    }

    /// The line another apt program (mmdebstrap) reads as its source.
    pub fn source(&self) -> Result<String> {
        Ok(fs::read_to_string(self.root.join("sources.list"))?
            .trim()
            .to_owned())
    }

    fn get(&self) -> Command {
        let at = |name: &str| self.root.join(name).display().to_string();
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C")
            .arg("-q");
        for option in [
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".into(),
            "Dir::Etc::preferencesparts=/dev/null".into(),
            "APT::Sandbox::User=root".into(),
            "APT::Get::AllowUnauthenticated=false".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    fn lists_are_old(&self) -> bool {
        let updated = fs::metadata(self.root.join("updated")).and_then(|m| m.modified());
        let age = updated.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        age.map_or(true, |age| age > LISTS_MAX_AGE)
    }
}

/// Downloads one package of the host's own suite, without what it depends on.
pub fn download_for_host(package: &str, into: &Path) -> Result<PathBuf> {
    let mut command = Command::new("apt-get");
    command
        .current_dir(into)
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", package]);
    if process::output(&mut command).is_err() {
        process::output(Command::new("apt-get").args(["-q", "update"]))?;
        process::output(&mut command)?;
    }
    archives_in(into)?
        .pop()
        .with_context(|| format!("apt-get did not download {package}"))
}

/// Unpacks one archive below `into`.
pub fn unpack(archive: &Path, into: &Path) -> Result<()> {
    process::run(Command::new("dpkg").arg("-x").arg(archive).arg(into))
}

fn archives_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut archives: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "deb"))
        .collect();
    archives.sort();
    Ok(archives)
}

fn source_line(mirror: &Mirror, suite: &str) -> String {
    match &mirror.signed_by {
        Some(key) => format!("deb [signed-by={key}] {} {suite} main\n", mirror.uri),
        None => format!("deb {} {suite} main\n", mirror.uri),
    }
}

fn host_mirror() -> Result<Mirror> {
    if let Ok(uri) = std::env::var(MIRROR_VARIABLE) {
        return Ok(Mirror {
            uri,
            signed_by: None,
        });
    }
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let field = |name: &str| {
        let line = release
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    let codename = field("VERSION_CODENAME").unwrap_or_default();
    if field("ID").as_deref() != Some("debian") {
        bail!("this machine is not Debian: set {MIRROR_VARIABLE} to a Debian mirror's address");
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    files.extend(
        fs::read_dir("/etc/apt/sources.list.d")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path())),
    );
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let found = match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => mirror_of_stanzas(&text, &codename),
            Some("list") => mirror_of_lines(&text, &codename),
            _ => None,
        };
        if let Some(mirror) = found {
            return Ok(mirror);
        }
    }
    bail!("the host's apt sources name no mirror of {codename} main; set {MIRROR_VARIABLE}")
}

/// The first deb822 stanza (sources.list(5)) that serves `codename` main.
fn mirror_of_stanzas(text: &str, codename: &str) -> Option<Mirror> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
            lines
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let has = |name: &str, word: &str| {
            field(name).is_some_and(|value| value.split_whitespace().any(|w| w == word))
        };
        let serves = has("Types", "deb") && has("Suites", codename) && has("Components", "main");
        let enabled = field("Enabled").is_none_or(|value| value != "no");
        let uri = field("URIs")?.split_whitespace().next()?.to_owned();
        let signed_by = field("Signed-By")
            .filter(|key| key.starts_with('/'))
            .map(str::to_owned);
        (serves && enabled).then_some(Mirror { uri, signed_by })
    })
}

/// The first one-line source (sources.list(5)) that serves `codename` main.
fn mirror_of_lines(text: &str, codename: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(tail) => tail.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let serves = suite == codename && words.any(|component| component == "main");
        let key = options
            .split_whitespace()
            .find_map(|o| o.strip_prefix("signed-by="));
        serves.then(|| Mirror {
            uri: uri.to_owned(),
            signed_by: key.map(str::to_owned),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(uri: &str, key: Option<&str>) -> Option<Mirror> {
        Some(Mirror {
            uri: uri.into(),
            signed_by: key.map(Into::into),
        })
    }

    #[test]
    fn reads_the_mirror_of_a_stanza() {
        let text = "Types: deb\nURIs: http://m.example/security\nSuites: bookworm-security\nComponents: main\n\n\
                    Types: deb\n# a note\nURIs: http://m.example/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By: /k.gpg\n";
        let found = mirror_of_stanzas(text, "bookworm");
        assert_eq!(found, mirror("http://m.example/debian", Some("/k.gpg")));
        assert_eq!(mirror_of_stanzas(text, "trixie"), None);
    }

    #[test]
    fn reads_the_mirror_of_a_line() {
        let text = "# deb http://old.example bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main\n";
        let found = mirror_of_lines(text, "bookworm");
        assert_eq!(found, mirror("http://m.example/debian", Some("/k.gpg")));
    }
}
