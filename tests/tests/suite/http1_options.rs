//! What `http_protocol_options` and `headers_with_underscores_action` change about HTTP/1.

use proxy_tests::http2::{self, block_on};
use proxy_tests::{Backend, Bootstrap, Message, Proxy, http_protocol_options, only_proxyd};

/// A proxy with `fragment` in its connection manager, and the backend behind it.
fn with(fragment: &str, response: &str) -> (Proxy, Backend) {
    let backend = Backend::answering(response);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(fragment));
    (proxy, backend)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
const HTTP_10: &str = "http_protocol_options: {accept_http_10: true}";

fn start(message: &Message) -> &str {
    &message.start
}

#[test]
fn http_10_is_answered_in_kind_and_closed() {
    let (proxy, backend) = with(HTTP_10, OK);
    let mut wire = proxy.connect();
    let response = wire.ask("GET /a HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!((start(&response), response.text()), ("HTTP/1.0 200 OK", "ok"));
    assert_eq!(response.header("connection"), Some("close"));
    assert!(wire.is_closed());
    assert_eq!(backend.request().start, "GET /a HTTP/1.1");
}

#[test]
fn http_10_stays_open_where_asked_for() {
    let (proxy, _backend) = with(HTTP_10, OK);
    let mut wire = proxy.connect();
    for _ in 0..2 {
        let response = wire.ask("GET /a HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
        assert_eq!((start(&response), response.text()), ("HTTP/1.0 200 OK", "ok"));
        assert_eq!(response.header("connection"), Some("keep-alive"));
    }
    let response = wire.ask("GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(start(&response), "HTTP/1.1 200 OK");
}

#[test]
fn http_10_gets_no_chunks() {
    let (proxy, _backend) = with(HTTP_10, CHUNKED);
    let mut wire = proxy.connect();
    wire.send("GET /a HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    let all = String::from_utf8(wire.rest()).unwrap();
    assert!(all.starts_with("HTTP/1.0 200 OK\r\n") && all.ends_with("\r\n\r\nok"), "{all}");
    assert!(all.contains("connection: close\r\n") && !all.contains("transfer-encoding"), "{all}");
}

#[test]
fn http_10_without_a_host_gets_the_default_one() {
    let default = "http_protocol_options: {accept_http_10: true, default_host_for_http_10: def.com}";
    let (proxy, backend) = with(default, OK);
    let response = proxy.connect().ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(response.status(), 200);
    assert_eq!(backend.request().header("host"), Some("def.com"));
    let response = proxy.connect().ask("GET http://b.com/x HTTP/1.0\r\n\r\n");
    assert_eq!(response.status(), 200);
    assert_eq!(backend.requests()[1].header("host"), Some("b.com"));
    let (proxy, backend) = with(HTTP_10, OK);
    assert_eq!(proxy.connect().ask("GET / HTTP/1.0\r\n\r\n").status(), 400);
    assert_eq!(backend.requests().len(), 0);
}

#[test]
fn http_10_knows_no_chunks_and_no_interim_responses() {
    only_proxyd!("Envoy takes chunks from HTTP/1.0, and tells it to go on");
    let (proxy, backend) = with(HTTP_10, OK);
    let chunked = "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    assert_eq!(proxy.connect().ask(chunked).status(), 400);
    assert_eq!(backend.requests().len(), 0);
    let expecting = "POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx";
    assert_eq!(proxy.connect().ask(expecting).status(), 200);
    assert_eq!(backend.request().body, b"x");
}

#[test]
fn absolute_targets_may_be_refused() {
    let (proxy, backend) = with("http_protocol_options: {allow_absolute_url: false}", OK);
    let response = proxy.connect().ask("GET http://b.com/x HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((response.status(), response.text()), (404, ""));
    assert_eq!(proxy.stat("http.ingress.downstream_rq_non_relative_path"), 1);
    assert_eq!(backend.requests().len(), 0);
    assert_eq!(proxy.get("/x").status(), 200);
}

#[test]
fn a_length_beside_chunks_may_be_ignored() {
    let upstream =
        http_protocol_options("explicit_http_config: {http_protocol_options: {allow_chunked_length: true}}");
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    );
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address())
            .filter_with("http_protocol_options: {allow_chunked_length: true}")
            .cluster_with("backend", &upstream),
    );
    let both = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let response = proxy.connect().ask(both);
    assert_eq!((response.status(), response.text()), (200, "ok"));
    assert_eq!(response.header("content-length"), None);
    let request = backend.request();
    assert_eq!((request.body.as_slice(), request.header("content-length")), (&b"a"[..], None));
    let gzip = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc";
    assert!(proxy.connect().ask(gzip).status() >= 400);
    assert_eq!(backend.requests().len(), 1);
}

fn cased(downstream: &str, upstream: &str) -> (Proxy, Backend) {
    let backend = Backend::answering(
        "HTTP/1.1 200 Fine Phrase\r\nX-BaCk: 1\r\nCoNtent-LENGTH: 2\r\nx-back: 2\r\n\r\nok",
    );
    let format = |format: &str| match format {
        "" => "{}".to_owned(),
        format => format!("{{header_key_format: {format}}}"),
    };
    let upstream = http_protocol_options(&format!(
        "explicit_http_config: {{http_protocol_options: {}}}",
        format(upstream)
    ));
    let bootstrap = Bootstrap::http(backend.address())
        .filter_with(&format!("http_protocol_options: {}", format(downstream)))
        .cluster_with("backend", &upstream);
    (Proxy::start(&bootstrap), backend)
}

const PROPER: &str = "{proper_case_words: {}}";

fn preserve(fields: &str) -> String {
    format!(
        "{{stateful_formatter: {{name: preserve_case, typed_config: {{'@type': type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig{fields}}}}}}}"
    )
}

/// Names as they are on the wire, those that the client and the backend gave first, sorted for the rest.
fn exchanged(proxy: &Proxy, backend: &Backend) -> (String, Vec<String>, Vec<String>) {
    let request = "GET / HTTP/1.1\r\nHoST: a\r\nX-fOO-bar: 1\r\nx_y-z1a--b: 2\r\nX-FOO-BAR: 3\r\n\r\n";
    let response = proxy.connect().ask(request);
    let names = |message: &Message| {
        let mut names: Vec<String> = message.headers.0.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    };
    (response.start.clone(), names(&backend.request()), names(&response))
}

#[test]
fn names_are_written_as_proper_words() {
    let (proxy, backend) = cased(PROPER, PROPER);
    let (_, request, response) = exchanged(&proxy, &backend);
    assert_eq!(
        request,
        [
            "Host",
            "X-Envoy-Expected-Rq-Timeout-Ms",
            "X-Foo-Bar",
            "X-Foo-Bar",
            "X-Forwarded-Proto",
            "X-Request-Id",
            "X_Y-Z1a--B"
        ]
    );
    assert_eq!(
        response,
        ["Content-Length", "Date", "Server", "X-Back", "X-Back", "X-Envoy-Upstream-Service-Time"]
    );
}

#[test]
fn names_are_written_as_they_were_read() {
    let (proxy, backend) = cased(&preserve(""), &preserve(""));
    let (start, request, response) = exchanged(&proxy, &backend);
    assert_eq!(start, "HTTP/1.1 200 OK");
    assert_eq!(
        request,
        [
            "HoST",
            "X-fOO-bar",
            "X-fOO-bar",
            "x-envoy-expected-rq-timeout-ms",
            "x-forwarded-proto",
            "x-request-id",
            "x_y-z1a--b"
        ]
    );
    assert_eq!(
        response,
        ["CoNtent-LENGTH", "X-BaCk", "X-BaCk", "date", "server", "x-envoy-upstream-service-time"]
    );
}

#[test]
fn it_is_the_reading_side_that_remembers_names() {
    let (proxy, backend) = cased(&preserve(""), "");
    let (_, request, response) = exchanged(&proxy, &backend);
    assert!(request.contains(&"X-fOO-bar".to_owned()), "{request:?}");
    assert!(response.contains(&"x-back".to_owned()), "{response:?}");
}

#[test]
fn our_own_names_and_reasons_may_have_their_form() {
    let fields = ", forward_reason_phrase: true, formatter_type_on_envoy_headers: PROPER_CASE";
    let (proxy, backend) = cased(&preserve(fields), &preserve(fields));
    let (start, request, response) = exchanged(&proxy, &backend);
    assert_eq!(start, "HTTP/1.1 200 Fine Phrase");
    assert!(request.contains(&"X-Request-Id".to_owned()), "{request:?}");
    assert!(response.contains(&"X-Envoy-Upstream-Service-Time".to_owned()), "{response:?}");
    assert!(response.contains(&"X-BaCk".to_owned()), "{response:?}");
}

fn underscores(action: &str) -> (Proxy, Backend) {
    let upstream =
        http_protocol_options("explicit_http_config: {http_protocol_options: {enable_trailers: true}}");
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address())
            .filter_with(&format!(
                "{{common_http_protocol_options: {{headers_with_underscores_action: {action}}},
                   http_protocol_options: {{enable_trailers: true}}}}"
            ))
            .cluster_with("backend", &upstream),
    );
    (proxy, backend)
}

const WITH_TRAILERS: &str =
    "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx_t: 1\r\nx-u: 2\r\n\r\n";

#[test]
fn headers_with_underscores_may_be_dropped() {
    let (proxy, backend) = underscores("DROP_HEADER");
    assert_eq!(proxy.get_with("/", "x_a: 1\r\nx-b: 2\r\nx_c: 3\r\n").status(), 200);
    let request = backend.request();
    assert_eq!((request.header("x_a"), request.header("x-b")), (None, Some("2")));
    assert_eq!(proxy.stat("http1.dropped_headers_with_underscores"), 2);
    assert_eq!(proxy.connect().ask(WITH_TRAILERS).status(), 200);
    let trailers = &backend.requests()[1].trailers;
    assert_eq!(trailers.names(), ["x-u"]);
    assert_eq!(proxy.stat("http1.dropped_headers_with_underscores"), 3);
}

#[test]
fn requests_with_underscores_may_be_refused() {
    let (proxy, backend) = underscores("REJECT_REQUEST");
    let response = proxy.get_with("/", "x_a: 1\r\n");
    assert_eq!((response.status(), response.text()), (400, "Bad Request"));
    assert_eq!(proxy.stat("http1.requests_rejected_with_underscores_in_headers"), 1);
    assert_eq!(proxy.connect().ask(WITH_TRAILERS).status(), 400);
    assert_eq!(proxy.stat("http1.requests_rejected_with_underscores_in_headers"), 2);
    assert_eq!(backend.requests().len(), 0);
    assert_eq!(proxy.get_with("/", "x-a: 1\r\n").status(), 200);
}

#[test]
fn underscores_over_http2_are_counted_there() {
    let (proxy, backend) = underscores("DROP_HEADER");
    block_on(async {
        let mut client = http2::Client::connect(proxy.listener("main")).await;
        let mut head = http2::request("GET", "/");
        head.headers_mut().insert("x_a", "1".parse().unwrap());
        let (response, _) = client.open(head, true).await;
        assert_eq!(http2::answer(response).await.unwrap().status, 200);
    });
    assert_eq!(backend.request().header("x_a"), None);
    assert_eq!(proxy.stat("http2.dropped_headers_with_underscores"), 1);
}
