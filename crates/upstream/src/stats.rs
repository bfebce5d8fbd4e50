//! The stats of a cluster, `cluster.<name>.*`, under Envoy's names.

use std::cell::RefCell;

use proxy_stats::{Counter, Scope, stats_block};

stats_block! {
    /// What main and workers count for a cluster.
    pub struct ClusterStats {
        counters: bind_errors, membership_change, update_attempt, update_empty, update_failure, update_no_rebuild,
            update_success, upstream_rq_active_overflow, upstream_cx_connect_attempts_exceeded, upstream_cx_connect_fail,
            upstream_cx_connect_timeout, upstream_cx_destroy, upstream_cx_destroy_local,
            upstream_cx_destroy_local_with_active_rq, upstream_cx_destroy_remote,
            upstream_cx_destroy_remote_with_active_rq, upstream_cx_destroy_with_active_rq, upstream_cx_http1_total,
            upstream_cx_http2_total, upstream_cx_idle_timeout, upstream_cx_max_duration_reached,
            upstream_cx_max_requests, upstream_cx_none_healthy, upstream_cx_overflow, upstream_cx_protocol_error,
            upstream_cx_rx_bytes_total, upstream_cx_total, upstream_cx_tx_bytes_total, upstream_rq_cancelled,
            upstream_rq_max_duration_reached, upstream_rq_pending_failure_eject, upstream_rq_pending_overflow,
            upstream_rq_pending_total, upstream_rq_retry, upstream_rq_rx_reset, upstream_rq_timeout,
            upstream_rq_total, upstream_rq_tx_reset, upstream_rq_completed;
        gauges: max_host_weight: Accumulate, membership_degraded: NeverImport, membership_excluded: NeverImport,
            membership_healthy: NeverImport, membership_total: NeverImport, upstream_cx_active: Accumulate,
            upstream_rq_active: Accumulate, upstream_rq_pending_active: Accumulate, warming_state: NeverImport;
    }
}

stats_block! {
    /// `cluster.<name>.circuit_breakers.<priority>.*`; 1 while the breaker is open.
    pub struct BreakerStats {
        gauges: cx_open: Accumulate, rq_open: Accumulate, rq_pending_open: Accumulate, rq_retry_open: Accumulate;
    }
}

/// Counters per response code and class below one scope, made when a code is first seen.
pub struct CodeStats {
    scope: Scope,
    seen: RefCell<Vec<(u16, Counter, Counter)>>,
    completed: Counter,
}

impl CodeStats {
    pub fn new(scope: Scope) -> CodeStats {
        let completed = scope.counter("upstream_rq_completed");
        CodeStats { scope, seen: RefCell::default(), completed }
    }

    /// Counts one response of `status`.
    pub fn count(&self, status: u16) {
        self.completed.inc();
        let mut seen = self.seen.borrow_mut();
        if let Some((_, code, class)) = seen.iter().find(|(code, ..)| *code == status) {
            code.inc();
            class.inc();
            return;
        }
        let code = self.scope.counter(&format!("upstream_rq_{status}"));
        let class = self.scope.counter(&format!("upstream_rq_{}xx", status / 100));
        code.inc();
        class.inc();
        seen.push((status, code, class));
    }
}
