//! Requested against observed: pure. Each rule here is a normalisation of docs/sandbox-record.md.

mod credentials;
mod limits;
mod mounts;
mod sysctls;

pub(super) use mounts::is_mask;

use std::fmt::Debug;

use super::observed::Observed;
use super::own::Own;
use super::schema::{Finding, ReadAt, Requested};

/// What a comparison found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) mismatches: Vec<Finding>,
    pub(super) degraded: Vec<Finding>,
}

impl Findings {
    fn differs(&mut self, field: &str, asked: impl Debug, got: impl Debug) {
        self.mismatches.push(Finding {
            field: field.to_owned(),
            reason: format!("asked {asked:?}, got {got:?}"),
        });
    }

    fn wrong(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.mismatches.push(Finding {
            field: field.into(),
            reason: reason.into(),
        });
    }

    fn weaker(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.degraded.push(Finding {
            field: field.into(),
            reason: reason.into(),
        });
    }

    /// Where something was asked, it must be what was got.
    fn same<T: PartialEq + Debug>(&mut self, field: &str, asked: &Option<T>, got: &Option<T>) {
        match (asked, got) {
            (None, _) => {}
            (Some(asked), Some(got)) if asked == got => {}
            (Some(asked), Some(got)) => self.differs(field, asked, got),
            (Some(asked), None) => self.wrong(field, format!("asked {asked:?}, got nothing")),
        }
    }
}

/// One comparison.
struct Comparison<'a> {
    requested: &'a Requested,
    observed: &'a Observed,
    own: &'a Own,
    read_at: ReadAt,
    out: Findings,
}

/// Compares all fields.
pub(super) fn compare(
    requested: &Requested,
    observed: &Observed,
    own: &Own,
    read_at: ReadAt,
) -> Findings {
    let mut comparison = Comparison {
        requested,
        observed,
        own,
        read_at,
        out: Findings::default(),
    };
    comparison.out.degraded.clone_from(&observed.unread);
    comparison.capabilities();
    comparison.privileges();
    comparison.ids();
    comparison.namespaces();
    if requested.mounts.is_some() {
        comparison.mounts();
        comparison.protected_paths();
    }
    comparison.cgroup();
    comparison.limits();
    comparison.process();
    comparison.out
}

impl Comparison<'_> {
    /// Whether the process has executed its program already.
    fn after_exec(&self) -> bool {
        self.read_at == ReadAt::ExecStop
    }

    fn namespaces(&mut self) {
        let seen = self
            .observed
            .applied
            .namespaces
            .as_deref()
            .unwrap_or_default();
        let mut expect = |kind: &str, found: u64, fine: bool, asked: &str| {
            if !fine {
                let reason = format!("asked {asked}, got inode {found}");
                self.out.wrong(format!("namespaces.{kind}"), reason);
            }
        };
        for namespace in seen {
            let kind = namespace.kind.as_str();
            let found = namespace.inode.unwrap_or_default();
            let host = self.own.namespaces.get(kind).copied();
            if self.requested.context.exec {
                let target = self.observed.target_namespaces.get(kind).copied();
                expect(kind, found, target == Some(found), "the container's");
                continue;
            }
            let mut asked = self.requested.namespaces.iter().flatten();
            match asked.find(|asked| asked.kind == kind) {
                Some(asked) if asked.of == "new" => {
                    expect(kind, found, host != Some(found), "a new one");
                }
                Some(asked) if asked.of == "pod" => {
                    let fine = asked.inode == Some(found);
                    expect(kind, found, fine, &format!("inode {:?}", asked.inode));
                }
                // Asked by nobody: the reader's own.
                _ => expect(kind, found, host == Some(found), "the host's"),
            }
        }
    }

    fn cgroup(&mut self) {
        let got = self.observed.applied.cgroup.as_deref();
        if let Some(asked) = self.requested.cgroup.as_deref()
            && got != Some(asked)
            && (got.is_none() || got != self.observed.target_cgroup.as_deref())
        {
            self.out.differs("cgroup", asked, got);
        }
    }

    fn process(&mut self) {
        let (asked, got) = (self.requested, &self.observed.applied);
        let adjusted = asked.oom_score_adj.is_none() || asked.oom_score_adj == got.oom_score_adj;
        // Only below what it was takes a privilege.
        let lowered = asked.oom_score_adj < got.oom_score_adj;
        if !adjusted && lowered && !self.own.may_raise() {
            let reason = format!("stays {:?}: no CAP_SYS_RESOURCE", got.oom_score_adj);
            self.out.weaker("oom_score_adj", reason);
        } else if !adjusted {
            let (asked, got) = (asked.oom_score_adj, got.oom_score_adj);
            self.out.differs("oom_score_adj", asked, got);
        }
        if self.after_exec() {
            self.out.same("umask", &asked.umask, &got.umask);
        }
        if !self.observed.same_cwd {
            self.out.differs("cwd", &asked.cwd, &got.cwd);
        }
        if asked.environment != got.environment && self.after_exec() {
            let names = |one: &Option<super::schema::Environment>| {
                one.as_ref()
                    .map(|one| one.names.clone())
                    .unwrap_or_default()
            };
            let (asked, got) = (names(&asked.environment), names(&got.environment));
            if asked == got {
                self.out.wrong("environment", "values differ");
            } else {
                self.out.differs("environment", asked, got);
            }
        }
        let program = self.observed.program.and_then(|program| program.as_asked);
        if program == Some(false) && self.after_exec() {
            self.out
                .differs("executable", &asked.executable, &got.executable);
        }
        self.descriptors();
        self.sysctls();
    }

    fn descriptors(&mut self) {
        let got = self.observed.applied.descriptors.iter().flatten();
        let extra: Vec<String> = got
            .filter(|(number, _)| **number >= 3 + self.requested.context.preserved)
            .map(|(number, target)| format!("{number} → {target}"))
            .collect();
        if !extra.is_empty() {
            let reason = format!("nobody asked for {}", extra.join(", "));
            self.out.wrong("descriptors", reason);
        }
    }
}
