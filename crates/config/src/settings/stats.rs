//! Stats: which there are, how they are tagged, and where they are sent.

use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use super::{SocketAddress, StringMatcher};

/// `stats_config`, `stats_sinks` and the flush fields of the bootstrap.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub flush: StatsFlush,
    pub tags: StatsTags,
    pub matcher: StatsMatcher,
    /// `histogram_bucket_settings`: the first one that matches a full name applies.
    pub histogram_buckets: Vec<HistogramBuckets>,
    pub sinks: Vec<StatsSink>,
}

/// When intervals of histograms end and sinks are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsFlush {
    /// `stats_flush_interval`, 5 s when unset.
    Every(Duration),
    /// `stats_flush_on_admin`: when the admin port is asked for stats.
    OnAdmin,
}

impl Default for StatsFlush {
    fn default() -> Self {
        Self::Every(Duration::from_secs(5))
    }
}

/// How tags are taken out of names.
#[derive(Debug, Clone)]
pub struct StatsTags {
    /// `use_all_default_tags`, true when unset.
    pub use_defaults: bool,
    /// `allow_default_tag_overrides`: a tag below replaces the default one of its name; otherwise the default wins.
    pub override_defaults: bool,
    pub tags: Vec<StatsTag>,
}

impl Default for StatsTags {
    fn default() -> Self {
        Self { use_defaults: true, override_defaults: false, tags: Vec::new() }
    }
}

/// `envoy.config.metrics.v3.TagSpecifier`.
#[derive(Debug, Clone)]
pub struct StatsTag {
    pub name: String,
    pub value: StatsTagValue,
}

#[derive(Debug, Clone)]
pub enum StatsTagValue {
    /// The rule of Envoy's default tag of this name, which exists.
    Default,
    Fixed(String),
    /// Found anywhere in a name: the first group is what goes from the name, the second one, or else the first, the
    /// value. Without groups it takes nothing out.
    Regex(Regex),
}

/// `envoy.config.metrics.v3.StatsMatcher`, applied to full names.
#[derive(Debug, Clone, Default)]
pub enum StatsMatcher {
    #[default]
    AcceptAll,
    RejectAll,
    /// `exclusion_list`
    Exclude(Vec<StringMatcher>),
    /// `inclusion_list`
    Include(Vec<StringMatcher>),
}

impl StatsMatcher {
    /// Whether a stat of this full name is to exist.
    pub fn accepts(&self, name: &str) -> bool {
        let any = |patterns: &[StringMatcher]| patterns.iter().any(|one| one.matches(name.as_bytes()));
        match self {
            Self::AcceptAll => true,
            Self::RejectAll => false,
            Self::Exclude(patterns) => !any(patterns),
            Self::Include(patterns) => any(patterns),
        }
    }
}

/// `envoy.config.metrics.v3.HistogramBucketSettings`.
#[derive(Debug, Clone)]
pub struct HistogramBuckets {
    pub matcher: StringMatcher,
    /// Upper bounds, rising; never empty.
    pub bounds: Arc<[f64]>,
}

/// A receiver of stats.
#[derive(Debug, Clone)]
pub struct StatsSink {
    pub format: StatsFormat,
    /// Stands before every name, with a dot between; `envoy` when unset.
    pub prefix: String,
    pub transport: StatsTransport,
}

/// How tags are written, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsFormat {
    /// `envoy.config.metrics.v3.StatsdSink`: whole names, no tags.
    Statsd,
    /// `envoy.config.metrics.v3.DogStatsdSink`: `name:1|c|#tag:value,tag:value`.
    DogStatsd,
    /// `envoy.extensions.stat_sinks.graphite_statsd.v3.GraphiteStatsdSink`: `name;tag=value;tag=value:1|c`.
    Graphite,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsTransport {
    /// UDP, or datagrams over a UNIX socket.
    Datagram {
        address: SocketAddress,
        /// `max_bytes_per_datagram`; one metric in each datagram when unset.
        max_bytes: Option<usize>,
    },
    /// `tcp_cluster_name`: a connection to a host of this cluster, which exists.
    Tcp { cluster: Arc<str> },
}
