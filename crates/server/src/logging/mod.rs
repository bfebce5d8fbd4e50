//! Logging: `tracing` events of all crates, filtered by component, written by a thread of their own.
//!
//! A worker that logs formats its line and puts it into a bounded queue; it never waits for a disk or a terminal. When the queue is
//! full, lines are dropped and counted, and the count is written as soon as there is room.

mod format;
mod levels;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use std::{io, thread};

use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Registry, fmt, reload};

pub use levels::{COMPONENTS, Component, ComponentLevels, Level, Levels, UnknownComponent, UnknownLevel};

use format::LineFormat;
use writer::{Message, Sink, Writer};

/// `-l`, `--component-log-level`, `--log-format`, `--log-path`.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub level: Level,
    pub components: ComponentLevels,
    pub format: LogFormat,
    /// Standard error when `None`.
    pub path: Option<PathBuf>,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `2026-11-23T05:04:05.123456Z info  upstream: message field=value`
    #[default]
    Text,
    /// One object per line: `time`, `level`, `component`, `message` and the event's fields.
    Json,
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log file {}: {error}", path.display())]
    Open { path: PathBuf, error: io::Error },
    #[error("log thread: {0}")]
    Thread(io::Error),
    #[error("logging has been started before in this process")]
    Started,
}

/// Changes a running log. Cheap to clone; for main.
#[derive(Clone)]
pub struct Log {
    levels: Arc<Mutex<Levels>>,
    filter: reload::Handle<Targets, Registry>,
    writer: Writer,
}

/// Writes what is still queued when dropped, for at most a second.
pub struct LogGuard {
    writer: Writer,
    thread: Option<thread::JoinHandle<()>>,
}

/// Starts the log of this process.
///
/// # Errors
/// The file cannot be opened, or this was done before.
pub fn start(options: &LogOptions) -> Result<(Log, LogGuard), LogError> {
    let sink = match &options.path {
        Some(path) => Sink::file(path).map_err(|error| LogError::Open { path: path.clone(), error })?,
        None => Sink::Stderr,
    };
    let (subscriber, log, guard) = build(options, sink)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Started)?;
    Ok((log, guard))
}

fn build(
    options: &LogOptions,
    sink: Sink,
) -> Result<(impl Subscriber + Send + Sync + use<>, Log, LogGuard), LogError> {
    let colour = sink.is_terminal() && options.format == LogFormat::Text;
    let (writer, thread) = writer::spawn(sink).map_err(LogError::Thread)?;
    let levels = Levels::new(options.level, &options.components);
    let (filter, handle) = reload::Layer::new(levels.targets());
    let lines = fmt::layer()
        .with_ansi(colour)
        .event_format(LineFormat { format: options.format, colour })
        .with_writer(writer.clone());
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    let log = Log { levels: Arc::new(Mutex::new(levels)), filter: handle, writer: writer.clone() };
    Ok((subscriber, log, LogGuard { writer, thread: Some(thread) }))
}

/// A log without a subscriber: what it is told changes nothing but itself.
#[cfg(test)]
pub(crate) fn detached(options: &LogOptions) -> (Log, LogGuard) {
    let (_, log, guard) = build(options, Sink::Test(Box::new(io::sink()))).expect("a thread can be started");
    (log, guard)
}

impl Log {
    /// The levels now.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.lock().clone()
    }

    /// Sets every component's level.
    pub fn set_all(&self, level: Level) {
        self.change(|levels| levels.set_all(level));
    }

    /// Sets the levels of some components.
    pub fn set(&self, components: &ComponentLevels) {
        self.change(|levels| levels.set(components));
    }

    /// Opens the log file anew, after it was moved away. Without `--log-path` this does nothing.
    pub fn reopen(&self) {
        self.writer.send(Message::Reopen);
    }

    /// Waits until what was logged so far is written, at most a second.
    pub fn flush(&self) {
        self.writer.finish(FINISH_LIMIT);
    }

    /// Lines lost so far because they came faster than they could be written.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.writer.dropped_lines()
    }

    fn change(&self, change: impl FnOnce(&mut Levels)) {
        let mut levels = self.lock();
        change(&mut levels);
        // Fails only when the subscriber is gone, and then nobody logs.
        let _ = self.filter.reload(levels.targets());
    }

    fn lock(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.writer.finish(FINISH_LIMIT);
        // A thread that is stuck in a write must not keep the process.
        if let Some(thread) = self.thread.take()
            && thread.is_finished()
        {
            let _ = thread.join();
        }
    }
}

const FINISH_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
