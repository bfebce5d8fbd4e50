//! Who leads: the leader word of the lineage, and whether those who might lead are alive.

use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use proxy_control::{BaseId, Found, Generation, Instance, RunDir, find};

use crate::segment::Segment;

/// This process's view of it.
pub(crate) struct Leadership {
    /// Gone when the process is about to end.
    segment: Weak<Segment>,
    run_dir: Arc<RunDir>,
    base_id: BaseId,
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
        }
    }

    /// Number of this process in the lineage of stats.
    pub(crate) fn segment(&self) -> u64 {
        self.segment.upgrade().map_or(0, |segment| segment.lineage().generation())
    }

    /// Whether this process leads. Without a leader word, for lack of space, whoever serves does.
    pub(crate) fn leads(&self) -> bool {
        self.segment.upgrade().is_some_and(|segment| {
            let lineage = segment.lineage();
            lineage.leads() || !lineage.is_listed()
        })
    }

    /// Leads from now on, in place of `other`. False if that one does not lead, and this one neither.
    pub(crate) fn take_from(&self, other: Name) -> bool {
        let taken = self.segment.upgrade().is_some_and(|segment| segment.lineage().take_over(other.segment));
        taken || self.leads()
    }

    /// Whether `other` lives; if that cannot be found out, it may.
    pub(crate) fn lives(&self, other: Name) -> bool {
        self.generations().map_or(true, |all| all.iter().any(|found| found.generation() == other.generation))
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
