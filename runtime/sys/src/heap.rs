//! A heap for programs that live a millisecond.
//!
//! A C library's heap is made for programs that live: it gives back what is free, and asks the kernel
//! for little at a time. Each of its pages then costs such a program a page fault, and musl's one
//! system call for nearly every group of blocks. This one takes memory by the chunk, filled in by
//! the kernel at once, and keeps free blocks in a list a size. What small blocks ever took at the same
//! time stays taken; large ones are mappings of their own and go back.
//!
//! A program that mostly waits keeps the C library's heap, with a [`Pool`] of such blocks in front.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::mem::MaybeUninit;
use std::ptr::{copy_nonoverlapping, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};

/// Alignment of every block and difference between the smaller sizes, in bytes.
const GRAIN: usize = 16;
/// Sizes up to here, in bytes, are multiples of the grain; above, powers of two.
const FINE: usize = 1024;
/// Sizes above, in bytes, are mappings of their own.
const LARGEST: usize = 16 * 1024;
/// Bytes taken from the kernel at a time, the least and the most: as many as a quarter of those taken
/// before. To get a page costs as much as ten system calls, so that one in advance and not used is dear.
const CHUNKS: (usize, usize) = (16 * 1024, 64 * 1024);
/// Bytes of a pool.
const POOL: usize = 48 * 1024;
/// Looks at a taken lock before the processor is left to who holds it.
const SPINS: usize = 100;
const SIZES: usize = FINE / GRAIN + (LARGEST / FINE).ilog2() as usize;

/// The heap; one a program, as its global allocator.
#[derive(Debug)]
pub struct Heap(Guarded);

impl Heap {
    /// An empty heap.
    #[expect(clippy::new_without_default, reason = "it is only ever a static")]
    pub const fn new() -> Heap {
        Heap(Guarded::new())
    }
}

/// Small blocks of a program's own memory, as many as there is room for. The pages that were ever
/// used stay; nothing else does.
#[derive(Debug)]
pub(crate) struct Pool {
    blocks: Guarded,
    room: UnsafeCell<MaybeUninit<Room>>,
}

#[derive(Debug)]
#[repr(align(4096))]
struct Room(#[expect(dead_code, reason = "only its place matters")] [u8; POOL]);

// SAFETY: `room` is handed out block by block, each to one owner at a time.
unsafe impl Sync for Pool {}

impl Pool {
    pub(crate) const fn new() -> Pool {
        Pool {
            blocks: Guarded::new(),
            room: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    fn start(&self) -> usize {
        self.room.get().addr()
    }

    /// A block of that layout, if there is one.
    pub(crate) fn take(&self, layout: Layout) -> Option<*mut u8> {
        let (index, size) = class(layout)?;
        self.blocks.with(|blocks| {
            if blocks.end == 0 {
                (blocks.next, blocks.end) = (self.start(), self.start() + POOL);
            }
            blocks.take(index, size)
        })
    }

    /// Whether the block is one of the pool's.
    pub(crate) fn owns(&self, block: *mut u8) -> bool {
        block.addr().wrapping_sub(self.start()) < POOL
    }

    /// Takes back a block which it owns and gave for that layout.
    pub(crate) fn put(&self, block: *mut u8, layout: Layout) {
        if let Some((index, _)) = class(layout) {
            self.blocks.with(|blocks| blocks.put(block, index));
        }
    }
}

/// Whether the two layouts have blocks of one size.
pub(crate) fn same_size(one: Layout, other: Layout) -> bool {
    class(one).is_some() && class(one) == class(other)
}

/// Blocks, for one thread at a time.
#[derive(Debug)]
struct Guarded {
    /// Held only by the thread inside; nearly every program of this heap has one thread.
    locked: AtomicBool,
    blocks: UnsafeCell<Blocks>,
}

#[derive(Debug)]
struct Blocks {
    /// First free block of each size, 0 for none; a free block's first word is the next one's address.
    free: [usize; SIZES],
    /// The rest of the chunk in use.
    next: usize,
    end: usize,
    /// Bytes of all chunks.
    taken: usize,
}

// SAFETY: `blocks` is touched only by `with`, which lets in one thread at a time.
unsafe impl Sync for Guarded {}

impl Guarded {
    const fn new() -> Guarded {
        Guarded {
            locked: AtomicBool::new(false),
            blocks: UnsafeCell::new(Blocks {
                free: [0; SIZES],
                next: 0,
                end: 0,
                taken: 0,
            }),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Blocks) -> T) -> T {
        let mut spins = 0;
        while self.locked.swap(true, Ordering::Acquire) {
            spins += 1;
            match spins < SPINS {
                true => spin_loop(),
                false => std::thread::yield_now(),
            }
        }
        // SAFETY: this thread alone holds the lock, and `act` does not come back here.
        let done = act(unsafe { &mut *self.blocks.get() });
        self.locked.store(false, Ordering::Release);
        done
    }
}

/// Index and size in bytes of the blocks for a layout; none for what is a mapping of its own.
fn class(layout: Layout) -> Option<(usize, usize)> {
    if layout.align() > GRAIN || layout.size() > LARGEST {
        return None;
    }
    if layout.size() <= FINE {
        let grains = layout.size().div_ceil(GRAIN).max(1);
        return Some((grains - 1, grains * GRAIN));
    }
    let size = layout.size().next_power_of_two();
    Some((FINE / GRAIN + (size / FINE).ilog2() as usize - 1, size))
}

impl Blocks {
    fn take(&mut self, index: usize, size: usize) -> Option<*mut u8> {
        let first = self.free[index];
        if first != 0 {
            // SAFETY: a block of the list is free and at least a word long; `put` wrote that word.
            self.free[index] = unsafe { *(first as *const usize) };
            return Some(first as *mut u8);
        }
        if self.end - self.next < size {
            return None;
        }
        let block = self.next;
        self.next += size;
        Some(block as *mut u8)
    }

    /// As [`Blocks::take`], from a new chunk where this one has no room.
    fn take_or_grow(&mut self, index: usize, size: usize) -> *mut u8 {
        if let Some(block) = self.take(index, size) {
            return block;
        }
        let (least, most) = CHUNKS;
        let chunk = (self.taken / 4).next_multiple_of(PAGE).clamp(least, most);
        let Some(start) = map(chunk, libc::MAP_POPULATE) else {
            return null_mut();
        };
        (self.next, self.end) = (start, start + chunk);
        self.taken += chunk;
        self.take(index, size).unwrap_or(null_mut())
    }

    fn put(&mut self, block: *mut u8, index: usize) {
        // SAFETY: the block came from `take`, is at least a word long, aligned for one, and nobody's now.
        unsafe { *block.cast::<usize>() = self.free[index] };
        self.free[index] = block as usize;
    }
}

// SAFETY: a block is in use once at a time: it comes from a chunk's untouched rest or from a list, and
// returns to a list only by `dealloc`. It has the layout's size, and `GRAIN` as alignment or a page.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            Some((index, size)) => self.0.with(|blocks| blocks.take_or_grow(index, size)),
            None if layout.align() <= PAGE => {
                map(layout.size(), 0).map_or(null_mut(), |at| at as _)
            }
            None => null_mut(), // nobody asks for more than a page's alignment
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class(layout) {
            Some((index, _)) => self.0.with(|blocks| blocks.put(block, index)),
            None => {
                // SAFETY: `alloc` mapped just this many bytes here, and the caller gives them up.
                unsafe { libc::munmap(block.cast(), layout.size()) };
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return null_mut();
        };
        let (old, new) = (class(layout), class(wanted));
        if old.is_some() && old == new {
            return block;
        }
        if old.is_none() && new.is_none() {
            return remap(block, layout.size(), size);
        }
        // SAFETY: the caller keeps the contract of `alloc`: the size is not zero.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both blocks are valid for the smaller size, and the new one is nobody else's.
            unsafe { copy_nonoverlapping(block, moved, size.min(layout.size())) };
            // SAFETY: the block has this layout, and the caller has given it up.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

/// Another size for a mapping; its pages move without being touched.
fn remap(block: *mut u8, old: usize, new: usize) -> *mut u8 {
    // SAFETY: the block is a mapping of `old` bytes, which its owner has given up for what this returns.
    let moved = unsafe { libc::mremap(block.cast(), old, new, libc::MREMAP_MAYMOVE) };
    if moved == libc::MAP_FAILED {
        return null_mut();
    }
    moved.cast()
}

/// The alignment of mappings, in bytes.
const PAGE: usize = 4096;

fn map(size: usize, flags: i32) -> Option<usize> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory in use.
    let address = unsafe { libc::mmap(null_mut(), size, protection, flags, -1, 0) };
    (address != libc::MAP_FAILED).then_some(address as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_one_class_that_holds_it() {
        let mut last = None;
        for size in 1..=LARGEST {
            let (index, room) = class(Layout::from_size_align(size, 8).unwrap()).unwrap();
            assert!(room >= size && index < SIZES, "{size}");
            if let Some((before, less)) = last {
                assert!(index == before && room == less || index == before + 1 && room > less);
            }
            last = Some((index, room));
        }
        assert_eq!(last, Some((SIZES - 1, LARGEST)));
        assert!(class(Layout::from_size_align(LARGEST + 1, 1).unwrap()).is_none());
        assert!(class(Layout::from_size_align(8, 64).unwrap()).is_none());
    }

    #[test]
    fn a_pool_gives_what_it_has_and_knows_its_own() {
        static POOL_OF_TEST: Pool = Pool::new();
        let layout = Layout::from_size_align(100, 8).unwrap();
        let mut blocks: Vec<*mut u8> = std::iter::from_fn(|| POOL_OF_TEST.take(layout)).collect();
        assert_eq!(blocks.len(), POOL / 112);
        assert!(blocks.iter().all(|block| POOL_OF_TEST.owns(*block)));
        assert!(!POOL_OF_TEST.owns((&raw mut blocks).cast()));
        blocks.sort_unstable();
        assert!(
            blocks
                .windows(2)
                .all(|two| two[1].addr() - two[0].addr() >= 112)
        );
        POOL_OF_TEST.put(blocks[7], layout);
        assert_eq!(POOL_OF_TEST.take(layout), Some(blocks[7]));
        let large = Layout::from_size_align(LARGEST + 1, 8).unwrap();
        assert_eq!(POOL_OF_TEST.take(large), None);
    }

    #[test]
    fn blocks_keep_what_was_written_until_they_are_freed() {
        let heap = Heap::new();
        let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
        for round in 0..5000usize {
            let size = 1 + (round * 7919) % if round % 50 == 0 { 100_000 } else { 2000 };
            let layout = Layout::from_size_align(size, 1 << (round % 5)).unwrap();
            // SAFETY: the size is not zero.
            let block = unsafe { heap.alloc(layout) };
            assert!(!block.is_null() && block.addr() % layout.align() == 0);
            // SAFETY: the block is that long, and ours.
            unsafe { block.write_bytes(round as u8, size) };
            held.push((block, layout, round as u8));
            if round % 3 != 0 {
                let (block, layout, byte) = held.swap_remove((round * 31) % held.len());
                // SAFETY: the block is that long, and ours.
                let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
                assert!(bytes.iter().all(|&one| one == byte));
                // SAFETY: it came from this heap with this layout.
                let larger = unsafe { heap.realloc(block, layout, layout.size() * 2) };
                // SAFETY: what was there is at its start now.
                let bytes = unsafe { std::slice::from_raw_parts(larger, layout.size()) };
                assert!(bytes.iter().all(|&one| one == byte));
                let layout = Layout::from_size_align(layout.size() * 2, layout.align()).unwrap();
                // SAFETY: realloc made it that long.
                unsafe { heap.dealloc(larger, layout) };
            }
        }
    }
}
