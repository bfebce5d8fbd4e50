//! `proxyctl coverage`.

use std::slice;

use anyhow::bail;
use proxy_config::{Code, Finding, ValidateOptions};
use serde_json::{Value, json};

use crate::arguments::Coverage;
use crate::output::Output;

/// What a file uses and is not supported is an error.
pub(crate) fn coverage(arguments: &Coverage, output: &mut Output) -> anyhow::Result<()> {
    let Some(file) = &arguments.file else {
        all(arguments.json, output);
        return Ok(());
    };
    let options = ValidateOptions { no_files: true, ..ValidateOptions::default() };
    let reports = proxy_config::validate(slice::from_ref(file), &options);
    let findings: Vec<&Finding> = reports.iter().flat_map(|report| &report.findings).collect();
    let missing: Vec<&&Finding> = findings.iter().filter(|finding| is_unsupported(finding.code)).collect();
    if arguments.json {
        output.json(
            &missing
                .iter()
                .map(|finding| json!({"path": finding.path, "message": finding.message}))
                .collect::<Value>(),
        );
    } else {
        missing.iter().for_each(|finding| output.line(&finding.to_string()));
    }
    match (missing.len(), findings.len()) {
        (0, 0) => Ok(()),
        (0, errors) => bail!("{} has other errors ({errors}): see proxyctl validate config", file.display()),
        (missing, _) => bail!("{missing} parts of {} are not supported", file.display()),
    }
}

fn is_unsupported(code: Code) -> bool {
    [Code::UNSUPPORTED_FIELD, Code::UNSUPPORTED_TYPE, Code::UNSUPPORTED_VALUE, Code::UNSUPPORTED_FORMATTER]
        .contains(&code)
}

fn all(as_json: bool, output: &mut Output) {
    let all = proxy_config::coverage();
    if as_json {
        let one = |covered: &proxy_config::Coverage| json!({"message": covered.message, "supported": covered.supported, "missing": covered.missing});
        return output.json(&all.iter().map(one).collect());
    }
    for covered in &all {
        let (supported, missing) = (covered.supported.len(), covered.missing.len());
        output.line(&format!("{} {supported}/{}", covered.message, supported + missing));
        if missing > 0 {
            output.line(&format!("    not: {}", covered.missing.join(" ")));
        }
    }
}
