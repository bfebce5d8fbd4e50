//! How this process was started, and how another one is started in its place.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use proxy_control::BaseId;

/// A program and its command line, without the program's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// What was started, as a path that stays good when the file there is replaced by a newer one.
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
}

/// What is to be different in the next process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub program: Option<PathBuf>,
    /// `-c`.
    pub config: Option<PathBuf>,
}

impl Invocation {
    /// The same again, to replace a process of `base_id`. To be completed by [`Invocation::to_validate`] or
    /// [`Invocation::to_take_over`].
    pub(crate) fn successor(&self, changes: &Changes, base_id: BaseId) -> Invocation {
        let program = changes.program.clone().unwrap_or_else(|| self.program.clone());
        let mut dropped = vec![("--restart-epoch", Takes::Value), ("--mode", Takes::Value)];
        // Looks for a base-id that is free, which that of a running process is not.
        dropped.push(("--use-dynamic-base-id", Takes::Nothing));
        if changes.config.is_some() {
            dropped.extend(["-c", "--config-path", "--from", "--to"].map(|name| (name, Takes::Value)));
        }
        let dynamic = self.arguments.iter().any(|argument| argument == "--use-dynamic-base-id");
        let mut arguments = without(&self.arguments, &dropped);
        if dynamic {
            arguments.extend(["--base-id".into(), base_id.to_string().into()]);
        }
        if let Some(config) = &changes.config {
            arguments.extend(["--config-path".into(), config.into()]);
        }
        Invocation { program, arguments }
    }

    /// Only looks at the configuration.
    pub(crate) fn to_validate(&self) -> Invocation {
        self.with(["--mode", "validate"])
    }

    /// Takes over from the process that leads.
    pub(crate) fn to_take_over(&self) -> Invocation {
        self.with(["--restart-epoch", "auto"])
    }

    fn with(&self, more: [&str; 2]) -> Invocation {
        let mut invocation = self.clone();
        invocation.arguments.extend(more.map(OsString::from));
        invocation
    }

    /// For messages.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Value,
    Nothing,
}

/// `arguments` without options of these names: `--name value`, `--name=value`, `-nvalue`.
fn without(arguments: &[OsString], names: &[(&str, Takes)]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let found = names.iter().find_map(|(name, takes)| Some((takes, matching(argument, name)?)));
        match found {
            None => kept.push(argument.clone()),
            Some((Takes::Value, Form::Alone)) => drop(arguments.next()),
            Some(_) => {}
        }
    }
    kept
}

enum Form {
    Alone,
    WithValue,
}

fn matching(argument: &OsStr, name: &str) -> Option<Form> {
    let rest = argument.as_bytes().strip_prefix(name.as_bytes())?;
    match rest {
        [] => Some(Form::Alone),
        [b'=', ..] => Some(Form::WithValue),
        _ if !name.starts_with("--") => Some(Form::WithValue),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn successor(line: &str, config: Option<&str>) -> String {
        let arguments = line.split_whitespace().map(OsString::from).collect();
        let invocation = Invocation { program: "proxyd".into(), arguments };
        let changes = Changes { program: None, config: config.map(PathBuf::from) };
        let next = invocation.successor(&changes, BaseId(7));
        next.arguments.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn what_belongs_to_one_start_is_not_passed_on() {
        assert_eq!(successor("run -c a.yaml --restart-epoch 3 -l info", None), "run -c a.yaml -l info");
        assert_eq!(successor("run --mode=serve --restart-epoch=auto", None), "run");
        assert_eq!(successor("run --use-dynamic-base-id -l info", None), "run -l info --base-id 7");
    }

    #[test]
    fn another_file_stands_for_what_was_configured() {
        for line in
            ["run -c a.yaml", "run -ca.yaml", "run --config-path a.yaml", "run --from 1:1 --to tcp://a:1"]
        {
            assert_eq!(successor(line, Some("b.yaml")), "run --config-path b.yaml", "{line}");
        }
        assert_eq!(
            successor(
                "run -c a.yaml --config-yaml {} --concurrency 2 --component-log-level dns:info",
                Some("b.yaml")
            ),
            "run --config-yaml {} --concurrency 2 --component-log-level dns:info --config-path b.yaml"
        );
    }
}
