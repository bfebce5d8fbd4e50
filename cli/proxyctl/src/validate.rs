//! `proxyctl validate config`.

use std::process::ExitCode;

use proxy_config::{FileReport, Finding, LoadOptions, Severity};
use serde_json::{Value, json};

use crate::arguments::ValidateConfig;
use crate::output::Output;

/// 0: all can be run; 1: some have errors; 2: some cannot be read.
pub(crate) fn config(arguments: &ValidateConfig, output: &mut Output) -> ExitCode {
    let options = LoadOptions { allow_unsupported: arguments.allow_unsupported, ..LoadOptions::default() };
    let reports = proxy_config::validate(&arguments.files, &options);
    if arguments.json {
        output.json(&reports.iter().map(report_json).collect());
    } else {
        reports.iter().for_each(|report| print(report, output));
    }
    if reports.iter().any(|report| report.unreadable) {
        ExitCode::from(2)
    } else if reports.iter().any(FileReport::has_errors) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

fn print(report: &FileReport, output: &mut Output) {
    for finding in &report.findings {
        // Without a place of its own a finding still says which file it is about.
        match finding.place {
            Some(_) => output.line(&finding.to_string()),
            None => output.line(&format!("{}: {finding}", report.path.display())),
        }
    }
    if !report.has_errors() {
        output.line(&format!("{}: OK", report.path.display()));
    }
}

fn report_json(report: &FileReport) -> Value {
    json!({
        "file": report.path.to_string_lossy(),
        "ok": !report.has_errors(),
        "findings": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn finding_json(finding: &Finding) -> Value {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let place = finding.place.as_ref();
    json!({
        "severity": severity,
        "code": finding.code.to_string(),
        "message": finding.message,
        "path": finding.path,
        "file": place.map(|place| &*place.file),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
    })
}
