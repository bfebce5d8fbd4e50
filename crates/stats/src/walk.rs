//! Walking over all stats in slices, so that main never holds a thread or the lock for long.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::directory::Directory;
use crate::histogram::{Distribution, HistogramValue, Merged};
use crate::layout::BLOCK_SLOTS;
use crate::metric::{Metric, MetricKind, Value, gauge_value};
use crate::segment::Segment;
use crate::store::Shared;

/// A walk under way. Stats that come or go meanwhile may or may not be seen; all others are seen once.
pub struct Walk {
    shared: Arc<Shared>,
    slices: Slices,
    text: String,
    found: Vec<Found>,
    /// Number of the interval that histograms are asked for.
    interval: u64,
}

struct Found {
    name: std::ops::Range<usize>,
    kind: MetricKind,
    value: FoundValue,
    generation: u32,
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
        Walk { shared, slices: Slices::default(), text: String::new(), found: Vec::new(), interval: 0 }
    }

    /// Visits the next few hundred stats. False when there are no more.
    pub fn advance(&mut self, mut visit: impl FnMut(&Metric<'_>)) -> bool {
        let more = self.collect();
        for found in &self.found {
            let value = match &found.value {
                FoundValue::Number(number) => Value::Number(*number),
                FoundValue::Histogram(None) => Value::Histogram(HistogramValue {
                    interval: Distribution::none(),
                    cumulative: Distribution::none(),
                }),
                FoundValue::Histogram(Some(merged)) => Value::Histogram(merged.value(self.interval)),
                FoundValue::Text(range) => Value::Text(&self.text[range.clone()]),
            };
            let name = &self.text[found.name.clone()];
            visit(&Metric { name, kind: found.kind, value, generation: found.generation });
        }
        more
    }

    /// Copies the next slice out of the store, so that the visitor may use the store itself.
    fn collect(&mut self) -> bool {
        self.text.clear();
        self.found.clear();
        let shared = self.shared.clone();
        let directory = shared.lock();
        self.interval = directory.interval();
        let Some(slots) = self.slices.next(&directory) else { return false };
        for slot in slots {
            if let Some(scope) = shared.segment().owner(slot) {
                self.add(shared.segment(), &directory, scope, slot);
            }
        }
        true
    }

    fn add(&mut self, segment: &Segment, directory: &Directory, scope: u32, slot: u32) {
        let descriptor = segment.descriptors()[slot as usize].load(Relaxed);
        let Some(kind) = MetricKind::from_code(descriptor & 15) else { return };
        let start = self.text.len();
        self.text.push_str(directory.prefix(scope));
        self.text.push_str(directory.suffixes.text(descriptor >> 4));
        let name = start..self.text.len();
        let value = match kind {
            MetricKind::Counter => FoundValue::Number(segment.sum(slot)),
            MetricKind::Gauge(_) => FoundValue::Number(gauge_value(segment.sum(slot))),
            MetricKind::Histogram => FoundValue::Histogram(directory.histogram(slot)),
            MetricKind::TextReadout => {
                self.text.push_str(directory.texts.get(&slot).map_or("", |text| &text.value));
                FoundValue::Text(name.end..self.text.len())
            }
        };
        self.found.push(Found { name, kind, value, generation: directory.generation(scope) });
    }
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
