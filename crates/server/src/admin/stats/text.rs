//! `/stats` as text, and the same text in a page with a form.

use std::io::Write as _;

use proxy_stats::{Distribution, HistogramValue, Metric, Value};

use super::each;
use super::histogram::{Buckets, PERCENTILES, counts, quantiles};
use super::number::{General, Shortest};
use super::selection::{Format, Request, is_histogram, is_number, is_text_readout};
use crate::admin::page;
use crate::admin::rendering::{ClientGone, Output};
use crate::admin::routes::STATS;
use crate::admin::state::Stats;

/// Text readouts, then counters and gauges, then histograms.
pub(super) fn write(stats: &Stats, request: &Request, output: &mut Output) -> Result<(), ClientGone> {
    write_lines(stats, request, output, |piece, line| piece.extend_from_slice(line))
}

pub(super) fn write_page(stats: &Stats, request: &Request, output: &mut Output) -> Result<(), ClientGone> {
    let reloads = matches!(request.format, Format::Html { reloads: true });
    output.piece().extend_from_slice(page::stats_head(&STATS, reloads).as_bytes());
    write_lines(stats, request, output, |piece, line| {
        piece.extend_from_slice(page::escape(&String::from_utf8_lossy(line)).as_bytes());
    })?;
    output.piece().extend_from_slice(b"</pre>\n</body>\n</html>\n");
    Ok(())
}

fn write_lines(
    stats: &Stats,
    request: &Request,
    output: &mut Output,
    append: impl Fn(&mut Vec<u8>, &[u8]),
) -> Result<(), ClientGone> {
    let mut line = Vec::new();
    for kinds in [is_text_readout, is_number, is_histogram] {
        each(stats, request, kinds, output, |piece, metric| {
            line.clear();
            write_line(&mut line, metric, stats, request.buckets);
            append(piece, &line);
        })?;
    }
    Ok(())
}

fn write_line(line: &mut Vec<u8>, metric: &Metric<'_>, stats: &Stats, buckets: Buckets) {
    let name = metric.name;
    // Writing to memory cannot fail.
    let _ = match metric.value {
        Value::Number(number) => writeln!(line, "{name}: {number}"),
        Value::Text(text) => writeln!(line, "{name}: \"{text}\""),
        Value::Histogram(histogram) if histogram.cumulative.is_empty() => {
            writeln!(line, "{name}: No recorded values")
        }
        Value::Histogram(histogram) => {
            let _ = write!(line, "{name}:");
            match buckets {
                Buckets::Cumulative => write_counts(line, histogram, stats.bounds(name), false),
                Buckets::Disjoint => write_counts(line, histogram, stats.bounds(name), true),
                Buckets::Detailed => write_details(line, histogram),
                _ => write_quantiles(line, histogram, " "),
            }
            writeln!(line)
        }
    };
}

fn write_counts(line: &mut Vec<u8>, histogram: HistogramValue<'_>, bounds: &[f64], disjoint: bool) {
    for (bound, interval, cumulative) in counts(histogram, bounds, disjoint) {
        let _ = write!(line, " B{}({interval},{cumulative})", General { value: bound, digits: 6 });
    }
}

fn write_details(line: &mut Vec<u8>, histogram: HistogramValue<'_>) {
    for (title, distribution) in [("totals", histogram.cumulative), ("intervals", histogram.interval)] {
        let _ = write!(line, "\n  {title}={}", bucket_list(distribution));
    }
    line.extend_from_slice(b"\n  summary");
    write_quantiles(line, histogram, "=");
}

fn bucket_list(distribution: &Distribution) -> String {
    let bucket = |bucket: proxy_stats::Bucket| {
        format!("{},{}:{}", Shortest(bucket.lower), Shortest(bucket.width), bucket.count)
    };
    distribution.buckets().map(bucket).collect::<Vec<_>>().join(", ")
}

/// `first` stands before the first one, a blank before the others.
fn write_quantiles(line: &mut Vec<u8>, histogram: HistogramValue<'_>, first: &str) {
    let mut before = first;
    let both = quantiles(histogram.interval).zip(quantiles(histogram.cumulative));
    for (percentile, ((_, interval), (_, cumulative))) in PERCENTILES.iter().zip(both) {
        let _ = write!(line, "{before}P{percentile}({},{})", Shortest(interval), Shortest(cumulative));
        before = " ";
    }
}
