//! What HTTP/2 connections count under Envoy's names: `http2.*` for clients, `cluster.<name>.http2.*` for hosts.

use proxy_stats::stats_block;

stats_block! {
    /// The part of Envoy's codec stats that `h2` tells of.
    pub struct Http2Stats {
        counters: goaway_sent, header_overflow, keepalive_timeout, rx_messaging_error, rx_reset, stream_refused_errors,
            trailers, tx_reset;
        gauges: pending_send_bytes: Accumulate, streams_active: Accumulate;
    }
}
