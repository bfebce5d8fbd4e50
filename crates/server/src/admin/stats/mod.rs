//! `/stats` and `/stats/prometheus`: Envoy 1.40's texts and layouts.
//!
//! Everything is read, put in order and written by a thread of its own, a few hundred stats at a time: nothing is held of a stat
//! but, for Prometheus, its slot.

mod families;
mod help;
mod histogram;
mod json;
mod number;
mod open_metrics;
mod prometheus;
mod selection;
mod text;

use http::StatusCode;
use proxy_stats::{Metric, MetricKind, NameOrder};

use super::answer::{Answer, HTML, JSON, OPEN_METRICS, TEXT};
use super::query::Query;
use super::rendering::{ClientGone, Output};
use super::routes::Context;
use super::state::Stats;
use selection::{Format, Request};

pub(super) use selection::pattern;

type Write = fn(&Stats, &Request, &mut Output) -> Result<(), ClientGone>;

pub(super) fn stats(context: &Context, query: &Query) -> Answer {
    answer(context, query, Request::parse(query))
}

/// The same as `/stats?format=prometheus`.
pub(super) fn prometheus(context: &Context, query: &Query) -> Answer {
    answer(context, query, Request::parse_prometheus(query))
}

pub(super) fn reset_counters(context: &Context, _: &Query) -> Answer {
    context.state.reset_counters();
    Answer::text("OK\n")
}

fn answer(context: &Context, query: &Query, request: Result<Request, String>) -> Answer {
    let request = match request {
        Ok(request) => request,
        Err(message) => return Answer::error(StatusCode::BAD_REQUEST, message),
    };
    let stats = context.state.stats();
    let (content_type, write): (_, Write) = match request.format {
        Format::Text => (TEXT, text::write),
        Format::Html { .. } => (HTML, text::write_page),
        Format::Json => (JSON, json::write),
        Format::Prometheus if query.accept().open_metrics => (OPEN_METRICS, open_metrics::write),
        Format::Prometheus => (TEXT, prometheus::write),
    };
    let render = move |output: &mut Output| {
        stats.others.look();
        write(&stats, &request, output)
    };
    Answer::rendered(content_type, Box::new(render))
}

/// Writes the stats that are asked for, of the kinds wanted, in the order of their names.
fn each(
    stats: &Stats,
    request: &Request,
    kinds: fn(MetricKind) -> bool,
    output: &mut Output,
    mut write: impl FnMut(&mut Vec<u8>, &Metric<'_>),
) -> Result<(), ClientGone> {
    let mut walk = stats.store.sorted(NameOrder::Bytes, kinds);
    while walk.advance(|_, metric| {
        if request.takes(metric) {
            write(output.piece(), metric);
        }
    }) {
        output.sent()?;
    }
    Ok(())
}
