//! Requests and responses as filters see them, whatever version they came in.

use std::borrow::Cow;

use bytes::Bytes;

use crate::body::Body;
use crate::headers::{Headers, Span};
use crate::joined::Direction;
use crate::tunnel::Tunnel;

/// Request methods. Unlisted tokens occur only where the codec lets them through (HTTP/2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other(Box<str>),
}

impl Method {
    pub fn as_str(&self) -> &str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Connect => "CONNECT",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Patch => "PATCH",
            Method::Other(token) => token,
        }
    }

    /// The method of a token (RFC 9110, section 9.1: case-sensitive).
    pub fn from_token(token: &str) -> Method {
        match token {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "CONNECT" => Method::Connect,
            "OPTIONS" => Method::Options,
            "TRACE" => Method::Trace,
            "PATCH" => Method::Patch,
            other => Method::Other(other.into()),
        }
    }

    /// RFC 9110, section 9.2.2.
    pub fn is_idempotent(&self) -> bool {
        matches!(
            self,
            Method::Get | Method::Head | Method::Put | Method::Delete | Method::Options | Method::Trace
        )
    }
}

/// The version a message was received in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
    Http2,
}

impl Version {
    /// As Envoy's `%PROTOCOL%` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// A request. `host` never stands in `headers`: it is [`Request::authority`].
pub struct Request {
    pub method: Method,
    pub version: Version,
    pub scheme: Scheme,
    /// The client said the scheme: in HTTP/2, or in an absolute target.
    pub(crate) names_scheme: bool,
    pub headers: Headers,
    pub body: Body,
    pub(crate) path: Span,
    pub(crate) authority: Span,
}

impl Request {
    pub fn new(
        method: Method,
        version: Version,
        authority: &[u8],
        path: &[u8],
        mut headers: Headers,
    ) -> Request {
        let (path, authority) = (headers.store(path), headers.store(authority));
        Request {
            method,
            version,
            scheme: Scheme::Http,
            names_scheme: version == Version::Http2,
            headers,
            body: Body::Empty,
            path,
            authority,
        }
    }

    /// Path and query as they go upstream; empty only for CONNECT.
    pub fn path(&self) -> &[u8] {
        self.headers.bytes(self.path)
    }

    pub fn set_path(&mut self, path: &[u8]) {
        self.path = self.headers.store(path);
    }

    /// The path without `?` and what follows it.
    pub fn path_without_query(&self) -> &[u8] {
        let path = self.path();
        memchr::memchr(b'?', path).map_or(path, |at| &path[..at])
    }

    /// `Host` or `:authority`; may be empty.
    pub fn authority(&self) -> &[u8] {
        self.headers.bytes(self.authority)
    }

    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = self.headers.store(authority);
    }

    /// The same request once more, without its body.
    pub fn copy_head(&self) -> Request {
        let (method, scheme) = (self.method.clone(), self.scheme);
        let headers = self.headers.copy();
        let copy = Request::new(method, self.version, self.authority(), self.path(), headers);
        Request { scheme, ..copy }
    }

    /// Bytes of the names and values of all headers, with the pseudo headers, as Envoy counts them.
    pub fn header_bytes(&self) -> u64 {
        let pseudo = [
            (":method", self.method.as_str().as_bytes()),
            (":path", self.path()),
            (":authority", self.authority()),
            (":scheme", self.scheme.as_str().as_bytes()),
        ];
        let pseudo = pseudo.iter().filter(|(_, value)| !value.is_empty());
        let pseudo: usize = pseudo.map(|(name, value)| name.len() + value.len()).sum();
        (pseudo + self.headers.byte_size()) as u64
    }

    /// What a header says ([`Headers::value_in`]), or one of the pseudo headers `:method`, `:path`, `:authority` and
    /// `:scheme`, as matchers name them.
    pub fn value_or_pseudo(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        Some(Cow::Borrowed(match name {
            ":method" => self.method.as_str().as_bytes(),
            ":path" => self.path(),
            ":authority" | "host" => self.authority(),
            ":scheme" => self.scheme.as_str().as_bytes(),
            _ => return self.headers.value_in(Direction::Request, name),
        }))
    }
}

/// A response; 1xx ones have no body.
pub struct Response {
    /// 100 to 599.
    pub status: u16,
    pub headers: Headers,
    pub body: Body,
    /// The request's other half, where the host agreed to a stream of bytes both ways: `body` is what comes from it.
    pub tunnel: Option<Box<dyn Tunnel>>,
    /// It is the proxy's own, and still to be put into words by [`complete`](crate::local_reply::complete).
    pub local: Option<LocalAnswer>,
}

/// A response ahead of the final one: 1xx, but never 101.
pub struct Interim {
    pub status: u16,
    pub headers: Headers,
}

/// An answer of the proxy's own, besides its status and text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalAnswer {
    /// For gRPC clients; what the status stands for if `None`.
    pub grpc_status: Option<u32>,
}

impl Response {
    /// One that goes out as it is, as a host's does.
    pub fn new(status: u16) -> Response {
        Response { status, headers: Headers::new(), body: Body::Empty, tunnel: None, local: None }
    }

    /// One that the proxy makes in place of a host (Envoy's local reply).
    pub fn local(status: u16, text: impl Into<Bytes>) -> Response {
        Response { body: Body::full(text), local: Some(LocalAnswer::default()), ..Response::new(status) }
    }
}
