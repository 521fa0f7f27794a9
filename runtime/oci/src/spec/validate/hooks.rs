//! `hooks` → [`Hooks`].

use std::time::Duration;

use super::Errors;
use crate::plan::{Hook, Hooks};
use crate::spec::config::{Hook as SpecHook, Spec};

pub(super) fn plan(spec: &Spec, errors: &mut Errors) -> Hooks {
    let Some(hooks) = &spec.hooks else {
        return Hooks::default();
    };
    let mut list = |name: &str, hooks: &[SpecHook]| -> Vec<Hook> {
        let hooks = hooks.iter().enumerate();
        hooks
            .map(|(index, hook)| one(hook, name, index, errors))
            .collect()
    };
    // The specification runs prestart before createRuntime, at the same point.
    let mut create_runtime = list("prestart", &hooks.prestart);
    create_runtime.extend(list("createRuntime", &hooks.create_runtime));
    Hooks {
        create_runtime,
        create_container: list("createContainer", &hooks.create_container),
        start_container: list("startContainer", &hooks.start_container),
        poststart: list("poststart", &hooks.poststart),
        poststop: list("poststop", &hooks.poststop),
    }
}

fn one(hook: &SpecHook, list: &str, index: usize, errors: &mut Errors) -> Hook {
    let field = format!("hooks.{list}[{index}]");
    if !hook.path.is_absolute() {
        errors.add(
            format!("{field}.path"),
            format!("`{}` is not absolute", hook.path.display()),
        );
    }
    let timeout = hook.timeout.map(|seconds| {
        u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds > 0)
            .unwrap_or_else(|| {
                errors.add(format!("{field}.timeout"), "is not above 0");
                1
            })
    });
    let mut env = Vec::new();
    for entry in &hook.env {
        match entry.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                env.push((name.to_owned(), value.to_owned()))
            }
            _ => errors.add(
                format!("{field}.env"),
                format!("`{entry}` is not NAME=VALUE"),
            ),
        }
    }
    Hook {
        name: format!("{list} hook #{index}"),
        path: hook.path.clone(),
        args: hook.args.clone(),
        env,
        timeout: timeout.map(Duration::from_secs),
    }
}
