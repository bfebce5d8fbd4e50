//! Which filter chain serves a connection (Envoy's `FilterChainMatch`).
//!
//! Envoy looks at one criterion after the other. At each, the most specific value that fits wins and the chains that
//! name another are out for good: a chain that would have fitted but lost at an earlier criterion is never tried.
//! Several chains go on together when they name the same value.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr};

use proxy_config::settings::{Cidr, FilterChainMatch, SourceType};

use crate::address::Address;
use crate::connection::ConnectionInfo;

/// The matches of a listener's chains, in their order.
#[derive(Debug)]
pub struct ChainMatcher {
    chains: Vec<FilterChainMatch>,
    /// One chain that asks for nothing, as most listeners have.
    takes_all: bool,
}

/// How closely a chain fits at one criterion; `None` when it does not.
type Fit = Option<u16>;

impl ChainMatcher {
    /// A matcher over the chains' matches; [`ChainMatcher::find`] answers with an index into them.
    pub fn new(chains: &[FilterChainMatch]) -> Self {
        let takes_all = chains.len() == 1 && chains[0] == FilterChainMatch::default();
        Self { chains: chains.to_vec(), takes_all }
    }

    /// The chain for a connection; `None` leaves it to the default chain.
    pub fn find(&self, info: &ConnectionInfo) -> Option<usize> {
        if self.takes_all {
            return Some(0);
        }
        let mut left: Vec<usize> = (0..self.chains.len()).collect();
        let (local, remote) = (ip_of(&info.local), ip_of(&info.remote));
        let direct = ip_of(&info.direct_remote);
        let name = info.server_name.as_deref().unwrap_or("");
        let protocol = info.application_protocol.as_deref();
        let is_local = is_same_ip_or_loopback(info);

        let mut narrow = |fit: &dyn Fn(&FilterChainMatch) -> Fit| self.narrow(&mut left, fit);
        narrow(&|chain| {
            fit_one(chain.destination_port.as_slice(), |port| info.local.ip()?.port().eq(port).then_some(1))
        });
        narrow(&|chain| fit_prefix(&chain.destination_prefixes, local));
        narrow(&|chain| fit_one(&chain.server_names, |pattern| fit_name(pattern, name)));
        narrow(&|chain| match chain.transport_protocol.as_str() {
            "" => Some(0),
            wanted => (wanted == RAW_BUFFER).then_some(1),
        });
        narrow(&|chain| fit_one(&chain.application_protocols, |wanted| (protocol? == wanted).then_some(1)));
        narrow(&|chain| fit_prefix(&chain.direct_source_prefixes, direct));
        narrow(&|chain| match chain.source_type {
            SourceType::Any => Some(0),
            SourceType::SameIpOrLoopback => is_local.then_some(1),
            SourceType::External => (!is_local).then_some(1),
        });
        narrow(&|chain| fit_prefix(&chain.source_prefixes, remote));
        narrow(&|chain| fit_one(&chain.source_ports, |port| info.remote.ip()?.port().eq(port).then_some(1)));
        left.first().copied()
    }

    /// Keeps the chains that fit most closely.
    fn narrow(&self, left: &mut Vec<usize>, fit: &dyn Fn(&FilterChainMatch) -> Fit) {
        let mut best = None;
        let mut kept = 0;
        for at in 0..left.len() {
            let Some(close) = fit(&self.chains[left[at]]) else { continue };
            match Some(close).cmp(&best) {
                Ordering::Less => continue,
                Ordering::Equal => {}
                Ordering::Greater => {
                    best = Some(close);
                    kept = 0;
                }
            }
            left[kept] = left[at];
            kept += 1;
        }
        left.truncate(kept);
    }
}

/// The transport of a connection on which no inspector has found TLS.
const RAW_BUFFER: &str = "raw_buffer";

/// An empty list asks for nothing; else the closest of its entries counts.
fn fit_one<T>(wanted: &[T], fit: impl Fn(&T) -> Fit) -> Fit {
    if wanted.is_empty() { Some(0) } else { wanted.iter().filter_map(fit).max() }
}

/// The longest prefix that holds the address; no prefix is the same as the one of length 0, of either family.
fn fit_prefix(wanted: &[Cidr], ip: IpAddr) -> Fit {
    fit_one(wanted, |prefix| prefix.contains(ip).then_some(u16::from(prefix.prefix_len)))
}

/// An exact name is closer than any wildcard, a longer wildcard closer than a shorter one.
fn fit_name(pattern: &str, name: &str) -> Fit {
    match pattern.strip_prefix('*') {
        Some(suffix) if name.len() > suffix.len() && name.ends_with(suffix) => {
            Some(u16::try_from(suffix.len()).unwrap_or(u16::MAX - 1).min(u16::MAX - 1))
        }
        Some(_) => None,
        None => (pattern == name).then_some(u16::MAX),
    }
}

/// UNIX sockets match as the address that only prefixes of length 0 should hold, as in Envoy.
fn ip_of(address: &Address) -> IpAddr {
    address.ip().map_or(IpAddr::V4(Ipv4Addr::BROADCAST), |address| address.ip())
}

fn is_same_ip_or_loopback(info: &ConnectionInfo) -> bool {
    match &info.remote {
        Address::Pipe(_) => true,
        Address::Ip(remote) => {
            remote.ip().is_loopback() || info.local.ip().is_some_and(|local| local.ip() == remote.ip())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::PipePath;
    use crate::connection::ConnectionId;
    use std::rc::Rc;
    use std::sync::Arc;

    fn address(text: &str) -> Address {
        match text.parse::<std::net::SocketAddr>() {
            Ok(address) => Address::from(address),
            Err(_) => Address::Pipe(Arc::new(PipePath::Unnamed)),
        }
    }

    fn find(
        chains: &[FilterChainMatch],
        local: &str,
        remote: &str,
        server_name: Option<&str>,
    ) -> Option<usize> {
        let mut info = ConnectionInfo::accepted(
            ConnectionId(0),
            Rc::from("listener"),
            address(local),
            address(remote),
            proxy_runtime::clock::now(),
            proxy_runtime::clock::system_now(),
        );
        info.server_name = server_name.map(Rc::from);
        ChainMatcher::new(chains).find(&info)
    }

    fn cidr(text: &str) -> Cidr {
        let (address, length) = text.split_once('/').unwrap();
        Cidr { address: address.parse().unwrap(), prefix_len: length.parse().unwrap() }
    }

    fn any() -> FilterChainMatch {
        FilterChainMatch::default()
    }

    #[test]
    fn a_port_that_is_named_shuts_out_chains_without_one() {
        let foreign = vec![cidr("203.0.113.0/24")];
        let chains =
            [any(), FilterChainMatch { destination_port: Some(80), source_prefixes: foreign, ..any() }];
        assert_eq!(find(&chains, "10.0.0.1:81", "10.0.0.2:5", None), Some(0));
        assert_eq!(find(&chains, "10.0.0.1:80", "203.0.113.9:5", None), Some(1));
        assert_eq!(find(&chains, "10.0.0.1:80", "10.0.0.2:5", None), None, "no way back to the first");
    }

    #[test]
    fn the_longest_prefix_wins_wherever_it_is_listed() {
        let source = |prefixes: &[&str]| FilterChainMatch {
            source_prefixes: prefixes.iter().map(|text| cidr(text)).collect(),
            ..any()
        };
        let chains =
            [source(&["10.0.0.0/8"]), source(&["192.168.0.0/16", "10.1.0.0/16"]), source(&["::/0"]), any()];
        for (remote, expected) in
            [("10.2.0.1:1", 0), ("10.1.0.1:1", 1), ("192.168.3.4:1", 1), ("9.9.9.9:1", 3)]
        {
            assert_eq!(find(&chains, "10.0.0.1:80", remote, None), Some(expected), "{remote}");
        }
        assert_eq!(find(&chains, "[2001:db8::1]:80", "[2001:db8::2]:1", None), Some(2));
        assert_eq!(find(&chains[..2], "10.0.0.1:80", "9.9.9.9:1", None), None);
    }

    #[test]
    fn source_type_and_port_and_unix_peers() {
        let of = |source_type| FilterChainMatch { source_type, ..any() };
        let chains = [
            of(SourceType::External),
            of(SourceType::SameIpOrLoopback),
            FilterChainMatch { source_ports: vec![7, 9], ..of(SourceType::SameIpOrLoopback) },
        ];
        for (remote, expected) in
            [("10.0.0.2:9", 0), ("10.0.0.1:5", 1), ("127.0.0.1:5", 1), ("127.0.0.1:9", 2), ("unix", 1)]
        {
            assert_eq!(find(&chains, "10.0.0.1:80", remote, None), Some(expected), "{remote}");
        }
    }

    #[test]
    fn names_and_protocols_that_only_tls_brings() {
        let named = |name: &str| FilterChainMatch { server_names: vec![name.to_owned()], ..any() };
        let chains = [named("*.example.com"), named("a.example.com"), named("*.b.example.com"), any()];
        for (name, expected) in
            [("a.example.com", 1), ("x.example.com", 0), ("x.b.example.com", 2), ("example.com", 3), ("", 3)]
        {
            assert_eq!(find(&chains, "10.0.0.1:80", "10.0.0.2:5", Some(name)), Some(expected), "{name}");
        }
        let tls = FilterChainMatch { transport_protocol: "tls".to_owned(), ..any() };
        let raw = FilterChainMatch { transport_protocol: "raw_buffer".to_owned(), ..any() };
        let h2 = FilterChainMatch { application_protocols: vec!["h2".to_owned()], ..any() };
        assert_eq!(find(&[tls, raw], "10.0.0.1:80", "10.0.0.2:5", None), Some(1));
        assert_eq!(find(&[h2], "10.0.0.1:80", "10.0.0.2:5", None), None);
    }

    #[test]
    fn one_chain_without_conditions_takes_everything() {
        assert_eq!(find(&[any()], "unix", "unix", None), Some(0));
        assert_eq!(find(&[], "10.0.0.1:80", "10.0.0.2:5", None), None);
    }
}
