//! Loading a small eBPF program and attaching it to a cgroup (bpf(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One eBPF instruction (`struct bpf_insn` of linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low, source register in the high four bits.
    pub registers: u8,
    /// Signed offset: of a jump in instructions, of an access in bytes.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_PROG_QUERY: i32 = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of nested groups all have to allow.
const BPF_F_ALLOW_MULTI: u32 = 2;
/// Takes the place of `replace`, Linux 5.6.
const BPF_F_REPLACE: u32 = 4;
/// The most programs of one group that are looked at; the kernel's own bound (`BPF_CGROUP_MAX_PROGS`).
const MAX_PROGRAMS: usize = 64;
/// `BPF_OBJ_NAME_LEN`, with the final zero byte.
const NAME_LENGTH: usize = 16;

/// The part of `union bpf_attr` for `BPF_PROG_LOAD` that is used; the kernel takes the rest as zero.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_LENGTH],
}

/// The part for `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`.
#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replace: u32,
}

/// The part for `BPF_PROG_QUERY`; the kernel writes `count` and the ids.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    kind: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    /// Named, so that it is zero: the kernel refuses anything else behind the last field.
    padding: u32,
}

/// The part for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    object: u32,
    length: u32,
    info: u64,
}

/// The start of `struct bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    /// Of the machine code, of the instructions; bytes.
    lengths: [u32; 2],
    /// Where to write them, in the same order.
    instructions: [u64; 2],
    load_time: u64,
    creator: u32,
    map_count: u32,
    maps: u64,
    name: [u8; NAME_LENGTH],
}

/// bpf(2). `attr` may point at memory that the kernel reads or writes; see each caller.
///
/// # Safety
/// Every pointer inside `attr` is valid for what `command` does with it, for the whole call.
unsafe fn bpf<T>(command: i32, attr: &mut T) -> io::Result<i64> {
    // SAFETY: `attr` has the size passed; what it points at is the caller's obligation.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(rc)
}

/// Loads a program that decides about access to device nodes, under a name of at most 15 bytes. Needs
/// `CAP_BPF` and `CAP_NET_ADMIN`, or `CAP_SYS_ADMIN`.
pub fn load_device_filter(name: &str, program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        name: name_bytes(name),
        ..LoadAttr::default()
    };
    // SAFETY: `attr` points at `count` instructions and a C string, which outlive the call and are
    // only read.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }?;
    // SAFETY: the call returned a new descriptor, close-on-exec, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn name_bytes(name: &str) -> [u8; NAME_LENGTH] {
    let mut bytes = [0; NAME_LENGTH];
    let length = name.len().min(NAME_LENGTH - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

/// Attaches a device filter to the cgroup2 directory `cgroup`, where it stays as long as the group,
/// in place of those of this name: there is no moment without a filter.
pub fn replace_device_filter(cgroup: impl AsFd, name: &str, program: impl AsFd) -> io::Result<()> {
    let cgroup = cgroup.as_fd();
    let mut old = Vec::new();
    for id in attached(cgroup)? {
        match program_by_id(id) {
            Ok(fd) if name_of(&fd)? == name_bytes(name) => old.push(fd),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // detached meanwhile
            Err(error) => return Err(error),
        }
    }
    let first = old.first();
    let mut attr = AttachAttr {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_fd().as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI | first.map_or(0, |_| BPF_F_REPLACE),
        replace: first.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // SAFETY: `attr` holds no pointers; the descriptors are borrowed and open.
    unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }?;
    for fd in old.iter().skip(1) {
        let mut attr = AttachAttr {
            target: cgroup.as_raw_fd() as u32,
            program: fd.as_raw_fd() as u32,
            kind: BPF_CGROUP_DEVICE,
            ..AttachAttr::default()
        };
        // SAFETY: as above.
        unsafe { bpf(BPF_PROG_DETACH, &mut attr) }?;
    }
    Ok(())
}

/// Ids of the device filters attached to this very group.
fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target: cgroup.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..QueryAttr::default()
    };
    // SAFETY: `ids` has room for `count` numbers and outlives the call.
    unsafe { bpf(BPF_PROG_QUERY, &mut attr) }?;
    ids.truncate(attr.count as usize);
    Ok(ids)
}

fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: `attr` is the id, a second number and flags, all plain.
    let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) }?;
    // SAFETY: the call returned a new descriptor, close-on-exec, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn name_of(program: &OwnedFd) -> io::Result<[u8; NAME_LENGTH]> {
    let mut info = ProgramInfo::default();
    let mut attr = InfoAttr {
        object: program.as_raw_fd() as u32,
        length: size_of::<ProgramInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: `info` has the length passed and outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info.name)
}

/// The most instructions of a program that are read: far above what rules compile to.
const MAX_INSTRUCTIONS: usize = 16384;

/// The device filters of this name which are attached to this very group. Needs `CAP_SYS_ADMIN`.
pub fn device_filters(cgroup: impl AsFd, name: &str) -> io::Result<Vec<Vec<Instruction>>> {
    let mut out = Vec::new();
    for id in attached(cgroup.as_fd())? {
        let program = program_by_id(id)?;
        if name_of(&program)? == name_bytes(name) {
            out.push(instructions(&program)?);
        }
    }
    Ok(out)
}

/// The instructions of a loaded program, as the verifier left them: for a device filter what was
/// loaded, but for branches that can never be taken.
pub fn instructions(program: &OwnedFd) -> io::Result<Vec<Instruction>> {
    let none = Instruction {
        code: 0,
        registers: 0,
        offset: 0,
        immediate: 0,
    };
    let mut code = vec![none; MAX_INSTRUCTIONS];
    let mut info = ProgramInfo {
        lengths: [0, (MAX_INSTRUCTIONS * size_of::<Instruction>()) as u32],
        instructions: [0, code.as_mut_ptr() as u64],
        ..ProgramInfo::default()
    };
    let mut attr = InfoAttr {
        object: program.as_raw_fd() as u32,
        length: size_of::<ProgramInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: `info` has the length passed and points at a buffer of the length it names; both outlive
    // the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    code.truncate(info.lengths[1] as usize / size_of::<Instruction>());
    Ok(code)
}
