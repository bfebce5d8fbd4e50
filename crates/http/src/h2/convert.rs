//! Heads between `http`'s form, which `h2` speaks, and the flat one.
//!
//! Towards `h2` all values of a message are slices of one copy of its arena, and known names are static, so that a head
//! costs few allocations however many lines it has.

use std::sync::LazyLock;

use bytes::Bytes;
use h2::ext::Protocol;
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use crate::body::Body;
use crate::h1::head::HeadError;
use crate::h1::target::valid_authority;
use crate::headers::{Headers, Span};
use crate::message::{Method, Request, Scheme, Version};
use crate::name::HeaderId;
use crate::tunnel::set_upgrade;

/// Why a request that came over HTTP/2 is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Answered as the same fault in HTTP/1 is.
    Head(HeadError),
    /// `:path` is not one; Envoy answers 404 (`absolute_path_rejected`).
    Path,
}

/// A message that has no HTTP/2 form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no HTTP/2 form: {0}")]
pub struct Unsendable(&'static str);

/// A request as it came from a client; its body is not attached. `max_lines` limits its headers without pseudo-headers.
///
/// # Errors
/// What `h2` lets through and is none the less wrong.
pub fn request_from_parts(parts: &http::request::Parts, max_lines: usize) -> Result<Request, RequestError> {
    if parts.headers.len() > max_lines {
        return Err(RequestError::Head(HeadError::TooManyLines));
    }
    let mut headers = Headers::new();
    let mut host = None;
    let mut lengths = 0;
    for (name, value) in &parts.headers {
        if *name == header::HOST {
            if host.replace(value.as_bytes()).is_some() {
                return Err(RequestError::Head(HeadError::Malformed("host twice")));
            }
            continue;
        }
        lengths += usize::from(*name == header::CONTENT_LENGTH);
        if *name == header::COOKIE {
            append_cookie(&mut headers, &parts.headers);
        } else {
            headers.append(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if lengths > 1 {
        return Err(RequestError::Head(HeadError::Malformed("content-length twice")));
    }
    let uri = &parts.uri;
    let authority =
        uri.authority().map(|authority| authority.as_str().as_bytes()).or(host).unwrap_or_default();
    if authority.is_empty() || !valid_authority(authority) {
        return Err(RequestError::Head(HeadError::Malformed("authority")));
    }
    let mut method = Method::from_token(parts.method.as_str());
    if method == Method::Connect && lengths > 0 {
        if content_length(&headers) != Some(0) {
            return Err(RequestError::Head(HeadError::Malformed("CONNECT with a body")));
        }
        headers.remove(HeaderId::CONTENT_LENGTH);
    }
    if let Some(protocol) = parts.extensions.get::<Protocol>() {
        // In the form that HTTP/1.1 has for it (RFC 8441, section 5).
        let protocol = protocol.as_str().as_bytes();
        if protocol.is_empty() || !protocol.iter().all(u8::is_ascii_graphic) {
            return Err(RequestError::Head(HeadError::Malformed("protocol")));
        }
        method = Method::Get;
        set_upgrade(&mut headers, protocol);
    }
    if uri.scheme_str().is_some_and(str::is_empty) {
        return Err(RequestError::Head(HeadError::Malformed("scheme")));
    }
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str).as_bytes();
    if method != Method::Connect && !path.starts_with(b"/") {
        return Err(RequestError::Path);
    }
    let mut request = Request::new(method, Version::Http2, authority, path, headers);
    if uri.scheme() == Some(&UriScheme::HTTPS) {
        request.scheme = Scheme::Https;
    }
    request.body = Body::Empty;
    Ok(request)
}

/// Crumbs of a cookie become one line again (RFC 9113, section 8.2.3).
fn append_cookie(headers: &mut Headers, from: &HeaderMap) {
    if headers.contains(HeaderId::COOKIE) {
        return;
    }
    headers.append_with(HeaderId::COOKIE, |out| {
        for (index, crumb) in from.get_all(header::COOKIE).iter().enumerate() {
            if index > 0 {
                out.extend_from_slice(b"; ");
            }
            out.extend_from_slice(crumb.as_bytes());
        }
    });
}

/// Header lines of a response, or trailers.
pub fn headers_from_map(map: &HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in map {
        headers.append(name.as_str().as_bytes(), value.as_bytes());
    }
    headers
}

/// What `content-length` says, which `h2` has checked.
pub fn content_length(headers: &Headers) -> Option<u64> {
    std::str::from_utf8(headers.value(HeaderId::CONTENT_LENGTH)?).ok()?.parse().ok()
}

/// The head of a request for a host; with `upgrade`, an extended CONNECT to this protocol (RFC 8441).
///
/// # Errors
/// When target or authority hold what a URI cannot.
pub fn request_to_http(request: &Request, upgrade: Option<&[u8]>) -> Result<http::Request<()>, Unsendable> {
    let arena = Bytes::copy_from_slice(request.headers.arena());
    let mut head = http::Request::new(());
    *head.method_mut() = method_to_http(&request.method)?;
    let mut uri = http::uri::Parts::default();
    if !request.authority().is_empty() {
        let authority = Authority::from_maybe_shared(slice(&arena, request.authority));
        uri.authority = Some(authority.map_err(|_| Unsendable("authority"))?);
    }
    if !request.path().is_empty() {
        let path = PathAndQuery::from_maybe_shared(slice(&arena, request.path));
        uri.path_and_query = Some(path.map_err(|_| Unsendable("path"))?);
        if uri.authority.is_some() {
            uri.scheme = Some(match request.scheme {
                Scheme::Http => UriScheme::HTTP,
                Scheme::Https => UriScheme::HTTPS,
            });
        }
    }
    *head.uri_mut() = Uri::from_parts(uri).map_err(|_| Unsendable("target"))?;
    if let Some(protocol) = upgrade {
        let protocol = std::str::from_utf8(protocol).map_err(|_| Unsendable("upgrade"))?;
        *head.method_mut() = http::Method::CONNECT;
        head.extensions_mut().insert(Protocol::from(protocol));
    }
    *head.headers_mut() = headers_to_map(&request.headers, &arena);
    Ok(head)
}

/// The head of a response for a client.
pub fn response_to_http(status: u16, headers: &Headers) -> http::Response<()> {
    let arena = Bytes::copy_from_slice(headers.arena());
    let mut head = http::Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    *head.headers_mut() = headers_to_map(headers, &arena);
    head
}

/// Trailers for either side.
pub fn trailers_to_map(trailers: &Headers) -> HeaderMap {
    headers_to_map(trailers, &Bytes::copy_from_slice(trailers.arena()))
}

fn slice(arena: &Bytes, span: Span) -> Bytes {
    arena.slice(span.start as usize..span.end as usize)
}

/// All lines but those that HTTP/2 forbids (RFC 9113, section 8.2.2).
fn headers_to_map(headers: &Headers, arena: &Bytes) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (id, name, value) in headers.spans() {
        if FORBIDDEN.contains(&id) || (id == HeaderId::TE && headers.bytes(value) != b"trailers") {
            continue;
        }
        let name = match &KNOWN[id.index()] {
            Some(known) => known.clone(),
            None => match HeaderName::from_lowercase(name) {
                Ok(name) => name,
                Err(_) => continue,
            },
        };
        // What the HTTP/1 codec lets through, control characters excepted, is a value here too.
        if let Ok(value) = HeaderValue::from_maybe_shared(slice(arena, value)) {
            map.append(name, value);
        }
    }
    map
}

fn method_to_http(method: &Method) -> Result<http::Method, Unsendable> {
    Ok(match method {
        Method::Get => http::Method::GET,
        Method::Head => http::Method::HEAD,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Delete => http::Method::DELETE,
        Method::Connect => http::Method::CONNECT,
        Method::Options => http::Method::OPTIONS,
        Method::Trace => http::Method::TRACE,
        Method::Patch => http::Method::PATCH,
        Method::Other(token) => {
            http::Method::from_bytes(token.as_bytes()).map_err(|_| Unsendable("method"))?
        }
    })
}

const FORBIDDEN: [HeaderId; 7] = [
    HeaderId::HOST,
    HeaderId::CONNECTION,
    HeaderId::KEEP_ALIVE,
    HeaderId::PROXY_CONNECTION,
    HeaderId::TRANSFER_ENCODING,
    HeaderId::UPGRADE,
    HeaderId::HTTP2_SETTINGS,
];

/// Names by [`HeaderId::index`].
static KNOWN: LazyLock<[Option<HeaderName>; 64]> =
    LazyLock::new(|| std::array::from_fn(|index| Some(HeaderName::from_static(HeaderId::name_at(index)?))));

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, lines: &[(&str, &str)]) -> http::request::Parts {
        let mut request = http::Request::new(());
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        request.into_parts().0
    }

    fn lines(headers: &Headers) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        headers.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn requests_become_flat_with_cookies_in_one_line() {
        let from = [("x-a", "1"), ("cookie", "a=1"), ("host", "other"), ("cookie", "b=2"), ("x-a", "2")];
        let request = request_from_parts(&parts("http://a:80/p?q", &from), 100).unwrap();
        assert_eq!((request.authority(), request.path()), (&b"a:80"[..], &b"/p?q"[..]));
        let mut got = lines(&request.headers);
        got.sort();
        let expected = [("cookie", "a=1; b=2"), ("x-a", "1"), ("x-a", "2")];
        assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn host_stands_in_for_authority() {
        let request = request_from_parts(&parts("/p", &[("host", "b")]), 100).unwrap();
        assert_eq!(request.authority(), b"b");
    }

    #[test]
    fn requests_that_cannot_be_served_say_why() {
        let refused = |uri, lines| request_from_parts(&parts(uri, lines), 2).err();
        let malformed = |what| Some(RequestError::Head(HeadError::Malformed(what)));
        assert_eq!(refused("/p", &[]), malformed("authority"));
        assert_eq!(refused("http://u@a/p", &[]), malformed("authority"));
        assert_eq!(refused("http://a/", &[("content-length", "1"); 2]), malformed("content-length twice"));
        assert_eq!(refused("*", &[("host", "a")]), Some(RequestError::Path));
        assert_eq!(refused("/p", &[("x-a", "b"); 3]), Some(RequestError::Head(HeadError::TooManyLines)));
    }

    #[test]
    fn requests_go_out_without_what_http2_forbids() {
        let from =
            [("te", "gzip"), ("connection", "close"), ("x-request-id", "7"), ("x-b", ""), ("upgrade", "x")];
        let mut request =
            Request::new(Method::Post, Version::Http11, b"a.b:8080", b"/p?q", from.into_iter().collect());
        request.scheme = Scheme::Https;
        let head = request_to_http(&request, None).unwrap();
        assert_eq!(
            (head.method(), head.uri().to_string().as_str()),
            (&http::Method::POST, "https://a.b:8080/p?q")
        );
        let expected = [("x-request-id", "7"), ("x-b", "")];
        let expected: HeaderMap = expected
            .into_iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect();
        assert_eq!(head.headers(), &expected);
        request.headers.set(HeaderId::TE, b"trailers");
        request.set_authority(b"");
        let head = request_to_http(&request, None).unwrap();
        assert_eq!(
            (head.headers()["te"].as_bytes(), head.uri().to_string().as_str()),
            (&b"trailers"[..], "/p?q")
        );
        request.set_path(b"/a b");
        assert_eq!(request_to_http(&request, None).err(), Some(Unsendable("path")));
    }

    #[test]
    fn there_and_back_is_the_same() {
        let headers: Headers =
            [("content-length", "5"), ("x-a", "1"), ("set-cookie", "a"), ("set-cookie", "b")]
                .into_iter()
                .collect();
        let head = response_to_http(204, &headers);
        assert_eq!(head.status(), 204);
        let back = headers_from_map(head.headers());
        assert_eq!(lines(&back), lines(&headers));
        assert_eq!(content_length(&back), Some(5));
        assert!(trailers_to_map(&Headers::new()).is_empty());
    }
}
