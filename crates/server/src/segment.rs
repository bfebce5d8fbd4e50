//! The stats of this process and of those before it: where they lie in shared memory, and what becomes of them.
//!
//! After an orderly end nothing is left. A process that was killed leaves what it has counted to the next start with the
//! same base-id and run directory.

use std::rc::Rc;
use std::time::Duration;

use proxy_control::{Instance, stats_prefix};
use proxy_stats::{Backing, Lineage, LineageOptions, LineagePath, LineageWarning, Scope, StatsError, Store};

use crate::options::Options;

/// The place of this process in its lineage. Lives on main, until nothing is counted any more.
pub(crate) struct Segment {
    lineage: Lineage,
    /// Scopes that come with their first use. What was inherited under them would be gone after a life without.
    _first_used_later: Scope,
}

impl Segment {
    /// Creates the store for `threads` threads, which goes on from what dead processes have counted.
    ///
    /// # Errors
    /// When the directory cannot be used. Lack of space only costs those who would read or inherit.
    pub(crate) fn create(
        options: &Options,
        instance: &Instance,
        threads: usize,
    ) -> Result<Rc<Segment>, StatsError> {
        let prefix = stats_prefix(&options.run_dir, options.base_id);
        let (lineage, warnings) = Lineage::join(LineageOptions {
            path: LineagePath { directory: options.shm_dir.clone(), prefix },
            base_id: options.base_id.0,
            generation: instance.generation().0,
            threads,
        })?;
        tell(&warnings);
        if let Backing::FileRefused(error) = lineage.store().backing() {
            tracing::warn!(target: "stats", %error, "stats are in private memory: other programs cannot read them");
        }
        let _first_used_later = lineage.store().root().scope("http2.");
        Ok(Rc::new(Segment { lineage, _first_used_later }))
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub(crate) fn store(&self) -> &Store {
        self.lineage.store()
    }

    /// Stats are about to be shown: also what other generations that live have counted.
    pub(crate) fn look(&self) {
        tell(&self.lineage.look());
    }

    /// The configuration's clusters and listeners are there; from now on the lineage is kept in order.
    pub(crate) fn serve(self: &Rc<Self>) {
        self.lineage.settle();
        let segment = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let Some(segment) = segment.upgrade() else { break };
                tell(&segment.lineage.tend());
            }
        });
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // As good as killed, so the next start goes on from here.
        if std::thread::panicking() {
            return;
        }
        if let Err(error) = self.lineage.leave() {
            tracing::warn!(target: "stats", %error, "stats files stay in shared memory");
        }
    }
}

fn tell(warnings: &[LineageWarning]) {
    for warning in warnings {
        tracing::warn!(target: "stats", "{warning}");
    }
}

const INTERVAL: Duration = Duration::from_secs(5);
