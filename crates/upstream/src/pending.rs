//! A request that waits for a connection, whatever version its host speaks.

use std::sync::Arc;

use proxy_config::settings::Priority;
use proxy_stats::GaugeGuard;

use crate::breaker::{BreakerGuard, Resource};
use crate::cluster::ClusterInfo;

/// Counts a request as pending until it is settled; one that is dropped before that was cancelled.
pub(crate) struct PendingRequest {
    cluster: Arc<ClusterInfo>,
    settled: bool,
    _breaker: BreakerGuard,
    _active: GaugeGuard,
}

impl PendingRequest {
    /// `None`, and counted, when no more may wait.
    pub(crate) fn begin(cluster: &Arc<ClusterInfo>, priority: Priority) -> Option<PendingRequest> {
        let stats = &cluster.stats;
        let Some(breaker) = cluster.breakers.acquire(priority, Resource::PendingRequests) else {
            stats.upstream_rq_pending_overflow.inc();
            return None;
        };
        stats.upstream_rq_pending_total.inc();
        Some(PendingRequest {
            _active: GaugeGuard::new(stats.upstream_rq_pending_active),
            cluster: Arc::clone(cluster),
            settled: false,
            _breaker: breaker,
        })
    }

    /// It has a connection.
    pub(crate) fn served(mut self) {
        self.settled = true;
    }

    /// Connecting failed for it.
    pub(crate) fn ejected(mut self) {
        self.settled = true;
        self.cluster.stats.upstream_rq_pending_failure_eject.inc();
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        if !self.settled {
            self.cluster.stats.upstream_rq_cancelled.inc();
        }
    }
}
