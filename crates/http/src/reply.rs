//! Answers made by the proxy itself, in Envoy's words; the one place that maps an error to a status, a body
//! text and a response flag.

use bytes::Bytes;

use crate::body::BodyError;
use crate::h1::head::HeadError;
use crate::headers::Headers;
use crate::message::{LocalAnswer, Response};
use crate::name::HeaderId;
use crate::stream::{ResponseFlags, StreamInfo};

/// A reason for which the proxy answers by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalReply {
    /// Nothing in the route table matched.
    NoRoute,
    /// The route's cluster is not known; the status is the route's `cluster_not_found_response_code`.
    NoCluster(u16),
    NoHealthyUpstream,
    /// A circuit breaker is open.
    Overflow,
    ConnectFailure,
    ConnectTimeout,
    /// The upstream closed the connection before it answered.
    UpstreamTermination,
    /// The upstream reset the stream before it answered.
    UpstreamReset,
    UpstreamProtocolError,
    ResponseTimeout,
    RequestTimeout,
    RequestHeadersTimeout,
    /// `request_complete` decides between 504 and 408, as in Envoy.
    StreamIdleTimeout {
        request_complete: bool,
    },
    MaxDuration {
        request_complete: bool,
    },
    UpgradeRefused,
    /// The path could not be normalised or holds what the configuration refuses.
    BadPath,
    RequestTooLarge,
    /// A filter could not read the request's content.
    Unreadable {
        text: &'static str,
        details: &'static str,
    },
    Downstream(HeadError),
}

impl LocalReply {
    /// What a client is told whose request's body broke off; `None` if it is gone.
    pub fn of_request_body(error: &BodyError) -> Option<LocalReply> {
        match error {
            BodyError::Malformed(what) => Some(LocalReply::Downstream(HeadError::Malformed(what))),
            BodyError::Unreadable { text, details } => Some(LocalReply::Unreadable { text, details }),
            BodyError::TooLarge => Some(LocalReply::RequestTooLarge),
            BodyError::Closed | BodyError::Io(_) | BodyError::Reset(_) | BodyError::TimedOut => None,
        }
    }

    pub fn status(self) -> u16 {
        use LocalReply::*;
        match self {
            NoRoute => 404,
            NoCluster(status) => status,
            NoHealthyUpstream | Overflow | ConnectFailure | ConnectTimeout | UpstreamTermination
            | UpstreamReset => 503,
            UpstreamProtocolError => 502,
            ResponseTimeout => 504,
            RequestTimeout | RequestHeadersTimeout => 408,
            StreamIdleTimeout { request_complete } | MaxDuration { request_complete } => {
                if request_complete {
                    504
                } else {
                    408
                }
            }
            UpgradeRefused => 403,
            BadPath | Unreadable { .. } => 400,
            RequestTooLarge => 413,
            Downstream(HeadError::Malformed(_) | HeadError::NoHost | HeadError::Underscore) => 400,
            Downstream(HeadError::TransferCoding) => 501,
            Downstream(HeadError::TooLarge | HeadError::TooManyLines) => 431,
            Downstream(HeadError::Version) => 426,
            Downstream(HeadError::Scheme) => 403,
        }
    }

    fn body(self) -> &'static str {
        use LocalReply::*;
        match self {
            NoHealthyUpstream => "no healthy upstream",
            Overflow => "upstream connect error or disconnect/reset before headers. reset reason: overflow",
            ConnectFailure => {
                "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
            }
            ConnectTimeout => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection timeout"
            }
            UpstreamTermination => {
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination"
            }
            UpstreamReset => {
                "upstream connect error or disconnect/reset before headers. reset reason: remote reset"
            }
            UpstreamProtocolError => {
                "upstream connect error or disconnect/reset before headers. reset reason: protocol error"
            }
            ResponseTimeout => "upstream request timeout",
            RequestTimeout => "request timeout",
            RequestHeadersTimeout => "request header timeout",
            StreamIdleTimeout { .. } => "stream timeout",
            MaxDuration { .. } => "downstream duration timeout",
            Downstream(HeadError::Malformed(_) | HeadError::Underscore) => "Bad Request",
            Downstream(HeadError::TransferCoding) => "Not Implemented",
            Downstream(HeadError::Version) => "Upgrade Required",
            Downstream(HeadError::Scheme) => "Forbidden",
            Downstream(HeadError::TooLarge | HeadError::TooManyLines) => "Request Header Fields Too Large",
            RequestTooLarge => "Payload Too Large",
            Unreadable { text, .. } => text,
            NoRoute | NoCluster(_) | UpgradeRefused | BadPath | Downstream(HeadError::NoHost) => "",
        }
    }

    /// The response flag that says so.
    pub fn flag(self) -> Option<ResponseFlags> {
        use LocalReply::*;
        Some(match self {
            NoRoute => ResponseFlags::NO_ROUTE_FOUND,
            NoCluster(_) => ResponseFlags::NO_CLUSTER_FOUND,
            NoHealthyUpstream => ResponseFlags::NO_HEALTHY_UPSTREAM,
            Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
            ConnectFailure | ConnectTimeout => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            UpstreamTermination => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            UpstreamReset => ResponseFlags::UPSTREAM_REMOTE_RESET,
            UpstreamProtocolError => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
            ResponseTimeout => ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
            StreamIdleTimeout { .. } => ResponseFlags::STREAM_IDLE_TIMEOUT,
            Downstream(HeadError::NoHost) => return None,
            Downstream(_) => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
            RequestTimeout
            | RequestHeadersTimeout
            | MaxDuration { .. }
            | UpgradeRefused
            | BadPath
            | Unreadable { .. }
            | RequestTooLarge => {
                return None;
            }
        })
    }

    /// `%RESPONSE_CODE_DETAILS%`.
    pub fn details(self) -> &'static str {
        use LocalReply::*;
        match self {
            NoRoute => "route_not_found",
            NoCluster(_) => "cluster_not_found",
            NoHealthyUpstream => "no_healthy_upstream",
            Overflow => "upstream_reset_before_response_started{overflow}",
            ConnectFailure => "upstream_reset_before_response_started{remote_connection_failure}",
            ConnectTimeout => "upstream_reset_before_response_started{connection_timeout}",
            UpstreamTermination => "upstream_reset_before_response_started{connection_termination}",
            UpstreamReset => "upstream_reset_before_response_started{remote_reset}",
            UpstreamProtocolError => "upstream_reset_before_response_started{protocol_error}",
            ResponseTimeout => "response_timeout",
            RequestTimeout => "request_overall_timeout",
            RequestHeadersTimeout => "request_header_timeout",
            StreamIdleTimeout { .. } => "stream_idle_timeout",
            MaxDuration { .. } => "max_duration_timeout",
            UpgradeRefused => "upgrade_failed",
            BadPath => "path_normalization_failed",
            RequestTooLarge => "request_payload_too_large",
            Unreadable { details, .. } => details,
            Downstream(HeadError::NoHost) => "missing_host_header",
            Downstream(HeadError::Version) => "low_version",
            Downstream(HeadError::Underscore) => "http1.unexpected_underscore",
            Downstream(HeadError::Scheme) => "http1.invalid_scheme",
            Downstream(HeadError::TransferCoding) => "http1.invalid_transfer_encoding",
            Downstream(HeadError::TooManyLines) => "http1.too_many_headers",
            Downstream(HeadError::TooLarge) => "http1.headers_too_large",
            Downstream(HeadError::Malformed("content-length with transfer-encoding")) => {
                "http1.content_length_and_chunked_not_allowed"
            }
            Downstream(HeadError::Malformed("header value")) => "http1.invalid_characters",
            Downstream(HeadError::Malformed("host")) => "http.invalid_authority",
            Downstream(HeadError::Malformed("connection")) => "http1.connection_header_rejected",
            Downstream(HeadError::Malformed("host in target")) => "http1.invalid_url",
            Downstream(_) => "http1.codec_error",
        }
    }

    /// The response, its cause noted on `stream`.
    pub fn response(self, stream: &StreamInfo) -> Response {
        if let Some(flag) = self.flag() {
            stream.set_flag(flag);
        }
        stream.set_details(self.details());
        let mut response = Response::local(self.status(), Bytes::from_static(self.body().as_bytes()));
        if self == LocalReply::Overflow {
            response.headers.append(HeaderId::X_ENVOY_OVERLOADED, b"true");
        }
        response
    }
}

/// Whether a request with these headers is a gRPC call.
pub fn is_grpc_call(headers: &Headers) -> bool {
    headers.joined(HeaderId::CONTENT_TYPE).is_some_and(|value| is_grpc_content(&value))
}

/// Whether content of this type is gRPC's.
pub fn is_grpc_content(content_type: &[u8]) -> bool {
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'+')
}

/// The gRPC status that a response code stands for (Envoy's `Grpc::Utility::httpToGrpcStatus`).
pub fn grpc_status_of(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// As the gRPC protocol wants it for `grpc-message`: all but printable ASCII, and the percent sign itself.
pub fn percent_encode(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'%' | 0..=0x1f | 0x7f..=0xff => {
                out.push(b'%');
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            byte => out.push(byte),
        }
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// A filter's answer in place of an upstream's.
pub struct FilterReply {
    pub status: u16,
    pub text: Bytes,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// For gRPC clients; what the status stands for if `None`.
    pub grpc_status: Option<u32>,
}

impl FilterReply {
    pub fn new(status: u16, text: impl Into<Bytes>, details: &'static str) -> FilterReply {
        FilterReply { status, text: text.into(), details, grpc_status: None }
    }

    /// The response, its cause noted on `stream`.
    pub fn response(self, stream: &StreamInfo) -> Response {
        stream.set_details(self.details);
        let local = Some(LocalAnswer { grpc_status: self.grpc_status });
        Response { local, ..Response::local(self.status, self.text) }
    }
}
