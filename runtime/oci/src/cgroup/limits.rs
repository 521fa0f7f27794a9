//! Writing the limits of a group, new or in use, and its device filter.

use std::collections::BTreeSet;

use berth_sys::bpf;

use super::resources::{self, Setting};
use super::{Cgroup, CgroupError, NotEnforced, devices};
use crate::spec::config::LinuxResources;

/// The name of our device filters in the kernel, by which an update finds the one to replace.
pub(super) const FILTER_NAME: &str = "berth_devices";

impl Cgroup {
    /// Sets limits. Those whose controller the group does not have come back by name; what asks for
    /// no limit (`max`) is met anyway.
    pub fn apply(&self, resources: &LinuxResources) -> Result<Vec<NotEnforced>, CgroupError> {
        let settings = resources::settings(resources)?;
        let mut not_enforced = self.set_all(settings)?;
        not_enforced.extend(self.filter_devices(resources)?);
        Ok(not_enforced)
    }

    /// Changes limits of a group in use: of all that `resources` asks for, those below the fields of
    /// `linux.resources` that are named in `touched`. A device filter takes the old one's place at
    /// once; an empty list of devices leaves it.
    pub fn update(
        &self,
        resources: &LinuxResources,
        touched: &BTreeSet<String>,
    ) -> Result<Vec<NotEnforced>, CgroupError> {
        let is_touched = |setting: &Setting| {
            let group = setting.field.split('.').next().unwrap_or_default();
            touched.contains(group)
        };
        let mut settings = resources::settings(resources)?;
        settings.retain(is_touched);
        if let Some(memory) = resources
            .memory
            .as_ref()
            .filter(|_| touched.contains("memory"))
            && let Some(refused) = resources::above_limit(memory, self.memory_in_use())
        {
            return Err(refused);
        }
        let mut not_enforced = self.set_all(settings)?;
        if touched.contains("devices") {
            not_enforced.extend(self.filter_devices(resources)?);
        }
        Ok(not_enforced)
    }

    /// Bytes of memory in use, and of memory and swap together.
    fn memory_in_use(&self) -> (u64, u64) {
        let stats = self.stats();
        let memory = stats.memory_current.unwrap_or(0);
        (memory, memory + stats.swap_current.unwrap_or(0))
    }

    /// Writes all settings. Two limits may bound each other (a burst and its quota), and which comes
    /// first depends on what was: what the kernel finds invalid is tried again after the others.
    fn set_all(&self, settings: Vec<Setting>) -> Result<Vec<NotEnforced>, CgroupError> {
        let present = self.controllers()?;
        let mut not_enforced = Vec::new();
        let mut again = Vec::new();
        for setting in settings {
            let limits = setting.value != "max" && !setting.value.starts_with("max ");
            if !present.contains(setting.controller) {
                let reason = format!(
                    "the group has no {} controller in cgroup v2",
                    setting.controller
                );
                not_enforced.extend(limits.then(|| lacking(&setting, reason)));
                continue;
            }
            match self.set(&setting) {
                Err(error) if error.is_errno(libc::EINVAL) => again.push(setting),
                done => not_enforced.extend(done?),
            }
        }
        for setting in again {
            not_enforced.extend(self.set(&setting)?);
        }
        Ok(not_enforced)
    }

    fn set(&self, setting: &Setting) -> Result<Option<NotEnforced>, CgroupError> {
        let mut written = self.write(&setting.file, &setting.value);
        if let Some((file, value)) = &setting.otherwise
            && written.as_ref().is_err_and(CgroupError::is_not_found)
        {
            written = self.write(file, value);
        }
        match written {
            // Kernels without swap accounting lack the file: without swap no limit is exceeded.
            Err(error) if setting.file == "memory.swap.max" && error.is_not_found() => Ok(None),
            Err(error) if setting.otherwise.is_some() && error.is_not_found() => Ok(Some(lacking(
                setting,
                format!("the kernel has neither {} nor io.weight", setting.file),
            ))),
            done => done.map(|()| None),
        }
    }

    /// Restricts device nodes; says why not, where the privilege for that lacks.
    fn filter_devices(
        &self,
        resources: &LinuxResources,
    ) -> Result<Option<NotEnforced>, CgroupError> {
        let rules = devices::rules(&resources.devices)?;
        if rules.is_empty() {
            return Ok(None);
        }
        let program = bpf::load_device_filter(FILTER_NAME, &devices::program(&rules));
        match program.and_then(|program| bpf::replace_device_filter(self, FILTER_NAME, program)) {
            Ok(()) => Ok(None),
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EPERM | libc::EACCES | libc::ENOSYS)
                ) =>
            {
                Ok(Some(NotEnforced {
                    field: "linux.resources.devices".into(),
                    reason: format!("the kernel takes no device filter from here: {error}"),
                }))
            }
            Err(source) => Err(CgroupError::Access {
                action: "filter the devices of",
                path: self.path().to_owned(),
                source,
            }),
        }
    }
}

fn lacking(setting: &Setting, reason: String) -> NotEnforced {
    NotEnforced {
        field: format!("linux.resources.{}", setting.field),
        reason,
    }
}
