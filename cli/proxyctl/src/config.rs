//! `proxyctl config`: bootstraps as they are read, and what differs between two of them.

use std::collections::{BTreeMap, BTreeSet};
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
        _ if old == new => {}
        (Value::Array(before), Value::Array(after)) => elements(path, before, after, lines),
        (Value::Null, new) => lines.push(block('+', path, new)),
        (old, Value::Null) => lines.push(block('-', path, old)),
        (old, new) if is_compound(old) || is_compound(new) => {
            lines.push(block('-', path, old));
            lines.push(block('+', path, new));
        }
        (old, new) => lines.push(format!("~ {path}: {old} becomes {new}")),
    }
}

/// Elements that have names are compared with those of the same name. Of others, those in the middle differ: between what both
/// lists begin with and what both end with.
fn elements(path: &str, before: &[Value], after: &[Value], lines: &mut Vec<String>) {
    if let (Some(before), Some(after)) = (by_name(before), by_name(after)) {
        for (name, old) in &before {
            let new = after.iter().find(|(other, _)| other == name).map_or(&Value::Null, |(_, new)| new);
            differences(&format!("{path}[{name}]"), old, new, lines);
        }
        for (name, new) in after.iter().filter(|(name, _)| !before.iter().any(|(other, _)| other == name)) {
            differences(&format!("{path}[{name}]"), &Value::Null, new, lines);
        }
        let kept = |here: &[(&str, &Value)], there: &[(&str, &Value)]| -> Vec<String> {
            let names = here.iter().map(|(name, _)| *name);
            names.filter(|name| there.iter().any(|(other, _)| other == name)).map(str::to_owned).collect()
        };
        let (old, new) = (kept(&before, &after), kept(&after, &before));
        if old != new {
            lines.push(format!("~ {path}: the order {} becomes {}", old.join(", "), new.join(", ")));
        }
        return;
    }
    let start = before.iter().zip(after).take_while(|(old, new)| old == new).count();
    let (old, new) = (&before[start..], &after[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    if old.len() == new.len() {
        for (index, (old, new)) in old.iter().zip(new).enumerate() {
            differences(&format!("{path}[{}]", start + index), old, new, lines);
        }
        return;
    }
    let each = |sign, list: &[Value]| -> Vec<String> {
        let numbered = list.iter().enumerate();
        numbered.map(|(index, value)| block(sign, &format!("{path}[{}]", start + index), value)).collect()
    };
    lines.extend(each('-', old));
    lines.extend(each('+', new));
}

/// Elements with their names, if each has one of its own.
fn by_name(list: &[Value]) -> Option<Vec<(&str, &Value)>> {
    let named: Option<Vec<_>> = list.iter().map(|value| Some((value["name"].as_str()?, value))).collect();
    let names: BTreeSet<_> = named.iter().flatten().map(|(name, _)| *name).collect();
    named.filter(|_| names.len() == list.len())
}

fn is_compound(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

/// A value that is there on one side only: a short one behind its path, others indented below, key by key.
fn block(sign: char, path: &str, value: &Value) -> String {
    let text = value.to_string();
    if !is_compound(value) || text.len() <= MAX_INLINE {
        return format!("{sign} {path}: {text}");
    }
    let mut block = format!("{sign} {path}:");
    indented(value, sign, 2, &mut block);
    block
}

/// As YAML looks; what is short stays on one line.
fn indented(value: &Value, sign: char, depth: usize, out: &mut String) {
    let entry = |label: &str, value: &Value, out: &mut String| {
        let text = value.to_string();
        out.push_str(&format!("\n{sign} {}{label}", " ".repeat(depth)));
        if is_compound(value) && text.len() > MAX_INLINE {
            indented(value, sign, depth + 2, out);
        } else {
            out.push_str(&format!(" {text}"));
        }
    };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| entry(&format!("{key}:"), value, out));
        }
        Value::Array(values) => values.iter().for_each(|value| entry("-", value, out)),
        other => out.push_str(&format!(" {other}")),
    }
}

/// Bytes of a value that is shown on one line.
const MAX_INLINE: usize = 80;

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
