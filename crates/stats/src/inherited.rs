//! What a store has from processes before it: counts by name, until the stat of that name is made here, then by slot.
//!
//! They are shown as part of the stat, but are not in this process's segment: the lineage's base has them.

use hashbrown::HashMap;

use crate::lineage::{Marks, Place, Total, Totals};

/// Part of the directory. Gauges are not inherited: a dead process holds nothing.
#[derive(Default)]
pub(crate) struct Inherited {
    /// Of stats that this process has not made.
    waiting: Totals,
    counters: HashMap<u32, Carried>,
    /// Where the base has the histogram of a slot.
    histograms: HashMap<u32, Place>,
    /// None: the base is not ours to mark.
    marks: Option<Marks>,
    /// Scopes made so far when stats were last claimed.
    claimed_at: Option<u32>,
}

/// Of a counter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) value: u64,
    /// What sinks had not been told of it when it was inherited. What they have been told since is in the flush mark of
    /// the slot, so that the two cancel out for whoever comes next.
    pub(crate) pending: u64,
    place: Place,
}

impl Inherited {
    pub(crate) fn new(waiting: Totals, marks: Option<Marks>) -> Inherited {
        Inherited { waiting, marks, ..Inherited::default() }
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Stats that this process has not made.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&str, &Total)> {
        self.waiting.iter().map(|(name, _, total)| (name, total))
    }

    /// The stat of this name and class is now in `slot`. Yields what a histogram inherits, which the directory keeps.
    pub(crate) fn settle(&mut self, name: &str, class: u32, slot: u32) -> Option<Total> {
        let (place, total) = self.waiting.take(name, class)?;
        match total {
            Total::Counter { value, pending } => {
                self.counters.insert(slot, Carried { value, pending, place });
            }
            Total::Histogram(_) => drop(self.histograms.insert(slot, place)),
            Total::Gauge(..) => {}
        }
        Some(total)
    }

    pub(crate) fn counter(&self, slot: u32) -> Carried {
        if self.counters.is_empty() {
            return Carried::default();
        }
        self.counters.get(&slot).copied().unwrap_or_default()
    }

    /// The stat in `slot` goes, and what it inherited with it, for good.
    pub(crate) fn release(&mut self, slot: u32) {
        let counter = self.counters.remove(&slot).and_then(|carried| carried.place);
        let histogram = self.histograms.remove(&slot).flatten();
        if let Some(marks) = &self.marks {
            counter.into_iter().chain(histogram).for_each(|place| marks.drop_entry(place));
        }
    }

    /// Counters begin anew at zero, for those who come later too. What sinks have not been told, they still will be.
    pub(crate) fn reset_counters(&mut self) {
        self.counters.values_mut().for_each(|carried| carried.value = 0);
        for (_, _, total) in self.waiting.iter_mut() {
            if let Total::Counter { value, .. } = total {
                *value = 0;
            }
        }
        if let Some(marks) = &self.marks {
            marks.reset();
        }
    }

    /// Whether scopes have been made since this was asked last.
    pub(crate) fn is_news(&mut self, scopes_made: u32) -> bool {
        self.claimed_at.replace(scopes_made) != Some(scopes_made)
    }
}
