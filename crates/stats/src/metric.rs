//! Handles to single stats, and what enumeration yields.
//!
//! A handle says which slot of which segment, nothing else: it is `Copy`, and using it is sound at any time. It
//! counts for its stat as long as a [`Scope`] that resolved it lives; afterwards the slot may serve another stat.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use crate::histogram::HistogramValue;
use crate::scope::Scope;
use crate::segment::Handle;

/// A number that only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(pub(crate) Handle);

impl Counter {
    /// Adds one. A load and a store of the calling thread's own cell.
    #[inline]
    pub fn inc(self) {
        self.0.add(1);
    }

    /// Adds `amount`.
    #[inline]
    pub fn add(self, amount: u64) {
        self.0.add(amount);
    }

    /// Sum over all threads of this process, without what it inherited. Not for the data path.
    pub fn value(self) -> u64 {
        self.0.sum()
    }
}

/// A number that rises and falls, on any thread: +1 on one and -1 on another make 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge(pub(crate) Handle);

impl Gauge {
    /// Adds one. Costs as much as [`Counter::inc`].
    #[inline]
    pub fn inc(self) {
        self.0.add(1);
    }

    /// Takes one away.
    #[inline]
    pub fn dec(self) {
        self.0.add(u64::MAX);
    }

    /// Adds `amount`, which may be negative.
    #[inline]
    pub fn add(self, amount: i64) {
        self.0.add(amount as u64);
    }

    /// Takes `amount` away.
    #[inline]
    pub fn sub(self, amount: i64) {
        self.0.add((amount as u64).wrapping_neg());
    }

    /// Makes the value `value`, given that no other thread changes it meanwhile: for gauges that main alone keeps.
    /// Writes only the calling thread's cell.
    pub fn set(self, value: u64) {
        self.0.set(value);
    }

    /// Sum over all threads; 0 where a sum taken between two threads' halves of a move would be negative.
    pub fn value(self) -> u64 {
        gauge_value(self.0.sum())
    }

    /// Counts one until the guard is dropped, on whichever thread.
    #[inline]
    pub fn guard(self) -> GaugeGuard {
        GaugeGuard::new(self)
    }
}

/// One more of something for as long as it lives. The scope of the gauge must live as long.
#[derive(Debug)]
#[must_use = "the gauge falls again when the guard is dropped"]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Raises `gauge` by one.
    #[inline]
    pub fn new(gauge: Gauge) -> GaugeGuard {
        gauge.inc();
        GaugeGuard(gauge)
    }
}

impl Drop for GaugeGuard {
    #[inline]
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One owner's part of a gauge, such as the bytes it holds; taken back when dropped. The scope of the gauge must live as
/// long.
#[derive(Debug)]
pub struct GaugeShare {
    gauge: Gauge,
    /// 4 bytes, for each connection has some of these: what one owner holds at a time is far less than 4 GiB.
    amount: Cell<u32>,
}

impl GaugeShare {
    /// A share of nothing.
    pub fn new(gauge: Gauge) -> GaugeShare {
        GaugeShare { gauge, amount: Cell::new(0) }
    }

    /// Makes the share `amount`. Costs no more than a comparison while that does not change.
    #[inline]
    pub fn set(&self, amount: usize) {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        let before = self.amount.replace(amount);
        if before != amount {
            self.gauge.add(i64::from(amount) - i64::from(before));
        }
    }
}

impl Drop for GaugeShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// How often which values came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram(pub(crate) Handle);

impl Histogram {
    /// Records `value`, in the unit of the stat, in memory of the calling thread. It shows after the next flush: see
    /// [`Store::merge_histograms`](crate::Store::merge_histograms).
    #[inline]
    pub fn record(self, value: u64) {
        self.0.record(value);
    }

    /// Records whole milliseconds of `time`, as Envoy counts them.
    #[inline]
    pub fn record_milliseconds(self, time: Duration) {
        self.record(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
}

/// A text, such as a version; set on main. Keeps its scope alive.
#[derive(Clone, Debug)]
pub struct TextReadout {
    pub(crate) scope: Scope,
    pub(crate) slot: u32,
}

impl TextReadout {
    /// Replaces the text. Past 16 KiB it is cut. Takes the store's lock.
    pub fn set(&self, value: &str) {
        self.scope.shared().set_text(self.slot, value);
    }

    /// The text as last set; empty before that.
    pub fn value(&self) -> String {
        self.scope.shared().text(self.slot)
    }
}

/// What becomes of a gauge's value in a hot restart (Envoy: `Gauge::ImportMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportMode {
    /// Parent's and child's values are added up: connections, requests.
    Accumulate,
    /// The child starts from zero: states, versions.
    NeverImport,
    /// Added up, and not shown unless asked for.
    HiddenAccumulate,
}

/// Kind of a stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricKind {
    Counter,
    Gauge(ImportMode),
    Histogram,
    TextReadout,
}

impl MetricKind {
    /// As in a slot's descriptor. 0 is an empty slot.
    pub(crate) fn code(self) -> u32 {
        match self {
            MetricKind::Counter => 1,
            MetricKind::Gauge(ImportMode::Accumulate) => 2,
            MetricKind::Gauge(ImportMode::NeverImport) => 3,
            MetricKind::Gauge(ImportMode::HiddenAccumulate) => 4,
            MetricKind::TextReadout => 5,
            MetricKind::Histogram => 6,
        }
    }

    pub(crate) fn from_code(code: u32) -> Option<MetricKind> {
        Some(match code {
            1 => MetricKind::Counter,
            2 => MetricKind::Gauge(ImportMode::Accumulate),
            3 => MetricKind::Gauge(ImportMode::NeverImport),
            4 => MetricKind::Gauge(ImportMode::HiddenAccumulate),
            5 => MetricKind::TextReadout,
            6 => MetricKind::Histogram,
            _ => return None,
        })
    }

    /// Stats of one name and class are one stat: the first import mode asked for stays.
    pub(crate) fn class(self) -> u32 {
        match self {
            MetricKind::Counter => 0,
            MetricKind::Gauge(_) => 1,
            MetricKind::TextReadout => 2,
            MetricKind::Histogram => 3,
        }
    }
}

/// One stat as found by enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric<'a> {
    /// Full name, as Envoy's.
    pub name: &'a str,
    pub kind: MetricKind,
    pub value: Value<'a>,
    /// Differs when a stat of the same name was removed and made again.
    pub generation: u32,
}

/// Value of a stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of a counter or gauge.
    Number(u64),
    /// Of a histogram.
    Histogram(HistogramValue<'a>),
    /// Of a text readout.
    Text(&'a str),
}

impl Value<'_> {
    /// The number of a counter or gauge.
    pub fn number(self) -> Option<u64> {
        match self {
            Value::Number(number) => Some(number),
            Value::Histogram(_) | Value::Text(_) => None,
        }
    }
}

impl fmt::Display for Value<'_> {
    /// Of a histogram only how many values it holds.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => number.fmt(out),
            Value::Histogram(histogram) => histogram.cumulative.count().fmt(out),
            Value::Text(text) => text.fmt(out),
        }
    }
}

/// What a sum of gauge cells means.
pub(crate) fn gauge_value(sum: u64) -> u64 {
    u64::try_from(sum as i64).unwrap_or(0)
}

/// How far a wrapping `sum` is beyond a wrapping `mark`; 0 while it is behind.
pub(crate) fn difference(sum: u64, mark: u64) -> u64 {
    gauge_value(sum.wrapping_sub(mark))
}
