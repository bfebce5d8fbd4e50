//! The stats of a connection manager, `http.<stat_prefix>.*` and `listener.<address>.http.<stat_prefix>.*`.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use proxy_http::h2::Http2Stats;
use proxy_stats::{Counter, Gauge, GaugeGuard, Scope, stats_block};

stats_block! {
    /// `http.<stat_prefix>.*`, the connection manager's part.
    pub struct ManagerStats {
        counters: downstream_cx_delayed_close_timeout, downstream_cx_destroy, downstream_cx_destroy_active_rq,
            downstream_cx_destroy_local, downstream_cx_destroy_local_active_rq, downstream_cx_destroy_remote,
            downstream_cx_destroy_remote_active_rq, downstream_cx_drain_close, downstream_cx_http1_total,
            downstream_cx_http2_total, downstream_cx_idle_timeout, downstream_cx_max_duration_reached,
            downstream_cx_max_requests_reached, downstream_cx_protocol_error, downstream_cx_rx_bytes_total,
            downstream_cx_total, downstream_cx_tx_bytes_total, downstream_rq_1xx, downstream_rq_2xx,
            downstream_rq_3xx, downstream_rq_4xx, downstream_rq_5xx, downstream_rq_completed,
            downstream_rq_failed_path_normalization, downstream_rq_header_timeout, downstream_rq_http1_total,
            downstream_rq_http2_total, downstream_rq_idle_timeout, downstream_rq_max_duration_reached,
            downstream_rq_non_relative_path, downstream_rq_redirected_with_normalized_path,
            downstream_rq_response_before_rq_complete, downstream_rq_rx_reset, downstream_rq_timeout,
            downstream_rq_too_large, downstream_rq_total, downstream_rq_tx_reset, downstream_rq_ws_on_non_ws_route;
        gauges: downstream_cx_active: Accumulate, downstream_cx_http1_active: Accumulate,
            downstream_cx_http2_active: Accumulate, downstream_rq_active: Accumulate;
    }
}

stats_block! {
    /// `http.<stat_prefix>.*`, the router's part.
    pub struct RouterStats {
        counters: no_cluster, no_route, rq_direct_response, rq_redirect, rq_reset_after_downstream_response_started,
            rq_total;
    }
}

stats_block! {
    /// `listener.<address>.http.<stat_prefix>.*`.
    pub struct ListenerCodeStats {
        counters: downstream_rq_1xx, downstream_rq_2xx, downstream_rq_3xx, downstream_rq_4xx, downstream_rq_5xx,
            downstream_rq_completed;
    }
}

/// All of them.
pub struct HttpStats {
    pub manager: ManagerStats,
    pub router: RouterStats,
    pub listener: ListenerCodeStats,
    root: Scope,
    http2: OnceLock<Http2Stats>,
}

impl HttpStats {
    /// `listener` is the scope `listener.<address>.`.
    pub fn new(root: &Scope, listener: &Scope, stat_prefix: &str) -> HttpStats {
        let name = format!("http.{}.", stat_prefix.replace(':', "_"));
        let (http, of_listener) = (root.scope(&name), listener.scope(&name));
        HttpStats {
            manager: ManagerStats::new(&http),
            router: RouterStats::new(&http),
            listener: ListenerCodeStats::new(&of_listener),
            root: root.clone(),
            http2: OnceLock::new(),
        }
    }

    /// `http2.*`, over all connection managers; there from the first connection of HTTP/2 on, as in Envoy.
    pub fn http2(&self) -> &Http2Stats {
        self.http2.get_or_init(|| Http2Stats::new(&self.root.scope("http2.")))
    }

    /// Counts a response that has been sent.
    pub fn count_response(&self, status: u16) {
        let (manager, listener) = (&self.manager, &self.listener);
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
pub(super) struct ConnectionGuard {
    stats: Arc<HttpStats>,
    by_peer: Cell<bool>,
    active_request: Cell<bool>,
    _active: GaugeGuard,
    /// In the gauge of its version, once that is known.
    _version: Option<GaugeGuard>,
}

impl ConnectionGuard {
    pub(super) fn http1(self) -> ConnectionGuard {
        self.stats.manager.downstream_cx_http1_total.inc();
        let active = self.stats.manager.downstream_cx_http1_active;
        self.with_version(active)
    }

    pub(super) fn http2(self) -> ConnectionGuard {
        self.stats.manager.downstream_cx_http2_total.inc();
        let active = self.stats.manager.downstream_cx_http2_active;
        self.with_version(active)
    }

    fn with_version(mut self, active: Gauge) -> ConnectionGuard {
        self._version = Some(GaugeGuard::new(active));
        self
    }

    /// A connection whose version is not known yet.
    pub(super) fn new(stats: &Arc<HttpStats>) -> ConnectionGuard {
        stats.manager.downstream_cx_total.inc();
        ConnectionGuard {
            stats: Arc::clone(stats),
            by_peer: Cell::new(false),
            active_request: Cell::new(false),
            _active: GaugeGuard::new(stats.manager.downstream_cx_active),
            _version: None,
        }
    }

    /// The peer ended the connection.
    pub(super) fn closed_by_peer(&self) {
        self.by_peer.set(true);
    }

    pub(super) fn set_active_request(&self, active: bool) {
        self.active_request.set(active);
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let stats = &self.stats.manager;
        let active = self.active_request.get();
        stats.downstream_cx_destroy.inc();
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
