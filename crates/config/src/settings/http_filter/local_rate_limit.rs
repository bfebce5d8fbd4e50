use crate::settings::{Fraction, HeaderMatcher, HeaderMutations, QueryMatcher, TokenBucket};

/// `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`, of the filter or of a route.
#[derive(Debug)]
pub struct LocalRateLimit {
    pub stat_prefix: String,
    /// Of refusals: 429 when unset, and for what is no error.
    pub status: u16,
    /// No limit but those of descriptors when `None`.
    pub bucket: Option<TokenBucket>,
    /// `filter_enabled`, none when unset.
    pub enabled: Fraction,
    /// `filter_enforced`, none when unset.
    pub enforced: Fraction,
    /// Of requests that go on although they are too many.
    pub request_headers: HeaderMutations,
    /// Of refusals.
    pub response_headers: HeaderMutations,
    pub descriptors: Vec<LimitDescriptor>,
    /// What a request is described by; where it is empty, what its route and its virtual host say.
    pub rate_limits: Vec<RateLimit>,
    /// Which of those of routes and virtual hosts count.
    pub stage: u32,
    /// `vh_rate_limits`, of a route's settings only.
    pub of_virtual_host: VirtualHostLimits,
    /// `local_rate_limit_per_downstream_connection`.
    pub per_connection: bool,
    /// `always_consume_default_token_bucket`, true when unset.
    pub always_default: bool,
    /// `enable_x_ratelimit_headers`.
    pub tells: bool,
    /// `rate_limited_as_resource_exhausted`.
    pub resource_exhausted: bool,
}

/// `LocalRateLimitDescriptor`.
#[derive(Debug)]
pub struct LimitDescriptor {
    /// Keys and values, all of which a request has to have in this order.
    pub entries: Vec<(String, String)>,
    pub bucket: TokenBucket,
}

/// `envoy.config.route.v3.RateLimit`: a descriptor, put together from what is known of a request. Where one of its parts is
/// missing there is none.
#[derive(Debug, Clone)]
pub struct RateLimit {
    pub stage: u32,
    pub actions: Vec<LimitAction>,
}

/// Whether the rate limits of a virtual host count for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VirtualHostLimits {
    /// If the route has none.
    #[default]
    Override,
    Include,
    Ignore,
}

/// One entry of a descriptor.
#[derive(Debug, Clone)]
pub enum LimitAction {
    /// `node.cluster`.
    SourceCluster,
    DestinationCluster,
    RequestHeader {
        /// Lower-cased.
        name: Box<str>,
        key: String,
        /// Without the header there is no entry, but a descriptor.
        skip_if_absent: bool,
    },
    QueryParameter {
        name: Box<str>,
        key: String,
        /// Without the parameter there is no entry, but a descriptor.
        skip_if_absent: bool,
    },
    /// The client's, as the connection manager found it.
    RemoteAddress,
    /// The network of so many bits that the client is in.
    MaskedRemoteAddress {
        v4: u8,
        v6: u8,
    },
    GenericKey {
        key: String,
        value: String,
    },
    HeaderValueMatch {
        key: String,
        value: String,
        /// Whether the headers have to match, or not to.
        expect: bool,
        headers: Vec<HeaderMatcher>,
    },
    QueryParameterValueMatch {
        key: String,
        value: String,
        /// Whether the parameters have to match, or not to.
        expect: bool,
        parameters: Vec<QueryMatcher>,
    },
}
