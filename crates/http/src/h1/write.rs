//! HTTP/1.1 messages put into bytes.

use proxy_config::settings::HeaderCase;

use crate::headers::Headers;
use crate::message::Request;
use crate::name::HeaderId;

/// How a head is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadStyle {
    /// For a client that speaks HTTP/1.0.
    pub http10: bool,
    pub case: HeaderCase,
}

/// Writes a request head: request line, `host`, header lines, empty line.
pub fn write_request_head(request: &Request, style: HeadStyle, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(if request.path.is_empty() { request.authority() } else { request.path() });
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(request.authority());
    out.extend_from_slice(b"\r\n");
    request.headers.write_h1(out);
    out.extend_from_slice(b"\r\n");
    set_case(&request.headers, style.case, &mut out[start..]);
}

/// Writes a response head: status line, header lines, empty line.
pub fn write_response_head(status: u16, headers: &Headers, style: HeadStyle, out: &mut Vec<u8>) {
    let start = out.len();
    let phrase = headers.as_read().filter(|read| read.reason).and_then(|read| phrase_of(&read.head, status));
    if status == 200 && !style.http10 && phrase.is_none() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.extend_from_slice(if style.http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(phrase.unwrap_or(reason(status).as_bytes()));
        out.extend_from_slice(b"\r\n");
    }
    headers.write_h1(out);
    out.extend_from_slice(b"\r\n");
    set_case(headers, style.case, &mut out[start..]);
}

/// The reason phrase in a head that was read, if it has this status.
fn phrase_of(head: &[u8], status: u16) -> Option<&[u8]> {
    let line = &head[..memchr::memchr(b'\r', head)?];
    let mut parts = line.splitn(3, |&byte| byte == b' ').skip(1);
    let same = parts.next()? == itoa::Buffer::new().format(status).as_bytes();
    parts.next().filter(|_| same)
}

/// Writes the names in `head`, which are in lower case, as they were when the message was read, or as `case` says.
fn set_case(headers: &Headers, case: HeaderCase, head: &mut [u8]) {
    let read = headers.as_read();
    if read.is_none() && case != HeaderCase::Proper {
        return;
    }
    let mut rest = head;
    // The first line is not a header.
    while let Some(end) = memchr::memchr(b'\n', rest) {
        rest = &mut rest[end + 1..];
        let Some(colon) = memchr::memchr(b':', rest) else { return };
        let name = &mut rest[..colon];
        match read {
            None => make_proper(name),
            Some(read) => match name_in(&read.head, name) {
                Some(original) => name.copy_from_slice(original),
                None if read.proper => make_proper(name),
                None => {}
            },
        }
    }
}

/// `content-type` becomes `Content-Type`.
fn make_proper(name: &mut [u8]) {
    let mut starts = true;
    for byte in name {
        if starts {
            byte.make_ascii_uppercase();
        }
        starts = !byte.is_ascii_alphanumeric();
    }
}

/// The first name in `head` that differs from `name` in its case at most.
fn name_in<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let mut lines = head.split(|&byte| byte == b'\n').skip(1);
    lines.find_map(|line| {
        let found = line.get(..name.len())?;
        (line.get(name.len()) == Some(&b':') && found.eq_ignore_ascii_case(name)).then_some(found)
    })
}

/// Writes the size line that precedes `length` bytes of chunk data; never for 0.
pub fn write_chunk_size(length: usize, out: &mut Vec<u8>) {
    debug_assert!(length > 0, "a chunk of no bytes would end the body");
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
    out.extend((0..digits).rev().map(|i| b"0123456789abcdef"[length >> (4 * i) & 0xf]));
    out.extend_from_slice(b"\r\n");
}

/// Writes what ends a chunked body: the last chunk, trailers, the empty line.
pub fn write_last_chunk(trailers: Option<&Headers>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write_h1(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Sets `content-length`.
pub fn set_content_length(headers: &mut Headers, length: u64) {
    headers.set(HeaderId::CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes());
}

/// The reason phrase of a status as Envoy writes it; "Unknown" where there is none.
pub fn reason(status: u16) -> &'static str {
    match status {
        203 => "Non-Authoritative Information",
        102 | 103 | 418 | 451 => "Unknown",
        599 => "Last Unassigned Server Error Code",
        _ => http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_hexadecimal() {
        for (n, text) in [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (0x1f_ffff, "1fffff\r\n")] {
            let mut out = Vec::new();
            write_chunk_size(n, &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
