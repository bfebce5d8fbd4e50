//! The names of Envoy's HTTP/1 codec stats: `http1.*` for clients, `cluster.<name>.http1.*` for hosts.

use proxy_stats::Declared;

/// There from the first connection of HTTP/1 on, as in Envoy. What they count does not happen here: underscores are
/// always allowed, and responses are made one at a time.
pub const CODEC_DECLARED: Declared = Declared {
    counters: &[
        "dropped_headers_with_underscores",
        "metadata_not_supported_error",
        "requests_rejected_with_underscores_in_headers",
        "response_flood",
    ],
    gauges: &[],
    histograms: &[],
};
