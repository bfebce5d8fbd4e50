//! What lies between workers and a file's thread: buffers handed over, in order, at most so many bytes.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Stats;
use super::target::Target;
use super::writer;

/// Shared by the workers' buffers, main and the file's thread.
pub(super) struct Queue {
    path: PathBuf,
    state: Mutex<State>,
    /// There is something to do for the thread.
    todo: Condvar,
    /// The thread has done something.
    done: Condvar,
    pub(super) stats: Arc<Stats>,
}

pub(super) struct State {
    /// Until the first line is handed over there is no thread, and this is its target.
    idle: Option<Target>,
    waiting: VecDeque<Lines>,
    waiting_bytes: usize,
    /// The thread is writing.
    busy: bool,
    reopen: bool,
    /// Buffers of workers that may still hand something over.
    buffers: usize,
    /// Written buffers, to be used again.
    spare: Vec<Vec<u8>>,
}

/// Lines of one worker.
#[derive(Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

/// What the thread is to do next.
pub(super) enum Next {
    Write(Lines),
    Reopen,
    /// Nobody can hand anything over any more.
    End,
}

impl Queue {
    pub(super) fn new(target: Target, stats: Arc<Stats>) -> Queue {
        let state = State {
            idle: Some(target),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            busy: false,
            reopen: false,
            buffers: 0,
            spare: Vec::new(),
        };
        let path = state.idle.as_ref().map_or_else(PathBuf::new, |target| target.destination.path());
        Queue { path, state: Mutex::new(state), todo: Condvar::new(), done: Condvar::new(), stats }
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    pub(super) fn add_buffer(&self) {
        self.lock().buffers += 1;
    }

    pub(super) fn remove_buffer(&self) {
        self.lock().buffers -= 1;
        self.done.notify_all();
    }

    /// Takes lines to be written; gives an empty buffer in return. Where too much waits already they are dropped.
    pub(super) fn hand_over(self: &Arc<Self>, lines: Lines) -> Vec<u8> {
        let mut state = self.lock();
        let spare = state.spare.pop().unwrap_or_default();
        if state.waiting_bytes + lines.bytes.len() > MAX_WAITING {
            drop(state);
            self.stats.lost(
                &self.path,
                lines.bytes.len(),
                lines.count,
                "they come faster than they can be written",
            );
            return spare;
        }
        state.waiting_bytes += lines.bytes.len();
        state.waiting.push_back(lines);
        match state.idle.take() {
            Some(target) => {
                drop(state);
                writer::start(self, target);
            }
            None => self.todo.notify_one(),
        }
        spare
    }

    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        match &mut state.idle {
            Some(target) => writer::reopen(target, &self.stats),
            None => {
                state.reopen = true;
                self.todo.notify_one();
            }
        }
    }

    /// Returns at `deadline`, or when no worker has a buffer and all is written.
    pub(super) fn wait_until_written(&self, deadline: Instant) {
        let mut state = self.lock();
        while state.buffers > 0 || !state.waiting.is_empty() || state.busy {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the thread should go on with what it cannot write at the moment.
    pub(super) fn is_worth_waiting(&self, since: Instant, orphaned: bool) -> bool {
        !self.lock().reopen && (!orphaned || since.elapsed() < ORPHAN_PATIENCE)
    }

    /// Waits for something to do; the thread's. `previous` is what it did before.
    pub(super) fn next(&self, previous: Option<Vec<u8>>, is_orphaned: impl Fn() -> bool) -> Next {
        let mut state = self.lock();
        state.busy = false;
        if let Some(mut buffer) = previous
            && state.spare.len() < MAX_SPARE
        {
            buffer.clear();
            state.spare.push(buffer);
        }
        self.done.notify_all();
        loop {
            // In this order: what was handed over before a rotation belongs to the old file.
            if let Some(lines) = state.waiting.pop_front() {
                state.waiting_bytes -= lines.bytes.len();
                state.busy = true;
                return Next::Write(lines);
            }
            if std::mem::take(&mut state.reopen) {
                return Next::Reopen;
            }
            if is_orphaned() {
                return Next::End;
            }
            state = self.todo.wait_timeout(state, ORPHAN_CHECK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that may wait for a file that is not written to. Beyond, lines are dropped.
const MAX_WAITING: usize = 16 << 20;
const MAX_SPARE: usize = 4;
/// A thread notices this late that its file is closed.
const ORPHAN_CHECK: Duration = Duration::from_secs(30);
/// How long a closed file that cannot be written to is waited for.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(1);
