//! Flags of the verbs that make and remove containers.

use std::path::PathBuf;

use clap::Args;

/// Where a container comes from and how it is made.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The bundle's directory
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub bundle: PathBuf,
    /// Send the terminal's master side to this unix socket
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Write the process id of init to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Enter the root by chroot instead of pivot_root, which a ramdisk does not allow; less safe
    #[arg(long)]
    pub no_pivot: bool,
    /// Leave the process the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass on this many descriptors beyond the standard streams and those of $LISTEN_FDS
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub preserve_fds: u32,
    /// Id of the container, unique below --root
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Flags of `create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Flags shared with run
    #[command(flatten)]
    pub bundle: BundleArgs,
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Leave the container running
    #[arg(short, long)]
    pub detach: bool,
    /// Keep the state after the container has ended
    #[arg(long)]
    pub keep: bool,
    /// Accepted: berth-oci never adopts the container's orphans, and ends them with their cgroup
    #[arg(long)]
    pub no_subreaper: bool,
    /// Flags shared with create
    #[command(flatten)]
    pub bundle: BundleArgs,
}

/// Flags of `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Kill it first if it runs; no error if it does not exist
    #[arg(short, long)]
    pub force: bool,
    /// Id of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Flags of `spec`.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// The bundle's directory
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub bundle: PathBuf,
    /// For a user without privilege: a user namespace that maps the caller, no network namespace
    #[arg(long)]
    pub rootless: bool,
}
