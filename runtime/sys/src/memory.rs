//! The C library's heap, told to stay small (mallopt(3), malloc_trim(3)).

/// Keeps one heap for all threads and gives blocks above `threshold` bytes back to the kernel at once.
/// For programs of which many run, where a second thread's own arena or a kept peak costs more than a lock.
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

/// Gives unused heap pages back to the kernel.
pub fn trim() {
    // SAFETY: malloc_trim takes the allocator's own locks and frees only what is not in use.
    unsafe { libc::malloc_trim(0) };
}
