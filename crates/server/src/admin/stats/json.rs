//! `/stats?format=json`: one list of objects, the histograms together in the last one.

use std::io::Write as _;

use proxy_stats::{Distribution, HistogramValue, Metric, Value};

use super::each;
use super::histogram::{Buckets, PERCENTILES, counts, quantiles};
use super::number::ShortestJson;
use super::selection::{Request, is_histogram, is_number, is_text_readout};
use crate::admin::rendering::{ClientGone, Output};
use crate::admin::state::Stats;

pub(super) fn write(stats: &Stats, request: &Request, output: &mut Output) -> Result<(), ClientGone> {
    output.piece().extend_from_slice(b"{\"stats\":[");
    let mut separator = "";
    for kinds in [is_text_readout, is_number] {
        each(stats, request, kinds, output, |piece, metric| {
            write_plain(piece, std::mem::replace(&mut separator, ","), metric);
        })?;
    }
    let (begin, end) = around(request.buckets);
    let mut histograms = 0;
    each(stats, request, is_histogram, output, |piece, metric| {
        let Value::Histogram(histogram) = metric.value else { return };
        let before = if histograms == 0 { format!("{separator}{begin}") } else { ",".to_owned() };
        histograms += 1;
        let name = serde_json::Value::from(metric.name);
        // Writing to memory cannot fail.
        let _ = write!(piece, "{before}{{\"name\":{name},");
        match request.buckets {
            Buckets::Cumulative => write_counts(piece, histogram, stats.bounds(metric.name), false),
            Buckets::Disjoint => write_counts(piece, histogram, stats.bounds(metric.name), true),
            Buckets::Detailed => write_details(piece, histogram),
            _ => write_quantiles(piece, "values", histogram),
        }
        piece.push(b'}');
    })?;
    let end = if histograms == 0 { "" } else { end };
    output.piece().extend_from_slice(format!("{end}]}}").as_bytes());
    Ok(())
}

fn write_plain(piece: &mut Vec<u8>, separator: &str, metric: &Metric<'_>) {
    let value = match metric.value {
        Value::Number(number) => serde_json::Value::from(number),
        Value::Text(text) => serde_json::Value::from(text),
        Value::Histogram(_) => return,
    };
    let name = serde_json::Value::from(metric.name);
    let _ = write!(piece, "{separator}{{\"name\":{name},\"value\":{value}}}");
}

/// What stands before the first histogram and after the last one.
fn around(buckets: Buckets) -> (String, &'static str) {
    let percentiles = PERCENTILES.join(",");
    match buckets {
        Buckets::Cumulative | Buckets::Disjoint => ("{\"histograms\":[".to_owned(), "]}"),
        Buckets::Detailed => {
            (format!("{{\"histograms\":{{\"supported_percentiles\":[{percentiles}],\"details\":["), "]}}")
        }
        _ => (
            format!("{{\"histograms\":{{\"supported_quantiles\":[{percentiles}],\"computed_quantiles\":["),
            "]}}",
        ),
    }
}

fn write_counts(piece: &mut Vec<u8>, histogram: HistogramValue<'_>, bounds: &[f64], disjoint: bool) {
    let bucket = |(bound, interval, cumulative)| {
        let bound = ShortestJson(bound);
        format!("{{\"upper_bound\":{bound},\"interval\":{interval},\"cumulative\":{cumulative}}}")
    };
    let buckets = counts(histogram, bounds, disjoint).map(bucket).collect::<Vec<_>>().join(",");
    let _ = write!(piece, "\"buckets\":[{buckets}]");
}

fn write_details(piece: &mut Vec<u8>, histogram: HistogramValue<'_>) {
    let (totals, intervals) = (bucket_list(histogram.cumulative), bucket_list(histogram.interval));
    let _ = write!(piece, "\"totals\":[{totals}],\"intervals\":[{intervals}],");
    write_quantiles(piece, "percentiles", histogram);
}

fn bucket_list(distribution: &Distribution) -> String {
    let bucket = |bucket: proxy_stats::Bucket| {
        let (lower, width) = (ShortestJson(bucket.lower), ShortestJson(bucket.width));
        format!("{{\"lower_bound\":{lower},\"width\":{width},\"count\":{}}}", bucket.count)
    };
    distribution.buckets().map(bucket).collect::<Vec<_>>().join(",")
}

fn write_quantiles(piece: &mut Vec<u8>, field: &str, histogram: HistogramValue<'_>) {
    let value = |((_, interval), (_, cumulative))| {
        let (interval, cumulative) = (ShortestJson(interval), ShortestJson(cumulative));
        format!("{{\"cumulative\":{cumulative},\"interval\":{interval}}}")
    };
    let both = quantiles(histogram.interval).zip(quantiles(histogram.cumulative));
    let _ = write!(piece, "\"{field}\":[{}]", both.map(value).collect::<Vec<_>>().join(","));
}
