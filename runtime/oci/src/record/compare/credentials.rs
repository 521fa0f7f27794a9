//! Who the process is and what it may do, with the rules of execve (capabilities(7), credentials(7)).

use crate::capability;
use crate::record::schema::{Capabilities, Ids, ReadAt};

use super::Comparison;

impl Comparison<'_> {
    /// The asked sets, as far as the runtime had them itself, as execve transforms them.
    pub(super) fn capabilities(&mut self) {
        let (Some(asked), Some(got)) = (
            self.requested.capabilities,
            self.observed.applied.capabilities,
        ) else {
            return;
        };
        let missing = asked.permitted & !self.own.status.permitted;
        if missing != 0 {
            let names = capability::names(missing).join(", ");
            let reason = format!("the runtime itself lacks {names}");
            self.out.weaker("capabilities", reason);
        }
        let possible = self.possible(asked);
        let expected = match self.read_at {
            ReadAt::ExecStop => self.after_execve(possible),
            _ => possible,
        };
        // Loading a filter without no_new_privs takes CAP_SYS_ADMIN, which then goes last.
        let filter = self.requested.seccomp.as_ref();
        let late = !self.after_exec()
            && self.requested.no_new_privs != Some(true)
            && filter.is_some_and(|filter| filter.mode == "filter");
        let kept = if late { capability::SYS_ADMIN } else { 0 };
        let sets = [
            ("bounding", expected.bounding, got.bounding, 0),
            ("effective", expected.effective, got.effective, kept),
            ("permitted", expected.permitted, got.permitted, kept),
            ("inheritable", expected.inheritable, got.inheritable, 0),
            ("ambient", expected.ambient, got.ambient, 0),
        ];
        let privileged = self.after_exec() && self.file_grants();
        for (name, expected, got, kept) in sets {
            let bounded = ["effective", "permitted"].contains(&name) && privileged;
            // What the file's own capabilities come to is bounded, not computed again.
            let fine = if bounded {
                got & !(possible.bounding | possible.inheritable | possible.ambient) == 0
            } else {
                got & !kept == expected & !kept
            };
            if !fine {
                let (asked, got) = (capability::names(expected), capability::names(got));
                let field = format!("capabilities.{name}");
                self.out.differs(&field, asked, got);
            }
        }
    }

    fn possible(&self, asked: Capabilities) -> Capabilities {
        let own = &self.own.status;
        // In a user namespace of its own the process starts with all of them.
        let maps = self.observed.applied.id_maps.as_ref();
        let all = maps.is_some_and(|maps| !maps.uid.is_empty());
        let permitted = if all { u64::MAX } else { own.permitted };
        let bounding = if all { u64::MAX } else { own.bounding };
        Capabilities {
            bounding: asked.bounding & bounding,
            effective: asked.effective & permitted,
            permitted: asked.permitted & permitted,
            inheritable: asked.inheritable & permitted,
            ambient: asked.ambient & permitted,
        }
    }

    /// P'(permitted) and the rest for a file without capabilities, for root and for others.
    fn after_execve(&self, before: Capabilities) -> Capabilities {
        let uid = self.outside(self.requested.uids.unwrap_or_default().effective);
        let root = self.namespace_root();
        let permitted = if uid == root {
            before.bounding | before.inheritable
        } else {
            before.ambient
        };
        Capabilities {
            permitted,
            effective: permitted,
            ambient: before.ambient,
            ..before
        }
    }

    /// A user id as this process sees it: an exec asks with the container's own.
    fn outside(&self, uid: u32) -> u32 {
        let maps = self.observed.applied.id_maps.as_ref();
        match maps {
            Some(maps) if self.requested.context.exec => outside(&maps.uid, uid),
            _ => uid,
        }
    }

    /// The id that is 0 in the process's user namespace.
    fn namespace_root(&self) -> u32 {
        let maps = self.observed.applied.id_maps.as_ref();
        let lines = maps.map(|maps| maps.uid.as_slice()).unwrap_or_default();
        match lines.iter().find(|line| line[0] == 0) {
            Some(line) => line[1],
            None => 0,
        }
    }

    /// Whether the program's own bits or capabilities count: not with no_new_privs.
    fn file_grants(&self) -> bool {
        let Some(program) = self.observed.program else {
            return false;
        };
        self.requested.no_new_privs != Some(true)
            && (program.capabilities || program.mode & 0o6000 != 0)
    }

    pub(super) fn privileges(&mut self) {
        let (asked, got) = (self.requested, &self.observed.applied);
        if got.no_new_privs.is_none() {
            return; // no process was looked at
        }
        // What the runtime has itself is inherited, for ever.
        let inherited = self.own.status.no_new_privs && got.no_new_privs == Some(true);
        if asked.no_new_privs != got.no_new_privs && !inherited {
            self.out
                .differs("no_new_privs", asked.no_new_privs, got.no_new_privs);
        }
        self.seccomp();
        if let Some(asked) = &asked.lsm_label {
            // The kernel adds the mode: `name (enforce)`. Before execve the label is the runtime's.
            let name = got.lsm_label.as_deref();
            let name = name.map(|label| label.split(" (").next().unwrap_or(label));
            if self.after_exec() && name != Some(asked.as_str()) {
                self.out.differs("lsm_label", asked, &got.lsm_label);
            }
        } else if got.lsm_label != self.own.label {
            self.out
                .differs("lsm_label", &self.own.label, &got.lsm_label);
        }
    }

    fn seccomp(&mut self) {
        let (Some(asked), Some(got)) = (&self.requested.seccomp, &self.observed.applied.seccomp)
        else {
            return;
        };
        if !self.after_exec() {
            return; // it is loaded later
        }
        if asked.mode != got.mode {
            self.out.differs("seccomp.mode", &asked.mode, &got.mode);
        } else if got.filters.is_empty() && !asked.filters.is_empty() {
            let reason = "the kernel does not give filters back; the digest is of what was loaded";
            self.out.weaker("seccomp.filters", reason);
        } else if asked.filters != got.filters {
            self.out
                .differs("seccomp.filters", &asked.filters, &got.filters);
        }
    }

    pub(super) fn ids(&mut self) {
        let (asked, got) = (self.requested, &self.observed.applied);
        let maps = got.id_maps.clone().unwrap_or_default();
        let uids = self.granted(asked.uids, &maps.uid, 0o4000, |program| program.uid);
        let gids = self.granted(asked.gids, &maps.gid, 0o2000, |program| program.gid);
        let mut groups = asked.groups.clone();
        if asked.context.exec {
            for group in groups.iter_mut().flatten() {
                *group = outside(&maps.gid, *group);
            }
        }
        self.out.same("uids", &uids, &got.uids);
        self.out.same("gids", &gids, &got.gids);
        self.out.same("groups", &groups, &got.groups);
        self.out.same("id_maps", &asked.id_maps, &got.id_maps);
    }

    /// The asked ids, changed as a set-id program changes them: such an entrypoint keeps its right.
    fn granted(
        &self,
        asked: Option<Ids>,
        maps: &[[u32; 3]],
        bit: u32,
        owner: impl Fn(&crate::record::observed::Program) -> u32,
    ) -> Option<Ids> {
        let mut asked = asked?;
        if self.requested.context.exec {
            asked = Ids::all(outside(maps, asked.real));
        }
        let program = self.observed.program.as_ref();
        let changed = program.filter(|program| {
            self.after_exec()
                && self.requested.no_new_privs != Some(true)
                && program.mode & bit != 0
        });
        Some(match changed {
            None => asked,
            Some(program) => Ids {
                real: asked.real,
                ..Ids::all(owner(program))
            },
        })
    }
}

/// What `id` inside a namespace with these maps is outside.
fn outside(maps: &[[u32; 3]], id: u32) -> u32 {
    let mut lines = maps.iter();
    let line = lines.find(|[inside, _, count]| id >= *inside && id - inside < *count);
    line.map_or(id, |[inside, outside, _]| outside + (id - inside))
}
