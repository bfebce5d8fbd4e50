//! Circuit breakers: exact limits per cluster and priority over all workers.
//!
//! The only numbers that workers share. Each is alone on its cache line, so that clusters do not slow each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use proxy_config::settings::{CircuitBreaker, Priority};
use proxy_stats::{Gauge, Scope};

use crate::stats::{BREAKERS_DECLARED, BreakerStats, RemainingStats};

/// What a breaker limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Connections,
    PendingRequests,
    Requests,
}

/// What whoever takes from it reads lies on one line.
#[repr(align(128))]
struct Breaker {
    in_use: AtomicU32,
    limit: u32,
    open: Gauge,
    /// With `track_remaining`.
    remaining: Option<Gauge>,
}

/// All breakers of one cluster.
pub struct Breakers {
    /// Indexed by [`Priority`] as `usize`.
    by_priority: [PriorityBreakers; 2],
}

struct PriorityBreakers {
    /// Indexed by [`Resource`] as `usize`.
    breakers: [Breaker; 3],
    limits: CircuitBreaker,
    /// With `track_remaining`.
    remaining: Option<RemainingStats>,
    /// Keeps the slots of the gauges.
    _stats: BreakerStats,
}

/// One connection, pending request or request that counts against a breaker until dropped.
pub struct BreakerGuard {
    breakers: Arc<Breakers>,
    priority: Priority,
    resource: Resource,
}

impl Breakers {
    pub fn new(limits: &[CircuitBreaker; 2], cluster: &Scope) -> Arc<Breakers> {
        let scope = |name: &str| cluster.scope(&format!("circuit_breakers.{name}."));
        let by_priority = [
            PriorityBreakers::new(limits[Priority::Default as usize], &scope("default")),
            PriorityBreakers::new(limits[Priority::High as usize], &scope("high")),
        ];
        Arc::new(Breakers { by_priority })
    }

    /// Takes one of `resource`, or `None` when its limit is reached.
    pub fn acquire(self: &Arc<Self>, priority: Priority, resource: Resource) -> Option<BreakerGuard> {
        let breaker = self.breaker(priority, resource);
        // Never above the limit, not even for a moment: who takes the last one and who gives it back must see so.
        let take = |in_use| (in_use < breaker.limit).then(|| in_use + 1);
        let before = breaker.in_use.fetch_update(Relaxed, Relaxed, take).ok()?;
        breaker.taken(before);
        Some(BreakerGuard { breakers: Arc::clone(self), priority, resource })
    }

    /// Takes one even over the limit: a host without a connection may always open its first.
    pub fn acquire_anyway(self: &Arc<Self>, priority: Priority, resource: Resource) -> BreakerGuard {
        let breaker = self.breaker(priority, resource);
        breaker.taken(breaker.in_use.fetch_add(1, Relaxed));
        BreakerGuard { breakers: Arc::clone(self), priority, resource }
    }

    fn breaker(&self, priority: Priority, resource: Resource) -> &Breaker {
        &self.by_priority[priority as usize].breakers[resource as usize]
    }
}

impl PriorityBreakers {
    fn new(limits: CircuitBreaker, scope: &Scope) -> PriorityBreakers {
        let stats = BreakerStats::new(scope);
        scope.declare(&BREAKERS_DECLARED);
        let remaining = limits.track_remaining.then(|| RemainingStats::new(scope));
        if let Some(remaining) = &remaining {
            remaining.limits(&limits).for_each(|(gauge, limit)| gauge.add(limit));
            // Pools have no limit: as many as a gauge can hold.
            remaining.remaining_cx_pools.set(i64::MAX as u64);
        }
        let breaker = |limit, open, remaining| Breaker { in_use: AtomicU32::new(0), limit, open, remaining };
        let left = |gauge: fn(&RemainingStats) -> Gauge| remaining.as_ref().map(gauge);
        PriorityBreakers {
            breakers: [
                breaker(limits.max_connections, stats.cx_open, left(|stats| stats.remaining_cx)),
                breaker(
                    limits.max_pending_requests,
                    stats.rq_pending_open,
                    left(|stats| stats.remaining_pending),
                ),
                breaker(limits.max_requests, stats.rq_open, left(|stats| stats.remaining_rq)),
            ],
            limits,
            remaining,
            _stats: stats,
        }
    }
}

impl Drop for PriorityBreakers {
    /// The gauges belong to whichever cluster has the name next.
    fn drop(&mut self) {
        if let Some(remaining) = &self.remaining {
            remaining.limits(&self.limits).for_each(|(gauge, limit)| gauge.sub(limit));
        }
    }
}

impl Breaker {
    /// One more is in use than the `before`.
    fn taken(&self, before: u32) {
        if before + 1 == self.limit {
            self.open.inc();
        }
        if let Some(remaining) = self.remaining {
            remaining.dec();
        }
    }
}

impl Drop for BreakerGuard {
    fn drop(&mut self) {
        let breaker = self.breakers.breaker(self.priority, self.resource);
        if breaker.in_use.fetch_sub(1, Relaxed) == breaker.limit {
            breaker.open.dec();
        }
        if let Some(remaining) = breaker.remaining {
            remaining.inc();
        }
    }
}
