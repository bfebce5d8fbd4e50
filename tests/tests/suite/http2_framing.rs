//! Bad input on HTTP/2, frame by frame: one stream is reset or the connection ends, the backend hears nothing, and
//! others go on being served.

use std::time::Duration;

use proxy_tests::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, INTERNAL_ERROR, PING, RST_STREAM,
    SETTINGS, block, frame, open,
};
use proxy_tests::{Backend, Bootstrap, Proxy, Wire, http_protocol_options, only_proxyd};

/// What becomes of stream 1: its status (as the response's first header block begins), a reset, or the end of the
/// connection.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Reset(u32),
    ConnectionEnded(Option<u32>),
}

fn fate(wire: &mut Wire) -> Fate {
    let code = |payload: &[u8], at: usize| {
        u32::from_be_bytes(
            payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default(),
        )
    };
    let mut goaway = None;
    loop {
        let Some(frame) = wire.try_frame() else { return Fate::ConnectionEnded(goaway) };
        match frame.kind {
            HEADERS if frame.stream == 1 => return Fate::Answered,
            RST_STREAM if frame.stream == 1 => return Fate::Reset(code(&frame.payload, 0)),
            GOAWAY => goaway = Some(code(&frame.payload, 4)),
            _ => {}
        }
    }
}

fn serving() -> (Backend, Proxy) {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    (backend, proxy)
}

fn assert_still_serving(backend: &Backend, proxy: &Proxy) {
    assert_eq!(backend.requests(), [], "the backend heard of it");
    assert_eq!(proxy.get("/").text(), "ok");
}

#[test]
fn a_well_formed_request_in_single_frames_is_answered() {
    let (backend, proxy) = serving();
    let mut wire = open(&proxy);
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET)));
    assert_eq!(fate(&mut wire), Fate::Answered);
    assert_eq!(backend.request().start, "GET / HTTP/1.1");
}

#[test]
fn malformed_requests_never_reach_the_backend() {
    let with = |extra: &[(&'static str, &'static str)]| [&GET[..], extra].concat();
    let cases = [
        ("upper-case name", with(&[("X-Upper", "1")])),
        ("connection header", with(&[("connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("keep-alive", with(&[("keep-alive", "1")])),
        ("pseudo-header after a header", with(&[("x-a", "b"), (":path", "/b")])),
        ("two paths", with(&[(":path", "/b")])),
        ("unknown pseudo-header", with(&[(":nonsense", "1")])),
        ("response pseudo-header", with(&[(":status", "200")])),
        ("no method", GET[1..].to_vec()),
        ("no path", GET[..3].to_vec()),
        ("empty path", vec![GET[0], GET[1], GET[2], (":path", "")]),
        ("CR LF in a value", with(&[("x-a", "b\r\nx-c: d")])),
        ("NUL in a value", with(&[("x-a", "b\0c")])),
        ("blank in the path", vec![GET[0], GET[1], GET[2], (":path", "/ HTTP/1.1\r\nx: y")]),
        ("colon in a name", with(&[("x:a", "b")])),
        ("content-length beyond an empty body", with(&[("content-length", "5")])),
        ("two content-lengths", with(&[("content-length", "0"), ("content-length", "1")])),
        ("two hosts", with(&[("host", "a"), ("host", "b")])),
        ("empty scheme", vec![GET[0], (":scheme", ""), GET[2], GET[3]]),
    ];
    let all = cases.map(|(what, lines)| (what, frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&lines))));
    // A reset, the end of the connection or an answer of the proxy's own: all will do, since no backend heard of it.
    println!("{:#?}", fates(&all));
}

/// Sends each of `cases` on a connection of its own, all at once since a proxy may take its time to close, and
/// tells what became of each. The backend must hear nothing, and be reached afterwards.
fn fates(cases: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, Fate)> {
    let (backend, proxy) = serving();
    let open: Vec<(&str, Wire)> = cases
        .iter()
        .map(|(what, bytes)| {
            let mut wire = open(&proxy);
            wire.send_if_open(bytes);
            (*what, wire)
        })
        .collect();
    let fates = open.into_iter().map(|(what, mut wire)| (what, fate(&mut wire))).collect();
    assert_still_serving(&backend, &proxy);
    fates
}

#[test]
fn a_body_that_does_not_fit_its_length_never_completes() {
    for body in ["too long", "abc"] {
        let (backend, proxy) = serving();
        let mut wire = open(&proxy);
        let lines = [&[(":method", "POST")][..], &GET[1..], &[("content-length", "5")]].concat();
        wire.send_if_open(frame(HEADERS, END_HEADERS, 1, &block(&lines)));
        wire.send_if_open(frame(DATA, END_STREAM, 1, body.as_bytes()));
        println!("{body}: {:?}", fate(&mut wire));
        assert_still_serving(&backend, &proxy);
    }
}

#[test]
fn broken_frames_end_the_connection() {
    let mut oversized = frame(DATA, 0, 1, &[]);
    oversized[..3].copy_from_slice(&[0xff, 0xff, 0xff]);
    let cases = [
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        ("DATA on an idle stream", frame(DATA, 0, 1, b"x")),
        ("HEADERS on an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &block(&GET))),
        ("a frame beyond the limit", oversized),
        ("SETTINGS of odd length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS with a huge window", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("PING of odd length", frame(PING, 0, 0, &[0; 7])),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &block(&GET))),
        ("a header block that is none", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 20])),
        ("a window of zero", frame(8, 0, 0, &[0; 4])),
    ];
    for (what, fate) in fates(&cases) {
        assert!(matches!(fate, Fate::ConnectionEnded(_)), "{what}: {fate:?}");
    }
}

/// Sends `flood` over and over until the proxy has had enough.
fn assert_flood_ends(what: &str, begin: &[u8], mut flood: impl FnMut(u32) -> Vec<u8>) {
    let (_backend, proxy) = serving();
    let before = proxy.resident_bytes();
    let mut wire = open(&proxy).write_patience(Duration::from_secs(1));
    wire.send(begin);
    // Not reading any further is as good an end as closing.
    let ended = (0..200_000).any(|turn| wire.try_send(flood(turn)).is_err());
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(ended, "{what}: all of it was taken");
    assert!(grown < 30_000_000, "{what}: resident memory grew by {grown} bytes");
    drop(wire);
    assert_eq!(proxy.get("/").text(), "ok", "{what}");
}

#[test]
fn a_flood_of_resets_ends_the_connection() {
    assert_flood_ends("rapid reset", &[], |turn| {
        let stream = 2 * turn + 1;
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        bytes
    });
}

#[test]
fn an_endless_header_block_ends_the_connection() {
    let begin = frame(HEADERS, END_STREAM, 1, &block(&GET));
    assert_flood_ends("continuation", &begin, |_| {
        frame(CONTINUATION, 0, 1, &block(&[("x-a", "b")]).repeat(1000))
    });
}

#[test]
fn empty_continuations_end_the_connection() {
    let begin = frame(HEADERS, END_STREAM, 1, &block(&GET));
    assert_flood_ends("empty continuation", &begin, |_| frame(CONTINUATION, 0, 1, &[]).repeat(100));
}

#[test]
fn questions_without_reading_answers_end_the_connection() {
    assert_flood_ends("ping", &[], |_| frame(PING, 0, 0, &[7; 8]).repeat(1000));
    assert_flood_ends("settings", &[], |_| frame(SETTINGS, 0, 0, &[]).repeat(1000));
}

#[test]
fn garbage_of_any_kind_leaves_the_proxy_serving() {
    let (_backend, proxy) = serving();
    let mut state = 0x9e37_79b9_u32;
    let mut random = |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                (state >> 16) as u8
            })
            .collect()
    };
    for round in 0..200 {
        let mut wire = if round % 2 == 0 { proxy.connect() } else { open(&proxy) };
        if round % 4 == 3 {
            let junk = random(60);
            wire.send_if_open(frame(junk[0] % 12, junk[1], u32::from(junk[2] % 4), &junk[3..]));
        }
        wire.send_if_open(random(200)).finish();
        let _ = wire.rest();
    }
    assert_eq!(proxy.get("/").text(), "ok");
    proxy.stat_becomes("http.ingress.downstream_cx_active", 0);
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
}

const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;

/// Sends `frames` behind a request whose body is still to come; the connection ends, and `stat` counts one flood.
fn assert_counted(fragment: &str, stat: &str, allowed: &[Vec<u8>], flood: &[Vec<u8>]) {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(fragment));
    let begin = frame(HEADERS, END_HEADERS, 1, &block(&[(":method", "POST"), GET[1], GET[2], GET[3]]));
    let end = frame(DATA, END_STREAM, 1, b"x");
    let mut wire = open(&proxy);
    wire.send(&begin).send(allowed.concat()).send(&end);
    assert_eq!(fate(&mut wire), Fate::Answered, "{stat}: what is allowed");
    assert_eq!(proxy.stat(stat), 0);
    let mut wire = open(&proxy);
    wire.send(&begin).send_if_open(flood.concat()).send_if_open(&end);
    assert!(matches!(fate(&mut wire), Fate::ConnectionEnded(_)), "{stat}");
    proxy.stat_becomes(stat, 1);
    assert_eq!(proxy.get("/").status(), 200);
}

#[test]
fn floods_of_empty_frames_are_counted() {
    let empty = frame(DATA, 0, 1, &[]);
    let stat = "http2.inbound_empty_frames_flood";
    assert_counted("{}", stat, std::slice::from_ref(&empty), &vec![empty.clone(); 2]);
    let fragment = "http2_protocol_options: {max_consecutive_inbound_frames_with_empty_payload: 3}";
    assert_counted(fragment, stat, &vec![empty.clone(); 3], &vec![empty; 4]);
}

#[test]
fn floods_of_priorities_are_counted() {
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 7]);
    let fragment = "http2_protocol_options: {max_inbound_priority_frames_per_stream: 5}";
    let stat = "http2.inbound_priority_frames_flood";
    assert_counted(fragment, stat, &vec![priority.clone(); 10], &vec![priority; 11]);
}

#[test]
fn floods_of_window_updates_are_counted() {
    let update = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    let fragment = "http2_protocol_options: {max_inbound_window_update_frames_per_data_frame_sent: 1}";
    let stat = "http2.inbound_window_update_frames_flood";
    // Five, and two for the stream.
    assert_counted(fragment, stat, &vec![update.clone(); 7], &vec![update; 8]);
}

/// Asks without reading the answers, until the proxy has had enough and counted it.
fn assert_unread_counted(fragment: &str, stat: &str, ask: impl Fn(u32) -> Vec<u8>) {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(fragment));
    let mut wire = open(&proxy).write_patience(Duration::from_secs(10));
    assert!((0..200_000).any(|turn| wire.try_send(ask(turn)).is_err()), "{stat}");
    proxy.stat_becomes(stat, 1);
    for gauge in ["http2.outbound_frames_active", "http2.outbound_control_frames_active"] {
        proxy.stat_becomes(gauge, 0);
    }
    assert_eq!(proxy.get("/").status(), 200);
}

#[test]
fn pongs_that_nobody_reads_are_counted() {
    only_proxyd!("Envoy's codec may find the flood first, and does not count it");
    let ping = |_| frame(PING, 0, 0, &[7; 8]).repeat(100);
    assert_unread_counted("{}", "http2.outbound_control_flood", ping);
    let fragment = "http2_protocol_options: {max_outbound_frames: 300}";
    assert_unread_counted(fragment, "http2.outbound_flood", ping);
}

#[test]
fn clients_that_take_back_what_they_ask_are_sent_away() {
    let backend = Backend::raw(|wire, _| while wire.some().is_some() {});
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut wire = open(&proxy);
    for turn in 0..250 {
        let stream = 1 + 2 * turn;
        wire.send_if_open(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET)));
        wire.send_if_open(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        // Each is seen before the next one comes.
        proxy.stat_becomes("http2.rx_reset", u64::from(turn) + 1);
    }
    assert!(matches!(fate(&mut wire), Fate::ConnectionEnded(_)));
    proxy.stat_becomes("http.ingress.downstream_rq_too_many_premature_resets", 1);
}

#[test]
fn a_connection_that_does_not_begin_with_settings_ends() {
    let (backend, proxy) = serving();
    for first in [
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET)),
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, ACK, 0, &[]),
    ] {
        let mut wire = proxy.connect();
        wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send_if_open(first);
        wire.send_if_open(frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&GET)));
        assert_eq!(fate(&mut wire), Fate::ConnectionEnded(Some(1)));
    }
    assert_still_serving(&backend, &proxy);
}

#[test]
fn trailers_do_not_say_how_long_the_body_was() {
    let (backend, proxy) = serving();
    let mut wire = open(&proxy);
    let post = [(":method", "POST"), GET[1], GET[2], GET[3]];
    wire.send(frame(HEADERS, END_HEADERS, 1, &block(&post))).send(frame(DATA, 0, 1, b"abc"));
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("content-length", "5")])));
    fate(&mut wire);
    assert_still_serving(&backend, &proxy);
}

#[test]
fn a_stream_that_comes_with_the_answer_to_the_last_ping_is_served() {
    only_proxyd!("Envoy asks no ping, it waits for drain_timeout");
    let backend = Backend::saying("ok");
    let bootstrap = Bootstrap::http(backend.address())
        .filter_with("common_http_protocol_options: {max_requests_per_connection: 1}");
    let proxy = Proxy::start(&bootstrap);
    let mut wire = open(&proxy);
    let ask = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&GET));
    wire.send(ask(1));
    let (mut answered, mut goaways) = (Vec::new(), 0);
    while let Some(head) = wire.try_bytes(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = wire.try_bytes(length).expect("a whole frame");
        match head[3] {
            HEADERS => answered.push(head[8]),
            GOAWAY => goaways += 1,
            PING if head[4] & ACK == 0 => drop(wire.send([frame(PING, ACK, 0, &payload), ask(3)].concat())),
            _ => {}
        }
    }
    answered.sort_unstable();
    assert_eq!((answered, goaways), (vec![1, 3], 2));
    assert_eq!(backend.requests().len(), 2);
}

/// The parameters of the SETTINGS that a connection begins with.
fn settings_of(wire: &mut Wire) -> Vec<(u16, u32)> {
    let head = wire.bytes(9);
    assert_eq!((head[3], head[4]), (SETTINGS, 0));
    let payload = wire.bytes(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    payload
        .chunks(6)
        .map(|entry| (u16::try_from(number(&entry[..2])).unwrap(), number(&entry[2..])))
        .collect()
}

#[test]
fn settings_of_ones_own_are_sent_to_clients_and_to_hosts() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let backend = Backend::raw(move |wire, _| {
        wire.bytes(24);
        tell.lock().unwrap().send(settings_of(wire)).unwrap();
    });
    let custom = "{allow_connect: false, custom_settings_parameters: [{identifier: 3, value: 77}, {identifier: 65000, value: 9}]}";
    let cluster = format!("explicit_http_config: {{http2_protocol_options: {custom}}}");
    let bootstrap = Bootstrap::http(backend.address())
        .filter_with(&format!("http2_protocol_options: {custom}"))
        .cluster_with("backend", &http_protocol_options(&cluster));
    let proxy = Proxy::start(&bootstrap);
    let mut wire = open(&proxy);
    let settings = settings_of(&mut wire);
    assert!(settings.contains(&(3, 77)) && settings.contains(&(65000, 9)), "{settings:?}");
    wire.send(frame(SETTINGS, ACK, 0, &[])).send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&GET)));
    let settings = told.recv().unwrap();
    assert!(settings.contains(&(65000, 9)), "{settings:?}");
}

#[test]
fn what_has_come_of_a_response_goes_on_before_the_reset() {
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    });
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    for _ in 0..20 {
        let mut wire = open(&proxy);
        wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET)));
        let mut kinds = Vec::new();
        while kinds.last() != Some(&RST_STREAM) {
            let frame = wire.try_frame().unwrap();
            kinds.extend((frame.stream == 1).then_some(frame.kind));
        }
        assert_eq!(kinds, [HEADERS, DATA, RST_STREAM]);
    }
    proxy.stat_becomes("http2.tx_reset", 20);
}

#[test]
fn resets_of_malformed_requests_are_counted() {
    let backend = Backend::saying("ok");
    let bootstrap = Bootstrap::http(backend.address())
        .filter_with("http2_protocol_options: {override_stream_error_on_invalid_http_message: true}");
    let proxy = Proxy::start(&bootstrap);
    let mut wire = open(&proxy);
    let wrong = [&GET[..], &[("connection", "close")]].concat();
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&wrong)));
    assert!(matches!(fate(&mut wire), Fate::Reset(_)));
    proxy.stat_becomes("http2.tx_reset", 1);
}

/// Sends a request whose response gets no window, and waits until the end of it is given up.
fn takes_no_body(proxy: &Proxy, path: &str) -> Fate {
    let mut wire = proxy.connect();
    let no_window = [&[0, 4], &0u32.to_be_bytes()[..]].concat();
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(frame(SETTINGS, 0, 0, &no_window));
    let lines = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    wire.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&lines)));
    assert_eq!(fate(&mut wire), Fate::Answered);
    fate(&mut wire)
}

#[test]
fn the_end_of_a_response_is_taken_in_time_or_reset() {
    let backend = Backend::raw(|wire, _| {
        let response = if wire.head().target().contains("/chunked") {
            "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        } else {
            "content-length: 2\r\n\r\nok"
        };
        wire.send(format!("HTTP/1.1 200 OK\r\n{response}"));
    });
    // By the connection manager's limit, by the route's, and by that on idling where there is no other. Limits of the
    // host and the stream do not matter any more.
    let route = "[{match: {prefix: /route}, route: {cluster: backend, flush_timeout: 0.2s}},
                  {match: {prefix: /}, route: {cluster: backend, timeout: 0.1s, idle_timeout: 0.15s}}]";
    for (limits, paths) in [
        ("stream_flush_timeout: 0.2s", ["/", "/chunked"]),
        ("stream_flush_timeout: 0s", ["/route", "/route/chunked"]),
        ("stream_idle_timeout: 0.2s", ["/", "/chunked"]),
    ] {
        let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(limits).routes(route));
        for path in paths {
            assert_eq!(takes_no_body(&proxy, path), Fate::Reset(INTERNAL_ERROR), "{limits} {path}");
        }
        proxy.stat_becomes("http2.tx_flush_timeout", 2);
        assert_eq!(proxy.stat("http2.tx_reset"), 2);
        assert_eq!(proxy.stat("http.ingress.downstream_rq_idle_timeout"), 0);
        assert_eq!(proxy.stat("http.ingress.downstream_rq_rx_reset"), 0);
        proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
    }
}
