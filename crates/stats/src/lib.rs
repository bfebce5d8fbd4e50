#![doc = include_str!("../DESIGN.md")]

mod block;
mod blocks;
mod declared;
mod deltas;
mod directory;
mod error;
mod events;
mod histogram;
mod inherited;
mod layout;
mod lineage;
mod matcher;
mod metric;
mod names;
mod reader;
mod remembered;
mod scope;
mod segment;
mod sorted;
mod store;
mod tag_rules;
mod tags;
#[cfg(test)]
mod tests;
mod walk;

pub use declared::Declared;
pub use deltas::{Delta, Deltas, FlushMark};
pub use error::{LineageWarning, ReadError, StatsError};
pub use events::{Event, EventKind, EventLog, Severity, utc};
pub use histogram::{Bucket, Distribution, HistogramValue, Interval, Merge};
pub use lineage::{
    Catalog, EventWatch, Lineage, LineageOptions, LineagePath, LineageReader, StatId, Watch, WatchedMember,
    find_lineages,
};
pub use matcher::StatsMatcher;
pub use metric::{
    Counter, Gauge, GaugeGuard, GaugeShare, Histogram, ImportMode, Metric, MetricKind, TextReadout, Value,
};
pub use reader::Reader;
pub use scope::Scope;
pub use sorted::{NameOrder, SortedWalk};
pub use store::{Backing, Epoch, Store, StoreOptions, ThreadIndex};
pub use tags::{Extracted, Tag, TagExtractor, TagRule};
pub use walk::{MetricId, Slot, Walk};
