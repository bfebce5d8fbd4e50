//! `/stats/prometheus` in Prometheus' text format, as Envoy prints it: names with `envoy_` before them and no `_total`, times as they
//! are, no `# HELP`.

use std::fmt::Display;
use std::io::Write as _;

use proxy_stats::{Extracted, HistogramValue, MetricKind, Tag, Value};

use super::families::Family;
use super::histogram::{Buckets, counts, quantiles};
use super::number::{General, Shortest};
use super::selection::{Request, is_counter, is_gauge, is_histogram, is_text_readout};
use crate::admin::rendering::{ClientGone, Output};
use crate::admin::state::Stats;

pub(super) fn write(stats: &Stats, request: &Request, output: &mut Output) -> Result<(), ClientGone> {
    let summary = request.buckets == Buckets::Summary;
    write_kind(stats, request, is_counter, "counter", output)?;
    write_kind(stats, request, is_gauge, "gauge", output)?;
    if request.text_readouts {
        write_kind(stats, request, is_text_readout, "gauge", output)?;
    }
    write_kind(stats, request, is_histogram, if summary { "summary" } else { "histogram" }, output)
}

fn write_kind(
    stats: &Stats,
    request: &Request,
    kinds: fn(MetricKind) -> bool,
    type_name: &str,
    output: &mut Output,
) -> Result<(), ClientGone> {
    for family in Family::collect(stats, request, kinds) {
        let name = metric_name(&family.name);
        // Writing to memory cannot fail.
        let _ = writeln!(output.piece(), "# TYPE {name} {type_name}");
        family.each(stats, output, |piece, extracted, metric| {
            let mut series = Series::new(piece, &name, extracted);
            match metric.value {
                Value::Number(number) => series.line("", None, number),
                Value::Text(text) => series.line("", Some(("text_value", &escaped(text))), 0),
                Value::Histogram(histogram) if request.buckets == Buckets::Summary => {
                    write_summary(&mut series, histogram, Shortest, exact);
                }
                Value::Histogram(histogram) => {
                    write_histogram(&mut series, histogram, stats.bounds(metric.name), exact);
                }
            }
        })?;
    }
    Ok(())
}

/// `number` writes a bound or a sum.
pub(super) fn write_histogram<N: Display>(
    series: &mut Series<'_>,
    histogram: HistogramValue<'_>,
    bounds: &[f64],
    number: impl Fn(f64) -> N,
) {
    for (bound, _, count) in counts(histogram, bounds, false) {
        series.line("_bucket", Some(("le", &number(bound))), count);
    }
    let distribution = histogram.cumulative;
    series.line("_bucket", Some(("le", &"+Inf")), distribution.count());
    series.line("_sum", None, number(distribution.sum()));
    series.line("_count", None, distribution.count());
}

/// Of the last interval, as in Envoy. `quantile` and `number` write these.
pub(super) fn write_summary<Q: Display, N: Display>(
    series: &mut Series<'_>,
    histogram: HistogramValue<'_>,
    quantile: impl Fn(f64) -> Q,
    number: impl Fn(f64) -> N,
) {
    for (of, value) in quantiles(histogram.interval) {
        series.line("", Some(("quantile", &quantile(of))), number(value));
    }
    series.line("_sum", None, number(histogram.interval.sum()));
    series.line("_count", None, histogram.interval.count());
}

fn exact(value: f64) -> General {
    General { value, digits: 32 }
}

/// Lines about one stat.
pub(super) struct Series<'a> {
    piece: &'a mut Vec<u8>,
    name: &'a str,
    labels: String,
}

impl<'a> Series<'a> {
    pub(super) fn new(piece: &'a mut Vec<u8>, name: &'a str, extracted: &Extracted<'_>) -> Self {
        let label = |tag: &Tag<'_>| format!("{}=\"{}\"", sanitized(tag.name), escaped(tag.value));
        let labels = extracted.tags.iter().map(label).collect::<Vec<_>>().join(",");
        Self { piece, name, labels }
    }

    /// `suffix` comes after the name, `extra` is one more label.
    pub(super) fn line(&mut self, suffix: &str, extra: Option<(&str, &dyn Display)>, value: impl Display) {
        let Self { piece, name, labels } = self;
        // Writing to memory cannot fail.
        let _ = match extra {
            None => writeln!(piece, "{name}{suffix}{{{labels}}} {value}"),
            Some((label, text)) if labels.is_empty() => {
                writeln!(piece, "{name}{suffix}{{{label}=\"{text}\"}} {value}")
            }
            Some((label, text)) => writeln!(piece, "{name}{suffix}{{{labels},{label}=\"{text}\"}} {value}"),
        };
    }
}

pub(super) fn metric_name(name: &str) -> String {
    format!("envoy_{}", sanitized(name))
}

fn sanitized(name: &str) -> String {
    name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect()
}

/// As the value of a label.
pub(super) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
