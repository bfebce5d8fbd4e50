use crate::settings::{
    Cidr, Format, Fraction, HeaderMatcher, HeaderMutations, MetadataOf, QueryMatcher, TokenBucket,
};

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
    /// `enable_retry_after_header`.
    pub tells_when: bool,
    /// `max_dynamic_descriptors`: how many values a descriptor with wildcards keeps buckets for.
    pub max_dynamic: usize,
}

/// `LocalRateLimitDescriptor`.
#[derive(Debug)]
pub struct LimitDescriptor {
    /// Keys and values, all of which a request has to have in this order; any value, if one is empty.
    pub entries: Vec<(String, String)>,
    pub bucket: TokenBucket,
    /// `shadow_mode`: only counts.
    pub shadow: bool,
}

/// `envoy.config.route.v3.RateLimit`: a descriptor, put together from what is known of a request. Where one of its parts is
/// missing there is none.
#[derive(Debug, Clone)]
pub struct RateLimit {
    pub stage: u32,
    /// False: it is there, and never describes a request (`disable_key`, `apply_on_stream_done`).
    pub applies: bool,
    pub actions: Vec<LimitAction>,
    pub hits: Hits,
    /// `x_ratelimit_option`, in place of the filter's.
    pub tells: Option<bool>,
}

/// `hits_addend`: how many tokens a request costs, or puts back.
#[derive(Debug, Clone)]
pub struct Hits {
    pub count: HitCount,
    /// `is_negative_hits`.
    pub puts_back: bool,
}

#[derive(Debug, Clone)]
pub enum HitCount {
    Fixed(u64),
    /// A single operator that yields a number up to [`MOST_HITS`]; where it yields anything else, there is no descriptor.
    Told(Format),
}

/// The most tokens that a request may cost.
pub const MOST_HITS: u64 = 1_000_000_000;

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
        value: LimitValue,
    },
    /// If the client is in one of these networks, or in none of them.
    RemoteAddressMatch {
        key: String,
        value: LimitValue,
        networks: Vec<Cidr>,
        invert: bool,
    },
    Metadata {
        key: String,
        of: MetadataOf,
        namespace: Box<str>,
        path: Box<[Box<str>]>,
        /// Where there is no text, or an empty one.
        default: Option<String>,
        /// Without a value there is no entry, but a descriptor.
        skip_if_absent: bool,
    },
    HeaderValueMatch {
        key: String,
        value: LimitValue,
        /// Whether the headers have to match, or not to.
        expect: bool,
        headers: Vec<HeaderMatcher>,
    },
    QueryParameterValueMatch {
        key: String,
        value: LimitValue,
        /// Whether the parameters have to match, or not to.
        expect: bool,
        parameters: Vec<QueryMatcher>,
    },
}

/// The value of an entry.
#[derive(Debug, Clone)]
pub enum LimitValue {
    Text(String),
    Format {
        format: Format,
        /// Where it yields nothing; if this is empty too, there is no descriptor.
        default: String,
    },
}
