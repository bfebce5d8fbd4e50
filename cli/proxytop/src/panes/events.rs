//! What has happened, newest first.

use super::Facts;
use crate::table::{Cell, Row};
use crate::units;

pub(super) fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let row = |(at, event): (usize, &crate::history::Event)| Row {
        key: at.to_string(),
        cells: vec![
            Cell::Text(units::clock(event.at_ms)),
            Cell::State(event.what, event.mood),
            Cell::Text(event.text.clone()),
        ],
    };
    facts.events.iter().enumerate().rev().map(row).collect()
}
