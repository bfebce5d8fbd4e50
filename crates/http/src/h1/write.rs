//! HTTP/1.1 messages put into bytes.

use crate::headers::Headers;
use crate::message::Request;
use crate::name::HeaderId;

/// Writes a request head: request line, `host`, header lines, empty line.
pub fn write_request_head(request: &Request, out: &mut Vec<u8>) {
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(if request.path.is_empty() { request.authority() } else { request.path() });
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(request.authority());
    out.extend_from_slice(b"\r\n");
    request.headers.write_h1(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes a response head: status line, header lines, empty line.
pub fn write_response_head(status: u16, headers: &Headers, out: &mut Vec<u8>) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    headers.write_h1(out);
    out.extend_from_slice(b"\r\n");
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
        418 => "I'm a teapot",
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
