//! `proxyctl reload`: the running process reads its configuration again, and says what has changed.

use anyhow::{Context, bail};
use proxy_control::reload::{Applied, Changed, Outcome};
use proxy_control::{AskError, Method};

use crate::arguments::Reload;
use crate::generations::leader;
use crate::instance::name;
use crate::output::Output;

/// Succeeds when what differs is in use; with `--wait`, when also connections of what was replaced have ended.
pub(crate) fn reload(arguments: &Reload, output: &mut Output) -> anyhow::Result<()> {
    let instance = leader(&arguments.instance)?;
    let named = || name(instance.base_id(), instance.generation());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let target = if arguments.wait { "/reload?wait" } else { "/reload" };
    let (mut last, json) = (None, arguments.instance.json);
    let client = instance.client(arguments.timeout);
    let answered = runtime.block_on(client.follow(Method::POST, target, |line| {
        if json {
            output.line(line);
        }
        // Other versions may say more.
        let Ok(outcome) = serde_json::from_str(line) else { return };
        match &outcome {
            Outcome::Applied(applied) if !json => show(applied, output),
            Outcome::Drained if !json => output.line("connections of what was replaced have ended"),
            _ => {}
        }
        last = Some(outcome);
    }));
    match (answered, last) {
        (_, Some(Outcome::Failed { errors })) => {
            bail!("{}\n{} goes on with the configuration that it has", errors.join("\n"), named())
        }
        (Err(AskError::Deadline(_)), Some(Outcome::Applied(_))) => {
            bail!("{}: connections of what was replaced are left", named())
        }
        (Ok(answer), _) if !answer.status.is_success() => {
            bail!("{} refuses: {}", named(), answer.text.trim())
        }
        (Ok(_), Some(Outcome::Applied(_))) if arguments.wait => {
            bail!("{} ended before all connections of what was replaced had", named())
        }
        (Ok(_), Some(_)) => Ok(()),
        (Ok(_), None) => bail!("{} ended before the reload did", named()),
        (Err(error), _) => Err(error).with_context(named),
    }
}

fn show(applied: &Applied, output: &mut Output) {
    applied.warnings.iter().for_each(|warning| output.line(warning));
    for (what, Changed { added, changed, removed }) in
        [("cluster", &applied.clusters), ("listener", &applied.listeners)]
    {
        for (how, names) in [("added", added), ("changed", changed), ("removed", removed)] {
            names.iter().take(SHOWN).for_each(|name| output.line(&format!("{what} {name} {how}")));
            if names.len() > SHOWN {
                output.line(&format!("and {} more {what}s {how}", names.len() - SHOWN));
            }
        }
    }
    applied.routes.iter().for_each(|name| output.line(&format!("routes of listener {name} changed")));
    let chains = applied.chains.iter();
    chains.for_each(|name| output.line(&format!("filter chains of listener {name} changed")));
    if applied.is_empty() {
        output.line("nothing has changed");
    }
    for field in &applied.needs_restart {
        output.line(&format!("{field} is as before until `proxyctl restart --hot`"));
    }
    output.line(&format!("reloaded in {} ms", applied.took_ms));
}

/// Of each kind of change.
const SHOWN: usize = 20;
