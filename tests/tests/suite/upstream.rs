//! Clusters, pools and breakers.

use std::collections::HashSet;
use std::net::SocketAddr;

use proxy_tests::{After, Backend, Bootstrap, Proxy, only_proxyd, refusing_address};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn round_robin_takes_hosts_in_turn() {
    let backends: Vec<Backend> = ["a", "b", "c"].iter().map(|name| Backend::saying(name)).collect();
    let addresses: Vec<SocketAddr> = backends.iter().map(Backend::address).collect();
    let proxy = Proxy::start(&Bootstrap::http_without_clusters().cluster_of("backend", &addresses));
    let mut client = proxy.connect();
    let answers: Vec<String> =
        (0..12).map(|_| client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text().to_owned()).collect();
    for round in answers.chunks(3) {
        assert_eq!(round.iter().collect::<HashSet<_>>().len(), 3, "{answers:?}");
        assert_eq!(round, &answers[..3], "the order is kept");
    }
}

#[test]
fn a_connect_that_takes_too_long_fails() {
    // A listener with a full backlog answers no further SYN.
    let full = socket_with_full_backlog();
    let Some((address, _held)) = full else {
        println!("this host accepts beyond the backlog: connect timeout not tested");
        return;
    };
    let proxy = Proxy::start(&Bootstrap::http(address).cluster_with("backend", "connect_timeout: 0.2s"));
    let response = proxy.get("/");
    assert_eq!(response.status(), 503);
    assert_eq!(
        response.text(),
        "upstream connect error or disconnect/reset before headers. reset reason: connection timeout"
    );
    proxy.stat_becomes("cluster.backend.upstream_cx_connect_timeout", 1);
    proxy.stat_becomes("cluster.backend.upstream_cx_connect_fail", 1);
    proxy.stat_becomes("cluster.backend.upstream_cx_active", 0);
}

type Held = (tokio::runtime::Runtime, tokio::net::TcpListener, Vec<tokio::net::TcpStream>);

fn socket_with_full_backlog() -> Option<(SocketAddr, Held)> {
    use tokio::net::{TcpSocket, TcpStream};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (address, listener, held, full) = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        for _ in 0..20 {
            let patience = std::time::Duration::from_millis(300);
            match tokio::time::timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => held.push(socket),
                _ => return (address, listener, held, true),
            }
        }
        (address, listener, held, false)
    });
    full.then_some((address, (runtime, listener, held)))
}

#[test]
fn the_connection_limit_queues_requests() {
    let backend = Backend::answering(OK);
    let limits = "circuit_breakers: {thresholds: [{max_connections: 1}]}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).cluster_with("backend", limits));
    let mut clients: Vec<_> = (0..10).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    proxy.stat_becomes("cluster.backend.upstream_rq_pending_active", 0);
    assert_eq!(proxy.stat("cluster.backend.upstream_rq_200"), 10);
}

#[test]
fn the_request_limit_refuses() {
    let backend = Backend::raw(|wire, _| drop(wire.rest()));
    let limits = "circuit_breakers: {thresholds: [{max_requests: 2}]}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).cluster_with("backend", limits));
    let mut held = [proxy.connect(), proxy.connect()];
    for client in &mut held {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 2);
    let refused = proxy.get("/");
    assert_eq!((refused.status(), refused.header("x-envoy-overloaded")), (503, Some("true")));
    proxy.stat_becomes("cluster.backend.upstream_rq_active_overflow", 1);
    drop(held);
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
    proxy.stat_becomes("cluster.backend.circuit_breakers.default.rq_open", 0);
}

/// Answers the first request of its first connection and closes when a second one comes; connections after
/// that answer everything.
fn closes_on_reuse() -> Backend {
    Backend::raw(|wire, number| {
        while let Ok(request) = wire.try_request() {
            if number == 0 && request.target() == "/second" {
                return;
            }
            wire.send(OK);
        }
    })
}

#[test]
fn an_idempotent_request_on_a_stale_connection_is_sent_once_more() {
    only_proxyd!("Envoy answers 503 when a reused connection turns out closed");
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let backend = closes_on_reuse();
        let proxy = Proxy::start(&Bootstrap::http(backend.address()));
        let mut client = proxy.connect();
        assert_eq!(client.ask("GET /first HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
        let again =
            client.send(format!("{method} /second HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")).head();
        assert_eq!((again.status(), backend.connections()), (200, 2), "{method}");
    }
}

#[test]
fn a_post_on_a_stale_connection_is_not_sent_twice() {
    let backend = closes_on_reuse();
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    assert_eq!(client.ask("GET /first HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
    let failed = client.ask("POST /second HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab");
    assert_eq!((failed.status(), backend.connections()), (503, 1));
}

#[test]
fn a_request_on_a_fresh_connection_is_not_sent_twice() {
    let backend = Backend::raw(|wire, _| drop(wire.try_request()));
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    assert_eq!((proxy.get("/").status(), backend.connections()), (503, 1));
}

#[test]
fn names_are_resolved() {
    for kind in ["STRICT_DNS", "LOGICAL_DNS"] {
        let backend = Backend::saying("resolved");
        let port = backend.address().port();
        let fragment = format!(
            "{{type: {kind}, dns_lookup_family: V4_ONLY, load_assignment: {{cluster_name: backend, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: localhost, port_value: {port}}}}}}}}}]}}]}}}}"
        );
        let proxy = Proxy::start(&Bootstrap::http(refusing_address()).cluster_with("backend", &fragment));
        assert_eq!(proxy.get("/").text(), "resolved", "{kind}");
        assert_eq!(proxy.stat("cluster.backend.membership_total"), 1);
        assert!(proxy.stat("cluster.backend.update_attempt") >= 1);
    }
}

#[test]
fn a_dns_cluster_by_extension() {
    let backend = Backend::saying("resolved");
    let port = backend.address().port();
    let fragment = format!(
        "{{type: null, cluster_type: {{name: envoy.cluster.dns, typed_config: {{'@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, dns_lookup_family: V4_ONLY}}}}, load_assignment: {{cluster_name: backend, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: localhost, port_value: {port}}}}}}}}}]}}]}}}}"
    );
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()).cluster_with("backend", &fragment));
    assert_eq!(proxy.get("/").text(), "resolved");
}

#[test]
fn a_name_that_does_not_resolve_leaves_no_host() {
    let fragment = "{type: STRICT_DNS, load_assignment: {cluster_name: backend, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: does-not-exist.invalid, port_value: 80}}}}]}]}}";
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()).cluster_with("backend", fragment));
    let response = proxy.get("/");
    assert_eq!((response.status(), response.text()), (503, "no healthy upstream"));
}

#[test]
fn connections_closed_while_idle_leave_the_pool() {
    let backend = Backend::new(|_, wire| {
        wire.send(OK);
        After::Close
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    for _ in 0..10 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "ok");
        proxy.stat_becomes("cluster.backend.upstream_cx_active", 0);
    }
}

#[test]
fn idle_connections_are_reused_last_in_first_out_or_at_least_reused() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    for _ in 0..50 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "ok");
    }
    assert_eq!(backend.connections(), 1);
}
