//! Listeners, filter chains and the network filters in them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::Extension;

use super::{
    AccessLog, AccessLogOptions, ClusterWeight, ConnectionLimit, HeaderMutations, HeaderValue,
    HttpConnectionManager, Metadata, NetworkRateLimit, NetworkRbac, SetFilterState, StatsMatcher,
    TcpKeepalive,
};

/// Where to listen or connect; always literal (names are an [`super::EndpointAddress`]).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    Ip(SocketAddr),
    /// `Pipe`: a path, or an abstract name (which starts with `@` in the file).
    Pipe {
        path: PathBuf,
        abstract_name: bool,
        mode: u32,
    },
}

/// `envoy.config.listener.v3.Listener`.
#[derive(Debug)]
pub struct Listener {
    /// Never empty: a listener without a name is given its address.
    pub name: Arc<str>,
    pub address: ListenAddress,
    pub additional_addresses: Vec<ListenAddress>,
    /// Without, it has no sockets: connections come only from a listener that hands them over by their original
    /// destination.
    pub bind_to_port: bool,
    /// `stat_prefix`; stats use the address (with `:` as `_`) when `None`.
    pub stat_prefix: Option<String>,
    /// Decides on the stats of the listener and its filters in place of the bootstrap's.
    pub stats_matcher: Option<StatsMatcher>,
    /// `listener_filters`, which see a connection before its chain is chosen.
    pub listener_filters: Vec<ListenerFilter>,
    /// `listener_filters_timeout`: 15 s when unset.
    pub listener_filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`.
    pub continue_on_timeout: bool,
    pub metadata: Metadata,
    pub chains: Vec<Arc<FilterChain>>,
    /// Index into `chains` decided by [`FilterChainMatch`]; this one when none matches.
    pub default_chain: Option<Arc<FilterChain>>,
    /// `enable_reuse_port`, true when unset: one socket per worker.
    pub reuse_port: bool,
    /// `tcp_backlog_size`; Envoy's platform default when `None`.
    pub backlog: Option<u32>,
    /// `per_connection_buffer_limit_bytes`, 1 MiB when unset.
    pub buffer_limit: u32,
    /// `max_connections_to_accept_per_socket_event`; all that wait when unset, as in Envoy 1.40.
    pub accepts_per_event: u32,
    pub transparent: bool,
    pub freebind: bool,
    /// `connection_balance_config.exact_balance`: each connection goes to the worker that has the fewest.
    pub exact_balance: bool,
    /// `ignore_global_conn_limit`: its connections neither count against the limit on all, nor are they refused by it.
    pub ignores_global_limit: bool,
    /// The runtime key `envoy.resource_limits.listener.<name>.connection_limit`.
    pub max_connections: Option<u64>,
    pub traffic_direction: TrafficDirection,
    /// `drain_type == MODIFY_ONLY`: ignores `/healthcheck/fail`.
    pub drain_modify_only: bool,
    /// `access_log`: a line per connection.
    pub access_logs: Arc<[AccessLog]>,
}

/// One address of a listener, and what is set on its sockets alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    pub address: SocketAddress,
    /// `socket_address.ipv4_compat`: an IPv6 listener also takes IPv4.
    pub ipv4_compat: bool,
    pub socket_options: Vec<SocketOption>,
    pub tcp_keepalive: Option<TcpKeepalive>,
}

impl Listener {
    /// The first is the one that the listener is called by.
    pub fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        std::iter::once(&self.address).chain(&self.additional_addresses)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficDirection {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// `envoy.config.core.v3.SocketOption`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOption {
    pub level: i32,
    pub name: i32,
    pub value: SocketOptionValue,
    pub state: SocketOptionState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketOptionValue {
    Int(i32),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOptionState {
    PreBind,
    Bound,
    Listening,
}

/// `envoy.config.listener.v3.FilterChain`: network filters, the last one terminal. Without any, as Envoy
/// allows, a connection is closed as soon as it is accepted.
#[derive(Debug)]
pub struct FilterChain {
    pub name: String,
    pub metadata: Metadata,
    pub matches: FilterChainMatch,
    pub filters: Vec<NetworkFilter>,
    /// `transport_socket_connect_timeout`.
    pub transport_connect_timeout: Option<Duration>,
}

/// `envoy.config.listener.v3.FilterChainMatch`. An empty list matches everything.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct FilterChainMatch {
    pub destination_port: Option<u16>,
    pub destination_prefixes: Vec<Cidr>,
    pub source_type: SourceType,
    pub source_prefixes: Vec<Cidr>,
    pub source_ports: Vec<u16>,
    pub direct_source_prefixes: Vec<Cidr>,
    /// Lower-cased; `*.suffix` allowed. Matched from the transport (TLS), so never on cleartext.
    pub server_names: Vec<String>,
    /// "raw_buffer" or "tls"; empty matches both.
    pub transport_protocol: String,
    pub application_protocols: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}

/// `envoy.config.core.v3.CidrRange`, with host bits cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix_len: u8,
}

impl Cidr {
    /// Whether `ip` lies in the range; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len.min(32))).unwrap_or(0);
                u32::from(net) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_len.min(128))).unwrap_or(0);
                u128::from(net) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }
}

/// One entry of `FilterChain.filters`.
#[derive(Debug)]
pub struct NetworkFilter {
    pub name: String,
    pub config: NetworkFilterConfig,
}

#[derive(Debug)]
pub enum NetworkFilterConfig {
    TcpProxy(Arc<TcpProxy>),
    HttpConnectionManager(Arc<HttpConnectionManager>),
    /// `envoy.extensions.filters.network.direct_response.v3.Config`: sends this as soon as a connection is made, and closes it.
    DirectResponse(Bytes),
    Echo,
    ConnectionLimit(Arc<ConnectionLimit>),
    LocalRateLimit(Arc<NetworkRateLimit>),
    Rbac(Arc<NetworkRbac>),
    SetFilterState(Arc<SetFilterState>),
    Extension(Extension),
}

/// One entry of `listener_filters`. There are none but those that a program adds.
#[derive(Debug)]
pub struct ListenerFilter {
    pub name: String,
    pub config: Extension,
}

impl NetworkFilterConfig {
    /// Whether it serves connections itself, so that it has to be the last one of its chain.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::TcpProxy(_) | Self::HttpConnectionManager(_) | Self::DirectResponse(_) | Self::Echo => true,
            Self::ConnectionLimit(_)
            | Self::LocalRateLimit(_)
            | Self::Rbac(_)
            | Self::SetFilterState(_)
            | Self::Extension(_) => false,
        }
    }

    /// Whether it can be the last one; of what a program adds, only that knows.
    pub fn may_end_chain(&self) -> bool {
        self.is_terminal() || matches!(self, Self::Extension(_))
    }
}

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Debug)]
pub struct TcpProxy {
    pub stat_prefix: String,
    /// One or more; a single `cluster` is one entry of weight 1.
    pub clusters: Vec<ClusterWeight>,
    /// `idle_timeout`: 1 h when unset, `None` when 0.
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`.
    pub max_duration: Option<Duration>,
    /// `max_connect_attempts`, 1 when unset.
    pub max_connect_attempts: u32,
    /// `tunneling_config`.
    pub tunneling: Option<Tunneling>,
    /// `access_log`.
    pub access_logs: Arc<[AccessLog]>,
    pub access_log_options: AccessLogOptions,
}

/// `TcpProxy.TunnelingConfig`: the stream goes through a proxy upstream, as an HTTP request of the cluster's version.
#[derive(Debug)]
pub struct Tunneling {
    /// `hostname`: where that proxy is to connect to.
    pub hostname: HeaderValue,
    /// `use_post` and `post_path`; `None`: CONNECT.
    pub post_path: Option<Bytes>,
    /// `headers_to_add`.
    pub headers: HeaderMutations,
}
