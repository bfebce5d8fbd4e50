//! Values of histograms that a sink has yet to send. The store knows those of the last interval only, so what could not
//! be sent of it is put by here.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use proxy_stats::{Distribution, Interval, MetricId, MetricKind, Store, Value};

/// Of one sink. Empty while its receiver takes everything.
#[derive(Default)]
pub(super) struct Values {
    /// Of earlier intervals.
    kept: HashMap<MetricId, Distribution>,
    /// Histograms in the batch that is being put together.
    in_batch: Vec<MetricId>,
    /// Histograms whose values the transport has taken in this flush.
    sent: HashSet<MetricId>,
}

impl Values {
    /// What the receiver has not got of a histogram: to become part of the batch.
    pub(super) fn unsent<'a>(&mut self, id: MetricId, interval: &'a Distribution) -> Cow<'a, Distribution> {
        let Some(kept) = self.kept.get(&id) else {
            if !interval.is_empty() {
                self.in_batch.push(id);
            }
            return Cow::Borrowed(interval);
        };
        self.in_batch.push(id);
        let mut unsent = kept.clone();
        unsent.merge(interval);
        Cow::Owned(unsent)
    }

    /// The transport has taken the batch, so what becomes of its lines is no longer our affair.
    pub(super) fn batch_taken(&mut self) {
        for id in self.in_batch.drain(..) {
            self.kept.remove(&id);
            self.sent.insert(id);
        }
    }

    /// All histograms have been sent: what is left was of those that are gone.
    pub(super) fn all_sent(&mut self) {
        *self = Values::default();
    }

    /// Puts by what was not sent of `interval`.
    pub(super) fn keep(&mut self, store: &Store, interval: Interval) {
        self.in_batch.clear();
        let Values { kept, sent, .. } = self;
        let mut walk = store.walk().of_interval(interval);
        let recorded = |id, kind, number| kind == MetricKind::Histogram && number != 0 && !sent.contains(&id);
        while walk.advance_where(recorded, |id, metric| {
            if let Value::Histogram(histogram) = metric.value
                && !histogram.interval.is_empty()
            {
                kept.entry(id).or_default().merge(histogram.interval);
            }
        }) {}
        self.sent.clear();
    }
}

#[cfg(test)]
mod tests {
    use proxy_stats::{StoreOptions, ThreadIndex};

    use super::*;

    fn unsent(values: &mut Values, store: &Store, interval: Interval) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        let mut walk = store.walk().of_interval(interval);
        while walk.advance_where(
            |_, _, _| true,
            |id, metric| {
                let Value::Histogram(histogram) = metric.value else { return };
                found.push((metric.name.to_owned(), values.unsent(id, histogram.interval).count()));
            },
        ) {}
        found.retain(|(_, count)| *count > 0);
        found
    }

    #[test]
    fn values_of_intervals_that_were_not_sent_add_up() {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        assert!(store.bind_thread(ThreadIndex(0)));
        let scope = store.root().scope("s");
        let (one, other) = (scope.histogram("one"), scope.histogram("other"));
        let flush = || {
            store.hand_over();
            let mut merge = store.merge_histograms();
            while merge.advance() {}
            merge.interval()
        };
        let counts = |expected: &[(&str, u64)]| -> Vec<_> {
            expected.iter().map(|(name, count)| (format!("s.{name}"), *count)).collect()
        };
        let mut values = Values::default();
        (0..5).for_each(|value| one.record(value));
        other.record(7);
        let interval = flush();
        assert_eq!(unsent(&mut values, &store, interval), counts(&[("one", 5), ("other", 1)]));
        values.keep(&store, interval);
        other.record(8);
        let interval = flush();
        assert_eq!(unsent(&mut values, &store, interval), counts(&[("one", 5), ("other", 2)]));
        values.batch_taken();
        // The flush failed afterwards, but these are gone.
        values.keep(&store, interval);
        let interval = flush();
        assert_eq!(unsent(&mut values, &store, interval), []);
        one.record(1);
        let interval = flush();
        assert_eq!(unsent(&mut values, &store, interval), counts(&[("one", 1)]));
        values.batch_taken();
        values.all_sent();
        assert!(values.kept.is_empty() && values.sent.is_empty());
    }
}
