//! A row for each cluster.

use super::overview::is_there;
use super::{Facts, milliseconds};
use crate::subjects::{Cluster, Subject};
use crate::table::{Cell, Mood, Row};

pub(super) fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let clusters = facts.subjects.clusters.iter();
    clusters
        .filter(|cluster| is_there(facts, cluster, Cluster::Members))
        .map(|cluster| row(facts, cluster))
        .collect()
}

fn row(facts: &Facts<'_>, cluster: &Subject) -> Row {
    let now = facts.now();
    let rate = |stat| Cell::rate(facts.rate(cluster, stat));
    let faults = |stat| Cell::faults(facts.rate(cluster, stat));
    let recent = facts.recent(cluster.id(Cluster::Time));
    let ejected = cluster.id(Cluster::Ejected).and_then(|id| now.value(id));
    Row {
        key: cluster.name.clone(),
        cells: vec![
            Cell::Text(cluster.name.clone()),
            Cell::Of(cluster.value(now, Cluster::Healthy), cluster.value(now, Cluster::Members)),
            rate(Cluster::Requests),
            Cell::Count(cluster.value(now, Cluster::Active)),
            success(facts, cluster),
            faults(Cluster::Status5xx),
            rate(Cluster::Retries),
            milliseconds(recent, |points| points.p50),
            milliseconds(recent, |points| points.p99),
            breakers(facts, cluster),
            Cell::Count(cluster.value(now, Cluster::Connections)),
            Cell::Count(cluster.value(now, Cluster::Pending)),
            faults(Cluster::ConnectFail),
            faults(Cluster::Timeout),
            Cell::bytes(facts.rate(cluster, Cluster::Received)),
            Cell::bytes(facts.rate(cluster, Cluster::Sent)),
            ejected.map_or(Cell::None, Cell::Faults),
            Cell::count(facts.total(cluster.id(Cluster::Requests))),
        ],
    }
}

/// Of what was answered since the last look. Nothing was answered: nothing is said.
fn success(facts: &Facts<'_>, cluster: &Subject) -> Cell {
    let risen = |stat| cluster.id(stat).and_then(|id| facts.between.risen(id));
    let Some(all) = risen(Cluster::Completed).filter(|all| *all > 0) else { return Cell::None };
    let failed = risen(Cluster::Status5xx).unwrap_or(0).min(all);
    Cell::Success(1.0 - failed as f64 / all as f64)
}

/// Those that are open.
fn breakers(facts: &Facts<'_>, cluster: &Subject) -> Cell {
    let is_open = |(stat, ..): &(Cluster, _, _)| cluster.value(facts.now(), *stat) != 0;
    let open: Vec<_> = Cluster::BREAKERS.into_iter().filter(is_open).collect();
    match open.as_slice() {
        [] => Cell::State("closed", Mood::Quiet),
        [(_, name, _)] => Cell::State(name, Mood::Bad),
        [..] => Cell::State("several", Mood::Bad),
    }
}
