//! Completion scripts, from the tables.

use std::fmt::Write;

use super::doc::{self, FlagDoc};
use super::{Global, VERBS};

/// A shell that has a script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shell {
    /// bash(1)
    #[default]
    Bash,
    /// fish(1)
    Fish,
    /// zsh(1)
    Zsh,
}

/// The script.
pub fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(""),
        // zsh runs bash's completions.
        Shell::Zsh => bash("#compdef berth-oci\nautoload -Uz bashcompinit && bashcompinit\n"),
        Shell::Fish => fish(),
    }
}

fn words(flags: &[FlagDoc]) -> String {
    let all = flags.iter().map(|flag| format!("--{}", flag.long));
    all.chain(["--help".into()]).collect::<Vec<_>>().join(" ")
}

fn bash(head: &str) -> String {
    let names: Vec<&str> = VERBS.iter().map(|verb| verb.name).collect();
    let mut out = format!(
        "{head}_berth_oci() {{\n    local word=\"${{COMP_WORDS[COMP_CWORD]}}\" verb=\"\" each\n    \
         for each in \"${{COMP_WORDS[@]:1:COMP_CWORD-1}}\"; do\n        case \"$each\" in\n            \
         {}) verb=\"$each\"; break ;;\n        esac\n    done\n    local flags=\"{}\"\n    case \"$verb\" in\n",
        names.join("|"),
        words(&doc::flags::<Global>()),
    );
    for verb in VERBS {
        let flags = words(&(verb.flags)());
        let _ = writeln!(out, "        {}) flags=\"$flags {flags}\" ;;", verb.name);
    }
    let _ = write!(
        out,
        "        *) flags=\"$flags {} help\" ;;\n    esac\n    \
         COMPREPLY=($(compgen -W \"$flags\" -- \"$word\"))\n    \
         [ ${{#COMPREPLY[@]}} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$word\"))\n}}\n\
         complete -o filenames -F _berth_oci berth-oci\n",
        names.join(" "),
    );
    out
}

fn fish() -> String {
    let mut out = String::new();
    let mut flag = |condition: &str, flag: &FlagDoc| {
        let short = flag.short.map(|letter| format!(" -s {letter}"));
        let value = match (flag.value, flag.choices) {
            (None, _) => String::new(),
            (Some(_), []) => " -r".to_owned(),
            (Some(_), words) => format!(" -x -a '{}'", words.join(" ")),
        };
        let _ = writeln!(
            out,
            "complete -c berth-oci{condition} -l {}{}{value} -d '{}'",
            flag.long,
            short.unwrap_or_default(),
            flag.about.replace('\'', "\\'"),
        );
    };
    for each in doc::flags::<Global>() {
        flag("", &each);
    }
    for verb in VERBS {
        let condition = format!(" -n '__fish_seen_subcommand_from {}'", verb.name);
        for each in (verb.flags)() {
            flag(&condition, &each);
        }
    }
    for verb in VERBS {
        let about = verb.about.replace('\'', "\\'");
        let _ = writeln!(
            out,
            "complete -c berth-oci -n __fish_use_subcommand -f -a {} -d '{about}'",
            verb.name,
        );
    }
    out
}
