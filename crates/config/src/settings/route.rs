//! Route configurations (`envoy.config.route.v3`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regex::bytes::Regex;

use super::{Format, HeaderMatcher, Metadata, Operator, QueryMatcher, RateLimit, RouteFilter};

/// `RouteConfiguration`.
#[derive(Debug, Default)]
pub struct RouteConfiguration {
    pub name: String,
    pub virtual_hosts: Vec<VirtualHost>,
    pub request_headers: HeaderMutations,
    pub response_headers: HeaderMutations,
    /// `most_specific_header_mutations_wins`: route configuration first, route last.
    pub most_specific_wins: bool,
    /// `ignore_port_in_host_matching`.
    pub ignore_port: bool,
    /// `typed_per_filter_config`.
    pub filters: Vec<RouteFilter>,
}

#[derive(Debug)]
pub struct VirtualHost {
    pub name: String,
    pub domains: Vec<Domain>,
    pub routes: Vec<Arc<Route>>,
    pub request_headers: HeaderMutations,
    pub response_headers: HeaderMutations,
    pub require_tls: RequireTls,
    pub rate_limits: Vec<RateLimit>,
    pub metadata: Metadata,
    /// `typed_per_filter_config`.
    pub filters: Vec<RouteFilter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequireTls {
    #[default]
    None,
    ExternalOnly,
    All,
}

/// A virtual-host domain, lower-cased. Exact beats the longest suffix, which beats the longest prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    Exact(Box<str>),
    /// `*.example.com` or `*-bar`: the text after the `*`.
    Suffix(Box<str>),
    /// `foo.*`: the text before the `*`.
    Prefix(Box<str>),
    Any,
}

#[derive(Debug)]
pub struct Route {
    pub name: String,
    pub matches: RouteMatch,
    pub action: RouteAction,
    pub request_headers: HeaderMutations,
    pub response_headers: HeaderMutations,
    pub metadata: Metadata,
    /// `typed_per_filter_config`.
    pub filters: Vec<RouteFilter>,
}

#[derive(Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    /// False makes prefix, path and path-separated-prefix match in any case; the literals are lower-cased then.
    pub case_sensitive: bool,
    pub headers: Vec<HeaderMatcher>,
    pub query: Vec<QueryMatcher>,
    /// `runtime_fraction` default value: matches this many of a million requests; `None` is all.
    pub fraction_ppm: Option<u32>,
    /// `grpc`: only requests whose content-type is gRPC.
    pub grpc: bool,
}

/// All but `Prefix` look at the path without its query; so does `Prefix` in effect.
#[derive(Debug, Clone)]
pub enum PathMatch {
    Prefix(Box<[u8]>),
    Exact(Box<[u8]>),
    /// Whole path without query.
    Regex(Regex),
    /// `/api` matches `/api`, `/api/` and `/api/x`, never `/apix`. No trailing slash here.
    SeparatedPrefix(Box<[u8]>),
    /// `connect_matcher`: CONNECT requests, which have no path, and no others.
    Connect,
}

#[derive(Debug)]
pub enum RouteAction {
    Forward(Box<Forward>),
    Redirect(Box<Redirect>),
    Direct(DirectResponse),
    /// `non_forwarding_action`: matches, and has no cluster.
    NonForwarding,
}

/// `RouteAction` of the v3 API.
#[derive(Debug)]
pub struct Forward {
    pub target: ClusterTarget,
    /// `cluster_not_found_response_code`: 503 (default), 404 or 500.
    pub cluster_not_found_status: u16,
    pub path_rewrite: Option<PathRewrite>,
    pub host_rewrite: Option<HostRewrite>,
    pub append_x_forwarded_host: bool,
    /// `timeout`: 15 s when unset, `None` when 0. From the end of the request to the end of the response.
    pub timeout: Option<Duration>,
    /// `idle_timeout` of the stream; outer `None`: the connection manager's, `Some(None)`: disabled.
    pub idle_timeout: Option<Option<Duration>>,
    /// `flush_timeout`; outer `None`: the connection manager's, `Some(None)`: disabled.
    pub flush_timeout: Option<Option<Duration>>,
    /// `max_stream_duration.max_stream_duration`.
    pub max_stream_duration: Option<Option<Duration>>,
    pub priority: Priority,
    pub rate_limits: Vec<RateLimit>,
    /// `include_vh_rate_limits`.
    pub include_virtual_host_limits: bool,
    /// `upgrade_configs`: what this route says otherwise than the connection manager.
    pub upgrades: Vec<RouteUpgrade>,
    /// `connect_config` among them: what is sent upstream.
    pub terminated: Terminated,
}

/// `RouteAction.UpgradeConfig`.
#[derive(Debug)]
pub struct RouteUpgrade {
    /// What stands in `upgrade`, in any case; `CONNECT` for that method.
    pub kind: Box<str>,
    pub enabled: bool,
}

/// Which requests of a route end here, so that the host gets no request but the bytes of the body over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Terminated {
    #[default]
    None,
    Connect,
    /// `allow_post`.
    ConnectAndPost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Priority {
    #[default]
    Default,
    High,
}

#[derive(Debug)]
pub enum ClusterTarget {
    Cluster(Arc<str>),
    /// Name of the request header that names the cluster, lower-cased.
    Header(Box<str>),
    Weighted(WeightedClusters),
}

#[derive(Debug)]
pub struct WeightedClusters {
    pub clusters: Vec<WeightedCluster>,
    /// Sum of weights, at least 1.
    pub total: u32,
    /// `header_name`: take the random value from this header when it holds an integer.
    pub random_value_header: Option<Box<str>>,
}

#[derive(Debug)]
pub struct WeightedCluster {
    pub name: Arc<str>,
    pub weight: u32,
    pub request_headers: HeaderMutations,
    pub response_headers: HeaderMutations,
    pub host_rewrite: Option<Bytes>,
    /// `typed_per_filter_config`.
    pub filters: Vec<RouteFilter>,
}

/// A cluster and its weight, where nothing else hangs on the choice (`tcp_proxy`).
#[derive(Debug, Clone)]
pub struct ClusterWeight {
    pub name: Arc<str>,
    pub weight: u32,
}

#[derive(Debug, Clone)]
pub enum PathRewrite {
    /// Replaces the matched prefix (or the whole path of an exact match).
    Prefix(Bytes),
    /// `regex_rewrite`: every match in the path without its query (RE2 GlobalReplace). `substitution` is in `regex` crate syntax.
    Regex { pattern: Regex, substitution: Bytes },
}

#[derive(Debug, Clone)]
pub enum HostRewrite {
    Literal(Bytes),
    /// `auto_host_rewrite`: the upstream host's name.
    Auto,
    /// `host_rewrite_header`, lower-cased.
    Header(Box<str>),
    /// `host_rewrite_path_regex`.
    PathRegex {
        pattern: Regex,
        substitution: Bytes,
    },
}

#[derive(Debug)]
pub struct Redirect {
    pub scheme: Option<RedirectScheme>,
    pub host: Option<Bytes>,
    pub port: Option<u16>,
    pub path: Option<RedirectPath>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    pub strip_query: bool,
}

#[derive(Debug, Clone)]
pub enum RedirectScheme {
    Https,
    Other(Bytes),
}

#[derive(Debug, Clone)]
pub enum RedirectPath {
    Whole(Bytes),
    Prefix(Bytes),
    Regex { pattern: Regex, substitution: Bytes },
}

/// `DirectResponseAction`; a body from a file is read when lowered.
#[derive(Debug)]
pub struct DirectResponse {
    pub status: u16,
    pub body: Bytes,
}

/// Headers to remove, then to add, at one level of a route configuration.
#[derive(Debug, Default, Clone)]
pub struct HeaderMutations {
    /// Lower-cased names.
    pub remove: Vec<Box<str>>,
    pub add: Vec<HeaderAddition>,
}

impl HeaderMutations {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Whether a value tells what is only noted of a stream where somebody wants to know it.
    pub fn tells_of_record(&self) -> bool {
        let mut values = self.add.iter().map(|addition| &addition.value);
        values.any(|value| match value {
            HeaderValue::Constant(_) => false,
            HeaderValue::Format(format) => format.operators().any(Operator::tells_of_record),
        })
    }
}

impl RouteConfiguration {
    /// See [`HeaderMutations::tells_of_record`]: of any mutations in it.
    pub fn tells_of_record(&self) -> bool {
        let either = |request: &HeaderMutations, response: &HeaderMutations| {
            request.tells_of_record() || response.tells_of_record()
        };
        let filters = |filters: &[RouteFilter]| filters.iter().any(RouteFilter::tells_of_record);
        let of_route = |route: &Arc<Route>| {
            let weighted = match &route.action {
                RouteAction::Forward(forward) => forward.target.weighted(),
                RouteAction::Redirect(_) | RouteAction::Direct(_) | RouteAction::NonForwarding => &[],
            };
            either(&route.request_headers, &route.response_headers)
                || filters(&route.filters)
                || weighted.iter().any(|cluster| {
                    either(&cluster.request_headers, &cluster.response_headers) || filters(&cluster.filters)
                })
        };
        either(&self.request_headers, &self.response_headers)
            || filters(&self.filters)
            || self.virtual_hosts.iter().any(|host| {
                either(&host.request_headers, &host.response_headers)
                    || filters(&host.filters)
                    || host.routes.iter().any(of_route)
            })
    }
}

impl ClusterTarget {
    /// The clusters among which the weights decide; none where there is no such choice.
    pub fn weighted(&self) -> &[WeightedCluster] {
        match self {
            ClusterTarget::Weighted(weighted) => &weighted.clusters,
            ClusterTarget::Cluster(_) | ClusterTarget::Header(_) => &[],
        }
    }
}

/// `HeaderValueOption`.
#[derive(Debug, Clone)]
pub struct HeaderAddition {
    /// Lower-cased.
    pub name: Box<str>,
    pub value: HeaderValue,
    pub action: AppendAction,
    pub keep_empty: bool,
}

/// What a header is to say.
#[derive(Debug, Clone)]
pub enum HeaderValue {
    /// Without NUL, CR and LF.
    Constant(Bytes),
    /// Filled in for each message; what has no value is left out.
    Format(Format),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}
