//! `process.scheduler`, `ioPriority`, `execCPUAffinity`, `linux.personality`, `linux.memoryPolicy`.

use berth_sys::sched::{MASK_BITS, Mask, Scheduler};

use super::Errors;
use crate::plan::{IoPriority, MemoryPolicy, Schedule};
use crate::spec::config::{
    self, IoPriorityClass, Linux, LinuxPersonalityDomain, MemoryPolicyFlag,
    MemoryPolicyMode as Mode, Process, SchedulerFlag as Flag, SchedulerPolicy as Policy,
};

pub(super) fn plan(path: &str, process: &Process, linux: &Linux, errors: &mut Errors) -> Schedule {
    let affinity = process.exec_cpu_affinity.as_ref();
    let mut cpus = |field: &str, list: Option<&String>| {
        let list = list.filter(|list| !list.is_empty())?;
        mask(&format!("{path}.execCPUAffinity.{field}"), list, errors)
    };
    let initial_cpus = cpus("initial", affinity.map(|all| &all.initial));
    let final_cpus = cpus("final", affinity.map(|all| &all.last));
    Schedule {
        scheduler: process
            .scheduler
            .as_ref()
            .and_then(|asked| scheduler(&format!("{path}.scheduler"), asked, errors)),
        io_priority: io_priority(path, process, errors),
        initial_cpus,
        final_cpus,
        personality: personality(linux, errors),
        memory: memory_policy(linux, errors),
    }
}

/// The rules are those of runc, which the kernel does not tell apart in its EINVAL.
fn scheduler(field: &str, asked: &config::Scheduler, errors: &mut Errors) -> Option<Scheduler> {
    let policy = match asked.policy {
        Policy::Other => 0,
        Policy::Fifo => 1,
        Policy::Rr => 2,
        Policy::Batch => 3,
        Policy::Idle => 5,
        Policy::Deadline => 6,
        Policy::Iso => {
            let never = "`SCHED_ISO` was never part of Linux";
            errors.add(format!("{field}.policy"), never);
            return None;
        }
    };
    let nice = asked.nice.unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        errors.add(format!("{field}.nice"), "is not within −20 … 19");
    }
    let priority = asked.priority.unwrap_or(0);
    let real_time = matches!(asked.policy, Policy::Fifo | Policy::Rr);
    if real_time && !(1..=99).contains(&priority) {
        errors.add(format!("{field}.priority"), "is not within 1 … 99");
    } else if !real_time && priority != 0 {
        let only = "is only for SCHED_FIFO and SCHED_RR";
        errors.add(format!("{field}.priority"), only);
    }
    let [runtime, deadline, period] =
        [asked.runtime, asked.deadline, asked.period].map(|time| time.unwrap_or(0));
    for (name, time) in [
        ("runtime", runtime),
        ("deadline", deadline),
        ("period", period),
    ] {
        if time != 0 && asked.policy != Policy::Deadline {
            errors.add(format!("{field}.{name}"), "is only for SCHED_DEADLINE");
        }
    }
    let flags = asked.flags.iter();
    Some(Scheduler {
        policy,
        flags: flags.fold(0, |bits, flag| bits | flag_bit(*flag)),
        nice,
        priority: u32::try_from(priority).unwrap_or(0),
        runtime,
        deadline,
        period,
        ..Scheduler::default()
    })
}

/// `SCHED_FLAG_*` of linux/sched.h.
fn flag_bit(flag: Flag) -> u64 {
    match flag {
        Flag::ResetOnFork => 0x01,
        Flag::Reclaim => 0x02,
        Flag::DlOverrun => 0x04,
        Flag::KeepPolicy => 0x08,
        Flag::KeepParams => 0x10,
        Flag::UtilClampMin => 0x20,
        Flag::UtilClampMax => 0x40,
    }
}

fn io_priority(path: &str, process: &Process, errors: &mut Errors) -> Option<IoPriority> {
    let asked = process.io_priority.as_ref()?;
    let level = u8::try_from(asked.priority).unwrap_or(u8::MAX);
    if level > 7 {
        let field = format!("{path}.ioPriority.priority");
        errors.add(field, "is not within 0 … 7");
    }
    let class = match asked.class {
        IoPriorityClass::RealTime => 1,
        IoPriorityClass::BestEffort => 2,
        IoPriorityClass::Idle => 3,
    };
    Some(IoPriority { class, level })
}

fn personality(linux: &Linux, errors: &mut Errors) -> Option<u32> {
    let asked = linux.personality.as_ref()?;
    if !asked.flags.is_empty() {
        let none = "the specification knows no flag";
        errors.add("linux.personality.flags", none);
    }
    Some(match asked.domain {
        LinuxPersonalityDomain::Linux => 0,
        LinuxPersonalityDomain::Linux32 => 8,
    })
}

/// Which modes take nodes, and which flags go together, is told by set_mempolicy(2).
fn memory_policy(linux: &Linux, errors: &mut Errors) -> Option<MemoryPolicy> {
    let asked = linux.memory_policy.as_ref()?;
    let field = "linux.memoryPolicy";
    let list = asked.nodes.as_str();
    let nodes = match list {
        "" => None,
        list => mask(&format!("{field}.nodes"), list, errors),
    };
    let (number, wants_nodes) = match asked.mode {
        Mode::Default => (0, Some(false)),
        Mode::Preferred => (1, None),
        Mode::Bind => (2, Some(true)),
        Mode::Interleave => (3, Some(true)),
        Mode::Local => (4, Some(false)),
        Mode::PreferredMany => (5, Some(true)),
        Mode::WeightedInterleave => (6, Some(true)),
    };
    match wants_nodes {
        Some(true) if list.is_empty() => {
            errors.add(format!("{field}.nodes"), "are missing for this mode");
        }
        Some(false) if !list.is_empty() => {
            errors.add(format!("{field}.nodes"), "are not taken by this mode");
        }
        _ => {}
    }
    let flags = asked.flags.iter();
    let flags = flags.fold(0, |bits, flag| bits | memory_flag(*flag));
    let both =
        memory_flag(MemoryPolicyFlag::StaticNodes) | memory_flag(MemoryPolicyFlag::RelativeNodes);
    if flags & both == both {
        let apart = "static and relative nodes exclude each other";
        errors.add(format!("{field}.flags"), apart);
    }
    let balancing = memory_flag(MemoryPolicyFlag::NumaBalancing);
    if flags & balancing != 0 && asked.mode != Mode::Bind {
        let only = "MPOL_F_NUMA_BALANCING is only for MPOL_BIND";
        errors.add(format!("{field}.flags"), only);
    }
    Some(MemoryPolicy {
        mode: number | flags,
        nodes,
    })
}

/// `MPOL_F_*` of linux/mempolicy.h.
fn memory_flag(flag: MemoryPolicyFlag) -> u32 {
    match flag {
        MemoryPolicyFlag::NumaBalancing => 1 << 13,
        MemoryPolicyFlag::RelativeNodes => 1 << 14,
        MemoryPolicyFlag::StaticNodes => 1 << 15,
    }
}

/// `0-3,7`: numbers and ranges, as cpusets write them (cpuset(7), "List format").
fn mask(field: &str, list: &str, errors: &mut Errors) -> Option<Mask> {
    let found = numbers(list).and_then(Mask::of);
    if found.is_none() {
        errors.add(
            field,
            format!("`{list}` is not a list of numbers below {MASK_BITS}"),
        );
    }
    found
}

fn numbers(list: &str) -> Option<Vec<usize>> {
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<usize>()
            .ok()
            .filter(|n| plain && *n < MASK_BITS)
    };
    let mut out = Vec::new();
    for part in list.split(',') {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        out.extend(first..=last);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_numbers_and_ranges_and_nothing_else() {
        assert_eq!(numbers("0-3,7"), Some(vec![0, 1, 2, 3, 7]));
        assert_eq!(numbers("1, 4-4"), Some(vec![1, 4]));
        for list in [
            "", ",", "1,", "-1", "3-1", "1-", "a", "+1", "1-2-3", "8192", "1 2",
        ] {
            assert_eq!(numbers(list), None, "{list}");
        }
    }
}
