//! The stats browser. There may be a million of them, so rows are made only for those that are seen.

use proxy_stats::{MetricKind, StatId};

use super::Facts;
use crate::snapshot::Snapshot;
use crate::table::{Cell, Row};

/// Stats to show, in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice<'a> {
    /// In the name, in any case.
    pub(crate) filter: &'a str,
    /// Only what is not 0 or empty.
    pub(crate) used: bool,
    /// Column, and whether the largest come first.
    pub(crate) sort: Option<(usize, bool)>,
    pub(crate) pinned: &'a [String],
}

/// Numbers of stats by name; to be made anew when the catalog has grown.
pub(crate) fn by_name(snapshot: &Snapshot) -> Vec<StatId> {
    let mut ids: Vec<StatId> = snapshot.catalog.ids().collect();
    ids.sort_by(|one, other| snapshot.catalog.name(*one).cmp(snapshot.catalog.name(*other)));
    ids
}

/// Those that match, of all by name.
pub(crate) fn choose(facts: &Facts<'_>, by_name: &[StatId], choice: &Choice<'_>) -> Vec<StatId> {
    let now = facts.now();
    let wanted = choice.filter.to_ascii_lowercase();
    let there = |id: &StatId| {
        // An admin port tells of histograms their quantiles only.
        let told = now.texts.contains_key(id) || now.quantiles.contains_key(id);
        let used = now.value(*id).map_or(told, |value| value != 0 || !choice.used);
        used && (wanted.is_empty() || contains(now.catalog.name(*id), &wanted))
    };
    let mut chosen: Vec<StatId> = by_name.iter().copied().filter(there).collect();
    if let Some((column, descending)) = choice.sort.filter(|(column, _)| *column > 1) {
        let weight = |id: &StatId| -> f64 {
            match column {
                2 => now.value(*id).map_or(-1.0, |value| value as f64),
                3 => rate(facts, *id).unwrap_or(-1.0),
                _ => points(facts, *id)
                    .map_or(-1.0, |points| if column == 4 { points.p50 } else { points.p99 }),
            }
        };
        let mut weighed: Vec<_> = chosen.iter().map(|id| (weight(id), *id)).collect();
        weighed.sort_by(|(one, _), (other, _)| {
            let order = one.total_cmp(other);
            if descending { order.reverse() } else { order }
        });
        chosen = weighed.into_iter().map(|(_, id)| id).collect();
    } else if choice.sort == Some((0, true)) {
        chosen.reverse();
    }
    if !choice.pinned.is_empty() {
        chosen.sort_by_key(|id| !choice.pinned.iter().any(|name| name == now.catalog.name(*id)));
    }
    chosen
}

/// The row of one.
pub(crate) fn row(facts: &Facts<'_>, id: StatId) -> Row {
    let now = facts.now();
    let name = now.catalog.name(id).to_owned();
    let kind = match now.catalog.kind(id) {
        Some(MetricKind::Counter) => "counter",
        Some(MetricKind::Gauge(_)) => "gauge",
        Some(MetricKind::Histogram) => "histo",
        Some(MetricKind::TextReadout) | None => "text",
    };
    let since = facts.baseline.is_some() && now.is_counted(id);
    let value = match now.texts.get(&id) {
        Some(text) => format!("{text:?}"),
        None if since => facts.total(Some(id)).map_or("-".into(), |value| format!("+{value}")),
        None => now.value(id).map_or("-".into(), |value| value.to_string()),
    };
    let point = |value: f64| match kind {
        _ if !value.is_finite() => Cell::None,
        _ if name.ends_with("_us") => Cell::Time(value),
        _ if name.ends_with("_time") || name.ends_with("_ms") => Cell::Time(value * 1000.0),
        _ => Cell::Rate(value),
    };
    let points = points(facts, id);
    Row {
        cells: vec![
            Cell::Text(name.clone()),
            Cell::Text(kind.to_owned()),
            Cell::Text(value),
            rate(facts, id).map_or(Cell::None, |rate| {
                if now.is_counted(id) { Cell::Rate(rate) } else { Cell::Change(rate) }
            }),
            points.map_or(Cell::None, |points| point(points.p50)),
            points.map_or(Cell::None, |points| point(points.p99)),
        ],
        key: name,
    }
}

/// Of gauges, the change.
fn rate(facts: &Facts<'_>, id: StatId) -> Option<f64> {
    if facts.now().is_counted(id) {
        return facts.between.rate(id);
    }
    let (now, before) = (facts.now().value(id)?, facts.between.before?.value(id)?);
    Some((now as f64 - before as f64) / facts.between.seconds()?)
}

fn points(facts: &Facts<'_>, id: StatId) -> Option<crate::snapshot::Points> {
    let quantiles = facts.now().quantiles.get(&id)?;
    Some(quantiles.recent.unwrap_or(quantiles.cumulative))
}

/// `wanted` is in lower case.
fn contains(name: &str, wanted: &str) -> bool {
    let (name, wanted) = (name.as_bytes(), wanted.as_bytes());
    name.len() >= wanted.len() && name.windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted))
}
