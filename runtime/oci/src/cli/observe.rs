//! Flags of the verbs that only look: `list`, `ps`, `events`.

use clap::{Args, ValueEnum};

/// Output formats of `list` and `ps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Columns
    Table,
    /// JSON
    Json,
}

/// Flags of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub format: OutputFormat,
}

/// Flags of `ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Output format; a table is what ps(1) prints of the container's processes
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    pub format: OutputFormat,
    /// Id of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
    /// Options of ps(1); its output needs a column PID
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PS OPTIONS"
    )]
    pub options: Vec<String>,
}

/// Flags of `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Time between two figures, such as 500ms, 5s, 1m30s
    #[arg(long, default_value = "5s")]
    pub interval: String,
    /// Print the figures once and end
    #[arg(long)]
    pub stats: bool,
    /// Id of the container
    #[arg(value_name = "CONTAINER")]
    pub id: String,
}
