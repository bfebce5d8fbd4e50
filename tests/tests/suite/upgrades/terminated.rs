//! CONNECT and POST that end here: the host gets nothing but bytes.

use super::*;

/// CONNECT ends here, and so does POST on `/post`: the backend gets nothing but bytes.
fn terminated(backend: std::net::SocketAddr) -> Bootstrap {
    let upgrades = "upgrade_configs: [{upgrade_type: CONNECT, connect_config: {allow_post: true}}]";
    tunnels(Bootstrap::http(backend)).routes(&format!(
        "[{{match: {{connect_matcher: {{}}}}, route: {{cluster: backend, {upgrades}}}}},
          {{match: {{prefix: /post}}, route: {{cluster: backend, {upgrades}}}}}]"
    ))
}

/// Speaks first, echoes, and says [`FAREWELL`] at the end.
fn talker() -> Backend {
    Backend::raw(|wire, _| {
        wire.send("hello ");
        while let Some(bytes) = wire.some() {
            if wire.try_send(bytes).is_err() {
                return;
            }
        }
        let _ = wire.try_send(FAREWELL);
    })
}

#[test]
fn connect_may_end_here() {
    let backend = talker();
    let proxy = Proxy::start(&terminated(backend.address()));
    let mut client = proxy.connect();
    assert_eq!(client.send(Ask::Connect.http1()).head().status(), 200);
    assert_eq!(client.bytes(6), b"hello ");
    client.send("ping");
    assert_eq!(client.bytes(4), b"ping");
    client.finish();
    let rest = client.rest();
    assert!(on_envoy() || rest == FAREWELL);
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let (response, mut send) = client.open(Ask::Connect.http2(), false).await;
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        send_all(&mut send, b"ping", true).await.unwrap();
        let (got, _) = read_all(&mut response.into_body()).await.unwrap();
        assert_eq!(got, b"hello pingfarewell");
    });
    both_ended(&proxy, 2);
    proxy.stat_becomes("cluster.backend.upstream_rq_total", 2);
    proxy.stat_becomes("cluster.backend.upstream_rq_200", 2);
    proxy.stat_becomes("cluster.backend.upstream_cx_total", 2);
    proxy.stat_becomes("cluster.backend.upstream_cx_active", 0);
    backend.all_closed();
}

#[test]
fn post_may_end_here_too() {
    let backend = talker();
    let proxy = Proxy::start(&terminated(backend.address()));
    let mut client = proxy.connect();
    for request in [
        "POST /post HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nping",
        "POST /post HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n0\r\n\r\n",
    ] {
        let answer = client.ask(request);
        assert_eq!((answer.status(), answer.text()), (200, "hello pingfarewell"));
    }
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let answer = client.post("/post", b"ping", None).await;
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hello pingfarewell"[..]));
    });
    proxy.stat_becomes("cluster.backend.upstream_cx_destroy", 3);
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_total", 0);
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 3);
}

#[test]
fn connect_to_nowhere_is_answered_like_a_request() {
    let proxy = Proxy::start(&terminated(refusing_address()));
    let answer = proxy.connect().ask(Ask::Connect.http1());
    assert_eq!(answer.status(), 503);
    proxy.stat_becomes("cluster.backend.upstream_cx_connect_fail", 1);
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_active", 0);
}
