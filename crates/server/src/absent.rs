//! Stats of whole subsystems that Envoy has in every process and that do not exist here: there, and zero.

use proxy_config::settings;
use proxy_filters::hcm::RouterStats;
use proxy_http::h1;
use proxy_stats::{Declared, ImportMode, Scope};

/// Keeps those that have a scope of their own.
pub(crate) struct AbsentStats {
    _async_client: RouterStats,
    _http1: Scope,
}

impl AbsentStats {
    /// `root` is the scope of the whole store.
    pub(crate) fn new(root: &Scope) -> AbsentStats {
        root.declare(&PROCESS_DECLARED);
        let http1 = root.scope("http1.");
        // Envoy has them from the first connection on, and whoever asks for them has one.
        http1.declare(&h1::stats::CODEC_DECLARED);
        AbsentStats { _async_client: RouterStats::under(&root.scope("http.async-client.")), _http1: http1 }
    }
}

/// What there is of it: layers that never change.
pub(crate) fn runtime(root: &Scope, runtime: &settings::Runtime) {
    root.gauge("runtime.num_keys", ImportMode::NeverImport).set(runtime.values.len() as u64);
    root.gauge("runtime.num_layers", ImportMode::NeverImport).set(runtime.layers as u64);
}

/// Runtime and overload manager.
const PROCESS_DECLARED: Declared = Declared {
    counters: &[
        "envoy.overload_actions.reset_high_memory_stream.count",
        "runtime.deprecated_feature_use",
        "runtime.load_error",
        "runtime.load_success",
        "runtime.override_dir_exists",
        "runtime.override_dir_not_exists",
    ],
    gauges: &["runtime.admin_overrides_active", "runtime.deprecated_feature_seen_since_process_start"],
    histograms: &["overload.refresh_interval_delay"],
};
