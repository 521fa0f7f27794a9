//! The `berth` command: arguments and wiring. What the parts do is in their crates.

mod audit;
mod check;
mod clients;
mod config;
mod cri;
mod host;
mod kubelet;
mod local;
mod logging;
mod network;
mod node;
mod ps;
mod server;
mod signals;
mod up;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// A Kubernetes node, its control plane, or both on one machine.
#[derive(Parser)]
#[command(name = "berth", version, about, long_about = LONG_ABOUT, after_long_help = AFTER_HELP, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    logging: logging::Options,
    /// Configuration file (TOML); it need not exist
    ///
    /// Drop-ins, *.toml of the directory config.d beside it, are read after it in the order of
    /// their names. A flag goes before a drop-in, a drop-in before the file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/berth/config.toml",
        help_heading = "Common options"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

const LONG_ABOUT: &str = "\
berth is everything a Kubernetes node runs — OCI runtime, pod monitor, CRI server, CNI plugins, \
kubelet — and a compact control plane with the same REST API.

`berth up` runs all of it on one machine. `berth server`, `berth node`, `berth cri` and \
`berth kubelet` run its parts, alone or beside other software.";

const AFTER_HELP: &str = "\
Signals:
  SIGINT   up, node: remove all pods and what was changed on the host, then end;
           a second one ends at once, and the next start repairs what is left
  SIGTERM  end and leave the pods running; the next start adopts them

Exit status:
  0   success, or ended by a signal as asked
  1   failed; `berth check`: something needed is missing; `berth audit verify`: broken
  64  wrong usage or configuration; nothing was started

Files:
  /etc/berth/config.toml, /etc/berth/config.d/*.toml  configuration
  /etc/cni/net.d/  pod network
  /var/lib/berth/  what survives a restart
  /var/log/berth/audit/  the audit log
  /run/berth/      what does not survive a reboot; the CRI socket";

#[derive(Subcommand)]
enum Command {
    /// Run a cluster of one machine: control plane and node
    ///
    /// Runs as root in the foreground and prints where the kubeconfig is. SIGINT removes all pods
    /// and every change on the host and keeps the data; SIGTERM leaves the pods running, to be
    /// adopted at the next start.
    Up(up::Options),
    /// Run the control plane: API server, scheduler, controllers
    ///
    /// Keeps its PKI, its kubeconfigs and its store in one directory. Needs no root if it may
    /// write there.
    Server(server::Options),
    /// Run a node: CRI server, kubelet, service proxy, DNS server
    ///
    /// Without a kubeconfig only the CRI server and the kubelet run, for static pods. SIGINT
    /// removes all pods and every change on the host; SIGTERM leaves the pods running, to be
    /// adopted at the next start.
    Node(node::Options),
    /// Run the CRI server alone, for any kubelet
    ///
    /// Pods go on running when it ends and are adopted at its next start.
    Cri(cri::Options),
    /// Run the kubelet alone, on any CRI v1 server
    ///
    /// Without a kubeconfig it runs static pods only. Pods go on running when it ends.
    Kubelet(kubelet::Alone),
    /// Tell whether this machine can run berth, and the remedy where it cannot
    ///
    /// Changes nothing. Each line is `ok`, `degraded` (berth runs, but does less) or `MISSING`;
    /// the exit status is 1 if anything is missing.
    Check(check::Options),
    /// Read the log of what was started, executed, changed and pulled on this machine
    ///
    /// Each entry holds what was asked for next to what the kernel reported, and the entries
    /// form a chain signed with the node's key. Works when no daemon runs (but for `probe`).
    Audit(audit::Options),
    /// List the pods and containers of this machine
    ///
    /// Asks the CRI server, so it works without the API server. Shows what is ready, created or
    /// running unless --all is given.
    Ps(ps::Options),
    /// Tell which step a pod waits on, and since when
    ///
    /// Asks the CRI server, so it works without the API server and for pods of this machine only.
    Why(why::Options),
    /// Print the version of berth, of the CRI and of Kubernetes
    Version(VersionOptions),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(clap::Args)]
#[group(skip)]
struct VersionOptions {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let parsed = command()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; everything else is wrong usage (EX_USAGE).
            let code = if error.use_stderr() { 64 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    logging::start(&cli.logging);
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("berth: {error:#}");
            ExitCode::from(if error.is::<config::ConfigError>() {
                64
            } else {
                1
            })
        }
    }
}

fn command() -> clap::Command {
    Cli::command().mut_subcommand("up", up::adapt)
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = || config::File::load(&cli.config);
    let done = |()| ExitCode::SUCCESS;
    match cli.command {
        Command::Up(options) => up::run(options, file()?).map(done),
        Command::Server(options) => server::run(options, file()?).map(done),
        Command::Node(options) => node::run(options, file()?).map(done),
        Command::Cri(options) => cri::run(options, file()?).map(done),
        Command::Kubelet(options) => kubelet::run(options, file()?).map(done),
        Command::Check(options) => check::run(&options),
        Command::Audit(options) => audit::run(options, &file()?),
        Command::Ps(options) => ps::run(&options).map(done),
        Command::Why(options) => why::run(&options).map(done),
        Command::Version(options) => {
            print_version(options.json);
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut command(), "berth", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print_version(json: bool) {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        println!(
            "{}",
            serde_json::json!({ "version": version, "cri": "v1", "kubernetes": "1.36" })
        );
    } else {
        println!("berth {version} (CRI v1, Kubernetes 1.36)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
