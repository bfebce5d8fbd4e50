//! `proxyctl status`.

use anyhow::bail;
use proxy_control::answers::address;
use proxy_control::{BaseId, Found, Method, find};
use serde_json::{Value, json};

use crate::arguments::Where;
use crate::instance::{ask, name, run_dir};
use crate::output::Output;

/// Nothing that runs, or an instance that does not answer, is an error.
pub(crate) fn status(arguments: &Where, output: &mut Output) -> anyhow::Result<()> {
    let (path, run_dir) = run_dir(arguments)?;
    let mut found = match &run_dir {
        Some(run_dir) => find(run_dir)?,
        None => Vec::new(),
    };
    found.retain(|instance| arguments.base_id.is_none_or(|wanted| instance.base_id() == BaseId(wanted)));
    let all: Vec<_> = found.iter().map(|instance| (instance, look(instance))).collect();
    if arguments.json {
        output.json(&all.iter().map(|(instance, seen)| as_json(instance, seen)).collect());
    } else {
        all.iter().flat_map(|(instance, seen)| as_lines(instance, seen)).for_each(|line| output.line(&line));
    }
    let silent = all.iter().filter(|(_, seen)| seen.is_err()).count();
    match (all.len(), arguments.base_id) {
        (0, None) => bail!("no instance is running (looked in {})", path.display()),
        (0, Some(wanted)) => {
            bail!("no instance is running with base-id {wanted} (looked in {})", path.display())
        }
        _ if silent > 0 => bail!("{silent} of {} instances did not answer", all.len()),
        _ => Ok(()),
    }
}

/// What an instance says of itself.
struct Seen {
    info: Value,
    listeners: Value,
}

fn look(instance: &Found) -> anyhow::Result<Seen> {
    let json = |target| anyhow::Ok(serde_json::from_str::<Value>(&ask(instance, Method::GET, target)?.text)?);
    Ok(Seen { info: json("/server_info")?, listeners: json("/listeners?format=json")? })
}

fn as_json(instance: &Found, seen: &anyhow::Result<Seen>) -> Value {
    let mut value = json!({
        "base_id": instance.base_id().0,
        "generation": instance.generation().0,
        "control_socket": instance.socket_path().to_string_lossy(),
    });
    match seen {
        Ok(seen) => {
            value["server_info"] = seen.info.clone();
            value["listeners"] = seen.listeners["listener_statuses"].clone();
        }
        Err(error) => value["error"] = format!("{error:#}").into(),
    }
    value
}

fn as_lines(instance: &Found, seen: &anyhow::Result<Seen>) -> Vec<String> {
    let named = name(instance.base_id(), instance.generation());
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) => return vec![format!("{named}: no answer"), format!("  {error:#}")],
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let options = &seen.info["command_line_options"];
    let config = match text(&options["config_path"]) {
        path if path.is_empty() => "none".to_owned(),
        path => path,
    };
    let version = text(&seen.info["version"]);
    let mut lines = vec![
        format!("{named}: {}", text(&seen.info["state"])),
        format!("  version   {}", version.split('/').nth(1).unwrap_or(&version)),
        format!("  up for    {}", text(&seen.info["uptime_current_epoch"])),
        format!("  workers   {}", options["concurrency"]),
        format!("  config    {config}"),
        format!("  control   {}", instance.socket_path().display()),
    ];
    for listener in seen.listeners["listener_statuses"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  listener  {} at {}",
            text(&listener["name"]),
            address(&listener["local_address"])
        ));
    }
    lines
}
