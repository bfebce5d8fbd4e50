//! What goes through the proxy as a whole.

use super::{Facts, milliseconds};
use crate::columns::{Column, FLAGS, Pane};
use crate::snapshot::Points;
use crate::subjects::{Cluster, Listener, Manager, Stat, Subject, Tcp};
use crate::table::{Cell, Row};

/// Sums over all connection managers, a second where it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) requests: f64,
    pub(crate) requests_active: u64,
    pub(crate) connections: u64,
    pub(crate) connections_rate: f64,
    /// 1xx to 5xx.
    pub(crate) statuses: [f64; 5],
    pub(crate) received: f64,
    pub(crate) sent: f64,
    /// Milliseconds; the worst of all connection managers.
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// An error by response flag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Flag {
    pub(crate) flag: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) rate: f64,
    pub(crate) total: u64,
}

pub(crate) fn sums(facts: &Facts<'_>) -> Sums {
    let managers = &facts.subjects.managers;
    let rate =
        |stat: Manager| -> f64 { managers.iter().filter_map(|manager| facts.rate(manager, stat)).sum() };
    let value =
        |stat: Manager| -> u64 { managers.iter().map(|manager| manager.value(facts.now(), stat)).sum() };
    let relayed =
        |stat: Tcp| -> f64 { facts.subjects.relays.iter().filter_map(|relay| facts.rate(relay, stat)).sum() };
    let worst = |which: fn(&Points) -> f64| {
        let all = managers.iter().filter_map(|manager| facts.recent(manager.id(Manager::Time)));
        all.map(|points| which(&points)).filter(|value| value.is_finite()).max_by(f64::total_cmp)
    };
    let listeners = &facts.subjects.listeners;
    let listener_value = |stat| listeners.iter().map(|listener| listener.value(facts.now(), stat)).sum();
    Sums {
        requests: rate(Manager::Requests),
        requests_active: value(Manager::Active),
        connections: listener_value(Listener::Connections),
        connections_rate: listeners
            .iter()
            .filter_map(|listener| facts.rate(listener, Listener::ConnectionsTotal))
            .sum(),
        statuses: [
            Manager::Status1xx,
            Manager::Status2xx,
            Manager::Status3xx,
            Manager::Status4xx,
            Manager::Status5xx,
        ]
        .map(rate),
        received: rate(Manager::Received) + relayed(Tcp::Received),
        sent: rate(Manager::Sent) + relayed(Tcp::Sent),
        p50: worst(|points| points.p50),
        p90: worst(|points| points.p90),
        p99: worst(|points| points.p99),
    }
}

/// What went wrong, by the flag that access logs have for it. Stats count some of these elsewhere as well, so they are not the
/// same to the last one.
pub(crate) fn flags(facts: &Facts<'_>) -> Vec<Flag> {
    let of = |subjects: &[Subject], id: &dyn Fn(&Subject) -> Option<proxy_stats::StatId>| {
        let ids: Vec<_> = subjects.iter().filter_map(id).collect();
        let total = ids.iter().filter_map(|id| facts.total(Some(*id))).sum();
        (facts.rates(&ids).unwrap_or(0.0), total)
    };
    let count = |counter: &str| match counter.split_once(".*.") {
        Some(("cluster", stat)) => {
            let stat = Cluster::of_suffix(stat);
            of(&facts.subjects.clusters, &|subject| subject.id(stat?))
        }
        Some((_, stat)) => {
            let stat = Manager::of_suffix(stat);
            of(&facts.subjects.managers, &|subject| subject.id(stat?))
        }
        None => (0.0, 0),
    };
    let flag = |(flag, meaning, counter): &(&'static str, &'static str, &str)| {
        let (rate, total) = count(counter);
        Flag { flag, meaning, rate, total }
    };
    FLAGS.iter().map(flag).collect()
}

/// A row for each connection manager, and for each TCP proxy.
pub(crate) fn managers(facts: &Facts<'_>) -> Vec<Row> {
    let managers = facts.subjects.managers.iter();
    let managers = managers.filter(|manager| is_there(facts, manager, Manager::ConnectionsTotal));
    let relays = facts.subjects.relays.iter();
    let relays = relays.filter(|relay| is_there(facts, relay, Tcp::ConnectionsTotal));
    managers.map(|manager| row(facts, manager)).chain(relays.map(|relay| relay_row(facts, relay))).collect()
}

/// What there is to say of bytes.
fn relay_row(facts: &Facts<'_>, relay: &Subject) -> Row {
    let name = format!("{} (tcp)", relay.name);
    let cell = |column: &Column| match column.key {
        "name" => Cell::Text(name.clone()),
        "received_bytes_per_second" => Cell::bytes(facts.rate(relay, Tcp::Received)),
        "sent_bytes_per_second" => Cell::bytes(facts.rate(relay, Tcp::Sent)),
        _ => Cell::None,
    };
    let cells = Pane::Overview.columns().iter().map(cell).collect();
    Row { key: name, cells }
}

fn row(facts: &Facts<'_>, manager: &Subject) -> Row {
    let now = facts.now();
    let rate = |stat| Cell::rate(facts.rate(manager, stat));
    let recent = facts.recent(manager.id(Manager::Time));
    Row {
        key: manager.name.clone(),
        cells: vec![
            Cell::Text(manager.name.clone()),
            rate(Manager::Requests),
            Cell::Count(manager.value(now, Manager::Active)),
            Cell::Count(manager.value(now, Manager::Connections)),
            rate(Manager::Status2xx),
            rate(Manager::Status3xx),
            rate(Manager::Status4xx),
            Cell::faults(facts.rate(manager, Manager::Status5xx)),
            milliseconds(recent, |points| points.p50),
            milliseconds(recent, |points| points.p90),
            milliseconds(recent, |points| points.p99),
            Cell::bytes(facts.rate(manager, Manager::Received)),
            Cell::bytes(facts.rate(manager, Manager::Sent)),
            Cell::count(facts.total(manager.id(Manager::Requests))),
        ],
    }
}

/// Whether a subject's stats are there still.
pub(super) fn is_there(facts: &Facts<'_>, subject: &Subject, stat: impl Stat) -> bool {
    subject.id(stat).is_some_and(|id| facts.now().value(id).is_some())
}
