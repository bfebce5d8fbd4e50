//! Any text as a format string, and any request for it to tell of: an operator is either compiled or refused with a reason,
//! and what it writes is no longer than it may be.
//!
//! The format ends at the first zero byte; behind it stand the target, and after another one the value of two headers.
#![no_main]

use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use proxy_config::lower::format::{FormatFacts, parse};
use proxy_config::settings::{Format, LogNeeds, LogType, Piece};
use proxy_http::access_log::{FormatContext, write_text};
use proxy_http::stream::StreamDeadlines;
use proxy_http::{Headers, Method, Request, StreamInfo, Version};
use proxy_net::{Address, ConnectionId, ConnectionInfo};
use proxy_runtime::clock;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let Some(Ok(text)) = parts.next().map(std::str::from_utf8) else { return };
    let format = match parse(text, &FormatFacts::default()) {
        Ok(format) => format,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    if !text.contains('%') {
        // Without a percent sign there is nothing to compile: it is text.
        assert!(format.pieces.len() <= 1);
    }
    fill_in(&format, parts.next().unwrap_or(b"/a?b=c"), parts.next().unwrap_or(b"v"));
});

fn fill_in(format: &Format, target: &[u8], value: &[u8]) {
    let address = |text: &str| Address::Ip(text.parse().unwrap());
    let (local, remote) = (address("10.1.2.3:80"), address("[fe80::1]:4321"));
    let start = clock::now();
    let info = ConnectionInfo::accepted(ConnectionId(7), Rc::from("web"), local, remote, start, UNIX_EPOCH);
    let stream = StreamInfo::new(
        Rc::new(info),
        Version::Http11,
        start,
        Rc::new(StreamDeadlines::new()),
        LogNeeds::default(),
    );
    let request = Request::new(Method::Get, Version::Http11, value, target, lines(value));
    let (response, trailers) = (lines(value), lines(value));
    let context = FormatContext {
        connection: &stream.connection,
        record: &stream.record,
        stream: Some(&stream),
        request: Some(&request),
        response: Some(&response),
        response_status: 200,
        trailers: Some(&trailers),
        local_reply_body: value,
        filter_chain: "",
        log_type: LogType::DownstreamEnd,
        now: start + Duration::from_micros(1500),
        wall: UNIX_EPOCH + Duration::from_millis(1_795_500_478_057),
        random: 42,
    };
    for piece in &format.pieces {
        let mut out = Vec::new();
        write_text(&Format { pieces: [piece.clone()].into() }, true, &context, &mut out);
        match piece {
            Piece::Value { limit: Some(limit), .. } => assert!(out.len() <= *limit),
            Piece::Value { .. } => {}
            Piece::Text(text) => assert_eq!(out, text.as_bytes()),
        }
    }
}

fn lines(value: &[u8]) -> Headers {
    let mut lines = Headers::new();
    lines.append("x-a", value);
    lines.append("grpc-status", value);
    lines
}
