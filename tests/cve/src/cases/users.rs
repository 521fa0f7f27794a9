//! Who a process becomes, and what it may.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use berth_test_harness::Need;
use rustix::fs::{XattrFlags, setxattr};
use serde_json::json;

use crate::arena::Arena;
use crate::bundle::Bundle;
use crate::case::{Case, Findings, Verdict};
use crate::container::Output;
use crate::probe::Report;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "user-that-is-no-number",
        ids: &["CVE-2026-30892", "G6"],
        what: "`exec --user` with numbers, and with what only looks like one (`+1`, ` 1`, `0x0`, \
               `1root`, 2^32 …): the very user, or refused; never root",
        needs: &[Need::Root],
        run: user_table,
    },
    Case {
        name: "inheritable-capabilities",
        ids: &[
            "CVE-2022-29162",
            "CVE-2022-24769",
            "CVE-2022-27650",
            "CVE-2022-27652",
        ],
        what: "create and exec, root and another user: the inheritable and ambient sets are empty, \
               and a program with inheritable file capabilities gains nothing",
        needs: &[Need::Root],
        run: inheritable,
    },
    Case {
        name: "capabilities-of-another-user",
        ids: &["CVE-2016-8867"],
        what: "user 1000 with the default capabilities: none is permitted or effective, created \
               or executed",
        needs: &[Need::Root],
        run: another_user,
    },
    Case {
        name: "raw-sockets-by-default",
        ids: &["CVE-2020-14386", "CVE-2021-22555"],
        what: "the template of `spec`: no packet socket, and nobody may ping by default",
        needs: &[Need::Root],
        run: raw_sockets,
    },
];

/// What is given as user, and who it must be if it is taken.
const USERS: [(&str, Option<u32>); 17] = [
    ("1", Some(1)),
    ("1:1", Some(1)),
    ("65534", Some(65534)),
    ("4294967294", Some(4_294_967_294)),
    ("+1", None),
    (" 1", None),
    ("1 ", None),
    ("-1", None),
    ("0x0", None),
    ("1root", None),
    ("4294967295", None),
    ("4294967296", None),
    ("18446744073709551616", None),
    ("1:", None),
    (":1", None),
    ("1:-1", None),
    ("", None),
];

fn user_table(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let bundle = arena.bundle("image", &["wait"])?;
    let container = bundle.start()?;
    for (text, wanted) in USERS {
        let output = container.exec(&["--user", text], &["report"])?;
        if !output.ok() {
            findings.refused();
            // a refusal of what is right would prove nothing
            let broken = wanted.is_some_and(|uid| uid < 65535);
            findings.demand(!broken, || {
                format!("`{text}` is refused: {}", output.stderr)
            });
            continue;
        }
        findings.made();
        let uid = user_of(&output.report()?);
        match wanted {
            Some(wanted) => {
                findings.demand(uid == Some(wanted), || format!("`{text}` becomes {uid:?}"))
            }
            None => findings.demand(uid.is_some_and(|uid| uid != 0), || {
                format!("`{text}` becomes {uid:?}")
            }),
        }
    }
    Ok(findings.verdict())
}

/// The one number of the four ids, if they are equal.
fn user_of(report: &Report) -> Option<u32> {
    let ids = report.status.get("Uid")?.split_whitespace();
    let mut ids: Vec<u32> = ids.filter_map(|id| id.parse().ok()).collect();
    ids.dedup();
    match ids.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

/// A program that would get CAP_NET_RAW from the inheritable set (capabilities(7), version 2 of
/// the attribute: magic with the effective bit, then permitted and inheritable).
const NET_RAW_IF_INHERITED: [u32; 5] = [0x0200_0001, 0, 1 << 13, 0, 0];

fn inheritable(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let mut bundle = arena.bundle("image", &["report"])?;
    let program = bundle.inside("bin/capable");
    fs::copy(arena.probe(), &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let attribute: Vec<u8> = NET_RAW_IF_INHERITED
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    setxattr(
        &program,
        "security.capability",
        &attribute,
        XattrFlags::empty(),
    )?;
    bundle.spec["process"]["noNewPrivileges"] = json!(false);
    each_way(
        &mut bundle,
        &["/bin/probe", "/bin/capable"],
        &mut |uid, program, output| {
            findings.made();
            let report = output.report()?;
            for set in ["CapInh", "CapAmb"] {
                findings.demand(is_empty(&report, set), || {
                    format!("{set} of user {uid} is {}", report.status[set])
                });
            }
            let gained = program == "/bin/capable" && uid != 0 && !is_empty(&report, "CapPrm");
            findings.demand(!gained, || {
                format!(
                    "the program's capabilities give user {uid} {}",
                    report.status["CapPrm"]
                )
            });
            Ok(())
        },
    )?;
    Ok(findings.verdict())
}

fn another_user(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let mut bundle = arena.bundle("image", &["report"])?;
    each_way(&mut bundle, &["/bin/probe"], &mut |uid, _, output| {
        findings.made();
        let report = output.report()?;
        for set in ["CapPrm", "CapEff", "CapAmb"] {
            findings.demand(uid == 0 || is_empty(&report, set), || {
                format!("{set} of user {uid} is {}", report.status[set])
            });
        }
        Ok(())
    })?;
    Ok(findings.verdict())
}

/// Judges one process of a user.
type Judge<'a> = &'a mut dyn FnMut(u32, &str, &Output) -> Result<()>;

/// Runs the programs as root and as user 1000: created, executed by flags, executed by a file.
fn each_way(bundle: &mut Bundle<'_>, programs: &[&str], judge: Judge<'_>) -> Result<()> {
    for program in programs {
        for uid in [0, 1000] {
            bundle.spec["process"]["user"] = json!({"uid": uid, "gid": uid});
            bundle.spec["process"]["args"] = json!([program, "report"]);
            judge(uid, program, &bundle.run()?.expect("run")?)?;
        }
    }
    bundle.spec["process"]["user"] = json!({"uid": 0, "gid": 0});
    bundle.arguments(&["wait"]);
    let container = bundle.start()?;
    let file = bundle.folder().join("process.json");
    let name = file.display().to_string();
    for program in programs {
        for uid in [0, 1000] {
            let user = uid.to_string();
            let by_flags = ["exec", "--user", &user, "ID", program, "report"];
            judge(uid, program, &container.call(&by_flags)?.expect("exec")?)?;
            let mut process = bundle.spec["process"].clone();
            process["user"] = json!({"uid": uid, "gid": uid});
            process["args"] = json!([program, "report"]);
            fs::write(&file, process.to_string())?;
            let by_file = container.call(&["exec", "--process", &name, "ID"])?;
            judge(uid, program, &by_file.expect("exec --process")?)?;
        }
    }
    Ok(())
}

fn is_empty(report: &Report, set: &str) -> bool {
    let value = report.status.get(set).map(String::as_str);
    value.is_some_and(|value| value.bytes().all(|digit| digit == b'0'))
}

fn raw_sockets(arena: &Arena) -> Result<Verdict> {
    let mut findings = Findings::default();
    let mut bundle = arena.bundle("image", &[])?;
    let place = bundle.folder().join("config.json");
    let template = bundle.container()?;
    fs::remove_file(&place)?;
    template.call(&["spec"])?.expect("spec")?;
    bundle.spec = serde_json::from_slice(&fs::read(&place)?)?;
    bundle.spec["process"]["terminal"] = json!(false);
    bundle.arguments(&["packet-socket"]);
    let answer = bundle.run()?.expect("run")?.stdout;
    findings.made();
    findings.demand(answer.starts_with("errno"), || {
        "a packet socket can be opened".into()
    });
    bundle.arguments(&["print", "/proc/sys/net/ipv4/ping_group_range"]);
    let range = bundle.run()?.expect("run")?.stdout;
    findings.made();
    let words: Vec<&str> = range.split_whitespace().collect();
    findings.demand(words == ["1", "0"], || format!("groups {range:?} may ping"));
    Ok(findings.verdict())
}
