//! Steering a running instance: `drain`, `stop`, `log-level`; and how one is found and asked.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use proxy_control::{Answer, BaseId, Found, Generation, Method, RunDir};
use serde_json::json;

use crate::arguments::{Drain, LogLevel, Stop, Where};
use crate::generations::leader;
use crate::output::Output;

/// Where the run directory is.
pub(crate) fn run_dir_path(arguments: &Where) -> PathBuf {
    let runtime_dir = env::var_os("XDG_RUNTIME_DIR");
    let default_path = || RunDir::default_path(runtime_dir.as_deref().map(Path::new));
    arguments.run_dir.clone().unwrap_or_else(default_path)
}

/// The run directory; `None` if it does not exist.
pub(crate) fn run_dir(arguments: &Where) -> anyhow::Result<(PathBuf, Option<Arc<RunDir>>)> {
    let path = run_dir_path(arguments);
    let opened = RunDir::open(&path)?.map(Arc::new);
    Ok((path, opened))
}

/// Asks an instance one thing.
pub(crate) fn ask(instance: &Found, method: Method, target: &str) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(instance.client(ANSWER_LIMIT).ask(method, target));
    answer.with_context(|| name(instance.base_id(), instance.generation()))
}

/// Asks for a change; an answer that is not 200 is an error.
fn change(instance: &Found, target: &str) -> anyhow::Result<Answer> {
    let answer = ask(instance, Method::POST, target)?;
    if !answer.status.is_success() {
        let said = answer.text.lines().next().unwrap_or_default();
        bail!(
            "{} answered {}: {said}",
            name(instance.base_id(), instance.generation()),
            answer.status.as_u16()
        );
    }
    Ok(answer)
}

pub(crate) fn drain(arguments: &Drain, output: &mut Output) -> anyhow::Result<()> {
    let instance = leader(&arguments.instance)?;
    let flags = [
        (!arguments.now && !arguments.keep_listening, "graceful"),
        (arguments.keep_listening, "skip_exit"),
        (arguments.inbound_only, "inboundonly"),
    ];
    let query: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    change(&instance, &format!("/drain_listeners?{}", query.join("&")))?;
    report(&arguments.instance, &instance, "draining", output);
    Ok(())
}

pub(crate) fn stop(arguments: &Stop, output: &mut Output) -> anyhow::Result<()> {
    let instance = leader(&arguments.instance)?;
    change(&instance, if arguments.now { "/quitquitquit" } else { "/shutdown" })?;
    let begun = Instant::now();
    while instance.lives()? {
        if begun.elapsed() >= arguments.timeout {
            bail!(
                "{} still runs after {} s",
                name(instance.base_id(), instance.generation()),
                arguments.timeout.as_secs_f64()
            );
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    report(&arguments.instance, &instance, "stopped", output);
    Ok(())
}

pub(crate) fn log_level(arguments: &LogLevel, output: &mut Output) -> anyhow::Result<()> {
    let instance = leader(&arguments.instance)?;
    // The instance knows its components, and says what it does not know.
    let mut answer = None;
    if let Some(level) = &arguments.level {
        answer = Some(change(&instance, &format!("/logging?level={}", encoded(level)))?);
    }
    if let Some(components) = &arguments.component {
        answer = Some(change(&instance, &format!("/logging?paths={}", encoded(components)))?);
    }
    let answer = match answer {
        Some(answer) => answer,
        None => change(&instance, "/logging")?,
    };
    let lines = answer.text.lines().filter_map(|line| line.strip_prefix("  ")?.split_once(": "));
    if arguments.instance.json {
        output.json(
            &lines
                .map(|(name, level)| (name.to_owned(), level.into()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        );
    } else {
        lines.for_each(|(name, level)| output.line(&format!("{name:<14} {level}")));
    }
    Ok(())
}

fn report(arguments: &Where, instance: &Found, state: &str, output: &mut Output) {
    if arguments.json {
        output.json(&json!({
            "base_id": instance.base_id().0,
            "generation": instance.generation().0,
            "state": state,
        }));
    } else {
        output.line(&format!("{}: {state}", name(instance.base_id(), instance.generation())));
    }
}

/// How an instance is called in messages.
pub(crate) fn name(base_id: BaseId, generation: Generation) -> String {
    format!("base-id {base_id}, generation {generation}")
}

/// What is typed goes into a query.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:,".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_stays_one_parameter() {
        assert_eq!(encoded("dns:debug,http:info"), "dns:debug,http:info");
        assert_eq!(encoded("a&level=off é"), "a%26level%3Doff%20%C3%A9");
    }
}
