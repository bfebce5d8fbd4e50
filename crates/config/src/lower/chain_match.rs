//! Which connections a filter chain takes.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3 as listener_v3;

use super::{Context, DUPLICATE_MATCH, address, value};
use crate::settings::{FilterChain, FilterChainMatch, SourceType};
use crate::{Code, Path};

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &listener_v3::FilterChainMatch,
) -> FilterChainMatch {
    use listener_v3::filter_chain_match::ConnectionSourceType;
    let source_type = match value::enumeration(context, &path.field("source_type"), message.source_type) {
        ConnectionSourceType::Any => SourceType::Any,
        ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
        ConnectionSourceType::External => SourceType::External,
    };
    let mut cidrs = |field: &str, messages| address::cidrs(context, &path.field(field), messages);
    let destination_prefixes = cidrs("prefix_ranges", &message.prefix_ranges);
    let source_prefixes = cidrs("source_prefix_ranges", &message.source_prefix_ranges);
    let direct_source_prefixes = cidrs("direct_source_prefix_ranges", &message.direct_source_prefix_ranges);
    let destination_port = message.destination_port.as_ref();
    let destination_port =
        destination_port.and_then(|value| port(context, &path.field("destination_port"), value.value));
    let ports = path.field("source_ports");
    let each = message.source_ports.iter().enumerate();
    let source_ports = each.filter_map(|(index, value)| port(context, &ports.index(index), *value)).collect();
    let names = path.field("server_names");
    let each = message.server_names.iter().enumerate();
    let server_names = each.map(|(index, name)| server_name(context, &names.index(index), name)).collect();
    FilterChainMatch {
        destination_port,
        destination_prefixes,
        source_type,
        source_prefixes,
        source_ports,
        direct_source_prefixes,
        server_names,
        transport_protocol: message.transport_protocol.clone(),
        application_protocols: message.application_protocols.clone(),
    }
}

fn port(context: &mut Context<'_>, path: &Path<'_>, value: u32) -> Option<u16> {
    let port = u16::try_from(value).ok().filter(|port| *port > 0);
    if port.is_none() {
        context.error(path, Code::OUT_OF_RANGE, "a port from 1 to 65535 is expected");
    }
    port
}

fn server_name(context: &mut Context<'_>, path: &Path<'_>, name: &str) -> String {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    if rest.contains('*') || rest.is_empty() {
        let message =
            format_args!("{name:?}: a wildcard stands for whole labels at the front, as in *.example.com");
        context.error(path, Code::INVALID, message);
    }
    name.to_ascii_lowercase()
}

/// No connection may belong to two chains by the same rules. Chains are compared only with those that
/// share a destination port and a server name, which thousands of chains usually differ in.
pub(super) fn check_distinct(context: &mut Context<'_>, path: &Path<'_>, chains: &[Arc<FilterChain>]) {
    let mut buckets: HashMap<(Option<u16>, &str), Vec<usize>> = HashMap::with_capacity(chains.len());
    for (index, chain) in chains.iter().enumerate() {
        let matches = &chain.matches;
        let names = matches.server_names.iter().map(String::as_str);
        let any = matches.server_names.is_empty().then_some("");
        let mut clash = None;
        for name in names.chain(any) {
            let bucket = buckets.entry((matches.destination_port, name)).or_default();
            clash = clash.or(bucket.iter().copied().find(|other| overlap(&chains[*other].matches, matches)));
            if bucket.last() != Some(&index) {
                bucket.push(index);
            }
        }
        if let Some(other) = clash.filter(|other| *other != index) {
            let here = path.index(index);
            let message = format_args!("filter_chains[{other}] has the same matching rules");
            context.error(&here, DUPLICATE_MATCH, message);
        }
    }
}

/// Whether two chains with a port and server name in common share all the rest too.
fn overlap(a: &FilterChainMatch, b: &FilterChainMatch) -> bool {
    fn common<T: PartialEq>(a: &[T], b: &[T]) -> bool {
        (a.is_empty() && b.is_empty()) || a.iter().any(|item| b.contains(item))
    }
    a.source_type == b.source_type
        && a.transport_protocol == b.transport_protocol
        && common(&a.destination_prefixes, &b.destination_prefixes)
        && common(&a.application_protocols, &b.application_protocols)
        && common(&a.direct_source_prefixes, &b.direct_source_prefixes)
        && common(&a.source_prefixes, &b.source_prefixes)
        && common(&a.source_ports, &b.source_ports)
}
