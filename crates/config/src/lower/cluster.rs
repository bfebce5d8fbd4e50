//! Clusters: discovery, balancing, limits and connections.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster_v3;
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as TypedFamily;
use envoy_types::pb::envoy::extensions::clusters::dns::v3 as dns_v3;
use envoy_types::pb::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use envoy_types::pb::google::protobuf::Duration as DurationMessage;

use super::address::Hosts;
use super::{Context, address, any, endpoint, metadata, protocol, stats, value};
use crate::settings::{
    CircuitBreaker, Cluster, Discovery, Dns, DnsFamily, EndpointAddress, LbPolicy, UpstreamProtocol,
};
use crate::{Code, Path};

pub(super) fn lower(context: &mut Context<'_>, path: &Path<'_>, message: &cluster_v3::Cluster) -> Cluster {
    if message.name.is_empty() {
        context.missing(&path.field("name"), "a name is required");
    }
    let discovery = discovery(context, path, message);
    let timeout = path.field("connect_timeout");
    let connect_timeout = value::duration(context, &timeout, message.connect_timeout.as_ref());
    if connect_timeout.is_some_and(|timeout| timeout.is_zero()) {
        context.error(&timeout, Code::OUT_OF_RANGE, "a time greater than 0s is expected");
    }
    let upstream = protocol::upstream(context, path, message);
    let bind = path.field("upstream_bind_config");
    let bind_config = message.upstream_bind_config.as_ref();
    let options = bind_config.map(|message| message.socket_options.as_slice()).unwrap_or_default();
    let socket_options = address::socket_options(context, &bind.field("socket_options"), options);
    let source = bind_config.and_then(|message| message.source_address.as_ref());
    let source = source.and_then(|message| {
        match address::socket(context, &bind.field("source_address"), message, Hosts::Ip)? {
            EndpointAddress::Socket(address) => Some(address),
            EndpointAddress::Name { .. } => None,
        }
    });
    let connection = message.upstream_connection_options.as_ref();
    let keepalive = connection.and_then(|options| options.tcp_keepalive.as_ref());
    Cluster {
        name: message.name.as_str().into(),
        metadata: metadata::lower(message.metadata.as_ref()),
        alt_stat_name: Some(message.alt_stat_name.clone()).filter(|name| !name.is_empty()),
        localities: endpoint::localities(context, path, message.load_assignment.as_ref(), &discovery),
        discovery,
        connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(5)),
        buffer_limit: message.per_connection_buffer_limit_bytes.as_ref().map_or(1 << 20, |limit| limit.value),
        lb_policy: lb_policy(context, path, message),
        circuit_breakers: circuit_breakers(context, path, message.circuit_breakers.as_ref()),
        http1: upstream.http1,
        idle_timeout: upstream.common.idle_timeout,
        max_requests_per_connection: upstream.common.max_requests_per_connection,
        max_connection_duration: upstream.common.max_connection_duration,
        max_response_headers: upstream.common.max_headers,
        max_response_header_bytes: upstream.common.max_response_header_bytes.unwrap_or(
            if matches!(upstream.protocol, UpstreamProtocol::Http1) { 80 << 10 } else { 60 << 10 },
        ),
        protocol: upstream.protocol,
        tcp_keepalive: keepalive.and_then(address::tcp_keepalive),
        source_address: source,
        freebind: bind_config.is_some_and(|message| value::flag(message.freebind.as_ref(), false)),
        socket_options,
        stats_matcher: stats::matcher(context, &path.field("stats_matcher"), message.stats_matcher.as_ref()),
    }
}

fn discovery(context: &mut Context<'_>, path: &Path<'_>, message: &cluster_v3::Cluster) -> Discovery {
    use cluster_v3::cluster::{ClusterDiscoveryType, DiscoveryType};
    let here = path.field("type");
    match &message.cluster_discovery_type {
        None => Discovery::Static,
        Some(ClusterDiscoveryType::Type(kind)) => match value::enumeration(context, &here, *kind) {
            DiscoveryType::Static => Discovery::Static,
            DiscoveryType::StrictDns => Discovery::StrictDns(untyped_dns(context, path, message)),
            DiscoveryType::LogicalDns => Discovery::LogicalDns(untyped_dns(context, path, message)),
            DiscoveryType::Eds | DiscoveryType::OriginalDst => {
                context.error(&here, Code::UNSUPPORTED_VALUE, "this type of cluster is not supported");
                Discovery::Static
            }
        },
        Some(ClusterDiscoveryType::ClusterType(kind)) => {
            typed_discovery(context, path, message, kind).unwrap_or(Discovery::Static)
        }
    }
}

fn typed_discovery(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &cluster_v3::Cluster,
    kind: &cluster_v3::cluster::CustomClusterType,
) -> Option<Discovery> {
    let here = path.field("cluster_type");
    let here = here.field("typed_config");
    let Some(any) = &kind.typed_config else {
        // The names of Envoy's own types, which then look at the fields of the cluster.
        match kind.name.as_str() {
            "envoy.cluster.static" => return Some(Discovery::Static),
            "envoy.cluster.strict_dns" => {
                return Some(Discovery::StrictDns(untyped_dns(context, path, message)));
            }
            "envoy.cluster.logical_dns" => {
                return Some(Discovery::LogicalDns(untyped_dns(context, path, message)));
            }
            name => {
                let message = format_args!("the cluster type {name:?} is not supported");
                context.refused_type(&path.field("cluster_type"), message);
            }
        }
        return None;
    };
    if !any::holds::<dns_v3::DnsCluster>(any) {
        let name = any::type_name(any);
        context.refused_type(&here, format_args!("the cluster type {name} is not supported"));
        return None;
    }
    let message: dns_v3::DnsCluster = any::decode(context, &here, any)?;
    let family =
        match value::enumeration(context, &here.field("dns_lookup_family"), message.dns_lookup_family) {
            TypedFamily::Unspecified | TypedFamily::Auto => DnsFamily::Auto,
            TypedFamily::V4Only => DnsFamily::V4Only,
            TypedFamily::V6Only => DnsFamily::V6Only,
            TypedFamily::V4Preferred => DnsFamily::V4Preferred,
            TypedFamily::All => DnsFamily::All,
        };
    let failure = message.dns_failure_refresh_rate.as_ref();
    let fields = DnsFields {
        refresh_rate: message.dns_refresh_rate.as_ref(),
        failure: failure.map(|rate| (rate.base_interval.as_ref(), rate.max_interval.as_ref())),
        jitter: message.dns_jitter.as_ref(),
        respect_ttl: message.respect_dns_ttl,
        family,
    };
    let dns = dns(context, &here, fields);
    Some(match message.all_addresses_in_single_endpoint {
        true => Discovery::LogicalDns(dns),
        false => Discovery::StrictDns(dns),
    })
}

/// The DNS fields that `Cluster` and `DnsCluster` have in common.
struct DnsFields<'m> {
    refresh_rate: Option<&'m DurationMessage>,
    failure: Option<(Option<&'m DurationMessage>, Option<&'m DurationMessage>)>,
    jitter: Option<&'m DurationMessage>,
    respect_ttl: bool,
    family: DnsFamily,
}

#[expect(deprecated, reason = "the older spellings are part of the v3 API")]
fn untyped_dns(context: &mut Context<'_>, path: &Path<'_>, message: &cluster_v3::Cluster) -> Dns {
    use cluster_v3::cluster::DnsLookupFamily as Family;
    let family =
        match value::enumeration(context, &path.field("dns_lookup_family"), message.dns_lookup_family) {
            Family::Auto => DnsFamily::Auto,
            Family::V4Only => DnsFamily::V4Only,
            Family::V6Only => DnsFamily::V6Only,
            Family::V4Preferred => DnsFamily::V4Preferred,
            Family::All => DnsFamily::All,
        };
    let failure = message.dns_failure_refresh_rate.as_ref();
    let fields = DnsFields {
        refresh_rate: message.dns_refresh_rate.as_ref(),
        failure: failure.map(|rate| (rate.base_interval.as_ref(), rate.max_interval.as_ref())),
        jitter: message.dns_jitter.as_ref(),
        respect_ttl: message.respect_dns_ttl,
        family,
    };
    dns(context, path, fields)
}

fn dns(context: &mut Context<'_>, path: &Path<'_>, fields: DnsFields<'_>) -> Dns {
    let refresh = path.field("dns_refresh_rate");
    let refresh_rate =
        value::duration(context, &refresh, fields.refresh_rate).unwrap_or(Duration::from_secs(5));
    if refresh_rate < Duration::from_millis(1) {
        context.error(&refresh, Code::OUT_OF_RANGE, "at least 0.001s is expected");
    }
    let failure = path.field("dns_failure_refresh_rate");
    let failure_refresh = match fields.failure {
        None => (refresh_rate, None),
        Some((base, max)) => {
            let base_path = failure.field("base_interval");
            let base = value::duration(context, &base_path, base).filter(|base| !base.is_zero());
            if base.is_none() {
                context.missing(&base_path, "an interval greater than 0s is required");
            }
            let base = base.unwrap_or(refresh_rate);
            let max_path = failure.field("max_interval");
            let max = value::duration(context, &max_path, max).unwrap_or(base.saturating_mul(10));
            if max < base {
                context.error(&max_path, Code::INVALID, "max_interval is less than base_interval");
            }
            (base, Some(max))
        }
    };
    let jitter = value::duration(context, &path.field("dns_jitter"), fields.jitter).unwrap_or_default();
    Dns { refresh_rate, failure_refresh, respect_ttl: fields.respect_ttl, jitter, family: fields.family }
}

fn lb_policy(context: &mut Context<'_>, path: &Path<'_>, message: &cluster_v3::Cluster) -> LbPolicy {
    use cluster_v3::cluster::LbPolicy as Message;
    if let Some(policies) = &message.load_balancing_policy {
        return typed_lb_policy(context, &path.field("load_balancing_policy"), policies);
    }
    let here = path.field("lb_policy");
    match value::enumeration(context, &here, message.lb_policy) {
        Message::RoundRobin => {}
        Message::LoadBalancingPolicyConfig => {
            context
                .missing(&path.field("load_balancing_policy"), "lb_policy asks for a load_balancing_policy");
        }
        _ => context.error(&here, Code::UNSUPPORTED_VALUE, "this load balancing policy is not supported"),
    }
    LbPolicy::RoundRobin
}

/// The first policy of the list that is implemented, as in Envoy.
fn typed_lb_policy(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &cluster_v3::LoadBalancingPolicy,
) -> LbPolicy {
    let configs =
        message.policies.iter().map(|policy| policy.typed_extension_config.as_ref()?.typed_config.as_ref());
    let supported = configs.flatten().any(any::holds::<RoundRobin>);
    if !supported {
        context.refused_type(path, "no policy in this list is supported");
    }
    LbPolicy::RoundRobin
}

fn circuit_breakers(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&cluster_v3::CircuitBreakers>,
) -> [CircuitBreaker; 2] {
    let here = path.field("circuit_breakers");
    let here = here.field("thresholds");
    let mut lowered: [Option<CircuitBreaker>; 2] = [None, None];
    let thresholds = message.map(|message| message.thresholds.as_slice()).unwrap_or_default();
    for (index, message) in thresholds.iter().enumerate() {
        let slot = match value::enumeration(context, &here.index(index).field("priority"), message.priority) {
            RoutingPriority::Default => &mut lowered[0],
            RoutingPriority::High => &mut lowered[1],
        };
        // Of several thresholds for one priority, Envoy takes the first.
        slot.get_or_insert_with(|| breaker(message));
    }
    lowered.map(Option::unwrap_or_default)
}

fn breaker(message: &cluster_v3::circuit_breakers::Thresholds) -> CircuitBreaker {
    let defaults = CircuitBreaker::default();
    let or = |value: &Option<envoy_types::pb::google::protobuf::UInt32Value>, default: u32| {
        value.as_ref().map_or(default, |value| value.value)
    };
    CircuitBreaker {
        max_connections: or(&message.max_connections, defaults.max_connections),
        max_pending_requests: or(&message.max_pending_requests, defaults.max_pending_requests),
        max_requests: or(&message.max_requests, defaults.max_requests),
        max_retries: or(&message.max_retries, defaults.max_retries),
        track_remaining: message.track_remaining,
    }
}
