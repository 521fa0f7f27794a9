//! The command line: verbs and flags of runc, as far as they mean something here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An OCI runtime.
#[derive(Debug, Parser)]
#[command(
    name = "berth-oci",
    version,
    about = "Runs containers from OCI bundles"
)]
pub struct Cli {
    /// Directory for the state of containers
    #[arg(long, global = true, default_value = "/run/berth-oci")]
    pub root: PathBuf,
    /// Write messages to this file; errors still go to standard error too
    #[arg(long, global = true)]
    pub log: Option<PathBuf>,
    /// Format of the messages in --log
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Accepted, as engines pass it; writes nothing more
    #[arg(long, global = true)]
    pub debug: bool,
    /// How cgroups are managed
    #[arg(long, global = true, value_enum, default_value_t = CgroupManager::Cgroupfs)]
    pub cgroup_manager: CgroupManager,
    /// Refuse a container whose limits this host cannot enforce, instead of warning
    #[arg(long, global = true)]
    pub strict_limits: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time="…" level=… msg="…"`
    Text,
    /// One JSON object a line
    Json,
}

/// How cgroups are managed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    /// Through the file system
    Cgroupfs,
    /// Not at all
    Disabled,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container, ready to start
    Create(CreateArgs),
    /// Start a created container
    Start(IdArg),
    /// Create, start, wait and delete a container
    Run(RunArgs),
    /// Print the state of a container as JSON
    State(IdArg),
    /// Send a signal to a container
    Kill(KillArgs),
    /// Delete a stopped container
    Delete(DeleteArgs),
    /// List containers
    List(ListArgs),
    /// Run a further process in a container
    Exec(ExecArgs),
    /// Freeze all processes of a container
    Pause(IdArg),
    /// Thaw all processes of a container
    Resume(IdArg),
    /// Print the processes of a container
    Ps(PsArgs),
    /// Write a template config.json
    Spec(SpecArgs),
    /// Print what this runtime supports as JSON
    Features,
}

/// A container's id.
#[derive(Debug, Args)]
pub struct IdArg {
    /// Id of the container
    pub id: String,
}

/// Flags of `create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The bundle's directory
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// Send the terminal's master side to this socket
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Write the process id of init to this file
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Pass on this many descriptors from 3 on
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Id of the container
    pub id: String,
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
    /// Flags shared with create
    #[command(flatten)]
    pub create: CreateArgs,
}

/// Flags of `kill`.
#[derive(Debug, Args)]
pub struct KillArgs {
    /// Signal every process, not only init
    #[arg(short, long)]
    pub all: bool,
    /// Id of the container
    pub id: String,
    /// Name or number of the signal
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
}

/// Flags of `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Kill it first if it runs; no error if it does not exist
    #[arg(short, long)]
    pub force: bool,
    /// Id of the container
    pub id: String,
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
}

/// Output formats of `list` and `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// Columns
    Table,
    /// JSON
    Json,
}

/// Flags of `exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Send the terminal's master side to this socket
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Write the process id to this file
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Do not wait for the process
    #[arg(short, long)]
    pub detach: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// File with the process as JSON
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// A further environment variable, NAME=VALUE
    #[arg(short, long)]
    pub env: Vec<String>,
    /// User id, or user and group id: UID[:GID]
    #[arg(short, long)]
    pub user: Option<String>,
    /// A further group id
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// Set no_new_privs
    #[arg(long)]
    pub no_new_privs: bool,
    /// Pass on this many descriptors from 3 on
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Id of the container
    pub id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Flags of `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = ListFormat::Table)]
    pub format: ListFormat,
    /// Id of the container
    pub id: String,
}

/// Flags of `spec`.
#[derive(Debug, Args)]
pub struct SpecArgs {
    /// The bundle's directory
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
}
