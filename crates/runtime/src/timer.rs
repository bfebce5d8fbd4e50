//! Timers on the wheel of this thread, and the task that turns it.
//!
//! The wheel is thread-local: a timer belongs to the thread that made it and works under any single-threaded tokio
//! runtime there. The task turns the wheel with every tick and sleeps while no timer waits. It does not sleep longer
//! to save turns, because it also keeps the coarse clock moving on a loop that never runs out of ready tasks, where a
//! deadline counted from a stale time would come early.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock;
use crate::instant::Instant;
use crate::wheel::{LAST, NEVER, Tick, Wheel};

/// How coarse deadlines are: never early, late by up to this much.
pub const TICK: Duration = Duration::from_millis(1 << TICK_SHIFT);

const TICK_SHIFT: u32 = 6;

/// One entry on this thread's wheel, with at most one deadline. Setting a deadline later than before is a store.
pub struct Timer {
    local: Rc<Local>,
    entry: Option<u32>,
}

/// `N` deadlines over one [`Timer`], told apart by number. Made for a connection's idle, header, request and other
/// limits, of which only the nearest needs the wheel.
#[derive(Debug)]
pub struct Deadlines<const N: usize> {
    timer: Timer,
    at: [Cell<Tick>; N],
}

struct Local {
    start: Instant,
    /// A moment and its tick: within a turn of the loop, [`Local::tick_at`] is asked for the same one again and again.
    latest: Cell<(Instant, Tick)>,
    wheel: RefCell<Wheel>,
    driver: RefCell<Driver>,
}

enum Driver {
    None,
    /// Turns the wheel with every tick, or is about to.
    Turning,
    /// Waits for a timer to be set.
    Asleep(Waker),
}

impl Timer {
    /// A timer without a deadline.
    pub fn new() -> Self {
        let local = Local::of_this_thread();
        let entry = local.wheel.borrow_mut().insert();
        Self { local, entry }
    }

    /// Sets or moves the deadline; one in the past is due at once.
    pub fn set(&self, deadline: Instant) {
        self.set_tick(self.local.tick_after(deadline));
    }

    /// Takes the deadline away.
    pub fn clear(&self) {
        if let Some(entry) = self.entry {
            self.local.wheel.borrow_mut().clear(entry);
        }
    }

    /// Whether there is a deadline, due or not.
    pub fn is_set(&self) -> bool {
        self.deadline_tick() != NEVER
    }

    /// Ready when the deadline has passed, which also takes it away. Otherwise the context is woken at the deadline,
    /// also at one that is set after this call. Only the latest context is woken.
    pub fn poll_expired(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.poll_due(context).is_pending() {
            return Poll::Pending;
        }
        self.clear();
        Poll::Ready(())
    }

    /// Resolves when the deadline has passed.
    pub async fn expired(&self) {
        poll_fn(|context| self.poll_expired(context)).await;
    }

    fn poll_due(&self, context: &mut Context<'_>) -> Poll<()> {
        let Some(entry) = self.entry else { return Poll::Pending };
        let mut wheel = self.local.wheel.borrow_mut();
        let deadline = wheel.deadline(entry);
        if deadline != NEVER && deadline <= self.local.tick_at(clock::now()) {
            return Poll::Ready(());
        }
        let replaced = wheel.wake_at_deadline(entry, context.waker());
        drop(wheel);
        drop(replaced);
        if deadline != NEVER {
            self.local.ensure_driver();
        }
        Poll::Pending
    }

    fn deadline_tick(&self) -> Tick {
        self.entry.map_or(NEVER, |entry| self.local.wheel.borrow().deadline(entry))
    }

    fn set_tick(&self, deadline: Tick) {
        let Some(entry) = self.entry else { return };
        let mut wheel = self.local.wheel.borrow_mut();
        if wheel.store(entry, deadline) {
            return;
        }
        wheel.rearm(entry, self.local.tick_at(clock::now()));
        drop(wheel);
        self.local.rouse_driver();
    }
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            let waker = self.local.wheel.borrow_mut().remove(entry);
            drop(waker);
        }
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Timer").field("is_set", &self.is_set()).finish_non_exhaustive()
    }
}

impl<const N: usize> Deadlines<N> {
    /// No deadline set.
    pub fn new() -> Self {
        Self { timer: Timer::new(), at: [const { Cell::new(NEVER) }; N] }
    }

    /// Sets or moves deadline `which`.
    ///
    /// # Panics
    /// When `which` is not below `N`, as does every method that takes it.
    pub fn set(&self, which: usize, deadline: Instant) {
        self.at[which].set(self.timer.local.tick_after(deadline));
        self.timer.set_tick(self.nearest().1);
    }

    /// Takes deadline `which` away.
    pub fn clear(&self, which: usize) {
        // The entry stays armed at most once too early; the stale firing puts it right.
        self.at[which].set(NEVER);
    }

    /// Takes every deadline away.
    pub fn clear_all(&self) {
        self.at.iter().for_each(|at| at.set(NEVER));
        self.timer.clear();
    }

    /// Whether deadline `which` is set.
    pub fn is_set(&self, which: usize) -> bool {
        self.at[which].get() != NEVER
    }

    /// Time until deadline `which`, to a tick; `None` when it is not set.
    pub fn left(&self, which: usize) -> Option<Duration> {
        let at = self.at[which].get();
        let now = self.timer.local.tick_at(clock::now());
        (at != NEVER).then(|| TICK * at.saturating_sub(now))
    }

    /// Ready with the number of a deadline that has passed, which also takes it away; the earliest first, the lower
    /// number at a tie. Otherwise the context is woken at the nearest deadline, also at one set after this call.
    pub fn poll_expired(&self, context: &mut Context<'_>) -> Poll<usize> {
        let (which, nearest) = self.nearest();
        if nearest == NEVER {
            self.timer.clear();
        } else if nearest <= self.timer.local.tick_at(clock::now()) {
            self.at[which].set(NEVER);
            return Poll::Ready(which);
        } else {
            self.timer.set_tick(nearest);
        }
        let due = self.timer.poll_due(context);
        debug_assert!(due.is_pending(), "the timer was just set to what is not due");
        Poll::Pending
    }

    fn nearest(&self) -> (usize, Tick) {
        let mut nearest = (0, NEVER);
        for (which, at) in self.at.iter().enumerate() {
            if at.get() < nearest.1 {
                nearest = (which, at.get());
            }
        }
        nearest
    }
}

impl<const N: usize> Default for Deadlines<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl Local {
    fn of_this_thread() -> Rc<Self> {
        // A thread that is ending gets a wheel of its own, which nothing turns.
        LOCAL.try_with(Rc::clone).unwrap_or_else(|_| Rc::new(Self::new()))
    }

    fn new() -> Self {
        let start = clock::now();
        Self {
            start,
            latest: Cell::new((start, 0)),
            wheel: RefCell::new(Wheel::new()),
            driver: RefCell::new(Driver::None),
        }
    }

    /// The tick that has begun at `now`.
    fn tick_at(&self, now: Instant) -> Tick {
        let (at, tick) = self.latest.get();
        if at == now {
            return tick;
        }
        let tick = ticks(now.nanoseconds_since(self.start), 0);
        self.latest.set((now, tick));
        tick
    }

    /// The first tick that begins at `deadline` or after it.
    fn tick_after(&self, deadline: Instant) -> Tick {
        ticks(deadline.nanoseconds_since(self.start), TICK.as_nanos() as u64 - 1)
    }

    fn begin_of(&self, tick: Tick) -> Instant {
        self.start + Duration::from_millis(u64::from(tick) << TICK_SHIFT)
    }

    fn rouse_driver(&self) {
        if matches!(*self.driver.borrow(), Driver::Turning) {
            return;
        }
        match self.driver.replace(Driver::Turning) {
            Driver::Asleep(waker) => waker.wake(),
            Driver::Turning => {}
            Driver::None => {
                self.driver.replace(Driver::None);
                self.ensure_driver();
            }
        }
    }

    /// Starts the task if none runs: the first time, or when the runtime it ran on is gone.
    fn ensure_driver(&self) {
        if !matches!(*self.driver.borrow(), Driver::None) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        self.driver.replace(Driver::Turning);
        runtime.spawn(drive(Registration));
    }

    /// Turns the wheel and wakes what is due; returns the tick for the next turn.
    fn turn(&self, now: Instant, context: &Context<'_>) -> Option<Tick> {
        let mut due = Vec::new();
        let mut wheel = self.wheel.borrow_mut();
        wheel.turn(self.tick_at(now), &mut due);
        let next = wheel.next();
        drop(wheel);
        if next.is_none() {
            // Before waking anyone: what they set from here on must be able to rouse this task.
            self.driver.replace(Driver::Asleep(context.waker().clone()));
        }
        due.into_iter().for_each(Waker::wake);
        next
    }
}

/// Ends the driver's registration with the task, so that the next timer starts a new one.
struct Registration;

impl Drop for Registration {
    fn drop(&mut self) {
        let driver = LOCAL.try_with(|local| local.driver.replace(Driver::None));
        drop(driver);
    }
}

/// Turns this thread's wheel for as long as the runtime lives. It reaches the wheel through the thread and holds
/// nothing of it, so that it can be spawned on any single-threaded runtime, with or without a local set.
async fn drive(registration: Registration) {
    let mut sleep = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|context| {
        LOCAL.try_with(|local| poll_drive(local, sleep.as_mut(), context)).unwrap_or(Poll::Ready(()))
    })
    .await;
    drop(registration);
}

fn poll_drive(local: &Local, mut sleep: Pin<&mut tokio::time::Sleep>, context: &mut Context<'_>) -> Poll<()> {
    loop {
        let Some(next) = local.turn(clock::refresh(), context) else { return Poll::Pending };
        let until = local.begin_of(next).into();
        if sleep.deadline() != until || sleep.is_elapsed() {
            sleep.as_mut().reset(until);
        }
        if sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
    }
}

fn ticks(nanoseconds: u64, round_up: u64) -> Tick {
    // A tick count saturates after 8.7 years.
    Tick::try_from(nanoseconds.saturating_add(round_up) / (1_000_000 << TICK_SHIFT)).unwrap_or(LAST).min(LAST)
}

thread_local! {
    static LOCAL: Rc<Local> = Rc::new(Local::new());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Context;

    fn runtime() -> tokio::runtime::LocalRuntime {
        crate::local_runtime().unwrap()
    }

    #[test]
    fn sizes_are_what_a_connection_can_afford() {
        assert!(size_of::<Timer>() <= 16);
        assert!(size_of::<Deadlines<4>>() <= 32);
        assert!(size_of::<crate::wheel::Tick>() == 4);
    }

    #[test]
    fn never_early_and_never_missed() {
        runtime().block_on(async {
            let timer = Timer::new();
            let deadline = clock::refresh() + Duration::from_millis(100);
            timer.set(deadline);
            timer.expired().await;
            assert!(Instant::now() >= deadline);
            assert!(!timer.is_set());
        });
    }

    #[test]
    fn a_deadline_set_while_waiting_still_wakes() {
        runtime().block_on(async {
            let timer = Rc::new(Timer::new());
            let waiting = Rc::clone(&timer);
            let task = tokio::task::spawn_local(async move { waiting.expired().await });
            tokio::task::yield_now().await;
            timer.set(clock::now() + Duration::from_secs(3600));
            timer.set(clock::now() + Duration::from_millis(1));
            task.await.unwrap();
        });
    }

    #[test]
    fn works_on_a_plain_current_thread_runtime_and_on_one_after_another() {
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let timer = Timer::new();
                timer.set(clock::now() + Duration::from_millis(1));
                timer.expired().await;
            });
        }
    }

    #[test]
    fn a_driver_that_never_ran_is_replaced() {
        let timer = Timer::new();
        let plain = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let first = plain();
        let entered = first.enter();
        timer.set(clock::now() + Duration::from_millis(1));
        drop(entered);
        drop(first);
        plain().block_on(timer.expired());
    }

    #[test]
    fn a_busy_loop_keeps_time_while_a_timer_is_set() {
        runtime().block_on(async {
            let timer = Timer::new();
            timer.set(clock::now() + Duration::from_secs(3600));
            clock::turn();
            let begin = clock::now();
            // Always ready, so the loop never parks; only the wheel's task reads the clock.
            let busy = tokio::task::spawn_local(poll_fn(move |context| {
                context.waker().wake_by_ref();
                if clock::now() == begin { Poll::Pending } else { Poll::Ready(()) }
            }));
            busy.await.unwrap();
        });
    }

    #[test]
    fn a_dropped_timer_leaves_nothing() {
        runtime().block_on(async {
            for _ in 0..100 {
                let timer = Timer::new();
                timer.set(clock::now() + Duration::from_secs(1));
            }
            assert!(LOCAL.with(|local| local.wheel.borrow().next()).is_none());
        });
    }

    #[test]
    fn deadlines_come_in_order_and_a_cleared_one_does_not() {
        runtime().block_on(async {
            let deadlines = Deadlines::<3>::new();
            let now = clock::now();
            deadlines.set(0, now + Duration::from_millis(130));
            deadlines.set(1, now + Duration::from_millis(1));
            deadlines.set(2, now + Duration::from_millis(2));
            deadlines.clear(2);
            assert_eq!(poll_fn(|context| deadlines.poll_expired(context)).await, 1);
            assert_eq!(poll_fn(|context| deadlines.poll_expired(context)).await, 0);
            assert!((0..3).all(|which| !deadlines.is_set(which)));
            assert!(deadlines.poll_expired(&mut Context::from_waker(Waker::noop())).is_pending());
        });
    }

    #[test]
    fn ticks_round_down_for_now_and_up_for_deadlines() {
        let up = TICK.as_nanos() as u64 - 1;
        assert_eq!(ticks(63_000_000, 0), 0);
        assert_eq!(ticks(64_000_000, 0), 1);
        assert_eq!(ticks(64_000_000, up), 1);
        assert_eq!(ticks(64_001_000, up), 2);
        assert_eq!(ticks(u64::MAX, up), LAST);
    }
}
