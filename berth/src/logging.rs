//! Logs go to stderr; stdout is for what a command answers.

use tracing_subscriber::EnvFilter;

/// How much is logged, and how it looks.
#[derive(clap::Args)]
#[group(skip)]
pub struct Options {
    /// What is logged: error, warn, info, debug, trace, or a filter such as `info,berth_cri=debug`
    ///
    /// Logs go to standard error.
    #[arg(
        long,
        global = true,
        env = "BERTH_LOG",
        default_value = "warn,berth=info",
        value_name = "FILTER",
        help_heading = "Common options"
    )]
    log: String,
    /// Form of a log line
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        default_value = "text",
        help_heading = "Common options"
    )]
    log_format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// Words and fields, for people
    Text,
    /// One JSON object a line
    Json,
}

/// Installs the log writer of the process.
pub fn start(options: &Options) {
    let filter = EnvFilter::try_new(&options.log).unwrap_or_else(|error| {
        eprintln!("berth: --log: {error}; logging warnings");
        EnvFilter::new("warn")
    });
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match options.log_format {
        Format::Text => lines.with_ansi(false).init(),
        Format::Json => lines.json().init(),
    }
}
