//! Threads that look, ask, follow a log and read keys. What they find waits in one place each, where the newest takes the place of
//! what was not fetched; a bounded channel wakes the screen.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{SigSet, Signal};

use crate::app::{Action, MOST_LINES};
use crate::asked::{Asked, Wanted};
use crate::fault::{self, Place};
use crate::snapshot::Snapshot;
use crate::source::Source;
use crate::source::ask::Admin;
use crate::source::tail::Tail;

/// What wakes the screen.
#[derive(Debug)]
pub(crate) enum Event {
    Terminal(crossterm::event::Event),
    /// The terminal is gone.
    Closed,
    Signal(Signal),
    /// Something new lies in one of the places.
    Found,
    /// What came of an action.
    Told(String),
}

/// A place where the newest is.
pub(crate) type Newest<T> = Arc<Mutex<Option<T>>>;

/// Where the newest of each kind is found, and what collectors are to do.
pub(crate) struct Collectors {
    pub(crate) looks: Newest<Arc<Snapshot>>,
    pub(crate) asked: Newest<Asked>,
    pub(crate) lines: Newest<(Vec<String>, String)>,
    looker: SyncSender<Duration>,
    asker: SyncSender<Order>,
    wanted: Arc<Mutex<Wanted>>,
}

enum Order {
    Act(Action),
    /// Something else is wanted now.
    Look,
}

impl Collectors {
    /// Starts to look at `source` every `interval`, and to ask `admin` for what is wanted. They end with their orders.
    pub(crate) fn start(
        source: Box<dyn Source>,
        admin: Admin,
        log: Option<PathBuf>,
        interval: Duration,
        events: &SyncSender<Event>,
    ) -> anyhow::Result<Collectors> {
        let (looker, intervals) = mpsc::sync_channel(4);
        let (asker, orders) = mpsc::sync_channel(4);
        let collectors = Collectors {
            looks: Newest::default(),
            asked: Newest::default(),
            lines: Newest::default(),
            looker,
            asker,
            wanted: Arc::default(),
        };
        let (looks, told) = (Arc::clone(&collectors.looks), events.clone());
        spawn("look", move || look(source, interval, &intervals, &looks, &told))?;
        let (asked, lines) = (Arc::clone(&collectors.asked), Arc::clone(&collectors.lines));
        let (wanted, told) = (Arc::clone(&collectors.wanted), events.clone());
        let asker = Asker { admin, asked, lines, wanted, tail: log.map(Tail::new), events: told };
        spawn("ask", move || asker.run(&orders))?;
        Ok(collectors)
    }

    pub(crate) fn set_interval(&self, interval: Duration) {
        let _ = self.looker.try_send(interval);
    }

    pub(crate) fn act(&self, action: Action) -> bool {
        self.asker.try_send(Order::Act(action)).is_ok()
    }

    pub(crate) fn want(&self, wanted: Wanted) {
        let mut now = lock(&self.wanted);
        if *now != wanted {
            *now = wanted;
            let _ = self.asker.try_send(Order::Look);
        }
    }
}

/// Keys, mouse and sizes, until the terminal is gone.
pub(crate) fn read_terminal(events: SyncSender<Event>) -> anyhow::Result<()> {
    spawn("keys", move || {
        while let Ok(event) = crossterm::event::read() {
            if events.send(Event::Terminal(event)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::Closed);
    })
}

/// Signals, which are blocked everywhere.
pub(crate) fn wait_for_signals(set: SigSet, events: SyncSender<Event>) -> anyhow::Result<()> {
    spawn("signals", move || {
        while let Ok(signal) = set.wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    })
}

fn look(
    mut source: Box<dyn Source>,
    mut interval: Duration,
    intervals: &Receiver<Duration>,
    looks: &Newest<Arc<Snapshot>>,
    events: &SyncSender<Event>,
) {
    loop {
        let begun = Instant::now();
        put(looks, Arc::new(source.look(now_ms())), events);
        loop {
            let rest = interval.saturating_sub(begun.elapsed());
            match intervals.recv_timeout(rest) {
                Ok(changed) => {
                    fault::at(Place::ChangeInterval);
                    interval = changed;
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

struct Asker {
    admin: Admin,
    asked: Newest<Asked>,
    lines: Newest<(Vec<String>, String)>,
    wanted: Arc<Mutex<Wanted>>,
    tail: Option<Tail>,
    events: SyncSender<Event>,
}

impl Asker {
    fn run(mut self, orders: &Receiver<Order>) {
        let mut known = Asked::default();
        let mut pause = Duration::ZERO;
        // The version may change with a hot restart.
        let mut next_version = Instant::now();
        loop {
            match orders.recv_timeout(pause) {
                Ok(Order::Act(action)) => {
                    let told = self.admin.act(action);
                    let _ = self.events.send(Event::Told(told));
                }
                Ok(Order::Look) => fault::at(Place::AskForMore),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let mut wanted = *lock(&self.wanted);
            // Where the log lies is in the configuration; asked once.
            wanted.configuration |= wanted.log && self.tail.is_none();
            let log = wanted.log;
            wanted.version = Instant::now() >= next_version;
            if wanted.version {
                next_version = Instant::now() + VERSION_INTERVAL;
            }
            if wanted.version || wanted.hosts || wanted.configuration {
                known = self.admin.look(wanted, &known, now_ms());
                put(&self.asked, known.clone(), &self.events);
            }
            if log {
                self.follow(&known);
            }
            pause = if log { LOG_INTERVAL } else { ASK_INTERVAL };
        }
    }

    fn follow(&mut self, known: &Asked) {
        if self.tail.is_none() {
            let file = known.log_files.iter().find(|file| file.is_absolute() && !file.starts_with("/dev"));
            self.tail = file.cloned().map(Tail::new);
        }
        let (lines, state) = match (&mut self.tail, &known.trouble) {
            (Some(tail), _) => match tail.lines() {
                Ok(lines) => (lines, format!("nothing has been written to {} yet", tail.path().display())),
                Err(error) => (Vec::new(), format!("{}: {error}", tail.path().display())),
            },
            (None, Some(trouble)) => (
                Vec::new(),
                format!("which file is the access log is not known ({trouble}); --access-log names one"),
            ),
            (None, None) => (
                Vec::new(),
                "the configuration writes no access log to a file; --access-log names one".to_owned(),
            ),
        };
        let mut place = lock(&self.lines);
        let mut all = place.take().map(|(lines, _)| lines).unwrap_or_default();
        all.extend(lines);
        let surplus = all.len().saturating_sub(MOST_LINES);
        all.drain(..surplus);
        *place = Some((all, state));
        drop(place);
        let _ = self.events.try_send(Event::Found);
    }
}

fn put<T>(place: &Newest<T>, found: T, events: &SyncSender<Event>) {
    *lock(place) = Some(found);
    // A full channel wakes the screen as well.
    let _ = events.try_send(Event::Found);
}

/// What was put there, once.
pub(crate) fn fetch<T>(place: &Newest<T>) -> Option<T> {
    lock(place).take()
}

fn lock<T>(place: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(())
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

const VERSION_INTERVAL: Duration = Duration::from_secs(30);
const ASK_INTERVAL: Duration = Duration::from_secs(1);
const LOG_INTERVAL: Duration = Duration::from_millis(500);
