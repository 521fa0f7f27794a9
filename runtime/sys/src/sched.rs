//! Where and when a process runs: scheduling class, I/O priority, CPUs, memory nodes, execution
//! domain. Each setter is for the calling thread and what it starts, each with its way to read back.

use std::io;

/// The highest number of a CPU or memory node in a [`Mask`], plus one.
pub const MASK_BITS: usize = 8192;

const WORDS: usize = MASK_BITS / 64;

/// A set of CPUs or memory nodes, bit n for number n.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(Box<[u64; WORDS]>);

impl Mask {
    /// The set of these numbers; `None` when one is beyond [`MASK_BITS`].
    pub fn of(numbers: impl IntoIterator<Item = usize>) -> Option<Mask> {
        let mut words = Box::new([0u64; WORDS]);
        for number in numbers {
            *words.get_mut(number / 64)? |= 1 << (number % 64);
        }
        Some(Mask(words))
    }

    /// The numbers in the set, in order.
    pub fn numbers(&self) -> Vec<usize> {
        let is_in = |number: &usize| self.0[number / 64] & 1 << (number % 64) != 0;
        (0..MASK_BITS).filter(is_in).collect()
    }
}

/// `struct sched_attr` (sched_setattr(2), version 2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Scheduler {
    /// The size of the structure; set where it is passed.
    pub size: u32,
    /// `SCHED_*` number.
    pub policy: u32,
    /// `SCHED_FLAG_*` bits.
    pub flags: u64,
    /// −20 to 19, of the ordinary policies.
    pub nice: i32,
    /// 1 to 99, of the real-time policies.
    pub priority: u32,
    /// Nanoseconds of CPU in each period (deadline policy).
    pub runtime: u64,
    /// Nanoseconds from the period's start by which they are given.
    pub deadline: u64,
    /// Nanoseconds of one period.
    pub period: u64,
    /// Lower bound of utilisation, 0 to 1024.
    pub util_min: u32,
    /// Upper bound of utilisation, 0 to 1024.
    pub util_max: u32,
}

/// Puts the calling thread under a scheduling policy. Real time and deadline need CAP_SYS_NICE.
pub fn set_scheduler(scheduler: &Scheduler) -> io::Result<()> {
    let mut raw = *scheduler;
    raw.size = size_of::<Scheduler>() as u32;
    // SAFETY: `raw` is a sched_attr of the size it names and outlives the call, which only reads it.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const raw, 0) }).map(drop)
}

/// The scheduling policy of the calling thread.
pub fn scheduler() -> io::Result<Scheduler> {
    let mut raw = Scheduler::default();
    let size = size_of::<Scheduler>() as u32;
    // SAFETY: `raw` is writable, has the size passed, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut raw, size, 0) })?;
    raw.size = 0;
    Ok(raw)
}

/// `IOPRIO_WHO_PROCESS` of linux/ioprio.h.
const WHO_PROCESS: i32 = 1;
/// Where the class begins in an I/O priority.
const CLASS_SHIFT: u32 = 13;

/// Sets class (1 real time, 2 best effort, 3 idle) and level (0 highest to 7) of the calling
/// thread's I/O (ioprio_set(2)). Real time needs CAP_SYS_NICE or CAP_SYS_ADMIN.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    let value = i32::from(class) << CLASS_SHIFT | i32::from(level);
    // SAFETY: three numbers, no memory.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) }).map(drop)
}

/// Class and level of the calling thread's I/O.
pub fn io_priority() -> io::Result<(u8, u8)> {
    // SAFETY: two numbers, no memory.
    let value = check(unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) })?;
    Ok(((value >> CLASS_SHIFT & 7) as u8, (value & 7) as u8))
}

/// Lets the calling thread run on these CPUs only (sched_setaffinity(2)); those which its cgroup
/// does not have are left out.
///
/// # Errors
/// `EINVAL` when none is left.
pub fn set_affinity(cpus: &Mask) -> io::Result<()> {
    let size = size_of::<[u64; WORDS]>();
    // SAFETY: the mask has the size passed and outlives the call, which only reads it.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, cpus.0.as_ptr()) }).map(drop)
}

/// The CPUs that the calling thread may run on.
pub fn affinity() -> io::Result<Mask> {
    let mut words = Box::new([0u64; WORDS]);
    let size = size_of::<[u64; WORDS]>();
    // SAFETY: the mask is writable, has the size passed, and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size, words.as_mut_ptr()) })?;
    Ok(Mask(words))
}

/// Sets the execution domain (personality(2)).
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: one number, no memory.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

/// The execution domain.
pub fn personality() -> io::Result<u32> {
    // SAFETY: this number asks and changes nothing; no memory.
    check(unsafe { libc::syscall(libc::SYS_personality, 0xffff_ffff as libc::c_ulong) })
        .map(|domain| domain as u32)
}

/// Sets the NUMA policy for memory that the calling thread uses (set_mempolicy(2)): mode with its
/// flags, and the nodes; no nodes for the modes that take none.
pub fn set_memory_policy(mode: u32, nodes: Option<&Mask>) -> io::Result<()> {
    // The kernel takes one bit less than it is told.
    let (pointer, bits) = match nodes {
        Some(nodes) => (nodes.0.as_ptr(), highest(nodes) + 2),
        None => (std::ptr::null(), 0),
    };
    // SAFETY: `pointer` is null with no bits, or points at a mask with more than that many bits
    // which outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}

fn highest(mask: &Mask) -> usize {
    mask.numbers().last().copied().unwrap_or(0)
}

/// The NUMA policy of the calling thread: mode with flags, and its nodes.
pub fn memory_policy() -> io::Result<(u32, Mask)> {
    let mut mode = 0i32;
    let mut words = Box::new([0u64; WORDS]);
    let none = std::ptr::null::<u8>();
    // SAFETY: the mode and the mask of the size passed are writable and outlive the call; no
    // address is asked about.
    check(unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            words.as_mut_ptr(),
            MASK_BITS,
            none,
            0,
        )
    })?;
    Ok((mode as u32, Mask(words)))
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_back() {
        // On a thread of its own: it all belongs to the thread.
        std::thread::spawn(|| {
            let batch = Scheduler {
                policy: 3,
                nice: 5,
                ..Scheduler::default()
            };
            set_scheduler(&batch).unwrap();
            let read = scheduler().unwrap();
            assert_eq!((read.policy, read.nice), (3, 5));
            set_io_priority(2, 6).unwrap();
            assert_eq!(io_priority().unwrap(), (2, 6));
            let first = affinity().unwrap().numbers()[0];
            set_affinity(&Mask::of([first]).unwrap()).unwrap();
            assert_eq!(affinity().unwrap().numbers(), [first]);
            set_personality(8).unwrap();
            assert_eq!(personality().unwrap(), 8);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_mask_holds_what_it_was_made_of() {
        let mask = Mask::of([0, 63, 64, MASK_BITS - 1]).unwrap();
        assert_eq!(mask.numbers(), [0, 63, 64, MASK_BITS - 1]);
        assert_eq!(Mask::of([MASK_BITS]), None);
    }
}
