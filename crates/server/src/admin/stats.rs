//! `/stats`: all counters, gauges and text readouts, filtered and sorted, as text or JSON. Sorting a million names takes longer than
//! main may work, so a thread does all of it.

use std::io::Write as _;
use std::ops::Range;

use http::StatusCode;
use proxy_stats::{Metric, MetricKind, Walk};
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::answer::Answer;
use super::query::Query;
use super::rendering::{ClientGone, Output};
use super::routes::Context;

pub(super) fn stats(context: &Context, query: &Query) -> Answer {
    let (selection, format) = match Selection::parse(query) {
        Ok(parsed) => parsed,
        Err(message) => return Answer::error(StatusCode::BAD_REQUEST, message),
    };
    let walk = context.state.stats();
    let rows = move || Rows::collect(walk, &selection);
    match format {
        Format::Text => Answer::text_body(context.renderers.run(move |output| rows().write_text(output))),
        Format::Json => Answer::json_body(context.renderers.run(move |output| rows().write_json(output))),
    }
}

/// A regular expression from a request; what it may cost is bounded.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
    built.map_err(|error| match error {
        regex::Error::Syntax(report) => {
            report.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
        other => other.to_string(),
    })
}

enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    All,
    Counters,
    Gauges,
    Histograms,
    TextReadouts,
}

/// Which stats are shown.
struct Selection {
    used_only: bool,
    filter: Option<Regex>,
    invert: bool,
    of_type: Type,
    /// Only hidden stats, of which there are none.
    none: bool,
}

impl Selection {
    /// Errors are Envoy's texts.
    fn parse(query: &Query) -> Result<(Self, Format), String> {
        let of_type = match query.value("type") {
            None | Some("All") => Type::All,
            Some("Counters") => Type::Counters,
            Some("Gauges") => Type::Gauges,
            Some("Histograms") => Type::Histograms,
            Some("TextReadouts") => Type::TextReadouts,
            Some(_) => return Err("invalid &type= param".to_owned()),
        };
        let none = match query.value("hidden") {
            None | Some("include" | "exclude") => false,
            Some("only") => true,
            Some(_) => return Err("usage: /stats?hidden=(include|only|exclude)\n\n".to_owned()),
        };
        let format = match query.value("format") {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some(_) => return Err("usage: /stats?format=(json|text)\n\n".to_owned()),
        };
        let filter = query.value("filter").filter(|filter| !filter.is_empty()).map(pattern).transpose();
        let filter = filter.map_err(|error| format!("Invalid re2 regex: {error}"))?;
        let (used_only, invert) = (query.has("usedonly"), query.has("invert_filter"));
        Ok((Self { used_only, filter, invert, of_type, none }, format))
    }

    fn takes(&self, metric: &Metric<'_>) -> bool {
        let of_type = match metric.kind {
            MetricKind::Counter => Type::Counters,
            MetricKind::Gauge(_) => Type::Gauges,
            MetricKind::Histogram => Type::Histograms,
            MetricKind::TextReadout => Type::TextReadouts,
        };
        !self.none
            && (self.of_type == Type::All || self.of_type == of_type)
            && (!self.used_only || metric.value.number() != Some(0))
            && self.filter.as_ref().is_none_or(|filter| filter.is_match(metric.name) != self.invert)
    }
}

/// The stats that an answer shows, by name. Names and texts lie in one string, because a proxy may have a million.
#[derive(Default)]
struct Rows {
    text: String,
    rows: Vec<Row>,
}

struct Row {
    name: Range<usize>,
    value: RowValue,
}

enum RowValue {
    Number(u64),
    Text(Range<usize>),
}

impl Rows {
    fn collect(mut walk: Walk, selection: &Selection) -> Self {
        let mut rows = Self::default();
        while walk.advance(|metric| {
            if selection.takes(metric) {
                rows.add(metric);
            }
        }) {}
        let Self { text, rows: unsorted } = &mut rows;
        unsorted.sort_unstable_by(|one, two| text[one.name.clone()].cmp(&text[two.name.clone()]));
        rows
    }

    fn add(&mut self, metric: &Metric<'_>) {
        let name = self.append(metric.name);
        let value = match metric.value {
            proxy_stats::Value::Number(number) => RowValue::Number(number),
            proxy_stats::Value::Histogram(_) => return,
            proxy_stats::Value::Text(text) => RowValue::Text(self.append(text)),
        };
        self.rows.push(Row { name, value });
    }

    fn append(&mut self, text: &str) -> Range<usize> {
        let start = self.text.len();
        self.text.push_str(text);
        start..self.text.len()
    }

    fn write_text(&self, output: &mut Output) -> Result<(), ClientGone> {
        for row in &self.rows {
            let name = &self.text[row.name.clone()];
            // Writing to memory cannot fail.
            let _ = match &row.value {
                RowValue::Number(number) => writeln!(output.piece(), "{name}: {number}"),
                RowValue::Text(text) => writeln!(output.piece(), "{name}: \"{}\"", &self.text[text.clone()]),
            };
            output.sent()?;
        }
        Ok(())
    }

    fn write_json(&self, output: &mut Output) -> Result<(), ClientGone> {
        output.piece().extend_from_slice(b"{\"stats\":[");
        for (index, row) in self.rows.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let name = Value::from(&self.text[row.name.clone()]);
            let value = match &row.value {
                RowValue::Number(number) => Value::from(*number),
                RowValue::Text(text) => Value::from(&self.text[text.clone()]),
            };
            // Writing to memory cannot fail.
            let _ = write!(output.piece(), "{comma}{{\"name\":{name},\"value\":{value}}}");
            output.sent()?;
        }
        output.piece().extend_from_slice(b"]}");
        Ok(())
    }
}

/// Of compiled regular expressions from requests.
const PATTERN_BYTES: usize = 1 << 20;
