//! Clients that read nothing, write slowly, or send heads that are bombs: each costs its own connection and a bounded
//! amount of memory, and nobody else notices.

use proxy_tests::{After, Backend, Bootstrap, Proxy, Wire, eventually, on_envoy};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// Connections that behave badly at the same time.
const HOSTILE: usize = 50;

/// Memory that `work` has made the proxy keep, in bytes; others are served meanwhile.
fn grown(proxy: &Proxy, work: impl FnOnce() -> Vec<Wire>) -> usize {
    assert_eq!(proxy.get("/small").text(), "small");
    let before = proxy.resident_bytes();
    let hostile = work();
    let grown = proxy.resident_bytes().saturating_sub(before);
    for _ in 0..10 {
        assert_eq!(proxy.get("/small").text(), "small");
    }
    drop(hostile);
    grown
}

/// Says `small`, or as much as it can get rid of.
fn endless() -> Backend {
    Backend::new(|request, wire| {
        if request.start.starts_with("GET /small ") {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nsmall");
            return After::KeepOpen;
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        let piece = vec![7; 1 << 16];
        while wire.try_send(&piece).is_ok() {}
        After::Close
    })
}

#[test]
fn clients_that_do_not_read_are_held_back_and_ended() {
    let backend = endless();
    let bootstrap = Bootstrap::http(backend.address())
        .filter_with("stream_idle_timeout: 2s")
        .cluster_with("backend", "per_connection_buffer_limit_bytes: 32768")
        .listener_with("per_connection_buffer_limit_bytes: 32768");
    let proxy = Proxy::start(&bootstrap);
    let grown = grown(&proxy, || {
        let hostile = (0..HOSTILE).map(|_| proxy.connect()).map(|mut wire| {
            wire.send(GET);
            wire
        });
        let hostile: Vec<_> = hostile.collect();
        proxy.stat_becomes("http.ingress.downstream_rq_active", HOSTILE as u64);
        hostile
    });
    assert!(grown < HOSTILE * (256 << 10), "{grown} bytes");
    let hostile: Vec<_> = (0..HOSTILE)
        .map(|_| {
            let mut wire = proxy.connect();
            wire.send(GET);
            wire
        })
        .collect();
    let ended = "http.ingress.downstream_rq_idle_timeout";
    eventually("their streams to end", || (proxy.stat(ended) >= HOSTILE as u64).then_some(()));
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 0);
    drop(hostile);
}

#[test]
fn heads_that_come_slowly_and_do_not_end_keep_little() {
    let backend = Backend::saying("small");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with("request_headers_timeout: 2s"));
    let mut slow = Vec::new();
    let grown = grown(&proxy, || {
        let line = format!("x-a: {}\r\n", "v".repeat(8000));
        for _ in 0..HOSTILE {
            let mut wire = proxy.connect();
            wire.send("GET / HTTP/1.1\r\nhost: a\r\n").send(line.repeat(6));
            slow.push(wire);
        }
        proxy.stat_becomes("http.ingress.downstream_cx_active", HOSTILE as u64);
        Vec::new()
    });
    // No more than the largest head, twice.
    assert!(grown < HOSTILE * (120 << 10), "{grown} bytes");
    for wire in &mut slow {
        assert_eq!(wire.response().status(), 408);
    }
    proxy.stat_becomes("http.ingress.downstream_cx_active", 0);
}

#[test]
fn heads_that_are_too_large_are_refused_before_they_are_kept() {
    let backend = Backend::saying("small");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let grown = grown(&proxy, || {
        let hostile = (0..HOSTILE).map(|_| proxy.connect()).map(|mut wire| {
            wire.send("GET / HTTP/1.1\r\nhost: a\r\n");
            wire.send_if_open(format!("x-a: {}\r\n", "v".repeat(8000)).repeat(100));
            wire
        });
        hostile.collect()
    });
    // Envoy keeps what has come.
    assert!(on_envoy() || grown < HOSTILE * (256 << 10), "{grown} bytes");
    proxy.stat_becomes("http.ingress.downstream_rq_4xx", HOSTILE as u64);
    assert!(backend.requests().iter().all(|request| request.start.starts_with("GET /small ")));
}

/// A header block of few bytes that stands for 40 MB: one value of 4,000 bytes in HPACK's table, asked for 10,000 times.
#[test]
fn what_hpack_makes_large_is_refused_before_it_is_large() {
    let backend = Backend::saying("small");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, u8::from(kind == 1)], payload].concat()
    };
    // :method GET, :scheme http, :path /, :authority a.
    let mut block = vec![0x82, 0x86, 0x84, 0x41, 1, b'a'];
    // x-a: a literal that goes to the table, as its newest entry, 62.
    block.extend([0x40, 3, b'x', b'-', b'a', 0x7f, 0xa1, 0x1e]);
    block.extend(vec![b'v'; 4000]);
    block.extend(vec![0xbe; 10_000]);
    let grown = grown(&proxy, || {
        let hostile = (0..HOSTILE).map(|_| proxy.connect()).map(|mut wire| {
            wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(frame(4, 0, &[]));
            wire.send_if_open(frame(1, 1 | 4, &block));
            wire
        });
        let mut hostile: Vec<_> = hostile.collect();
        // An answer of 431, a reset or an end: each comes after its SETTINGS.
        hostile.iter_mut().for_each(|wire| while wire.try_bytes(9).is_some_and(|head| head[3] == 4) {});
        hostile
    });
    assert!(grown < HOSTILE * (256 << 10), "{grown} bytes");
    assert!(backend.requests().iter().all(|request| request.start.starts_with("GET /small ")));
}

#[test]
fn bodies_that_come_slowly_have_their_time() {
    let backend = Backend::saying("small");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with("request_timeout: 1s"));
    let mut slow: Vec<_> = (0..HOSTILE).map(|_| proxy.connect()).collect();
    for wire in &mut slow {
        wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nx");
    }
    assert_eq!(proxy.get("/small").text(), "small");
    for wire in &mut slow {
        assert_eq!(wire.response().status(), 408);
    }
    proxy.stat_becomes("http.ingress.downstream_rq_timeout", HOSTILE as u64);
}
