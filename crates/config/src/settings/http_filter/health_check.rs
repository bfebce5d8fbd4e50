use std::time::Duration;

use crate::settings::HeaderMatcher;

/// `envoy.extensions.filters.http.health_check.v3.HealthCheck`.
#[derive(Debug)]
pub struct HealthCheck {
    /// Which requests are health checks: all of these match.
    pub headers: Vec<HeaderMatcher>,
    pub mode: HealthCheckMode,
}

#[derive(Debug)]
pub enum HealthCheckMode {
    /// Answered here; 503 also when one of these clusters has a smaller share of healthy hosts, in percent.
    Answered { clusters: Vec<(Box<str>, f64)> },
    /// `pass_through_mode`: answered by the upstream, or for `cache_time` as it did last.
    PassThrough { cache_time: Option<Duration> },
}
