use std::rc::Rc;
use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::connection::ConnectionId;
use proxy_runtime::Instant;

fn address(text: &str) -> Address {
    match text.parse() {
        Ok(address) => Address::Ip(address),
        Err(_) => Address::pipe(text).unwrap(),
    }
}

fn cidr(text: &str) -> Cidr {
    let (address, prefix_len) = text.split_once('/').unwrap();
    Cidr { address: address.parse().unwrap(), prefix_len: prefix_len.parse().unwrap() }
}

fn cidrs(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| cidr(text)).collect()
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn any() -> FilterChainMatch {
    FilterChainMatch::default()
}

fn from(remote: &str, local: &str) -> ConnectionInfo {
    let (started, started_at) = (Instant::now(), SystemTime::now());
    let (local, remote) = (address(local), address(remote));
    ConnectionInfo::accepted(ConnectionId(1), "main".into(), local, remote, started, started_at)
}

fn tls(server_name: &str, application_protocol: Option<&str>) -> ConnectionInfo {
    let mut info = from("10.0.0.1:5000", "10.0.0.2:443");
    info.server_name = Some(Rc::from(server_name));
    info.application_protocol = application_protocol.map(Rc::from);
    info
}

fn find(chains: &[FilterChainMatch], info: &ConnectionInfo) -> Option<usize> {
    ChainMatcher::new(chains).find(info)
}

#[test]
fn without_rules_the_first_chain_takes_all() {
    let info = from("10.0.0.1:5000", "10.0.0.2:80");
    assert_eq!(find(&[], &info), None);
    assert_eq!(find(&[any()], &info), Some(0));
    assert_eq!(find(&[any()], &from("@client", "@server")), Some(0));
}

#[test]
fn a_destination_port_wins_and_there_is_no_way_back() {
    let chains = [
        any(),
        FilterChainMatch { destination_port: Some(80), ..any() },
        FilterChainMatch { destination_port: Some(81), source_ports: vec![7], ..any() },
    ];
    assert_eq!(find(&chains, &from("10.0.0.1:5000", "10.0.0.2:80")), Some(1));
    assert_eq!(find(&chains, &from("10.0.0.1:5000", "10.0.0.2:82")), Some(0));
    assert_eq!(find(&chains, &from("10.0.0.1:7", "10.0.0.2:81")), Some(2));
    // The chain of port 81 wants another source port; the one for any port is out by then.
    assert_eq!(find(&chains, &from("10.0.0.1:8", "10.0.0.2:81")), None);
}

#[test]
fn the_longest_prefix_wins() {
    let chains = [
        FilterChainMatch { destination_prefixes: cidrs(&["10.0.0.0/8", "fc00::/7"]), ..any() },
        FilterChainMatch { destination_prefixes: cidrs(&["10.1.0.0/16", "fc00::1/128"]), ..any() },
        FilterChainMatch { destination_prefixes: cidrs(&["0.0.0.0/0"]), ..any() },
    ];
    for (local, chain) in [
        ("10.1.2.3:80", Some(1)),
        ("10.2.2.3:80", Some(0)),
        ("11.2.2.3:80", Some(2)),
        ("[fc00::1]:80", Some(1)),
        ("[fc00::2]:80", Some(0)),
        ("[2001::2]:80", None),
        ("[::ffff:10.1.2.3]:80", Some(1)),
        ("@pipe", Some(2)),
    ] {
        assert_eq!(find(&chains, &from("10.9.9.9:5000", local)), chain, "{local}");
    }
}

#[test]
fn server_names_match_exactly_then_by_the_longest_suffix() {
    let chains = [
        FilterChainMatch { server_names: names(&["*.example.com"]), ..any() },
        FilterChainMatch { server_names: names(&["www.example.com", "other.org"]), ..any() },
        FilterChainMatch { server_names: names(&["*.com"]), ..any() },
        any(),
    ];
    for (name, chain) in [
        ("www.example.com", 1),
        ("WWW.Example.com", 1),
        ("other.org", 1),
        ("a.b.example.com", 0),
        ("example.com", 2),
        ("com", 3),
        // As in Envoy, where the key of a wildcard is its suffix.
        (".com", 2),
        ("other.org.", 3),
        ("", 3),
    ] {
        assert_eq!(find(&chains, &tls(name, None)), Some(chain), "{name}");
    }
    assert_eq!(find(&chains, &from("10.0.0.1:5000", "10.0.0.2:80")), Some(3));
    assert_eq!(find(&chains[..1], &from("10.0.0.1:5000", "10.0.0.2:80")), None);
}

#[test]
fn protocols_come_after_names() {
    let raw = FilterChainMatch { transport_protocol: "raw_buffer".into(), ..any() };
    let encrypted = FilterChainMatch { transport_protocol: "tls".into(), ..any() };
    let info = from("10.0.0.1:5000", "10.0.0.2:80");
    assert_eq!(find(&[any(), encrypted.clone(), raw.clone()], &info), Some(2));
    assert_eq!(find(&[encrypted.clone(), any()], &info), Some(1));
    assert_eq!(find(&[encrypted], &info), None);
    let h2 = FilterChainMatch { application_protocols: names(&["h2"]), ..any() };
    let named = FilterChainMatch { server_names: names(&["a"]), ..any() };
    let chains = [h2, named, any()];
    assert_eq!(find(&chains, &tls("b", Some("h2"))), Some(0));
    assert_eq!(find(&chains, &tls("b", Some("http/1.1"))), Some(2));
    assert_eq!(find(&chains, &tls("a", Some("h2"))), Some(1));
    assert_eq!(find(&chains, &info), Some(2));
}

#[test]
fn the_source_is_local_when_it_is_loopback_or_this_host() {
    let local = FilterChainMatch { source_type: SourceType::SameIpOrLoopback, ..any() };
    let external = FilterChainMatch { source_type: SourceType::External, ..any() };
    let chains = [local.clone(), external];
    for (remote, listener, chain) in [
        ("127.0.0.1:5000", "127.0.0.1:80", 0),
        ("127.0.0.1:5000", "10.0.0.2:80", 0),
        ("[::1]:5000", "[fc00::1]:80", 0),
        ("10.0.0.2:5000", "10.0.0.2:80", 0),
        ("127.0.0.2:5000", "127.0.0.1:80", 1),
        ("10.0.0.1:5000", "10.0.0.2:80", 1),
        ("@client", "@server", 0),
    ] {
        assert_eq!(find(&chains, &from(remote, listener)), Some(chain), "{remote}");
    }
    assert_eq!(find(&[any(), local], &from("10.0.0.1:5000", "10.0.0.2:80")), Some(0));
}

#[test]
fn sources_are_told_apart_last() {
    let mut proxied = from("10.0.0.1:5000", "10.0.0.2:80");
    proxied.direct_remote = address("192.168.0.1:99");
    let chains = [
        FilterChainMatch {
            source_prefixes: cidrs(&["10.0.0.0/24"]),
            source_ports: vec![5000, 5001],
            ..any()
        },
        FilterChainMatch { source_prefixes: cidrs(&["10.0.0.0/24"]), ..any() },
        FilterChainMatch { direct_source_prefixes: cidrs(&["192.168.0.0/16"]), ..any() },
    ];
    assert_eq!(find(&chains, &proxied), Some(2));
    assert_eq!(find(&chains, &from("10.0.0.1:5000", "10.0.0.2:80")), Some(0));
    assert_eq!(find(&chains, &from("10.0.0.1:5002", "10.0.0.2:80")), Some(1));
    assert_eq!(find(&chains, &from("10.0.1.1:5000", "10.0.0.2:80")), None);
}

#[test]
fn long_lists_in_one_chain_do_not_multiply() {
    let ports = (1..=200).collect();
    let sources =
        (0..200_u8).map(|part| Cidr { address: IpAddr::from([10, 0, part, 0]), prefix_len: 24 }).collect();
    let server_names = (0..200).map(|number| format!("name{number}.example.com")).collect();
    let big = FilterChainMatch { source_ports: ports, source_prefixes: sources, server_names, ..any() };
    let matcher = ChainMatcher::new(&[big]);
    assert!(matcher.nodes.len() < 10, "{} nodes", matcher.nodes.len());
}

/// How specific the best value is that `chain` names at a criterion and that fits; by a scan, without any tree.
fn rank(criterion: Criterion, chain: &FilterChainMatch, info: &ConnectionInfo) -> Option<u32> {
    let port = |address: &Address| address.ip().map(|ip| ip.port());
    let longest = |prefixes: &[Cidr], address: &Address| {
        let ip = address.ip().map_or(NOT_IP, |address| address.ip());
        let fitting =
            prefixes.iter().filter(|cidr| cidr.contains(ip)).map(|cidr| 1 + u32::from(cidr.prefix_len));
        if prefixes.is_empty() { Some(0) } else { fitting.max() }
    };
    let one_of = |empty: bool, fits: bool| if empty { Some(0) } else { fits.then_some(1) };
    match criterion {
        Criterion::DestinationPort => {
            one_of(chain.destination_port.is_none(), chain.destination_port == port(&info.local))
        }
        Criterion::DestinationPrefix => longest(&chain.destination_prefixes, &info.local),
        Criterion::ServerName => {
            let wanted = info.server_name.as_deref().unwrap_or("");
            let fits = |name: &String| match name.strip_prefix('*') {
                Some(suffix) => {
                    (wanted.len() > suffix.len() && wanted.ends_with(suffix)).then_some(suffix.len() as u32)
                }
                None => (wanted == name).then_some(u32::MAX),
            };
            if chain.server_names.is_empty() {
                Some(0)
            } else {
                chain.server_names.iter().filter_map(fits).max()
            }
        }
        Criterion::TransportProtocol => {
            one_of(chain.transport_protocol.is_empty(), chain.transport_protocol == RAW_BUFFER)
        }
        Criterion::ApplicationProtocol => {
            let wanted = info.application_protocol.as_deref();
            let listed = chain.application_protocols.iter().any(|protocol| Some(protocol.as_str()) == wanted);
            one_of(chain.application_protocols.is_empty(), listed)
        }
        Criterion::DirectSourcePrefix => longest(&chain.direct_source_prefixes, &info.direct_remote),
        Criterion::SourceType => match chain.source_type {
            SourceType::Any => Some(0),
            SourceType::SameIpOrLoopback => is_local(info).then_some(1),
            SourceType::External => (!is_local(info)).then_some(1),
        },
        Criterion::SourcePrefix => longest(&chain.source_prefixes, &info.remote),
        Criterion::SourcePort => {
            let listed = chain.source_ports.iter().any(|listed| Some(*listed) == port(&info.remote));
            one_of(chain.source_ports.is_empty(), listed)
        }
    }
}

/// At each criterion only the chains with the most specific fitting value stay.
fn by_scan(chains: &[FilterChainMatch], info: &ConnectionInfo) -> Option<usize> {
    let mut left: Vec<usize> = (0..chains.len()).collect();
    for criterion in CRITERIA {
        // What nobody fits exactly is left to those that ask for nothing, and these only if there are any.
        let ranks: Vec<_> = left.iter().map(|index| rank(criterion, &chains[*index], info)).collect();
        let best = ranks.iter().copied().flatten().max()?;
        let staying = left.iter().zip(&ranks).filter(|(_, rank)| **rank == Some(best));
        left = staying.map(|(index, _)| *index).collect();
    }
    left.first().copied()
}

fn some_cidrs() -> impl Strategy<Value = Vec<Cidr>> {
    let all = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.1.0/24",
        "0.0.0.0/0",
        "127.0.0.0/8",
        "::/0",
        "fc00::/7",
        "fc00::1/128",
    ];
    prop::collection::vec(prop::sample::select(all.to_vec()).prop_map(cidr), 0..3)
}

fn some_names(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(all).prop_map(str::to_owned), 0..3)
}

prop_compose! {
    fn some_match()(
        destination_port in prop::option::of(80_u16..82),
        destination_prefixes in some_cidrs(),
        source_prefixes in some_cidrs(),
        direct_source_prefixes in some_cidrs(),
        source_ports in prop::collection::vec(1_u16..4, 0..2),
        source_type in prop::sample::select(vec![SourceType::Any, SourceType::SameIpOrLoopback, SourceType::External]),
        server_names in some_names(&["*.a.com", "*.com", "x.a.com", "b.org"]),
        transport_protocol in prop::sample::select(vec!["", "", "tls", "raw_buffer"]),
        application_protocols in some_names(&["h2", "http/1.1"]),
        only in 0_u32..512,
    ) -> FilterChainMatch {
        // Most criteria are left open, or hardly any chain would ever match.
        let has = |bit: u32| only & (1 << bit) == 0 || only > 400;
        FilterChainMatch {
            destination_port: destination_port.filter(|_| has(0)),
            destination_prefixes: if has(1) { destination_prefixes } else { Vec::new() },
            source_prefixes: if has(2) { source_prefixes } else { Vec::new() },
            direct_source_prefixes: if has(3) { direct_source_prefixes } else { Vec::new() },
            source_ports: if has(4) { source_ports } else { Vec::new() },
            source_type: if has(5) { source_type } else { SourceType::Any },
            server_names: if has(6) { server_names } else { Vec::new() },
            transport_protocol: if has(7) { transport_protocol.to_owned() } else { String::new() },
            application_protocols: if has(8) { application_protocols } else { Vec::new() },
        }
    }
}

prop_compose! {
    fn some_connection()(
        local in prop::sample::select(vec!["10.1.1.1:80", "10.2.0.1:81", "127.0.0.1:82", "[fc00::1]:80", "[::1]:81", "@pipe"]),
        remote in prop::sample::select(vec!["10.1.1.1:1", "10.3.0.1:2", "127.0.0.1:3", "[fc00::1]:2", "[::1]:9", "@pipe"]),
        direct in prop::sample::select(vec!["10.1.1.1:1", "192.168.0.1:2", "[fc00::2]:3"]),
        name in prop::option::of(prop::sample::select(vec!["x.a.com", "y.a.com", "y.b.com", "b.org", "nowhere"])),
        protocol in prop::option::of(prop::sample::select(vec!["h2", "http/1.1", "h3"])),
    ) -> (String, String, String, Option<&'static str>, Option<&'static str>) {
        (local.to_owned(), remote.to_owned(), direct.to_owned(), name, protocol)
    }
}

proptest! {
    #[test]
    fn answers_as_a_scan_of_all_chains_would(
        chains in prop::collection::vec(some_match(), 0..12),
        connections in prop::collection::vec(some_connection(), 1..12),
    ) {
        let matcher = ChainMatcher::new(&chains);
        for (local, remote, direct, name, protocol) in connections {
            let mut info = from(&remote, &local);
            info.direct_remote = address(&direct);
            info.server_name = name.map(Rc::from);
            info.application_protocol = protocol.map(Rc::from);
            prop_assert_eq!(matcher.find(&info), by_scan(&chains, &info), "{:?}", info);
        }
    }
}
