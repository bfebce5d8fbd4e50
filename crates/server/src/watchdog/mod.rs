//! The guard dog: a thread that notices when the loop of main or of a worker stands still, counts it and says so, and
//! kills the process if the configuration wants that.
//!
//! What a stall is, is decided in [`stall`]; whether a loop turns is told by [`Pulse`], at no cost to a loop that is idle.

mod stall;

use std::cell::Cell;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use proxy_config::settings::{Watchdog, Watchdogs};
use proxy_runtime::{Beat, Pulse};
use proxy_stats::{EventKind, Scope, stats_block};

use crate::events::Events;
use stall::{Found, Stalls};

stats_block! {
    /// `server.<thread>.*`, and `main_thread.*` and `workers.*` for all of a kind.
    pub struct WatchdogStats {
        counters: watchdog_miss, watchdog_mega_miss;
    }
}

/// Watches until dropped.
pub(crate) struct GuardDog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why the process has to die.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stuck {
    One { thread: String },
    Many { last: String },
}

/// Threads of a kind, with one set of timeouts.
struct Watch {
    stalls: Stalls,
    threads: Vec<Thread>,
    total: WatchdogStats,
    due: Instant,
    events: Events,
}

struct Thread {
    /// As in the names of its stats.
    name: String,
    pulse: Pulse,
    stats: WatchdogStats,
    /// When events last told of a miss and of a mega-miss: a thread that stalls again and again must not push all others out.
    told: [Cell<Option<Instant>>; 2],
}

impl GuardDog {
    /// Watches main and `workers`. `kill` runs on a thread of its own, and is to end the process.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        (root, events): (&Scope, &Events),
        settings: &Watchdogs,
        main: Pulse,
        workers: impl Iterator<Item = Pulse>,
        kill: impl Fn(Stuck) + Send + 'static,
    ) -> io::Result<Self> {
        let main = vec![("main_thread".to_owned(), main)];
        let workers = workers.enumerate().map(|(index, pulse)| (format!("worker_{index}"), pulse)).collect();
        let mut watches = [
            Watch::new((root, events), "main_thread.", &settings.main_thread, main),
            Watch::new((root, events), "workers.", &settings.workers, workers),
        ];
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("dog:guard".into()).spawn(move || {
            loop {
                let now = Instant::now();
                watches.iter_mut().filter_map(|watch| watch.look(now)).for_each(&kill);
                let due = watches.iter().map(|watch| watch.due).min().unwrap_or(now);
                let wait = due.saturating_duration_since(Instant::now());
                if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for GuardDog {
    fn drop(&mut self) {
        self.stop.take();
        // It sleeps but for microseconds. A panic in it has been told.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One { thread } => write!(out, "thread {thread} is stuck for longer than the kill timeout"),
            Self::Many { last } => {
                write!(
                    out,
                    "several threads, one of them {last}, are stuck for longer than the multikill timeout"
                )
            }
        }
    }
}

impl Watch {
    fn new(
        (root, events): (&Scope, &Events),
        kind: &str,
        settings: &Watchdog,
        threads: Vec<(String, Pulse)>,
    ) -> Self {
        let thread = |(name, pulse)| {
            let stats = WatchdogStats::new(&root.scope(&format!("server.{name}.")));
            Thread { name, pulse, stats, told: Default::default() }
        };
        let total = WatchdogStats::new(&root.scope(kind));
        let stalls = Stalls::new(with_jitter(settings), threads.len());
        let threads = threads.into_iter().map(thread).collect();
        Self { stalls, threads, total, due: Instant::now(), events: events.clone() }
    }

    /// Looks if it is time to, tells what it finds, and asks loops that are awake to turn before the next time.
    fn look(&mut self, now: Instant) -> Option<Stuck> {
        if now < self.due {
            return None;
        }
        self.due = now + self.stalls.interval();
        let beats: Vec<_> = self.threads.iter().map(|thread| thread.pulse.beat()).collect();
        let mut stuck = None;
        for found in self.stalls.look(&beats, now) {
            stuck = self.tell(found).or(stuck);
        }
        let awake = self.threads.iter().zip(beats).filter(|(_, beat)| matches!(beat, Beat::Awake(_)));
        awake.for_each(|(thread, _)| thread.pulse.ask());
        stuck
    }

    fn tell(&self, found: Found) -> Option<Stuck> {
        let (Found::Miss(index) | Found::Megamiss(index) | Found::Kill(index) | Found::Multikill(index)) =
            found;
        let Thread { name, stats, told: [missed, mega_missed], .. } = &self.threads[index];
        match found {
            Found::Miss(_) => {
                tracing::warn!(thread = %name, "watchdog: the thread does not react (miss)");
                if is_news(missed) {
                    self.events.warning(EventKind::WATCHDOG, format_args!("thread {name} does not react"));
                }
                stats.watchdog_miss.inc();
                self.total.watchdog_miss.inc();
                None
            }
            Found::Megamiss(_) => {
                tracing::warn!(thread = %name, "watchdog: the thread still does not react (mega-miss)");
                if is_news(mega_missed) {
                    self.events
                        .error(EventKind::WATCHDOG, format_args!("thread {name} still does not react"));
                }
                stats.watchdog_mega_miss.inc();
                self.total.watchdog_mega_miss.inc();
                None
            }
            Found::Kill(_) => Some(Stuck::One { thread: name.clone() }),
            Found::Multikill(_) => Some(Stuck::Many { last: name.clone() }),
        }
    }
}

/// Whether it was not told for a while. From now on it was.
fn is_news(told: &Cell<Option<Instant>>) -> bool {
    let now = Instant::now();
    let news = told.get().is_none_or(|told| now.duration_since(told) >= EVENT_INTERVAL);
    if news {
        told.set(Some(now));
    }
    news
}

/// Chosen once for each kind of threads, so that not all proxies of a fleet die at the same moment.
fn with_jitter(settings: &Watchdog) -> Watchdog {
    let jitter = settings.max_kill_timeout_jitter.mul_f64(fastrand::f64());
    let kill_timeout = settings.kill_timeout.map(|timeout| timeout.saturating_add(jitter));
    Watchdog { kill_timeout, ..settings.clone() }
}

/// Between two events about the same thread.
const EVENT_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
