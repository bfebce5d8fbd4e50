//! What is on the screen and why: state, and how looks and keys change it. Knows no terminal, clock, file or thread, so that tests
//! press keys and see frames.

mod actions;
mod keys;
mod looks;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proxy_stats::StatId;

pub(crate) use self::actions::Action;
pub(crate) use self::looks::MOST_LINES;
use crate::asked::{Asked, Wanted};
use crate::columns::Pane;
use crate::history::History;
use crate::panes::overview::{Flag, Sums};
use crate::panes::{self, Facts};
use crate::rates::Between;
use crate::snapshot::Snapshot;
use crate::subjects::Subjects;
use crate::table::{Row, Table, View};

/// Everything that is shown, or decides what is.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) now: Arc<Snapshot>,
    before: Option<Arc<Snapshot>>,
    pub(crate) baseline: Option<Arc<Snapshot>>,
    /// While paused: the newest look, not shown yet.
    held: Option<Arc<Snapshot>>,
    pub(crate) paused: bool,
    subjects: Subjects,
    /// The catalog had so many names when subjects were found.
    names: usize,
    by_name: Vec<StatId>,
    pub(crate) asked: Asked,
    asked_before: Option<Asked>,
    pub(crate) history: History,
    pub(crate) sums: Sums,
    pub(crate) flags: Vec<Flag>,
    pub(crate) log: VecDeque<String>,
    pub(crate) log_state: String,
    /// So many lines were dropped before the first.
    log_first: usize,
    log_shift: usize,

    pub(crate) pane: Pane,
    pub(crate) cluster: String,
    pub(crate) mode: Mode,
    views: HashMap<Pane, View>,
    places: HashMap<Pane, Position>,
    pub(crate) pinned: Vec<String>,
    pub(crate) used_only: bool,
    pub(crate) table: Table,
    /// Rows to show, by number; of the stats browser, numbers of stats.
    pub(crate) order: Vec<usize>,

    pub(crate) interval: Duration,
    /// In cells.
    pub(crate) size: (u16, u16),
    pub(crate) allow_actions: bool,
    pub(crate) replay: Option<Replay>,
    pub(crate) instances: Vec<String>,
    /// Said on the last line until the next key.
    pub(crate) message: String,
    pub(crate) recording: bool,
}

/// What keys are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Table,
    /// Typing a filter.
    Filter,
    /// Reading help, from this line on.
    Help(usize),
    /// Choosing an action, or a level.
    Menu(usize),
    Levels(usize),
    /// Answering whether to do it.
    Confirm(Action),
    /// Choosing an instance.
    Instances(usize),
}

/// Where a pane is scrolled to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Key of the row that is chosen; empty: the first.
    pub(crate) key: String,
    /// Among those shown.
    pub(crate) row: usize,
    /// The first on the screen.
    pub(crate) offset: usize,
}

/// A place in recorded time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    pub(crate) at: usize,
    pub(crate) of: usize,
}

/// What the world is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Quit,
    /// Back to the shell until it says otherwise.
    Suspend,
    Interval(Duration),
    Act(Action),
    /// Watch this one of the instances.
    Choose(usize),
    /// Show this recorded look.
    Seek(usize),
    Redraw,
}

impl App {
    pub(crate) fn new(interval: Duration, size: (u16, u16)) -> App {
        App {
            now: Arc::default(),
            before: None,
            baseline: None,
            held: None,
            paused: false,
            subjects: Subjects::default(),
            names: 0,
            by_name: Vec::new(),
            asked: Asked::default(),
            asked_before: None,
            history: History::default(),
            sums: Sums::default(),
            flags: Vec::new(),
            log: VecDeque::new(),
            log_state: "looking for an access log".to_owned(),
            log_first: 0,
            log_shift: 0,
            pane: Pane::default(),
            cluster: String::new(),
            mode: Mode::default(),
            views: HashMap::new(),
            places: HashMap::new(),
            pinned: Vec::new(),
            used_only: false,
            table: Table::default(),
            order: Vec::new(),
            interval,
            size,
            allow_actions: false,
            replay: None,
            instances: Vec::new(),
            message: String::new(),
            recording: false,
        }
    }

    /// What has to be asked for, because it is shown.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            hosts: self.pane == Pane::Hosts,
            configuration: self.pane == Pane::Routes,
            log: self.pane == Pane::AccessLog,
            version: false,
        }
    }

    /// How rows of the pane are chosen and sorted.
    pub(crate) fn view(&self) -> View {
        self.views.get(&self.pane).cloned().unwrap_or_else(|| {
            let sort = match self.pane {
                Pane::Overview => Some((1, true)),
                Pane::Clusters => Some((2, true)),
                Pane::Listeners => Some((1, true)),
                Pane::Stats | Pane::Hosts => Some((0, false)),
                _ => None,
            };
            View {
                sort: sort.map(|(column, _)| column),
                descending: sort.is_some_and(|(_, down)| down),
                ..View::default()
            }
        })
    }

    fn change_view(&mut self, change: impl FnOnce(&mut View)) {
        let mut view = self.view();
        change(&mut view);
        self.views.insert(self.pane, view);
        self.refresh();
    }

    pub(crate) fn position(&self) -> Position {
        self.places.get(&self.pane).cloned().unwrap_or_default()
    }

    /// How many rows of a table fit on the screen.
    pub(crate) fn page(&self) -> usize {
        crate::draw::table_lines(self.pane, self.size)
    }

    /// The row of a line of the table.
    pub(crate) fn row(&self, at: usize) -> Option<Row> {
        let number = *self.order.get(at)?;
        match self.pane {
            Pane::Stats => {
                self.with_facts(|facts| Some(panes::stats::row(facts, StatId(u32::try_from(number).ok()?))))
            }
            _ => self.table.rows.get(number).cloned(),
        }
    }

    fn key_of(&self, at: usize) -> String {
        match (self.pane, self.order.get(at)) {
            (_, None) => String::new(),
            (Pane::Stats, Some(id)) => self.now.catalog.name(StatId(*id as u32)).to_owned(),
            (_, Some(row)) => self.table.rows.get(*row).map(|row| row.key.clone()).unwrap_or_default(),
        }
    }

    /// Makes the rows of the pane anew, and keeps the chosen one.
    pub(crate) fn refresh(&mut self) {
        let view = self.view();
        let table = self.with_facts(|facts| panes::table(self.pane, facts));
        let order = match self.pane {
            Pane::Stats => {
                let sort = view.sort.map(|column| (column, view.descending));
                let (filter, used, pinned) = (&*view.filter, self.used_only, &*self.pinned);
                let choice = panes::stats::Choice { filter, used, sort, pinned };
                let chosen = self.with_facts(|facts| panes::stats::choose(facts, &self.by_name, &choice));
                chosen.into_iter().map(|id| id.0 as usize).collect()
            }
            _ => view.order(&table, |key| self.pinned.iter().any(|pinned| pinned == key)),
        };
        self.table = table;
        self.order = order;
        let mut position = self.position();
        // The end of a log is where one wants to be.
        if self.pane == Pane::AccessLog && position.key.is_empty() {
            position.row = usize::MAX;
        }
        if position.key.is_empty() || self.key_of(position.row) != position.key {
            let found =
                (0..self.order.len()).find(|at| !position.key.is_empty() && self.key_of(*at) == position.key);
            position.row = found.unwrap_or(position.row);
        }
        self.settle(position);
    }

    /// Keeps the chosen row among those there are, and on the screen.
    fn settle(&mut self, mut position: Position) {
        let (last, page) = (self.order.len().saturating_sub(1), self.page().max(1));
        position.row = position.row.min(last);
        position.offset = position.offset.min(last).min(position.row);
        if position.row >= position.offset + page {
            position.offset = position.row + 1 - page;
        }
        position.offset = position.offset.min((last + 1).saturating_sub(page));
        // The first row is chosen by being first, until somebody moves.
        if self.pane == Pane::AccessLog && position.row == last {
            position.key.clear();
        } else if position.row > 0 || !position.key.is_empty() {
            position.key = self.key_of(position.row);
        }
        self.places.insert(self.pane, position);
    }

    pub(crate) fn with_facts<T>(&self, make: impl FnOnce(&Facts<'_>) -> T) -> T {
        make(&Facts {
            between: Between { now: &self.now, before: self.before.as_deref() },
            baseline: self.baseline.as_deref(),
            subjects: &self.subjects,
            asked: &self.asked,
            asked_before: self.asked_before.as_ref(),
            events: &self.history.events,
            log: &self.log,
            log_first: self.log_first,
            log_shift: self.log_shift,
            log_state: &self.log_state,
            cluster: &self.cluster,
        })
    }
}
