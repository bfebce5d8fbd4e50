//! From looks to rows, a file for each pane. Pure: what is shown depends on nothing but what is passed in.

mod clusters;
mod events;
mod generations;
mod hosts;
mod listeners;
pub(crate) mod overview;
mod routes;
pub(crate) mod stats;
mod workers;

use std::collections::VecDeque;

use proxy_stats::StatId;

use crate::asked::Asked;
use crate::columns::Pane;
use crate::history::Event;
use crate::rates::{Between, risen};
use crate::snapshot::{Points, Snapshot};
use crate::subjects::{Stat, Subject, Subjects};
use crate::table::{Cell, Row, Table};

/// All that panes are made from.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) between: Between<'a>,
    /// Totals are since then.
    pub(crate) baseline: Option<&'a Snapshot>,
    pub(crate) subjects: &'a Subjects,
    pub(crate) asked: &'a Asked,
    pub(crate) asked_before: Option<&'a Asked>,
    pub(crate) events: &'a [Event],
    pub(crate) log: &'a VecDeque<String>,
    /// Number of the first of these lines.
    pub(crate) log_first: usize,
    /// Characters that are left out at their beginning.
    pub(crate) log_shift: usize,
    pub(crate) log_state: &'a str,
    /// Whose hosts are shown.
    pub(crate) cluster: &'a str,
}

/// The rows of a pane; those of the stats browser are made one by one.
pub(crate) fn table(pane: Pane, facts: &Facts<'_>) -> Table {
    let (rows, empty) = match pane {
        Pane::Overview => {
            (overview::managers(facts), "no HTTP connection manager has counted anything".to_owned())
        }
        Pane::Clusters => (clusters::rows(facts), "there are no clusters".to_owned()),
        Pane::Listeners => (listeners::rows(facts), "there are no listeners".to_owned()),
        Pane::Workers => (workers::rows(facts), workers::absent(facts)),
        Pane::Generations => (generations::rows(facts), generations::absent(facts)),
        Pane::Routes => (routes::rows(facts), routes::absent(facts)),
        Pane::Hosts => (hosts::rows(facts), hosts::absent(facts)),
        Pane::Events => (events::rows(facts), "nothing has happened that is known".to_owned()),
        Pane::AccessLog => (log_rows(facts), facts.log_state.to_owned()),
        Pane::Stats => (Vec::new(), "no stat has this in its name".to_owned()),
    };
    Table { columns: pane.columns(), rows, empty }
}

fn log_rows(facts: &Facts<'_>) -> Vec<Row> {
    let row = |(at, line): (usize, &String)| Row {
        key: (facts.log_first + at).to_string(),
        cells: vec![Cell::Text(line.chars().skip(facts.log_shift).collect())],
    };
    facts.log.iter().enumerate().map(row).collect()
}

impl Facts<'_> {
    fn now(&self) -> &Snapshot {
        self.between.now
    }

    /// The rate of a stat of a subject.
    fn rate(&self, subject: &Subject, stat: impl Stat) -> Option<f64> {
        subject.id(stat).and_then(|id| self.between.rate(id))
    }

    /// The sum of rates; none if none is known.
    fn rates(&self, ids: &[StatId]) -> Option<f64> {
        ids.iter().filter_map(|id| self.between.rate(*id)).reduce(|sum, rate| sum + rate)
    }

    /// What has been counted since the baseline, or since the start.
    pub(crate) fn total(&self, id: Option<StatId>) -> Option<u64> {
        let now = self.now().value(id?)?;
        Some(match self.baseline {
            Some(baseline) => risen(baseline.value(id?).unwrap_or(0), now),
            None => now,
        })
    }

    fn recent(&self, id: Option<StatId>) -> Option<Points> {
        self.now().quantiles.get(&id?)?.recent
    }
}

/// A quantile of a histogram in milliseconds.
fn milliseconds(points: Option<Points>, which: fn(&Points) -> f64) -> Cell {
    scaled(points, which, 1000.0)
}

/// A quantile of a histogram in microseconds.
fn microseconds(points: Option<Points>, which: fn(&Points) -> f64) -> Cell {
    scaled(points, which, 1.0)
}

fn scaled(points: Option<Points>, which: fn(&Points) -> f64, microseconds: f64) -> Cell {
    let value = points.as_ref().map(which).filter(|value| value.is_finite());
    value.map_or(Cell::None, |value| Cell::Time(value * microseconds))
}
