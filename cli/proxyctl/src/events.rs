//! `proxyctl events`: from shared memory, so no instance needs to answer.

use std::thread;
use std::time::Duration;

use anyhow::Context;
use proxy_control::BaseId;
use proxy_stats::{Event, EventWatch, ReadError, Severity, utc};
use serde_json::{Value, json};

use crate::arguments::Events;
use crate::output::Output;
use crate::stats::{Source, lineage};

pub(crate) fn events(arguments: &Events, output: &mut Output) -> anyhow::Result<()> {
    let (base_id, path) = lineage(&arguments.instance, &arguments.shm_dir)?;
    if Source::private_of(&arguments.instance, &path, base_id) {
        let text = "counts in private memory, and its events are there too: these are of processes before";
        output.tell(&format!("proxyctl: base-id {base_id} {text}"));
    }
    let mut watch = EventWatch::new(path);
    let mut found = watch.look().with_context(|| format!("events of base-id {base_id}"))?;
    found.drain(..found.len().saturating_sub(arguments.last.unwrap_or(usize::MAX)));
    if !arguments.follow {
        match arguments.instance.json {
            true => output.json(&found.iter().map(|event| json(base_id, event)).collect()),
            false => show(&found, output),
        }
        return Ok(());
    }
    loop {
        match arguments.instance.json {
            // One to a line: there is no end of the list.
            true => found.iter().for_each(|event| output.json_line(&json(base_id, event))),
            false => show(&found, output),
        }
        if output.is_closed() {
            return Ok(());
        }
        thread::sleep(LOOK_INTERVAL);
        found = match watch.look() {
            Ok(found) => found,
            Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                output.tell(&format!("proxyctl: base-id {base_id} has ended"));
                return Ok(());
            }
            Err(error) => return Err(error).with_context(|| format!("events of base-id {base_id}")),
        };
    }
}

fn show(events: &[Event], output: &mut Output) {
    let coloured = output.has_colours();
    for event in events {
        let Event { generation, severity, text, .. } = event;
        let (time, kind) = (utc(event.at_us), event.kind.name());
        // As in proxytop: they can be told apart by the colour-blind, and the word says the same.
        let (begin, end) = match severity {
            _ if !coloured => ("", ""),
            Severity::Info => ("", ""),
            Severity::Success => ("\x1b[38;5;31m", "\x1b[0m"),
            Severity::Warning => ("\x1b[38;5;136m", "\x1b[0m"),
            Severity::Error => ("\x1b[1;38;5;166m", "\x1b[0m"),
        };
        let severity = severity.name();
        output.line(&format!("{time} {generation:>4} {begin}{severity:<7}{end} {kind:<11} {text}"));
    }
}

fn json(base_id: BaseId, event: &Event) -> Value {
    json!({
        "time": utc(event.at_us),
        "base_id": base_id.0,
        "generation": event.generation,
        "number": event.number,
        "severity": event.severity.name(),
        "kind": event.kind.name(),
        "text": event.text,
    })
}

const LOOK_INTERVAL: Duration = Duration::from_millis(200);
