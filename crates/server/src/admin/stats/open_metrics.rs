//! `/stats/prometheus` for clients that ask for OpenMetrics 1.0: the same series with `# HELP` and `# UNIT`, counters ending in
//! `_total`, and an end that shows when an answer was cut off.

use std::collections::HashSet;
use std::io::Write as _;

use proxy_stats::{MetricKind, Value};

use super::families::Family;
use super::help;
use super::histogram::Buckets;
use super::number::Canonical;
use super::prometheus::{Series, escaped, metric_name, write_histogram, write_summary};
use super::selection::{Request, is_counter, is_gauge, is_histogram, is_text_readout};
use crate::admin::rendering::{ClientGone, Output};
use crate::admin::state::Stats;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Counter,
    Gauge,
    Info,
    Histogram,
    Summary,
}

pub(super) fn write(stats: &Stats, request: &Request, output: &mut Output) -> Result<(), ClientGone> {
    let mut names = Names::default();
    let mut write = |kinds, of_type| write_type(stats, request, kinds, of_type, &mut names, output);
    write(is_counter, Type::Counter)?;
    write(is_gauge, Type::Gauge)?;
    if request.text_readouts {
        write(is_text_readout, Type::Info)?;
    }
    let summary = request.buckets == Buckets::Summary;
    write(is_histogram, if summary { Type::Summary } else { Type::Histogram })?;
    output.piece().extend_from_slice(b"# EOF\n");
    Ok(())
}

fn write_type(
    stats: &Stats,
    request: &Request,
    kinds: fn(MetricKind) -> bool,
    of_type: Type,
    names: &mut Names,
    output: &mut Output,
) -> Result<(), ClientGone> {
    for family in Family::collect(stats, request, kinds) {
        let name = names.take(&family, of_type);
        // Writing to memory cannot fail.
        let _ = writeln!(output.piece(), "# HELP {name} {}", help::text(&family.name));
        let _ = writeln!(output.piece(), "# TYPE {name} {}", of_type.name());
        if let Some(unit) =
            UNITS.iter().find(|unit| is_unit_of(&name, unit)).filter(|_| of_type != Type::Info)
        {
            let _ = writeln!(output.piece(), "# UNIT {name} {unit}");
        }
        family.each(stats, output, |piece, extracted, metric| {
            let mut series = Series::new(piece, &name, extracted);
            match metric.value {
                Value::Number(number) if of_type == Type::Counter => series.line("_total", None, number),
                Value::Number(number) => series.line("", None, number),
                Value::Text(text) => series.line("_info", Some(("text_value", &escaped(text))), 1),
                Value::Histogram(histogram) if of_type == Type::Summary => {
                    write_summary(&mut series, histogram, Canonical, Canonical)
                }
                Value::Histogram(histogram) => {
                    write_histogram(&mut series, histogram, stats.bounds(metric.name), Canonical);
                }
            }
        })?;
    }
    Ok(())
}

/// The names that are taken, with all endings that lines of their families have: none may be another's.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    fn take(&mut self, family: &Family, of_type: Type) -> String {
        let mut name = metric_name(&family.name);
        if let Some(without) = name.strip_suffix("_total").filter(|_| of_type == Type::Counter) {
            name.truncate(without.len());
        }
        // With `_total` after it, `upstream_rq` would be the sum over all codes.
        if family.by_code {
            name.push_str("_by_code");
        }
        while of_type.endings().iter().any(|ending| self.0.contains(&format!("{name}{ending}"))) {
            name.push_str("_other");
        }
        self.0.extend(of_type.endings().iter().map(|ending| format!("{name}{ending}")));
        name
    }
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }

    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["", "_total", "_created"],
            Self::Gauge => &[""],
            Self::Info => &["", "_info"],
            Self::Histogram => &["", "_bucket", "_sum", "_count", "_created"],
            Self::Summary => &["", "_sum", "_count", "_created"],
        }
    }
}

fn is_unit_of(name: &str, unit: &str) -> bool {
    name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'))
}

/// A unit is told only where it ends the name, as OpenMetrics has it.
const UNITS: &[&str] = &["bytes", "ms", "seconds", "percent"];
