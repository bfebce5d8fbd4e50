//! Counters have exact values after known traffic, and gauges come back to zero.

use proxy_tests::http2::{Client, block_on};
use proxy_tests::{After, Backend, Bootstrap, EchoBackend, Proxy, refusing_address};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn assert_stats(proxy: &Proxy, expected: &[(&str, u64)]) {
    for (name, value) in expected {
        proxy.stat_becomes(name, *value);
    }
}

#[test]
fn http_traffic_is_counted_once_everywhere() {
    let backend = Backend::new(|request, wire| {
        let status = request.target().trim_start_matches('/');
        wire.send(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"));
        After::KeepOpen
    });
    let bootstrap = Bootstrap::http(backend.address()).listener_with("stat_prefix: main");
    let proxy = Proxy::start(&bootstrap);
    {
        let mut client = proxy.connect();
        for status in [200, 200, 201, 301, 404, 404, 500] {
            assert_eq!(client.ask(format!("GET /{status} HTTP/1.1\r\nhost: a\r\n\r\n")).status(), status);
        }
        assert_stats(
            &proxy,
            &[("http.ingress.downstream_cx_active", 1), ("cluster.backend.upstream_cx_active", 1)],
        );
    }
    assert_stats(
        &proxy,
        &[
            ("http.ingress.downstream_cx_total", 1),
            ("http.ingress.downstream_cx_http1_total", 1),
            ("http.ingress.downstream_cx_destroy", 1),
            ("http.ingress.downstream_cx_active", 0),
            ("http.ingress.downstream_cx_http1_active", 0),
            ("http.ingress.downstream_rq_total", 7),
            ("http.ingress.downstream_rq_http1_total", 7),
            ("http.ingress.downstream_rq_completed", 7),
            ("http.ingress.downstream_rq_2xx", 3),
            ("http.ingress.downstream_rq_3xx", 1),
            ("http.ingress.downstream_rq_4xx", 2),
            ("http.ingress.downstream_rq_5xx", 1),
            ("http.ingress.downstream_rq_active", 0),
            ("http.ingress.rq_total", 7),
            ("listener.main.downstream_cx_total", 1),
            ("listener.main.downstream_cx_active", 0),
            ("listener.main.downstream_cx_destroy", 1),
            ("listener.main.http.ingress.downstream_rq_completed", 7),
            ("listener.main.http.ingress.downstream_rq_2xx", 3),
            ("cluster.backend.upstream_cx_total", 1),
            ("cluster.backend.upstream_cx_http1_total", 1),
            ("cluster.backend.upstream_rq_total", 7),
            ("cluster.backend.upstream_rq_completed", 7),
            ("cluster.backend.upstream_rq_200", 2),
            ("cluster.backend.upstream_rq_201", 1),
            ("cluster.backend.upstream_rq_2xx", 3),
            ("cluster.backend.upstream_rq_404", 2),
            ("cluster.backend.upstream_rq_5xx", 1),
            ("cluster.backend.external.upstream_rq_2xx", 3),
            ("cluster.backend.upstream_rq_active", 0),
            ("cluster.backend.upstream_rq_pending_active", 0),
            ("cluster.backend.upstream_rq_pending_total", 1),
            ("cluster.backend.membership_healthy", 1),
            ("cluster.backend.membership_total", 1),
        ],
    );
}

#[test]
fn bytes_are_counted_as_they_pass() {
    let backend = Backend::saying("0123456789");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    let sent = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n".to_owned() + &"x".repeat(100);
    assert_eq!(client.ask(&sent).text(), "0123456789");
    let response = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789".len() as u64;
    assert_stats(
        &proxy,
        &[
            ("http.ingress.downstream_cx_rx_bytes_total", sent.len() as u64),
            ("cluster.backend.upstream_cx_rx_bytes_total", response),
        ],
    );
    assert!(proxy.stat("cluster.backend.upstream_cx_tx_bytes_total") > sent.len() as u64);
    assert!(proxy.stat("http.ingress.downstream_cx_tx_bytes_total") > response);
}

#[test]
fn two_workers_count_into_one_number() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let clients: Vec<_> = (0..4).map(|_| proxy.connect()).collect();
    std::thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                for _ in 0..250 {
                    assert_eq!(client.ask(GET).status(), 200);
                }
            });
        }
    });
    assert_stats(
        &proxy,
        &[
            ("http.ingress.downstream_rq_total", 1000),
            ("http.ingress.downstream_rq_2xx", 1000),
            ("http.ingress.downstream_cx_total", 4),
            ("http.ingress.downstream_cx_active", 0),
            ("cluster.backend.upstream_rq_200", 1000),
            ("cluster.backend.upstream_rq_active", 0),
        ],
    );
}

#[test]
fn http2_has_its_own_counters() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        for _ in 0..5 {
            assert_eq!(client.get("/").await.status, 200);
        }
    });
    assert_stats(
        &proxy,
        &[
            ("http.ingress.downstream_cx_http2_total", 1),
            ("http.ingress.downstream_cx_http2_active", 0),
            ("http.ingress.downstream_cx_active", 0),
            ("http.ingress.downstream_rq_http2_total", 5),
            ("http.ingress.downstream_rq_http1_total", 0),
            ("http.ingress.downstream_rq_active", 0),
            ("http2.streams_active", 0),
        ],
    );
}

#[test]
fn clients_that_leave_midway_leave_nothing_behind() {
    let backend = Backend::raw(|wire, _| drop(wire.rest()));
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    for request in [
        "",
        "GET / HT",
        GET,
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nha",
    ] {
        for _ in 0..4 {
            proxy.connect().send(request);
        }
    }
    assert_stats(
        &proxy,
        &[
            ("http.ingress.downstream_cx_total", 20),
            ("http.ingress.downstream_cx_destroy", 20),
            ("http.ingress.downstream_cx_active", 0),
            ("http.ingress.downstream_rq_active", 0),
            ("cluster.backend.upstream_rq_active", 0),
            ("cluster.backend.upstream_rq_pending_active", 0),
        ],
    );
}

#[test]
fn failures_count_where_they_happen() {
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()));
    for _ in 0..3 {
        assert_eq!(proxy.get("/").status(), 503);
    }
    assert_stats(
        &proxy,
        &[
            ("cluster.backend.upstream_cx_total", 3),
            ("cluster.backend.upstream_cx_connect_fail", 3),
            ("cluster.backend.upstream_cx_active", 0),
            ("cluster.backend.upstream_rq_503", 3),
            ("cluster.backend.upstream_rq_5xx", 3),
            ("cluster.backend.upstream_rq_total", 0),
            ("http.ingress.downstream_rq_5xx", 3),
        ],
    );
}

#[test]
fn relays_are_counted() {
    let backend = EchoBackend::new();
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()));
    for _ in 0..5 {
        let mut client = proxy.connect();
        assert_eq!(client.send("12345678").bytes(8), b"12345678");
    }
    assert_stats(
        &proxy,
        &[
            ("tcp.tcp.downstream_cx_total", 5),
            ("tcp.tcp.downstream_cx_rx_bytes_total", 40),
            ("tcp.tcp.downstream_cx_tx_bytes_total", 40),
            ("tcp.tcp.downstream_cx_rx_bytes_buffered", 0),
            ("tcp.tcp.downstream_cx_tx_bytes_buffered", 0),
            ("cluster.backend.upstream_cx_total", 5),
            ("cluster.backend.upstream_cx_active", 0),
            ("cluster.backend.upstream_cx_rx_bytes_total", 40),
            ("cluster.backend.upstream_cx_tx_bytes_total", 40),
        ],
    );
}

#[test]
fn the_managers_count_what_they_hold() {
    let proxy = Proxy::start(
        &Bootstrap::http(refusing_address())
            .cluster("second", refusing_address())
            .cluster("third", refusing_address()),
    );
    assert_stats(
        &proxy,
        &[
            ("cluster_manager.active_clusters", 3),
            ("cluster_manager.cluster_added", 3),
            ("cluster_manager.warming_clusters", 0),
            ("listener_manager.total_listeners_active", 1),
            ("listener_manager.listener_added", 1),
            ("listener_manager.listener_create_success", 2), // one per worker
            ("listener_manager.workers_started", 1),
            ("server.live", 1),
            ("server.concurrency", 2),
        ],
    );
}
