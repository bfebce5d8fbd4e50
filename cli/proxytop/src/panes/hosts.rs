//! The hosts of a cluster, as the proxy tells when asked.

use super::Facts;
use crate::asked::Host;
use crate::rates::risen;
use crate::table::{Cell, Mood, Row};

pub(super) fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let hosts = facts.asked.hosts.iter().filter(|host| host.cluster == facts.cluster);
    hosts.map(|host| row(facts, host)).collect()
}

fn row(facts: &Facts<'_>, host: &Host) -> Row {
    let before = facts.asked_before.and_then(|before| {
        let same = |other: &&Host| other.cluster == host.cluster && other.address == host.address;
        Some((before.hosts.iter().find(same)?, facts.asked.at_ms.checked_sub(before.at_ms)?))
    });
    let rate = |field: fn(&Host) -> u64| {
        let (before, elapsed_ms) = before.filter(|(_, elapsed_ms)| *elapsed_ms > 0)?;
        Some(risen(field(before), field(host)) as f64 * 1000.0 / elapsed_ms as f64)
    };
    let text = |text: &str| if text.is_empty() { Cell::None } else { Cell::Text(text.to_owned()) };
    Row {
        key: host.address.clone(),
        cells: vec![
            Cell::Text(host.address.clone()),
            health(&host.health),
            Cell::Count(host.connections),
            Cell::Count(host.active),
            Cell::rate(rate(|host| host.requests)),
            Cell::faults(rate(|host| host.errors)),
            Cell::faults(rate(|host| host.timeouts)),
            Cell::faults(rate(|host| host.connect_failures)),
            Cell::Count(host.requests),
            Cell::Count(host.weight),
            text(&host.zone),
        ],
    }
}

fn health(health: &str) -> Cell {
    match health {
        "healthy" => Cell::State("healthy", Mood::Good),
        "failed" => Cell::State("failed check", Mood::Bad),
        "ejected" => Cell::State("ejected", Mood::Bad),
        "degraded" => Cell::State("degraded", Mood::Warning),
        "draining" => Cell::State("draining", Mood::Warning),
        "timeout" => Cell::State("timed out", Mood::Bad),
        "unhealthy" => Cell::State("unhealthy", Mood::Bad),
        _ => Cell::State("unknown", Mood::Warning),
    }
}

pub(super) fn absent(facts: &Facts<'_>) -> String {
    match &facts.asked.trouble {
        Some(trouble) => format!("hosts are not in memory, and the proxy does not tell: {trouble}"),
        None if facts.asked.at_ms == 0 => "asking the proxy for its hosts".to_owned(),
        None => "this cluster has no hosts".to_owned(),
    }
}
