//! Walking over all stats in slices, so that main never holds a thread or the lock for long.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::directory::Directory;
use crate::histogram::{Distribution, HistogramValue, Interval, Merged};
use crate::layout::BLOCK_SLOTS;
use crate::metric::{Metric, MetricKind, Value};
use crate::segment::Segment;
use crate::store::Shared;

/// A walk under way. Stats that come or go meanwhile may or may not be seen; all others are seen once.
pub struct Walk {
    shared: Arc<Shared>,
    slices: Slices,
    copies: Copies,
    /// The interval that histograms are asked for; None: whichever is the last.
    wanted_interval: Option<u64>,
}

/// Names a stat while it lives: no other stat has the same, also later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MetricId {
    pub(crate) slot: u32,
    /// Of the scope: its slots may serve another one later.
    pub(crate) generation: u32,
}

/// Where a stat is in the store. As long as the stat lives, it is found there again: see [`Store::revisit`]. Half the size of
/// its id.
///
/// [`Store::revisit`]: crate::Store::revisit
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub(crate) u32);

/// Stats copied out of the store, so that a visitor may take its time and use the store itself.
#[derive(Default)]
pub(crate) struct Copies {
    text: String,
    found: Vec<Found>,
    /// Number of the interval that histograms are asked for.
    interval: u64,
}

struct Found {
    id: MetricId,
    name: std::ops::Range<usize>,
    kind: MetricKind,
    value: FoundValue,
}

enum FoundValue {
    Number(u64),
    /// None: nothing was ever recorded.
    Histogram(Option<Arc<Merged>>),
    Text(std::ops::Range<usize>),
}

/// Goes over the blocks in use, of the file and then of private memory.
#[derive(Default)]
pub(crate) struct Slices {
    half: usize,
    next: u32,
}

impl Walk {
    pub(crate) fn new(shared: Arc<Shared>) -> Walk {
        Walk { shared, slices: Slices::default(), copies: Copies::default(), wanted_interval: None }
    }

    /// Yields of histograms what was recorded in `interval`, also where the next one has begun: as long as that has
    /// not reached the histogram.
    pub fn of_interval(self, interval: Interval) -> Walk {
        Walk { wanted_interval: Some(interval.0), ..self }
    }

    /// Visits the next few hundred stats. False when there are no more.
    pub fn advance(&mut self, mut visit: impl FnMut(&Metric<'_>)) -> bool {
        self.advance_where(|_, _, _| true, |_, metric| visit(metric))
    }

    /// As [`Walk::advance`], for stats that are `wanted`: asked with the number of a counter or gauge, otherwise with 1
    /// if the stat holds anything. Spares the others their names, and is called with the store's lock held.
    pub fn advance_where(
        &mut self,
        wanted: impl FnMut(MetricId, MetricKind, u64) -> bool,
        mut visit: impl FnMut(MetricId, &Metric<'_>),
    ) -> bool {
        let more = self.collect(wanted);
        self.copies.visit(&mut visit);
        more
    }

    fn collect(&mut self, mut wanted: impl FnMut(MetricId, MetricKind, u64) -> bool) -> bool {
        let shared = self.shared.clone();
        let directory = shared.lock();
        self.copies.begin(self.wanted_interval.unwrap_or(directory.interval()));
        let Some(slots) = self.slices.next(&directory) else { return false };
        slots.for_each(|slot| self.copies.add(shared.segment(), &directory, slot, &mut wanted));
        true
    }
}

impl MetricId {
    /// Where it is.
    pub fn slot(self) -> Slot {
        Slot(self.slot)
    }
}

impl Copies {
    pub(crate) fn begin(&mut self, interval: u64) {
        self.text.clear();
        self.found.clear();
        self.interval = interval;
    }

    /// Copies the stat in `slot` if there is one that is wanted: see [`Walk::advance_where`].
    pub(crate) fn add(
        &mut self,
        segment: &Segment,
        directory: &Directory,
        slot: u32,
        wanted: &mut impl FnMut(MetricId, MetricKind, u64) -> bool,
    ) {
        let descriptor = segment.descriptors()[slot as usize].load(Relaxed);
        let Some(scope) = segment.owner(slot) else { return };
        let Some(kind) = MetricKind::from_code(descriptor & 15) else { return };
        let id = MetricId { slot, generation: directory.generation(scope) };
        let text = directory.texts.get(&slot).map_or("", |text| &text.value);
        let (number, value) = match kind {
            MetricKind::Counter => number(directory.counter(segment, slot)),
            MetricKind::Gauge(_) => number(directory.gauge(segment, slot)),
            MetricKind::Histogram => {
                let merged = directory.histogram(slot);
                (u64::from(merged.is_some()), FoundValue::Histogram(merged))
            }
            MetricKind::TextReadout => (u64::from(!text.is_empty()), FoundValue::Text(0..0)),
        };
        if !wanted(id, kind, number) {
            return;
        }
        let start = self.text.len();
        self.text.push_str(directory.prefix(scope));
        self.text.push_str(directory.suffixes.text(descriptor >> 4));
        let name = start..self.text.len();
        let value = match value {
            FoundValue::Text(_) => {
                self.text.push_str(text);
                FoundValue::Text(name.end..self.text.len())
            }
            other => other,
        };
        self.found.push(Found { id, name, kind, value });
    }

    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        &self.text[self.found[index].name.clone()]
    }

    pub(crate) fn sort_by_name(&mut self, compare: impl Fn(&str, &str) -> std::cmp::Ordering) {
        let Self { text, found, .. } = self;
        found.sort_unstable_by(|one, two| compare(&text[one.name.clone()], &text[two.name.clone()]));
    }

    pub(crate) fn visit(&self, visit: &mut impl FnMut(MetricId, &Metric<'_>)) {
        (0..self.len()).for_each(|index| self.visit_one(index, visit));
    }

    pub(crate) fn visit_one(&self, index: usize, visit: &mut impl FnMut(MetricId, &Metric<'_>)) {
        let found = &self.found[index];
        let value = match &found.value {
            FoundValue::Number(number) => Value::Number(*number),
            FoundValue::Histogram(None) => Value::Histogram(HistogramValue {
                interval: Distribution::none(),
                cumulative: Distribution::none(),
            }),
            FoundValue::Histogram(Some(merged)) => Value::Histogram(merged.value(self.interval)),
            FoundValue::Text(range) => Value::Text(&self.text[range.clone()]),
        };
        let (name, generation) = (self.name(index), found.id.generation);
        visit(found.id, &Metric { name, kind: found.kind, value, generation });
    }
}

fn number(number: u64) -> (u64, FoundValue) {
    (number, FoundValue::Number(number))
}

impl Slices {
    /// The next few hundred slots; some may belong to nobody. None when there are no more.
    pub(crate) fn next(&mut self, directory: &Directory) -> Option<std::ops::Range<u32>> {
        loop {
            let range = directory.block_ranges().get(self.half).cloned()?;
            let start = self.next.max(range.start);
            if start < range.end {
                self.next = range.end.min(start.saturating_add(BLOCKS_AT_ONCE));
                return Some(start * BLOCK_SLOTS..self.next * BLOCK_SLOTS);
            }
            self.half += 1;
            self.next = 0;
        }
    }
}

const BLOCKS_AT_ONCE: u32 = 128;
