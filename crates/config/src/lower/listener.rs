//! Listeners and their filter chains.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::config::listener::v3 as listener_v3;
use envoy_types::pb::envoy::config::listener::v3::listener::DrainType;

use super::{
    Context, DUPLICATE_ADDRESS, access_log, address, any, chain_match, metadata, network, stats, value,
};
use crate::settings::{
    FilterChain, FilterChainMatch, ListenAddress, Listener, ListenerFilter, RuntimeValue, SocketAddress,
    SocketOption, TrafficDirection,
};
use crate::{Code, ExtensionKind, Path};

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &listener_v3::Listener,
) -> Option<Listener> {
    let (address, additional_addresses) = addresses(context, path, message);
    let here_filters = path.field("listener_filters");
    let listener_filters = listener_filters(context, &here_filters, &message.listener_filters);
    let timeout = path.field("listener_filters_timeout");
    let message_timeout = message.listener_filters_timeout.as_ref();
    let listener_filters_timeout =
        value::limit(context, &timeout, message_timeout, Some(LISTENER_FILTERS_TIMEOUT));
    let (chains, default_chain) = filter_chains(context, path, message);
    let direction = path.field("traffic_direction");
    let traffic_direction = match value::enumeration(context, &direction, message.traffic_direction) {
        core_v3::TrafficDirection::Unspecified => TrafficDirection::Unspecified,
        core_v3::TrafficDirection::Inbound => TrafficDirection::Inbound,
        core_v3::TrafficDirection::Outbound => TrafficDirection::Outbound,
    };
    let drain_type: DrainType = value::enumeration(context, &path.field("drain_type"), message.drain_type);
    let accepts = path.field("max_connections_to_accept_per_socket_event");
    let max_accepts = message.max_connections_to_accept_per_socket_event.as_ref();
    let accepts_per_event = value::number(context, &accepts, max_accepts, 1..=u32::MAX, u32::MAX);
    let exact_balance = exact_balance(context, path, message.connection_balance_config.as_ref());
    let address = address?;
    let name = match message.name.as_str() {
        "" => display(&address.address).into(),
        name => name.into(),
    };
    let limit = format!("envoy.resource_limits.listener.{name}.connection_limit");
    Some(Listener {
        metadata: metadata::lower(message.metadata.as_ref()),
        max_connections: context.runtime(&limit).and_then(RuntimeValue::count),
        name,
        address,
        additional_addresses,
        bind_to_port: value::flag(message.bind_to_port.as_ref(), true),
        stat_prefix: Some(message.stat_prefix.clone()).filter(|prefix| !prefix.is_empty()),
        stats_matcher: stats::matcher(context, &path.field("stats_matcher"), message.stats_matcher.as_ref()),
        listener_filters,
        listener_filters_timeout,
        continue_on_timeout: message.continue_on_listener_filters_timeout,
        chains,
        default_chain,
        reuse_port: value::flag(message.enable_reuse_port.as_ref(), true),
        backlog: message.tcp_backlog_size.as_ref().map(|size| size.value),
        buffer_limit: message.per_connection_buffer_limit_bytes.as_ref().map_or(1 << 20, |limit| limit.value),
        accepts_per_event,
        transparent: value::flag(message.transparent.as_ref(), false),
        freebind: value::flag(message.freebind.as_ref(), false),
        exact_balance,
        ignores_global_limit: message.ignore_global_conn_limit,
        traffic_direction,
        access_logs: access_log::lower(context, &path.field("access_log"), &message.access_log).into(),
        drain_modify_only: drain_type == DrainType::ModifyOnly,
    })
}

/// The listener's own address, if it is one, and the others.
fn addresses(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &listener_v3::Listener,
) -> (Option<ListenAddress>, Vec<ListenAddress>) {
    let options = address::socket_options(context, &path.field("socket_options"), &message.socket_options);
    let keepalive = message.tcp_keepalive.as_ref();
    let here = path.field("address");
    let own = match message.listener_specifier {
        // Of another kind, which is refused elsewhere.
        Some(_) if message.address.is_none() => None,
        _ => listen_address(context, &here, message.address.as_ref(), options.clone(), keepalive),
    };
    let here = path.field("additional_addresses");
    let mut additional = Vec::with_capacity(message.additional_addresses.len());
    for (index, message) in message.additional_addresses.iter().enumerate() {
        let here = here.index(index);
        let own_options = message.socket_options.as_ref().map(|message| {
            let here = here.field("socket_options");
            address::socket_options(context, &here.field("socket_options"), &message.socket_options)
        });
        let options = own_options.unwrap_or_else(|| options.clone());
        let keepalive = message.tcp_keepalive.as_ref().or(keepalive);
        let (here, message) = (here.field("address"), message.address.as_ref());
        additional.extend(listen_address(context, &here, message, options, keepalive));
    }
    (own, additional)
}

fn listen_address(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&core_v3::Address>,
    socket_options: Vec<SocketOption>,
    keepalive: Option<&core_v3::TcpKeepalive>,
) -> Option<ListenAddress> {
    let address = address::literal(context, path, message)?;
    let ipv4_compat = ipv4_compat(context, path, message, &address);
    let tcp_keepalive = keepalive.and_then(address::tcp_keepalive);
    Some(ListenAddress { address, ipv4_compat, socket_options, tcp_keepalive })
}

fn exact_balance(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&listener_v3::listener::ConnectionBalanceConfig>,
) -> bool {
    use listener_v3::listener::connection_balance_config::BalanceType;
    let here = path.field("connection_balance_config");
    match message.map(|message| &message.balance_type) {
        None => false,
        Some(Some(BalanceType::ExactBalance(_))) => true,
        Some(Some(_)) => {
            context.refused_type(&here, "only exact_balance is supported");
            false
        }
        Some(None) => {
            context.missing(&here, "exact_balance is required");
            false
        }
    }
}

fn ipv4_compat(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&core_v3::Address>,
    address: &SocketAddress,
) -> bool {
    let Some(core_v3::address::Address::SocketAddress(message)) =
        message.and_then(|message| message.address.as_ref())
    else {
        return false;
    };
    let both = match address {
        SocketAddress::Ip(SocketAddr::V6(address)) => {
            address.ip().is_unspecified() || address.ip().to_ipv4_mapped().is_some()
        }
        _ => false,
    };
    if message.ipv4_compat && !both {
        let here = path.field("socket_address");
        let message = "ipv4_compat needs the address :: or an IPv4-mapped one";
        context.error(&here.field("ipv4_compat"), Code::INVALID, message);
    }
    message.ipv4_compat
}

fn listener_filters(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[listener_v3::ListenerFilter],
) -> Vec<ListenerFilter> {
    use listener_v3::listener_filter::ConfigType;
    let mut lowered = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let typed = here.field("typed_config");
        match &message.config_type {
            Some(ConfigType::TypedConfig(any)) => {
                match any::extension(context, &typed, any, ExtensionKind::ListenerFilter) {
                    Some(config) => {
                        let filter = |config| ListenerFilter { name: message.name.clone(), config };
                        lowered.extend(config.map(filter));
                    }
                    None => {
                        let name = any::type_name(any);
                        let message = format_args!("the listener filter {name} is not supported");
                        context.unsupported_type(&typed, message);
                    }
                }
            }
            Some(ConfigType::ConfigDiscovery(_)) => {
                context.unsupported(&here.field("config_discovery"), "discovery of a filter's configuration");
            }
            None => context.missing(&here, "typed_config is required"),
        }
    }
    lowered
}

fn filter_chains(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &listener_v3::Listener,
) -> (Vec<Arc<FilterChain>>, Option<Arc<FilterChain>>) {
    let here = path.field("filter_chains");
    let each = message.filter_chains.iter().enumerate();
    let chains: Vec<_> =
        each.map(|(index, message)| Arc::new(filter_chain(context, &here.index(index), message))).collect();
    chain_match::check_distinct(context, &here, &chains);
    let default_path = path.field("default_filter_chain");
    let default_chain = message.default_filter_chain.as_ref().map(|message| {
        if message.filter_chain_match.is_some() {
            let message = "without effect: the default filter chain takes whatever no other matches";
            context.findings.warning(&default_path.field("filter_chain_match"), Code::NO_EFFECT, message);
        }
        Arc::new(filter_chain(context, &default_path, message))
    });
    if chains.is_empty() && default_chain.is_none() {
        context.missing(path, "a listener needs filter_chains or a default_filter_chain");
    }
    (chains, default_chain)
}

fn filter_chain(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &listener_v3::FilterChain,
) -> FilterChain {
    let here = path.field("filter_chain_match");
    let matches = match &message.filter_chain_match {
        Some(message) => chain_match::lower(context, &here, message),
        None => FilterChainMatch::default(),
    };
    let timeout = path.field("transport_socket_connect_timeout");
    let message_timeout = message.transport_socket_connect_timeout.as_ref();
    FilterChain {
        name: message.name.clone(),
        metadata: metadata::lower(message.metadata.as_ref()),
        matches,
        filters: network::filters(context, &path.field("filters"), &message.filters),
        transport_connect_timeout: value::limit(context, &timeout, message_timeout, None),
    }
}

/// Listeners of one file: names and addresses are taken once. Port 0 is another port each time.
pub(super) fn check_distinct(
    context: &mut Context<'_>,
    path: &Path<'_>,
    listeners: &[(usize, Arc<Listener>)],
) {
    let mut names = HashMap::with_capacity(listeners.len());
    let mut addresses = HashMap::with_capacity(listeners.len());
    for (index, listener) in listeners {
        let here = path.index(*index);
        if let Some(other) = names.insert(Arc::clone(&listener.name), *index) {
            let name = &listener.name;
            let message = format_args!("listeners[{other}] is named {name:?} as well");
            context.error(&here.field("name"), Code::DUPLICATE_NAME, message);
        }
        for (number, ListenAddress { address, .. }) in listener.addresses().enumerate() {
            if matches!(address, SocketAddress::Ip(address) if address.port() == 0) {
                continue;
            }
            let Some(other) = addresses.insert(address, *index) else { continue };
            let message = format!("listeners[{other}] listens on {} as well", display(address));
            match number.checked_sub(1) {
                None => context.error(&here.field("address"), DUPLICATE_ADDRESS, message),
                Some(number) => {
                    let here = here.field("additional_addresses");
                    context.error(&here.index(number).field("address"), DUPLICATE_ADDRESS, message);
                }
            }
        }
    }
}

fn display(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Ip(address) => address.to_string(),
        SocketAddress::Pipe { path, .. } => path.display().to_string(),
    }
}

/// Envoy's.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
