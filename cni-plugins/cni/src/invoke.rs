//! The host side: runs the chain of a network for one attachment, built-in
//! plugins in process and any other by executing it (specification sections 2, 3).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::is_plain_name;
use crate::{Call, CniError, CniResult, Code, Delegates, NetConfList, Plugin, PluginConf};

/// Output of an executed plugin beyond this is refused.
const MAX_OUTPUT_BYTES: usize = 1 << 20;

/// The plugins that run in process.
#[derive(Default)]
pub struct Builtins(BTreeMap<&'static str, Box<dyn Plugin>>);

impl Builtins {
    /// No plugin yet.
    pub fn new() -> Builtins {
        Builtins::default()
    }

    /// Adds a plugin under its own type.
    #[must_use]
    pub fn with(mut self, plugin: impl Plugin + 'static) -> Builtins {
        self.0.insert(plugin.kind(), Box::new(plugin));
        self
    }

    /// The plugin of this type.
    pub fn find(&self, kind: &str) -> Option<&dyn Plugin> {
        self.0.get(kind).map(AsRef::as_ref)
    }
}

/// One container interface on one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The sandbox's id.
    pub container_id: String,
    /// Path of the network namespace. Absent in a DEL after the namespace was
    /// dropped: its links are then gone with it and only host state is removed.
    pub netns: Option<PathBuf>,
    /// Name of the interface in the container, `eth0`.
    pub ifname: String,
    /// `CNI_ARGS`: `K8S_POD_NAMESPACE` and the like.
    pub args: Vec<(String, String)>,
    /// Values for plugins that declare the capability: `portMappings` and the like.
    pub capabilities: Map<String, Value>,
}

/// A network ready to be used.
pub struct Chain {
    conf: NetConfList,
    plugins: Plugins,
    cache_dir: PathBuf,
}

struct Plugins {
    builtins: Builtins,
    bin_dirs: Vec<PathBuf>,
}

#[derive(Clone, Copy)]
enum Verb {
    Add,
    Del,
    Check,
    Status,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Status => "STATUS",
        }
    }
}

impl Chain {
    /// Binds a configuration to the plugins that serve it. Results are kept under
    /// `cache_dir`, for CHECK and DEL.
    pub fn new(
        conf: NetConfList,
        builtins: Builtins,
        bin_dirs: Vec<PathBuf>,
        cache_dir: PathBuf,
    ) -> Chain {
        Chain {
            conf,
            plugins: Plugins { builtins, bin_dirs },
            cache_dir,
        }
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.conf.name
    }

    pub(crate) fn delegates(&self) -> &dyn Delegates {
        &self.plugins
    }

    /// Whether every plugin of the chain runs in process, so that a namespace
    /// path below `/proc` serves and nothing need be pinned.
    pub fn is_all_builtin(&self) -> bool {
        let builtin =
            |kind: Option<&str>| kind.is_some_and(|k| self.plugins.builtins.find(k).is_some());
        self.conf.plugins.iter().all(|plugin| {
            builtin(plugin.kind().ok())
                && (plugin.ipam_kind().is_none() || builtin(plugin.ipam_kind()))
        })
    }

    /// Attaches: ADD of each plugin in order, each seeing the result before it.
    /// When one fails, DEL runs for the whole chain and the first error returns.
    ///
    /// # Errors
    /// The error of the plugin that failed, its type in the message.
    pub fn add(&self, attachment: &Attachment) -> Result<CniResult, CniError> {
        let mut previous: Option<CniResult> = None;
        for plugin in &self.conf.plugins {
            let call = self.call(plugin, attachment, previous.as_ref());
            match self.plugins.run(Verb::Add, plugin.kind()?, &call) {
                Ok(Some(result)) => previous = Some(result),
                Ok(None) => {}
                Err(error) => {
                    let error = named(plugin, error);
                    // What the failed plugin left behind is unknown: DEL must cope with all of it.
                    return Err(match self.del(attachment) {
                        Ok(()) => error,
                        Err(undo) => CniError {
                            details: Some(format!(
                                "{}; undoing it failed too: {undo}",
                                error.details.unwrap_or_default()
                            )),
                            ..error
                        },
                    });
                }
            }
        }
        let result = previous.unwrap_or_default();
        self.remember(attachment, &result)?;
        Ok(result)
    }

    /// Detaches: DEL of each plugin in reverse order, every one tried.
    ///
    /// # Errors
    /// All that failed, in one error with the code of the first.
    pub fn del(&self, attachment: &Attachment) -> Result<(), CniError> {
        let previous = self.recall(attachment);
        let mut errors = Vec::new();
        for plugin in self.conf.plugins.iter().rev() {
            let call = self.call(plugin, attachment, previous.as_ref());
            let done = plugin
                .kind()
                .and_then(|kind| self.plugins.run(Verb::Del, kind, &call));
            if let Err(error) = done {
                errors.push(named(plugin, error));
            }
        }
        if errors.is_empty() {
            let _ = std::fs::remove_file(self.cache_file(attachment));
            return Ok(());
        }
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Err(CniError {
            code: errors[0].code,
            msg: text.join("; "),
            details: None,
        })
    }

    /// Verifies an attachment; nothing is done where the network disables CHECK.
    ///
    /// # Errors
    /// The first plugin's finding.
    pub fn check(&self, attachment: &Attachment) -> Result<(), CniError> {
        if self.conf.disable_check {
            return Ok(());
        }
        let previous = self.recall(attachment);
        for plugin in &self.conf.plugins {
            let call = self.call(plugin, attachment, previous.as_ref());
            self.plugins
                .run(Verb::Check, plugin.kind()?, &call)
                .map_err(|e| named(plugin, e))?;
        }
        Ok(())
    }

    /// Whether the network can take attachments: every plugin is there, and those
    /// that answer STATUS answer well.
    ///
    /// # Errors
    /// [`Code::NotAvailable`], or that a plugin cannot be found.
    pub fn status(&self) -> Result<(), CniError> {
        for plugin in &self.conf.plugins {
            let kind = plugin.kind()?;
            match self.plugins.builtins.find(kind) {
                Some(builtin) => builtin.status(plugin).map_err(|e| named(plugin, e))?,
                None if self.conf.cni_version == "1.1.0" => {
                    let nothing = Attachment {
                        container_id: String::new(),
                        netns: None,
                        ifname: String::new(),
                        args: Vec::new(),
                        capabilities: Map::new(),
                    };
                    let call = self.call(plugin, &nothing, None);
                    self.plugins
                        .run(Verb::Status, kind, &call)
                        .map_err(|e| named(plugin, e))?;
                }
                None => {
                    self.plugins.locate(kind)?;
                }
            }
        }
        Ok(())
    }

    fn call<'a>(
        &'a self,
        plugin: &PluginConf,
        attachment: &Attachment,
        previous: Option<&CniResult>,
    ) -> Call<'a> {
        let mut config = plugin.0.clone();
        config.insert("name".into(), self.conf.name.clone().into());
        config.insert("cniVersion".into(), self.conf.cni_version.clone().into());
        let declared = plugin.0.get("capabilities").and_then(Value::as_object);
        let passed: Map<String, Value> = attachment
            .capabilities
            .iter()
            .filter(|(key, _)| declared.is_some_and(|d| d.get(*key) == Some(&Value::Bool(true))))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !passed.is_empty() {
            config.insert("runtimeConfig".into(), Value::Object(passed));
        }
        config.remove("capabilities");
        if let Some(previous) = previous {
            let text = previous.to_json(&self.conf.cni_version);
            let value = serde_json::from_str(&text).expect("a result serialises to JSON");
            config.insert("prevResult".into(), value);
        }
        Call {
            container_id: attachment.container_id.clone(),
            netns: attachment.netns.clone(),
            ifname: attachment.ifname.clone(),
            args: attachment.args.clone(),
            config: PluginConf(config),
            delegates: &self.plugins,
        }
    }

    fn cache_file(&self, attachment: &Attachment) -> PathBuf {
        let name = format!(
            "{}-{}-{}",
            self.conf.name, attachment.container_id, attachment.ifname
        );
        self.cache_dir.join(name)
    }

    fn remember(&self, attachment: &Attachment, result: &CniResult) -> Result<(), CniError> {
        if !is_plain_name(&attachment.container_id) || !is_plain_name(&attachment.ifname) {
            return Err(CniError::new(
                Code::InvalidEnvironment,
                format!(
                    "container id {:?} or interface {:?} is not a plain name",
                    attachment.container_id, attachment.ifname
                ),
            ));
        }
        let path = self.cache_file(attachment);
        std::fs::create_dir_all(&self.cache_dir)
            .and_then(|()| std::fs::write(&path, result.to_json(&self.conf.cni_version)))
            .map_err(|e| {
                CniError::caused(
                    Code::Io,
                    format!("cannot keep the result `{}`", path.display()),
                    e,
                )
            })
    }

    fn recall(&self, attachment: &Attachment) -> Option<CniResult> {
        let text = std::fs::read(self.cache_file(attachment)).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn named(plugin: &PluginConf, error: CniError) -> CniError {
    let kind = plugin.kind().unwrap_or("?");
    CniError {
        msg: format!("plugin type={kind:?} failed: {}", error.msg),
        ..error
    }
}

impl Delegates for Plugins {
    fn add(&self, kind: &str, call: &Call<'_>) -> Result<CniResult, CniError> {
        Ok(self.run(Verb::Add, kind, call)?.unwrap_or_default())
    }

    fn del(&self, kind: &str, call: &Call<'_>) -> Result<(), CniError> {
        self.run(Verb::Del, kind, call).map(drop)
    }

    fn check(&self, kind: &str, call: &Call<'_>) -> Result<(), CniError> {
        self.run(Verb::Check, kind, call).map(drop)
    }
}

impl Plugins {
    fn run(&self, verb: Verb, kind: &str, call: &Call<'_>) -> Result<Option<CniResult>, CniError> {
        let Some(plugin) = self.builtins.find(kind) else {
            return self.execute(verb, kind, call);
        };
        match verb {
            Verb::Add => plugin.add(call).map(Some),
            Verb::Del => plugin.del(call).map(|()| None),
            Verb::Check => plugin.check(call).map(|()| None),
            Verb::Status => plugin.status(&call.config).map(|()| None),
        }
    }

    fn locate(&self, kind: &str) -> Result<PathBuf, CniError> {
        if !is_plain_name(kind) {
            return Err(CniError::new(
                Code::InvalidConfig,
                format!("plugin type {kind:?} is not a plain name"),
            ));
        }
        self.bin_dirs
            .iter()
            .map(|dir| dir.join(kind))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                let dirs: Vec<String> = self
                    .bin_dirs
                    .iter()
                    .map(|d| d.display().to_string())
                    .collect();
                CniError::new(
                    Code::InvalidConfig,
                    format!(
                        "failed to find plugin {kind:?} in path [{}]",
                        dirs.join(" ")
                    ),
                )
            })
    }

    fn execute(
        &self,
        verb: Verb,
        kind: &str,
        call: &Call<'_>,
    ) -> Result<Option<CniResult>, CniError> {
        let path = self.locate(kind)?;
        let io = |step: &str, e: std::io::Error| {
            CniError::caused(
                Code::Io,
                format!("cannot {step} plugin `{}`", path.display()),
                e,
            )
        };
        let args: Vec<String> = call.args.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let bin_path: Vec<&Path> = self.bin_dirs.iter().map(PathBuf::as_path).collect();
        let mut child = Command::new(&path)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("CNI_COMMAND", verb.name())
            .env("CNI_CONTAINERID", &call.container_id)
            .env("CNI_NETNS", call.netns.as_deref().unwrap_or(Path::new("")))
            .env("CNI_IFNAME", &call.ifname)
            .env("CNI_ARGS", args.join(";"))
            .env(
                "CNI_PATH",
                std::env::join_paths(bin_path).unwrap_or_default(),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| io("start", e))?;
        let config = serde_json::to_vec(&call.config).expect("a JSON object serialises");
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin may exit without reading; its exit code tells the rest.
            let _ = stdin.write_all(&config);
        }
        let output = child.wait_with_output().map_err(|e| io("wait for", e))?;
        read_output(kind, &output)
    }
}

/// The result or the error that an executed plugin printed.
fn read_output(kind: &str, output: &std::process::Output) -> Result<Option<CniResult>, CniError> {
    if output.stdout.len() > MAX_OUTPUT_BYTES {
        return Err(CniError::new(
            Code::Decode,
            format!("plugin {kind:?} printed more than 1 MiB"),
        ));
    }
    if !output.status.success() {
        return Err(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            CniError::caused(
                Code::Io,
                format!("plugin {kind:?} failed with {}", output.status),
                String::from_utf8_lossy(&output.stderr).trim(),
            )
        }));
    }
    if output.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    serde_json::from_slice(&output.stdout)
        .map(Some)
        .map_err(|e| {
            CniError::caused(
                Code::Decode,
                format!("cannot decode the result of plugin {kind:?}"),
                e,
            )
        })
}
