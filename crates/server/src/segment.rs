//! The stats of this process and of those before it: where they lie in shared memory, and what becomes of them.
//!
//! After an orderly end nothing is left. A process that was killed leaves what it has counted to the next start with the
//! same base-id and run directory.

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use proxy_control::{Instance, stats_prefix};
use proxy_stats::{
    Backing, EventKind, Lineage, LineageOptions, LineagePath, LineageWarning, Scope, StatsError, Store,
};

use crate::events::Events;
use crate::options::Options;

/// The place of this process in its lineage. Lives on main, until nothing is counted any more.
pub(crate) struct Segment {
    lineage: Arc<Lineage>,
    /// Scopes that come with their first use. What was inherited under them would be gone after a life without.
    _first_used_later: Scope,
}

/// For those who show stats, on threads of their own. The default has none to look at.
#[derive(Clone, Default)]
pub struct Onlooker(Weak<Lineage>);

impl Onlooker {
    /// Stats are about to be shown: also what other generations that live have counted and hold. May read files of many
    /// megabytes: not for main.
    pub(crate) fn look(&self) {
        if let Some(lineage) = self.0.upgrade() {
            tell(&lineage.look());
        }
    }

    /// Whether other programs see what this process counts.
    pub(crate) fn is_listed(&self) -> bool {
        self.0.upgrade().is_some_and(|lineage| lineage.is_listed())
    }

    /// Whether this process speaks for all that live.
    pub(crate) fn leads(&self) -> bool {
        self.0.upgrade().is_none_or(|lineage| !lineage.is_listed() || lineage.leads())
    }
}

impl std::fmt::Debug for Onlooker {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Onlooker")
    }
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
        tell_killed(&lineage);
        let _first_used_later = lineage.store().root().scope("http2.");
        Ok(Rc::new(Segment { lineage: Arc::new(lineage), _first_used_later }))
    }

    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    pub(crate) fn store(&self) -> &Store {
        self.lineage.store()
    }

    pub(crate) fn onlooker(&self) -> Onlooker {
        Onlooker(Arc::downgrade(&self.lineage))
    }

    /// The configuration's clusters and listeners are there; from now on the lineage is kept in order.
    pub(crate) fn serve(self: &Rc<Self>) {
        self.lineage.settle();
        let lineage = Arc::downgrade(&self.lineage);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(INTERVAL).await;
                let Some(lineage) = lineage.upgrade() else { break };
                let tending = move || {
                    let warnings = lineage.tend();
                    tell_killed(&lineage);
                    warnings
                };
                match tokio::task::spawn_blocking(tending).await {
                    Ok(warnings) => tell(&warnings),
                    Err(error) => tracing::error!(target: "stats", %error, "stats of others are not kept"),
                }
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
        Events::of(self.store()).info(EventKind::END, format_args!("the process ends"));
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

/// Processes whose counters were taken over without their having ended in good order.
fn tell_killed(lineage: &Lineage) {
    for generation in lineage.take_killed() {
        Events::of(lineage.store()).error(
            EventKind::KILLED,
            format_args!("generation {generation} was killed or has crashed; its counters go on here"),
        );
    }
}

const INTERVAL: Duration = Duration::from_secs(5);
