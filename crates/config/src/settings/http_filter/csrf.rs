use crate::settings::{Fraction, StringMatcher};

/// `envoy.extensions.filters.http.csrf.v3.CsrfPolicy`, of the filter or of a route.
#[derive(Debug, Clone)]
pub struct CsrfPolicy {
    /// `filter_enabled`.
    pub enabled: Fraction,
    /// `shadow_enabled`: none when unset.
    pub shadow: Fraction,
    /// `additional_origins`, besides the request's own host: as host and port.
    pub origins: Vec<StringMatcher>,
}
