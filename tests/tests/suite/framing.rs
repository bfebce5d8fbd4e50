//! Bad input on HTTP/1: what the proxy must refuse, with which status, and that the backend hears nothing of it.
//!
//! Each table runs over one proxy, a connection per case, and says every case that came out wrong.

use std::fmt::Write as _;

use proxy_tests::{After, Backend, Bootstrap, Cut, Proxy, only_proxyd};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A request as it goes on the wire and the status it must get; every one also ends its connection.
struct Refused(&'static str, u16, &'static str);

fn refuse_all(bootstrap: impl Fn(&Backend) -> Bootstrap, cases: &[Refused]) {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&bootstrap(&backend));
    let mut wrong = String::new();
    for Refused(what, status, request) in cases {
        let mut client = proxy.connect();
        client.send_if_open(request);
        match client.try_response() {
            Ok(response) if response.status() == *status => {
                let surplus = client.finish().rest();
                if !surplus.is_empty() {
                    let _ = writeln!(wrong, "{what}: answered, then {:?}", String::from_utf8_lossy(&surplus));
                }
            }
            Ok(response) => drop(writeln!(wrong, "{what}: {} instead of {status}", response.start)),
            Err(cut) => drop(writeln!(wrong, "{what}: {cut:?} instead of {status}")),
        }
    }
    let heard: Vec<String> = backend.requests().into_iter().map(|request| request.start).collect();
    assert!(wrong.is_empty() && heard.is_empty(), "{wrong}the backend heard {heard:?}");
}

fn plain(backend: &Backend) -> Bootstrap {
    Bootstrap::http(backend.address())
}

#[test]
fn ambiguous_lengths_are_refused() {
    refuse_all(
        plain,
        &[
            Refused(
                "CL + TE",
                400,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            Refused(
                "TE + CL",
                400,
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
            ),
            Refused(
                "CL twice, different",
                400,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            ),
            Refused(
                "CL twice, same",
                400,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
            ),
            Refused("CL a list", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\na"),
            Refused("CL signed +", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na"),
            Refused("CL signed -", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\na"),
            Refused("CL hex", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x1\r\n\r\na"),
            Refused(
                "CL with a blank inside",
                400,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1 1\r\n\r\na",
            ),
            Refused("CL empty", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \r\n\r\na"),
            Refused(
                "CL beyond 64 bits",
                400,
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551617\r\n\r\na",
            ),
            Refused("CL with a fraction", 400, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1.0\r\n\r\na"),
        ],
    );
}

#[test]
fn transfer_codings_other_than_chunked_are_not_implemented() {
    refuse_all(
        plain,
        &[
            Refused("gzip", 501, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n"),
            Refused(
                "gzip, chunked",
                501,
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            ),
            Refused(
                "chunked, identity",
                501,
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            ),
            Refused("identity", 501, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n"),
            Refused(
                "xchunked",
                501,
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            ),
        ],
    );
}

#[test]
fn lines_that_parsers_read_differently_are_refused() {
    refuse_all(
        plain,
        &[
            Refused("space before the colon", 400, "GET / HTTP/1.1\r\nhost: a\r\nx-a : b\r\n\r\n"),
            Refused(
                "space before the colon of TE",
                400,
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
            ),
            Refused("NUL in a value", 400, "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n"),
            Refused("NUL in a name", 400, "GET / HTTP/1.1\r\nhost: a\r\nx\0a: b\r\n\r\n"),
            Refused("no colon", 400, "GET / HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n"),
            Refused("empty name", 400, "GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n"),
            Refused("name with a separator", 400, "GET / HTTP/1.1\r\nhost: a\r\nx(a): b\r\n\r\n"),
            Refused("control character in a value", 400, "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\x01c\r\n\r\n"),
            Refused("continuation line first", 400, "GET / HTTP/1.1\r\n host: a\r\n\r\n"),
        ],
    );
}

#[test]
fn folded_lines_are_refused_as_well() {
    only_proxyd!("Envoy joins a folded header line to one; RFC 9112 section 5.2 lets a proxy refuse it");
    refuse_all(plain, &[Refused("obs-fold", 400, "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n c\r\n\r\n")]);
}

#[test]
fn request_lines_that_are_none_are_refused() {
    refuse_all(
        plain,
        &[
            Refused("unknown method", 400, "FOO / HTTP/1.1\r\nhost: a\r\n\r\n"),
            Refused("lower-case method", 400, "get / HTTP/1.1\r\nhost: a\r\n\r\n"),
            Refused("method with a separator", 400, "GE(T / HTTP/1.1\r\nhost: a\r\n\r\n"),
            Refused("no target", 400, "GET HTTP/1.1\r\nhost: a\r\n\r\n"),
            Refused("blank in the target", 400, "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
            Refused("NUL in the target", 400, "GET /a\0b HTTP/1.1\r\nhost: a\r\n\r\n"),
            Refused("control character in the target", 400, "GET /a\x01b HTTP/1.1\r\nhost: a\r\n\r\n"),
            Refused("no ASCII in the target", 400, "GET /\u{e4} HTTP/1.1\r\nhost: a\r\n\r\n"),
            Refused("relative target", 400, "GET a HTTP/1.1\r\nhost: a\r\n\r\n"),
            Refused("lower-case protocol", 400, "GET / http/1.1\r\nhost: a\r\n\r\n"),
            Refused("garbage", 400, "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n"),
        ],
    );
}

#[test]
fn a_request_names_one_host() {
    refuse_all(plain, &[Refused("no host", 400, "GET / HTTP/1.1\r\nx-a: b\r\n\r\n")]);
}

#[test]
fn old_versions_must_upgrade() {
    refuse_all(
        plain,
        &[
            Refused("HTTP/1.0", 426, "GET / HTTP/1.0\r\nhost: a\r\n\r\n"),
            Refused("HTTP/1.0 without host", 426, "GET / HTTP/1.0\r\n\r\n"),
        ],
    );
}

#[test]
fn versions_that_do_not_exist_are_refused() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&plain(&backend));
    for line in ["GET / HTTP/2.0", "GET / HTTP/1.2", "GET / HTTP/11.1", "GET /"] {
        let mut client = proxy.connect();
        let status = client.ask(format!("{line}\r\nhost: a\r\n\r\n")).status();
        assert!(matches!(status, 400 | 426), "{line}: {status}");
        assert!(client.finish().is_closed(), "{line}");
    }
    assert_eq!(backend.requests(), []);
}

#[test]
fn upgrades_that_no_one_enabled_are_forbidden() {
    refuse_all(
        plain,
        &[Refused(
            "websocket",
            403,
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )],
    );
}

#[test]
fn a_wish_for_h2c_is_ignored_not_refused() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&plain(&backend));
    let asked = "GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n";
    assert_eq!(proxy.connect().ask(asked).status(), 200);
    let heard = backend.requests().remove(0);
    for name in ["connection", "upgrade", "http2-settings"] {
        assert_eq!(heard.header(name), None, "{name} reached the backend");
    }
}

#[test]
fn connect_finds_no_route() {
    refuse_all(plain, &[Refused("CONNECT", 404, "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n")]);
}

#[test]
fn a_connect_without_host_is_refused() {
    only_proxyd!("Envoy takes the target for it, against RFC 9112 section 3.2");
    refuse_all(plain, &[Refused("CONNECT", 400, "CONNECT a:80 HTTP/1.1\r\n\r\n")]);
}

#[test]
fn header_limits_are_431() {
    let big: &'static str =
        format!("GET / HTTP/1.1\r\nhost: a\r\nx-a: {}\r\n\r\n", "x".repeat(70_000)).leak();
    let many: &'static str = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x-a: b\r\n".repeat(101)).leak();
    let url: &'static str = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(70_000)).leak();
    refuse_all(
        plain,
        &[
            Refused("70 kB of header", 431, big),
            Refused("102 headers", 431, many),
            Refused("70 kB of target", 431, url),
        ],
    );
}

#[test]
fn configured_header_limits_are_431() {
    let limits = "{max_request_headers_kb: 2, common_http_protocol_options: {max_headers_count: 5}}";
    let big: &'static str = format!("GET / HTTP/1.1\r\nhost: a\r\nx-a: {}\r\n\r\n", "x".repeat(2100)).leak();
    let many = "GET / HTTP/1.1\r\nhost: a\r\na: b\r\na: b\r\na: b\r\na: b\r\na: b\r\n\r\n";
    refuse_all(
        |backend| plain(backend).filter_with(limits),
        &[Refused("2 KiB of header", 431, big), Refused("6 headers", 431, many)],
    );
}

#[test]
fn endless_heads_and_trailers_end_the_connection() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&plain(&backend));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx-a: ");
    for _ in 0..100 {
        client.send_if_open([b'x'; 1000]);
    }
    assert!(client.try_response().is_ok_and(|response| response.status() == 431) || client.is_closed());
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n");
    for _ in 0..200 {
        client.send_if_open("x-a: ".to_owned() + &"y".repeat(1000) + "\r\n");
    }
    client.finish();
    let answer = client.try_response();
    assert!(answer.as_ref().map_or(true, |response| response.status() >= 400), "{answer:?}");
    assert_eq!(backend.requests(), []);
}

#[test]
fn what_envoy_lets_pass_for_another_parser_to_misread_is_refused() {
    only_proxyd!("Envoy forwards these; each is a MUST or a SHOULD of RFC 9112 against request smuggling");
    refuse_all(
        plain,
        &[
            Refused("two hosts", 400, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
            Refused("two hosts, same", 400, "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
            Refused("bare CR in a value", 400, "GET / HTTP/1.1\r\nhost: a\r\nx-a: b\rc\r\n\r\n"),
            Refused("two blanks", 400, "GET  / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ],
    );
}

/// Chunks broken so that any parser notices.
const BROKEN_CHUNKS: [&str; 8] = [
    "xyz\r\nabc\r\n0\r\n\r\n",
    "-1\r\na\r\n0\r\n\r\n",
    "+1\r\na\r\n0\r\n\r\n",
    "0x1\r\na\r\n0\r\n\r\n",
    "\r\na\r\n0\r\n\r\n",
    " 1\r\na\r\n0\r\n\r\n",
    "ffffffffffffffff1\r\na\r\n0\r\n\r\n",
    ";ext\r\na\r\n0\r\n\r\n",
];

/// Chunks that Envoy takes and another parser reads differently.
const AMBIGUOUS_CHUNKS: [&str; 3] = ["1 1\r\na\r\n0\r\n\r\n", "1\r\nab\r\n0\r\n\r\n", "1\r\naX\n0\r\n\r\n"];

#[test]
fn bad_chunks_are_refused_and_never_complete_upstream() {
    refuse_chunks(&BROKEN_CHUNKS);
}

#[test]
fn ambiguous_chunks_are_refused_and_never_complete_upstream() {
    only_proxyd!("Envoy takes a blank in a chunk size and content past a chunk's end");
    refuse_chunks(&AMBIGUOUS_CHUNKS);
}

/// The body is already on its way: the client learns 400 and the backend never sees the end.
fn refuse_chunks(bodies: &[&str]) {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&plain(&backend));
    let mut wrong = String::new();
    for body in bodies {
        let mut client = proxy.connect();
        client
            .send_if_open(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}"));
        let answer = client.try_response();
        let closed = client.finish().is_closed();
        if !answer.as_ref().is_ok_and(|response| response.status() == 400) || !closed {
            let _ = writeln!(wrong, "{body:?}: {answer:?}, closed: {closed}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(backend.requests(), []);
}

#[test]
fn what_follows_a_refused_request_is_not_a_request() {
    let smuggled = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    refuse_all(plain, &[Refused("smuggling", 400, smuggled)]);
}

#[test]
fn one_request_for_the_client_is_one_for_the_backend() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&plain(&backend));
    let inner = "GET /inner HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut client = proxy.connect();
    let sized = format!("POST /sized HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{inner}", inner.len());
    assert_eq!(client.ask(sized).status(), 200);
    let chunked = "POST /chunked HTTP/1.1\r\nhost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n";
    assert_eq!(client.ask(format!("{chunked}{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len())).status(), 200);
    let seen: Vec<String> = backend.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(seen, ["/sized", "/chunked"]);
    assert!(backend.requests().iter().all(|request| request.text() == inner));
}

#[test]
fn refusals_are_counted() {
    let backend = Backend::answering(OK);
    let proxy = Proxy::start(&plain(&backend));
    assert_eq!(proxy.connect().ask("GET / HTTP/1.1\r\nhost: a\r\nx-a : b\r\n\r\n").status(), 400);
    proxy.stat_becomes("http.ingress.downstream_cx_protocol_error", 1);
    proxy.stat_becomes("http.ingress.downstream_rq_4xx", 1);
    proxy.stat_becomes("http.ingress.downstream_rq_total", 1);
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
    proxy.stat_becomes("http.ingress.downstream_cx_active", 0);
}

#[test]
fn bad_responses_become_502() {
    for response in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nx-a : b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a: b\0c\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
    ] {
        let backend = Backend::new(move |_, wire| {
            wire.send(response);
            After::Close
        });
        let proxy = Proxy::start(&plain(&backend));
        let answer = proxy.get("/");
        assert_eq!(answer.status(), 502, "{response:?}");
        assert!(
            answer.text().starts_with("upstream connect error or disconnect/reset before headers"),
            "{answer:?}"
        );
    }
}

#[test]
fn a_response_with_too_many_headers_becomes_502() {
    let backend = Backend::new(|_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x-a: b\r\n".repeat(200)));
        After::Close
    });
    let proxy = Proxy::start(&plain(&backend));
    assert_eq!(proxy.get("/").status(), 502);
}

#[test]
fn surplus_bytes_of_a_response_never_reach_the_next_client() {
    let backend = Backend::new(|_, wire| {
        wire.send(format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"));
        After::KeepOpen
    });
    let proxy = Proxy::start(&plain(&backend));
    for _ in 0..10 {
        let answer = proxy.connect().send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").try_response();
        match answer {
            Ok(response) => assert_ne!(response.text(), "poison"),
            Err(cut) => assert!(matches!(cut, Cut::BeforeHead | Cut::InBody(_)), "{cut:?}"),
        }
    }
}

#[test]
fn a_bad_chunk_in_a_response_cuts_it() {
    let backend = Backend::new(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n");
        After::KeepOpen
    });
    let proxy = Proxy::start(&plain(&backend));
    let answer = proxy.connect().send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").try_response();
    assert!(
        matches!(answer, Err(Cut::InBody(_)))
            || answer.as_ref().is_ok_and(|response| response.status() == 502),
        "{answer:?}"
    );
}
