//! `proxyctl stats`: from shared memory, so no instance needs to answer.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use proxy_control::{BaseId, Found, Method, private_leader, stats_prefix};
use proxy_stats::{LineagePath, LineageReader, find_lineages};
use serde_json::json;

use crate::arguments::{Seconds, Stats, Where};
use crate::generations::living_of_one;
use crate::instance::{ANSWER_LIMIT, ask, run_dir_path};
use crate::output::Output;
use crate::readings::{Kind, Reading, is_used};

/// What one look found.
pub(crate) struct Source {
    stats: From,
    base_id: BaseId,
    /// Generation of the process that leads; `None`: it does not live.
    running: Option<u64>,
}

enum From {
    Memory(LineageReader),
    /// A process that leads and counts in private memory: it has to be asked.
    Asked(Found),
}

pub(crate) fn stats(arguments: &Stats, output: &mut Output) -> anyhow::Result<()> {
    let interval = arguments.watch.map_or(Duration::from_secs(1), |Seconds(interval)| interval);
    let mut before = None;
    // The first of two readings is only there to be compared with.
    if arguments.rates && arguments.watch.is_none() {
        before = Some((Instant::now(), read(&Source::open(arguments)?, arguments)?));
        thread::sleep(interval);
    }
    let mut told = false;
    loop {
        let source = Source::open(arguments)?;
        let (at, reading) = (Instant::now(), read(&source, arguments)?);
        if let Some(news) = source.news(arguments)
            && !std::mem::replace(&mut told, true)
        {
            output.tell(&format!("proxyctl: base-id {} {news}", source.base_id));
        }
        let compared = before.as_ref().filter(|_| arguments.rates);
        show(
            &source,
            &reading,
            compared.map(|(then, reading)| (reading, at.duration_since(*then))),
            arguments,
            output,
        );
        if arguments.watch.is_none() || output.is_closed() {
            return Ok(());
        }
        before = Some((at, reading));
        thread::sleep(interval);
    }
}

fn show(
    source: &Source,
    reading: &Reading,
    before: Option<(&Reading, Duration)>,
    arguments: &Stats,
    output: &mut Output,
) {
    if !arguments.instance.json {
        if arguments.watch.is_some() {
            output.next_page();
        }
        reading.lines(before).for_each(|line| output.line(&line));
        return;
    }
    let value = json!({
        "base_id": source.base_id.0,
        "generation": source.running,
        "private": matches!(source.stats, From::Asked(_)),
        "stats": reading.json(before),
    });
    match arguments.watch {
        Some(_) => output.json_line(&value),
        None => output.json(&value),
    }
}

fn read(source: &Source, arguments: &Stats) -> anyhow::Result<Reading> {
    let mut reading = Reading::default();
    let matches = |name: &str| arguments.filter.as_ref().is_none_or(|filter| filter.is_match(name));
    let reader = match &source.stats {
        From::Memory(reader) => reader,
        From::Asked(found) => {
            for (kind, name) in Kind::NAMES {
                let answer = ask(found, Method::GET, &format!("/stats?format=json&type={name}"))?;
                reading.add_answer(kind, &serde_json::from_str(&answer.text)?);
            }
            reading.retain(matches, arguments.usedonly);
            return Ok(reading);
        }
    };
    let read = reader.for_each(|metric| {
        if matches(metric.name) && (!arguments.usedonly || is_used(metric)) {
            reading.add(metric);
        }
    });
    read.with_context(|| format!("stats of base-id {}", source.base_id))?;
    Ok(reading)
}

impl Source {
    /// The stats of the base-id that is meant, or of the only one that has any.
    fn open(arguments: &Stats) -> anyhow::Result<Self> {
        let (base_id, path) = match lineage(&arguments.instance, &arguments.shm_dir) {
            Ok(found) => found,
            Err(error) => return Self::private(&arguments.instance, 0).ok_or(error),
        };
        let reader = LineageReader::open(&path).with_context(|| format!("stats of base-id {base_id}"))?;
        let which = Where { base_id: Some(base_id.0), ..arguments.instance.clone() };
        if let Some(private) = Self::private(&which, reader.living().count()) {
            return Ok(private);
        }
        let running = reader.leader();
        Ok(Self { stats: From::Memory(reader), base_id, running })
    }

    /// Whether the process that leads has its counters in private memory.
    pub(crate) fn private_of(instance: &Where, path: &LineagePath, base_id: BaseId) -> bool {
        let which = Where { base_id: Some(base_id.0), ..instance.clone() };
        LineageReader::open(path).is_ok_and(|reader| Self::private(&which, reader.living().count()).is_some())
    }

    /// The process that leads, if its counters are in private memory. Nobody is asked where all that live are among the `shared`
    /// that have some in shared memory.
    fn private(instance: &Where, shared: usize) -> Option<Self> {
        let living = living_of_one(instance).ok().filter(|living| living.len() > shared)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let found = runtime.block_on(private_leader(&living, ANSWER_LIMIT))?;
        let (base_id, running) = (found.base_id(), Some(found.generation().0));
        Some(Self { stats: From::Asked(found), base_id, running })
    }

    /// What is to be said beside the numbers.
    fn news(&self, arguments: &Stats) -> Option<String> {
        match (&self.stats, self.running) {
            (From::Asked(found), _) => Some(format!(
                "counts in private memory, because {} had no space: generation {} was asked for its numbers",
                arguments.shm_dir.display(),
                found.generation()
            )),
            (From::Memory(_), None) => Some("is not running, this is what it left".to_owned()),
            (From::Memory(_), Some(_)) => None,
        }
    }
}

/// Where the base-id that is meant has its stats in shared memory, or the only one that has any.
pub(crate) fn lineage(instance: &Where, shm_dir: &Path) -> anyhow::Result<(BaseId, LineagePath)> {
    let run_dir = run_dir_path(instance);
    let mut found = Vec::new();
    for path in find_lineages(shm_dir).with_context(|| shm_dir.display().to_string())? {
        let base_id = path.prefix.split('_').nth(1).and_then(|number| number.parse().ok()).map(BaseId);
        let ours = base_id.filter(|base_id| stats_prefix(&run_dir, *base_id) == path.prefix);
        let wanted = instance.base_id.map(BaseId);
        found.extend(ours.filter(|ours| wanted.is_none_or(|wanted| *ours == wanted)).zip(Some(path)));
    }
    if found.len() > 1 {
        found.sort_unstable();
        let all: Vec<_> = found.iter().map(|(base_id, _)| base_id.to_string()).collect();
        bail!("there are stats of several instances, choose one with --base-id: {}", all.join(", "));
    }
    let Some(found) = found.pop() else {
        let of = instance.base_id.map(|id| format!(" with base-id {id}")).unwrap_or_default();
        let (shm_dir, run_dir) = (shm_dir.display(), run_dir.display());
        bail!("there are no stats of an instance{of} (looked in {shm_dir} for those of {run_dir})");
    };
    Ok(found)
}
