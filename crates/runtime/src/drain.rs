//! Telling a worker's connections to finish, and knowing when they have.
//!
//! One [`Drain`] per worker and per thing that can be drained (a listener, a filter chain, the whole worker); every
//! connection holds a [`DrainGuard`]. Nothing here crosses threads: main posts the order to each worker.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The side that gives the order.
#[derive(Clone, Default)]
pub struct Drain {
    shared: Rc<Shared>,
}

/// The side that obeys: one open connection. Dropping it says that the connection is gone.
pub struct DrainGuard {
    shared: Rc<Shared>,
    waiting: Cell<Option<u32>>,
    /// Has the order once more than so much of it was given.
    patience: u32,
}

#[derive(Default)]
struct Shared {
    /// How much of the order has been given: from 0, nobody, to `u32::MAX`, everybody.
    order: Cell<u32>,
    /// Guards given out so far.
    given: Cell<u32>,
    guards: Cell<usize>,
    waiting: RefCell<Waiting>,
}

/// Wakers by place, so that a guard that goes away takes its own out in O(1).
#[derive(Default)]
struct Waiting {
    guards: Vec<Option<Waker>>,
    free: Vec<u32>,
    empty: Vec<Waker>,
}

impl Drain {
    /// A drain that has not begun, with no guards.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token for one more connection; one given out after the drain began is told so at once.
    pub fn guard(&self) -> DrainGuard {
        let number = self.shared.given.get();
        self.shared.given.set(number.wrapping_add(1));
        // Multiples of the golden ratio: any run of guards is spread evenly. Never the maximum.
        self.shared.guard(number.wrapping_mul(0x9E37_79B9) & !1)
    }

    /// How many connections hold a guard.
    pub fn guards(&self) -> usize {
        self.shared.guards.get()
    }

    /// Whether the order has been given to all.
    pub fn is_draining(&self) -> bool {
        self.shared.order.get() == u32::MAX
    }

    /// Gives the order, without waiting. Saying it twice is the same as once.
    pub fn close(&self) {
        self.give(u32::MAX);
    }

    /// Gives the order to a share of the guards, from 0 to 1; a larger share has those of a smaller one.
    pub fn close_share(&self, share: f64) {
        self.give((share * f64::from(u32::MAX)) as u32);
    }

    fn give(&self, order: u32) {
        if order <= self.shared.order.get() {
            return;
        }
        self.shared.order.set(order);
        let mut waiting = self.shared.waiting.borrow_mut();
        let wakers: Vec<Waker> = waiting.guards.iter_mut().filter_map(Option::take).collect();
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Takes the order back: a restart that was given up lets connections go on.
    pub fn reopen(&self) {
        self.shared.order.set(0);
    }

    /// Gives the order and resolves when the last guard is gone. The caller puts a deadline around it.
    pub fn close_and_wait(&self) -> impl Future<Output = ()> + use<> {
        self.close();
        self.empty()
    }

    /// Resolves when no guard is left, without an order.
    pub fn empty(&self) -> impl Future<Output = ()> + use<> {
        let shared = Rc::clone(&self.shared);
        poll_fn(move |context| {
            if shared.guards.get() == 0 {
                return Poll::Ready(());
            }
            let mut waiting = shared.waiting.borrow_mut();
            if !waiting.empty.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.empty.push(context.waker().clone());
            }
            Poll::Pending
        })
    }
}

impl Shared {
    fn guard(self: &Rc<Self>, patience: u32) -> DrainGuard {
        self.guards.set(self.guards.get() + 1);
        DrainGuard { shared: Rc::clone(self), waiting: Cell::new(None), patience }
    }
}

impl DrainGuard {
    /// Whether this one has the order; a load and a comparison.
    pub fn is_draining(&self) -> bool {
        self.shared.order.get() > self.patience
    }

    /// Ready once the order has been given. Only the latest context is woken.
    pub fn poll_draining(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_draining() {
            return Poll::Ready(());
        }
        let mut waiting = self.shared.waiting.borrow_mut();
        let place = self.waiting.get().unwrap_or_else(|| {
            let place = waiting.free.pop().unwrap_or_else(|| {
                waiting.guards.push(None);
                (waiting.guards.len() - 1) as u32
            });
            self.waiting.set(Some(place));
            place
        });
        let kept = &mut waiting.guards[place as usize];
        let replaced = match kept {
            Some(waker) if waker.will_wake(context.waker()) => None,
            kept => kept.replace(context.waker().clone()),
        };
        // Outside the borrow: dropping the last waker of a task may drop what the task held, guards among it.
        drop(waiting);
        drop(replaced);
        Poll::Pending
    }

    /// Resolves once the order has been given.
    pub async fn draining(&self) {
        poll_fn(|context| self.poll_draining(context)).await;
    }
}

impl Clone for DrainGuard {
    fn clone(&self) -> Self {
        self.shared.guard(self.patience)
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        let left = self.shared.guards.get() - 1;
        self.shared.guards.set(left);
        let mut waiting = self.shared.waiting.borrow_mut();
        let waker = self.waiting.take().and_then(|place| {
            waiting.free.push(place);
            waiting.guards[place as usize].take()
        });
        let empty = if left == 0 {
            // Nobody has a place any more, so a burst of connections does not keep its table.
            waiting.guards = Vec::new();
            waiting.free = Vec::new();
            std::mem::take(&mut waiting.empty)
        } else {
            Vec::new()
        };
        drop(waiting);
        drop(waker);
        empty.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Drain")
            .field("draining", &self.is_draining())
            .field("guards", &self.guards())
            .finish()
    }
}

impl fmt::Debug for DrainGuard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DrainGuard").field("draining", &self.is_draining()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn waits_for_every_guard_and_no_longer() {
        let drain = Drain::new();
        let (first, second) = (drain.guard(), drain.guard());
        let mut draining = pin!(first.draining());
        assert!(poll(draining.as_mut()).is_pending());
        let mut gone = pin!(drain.close_and_wait());
        assert!(poll(draining.as_mut()).is_ready());
        assert!(second.is_draining());
        assert!(poll(gone.as_mut()).is_pending());
        drop(second);
        assert!(poll(gone.as_mut()).is_pending());
        let late = drain.guard();
        assert!(late.is_draining());
        drop(late);
        assert_eq!(drain.guards(), 1);
    }

    #[test]
    fn an_idle_drain_is_over_at_once() {
        let drain = Drain::new();
        assert!(poll(pin!(drain.close_and_wait())).is_ready());
    }

    #[test]
    fn a_guard_leaves_nothing_behind() {
        let drain = Drain::new();
        for _ in 0..1000 {
            let guard = drain.guard();
            assert!(guard.poll_draining(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert!(drain.shared.waiting.borrow().guards.is_empty());
        let (kept, other) = (drain.guard(), drain.guard());
        for guard in [&kept, &other] {
            assert!(guard.poll_draining(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(other);
        let again = kept.clone();
        assert!(again.poll_draining(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(drain.shared.waiting.borrow().guards.len(), 2);
    }

    #[test]
    fn an_order_reaches_a_share_of_the_guards() {
        let drain = Drain::new();
        let guards: Vec<_> = (0..100).map(|_| drain.guard()).collect();
        let told = || guards.iter().filter(|guard| guard.is_draining()).count();
        for (share, expected) in [(0.0, 0), (0.1, 10), (0.5, 50), (0.3, 50), (1.0, 100)] {
            drain.close_share(share);
            assert!(told().abs_diff(expected) <= 2, "{share}: {}", told());
        }
        assert!(drain.is_draining());
    }

    #[test]
    fn a_guard_that_waits_hears_of_its_share() {
        let drain = Drain::new();
        let (first, second) = (drain.guard(), drain.guard());
        let (mut one, mut other) = (pin!(first.draining()), pin!(second.draining()));
        assert!(poll(one.as_mut()).is_pending() && poll(other.as_mut()).is_pending());
        drain.close_share(0.01);
        assert!(poll(one.as_mut()).is_ready() && poll(other.as_mut()).is_pending());
        drain.close();
        assert!(poll(other.as_mut()).is_ready());
    }

    #[test]
    fn a_withdrawn_order_lets_connections_go_on() {
        let drain = Drain::new();
        let guard = drain.guard();
        drain.close();
        drain.reopen();
        assert!(!guard.is_draining());
    }
}
