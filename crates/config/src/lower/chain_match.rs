//! Which connections a filter chain takes.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3 as listener_v3;

use super::{Context, DUPLICATE_MATCH, address, value};
use crate::settings::{Cidr, FilterChain, FilterChainMatch, SourceType};
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

/// No connection may belong to two chains by the same rules. As in Envoy, a chain stands for every
/// combination of one value from each of its lists.
pub(super) fn check_distinct(context: &mut Context<'_>, path: &Path<'_>, chains: &[Arc<FilterChain>]) {
    let mut room = MAX_COMBINATIONS;
    let mut seen: HashMap<Combination<'_>, usize> = HashMap::with_capacity(chains.len());
    for (index, chain) in chains.iter().enumerate() {
        let here = path.index(index);
        let lists = Lists(&chain.matches);
        let Some(rest) = lists.combinations().and_then(|count| room.checked_sub(count)) else {
            let message = format_args!("matching rules of more than {MAX_COMBINATIONS} combinations");
            return context.error(&here, Code::OUT_OF_RANGE, message);
        };
        let mut clash = None;
        for number in 0..room - rest {
            let other = *seen.entry(lists.combination(number)).or_insert(index);
            clash = clash.or(Some(other).filter(|other| *other != index));
        }
        room = rest;
        if let Some(other) = clash {
            let message =
                format_args!("filter_chains[{other}] matches the same connections by the same rules");
            context.error(&here, DUPLICATE_MATCH, message);
        }
    }
}

/// One value of each list of a match; `None` where the list is empty.
type Combination<'m> = (
    (Option<u16>, SourceType, &'m str),
    (Option<&'m Cidr>, Option<&'m Cidr>, Option<&'m Cidr>),
    (Option<&'m u16>, Option<&'m String>, Option<&'m String>),
);

/// A match as lists to combine.
struct Lists<'m>(&'m FilterChainMatch);

impl<'m> Lists<'m> {
    fn combinations(&self) -> Option<usize> {
        let matches = self.0;
        let lengths = [
            matches.destination_prefixes.len(),
            matches.direct_source_prefixes.len(),
            matches.source_prefixes.len(),
            matches.source_ports.len(),
            matches.server_names.len(),
            matches.application_protocols.len(),
        ];
        lengths.iter().try_fold(1_usize, |product, length| product.checked_mul((*length).max(1)))
    }

    /// The combination with this number, the lists being the digits.
    fn combination(&self, number: usize) -> Combination<'m> {
        fn digit<'l, T>(rest: &mut usize, list: &'l [T]) -> Option<&'l T> {
            let length = list.len().max(1);
            let item = list.get(*rest % length);
            *rest /= length;
            item
        }
        let matches = self.0;
        let mut rest = number;
        let prefixes = (
            digit(&mut rest, &matches.destination_prefixes),
            digit(&mut rest, &matches.direct_source_prefixes),
            digit(&mut rest, &matches.source_prefixes),
        );
        let others = (
            digit(&mut rest, &matches.source_ports),
            digit(&mut rest, &matches.server_names),
            digit(&mut rest, &matches.application_protocols),
        );
        ((matches.destination_port, matches.source_type, &matches.transport_protocol), prefixes, others)
    }
}

/// Combinations of one listener: bounds what a small file can make us remember.
const MAX_COMBINATIONS: usize = 1 << 20;
