//! Which sink has been told what. The store's marks say what the sink that is furthest ahead has been told; what another
//! is behind it stands here. So with one sink, and with several that all work, there is nothing to keep; a delta that
//! cannot be sent is kept by doing nothing; and the successor of a killed process tells no sink anything twice.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proxy_stats::{FlushMark, MetricId, Store};

/// Shared by the threads of all sinks.
pub(super) struct Ledger {
    store: Store,
    behind: Mutex<Vec<Behind>>,
}

/// A sink's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SinkIndex(pub usize);

/// What one sink has yet to be told of counters beside what is unmarked.
#[derive(Default)]
pub(super) struct Behind {
    amounts: HashMap<MetricId, Amount>,
    walk: u32,
}

struct Amount {
    left: u64,
    /// The walk that came across the counter last.
    seen: Cell<u32>,
}

impl Ledger {
    pub(super) fn new(store: Store, sinks: usize) -> Ledger {
        Ledger { store, behind: Mutex::new((0..sinks).map(|_| Behind::default()).collect()) }
    }

    /// Begins to go over all counters.
    pub(super) fn begin_walk(&self, sink: SinkIndex) {
        let walk = &mut self.lock()[sink.0].walk;
        *walk = walk.wrapping_add(1);
    }

    /// Ends what came across all counters: those that were not seen are gone.
    pub(super) fn end_walk(&self, sink: SinkIndex) {
        let Behind { amounts, walk } = &mut self.lock()[sink.0];
        amounts.retain(|_, amount| amount.seen.get() == *walk);
    }

    /// Calls `read` while nothing is settled, so that what it finds unmarked and what is behind belong together.
    pub(super) fn read<R>(&self, sink: SinkIndex, read: impl FnOnce(&Behind) -> R) -> R {
        read(&self.lock()[sink.0])
    }

    /// The receiver of `sink` has been told so much.
    pub(super) fn settle(&self, sink: SinkIndex, told: impl IntoIterator<Item = FlushMark>) {
        let mut sinks = self.lock();
        let ahead = told.into_iter().filter_map(|FlushMark { id, amount }| {
            let ahead = sinks[sink.0].catch_up(id, amount);
            for (_, other) in sinks.iter_mut().enumerate().filter(|(index, _)| *index != sink.0) {
                other.fall_behind(id, ahead);
            }
            (ahead > 0).then_some(FlushMark { id, amount: ahead })
        });
        let ahead: Vec<_> = ahead.collect();
        self.store.mark_flushed(ahead);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Behind>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Behind {
    /// What the sink has yet to be told of a counter, which the walk came across, beside what is unmarked.
    pub(super) fn of(&self, id: MetricId) -> u64 {
        self.amounts.get(&id).inspect(|amount| amount.seen.set(self.walk)).map_or(0, |amount| amount.left)
    }

    /// Returns how far beyond the marks `amount` reaches.
    fn catch_up(&mut self, id: MetricId, amount: u64) -> u64 {
        let Some(behind) = self.amounts.get_mut(&id) else { return amount };
        let ahead = amount.saturating_sub(behind.left);
        behind.left = behind.left.saturating_sub(amount);
        if behind.left == 0 {
            self.amounts.remove(&id);
        }
        ahead
    }

    fn fall_behind(&mut self, id: MetricId, amount: u64) {
        if amount > 0 {
            let seen = Cell::new(self.walk);
            let behind = self.amounts.entry(id).or_insert(Amount { left: 0, seen });
            behind.left = behind.left.saturating_add(amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use proxy_stats::{StoreOptions, ThreadIndex};

    use super::*;

    const ONE: SinkIndex = SinkIndex(0);
    const OTHER: SinkIndex = SinkIndex(1);

    fn to_tell(ledger: &Ledger, sink: SinkIndex) -> Option<FlushMark> {
        ledger.begin_walk(sink);
        let mut found = None;
        let mut deltas = ledger.store.deltas();
        while ledger.read(sink, |behind| {
            deltas.advance_where(
                |id, amount| amount + behind.of(id) > 0,
                |delta| {
                    found = Some(FlushMark { id: delta.id, amount: delta.amount + behind.of(delta.id) });
                },
            )
        }) {}
        ledger.end_walk(sink);
        found
    }

    fn amount(ledger: &Ledger, sink: SinkIndex) -> u64 {
        to_tell(ledger, sink).map_or(0, |mark| mark.amount)
    }

    #[test]
    fn each_sink_is_told_everything_once() {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        assert!(store.bind_thread(ThreadIndex(0)));
        let scope = store.root().scope("s");
        let counter = scope.counter("a");
        let ledger = Ledger::new(store.clone(), 2);
        counter.add(5);
        let (one, other) = (to_tell(&ledger, ONE), to_tell(&ledger, OTHER));
        assert_eq!((one.unwrap().amount, other.unwrap().amount), (5, 5));
        ledger.settle(ONE, one);
        assert_eq!((amount(&ledger, ONE), amount(&ledger, OTHER)), (0, 5));
        counter.add(2);
        assert_eq!((amount(&ledger, ONE), amount(&ledger, OTHER)), (2, 7));
        // What was on its way since the beginning arrives, after the other one got ahead.
        ledger.settle(ONE, to_tell(&ledger, ONE));
        ledger.settle(OTHER, other);
        assert_eq!((amount(&ledger, ONE), amount(&ledger, OTHER)), (0, 2));
        counter.add(1);
        ledger.settle(OTHER, to_tell(&ledger, OTHER));
        assert_eq!((amount(&ledger, ONE), amount(&ledger, OTHER)), (1, 0));
        ledger.settle(ONE, to_tell(&ledger, ONE));
        assert_eq!((amount(&ledger, ONE), amount(&ledger, OTHER)), (0, 0));
        assert!(ledger.lock().iter().all(|sink| sink.amounts.is_empty()));
    }

    #[test]
    fn what_a_sink_is_behind_goes_with_the_counter() {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        let scope = store.root().scope("s");
        scope.counter("a").add(5);
        let ledger = Ledger::new(store.clone(), 2);
        ledger.settle(ONE, to_tell(&ledger, ONE));
        assert_eq!(amount(&ledger, OTHER), 5);
        drop(scope);
        assert_eq!(amount(&ledger, OTHER), 0);
        assert!(ledger.lock().iter().all(|sink| sink.amounts.is_empty()));
    }
}
