//! What HTTP/2 connections count under Envoy's names: `http2.*` for clients, `cluster.<name>.http2.*` for hosts.

use proxy_stats::{Declared, Scope, stats_block};

stats_block! {
    /// The part of Envoy's codec stats that `h2` tells of.
    pub struct Http2Stats {
        counters: dropped_headers_with_underscores, goaway_sent, header_overflow, inbound_empty_frames_flood,
            inbound_priority_frames_flood, inbound_window_update_frames_flood, keepalive_timeout, metadata_empty_frames,
            outbound_control_flood, outbound_flood, requests_rejected_with_underscores_in_headers, rx_messaging_error, rx_reset, stream_refused_errors,
            trailers, tx_flush_timeout, tx_reset;
        gauges: outbound_control_frames_active: Accumulate, outbound_frames_active: Accumulate, pending_send_bytes: Accumulate, streams_active: Accumulate;
    }
}

impl Http2Stats {
    /// All of Envoy's names under `http2.` of `parent`; there from the first connection of HTTP/2 on, as in Envoy.
    pub fn under(parent: &Scope) -> Http2Stats {
        let scope = parent.scope("http2.");
        scope.declare(&CODEC_DECLARED);
        Http2Stats::new(&scope)
    }
}

/// What `h2` does not do, or does without telling.
const CODEC_DECLARED: Declared = Declared {
    counters: &["cookies_total_bytes_too_large", "header_list_size_too_large", "headers_cb_no_stream"],
    gauges: &["deferred_stream_close"],
    histograms: &["cookie_count", "cookie_size", "header_count", "header_list_size"],
};
