//! What is routed where.

use super::Facts;
use crate::table::{Cell, Row};

pub(super) fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let row = |(at, route): (usize, &crate::asked::Route)| Row {
        key: at.to_string(),
        cells: vec![
            Cell::Text(route.place.clone()),
            Cell::Text(route.domains.clone()),
            Cell::Text(route.matched.clone()),
            Cell::Text(route.action.clone()),
            if route.timeout.is_empty() { Cell::None } else { Cell::Text(route.timeout.clone()) },
        ],
    };
    facts.asked.routes.iter().enumerate().map(row).collect()
}

pub(super) fn absent(facts: &Facts<'_>) -> String {
    match &facts.asked.trouble {
        Some(trouble) => format!("routes are not in memory, and the proxy does not tell: {trouble}"),
        None if facts.asked.at_ms == 0 => "asking the proxy for its configuration".to_owned(),
        None => "the configuration has no routes".to_owned(),
    }
}
