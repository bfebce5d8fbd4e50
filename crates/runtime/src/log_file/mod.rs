//! Files that workers append lines to: access logs.
//!
//! A worker appends to a buffer of its own ([`LineBuffer`]); when that has grown large enough, or some time has passed,
//! it is handed to the file's thread, which alone writes. So a worker never waits for a disk or a pipe, and takes a lock
//! once per 64 KiB. What cannot be written is dropped and counted, within fixed memory.

mod buffer;
mod queue;
mod target;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use proxy_stats::{Scope, stats_block};

pub use buffer::LineBuffer;
use queue::Queue;
use target::Target;

stats_block! {
    /// `filesystem.*`.
    pub struct FileStats {
        counters: flushed_by_timer, reopen_failed, write_buffered, write_completed, write_failed;
        gauges: write_total_buffered: Accumulate;
    }
}

/// When buffers are handed over.
#[derive(Debug, Clone, Copy)]
pub struct FlushOptions {
    /// `--file-flush-interval-msec`: so long a line waits at most.
    pub interval: Duration,
    /// `--file-flush-min-size-kb`, in bytes: so much is handed over at once.
    pub min_size: usize,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Appended to; made if it is not there. Several processes may share it.
    File(PathBuf),
    Stdout,
    Stderr,
}

/// All open files of this process, shared by path. Cheap to clone.
#[derive(Clone)]
pub struct LogFiles(Arc<Files>);

struct Files {
    options: FlushOptions,
    stats: Arc<Stats>,
    open: Mutex<HashMap<Destination, Weak<Queue>>>,
}

/// The counters, and the scope for the one that is there only when it is needed.
struct Stats {
    counts: FileStats,
    scope: Scope,
}

/// A file that was opened, for workers to make their [`LineBuffer`] of. With the last one it is closed.
#[derive(Clone)]
pub struct LogFile {
    queue: Arc<Queue>,
    options: FlushOptions,
}

/// A file that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("unable to open file '{}': {source}", path.display())]
pub struct OpenError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl Default for FlushOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), min_size: 64 << 10 }
    }
}

impl LogFiles {
    /// `root` is the scope of the whole store.
    pub fn new(root: &Scope, options: FlushOptions) -> LogFiles {
        let scope = root.scope("filesystem.");
        let stats = Arc::new(Stats { counts: FileStats::new(&scope), scope });
        LogFiles(Arc::new(Files { options, stats, open: Mutex::default() }))
    }

    /// Opens `destination`, or gives the file that is open there. A FIFO that nobody reads yet counts as open.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&self, destination: &Destination) -> Result<LogFile, OpenError> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, queue| queue.strong_count() > 0);
        let queue = match open.get(destination).and_then(Weak::upgrade) {
            Some(queue) => queue,
            None => {
                let target = Target::open(destination.clone())
                    .map_err(|source| OpenError { path: destination.path(), source })?;
                let queue = Arc::new(Queue::new(target, Arc::clone(&self.0.stats)));
                open.insert(destination.clone(), Arc::downgrade(&queue));
                queue
            }
        };
        Ok(LogFile { queue, options: self.0.options })
    }

    /// Opens every file anew under its path, as after a rotation. What was handed over before goes to the old one.
    pub fn reopen(&self) {
        self.all().iter().for_each(|queue| queue.reopen());
    }

    /// Waits until all buffers of workers that have ended are written, at most `limit`.
    pub fn finish(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.all().iter().for_each(|queue| queue.wait_until_written(deadline));
    }

    fn all(&self) -> Vec<Arc<Queue>> {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter_map(Weak::upgrade).collect()
    }
}

impl Destination {
    fn path(&self) -> PathBuf {
        match self {
            Destination::File(path) => path.clone(),
            Destination::Stdout => "/dev/stdout".into(),
            Destination::Stderr => "/dev/stderr".into(),
        }
    }
}

impl std::fmt::Debug for LogFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("LogFile").field(&self.queue.path()).finish()
    }
}

#[cfg(test)]
mod tests;
