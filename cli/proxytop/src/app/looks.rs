//! What comes from the world: looks, answers, lines of a log.

use std::sync::Arc;

use super::{App, Mode, Replay};
use crate::asked::Asked;
use crate::history;
use crate::panes::{overview, stats};
use crate::snapshot::Snapshot;
use crate::subjects::Subjects;

impl App {
    /// A look. While paused it waits to be shown.
    pub(crate) fn see(&mut self, look: Arc<Snapshot>) {
        if self.paused {
            self.held = Some(look);
            return;
        }
        self.show(look);
    }

    fn show(&mut self, look: Arc<Snapshot>) {
        if look.catalog.len() != self.names {
            self.subjects = Subjects::of(&look.catalog);
            self.names = look.catalog.len();
            self.by_name = stats::by_name(&look);
        }
        let before = std::mem::replace(&mut self.now, look);
        if before.at_ms != 0 {
            if self.replay.is_none() {
                let events = history::compare(&before, &self.now, &self.subjects);
                self.history.tell(events);
            }
            self.before = Some(before);
        }
        self.take_sums();
        if self.before.is_some() && self.replay.is_none() {
            self.history.add(self.sums);
        }
        self.refresh();
    }

    fn take_sums(&mut self) {
        let (sums, flags) = self.with_facts(|facts| (overview::sums(facts), overview::flags(facts)));
        self.sums = sums;
        self.flags = flags;
    }

    /// A recorded look and the one before it, with those that lines of the overview are made from.
    pub(crate) fn see_recorded(&mut self, replay: Replay, looks: Vec<Arc<Snapshot>>, asked: Asked) {
        self.history = history::History::default();
        self.before = None;
        self.now = Arc::default();
        self.replay = None;
        for look in looks {
            self.show(look);
        }
        self.replay = Some(replay);
        self.hear(asked);
    }

    /// Another instance is looked at from now on.
    pub(crate) fn begin_anew(&mut self) {
        let fresh = App::new(self.interval, self.size);
        let old = std::mem::replace(self, fresh);
        self.allow_actions = old.allow_actions;
        self.instances = old.instances;
        self.pane = old.pane;
        self.recording = old.recording;
        self.mode = Mode::Table;
    }

    /// An answer.
    pub(crate) fn hear(&mut self, asked: Asked) {
        let earlier = std::mem::replace(&mut self.asked, asked);
        if earlier.at_ms != self.asked.at_ms && earlier.trouble.is_none() {
            self.asked_before = Some(earlier);
        }
        if !self.paused {
            self.refresh();
        }
    }

    /// Lines of the access log, or what has become of it.
    pub(crate) fn follow(&mut self, lines: Vec<String>, state: String) {
        self.log_state = state;
        if self.paused {
            return;
        }
        let surplus = (self.log.len() + lines.len()).saturating_sub(MOST_LINES);
        self.log_first += surplus;
        self.log.drain(..surplus.min(self.log.len()));
        let skipped = lines.len().saturating_sub(MOST_LINES);
        self.log.extend(lines.into_iter().skip(skipped));
        if self.pane == crate::columns::Pane::AccessLog {
            self.refresh();
        }
    }

    /// What became of an action.
    pub(crate) fn told(&mut self, text: String) {
        self.message = text;
    }

    pub(super) fn pause(&mut self) {
        self.paused = !self.paused;
        if !self.paused
            && let Some(look) = self.held.take()
        {
            self.show(look);
        }
    }

    pub(super) fn take_baseline(&mut self) {
        self.baseline = Some(Arc::clone(&self.now));
        self.take_sums();
        self.refresh();
    }

    pub(super) fn drop_baseline(&mut self) {
        self.baseline = None;
        self.take_sums();
        self.refresh();
    }
}

/// Of a log, kept.
pub(crate) const MOST_LINES: usize = 2000;
