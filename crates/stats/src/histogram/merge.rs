//! Merging on main, a slice at a time.

use std::sync::Arc;

use super::distribution::Distribution;
use super::recording::{Counts, Recording};
use crate::store::Shared;

/// Number of a flush interval: each one's is higher than the one's before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(pub(crate) u64);

/// What enumeration yields of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramValue<'a> {
    /// Of the last interval that was completed. A reader of another process's segment does not know it: it is empty.
    pub interval: &'a Distribution,
    /// Since the stat was made.
    pub cumulative: &'a Distribution,
}

/// What main knows of a histogram that something was recorded in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merged {
    pub(crate) cumulative: Distribution,
    interval: Distribution,
    /// Number of the interval that `interval` is of.
    number: u64,
}

impl Merged {
    /// `number`: of the last interval that was begun.
    pub(crate) fn value(&self, number: u64) -> HistogramValue<'_> {
        let interval = if self.number == number { &self.interval } else { Distribution::none() };
        HistogramValue { interval, cumulative: &self.cumulative }
    }

    /// Adds what a thread counted in interval `number`.
    pub(crate) fn add(&mut self, counts: &Counts, number: u64) {
        if self.number != number {
            self.interval.clear();
            self.number = number;
        }
        let mut recorded = Distribution::default();
        counts.add_to(&mut recorded);
        self.interval.merge(&recorded);
        self.cumulative.merge(&recorded);
    }
}

/// Merging under way: see [`Store::merge_histograms`](crate::Store::merge_histograms). What is not merged when this is
/// dropped is lost.
#[must_use = "nothing is merged before `advance`"]
pub struct Merge {
    shared: Arc<Shared>,
    interval: Interval,
    left: std::vec::IntoIter<(u32, Counts)>,
}

impl Merge {
    pub(crate) fn new(shared: Arc<Shared>, interval: Interval, recordings: Vec<Recording>) -> Merge {
        let mut left: Vec<_> = recordings.into_iter().flat_map(Recording::into_histograms).collect();
        // What several threads recorded for a histogram is then merged, and written to the segment, in one go.
        left.sort_unstable_by_key(|(slot, _)| *slot);
        Merge { shared, interval, left: left.into_iter() }
    }

    /// The interval whose values these are.
    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// Merges the next hundred histograms or so. False when there are no more.
    pub fn advance(&mut self) -> bool {
        let mut slice: Vec<_> = self.left.by_ref().take(HISTOGRAMS_AT_ONCE).collect();
        while let (Some((last, _)), Some((next, _))) = (slice.last(), self.left.as_slice().first())
            && last == next
        {
            slice.extend(self.left.next());
        }
        self.shared.lock().merge(self.shared.segment(), &slice);
        !self.left.as_slice().is_empty()
    }
}

const HISTOGRAMS_AT_ONCE: usize = 128;
