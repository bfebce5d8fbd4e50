//! Whether the loop of a thread turns, told to another thread without ever waking one that is idle.
//!
//! tokio counts how often a loop goes to wait and wakes. One that waits is well, however long it waits; one that is
//! awake is well while that number moves. A loop that never waits, because there is always something to do, shows it by
//! running a task when asked to. So watching costs a thread nothing while it waits, and one poll per question otherwise.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use tokio::runtime::{Handle, RuntimeMetrics};
use tokio::sync::Notify;

/// What another thread knows of a loop; may be sent anywhere.
#[derive(Debug, Clone)]
pub struct Pulse {
    metrics: RuntimeMetrics,
    /// Gone when the loop has ended, which drops its tasks.
    answers: Weak<Answers>,
}

/// The loop at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// It waits for events.
    Waiting,
    /// It runs something. The number differs from that of an earlier moment if the loop has come round in between;
    /// between two of which the first has been followed by [`Pulse::ask`], it differs unless the loop stands still.
    Awake(u64),
    /// There is no loop any more.
    Ended,
}

#[derive(Debug, Default)]
struct Answers {
    asked: Notify,
    given: AtomicU64,
}

impl Pulse {
    /// That of the loop that runs the caller.
    ///
    /// # Panics
    /// Outside of a [`crate::local_runtime`].
    pub fn of_this_loop() -> Self {
        let (pulse, answering) = Self::of(&Handle::current());
        tokio::task::spawn_local(answering);
        pulse
    }

    /// That of the loop of `runtime`, which is single-threaded and has to run the future.
    pub(crate) fn of(runtime: &Handle) -> (Self, impl Future<Output = ()> + use<>) {
        let answers = Arc::new(Answers::default());
        let pulse = Self { metrics: runtime.metrics(), answers: Arc::downgrade(&answers) };
        let answering = async move {
            loop {
                answers.asked.notified().await;
                answers.given.fetch_add(1, Ordering::Relaxed);
            }
        };
        (pulse, answering)
    }

    /// The loop now.
    pub fn beat(&self) -> Beat {
        let Some(answers) = self.answers.upgrade() else { return Beat::Ended };
        let turns = self.metrics.worker_park_unpark_count(0);
        // Odd while the loop waits. Both numbers only rise, so their sum changes when either does.
        if turns % 2 == 1 {
            Beat::Waiting
        } else {
            Beat::Awake(turns + answers.given.load(Ordering::Relaxed))
        }
    }

    /// Asks the loop to change its number.
    pub fn ask(&self) {
        if let Some(answers) = self.answers.upgrade() {
            answers.asked.notify_one();
        }
    }
}
