//! Answers that the proxy gives itself: status, body and headers exactly as Envoy's.

use proxy_tests::{Backend, Bootstrap, Message, Proxy, refusing_address};

fn assert_text(response: &Message, status: u16, body: &str) {
    assert_eq!((response.status(), response.text()), (status, body));
    let length = body.len().to_string();
    assert_eq!(response.header("content-length"), Some(length.as_str()));
    assert_eq!(response.header("content-type"), Some("text/plain"));
    assert_eq!(response.header("server"), Some("envoy"));
    assert!(response.header("date").is_some());
    assert_eq!(response.header("x-envoy-upstream-service-time"), None);
}

#[test]
fn no_route_is_an_empty_404() {
    let proxy = Proxy::start(&Bootstrap::http_without_clusters().routes("[]"));
    let response = proxy.get("/");
    assert_eq!((response.status(), response.text()), (404, ""));
    assert_eq!(response.headers.names(), ["date", "server", "content-length"]);
    proxy.stat_becomes("http.ingress.no_route", 1);
    proxy.stat_becomes("http.ingress.downstream_rq_4xx", 1);
}

#[test]
fn an_unknown_cluster_is_an_empty_503() {
    let table = "[{match: {prefix: /}, route: {cluster_header: x-cluster}}]";
    let proxy = Proxy::start(&Bootstrap::http_without_clusters().routes(table));
    let response = proxy.get_with("/", "x-cluster: nowhere\r\n");
    assert_eq!((response.status(), response.text()), (503, ""));
    proxy.stat_becomes("http.ingress.no_cluster", 1);
}

#[test]
fn an_unknown_cluster_answers_as_the_route_says() {
    let table = "[{match: {prefix: /}, route: {cluster_header: x-cluster, cluster_not_found_response_code: NOT_FOUND}}]";
    let proxy = Proxy::start(&Bootstrap::http_without_clusters().routes(table));
    assert_eq!(proxy.get_with("/", "x-cluster: nowhere\r\n").status(), 404);
}

#[test]
fn an_empty_cluster_has_no_healthy_upstream() {
    let proxy = Proxy::start(&Bootstrap::http_without_clusters().cluster_of("backend", &[]));
    assert_text(&proxy.get("/"), 503, "no healthy upstream");
    proxy.stat_becomes("cluster.backend.upstream_cx_none_healthy", 1);
}

#[test]
fn a_refused_connection_says_so() {
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()));
    let body =
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    assert_text(&proxy.get("/"), 503, body);
    proxy.stat_becomes("cluster.backend.upstream_cx_connect_fail", 1);
    proxy.stat_becomes("cluster.backend.upstream_rq_pending_failure_eject", 1);
}

#[test]
fn a_connection_closed_before_the_response_says_so() {
    let backend = Backend::raw(|wire, _| drop(wire.head()));
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let body =
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
    assert_text(&proxy.get("/"), 503, body);
}

#[test]
fn a_garbled_response_is_a_protocol_error() {
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.send("nonsense\r\n\r\n");
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let body = "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
    assert_text(&proxy.get("/"), 502, body);
    proxy.stat_becomes("cluster.backend.upstream_cx_protocol_error", 1);
}

#[test]
fn a_slow_backend_is_a_timeout() {
    let backend = Backend::raw(|wire, _| drop(wire.rest()));
    let table = "[{match: {prefix: /}, route: {cluster: backend, timeout: 0.1s}}]";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).routes(table));
    let response = proxy.get("/");
    assert_text(&response, 504, "upstream request timeout");
    proxy.stat_becomes("cluster.backend.upstream_rq_timeout", 1);
    backend.all_closed();
}

#[test]
fn a_full_cluster_overflows() {
    let backend = Backend::saying("never reached");
    let limits = "circuit_breakers: {thresholds: [{max_pending_requests: 0}]}"; // not even one may wait to connect
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).cluster_with("backend", limits));
    let response = proxy.get("/");
    assert_text(
        &response,
        503,
        "upstream connect error or disconnect/reset before headers. reset reason: overflow",
    );
    assert_eq!(response.header("x-envoy-overloaded"), Some("true"));
    proxy.stat_becomes("cluster.backend.upstream_rq_pending_overflow", 1);
}

#[test]
fn http_1_0_gets_upgrade_required() {
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()));
    let response = proxy.connect().ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_text(&response, 426, "Upgrade Required");
    assert_eq!(response.header("connection"), Some("close"));
}

#[test]
fn a_malformed_request_gets_bad_request() {
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()));
    let response = proxy.connect().ask("nonsense\r\n\r\n");
    assert_eq!((response.status(), response.text()), (400, "Bad Request"));
    assert_eq!(response.header("connection"), Some("close"));
}

#[test]
fn a_local_reply_keeps_the_connection() {
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()));
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 503);
    }
}

#[test]
fn a_local_reply_to_head_has_no_body() {
    let proxy = Proxy::start(&Bootstrap::http_without_clusters().cluster_of("backend", &[]));
    let mut client = proxy.connect();
    let head = client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!((head.status(), head.header("content-length")), (503, Some("19")));
    assert_eq!(client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").head().status(), 503);
}
