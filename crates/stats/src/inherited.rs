//! What a store has from other processes: sums by name, until the stat of that name is made here, then by slot.
//!
//! They are shown as part of the stat, but are not in this process's segment: the lineage's base has them, or the segment
//! of a process that lives.

use hashbrown::HashMap;

use crate::histogram::Distribution;
use crate::lineage::{Marks, Place, Total, Totals};

/// Part of the directory. Of gauges, what others hold that live: a dead process holds nothing.
#[derive(Default)]
pub(crate) struct Inherited {
    /// Of stats that this process has not made.
    waiting: Totals,
    counters: HashMap<u32, Carried>,
    /// Two's complement.
    gauges: HashMap<u32, u64>,
    histograms: HashMap<u32, (Place, Distribution)>,
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

    /// Stats that this process has not made.
    pub(crate) fn waiting(&self) -> &Totals {
        &self.waiting
    }

    /// The stat of this name and class is now in `slot`.
    pub(crate) fn settle(&mut self, name: &str, class: u32, slot: u32) {
        let taken = self.waiting.take(name, class);
        self.note(taken, slot);
    }

    /// The stat of an entry of what is waiting is in `slot`.
    pub(crate) fn settle_entry(&mut self, number: usize, slot: u32) {
        let taken = self.waiting.take_entry(number);
        self.note(taken, slot);
    }

    fn note(&mut self, taken: Option<(Place, Total)>, slot: u32) {
        match taken {
            Some((place, Total::Counter { value, pending })) => {
                self.counters.insert(slot, Carried { value, pending, place });
            }
            Some((_, Total::Gauge(_, sum))) => drop(self.gauges.insert(slot, sum)),
            Some((place, Total::Histogram(distribution))) => {
                self.histograms.insert(slot, (place, distribution));
            }
            None => {}
        }
    }

    pub(crate) fn counter(&self, slot: u32) -> Carried {
        if self.counters.is_empty() {
            return Carried::default();
        }
        self.counters.get(&slot).copied().unwrap_or_default()
    }

    pub(crate) fn gauge(&self, slot: u32) -> u64 {
        if self.gauges.is_empty() {
            return 0;
        }
        self.gauges.get(&slot).copied().unwrap_or_default()
    }

    pub(crate) fn histogram(&self, slot: u32) -> Option<&Distribution> {
        self.histograms.get(&slot).map(|(_, distribution)| distribution)
    }

    /// The stat in `slot` goes, and what it inherited with it, for good.
    pub(crate) fn release(&mut self, slot: u32) {
        let counter = self.counters.remove(&slot).and_then(|carried| carried.place);
        let histogram = self.histograms.remove(&slot).and_then(|(place, _)| place);
        self.gauges.remove(&slot);
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
