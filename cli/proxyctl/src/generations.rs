//! The generations of an instance: during a hot restart, and until the old process has ended, there are several. `epochs` lists
//! them; other commands mean the one that leads.

use std::time::{Duration, Instant};

use anyhow::bail;
use proxy_control::restart::{Standing, Status};
use proxy_control::{BaseId, FindError, Found, Method, find};
use serde_json::{Value, json};

use crate::arguments::Where;
use crate::instance::{ask, name, run_dir};
use crate::output::Output;

/// A living process, and what it says of itself.
pub(crate) struct Seen {
    pub(crate) found: Found,
    pub(crate) status: anyhow::Result<Status>,
}

impl Seen {
    /// `None`: it has just ended.
    fn look(found: Found) -> Option<Seen> {
        let begun = Instant::now();
        loop {
            let status = ask(&found, Method::GET, "/generation").and_then(|answer| {
                Status::of_json(&answer.text).ok_or_else(|| anyhow::anyhow!("it is of another version"))
            });
            // For a moment, at its beginning and at its end, a process lives and does not answer.
            if status.is_ok() || begun.elapsed() >= SILENCE_LIMIT {
                return Some(Seen { found, status });
            }
            if !found.lives().unwrap_or(true) {
                return None;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    pub(crate) fn is(&self, standing: Standing) -> bool {
        self.status.as_ref().is_ok_and(|status| status.state == standing)
    }
}

/// All living generations of the base-id that is meant, or of all; the oldest first.
fn living(arguments: &Where) -> anyhow::Result<Vec<Found>> {
    let (path, run_dir) = run_dir(arguments)?;
    let base_id = arguments.base_id.map(BaseId);
    let mut all = match &run_dir {
        Some(run_dir) => find(run_dir)?,
        None => Vec::new(),
    };
    all.retain(|found| base_id.is_none_or(|wanted| found.base_id() == wanted));
    if all.is_empty() {
        return Err(FindError::None { base_id, run_dir: path }.into());
    }
    Ok(all)
}

/// As [`living`], of one base-id.
pub(crate) fn living_of_one(arguments: &Where) -> anyhow::Result<Vec<Found>> {
    let all = living(arguments)?;
    let mut base_ids: Vec<_> = all.iter().map(Found::base_id).collect();
    base_ids.dedup();
    if base_ids.len() > 1 {
        return Err(FindError::Several(base_ids).into());
    }
    Ok(all)
}

/// The generations of one instance, the oldest first.
pub(crate) fn of_one(arguments: &Where) -> anyhow::Result<Vec<Seen>> {
    Ok(living_of_one(arguments)?.into_iter().filter_map(Seen::look).collect())
}

/// The process that leads; the newest, if none says so.
pub(crate) fn leader(arguments: &Where) -> anyhow::Result<Found> {
    let mut all = living_of_one(arguments)?;
    let newest = all.len() - 1;
    if newest == 0 {
        return Ok(all.remove(0));
    }
    let leads = |found: &Found| Seen::look(found.clone()).is_some_and(|seen| seen.is(Standing::Leads));
    let at = all.iter().rposition(leads).unwrap_or(newest);
    Ok(all.swap_remove(at))
}

/// `proxyctl epochs`.
pub(crate) fn epochs(arguments: &Where, output: &mut Output) -> anyhow::Result<()> {
    let all: Vec<_> = living(arguments)?.into_iter().filter_map(Seen::look).collect();
    if arguments.json {
        output.json(&all.iter().map(as_json).collect());
    } else {
        output.line("base-id  generation  epoch  state                       pid  connections     age");
        all.iter().for_each(|seen| output.line(&as_line(seen)));
    }
    let silent = all.iter().filter(|seen| seen.status.is_err()).count();
    if silent > 0 {
        bail!("{silent} of {} processes did not answer", all.len());
    }
    Ok(())
}

fn as_json(seen: &Seen) -> Value {
    let mut value = json!({
        "base_id": seen.found.base_id().0,
        "generation": seen.found.generation().0,
        "control_socket": seen.found.socket_path().to_string_lossy(),
    });
    match &seen.status {
        Ok(Status { state, epoch, version, pid, connections, age_ms, private_stats }) => {
            value["state"] = state.name().into();
            value["epoch"] = (*epoch).into();
            value["version"] = version.as_str().into();
            value["pid"] = (*pid).into();
            value["connections"] = (*connections).into();
            value["age_ms"] = (*age_ms).into();
            value["private_stats"] = (*private_stats).into();
        }
        Err(error) => value["error"] = format!("{error:#}").into(),
    }
    value
}

fn as_line(seen: &Seen) -> String {
    let (base_id, generation) = (seen.found.base_id(), seen.found.generation());
    match &seen.status {
        Ok(Status { state, epoch, pid, connections, age_ms, .. }) => format!(
            "{:>7}  {:>10}  {epoch:>5}  {:<21}  {pid:>8}  {connections:>11}  {:>6}",
            base_id.0,
            generation.0,
            state.name(),
            age(*age_ms)
        ),
        Err(error) => format!("{}: no answer: {error:#}", name(base_id, generation)),
    }
}

fn age(milliseconds: u64) -> String {
    match milliseconds / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

const SILENCE_LIMIT: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_fit_their_column() {
        assert_eq!(
            [age(999), age(119_999), age(7_199_000), age(720_000_000)],
            ["0 s", "119 s", "119 min", "200 h"]
        );
    }
}
