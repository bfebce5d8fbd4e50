//! The stats of a connection manager, `http.<stat_prefix>.*` and `listener.<address>.http.<stat_prefix>.*`.

use std::cell::{Cell, OnceCell};
use std::sync::{Arc, OnceLock};

use proxy_http::h1::stats::Http1Stats;
use proxy_http::h2::Http2Stats;
use proxy_runtime::{Instant, clock};
use proxy_stats::{Counter, Declared, Gauge, GaugeGuard, Scope, stats_block};

stats_block! {
    /// `http.<stat_prefix>.*`, the connection manager's part.
    pub struct ManagerStats {
        counters: downstream_cx_delayed_close_timeout, downstream_cx_destroy, downstream_cx_destroy_active_rq,
            downstream_cx_destroy_local, downstream_cx_destroy_local_active_rq, downstream_cx_destroy_remote,
            downstream_cx_destroy_remote_active_rq, downstream_cx_drain_close, downstream_cx_http1_total,
            downstream_cx_http2_total, downstream_cx_idle_timeout, downstream_cx_max_duration_reached,
            downstream_cx_max_requests_reached, downstream_cx_protocol_error, downstream_cx_rx_bytes_total,
            downstream_cx_total, downstream_cx_tx_bytes_total, downstream_cx_upgrades_total, downstream_rq_1xx, downstream_rq_2xx,
            downstream_rq_3xx, downstream_rq_4xx, downstream_rq_5xx, downstream_rq_completed,
            downstream_rq_failed_path_normalization, downstream_rq_header_timeout, downstream_rq_http1_total,
            downstream_rq_http2_total, downstream_rq_idle_timeout, downstream_rq_max_duration_reached,
            downstream_rq_non_relative_path, downstream_rq_redirected_with_normalized_path, downstream_rq_rejected_via_ip_detection,
            downstream_rq_response_before_rq_complete, downstream_rq_rx_reset, downstream_rq_timeout, downstream_rq_too_many_premature_resets,
            downstream_rq_too_large, downstream_rq_total, downstream_rq_tx_reset, downstream_rq_ws_on_non_ws_route;
        gauges: downstream_cx_active: Accumulate, downstream_cx_http1_active: Accumulate,
            downstream_cx_http2_active: Accumulate, downstream_cx_rx_bytes_buffered: Accumulate,
            downstream_cx_tx_bytes_buffered: Accumulate, downstream_cx_upgrades_active: Accumulate, downstream_rq_active: Accumulate;
        histograms: downstream_cx_length_ms, downstream_rq_time;
    }
}

stats_block! {
    /// `http.<stat_prefix>.*`, the router's part.
    pub struct RouterStats {
        counters: no_cluster, no_route, rq_direct_response, rq_total;
    }
}

stats_block! {
    /// `listener.<address>.http.<stat_prefix>.*`.
    pub struct ListenerCodeStats {
        counters: downstream_rq_1xx, downstream_rq_2xx, downstream_rq_3xx, downstream_rq_4xx, downstream_rq_5xx,
            downstream_rq_completed;
    }
}

impl ManagerStats {
    /// All of Envoy's names under `http.<stat_prefix>.` that a connection manager has without a router.
    pub fn under(http: &Scope) -> ManagerStats {
        http.declare(&MANAGER_DECLARED);
        ManagerStats::new(http)
    }
}

/// What a connection manager does not have here: other transports and overload, and limits on what is
/// buffered, for nothing is read ahead of a slow reader.
const MANAGER_DECLARED: Declared = Declared {
    counters: &[
        "downstream_cx_http3_total",
        "downstream_cx_overload_disable_keepalive",
        "downstream_cx_ssl_total",
        "downstream_flow_control_paused_reading_total",
        "downstream_flow_control_resumed_reading_total",
        "downstream_rq_http3_total",
        "downstream_rq_overload_close",
        "rs_too_large",
    ],
    gauges: &["downstream_cx_http1_soft_drain", "downstream_cx_http3_active", "downstream_cx_ssl_active"],
    histograms: &[],
};

/// What a router, and a connection manager that is not the admin port's, do not have here.
const ROUTER_DECLARED: Declared = Declared {
    counters: &[
        "passthrough_internal_redirect_bad_location",
        "passthrough_internal_redirect_no_route",
        "passthrough_internal_redirect_predicate",
        "passthrough_internal_redirect_too_many_redirects",
        "passthrough_internal_redirect_unsafe_scheme",
        "rq_overload_local_reply",
        "rq_redirect",
        "rq_reset_after_downstream_response_started",
    ],
    gauges: &[],
    histograms: &[],
};

const TRACING_DECLARED: Declared = Declared {
    counters: &[
        "tracing.client_enabled",
        "tracing.health_check",
        "tracing.not_traceable",
        "tracing.random_sampling",
        "tracing.service_forced",
    ],
    gauges: &[],
    histograms: &[],
};

/// All of them.
pub struct HttpStats {
    pub manager: Arc<ManagerStats>,
    pub router: RouterStats,
    pub listener: ListenerCodeStats,
    http: Scope,
    root: Scope,
    http1: OnceLock<Http1Stats>,
    http2: OnceLock<Http2Stats>,
}

impl HttpStats {
    /// `listener` is the scope `listener.<address>.`.
    pub fn new(root: &Scope, listener: &Scope, stat_prefix: &str) -> HttpStats {
        let name = format!("http.{}.", stat_prefix.replace(':', "_"));
        let (http, of_listener) = (root.scope(&name), listener.scope(&name));
        http.declare(&TRACING_DECLARED);
        HttpStats {
            manager: Arc::new(ManagerStats::under(&http)),
            router: RouterStats::under(&http),
            listener: ListenerCodeStats::new(&of_listener),
            http,
            root: root.clone(),
            http1: OnceLock::new(),
            http2: OnceLock::new(),
        }
    }

    /// `http.<stat_prefix>.`, where filters have theirs.
    pub fn scope(&self) -> &Scope {
        &self.http
    }

    /// `http1.*`, over all connection managers.
    pub fn http1(&self) -> &Http1Stats {
        self.http1.get_or_init(|| Http1Stats::under(&self.root))
    }

    /// `http2.*`, over all connection managers; there from the first connection of HTTP/2 on, as in Envoy.
    pub fn http2(&self) -> &Http2Stats {
        self.http2.get_or_init(|| Http2Stats::under(&self.root))
    }

    /// Counts a response that has been sent.
    pub fn count_response(&self, status: u16) {
        self.listener.count_response(&self.manager, status);
    }
}

impl RouterStats {
    /// All of Envoy's names that a router has under `http`.
    pub fn under(http: &Scope) -> RouterStats {
        http.declare(&ROUTER_DECLARED);
        RouterStats::new(http)
    }
}

impl ListenerCodeStats {
    /// Counts a response that begins, here and in `manager`.
    pub fn count_response(&self, manager: &ManagerStats, status: u16) {
        let listener = self;
        let (class, of_listener): (Counter, Counter) = match status / 100 {
            1 => (manager.downstream_rq_1xx, listener.downstream_rq_1xx),
            2 => (manager.downstream_rq_2xx, listener.downstream_rq_2xx),
            3 => (manager.downstream_rq_3xx, listener.downstream_rq_3xx),
            4 => (manager.downstream_rq_4xx, listener.downstream_rq_4xx),
            _ => (manager.downstream_rq_5xx, listener.downstream_rq_5xx),
        };
        class.inc();
        of_listener.inc();
        manager.downstream_rq_completed.inc();
        listener.downstream_rq_completed.inc();
    }
}

/// Counts a downstream connection for as long as it lives.
pub struct ConnectionGuard {
    stats: Arc<ManagerStats>,
    opened: Instant,
    by_peer: Cell<bool>,
    /// It goes on in another process, which will count its end.
    moved: Cell<bool>,
    active_request: Cell<bool>,
    _active: GaugeGuard,
    /// In the gauge of its version, once that is known.
    version: OnceCell<GaugeGuard>,
}

impl ConnectionGuard {
    /// It speaks HTTP/1.
    pub fn set_http1(&self) {
        self.set_version(self.stats.downstream_cx_http1_total, self.stats.downstream_cx_http1_active);
    }

    /// It speaks HTTP/2.
    pub fn set_http2(&self) {
        self.set_version(self.stats.downstream_cx_http2_total, self.stats.downstream_cx_http2_active);
    }

    fn set_version(&self, total: Counter, active: Gauge) {
        self.version.get_or_init(|| {
            total.inc();
            GaugeGuard::new(active)
        });
    }

    /// It spoke HTTP/1 in another process already, which has counted it as such.
    pub(super) fn set_still_http1(&self) {
        self.version.get_or_init(|| GaugeGuard::new(self.stats.downstream_cx_http1_active));
    }

    /// A connection whose version is not known yet.
    pub fn new(stats: &Arc<ManagerStats>, opened: Instant) -> ConnectionGuard {
        stats.downstream_cx_total.inc();
        Self::resumed(stats, opened)
    }

    /// One that another process has counted as begun.
    pub(super) fn resumed(stats: &Arc<ManagerStats>, opened: Instant) -> ConnectionGuard {
        ConnectionGuard {
            stats: Arc::clone(stats),
            opened,
            by_peer: Cell::new(false),
            moved: Cell::new(false),
            active_request: Cell::new(false),
            _active: GaugeGuard::new(stats.downstream_cx_active),
            version: OnceCell::new(),
        }
    }

    /// The peer ended the connection.
    pub fn closed_by_peer(&self) {
        self.by_peer.set(true);
    }

    /// Whether the peer did.
    pub(super) fn is_closed_by_peer(&self) -> bool {
        self.by_peer.get()
    }

    /// The connection goes on in another process.
    pub(super) fn moved(&self) {
        self.moved.set(true);
    }

    pub fn set_active_request(&self, active: bool) {
        self.active_request.set(active);
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.moved.get() {
            return;
        }
        let stats = &self.stats;
        let active = self.active_request.get();
        stats.downstream_cx_destroy.inc();
        stats
            .downstream_cx_length_ms
            .record_milliseconds(clock::now().saturating_duration_since(self.opened));
        if active {
            stats.downstream_cx_destroy_active_rq.inc();
        }
        let (all, with_request) = if self.by_peer.get() {
            (stats.downstream_cx_destroy_remote, stats.downstream_cx_destroy_remote_active_rq)
        } else {
            (stats.downstream_cx_destroy_local, stats.downstream_cx_destroy_local_active_rq)
        };
        all.inc();
        if active {
            with_request.inc();
        }
    }
}
