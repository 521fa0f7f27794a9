//! The C library's heap, told to stay small (mallopt(3), malloc_trim(3)). That of musl always is: it
//! gives back what is free, and large blocks at once.

/// Keeps one heap for all threads and gives blocks above `threshold` bytes back to the kernel at once.
/// For programs of which many run, where a second thread's own arena or a kept peak costs more than a lock.
#[cfg(target_env = "gnu")]
pub fn keep_small(threshold: i32) {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, threshold),
        (libc::M_TRIM_THRESHOLD, threshold),
    ] {
        // SAFETY: mallopt only sets tuning values of the allocator; a refused value changes nothing.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Does nothing: see the module.
#[cfg(not(target_env = "gnu"))]
pub fn keep_small(_threshold: i32) {}

/// Gives unused heap pages back to the kernel.
#[cfg(target_env = "gnu")]
pub fn trim() {
    // SAFETY: malloc_trim takes the allocator's own locks and frees only what is not in use.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing: see the module.
#[cfg(not(target_env = "gnu"))]
pub fn trim() {}
