//! The operators: their names, what each takes, and what it becomes.

use super::{FormatError, FormatFacts, Pieces, Written, is_header_name, time};
use crate::settings::{
    AddressOf, Field, FilterStateForm, GrpcStatusForm, HeaderChoice, HeaderSource, MetadataOf, Moment,
    Operator, PathSource, Precision, ServerNameSource, TimePoint,
};

/// Adds what `written` stands for.
pub(super) fn compile(
    written: &Written<'_>,
    facts: &FormatFacts,
    pieces: &mut Pieces,
) -> Result<(), FormatError> {
    let name = written.name;
    if let Some((_, operator)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
        written.takes_nothing()?;
        pieces.value(operator.clone(), None);
        return Ok(());
    }
    if let Some((_, address)) = NETWORKS.iter().find(|(network, _)| *network == name) {
        written.takes_no_length()?;
        // Envoy takes whatever else stands there for no mask.
        let bits = written.parameter.and_then(|parameter| parameter.parse().ok());
        pieces.value(Operator::Network { address: *address, bits }, None);
        return Ok(());
    }
    if let Some((_, from, to)) = DURATIONS.iter().find(|(duration, ..)| *duration == name) {
        written.takes_nothing()?;
        let (from, to, precision) = (*from, *to, Precision::Milliseconds);
        pieces.value(Operator::Duration { from, to, precision }, None);
        return Ok(());
    }
    if UNSUPPORTED.contains(&name) {
        return Err(FormatError::Unsupported(name.to_owned()));
    }
    match name {
        "HOSTNAME" => {
            written.takes_nothing()?;
            pieces.text(&facts.hostname);
            return Ok(());
        }
        "ENVIRONMENT" => {
            let value = (facts.environment)(written.needs_parameter()?);
            let value = value.unwrap_or_else(|| "-".to_owned());
            pieces.text(cut(&value, written.length));
            return Ok(());
        }
        _ => {}
    }
    pieces.value(with_parameter(written, facts)?, written.length);
    Ok(())
}

fn with_parameter(written: &Written<'_>, facts: &FormatFacts) -> Result<Operator, FormatError> {
    let local = || Some(facts.time_zone.clone());
    Ok(match written.name {
        "REQ" | "REQUEST_HEADER" => header(written, HeaderSource::Request)?,
        "RESP" | "RESPONSE_HEADER" => header(written, HeaderSource::Response)?,
        "TRAILER" | "RESPONSE_TRAILER" => header(written, HeaderSource::ResponseTrailer)?,
        "START_TIME" => Operator::Time(time::compile(written, Moment::Start, None)?),
        "START_TIME_LOCAL" => Operator::Time(time::compile(written, Moment::Start, local())?),
        "EMIT_TIME" => Operator::Time(time::compile(written, Moment::Emit, None)?),
        "EMIT_TIME_LOCAL" => Operator::Time(time::compile(written, Moment::Emit, local())?),
        "COMMON_DURATION" => duration(written)?,
        "PATH" => path(written)?,
        "QUERY_PARAM" => Operator::QueryParameter(written.needs_parameter()?.into()),
        "QUERY_PARAMS" => Operator::QueryParameters {
            raw: match written.parameter {
                None | Some("ORIG") => true,
                Some("DECODED") => false,
                Some(_) => return Err(written.refuse("ORIG or DECODED")),
            },
        },
        "GRPC_STATUS" => {
            written.takes_no_length()?;
            Operator::GrpcStatus(match written.parameter {
                None | Some("CAMEL_STRING") => GrpcStatusForm::CamelString,
                Some("SNAKE_STRING") => GrpcStatusForm::SnakeString,
                Some("NUMBER") => GrpcStatusForm::Number,
                Some(_) => return Err(written.refuse("CAMEL_STRING, SNAKE_STRING or NUMBER")),
            })
        }
        "REQUESTED_SERVER_NAME" => {
            written.takes_no_length()?;
            Operator::ServerName(match written.parameter {
                None | Some("SNI_ONLY") => ServerNameSource::ServerName,
                Some("SNI_FIRST") => ServerNameSource::ServerNameFirst,
                Some("HOST_FIRST") => ServerNameSource::HostFirst,
                Some(_) => return Err(written.refuse("SNI_ONLY, SNI_FIRST or HOST_FIRST")),
            })
        }
        "METADATA" => {
            let mut parts = written.parameter.unwrap_or_default().split(':');
            let of = match parts.next() {
                Some("ROUTE") => MetadataOf::Route,
                Some("VIRTUAL_HOST") => MetadataOf::VirtualHost,
                Some("CLUSTER") => MetadataOf::Cluster,
                Some("UPSTREAM_HOST") => MetadataOf::UpstreamHost,
                Some("DYNAMIC") => MetadataOf::Stream,
                Some("LISTENER") => MetadataOf::Listener,
                Some("LISTENER_FILTER_CHAIN") => MetadataOf::FilterChain,
                _ => return Err(written.refuse(
                    "ROUTE, VIRTUAL_HOST, CLUSTER, UPSTREAM_HOST, LISTENER, LISTENER_FILTER_CHAIN or DYNAMIC",
                )),
            };
            metadata(of, parts)
        }
        "CLUSTER_METADATA" => {
            written.takes_no_length()?;
            metadata(MetadataOf::Cluster, written.needs_parameter()?.split(':'))
        }
        "UPSTREAM_METADATA" => {
            written.takes_no_length()?;
            metadata(MetadataOf::UpstreamHost, written.needs_parameter()?.split(':'))
        }
        "FILTER_STATE" => filter_state(written)?,
        "DYNAMIC_METADATA" => metadata(MetadataOf::Stream, written.needs_parameter()?.split(':')),
        // Its parameter asks for blanks to be kept. None of our details has one.
        "RESPONSE_CODE_DETAILS" => {
            written.takes_no_length()?;
            Operator::Field(Field::ResponseCodeDetails)
        }
        // Always absent without TLS, however the time is to be written.
        "DOWNSTREAM_PEER_CERT_V_START"
        | "DOWNSTREAM_PEER_CERT_V_END"
        | "UPSTREAM_PEER_CERT_V_START"
        | "UPSTREAM_PEER_CERT_V_END" => {
            written.takes_no_length()?;
            Operator::Field(Field::Absent)
        }
        name => return Err(FormatError::Unknown(name.to_owned())),
    })
}

fn header(written: &Written<'_>, source: HeaderSource) -> Result<Operator, FormatError> {
    let mut names = written.needs_parameter()?.split('?');
    let first = header_name(names.next().unwrap_or_default())?;
    let second = names.next().map(header_name).transpose()?.flatten();
    if names.next().is_some() {
        return Err(written.refuse("at most two header names, NAME?ALTERNATIVE"));
    }
    let (name, alternative) = match first {
        Some(first) => (first, second),
        None => (second.ok_or_else(|| written.refuse("NAME or NAME?ALTERNATIVE"))?, None),
    };
    Ok(Operator::Header(HeaderChoice { source, name, alternative }))
}

/// The name in lower case; `None` where there is none, which Envoy allows on either side of the question mark.
fn header_name(name: &str) -> Result<Option<Box<str>>, FormatError> {
    if name.is_empty() {
        return Ok(None);
    }
    if !is_header_name(name) {
        return Err(FormatError::BadHeader(name.to_owned()));
    }
    let lower = name.to_ascii_lowercase();
    // One header under two names, as in Envoy's header map.
    Ok(Some(if lower == "host" { ":authority".into() } else { lower.into() }))
}

/// A namespace and the way within it; without a namespace there is never a value, as in Envoy.
fn metadata<'p>(of: MetadataOf, mut parts: impl Iterator<Item = &'p str>) -> Operator {
    let namespace = parts.next().unwrap_or_default().into();
    Operator::Metadata { of, namespace, path: parts.map(Box::from).collect() }
}

fn filter_state(written: &Written<'_>) -> Result<Operator, FormatError> {
    let takes = "KEY, KEY:PLAIN, KEY:TYPED or KEY:FIELD:NAME";
    let mut parts = written.needs_parameter()?.split(':');
    let key = parts.next().filter(|key| !key.is_empty()).ok_or_else(|| written.refuse(takes))?;
    if TUNNEL_STATE.contains(&key) {
        return Err(FormatError::Unsupported(format!("FILTER_STATE({key})")));
    }
    let form = match (parts.next(), parts.next()) {
        (None | Some("" | "TYPED"), None) => FilterStateForm::Typed,
        (Some("PLAIN"), None) => FilterStateForm::Plain,
        (Some("FIELD"), Some(_)) => FilterStateForm::Field,
        _ => return Err(written.refuse(takes)),
    };
    Ok(Operator::FilterState { key: key.into(), form })
}

fn duration(written: &Written<'_>) -> Result<Operator, FormatError> {
    written.takes_no_length()?;
    let mut parts = written.needs_parameter()?.split(':');
    let (from, to, precision) = (parts.next(), parts.next(), parts.next());
    let (Some(from), Some(to), None) = (from, to, parts.next()) else {
        return Err(written.refuse("START:END or START:END:PRECISION"));
    };
    let precision = match precision {
        None | Some("ms") => Precision::Milliseconds,
        Some("us") => Precision::Microseconds,
        Some("ns") => Precision::Nanoseconds,
        Some(_) => return Err(written.refuse("a precision of ms, us or ns")),
    };
    Ok(Operator::Duration { from: time_point(from), to: time_point(to), precision })
}

fn time_point(name: &str) -> TimePoint {
    match name {
        "DS_RX_BEG" => TimePoint::DownstreamReceiveBegin,
        "DS_RX_END" => TimePoint::DownstreamReceiveEnd,
        "US_CX_BEG" => TimePoint::UpstreamConnectBegin,
        "US_CX_END" => TimePoint::UpstreamConnectEnd,
        "US_HS_END" => TimePoint::UpstreamHandshakeEnd,
        "US_TX_BEG" => TimePoint::UpstreamSendBegin,
        "US_TX_END" => TimePoint::UpstreamSendEnd,
        "US_RX_BEG" => TimePoint::UpstreamReceiveBegin,
        "US_RX_END" => TimePoint::UpstreamReceiveEnd,
        "DS_TX_BEG" => TimePoint::DownstreamSendBegin,
        "DS_TX_END" => TimePoint::DownstreamSendEnd,
        _ => TimePoint::Never,
    }
}

fn path(written: &Written<'_>) -> Result<Operator, FormatError> {
    let mut parts = written.parameter.unwrap_or_default().split(':');
    let with_query = match parts.next() {
        None | Some("" | "WQ") => true,
        Some("NQ") => false,
        Some(_) => return Err(written.refuse("WQ or NQ")),
    };
    let source = match (parts.next(), parts.next()) {
        (None | Some("" | "ORIG_OR_PATH"), None) => None,
        (Some("ORIG"), None) => Some(PathSource::Original),
        (Some("PATH"), None) => Some(PathSource::Current),
        _ => return Err(written.refuse("ORIG, PATH or ORIG_OR_PATH after WQ or NQ")),
    };
    Ok(Operator::Path { with_query, source })
}

/// At most `limit` bytes of `text`, and no half character.
fn cut(text: &str, limit: Option<usize>) -> &str {
    let limit = limit.unwrap_or(usize::MAX).min(text.len());
    let end = (0..=limit).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

const fn field(field: Field) -> Operator {
    Operator::Field(field)
}

/// What takes neither parameter nor length.
const PLAIN: &[(&str, Operator)] = &[
    ("ACCESS_LOG_TYPE", field(Field::AccessLogType)),
    ("BYTES_RECEIVED", field(Field::BytesReceived)),
    ("BYTES_RETRANSMITTED", field(Field::Zero)),
    ("BYTES_SENT", field(Field::BytesSent)),
    ("CONNECTION_ID", field(Field::ConnectionId)),
    ("CONNECTION_TERMINATION_DETAILS", field(Field::ConnectionTerminationDetails)),
    ("DOWNSTREAM_CX_RTT", field(Field::Zero)),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", field(Field::DownstreamHeaderBytesReceived)),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", field(Field::DownstreamHeaderBytesSent)),
    ("DOWNSTREAM_DETECTED_CLOSE_TYPE", field(Field::DownstreamDetectedCloseType)),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", field(Field::Address(AddressOf::DownstreamLocal))),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", field(Field::Empty)),
    ("DOWNSTREAM_DIRECT_LOCAL_PORT", field(Field::Port(AddressOf::DownstreamLocal))),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", field(Field::Address(AddressOf::DownstreamDirectRemote))),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", field(Field::Port(AddressOf::DownstreamDirectRemote))),
    ("DOWNSTREAM_HANDSHAKE_DURATION", field(Field::Absent)),
    ("DOWNSTREAM_HEADER_BYTES_RECEIVED", field(Field::DownstreamHeaderBytesReceived)),
    ("DOWNSTREAM_HEADER_BYTES_SENT", field(Field::DownstreamHeaderBytesSent)),
    ("DOWNSTREAM_LOCAL_ADDRESS", field(Field::Address(AddressOf::DownstreamLocal))),
    ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", field(Field::Empty)),
    ("DOWNSTREAM_LOCAL_DNS_SAN", field(Field::Absent)),
    ("DOWNSTREAM_LOCAL_EMAIL_SAN", field(Field::Absent)),
    ("DOWNSTREAM_LOCAL_IP_SAN", field(Field::Absent)),
    ("DOWNSTREAM_LOCAL_OTHERNAME_SAN", field(Field::Absent)),
    ("DOWNSTREAM_LOCAL_PORT", field(Field::Port(AddressOf::DownstreamLocal))),
    ("DOWNSTREAM_LOCAL_SUBJECT", field(Field::Absent)),
    ("DOWNSTREAM_LOCAL_URI_SAN", field(Field::Absent)),
    ("DOWNSTREAM_PEER_CERT", field(Field::Absent)),
    ("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1", field(Field::Absent)),
    ("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256", field(Field::Absent)),
    ("DOWNSTREAM_PEER_CHAIN_SERIALS", field(Field::Absent)),
    ("DOWNSTREAM_PEER_DNS_SAN", field(Field::Absent)),
    ("DOWNSTREAM_PEER_EMAIL_SAN", field(Field::Absent)),
    ("DOWNSTREAM_PEER_FINGERPRINT_1", field(Field::Absent)),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", field(Field::Absent)),
    ("DOWNSTREAM_PEER_IP_SAN", field(Field::Absent)),
    ("DOWNSTREAM_PEER_ISSUER", field(Field::Absent)),
    ("DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", field(Field::Absent)),
    ("DOWNSTREAM_PEER_ISSUER_SERIAL", field(Field::Absent)),
    ("DOWNSTREAM_PEER_OTHERNAME_SAN", field(Field::Absent)),
    ("DOWNSTREAM_PEER_SERIAL", field(Field::Absent)),
    ("DOWNSTREAM_PEER_SUBJECT", field(Field::Absent)),
    ("DOWNSTREAM_PEER_URI_SAN", field(Field::Absent)),
    ("DOWNSTREAM_REMOTE_ADDRESS", field(Field::Address(AddressOf::DownstreamRemote))),
    ("DOWNSTREAM_REMOTE_PORT", field(Field::Port(AddressOf::DownstreamRemote))),
    ("DOWNSTREAM_TLS_CIPHER", field(Field::Absent)),
    ("DOWNSTREAM_TLS_GROUP", field(Field::Absent)),
    ("DOWNSTREAM_TLS_SESSION_ID", field(Field::Absent)),
    ("DOWNSTREAM_TLS_VERSION", field(Field::Absent)),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", field(Field::Absent)),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", field(Field::DownstreamWireBytesReceived)),
    ("DOWNSTREAM_WIRE_BYTES_SENT", field(Field::DownstreamWireBytesSent)),
    ("FILTER_CHAIN_NAME", field(Field::FilterChainName)),
    ("GRPC_STATUS_NUMBER", Operator::GrpcStatus(GrpcStatusForm::Number)),
    ("LISTENER_NAME", field(Field::ListenerName)),
    ("LOCAL_REPLY_BODY", field(Field::LocalReplyBody)),
    ("PROTOCOL", field(Field::Protocol)),
    ("REQUEST_HEADERS_BYTES", field(Field::RequestHeadersBytes)),
    ("RESPONSE_CODE", field(Field::ResponseCode)),
    ("RESPONSE_FLAGS", field(Field::ResponseFlags)),
    ("RESPONSE_FLAGS_LONG", field(Field::ResponseFlagsLong)),
    ("RESPONSE_HEADERS_BYTES", field(Field::ResponseHeadersBytes)),
    ("RESPONSE_TRAILERS_BYTES", field(Field::ResponseTrailersBytes)),
    ("ROUTE_NAME", field(Field::RouteName)),
    ("STREAM_ID", field(Field::StreamId)),
    ("UNIQUE_ID", field(Field::UniqueId)),
    ("UPSTREAM_CLUSTER", field(Field::UpstreamCluster)),
    ("UPSTREAM_CLUSTER_RAW", field(Field::UpstreamClusterRaw)),
    ("UPSTREAM_CONNECTION_ID", field(Field::UpstreamConnectionId)),
    ("UPSTREAM_CONNECTION_IDS_ATTEMPTED", field(Field::UpstreamConnectionIdsAttempted)),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", field(Field::UpstreamHeaderBytesReceived)),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", field(Field::UpstreamHeaderBytesSent)),
    ("UPSTREAM_DETECTED_CLOSE_TYPE", field(Field::UpstreamDetectedCloseType)),
    ("UPSTREAM_HEADER_BYTES_RECEIVED", field(Field::UpstreamHeaderBytesReceived)),
    ("UPSTREAM_HEADER_BYTES_SENT", field(Field::UpstreamHeaderBytesSent)),
    ("UPSTREAM_HOST", field(Field::UpstreamHost)),
    ("UPSTREAM_HOSTS_ATTEMPTED", field(Field::UpstreamHostsAttempted)),
    ("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", field(Field::UpstreamHostsAttemptedWithoutPort)),
    ("UPSTREAM_HOST_NAME", field(Field::UpstreamHostName)),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED", field(Field::UpstreamHostNamesAttempted)),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", field(Field::UpstreamHostNamesAttemptedWithoutPort)),
    ("UPSTREAM_HOST_NAME_WITHOUT_PORT", field(Field::UpstreamHostNameWithoutPort)),
    ("UPSTREAM_LOCAL_ADDRESS", field(Field::Address(AddressOf::UpstreamLocal))),
    ("UPSTREAM_LOCAL_DNS_SAN", field(Field::Absent)),
    ("UPSTREAM_LOCAL_IP_SAN", field(Field::Absent)),
    ("UPSTREAM_LOCAL_PORT", field(Field::Port(AddressOf::UpstreamLocal))),
    ("UPSTREAM_LOCAL_URI_SAN", field(Field::Absent)),
    ("UPSTREAM_PEER_CERT", field(Field::Absent)),
    ("UPSTREAM_PEER_DNS_SAN", field(Field::Absent)),
    ("UPSTREAM_PEER_IP_SAN", field(Field::Absent)),
    ("UPSTREAM_PEER_ISSUER", field(Field::Absent)),
    ("UPSTREAM_PEER_SUBJECT", field(Field::Absent)),
    ("UPSTREAM_PEER_URI_SAN", field(Field::Absent)),
    ("UPSTREAM_PROTOCOL", field(Field::UpstreamProtocol)),
    ("UPSTREAM_REMOTE_ADDRESS", field(Field::Address(AddressOf::UpstreamRemote))),
    ("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", field(Field::UpstreamEndpointId)),
    ("UPSTREAM_REMOTE_PORT", field(Field::Port(AddressOf::UpstreamRemote))),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", field(Field::UpstreamRequestAttemptCount)),
    ("UPSTREAM_SERVER_NAME", field(Field::Absent)),
    ("UPSTREAM_TLS_CIPHER", field(Field::Absent)),
    ("UPSTREAM_TLS_GROUP", field(Field::Absent)),
    ("UPSTREAM_TLS_SESSION_ID", field(Field::Absent)),
    ("UPSTREAM_TLS_VERSION", field(Field::Absent)),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", field(Field::UpstreamTransportFailureReason)),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", field(Field::UpstreamWireBytesReceived)),
    ("UPSTREAM_WIRE_BYTES_SENT", field(Field::UpstreamWireBytesSent)),
    ("VIRTUAL_CLUSTER_NAME", field(Field::Absent)),
];

/// Addresses without a port, of which a parameter may ask for the network only.
const NETWORKS: &[(&str, AddressOf)] = &[
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", AddressOf::DownstreamLocal),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", AddressOf::DownstreamDirectRemote),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", AddressOf::DownstreamLocal),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", AddressOf::DownstreamRemote),
    ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", AddressOf::UpstreamLocal),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", AddressOf::UpstreamRemote),
];

/// Durations in milliseconds.
const DURATIONS: &[(&str, TimePoint, TimePoint)] = &[
    ("DURATION", TimePoint::DownstreamReceiveBegin, TimePoint::End),
    ("REQUEST_DURATION", TimePoint::DownstreamReceiveBegin, TimePoint::DownstreamReceiveEnd),
    ("REQUEST_TX_DURATION", TimePoint::DownstreamReceiveBegin, TimePoint::UpstreamSendEnd),
    ("RESPONSE_DURATION", TimePoint::DownstreamReceiveBegin, TimePoint::UpstreamReceiveBegin),
    ("RESPONSE_TX_DURATION", TimePoint::UpstreamReceiveBegin, TimePoint::DownstreamSendEnd),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", TimePoint::UpstreamPoolBegin, TimePoint::UpstreamReady),
];

/// What `tcp_proxy` would set with `propagate_response_headers` and `propagate_response_trailers`.
const TUNNEL_STATE: &[&str] =
    &["envoy.tcp_proxy.propagate_response_headers", "envoy.tcp_proxy.propagate_response_trailers"];

/// What needs features that are not implemented: the operator is known, so the error says so.
const UNSUPPORTED: &[&str] = &[
    "CEL",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "ROUTE_RESOLUTION_COUNT",
    "ROUTE_RESOLUTION_TIME_US",
    "SPAN_ID",
    "TLS_JA3_FINGERPRINT",
    "TLS_JA4_FINGERPRINT",
    "TRACE_ID",
    "UPSTREAM_FILTER_STATE",
    "UPSTREAM_LOCAL_CLOSE_REASON",
    "XFCC_VALUE",
];
