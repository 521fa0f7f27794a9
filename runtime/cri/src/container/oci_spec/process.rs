//! The `process` object: command, environment, user, privileges.

use std::collections::BTreeSet;

use berth_proto::cri;
use serde_json::{Value, json};

use super::capabilities::Capabilities;
use super::{SpecError, SpecInput, linux_config};

/// What the shell finds programs in when the image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn process(
    input: &SpecInput<'_>,
    security: &cri::LinuxContainerSecurityContext,
    capabilities: &Capabilities,
) -> Result<Value, SpecError> {
    let held = &capabilities.held;
    let resources = linux_config(input.config).resources.unwrap_or_default();
    // Set always: the monitor's own value is low, and would be inherited.
    let floor = input.host.oom_score_floor.unwrap_or(i64::MIN);
    Ok(json!({
        "terminal": input.config.tty,
        "user": {
            "uid": input.user.uid,
            "gid": input.user.gid,
            "additionalGids": input.user.groups,
        },
        "args": args(input)?,
        "env": env(input)?,
        "cwd": cwd(input),
        "capabilities": {
            "bounding": held,
            "effective": held,
            "permitted": held,
            "inheritable": capabilities.ambient,
            "ambient": capabilities.ambient,
        },
        "noNewPrivileges": security.no_new_privs,
        "oomScoreAdj": resources.oom_score_adj.max(floor),
    }))
}

/// The request's command replaces the image's entrypoint and, with it, its arguments;
/// the request's arguments replace the image's.
fn args(input: &SpecInput<'_>) -> Result<Vec<String>, SpecError> {
    let image = input.image.config().clone().unwrap_or_default();
    let mut args = input.config.command.clone();
    if args.is_empty() {
        args = image.entrypoint().clone().unwrap_or_default();
        if input.config.args.is_empty() {
            args.extend(image.cmd().clone().unwrap_or_default());
        }
    }
    args.extend(input.config.args.iter().cloned());
    match args.first() {
        Some(first) if !first.is_empty() => Ok(args),
        _ => Err(SpecError::NoCommand),
    }
}

fn cwd(input: &SpecInput<'_>) -> String {
    let image = input
        .image
        .config()
        .as_ref()
        .and_then(|config| config.working_dir().clone());
    let asked = Some(input.config.working_dir.clone()).filter(|dir| !dir.is_empty());
    let dir = asked.or(image).filter(|dir| !dir.is_empty());
    // An image may say `app`; the specification wants an absolute path.
    match dir {
        Some(dir) if dir.starts_with('/') => dir,
        Some(dir) => format!("/{dir}"),
        None => "/".to_owned(),
    }
}

/// Later entries win: defaults, the image's, the request's.
fn env(input: &SpecInput<'_>) -> Result<Vec<String>, SpecError> {
    let image = input
        .image
        .config()
        .as_ref()
        .and_then(|config| config.env().clone());
    let mut all = vec![DEFAULT_PATH.to_owned()];
    if !input.pod.config.hostname.is_empty() {
        all.push(format!("HOSTNAME={}", input.pod.config.hostname));
    }
    if input.config.tty {
        all.push("TERM=xterm".to_owned());
    }
    if let Some(home) = input.home {
        all.push(format!("HOME={home}"));
    }
    all.extend(image.unwrap_or_default());
    for (index, variable) in input.config.envs.iter().enumerate() {
        let value = std::str::from_utf8(&variable.value).map_err(|_| SpecError::Invalid {
            field: format!("envs[{index}].value"),
            reason: format!("`{}` is not UTF-8", variable.key),
        })?;
        all.push(format!("{}={value}", variable.key));
    }
    let mut seen = BTreeSet::new();
    let mut kept: Vec<String> = Vec::new();
    for entry in all.into_iter().rev() {
        let name = entry
            .split_once('=')
            .map_or(entry.as_str(), |(name, _)| name);
        if seen.insert(name.to_owned()) {
            kept.push(entry);
        }
    }
    kept.reverse();
    Ok(kept)
}
