//! What has happened, newest first: as processes tell it, and what was found by comparing looks.

use std::borrow::Cow;

use proxy_stats::Severity;

use super::Facts;
use crate::history;
use crate::table::{Cell, Mood, Row};

pub(super) fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let told = facts.now().ring.iter().map(told);
    let found = facts.events.iter().enumerate().map(found);
    let mut rows: Vec<(u64, Row)> = told.chain(found).collect();
    // Of the same moment, what was written last is the newest.
    rows.reverse();
    rows.sort_by_key(|(at_us, _)| std::cmp::Reverse(*at_us));
    rows.into_iter().map(|(_, row)| row).collect()
}

/// From a ring.
fn told(event: &proxy_stats::Event) -> (u64, Row) {
    let mood = match event.severity {
        Severity::Info => Mood::Plain,
        Severity::Success => Mood::Good,
        Severity::Warning => Mood::Warning,
        Severity::Error => Mood::Bad,
    };
    let generation = event.generation.to_string();
    let key = format!("{generation}.{}", event.number);
    (event.at_us, row(key, event.at_us, Cell::Text(generation), (event.kind.name(), mood), &event.text))
}

/// By comparing looks.
fn found((at, event): (usize, &history::Event)) -> (u64, Row) {
    let at_us = event.at_ms * 1000;
    (at_us, row(at.to_string(), at_us, Cell::None, (event.what.into(), event.mood), &event.text))
}

fn row(
    key: String,
    at_us: u64,
    generation: Cell,
    (what, mood): (Cow<'static, str>, Mood),
    text: &str,
) -> Row {
    let level = match mood {
        Mood::Plain | Mood::Quiet => Severity::Info,
        Mood::Good => Severity::Success,
        Mood::Warning => Severity::Warning,
        Mood::Bad => Severity::Error,
    };
    Row {
        key,
        cells: vec![
            Cell::Moment(at_us),
            generation,
            Cell::Word(what, mood),
            Cell::State(level.name(), mood),
            Cell::Text(text.to_owned()),
        ],
    }
}
