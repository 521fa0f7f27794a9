//! The frame of a plugin program: `CNI_*` and stdin in, a document on stdout out.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::{Builtins, Call, Chain, CniError, Code, NetConfList, Plugin, PluginConf, version};

/// Configurations on stdin beyond this are refused.
const MAX_STDIN_BYTES: u64 = 1 << 20;

/// Runs one plugin as a program: reads the environment and stdin, calls it, and
/// prints its result or its error. IPAM plugins are found among `builtins`, then
/// on `CNI_PATH`.
pub fn run(plugin: &dyn Plugin, builtins: Builtins) -> ExitCode {
    let env = |key: &str| std::env::var(key).unwrap_or_default();
    let mut cni_version = version::CURRENT.to_owned();
    let outcome = if env("CNI_COMMAND") == "VERSION" {
        Ok(Some(version::to_json()))
    } else {
        dispatch(plugin, builtins, &env, &mut cni_version)
    };
    let (text, code) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (Some(error.to_json(&cni_version)), ExitCode::FAILURE),
    };
    let mut stdout = std::io::stdout();
    if let Some(text) = text
        && (writeln!(stdout, "{text}").is_err() || stdout.flush().is_err())
    {
        return ExitCode::FAILURE;
    }
    code
}

fn dispatch(
    plugin: &dyn Plugin,
    builtins: Builtins,
    env: &dyn Fn(&str) -> String,
    cni_version: &mut String,
) -> Result<Option<String>, CniError> {
    let config = read_config()?;
    version::ensure_supported(config.cni_version())?;
    config.cni_version().clone_into(cni_version);
    let command = env("CNI_COMMAND");
    if command == "STATUS" {
        return plugin.status(&config).map(|()| None);
    }
    for key in ["CNI_CONTAINERID", "CNI_IFNAME"] {
        if env(key).is_empty() {
            return Err(CniError::new(
                Code::InvalidEnvironment,
                format!("{key} is required"),
            ));
        }
    }
    let netns = Some(env("CNI_NETNS"))
        .filter(|n| !n.is_empty())
        .map(PathBuf::from);
    if netns.is_none() && command != "DEL" {
        return Err(CniError::new(
            Code::InvalidEnvironment,
            "CNI_NETNS is required",
        ));
    }
    // A list of no plugins: only its way to reach delegates is used.
    let delegates = Chain::new(
        NetConfList {
            cni_version: config.cni_version().to_owned(),
            name: config.network().to_owned(),
            disable_check: false,
            plugins: Vec::new(),
        },
        builtins,
        std::env::split_paths(&env("CNI_PATH")).collect(),
        PathBuf::new(),
    );
    let call = Call {
        container_id: env("CNI_CONTAINERID"),
        netns,
        ifname: env("CNI_IFNAME"),
        args: parse_args(&env("CNI_ARGS"))?,
        config,
        delegates: delegates.delegates(),
    };
    match command.as_str() {
        "ADD" => Ok(Some(plugin.add(&call)?.to_json(cni_version))),
        "DEL" => plugin.del(&call).map(|()| None),
        "CHECK" => plugin.check(&call).map(|()| None),
        other => Err(CniError::new(
            Code::InvalidEnvironment,
            format!("unknown CNI_COMMAND {other:?}"),
        )),
    }
}

fn read_config() -> Result<PluginConf, CniError> {
    let mut stdin = Vec::new();
    std::io::stdin()
        .take(MAX_STDIN_BYTES)
        .read_to_end(&mut stdin)
        .map_err(|e| CniError::caused(Code::Io, "cannot read the configuration from stdin", e))?;
    serde_json::from_slice(&stdin).map_err(|e| {
        CniError::caused(
            Code::Decode,
            "the configuration on stdin is not a JSON object",
            e,
        )
    })
}

fn parse_args(text: &str) -> Result<Vec<(String, String)>, CniError> {
    text.split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(CniError::new(
                Code::InvalidEnvironment,
                format!("CNI_ARGS: {pair:?} is not KEY=VALUE"),
            )),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn args_are_pairs() {
        let pairs = parse_args("IgnoreUnknown=1;K8S_POD_NAME=a=b").unwrap();
        assert_eq!(pairs[1], ("K8S_POD_NAME".to_owned(), "a=b".to_owned()));
        assert!(parse_args("x").is_err());
        assert!(parse_args("").unwrap().is_empty());
    }
}
