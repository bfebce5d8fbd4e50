//! Where the differential suite (`tests/peers/differential`) once found proxyd laxer than Envoy, or different for no
//! reason: each fault that was mended, by name.

use proxy_tests::{After, Backend, Bootstrap, Cut, Proxy};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn serving() -> (Backend, Proxy) {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    (backend, proxy)
}

/// Each request gets its status, ends its connection, and what follows it is not heard.
fn last_words(cases: &[(&str, u16)]) {
    let (backend, proxy) = serving();
    for (request, status) in cases {
        let mut client = proxy.connect();
        client.send_if_open(format!("{request}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(client.try_response().map(|response| response.status()), Ok(*status), "{request:?}");
        assert!(client.is_closed(), "{request:?} left its connection open");
    }
    let heard = backend.requests();
    assert!(heard.is_empty(), "the backend heard {heard:?}");
}

#[test]
fn targets_name_hosts_that_can_be_connected_to() {
    let hosts = [
        "b:",
        "b:x",
        "b:99999",
        "b:+1",
        "[::1",
        "[fe80::1%25eth0]",
        "[::1]x",
        "b%2fc",
        "b_c",
        "b~c",
        "b,c",
        ":80",
    ];
    let absolute = hosts.map(|host| (format!("GET http://{host}/c HTTP/1.1\r\nhost: a\r\n\r\n"), 400));
    let connect =
        ["b", "*", "b:80/", "[::1]"].map(|host| (format!("CONNECT {host} HTTP/1.1\r\nhost: a\r\n\r\n"), 400));
    let all: Vec<(&str, u16)> =
        absolute.iter().chain(&connect).map(|(request, status)| (request.as_str(), *status)).collect();
    last_words(&all);
}

#[test]
fn a_target_of_another_scheme_than_the_connection_is_forbidden_at_the_edge() {
    let backend = Backend::answering(OK);
    for (edge, status) in [(true, 403), (false, 200)] {
        let options = format!("{{use_remote_address: {edge}}}");
        let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(&options));
        let mut client = proxy.connect();
        assert_eq!(client.ask("GET https://b/c HTTP/1.1\r\nhost: a\r\n\r\n").status(), status, "{options}");
    }
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn methods_that_envoy_does_not_know_are_unknown_here_too() {
    last_words(&[("M-SEARCH / HTTP/1.1\r\nhost: a\r\n\r\n", 400)]);
}

#[test]
fn an_upgrade_to_nothing_is_an_upgrade() {
    last_words(&[("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade:\r\n\r\n", 403)]);
}

#[test]
fn refused_nominations_and_paths_end_their_connection() {
    last_words(&[
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: x-forwarded-for\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: :path\r\n\r\n", 400),
        ("GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ]);
}

#[test]
fn proxy_connection_close_closes() {
    let (_backend, proxy) = serving();
    let mut client = proxy.connect();
    let answer = client.ask("GET / HTTP/1.1\r\nhost: a\r\nproxy-connection: close\r\n\r\n");
    assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
    assert!(client.is_closed());
}

#[test]
fn a_client_that_waits_for_100_gets_it_though_it_sends_no_body() {
    let (backend, proxy) = serving();
    for request in ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\ncontent-length: 0\r\n"] {
        let mut client = proxy.connect();
        client.send(format!("{request}host: a\r\nexpect: 100-Continue\r\n\r\n"));
        assert_eq!((client.response().status(), client.response().status()), (100, 200));
        assert_eq!(backend.requests().pop().unwrap().header("expect"), None);
    }
}

#[test]
fn requests_without_a_body_say_so_unless_their_method_never_has_one() {
    let (backend, proxy) = serving();
    for (method, length) in
        [("OPTIONS", Some("0")), ("PROPFIND", Some("0")), ("DELETE", None), ("TRACE", None)]
    {
        proxy.connect().ask(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(backend.requests().pop().unwrap().header("content-length"), length, "{method}");
    }
}

#[test]
fn an_answer_to_head_is_framed_as_one_to_get() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\n\r\n");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut client = proxy.connect();
    let head = client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!((head.status(), head.header("transfer-encoding")), (200, Some("chunked")));
}

#[test]
fn responses_that_begin_or_end_where_they_should_not_become_502() {
    for response in [
        "\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\ncontent-length: 2\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\ntransfer-encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a: b\r\n",
    ] {
        let backend = Backend::new(move |_, wire| {
            wire.send(response);
            After::Close
        });
        let proxy = Proxy::start(&Bootstrap::http(backend.address()));
        assert_eq!(proxy.get("/").status(), 502, "{response:?}");
    }
}

#[test]
fn heads_of_responses_may_have_80_kib() {
    for (kib, status) in [(79, 200), (81, 502)] {
        let value = "b".repeat(kib * 1024);
        let backend = Backend::new(move |_, wire| {
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-a: {value}\r\n\r\n"));
            After::Close
        });
        let proxy = Proxy::start(&Bootstrap::http(backend.address()));
        let answer = proxy.connect().send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").try_response();
        assert!(
            answer.as_ref().is_ok_and(|answer| answer.status() == status),
            "{kib} KiB: {:?}",
            answer.map_err(|cut: Cut| cut)
        );
    }
}
