//! The names of Envoy's HTTP/1 codec stats: `http1.*` for clients, `cluster.<name>.http1.*` for hosts.

use proxy_stats::{Declared, Scope, stats_block};

stats_block! {
    /// The part of Envoy's codec stats that happens here.
    pub struct Http1Stats {
        counters: dropped_headers_with_underscores, requests_rejected_with_underscores_in_headers;
    }
}

impl Http1Stats {
    /// `http1.*` under `root`.
    pub fn under(root: &Scope) -> Http1Stats {
        Http1Stats::new(&root.scope("http1."))
    }
}

/// There from the first connection of HTTP/1 on, as in Envoy. Responses are made one at a time, so there are no floods of
/// them; hosts may use underscores as they like.
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
