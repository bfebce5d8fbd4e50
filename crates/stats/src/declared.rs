//! Names without handles: stats that nothing counts here, but that dashboards made for Envoy ask for.

use crate::metric::{ImportMode, MetricKind};
use crate::scope::Scope;

/// Stats of features that this program does not have: there, and zero. They cost their slots and no handles.
#[derive(Clone, Copy, Debug, Default)]
pub struct Declared {
    pub counters: &'static [&'static str],
    pub gauges: &'static [&'static str],
    pub histograms: &'static [&'static str],
}

impl Scope {
    /// Makes the stats of `declared`; those that exist stay as they are.
    pub fn declare(&self, declared: &Declared) {
        self.make(MetricKind::Counter, declared.counters);
        self.make(MetricKind::Gauge(ImportMode::NeverImport), declared.gauges);
        self.make(MetricKind::Histogram, declared.histograms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, StoreOptions};

    #[test]
    fn declared_stats_are_zero_and_leave_others_alone() {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        let scope = store.root().scope("a");
        scope.counter("b").inc();
        scope.declare(&Declared { counters: &["b", "c"], gauges: &["d"], histograms: &["e"] });
        assert_eq!(["a.b", "a.c", "a.d"].map(|name| store.value(name)), [Some(1), Some(0), Some(0)]);
        let mut kinds = Vec::new();
        store.for_each(|metric| kinds.push(metric.kind));
        assert!(kinds.contains(&MetricKind::Histogram));
    }
}
