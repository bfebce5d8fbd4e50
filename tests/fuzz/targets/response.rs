//! A host's byte stream: cut in any way, it is the same responses.
#![no_main]

mod connection;

use connection::LIMITS;
use libfuzzer_sys::fuzz_target;
use proxy_config::settings::Http1Options;
use proxy_http::h1::head::parse_response;
use proxy_http::h1::write::{HeadStyle, write_response_head};

fuzz_target!(|data: &[u8]| {
    let Some((&[to_head, ref cuts @ ..], bytes)) = data.split_first_chunk::<5>() else { return };
    connection::whole_and_in_pieces_agree(cuts, bytes, &|data| {
        let Some((head, length)) = parse_response(data, LIMITS, &Http1Options::PLAIN, to_head == 1)? else {
            return Ok(None);
        };
        let mut written = Vec::new();
        write_response_head(head.status, &head.headers, HeadStyle::default(), &mut written);
        let again = parse_response(&written, LIMITS_AGAIN, &Http1Options::PLAIN, to_head == 1);
        let Ok(Some((again, all))) = again else {
            panic!("not readable any more: {}", written.escape_ascii())
        };
        assert_eq!(all, written.len(), "more than one response: {}", written.escape_ascii());
        assert_eq!(head.framing, again.framing, "{}", written.escape_ascii());
        let shown = format!("{:?} {} {}", head.framing, head.close, written.escape_ascii());
        Ok(Some((shown, head.framing, length)))
    });
});

/// A reason phrase may have been short.
const LIMITS_AGAIN: proxy_http::h1::head::HeadLimits =
    proxy_http::h1::head::HeadLimits { bytes: LIMITS.bytes * 2, lines: LIMITS.lines };
