//! Which filter chain takes a connection, by `FilterChainMatch` as Envoy decides it.
//!
//! The criteria are asked one after the other, in Envoy's order. At each, the most specific value that any chain still
//! in play names wins, and the chains that do not have it are out for good: there is no way back when a later criterion
//! then fits none. So the answer is a walk down a tree, as long as the criteria that tell chains apart, whatever the
//! number of chains. Sub-trees with the same chains are shared, so the tree grows with the sum of the lists in a
//! chain and not with their product.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use proxy_config::settings::{Cidr, FilterChainMatch, SourceType};

use crate::address::Address;
use crate::connection::ConnectionInfo;

/// The matches of a listener's chains, ready to be asked.
#[derive(Debug)]
pub struct ChainMatcher {
    nodes: Vec<Node>,
    /// Where the walk starts; `None` without chains.
    root: Option<u32>,
}

#[derive(Debug)]
enum Node {
    /// The chain.
    Chain(usize),
    /// A criterion that tells chains apart.
    Branch { criterion: Criterion, children: HashMap<Key, u32>, lengths: PrefixLengths },
}

/// In Envoy's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Criterion {
    DestinationPort,
    DestinationPrefix,
    ServerName,
    TransportProtocol,
    ApplicationProtocol,
    DirectSourcePrefix,
    SourceType,
    SourcePrefix,
    SourcePort,
}

/// What a chain asks for at one criterion.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Any,
    Port(u16),
    Prefix(IpAddr, u8),
    /// A server name, `.suffix` for `*.suffix`, or a protocol.
    Name(Box<str>),
    Local,
    External,
}

/// The prefix lengths that a branch has, longest first, so that only these are tried.
#[derive(Debug, Default)]
struct PrefixLengths {
    four: Vec<u8>,
    six: Vec<u8>,
}

const CRITERIA: [Criterion; 9] = [
    Criterion::DestinationPort,
    Criterion::DestinationPrefix,
    Criterion::ServerName,
    Criterion::TransportProtocol,
    Criterion::ApplicationProtocol,
    Criterion::DirectSourcePrefix,
    Criterion::SourceType,
    Criterion::SourcePrefix,
    Criterion::SourcePort,
];

/// What a connection without TLS speaks, in Envoy's words.
const RAW_BUFFER: &str = "raw_buffer";

impl ChainMatcher {
    /// A matcher of `chains`, in the listener's order; of chains with equal rules (which the configuration's check
    /// precludes) the first is taken.
    pub fn new(chains: &[FilterChainMatch]) -> Self {
        let mut builder = Builder { chains, nodes: Vec::new(), known: HashMap::new() };
        let all: Vec<usize> = (0..chains.len()).collect();
        let root = (!all.is_empty()).then(|| builder.node(0, all));
        Self { nodes: builder.nodes, root }
    }

    /// The index of the chain that takes the connection; `None` leaves it to the listener's default chain.
    pub fn find(&self, info: &ConnectionInfo) -> Option<usize> {
        let mut at = self.root?;
        loop {
            match self.nodes.get(at as usize)? {
                Node::Chain(index) => return Some(*index),
                Node::Branch { criterion, children, lengths } => {
                    at = criterion.child(children, lengths, info)?
                }
            }
        }
    }
}

impl Criterion {
    /// What `chain` asks for; never empty.
    fn keys(self, chain: &FilterChainMatch) -> Vec<Key> {
        let name = |name: &String| Key::Name(name.strip_prefix('*').unwrap_or(name).into());
        let keys: Vec<Key> = match self {
            Self::DestinationPort => chain.destination_port.map(Key::Port).into_iter().collect(),
            Self::DestinationPrefix => chain.destination_prefixes.iter().map(prefix).collect(),
            Self::ServerName => chain.server_names.iter().map(name).collect(),
            Self::TransportProtocol => {
                let protocol = chain.transport_protocol.as_str();
                (!protocol.is_empty()).then(|| Key::Name(protocol.into())).into_iter().collect()
            }
            Self::ApplicationProtocol => chain
                .application_protocols
                .iter()
                .map(|protocol| Key::Name(protocol.as_str().into()))
                .collect(),
            Self::DirectSourcePrefix => chain.direct_source_prefixes.iter().map(prefix).collect(),
            Self::SourceType => match chain.source_type {
                SourceType::Any => Vec::new(),
                SourceType::SameIpOrLoopback => vec![Key::Local],
                SourceType::External => vec![Key::External],
            },
            Self::SourcePrefix => chain.source_prefixes.iter().map(prefix).collect(),
            Self::SourcePort => chain.source_ports.iter().copied().map(Key::Port).collect(),
        };
        if keys.is_empty() { vec![Key::Any] } else { keys }
    }

    /// The most specific child that fits.
    fn child(
        self,
        children: &HashMap<Key, u32>,
        lengths: &PrefixLengths,
        info: &ConnectionInfo,
    ) -> Option<u32> {
        let exact = |key: &Key| children.get(key).copied();
        let port = |address: &Address| address.ip().and_then(|ip| exact(&Key::Port(ip.port())));
        let name = |name: &str| exact(&Key::Name(name.into()));
        let found = match self {
            Self::DestinationPort => port(&info.local),
            Self::DestinationPrefix => lengths.longest(children, &info.local),
            Self::ServerName => info.server_name.as_deref().and_then(|wanted| server_name(children, wanted)),
            Self::TransportProtocol => name(RAW_BUFFER),
            Self::ApplicationProtocol => info.application_protocol.as_deref().and_then(name),
            Self::DirectSourcePrefix => lengths.longest(children, &info.direct_remote),
            Self::SourceType => exact(if is_local(info) { &Key::Local } else { &Key::External }),
            Self::SourcePrefix => lengths.longest(children, &info.remote),
            Self::SourcePort => port(&info.remote),
        };
        found.or_else(|| exact(&Key::Any))
    }
}

impl PrefixLengths {
    fn of<'a>(keys: impl Iterator<Item = &'a Key>) -> Self {
        let mut lengths = Self::default();
        for key in keys {
            match key {
                Key::Prefix(IpAddr::V4(_), length) => lengths.four.push(*length),
                Key::Prefix(IpAddr::V6(_), length) => lengths.six.push(*length),
                _ => {}
            }
        }
        for list in [&mut lengths.four, &mut lengths.six] {
            list.sort_unstable_by(|a, b| b.cmp(a));
            list.dedup();
            list.shrink_to_fit();
        }
        lengths
    }

    fn longest(&self, children: &HashMap<Key, u32>, address: &Address) -> Option<u32> {
        let ip = address.ip().map_or(NOT_IP, |address| address.ip().to_canonical());
        let lengths = if ip.is_ipv4() { &self.four } else { &self.six };
        lengths.iter().find_map(|length| children.get(&Key::Prefix(masked(ip, *length), *length)).copied())
    }
}

/// Builds the tree from the root down.
struct Builder<'a> {
    chains: &'a [FilterChainMatch],
    nodes: Vec<Node>,
    /// Nodes by the criterion they start with and the chains in play there.
    known: HashMap<(usize, Vec<usize>), u32>,
}

impl Builder<'_> {
    fn node(&mut self, mut depth: usize, chains: Vec<usize>) -> u32 {
        let mut branches = BTreeMap::new();
        while let Some(criterion) = CRITERIA.get(depth) {
            branches = self.branches(*criterion, &chains);
            if branches.len() > 1 || !branches.contains_key(&Key::Any) {
                break;
            }
            // Nobody asks for anything here.
            depth += 1;
        }
        if let Some(node) = self.known.get(&(depth, chains.clone())) {
            return *node;
        }
        let node = match CRITERIA.get(depth) {
            // There is at least one: a branch is made for those that are in it.
            None => Node::Chain(chains.first().copied().unwrap_or_default()),
            Some(criterion) => {
                let lengths = PrefixLengths::of(branches.keys());
                let children = branches.into_iter().map(|(key, inside)| (key, self.node(depth + 1, inside)));
                Node::Branch { criterion: *criterion, children: children.collect(), lengths }
            }
        };
        let index = u32::try_from(self.nodes.len()).expect("a node costs more than a byte of configuration");
        self.nodes.push(node);
        self.known.insert((depth, chains), index);
        index
    }

    fn branches(&self, criterion: Criterion, chains: &[usize]) -> BTreeMap<Key, Vec<usize>> {
        let mut branches = BTreeMap::<Key, Vec<usize>>::new();
        for index in chains {
            for key in criterion.keys(&self.chains[*index]) {
                let inside = branches.entry(key).or_default();
                if inside.last() != Some(index) {
                    inside.push(*index);
                }
            }
        }
        branches
    }
}

fn prefix(cidr: &Cidr) -> Key {
    let longest = if cidr.address.is_ipv4() { 32 } else { 128 };
    let length = cidr.prefix_len.min(longest);
    Key::Prefix(masked(cidr.address, length), length)
}

fn masked(ip: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V4((u32::from(ip) & mask).into())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length)).unwrap_or(0);
            IpAddr::V6((u128::from(ip) & mask).into())
        }
    }
}

/// The exact name, then wildcards, longest first.
fn server_name(children: &HashMap<Key, u32>, wanted: &str) -> Option<u32> {
    let wanted = wanted.to_ascii_lowercase();
    let find = |name: &str| children.get(&Key::Name(name.into())).copied();
    let dots = wanted.match_indices('.').map(|(at, _)| at);
    // As Envoy: a wildcard stands for at least one character, and a trailing dot is no suffix.
    let suffixes = dots.filter(|at| *at > 0 && *at + 1 < wanted.len());
    find(&wanted).or_else(|| suffixes.into_iter().find_map(|at| find(&wanted[at..])))
}

/// Envoy's `isSameIpOrLoopback`: only the canonical loopback addresses count.
fn is_local(info: &ConnectionInfo) -> bool {
    let Some(remote) = info.remote.ip().map(|remote| remote.ip()) else { return true };
    remote == IpAddr::V4(Ipv4Addr::LOCALHOST)
        || remote == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
        || info.local.ip().is_some_and(|local| local.ip() == remote)
}

/// What Envoy looks up in address ranges for a UNIX socket.
const NOT_IP: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

#[cfg(test)]
#[path = "chain_match_tests.rs"]
mod tests;
