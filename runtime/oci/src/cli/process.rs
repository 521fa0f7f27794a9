//! Flags of the verbs about processes: `exec` and `kill`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Send the terminal's master side to this unix socket
    #[arg(long, value_name = "PATH")]
    pub console_socket: Option<PathBuf>,
    /// Write the process id to this file
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not wait for the process
    #[arg(short, long)]
    pub detach: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// File with the process as JSON (`process` of the specification), instead of a command
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// A further environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// User id, or user and group id
    #[arg(short, long, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// A further group id
    #[arg(short = 'g', long, value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// A capability to add to the bounding, permitted and effective sets
    #[arg(short, long, value_name = "CAPABILITY")]
    pub cap: Vec<String>,
    /// AppArmor profile to enter
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,
    /// Pass on this many descriptors from 3 on
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub preserve_fds: u32,
    /// Run in this existing group below the container's cgroup
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Allow a paused container; the process starts when it is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// Id of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Flags of `kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Signal every process, not only init; no error where nothing is left
    #[arg(short, long)]
    pub all: bool,
    /// Id of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Number of the signal, or its name with or without SIG
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
}
