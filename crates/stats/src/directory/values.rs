//! Values that are more than cells: texts, histograms, and what was inherited.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Directory;
use crate::histogram::{Counts, Merged};
use crate::inherited::Inherited;
use crate::lineage::Total;
use crate::metric::{MetricKind, gauge_value};
use crate::names::Place;
use crate::segment::{Change, Segment};

/// The value of a text readout.
pub(crate) struct Text {
    pub(crate) value: Box<str>,
    pub(crate) place: Option<Place>,
}

/// A histogram that something was recorded in here.
#[derive(Default)]
pub(super) struct Histogram {
    pub(super) merged: Arc<Merged>,
    /// Where the segment holds the cumulative distribution.
    pub(super) place: Option<Place>,
}

impl Directory {
    /// The stat of this name is in `slot` from now on.
    pub(super) fn take_inherited(&mut self, name: &str, class: u32, slot: u32) {
        self.inherited.settle(name, class, slot);
        if let Some(next) = &mut self.next {
            next.settle(name, class, slot);
        }
    }

    /// Whether somebody has left something for a stat that is not there yet.
    pub(super) fn awaits_stats(&self) -> bool {
        !self.inherited.waiting().is_empty()
            || self.next.as_ref().is_some_and(|next| !next.waiting().is_empty())
    }

    /// What is in the slots goes.
    pub(super) fn release_inherited(&mut self, slot: u32) {
        self.inherited.release(slot);
        if let Some(next) = &mut self.next {
            next.release(slot);
        }
    }

    pub(crate) fn reset_inherited(&mut self) {
        self.inherited.reset_counters();
        if let Some(next) = &mut self.next {
            next.reset_counters();
        }
    }

    /// Begins to make ready what is to be inherited in place of what is now.
    pub(crate) fn prepare(&mut self, next: Inherited) {
        self.next = Some(Box::new(next));
    }

    /// Finds the slots of the next entries from `number` on, of what is being made ready. Says where to go on;
    /// None at the end, when all of it has taken the place of what was inherited before.
    pub(crate) fn place_next(&mut self, segment: &Segment, number: usize) -> Option<usize> {
        let mut next = self.next.take()?;
        let end = next.waiting().entries().min(number + ENTRIES_AT_ONCE);
        for number in number..end {
            let Some((name, total)) = next.waiting().entry(number) else { continue };
            if let Some(slot) = self.find(segment, name, total.kind()) {
                next.settle_entry(number, slot);
            }
        }
        // Nothing waits any more, so there are no entries either.
        if end < next.waiting().entries() {
            self.next = Some(next);
            return Some(end);
        }
        self.inherited = *next;
        None
    }

    /// Where to begin with [`Directory::claim_inherited`]; None if there is nothing to claim.
    pub(crate) fn begin_claim(&mut self) -> Option<usize> {
        let waits = !self.inherited.waiting().is_empty();
        (waits && self.inherited.is_news(self.generations)).then_some(0)
    }

    /// Makes the stats that were inherited and have a living scope, so that they show as any other: of the next
    /// entries from `number` on. Says where to go on; None at the end.
    pub(crate) fn claim_inherited(&mut self, segment: &Segment, number: usize) -> Option<usize> {
        let waiting = self.inherited.waiting();
        let end = waiting.entries().min(number + ENTRIES_AT_ONCE);
        let covered = |(name, total): (&str, &Total)| {
            let mut prefixes = name.rmatch_indices('.').map(|(dot, _)| dot + 1);
            let (at, scope) = prefixes.find_map(|at| Some((at, self.living_scope(&name[..at])?)))?;
            Some((scope, name[at..].to_owned(), total.kind()))
        };
        let covered: Vec<_> =
            (number..end).filter_map(|number| waiting.entry(number)).filter_map(covered).collect();
        for (scope, suffix, kind) in covered {
            self.resolve(segment, scope, &suffix, kind, None);
        }
        (end < self.inherited.waiting().entries()).then_some(end)
    }

    fn living_scope(&self, prefix: &str) -> Option<u32> {
        self.find_scope(prefix)
            .filter(|id| self.entry(*id).is_some_and(|entry| entry.handle.strong_count() > 0))
    }

    /// Sum of a counter, with what it inherited.
    pub(crate) fn counter(&self, segment: &Segment, slot: u32) -> u64 {
        segment.sum(slot).wrapping_add(self.inherited.counter(slot).value)
    }

    /// Value of a gauge, with what others hold.
    pub(crate) fn gauge(&self, segment: &Segment, slot: u32) -> u64 {
        gauge_value(segment.sum(slot).wrapping_add(self.inherited.gauge(slot)))
    }

    /// Sets a text readout, for us and for readers of the file.
    pub(crate) fn set_text(&mut self, segment: &Segment, slot: u32, value: &str) {
        let value = &value[..value.floor_char_boundary(crate::layout::MAX_TEXT)];
        let visible = slot < segment.geometry().slots;
        let place = if visible { self.arena.store(segment, value.as_bytes()) } else { None };
        let _change = Change::begin(segment);
        segment.store_word(slot, place.map_or(0, Place::word));
        let old = self.texts.insert(slot, Text { value: value.into(), place });
        if let Some(place) = old.and_then(|old| old.place) {
            self.arena.free(place);
        }
    }

    /// What is merged from now on belongs to the returned interval.
    pub(crate) fn begin_interval(&mut self) -> u64 {
        self.interval += 1;
        self.interval
    }

    /// Adds what threads recorded, sorted by slot, to histograms that still exist; for us and for readers of the file.
    pub(crate) fn merge(&mut self, segment: &Segment, recorded: &[(u32, Counts)]) {
        let mut encoded = Vec::new();
        let mut old = Vec::new();
        for same in recorded.chunk_by(|(one, _), (other, _)| one == other) {
            let slot = same[0].0;
            let kind = MetricKind::from_code(segment.descriptors()[slot as usize].load(Relaxed) & 15);
            if kind != Some(MetricKind::Histogram) {
                continue;
            }
            let histogram = self.histograms.entry(slot).or_default();
            let merged = Arc::make_mut(&mut histogram.merged);
            same.iter().for_each(|(_, counts)| merged.add(counts, self.interval));
            if slot >= segment.geometry().slots {
                continue;
            }
            encoded.clear();
            merged.cumulative.encode(&mut encoded);
            // Without space for the new one, readers go on seeing the old one.
            if let Some(place) = self.arena.store(segment, &encoded) {
                segment.store_word(slot, place.word());
                old.extend(histogram.place.replace(place));
            }
        }
        let _change = Change::begin(segment);
        old.into_iter().for_each(|place| self.arena.free(place));
    }

    /// What is known of a histogram, with what it inherited: `None` if nothing was ever recorded.
    pub(crate) fn histogram(&self, slot: u32) -> Option<Arc<Merged>> {
        let own = self.histograms.get(&slot).map(|histogram| &histogram.merged);
        let Some(inherited) = self.inherited.histogram(slot) else { return own.cloned() };
        let mut merged = own.map(|own| Merged::clone(own)).unwrap_or_default();
        merged.cumulative.merge(inherited);
        Some(Arc::new(merged))
    }

    pub(crate) fn interval(&self) -> u64 {
        self.interval
    }
}

/// So that others get at the store in between.
const ENTRIES_AT_ONCE: usize = 128;
