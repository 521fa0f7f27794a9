//! `spec`: a template to start from.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;

use berth_oci::seccomp;
use oci_spec::runtime::Spec;

use super::Failure;
use crate::cli::SpecArgs;

pub(super) fn run(args: &SpecArgs) -> Result<ExitCode, Failure> {
    let path = args.bundle.join("config.json");
    let failed = || Failure::io(format!("write `{}`", path.display()));
    let mut spec = Spec::default();
    let capabilities = spec
        .process()
        .as_ref()
        .and_then(|process| process.capabilities().clone());
    let bounding: Vec<_> = capabilities
        .and_then(|all| all.bounding().clone())
        .into_iter()
        .flatten()
        .collect();
    spec.set_hostname(Some("berth".into()));
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(Some(seccomp::default_profile(&bounding)));
    }
    let text = serde_json::to_string_pretty(&spec).map_err(|e| failed()(e.into()))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(failed())?;
    writeln!(file, "{text}").map_err(failed())?;
    Ok(ExitCode::SUCCESS)
}
