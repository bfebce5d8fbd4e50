//! Heads of HTTP/1.1 messages: parsing, and what they say about the body that follows.
//!
//! Stricter than the RFC's leniencies where two parsers could disagree: a line ends in CRLF, nothing stands
//! before the colon, a header is not folded, lengths are plain digits said once.

use std::mem::MaybeUninit;

use httparse::Header;
use proxy_config::settings::{Http1Options, UnderscoreAction};

use super::target::take_target;
use crate::body::Body;
use crate::headers::{Headers, Span};
use crate::message::{Method, Request, Scheme, Version};
use crate::name::HeaderId;

/// Bytes of the header lines of `head`, counted as Envoy counts those it has received: a line's end as one byte.
pub fn header_bytes(head: &[u8]) -> u64 {
    let mut ends = memchr::memchr_iter(b'\n', head);
    let start_line = ends.next().map_or(0, |end| end + 1);
    // The empty line is no header.
    let lines = ends.count().saturating_sub(1);
    head.len().saturating_sub(start_line + 2 + lines) as u64
}

/// How the body after a head is delimited (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    /// Responses only.
    UntilClose,
}

/// Limits on a head.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes of the whole head.
    pub bytes: usize,
    /// Header lines.
    pub lines: usize,
}

/// What request heads may be, beyond what every server takes.
#[derive(Clone, Copy, Debug)]
pub struct RequestRules<'a> {
    pub limits: HeadLimits,
    pub options: &'a Http1Options,
    pub underscores: UnderscoreAction,
}

impl RequestRules<'_> {
    /// Those of a configuration that says nothing about them.
    pub const fn plain(limits: HeadLimits) -> RequestRules<'static> {
        RequestRules { limits, options: &Http1Options::PLAIN, underscores: UnderscoreAction::Allow }
    }
}

/// Why a head is refused; each names its status and response code details in one place, the HTTP error map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error("unsupported transfer coding")]
    TransferCoding,
    #[error("head too large")]
    TooLarge,
    #[error("too many header lines")]
    TooManyLines,
    #[error("HTTP/1.0")]
    Version,
    #[error("no host")]
    NoHost,
    /// `headers_with_underscores_action` is `REJECT_REQUEST`.
    #[error("an underscore in the name of a header")]
    Underscore,
    #[error("another scheme than the connection's")]
    Scheme,
}

/// A parsed request head. The body is not attached yet.
pub struct RequestHead {
    pub request: Request,
    pub framing: Framing,
    /// The client asked to close after the answer.
    pub close: bool,
    /// How many lines were dropped for an underscore in their name.
    pub dropped: usize,
    /// It names no host, and is to be answered so.
    pub no_host: bool,
}

/// A parsed response head.
pub struct ResponseHead {
    pub status: u16,
    pub headers: Headers,
    pub framing: Framing,
    /// The server closes after this response.
    pub close: bool,
}

/// Whether a head may have ended in what came after `seen` bytes: saves parsing at every small packet.
pub fn may_be_complete(data: &[u8], seen: usize) -> bool {
    let from = seen.saturating_sub(3);
    memchr::memchr_iter(b'\n', &data[from..]).any(|at| {
        let rest = &data[from + at + 1..];
        rest.first() == Some(&b'\n') || rest.starts_with(b"\r\n")
    })
}

/// Parses a request head at the start of `data`. `None`: not all of it is there yet.
pub fn parse_request(
    data: &[u8],
    rules: &RequestRules<'_>,
) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let (limits, options) = (rules.limits, rules.options);
    let mut few = [const { MaybeUninit::<Header<'_>>::uninit() }; LINES_ON_STACK];
    let mut many = Vec::new();
    let lines = lines_for(&mut few, &mut many, limits.lines);
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(data, lines);
    let Some(length) = complete(status, data.len(), limits)? else { return Ok(None) };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::Malformed("request line"));
    };
    let (version, end) = match version {
        0 if !options.accept_http_10 => return Err(HeadError::Version),
        0 => (Version::Http10, b" HTTP/1.0\r\n"),
        _ => (Version::Http11, b" HTTP/1.1\r\n"),
    };
    // The request line starts the head unless empty lines came before it (RFC 9112, section 2.2).
    let line_end = offset(data, target.as_bytes()) + target.len();
    if !data[line_end..].starts_with(end) {
        return Err(HeadError::Malformed("request line"));
    }
    let method = Method::from_token(method);
    if matches!(method, Method::Other(ref token) if !OTHER_METHODS.contains(&&**token)) {
        return Err(HeadError::Malformed("method"));
    }
    let headers = collect(data, length, parsed.headers)?;
    let path = Span::new(offset(data, target.as_bytes()), line_end);
    let mut request = Request {
        method,
        version,
        scheme: Scheme::Http,
        names_scheme: false,
        headers,
        body: Body::Empty,
        path,
        authority: Span::default(),
    };
    request.headers.keep_as_read(&data[..length], options.header_case);
    let dropped = apply_underscores(&mut request.headers, rules.underscores)?;
    if options.allow_chunked_length && request.headers.contains(HeaderId::TRANSFER_ENCODING) {
        // Should the transfer coding not be `chunked`, the request is refused for that.
        request.headers.remove(HeaderId::CONTENT_LENGTH);
    }
    let framing = match request.method {
        Method::Connect => connect_framing(&mut request.headers)?,
        _ => request_framing(&request.headers)?,
    };
    if version == Version::Http10 && framing == Framing::Chunked {
        // RFC 9112, section 6.1: whoever sent it may have meant something else.
        return Err(HeadError::Malformed("transfer-encoding in HTTP/1.0"));
    }
    let connection = connection_options(&request.headers);
    let close = connection.close || (version == Version::Http10 && !connection.keep_alive);
    let no_host = match take_target(&mut request, options) {
        Err(HeadError::NoHost) => true,
        taken => {
            taken?;
            false
        }
    };
    let head = RequestHead { framing, close, request, dropped, no_host };
    Ok(Some((head, length)))
}

/// Deals with names that have an underscore; gives how many lines were dropped.
///
/// # Errors
/// [`HeadError::Underscore`] where such a name refuses the request.
pub fn apply_underscores(headers: &mut Headers, action: UnderscoreAction) -> Result<usize, HeadError> {
    if action == UnderscoreAction::Allow {
        return Ok(0);
    }
    let mut found = 0;
    headers.remove_if(|name, _| {
        let remove = name.contains(&b'_');
        found += usize::from(remove);
        remove
    });
    match action {
        UnderscoreAction::RejectRequest if found > 0 => Err(HeadError::Underscore),
        _ => Ok(found),
    }
}

/// Parses a response head at the start of `data`. `to_head`: it answers a HEAD request.
pub fn parse_response(
    data: &[u8],
    limits: HeadLimits,
    options: &Http1Options,
    to_head: bool,
) -> Result<Option<(ResponseHead, usize)>, HeadError> {
    if matches!(data.first(), Some(b'\r' | b'\n')) {
        // Only requests may have empty lines ahead of them (RFC 9112, section 2.2).
        return Err(HeadError::Malformed("status line"));
    }
    let mut few = [const { MaybeUninit::<Header<'_>>::uninit() }; LINES_ON_STACK];
    let mut many = Vec::new();
    let lines = lines_for(&mut few, &mut many, limits.lines);
    let mut parsed = httparse::Response::new(&mut []);
    let status =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, data, lines);
    let Some(length) = complete(status, data.len(), limits)? else { return Ok(None) };
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(HeadError::Malformed("status line"));
    };
    if !(100..=599).contains(&status) {
        return Err(HeadError::Malformed("status"));
    }
    let mut headers = collect(data, length, parsed.headers)?;
    headers.keep_as_read(&data[..length], options.header_case);
    if options.allow_chunked_length && headers.contains(HeaderId::TRANSFER_ENCODING) {
        headers.remove(HeaderId::CONTENT_LENGTH);
    }
    let connection = connection_options(&headers);
    let close = connection.close || (version == 0 && !connection.keep_alive);
    let framing = response_framing(&headers, status, to_head)?;
    let close = close || framing == Framing::UntilClose;
    Ok(Some((ResponseHead { status, headers, framing, close }, length)))
}

/// Parses a trailer section: header lines and the empty line that ends them.
pub fn parse_trailers(data: &[u8], limits: HeadLimits) -> Result<Option<(Headers, usize)>, HeadError> {
    let mut lines = [httparse::EMPTY_HEADER; LINES_ON_STACK];
    let max = limits.lines.min(LINES_ON_STACK);
    match httparse::parse_headers(data, &mut lines[..max]) {
        Ok(httparse::Status::Complete((length, lines))) => {
            if length > limits.bytes {
                return Err(HeadError::TooLarge);
            }
            Ok(Some((collect(data, length, lines)?, length)))
        }
        Ok(httparse::Status::Partial) if data.len() > limits.bytes => Err(HeadError::TooLarge),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(refusal(error)),
    }
}

const LINES_ON_STACK: usize = 100;

/// Besides the methods of RFC 9110 and PATCH, those that Envoy's HTTP/1 codec knows.
const OTHER_METHODS: &[&str] = &[
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "NOTIFY",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

type Line<'b> = MaybeUninit<Header<'b>>;

fn lines_for<'a, 'b>(
    few: &'a mut [Line<'b>],
    many: &'a mut Vec<Line<'b>>,
    lines: usize,
) -> &'a mut [Line<'b>] {
    if lines <= few.len() {
        return &mut few[..lines];
    }
    many.resize_with(lines, MaybeUninit::uninit);
    many
}

fn complete(
    status: httparse::Result<usize>,
    have: usize,
    limits: HeadLimits,
) -> Result<Option<usize>, HeadError> {
    match status {
        Ok(httparse::Status::Complete(length)) if length > limits.bytes => Err(HeadError::TooLarge),
        Ok(httparse::Status::Complete(length)) => Ok(Some(length)),
        Ok(httparse::Status::Partial) if have > limits.bytes => Err(HeadError::TooLarge),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(refusal(error)),
    }
}

fn refusal(error: httparse::Error) -> HeadError {
    HeadError::Malformed(match error {
        httparse::Error::HeaderName => "header name",
        httparse::Error::HeaderValue => "header value",
        httparse::Error::NewLine => "line end",
        httparse::Error::Status => "status",
        httparse::Error::Token => "token",
        httparse::Error::TooManyHeaders => return HeadError::TooManyLines,
        httparse::Error::Version => "version",
    })
}

fn offset(data: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - data.as_ptr() as usize
}

/// Copies the head into an arena of its own and registers its lines, each in the form `name: value\r\n`.
fn collect(data: &[u8], length: usize, lines: &[Header<'_>]) -> Result<Headers, HeadError> {
    let mut headers = Headers::new();
    headers.arena_mut().extend_from_slice(&data[..length]);
    for line in lines {
        if line.name.len() > usize::from(u16::MAX) {
            return Err(HeadError::TooLarge);
        }
        let start = offset(data, line.name.as_bytes());
        let name_end = start + line.name.len();
        let end =
            if line.value.is_empty() { name_end + 2 } else { offset(data, line.value) + line.value.len() };
        let as_written = data[name_end..].starts_with(b": ")
            && data[end..].starts_with(b"\r\n")
            && (line.value.is_empty() || offset(data, line.value) == name_end + 2);
        if as_written {
            let name = &mut headers.arena_mut()[start..name_end];
            name.make_ascii_lowercase();
            let id = HeaderId::of(name);
            headers.push_entry(start, line.name.len(), end, id);
        } else {
            let rest = if line.value.is_empty() { name_end + 1 } else { end };
            let blanks = data[rest..].iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
            if !data[rest + blanks..].starts_with(b"\r\n") {
                return Err(HeadError::Malformed("line end"));
            }
            let name = line.name.to_ascii_lowercase();
            headers.append(&*name, line.value);
        }
    }
    if !data[..length].ends_with(b"\r\n") {
        return Err(HeadError::Malformed("line end"));
    }
    Ok(headers)
}

/// `Content-Length`: one line of plain digits (RFC 9112, section 6.2; lists are refused too).
fn content_length(headers: &Headers) -> Result<Option<u64>, HeadError> {
    let mut values = headers.values(HeaderId::CONTENT_LENGTH);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeadError::Malformed("content-length twice"));
    }
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Malformed("content-length"));
    }
    Ok(Some(value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0'))))
}

/// `None`: no transfer coding; otherwise it is `chunked` and nothing else.
fn chunked(headers: &Headers) -> Result<bool, HeadError> {
    let mut values = headers.values(HeaderId::TRANSFER_ENCODING);
    let Some(value) = values.next() else { return Ok(false) };
    if values.next().is_some() || !value.eq_ignore_ascii_case(b"chunked") {
        return Err(HeadError::TransferCoding);
    }
    if headers.contains(HeaderId::CONTENT_LENGTH) {
        return Err(HeadError::Malformed("content-length with transfer-encoding"));
    }
    Ok(true)
}

fn request_framing(headers: &Headers) -> Result<Framing, HeadError> {
    if chunked(headers)? {
        return Ok(Framing::Chunked);
    }
    Ok(match content_length(headers)? {
        None | Some(0) => Framing::None,
        Some(n) => Framing::Length(n),
    })
}

/// CONNECT has no body (RFC 9110, section 9.3.6): what follows its head is the tunnel.
fn connect_framing(headers: &mut Headers) -> Result<Framing, HeadError> {
    if headers.contains(HeaderId::TRANSFER_ENCODING) {
        return Err(HeadError::TransferCoding);
    }
    match content_length(headers)? {
        None => {}
        Some(0) => _ = headers.remove(HeaderId::CONTENT_LENGTH),
        Some(_) => return Err(HeadError::Malformed("CONNECT with a body")),
    }
    Ok(Framing::None)
}

fn response_framing(headers: &Headers, status: u16, to_head: bool) -> Result<Framing, HeadError> {
    // They never have a body, whoever asked: one that is announced is a message to somebody else.
    let bodiless = status < 200 || status == 204;
    let no_body = to_head || bodiless || status == 304;
    if chunked(headers)? {
        return match no_body {
            true if bodiless => Err(HeadError::Malformed("a status without body that has one")),
            true => Ok(Framing::None),
            false => Ok(Framing::Chunked),
        };
    }
    Ok(match content_length(headers)? {
        Some(1..) if bodiless => return Err(HeadError::Malformed("a status without body that has one")),
        _ if no_body => Framing::None,
        Some(0) => Framing::None,
        Some(n) => Framing::Length(n),
        None => Framing::UntilClose,
    })
}

#[derive(Default)]
struct ConnectionOptions {
    close: bool,
    keep_alive: bool,
}

fn connection_options(headers: &Headers) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    let legacy = headers.values(HeaderId::PROXY_CONNECTION);
    for value in headers.values(HeaderId::CONNECTION).chain(legacy) {
        match value {
            // Nearly all are one of these.
            b"keep-alive" => options.keep_alive = true,
            b"close" => options.close = true,
            _ => {
                for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                    options.close |= token.eq_ignore_ascii_case(b"close");
                    options.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 60 << 10, lines: 100 };
    const RULES: RequestRules<'_> = RequestRules::plain(LIMITS);
    const OPTIONS: Http1Options = Http1Options::PLAIN;

    fn request(text: &str) -> Result<RequestHead, HeadError> {
        parse_request(text.as_bytes(), &RULES).map(|head| head.expect("a whole head").0)
    }

    fn refused(text: &str) -> HeadError {
        request(text).err().expect("refused")
    }

    #[test]
    fn a_plain_request() {
        let text = "GET /a?b HTTP/1.1\r\nHost: x:1\r\nX-One:1\r\nX-Two: 2 \r\nEmpty:\r\n\r\nrest";
        let (head, length) = parse_request(text.as_bytes(), &RULES).unwrap().unwrap();
        assert_eq!(length, text.len() - 4);
        let r = &head.request;
        assert_eq!((r.path(), r.authority(), &r.method), (&b"/a?b"[..], &b"x:1"[..], &Method::Get));
        let lines: Vec<_> = r.headers.iter().collect();
        assert_eq!(lines, [(&b"x-one"[..], &b"1"[..]), (b"x-two", b"2"), (b"empty", b"")]);
        assert_eq!(head.framing, Framing::None);
        let mut out = Vec::new();
        r.headers.write_h1(&mut out);
        assert_eq!(out, b"x-one: 1\r\nx-two: 2\r\nempty: \r\n");
    }

    #[test]
    fn every_split_of_a_head_is_partial() {
        let text = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n";
        for cut in 0..text.len() {
            assert!(parse_request(&text[..cut], &RULES).unwrap().is_none(), "{cut}");
        }
        assert!(may_be_complete(text, 0) && may_be_complete(text, text.len() - 1));
        assert!(!may_be_complete(&text[..text.len() - 2], 0));
    }

    #[test]
    fn framing_is_unambiguous_or_refused() {
        let with = |lines: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        for bad in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1 2\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(matches!(refused(&with(bad)), HeadError::Malformed(_)), "{bad}");
        }
        for bad in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "chunked;q=1", ""] {
            assert_eq!(
                refused(&with(&format!("Transfer-Encoding: {bad}\r\n"))),
                HeadError::TransferCoding,
                "{bad}"
            );
        }
        assert_eq!(
            request(&with("Content-Length: 012\r\n")).ok().map(|h| h.framing),
            Some(Framing::Length(12))
        );
        assert_eq!(
            request(&with("Transfer-Encoding: CHUNKED\r\n")).ok().map(|h| h.framing),
            Some(Framing::Chunked)
        );
    }

    #[test]
    fn malformed_heads_are_refused() {
        for bad in [
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\n\r\n",
            "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n A: folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
            "get / HTTP/1.1\r\nHost: x\r\n\r\n",
            "FOO / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
            "GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert!(matches!(refused(bad), HeadError::Malformed(_)), "{bad:?}");
        }
        assert_eq!(refused("GET / HTTP/1.0\r\nHost: x\r\n\r\n"), HeadError::Version);
        assert!(request("GET / HTTP/1.1\r\n\r\n").unwrap().no_host);
    }

    #[test]
    fn absolute_targets_name_the_authority() {
        let head = request("GET http://a.b:80/p?q HTTP/1.1\r\nHost: other\r\n\r\n").ok().unwrap();
        assert_eq!((head.request.authority(), head.request.path()), (&b"a.b:80"[..], &b"/p?q"[..]));
        let head = request("GET http://a HTTP/1.1\r\nHost: other\r\n\r\n").ok().unwrap();
        assert_eq!(head.request.path(), b"/");
    }

    #[test]
    fn response_framing_follows_the_rfc() {
        let framing = |text: &str, to_head| {
            parse_response(text.as_bytes(), LIMITS, &OPTIONS, to_head)
                .unwrap()
                .map(|(h, _)| (h.framing, h.close))
        };
        let ok = "HTTP/1.1 200 OK\r\n";
        assert_eq!(
            framing(&format!("{ok}content-length: 5\r\n\r\n"), false),
            Some((Framing::Length(5), false))
        );
        assert_eq!(framing(&format!("{ok}content-length: 5\r\n\r\n"), true), Some((Framing::None, false)));
        assert_eq!(framing(&format!("{ok}\r\n"), false), Some((Framing::UntilClose, true)));
        assert_eq!(
            framing("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n", false),
            Some((Framing::Length(5), true))
        );
        assert_eq!(
            framing("HTTP/1.1 304 x\r\ncontent-length: 5\r\n\r\n", false),
            Some((Framing::None, false))
        );
        let both = format!("{ok}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n");
        assert!(parse_response(both.as_bytes(), LIMITS, &OPTIONS, false).is_err());
    }
}
