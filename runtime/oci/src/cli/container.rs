//! Arguments of the verbs that make and remove containers.

use std::path::PathBuf;

use super::flag::{Arguments, Flag, Operand, Slot};

/// Where a container comes from and how it is made: the arguments of `create`.
#[derive(Debug, Clone)]
pub struct BundleArgs {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Where the terminal's master side goes.
    pub console_socket: Option<PathBuf>,
    /// Where the process id of init goes.
    pub pid_file: Option<PathBuf>,
    /// Enter the root by moving it over `/`.
    pub no_pivot: bool,
    /// Leave the process the caller's session keyring.
    pub no_new_keyring: bool,
    /// Descriptors to pass on beyond the standard streams and those of `$LISTEN_FDS`.
    pub preserve_fds: u32,
    /// Id of the container.
    pub id: String,
}

impl Default for BundleArgs {
    fn default() -> Self {
        BundleArgs {
            bundle: ".".into(),
            console_socket: None,
            pid_file: None,
            no_pivot: false,
            no_new_keyring: false,
            preserve_fds: 0,
            id: String::new(),
        }
    }
}

/// Arguments that say where a container comes from.
trait HasBundle {
    /// Where from.
    fn bundle(&mut self) -> &mut BundleArgs;
}

impl HasBundle for BundleArgs {
    fn bundle(&mut self) -> &mut BundleArgs {
        self
    }
}

/// The flags that `create` and `run` share.
struct Bundle<A>(std::marker::PhantomData<A>);

impl<A: HasBundle + 'static> Bundle<A> {
    const FLAGS: &'static [Flag<A>] = &[
        Flag::<A>::value("bundle", "DIR", "The bundle's directory", |a, word| {
            a.bundle().bundle.put(word)
        })
        .short('b')
        .default("."),
        Flag::<A>::value(
            "console-socket",
            "PATH",
            "Send the terminal's master side to this unix socket",
            |a, word| a.bundle().console_socket.put(word),
        ),
        Flag::<A>::value(
            "pid-file",
            "FILE",
            "Write the process id of init to this file",
            |a, word| a.bundle().pid_file.put(word),
        ),
        Flag::<A>::switch(
            "no-pivot",
            "Enter the root by moving it over `/` instead of pivot_root, which a ramdisk does not allow",
            |a, on| a.bundle().no_pivot = on,
        ),
        Flag::<A>::switch(
            "no-new-keyring",
            "Leave the process the caller's session keyring",
            |a, on| a.bundle().no_new_keyring = on,
        ),
        Flag::<A>::value(
            "preserve-fds",
            "N",
            "Pass on this many descriptors beyond the standard streams and those of $LISTEN_FDS",
            |a, word| a.bundle().preserve_fds.put(word),
        )
        .default("0"),
    ];
    const OPERANDS: &'static [Operand<A>] = &[Operand::one(
        "CONTAINER",
        "Id of the container, unique below --root",
        |a, word| a.bundle().id.put(word),
    )];
}

impl Arguments for BundleArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[Bundle::<Self>::FLAGS];
    const OPERANDS: &'static [Operand<Self>] = Bundle::<Self>::OPERANDS;
}

/// Arguments of `run`.
#[derive(Debug, Clone, Default)]
pub struct RunArgs {
    /// Leave the container running.
    pub detach: bool,
    /// Keep the state after the container has ended.
    pub keep: bool,
    /// Those shared with `create`.
    pub bundle: BundleArgs,
}

impl HasBundle for RunArgs {
    fn bundle(&mut self) -> &mut BundleArgs {
        &mut self.bundle
    }
}

impl Arguments for RunArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[
        &[
            Flag::<Self>::switch("detach", "Leave the container running", |a, on| {
                a.detach = on;
            })
            .short('d'),
            Flag::<Self>::switch(
                "keep",
                "Keep the state after the container has ended",
                |a, on| a.keep = on,
            ),
            Flag::<Self>::switch(
                "no-subreaper",
                "Accepted: berth-oci never adopts the container's orphans, and ends them with their cgroup",
                |_, _| {},
            ),
        ],
        Bundle::<Self>::FLAGS,
    ];
    const OPERANDS: &'static [Operand<Self>] = Bundle::<Self>::OPERANDS;
}

/// Arguments of `delete`.
#[derive(Debug, Clone, Default)]
pub struct DeleteArgs {
    /// Kill it first; no error if it does not exist.
    pub force: bool,
    /// Id of the container.
    pub id: String,
}

impl Arguments for DeleteArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[&[Flag::<Self>::switch(
        "force",
        "Kill it first if it runs; no error if it does not exist",
        |a, on| a.force = on,
    )
    .short('f')]];
    const OPERANDS: &'static [Operand<Self>] = &[Operand::one(
        "CONTAINER",
        "Id of the container",
        |a, word| a.id.put(word),
    )];
}

/// Arguments of `spec`.
#[derive(Debug, Clone)]
pub struct SpecArgs {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// For a user without privilege.
    pub rootless: bool,
}

impl Default for SpecArgs {
    fn default() -> Self {
        SpecArgs {
            bundle: ".".into(),
            rootless: false,
        }
    }
}

impl Arguments for SpecArgs {
    const FLAGS: &'static [&'static [Flag<Self>]] = &[&[
        Flag::<Self>::value("bundle", "DIR", "The bundle's directory", |a, word| {
            a.bundle.put(word)
        })
        .short('b')
        .default("."),
        Flag::<Self>::switch(
            "rootless",
            "For a user without privilege: a user namespace that maps the caller, no network namespace",
            |a, on| a.rootless = on,
        ),
    ]];
}
