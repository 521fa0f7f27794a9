//! The command line: verbs and flags of runc, as far as they mean something here.
//!
//! Tables of flags, not a parser's builder: an engine runs this program three times for each
//! container, and building every verb's parser was a third of what a verb cost (docs/adr/0013).

mod completion;
mod container;
mod doc;
mod flag;
mod help;
mod observe;
mod parse;
mod process;
mod resources;

pub use completion::{Shell, script};
pub use container::{BundleArgs, DeleteArgs, RunArgs, SpecArgs};
pub use observe::{EventsArgs, ListArgs, OutputFormat, PsArgs};
pub use parse::{UsageError, parse};
pub use process::{ExecArgs, KillArgs};
pub use resources::UpdateArgs;

use std::ffi::OsString;
use std::path::PathBuf;

use doc::{FlagDoc, OperandDoc};
use flag::{Arguments, Flag, Operand, Slot};

/// Newest version of the runtime specification that is followed.
pub const SPEC_VERSION: &str = "1.3.0";

/// The commit this was built from, where the build says so.
pub const COMMIT: &str = match option_env!("BERTH_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What the words of the command line ask for.
#[derive(Debug)]
pub enum Request {
    /// To carry out a verb.
    Run(Box<Cli>),
    /// The help of a verb, or of the program.
    Help(Option<String>),
    /// What this program is.
    Version,
}

/// A verb with all its arguments.
#[derive(Debug)]
pub struct Cli {
    /// Those of every verb.
    pub global: Global,
    /// The verb.
    pub command: Command,
}

/// Arguments of every verb.
#[derive(Debug)]
pub struct Global {
    /// Directory for the state of containers.
    pub root: PathBuf,
    /// Where messages go.
    pub log: Option<PathBuf>,
    /// Format of the messages.
    pub log_format: LogFormat,
    /// Also write what the verb does.
    pub debug: bool,
    /// Let systemd make the cgroup.
    pub systemd_cgroup: bool,
    /// How cgroups are managed.
    pub cgroup_manager: CgroupManager,
    /// Refuse a container whose limits this host cannot enforce.
    pub strict_limits: bool,
    /// When a cgroup that may not be made is done without.
    pub rootless: Rootless,
    /// Where the sandbox record of each process goes.
    pub record: Option<PathBuf>,
}

impl Default for Global {
    fn default() -> Self {
        Global {
            root: DEFAULT_ROOT.into(),
            log: None,
            log_format: LogFormat::Text,
            debug: false,
            systemd_cgroup: false,
            cgroup_manager: CgroupManager::Cgroupfs,
            strict_limits: false,
            rootless: Rootless::Auto,
            record: None,
        }
    }
}

impl Arguments for Global {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[&[
        Flag::<Self>::value(
            "root",
            "DIR",
            "Directory for the state of containers; should lie on a tmpfs",
            |g, word| g.root.put(word),
        )
        .default("/run/berth-oci"),
        Flag::<Self>::value(
            "log",
            "FILE",
            "Write messages to this file; errors still go to standard error too",
            |g, word| g.log.put(word),
        ),
        Flag::<Self>::choice(
            "log-format",
            &["text", "json"],
            "Format of the messages",
            |g, word| g.log_format.put(word),
        )
        .default("text"),
        Flag::<Self>::switch("debug", "Also write what the verb does", |g, on| {
            g.debug = on;
        }),
        Flag::<Self>::switch(
            "systemd-cgroup",
            "Let systemd make the cgroup; `linux.cgroupsPath` is then slice:prefix:name",
            |g, on| g.systemd_cgroup = on,
        ),
        Flag::<Self>::choice(
            "cgroup-manager",
            &["cgroupfs", "systemd", "disabled"],
            "How cgroups are managed",
            |g, word| g.cgroup_manager.put(word),
        )
        .default("cgroupfs"),
        Flag::<Self>::switch(
            "strict-limits",
            "Refuse a container whose limits this host cannot enforce, instead of warning",
            |g, on| g.strict_limits = on,
        ),
        Flag::<Self>::choice(
            "rootless",
            &["true", "false", "auto"],
            "Go on without a cgroup where none may be made; auto: where not run by root",
            |g, word| g.rootless.put(word),
        )
        .default("auto"),
        Flag::<Self>::value(
            "record",
            "FILE",
            "Append the sandbox record of each start, exec and update to this file",
            |g, word| g.record.put(word),
        ),
        Flag::<Self>::value(
            "criu",
            "PATH",
            "Ignored, as by runc: there is no checkpoint",
            |_, _| Ok(()),
        )
        .hidden(),
    ]];
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `time="…" level=… msg="…"`
    Text,
    /// One JSON object a line: level, msg, time
    Json,
}

/// How cgroups are managed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupManager {
    /// Through the file system
    Cgroupfs,
    /// By systemd, as with --systemd-cgroup
    Systemd,
    /// Not at all
    Disabled,
}

/// Where the state of containers lies, unless `--root` says so; for root.
pub const DEFAULT_ROOT: &str = "/run/berth-oci";

/// When a cgroup that may not be made is done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rootless {
    /// Always
    True,
    /// Never
    False,
    /// Where the caller is not root
    Auto,
}

/// Lets a word that the table's list of choices has let through choose the value.
macro_rules! choices {
    ($($choice:ty { $($word:literal => $value:expr),* $(,)? })*) => {$(
        impl Slot for $choice {
            fn put(&mut self, word: OsString) -> Result<(), String> {
                *self = match word.to_str() {
                    $(Some($word) => $value,)*
                    _ => return Err(format!("`{}` is not known", word.display())),
                };
                Ok(())
            }
        }
    )*};
}

choices! {
    LogFormat { "text" => LogFormat::Text, "json" => LogFormat::Json }
    CgroupManager {
        "cgroupfs" => CgroupManager::Cgroupfs,
        "systemd" => CgroupManager::Systemd,
        "disabled" => CgroupManager::Disabled,
    }
    Rootless { "true" => Rootless::True, "false" => Rootless::False, "auto" => Rootless::Auto }
    Shell { "bash" => Shell::Bash, "fish" => Shell::Fish, "zsh" => Shell::Zsh }
    OutputFormat { "table" => OutputFormat::Table, "json" => OutputFormat::Json }
}

/// A container's id as only argument.
#[derive(Debug, Default)]
pub struct IdArg {
    /// Id of the container.
    pub id: String,
}

impl Arguments for IdArg {
    const OPERANDS: &'static [Operand<Self>] = &[Operand::one(
        "CONTAINER",
        "Id of the container",
        |a, word| a.id.put(word),
    )];
}

/// No arguments.
#[derive(Debug, Default)]
pub struct NoArgs;

impl Arguments for NoArgs {}

/// Arguments of a verb that is refused whatever they are.
#[derive(Debug, Default)]
pub struct RefusedArgs;

impl Arguments for RefusedArgs {
    const OPERANDS: &'static [Operand<Self>] =
        &[Operand::rest("WORD", "Taken and not read", |_, _| Ok(()))];
}

/// Arguments of `completion`.
#[derive(Debug, Default)]
pub struct CompletionArgs {
    /// The shell.
    pub shell: Shell,
}

impl Arguments for CompletionArgs {
    const OPERANDS: &'static [Operand<Self>] =
        &[Operand::one("SHELL", "bash, fish or zsh", |a, word| {
            a.shell.put(word)
        })];
}

/// The verbs with their arguments.
#[derive(Debug)]
pub enum Command {
    /// Everything but the program.
    Create(BundleArgs),
    /// The program.
    Start(IdArg),
    /// All of a container's life.
    Run(RunArgs),
    /// What it is now.
    State(IdArg),
    /// A signal.
    Kill(KillArgs),
    /// Its end.
    Delete(DeleteArgs),
    /// All containers.
    List(ListArgs),
    /// A further process.
    Exec(ExecArgs),
    /// Freezing.
    Pause(IdArg),
    /// Thawing.
    Resume(IdArg),
    /// Its processes.
    Ps(PsArgs),
    /// Other limits.
    Update(UpdateArgs),
    /// What it uses.
    Events(EventsArgs),
    /// A template.
    Spec(SpecArgs),
    /// What the runtime supports.
    Features(NoArgs),
    /// Refused.
    Checkpoint(RefusedArgs),
    /// Refused.
    Restore(RefusedArgs),
    /// A shell's script.
    Completion(CompletionArgs),
}

impl Command {
    /// Whether copies of this process enter a container, where they can be seen.
    pub fn makes_processes(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Run(_) | Self::Exec(_))
    }

    /// Whether it looks into the state directory.
    pub fn uses_state(&self) -> bool {
        use Command::{Checkpoint, Completion, Features, Restore, Spec};
        !matches!(
            self,
            Spec(_) | Features(_) | Completion(_) | Checkpoint(_) | Restore(_)
        )
    }
}

/// A verb as it is understood and told.
pub struct Verb {
    /// As typed.
    pub name: &'static str,
    /// One line: what it does.
    pub about: &'static str,
    /// More about it, for its own help; may be empty.
    pub more: &'static str,
    flags: fn() -> Vec<FlagDoc>,
    operands: fn() -> Vec<OperandDoc>,
    parse: Parse,
}

type Parse =
    fn(&'static str, &mut lexopt::Parser, &mut Global) -> Result<Option<Command>, UsageError>;

impl Verb {
    const fn new<A: Arguments>(name: &'static str, parse: Parse, about: &'static str) -> Verb {
        Verb {
            name,
            about,
            more: "",
            flags: doc::flags::<A>,
            operands: doc::operands::<A>,
            parse,
        }
    }

    const fn more(mut self, more: &'static str) -> Verb {
        self.more = more;
        self
    }
}

/// A verb of the table: its name, its variant of [`Command`] with its arguments, what it does.
macro_rules! verb {
    ($name:literal, $variant:ident($arguments:ty), $about:literal) => {
        Verb::new::<$arguments>(
            $name,
            |name, words, global| parse::verb(name, words, global, Command::$variant),
            $about,
        )
    };
}

/// All verbs, in the order of the help.
pub static VERBS: &[Verb] = &[
    verb!("create", Create(BundleArgs), "Create a container, ready to start").more(
        "Makes namespaces, cgroup and root file system, confines the process, and leaves it waiting for\n\
         `start`. With `process.terminal` the terminal goes to --console-socket.",
    ),
    verb!("start", Start(IdArg), "Start a created container"),
    verb!("run", Run(RunArgs), "Create, start, wait for and delete a container"),
    verb!("state", State(IdArg), "Print the state of a container as JSON"),
    verb!("kill", Kill(KillArgs), "Send a signal to a container"),
    verb!("delete", Delete(DeleteArgs), "Delete a stopped container"),
    verb!("list", List(ListArgs), "List containers"),
    verb!("exec", Exec(ExecArgs), "Run a further process in a container").more(
        "The process has the rights of the container's own, as far as --process or the flags do not say\n\
         otherwise. Everything after the container's id is the command.",
    ),
    verb!("pause", Pause(IdArg), "Freeze all processes of a container"),
    verb!("resume", Resume(IdArg), "Thaw all processes of a container"),
    verb!("ps", Ps(PsArgs), "Print the processes of a container"),
    verb!("update", Update(UpdateArgs), "Change the limits of a container")
        .more("A limit that is not given, or 0, stays as it is."),
    verb!("events", Events(EventsArgs), "Print what a container uses, and when it ran out of memory"),
    verb!("spec", Spec(SpecArgs), "Write a template config.json"),
    verb!(
        "features",
        Features(NoArgs),
        "Print what this runtime supports as JSON (features.md of the runtime specification)"
    ),
    verb!("checkpoint", Checkpoint(RefusedArgs), "Refused: a container cannot be checkpointed"),
    verb!("restore", Restore(RefusedArgs), "Refused: a container cannot be restored"),
    verb!("completion", Completion(CompletionArgs), "Print a completion script for a shell"),
];

impl Global {
    /// The manager of cgroups that the flags choose together.
    pub fn manager(&self) -> CgroupManager {
        if self.systemd_cgroup {
            CgroupManager::Systemd
        } else {
            self.cgroup_manager
        }
    }
}

/// What engines read from `--version`: a line `… version X`, then `commit:` and `spec:`.
pub fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("berth-oci version {version}\ncommit: {COMMIT}\nspec: {SPEC_VERSION}")
}

/// The text that answers [`Request::Help`]; nothing for what is no verb.
pub fn help(verb: Option<&str>) -> Option<String> {
    let Some(name) = verb else {
        return Some(help::program());
    };
    let verb = VERBS.iter().find(|verb| verb.name == name)?;
    Some(help::verb(verb))
}

#[cfg(test)]
mod tests;
