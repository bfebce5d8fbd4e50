//! What was found in files, in the forms that people and programs read.

mod sarif;
mod text;

pub(crate) use sarif::sarif;
pub(crate) use text::text;

use proxy_config::{FileReport, Finding};
use serde_json::{Value, json};

use crate::validate::word;

pub(crate) fn json(reports: &[FileReport]) -> Value {
    reports.iter().map(report_json).collect()
}

fn report_json(report: &FileReport) -> Value {
    json!({
        "file": report.path.to_string_lossy(),
        "ok": !report.has_errors(),
        "findings": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
    })
}

fn finding_json(finding: &Finding) -> Value {
    let place = finding.place.as_ref();
    json!({
        "severity": word(finding.severity),
        "code": finding.code.to_string(),
        "message": finding.message,
        "hint": finding.hint,
        "path": finding.path,
        "file": place.map(|place| &*place.file),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
    })
}
