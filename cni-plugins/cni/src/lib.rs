//! The Container Network Interface: configuration, results, numbered errors,
//! the frame of a plugin program, and the host side that runs a chain of plugins.
//!
//! A plugin is a value that implements [`Plugin`]. The CRI server calls it in
//! process through [`invoke::Chain`]; the program `berth-cni` calls the same
//! value through [`skel::run`]. Any other plugin is executed as the CNI
//! specification says (sections 2 to 4, version 1.1.0).

pub mod config;
pub mod error;
pub mod invoke;
pub mod result;
pub mod skel;
pub mod version;

use std::path::PathBuf;

pub use config::{NetConfList, PluginConf, default_network};
pub use error::{CniError, Code};
pub use invoke::{Attachment, Builtins, Chain};
pub use result::{CniResult, Dns, Interface, IpConfig, Route};

/// One call of a plugin: what the specification passes in `CNI_*` and on stdin.
pub struct Call<'a> {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; absent on a DEL whose namespace is already gone.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// The plugin's configuration, with name, cniVersion, prevResult and runtimeConfig merged in.
    pub config: PluginConf,
    /// How a plugin reaches the IPAM plugin that its configuration names.
    pub delegates: &'a dyn Delegates,
}

/// Runs another plugin, named by its type, with the same call (IPAM delegation,
/// CNI specification section 4).
pub trait Delegates: Sync {
    /// ADD of the plugin called `kind`.
    ///
    /// # Errors
    /// What the plugin answers, or [`Code::InvalidConfig`] when there is none of that name.
    fn add(&self, kind: &str, call: &Call<'_>) -> Result<CniResult, CniError>;
    /// DEL of the plugin called `kind`.
    ///
    /// # Errors
    /// As [`Delegates::add`].
    fn del(&self, kind: &str, call: &Call<'_>) -> Result<(), CniError>;
    /// CHECK of the plugin called `kind`.
    ///
    /// # Errors
    /// As [`Delegates::add`].
    fn check(&self, kind: &str, call: &Call<'_>) -> Result<(), CniError>;
}

/// The operations of a CNI plugin (specification section 3).
pub trait Plugin: Send + Sync {
    /// The `type` under which configurations name it.
    fn kind(&self) -> &'static str;
    /// Attaches the container to the network.
    ///
    /// # Errors
    /// A numbered error; whatever was made before is undone.
    fn add(&self, call: &Call<'_>) -> Result<CniResult, CniError>;
    /// Detaches it. Succeeds when there is nothing left to detach.
    ///
    /// # Errors
    /// A numbered error, after everything that can be removed was removed.
    fn del(&self, call: &Call<'_>) -> Result<(), CniError>;
    /// Verifies that the attachment is as ADD left it.
    ///
    /// # Errors
    /// A numbered error naming what is missing or different.
    fn check(&self, call: &Call<'_>) -> Result<(), CniError>;
    /// Says whether an ADD could succeed now (STATUS, 1.1.0).
    ///
    /// # Errors
    /// [`Code::NotAvailable`] with the reason.
    fn status(&self, _config: &PluginConf) -> Result<(), CniError> {
        Ok(())
    }
}
