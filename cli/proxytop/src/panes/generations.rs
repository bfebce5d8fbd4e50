//! The processes of an instance side by side.

use super::Facts;
use crate::snapshot::Generation;
use crate::table::{Cell, Mood, Row};

pub(super) fn rows(facts: &Facts<'_>) -> Vec<Row> {
    facts.now().generations.iter().map(|generation| row(facts, generation)).collect()
}

fn row(facts: &Facts<'_>, generation: &Generation) -> Row {
    let before = facts
        .between
        .before
        .and_then(|before| before.generations.iter().find(|other| other.number == generation.number));
    let rate = |field: fn(&Generation) -> u64| facts.between.rate_of(field(generation), before.map(field));
    let change = before
        .zip(facts.between.seconds())
        .map(|(before, seconds)| (generation.connections as f64 - before.connections as f64) / seconds);
    let cpu = generation.cpu_ms.and_then(|cpu| facts.between.rate_of(cpu, before?.cpu_ms));
    let known = |value: u64| if value == 0 { Cell::None } else { Cell::Count(value) };
    let if_alive = |cell| if generation.lives { cell } else { Cell::None };
    Row {
        key: generation.number.to_string(),
        cells: vec![
            Cell::Text(generation.number.to_string()),
            state(facts, generation),
            if generation.pid == 0 { Cell::None } else { Cell::Text(generation.pid.to_string()) },
            if_alive(generation.age.map_or(Cell::None, Cell::Age)),
            if_alive(Cell::Count(generation.connections)),
            if_alive(change.map_or(Cell::None, Cell::Change)),
            if_alive(Cell::rate(rate(|generation| generation.connections_total))),
            if_alive(Cell::Count(generation.requests_active)),
            if_alive(Cell::rate(rate(|generation| generation.requests_total))),
            known(generation.requests_total),
            cpu.map_or(Cell::None, |milliseconds| Cell::Share(milliseconds / 1000.0)),
            match generation.resident_bytes {
                0 => Cell::None,
                bytes => Cell::Bytes(bytes as f64),
            },
        ],
    }
}

/// One that lives and does not lead is younger than the leader and starts, or older and drains.
fn state(facts: &Facts<'_>, generation: &Generation) -> Cell {
    let leader = facts.now().generations.iter().find(|generation| generation.leads);
    match leader {
        // Whoever handed over in good order, or died after that, is not missed.
        Some(_) if !generation.lives => Cell::State("ended", Mood::Quiet),
        None if !generation.lives => Cell::State("killed", Mood::Bad),
        _ if generation.leads => Cell::State("leads", Mood::Good),
        Some(leader) if generation.number > leader.number => Cell::State("starts", Mood::Warning),
        _ => Cell::State("drains", Mood::Warning),
    }
}

pub(super) fn absent(facts: &Facts<'_>) -> String {
    match facts.now().standing {
        crate::snapshot::Standing::Gone => "no process of this instance is left".to_owned(),
        _ => "an admin port knows of its own process only; shared memory has them side by side".to_owned(),
    }
}
