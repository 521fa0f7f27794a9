//! Arguments of the verbs that only look: `list`, `ps`, `events`.

use super::flag::{Arguments, Flag, Operand, Slot};

/// Output formats of `list` and `ps`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Columns.
    #[default]
    Table,
    /// JSON.
    Json,
}

const FORMATS: &[&str] = &["table", "json"];

/// Arguments of `list`.
#[derive(Debug, Clone, Default)]
pub struct ListArgs {
    /// Only ids.
    pub quiet: bool,
    /// Output format.
    pub format: OutputFormat,
}

impl Arguments for ListArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[&[
        Flag::<Self>::switch("quiet", "Only ids", |a, on| a.quiet = on).short('q'),
        Flag::<Self>::choice("format", FORMATS, "Output format", |a, word| {
            a.format.put(word)
        })
        .short('f')
        .default("table"),
    ]];
}

/// Arguments of `ps`.
#[derive(Debug, Clone, Default)]
pub struct PsArgs {
    /// Output format.
    pub format: OutputFormat,
    /// Id of the container.
    pub id: String,
    /// Options of ps(1).
    pub options: Vec<String>,
}

impl Arguments for PsArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[&[Flag::<Self>::choice(
        "format",
        FORMATS,
        "Output format; a table is what ps(1) prints of the container's processes",
        |a, word| a.format.put(word),
    )
    .short('f')
    .default("table")]];
    const OPERANDS: &'static [Operand<Self>] = &[
        Operand::one("CONTAINER", "Id of the container", |a, word| a.id.put(word)),
        Operand::rest(
            "PS-OPTIONS",
            "Options of ps(1); its output needs a column PID",
            |a, word| a.options.put(word),
        ),
    ];
}

/// Arguments of `events`.
#[derive(Debug, Clone)]
pub struct EventsArgs {
    /// Time between two figures.
    pub interval: String,
    /// Print the figures once and end.
    pub stats: bool,
    /// Id of the container.
    pub id: String,
}

impl Default for EventsArgs {
    fn default() -> Self {
        EventsArgs {
            interval: "5s".into(),
            stats: false,
            id: String::new(),
        }
    }
}

impl Arguments for EventsArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[&[
        Flag::<Self>::value(
            "interval",
            "TIME",
            "Time between two figures, such as 500ms, 5s, 1m30s",
            |a, word| a.interval.put(word),
        )
        .default("5s"),
        Flag::<Self>::switch("stats", "Print the figures once and end", |a, on| {
            a.stats = on;
        }),
    ]];
    const OPERANDS: &'static [Operand<Self>] = &[Operand::one(
        "CONTAINER",
        "Id of the container",
        |a, word| a.id.put(word),
    )];
}
