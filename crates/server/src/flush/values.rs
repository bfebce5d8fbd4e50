//! Values of histograms that a sink has yet to send. The store knows those of the last interval only, so they are taken
//! over before anything is sent, which may take long.

use std::collections::HashMap;

use proxy_stats::{Distribution, Interval, MetricId, MetricKind, Store, Value};

/// Of one sink.
#[derive(Default)]
pub(super) struct Values {
    unsent: HashMap<MetricId, Distribution>,
    /// Histograms in the batch that is being put together.
    in_batch: Vec<MetricId>,
}

impl Values {
    /// Takes over what was recorded in `interval`.
    pub(super) fn take_over(&mut self, store: &Store, interval: Interval) {
        let mut walk = store.walk().of_interval(interval);
        while walk.advance_where(
            |_, kind, number| kind == MetricKind::Histogram && number != 0,
            |id, metric| {
                if let Value::Histogram(histogram) = metric.value
                    && !histogram.interval.is_empty()
                {
                    self.unsent.entry(id).or_default().merge(histogram.interval);
                }
            },
        ) {}
    }

    /// Whether there is something to send of a histogram.
    pub(super) fn has(&self, id: MetricId) -> bool {
        self.unsent.contains_key(&id)
    }

    /// What is to be sent of a histogram, now that it becomes part of the batch.
    pub(super) fn for_batch(&mut self, id: MetricId) -> Option<&Distribution> {
        let unsent = self.unsent.get(&id)?;
        self.in_batch.push(id);
        Some(unsent)
    }

    /// The transport has taken the batch, so what becomes of its lines is no longer our affair.
    pub(super) fn batch_taken(&mut self) {
        for id in self.in_batch.drain(..) {
            self.unsent.remove(&id);
        }
    }

    /// Ends a flush. Where everything was sent, what is left is of histograms that are gone.
    pub(super) fn end(&mut self, all_sent: bool) {
        self.in_batch.clear();
        if all_sent {
            self.unsent = HashMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proxy_stats::{Scope, StoreOptions, ThreadIndex};

    use super::*;

    struct Fixture {
        store: Store,
        scope: Scope,
        values: Values,
    }

    impl Fixture {
        /// Records, ends an interval and takes it over.
        fn record(&mut self, name: &str, times: u64) {
            let histogram = self.scope.histogram(name);
            (0..times).for_each(|value| histogram.record(value));
            self.store.hand_over();
            let mut merge = self.store.merge_histograms();
            while merge.advance() {}
            self.values.take_over(&self.store, merge.interval());
        }

        /// Puts all in a batch: name and number of values.
        fn batch(&mut self) -> Vec<(String, u64)> {
            let mut found = Vec::new();
            let (mut walk, values) = (self.store.walk(), &mut self.values);
            while walk.advance_where(
                |_, kind, _| kind == MetricKind::Histogram,
                |id, metric| {
                    let count = values.for_batch(id).map(Distribution::count);
                    found.extend(count.map(|count| (metric.name.to_owned(), count)));
                },
            ) {}
            found
        }
    }

    #[test]
    fn values_stay_until_they_are_taken() {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        assert!(store.bind_thread(ThreadIndex(0)));
        let scope = store.root().scope("s");
        let mut fixture = Fixture { store, scope, values: Values::default() };
        let one = |count| ("s.one".to_owned(), count);
        let other = |count| ("s.other".to_owned(), count);
        fixture.record("one", 5);
        assert_eq!(fixture.batch(), [one(5)]);
        fixture.values.end(false);
        fixture.record("other", 1);
        fixture.record("one", 2);
        assert_eq!(fixture.batch(), [one(7), other(1)]);
        fixture.values.batch_taken();
        fixture.values.end(false);
        assert_eq!(fixture.batch(), []);
        fixture.record("one", 3);
        assert_eq!(fixture.batch(), [one(3)]);
        fixture.values.batch_taken();
        fixture.values.end(true);
        assert!(fixture.values.unsent.is_empty());
    }
}
