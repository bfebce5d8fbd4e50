//! The stats of the process itself, `server.*`. Listeners and watchdogs count some of that name themselves.

use std::rc::Rc;
use std::time::Duration;

use proxy_config::{Code, Finding};
use proxy_stats::{Backing, EventKind, Scope, stats_block};

use crate::admin::{AdminState, ServerState};
use crate::events::Events;
use crate::memory;
use crate::state::State;

stats_block! {
    /// `server.*`. Those of Envoy's that can only be 0 here are there for dashboards that expect them: there is no TLS
    /// yet (the days and seconds are Envoy's own values for "no certificate"), no discovery, and no supported field is work
    /// in progress. What the lineage knows of older processes shows as `parent_connections`.
    pub struct ServerStats {
        counters: debug_assertion_failures, dynamic_unknown_fields,
            /// Panics.
            envoy_bug_failures,
            envoy_notifications,
            /// What `--allow-unsupported` let pass.
            static_unknown_fields,
            wip_protos;
        gauges: concurrency: NeverImport, days_until_first_cert_expiring: NeverImport,
            fips_mode = "compilation_settings.fips_mode": NeverImport, hot_restart_epoch: NeverImport,
            hot_restart_generation: NeverImport, live: NeverImport, memory_allocated: Accumulate,
            memory_heap_size: Accumulate, memory_physical_size: Accumulate, parent_connections: Accumulate,
            seconds_until_first_ocsp_response_expiring: NeverImport, state: NeverImport,
            /// Stats looked for by name, but for those that the thread remembered.
            stats_recent_lookups: NeverImport,
            /// Since the first process of this line of hot restarts began.
            uptime: NeverImport, version: NeverImport;
        histograms: initialization_time_ms;
    }
}

impl ServerStats {
    /// This process is the one after others.
    pub(crate) fn restarted(&self, epoch: u32, generation: proxy_control::Generation) {
        self.hot_restart_epoch.set(epoch.into());
        self.hot_restart_generation.set(generation.0);
    }

    /// Says what does not change.
    pub(crate) fn start(
        root: &Scope,
        concurrency: usize,
        version: Option<u64>,
        warnings: &[Finding],
    ) -> Self {
        let stats = Self::new(&root.scope("server."));
        stats.concurrency.set(concurrency as u64);
        stats.version.set(version.unwrap_or_else(own_version));
        stats.hot_restart_generation.set(1);
        stats.days_until_first_cert_expiring.set(u64::from(u32::MAX));
        let unknown = warnings.iter().filter(|warning| UNKNOWN.contains(&warning.code));
        stats.static_unknown_fields.add(unknown.count() as u64);
        stats
    }

    /// Counts and tells panics of all threads from now on, beside what is done about them already.
    pub(crate) fn count_panics(&self, events: Events) {
        let (stats, before) = (self.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            stats.envoy_bug_failures.inc();
            events.panicked(panic);
            before(panic);
        }));
    }

    /// Listeners are open.
    pub(crate) fn initialized(&self, after: Duration) {
        self.initialization_time_ms.record(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    }
}

impl State {
    /// Makes true what changes by itself.
    pub(crate) fn refresh_stats(&self) {
        let (server, stats) = (self.server(), &self.stats);
        stats.live.set(u64::from(server.state == ServerState::Live));
        stats.state.set(match server.state {
            ServerState::Live => 0,
            ServerState::Draining => 1,
            ServerState::PreInitializing => 2,
            ServerState::Initializing => 3,
        });
        stats.uptime.set(server.uptime_all_epochs.as_secs());
        stats.stats_recent_lookups.set(self.store.lookups());
        let memory = memory::read(self.allocator);
        stats.memory_allocated.set(memory.allocated);
        stats.memory_heap_size.set(memory.heap_size);
        stats.memory_physical_size.set(memory.total_physical_bytes);
    }
}

/// Refreshes the stats for as long as the process lives: other programs read them without asking.
pub(crate) fn keep(state: Rc<State>) {
    tokio::task::spawn_local(async move {
        let mut tick = tokio::time::interval(INTERVAL);
        let mut told = false;
        loop {
            tick.tick().await;
            if let Backing::FileFull(error) = state.store.backing()
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!(target: "stats", %error, "no more space for stats: other programs do not see newer ones");
                state.events.warning(
                    EventKind::STATS,
                    format_args!("no more space in memory ({error}): stats made from now on show on the admin port only"),
                );
            }
            state.refresh_stats();
        }
    });
}

/// A byte for each part, where Envoy has three bytes of its revision.
fn own_version() -> u64 {
    env!("CARGO_PKG_VERSION").split('.').fold(0, |number, part| number << 8 | part.parse().unwrap_or(0))
}

const UNKNOWN: [Code; 4] =
    [Code::UNKNOWN_FIELD, Code::UNSUPPORTED_FIELD, Code::UNSUPPORTED_VALUE, Code::UNSUPPORTED_TYPE];
const INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proxy_stats::{Store, StoreOptions};

    use super::*;

    #[test]
    fn a_panic_is_a_bug_that_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("segment");
        let options = StoreOptions { path: Some(path.clone()), ..StoreOptions::private(1) };
        let store = Store::create(options).unwrap();
        let stats = ServerStats::start(&store.root(), 1, None, &[]);
        stats.count_panics(Events::of(&store));
        let thread = std::thread::Builder::new().name("wrk:test".to_owned());
        assert!(thread.spawn(|| panic!("for the\ntest")).unwrap().join().is_err());
        assert!(stats.envoy_bug_failures.value() >= 1);
        let events = proxy_stats::Reader::open(&path).unwrap().events().unwrap();
        let told: Vec<_> = events.iter().filter(|event| event.kind == EventKind::PANIC).collect();
        // Tests of other threads may panic on purpose as well.
        assert!(
            told.iter().any(|event| {
                event.text.starts_with("thread wrk:test at crates/server/src/server_stats.rs:")
                    && event.text.ends_with(": for the test")
            }),
            "{told:?}"
        );
    }

    #[test]
    fn a_version_is_a_number() {
        assert_eq!(own_version(), 0x00_01_00);
    }
}
