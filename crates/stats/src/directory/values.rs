//! Values that are more than cells: texts, histograms, and what was inherited.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Directory;
use crate::histogram::{Counts, Distribution, Merged};
use crate::inherited::Inherited;
use crate::lineage::Total;
use crate::metric::MetricKind;
use crate::names::Place;
use crate::segment::{Change, Segment};

/// The value of a text readout.
pub(crate) struct Text {
    pub(crate) value: Box<str>,
    pub(crate) place: Option<Place>,
}

/// A histogram that something was recorded in.
#[derive(Default)]
pub(super) struct Histogram {
    /// With what it inherited.
    pub(super) merged: Arc<Merged>,
    /// What was recorded here, if something was inherited too.
    pub(super) own: Option<Box<Distribution>>,
    /// Where the segment holds the cumulative distribution.
    pub(super) place: Option<Place>,
}

impl Directory {
    pub(super) fn take_inherited(&mut self, name: &str, class: u32, slot: u32) {
        if let Some(Total::Histogram(inherited)) = self.inherited.settle(name, class, slot) {
            self.histograms.entry(slot).or_default().inherit(&inherited);
        }
    }

    /// Has from now on `inherited` from other processes, instead of what it had before.
    pub(crate) fn inherit(&mut self, segment: &Segment, inherited: Inherited) {
        self.histograms.values_mut().for_each(Histogram::disinherit);
        self.inherited = inherited;
        if self.block_ranges().iter().all(|blocks| blocks.is_empty()) {
            return;
        }
        let known = |(name, total): (&str, &Total)| {
            let class = total.kind().class();
            Some((name.to_owned(), class, self.find(segment, name, total.kind())?))
        };
        let known: Vec<_> = self.inherited.waiting().filter_map(known).collect();
        known.into_iter().for_each(|(name, class, slot)| self.take_inherited(&name, class, slot));
    }

    /// Makes the stats that were inherited and have a living scope, so that they show as any other.
    pub(crate) fn claim_inherited(&mut self, segment: &Segment) {
        if !self.inherited.has_waiting() || !self.inherited.is_news(self.generations) {
            return;
        }
        let covered = |(name, total): (&str, &Total)| {
            let mut prefixes = name.rmatch_indices('.').map(|(dot, _)| dot + 1);
            let (at, scope) = prefixes.find_map(|at| Some((at, self.living_scope(&name[..at])?)))?;
            Some((scope, name[at..].to_owned(), total.kind()))
        };
        let covered: Vec<_> = self.inherited.waiting().filter_map(covered).collect();
        for (scope, suffix, kind) in covered {
            self.resolve(segment, scope, &suffix, kind, None);
        }
    }

    fn living_scope(&self, prefix: &str) -> Option<u32> {
        self.find_scope(prefix)
            .filter(|id| self.entry(*id).is_some_and(|entry| entry.handle.strong_count() > 0))
    }

    /// Sum of a counter, with what it inherited.
    pub(crate) fn counter(&self, segment: &Segment, slot: u32) -> u64 {
        segment.sum(slot).wrapping_add(self.inherited.counter(slot).value)
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
            if let Some(own) = &mut histogram.own {
                same.iter().for_each(|(_, counts)| counts.add_to(own));
            }
            if slot >= segment.geometry().slots {
                continue;
            }
            encoded.clear();
            histogram.own.as_deref().unwrap_or(&merged.cumulative).encode(&mut encoded);
            // Without space for the new one, readers go on seeing the old one.
            if let Some(place) = self.arena.store(segment, &encoded) {
                segment.store_word(slot, place.word());
                old.extend(histogram.place.replace(place));
            }
        }
        let _change = Change::begin(segment);
        old.into_iter().for_each(|place| self.arena.free(place));
    }

    /// What is known of a histogram: `None` if nothing was ever recorded.
    pub(crate) fn histogram(&self, slot: u32) -> Option<Arc<Merged>> {
        Some(self.histograms.get(&slot)?.merged.clone())
    }

    pub(crate) fn interval(&self) -> u64 {
        self.interval
    }
}

impl Histogram {
    pub(super) fn inherit(&mut self, inherited: &Distribution) {
        let merged = Arc::make_mut(&mut self.merged);
        self.own.get_or_insert_with(|| Box::new(merged.cumulative.clone()));
        merged.cumulative.merge(inherited);
    }

    pub(super) fn disinherit(&mut self) {
        if let Some(own) = self.own.take() {
            Arc::make_mut(&mut self.merged).cumulative = *own;
        }
    }
}
