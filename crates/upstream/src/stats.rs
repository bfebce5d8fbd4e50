//! The stats of a cluster, `cluster.<name>.*`, under Envoy's names.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use proxy_config::settings::CircuitBreaker;
use proxy_stats::{Counter, Declared, Gauge, Histogram, Scope, stats_block};

stats_block! {
    /// What main and workers count for a cluster.
    pub struct ClusterStats {
        counters: membership_change,
            /// Hosts for which a transport socket was looked for: all find the cluster's own.
            total_match_count = "default.total_match_count",
            update_attempt, update_failure, update_no_rebuild, update_success,
            upstream_cx_close_notify, upstream_cx_connect_attempts_exceeded, upstream_cx_connect_fail,
            upstream_cx_connect_timeout, upstream_cx_destroy, upstream_cx_destroy_local,
            upstream_cx_destroy_local_with_active_rq, upstream_cx_destroy_remote,
            upstream_cx_destroy_remote_with_active_rq, upstream_cx_destroy_with_active_rq, upstream_cx_http1_total,
            upstream_cx_http2_total, upstream_cx_idle_timeout, upstream_cx_max_duration_reached,
            upstream_cx_max_requests, upstream_cx_none_healthy, upstream_cx_overflow, upstream_cx_protocol_error,
            upstream_cx_rx_bytes_total, upstream_cx_total, upstream_cx_tx_bytes_total,
            upstream_flow_control_backed_up_total, upstream_flow_control_drained_total,
            upstream_flow_control_paused_reading_total, upstream_flow_control_resumed_reading_total,
            upstream_rq_active_overflow, upstream_rq_cancelled, upstream_rq_completed,
            upstream_rq_pending_failure_eject, upstream_rq_pending_overflow,
            upstream_rq_pending_total, upstream_rq_retry, upstream_rq_retry_success, upstream_rq_rx_reset,
            upstream_rq_rx_reset_no_error, upstream_rq_timeout, upstream_rq_total, upstream_rq_tx_reset;
        gauges: max_host_weight: NeverImport, membership_degraded: NeverImport,
            membership_healthy: NeverImport, membership_total: NeverImport, upstream_cx_active: Accumulate,
            upstream_cx_rx_bytes_buffered: Accumulate, upstream_cx_tx_bytes_buffered: Accumulate,
            upstream_rq_active: Accumulate, upstream_rq_pending_active: Accumulate, warming_state: NeverImport;
        histograms: upstream_cx_connect_ms, upstream_cx_length_ms, upstream_rq_per_cx;
    }
}

stats_block! {
    /// `cluster.<name>.circuit_breakers.<priority>.*`; 1 while the breaker is open.
    pub struct BreakerStats {
        gauges: cx_open: Accumulate, rq_open: Accumulate, rq_pending_open: Accumulate;
    }
}

stats_block! {
    /// The same with `track_remaining`: how many more there may be.
    pub struct RemainingStats {
        gauges: remaining_cx: Accumulate, remaining_cx_pools: Accumulate, remaining_pending: Accumulate,
            remaining_retries: Accumulate, remaining_rq: Accumulate;
    }
}

stats_block! {
    /// `thread_local_cluster_manager.<thread>.*`.
    pub struct ThreadClusterStats {
        gauges: clusters_inflated: NeverImport;
    }
}

impl ThreadClusterStats {
    /// `root` is the scope of the whole store; threads are `main_thread`, `worker_0` and so on.
    pub fn of_thread(root: &Scope, thread: &str) -> ThreadClusterStats {
        ThreadClusterStats::new(&root.scope(&format!("thread_local_cluster_manager.{thread}.")))
    }
}

impl RemainingStats {
    /// Every gauge that a breaker moves, and that of the retries, which have none here, with what it shows while nothing
    /// is in use.
    pub(crate) fn limits(&self, limits: &CircuitBreaker) -> impl Iterator<Item = (Gauge, i64)> {
        [
            (self.remaining_cx, limits.max_connections.into()),
            (self.remaining_pending, limits.max_pending_requests.into()),
            (self.remaining_retries, limits.max_retries.into()),
            (self.remaining_rq, limits.max_requests.into()),
        ]
        .into_iter()
    }
}

/// Those of features that clusters do not have here.
pub(crate) const CLUSTER_DECLARED: Declared = Declared {
    counters: &[
        "assignment_stale",
        "assignment_timeout_received",
        "assignment_use_cached",
        "bind_errors",
        "lb_healthy_panic",
        "lb_local_cluster_not_ok",
        "lb_recalculate_zone_structures",
        "lb_subsets_created",
        "lb_subsets_fallback",
        "lb_subsets_fallback_panic",
        "lb_subsets_removed",
        "lb_subsets_selected",
        "lb_zone_cluster_too_small",
        "lb_zone_no_capacity_left",
        "lb_zone_routing_all_directly",
        "lb_zone_routing_cross_zone",
        "lb_zone_routing_sampled",
        "original_dst_host_invalid",
        "retry_or_shadow_abandoned",
        "update_empty",
        "upstream_cx_connect_with_0_rtt",
        "upstream_cx_http3_total",
        "upstream_cx_pool_overflow",
        "upstream_cx_preconnect_skipped",
        "upstream_http3_broken",
        "upstream_internal_redirect_failed_total",
        "upstream_internal_redirect_succeeded_total",
        "upstream_rq_0rtt",
        "upstream_rq_maintenance_mode",
        "upstream_rq_max_duration_reached",
        "upstream_rq_per_try_idle_timeout",
        "upstream_rq_per_try_timeout",
        "upstream_rq_retry_backoff_exponential",
        "upstream_rq_retry_backoff_ratelimited",
        "upstream_rq_retry_limit_exceeded",
        "upstream_rq_retry_overflow",
    ],
    gauges: &["lb_subsets_active", "membership_excluded", "upstream_queue_overloaded", "version"],
    histograms: &[],
};

/// Breakers that nothing can open: no pool of pools and no retries are configurable.
pub(crate) const BREAKERS_DECLARED: Declared =
    Declared { counters: &[], gauges: &["cx_pool_open", "rq_retry_open"], histograms: &[] };

/// A worker's counters of a cluster's responses: of all, and of those to requests from outside and inside apart.
pub(crate) struct ResponseStats {
    cluster: Scope,
    all: CodeStats,
    external: OnceCell<CodeStats>,
    internal: OnceCell<CodeStats>,
}

impl ResponseStats {
    pub(crate) fn new(cluster: &Scope) -> ResponseStats {
        ResponseStats {
            cluster: cluster.clone(),
            all: CodeStats::new(cluster.clone()),
            external: OnceCell::new(),
            internal: OnceCell::new(),
        }
    }

    /// Counts one response of `status`.
    pub(crate) fn count(&self, status: u16, internal: bool) {
        self.all.count(status);
        self.part(internal).count(status);
    }

    /// Notes how long after the end of its request a response had come whole.
    pub(crate) fn record_time(&self, time: Duration, internal: bool) {
        self.all.record_time(time);
        self.part(internal).record_time(time);
    }

    fn part(&self, internal: bool) -> &CodeStats {
        let (part, prefix) =
            if internal { (&self.internal, "internal.") } else { (&self.external, "external.") };
        part.get_or_init(|| CodeStats::new(self.cluster.scope(prefix)))
    }
}

/// What is counted of responses below one scope; the counters of a code are made when it is first seen.
struct CodeStats {
    scope: Scope,
    seen: RefCell<Vec<(u16, Counter, Counter)>>,
    completed: Counter,
    time: OnceCell<Histogram>,
}

impl CodeStats {
    fn new(scope: Scope) -> CodeStats {
        let completed = scope.counter("upstream_rq_completed");
        CodeStats { scope, seen: RefCell::default(), completed, time: OnceCell::new() }
    }

    fn count(&self, status: u16) {
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

    fn record_time(&self, time: Duration) {
        self.time.get_or_init(|| self.scope.histogram("upstream_rq_time")).record_milliseconds(time);
    }
}
