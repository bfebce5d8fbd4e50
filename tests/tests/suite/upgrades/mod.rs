//! Upgrades and CONNECT: streams of bytes through connection managers, in every pair of versions.

mod terminated;

use std::time::Instant;

use bytes::Bytes;
use h2::Reason;
use h2::ext::Protocol;
use http::{Method, Request, Response};
use proxy_tests::http2::{self, Client, block_on, read_all, send_all};
use proxy_tests::{
    Backend, Bootstrap, Generations, Proxy, eventually, http_protocol_options, on_envoy, only_proxyd,
    refusing_address,
};

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    WebSocket,
    Connect,
}

const ASKED: [Ask; 2] = [Ask::WebSocket, Ask::Connect];
/// What a backend says when its client has ended.
const FAREWELL: &[u8] = b"farewell";

impl Ask {
    fn http1(self) -> &'static str {
        match self {
            Ask::WebSocket => {
                "GET /chat HTTP/1.1\r\nhost: a\r\nupgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\n\
                 sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
            }
            Ask::Connect => "CONNECT far.example:80 HTTP/1.1\r\nhost: far.example:80\r\n\r\n",
        }
    }

    fn http2(self) -> Request<()> {
        let request = Request::builder().method(Method::CONNECT);
        match self {
            Ask::WebSocket => request
                .uri("http://a/chat")
                .header("sec-websocket-version", "13")
                .extension(Protocol::from_static("websocket")),
            Ask::Connect => request.uri("far.example:80"),
        }
        .body(())
        .unwrap()
    }

    fn status(self) -> u16 {
        match self {
            Ask::WebSocket => 101,
            Ask::Connect => 200,
        }
    }
}

/// Everything is routed to `backend`, websockets and CONNECT are allowed, and so is extended CONNECT.
fn tunnels(bootstrap: Bootstrap) -> Bootstrap {
    bootstrap
        .filter_with(
            "{upgrade_configs: [{upgrade_type: websocket}, {upgrade_type: CONNECT}],
              http2_protocol_options: {allow_connect: true}}",
        )
        .routes(
            "[{match: {connect_matcher: {}}, route: {cluster: backend}},
              {match: {prefix: /}, route: {cluster: backend}}]",
        )
}

fn http2_upstream(bootstrap: Bootstrap) -> Bootstrap {
    let options = "explicit_http_config: {http2_protocol_options: {allow_connect: true}}";
    bootstrap.cluster_with("backend", &http_protocol_options(options))
}

/// Agrees to what it is asked, echoes, and says [`FAREWELL`] when the client has ended.
fn http1_backend() -> Backend {
    Backend::raw(|wire, _| {
        let Ok(head) = wire.try_head() else { return };
        let agreed = if head.start.starts_with("CONNECT far.example:80 ") {
            "HTTP/1.1 200 OK\r\nx-from: backend\r\n\r\n"
        } else {
            assert_eq!(head.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
            assert!(head.header("connection").is_some_and(|c| c.to_ascii_lowercase().contains("upgrade")));
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nx-from: backend\r\n\r\n"
        };
        wire.send(agreed);
        while let Some(bytes) = wire.some() {
            if wire.try_send(bytes).is_err() {
                return;
            }
        }
        let _ = wire.try_send(FAREWELL);
    })
}

/// The same over HTTP/2.
fn http2_backend() -> http2::Backend {
    http2::Backend::serving(true, |request, mut respond| {
        Box::pin(async move {
            let extended =
                request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
            assert_eq!(request.method(), Method::CONNECT);
            if let Some(protocol) = extended {
                assert_eq!(
                    (protocol.to_ascii_lowercase().as_str(), request.uri().path()),
                    ("websocket", "/chat")
                );
            }
            let agreed = Response::builder().header("x-from", "backend").body(()).unwrap();
            let mut body = request.into_body();
            let mut send = respond.send_response(agreed, false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                if send_all(&mut send, &data, false).await.is_err() {
                    return;
                }
            }
            let _ = send_all(&mut send, FAREWELL, true).await;
        })
    })
}

/// Bytes each way, more than fit any window or buffer; then the client ends, and hears what the backend says to that.
fn exchange_over_http1(proxy: &Proxy, ask: Ask) {
    let mut client = proxy.connect();
    let agreed = client.send(ask.http1()).head();
    assert_eq!((agreed.status(), agreed.header("x-from")), (ask.status(), Some("backend")), "{ask:?}");
    assert_eq!(agreed.header("content-length"), None);
    if ask == Ask::WebSocket {
        assert_eq!(agreed.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
        assert_eq!(agreed.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    }
    client.send("ping");
    assert_eq!(client.bytes(4), b"ping");
    let much = much();
    let mut sending = client.duplicate();
    let sent = much.clone();
    let sender = std::thread::spawn(move || {
        sending.send(sent);
    });
    assert!(client.bytes(much.len()) == much);
    sender.join().unwrap();
    client.finish();
    if on_envoy() {
        client.rest(); // Envoy drops the answer of a tunnel that is half closed
    } else {
        assert_eq!(client.rest(), FAREWELL, "{ask:?}");
    }
}

/// The same over HTTP/2.
fn exchange_over_http2(proxy: &Proxy, ask: Ask) {
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        client.until_upgrades().await;
        let (response, mut send) = client.open(ask.http2(), false).await;
        let response = response.await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-from"]),
            (200, &"backend".parse().unwrap())
        );
        assert!(
            !response.headers().contains_key("upgrade") && !response.headers().contains_key("connection")
        );
        let mut body = response.into_body();
        let much = much();
        let (sent, got) = tokio::join!(send_all(&mut send, &much, !on_envoy()), async {
            let mut got = Vec::new();
            while got.len() < much.len() {
                let data = body.data().await.unwrap().unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                got.extend_from_slice(&data);
            }
            got
        });
        sent.unwrap();
        assert!(got[..much.len()] == much, "{ask:?}");
        if !on_envoy() {
            let (rest, _) = read_all(&mut body).await.unwrap();
            assert_eq!([&got[much.len()..], &rest].concat(), FAREWELL, "{ask:?}");
        }
    });
}

fn much() -> Vec<u8> {
    (0..1_000_000_u32).map(|index| (index % 251) as u8).collect()
}

fn both_ended(proxy: &Proxy, upgrades: u64) {
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_total", upgrades);
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_active", 0);
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
}

#[test]
fn bytes_pass_from_http1_to_http1() {
    let backend = http1_backend();
    let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
    for ask in ASKED {
        exchange_over_http1(&proxy, ask);
    }
    both_ended(&proxy, 2);
    backend.all_closed();
}

#[test]
fn bytes_pass_from_http1_to_http2() {
    let backend = http2_backend();
    let proxy = Proxy::start(&http2_upstream(tunnels(Bootstrap::http(backend.address()))));
    for ask in ASKED {
        exchange_over_http1(&proxy, ask);
    }
    both_ended(&proxy, 2);
}

#[test]
fn bytes_pass_from_http2_to_http1() {
    let backend = http1_backend();
    let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
    for ask in ASKED {
        exchange_over_http2(&proxy, ask);
    }
    both_ended(&proxy, 2);
    backend.all_closed();
}

#[test]
fn bytes_pass_from_http2_to_http2() {
    let backend = http2_backend();
    let proxy = Proxy::start(&http2_upstream(tunnels(Bootstrap::http(backend.address()))));
    for ask in ASKED {
        exchange_over_http2(&proxy, ask);
    }
    both_ended(&proxy, 2);
}

#[test]
fn upgrades_are_allowed_by_manager_and_route_whatever_their_case() {
    let backend = http1_backend();
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address())
            .filter_with(
                "upgrade_configs: [{upgrade_type: WEBSOCKET, enabled: false}, {upgrade_type: connect}]",
            )
            .routes(
                "[{match: {connect_matcher: {}}, route: {cluster: backend}},
                  {match: {prefix: /chat}, route: {cluster: backend, upgrade_configs: [{upgrade_type: webSocket}]}},
                  {match: {prefix: /on}, route: {cluster: backend}},
                  {match: {prefix: /off}, route: {cluster: backend, upgrade_configs: [{upgrade_type: CONNECT, enabled: false}]}}]",
            ),
    );
    assert_eq!(proxy.connect().send(Ask::WebSocket.http1()).head().status(), 101);
    assert_eq!(proxy.connect().send(Ask::Connect.http1()).head().status(), 200);
    let refused = proxy.connect().ask(Ask::WebSocket.http1().replace("/chat", "/on"));
    assert_eq!((refused.status(), refused.header("connection")), (403, Some("close")));
    proxy.stat_becomes("http.ingress.downstream_rq_ws_on_non_ws_route", 1);
    let other = proxy.connect().ask(Ask::WebSocket.http1().replace("WebSocket", "other"));
    assert_eq!(other.status(), 403);
    // Several protocols are none of those that are allowed, and none goes unseen behind another.
    for more in ["upgrade: WebSocket\r\nupgrade: other", "upgrade: h2c\r\nupgrade: WebSocket"] {
        let several = proxy.connect().ask(Ask::WebSocket.http1().replace("upgrade: WebSocket", more));
        assert_eq!(several.status(), 403, "{more}");
    }
    let nowhere = proxy.connect().ask(Ask::WebSocket.http1().replace("/chat", "/nowhere"));
    assert_eq!(nowhere.status(), 404);
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_total", 2);
}

#[test]
fn a_refused_upgrade_ends_its_connection() {
    for answer in [
        "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno",
        "HTTP/1.1 401 Unauthorized\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    ] {
        for ask in ASKED {
            let backend = Backend::raw(move |wire, _| {
                let Ok(_) = wire.try_head() else { return };
                wire.send(answer);
                // What the client sent behind its request must not arrive as another one.
                assert!(wire.is_closed());
            });
            let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
            let mut client = proxy.connect();
            let refused = client.ask(format!("{}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n", ask.http1()));
            assert_eq!((refused.status(), refused.text()), (401, "no"), "{ask:?}");
            assert_eq!(refused.header("connection"), Some("close"));
            assert!(client.finish().is_closed());
            backend.all_closed();
        }
    }
}

#[test]
fn what_comes_too_early_waits_for_the_answer() {
    let backend = Backend::raw(|wire, _| {
        let Ok(_) = wire.try_head() else { return };
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello",
        );
        let early = wire.rest();
        let _ = wire.try_send(early);
    });
    let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
    let mut client = proxy.connect();
    let head = client.send(format!("{}early", Ask::WebSocket.http1())).head();
    assert_eq!(head.status(), 101);
    assert_eq!(client.bytes(5), b"hello");
    client.send(" and late").finish();
    if !on_envoy() {
        assert_eq!(client.rest(), b"early and late");
    }
}

#[test]
fn a_body_before_the_upgrade_is_passed_on_as_one() {
    only_proxyd!("Envoy holds the body back until the backend agrees");
    let backend = Backend::raw(|wire, _| {
        let Ok(request) = wire.try_request() else { return };
        assert_eq!(request.text(), "{}");
        wire.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: tcp\r\nconnection: upgrade\r\n\r\n");
        let bytes = wire.bytes(3);
        wire.send(bytes);
    });
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address()).filter_with("upgrade_configs: [{upgrade_type: tcp}]"),
    );
    let mut client = proxy.connect();
    client.send("POST /exec/1/start HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: tcp\r\ncontent-length: 2\r\n\r\n{}");
    assert_eq!(client.head().status(), 101);
    client.send("abc");
    assert_eq!(client.bytes(3), b"abc");
}

#[test]
fn a_chunked_body_before_an_upgrade_is_refused() {
    only_proxyd!("Envoy passes the chunks on as bytes of the tunnel");
    let backend = http1_backend();
    let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
    let chunked =
        Ask::WebSocket.http1().replace("\r\n\r\n", "\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(proxy.connect().ask(chunked).status(), 400);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn connect_has_no_body() {
    let backend = http1_backend();
    let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
    for (line, status) in [("content-length: 5", 400), ("transfer-encoding: chunked", 501)] {
        let asked = Ask::Connect.http1().replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
        assert_eq!(proxy.connect().ask(format!("{asked}12345")).status(), status, "{line}");
    }
    assert_eq!(backend.connections(), 0);
    let none = Ask::Connect.http1().replace("\r\n\r\n", "\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(proxy.connect().send(none).head().status(), 200);
}

#[test]
fn an_answer_of_101_must_say_what_it_is_for() {
    only_proxyd!("Envoy passes 101 on and closes");
    let backend = Backend::answering("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
    assert_eq!(proxy.connect().ask(Ask::WebSocket.http1()).status(), 502);
}

#[test]
fn hosts_that_do_not_know_extended_connect_are_not_asked() {
    only_proxyd!("Envoy asks all the same, against RFC 8441 section 3");
    let backend = http2::Backend::echo();
    let proxy = Proxy::start(&http2_upstream(tunnels(Bootstrap::http(backend.address()))));
    assert_eq!(proxy.connect().ask(Ask::WebSocket.http1()).status(), 503);
    assert!(backend.requests().is_empty());
}

#[test]
fn clients_are_told_of_extended_connect_only_where_it_is_allowed() {
    let backend = http1_backend();
    let proxy = Proxy::start(
        &tunnels(Bootstrap::http(backend.address()))
            .filter_with("http2_protocol_options: {allow_connect: false}"),
    );
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let (response, _send) = client.open(Ask::WebSocket.http2(), false).await;
        assert!(response.await.is_err());
    });
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_connect_request_over_http2_has_no_length() {
    only_proxyd!("Envoy forwards it");
    let backend = http1_backend();
    let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        client.until_upgrades().await;
        for ask in ASKED {
            let mut request = ask.http2();
            request.headers_mut().insert("content-length", "5".parse().unwrap());
            let (response, _send) = client.open(request, false).await;
            assert_eq!(response.await.unwrap().status(), 400, "{ask:?}");
        }
    });
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_tunnel_that_breaks_off_does_not_look_whole() {
    let backend = Backend::raw(|wire, _| {
        let Ok(_) = wire.try_head() else { return };
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhello",
        );
        wire.bytes(1);
        wire.reset_on_close();
    });
    let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        client.until_upgrades().await;
        let (response, mut send) = client.open(Ask::WebSocket.http2(), false).await;
        let mut body = response.await.unwrap().into_body();
        assert_eq!(&body.data().await.unwrap().unwrap()[..], b"hello");
        send.send_data(Bytes::from_static(b"x"), false).unwrap();
        let broken = body.data().await.unwrap().unwrap_err();
        assert!(broken.reason().is_some_and(|reason| reason != Reason::NO_ERROR));
    });
    proxy.stat_becomes("http.ingress.downstream_rq_tx_reset", 1);
    let mut client = proxy.connect();
    client.send(Ask::WebSocket.http1()).head();
    assert_eq!(client.bytes(5), b"hello");
    client.send("x");
    client.rest();
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_active", 0);
}

#[test]
fn the_time_limit_of_a_route_does_not_end_a_tunnel() {
    let backend = http1_backend();
    let proxy = Proxy::start(
        &tunnels(Bootstrap::http(backend.address()))
            .routes("[{match: {prefix: /}, route: {cluster: backend, timeout: 0.1s, idle_timeout: 0.5s}}]"),
    );
    let mut client = proxy.connect();
    assert_eq!(client.send(Ask::WebSocket.http1()).head().status(), 101);
    client.send("ping");
    assert_eq!(client.bytes(4), b"ping");
    // The limit on idling goes on.
    assert!(client.is_closed());
    proxy.stat_becomes("http.ingress.downstream_rq_idle_timeout", 1);
    proxy.stat_becomes("cluster.backend.upstream_rq_timeout", 0);
}

#[test]
fn tunnels_of_http1_live_through_hot_restarts() {
    only_proxyd!("Envoy cuts them");
    let backend = http1_backend();
    let directory = tempfile::tempdir().unwrap();
    let log = |name: &str, format: &str| {
        format!(
            "[{{name: file, typed_config: {{
        \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: \"{}\",
        log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}]",
            directory.path().join(name).display()
        )
    };
    let of_both = "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% \
        %RESP(X-FROM)% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %UPSTREAM_PROTOCOL%";
    // A tunnel has no trailers, so a log that asks for them keeps none from moving.
    let access =
        log("access", &format!("%DURATION% {of_both} %UPSTREAM_REQUEST_ATTEMPT_COUNT% %TRAILER(X)%"));
    let upstream = log("upstream", &format!("%DURATION% {of_both} %ACCESS_LOG_TYPE%"));
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let bootstrap = tunnels(Bootstrap::http(backend.address())).filter_with(&format!(
        "{{access_log: {access}, http_filters: [{{name: router, typed_config: {{
            \"@type\": {router}, upstream_log: {upstream}}}}}]}}"
    ));
    let proxy = Generations::start(&bootstrap, &["--confirm-after", "0.1"]);
    let mut clients: Vec<_> = ASKED.iter().map(|ask| (proxy.connect(), *ask)).collect();
    for (client, ask) in &mut clients {
        assert_eq!(client.send(ask.http1()).head().status(), ask.status());
        client.send("before");
        assert_eq!(client.bytes(6), b"before");
    }
    let before = Instant::now();
    for _ in 0..2 {
        proxy.restart(&[]);
        for (client, _) in &mut clients {
            assert_eq!(client.send("more").bytes(4), b"more");
        }
    }
    // The first process has nothing left to live for.
    assert_eq!(proxy.only(3).epoch, 2);
    // Of all processes, and the way from one to the other.
    let lived = before.elapsed().as_millis();
    for (client, ask) in &mut clients {
        client.send("after").finish();
        assert_eq!(client.rest(), [b"after", FAREWELL].concat(), "{ask:?}");
    }
    backend.all_closed();
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_total", 2);
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_active", 0);
    proxy.stat_becomes("http.ingress.downstream_rq_total", 2);
    proxy.stat_becomes("cluster.backend.upstream_cx_total", 2);
    proxy.stat_becomes("cluster.backend.upstream_cx_destroy", 2);
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
    proxy.stat_becomes("http.ingress.downstream_cx_active", 0);
    // What has not been written yet is written at the end.
    drop(proxy);
    let host = backend.address();
    let lines = |name: &str| {
        let told = eventually("two lines", || {
            let text = std::fs::read_to_string(directory.path().join(name)).ok()?;
            (text.lines().count() >= 2).then_some(text)
        });
        let mut lines: Vec<_> = told.lines().map(|line| line.split_once(' ').unwrap()).collect();
        assert!(lines.iter().all(|(time, _)| time.parse::<u128>().unwrap() >= lived), "{lived} {lines:?}");
        lines.sort_by_key(|(_, line)| *line);
        lines.iter().map(|(_, line)| (*line).to_owned()).collect::<Vec<_>>()
    };
    let told = |sums: &str, last: &str| {
        ["CONNECT - 200", "GET /chat 101"]
            .map(|what| format!("{what} - {sums} backend backend {host} HTTP/1.1 {last}"))
    };
    assert_eq!(lines("access"), told("19 27", "1 -"));
    // Seen from the host.
    assert_eq!(lines("upstream"), told("27 19", "UpstreamEnd"));
}

#[test]
fn websocket_keys_are_made_and_accepted_where_the_other_side_knows_none() {
    only_proxyd!("Envoy passes on what there is, and the handshake fails");
    let backend = http2_backend();
    let proxy = Proxy::start(&http2_upstream(tunnels(Bootstrap::http(backend.address()))));
    let agreed = proxy.connect().send(Ask::WebSocket.http1()).head();
    assert_eq!(agreed.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let backend = Backend::raw(|wire, _| {
        let Ok(head) = wire.try_head() else { return };
        assert_eq!(head.header("sec-websocket-key").map(str::len), Some(24));
        wire.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n");
        wire.rest();
    });
    let proxy = Proxy::start(&tunnels(Bootstrap::http(backend.address())));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        client.until_upgrades().await;
        let (response, _send) = client.open(Ask::WebSocket.http2(), false).await;
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("sec-websocket-accept"));
    });
}
