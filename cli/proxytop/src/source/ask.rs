//! Asks a proxy: over the control socket of an instance on this host, or over an admin port.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use proxy_control::restart::{Progress, Standing, Status, Step};
use proxy_control::{BaseId, Found, Method, RunDir};
use serde_json::Value;

use crate::app::Action;
use crate::asked::{self, Asked, Wanted};

/// Somebody who answers.
pub(crate) enum Admin {
    Control { run_dir: PathBuf, base_id: u32 },
    Port { url: String, client: reqwest::blocking::Client },
}

impl Admin {
    /// An admin port: `http://host:port`, or `host:port`.
    pub(crate) fn port(url: &str) -> anyhow::Result<Admin> {
        let url = whole_url(url);
        if !url.starts_with("http://") {
            bail!("{url:?} is no admin port: http://host:port is expected");
        }
        let client = reqwest::blocking::Client::builder()
            .no_proxy()
            .timeout(ANSWER_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Admin::Port { url, client })
    }

    fn get(&self, target: &str) -> anyhow::Result<String> {
        let (status, text) = self.ask(Method::GET, target, ANSWER_LIMIT)?;
        if status != 200 {
            bail!("{target} is answered with {status}");
        }
        Ok(text)
    }

    pub(crate) fn json(&self, target: &str) -> anyhow::Result<Value> {
        serde_json::from_str(&self.get(target)?).with_context(|| format!("{target} is not answered in JSON"))
    }

    fn ask(&self, method: Method, target: &str, limit: Duration) -> anyhow::Result<(u16, String)> {
        match self {
            Admin::Control { run_dir, base_id } => {
                let leader = leader(run_dir, *base_id)?;
                let answer = block_on(leader.client(limit).ask(method, target))??;
                Ok((answer.status.as_u16(), answer.text))
            }
            Admin::Port { url, client } => {
                let request = match method == Method::POST {
                    true => client.post(format!("{url}{target}")).timeout(limit),
                    false => client.get(format!("{url}{target}")),
                };
                let answer = request.send().map_err(reqwest::Error::without_url)?;
                let status = answer.status().as_u16();
                let mut text = Vec::new();
                answer.take(ANSWER_BYTES + 1).read_to_end(&mut text)?;
                if text.len() as u64 > ANSWER_BYTES {
                    bail!("the answer to {target} is too long");
                }
                Ok((status, String::from_utf8_lossy(&text).into_owned()))
            }
        }
    }

    /// Asks for what is wanted; what is not stays as it was.
    pub(crate) fn look(&self, wanted: Wanted, before: &Asked, at_ms: u64) -> Asked {
        let mut asked = Asked { at_ms, trouble: None, ..before.clone() };
        if let Err(error) = self.fill(wanted, &mut asked) {
            // What was known stays on the screen.
            return Asked { trouble: Some(format!("{error:#}")), ..before.clone() };
        }
        asked
    }

    fn fill(&self, wanted: Wanted, asked: &mut Asked) -> anyhow::Result<()> {
        if wanted.version || asked.version.is_empty() {
            asked.version = asked::version(&self.json("/server_info")?);
        }
        if wanted.hosts {
            asked.hosts = asked::hosts(&self.json("/clusters?format=json")?);
        }
        if wanted.configuration {
            let dump = self.json("/config_dump")?;
            asked.routes = asked::routes(&dump);
            asked.log_files = asked::log_files(&dump);
        }
        Ok(())
    }

    /// Does it, and says what came of it.
    pub(crate) fn act(&self, action: Action) -> String {
        let limit = if action == Action::RestartHot { RESTART_LIMIT } else { ANSWER_LIMIT };
        match self.ask(Method::POST, &action.target(), limit) {
            Err(error) => format!("not done: {error:#}"),
            Ok((status, text)) if status != 200 => {
                format!("not done, {status}: {}", text.lines().next().unwrap_or_default())
            }
            Ok((_, text)) if action == Action::RestartHot => restarted(&text),
            Ok(_) => "done".to_owned(),
        }
    }
}

/// With the scheme that it has if it has none.
pub(crate) fn whole_url(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// What the steps of a hot restart say.
fn restarted(text: &str) -> String {
    let mut said =
        "the answer ended before a new process led; the generations pane says what became of it".to_owned();
    for progress in text.lines().filter_map(Progress::of_line) {
        match progress.step {
            Step::Leads => said = format!("a new process leads, after {} ms", progress.elapsed_ms),
            Step::Failed { reason } => {
                return format!("not restarted: {}", reason.lines().next().unwrap_or_default());
            }
            _ => {}
        }
    }
    said
}

/// The process that leads; the newest, if none says so.
fn leader(run_dir: &std::path::Path, base_id: u32) -> anyhow::Result<Found> {
    let opened = RunDir::open(run_dir)?.map(Arc::new);
    let mut all = opened.map_or(Ok(Vec::new()), |run_dir| proxy_control::find(&run_dir))?;
    all.retain(|found| found.base_id() == BaseId(base_id));
    let leads = |found: &Found| {
        let answer = block_on(found.client(ANSWER_LIMIT).ask(Method::GET, "/generation"));
        let status = answer.ok().and_then(Result::ok).and_then(|answer| Status::of_json(&answer.text));
        status.is_some_and(|status| status.state == Standing::Leads)
    };
    let at = match all.len() {
        0 => bail!("no process of it runs"),
        1 => 0,
        several => all.iter().rposition(leads).unwrap_or(several - 1),
    };
    Ok(all.swap_remove(at))
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(3);
const RESTART_LIMIT: Duration = Duration::from_secs(70);
/// 10,000 clusters are 20 MiB of hosts and 60 MiB of stats.
const ANSWER_BYTES: u64 = 256 << 20;
