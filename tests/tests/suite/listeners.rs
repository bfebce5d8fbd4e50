//! Where the proxy listens and which filter chain a connection gets.

use proxy_tests::{
    Backend, Bootstrap, EchoBackend, Proxy, Wire, direct_response_chain, refusing_address, unused_address,
};
use serde_json::{Value, json};

fn ask(wire: &mut Wire) -> String {
    wire.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text().to_owned()
}

/// A listener whose chains answer with their names; `default` may be null.
fn chains(matches: &[(&str, Value)], default: Option<&str>) -> Bootstrap {
    let chain = |(name, matcher): &(&str, Value)| {
        let mut chain = direct_response_chain(name);
        chain["name"] = json!(name);
        chain["filter_chain_match"] = matcher.clone();
        chain
    };
    let all: Vec<Value> = matches.iter().map(chain).collect();
    let mut fragment = json!({"filter_chains": all});
    if let Some(name) = default {
        fragment["default_filter_chain"] = direct_response_chain(name);
    }
    Bootstrap::empty().listener("main", Value::Null).listener_with(&fragment.to_string())
}

/// The chain that a connection from 127.0.0.1 gets; none if it was closed.
fn chosen(proxy: &Proxy) -> Option<String> {
    let mut wire = proxy.connect();
    wire.send_if_open("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    wire.try_response().ok().map(|response| response.text().to_owned())
}

#[test]
fn ipv4_and_ipv6_and_several_listeners() {
    let mut bootstrap = Bootstrap::empty()
        .listener("main", direct_response_chain("one"))
        .listener("other", direct_response_chain("two"));
    let has_ipv6 = std::net::TcpListener::bind(("::1", 0)).is_ok();
    if has_ipv6 {
        bootstrap = bootstrap
            .listener_with("address: {socket_address: {address: '::1', port_value: 0}}")
            .listener("third", direct_response_chain("three"));
    } else {
        println!("no IPv6 on this host: only IPv4 is tested");
    }
    let proxy = Proxy::start(&bootstrap);
    assert_eq!(ask(&mut proxy.connect()), "one");
    assert_eq!(ask(&mut Wire::connect(proxy.listener("other"))), "two");
    assert_eq!(proxy.listener("main").is_ipv6(), has_ipv6);
    proxy.stat_becomes("listener_manager.total_listeners_active", if has_ipv6 { 3 } else { 2 });
}

#[test]
fn unix_sockets_on_both_sides() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("listener.sock");
    let fragment = json!({"address": {"pipe": {"path": path}}}).to_string();
    let backend = Backend::saying("over a pipe");
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address()).listener_with("address: null").listener_with(&fragment),
    );
    let mut client = Wire::connect_unix(&path);
    assert_eq!(ask(&mut client), "over a pipe");
    assert_eq!(ask(&mut client), "over a pipe");
    drop(proxy);
}

#[test]
fn a_unix_socket_as_upstream() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("upstream.sock");
    let inner = Proxy::start(
        &Bootstrap::empty()
            .listener("main", direct_response_chain("behind a pipe"))
            .listener_with("address: null")
            .listener_with(&json!({"address": {"pipe": {"path": path}}}).to_string()),
    );
    let endpoint = json!({"load_assignment": {"cluster_name": "backend", "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": path}}}}]}]}});
    let outer =
        Proxy::start(&Bootstrap::http(refusing_address()).cluster_with("backend", &endpoint.to_string()));
    assert_eq!(outer.get("/").text(), "behind a pipe");
    drop(inner);
}

#[test]
fn chains_match_by_destination_port() {
    let proxy =
        Proxy::start(&chains(&[("other port", json!({"destination_port": 1})), ("rest", json!({}))], None));
    assert_eq!(chosen(&proxy).as_deref(), Some("rest"));
}

#[test]
fn chains_match_by_the_longest_destination_prefix() {
    let range = |prefix: &str, length: u32| json!({"prefix_ranges": [{"address_prefix": prefix, "prefix_len": length}]});
    let proxy = Proxy::start(&chains(
        &[
            ("eight", range("127.0.0.0", 8)),
            ("all of it", range("127.0.0.1", 32)),
            ("elsewhere", range("10.0.0.0", 8)),
        ],
        None,
    ));
    assert_eq!(chosen(&proxy).as_deref(), Some("all of it"));
}

#[test]
fn chains_match_by_source_prefix_port_and_type() {
    let source = |prefix: &str, length: u32| json!({"source_prefix_ranges": [{"address_prefix": prefix, "prefix_len": length}]});
    let proxy =
        Proxy::start(&chains(&[("ten", source("10.0.0.0", 8)), ("local", source("127.0.0.0", 8))], None));
    assert_eq!(chosen(&proxy).as_deref(), Some("local"));
    let proxy = Proxy::start(&chains(
        &[
            ("outside", json!({"source_type": "EXTERNAL"})),
            ("inside", json!({"source_type": "SAME_IP_OR_LOOPBACK"})),
        ],
        None,
    ));
    assert_eq!(chosen(&proxy).as_deref(), Some("inside"));

    let port = unused_address().port();
    let proxy = Proxy::start(&chains(
        &[("that port", json!({"source_ports": [port]})), ("any port", json!({}))],
        None,
    ));
    assert_eq!(chosen(&proxy).as_deref(), Some("any port"));
    let from = ([127, 0, 0, 1], port).into();
    assert_eq!(ask(&mut Wire::connect_from(from, proxy.listener("main"))), "that port");
}

#[test]
fn destination_comes_before_source() {
    let proxy = Proxy::start(&chains(
        &[
            ("source", json!({"source_type": "SAME_IP_OR_LOOPBACK"})),
            ("destination", json!({"prefix_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]})),
        ],
        None,
    ));
    assert_eq!(chosen(&proxy).as_deref(), Some("destination"));
}

#[test]
fn no_match_takes_the_default_chain() {
    let never = json!({"destination_port": 1});
    let proxy = Proxy::start(&chains(&[("never", never)], Some("default")));
    assert_eq!(chosen(&proxy).as_deref(), Some("default"));
}

#[test]
fn no_match_and_no_default_closes() {
    let bootstrap = chains(&[("never", json!({"destination_port": 1}))], None);
    let proxy = Proxy::start(&bootstrap.listener_with("stat_prefix: main"));
    assert_eq!(chosen(&proxy), None);
    proxy.stat_becomes("listener.main.no_filter_chain_match", 1);
}

#[test]
fn without_reuse_port_both_workers_still_serve() {
    let backend = EchoBackend::new();
    let settings = "{enable_reuse_port: false, tcp_backlog_size: 64, per_connection_buffer_limit_bytes: 4096, \
                    max_connections_to_accept_per_socket_event: 1}";
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()).listener_with(settings));
    let mut clients: Vec<Wire> = (0..20).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.send(vec![1; 20_000]).bytes(20_000).len(), 20_000);
    }
}

#[test]
fn connections_are_spread_over_workers() {
    let bootstrap = Bootstrap::empty().listener("main", direct_response_chain("x"));
    let proxy = Proxy::start(&bootstrap.listener_with("stat_prefix: main"));
    let _open: Vec<Wire> = (0..64)
        .map(|_| {
            let mut wire = proxy.connect();
            assert_eq!(ask(&mut wire), "x");
            wire
        })
        .collect();
    let of = |worker: u32| proxy.stat(&format!("listener.main.worker_{worker}.downstream_cx_active"));
    assert_eq!(of(0) + of(1), 64);
    assert!(of(0) > 0 && of(1) > 0, "64 connections hashed over two sockets: {} and {}", of(0), of(1));
}
