//! What goes through the proxy as a whole.

use super::{Facts, milliseconds};
use crate::subjects::{Cluster, Manager, Place, Subject};
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
    let worst = |which: fn(&crate::snapshot::Points) -> f64| {
        let all = managers.iter().filter_map(|manager| facts.recent(manager.id(Manager::Time)));
        all.map(|points| which(&points)).filter(|value| value.is_finite()).max_by(f64::total_cmp)
    };
    let listeners = &facts.subjects.listeners;
    let listener_value = |stat| listeners.iter().map(|listener| listener.value(facts.now(), stat)).sum();
    Sums {
        requests: rate(Manager::Requests),
        requests_active: value(Manager::Active),
        connections: listener_value(crate::subjects::Listener::Connections),
        connections_rate: listeners
            .iter()
            .filter_map(|listener| facts.rate(listener, crate::subjects::Listener::ConnectionsTotal))
            .sum(),
        statuses: [
            Manager::Status1xx,
            Manager::Status2xx,
            Manager::Status3xx,
            Manager::Status4xx,
            Manager::Status5xx,
        ]
        .map(rate),
        received: rate(Manager::Received),
        sent: rate(Manager::Sent),
        p50: worst(|points| points.p50),
        p90: worst(|points| points.p90),
        p99: worst(|points| points.p99),
    }
}

/// What went wrong, by the flag that access logs have for it. Stats count some of these elsewhere as well, so they are not the
/// same to the last one.
pub(crate) fn flags(facts: &Facts<'_>) -> Vec<Flag> {
    let of = |subjects: &[Subject], stat: &dyn Fn(&Subject) -> Option<proxy_stats::StatId>| {
        let ids: Vec<_> = subjects.iter().filter_map(stat).collect();
        let total = ids.iter().filter_map(|id| facts.total(Some(*id))).sum();
        (facts.rates(&ids).unwrap_or(0.0), total)
    };
    let upstream = |stat: Cluster| of(&facts.subjects.clusters, &|subject| subject.id(stat));
    let downstream = |stat: Manager| of(&facts.subjects.managers, &|subject| subject.id(stat));
    let flag = |flag, meaning, (rate, total)| Flag { flag, meaning, rate, total };
    vec![
        flag("NR", "no route", downstream(Manager::NoRoute)),
        flag("NC", "no cluster", downstream(Manager::NoCluster)),
        flag("UH", "no healthy host", upstream(Cluster::NoneHealthy)),
        flag("UF", "connection to host failed", upstream(Cluster::ConnectFail)),
        flag("UO", "circuit breaker open", upstream(Cluster::PendingOverflow)),
        flag("UT", "request timed out", upstream(Cluster::Timeout)),
        flag("UC", "host closed the connection", upstream(Cluster::RemoteWithActive)),
        flag("UR", "host reset the stream", upstream(Cluster::ReceivedReset)),
        flag("UPE", "host broke the protocol", upstream(Cluster::ProtocolError)),
        flag("URX", "retries used up", upstream(Cluster::RetryLimit)),
        flag("DC", "client closed the connection", downstream(Manager::GoneWithActive)),
        flag("DR", "client reset the stream", downstream(Manager::ReceivedReset)),
        flag("DPE", "client broke the protocol", downstream(Manager::ProtocolError)),
        flag("SI", "stream was idle", downstream(Manager::IdleTimeout)),
        flag("OM", "overload", downstream(Manager::Overload)),
    ]
}

/// A row for each connection manager.
pub(crate) fn managers(facts: &Facts<'_>) -> Vec<Row> {
    let managers = facts.subjects.managers.iter();
    managers
        .filter(|manager| is_there(facts, manager, Manager::ConnectionsTotal))
        .map(|m| row(facts, m))
        .collect()
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
pub(super) fn is_there(facts: &Facts<'_>, subject: &Subject, stat: impl Place) -> bool {
    subject.id(stat).is_some_and(|id| facts.now().value(id).is_some())
}
