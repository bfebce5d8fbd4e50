use bytes::Bytes;

use crate::settings::{Fraction, StringMatcher};

/// `envoy.extensions.filters.http.cors.v3.CorsPolicy`. What one level does not say, the next one does.
#[derive(Debug, Clone)]
pub struct CorsPolicy {
    pub origins: Vec<StringMatcher>,
    /// These are empty where nothing is said.
    pub methods: Bytes,
    pub headers: Bytes,
    pub exposed_headers: Bytes,
    pub max_age: Bytes,
    pub credentials: Option<bool>,
    pub private_network: Option<bool>,
    /// `forward_not_matching_preflights`.
    pub forward_not_matching: Option<bool>,
    /// `filter_enabled`: all when unset.
    pub enabled: Fraction,
    /// `shadow_enabled`: none when unset.
    pub shadow: Fraction,
}
