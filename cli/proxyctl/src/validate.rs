//! `proxyctl validate config` and `proxyctl explain`.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use proxy_config::{Code, FileReport, LintOptions, LoadOptions, Severity, ValidateOptions};

use crate::arguments::{Deny, Explain, Format, Profile, Reading, ValidateConfig};
use crate::output::Output;
use crate::report;

/// 0: all can be run; 1: some have errors, or warnings that are denied; 2: some cannot be read.
pub(crate) fn config(arguments: &ValidateConfig, output: &mut Output) -> ExitCode {
    let files = match files(&arguments.files) {
        Ok(files) => files,
        Err(error) => {
            output.tell(&format!("proxyctl: {error:#}"));
            return ExitCode::from(2);
        }
    };
    let lint = LintOptions { edge: arguments.profile == Some(Profile::Edge) };
    let load = LoadOptions { lint: Some(lint), ..load_options(&arguments.reading) };
    let options = ValidateOptions { load, no_files: arguments.reading.no_files };
    let reports = proxy_config::validate(&files, &options);
    match arguments.format.unwrap_or(if arguments.json { Format::Json } else { Format::Text }) {
        Format::Text => report::text(&reports, output),
        Format::Json => output.json(&report::json(&reports)),
        Format::Sarif => output.json(&report::sarif(&reports)),
    }
    let denied = arguments.deny == Some(Deny::Warnings);
    let refuses = |report: &FileReport| report.has_errors() || (denied && !report.findings.is_empty());
    if reports.iter().any(|report| report.unreadable) {
        ExitCode::from(2)
    } else if reports.iter().any(refuses) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

/// What the options on reading come to.
pub(crate) fn load_options(reading: &Reading) -> LoadOptions {
    LoadOptions {
        allow_unsupported: reading.allow_unsupported,
        environment: reading.env_substitution.then(|| proxy_config::variables(env::vars_os())),
        ..LoadOptions::default()
    }
}

/// All files, with those of folders in the order of their names; `-` is standard input.
fn files(named: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if path.as_os_str() == "-" {
            files.push(PathBuf::from("/dev/stdin"));
        } else if path.is_dir() {
            let before = files.len();
            list(path, 0, &mut files).with_context(|| path.display().to_string())?;
            if files.len() == before {
                bail!("{} holds no .yaml, .yml, .json or .pb file", path.display());
            }
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Names that begin with a dot are left out: editors and Kubernetes keep there what is not meant to be seen.
fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            paths.push(entry.path());
        }
    }
    paths.sort();
    for path in paths {
        let suffix = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if path.is_dir() {
            if depth < MAX_FOLDERS && !path.is_symlink() {
                list(&path, depth + 1, files)?;
            }
        } else if ["yaml", "yml", "json", "pb"].contains(&suffix.as_str()) {
            files.push(path);
        }
    }
    Ok(())
}

/// What a code means; without one, all of them.
pub(crate) fn explain(arguments: &Explain, output: &mut Output) -> anyhow::Result<()> {
    let Some(name) = &arguments.code else {
        for code in Code::all() {
            output.line(&format!("{:<24} {}", code.to_string(), code.summary()));
        }
        return Ok(());
    };
    let Some(code) = Code::named(name) else {
        bail!("there is no code `{name}`; `proxyctl explain` lists them");
    };
    output.line(&format!("{code}: {}", code.explanation()));
    Ok(())
}

/// How a severity is called.
pub(crate) fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// Folders within folders.
const MAX_FOLDERS: usize = 32;
