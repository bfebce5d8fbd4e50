//! The thread of a file.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Stats;
use super::queue::{Next, Queue};
use super::target::Target;

/// Starts the thread that writes to `target` what is handed to `queue`.
pub(super) fn start(queue: &Arc<Queue>, target: Target) {
    let for_thread = Arc::clone(queue);
    let spawned =
        thread::Builder::new().name("AccessLogFlush".into()).spawn(move || run(&for_thread, target));
    if let Err(error) = spawned {
        tracing::error!(path = %queue.path().display(), %error, "no thread to write a log: its lines will be dropped");
    }
}

/// Opens the file under its path anew; the old one stays where that fails.
pub(super) fn reopen(target: &mut Target, stats: &Stats) {
    match Target::open(target.destination.clone()) {
        Ok(new) => *target = new,
        Err(error) => {
            stats.counts.reopen_failed.inc();
            let path = target.destination.path();
            tracing::warn!(path = %path.display(), %error, "a log cannot be opened again, the old file stays");
        }
    }
}

fn run(queue: &Arc<Queue>, mut target: Target) {
    // Nobody but this thread holds the queue: no line can come any more.
    let is_orphaned = || Arc::strong_count(queue) == 1;
    let stats = &queue.stats;
    let mut told = None::<Instant>;
    let mut unheard = 0;
    let mut previous = None;
    loop {
        let lines = match queue.next(previous.take(), is_orphaned) {
            Next::Write(lines) => lines,
            Next::Reopen => {
                reopen(&mut target, stats);
                continue;
            }
            Next::End => return,
        };
        let since = Instant::now();
        let written = target.write(&lines.bytes, || queue.is_worth_waiting(since, is_orphaned()));
        stats.counts.write_total_buffered.add(-(lines.bytes.len() as i64));
        match written {
            Ok(()) => stats.counts.write_completed.inc(),
            Err((error, rest)) => {
                let count =
                    if rest.len() == lines.bytes.len() { lines.count } else { line_feeds(rest).max(1) };
                stats.count_lost(count);
                unheard += count;
                if told.is_none_or(|told| told.elapsed() >= BETWEEN_WARNINGS) {
                    told = Some(Instant::now());
                    let lost = std::mem::take(&mut unheard);
                    let path = queue.path();
                    tracing::warn!(path = %path.display(), %error, lost, "lines of a log were lost (told once a minute)");
                }
            }
        }
        previous = Some(lines.bytes);
    }
}

impl Stats {
    /// Lines that were buffered and will not be written.
    pub(super) fn lost(&self, path: &Path, bytes: usize, lines: u64, why: &'static str) {
        self.counts.write_total_buffered.add(-(bytes as i64));
        self.count_lost(lines);
        tracing::debug!(path = %path.display(), lines, why, "lines of a log were lost");
    }

    fn count_lost(&self, lines: u64) {
        self.counts.write_failed.inc();
        // Not a name of Envoy's, so it is there only when there is something to tell.
        self.scope.counter("lines_lost").add(lines);
    }
}

fn line_feeds(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// A full disk fails with every write.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);
