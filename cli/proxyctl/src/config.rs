//! `proxyctl config`: bootstraps as they are read, and what differs between two of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use proxy_config::{LoadInputs, LoadOptions};
use proxy_control::Method;
use serde_json::Value;

use crate::arguments::{ConfigDiff, ConfigDump, Where};
use crate::generations::leader;
use crate::instance::ask;
use crate::output::Output;

/// What a file says, or a running instance goes by, without secrets.
pub(crate) fn dump(arguments: &ConfigDump, output: &mut Output) -> anyhow::Result<()> {
    let bootstrap = match &arguments.file {
        Some(file) => of_file(file)?,
        None => of_instance(&arguments.instance)?,
    };
    output.json(&bootstrap);
    Ok(())
}

/// That there is a difference is an error, so that scripts can ask.
pub(crate) fn diff(arguments: &ConfigDiff, output: &mut Output) -> anyhow::Result<()> {
    let (old, new) = match &arguments.new {
        Some(new) => (of_file(&arguments.file)?, of_file(new)?),
        None => (of_instance(&arguments.instance)?, of_file(&arguments.file)?),
    };
    let (old, new) = (resources(&old), resources(&new));
    let mut lines = Vec::new();
    for (name, before) in &old {
        match new.get(name) {
            None => lines.push(format!("- {name}")),
            Some(after) => differences(name, before, after, &mut lines),
        }
    }
    lines.extend(new.keys().filter(|name| !old.contains_key(*name)).map(|name| format!("+ {name}")));
    lines.iter().for_each(|line| output.line(line));
    if lines.is_empty() { Ok(()) } else { bail!("{} differences", lines.len()) }
}

fn of_file(file: &Path) -> anyhow::Result<Value> {
    let options = LoadOptions { allow_unsupported: true, ..LoadOptions::default() };
    let inputs = LoadInputs { file: Some(file.to_owned()), yaml_override: None, options };
    let loaded = proxy_config::load_bootstrap(&inputs);
    if loaded.findings.has_errors() {
        bail!("{} has errors: see proxyctl validate config", file.display());
    }
    Ok(proxy_config::redacted(BOOTSTRAP, &loaded.bytes))
}

fn of_instance(arguments: &Where) -> anyhow::Result<Value> {
    let answer = ask(&leader(arguments)?, Method::GET, "/config_dump")?;
    let dump: Value = serde_json::from_str(&answer.text).context("the answer is no JSON")?;
    let bootstraps = dump["configs"].as_array().into_iter().flatten();
    let mut bootstraps = bootstraps.filter_map(|config| config.get("bootstrap"));
    bootstraps.next().cloned().context("the answer has no bootstrap")
}

/// Listeners and clusters by name, and the other fields.
fn resources(bootstrap: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (field, value) in bootstrap.as_object().into_iter().flatten() {
        if field != "static_resources" {
            found.insert(field.clone(), value.clone());
            continue;
        }
        for (kind, list) in value.as_object().into_iter().flatten() {
            for (index, resource) in list.as_array().into_iter().flatten().enumerate() {
                let name = resource["name"].as_str().map_or_else(|| format!("#{index}"), str::to_owned);
                found.insert(format!("{} {name}", kind.trim_end_matches('s')), resource.clone());
            }
        }
    }
    found
}

/// The values that differ, each under its path.
fn differences(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let here = format!("{path}.{key}");
                differences(&here, value, after.get(key).unwrap_or(&Value::Null), lines);
            }
            for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(*key)) {
                differences(&format!("{path}.{key}"), &Value::Null, value, lines);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (index, (old, new)) in before.iter().zip(after).enumerate() {
                differences(&format!("{path}[{index}]"), old, new, lines);
            }
        }
        _ if old == new => {}
        (Value::Null, new) => lines.push(format!("~ {path}: set to {new}")),
        (old, Value::Null) => lines.push(format!("~ {path}: no longer {old}")),
        (old, new) => lines.push(format!("~ {path}: {old} becomes {new}")),
    }
}

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
