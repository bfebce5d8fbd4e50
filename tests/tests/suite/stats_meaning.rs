//! What a counter means where that is not plain: who ended what, and what it was then.

use proxy_tests::{After, Backend, Bootstrap, Proxy, eventually};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn assert_stats(proxy: &Proxy, expected: &[(&str, u64)]) {
    for (name, value) in expected {
        proxy.stat_becomes(name, *value);
    }
}

#[test]
fn a_client_that_gives_up_resets_its_request() {
    let backend = Backend::raw(|wire, _| drop(wire.rest()));
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    for (begun, upstream) in
        [(GET, 1), ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf", 2), ("GET / HT", 2)]
    {
        let resets = proxy.stat("http.ingress.downstream_rq_rx_reset");
        let mut client = proxy.connect();
        client.send(begun);
        proxy.stat_becomes("cluster.backend.upstream_rq_total", upstream);
        drop(client);
        proxy.stat_becomes("http.ingress.downstream_rq_rx_reset", resets + 1);
    }
    assert_stats(
        &proxy,
        &[
            ("http.ingress.downstream_rq_total", 3),
            ("http.ingress.downstream_rq_rx_reset", 3),
            ("http.ingress.downstream_rq_tx_reset", 0),
            ("http.ingress.downstream_rq_completed", 0),
            ("http.ingress.downstream_cx_destroy_remote_active_rq", 3),
            ("cluster.backend.upstream_cx_destroy_local_with_active_rq", 2),
            ("cluster.backend.upstream_rq_cancelled", 0),
            ("cluster.backend.upstream_cx_tx_bytes_buffered", 0),
            ("http.ingress.downstream_cx_rx_bytes_buffered", 0),
        ],
    );
}

#[test]
fn a_request_that_waits_for_a_connection_can_be_cancelled() {
    let backend = Backend::raw(|wire, _| drop(wire.rest()));
    let limits = "circuit_breakers: {thresholds: [{max_connections: 1, track_remaining: true}]}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).cluster_with("backend", limits));
    let breakers = "cluster.backend.circuit_breakers.default";
    assert_stats(&proxy, &[(&format!("{breakers}.remaining_cx"), 1)]);
    let mut clients = Vec::new();
    // Each worker has a first connection, even beyond the limit: of two workers, the third client waits at the latest.
    let mut waiting = 0;
    while waiting == 0 {
        let mut client = proxy.connect();
        client.send(GET);
        clients.push(client);
        waiting = eventually("each request to have a connection or to wait for one", || {
            let [pending, served, connections] = ["rq_pending_active", "rq_active", "cx_active"]
                .map(|of| proxy.stat(&format!("cluster.backend.upstream_{of}")));
            (pending + served == clients.len() as u64 && connections == served).then_some(pending)
        });
    }
    assert_stats(&proxy, &[(&format!("{breakers}.remaining_cx"), 0), (&format!("{breakers}.cx_open"), 1)]);
    // Of all clients, the last one waits.
    drop(clients.pop());
    proxy.stat_becomes("cluster.backend.upstream_rq_cancelled", 1);
    drop(clients);
    assert_stats(
        &proxy,
        &[
            ("cluster.backend.upstream_rq_cancelled", 1),
            ("cluster.backend.upstream_rq_pending_active", 0),
            ("cluster.backend.upstream_cx_active", 0),
            (&format!("{breakers}.remaining_cx"), 1),
            (&format!("{breakers}.remaining_retries"), 3),
            (&format!("{breakers}.cx_open"), 0),
        ],
    );
}

#[test]
fn a_host_that_announces_its_end_is_left_by_us() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    assert_eq!(proxy.get("/").text(), "ok");
    assert_stats(
        &proxy,
        &[
            ("cluster.backend.upstream_cx_close_notify", 1),
            ("cluster.backend.upstream_cx_destroy_local", 1),
            ("cluster.backend.upstream_cx_destroy_remote", 0),
            ("cluster.backend.upstream_cx_destroy_with_active_rq", 0),
        ],
    );
}

#[test]
fn a_response_that_breaks_off_is_a_protocol_error_of_the_host_and_our_reset() {
    let backend = Backend::new(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        After::Close
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    client.send(GET);
    assert_eq!(client.head().status(), 200);
    client.rest();
    assert_stats(
        &proxy,
        &[
            ("cluster.backend.upstream_cx_protocol_error", 1),
            ("cluster.backend.upstream_cx_destroy_remote_with_active_rq", 1),
            ("cluster.backend.upstream_rq_200", 1),
            ("http.ingress.downstream_rq_tx_reset", 1),
            ("http.ingress.downstream_rq_rx_reset", 1),
            ("http.ingress.downstream_rq_2xx", 1),
        ],
    );
}

#[test]
fn a_limit_that_passes_within_a_response_does_not_answer_again() {
    let backend = Backend::raw(|wire, _| {
        wire.request();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        wire.rest();
    });
    let routes = r#"[{match: {prefix: "/"}, route: {cluster: backend, timeout: 0.2s}}]"#;
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).routes(routes));
    let mut client = proxy.connect();
    client.send(GET);
    client.rest();
    assert_stats(
        &proxy,
        &[
            ("cluster.backend.upstream_rq_timeout", 1),
            ("cluster.backend.upstream_rq_200", 1),
            ("cluster.backend.upstream_rq_504", 0),
            ("cluster.backend.upstream_rq_completed", 1),
        ],
    );
}

#[test]
fn answers_of_the_router_itself_are_requests_to_it() {
    let routes = r#"[
        {match: {prefix: "/direct"}, direct_response: {status: 200}},
        {match: {prefix: "/redirect"}, redirect: {host_redirect: b}},
        {match: {prefix: "/missing"}, route: {cluster_header: ":authority"}}]"#;
    let proxy = Proxy::start(&Bootstrap::http_without_clusters().routes(routes));
    for (path, status) in [("/direct", 200), ("/redirect", 301), ("/missing", 503), ("/none", 404)] {
        assert_eq!(proxy.get(path).status(), status);
    }
    assert_stats(
        &proxy,
        &[
            ("http.ingress.rq_total", 4),
            ("http.ingress.rq_direct_response", 2),
            ("http.ingress.no_cluster", 1),
            ("http.ingress.no_route", 1),
        ],
    );
}

#[test]
fn the_admin_port_counts_its_own_requests() {
    let proxy = Proxy::start(&Bootstrap::empty());
    let before = proxy.stat("http.admin.downstream_rq_total");
    assert_eq!(proxy.admin_get("/nothing").status(), 404);
    // The answer about stats counts itself, but not its own end.
    assert_eq!(proxy.stat("http.admin.downstream_rq_total"), before + 2);
    assert_stats(
        &proxy,
        &[
            ("http.admin.downstream_rq_4xx", 1),
            ("listener.admin.http.admin.downstream_rq_4xx", 1),
            ("http.admin.downstream_rq_active", 1),
            ("http.admin.downstream_cx_active", 1),
            ("listener.admin.main_thread.downstream_cx_active", 1),
            ("listener.admin.downstream_cx_active", 1),
        ],
    );
}
