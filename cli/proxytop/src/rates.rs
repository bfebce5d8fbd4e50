//! What has changed between two looks, a second. Counters that were reset and processes that came or went give no negative and
//! no absurd rate.

use proxy_stats::StatId;

use crate::snapshot::Snapshot;

/// Two looks at the same proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between<'a> {
    pub(crate) now: &'a Snapshot,
    pub(crate) before: Option<&'a Snapshot>,
}

impl Between<'_> {
    /// Seconds between the looks; none while there is only one.
    pub(crate) fn seconds(&self) -> Option<f64> {
        let elapsed = self.now.at_ms.checked_sub(self.before?.at_ms)?;
        (elapsed > 0).then_some(elapsed as f64 / 1000.0)
    }

    /// By how much a counter has risen a second. None for what was not there before and may have counted elsewhere.
    pub(crate) fn rate(&self, id: StatId) -> Option<f64> {
        Some(self.risen(id)? as f64 / self.seconds()?)
    }

    /// By how much a counter has risen.
    pub(crate) fn risen(&self, id: StatId) -> Option<u64> {
        let (before, now) = (self.before?, self.now.value(id)?);
        match before.value(id) {
            Some(earlier) => Some(risen(earlier, now)),
            // Counters are made when something is counted for the first time.
            None if before.same_processes(self.now) => Some(now),
            None => None,
        }
    }

    /// The rate of something that is counted outside stats.
    pub(crate) fn rate_of(&self, now: u64, before: Option<u64>) -> Option<f64> {
        Some(risen(before?, now) as f64 / self.seconds()?)
    }
}

/// What a counter has counted since. One that is lower began anew.
pub(crate) fn risen(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use proxy_stats::{Catalog, MetricKind, Watch};

    use super::*;
    use crate::snapshot::Generation;

    const ID: StatId = StatId(0);

    fn look(at_ms: u64, value: Option<u64>, generations: &[u64]) -> Snapshot {
        let mut catalog = Catalog::default();
        catalog.intern("a", MetricKind::Counter);
        let generation = |number: &u64| Generation { number: *number, ..Generation::default() };
        Snapshot {
            at_ms,
            catalog: Arc::new(catalog),
            values: vec![value.unwrap_or(Watch::ABSENT)],
            generations: generations.iter().map(generation).collect(),
            ..Snapshot::default()
        }
    }

    fn rate(before: &Snapshot, now: &Snapshot) -> Option<f64> {
        Between { now, before: Some(before) }.rate(ID)
    }

    #[test]
    fn a_counter_that_fell_began_anew() {
        assert_eq!(rate(&look(0, Some(100), &[1]), &look(2000, Some(110), &[1])), Some(5.0));
        assert_eq!(rate(&look(0, Some(100), &[1]), &look(2000, Some(6), &[1])), Some(3.0));
    }

    #[test]
    fn what_appears_counts_only_where_the_processes_are_the_same() {
        assert_eq!(rate(&look(0, None, &[1]), &look(1000, Some(3), &[1])), Some(3.0));
        assert_eq!(rate(&look(0, None, &[1]), &look(1000, Some(1_000_000), &[1, 2])), None);
    }

    #[test]
    fn without_time_there_is_no_rate() {
        assert_eq!(rate(&look(5, Some(1), &[1]), &look(5, Some(2), &[1])), None);
        assert_eq!(rate(&look(9, Some(1), &[1]), &look(5, Some(2), &[1])), None, "the clock was set back");
        assert_eq!(Between { now: &look(5, Some(1), &[1]), before: None }.rate(ID), None);
    }

    proptest! {
        #[test]
        fn no_rate_is_negative_or_more_than_was_counted(
            (before, now) in (any::<Option<u64>>(), any::<Option<u64>>()),
            (from, to) in (0..100_000_u64, 0..100_000_u64),
            generations in prop::collection::vec(0..4_u64, 0..3),
        ) {
            let (then, later) = (look(from, before, &[1]), look(to, now, &generations));
            if let Some(rate) = rate(&then, &later) {
                let most = now.unwrap_or(0) as f64 / ((to - from) as f64 / 1000.0);
                prop_assert!(rate >= 0.0 && rate <= most && rate.is_finite(), "{rate} of {most}");
            }
        }
    }
}
