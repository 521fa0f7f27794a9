//! `linux.seccomp`.

use std::path::PathBuf;

use super::table::{object, words};

object! {
    /// A filter of system calls.
    LinuxSeccomp {
        /// What happens to a call that no rule is about.
        default_action: LinuxSeccompAction = required "defaultAction",
        /// Error number of the default action.
        default_errno_ret: Option<u32> = optional "defaultErrnoRet",
        /// Calling conventions besides the machine's own.
        architectures: Vec<Arch> = optional "architectures",
        /// How the filter is loaded.
        flags: Vec<LinuxSeccompFlag> = optional "flags",
        /// Socket of who decides the calls of `SCMP_ACT_NOTIFY`.
        listener_path: PathBuf = optional "listenerPath",
        /// What that is told besides.
        listener_metadata: String = optional "listenerMetadata",
        /// The rules.
        syscalls: Vec<LinuxSyscall> = optional "syscalls",
    }

    /// A rule.
    LinuxSyscall {
        /// Names of calls.
        names: Vec<String> = required "names",
        /// What happens to them.
        action: LinuxSeccompAction = required "action",
        /// Error number of the action.
        errno_ret: Option<u32> = optional "errnoRet",
        /// Conditions.
        args: Vec<LinuxSeccompArg> = optional "args",
    }

    /// A condition on an argument.
    LinuxSeccompArg {
        /// Which, 0 to 5.
        index: u64 = required "index",
        /// What it is compared with; the mask of a masked comparison.
        value: u64 = required "value",
        /// What the masked argument is compared with.
        value_two: Option<u64> = optional "valueTwo",
        /// How.
        op: LinuxSeccompOperator = required "op",
    }
}

words! {
    /// What happens to a call (seccomp(2)).
    LinuxSeccompAction {
        /// As `KillThread`.
        Kill = "SCMP_ACT_KILL",
        /// The thread is killed.
        KillThread = "SCMP_ACT_KILL_THREAD",
        /// The process is killed.
        KillProcess = "SCMP_ACT_KILL_PROCESS",
        /// SIGSYS.
        Trap = "SCMP_ACT_TRAP",
        /// It fails with an error number.
        Errno = "SCMP_ACT_ERRNO",
        /// A listener decides.
        Notify = "SCMP_ACT_NOTIFY",
        /// A tracer decides.
        Trace = "SCMP_ACT_TRACE",
        /// It is made and logged.
        Log = "SCMP_ACT_LOG",
        /// It is made.
        Allow = "SCMP_ACT_ALLOW",
    }

    /// A comparison.
    LinuxSeccompOperator {
        /// Equal.
        Eq = "SCMP_CMP_EQ",
        /// Not equal.
        Ne = "SCMP_CMP_NE",
        /// Less.
        Lt = "SCMP_CMP_LT",
        /// Less or equal.
        Le = "SCMP_CMP_LE",
        /// Greater or equal.
        Ge = "SCMP_CMP_GE",
        /// Greater.
        Gt = "SCMP_CMP_GT",
        /// Equal where a mask has bits.
        MaskedEq = "SCMP_CMP_MASKED_EQ",
    }

    /// How a filter is loaded (seccomp(2)).
    LinuxSeccompFlag {
        /// For all threads.
        Tsync = "SECCOMP_FILTER_FLAG_TSYNC",
        /// Its actions are logged.
        Log = "SECCOMP_FILTER_FLAG_LOG",
        /// Without the mitigation of speculative store bypass.
        SpecAllow = "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        /// Who waits for a listener can only be killed.
        WaitKillableRecv = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    }

    /// A calling convention, by libseccomp's name.
    Arch {
        /// The machine's own.
        Native = "SCMP_ARCH_NATIVE",
        /// x86, 32 bits.
        X86 = "SCMP_ARCH_X86",
        /// x86, 64 bits.
        X86_64 = "SCMP_ARCH_X86_64",
        /// x86, 64 bits with short pointers.
        X32 = "SCMP_ARCH_X32",
        /// Another machine's.
        Arm = "SCMP_ARCH_ARM",
        /// Another machine's.
        Aarch64 = "SCMP_ARCH_AARCH64",
        /// Another machine's.
        Loongarch64 = "SCMP_ARCH_LOONGARCH64",
        /// Another machine's.
        M68k = "SCMP_ARCH_M68K",
        /// Another machine's.
        Mips = "SCMP_ARCH_MIPS",
        /// Another machine's.
        Mips64 = "SCMP_ARCH_MIPS64",
        /// Another machine's.
        Mips64n32 = "SCMP_ARCH_MIPS64N32",
        /// Another machine's.
        Mipsel = "SCMP_ARCH_MIPSEL",
        /// Another machine's.
        Mipsel64 = "SCMP_ARCH_MIPSEL64",
        /// Another machine's.
        Mipsel64n32 = "SCMP_ARCH_MIPSEL64N32",
        /// Another machine's.
        Ppc = "SCMP_ARCH_PPC",
        /// Another machine's.
        Ppc64 = "SCMP_ARCH_PPC64",
        /// Another machine's.
        Ppc64le = "SCMP_ARCH_PPC64LE",
        /// Another machine's.
        S390 = "SCMP_ARCH_S390",
        /// Another machine's.
        S390x = "SCMP_ARCH_S390X",
        /// Another machine's.
        Parisc = "SCMP_ARCH_PARISC",
        /// Another machine's.
        Parisc64 = "SCMP_ARCH_PARISC64",
        /// Another machine's.
        Riscv64 = "SCMP_ARCH_RISCV64",
        /// Another machine's.
        Sh = "SCMP_ARCH_SH",
        /// Another machine's.
        Sheb = "SCMP_ARCH_SHEB",
    }
}
