//! HTTP filters, and what routes say to them; each filter's settings are in a file of its own.

use std::sync::Arc;

use super::SetFilterState;
use crate::Extension;

mod buffer;
mod compression;
mod cors;
mod csrf;
mod fault;
mod header_mutation;
mod health_check;
mod local_rate_limit;
mod router;

pub use buffer::*;
pub use compression::*;
pub use cors::*;
pub use csrf::*;
pub use fault::*;
pub use header_mutation::*;
pub use health_check::*;
pub use local_rate_limit::*;
pub use router::*;

/// One entry of `http_filters`.
#[derive(Debug)]
pub struct HttpFilter {
    /// What `typed_per_filter_config` calls it.
    pub name: String,
    /// Only requests whose route says otherwise see it.
    pub disabled: bool,
    pub config: HttpFilterConfig,
}

/// An HTTP filter's settings.
#[derive(Debug)]
pub enum HttpFilterConfig {
    Buffer(Arc<Buffer>),
    Compressor(Arc<Compressor>),
    /// All it does is said on routes.
    Cors,
    Csrf(Arc<CsrfPolicy>),
    Decompressor(Arc<Decompressor>),
    Extension(Extension),
    Fault(Arc<Fault>),
    HeaderMutation(Arc<HeaderMutationFilter>),
    GrpcWeb,
    HealthCheck(Arc<HealthCheck>),
    LocalRateLimit(Arc<LocalRateLimit>),
    SetFilterState(Arc<SetFilterState>),
    Router(Arc<Router>),
}

/// One entry of `typed_per_filter_config`, of whatever level of a route configuration.
#[derive(Debug, Clone)]
pub struct RouteFilter {
    /// The filter it is for.
    pub name: Box<str>,
    /// `FilterConfig.disabled`: requests that take this route pass the filter by.
    pub disabled: bool,
    pub config: Option<RouteFilterConfig>,
}

/// What a route says to a filter. Of some filters these are other settings than the filter's own.
#[derive(Debug, Clone)]
pub enum RouteFilterConfig {
    Buffer(Arc<BufferPerRoute>),
    Compressor(Arc<CompressorPerRoute>),
    Cors(Arc<CorsPolicy>),
    Csrf(Arc<CsrfPolicy>),
    Extension(Extension),
    Fault(Arc<Fault>),
    HeaderMutation(Arc<Mutations>),
    LocalRateLimit(Arc<LocalRateLimit>),
}

/// HTTP filters of all chains of one connection manager: a stream has a bit for each but routers.
pub const MAX_HTTP_FILTERS: usize = 64;

impl RouteFilter {
    /// See [`HeaderMutations::tells_of_record`](super::HeaderMutations::tells_of_record).
    pub fn tells_of_record(&self) -> bool {
        matches!(&self.config, Some(RouteFilterConfig::HeaderMutation(mutations)) if mutations.tells_of_record())
    }
}
