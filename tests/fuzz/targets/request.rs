//! A client's byte stream: cut in any way, it is the same requests; and what is sent on is one request each.
#![no_main]

mod connection;

use connection::LIMITS;
use libfuzzer_sys::fuzz_target;
use proxy_http::h1::head::{Framing, HeadError, RequestHead, RequestRules, parse_request};
use proxy_http::h1::write::{HeadStyle, write_request_head};

fuzz_target!(|data: &[u8]| {
    let Some((cuts, bytes)) = data.split_at_checked(4) else { return };
    connection::whole_and_in_pieces_agree(cuts, bytes, &parse);
});

fn parse(data: &[u8]) -> Result<Option<(String, Framing, usize)>, HeadError> {
    let Some((head, length)) = parse_request(data, &RequestRules::plain(LIMITS))? else { return Ok(None) };
    let written = written(&head);
    if head.no_host {
        // It is refused, and goes no further.
        return Ok(Some((written.escape_ascii().to_string(), head.framing, length)));
    }
    let again = parse_request(&written, &RequestRules::plain(LIMITS_AGAIN));
    let Ok(Some((again, all))) = again else { panic!("not readable any more: {}", written.escape_ascii()) };
    assert_eq!(all, written.len(), "more than one request: {}", written.escape_ascii());
    assert_eq!(head.framing, again.framing, "{}", written.escape_ascii());
    assert_eq!(head.request.method, again.request.method);
    let shown = format!("{:?} {} {}", head.framing, head.close, written.escape_ascii());
    Ok(Some((shown, head.framing, length)))
}

fn written(head: &RequestHead) -> Vec<u8> {
    let mut out = Vec::new();
    write_request_head(&head.request, HeadStyle::default(), &mut out);
    out
}

/// `host` may have been missing, or stand in the target.
const LIMITS_AGAIN: proxy_http::h1::head::HeadLimits =
    proxy_http::h1::head::HeadLimits { bytes: LIMITS.bytes * 2, lines: LIMITS.lines + 1 };
