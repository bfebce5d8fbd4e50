//! METADATA frames of HTTP/2 (`allow_metadata`): from the client's stream to the host's and back, where both take them.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use proxy_tests::frames::{
    ACK, DATA, END_HEADERS, END_METADATA, END_STREAM, Frame, GET, GOAWAY, HEADERS, METADATA, RST_STREAM,
    SETTINGS, block, frame, open,
};
use proxy_tests::{Backend, Bootstrap, Proxy, Wire, http_protocol_options};

/// A block of METADATA in one frame.
fn metadata(stream: u32, lines: &[(&str, &str)]) -> Vec<u8> {
    frame(METADATA, END_METADATA, stream, &block(lines))
}

fn request(flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, 1, &block(&GET))
}

/// The frames of stream 1 to its end or the connection's; windows and pings are not told.
fn stream(wire: &mut Wire) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = wire.try_frame() {
        if frame.kind == GOAWAY {
            break;
        }
        if frame.stream != 1 || !matches!(frame.kind, HEADERS | DATA | METADATA | RST_STREAM) {
            continue;
        }
        let ends = frame.kind == RST_STREAM || (frame.kind != METADATA && frame.flags & END_STREAM != 0);
        frames.push(frame);
        if ends {
            break;
        }
    }
    frames
}

/// What they are: `H`, `M` with the block's lines in order, `D` with the bytes, `R`; `.` is the stream's end.
fn told(frames: &[Frame]) -> Vec<String> {
    let mut told = Vec::new();
    let (mut data, mut partial) = (Vec::new(), Vec::new());
    for frame in frames {
        let end = if frame.kind != METADATA && frame.flags & END_STREAM != 0 { "." } else { "" };
        data.extend_from_slice(if frame.kind == DATA { &frame.payload } else { &[] });
        if !data.is_empty() && (frame.kind != DATA || !end.is_empty()) {
            told.push(format!("D {}", String::from_utf8(std::mem::take(&mut data)).unwrap()));
        }
        match frame.kind {
            HEADERS => told.push("H".to_owned()),
            RST_STREAM => told.push(format!("R {}", frame.payload[3])),
            METADATA => {
                partial.extend_from_slice(&frame.payload);
                if frame.flags & END_METADATA != 0 {
                    told.push(format!("M {}", lines(&std::mem::take(&mut partial)).join(" ")));
                }
            }
            _ => {}
        }
        if !end.is_empty() {
            told.push(end.to_owned());
        }
    }
    assert!(partial.is_empty() && data.is_empty(), "cut within a block or a body");
    told
}

/// The lines of a block whose names and values are single letters, which Envoy does not compress either; in the order of
/// their names, since Envoy keeps them in a hash map.
fn lines(block: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = block
        .chunks(5)
        .map(|line| match line {
            [0, 1, name, 1, value] => format!("{}={}", char::from(*name), char::from(*value)),
            _ => format!("{line:?}"),
        })
        .collect();
    lines.sort();
    lines
}

/// A host that reads a request and answers it with these frames.
struct Host {
    backend: Backend,
    heard: Receiver<Vec<Frame>>,
}

impl Host {
    fn answering(frames: Vec<u8>) -> Host {
        let (tell, heard) = channel();
        let tell = Mutex::new(tell);
        let backend = Backend::raw(move |wire, _| {
            wire.bytes(24);
            wire.send(frame(SETTINGS, 0, 0, &[])).send(frame(SETTINGS, ACK, 0, &[]));
            let request = stream(wire);
            let whole = !request.is_empty();
            let _ = tell.lock().unwrap().send(request);
            if whole {
                wire.send_if_open(&frames);
                wire.rest();
            }
        });
        Host { backend, heard }
    }

    fn ok() -> Host {
        Host::answering([response(0), frame(DATA, END_STREAM, 1, b"ok")].concat())
    }

    /// A proxy before it, with these HTTP/2 options for clients and for the host.
    fn proxy(&self, clients: &str, host: &str) -> Proxy {
        let cluster = format!("explicit_http_config: {{http2_protocol_options: {host}}}");
        Proxy::start(
            &Bootstrap::http(self.backend.address())
                .filter_with(&format!("http2_protocol_options: {clients}"))
                .cluster_with("backend", &http_protocol_options(&cluster)),
        )
    }

    fn heard(&self) -> Vec<String> {
        told(&self.heard.recv().unwrap())
    }
}

fn response(flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, 1, &block(&[(":status", "200")]))
}

const ALLOWED: &str = "{allow_metadata: true}";

/// The client of stream 1: what it sends, all in one, and what it gets.
fn ask(proxy: &Proxy, frames: &[Vec<u8>]) -> Vec<String> {
    let mut wire = open(proxy);
    wire.send_if_open(frames.concat());
    told(&stream(&mut wire))
}

fn end() -> Vec<u8> {
    frame(DATA, END_STREAM, 1, b"")
}

/// Without the place among the pieces of a body: neither side promises that.
fn without_order(mut told: Vec<String>) -> Vec<String> {
    told.sort();
    told
}

#[test]
fn blocks_pass_both_ways_where_both_sides_take_them() {
    let answer = [
        metadata(1, &[("e", "1")]),
        response(0),
        metadata(1, &[("h", "2")]),
        frame(DATA, 0, 1, b"ok"),
        metadata(1, &[("b", "3"), ("c", "4")]),
        end(),
    ];
    let host = Host::answering(answer.concat());
    let proxy = host.proxy(ALLOWED, ALLOWED);
    let body = frame(DATA, 0, 1, b"body");
    let told =
        ask(&proxy, &[request(0), metadata(1, &[("a", "1")]), body, metadata(1, &[("b", "2")]), end()]);
    assert_eq!(told[..2], ["M e=1", "H"]);
    assert_eq!(without_order(told), [".", "D ok", "H", "M b=3 c=4", "M e=1", "M h=2"]);
    let heard = host.heard();
    assert_eq!(heard[0], "H");
    assert_eq!(without_order(heard), [".", "D body", "H", "M a=1", "M b=2"]);
}

#[test]
fn a_block_that_comes_alone_goes_on_at_once() {
    let (go, gone) = channel();
    let (tell, told) = channel();
    let (gone, tell) = (Mutex::new(gone), Mutex::new(tell));
    let backend = Backend::raw(move |wire, _| {
        wire.bytes(24);
        wire.send(frame(SETTINGS, 0, 0, &[])).send(frame(SETTINGS, ACK, 0, &[]));
        while wire.try_frame().is_some_and(|frame| frame.kind != METADATA) {}
        wire.send(response(0));
        gone.lock().unwrap().recv().unwrap();
        wire.send(metadata(1, &[("b", "2")]));
        gone.lock().unwrap().recv().unwrap();
        wire.send(end());
        tell.lock().unwrap().send(()).unwrap();
        wire.rest();
    });
    let host = Host { backend, heard: channel().1 };
    let proxy = host.proxy(ALLOWED, ALLOWED);
    let mut wire = open(&proxy);
    // The host answers when it has read the block, though no body comes; its own comes while nothing else does.
    wire.send([request(0), metadata(1, &[("a", "1")])].concat());
    let mut until = |kind| while wire.try_frame().unwrap().kind != kind {};
    until(HEADERS);
    go.send(()).unwrap();
    until(METADATA);
    go.send(()).unwrap();
    told.recv().unwrap();
    until(DATA);
}

#[test]
fn a_message_that_ends_without_a_body_ends_behind_its_blocks() {
    let host = Host::answering([response(0), metadata(1, &[("b", "2")]), end()].concat());
    let proxy = host.proxy(ALLOWED, ALLOWED);
    let told = ask(&proxy, &[request(0), metadata(1, &[("a", "1")]), end()]);
    assert_eq!(without_order(told), [".", "H", "M b=2"]);
    assert_eq!(host.heard(), ["H", "M a=1", "."]);
}

#[test]
fn blocks_are_dropped_where_only_one_side_takes_them() {
    for (clients, hosts) in [(ALLOWED, "{}"), ("{}", ALLOWED), ("{}", "{}")] {
        let host = Host::answering(
            [
                metadata(1, &[("e", "1")]),
                response(0),
                metadata(1, &[("b", "2")]),
                frame(DATA, END_STREAM, 1, b"ok"),
            ]
            .concat(),
        );
        let proxy = host.proxy(clients, hosts);
        let told =
            ask(&proxy, &[request(0), metadata(1, &[("a", "1")]), frame(DATA, END_STREAM, 1, b"body")]);
        assert_eq!(told, ["H", "D ok", "."], "{clients} {hosts}");
        assert_eq!(host.heard(), ["H", "D body", "."], "{clients} {hosts}");
    }
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address()).filter_with(&format!("http2_protocol_options: {ALLOWED}")),
    );
    let told = ask(&proxy, &[request(0), metadata(1, &[("a", "1")]), frame(DATA, END_STREAM, 1, b"body")]);
    assert_eq!(told, ["H", "D ok", "."]);
    assert_eq!(backend.request().body, b"body");
}

#[test]
fn blocks_out_of_place_are_dropped() {
    let host = Host::ok();
    let proxy = host.proxy(ALLOWED, ALLOWED);
    let lost = |stream| metadata(stream, &[("x", "1")]);
    let frames = [lost(0), lost(1), lost(3), request(0), metadata(1, &[("a", "1")]), end(), lost(1), lost(5)];
    assert_eq!(ask(&proxy, &frames), ["H", "D ok", "."]);
    assert_eq!(host.heard(), ["H", "M a=1", "."]);

    let host = Host::ok();
    let proxy = host.proxy(ALLOWED, ALLOWED);
    assert_eq!(ask(&proxy, &[request(END_STREAM), lost(1)]), ["H", "D ok", "."]);
    assert_eq!(host.heard(), ["H", "."]);
}

#[test]
fn blocks_are_written_anew() {
    // Of a name that comes again the first is kept; a line may be remembered within its block, and is written out.
    let twice = [block(&[("x", "1"), ("x", "2")]), vec![0x40, 1, b'd', 1, b'1', 0xbe]].concat();
    let host = Host::ok();
    let proxy = host.proxy(ALLOWED, ALLOWED);
    let frames = [
        request(0),
        frame(METADATA, END_METADATA, 1, &twice),
        frame(METADATA, 0, 1, &twice[..3]),
        frame(METADATA, END_METADATA, 1, &twice[3..]),
        frame(METADATA, END_METADATA, 1, b""),
        end(),
    ];
    assert_eq!(ask(&proxy, &frames), ["H", "D ok", "."]);
    assert_eq!(host.heard(), ["H", "M d=1 x=1", "M d=1 x=1", "."]);
    assert_eq!(proxy.stat("http2.metadata_empty_frames"), 1);
}

#[test]
fn a_large_block_takes_several_frames() {
    let host = Host::ok();
    let proxy = host.proxy(ALLOWED, ALLOWED);
    let large = block(&[("x", &"&".repeat(40_000))]);
    let mut frames = vec![request(0)];
    frames.extend(large.chunks(10_000).map(|piece| frame(METADATA, 0, 1, piece)));
    frames.extend([frame(METADATA, END_METADATA, 1, b""), end()]);
    assert_eq!(ask(&proxy, &frames), ["H", "D ok", "."]);
    let heard = host.heard.recv().unwrap();
    let pieces: Vec<_> = heard.iter().filter(|frame| frame.kind == METADATA).collect();
    let flags: Vec<_> = pieces.iter().map(|frame| (frame.flags, frame.payload.len() <= 16_384)).collect();
    assert_eq!(flags, [(0, true), (0, true), (END_METADATA, true)]);
    assert!(pieces.iter().flat_map(|frame| &frame.payload).eq(&large));
}

#[test]
fn too_much_from_a_client_ends_its_connection() {
    let host = Host::ok();
    let proxy = host.proxy("{allow_metadata: true, max_metadata_size: 1000}", ALLOWED);
    let half = || metadata(1, &[("a", &"&".repeat(600))]);
    // It is the stream's blocks together that count.
    for (number, wrong) in
        [vec![half(), half()], vec![frame(METADATA, END_METADATA, 1, &[0, 5])]].iter().enumerate()
    {
        let mut wire = open(&proxy);
        wire.send(request(0)).send_if_open(wrong.concat()).send_if_open(end());
        assert_eq!(told(&stream(&mut wire)), [""; 0]);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_protocol_error"), number as u64 + 1);
    }
    assert_eq!(proxy.stat("cluster.backend.upstream_cx_protocol_error"), 0);
}

#[test]
fn too_much_from_a_host_ends_its_connection() {
    for wrong in [metadata(1, &[("a", &"&".repeat(2000))]), frame(METADATA, END_METADATA, 1, &[0, 5])] {
        let host = Host::answering([response(0), wrong, frame(DATA, END_STREAM, 1, b"ok")].concat());
        let proxy = host.proxy(ALLOWED, "{allow_metadata: true, max_metadata_size: 1000}");
        let told = ask(&proxy, &[request(END_STREAM)]);
        // What it broke off: a response that had begun is reset, another one has not begun.
        assert!(told == ["H", "R 2"] || told[1].contains("reset reason: protocol error"), "{told:?}");
        assert_eq!(proxy.stat("cluster.backend.upstream_cx_protocol_error"), 1);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_protocol_error"), 0);
    }
}
