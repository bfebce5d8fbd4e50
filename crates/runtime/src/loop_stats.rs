//! How long the turns of a thread's loop take, and how late it wakes: `dispatcher.*`, as `enable_dispatcher_stats` asks.
//!
//! A turn is all that runs between two waits. A loop that always has something to do therefore has long ones, which is
//! what the stat is to show. tokio does not tell how long a loop means to wait, so a timer of our own says how late it
//! is woken; it is due ten times a second, and only where stats are kept. A loop built without hooks pays nothing.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use proxy_stats::{Scope, stats_block};

use crate::clock;
use crate::instant::Instant;

stats_block! {
    /// `<thread>.dispatcher.*`: `server` for main, `listener_manager.worker_N` for workers. In microseconds.
    pub struct LoopStats {
        histograms: loop_duration_us, poll_delay_us;
    }
}

/// Of a thread whose loop is measured.
struct Measured {
    stats: LoopStats,
    turn_began: Cell<Option<Instant>>,
    /// When the timer is due.
    due: Cell<Instant>,
    /// When the loop, which waits, should wake at the latest.
    wait_ends: Cell<Option<Instant>>,
}

impl LoopStats {
    /// Measures the calling thread's loop from now on, under `thread`. Does nothing unless the loop was built by
    /// [`crate::measured_local_runtime`].
    pub fn keep(thread: &Scope) {
        let measured = Measured {
            stats: LoopStats::new(&thread.scope("dispatcher.")),
            turn_began: Cell::new(None),
            due: Cell::new(clock::now()),
            wait_ends: Cell::new(None),
        };
        MEASURED.set(Some(measured));
        tokio::task::spawn_local(be_due());
    }
}

/// The loop has nothing to do.
pub(crate) fn end_turn() {
    with_measured(|measured| {
        let now = clock::refresh();
        if let Some(began) = measured.turn_began.get() {
            measured.stats.loop_duration_us.record(microseconds(now - began));
        }
        measured.wait_ends.set(Some(measured.due.get().max(now)));
    });
}

/// The loop has something to do.
pub(crate) fn begin_turn() {
    clock::turn();
    with_measured(|measured| {
        let now = clock::now();
        measured.turn_began.set(Some(now));
        // Woken earlier, it was by something else than the timer.
        if let Some(late) = measured.wait_ends.take().and_then(|ends| now.checked_duration_since(ends)) {
            measured.stats.poll_delay_us.record(microseconds(late.saturating_sub(RESOLUTION)));
        }
    });
}

/// When the loop of this thread has ended.
pub(crate) fn clear() {
    drop(MEASURED.try_with(|measured| measured.take()));
}

async fn be_due() {
    loop {
        let due = clock::now() + PERIOD;
        with_measured(|measured| measured.due.set(due));
        tokio::time::sleep_until(due.into()).await;
    }
}

fn with_measured(action: impl FnOnce(&Measured)) {
    // A thread that is ending measures no more.
    let _ = MEASURED.try_with(|measured| measured.borrow().as_ref().map(action));
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

thread_local! {
    static MEASURED: RefCell<Option<Measured>> = const { RefCell::new(None) };
}

const PERIOD: Duration = Duration::from_millis(100);

/// tokio rounds a deadline up to a millisecond, and what it asks of the kernel once more: that is no delay.
const RESOLUTION: Duration = Duration::from_millis(2);
