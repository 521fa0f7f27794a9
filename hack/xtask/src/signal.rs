//! Waiting for the user's SIGINT or SIGTERM.

use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The user's signal, by number.
    Signal(i32),
    /// The child ended by itself.
    Child(Option<i32>),
}

/// SIGINT and SIGTERM, taken over from their default action.
pub struct Interrupts(Signals);

impl Interrupts {
    /// Takes the two signals over for the rest of the process's life.
    pub fn take() -> Result<Self> {
        Ok(Self(
            Signals::new([SIGINT, SIGTERM]).context("cannot take SIGINT over")?,
        ))
    }

    /// The signal that came since the last call.
    pub fn pending(&mut self) -> Option<i32> {
        self.0.pending().next()
    }

    /// An error when a signal has come, for work that then unwinds in order.
    pub fn check(&mut self) -> Result<()> {
        match self.pending() {
            Some(signal) => bail!("interrupted by signal {signal}"),
            None => Ok(()),
        }
    }

    /// Waits until a signal comes or `child` ends.
    pub fn wait(&mut self, child: &mut Child) -> Result<Ended> {
        loop {
            if let Some(signal) = self.pending() {
                return Ok(Ended::Signal(signal));
            }
            if let Some(status) = child.try_wait()? {
                return Ok(Ended::Child(status.code()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
