//! The command line: verbs and flags of runc, as far as they mean something here.

mod container;
mod observe;
mod process;
mod resources;

pub use container::{BundleArgs, CreateArgs, DeleteArgs, RunArgs, SpecArgs};
pub use observe::{EventsArgs, ListArgs, OutputFormat, PsArgs};
pub use process::{ExecArgs, KillArgs};
pub use resources::UpdateArgs;

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Newest version of the runtime specification that is followed.
pub const SPEC_VERSION: &str = "1.3.0";

/// The commit this was built from, where the build says so.
pub const COMMIT: &str = match option_env!("BERTH_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What engines read from `--version`: a line `… version X`, then `commit:` and `spec:`.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    format!("version {version}\ncommit: {COMMIT}\nspec: {SPEC_VERSION}")
});

/// Run containers from OCI bundles
///
/// A bundle is a directory with a `config.json` (the OCI runtime specification) and usually the root
/// file system beside it. `berth-oci spec` writes a template to start from; then
///
///     berth-oci run NAME
///
/// runs it. Engines use `create`, `start`, `kill` and `delete` instead. Verbs, flags and answers are
/// those of runc, so that podman, docker, containerd and CRI-O can use this program in its place.
#[derive(Debug, Parser)]
#[command(
    name = "berth-oci",
    version = VERSION.as_str(),
    disable_version_flag = true,
    verbatim_doc_comment,
    after_help = "Exit status: 0 done; 1 failed; 2 wrong usage; 255 exec could not make its process; in the \
                  foreground run and exec end with the process's own code, 128 + N after signal N."
)]
pub struct Cli {
    /// Directory for the state of containers; should lie on a tmpfs
    #[arg(
        long,
        global = true,
        default_value = "/run/berth-oci",
        value_name = "DIR"
    )]
    pub root: PathBuf,
    /// Write messages to this file; errors still go to standard error too
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Format of the messages
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Also write what the verb does
    #[arg(long, global = true)]
    pub debug: bool,
    /// Let systemd make the cgroup; `linux.cgroupsPath` is then slice:prefix:name
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// How cgroups are managed
    #[arg(long, global = true, value_enum, default_value_t = CgroupManager::Cgroupfs, value_name = "MANAGER")]
    pub cgroup_manager: CgroupManager,
    /// Refuse a container whose limits this host cannot enforce, instead of warning
    #[arg(long, global = true)]
    pub strict_limits: bool,
    /// Go on without a cgroup where none may be made: true, false, or auto: where not run by root
    #[arg(long, value_enum, default_value_t = Rootless::Auto, value_name = "WHEN")]
    pub rootless: Rootless,
    /// Ignored, as by runc: there is no checkpoint
    #[arg(long, global = true, hide = true, value_name = "PATH")]
    pub criu: Option<PathBuf>,
    /// Print version, commit and version of the specification
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time="…" level=… msg="…"`
    Text,
    /// One JSON object a line: level, msg, time
    Json,
}

/// How cgroups are managed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    /// Through the file system
    Cgroupfs,
    /// By systemd, as with --systemd-cgroup
    Systemd,
    /// Not at all
    Disabled,
}

/// When a cgroup that may not be made is done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    /// Always
    True,
    /// Never
    False,
    /// Where the caller is not root
    Auto,
}

impl Cli {
    /// The manager that the flags choose together.
    pub fn manager(&self) -> CgroupManager {
        if self.systemd_cgroup {
            CgroupManager::Systemd
        } else {
            self.cgroup_manager
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a container, ready to start
    ///
    /// Makes namespaces, cgroup and root file system, confines the process, and leaves it waiting
    /// for `start`. With `process.terminal` the terminal goes to --console-socket.
    Create(CreateArgs),
    /// Start a created container
    Start(IdArg),
    /// Create, start, wait for and delete a container
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
    ///
    /// The process has the rights of the container's own, as far as --process or the flags do not
    /// say otherwise.
    Exec(Box<ExecArgs>),
    /// Freeze all processes of a container
    Pause(IdArg),
    /// Thaw all processes of a container
    Resume(IdArg),
    /// Print the processes of a container
    Ps(PsArgs),
    /// Change the limits of a container
    Update(Box<UpdateArgs>),
    /// Print what a container uses, and when it ran out of memory
    Events(EventsArgs),
    /// Write a template config.json
    Spec(SpecArgs),
    /// Print what this runtime supports as JSON (features.md of the runtime specification)
    Features,
    /// Refused: a container cannot be checkpointed
    Checkpoint(RefusedArgs),
    /// Refused: a container cannot be restored
    Restore(RefusedArgs),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// A container's id.
#[derive(Debug, Args)]
pub struct IdArg {
    /// Id of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}

/// Arguments of a verb that is refused whatever they are.
#[derive(Debug, Args)]
pub struct RefusedArgs {
    /// Taken and not read
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<std::ffi::OsString>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn engines_find_their_version_lines() {
        let error = Cli::try_parse_from(["berth-oci", "--version"]).unwrap_err();
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("berth-oci version 0."), "{text}");
        assert!(lines[1].starts_with("commit: "), "{text}");
        assert_eq!(lines[2], "spec: 1.3.0");
    }

    /// The calls of containerd's shim, conmon, buildah and CRI-O.
    #[test]
    fn the_calls_of_engines_are_understood() {
        for line in [
            "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p id",
            "--root /r --log /l --log-format json create --bundle /b --pid-file /p --no-pivot \
             --no-new-keyring --console-socket /s id",
            "--root /r --log /l --log-format json start id",
            "--root /r --log /l --log-format json kill --all id 9",
            "--root /r --log /l --log-format json delete --force id",
            "--root /r --log /l --log-format json exec --process /p --console-socket /s --detach --pid-file /f id",
            "--root /r --log /l --log-format json update --resources=- id",
            "--root /r --log /l --log-format json events --stats id",
            "--root /r --log /l --log-format json ps --format json id",
            "--log-format=json --log=/l --root=/r create --bundle /b --pid-file /p --preserve-fds 2 id",
            "--rootless=auto exec --pid-file /p --process /f --detach --tty --console-socket /s id",
            "--systemd-cgroup --root=/r kill id KILL",
            "--root /r run --no-pivot --no-subreaper --keep -d id",
            "exec -t -e A=1 -e B=2 -u 1:2 -g 3 -g 4 --cap CAP_CHOWN -c CAP_KILL --cwd /x --no-new-privs \
             --apparmor p --process-label l --cgroup sub --ignore-paused id ls -la --root",
            "update --memory 10m --memory-swap -1 --cpu-share 5 --cpuset-cpus 0 --pids-limit 7 id",
            "ps id -o pid,args",
            "checkpoint --image-path /x --leave-running id",
            "restore --bundle /b --detach id",
            "spec --rootless --bundle /b",
            "--criu /usr/sbin/criu --debug list --quiet --format json",
        ] {
            let words = std::iter::once("berth-oci").chain(line.split_whitespace());
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }
}
