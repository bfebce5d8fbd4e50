//! `tunneling_config` of `tcp_proxy`: TCP through a proxy upstream, over either version, by CONNECT and by POST.

use http::Response;
use proxy_tests::http2::{self, send_all};
use proxy_tests::{Backend, Bootstrap, Generations, Proxy, Wire, on_envoy, only_proxyd};

const CONNECT: &str = r#"{hostname: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%:443", propagate_response_headers: true,
    headers_to_add: [{header: {key: x-client, value: "from-%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}]}"#;
const POST: &str = r#"{hostname: "far.example:80", use_post: true, post_path: /tunnel,
    headers_to_add: [{header: {key: x-client, value: constant}}]}"#;

fn tunnelled(backend: std::net::SocketAddr, config: &str) -> Bootstrap {
    Bootstrap::tcp(backend).filter_with(&format!("tunneling_config: {config}"))
}

/// Bytes each way, then the client ends and hears what is said to that.
fn exchange(mut client: Wire) {
    client.send("ping");
    assert_eq!(client.bytes(4), b"ping");
    let much: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    let (mut sending, sent) = (client.duplicate(), much.clone());
    let sender = std::thread::spawn(move || {
        sending.send(sent);
    });
    assert!(client.bytes(much.len()) == much);
    sender.join().unwrap();
    assert_eq!(client.finish().rest(), b"farewell");
}

/// A proxy of HTTP/1.1 that agrees to CONNECT and then is the echo behind itself.
fn connect_proxy() -> Backend {
    Backend::raw(|wire, _| {
        let Ok(head) = wire.try_head() else { return };
        assert_eq!(head.start, "CONNECT 127.0.0.1:443 HTTP/1.1");
        assert_eq!(
            (head.header("host"), head.header("x-client")),
            (Some("127.0.0.1:443"), Some("from-127.0.0.1"))
        );
        assert_eq!(head.header("transfer-encoding"), None);
        wire.send("HTTP/1.1 201 Created\r\n\r\n");
        while let Some(bytes) = wire.some() {
            if wire.try_send(bytes).is_err() {
                return;
            }
        }
        let _ = wire.try_send("farewell");
    })
}

/// The same over HTTP/2, for either method.
fn http2_proxy() -> http2::Backend {
    http2::Backend::new(|request, mut respond| {
        Box::pin(async move {
            match request.method().as_str() {
                "CONNECT" => assert_eq!(request.uri().to_string(), "127.0.0.1:443"),
                method => assert_eq!(
                    (method, request.uri().to_string().as_str()),
                    ("POST", "http://far.example:80/tunnel")
                ),
            }
            assert!(request.headers().contains_key("x-client"));
            let mut body = request.into_body();
            let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                if send_all(&mut send, &data, false).await.is_err() {
                    return;
                }
            }
            let _ = send_all(&mut send, b"farewell", true).await;
        })
    })
}

#[test]
fn tcp_goes_by_connect_over_http1() {
    let backend = connect_proxy();
    let proxy = Proxy::start(&tunnelled(backend.address(), CONNECT));
    if on_envoy() {
        let mut client = proxy.connect();
        client.send("ping");
        assert_eq!(client.bytes(4), b"ping"); // Envoy drops the answer of a tunnel that is half closed
    } else {
        exchange(proxy.connect());
    }
    proxy.stat_becomes("cluster.backend.upstream_rq_total", 1);
    proxy.stat_becomes("cluster.backend.upstream_cx_http1_total", 1);
    proxy.stat_becomes("cluster.backend.upstream_cx_active", 0);
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
    proxy.stat_becomes("tcp.tcp.downstream_cx_total", 1);
    backend.all_closed();
}

#[test]
fn tcp_goes_by_post_over_http1() {
    let backend = Backend::raw(|wire, _| {
        let Ok(head) = wire.try_head() else { return };
        assert_eq!(head.start, "POST /tunnel HTTP/1.1");
        assert_eq!(
            (head.header("host"), head.header("x-client")),
            (Some("far.example:80"), Some("constant"))
        );
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while let Ok(chunk) = wire.chunk() {
            if chunk.is_empty() {
                let _ = wire.try_send("8\r\nfarewell\r\n0\r\n\r\n");
                return;
            }
            wire.send(format!("{:x}\r\n", chunk.len())).send(chunk).send("\r\n");
        }
    });
    let proxy = Proxy::start(&tunnelled(backend.address(), POST));
    if on_envoy() {
        let mut client = proxy.connect();
        client.send("ping");
        assert_eq!(client.bytes(4), b"ping");
    } else {
        exchange(proxy.connect());
    }
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
    backend.all_closed();
}

#[test]
fn tcp_goes_by_connect_and_by_post_over_http2() {
    for config in [CONNECT, POST] {
        let backend = http2_proxy();
        let proxy = Proxy::start(&tunnelled(backend.address(), config).http2_upstream("backend"));
        exchange(proxy.connect());
        proxy.stat_becomes("cluster.backend.upstream_rq_total", 1);
        proxy.stat_becomes("cluster.backend.upstream_cx_http2_total", 1);
        proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
        proxy.stat_becomes("tcp.tcp.downstream_cx_rx_bytes_total", 1_000_004);
        proxy.stat_becomes("tcp.tcp.downstream_cx_tx_bytes_total", 1_000_012);
    }
}

#[test]
fn a_proxy_that_refuses_is_asked_as_often_as_allowed() {
    for status in ["403 Forbidden", "302 Found"] {
        let backend = Backend::raw(move |wire, _| {
            let Ok(_) = wire.try_head() else { return };
            wire.send(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"));
            assert_eq!(wire.rest(), b"", "nothing goes to who has not agreed");
        });
        let proxy =
            Proxy::start(&tunnelled(backend.address(), CONNECT).filter_with("max_connect_attempts: 2"));
        let mut client = proxy.connect();
        client.send_if_open("early");
        assert!(client.is_closed());
        assert_eq!(backend.connections(), 2);
        proxy.stat_becomes("cluster.backend.upstream_cx_connect_attempts_exceeded", 1);
        proxy.stat_becomes("cluster.backend.upstream_rq_total", 2);
        proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
        backend.all_closed();
    }
    let backend = http2::Backend::new(|_, mut respond| {
        Box::pin(async move {
            let _ = respond.send_response(Response::builder().status(201).body(()).unwrap(), false);
        })
    });
    let proxy = Proxy::start(&tunnelled(backend.address(), CONNECT).http2_upstream("backend"));
    assert!(proxy.connect().is_closed());
    proxy.stat_becomes("cluster.backend.upstream_rq_total", 1);
    proxy.stat_becomes("cluster.backend.upstream_cx_connect_attempts_exceeded", 1);
}

#[test]
fn a_tunnel_of_http1_lives_through_a_hot_restart() {
    only_proxyd!("Envoy cuts it");
    let backend = connect_proxy();
    let proxy = Generations::start(&tunnelled(backend.address(), CONNECT), &["--confirm-after", "0.1"]);
    let mut client = proxy.connect();
    client.send("before");
    assert_eq!(client.bytes(6), b"before");
    proxy.restart(&[]);
    assert_eq!(proxy.only(2).epoch, 1);
    assert_eq!(client.send("after").finish().rest(), b"afterfarewell");
    backend.all_closed();
}
