//! Clusters and endpoints.

use std::sync::Arc;
use std::time::Duration;

use super::{Http1Options, Http2Options, Metadata, SocketAddress, SocketOption, StatsMatcher};

/// `envoy.config.cluster.v3.Cluster`.
#[derive(Debug)]
pub struct Cluster {
    pub name: Arc<str>,
    /// `alt_stat_name`; stats use the name (with `:` as `_`) when `None`.
    pub alt_stat_name: Option<String>,
    pub discovery: Discovery,
    /// `connect_timeout`, 5 s when unset.
    pub connect_timeout: Duration,
    /// `per_connection_buffer_limit_bytes`, 1 MiB when unset.
    pub buffer_limit: u32,
    pub lb_policy: LbPolicy,
    pub localities: Vec<LocalityEndpoints>,
    /// Indexed by [`super::Priority`] as `usize`.
    pub circuit_breakers: [CircuitBreaker; 2],
    pub protocol: UpstreamProtocol,
    /// For streams that go out as HTTP/1.
    pub http1: Http1Options,
    /// `common_http_protocol_options.idle_timeout`: 1 h when unset.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_requests_per_connection`.
    pub max_requests_per_connection: Option<u32>,
    /// `common_http_protocol_options.max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_headers_count`, 100 when unset.
    pub max_response_headers: u32,
    /// `common_http_protocol_options.max_response_headers_kb` in bytes; when unset 80 KiB, over HTTP/2 60 KiB.
    pub max_response_header_bytes: u32,
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `upstream_bind_config.source_address`.
    pub source_address: Option<SocketAddress>,
    /// `upstream_bind_config.freebind`.
    pub freebind: bool,
    pub socket_options: Vec<SocketOption>,
    /// Decides on the cluster's own stats in place of the bootstrap's.
    pub stats_matcher: Option<StatsMatcher>,
    pub metadata: Metadata,
}

impl Cluster {
    /// The middle of `cluster.<this>.` in the names of its stats.
    pub fn stat_name(&self) -> String {
        self.alt_stat_name.as_deref().unwrap_or(&self.name).replace(':', "_")
    }
}

#[derive(Debug, Clone)]
pub enum Discovery {
    Static,
    /// Every address of every name is a host.
    StrictDns(Dns),
    /// One host per name: the first address of the newest answer, for new connections.
    LogicalDns(Dns),
}

/// DNS fields of `Cluster` and `envoy.extensions.clusters.dns.v3.DnsCluster`.
#[derive(Debug, Clone)]
pub struct Dns {
    /// 5 s when unset.
    pub refresh_rate: Duration,
    /// After a failed look-up: base and maximum of the back-off; `refresh_rate` and `None` when unset.
    pub failure_refresh: (Duration, Option<Duration>),
    pub respect_ttl: bool,
    pub jitter: Duration,
    pub family: DnsFamily,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsFamily {
    /// IPv6 if there is any, else IPv4 (Envoy's AUTO).
    #[default]
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LbPolicy {
    #[default]
    RoundRobin,
}

/// `envoy.config.endpoint.v3.LocalityLbEndpoints`.
#[derive(Debug, Clone)]
pub struct LocalityEndpoints {
    pub region: String,
    pub zone: String,
    pub sub_zone: String,
    pub priority: u32,
    /// `load_balancing_weight` of the locality.
    pub weight: Option<u32>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub address: EndpointAddress,
    /// `hostname`, empty when unset.
    pub hostname: Box<str>,
    /// `load_balancing_weight`, 1 when unset.
    pub weight: u32,
    pub health: EndpointHealth,
    pub metadata: Metadata,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    Socket(SocketAddress),
    /// Only in DNS clusters.
    Name {
        host: Box<str>,
        port: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndpointHealth {
    #[default]
    Healthy,
    Degraded,
    Unhealthy,
    Draining,
}

/// `envoy.config.cluster.v3.CircuitBreakers.Thresholds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitBreaker {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    /// `track_remaining`.
    pub track_remaining: bool,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            track_remaining: false,
        }
    }
}

/// Which HTTP version a cluster's hosts speak (`HttpProtocolOptions` and its older spellings).
#[derive(Debug, Clone)]
pub enum UpstreamProtocol {
    Http1,
    Http2(Box<Http2Options>),
    /// `use_downstream_protocol_config`.
    SameAsDownstream(Box<Http2Options>),
}

/// `envoy.config.core.v3.TcpKeepalive`; `None` is the system's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}
