//! Circuit breakers: exact limits per cluster and priority over all workers.
//!
//! The only numbers that workers share. Each is alone on its cache line, so that clusters do not slow each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use proxy_config::settings::{CircuitBreaker, Priority};
use proxy_stats::{Gauge, Scope};

use crate::stats::BreakerStats;

/// What a breaker limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Connections,
    PendingRequests,
    Requests,
}

#[repr(align(128))]
struct InUse(AtomicU32);

struct Breaker {
    in_use: InUse,
    limit: u32,
    open: Gauge,
}

/// All breakers of one cluster.
pub struct Breakers {
    by_priority: [[Breaker; 3]; 2],
    /// Keep the slots of the gauges.
    _stats: [BreakerStats; 2],
}

/// One connection, pending request or request that counts against a breaker until dropped.
pub struct BreakerGuard {
    breakers: Arc<Breakers>,
    priority: Priority,
    resource: Resource,
}

impl Breakers {
    pub fn new(limits: &[CircuitBreaker; 2], cluster: &Scope) -> Arc<Breakers> {
        let stats = ["default", "high"]
            .map(|name| BreakerStats::new(&cluster.scope(&format!("circuit_breakers.{name}."))));
        let of = |priority: usize| {
            let (limits, stats) = (limits[priority], &stats[priority]);
            let breaker = |limit, open| Breaker { in_use: InUse(AtomicU32::new(0)), limit, open };
            [
                breaker(limits.max_connections, stats.cx_open),
                breaker(limits.max_pending_requests, stats.rq_pending_open),
                breaker(limits.max_requests, stats.rq_open),
            ]
        };
        Arc::new(Breakers { by_priority: [of(0), of(1)], _stats: stats })
    }

    /// Takes one of `resource`, or `None` when its limit is reached.
    pub fn acquire(self: &Arc<Self>, priority: Priority, resource: Resource) -> Option<BreakerGuard> {
        let breaker = self.breaker(priority, resource);
        // Never above the limit, not even for a moment: who takes the last one and who gives it back must see so.
        let take = |in_use| (in_use < breaker.limit).then(|| in_use + 1);
        let before = breaker.in_use.0.fetch_update(Relaxed, Relaxed, take).ok()?;
        if before + 1 == breaker.limit {
            breaker.open.inc();
        }
        Some(BreakerGuard { breakers: Arc::clone(self), priority, resource })
    }

    /// Takes one even over the limit: a host without a connection may always open its first.
    pub fn acquire_anyway(self: &Arc<Self>, priority: Priority, resource: Resource) -> BreakerGuard {
        let breaker = self.breaker(priority, resource);
        if breaker.in_use.0.fetch_add(1, Relaxed) + 1 == breaker.limit {
            breaker.open.inc();
        }
        BreakerGuard { breakers: Arc::clone(self), priority, resource }
    }

    fn breaker(&self, priority: Priority, resource: Resource) -> &Breaker {
        &self.by_priority[priority as usize][resource as usize]
    }
}

impl Drop for BreakerGuard {
    fn drop(&mut self) {
        let breaker = self.breakers.breaker(self.priority, self.resource);
        if breaker.in_use.0.fetch_sub(1, Relaxed) == breaker.limit {
            breaker.open.dec();
        }
    }
}
