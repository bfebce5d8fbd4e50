//! What counters have gained since sinks were told: a mark per counter, in the segment, so that what a killed process
//! had not sent is known to its successor.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::directory::Directory;
use crate::metric::{MetricKind, difference};
use crate::segment::Segment;
use crate::store::Shared;
use crate::walk::{MetricId, Slices};

/// A counter that has gained something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta<'a> {
    /// Full name, as Envoy's.
    pub name: &'a str,
    /// Until it is marked as flushed, part of all later deltas of the counter.
    pub amount: u64,
    pub id: MetricId,
}

/// Says that sinks have been told so much of a counter; for [`Store::mark_flushed`](crate::Store::mark_flushed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is not marked is told again"]
pub struct FlushMark {
    pub id: MetricId,
    pub amount: u64,
}

/// A walk over the counters that have gained something, which can be paused.
pub struct Deltas {
    shared: Arc<Shared>,
    slices: Slices,
    text: String,
    found: Vec<(std::ops::Range<usize>, FlushMark)>,
}

impl Delta<'_> {
    /// That sinks have been told all of it.
    pub fn mark(&self) -> FlushMark {
        FlushMark { id: self.id, amount: self.amount }
    }
}

impl Deltas {
    pub(crate) fn new(shared: Arc<Shared>) -> Deltas {
        Deltas { shared, slices: Slices::default(), text: String::new(), found: Vec::new() }
    }

    /// Looks at the next few hundred stats. False when there are no more. The visitor may use the store.
    pub fn advance(&mut self, visit: impl FnMut(&Delta<'_>)) -> bool {
        self.advance_where(|_, amount| amount != 0, visit)
    }

    /// As [`Deltas::advance`], for counters that are `wanted`, which is asked with the store's lock held.
    pub fn advance_where(
        &mut self,
        wanted: impl FnMut(MetricId, u64) -> bool,
        mut visit: impl FnMut(&Delta<'_>),
    ) -> bool {
        let more = self.collect(wanted);
        for (name, FlushMark { id, amount }) in self.found.drain(..) {
            visit(&Delta { name: &self.text[name], amount, id });
        }
        more
    }

    fn collect(&mut self, mut wanted: impl FnMut(MetricId, u64) -> bool) -> bool {
        self.text.clear();
        let shared = self.shared.clone();
        let (directory, segment) = (shared.lock(), shared.segment());
        let Some(slots) = self.slices.next(&directory) else { return false };
        for slot in slots {
            let descriptor = segment.descriptors()[slot as usize].load(Relaxed);
            let Some(scope) = segment.owner(slot) else { continue };
            if descriptor & 15 != MetricKind::Counter.code() {
                continue;
            }
            let flushed = segment.flushed(slot);
            let pending = directory.inherited.counter(slot).pending;
            let amount = difference(segment.sum(slot).wrapping_add(pending), flushed);
            let id = MetricId { slot, generation: directory.generation(scope) };
            if wanted(id, amount) {
                let start = self.text.len();
                self.text.push_str(directory.prefix(scope));
                self.text.push_str(directory.suffixes.text(descriptor >> 4));
                self.found.push((start..self.text.len(), FlushMark { id, amount }));
            }
        }
        true
    }
}

impl FlushMark {
    pub(crate) fn set(self, segment: &Segment, directory: &Directory) {
        let MetricId { slot, generation } = self.id;
        if segment.owner(slot).is_some_and(|scope| directory.generation(scope) == generation) {
            segment.add_flushed(slot, self.amount);
        }
    }
}
