//! `envoy.filters.network.connection_limit`: at most so many connections of a filter chain at a time, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proxy_config::settings;
use proxy_net::{
    CloseReason, Connection, ConnectionInfo, LocalBoxFuture, MovedConnection, NetworkFilter, NextNetwork,
};
use proxy_stats::{GaugeGuard, Scope, stats_block};

use super::turn_away;

stats_block! {
    /// `connection_limit.<stat_prefix>.*`.
    struct ConnectionLimitStats {
        counters: limited_connections;
        gauges: active_connections: Accumulate;
    }
}

/// The filter; clones count together.
#[derive(Clone)]
pub struct ConnectionLimit(Arc<Shared>);

struct Shared {
    settings: Arc<settings::ConnectionLimit>,
    stats: ConnectionLimitStats,
    served: Served,
}

/// How many connections are let through; alone on its cache line.
#[derive(Default)]
#[repr(align(128))]
struct Served(AtomicU64);

/// One of them.
struct ServedConnection<'a>(&'a Served);

impl ConnectionLimit {
    /// `root` is the scope of the whole store, or what the listener restricts it to.
    pub fn new(settings: Arc<settings::ConnectionLimit>, root: &Scope) -> ConnectionLimit {
        let scope = root.scope(&format!("connection_limit.{}.", settings.stat_prefix));
        let stats = ConnectionLimitStats::new(&scope);
        ConnectionLimit(Arc::new(Shared { settings, stats, served: Served::default() }))
    }
}

impl Served {
    fn admit(&self, limit: u64) -> Option<ServedConnection<'_>> {
        let admitted = self.0.fetch_update(Relaxed, Relaxed, |served| (served < limit).then_some(served + 1));
        admitted.is_ok().then(|| ServedConnection(self))
    }

    /// One that another process let through.
    fn admit_anyway(&self) -> ServedConnection<'_> {
        self.0.fetch_add(1, Relaxed);
        ServedConnection(self)
    }
}

impl Drop for ServedConnection<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

impl NetworkFilter for ConnectionLimit {
    fn serve<'a>(
        &'a self,
        connection: Connection,
        next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
        let Shared { settings, stats, served } = &*self.0;
        Box::pin(async move {
            if !settings.enabled {
                return next.serve(connection).await;
            }
            let _active = GaugeGuard::new(stats.active_connections);
            let admitted = match connection.moved {
                Some(_) => Some(served.admit_anyway()),
                None => served.admit(settings.max_connections),
            };
            let Some(_admitted) = admitted else {
                stats.limited_connections.inc();
                return turn_away(connection, next, settings.delay, "over the connection limit").await;
            };
            next.serve(connection).await
        })
    }

    fn takes(&self, _moved: &MovedConnection, _info: &ConnectionInfo) -> bool {
        true
    }
}
