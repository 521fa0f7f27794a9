//! A neighbour that exchanges two names as fast as it can while containers are made.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Ends with its owner.
pub(crate) struct Racer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Racer {
    /// Exchanges `a` and `b` (renameat2(2), `RENAME_EXCHANGE`) with short random pauses that start
    /// from `seed`, so that it does not fall into step with the runtime.
    pub(crate) fn exchange(a: PathBuf, b: PathBuf, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut random = seed | 1;
            let mut exchanges = 0;
            while !told.load(Ordering::Relaxed) {
                let done = renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE);
                exchanges += u64::from(done.is_ok());
                // xorshift64
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                for _ in 0..random % 4096 {
                    std::hint::spin_loop();
                }
            }
            exchanges
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it; returns how often it exchanged.
    pub(crate) fn end(mut self) -> u64 {
        self.join()
    }

    fn join(&mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        thread.and_then(|thread| thread.join().ok()).unwrap_or(0)
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.join();
    }
}
