//! A global allocator that survives fork in a process with several threads.
//!
//! A process made by [`crate::process::clone_with`] has one thread and a copy of the heap; if
//! another thread of the parent was inside malloc at that moment, the heap's lock is held for ever
//! in the copy. [`ForkSafe`] hands out memory in such a child from fresh mappings and never
//! touches the heap again. Programs that clone while they have threads set it as global allocator.
//!
//! In front of the system's heap is a pool of small blocks: musl's gives a page back as soon as it
//! is free, so that a program which waits most of the time pays two system calls and a page fault
//! for nearly every block when something is to be done.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::heap::{Pool, same_size};

/// True in a process made by `clone_with`, from its first instruction on.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// Bytes mapped at a time in the child.
const CHUNK: usize = 256 * 1024;

/// Next free address and end of the mapping in use; only a child with one thread touches them.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// Small blocks outside of a child.
static POOL: Pool = Pool::new();

/// The allocator: the pool and the system's, and in a cloned child a bump allocator which frees nothing
/// (the child soon execs or exits).
#[derive(Debug, Clone, Copy, Default)]
pub struct ForkSafe;

pub(crate) fn enter_child() {
    IN_CHILD.store(true, Ordering::Relaxed);
}

// SAFETY: outside a child a block comes from the pool, which knows its own, or from `System`, and
// goes back to where it came from. Inside, `alloc` returns fresh, suitably aligned memory that is
// never given out twice, and `dealloc` does nothing, which is allowed; memory from before the clone
// is never passed to the system's free.
unsafe impl GlobalAlloc for ForkSafe {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IN_CHILD.load(Ordering::Relaxed) {
            return bump(layout);
        }
        match POOL.take(layout) {
            Some(block) => block,
            // SAFETY: the caller keeps GlobalAlloc's contract for `layout`, which is System's.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if IN_CHILD.load(Ordering::Relaxed) {
            return;
        }
        if POOL.owns(pointer) {
            return POOL.put(pointer, layout);
        }
        // SAFETY: outside a child a block that is not the pool's came from System with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if IN_CHILD.load(Ordering::Relaxed) {
            return bump(layout); // anonymous mappings start as zeroes and no block is used twice
        }
        match POOL.take(layout) {
            Some(block) => {
                // SAFETY: the block is that long, and nobody else's.
                unsafe { block.write_bytes(0, layout.size()) };
                block
            }
            // SAFETY: the caller keeps GlobalAlloc's contract for `layout`, which is System's.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let in_child = IN_CHILD.load(Ordering::Relaxed);
        let pooled = POOL.owns(pointer);
        if !in_child && !pooled {
            // SAFETY: outside a child a block that is not the pool's came from System with this layout.
            return unsafe { System.realloc(pointer, layout, size) };
        }
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        if pooled && same_size(layout, wanted) {
            return pointer;
        }
        // SAFETY: the caller keeps the contract of `alloc`: the size is not zero.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both blocks are valid for the smaller of the two sizes and `moved` is fresh, so they do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(pointer, moved, size.min(layout.size())) };
            // SAFETY: the block has this layout, and the caller has given it up.
            unsafe { self.dealloc(pointer, layout) };
        }
        moved
    }
}

fn bump(layout: Layout) -> *mut u8 {
    let aligned = |next: usize| next.checked_next_multiple_of(layout.align());
    let fits = |next: usize| {
        aligned(next).and_then(|start| Some((start, start.checked_add(layout.size())?)))
    };
    if let Some((start, end)) = fits(NEXT.load(Ordering::Relaxed))
        && start != 0
        && end <= END.load(Ordering::Relaxed)
    {
        NEXT.store(end, Ordering::Relaxed);
        return start as *mut u8;
    }
    let Some(need) = layout.size().checked_add(layout.align()) else {
        return null_mut();
    };
    let size = need.max(CHUNK);
    let Some(base) = map(size) else {
        return null_mut();
    };
    NEXT.store(base, Ordering::Relaxed);
    END.store(base + size, Ordering::Relaxed);
    match fits(base) {
        Some((start, end)) => {
            NEXT.store(end, Ordering::Relaxed);
            start as *mut u8
        }
        None => null_mut(),
    }
}

fn map(size: usize) -> Option<usize> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory in use.
    let address = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    (address != libc::MAP_FAILED).then_some(address as usize)
}
