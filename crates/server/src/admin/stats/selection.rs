//! Which stats are shown, and how: the parameters, with Envoy's texts where they are wrong.

use proxy_stats::{ImportMode, Metric, MetricKind, Value};
use regex::{Regex, RegexBuilder};

use super::histogram::Buckets;
use crate::admin::query::Query;

/// A request for stats.
pub(super) struct Request {
    pub(super) format: Format,
    pub(super) buckets: Buckets,
    pub(super) text_readouts: bool,
    used_only: bool,
    filter: Option<Regex>,
    invert: bool,
    of_type: Type,
    hidden: Hidden,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    /// `reloads`: the page is to be kept current by the browser.
    Html {
        reloads: bool,
    },
    Json,
    Prometheus,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    All,
    Counters,
    Gauges,
    Histograms,
    TextReadouts,
}

/// What becomes of stats that are hidden unless asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hidden {
    Exclude,
    Include,
    Only,
}

impl Request {
    /// What `/stats` is asked for. Errors are Envoy's texts.
    pub(super) fn parse(query: &Query) -> Result<Self, String> {
        let request = Self::parameters(query)?;
        match request.format {
            Format::Prometheus => request.for_prometheus(),
            _ if request.buckets == Buckets::PrometheusNative => {
                Err("Invalid histogram_buckets type for non prometheus stats type".to_owned())
            }
            _ => Ok(request),
        }
    }

    /// What `/stats/prometheus` is asked for.
    pub(super) fn parse_prometheus(query: &Query) -> Result<Self, String> {
        Self::parameters(query)?.for_prometheus()
    }

    fn parameters(query: &Query) -> Result<Self, String> {
        // An empty value is as good as none.
        let value = |name| query.value(name).filter(|value| !value.is_empty());
        let buckets = Buckets::parse(value("histogram_buckets"))?;
        let filter = value("filter").map(pattern).transpose();
        let filter = filter.map_err(|error| format!("Invalid re2 regex: {error}"))?;
        let of_type = match value("type") {
            None | Some("All") => Type::All,
            Some("Counters") => Type::Counters,
            Some("Gauges") => Type::Gauges,
            Some("Histograms") => Type::Histograms,
            Some("TextReadouts") => Type::TextReadouts,
            Some(_) => return Err("invalid &type= param".to_owned()),
        };
        let format = match value("format") {
            None | Some("text") => Format::Text,
            Some("html") => Format::Html { reloads: false },
            Some("active-html") => Format::Html { reloads: true },
            Some("json") => Format::Json,
            Some("prometheus") => Format::Prometheus,
            Some(_) => {
                return Err("usage: /stats?format=(html|active-html|json|prometheus|text)\n\n".to_owned());
            }
        };
        let hidden = match value("hidden") {
            None | Some("exclude") => Hidden::Exclude,
            Some("include") => Hidden::Include,
            Some("only") => Hidden::Only,
            Some(_) => return Err("usage: /stats?hidden=(include|only|exclude)\n\n".to_owned()),
        };
        Ok(Self {
            format,
            buckets,
            text_readouts: query.has("text_readouts"),
            used_only: query.has("usedonly"),
            filter,
            invert: query.has("invert_filter"),
            of_type,
            hidden,
        })
    }

    /// The same in the Prometheus format, which knows all types but not all forms of histograms.
    fn for_prometheus(self) -> Result<Self, String> {
        match self.buckets {
            Buckets::Disjoint | Buckets::Detailed => {
                Err("unsupported prometheus histogram bucket mode".to_owned())
            }
            Buckets::PrometheusNative => {
                Err("unsupported prometheusnative histogram type when not using protobuf exposition format"
                    .to_owned())
            }
            _ => Ok(Self { format: Format::Prometheus, of_type: Type::All, ..self }),
        }
    }

    pub(super) fn takes(&self, metric: &Metric<'_>) -> bool {
        let of_type = match metric.kind {
            MetricKind::Counter => Type::Counters,
            MetricKind::Gauge(_) => Type::Gauges,
            MetricKind::Histogram => Type::Histograms,
            MetricKind::TextReadout => Type::TextReadouts,
        };
        let is_hidden = metric.kind == MetricKind::Gauge(ImportMode::HiddenAccumulate);
        let shown = match self.hidden {
            Hidden::Exclude => !is_hidden,
            Hidden::Include => true,
            Hidden::Only => is_hidden,
        };
        shown
            && (self.of_type == Type::All || self.of_type == of_type)
            && (!self.used_only || is_used(metric.value))
            && self.filter.as_ref().is_none_or(|filter| filter.is_match(metric.name) != self.invert)
    }
}

pub(super) fn is_counter(kind: MetricKind) -> bool {
    kind == MetricKind::Counter
}

pub(super) fn is_gauge(kind: MetricKind) -> bool {
    matches!(kind, MetricKind::Gauge(_))
}

/// A counter or a gauge.
pub(super) fn is_number(kind: MetricKind) -> bool {
    is_counter(kind) || is_gauge(kind)
}

pub(super) fn is_histogram(kind: MetricKind) -> bool {
    kind == MetricKind::Histogram
}

pub(super) fn is_text_readout(kind: MetricKind) -> bool {
    kind == MetricKind::TextReadout
}

/// Whether something was counted or set, as far as the value tells.
fn is_used(value: Value<'_>) -> bool {
    match value {
        Value::Number(number) => number != 0,
        Value::Histogram(histogram) => !histogram.cumulative.is_empty(),
        Value::Text(text) => !text.is_empty(),
    }
}

/// A regular expression from a request; what it may cost is bounded.
pub(in crate::admin) fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
    built.map_err(|error| match error {
        regex::Error::Syntax(report) => {
            report.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
        other => other.to_string(),
    })
}

/// Of compiled regular expressions from requests.
const PATTERN_BYTES: usize = 1 << 20;
