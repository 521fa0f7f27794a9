//! Arguments of the verbs about processes: `exec` and `kill`.

use std::path::PathBuf;

use super::flag::{Arguments, Flag, Operand, Slot};

/// Arguments of `exec`.
#[derive(Debug, Clone, Default)]
pub struct ExecArgs {
    /// Where the terminal's master side goes.
    pub console_socket: Option<PathBuf>,
    /// Where the process id goes.
    pub pid_file: Option<PathBuf>,
    /// Do not wait for the process.
    pub detach: bool,
    /// Give the process a terminal.
    pub tty: bool,
    /// File with the process as JSON.
    pub process: Option<PathBuf>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// Further environment variables, NAME=VALUE.
    pub env: Vec<String>,
    /// UID, or UID:GID.
    pub user: Option<String>,
    /// Further group ids.
    pub additional_gids: Vec<u32>,
    /// Capabilities to add.
    pub cap: Vec<String>,
    /// AppArmor profile to enter.
    pub apparmor: Option<String>,
    /// SELinux label of the process.
    pub process_label: Option<String>,
    /// Set no_new_privs.
    pub no_new_privs: bool,
    /// Descriptors to pass on from 3 on.
    pub preserve_fds: u32,
    /// An existing group below the container's cgroup.
    pub cgroup: Option<PathBuf>,
    /// Allow a paused container.
    pub ignore_paused: bool,
    /// Id of the container.
    pub id: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

impl Arguments for ExecArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[
        &[
            Flag::<Self>::value(
                "process",
                "FILE",
                "File with the process as JSON (`process` of the specification), instead of a command",
                |a, word| a.process.put(word),
            )
            .short('p'),
            Flag::<Self>::switch("detach", "Do not wait for the process", |a, on| {
                a.detach = on;
            })
            .short('d'),
            Flag::<Self>::switch("tty", "Give the process a terminal", |a, on| a.tty = on).short('t'),
            Flag::<Self>::value(
                "console-socket",
                "PATH",
                "Send the terminal's master side to this unix socket",
                |a, word| a.console_socket.put(word),
            ),
            Flag::<Self>::value(
                "pid-file",
                "FILE",
                "Write the process id to this file",
                |a, word| a.pid_file.put(word),
            ),
            Flag::<Self>::value("cgroup", "PATH", "Run in this existing group below the container's cgroup", |a, word| {
                a.cgroup.put(word)
            }),
            Flag::<Self>::switch(
                "ignore-paused",
                "Allow a paused container; the process starts when it is resumed",
                |a, on| a.ignore_paused = on,
            ),
        ],
        &PROCESS,
    ];
    const OPERANDS: &'static [Operand<Self>] = &[
        Operand::one("CONTAINER", "Id of the container", |a, word| a.id.put(word)),
        Operand::rest("COMMAND", "Program and arguments", |a, word| {
            a.command.put(word)
        }),
    ];
}

/// The flags that change what the process is.
const PROCESS: [Flag<ExecArgs>; 9] = [
    Flag::<ExecArgs>::value("cwd", "DIR", "Working directory", |a, word| a.cwd.put(word)),
    Flag::<ExecArgs>::value(
        "env",
        "NAME=VALUE",
        "A further environment variable",
        |a, word| a.env.put(word),
    )
    .short('e'),
    Flag::<ExecArgs>::value(
        "user",
        "UID[:GID]",
        "User id, or user and group id",
        |a, word| a.user.put(word),
    )
    .short('u'),
    Flag::<ExecArgs>::value("additional-gids", "GID", "A further group id", |a, word| {
        a.additional_gids.put(word)
    })
    .short('g'),
    Flag::<ExecArgs>::value(
        "cap",
        "CAPABILITY",
        "A capability to add to the bounding, permitted and effective sets",
        |a, word| a.cap.put(word),
    )
    .short('c'),
    Flag::<ExecArgs>::value(
        "apparmor",
        "PROFILE",
        "AppArmor profile to enter",
        |a, word| a.apparmor.put(word),
    ),
    Flag::<ExecArgs>::value(
        "process-label",
        "LABEL",
        "SELinux label of the process",
        |a, word| a.process_label.put(word),
    ),
    Flag::<ExecArgs>::switch("no-new-privs", "Set no_new_privs", |a, on| {
        a.no_new_privs = on;
    }),
    Flag::<ExecArgs>::value(
        "preserve-fds",
        "N",
        "Pass on this many descriptors from 3 on",
        |a, word| a.preserve_fds.put(word),
    )
    .default("0"),
];

/// Arguments of `kill`.
#[derive(Debug, Clone)]
pub struct KillArgs {
    /// Signal every process, not only init.
    pub all: bool,
    /// Id of the container.
    pub id: String,
    /// Number of the signal, or its name.
    pub signal: String,
}

impl Default for KillArgs {
    fn default() -> Self {
        KillArgs {
            all: false,
            id: String::new(),
            signal: "SIGTERM".into(),
        }
    }
}

impl Arguments for KillArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[&[Flag::<Self>::switch(
        "all",
        "Signal every process, not only init; no error where nothing is left",
        |a, on| a.all = on,
    )
    .short('a')]];
    const OPERANDS: &'static [Operand<Self>] = &[
        Operand::one("CONTAINER", "Id of the container", |a, word| a.id.put(word)),
        Operand::optional(
            "SIGNAL",
            "Number of the signal, or its name with or without SIG [default: SIGTERM]",
            |a, word| a.signal.put(word),
        ),
    ];
}
