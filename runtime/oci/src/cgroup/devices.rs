//! `linux.resources.devices` → an eBPF program of the group (cgroup-v2.rst, "Device controller").
//!
//! The program is not a controller: it works on a cgroup2 hierarchy without any. Rules apply in
//! order and the last that matches counts, so they are compiled from the last to the first.

use berth_sys::bpf::Instruction;

use super::CgroupError;
use crate::spec::config::{LinuxDeviceCgroup, LinuxDeviceType};

// linux/bpf.h, `struct bpf_cgroup_dev_ctx`: u32 access_type (access << 16 | type), major, minor.
const TYPE_BLOCK: i32 = 1;
const TYPE_CHARACTER: i32 = 2;
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;
const ACCESS_ALL: i32 = ACCESS_MKNOD | ACCESS_READ | ACCESS_WRITE;

// Registers: R1 context, then R2 type, R3 access, R4 major, R5 minor, R0 result.
const R0: u8 = 0;
const R1: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_32_REGISTER: u8 = 0xbc;
const AND_32: u8 = 0x54;
const RIGHT_SHIFT_32: u8 = 0x74;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;
/// A scratch register for the access bits.
const SCRATCH: u8 = 6;

/// One rule, resolved. `None` stands for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

/// Devices that every container may use whatever its rules say, as runc and crun have it: the default
/// nodes, terminals, and making nodes, which grants nothing by itself.
pub(super) fn rules(devices: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, CgroupError> {
    let mut out = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        out.push(rule(device).map_err(|reason| CgroupError::BadValue {
            field: format!("linux.resources.devices[{index}]"),
            reason,
        })?);
    }
    if out.is_empty() {
        return Ok(out);
    }
    let allow = |kind, major, minor, access| Rule {
        allow: true,
        kind: Some(kind),
        major,
        minor,
        access,
    };
    for kind in [TYPE_CHARACTER, TYPE_BLOCK] {
        out.push(allow(kind, None, None, ACCESS_MKNOD));
    }
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        out.push(allow(TYPE_CHARACTER, Some(major), Some(minor), ACCESS_ALL));
    }
    out.push(allow(TYPE_CHARACTER, Some(136), None, ACCESS_ALL));
    Ok(out)
}

fn rule(device: &LinuxDeviceCgroup) -> Result<Rule, String> {
    let kind = match device.kind {
        None | Some(LinuxDeviceType::All) => None,
        Some(LinuxDeviceType::Block) => Some(TYPE_BLOCK),
        Some(LinuxDeviceType::Character | LinuxDeviceType::Unbuffered) => Some(TYPE_CHARACTER),
        Some(LinuxDeviceType::Fifo) => {
            return Err("a named pipe is no device of the controller".into());
        }
    };
    // −1 stands for any, as in the rules of v1.
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => i32::try_from(value)
            .ok()
            .filter(|n| *n >= 0)
            .map(Some)
            .ok_or("is not a device number"),
    };
    let letters = match device.access.as_str() {
        "" => "rwm",
        letters => letters,
    };
    let mut access = 0;
    for letter in letters.chars() {
        access |= match letter {
            'r' => ACCESS_READ,
            'w' => ACCESS_WRITE,
            'm' => ACCESS_MKNOD,
            other => return Err(format!("`{other}` is not one of r, w, m")),
        };
    }
    Ok(Rule {
        allow: device.allow,
        kind,
        major: number(device.major)?,
        minor: number(device.minor)?,
        access,
    })
}

/// The program for these rules; without a match access is denied, as the kernel's default of v1.
pub(super) fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        load(KIND, 0),
        register(MOVE_32_REGISTER, ACCESS, KIND),
        immediate(RIGHT_SHIFT_32, ACCESS, 16),
        immediate(AND_32, KIND, 0xffff),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        code.extend(compile(rule));
        if rule.kind.is_none()
            && rule.major.is_none()
            && rule.minor.is_none()
            && rule.access == ACCESS_ALL
        {
            return code; // decides everything: the verifier refuses what can never be reached
        }
    }
    code.extend(answer(false));
    code
}

fn compile(rule: &Rule) -> Vec<Instruction> {
    let mut checks: Vec<Vec<Instruction>> = Vec::new();
    let equals = |of: u8, value: i32| vec![immediate(JUMP_NOT_EQUAL, of, value)];
    if let Some(kind) = rule.kind {
        checks.push(equals(KIND, kind));
    }
    if rule.access != ACCESS_ALL {
        // An allowing rule must cover all that is asked, a denying one any part of it.
        let mut check = vec![register(MOVE_32_REGISTER, SCRATCH, ACCESS)];
        if rule.allow {
            check.push(immediate(AND_32, SCRATCH, ACCESS_ALL & !rule.access));
            check.push(immediate(JUMP_NOT_EQUAL, SCRATCH, 0));
        } else {
            check.push(immediate(AND_32, SCRATCH, rule.access));
            check.push(Instruction {
                code: JUMP_EQUAL,
                ..immediate(JUMP_NOT_EQUAL, SCRATCH, 0)
            });
        }
        checks.push(check);
    }
    if let Some(major) = rule.major {
        checks.push(equals(MAJOR, major));
    }
    if let Some(minor) = rule.minor {
        checks.push(equals(MINOR, minor));
    }
    // Back to front: the jump at the end of a failed check leads behind the rule's answer.
    let mut code: Vec<Instruction> = answer(rule.allow).to_vec();
    for mut check in checks.into_iter().rev() {
        if let Some(jump) = check.last_mut() {
            jump.offset = i16::try_from(code.len()).unwrap_or(i16::MAX);
        }
        check.extend(code);
        code = check;
    }
    code
}

const JUMP_EQUAL: u8 = 0x15;

fn answer(allow: bool) -> [Instruction; 2] {
    [
        immediate(MOVE, R0, i32::from(allow)),
        Instruction {
            code: EXIT,
            registers: 0,
            offset: 0,
            immediate: 0,
        },
    ]
}

fn load(into: u8, offset: i16) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        registers: into | R1 << 4,
        offset,
        immediate: 0,
    }
}

fn register(code: u8, into: u8, from: u8) -> Instruction {
    Instruction {
        code,
        registers: into | from << 4,
        offset: 0,
        immediate: 0,
    }
}

fn immediate(code: u8, into: u8, value: i32) -> Instruction {
    Instruction {
        code,
        registers: into,
        offset: 0,
        immediate: value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets what the emitter uses of eBPF.
    fn allows(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let mut registers = [0i64; 11];
        let mut at = 0usize;
        loop {
            let step = program[at];
            at += 1;
            let into = usize::from(step.registers & 15);
            let from = usize::from(step.registers >> 4);
            let jump = |holds: bool| if holds { step.offset as usize } else { 0 };
            match step.code {
                LOAD_WORD => {
                    registers[into] =
                        i64::from([access << 16 | kind, major, minor][step.offset as usize / 4])
                }
                MOVE => registers[into] = i64::from(step.immediate),
                MOVE_32_REGISTER => registers[into] = registers[from],
                AND_32 => registers[into] &= i64::from(step.immediate),
                RIGHT_SHIFT_32 => registers[into] >>= step.immediate,
                JUMP_NOT_EQUAL => at += jump(registers[into] != i64::from(step.immediate)),
                JUMP_EQUAL => at += jump(registers[into] == i64::from(step.immediate)),
                EXIT => return registers[0] == 1,
                code => panic!("unknown operation {code:#x}"),
            }
        }
    }

    #[test]
    fn the_last_matching_rule_counts() {
        let devices = r#"[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":10,"minor":200,"access":"rwm"},
            {"allow":true,"type":"b","major":8,"access":"r"},
            {"allow":false,"type":"b","major":8,"minor":3,"access":"rw"}]"#;
        let devices: Vec<LinuxDeviceCgroup> = serde_json::from_str(devices).unwrap();
        let program = program(&rules(&devices).unwrap());
        for (kind, access, major, minor, allowed) in [
            (TYPE_CHARACTER, ACCESS_READ | ACCESS_WRITE, 10, 200, true),
            (TYPE_CHARACTER, ACCESS_READ, 10, 201, false),
            (TYPE_BLOCK, ACCESS_READ, 8, 0, true),
            (TYPE_BLOCK, ACCESS_READ | ACCESS_WRITE, 8, 0, false),
            (TYPE_BLOCK, ACCESS_READ, 8, 3, false),
            (TYPE_BLOCK, ACCESS_MKNOD, 8, 3, true),
            (TYPE_CHARACTER, ACCESS_READ | ACCESS_WRITE, 1, 3, true),
            (TYPE_CHARACTER, ACCESS_WRITE, 136, 17, true),
            (TYPE_CHARACTER, ACCESS_READ, 1, 1, false),
        ] {
            assert_eq!(
                allows(&program, kind, access, major, minor),
                allowed,
                "{kind} {access} {major}:{minor}"
            );
        }
    }

    #[test]
    fn an_allow_all_rule_ends_the_program() {
        let devices: Vec<LinuxDeviceCgroup> =
            serde_json::from_str(r#"[{"allow":false},{"allow":true,"access":"rwm"}]"#).unwrap();
        let program = program(&rules(&devices).unwrap());
        assert!(allows(&program, TYPE_BLOCK, ACCESS_ALL, 8, 0));
        assert_eq!(program.last().map(|last| last.code), Some(EXIT));
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            r#"[{"allow":true,"access":"rx"}]"#,
            r#"[{"allow":true,"major":-2}]"#,
            r#"[{"allow":true,"type":"p"}]"#,
        ] {
            let devices: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
            assert!(rules(&devices).is_err(), "{json}");
        }
    }
}
