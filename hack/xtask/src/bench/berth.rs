//! `berth cri`, set up beside nobody's.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::server::Setup;
use crate::process;

/// The daemon of `programs` with its state in `state`, everything else in `folder`, and
/// networks from `networks`.
pub fn setup(programs: &Path, state: &Path, folder: &Path, networks: &Path) -> Result<Setup> {
    let program = programs.join("berth");
    let version = process::output(Command::new(&program).arg("--version"))?;
    let file = folder.join("config.toml");
    let (data, run, networks) = (folder.display(), state.display(), networks.display());
    let text = format!(
        "[cri]\nsocket = '{run}/b.sock'\nstate_dir = '{run}/b'\ndata_dir = '{data}/cri'\n\
         images.root = '{data}/images'\nimages.hosts_dir = '{data}/certs.d'\n\
         cni.conf_dir = '{networks}'\naudit.dir = '{data}/audit'\n"
    );
    fs::write(&file, text)?;
    let mut command = Command::new(program);
    // each side takes the hierarchy as it is; the note of the results says how that is
    command
        .arg("cri")
        .arg("--config")
        .arg(&file)
        .arg("--allow-degraded-cgroups");
    Ok(Setup {
        name: version.trim().into(),
        command,
        socket: state.join("b.sock"),
        keeper: "berth-monitor",
        folder: folder.into(),
    })
}
