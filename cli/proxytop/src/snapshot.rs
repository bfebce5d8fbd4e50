//! What one look at a proxy has found, wherever it was read from. Plain data: no files, no clock.

use std::collections::HashMap;
use std::sync::Arc;

use proxy_stats::{Catalog, Event, MetricKind, StatId, Watch};
use serde::{Deserialize, Serialize};

/// One look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// What was looked at, for the first line.
    pub(crate) origin: String,
    pub(crate) standing: Standing,
    /// Why this is not what is now, if it is not.
    pub(crate) trouble: Option<String>,
    pub(crate) catalog: Arc<Catalog>,
    /// By number in the catalog: see [`Watch::values`].
    pub(crate) values: Vec<u64>,
    pub(crate) quantiles: Arc<HashMap<StatId, Quantiles>>,
    pub(crate) texts: Arc<HashMap<StatId, String>>,
    /// What processes have written into their rings of events, by time: the last of it, not only what is new. Empty where there is no ring.
    pub(crate) ring: Arc<Vec<Event>>,
    /// By number of the process; empty where that is not known.
    pub(crate) generations: Vec<Generation>,
    /// Of the process that leads; main first.
    pub(crate) threads: Vec<Thread>,
}

/// How the proxy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing has been read yet.
    #[default]
    Unknown,
    /// It serves.
    Live,
    /// Its main thread has not flushed stats for far longer than usual: it may hang.
    Silent,
    /// It fails health checks or ends.
    Draining,
    /// It has not begun to serve.
    Starting,
    /// Its last process was killed; this is what it left.
    Dead,
    /// It has ended in good order or cannot be reached; this is what was seen last.
    Gone,
}

/// Of a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Quantiles {
    /// Of all values since the start.
    pub(crate) cumulative: Points,
    /// Of those that came with the last flush; none if there were none. Of all, until a flush has been seen.
    pub(crate) recent: Option<Points>,
}

/// In the histogram's unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Points {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// A process of the instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) lives: bool,
    pub(crate) leads: bool,
    /// 0: not known.
    pub(crate) pid: u32,
    /// What it alone has counted or holds.
    pub(crate) connections: u64,
    pub(crate) connections_total: u64,
    pub(crate) requests_active: u64,
    pub(crate) requests_total: u64,
    /// Of the process in seconds; none where /proc does not tell.
    pub(crate) age: Option<u64>,
    /// CPU time so far in milliseconds; none where /proc does not tell.
    pub(crate) cpu_ms: Option<u64>,
    pub(crate) resident_bytes: u64,
}

/// A thread that serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Thread {
    /// `main`, `worker_0`, ...
    pub(crate) name: String,
    pub(crate) connections: u64,
    pub(crate) connections_total: u64,
    pub(crate) requests_active: u64,
    pub(crate) requests_total: u64,
    /// CPU time so far in milliseconds; none where /proc does not tell.
    pub(crate) cpu_ms: Option<u64>,
}

impl Snapshot {
    /// The value of a stat; of a histogram, how many values it has.
    pub(crate) fn value(&self, id: StatId) -> Option<u64> {
        self.values.get(id.0 as usize).copied().filter(|value| *value != Watch::ABSENT)
    }

    /// The value of the stat of this name; 0 if there is none.
    pub(crate) fn named(&self, name: &str) -> u64 {
        self.catalog.find(name).and_then(|id| self.value(id)).unwrap_or(0)
    }

    pub(crate) fn is_counted(&self, id: StatId) -> bool {
        matches!(self.catalog.kind(id), Some(MetricKind::Counter | MetricKind::Histogram))
    }

    /// Whether processes tell themselves what happens to them.
    pub(crate) fn tells(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Whether the same processes were looked at.
    pub(crate) fn same_processes(&self, other: &Snapshot) -> bool {
        let numbers = |snapshot: &Snapshot| -> Vec<u64> {
            snapshot.generations.iter().map(|generation| generation.number).collect()
        };
        numbers(self) == numbers(other)
    }
}

/// Adds events to those of a ring that are known, each once, in order of time; the oldest go.
pub(crate) fn add_events(ring: &mut Arc<Vec<Event>>, found: impl IntoIterator<Item = Event>) {
    let mut found = found.into_iter().peekable();
    if found.peek().is_none() {
        return;
    }
    let ring = Arc::make_mut(ring);
    ring.extend(found);
    ring.sort_by_key(Event::order);
    ring.dedup_by_key(|event| event.order());
    ring.drain(..ring.len().saturating_sub(MOST_EVENTS));
}

impl Standing {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Standing::Unknown => "waiting",
            Standing::Live => "live",
            Standing::Silent => "silent",
            Standing::Draining => "draining",
            Standing::Starting => "starting",
            Standing::Dead => "dead",
            Standing::Gone => "gone",
        }
    }

    pub(crate) fn of_name(name: &str) -> Standing {
        let all = [
            Standing::Live,
            Standing::Silent,
            Standing::Draining,
            Standing::Starting,
            Standing::Dead,
            Standing::Gone,
        ];
        all.into_iter().find(|standing| standing.name() == name).unwrap_or_default()
    }
}

/// Of rings, kept.
const MOST_EVENTS: usize = 2000;
