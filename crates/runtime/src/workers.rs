//! The worker threads: starting them, posting to them, stopping them.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;

use crate::mailbox::{Mail, OnAllWorkers, Receiver, Sender, channel, countdown};
use crate::pulse::Pulse;
use crate::{clock, loop_stats, slot, worker_local};

/// A worker's number, from 0; the `N` of `wrk:worker_N` and of Envoy's `worker_N` stats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerIndex(pub u16);

/// How to start the workers.
#[derive(Debug, Clone)]
pub struct WorkersOptions {
    /// How many threads (Envoy's `--concurrency`); 0 counts as 1, as in Envoy.
    pub concurrency: u16,
    /// Measure each turn of the loops, for [`crate::LoopStats::keep`] to record.
    pub measured: bool,
}

/// All workers of this process, held by main. Dropping it tells them to stop and does not wait.
pub struct Workers {
    threads: Vec<Worker>,
}

struct Worker {
    mailbox: Sender,
    pulse: Pulse,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

/// The way from each worker to the others. Keeps none of them alive.
#[derive(Clone)]
pub struct Peers(Arc<[Sender]>);

/// Workers that could not be started; those that could are stopped again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gave no thread.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no event loop (epoll, descriptors).
    #[error("cannot start the event loop of {name}: {source}")]
    Loop {
        /// The thread's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Workers that did not stop by the deadline; their threads are left behind.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} of the workers did not stop in time, the first is wrk:worker_{}", .0.len(), .0.first().map_or(0, |worker| worker.0))]
pub struct StopError(pub Vec<WorkerIndex>);

impl Default for WorkersOptions {
    /// One worker per core.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { concurrency: u16::try_from(cores).unwrap_or(u16::MAX), measured: false }
    }
}

impl Workers {
    /// [`Workers::try_start`] for callers that have nothing to do without workers, such as tests.
    ///
    /// # Panics
    /// When the system gives no thread or no event loop.
    pub fn start(
        options: WorkersOptions,
        init: impl Fn(WorkerIndex) + Send + Sync + Clone + 'static,
    ) -> Self {
        Self::try_start(options, init).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts the threads; returns when each has its event loop. `init` runs first on each, before anything posted.
    ///
    /// # Errors
    /// When the system gives no thread or no event loop.
    pub fn try_start(
        options: WorkersOptions,
        init: impl Fn(WorkerIndex) + Send + Sync + Clone + 'static,
    ) -> Result<Self, StartError> {
        let mut workers = Self { threads: Vec::new() };
        for index in (0..options.concurrency.max(1)).map(WorkerIndex) {
            workers.threads.push(start_one(index, options.measured, init.clone())?);
        }
        Ok(workers)
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Every worker's number, in order.
    pub fn indexes(&self) -> impl Iterator<Item = WorkerIndex> + use<> {
        (0..self.threads.len()).filter_map(|index| u16::try_from(index).ok()).map(WorkerIndex)
    }

    /// The loop of every worker, in order.
    pub fn pulses(&self) -> impl Iterator<Item = Pulse> {
        self.threads.iter().map(|worker| worker.pulse.clone())
    }

    /// Runs `mail` on one worker, after everything posted to it before. False when there is no such worker any more.
    pub fn post(&self, worker: WorkerIndex, mail: Mail) -> bool {
        self.threads.get(usize::from(worker.0)).is_some_and(|thread| thread.mailbox.post(mail))
    }

    /// Runs `action` on every worker.
    pub fn post_all(&self, action: impl Fn() + Clone + Send + 'static) {
        for thread in &self.threads {
            let action = action.clone();
            thread.mailbox.post(Box::new(action));
        }
    }

    /// Runs `action` on every worker; resolves when all have run it. A worker that dies or panics in it counts.
    pub fn post_all_then(&self, action: impl Fn() + Clone + Send + 'static) -> OnAllWorkers {
        let (copy, done) = countdown();
        for thread in &self.threads {
            let (action, copy) = (action.clone(), copy.clone());
            thread.mailbox.post(Box::new(move || {
                action();
                drop(copy);
            }));
        }
        drop(copy);
        done
    }

    /// Starts a task on every worker; resolves when all have ended. A task that panics, or whose worker dies, has ended.
    pub fn spawn_all_then<F>(&self, task: impl Fn() -> F + Clone + Send + 'static) -> OnAllWorkers
    where
        F: Future<Output = ()> + 'static,
    {
        let (copy, done) = countdown();
        for thread in &self.threads {
            let (task, copy) = (task.clone(), copy.clone());
            thread.mailbox.post(Box::new(move || {
                let task = task();
                tokio::task::spawn_local(async move {
                    task.await;
                    drop(copy);
                });
            }));
        }
        drop(copy);
        done
    }

    /// Lets every worker run what was posted so far, then ends its loop, which drops its tasks. Drain first.
    ///
    /// # Errors
    /// The workers that are stuck at the deadline.
    pub async fn stop(mut self, deadline: Duration) -> Result<(), StopError> {
        let threads = std::mem::take(&mut self.threads);
        threads.iter().for_each(|worker| worker.mailbox.stop());
        let until = tokio::time::Instant::now() + deadline;
        let mut stuck = Vec::new();
        for (index, worker) in (0..).map(WorkerIndex).zip(threads) {
            if tokio::time::timeout_at(until, worker.ended).await.is_err() {
                stuck.push(index);
            } else if worker.thread.join().is_err() {
                tracing::error!("worker {} ended by a panic", index.0);
            }
        }
        if stuck.is_empty() { Ok(()) } else { Err(StopError(stuck)) }
    }

    /// For workers that have something to say to each other.
    pub fn peers(&self) -> Peers {
        Peers(self.senders().into())
    }

    pub(crate) fn senders(&self) -> Vec<Sender> {
        self.threads.iter().map(|worker| worker.mailbox.clone()).collect()
    }
}

impl Peers {
    /// Runs `mail` on one worker, after everything posted to it before. False when there is no such worker any more.
    pub fn post(&self, worker: WorkerIndex, mail: Mail) -> bool {
        self.0.get(usize::from(worker.0)).is_some_and(|mailbox| mailbox.post(mail))
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.threads.iter().for_each(|worker| worker.mailbox.stop());
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Workers").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl fmt::Display for WorkerIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "worker_{}", self.0)
    }
}

/// An event loop as workers have it, for main as well: single-threaded, with coarse time ([`clock`]).
///
/// # Errors
/// When the system refuses the descriptors it needs.
pub fn local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(clock::turn)
        .build_local(LocalOptions::default())
}

/// As [`local_runtime`], with turns that are measured: see [`crate::LoopStats`].
///
/// # Errors
/// When the system refuses the descriptors it needs.
pub fn measured_local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .on_thread_park(loop_stats::end_turn)
        .on_thread_unpark(loop_stats::begin_turn)
        .build_local(LocalOptions::default())
}

fn start_one(
    index: WorkerIndex,
    measured: bool,
    init: impl Fn(WorkerIndex) + Send + Sync + Clone + 'static,
) -> Result<Worker, StartError> {
    let name = format!("wrk:{index}");
    let (mailbox, receiver) = channel();
    let (ready, started) = blocking::channel();
    let (end, ended) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            run(receiver, measured, ready, || init(index));
            // Nobody may be waiting.
            let _ = end.send(());
        })
        .map_err(|source| StartError::Thread { name: name.clone(), source })?;
    match started.recv() {
        Ok(Ok(pulse)) => Ok(Worker { mailbox, pulse, ended, thread }),
        Ok(Err(source)) => Err(StartError::Loop { name, source }),
        Err(_) => Err(StartError::Loop { name, source: io::Error::other("the thread ended") }),
    }
}

fn run(receiver: Receiver, measured: bool, ready: blocking::Sender<io::Result<Pulse>>, init: impl FnOnce()) {
    let runtime = match if measured { measured_local_runtime() } else { local_runtime() } {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let (pulse, answering) = Pulse::of(runtime.handle());
    let _ = ready.send(Ok(pulse));
    clock::turn();
    runtime.block_on(async {
        tokio::task::spawn_local(answering);
        init();
        receiver.run().await;
    });
    // Tasks first: they may still reach what the thread holds. Lookups in progress on other threads are left alone.
    runtime.shutdown_background();
    clock::detach();
    loop_stats::clear();
    worker_local::clear();
    slot::clear();
}
