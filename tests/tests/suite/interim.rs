//! Responses ahead of the final one (1xx) with `proxy_100_continue`: the first goes to the client, over every version.

use std::future::poll_fn;

use http::{Response, StatusCode};
use proxy_tests::http2::{self, block_on};
use proxy_tests::{After, Backend, Bootstrap, Proxy, only_proxyd};

const PROXY_INTERIM: &str = "proxy_100_continue: true";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Sends two hints before its answer.
fn hinting() -> Backend {
    let hint = |name: &str| format!("HTTP/1.1 103 Early Hints\r\nlink: <{name}>\r\nconnection: x\r\n\r\n");
    Backend::answering(format!("{}{}{OK}", hint("a"), hint("b")))
}

/// The same over HTTP/2.
fn hinting_http2() -> http2::Backend {
    http2::Backend::new(|_, mut respond| {
        Box::pin(async move {
            for name in ["<a>", "<b>"] {
                let mut hint = Response::builder().header("link", name).body(()).unwrap();
                *hint.status_mut() = StatusCode::EARLY_HINTS;
                respond.send_informational(hint).unwrap();
            }
            respond.send_response(Response::new(()), true).unwrap();
        })
    })
}

/// What comes ahead of the final response of a GET over HTTP/2, and that.
async fn hints(proxy: &Proxy) -> (Vec<(u16, Option<String>)>, u16) {
    let mut client = http2::Client::connect(proxy.listener("main")).await;
    let (mut response, _) = client.open(http2::request("GET", "/"), true).await;
    let mut hints = Vec::new();
    while let Some(hint) = poll_fn(|cx| response.poll_informational(cx)).await {
        let hint = hint.unwrap();
        let link = hint.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        hints.push((hint.status().as_u16(), link));
    }
    (hints, http2::answer(response).await.unwrap().status)
}

#[test]
fn the_first_hint_is_passed_on() {
    let backend = hinting();
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(PROXY_INTERIM));
    let mut client = proxy.connect();
    for count in 1..=2 {
        let hint = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!((hint.status(), hint.header("link")), (103, Some("<a>")));
        assert_eq!(hint.headers.names(), ["link"]);
        let response = client.response();
        assert_eq!((response.status(), response.text()), (200, "ok"));
        proxy.stat_becomes("http.ingress.downstream_rq_1xx", count);
        proxy.stat_becomes("cluster.backend.upstream_rq_103", count);
    }
    let (hints, status) = block_on(hints(&proxy));
    assert_eq!((hints, status), (vec![(103, Some("<a>".to_owned()))], 200));
}

#[test]
fn hints_come_from_hosts_of_http2() {
    let backend = hinting_http2();
    let bootstrap = Bootstrap::http(backend.address()).http2_upstream("backend");
    let proxy = Proxy::start(&bootstrap.clone().filter_with(PROXY_INTERIM));
    let mut client = proxy.connect();
    let hint = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((hint.status(), hint.header("link")), (103, Some("<a>")));
    assert_eq!(client.response().status(), 200);
    let (told, status) = block_on(hints(&proxy));
    assert_eq!((told, status), (vec![(103, Some("<a>".to_owned()))], 200));
    // Without the option they stay here, and count.
    let proxy = Proxy::start(&bootstrap);
    assert_eq!(block_on(hints(&proxy)), (Vec::new(), 200));
    proxy.stat_becomes("cluster.backend.upstream_rq_103", 1);
}

#[test]
fn the_host_says_whether_to_go_on() {
    let backend = Backend::raw(|wire, _| {
        let head = wire.head();
        assert_eq!(head.header("expect"), Some("100-continue"));
        wire.send("HTTP/1.1 100 Continue\r\nx-from: host\r\n\r\n");
        assert_eq!(wire.bytes(2), b"hi");
        wire.send(OK);
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(PROXY_INTERIM));
    let mut client = proxy.connect();
    let go_on = client.ask("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!((go_on.status(), go_on.header("x-from")), (100, Some("host")));
    assert_eq!(client.ask("hi").text(), "ok");

    let refusing = Backend::raw(|wire, _| {
        wire.head();
        wire.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n").rest();
    });
    let proxy = Proxy::start(&Bootstrap::http(refusing.address()).filter_with(PROXY_INTERIM));
    let mut client = proxy.connect();
    let refused =
        client.ask("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(refused.status(), 417);
}

#[test]
fn what_the_proxy_answers_itself_has_nothing_ahead_of_it() {
    let bootstrap = Bootstrap::http_without_clusters().routes("[]").filter_with(PROXY_INTERIM);
    let proxy = Proxy::start(&bootstrap);
    let response = proxy
        .connect()
        .ask("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(response.status(), 404);
}

#[test]
fn http_10_has_no_interim_responses() {
    only_proxyd!("Envoy sends 103 and 100 to HTTP/1.0");
    let backend = hinting();
    let options = "{proxy_100_continue: true, http_protocol_options: {accept_http_10: true}}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(options));
    let response = proxy.connect().ask("GET / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(response.start, "HTTP/1.0 200 OK");
    assert_eq!(backend.request().header("expect"), None);
}

#[test]
fn a_host_with_endless_hints_is_at_fault() {
    only_proxyd!("Envoy reads them until a time limit passes");
    let backend = Backend::new(|_, wire| {
        while wire.try_send("HTTP/1.1 103 Early Hints\r\n\r\n").is_ok() {}
        After::Close
    });
    for options in ["{}", PROXY_INTERIM] {
        let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(options));
        let mut client = proxy.connect();
        let mut response = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        if response.status() == 103 {
            response = client.response();
        }
        assert_eq!(response.status(), 502);
        backend.all_closed();
    }
}

#[test]
fn filters_leave_hints_as_they_are() {
    let backend = hinting();
    let origin = "typed_per_filter_config: {cors: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy, allow_origin_string_match: [{exact: 'http://here'}]}}";
    let gzip = "compressor_library: {name: gzip, typed_config: {'@type': type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}}";
    let append =
        "[{append: {header: {key: x-added, value: a}}}, {append: {header: {key: link, value: <c>}}}]";
    let bucket = "{stat_prefix: limited, token_bucket: {max_tokens: 100, fill_interval: 60s}, enable_x_ratelimit_headers: DRAFT_VERSION_03,
        filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}";
    let mutation = format!("mutations: {{response_mutations: {append}}}");
    let bootstrap = Bootstrap::http(backend.address())
        .filter_with(PROXY_INTERIM)
        .virtual_host_with(origin)
        .route_config_with("response_headers_to_add: [{header: {key: x-route, value: r}}]")
        .http_filter("cors", "cors.v3.Cors", "{}")
        .http_filter("limit", "local_ratelimit.v3.LocalRateLimit", bucket)
        .http_filter("mutation", "header_mutation.v3.HeaderMutation", &mutation)
        .http_filter("gzip", "compressor.v3.Compressor", gzip);
    let proxy = Proxy::start(&bootstrap);
    let mut client = proxy.connect();
    let hint =
        client.ask("GET / HTTP/1.1\r\nhost: a\r\norigin: http://here\r\naccept-encoding: gzip\r\n\r\n");
    assert_eq!((hint.status(), hint.headers.names()), (103, vec!["link".to_owned()]));
    assert_eq!(hint.header("link"), Some("<a>"));
    let response = client.response();
    for name in ["x-added", "x-route", "x-ratelimit-limit", "access-control-allow-origin", "link"] {
        assert!(response.header(name).is_some(), "{name}");
    }
}

#[test]
fn a_host_of_http2_may_not_hint_for_ever() {
    let hinting = |count: usize| {
        http2::Backend::new(move |_, mut respond| {
            Box::pin(async move {
                for _ in 0..count {
                    let mut hint = Response::builder().body(()).unwrap();
                    *hint.status_mut() = StatusCode::EARLY_HINTS;
                    if respond.send_informational(hint).is_err() {
                        return;
                    }
                }
                // Refused where the stream was reset.
                let _ = respond.send_response(Response::new(()), true);
            })
        })
    };
    let status = |count: usize| {
        let backend = hinting(count);
        let proxy = Proxy::start(&Bootstrap::http(backend.address()).http2_upstream("backend"));
        proxy.get("/").status()
    };
    assert_eq!(status(100), 200);
    only_proxyd!("Envoy reads on until a time limit passes");
    assert_eq!(status(101), 502);
}
