//! `/stats`: all counters, gauges and text readouts, filtered, as text or JSON.

use std::io::Write as _;

use http::StatusCode;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::answer::{Answer, PIECE_BYTES, Pieces};
use super::query::Query;
use super::routes::Context;
use super::state::{Stat, StatValue, StatsCursor};

pub(super) fn stats(context: &Context, query: &Query) -> Answer {
    match Selection::parse(query) {
        Err(message) => Answer::error(StatusCode::BAD_REQUEST, message),
        Ok((selection, Format::Text)) => {
            Answer::text_pieces(Text { cursor: context.state.stats(), selection })
        }
        Ok((selection, Format::Json)) => {
            Answer::json_pieces(Json { cursor: context.state.stats(), selection, started: false, listed: 0 })
        }
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

    fn takes(&self, stat: &Stat<'_>) -> bool {
        let of_type = match stat.value {
            StatValue::Counter(_) => Type::Counters,
            StatValue::Gauge(_) => Type::Gauges,
            StatValue::Text(_) => Type::TextReadouts,
        };
        !self.none
            && (self.of_type == Type::All || self.of_type == of_type)
            && (!self.used_only || stat.used)
            && self.filter.as_ref().is_none_or(|filter| filter.is_match(stat.name) != self.invert)
    }
}

struct Text {
    cursor: Box<dyn StatsCursor>,
    selection: Selection,
}

impl Pieces for Text {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> bool {
        let selection = &self.selection;
        self.cursor.visit(STATS_PER_PIECE, &mut |stat| {
            if !selection.takes(&stat) {
                return;
            }
            // Writing to memory cannot fail.
            let _ = match stat.value {
                StatValue::Counter(value) | StatValue::Gauge(value) => {
                    writeln!(piece, "{}: {value}", stat.name)
                }
                StatValue::Text(text) => writeln!(piece, "{}: \"{text}\"", stat.name),
            };
        })
    }
}

struct Json {
    cursor: Box<dyn StatsCursor>,
    selection: Selection,
    started: bool,
    listed: usize,
}

impl Pieces for Json {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> bool {
        if !self.started {
            self.started = true;
            piece.extend_from_slice(b"{\"stats\":[");
        }
        let (selection, listed) = (&self.selection, &mut self.listed);
        let more = self.cursor.visit(STATS_PER_PIECE, &mut |stat| {
            if !selection.takes(&stat) {
                return;
            }
            let comma = if *listed == 0 { "" } else { "," };
            *listed += 1;
            let value = match stat.value {
                StatValue::Counter(value) | StatValue::Gauge(value) => Value::from(value),
                StatValue::Text(text) => Value::from(text),
            };
            // Writing to memory cannot fail.
            let _ = write!(piece, "{comma}{{\"name\":{},\"value\":{value}}}", Value::from(stat.name));
        });
        if !more {
            piece.extend_from_slice(b"]}");
        }
        more
    }
}

/// Bounds a slice of main's time also when the filter takes nothing.
const STATS_PER_PIECE: usize = 256;
const _: () = assert!(STATS_PER_PIECE * 64 <= PIECE_BYTES);
/// Of compiled regular expressions from requests.
const PATTERN_BYTES: usize = 1 << 20;
