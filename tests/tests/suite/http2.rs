//! HTTP/2 on either side or both, and gRPC's four kinds over it.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};
use proxy_tests::http2::{self, Client, answer, block_on, request, send_all};
use proxy_tests::{Backend, Bootstrap, Proxy, http_protocol_options, only_proxyd};

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), http::HeaderValue::from_static(value))])
}

/// HTTP/2 in, HTTP/2 out.
fn both(backend: &http2::Backend) -> Bootstrap {
    Bootstrap::http(backend.address()).http2_upstream("backend")
}

#[test]
fn prior_knowledge_is_recognised_by_auto_and_http2() {
    for codec in ["AUTO", "HTTP2"] {
        let backend = Backend::saying("hello");
        let settings = format!("codec_type: {codec}");
        let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(&settings));
        block_on(async {
            let mut client = Client::connect(proxy.listener("main")).await;
            let got = client.get("/a?b").await;
            assert_eq!(
                (got.status, got.body.as_slice(), got.header("server")),
                (200, &b"hello"[..], Some("envoy"))
            );
        });
        let seen = backend.request();
        assert_eq!((seen.start.as_str(), seen.header("host")), ("GET /a?b HTTP/1.1", Some("example.com")));
        proxy.stat_becomes("http.ingress.downstream_cx_http2_total", 1);
        proxy.stat_becomes("http.ingress.downstream_rq_http2_total", 1);
    }
}

#[test]
fn the_codec_may_be_fixed() {
    let backend = Backend::saying("hello");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with("codec_type: HTTP1"));
    let answer = proxy.connect().ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(answer.status() >= 400);
    assert_eq!(proxy.get("/").text(), "hello");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with("codec_type: HTTP2"));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert!(!client.rest().starts_with(b"HTTP/1.1 200"));
}

#[test]
fn streams_run_side_by_side() {
    let backend = http2::Backend::echo();
    let proxy = Proxy::start(&both(&backend));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let mut open = Vec::new();
        for index in 0..50_u8 {
            let (response, send) = client.open(request("POST", &format!("/{index}")), false).await;
            open.push((index, response, send));
        }
        for (index, _, send) in open.iter_mut().rev() {
            send.send_data(Bytes::from(vec![*index; 100]), true).unwrap();
        }
        for (index, response, _) in open {
            let got = answer(response).await.unwrap();
            assert_eq!((got.status, got.body), (200, vec![index; 100]));
        }
    });
    proxy.stat_becomes("http.ingress.downstream_rq_total", 50);
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
}

#[test]
fn large_bodies_pass_with_flow_control() {
    let backend = http2::Backend::echo();
    let windows =
        "http2_protocol_options: {initial_stream_window_size: 65535, initial_connection_window_size: 65535}";
    let options = http_protocol_options(&format!("explicit_http_config: {{{windows}}}"));
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address()).filter_with(windows).cluster_with("backend", &options),
    );
    let body: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let got = client.post("/", &body, None).await;
        assert!(got.body == body);
    });
}

#[test]
fn trailers_pass_both_ways() {
    let backend = http2::Backend::echo();
    let proxy = Proxy::start(&both(&backend));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let got = client.post("/", b"body", Some(trailers("x-sum", "7"))).await;
        assert_eq!(
            (got.body.as_slice(), got.trailers.unwrap().get("x-sum").unwrap().as_bytes()),
            (&b"body"[..], &b"7"[..])
        );
    });
}

#[test]
fn http1_clients_reach_http2_backends() {
    let backend = http2::Backend::echo();
    let proxy = Proxy::start(&both(&backend));
    let mut client = proxy.connect();
    let sized = client.ask("POST /a?b HTTP/1.1\r\nhost: www.example.com\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!((sized.status(), sized.text()), (200, "hello"));
    let chunked =
        client.ask("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!((chunked.status(), chunked.text()), (200, "abc"));
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
    let seen = backend.requests();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].uri.to_string().as_str()),
        ("POST", "http://www.example.com/a?b")
    );
    assert!(seen.iter().all(|request| !request.headers.contains_key("transfer-encoding")));
    assert!(seen.iter().all(|request| !request.headers.contains_key("host")));
    proxy.stat_becomes("cluster.backend.upstream_cx_http2_total", 1);
}

#[test]
fn cookies_are_one_header_for_http1() {
    let backend = Backend::saying("");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let mut crumbs = request("GET", "/");
        crumbs.headers_mut().append("cookie", "a=1".parse().unwrap());
        crumbs.headers_mut().append("cookie", "b=2".parse().unwrap());
        let (response, _) = client.open(crumbs, true).await;
        assert_eq!(answer(response).await.unwrap().status, 200);
    });
    assert_eq!(backend.request().header("cookie"), Some("a=1; b=2"));
}

#[test]
fn local_replies_answer_streams() {
    let proxy = Proxy::start(&Bootstrap::http_without_clusters().routes("[]"));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        for _ in 0..3 {
            assert_eq!(client.get("/").await.status, 404);
        }
    });
}

#[test]
fn a_head_that_is_refused_has_no_body() {
    only_proxyd!("Envoy resets the stream");
    let backend = Backend::saying("ok");
    let rejecting = "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(rejecting));
    block_on(async {
        let mut client = http2::Client::connect(proxy.listener("main")).await;
        let mut request = http2::request("HEAD", "/");
        request.headers_mut().insert("x_u", "1".parse().unwrap());
        let (response, _) = client.open(request, true).await;
        let answer = http2::answer(response).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (400, &b""[..]));
    });
}

#[test]
fn a_reset_by_the_client_resets_the_backend() {
    let (tell, told) = std::sync::mpsc::channel();
    let backend = http2::Backend::new(move |request, _respond| {
        let tell = tell.clone();
        Box::pin(async move {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
            let _ = tell.send(body.is_end_stream());
        })
    });
    let proxy = Proxy::start(&both(&backend));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let (response, mut send) = client.open(request("POST", "/"), false).await;
        send.send_data("half".into(), false).unwrap();
        http2::eventually("the request to be on its way", || {
            (proxy.stat("cluster.backend.upstream_rq_active") == 1).then_some(())
        })
        .await;
        send.send_reset(Reason::CANCEL);
        assert!(answer(response).await.is_err());
        // The connection goes on.
        assert!(client.takes_streams().await);
    });
    assert!(!told.recv_timeout(proxy_tests::PATIENCE).unwrap(), "the backend saw a whole body");
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
    proxy.stat_becomes("http.ingress.downstream_rq_rx_reset", 1);
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
}

#[test]
fn a_reset_by_the_backend_before_headers_is_503() {
    let backend = http2::Backend::new(|_, mut respond| {
        Box::pin(async move { respond.send_reset(Reason::INTERNAL_ERROR) })
    });
    let proxy = Proxy::start(&both(&backend));
    block_on(async {
        let got = Client::connect(proxy.listener("main")).await.get("/").await;
        let text = "upstream connect error or disconnect/reset before headers. reset reason: remote reset";
        assert_eq!((got.status, String::from_utf8(got.body).unwrap().as_str()), (503, text));
    });
}

#[test]
fn a_reset_by_the_backend_after_headers_is_a_reset() {
    let backend = http2::Backend::new(|request, mut respond| {
        Box::pin(async move {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send_all(&mut send, b"half", false).await.unwrap();
            let _ = http2::read_all(&mut request.into_body()).await;
            send.send_reset(Reason::INTERNAL_ERROR);
        })
    });
    let proxy = Proxy::start(&both(&backend));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let (response, mut send) = client.open(request("POST", "/"), false).await;
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "half");
        send.send_data(Bytes::new(), true).unwrap();
        assert!(http2::read_all(&mut body).await.is_err(), "a cut body never looks whole");
        assert!(client.takes_streams().await);
    });
    let mut old = proxy.connect();
    old.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(old.head().status(), 200);
    assert_eq!(old.chunk().unwrap(), b"half");
    assert_eq!(old.send("0\r\n\r\n").rest(), b"", "no last chunk");
}

#[test]
fn a_truncated_http1_response_resets_the_stream() {
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let (response, _) = client.open(request("GET", "/"), true).await;
        assert!(answer(response).await.is_err());
    });
}

#[test]
fn concurrent_streams_have_a_limit() {
    let backend = http2::Backend::echo();
    let proxy =
        Proxy::start(&both(&backend).filter_with("http2_protocol_options: {max_concurrent_streams: 3}"));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(client.stream_limit(), 3, "told with the first settings");
        let mut held = Vec::new();
        for _ in 0..10 {
            let (response, mut send) = client.open(request("POST", "/"), false).await;
            send.send_data("x".into(), true).unwrap();
            held.push(response);
        }
        for response in held {
            assert_eq!(answer(response).await.unwrap().body, b"x");
        }
    });
}

#[test]
fn draining_sends_goaway_and_finishes_streams() {
    let backend = http2::Backend::echo();
    let proxy = Proxy::start(&both(&backend).filter_with("drain_timeout: 0.2s"));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        assert_eq!(client.get("/").await.status, 200);
        let (response, mut send) = client.open(request("POST", "/"), false).await;
        send.send_data("before".into(), false).unwrap();
        assert_eq!(proxy.admin_post("/healthcheck/fail").status(), 200);
        // Envoy says GOAWAY with the next response on the connection.
        let _ = client.get("/").await;
        send.send_data(" and after".into(), true).unwrap();
        assert_eq!(answer(response).await.unwrap().body, b"before and after");
        let _ = client.connection.await.unwrap();
    });
}

/// gRPC's four kinds, as bytes on streams: messages are length-prefixed, the status is a trailer.
mod grpc {
    use super::*;

    fn message(text: &str) -> Bytes {
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(text.as_bytes());
        frame.into()
    }

    fn call(method: &str) -> http::Request<()> {
        let mut call = request("POST", &format!("/test.Echo/{method}"));
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        call.headers_mut().insert("te", "trailers".parse().unwrap());
        call
    }

    fn service() -> http2::Backend {
        http2::Backend::new(|request, mut respond| {
            Box::pin(async move {
                let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                assert_eq!(request.headers().get("te").unwrap(), "trailers");
                let mut body = request.into_body();
                let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                let ok = trailers("grpc-status", "0");
                if method == "Fail" {
                    let mut head = head;
                    head.headers_mut().insert("grpc-status", "5".parse().unwrap());
                    respond.send_response(head, true).unwrap();
                    return;
                }
                let mut send = respond.send_response(head, false).unwrap();
                match method.as_str() {
                    "Bidi" => {
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            send.send_data(data, false).unwrap();
                        }
                    }
                    "ServerStream" => {
                        for text in ["a", "b", "c"] {
                            send.send_data(message(text), false).unwrap();
                        }
                    }
                    _ => {
                        let (asked, _) = http2::read_all(&mut body).await.unwrap();
                        send.send_data(asked.into(), false).unwrap();
                    }
                }
                send.send_trailers(ok).unwrap();
            })
        })
    }

    async fn unary(client: &mut Client, method: &str, messages: &[&str]) -> http2::Answer {
        let (response, mut send) = client.open(call(method), false).await;
        for (index, text) in messages.iter().enumerate() {
            send.send_data(message(text), index + 1 == messages.len()).unwrap();
        }
        answer(response).await.unwrap()
    }

    #[test]
    fn all_four_kinds_of_calls() {
        let backend = service();
        let proxy = Proxy::start(&both(&backend));
        block_on(async {
            let mut client = Client::connect(proxy.listener("main")).await;
            let one = unary(&mut client, "Unary", &["hello"]).await;
            assert_eq!(
                (one.body, one.trailers),
                (message("hello").to_vec(), Some(trailers("grpc-status", "0")))
            );
            let up = unary(&mut client, "ClientStream", &["a", "b", "c"]).await;
            assert_eq!(up.body, [message("a"), message("b"), message("c")].concat());
            let down = unary(&mut client, "ServerStream", &["go"]).await;
            assert_eq!(down.body, [message("a"), message("b"), message("c")].concat());

            let (response, mut send) = client.open(call("Bidi"), false).await;
            let mut body = response.await.unwrap().into_body();
            for text in ["ping", "pong"] {
                send.send_data(message(text), false).unwrap();
                assert_eq!(body.data().await.unwrap().unwrap(), message(text));
            }
            send.send_data(Bytes::new(), true).unwrap();
            assert!(body.data().await.is_none());
            assert_eq!(body.trailers().await.unwrap(), Some(trailers("grpc-status", "0")));
        });
    }

    #[test]
    fn a_status_without_body_comes_in_the_headers() {
        let backend = service();
        let proxy = Proxy::start(&both(&backend));
        block_on(async {
            let mut client = Client::connect(proxy.listener("main")).await;
            let failed = unary(&mut client, "Fail", &["x"]).await;
            assert_eq!((failed.status, failed.header("grpc-status")), (200, Some("5")));
        });
    }

    #[test]
    fn local_replies_speak_grpc() {
        let proxy = Proxy::start(&Bootstrap::http_without_clusters().cluster_of("backend", &[]));
        block_on(async {
            let mut client = Client::connect(proxy.listener("main")).await;
            let failed = unary(&mut client, "Unary", &["x"]).await;
            assert_eq!((failed.status, failed.header("grpc-status")), (200, Some("14")));
            assert_eq!(failed.header("grpc-message"), Some("no healthy upstream"));
            assert_eq!(failed.header("content-type"), Some("application/grpc"));
        });
    }
}
