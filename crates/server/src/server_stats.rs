//! The stats of the process itself, `server.*`.

use std::rc::Rc;
use std::time::Duration;

use proxy_stats::{Backing, Scope, stats_block};

use crate::admin::{AdminState, ServerState};
use crate::memory;
use crate::state::State;

stats_block! {
    /// `server.*`.
    pub struct ServerStats {
        gauges: concurrency: NeverImport, hot_restart_epoch: NeverImport, live: NeverImport,
            memory_allocated: Accumulate, memory_heap_size: Accumulate, memory_physical_size: Accumulate,
            parent_connections: Accumulate, state: NeverImport, total_connections: Accumulate, uptime: Accumulate,
            version: NeverImport;
    }
}

/// Says what does not change and keeps the rest true for as long as the process lives.
pub(crate) fn keep(root: &Scope, concurrency: usize, state: Rc<State>) {
    let stats = ServerStats::new(&root.scope("server."));
    stats.concurrency.set(concurrency as u64);
    tokio::task::spawn_local(async move {
        // Whole, not field by field: its scope keeps the slots.
        let stats = stats;
        let mut tick = tokio::time::interval(INTERVAL);
        let mut told = false;
        loop {
            tick.tick().await;
            if let Backing::FileFull(error) = state.store.backing()
                && !std::mem::replace(&mut told, true)
            {
                tracing::warn!(target: "stats", %error, "no more space for stats: other programs do not see newer ones");
            }
            let server = state.server();
            stats.live.set(u64::from(server.state == ServerState::Live));
            stats.state.set(match server.state {
                ServerState::Live => 0,
                ServerState::Draining => 1,
                ServerState::PreInitializing => 2,
                ServerState::Initializing => 3,
            });
            stats.uptime.set(server.uptime.as_secs());
            let memory = memory::read();
            stats.memory_allocated.set(memory.allocated);
            stats.memory_heap_size.set(memory.heap_size);
            stats.memory_physical_size.set(memory.total_physical_bytes);
        }
    });
}

const INTERVAL: Duration = Duration::from_secs(1);
