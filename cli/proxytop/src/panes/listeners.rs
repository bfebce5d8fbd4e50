//! A row for each listener.

use super::Facts;
use super::overview::is_there;
use crate::subjects::{Listener, Subject};
use crate::table::{Cell, Row};

pub(super) fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let listeners = facts.subjects.listeners.iter();
    let there = listeners.filter(|listener| is_there(facts, listener, Listener::ConnectionsTotal));
    there.map(|listener| row(facts, listener)).collect()
}

fn row(facts: &Facts<'_>, listener: &Subject) -> Row {
    let faults = |stat| Cell::faults(facts.rate(listener, stat));
    Row {
        key: listener.name.clone(),
        cells: vec![
            Cell::Text(listener.name.clone()),
            Cell::Count(listener.value(facts.now(), Listener::Connections)),
            Cell::rate(facts.rate(listener, Listener::ConnectionsTotal)),
            Cell::rate(facts.rates(&listener.requests)),
            Cell::faults(facts.rates(&listener.errors)),
            Cell::Count(listener.value(facts.now(), Listener::Pending)),
            faults(Listener::Overflow),
            faults(Listener::Rejected),
            faults(Listener::NoChain),
            faults(Listener::AcceptError),
            Cell::count(facts.total(listener.id(Listener::ConnectionsTotal))),
        ],
    }
}
