//! Who leads: the leader word of the lineage, and whether those who might lead are alive.

use std::cell::Cell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use proxy_control::{BaseId, Found, Generation, Instance, RunDir, find};

use tokio::time::Instant;

use crate::segment::Segment;

/// This process's view of it.
pub(crate) struct Leadership {
    /// Gone when the process is about to end.
    segment: Weak<Segment>,
    run_dir: Arc<RunDir>,
    base_id: BaseId,
    /// Counts where there is no leader word, for lack of space: whoever was told last that it leads does.
    led: Cell<bool>,
}

/// How a process is called: in the run directory, and in the lineage of stats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) generation: Generation,
    pub(crate) segment: u64,
}

impl Leadership {
    pub(crate) fn new(segment: &Rc<Segment>, instance: &Instance) -> Leadership {
        Leadership {
            segment: Rc::downgrade(segment),
            run_dir: Arc::clone(instance.run_dir()),
            base_id: instance.base_id(),
            led: Cell::new(false),
        }
    }

    /// Number of this process in the lineage of stats.
    pub(crate) fn segment(&self) -> u64 {
        self.segment.upgrade().map_or(0, |segment| segment.lineage().generation())
    }

    /// Counts how often the lead has changed hands.
    pub(crate) fn turn(&self) -> u32 {
        self.segment.upgrade().map_or(0, |segment| segment.lineage().turn().into())
    }

    /// Whether this process leads.
    pub(crate) fn leads(&self) -> bool {
        self.segment.upgrade().is_some_and(|segment| match segment.lineage().is_listed() {
            true => segment.lineage().leads(),
            false => self.led.get(),
        })
    }

    /// There is nobody to take over from.
    pub(crate) async fn begin(&self) {
        self.led.set(true);
        self.in_a_moment(|| self.take_from_dead()).await;
    }

    /// Leads from now on, in place of `other`, as of the turn that it told. False if that one lives and does not lead any
    /// more, or has taken everything back.
    pub(crate) fn take_from(&self, other: Name, turn: u32) -> bool {
        let taken = self.segment.upgrade().is_some_and(|segment| {
            let lineage = segment.lineage();
            !lineage.is_listed() || lineage.take_over(other.segment, turn as u16)
        });
        self.led.set(self.led.get() || taken);
        taken || self.take_from_dead()
    }

    /// Leads again, in place of `other`, if that one has died. False if it lives or has ended in good order, which leaves the
    /// lead to nobody.
    pub(crate) async fn succeed(&self, other: Name) -> bool {
        let succeeds = || {
            self.segment.upgrade().is_some_and(|segment| {
                let lineage = segment.lineage();
                lineage.take_over(other.segment, lineage.turn())
            })
        };
        let succeeded = self.died(other.generation).await && succeeds();
        self.led.set(succeeded);
        succeeded
    }

    /// Leads on, and whoever was to take over does not any more. False if that one leads and lives.
    pub(crate) async fn go_on(&self) -> bool {
        let goes_on = || {
            self.segment.upgrade().is_some_and(|segment| match segment.lineage().is_listed() {
                true => segment.lineage().go_on() || segment.lineage().take_over_from_dead(),
                false => self.led.get(),
            })
        };
        self.in_a_moment(goes_on).await
    }

    fn take_from_dead(&self) -> bool {
        self.segment.upgrade().is_none_or(|segment| {
            let lineage = segment.lineage();
            !lineage.is_listed() || lineage.take_over_from_dead()
        })
    }

    /// Whether `other`, which has closed its channel, does so because it dies: its sockets go a moment before its locks.
    pub(crate) async fn died(&self, other: Generation) -> bool {
        self.in_a_moment(|| !self.lives(other)).await
    }

    /// Whether it comes true while a process may take to die.
    async fn in_a_moment(&self, comes_true: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + DYING;
        loop {
            if comes_true() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Another process leads.
    pub(crate) fn end(&self) {
        self.led.set(false);
    }

    /// If that cannot be found out, it may.
    fn lives(&self, other: Generation) -> bool {
        self.generations().map_or(true, |all| all.iter().any(|found| found.generation() == other))
    }

    /// All living generations, this one among them, the oldest first.
    ///
    /// # Errors
    /// The run directory cannot be read.
    pub(crate) fn generations(&self) -> io::Result<Vec<Found>> {
        let mut all = find(&self.run_dir)?;
        all.retain(|found| found.base_id() == self.base_id);
        Ok(all)
    }
}

/// How long the end of a process may take.
const DYING: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
