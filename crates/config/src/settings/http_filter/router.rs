use std::sync::Arc;

use crate::settings::AccessLog;

/// `envoy.extensions.filters.http.router.v3.Router`.
#[derive(Debug, Default)]
pub struct Router {
    pub suppress_envoy_headers: bool,
    /// `respect_expected_rq_timeout`.
    pub respect_expected_timeout: bool,
    /// `upstream_log`: a line per attempt at a host.
    pub upstream_logs: Arc<[AccessLog]>,
}
