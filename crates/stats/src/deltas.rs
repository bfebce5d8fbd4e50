//! What counters have gained since sinks were told: a mark per counter, in the segment, so that what a killed process
//! had not sent is known to its successor.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::directory::Directory;
use crate::metric::{MetricKind, difference};
use crate::segment::Segment;
use crate::store::Shared;
use crate::walk::Slices;

/// A counter that has gained something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta<'a> {
    /// Full name, as Envoy's.
    pub name: &'a str,
    /// Never 0.
    pub amount: u64,
    /// For [`Store::mark_flushed`](crate::Store::mark_flushed), once the amount is on its way. Until then the amount is
    /// part of all later deltas of the counter.
    pub mark: FlushMark,
}

/// Says that sinks have been told so much of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what is not marked is told again"]
pub struct FlushMark {
    slot: u32,
    /// Of the scope: its slots may serve another one meanwhile.
    generation: u32,
    amount: u64,
}

/// A walk over the counters that have gained something, which can be paused.
pub struct Deltas {
    shared: Arc<Shared>,
    slices: Slices,
    text: String,
    found: Vec<(std::ops::Range<usize>, FlushMark)>,
}

impl Deltas {
    pub(crate) fn new(shared: Arc<Shared>) -> Deltas {
        Deltas { shared, slices: Slices::default(), text: String::new(), found: Vec::new() }
    }

    /// Looks at the next few hundred stats. False when there are no more. The visitor may use the store.
    pub fn advance(&mut self, mut visit: impl FnMut(&Delta<'_>)) -> bool {
        let more = self.collect();
        for (name, mark) in self.found.drain(..) {
            visit(&Delta { name: &self.text[name], amount: mark.amount, mark });
        }
        more
    }

    fn collect(&mut self) -> bool {
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
            let amount = difference(segment.sum(slot), flushed);
            if amount != 0 {
                let start = self.text.len();
                self.text.push_str(directory.prefix(scope));
                self.text.push_str(directory.suffixes.text(descriptor >> 4));
                let mark = FlushMark { slot, generation: directory.generation(scope), amount };
                self.found.push((start..self.text.len(), mark));
            }
        }
        true
    }
}

impl FlushMark {
    pub(crate) fn set(self, segment: &Segment, directory: &Directory) {
        let same =
            segment.owner(self.slot).is_some_and(|scope| directory.generation(scope) == self.generation);
        if same {
            segment.add_flushed(self.slot, self.amount);
        }
    }
}
