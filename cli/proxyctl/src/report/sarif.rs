//! Findings as SARIF 2.1.0, which code hosts show beside the lines of a change.

use std::collections::BTreeSet;

use proxy_config::{Code, FileReport, Finding};
use serde_json::{Map, Value, json};

use crate::validate::word;

pub(crate) fn sarif(reports: &[FileReport]) -> Value {
    let used: BTreeSet<Code> =
        reports.iter().flat_map(|report| &report.findings).map(|finding| finding.code).collect();
    let used: Vec<Code> = used.into_iter().collect();
    let rules: Vec<_> = used.iter().map(|code| rule(*code)).collect();
    let results: Vec<_> = reports
        .iter()
        .flat_map(|report| report.findings.iter().map(|finding| result(report, finding, &used)))
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "proxyctl", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(code: Code) -> Value {
    json!({
        "id": code.0,
        "shortDescription": {"text": code.summary()},
        "fullDescription": {"text": code.explanation()},
    })
}

fn result(report: &FileReport, finding: &Finding, rules: &[Code]) -> Value {
    let text = match &finding.hint {
        Some(hint) => format!("{}; {hint}", finding.message),
        None => finding.message.clone(),
    };
    let file = match &finding.place {
        Some(place) => place.file.to_string(),
        None => report.path.to_string_lossy().into_owned(),
    };
    let mut physical = Map::new();
    physical.insert("artifactLocation".to_owned(), json!({"uri": uri(&file)}));
    if let Some(place) = &finding.place {
        physical.insert("region".to_owned(), json!({"startLine": place.line, "startColumn": place.column}));
    }
    let mut location = Map::new();
    location.insert("physicalLocation".to_owned(), physical.into());
    if !finding.path.is_empty() {
        location.insert("logicalLocations".to_owned(), json!([{"fullyQualifiedName": finding.path}]));
    }
    json!({
        "ruleId": finding.code.0,
        "ruleIndex": rules.iter().position(|code| *code == finding.code),
        "level": word(finding.severity),
        "message": {"text": text},
        "locations": [location],
    })
}

/// A relative reference, or a file URI for a path from the root (RFC 3986).
fn uri(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let encoded: String = path
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    if encoded.starts_with('/') { format!("file://{encoded}") } else { encoded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri("a b/c.yaml"), "a%20b/c.yaml");
        assert_eq!(uri("/etc/envoy.yaml"), "file:///etc/envoy.yaml");
    }
}
