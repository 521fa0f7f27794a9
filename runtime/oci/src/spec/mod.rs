//! From `config.json` to a plan: loading, then validation.

pub mod config;
mod load;
pub(crate) mod validate;

pub use validate::MOUNT_OPTIONS;
#[cfg(test)]
pub(crate) use validate::plan_for;
pub(crate) use validate::{mount_options, sysctl_file};

use std::fmt;

pub use load::{
    Ignored, LoadError, MAX_SPEC_BYTES, OfEngine, load, load_of_engine, load_process_of_engine,
    parse, parse_process, parse_resources,
};

/// One thing that is wrong with a spec, or in it and not supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// Where, such as `linux.namespaces[2].path`.
    pub path: String,
    /// What, in one sentence without full stop.
    pub message: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Everything that is wrong with a spec; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecErrors(pub Vec<SpecError>);

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}
