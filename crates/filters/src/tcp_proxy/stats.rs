//! The stats of `tcp_proxy`, `tcp.<stat_prefix>.*`, under Envoy's names.

use proxy_stats::{Scope, stats_block};

stats_block! {
    /// `tcp.<stat_prefix>.*`.
    pub struct TcpCounters {
        counters: downstream_cx_drain_close, downstream_cx_no_route, downstream_cx_overload_close,
            downstream_cx_rx_bytes_total, downstream_cx_total, downstream_cx_tx_bytes_total,
            downstream_flow_control_paused_reading_total, downstream_flow_control_resumed_reading_total,
            early_data_received_count_total, idle_timeout, max_downstream_connection_duration, route_delayed_total,
            upstream_flush_total;
        gauges: downstream_cx_rx_bytes_buffered: Accumulate, downstream_cx_tx_bytes_buffered: Accumulate,
            upstream_flush_active: Accumulate;
    }
}

/// The stats of all `tcp_proxy` filters with one prefix.
pub struct TcpStats {
    pub counters: TcpCounters,
}

impl TcpStats {
    /// `root` is the scope of the whole store.
    pub fn new(root: &Scope, stat_prefix: &str) -> TcpStats {
        let scope = root.scope(&format!("tcp.{}.", stat_prefix.replace(':', "_")));
        TcpStats { counters: TcpCounters::new(&scope) }
    }
}
