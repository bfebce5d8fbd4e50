//! Compiled format strings: what `%OPERATORS%` in log lines and header values stand for.
//!
//! Parsed when a configuration is loaded; afterwards nothing can be wrong with one. What does not depend on the request
//! (the host's name, the environment) is text already.

use jiff::tz::TimeZone;

/// A format string: its pieces are written one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    pub pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    Text(Box<str>),
    /// What the operator yields, at most `limit` bytes of it.
    Value {
        operator: Operator,
        limit: Option<usize>,
    },
}

/// The format of a line of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct LineFormat {
    pub kind: LineKind,
    /// `omit_empty_values`: what has no value is left out, instead of `-` or `null`.
    pub omit_empty: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum LineKind {
    /// Ends where the format ends: the line feed is part of it.
    Text(Format),
    /// An object and a line feed. A value of a single operator keeps the type that the operator yields.
    Json(JsonFormat),
}

/// A JSON value with formats in it.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonFormat {
    /// A value without operators, as JSON text.
    Literal(Box<str>),
    Null,
    Format(Format),
    /// Keys in the order in which they are written (sorted, as in Envoy), each as JSON text with its colon.
    Object(Box<[(Box<str>, JsonFormat)]>),
    Array(Box<[JsonFormat]>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operator {
    Field(Field),
    Header(HeaderChoice),
    Time(TimeFormat),
    Duration {
        from: TimePoint,
        to: TimePoint,
        precision: Precision,
    },
    /// `%PATH%`.
    /// `source`: `None` is the one the client sent, and where it was not changed the present one.
    Path {
        with_query: bool,
        source: Option<PathSource>,
    },
    QueryParameter(Box<str>),
    /// `%QUERY_PARAMS%`, percent-decoded unless `raw`.
    QueryParameters {
        raw: bool,
    },
    GrpcStatus(GrpcStatusForm),
    /// `%METADATA%` and its like: a value as JSON, but texts as they are.
    Metadata {
        of: MetadataOf,
        namespace: Box<str>,
        path: Box<[Box<str>]>,
    },
    /// `%FILTER_STATE%`: an object under this name.
    FilterState {
        key: Box<str>,
        form: FilterStateForm,
    },
    ServerName(ServerNameSource),
    /// An address without its port, cut to a network of so many bits.
    Network {
        address: AddressOf,
        bits: Option<u8>,
    },
}

/// Whose metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataOf {
    Route,
    VirtualHost,
    Cluster,
    UpstreamHost,
    Listener,
    /// Of the filter chain.
    FilterChain,
    /// What filters have noted of the stream.
    Stream,
}

/// How an object of the filter state is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterStateForm {
    /// As a text.
    Plain,
    /// As JSON, if it has such a form.
    Typed,
    /// One of its fields; no object here has any.
    Field,
}

/// A header under one of two names, the second looked for where there is no first.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderChoice {
    pub source: HeaderSource,
    /// In lower case; may be a pseudo-header.
    pub name: Box<str>,
    pub alternative: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderSource {
    Request,
    Response,
    ResponseTrailer,
}

/// A moment and how it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeFormat {
    pub moment: Moment,
    /// `None`: UTC.
    pub zone: Option<TimeZone>,
    pub parts: Box<[TimePart]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// When the request began.
    Start,
    /// When the line is written.
    Emit,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TimePart {
    Text(Box<str>),
    /// `2026-11-24T06:08:01`, which nearly every format begins with.
    DateTime,
    /// Seconds since 1970.
    EpochSeconds,
    /// So many digits of the fraction of the second.
    Fraction(u8),
    /// The significant digits of the fraction.
    ShortestFraction,
    /// One or several conversions of strftime(3).
    Conversion(Box<str>),
}

/// The moments of a stream (`%COMMON_DURATION%`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimePoint {
    /// The request began; always known.
    DownstreamReceiveBegin,
    DownstreamReceiveEnd,
    UpstreamConnectBegin,
    UpstreamConnectEnd,
    UpstreamHandshakeEnd,
    /// A connection was asked for, and there.
    UpstreamPoolBegin,
    UpstreamReady,
    UpstreamSendBegin,
    UpstreamSendEnd,
    UpstreamReceiveBegin,
    UpstreamReceiveEnd,
    DownstreamSendBegin,
    DownstreamSendEnd,
    /// The end of the stream, or the present while there is none.
    End,
    /// A name that nothing sets, as Envoy allows for extensions.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathSource {
    /// As the client sent it.
    Original,
    /// As it went upstream.
    Current,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcStatusForm {
    CamelString,
    SnakeString,
    Number,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerNameSource {
    /// What TLS asked for.
    ServerName,
    /// That, or else the request's host.
    ServerNameFirst,
    HostFirst,
}

/// Whose address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressOf {
    DownstreamRemote,
    DownstreamDirectRemote,
    DownstreamLocal,
    UpstreamRemote,
    UpstreamLocal,
}

/// Operators without parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    AccessLogType,
    Address(AddressOf),
    BytesReceived,
    BytesSent,
    ConnectionId,
    ConnectionTerminationDetails,
    DownstreamDetectedCloseType,
    DownstreamHeaderBytesReceived,
    DownstreamHeaderBytesSent,
    DownstreamWireBytesReceived,
    DownstreamWireBytesSent,
    FilterChainName,
    ListenerName,
    /// The text of a local reply; empty but where its body is made.
    LocalReplyBody,
    Port(AddressOf),
    Protocol,
    RequestHeadersBytes,
    ResponseCode,
    ResponseCodeDetails,
    ResponseFlags,
    ResponseFlagsLong,
    ResponseHeadersBytes,
    ResponseTrailersBytes,
    RouteName,
    StreamId,
    UniqueId,
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamConnectionId,
    UpstreamConnectionIdsAttempted,
    UpstreamDetectedCloseType,
    UpstreamEndpointId,
    UpstreamHeaderBytesReceived,
    UpstreamHeaderBytesSent,
    UpstreamHost,
    UpstreamHostName,
    UpstreamHostNameWithoutPort,
    UpstreamHostNamesAttempted,
    UpstreamHostNamesAttemptedWithoutPort,
    UpstreamHostsAttempted,
    UpstreamHostsAttemptedWithoutPort,
    UpstreamProtocol,
    UpstreamRequestAttemptCount,
    UpstreamTransportFailureReason,
    UpstreamWireBytesReceived,
    UpstreamWireBytesSent,
    /// What there is only with TLS, virtual clusters or other things that proxyd does not have: never a value.
    Absent,
    /// What is 0 unless the operating system or QUIC says otherwise.
    Zero,
    /// What is an empty text unless an internal listener is involved.
    Empty,
}

impl LineFormat {
    /// See [`Operator::tells_of_record`].
    pub fn tells_of_record(&self) -> bool {
        self.operators().into_iter().any(Operator::tells_of_record)
    }

    /// Every operator in it.
    pub fn operators(&self) -> Vec<&Operator> {
        let mut found = Vec::new();
        match &self.kind {
            LineKind::Text(format) => found.extend(format.operators()),
            LineKind::Json(json) => json.collect(&mut found),
        }
        found
    }
}

impl Operator {
    /// Whether it tells of attempts at hosts, or of sizes: both are only noted where somebody wants to know them.
    pub fn tells_of_record(&self) -> bool {
        match self {
            Operator::Duration { .. } => true,
            Operator::Network { address, .. } => address.is_upstream(),
            Operator::Metadata { of, .. } => *of == MetadataOf::UpstreamHost,
            Operator::Field(field) => match field {
                Field::Address(address) | Field::Port(address) => address.is_upstream(),
                Field::AccessLogType
                | Field::ConnectionId
                | Field::FilterChainName
                | Field::ListenerName
                | Field::LocalReplyBody
                | Field::Protocol
                | Field::RequestHeadersBytes
                | Field::ResponseCode
                | Field::ResponseFlags
                | Field::ResponseFlagsLong
                | Field::RouteName
                | Field::StreamId
                | Field::UniqueId
                | Field::UpstreamCluster
                | Field::UpstreamClusterRaw
                | Field::Absent
                | Field::Zero
                | Field::Empty => false,
                _ => true,
            },
            Operator::Header(_)
            | Operator::Time(_)
            | Operator::Path { .. }
            | Operator::QueryParameter(_)
            | Operator::QueryParameters { .. }
            | Operator::GrpcStatus(_)
            | Operator::FilterState { .. }
            | Operator::ServerName(_) => false,
        }
    }
}

impl AddressOf {
    fn is_upstream(self) -> bool {
        matches!(self, AddressOf::UpstreamRemote | AddressOf::UpstreamLocal)
    }
}

impl Format {
    pub fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Value { operator, .. } => Some(operator),
            Piece::Text(_) => None,
        })
    }
}

impl JsonFormat {
    fn collect<'a>(&'a self, found: &mut Vec<&'a Operator>) {
        match self {
            JsonFormat::Literal(_) | JsonFormat::Null => {}
            JsonFormat::Format(format) => found.extend(format.operators()),
            JsonFormat::Object(entries) => entries.iter().for_each(|(_, value)| value.collect(found)),
            JsonFormat::Array(values) => values.iter().for_each(|value| value.collect(found)),
        }
    }
}
