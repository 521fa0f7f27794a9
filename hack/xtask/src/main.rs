//! The project's tasks, one file a verb: `cargo xtask <verb>`.

mod apt;
mod bench;
mod bundle;
mod cache;
mod cve;
mod dist;
mod engines;
mod fuzz;
mod images;
mod peers;
mod preflight;
mod process;
mod registry;
mod signal;
mod test;
mod tidy;
mod up;
mod validation;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, runs, tests and measures berth.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the release programs into target/dist, the static ones static
    Dist,
    /// Make the two images from Debian packages (cached) and print where they are
    Images,
    /// Run the loopback registry with both images until SIGINT
    Registry(registry::Options),
    /// Format, clippy, dependency arrows, lengths, links, licences
    Tidy,
    /// Run the test rings; ends with `N passed, N failed, N skipped`
    Test(test::Options),
    /// Bring a cluster up on this machine, or take the tour of it (--smoke)
    Up(up::Options),
    /// Measure against the peers, alternating, in one run
    Bench(bench::Options),
    /// Give a parser or the seccomp compiler random input
    Fuzz(fuzz::Options),
    /// Put OCI runtimes through the known attacks; ends with `N passed, N failed, N skipped`
    Cve(cve::Options),
    /// Build or unpack what the benches compare with (cached) and print where it is
    Peers(peers::Options),
    /// Run the validation programs of the OCI runtime-tools against berth-oci, runc and crun
    OciValidation(validation::Options),
    /// Run podman, docker, containerd and buildah with runc and with berth-oci, and compare
    Engines(engines::Options),
    /// Run a command in the reference VM: Linux 6.12, full cgroup v2
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Dist => dist::run(),
        Verb::Images => images::run(),
        Verb::Registry(options) => registry::run(&options),
        Verb::Tidy => tidy::run(),
        Verb::Test(options) => test::run(&options),
        Verb::Up(options) => up::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Fuzz(options) => fuzz::run(&options),
        Verb::Cve(options) => cve::run(&options),
        Verb::Peers(options) => peers::run(&options),
        Verb::OciValidation(options) => validation::run(&options),
        Verb::Engines(options) => engines::run(&options),
        Verb::Vm(options) => vm::run(&options),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
