//! `$(VAR)` in env values, commands and arguments.
//!
//! Kubernetes API, `EnvVar.value`: `$(NAME)` of a known variable is replaced, an unknown
//! one is left as it is, `$$` is one dollar sign.

/// Expands `text`; `lookup` answers for known variables.
#[must_use]
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Expands with a list of variables; the last of a name counts.
#[must_use]
pub fn expand_with(text: &str, envs: &[(String, String)]) -> String {
    expand(text, |name| {
        let found = envs.iter().rev().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_follows_the_api() {
        let envs = [
            ("A".to_owned(), "1".to_owned()),
            ("B".into(), "$(A)".into()),
        ];
        for (text, expected) in [
            ("x$(A)y", "x1y"),
            ("$(B)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("a$", "a$"),
            ("", ""),
        ] {
            assert_eq!(expand_with(text, &envs), expected, "{text}");
        }
    }
}
