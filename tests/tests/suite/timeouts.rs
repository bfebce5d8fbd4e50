//! Every deadline, set short: the outcome is asserted, never how long it took.

use proxy_tests::{After, Backend, Bootstrap, Cut, EchoBackend, Proxy, http_protocol_options};

fn silent() -> Backend {
    Backend::raw(|wire, _| drop(wire.rest()))
}

#[test]
fn route_timeout_cuts_a_response_that_has_begun() {
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        wire.rest();
    });
    let table = "[{match: {prefix: /}, route: {cluster: backend, timeout: 0.2s}}]";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).routes(table));
    let answer = proxy.connect().send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").try_response();
    assert_eq!(answer, Err(Cut::InBody(4)));
    backend.all_closed();
}

#[test]
fn the_route_timeout_starts_when_the_request_is_complete() {
    let backend = silent();
    let table = "[{match: {prefix: /}, route: {cluster: backend, timeout: 0.1s}}]";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).routes(table));
    let mut client = proxy.connect();
    let mut other = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\na");
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 1);
    // A whole request sent later has run out first, while the unfinished one still waits.
    assert_eq!(other.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 504);
    assert_eq!(proxy.stat("cluster.backend.upstream_rq_active"), 1);
    assert_eq!(client.ask("b").status(), 504);
}

#[test]
fn a_timeout_of_zero_is_none() {
    let backend = Backend::new(|request, wire| {
        if request.target() == "/first" {
            std::thread::park_timeout(std::time::Duration::from_millis(200)); // longer than any timer's tick
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        After::KeepOpen
    });
    let table = "[{match: {prefix: /}, route: {cluster: backend, timeout: 0s}}]";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).routes(table));
    assert_eq!(proxy.get("/first").status(), 200);
    assert_eq!(backend.request().header("x-envoy-expected-rq-timeout-ms"), None);
}

#[test]
fn the_client_may_ask_for_a_shorter_timeout() {
    let backend = silent();
    let internal = "internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(internal));
    let response =
        proxy.get_with("/", "x-forwarded-for: 10.0.0.1\r\nx-envoy-upstream-rq-timeout-ms: 100\r\n");
    assert_eq!((response.status(), response.text()), (504, "upstream request timeout"));
}

#[test]
fn an_idle_connection_is_closed() {
    let backend = Backend::saying("ok");
    let settings = "common_http_protocol_options: {idle_timeout: 0.2s}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(settings));
    let mut client = proxy.connect();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "ok");
    assert!(client.is_closed());
    assert!(proxy.connect().is_closed(), "also before its first request");
    proxy.stat_becomes("http.ingress.downstream_cx_idle_timeout", 2);
    proxy.stat_becomes("http.ingress.downstream_cx_active", 0);
}

#[test]
fn a_stream_that_stands_still_is_answered_408_or_504() {
    let backend = silent();
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with("stream_idle_timeout: 0.2s"));
    let unfinished = proxy.connect().ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab");
    assert_eq!((unfinished.status(), unfinished.text()), (408, "stream timeout"));
    let waiting = proxy.get("/");
    assert_eq!((waiting.status(), waiting.text()), (504, "stream timeout"));
    proxy.stat_becomes("http.ingress.downstream_rq_idle_timeout", 2);
}

#[test]
fn a_routes_idle_timeout_takes_precedence() {
    let backend = silent();
    let table = "[{match: {prefix: /}, route: {cluster: backend, idle_timeout: 0.2s, timeout: 0s}}]";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).routes(table));
    assert_eq!(proxy.get("/").text(), "stream timeout");
}

#[test]
fn a_request_that_takes_too_long_to_arrive_is_408() {
    let backend = silent();
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with("request_timeout: 0.2s"));
    let response = proxy.connect().ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab");
    assert_eq!((response.status(), response.text()), (408, "request timeout"));
    proxy.stat_becomes("http.ingress.downstream_rq_timeout", 1);
}

#[test]
fn headers_that_take_too_long_to_arrive_are_408() {
    let backend = silent();
    let proxy =
        Proxy::start(&Bootstrap::http(backend.address()).filter_with("request_headers_timeout: 0.2s"));
    let mut client = proxy.connect();
    let response = client.ask("GET / HTTP/1.1\r\nhost: a\r\nx-half");
    assert_eq!((response.status(), response.text()), (408, "request header timeout"));
    assert!(client.is_closed());
    proxy.stat_becomes("http.ingress.downstream_rq_header_timeout", 1);
}

#[test]
fn a_connection_has_a_longest_life() {
    let backend = Backend::saying("ok");
    let settings = "{common_http_protocol_options: {max_connection_duration: 0.3s}, drain_timeout: 0.1s}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(settings));
    let mut client = proxy.connect();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "ok");
    assert!(client.is_closed());
    proxy.stat_becomes("http.ingress.downstream_cx_max_duration_reached", 1);
}

#[test]
fn a_downstream_connection_has_a_most_of_requests() {
    let backend = Backend::saying("ok");
    let settings = "common_http_protocol_options: {max_requests_per_connection: 2}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(settings));
    let mut client = proxy.connect();
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").header("connection"), None);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").header("connection"), Some("close"));
    assert!(client.is_closed());
    proxy.stat_becomes("http.ingress.downstream_cx_max_requests_reached", 1);
}

#[test]
fn an_upstream_connection_has_a_most_of_requests() {
    let backend = Backend::saying("ok");
    let options = http_protocol_options(
        "{common_http_protocol_options: {max_requests_per_connection: 2}, explicit_http_config: {http_protocol_options: {}}}",
    );
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).cluster_with("backend", &options));
    let mut client = proxy.connect();
    for _ in 0..6 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "ok");
    }
    assert_eq!(backend.connections(), 3);
    proxy.stat_becomes("cluster.backend.upstream_cx_max_requests", 3);
}

#[test]
fn an_idle_upstream_connection_is_closed() {
    let backend = Backend::saying("ok");
    let options = http_protocol_options(
        "{common_http_protocol_options: {idle_timeout: 0.2s}, explicit_http_config: {http_protocol_options: {}}}",
    );
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).cluster_with("backend", &options));
    assert_eq!(proxy.get("/").text(), "ok");
    backend.all_closed();
    proxy.stat_becomes("cluster.backend.upstream_cx_idle_timeout", 1);
    proxy.stat_becomes("cluster.backend.upstream_cx_active", 0);
}

#[test]
fn an_idle_relay_is_closed() {
    let backend = EchoBackend::new();
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()).filter_with("idle_timeout: 0.2s"));
    let mut client = proxy.connect();
    assert_eq!(client.send("ping").bytes(4), b"ping");
    assert!(client.is_closed());
    proxy.stat_becomes("tcp.tcp.idle_timeout", 1);
    proxy.stat_becomes("tcp.tcp.downstream_cx_total", 1);
}

#[test]
fn a_relay_has_a_longest_life() {
    let backend = EchoBackend::new();
    let settings = "max_downstream_connection_duration: 0.3s";
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()).filter_with(settings));
    let mut client = proxy.connect();
    assert_eq!(client.send("ping").bytes(4), b"ping");
    assert!(client.is_closed());
    proxy.stat_becomes("tcp.tcp.max_downstream_connection_duration", 1);
}
