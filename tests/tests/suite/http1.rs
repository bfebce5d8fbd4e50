//! HTTP/1.1 through the proxy: framing both ways, connection reuse, streaming, interim responses.

use proxy_tests::{After, Backend, Bootstrap, Cut, Proxy, eventually, on_envoy, refusing_address};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn get_with_a_sized_body() {
    let backend = Backend::saying("hello");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let response = proxy.get("/a?b=c");
    assert_eq!((response.status(), response.text()), (200, "hello"));
    assert_eq!(response.header("content-length"), Some("5"));
    assert_eq!(backend.request().start, "GET /a?b=c HTTP/1.1");
}

#[test]
fn bodies_keep_their_framing_in_both_directions() {
    let backend = Backend::new(|request, wire| {
        let framing = if request.headers.find("transfer-encoding").is_some() { "chunked" } else { "sized" };
        let body = &request.body;
        wire.send(format!("HTTP/1.1 200 OK\r\nx-framing: {framing}\r\n"));
        if request.target() == "/chunked" {
            wire.send("transfer-encoding: chunked\r\n\r\n");
            for part in body.chunks(1000) {
                wire.send(format!("{:x}\r\n", part.len())).send(part).send("\r\n");
            }
            wire.send("0\r\n\r\n");
        } else {
            wire.send(format!("content-length: {}\r\n\r\n", body.len())).send(body);
        }
        After::KeepOpen
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    for size in [0, 1, 16 * 1024, 100_000] {
        let body: Vec<u8> = (0..size).map(|index| u8::try_from(index % 251).unwrap()).collect();
        for target in ["/chunked", "/sized"] {
            let sized = format!("POST {target} HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
            let response = client.send(sized).ask(&body);
            assert_eq!(response.header("x-framing"), Some("sized"), "{target} {size}");
            assert!(response.body == body, "{target} {size}");
            assert_eq!(response.headers.find("transfer-encoding").is_some(), target == "/chunked");

            client.send(format!("POST {target} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"));
            for part in body.chunks(7000) {
                client.send(format!("{:X};ext=1\r\n", part.len())).send(part).send("\r\n");
            }
            let response = client.ask("0\r\n\r\n");
            assert_eq!(response.header("x-framing"), Some("chunked"), "{target} {size}");
            assert!(response.body == body, "{target} {size}");
        }
    }
}

#[test]
fn keep_alive_uses_one_connection_on_both_sides() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    for _ in 0..5 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "ok");
    }
    assert_eq!((backend.requests().len(), backend.connections()), (5, 1));
    assert_eq!(proxy.stat("http.ingress.downstream_cx_total"), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::new(|request, wire| {
        let target = request.target();
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{target}", target.len()));
        After::KeepOpen
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    let request = |index: u32| match index % 3 {
        0 => format!("GET /{index} HTTP/1.1\r\nhost: a\r\n\r\n"),
        1 => format!("POST /{index} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"),
        _ => format!(
            "POST /{index} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
        ),
    };
    client.send((0..20).map(request).collect::<String>());
    for index in 0..20 {
        assert_eq!(client.response().text(), format!("/{index}"));
    }
    assert_eq!(backend.requests().len(), 20);
}

#[test]
fn a_request_in_single_bytes_is_the_same_request() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    for byte in
        b"POST /slow HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: v\r\n\r\n"
    {
        client.send([*byte]);
    }
    assert_eq!(client.response().status(), 200);
    assert_eq!((backend.request().start.as_str(), backend.request().text()), ("POST /slow HTTP/1.1", "abc"));
}

#[test]
fn head_and_bodiless_statuses_have_no_body_and_keep_the_connection() {
    let backend = Backend::new(|request, wire| {
        wire.send(match (request.method(), request.target()) {
            ("HEAD", _) => "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n",
            (_, "/204") => "HTTP/1.1 204 No Content\r\n\r\n",
            (_, "/304") => "HTTP/1.1 304 Not Modified\r\ncontent-length: 77\r\netag: \"x\"\r\n\r\n",
            _ => OK,
        });
        After::KeepOpen
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    let head = client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!((head.status(), head.header("content-length")), (200, Some("1234")));
    let no_content = client.ask("GET /204 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((no_content.status(), no_content.header("content-length")), (204, None));
    assert_eq!(no_content.header("transfer-encoding"), None);
    let not_modified = client.ask("GET /304 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((not_modified.status(), not_modified.header("etag")), (304, Some("\"x\"")));
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "ok");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn expect_continue_is_answered_by_the_proxy_and_not_forwarded() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    let interim =
        client.ask("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
    assert_eq!(interim.start, "HTTP/1.1 100 Continue");
    assert_eq!(client.ask("abc").text(), "ok");
    assert_eq!((backend.request().text(), backend.request().header("expect")), ("abc", None));
}

#[test]
fn an_upstreams_continue_is_not_told_twice() {
    let backend = Backend::raw(|wire, _| {
        let head = wire.head();
        assert_eq!(head.header("expect"), None);
        wire.send("HTTP/1.1 100 Continue\r\n\r\n");
        wire.bytes(3);
        wire.send(OK);
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    let interim =
        client.ask("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n");
    assert_eq!(interim.status(), 100);
    assert_eq!(client.ask("abc").status(), 200);
}

#[test]
fn other_interim_responses_do_not_end_the_exchange() {
    let backend = Backend::answering(
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    );
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    for _ in 0..2 {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "ok");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn trailers_are_dropped_unless_enabled() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-checksum: 7\r\n\r\n";
    let request =
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-sum: 1\r\n\r\n";
    let backend = Backend::answering(chunked);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let response = proxy.connect().ask(request);
    assert_eq!((response.text(), response.trailers.names().len()), ("ok", 0));
    assert_eq!(backend.request().trailers.names().len(), 0);
}

#[test]
fn trailers_pass_both_ways_when_enabled() {
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Checksum: 7\r\n\r\n";
    let request =
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n";
    let backend = Backend::answering(chunked);
    let options = "explicit_http_config: {http_protocol_options: {enable_trailers: true}}";
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address())
            .filter_with("http_protocol_options: {enable_trailers: true}")
            .cluster_with("backend", &proxy_tests::http_protocol_options(options)),
    );
    let response = proxy.connect().ask(request);
    assert_eq!((response.text(), response.trailers.find("x-checksum")), ("ok", Some("7")));
    assert_eq!(backend.request().trailers.find("x-sum"), Some("1"));
}

#[test]
fn the_upload_goes_on_while_the_response_streams() {
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        loop {
            let chunk = wire.chunk().unwrap();
            if chunk.is_empty() {
                break;
            }
            wire.send(format!("{:x}\r\n", chunk.len())).send(chunk).send("\r\n");
        }
        wire.send("0\r\n\r\n");
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(client.head().status(), 200);
    for word in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len()));
        assert_eq!(client.chunk().unwrap(), word.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk().unwrap(), b"");
}

#[test]
fn an_early_response_ends_the_exchange_and_the_connection() {
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.send("HTTP/1.1 413 Too Big\r\ncontent-length: 3\r\n\r\nbig");
        wire.rest();
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    let response = client.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nbeginning");
    assert_eq!((response.status(), response.text()), (413, "big"));
    client.finish();
    assert!(client.is_closed());
    backend.all_closed();
}

#[test]
fn connection_close_of_the_client_is_obeyed() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    let response = client.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_eq!((response.text(), response.header("connection")), ("ok", Some("close")));
    assert!(client.is_closed());
    assert_eq!(backend.request().header("connection"), None);
    proxy.stat_becomes("http.ingress.downstream_cx_active", 0);
    assert_eq!(
        proxy.stat("cluster.backend.upstream_cx_active"),
        1,
        "the upstream connection is not the client's to close"
    );
}

#[test]
fn connection_close_of_the_upstream_is_its_own() {
    let backend = Backend::new(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        After::Close
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    for connections in 1..4 {
        let response = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!((response.text(), response.header("connection")), ("ok", None));
        assert_eq!(backend.connections(), connections);
    }
}

#[test]
fn a_close_delimited_response_becomes_chunked() {
    let backend = Backend::new(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\n\r\nup to the end");
        After::Close
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    for _ in 0..2 {
        let response = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(response.header("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), "up to the end");
    }
}

#[test]
fn an_http_1_0_upstream_is_understood() {
    let backend = Backend::new(|_, wire| {
        wire.send("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold");
        After::Close
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let response = proxy.get("/");
    assert_eq!((response.start.as_str(), response.text()), ("HTTP/1.1 200 OK", "old"));
}

#[test]
fn ten_megabytes_go_both_ways_in_bounded_memory() {
    let backend = Backend::raw(|wire, _| {
        let length: usize = wire.head().header("content-length").unwrap().parse().unwrap();
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"));
        let mut left = length;
        while left > 0 {
            let part = wire.bytes(left.min(50_000));
            left -= part.len();
            wire.send(part);
        }
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let before = proxy.resident_bytes();
    let body: Vec<u8> =
        (0..10_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = proxy.connect();
    let mut upload = client.duplicate();
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len()));
    let sent = body.clone();
    let sender = std::thread::spawn(move || upload.try_send(sent));
    assert!(client.response().body == body);
    sender.join().unwrap().unwrap();
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 9_000_000, "resident memory grew by {grown} bytes");
}

#[test]
fn a_reader_that_stops_holds_the_backend_back() {
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
        for _ in 0..1000 {
            if wire.try_send(vec![b'x'; 100_000]).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let before = proxy.resident_bytes();
    let mut client = proxy.connect();
    assert_eq!(client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").head().status(), 200);
    // The proxy has stopped reading once this counter stands still between two answers of the admin port.
    let mut last = 0;
    eventually("the proxy to stop reading", || {
        let now = proxy.stat("cluster.backend.upstream_cx_rx_bytes_total");
        let stands = now > 0 && now == last;
        last = now;
        stands.then_some(())
    });
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 20_000_000, "resident memory grew by {grown} bytes");
    assert_eq!(client.bytes(100_000_000).len(), 100_000_000);
}

#[test]
fn a_client_that_leaves_frees_the_upstream_connection() {
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.rest();
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the request to arrive", || (backend.connections() == 1).then_some(()));
    drop(client);
    backend.all_closed();
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
}

#[test]
fn a_body_cut_by_the_client_never_looks_whole_to_the_backend() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    for request in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let mut client = proxy.connect();
        client.send(request);
        eventually("the upstream connection", || {
            (proxy.stat("cluster.backend.upstream_cx_active") == 1).then_some(())
        });
        drop(client);
        backend.all_closed();
    }
    assert_eq!(backend.requests(), []);
}

#[test]
fn a_truncated_response_never_looks_whole_to_the_client() {
    for (response, received) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", 4),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", 4),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nha", 2),
    ] {
        let backend = Backend::new(move |_, wire| {
            wire.send(response);
            After::Close
        });
        let proxy = Proxy::start(&Bootstrap::http(backend.address()));
        let cut = proxy.connect().send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").try_response();
        assert!(matches!(cut, Err(Cut::InBody(bytes)) if bytes == received), "{response:?}: {cut:?}");
    }
}

#[test]
fn an_absolute_target_names_the_host() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let response = proxy.connect().ask("GET http://www.example.org/p?q HTTP/1.1\r\nhost: other\r\n\r\n");
    assert_eq!(response.status(), 200);
    let request = backend.request();
    assert_eq!((request.target(), request.header("host")), ("/p?q", Some("www.example.org")));
}

#[test]
fn a_request_that_is_here_with_its_body_keeps_its_connection_whoever_answers() {
    let table = "[{match: {prefix: /direct}, direct_response: {status: 418}}, {match: {prefix: /}, route: {cluster: backend}}]";
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()).routes(table));
    let mut wire = proxy.connect();
    // Envoy closes where it answers before it has looked at the body.
    let paths = [("/", 503), ("/direct", 418), ("/", 503)];
    for (path, status) in paths.into_iter().filter(|(path, _)| *path == "/" || !on_envoy()) {
        let response = wire.ask(format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"));
        assert_eq!((response.status(), response.header("connection")), (status, None), "{path}");
        let response = wire.ask(format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ));
        assert_eq!((response.status(), response.header("connection")), (status, None), "{path}");
    }
    let response = wire.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc");
    assert_eq!((response.status(), response.header("connection")), (503, Some("close")), "more is to come");
    assert!(wire.is_closed());
}

#[test]
fn an_absolute_target_names_the_scheme() {
    let backend = Backend::answering(OK);
    let table = "[{match: {prefix: /}, redirect: {path_redirect: /new}}]";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).routes(table));
    for (target, forwarded, location) in [
        ("http://b.org/p", "https", "http://b.org/new"),
        ("https://b.org/p", "http", "https://b.org/new"),
        ("/p", "https", "https://a/new"),
    ] {
        let response = proxy
            .connect()
            .ask(format!("GET {target} HTTP/1.1\r\nhost: a\r\nx-forwarded-proto: {forwarded}\r\n\r\n"));
        assert_eq!(response.header("location"), Some(location));
    }
}

#[test]
fn empty_lines_before_a_request_are_ignored() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    assert_eq!(proxy.connect().ask("\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
}
