//! Series together under the name that they have without tags: what Prometheus calls a metric, and OpenMetrics a family.

use std::collections::HashMap;

use proxy_stats::{Extracted, Metric, MetricKind, NameOrder, Slot};

use super::selection::Request;
use crate::admin::rendering::{ClientGone, Output};
use crate::admin::state::Stats;

/// A name without tags, and where the stats are that have it: 4 bytes a stat.
pub(super) struct Family {
    pub(super) name: Box<str>,
    /// Whether its series differ by response code, which Envoy writes at the end of the name.
    pub(super) by_code: bool,
    kinds: fn(MetricKind) -> bool,
    /// In the order of full names.
    slots: Vec<Slot>,
}

impl Family {
    /// All families of the stats that are asked for, of the kinds wanted, in Envoy's order.
    pub(super) fn collect(stats: &Stats, request: &Request, kinds: fn(MetricKind) -> bool) -> Vec<Self> {
        let mut by_name = HashMap::<Box<str>, Self>::new();
        let mut walk = stats.store.sorted(NameOrder::Parts, kinds);
        while walk.advance(|id, metric| {
            if !request.takes(metric) {
                return;
            }
            let Extracted { name, tags } = stats.tags.extract(metric.name);
            if let Some(family) = by_name.get_mut(&*name) {
                return family.slots.push(id.slot());
            }
            let by_code = tags.iter().any(|tag| tag.name == "envoy.response_code");
            let name: Box<str> = name.into();
            by_name.insert(name.clone(), Self { name, by_code, kinds, slots: vec![id.slot()] });
        }) {}
        let mut families: Vec<_> = by_name.into_values().collect();
        families.sort_unstable_by(|one, other| one.name.split('.').cmp(other.name.split('.')));
        families
    }

    /// Writes each stat of the family as it is now.
    pub(super) fn each(
        &self,
        stats: &Stats,
        output: &mut Output,
        mut write: impl FnMut(&mut Vec<u8>, &Extracted<'_>, &Metric<'_>),
    ) -> Result<(), ClientGone> {
        for slots in self.slots.chunks(SLOTS_AT_ONCE) {
            stats.store.revisit(slots, |metric| {
                let extracted = stats.tags.extract(metric.name);
                // A slot may have got another stat since.
                if extracted.name == *self.name && (self.kinds)(metric.kind) {
                    write(output.piece(), &extracted, metric);
                }
            });
            output.sent()?;
        }
        Ok(())
    }
}

/// How long the store's lock is held, and, histograms being the largest, how much is written, at a time.
const SLOTS_AT_ONCE: usize = 64;
