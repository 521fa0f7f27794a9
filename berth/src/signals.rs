//! How a running berth is told to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGINT: take everything down.
    Remove,
    /// SIGTERM: leave the pods running, to be adopted at the next start.
    Leave,
}

/// The two signals, from now on.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over from their default effect.
    pub fn take() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them.
    pub async fn wait(&mut self) -> End {
        tokio::select! {
            _ = self.interrupt.recv() => End::Remove,
            _ = self.terminate.recv() => End::Leave,
        }
    }

    /// Does `work`, unless a second SIGINT comes: then the process ends at once, and the
    /// next start repairs what is left.
    pub async fn unless_interrupted<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            done = work => Ok(done),
            _ = self.interrupt.recv() => anyhow::bail!("interrupted while ending; the next start repairs what is left"),
        }
    }
}
