//! How much may still be sent on a stream or on the connection.
//!
//! The clients in use (kubectl, crictl, everything on moby/spdystream) neither send
//! WINDOW_UPDATE nor wait for one. A strict sender would stop for ever after the
//! first 64 KiB, so a window binds only from the first WINDOW_UPDATE or initial
//! window a peer sends; until then it only counts. Without windows the back-pressure
//! is the TCP connection's.

use std::sync::Mutex;

use tokio::sync::Notify;

/// The initial window of SPDY/3.1 in bytes, for a stream and for the connection.
pub const INITIAL_WINDOW: i64 = 64 * 1024;

struct Count {
    left: i64,
    binding: bool,
    closed: bool,
}

/// One send window.
pub struct SendWindow {
    count: Mutex<Count>,
    changed: Notify,
}

impl SendWindow {
    /// A window of `initial` bytes that binds at once when `binding`.
    pub fn new(initial: i64, binding: bool) -> Self {
        let count = Count {
            left: initial,
            binding,
            closed: false,
        };
        SendWindow {
            count: Mutex::new(count),
            changed: Notify::new(),
        }
    }

    /// Waits until something may be sent and takes up to `wanted` bytes; 0 when closed.
    pub async fn take(&self, wanted: usize) -> usize {
        loop {
            let changed = self.changed.notified();
            if let Some(taken) = self.try_take(wanted) {
                return taken;
            }
            changed.await;
        }
    }

    fn try_take(&self, wanted: usize) -> Option<usize> {
        let mut count = self.lock();
        if count.closed {
            return Some(0);
        }
        if count.binding && count.left <= 0 {
            return None;
        }
        let taken = if count.binding {
            wanted.min(count.left as usize)
        } else {
            wanted
        };
        count.left -= taken as i64;
        Some(taken)
    }

    /// Gives back what was taken and not sent.
    pub fn give_back(&self, bytes: usize) {
        self.lock().left += bytes as i64;
        self.changed.notify_waiters();
    }

    /// The peer allows `delta` more bytes, or, after SETTINGS, fewer.
    pub fn update(&self, delta: i64) {
        let mut count = self.lock();
        count.left += delta;
        count.binding = true;
        drop(count);
        self.changed.notify_waiters();
    }

    /// Nothing will be sent any more: who waits is let go.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Count> {
        self.count
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_window_binds_from_the_first_update() {
        let window = SendWindow::new(INITIAL_WINDOW, false);
        assert_eq!(window.take(100_000).await, 100_000);
        window.update(40_000);
        assert_eq!(
            window.take(100_000).await,
            (INITIAL_WINDOW - 60_000) as usize
        );
        assert_eq!(window.try_take(1), None);
        window.give_back(10);
        assert_eq!(window.take(100).await, 10);
    }

    #[tokio::test]
    async fn closing_lets_go_who_waits() {
        let window = std::sync::Arc::new(SendWindow::new(0, true));
        let waiting = {
            let window = window.clone();
            tokio::task::spawn_blocking(move || {
                tokio::runtime::Handle::current().block_on(window.take(1))
            })
        };
        window.close();
        assert_eq!(waiting.await.unwrap(), 0);
    }
}
