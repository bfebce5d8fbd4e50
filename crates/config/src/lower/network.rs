//! Network filters in their chains; `tcp_proxy`, and those that are a few lines.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::listener::v3 as listener_v3;
use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3 as limit_v3;
use envoy_types::pb::envoy::extensions::filters::network::direct_response::v3 as response_v3;
use envoy_types::pb::envoy::extensions::filters::network::echo::v3 as echo_v3;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;
use envoy_types::pb::envoy::extensions::filters::network::local_ratelimit::v3 as rate_v3;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3 as rbac_v3;
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3 as state_v3;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_v3;

use super::{
    Context, FILTER_ORDER, access_log, any, connection_limit, data_source, filter_state, header,
    http_manager, rbac, value,
};
use crate::settings::{
    AccessLogOptions, ClusterWeight, HeaderMutations, NetworkFilter, NetworkFilterConfig, TcpProxy, Tunneling,
};
use crate::{Code, ExtensionKind, Path};

/// The filters of a chain; the last one is terminal, no other is.
pub(super) fn filters(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[listener_v3::Filter],
) -> Vec<NetworkFilter> {
    let mut lowered = Vec::with_capacity(messages.len());
    let mut terminal = messages.is_empty();
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let last = index + 1 == messages.len();
        match filter(context, &here, message) {
            Some(filter) => {
                if filter.config.is_terminal() && !last {
                    let message = "this filter ends the chain, so it must be the last one";
                    context.error(&here, FILTER_ORDER, message);
                }
                terminal |= last && filter.config.may_end_chain();
                lowered.push(filter);
            }
            None => terminal |= last && !context.options.allow_unsupported,
        }
    }
    if !terminal {
        context.error(path, Code::NO_TERMINAL_FILTER, "the last filter of a chain must be a terminal one");
    }
    lowered
}

fn filter(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &listener_v3::Filter,
) -> Option<NetworkFilter> {
    use listener_v3::filter::ConfigType;
    let here = path.field("typed_config");
    let config = match &message.config_type {
        Some(ConfigType::TypedConfig(any)) if any::holds::<tcp_v3::TcpProxy>(any) => {
            let message = any::decode(context, &here, any)?;
            NetworkFilterConfig::TcpProxy(Arc::new(tcp_proxy(context, &here, &message)))
        }
        Some(ConfigType::TypedConfig(any)) if any::holds::<manager_v3::HttpConnectionManager>(any) => {
            let message = any::decode(context, &here, any)?;
            let manager = http_manager::lower(context, &here, &message)?;
            NetworkFilterConfig::HttpConnectionManager(Arc::new(manager))
        }
        Some(ConfigType::TypedConfig(any)) if any::holds::<echo_v3::Echo>(any) => NetworkFilterConfig::Echo,
        Some(ConfigType::TypedConfig(any)) if any::holds::<response_v3::Config>(any) => {
            let message = any::decode(context, &here, any)?;
            NetworkFilterConfig::DirectResponse(direct_response(context, &here, &message))
        }
        Some(ConfigType::TypedConfig(any)) if any::holds::<limit_v3::ConnectionLimit>(any) => {
            let message = any::decode(context, &here, any)?;
            let limit = connection_limit::connection_limit(context, &here, &message)?;
            NetworkFilterConfig::ConnectionLimit(Arc::new(limit))
        }
        Some(ConfigType::TypedConfig(any)) if any::holds::<rate_v3::LocalRateLimit>(any) => {
            let message = any::decode(context, &here, any)?;
            let limit = connection_limit::rate_limit(context, &here, &message)?;
            NetworkFilterConfig::LocalRateLimit(Arc::new(limit))
        }
        Some(ConfigType::TypedConfig(any)) if any::holds::<rbac_v3::Rbac>(any) => {
            let message = any::decode(context, &here, any)?;
            NetworkFilterConfig::Rbac(Arc::new(rbac::network(context, &here, &message)))
        }
        Some(ConfigType::TypedConfig(any)) if any::holds::<state_v3::Config>(any) => {
            let message = any::decode(context, &here, any)?;
            let state = filter_state::of_connections(context, &here, &message);
            NetworkFilterConfig::SetFilterState(Arc::new(state))
        }
        Some(ConfigType::TypedConfig(any)) => {
            if let Some(extension) = any::extension(context, &here, any, ExtensionKind::NetworkFilter) {
                let config = NetworkFilterConfig::Extension(extension?);
                return Some(NetworkFilter { name: message.name.clone(), config });
            }
            let name = any::type_name(any);
            context.unsupported_type(&here, format_args!("the network filter {name} is not supported"));
            return None;
        }
        Some(ConfigType::ConfigDiscovery(_)) => {
            context.unsupported(&path.field("config_discovery"), "discovery of a filter's configuration");
            return None;
        }
        None => {
            context.missing(path, "typed_config is required");
            return None;
        }
    };
    Some(NetworkFilter { name: message.name.clone(), config })
}

/// At most as long as a direct response of a route: nothing in a file may cost memory without a bound.
fn direct_response(context: &mut Context<'_>, path: &Path<'_>, message: &response_v3::Config) -> Bytes {
    let limit = data_source::Limit { bytes: 1 << 20, what: "a response is short" };
    let source = message.response.as_ref();
    let response =
        source.and_then(|source| data_source::bytes(context, &path.field("response"), source, limit));
    response.unwrap_or_default()
}

fn tcp_proxy(context: &mut Context<'_>, path: &Path<'_>, message: &tcp_v3::TcpProxy) -> TcpProxy {
    let hour = Some(Duration::from_secs(3600));
    let duration = path.field("max_downstream_connection_duration");
    let attempts = path.field("max_connect_attempts");
    TcpProxy {
        stat_prefix: message.stat_prefix.clone(),
        clusters: tcp_clusters(context, path, message.cluster_specifier.as_ref()),
        idle_timeout: value::limit(context, &path.field("idle_timeout"), message.idle_timeout.as_ref(), hour),
        max_duration: value::duration(
            context,
            &duration,
            message.max_downstream_connection_duration.as_ref(),
        ),
        max_connect_attempts: value::number(
            context,
            &attempts,
            message.max_connect_attempts.as_ref(),
            1..=u32::MAX,
            1,
        ),
        tunneling: message
            .tunneling_config
            .as_ref()
            .and_then(|message| tunneling(context, &path.field("tunneling_config"), message)),
        access_logs: access_log::lower(context, &path.field("access_log"), &message.access_log).into(),
        access_log_options: access_log_options(context, path, message),
    }
}

fn tunneling(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &tcp_v3::tcp_proxy::TunnelingConfig,
) -> Option<Tunneling> {
    let here = path.field("hostname");
    if message.hostname.is_empty() {
        context.missing(&here, "a host name is required");
    }
    let hostname = header::formatted(context, &here, &message.hostname);
    let here = path.field("post_path");
    if !message.post_path.is_empty() && !message.use_post {
        context.error(&here, Code::CONFLICT, "a path goes with use_post only");
    }
    let post_path = match &*message.post_path {
        "" => Bytes::from_static(b"/"),
        text => header::header_value(context, &here, text),
    };
    let headers = header::additions(context, &path.field("headers_to_add"), &message.headers_to_add);
    let headers = HeaderMutations { add: headers, ..HeaderMutations::default() };
    Some(Tunneling { hostname: hostname?, post_path: message.use_post.then_some(post_path), headers })
}

fn access_log_options(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &tcp_v3::TcpProxy,
) -> AccessLogOptions {
    let here = path.field("access_log_options");
    let options = message.access_log_options.as_ref();
    #[expect(deprecated, reason = "the older spellings are part of the v3 API")]
    let (at_start, interval) =
        (message.flush_access_log_on_connected, message.access_log_flush_interval.as_ref());
    let newer = options.and_then(|options| options.access_log_flush_interval.as_ref());
    let older = access_log::interval(context, &path.field("access_log_flush_interval"), interval);
    let newer = access_log::interval(context, &here.field("access_log_flush_interval"), newer);
    AccessLogOptions {
        at_start: at_start || options.is_some_and(|options| options.flush_access_log_on_connected),
        interval: newer.or(older),
    }
}

/// One or more clusters, each of which exists. Envoy takes any name and closes the connections.
fn tcp_clusters(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&tcp_v3::tcp_proxy::ClusterSpecifier>,
) -> Vec<ClusterWeight> {
    use tcp_v3::tcp_proxy::ClusterSpecifier;
    let messages = match message {
        Some(ClusterSpecifier::Cluster(name)) => {
            let name = context.cluster_name(&path.field("cluster"), name, true);
            return vec![ClusterWeight { name, weight: 1 }];
        }
        Some(ClusterSpecifier::WeightedClusters(message)) => message.clusters.as_slice(),
        None => {
            context.missing(path, "cluster or weighted_clusters is required");
            return Vec::new();
        }
    };
    let here = path.field("weighted_clusters");
    let here = here.field("clusters");
    if messages.is_empty() {
        context.missing(&here, "at least one cluster is required");
    }
    let mut total = 0;
    let mut clusters = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = here.index(index);
        if message.weight == 0 {
            context.error(&here.field("weight"), Code::OUT_OF_RANGE, "a weight of at least 1 is expected");
        }
        total += u64::from(message.weight);
        let name = context.cluster_name(&here.field("name"), &message.name, true);
        clusters.push(ClusterWeight { name, weight: message.weight });
    }
    if total > u64::from(u32::MAX) {
        context.error(&here, Code::BAD_WEIGHTS, "the sum of the weights exceeds 4294967295");
    }
    clusters
}
