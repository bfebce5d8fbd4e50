//! `envoy.filters.http.buffer`.

use proxy_tests::{Backend, Bootstrap, Proxy};

fn bootstrap(backend: &Backend) -> Bootstrap {
    Bootstrap::http(backend.address()).http_filter(
        "envoy.filters.http.buffer",
        "buffer.v3.Buffer",
        "max_request_bytes: 100",
    )
}

#[test]
fn a_request_goes_on_when_it_is_whole_with_its_length() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    proxy.stat_becomes("http.ingress.downstream_rq_active", 1);
    assert_eq!(proxy.stat("cluster.backend.upstream_rq_total"), 0);
    assert_eq!(client.ask("2\r\nde\r\n0\r\n\r\n").status(), 200);
    let request = backend.request();
    assert_eq!((request.text(), request.header("content-length")), ("abcde", Some("5")));
    assert_eq!(request.header("transfer-encoding"), None);
}

#[test]
fn one_byte_too_many_is_413() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend));
    let ask = |bytes: usize| {
        let body = "x".repeat(bytes);
        let mut client = proxy.connect();
        client.ask(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {bytes}\r\n\r\n{body}"))
    };
    assert_eq!(ask(100).status(), 200);
    let refused = ask(101);
    assert_eq!((refused.status(), refused.text()), (413, "Payload Too Large"));
    assert_eq!(backend.requests().len(), 1);
    proxy.stat_becomes("http.ingress.downstream_rq_too_large", 1);
    proxy.stat_becomes("http.ingress.downstream_rq_4xx", 1);
}

#[test]
fn the_connection_outlives_a_413() {
    proxy_tests::only_proxyd!("Envoy closes it");
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend));
    let mut client = proxy.connect();
    let body = "x".repeat(101);
    let refused = client.ask(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 101\r\n\r\n{body}"));
    assert_eq!((refused.status(), refused.header("connection")), (413, None));
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
}

#[test]
fn a_client_that_goes_while_it_is_waited_for_ends_its_request() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc");
    proxy.stat_becomes("http.ingress.downstream_rq_active", 1);
    drop(client);
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
    proxy.stat_becomes("http.ingress.downstream_rq_rx_reset", 1);
    assert_eq!(proxy.stat("cluster.backend.upstream_rq_total"), 0);
}

#[test]
fn trailers_come_through() {
    proxy_tests::only_proxyd!("Envoy adds a length, with which HTTP/1 has no trailers");
    let backend = Backend::saying("ok");
    let options = "http_protocol_options: {enable_trailers: true}";
    let upstream = "explicit_http_config: {http_protocol_options: {enable_trailers: true}}";
    let bootstrap = bootstrap(&backend)
        .filter_with(options)
        .cluster_with("backend", &proxy_tests::http_protocol_options(upstream));
    let proxy = Proxy::start(&bootstrap);
    let request =
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-last: 1\r\n\r\n";
    assert_eq!(proxy.connect().ask(request).status(), 200);
    let request = backend.request();
    assert_eq!((request.text(), request.trailers.find("x-last")), ("abc", Some("1")));
}
