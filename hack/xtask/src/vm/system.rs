//! Which system the guest is.

/// The guest's root and its PID 1.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// The small root under an init of our own.
    #[default]
    Plain,
    /// The root with container engines under an init of our own.
    Engines,
    /// The root with container engines under systemd.
    Systemd,
}

impl System {
    /// Whether the root is the one with container engines.
    pub fn has_engines(self) -> bool {
        self != Self::Plain
    }

    /// Whether PID 1 is systemd.
    pub fn has_systemd(self) -> bool {
        self == Self::Systemd
    }
}
