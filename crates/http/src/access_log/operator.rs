//! What each operator yields.

use std::borrow::Cow;
use std::io::Write;
use std::net::IpAddr;

use proxy_config::settings::metadata;
use proxy_config::settings::{
    AddressOf, Field, FilterStateForm, FilterStateKind, GrpcStatusForm, HeaderChoice, HeaderSource, LogType,
    MetadataOf, Operator, PathSource, Precision, ResponseFlags, ServerNameSource, TimePoint,
};
use proxy_net::{Address, FilterStateText, UpstreamAttempt};
use proxy_runtime::Instant;
use serde_json::Value;

use super::FormatContext;
use super::time::{self, number};
use crate::forwarding::uuid;
use crate::joined::Direction;
use crate::message::Request;
use crate::name::HeaderId;
use crate::query;
use crate::reply::grpc_status_of;

/// Whether it yields a number.
pub(super) fn is_number(operator: &Operator) -> bool {
    match operator {
        Operator::Duration { .. } | Operator::GrpcStatus(GrpcStatusForm::Number) => true,
        Operator::Field(field) => matches!(
            field,
            Field::BytesReceived
                | Field::BytesSent
                | Field::ConnectionId
                | Field::DownstreamHeaderBytesReceived
                | Field::DownstreamHeaderBytesSent
                | Field::DownstreamWireBytesReceived
                | Field::DownstreamWireBytesSent
                | Field::Port(_)
                | Field::RequestHeadersBytes
                | Field::ResponseCode
                | Field::ResponseHeadersBytes
                | Field::ResponseTrailersBytes
                | Field::UpstreamConnectionId
                | Field::UpstreamHeaderBytesReceived
                | Field::UpstreamHeaderBytesSent
                | Field::UpstreamRequestAttemptCount
                | Field::UpstreamWireBytesReceived
                | Field::UpstreamWireBytesSent
                | Field::Zero
        ),
        _ => false,
    }
}

/// Writes the value. False, with nothing written, where there is none.
pub(super) fn write(operator: &Operator, context: &FormatContext<'_>, out: &mut Vec<u8>) -> bool {
    match operator {
        Operator::Field(field) => write_field(*field, context, out),
        Operator::Header(choice) => write_header(choice, context, out),
        Operator::Time(format) => {
            time::write(format, context, out);
            true
        }
        Operator::Duration { from, to, precision } => {
            match (time_point(*from, context), time_point(*to, context)) {
                (Some(from), Some(to)) if to >= from => {
                    let elapsed = to - from;
                    number(
                        match precision {
                            Precision::Milliseconds => elapsed.as_millis(),
                            Precision::Microseconds => elapsed.as_micros(),
                            Precision::Nanoseconds => elapsed.as_nanos(),
                        } as u64,
                        out,
                    );
                    true
                }
                _ => false,
            }
        }
        Operator::Path { with_query, source } => {
            let path = context.request.and_then(|request| path_from(request, *source));
            let path = path.as_deref();
            text(path.map(|path| if *with_query { path } else { query::without(path) }), out)
        }
        Operator::QueryParameter(name) => {
            let path = context.request.map(Request::path).unwrap_or_default();
            text(query::decoded_parameter(path, name).as_deref(), out)
        }
        Operator::QueryParameters { raw } => {
            let query = context.request.and_then(|request| query::of(request.path()));
            match query {
                Some(query) if !*raw => query::decode_visible(query, out),
                query => return text(query, out),
            }
            true
        }
        Operator::GrpcStatus(form) => {
            let is_grpc = context.stream.is_some_and(|stream| stream.is_grpc());
            match is_grpc.then(|| grpc_status(context)).flatten() {
                Some(status) => {
                    write_grpc_status(status, *form, out);
                    true
                }
                None => false,
            }
        }
        Operator::Metadata { of, namespace, path } => {
            with_metadata(*of, namespace, path, context, |value| match value {
                Value::Null => false,
                Value::String(value) => text(Some(value.as_bytes()), out),
                value => written(out, value),
            })
        }
        Operator::FilterState { key, form } => with_filter_state(key, *form, context, |object| {
            match form {
                FilterStateForm::Plain => out.extend_from_slice(&object.text),
                // A write to a vector does not fail.
                _ => {
                    drop(write!(out, "{}", Value::String(String::from_utf8_lossy(&object.text).into_owned())))
                }
            }
        }),
        Operator::ServerName(source) => {
            let server_name = context.connection.server_name.as_deref().map(str::as_bytes);
            let host = context.request.map(Request::authority).filter(|host| !host.is_empty());
            text(
                match source {
                    ServerNameSource::ServerName => server_name,
                    ServerNameSource::ServerNameFirst => server_name.or(host),
                    ServerNameSource::HostFirst => host.or(server_name),
                },
                out,
            )
        }
        Operator::Network { address, bits } => {
            with_address(*address, context, |address| match address.ip() {
                Some(ip) => write_network(ip.ip(), *bits, out),
                None => written(out, address),
            })
        }
    }
}

/// Gives `use_it` an object of the filter state; false where there is none that has the form.
pub(super) fn with_filter_state(
    key: &str,
    form: FilterStateForm,
    context: &FormatContext<'_>,
    use_it: impl FnOnce(&FilterStateText),
) -> bool {
    let object = match context.stream {
        Some(stream) => stream.filter_state(key),
        None => context.connection.filter_state.find(key),
    };
    let object = object.and_then(|object| object.downcast::<FilterStateText>().ok());
    let has_form = |object: &FilterStateText| match form {
        FilterStateForm::Plain => true,
        FilterStateForm::Typed => object.kind == FilterStateKind::Text,
        FilterStateForm::Field => false,
    };
    object.filter(|object| has_form(object)).map(|object| use_it(&object)).is_some()
}

/// Gives `use_it` a value of metadata; false where there is none.
pub(super) fn with_metadata(
    of: MetadataOf,
    namespace: &str,
    path: &[Box<str>],
    context: &FormatContext<'_>,
    use_it: impl FnOnce(&Value) -> bool,
) -> bool {
    let route = || context.stream.and_then(|stream| stream.route());
    match of {
        MetadataOf::Route => route()
            .is_some_and(|route| route.chosen().route().metadata.find(namespace, path).is_some_and(use_it)),
        MetadataOf::VirtualHost => route().is_some_and(|route| {
            route.chosen().virtual_host().metadata.find(namespace, path).is_some_and(use_it)
        }),
        MetadataOf::Cluster => context
            .record
            .cluster()
            .is_some_and(|cluster| cluster.metadata.find(namespace, path).is_some_and(use_it)),
        MetadataOf::UpstreamHost => context
            .record
            .last_attempt()
            .is_some_and(|attempt| attempt.host.metadata().find(namespace, path).is_some_and(use_it)),
        MetadataOf::Listener => {
            let of = context.connection.metadata.as_deref();
            of.is_some_and(|of| of.listener.find(namespace, path).is_some_and(use_it))
        }
        MetadataOf::FilterChain => {
            let of = context.connection.metadata.as_deref();
            of.is_some_and(|of| of.filter_chain.find(namespace, path).is_some_and(use_it))
        }
        MetadataOf::Stream => context.stream.is_some_and(|stream| {
            stream.with_metadata(|all| metadata::find(all, namespace, path).is_some_and(use_it))
        }),
    }
}

/// `grpc-status`, or what the response code stands for; 2 (unknown) without either.
pub(super) fn grpc_status_of_any(context: &FormatContext<'_>) -> u64 {
    grpc_status(context).unwrap_or(2)
}

fn write_field(field: Field, context: &FormatContext<'_>, out: &mut Vec<u8>) -> bool {
    let FormatContext { connection, record, .. } = *context;
    let mut count = |value: u64| {
        number(value, out);
        true
    };
    match field {
        Field::BytesReceived => count(record.received.body.get()),
        Field::BytesSent => count(record.sent.body.get()),
        Field::ConnectionId => count(connection.id.0),
        Field::DownstreamHeaderBytesReceived => count(record.received.headers.get()),
        Field::DownstreamHeaderBytesSent => count(record.sent.headers.get()),
        Field::DownstreamWireBytesReceived => count(record.received.wire.get()),
        Field::DownstreamWireBytesSent => count(record.sent.wire.get()),
        Field::RequestHeadersBytes => count(context.request.map_or(0, Request::header_bytes)),
        Field::ResponseCode => count(context.response_status.into()),
        Field::ResponseHeadersBytes => count(context.response.map_or(0, |headers| {
            // With `:status` and its three digits, as Envoy counts them.
            headers.byte_size() as u64 + 10
        })),
        Field::ResponseTrailersBytes => {
            count(context.trailers.map_or(0, |trailers| trailers.byte_size() as u64))
        }
        Field::UpstreamConnectionId => count(upstream(context, |a| a.connection.get().map_or(0, |id| id.0))),
        Field::UpstreamHeaderBytesReceived => count(upstream(context, |a| a.received.headers.get())),
        Field::UpstreamHeaderBytesSent => count(upstream(context, |a| a.sent.headers.get())),
        Field::UpstreamWireBytesReceived => count(upstream(context, |a| a.received.wire.get())),
        Field::UpstreamWireBytesSent => count(upstream(context, |a| a.sent.wire.get())),
        Field::UpstreamRequestAttemptCount => count(record.attempt_count.get().into()),
        Field::Zero => count(0),
        Field::Port(address) => with_address(address, context, |address| match address.ip() {
            Some(ip) => count(ip.port().into()),
            None => false,
        }),
        Field::Address(address) => with_address(address, context, |address| written(out, address)),
        Field::AccessLogType => text(Some(context.log_type.name().as_bytes()), out),
        Field::ConnectionTerminationDetails => {
            text(record.termination_details.borrow().as_deref().map(str::as_bytes), out)
        }
        Field::DownstreamDetectedCloseType => text(Some(b"Normal"), out),
        Field::UpstreamDetectedCloseType => {
            text(record.last_attempt().is_some().then_some(b"Normal".as_slice()), out)
        }
        // The address of an internal listener has one.
        Field::UpstreamEndpointId => last(context, out, |attempt, _| attempt.connection.get().is_some()),
        Field::FilterChainName => non_empty(context.filter_chain.as_bytes(), out),
        Field::ListenerName => non_empty(connection.listener.as_bytes(), out),
        Field::Protocol => text(record.protocol.get().map(str::as_bytes), out),
        Field::ResponseCodeDetails => write_details(context, out),
        Field::ResponseFlags => write_flags(record.flags().short_names(), out),
        Field::ResponseFlagsLong => write_flags(record.flags().long_names(), out),
        Field::RouteName => context.stream.is_some_and(|stream| match stream.route() {
            Some(route) => non_empty(route.chosen().route().name.as_bytes(), out),
            None => stream.moved_route().is_some_and(|name| non_empty(name.as_bytes(), out)),
        }),
        Field::StreamId => match context.log_type {
            LogType::TcpUpstreamConnected | LogType::TcpPeriodic | LogType::TcpConnectionEnd => {
                text(Some(&uuid(context.random.rotate_left(64))), out)
            }
            LogType::NotSet
            | LogType::DownstreamStart
            | LogType::DownstreamPeriodic
            | LogType::DownstreamEnd => {
                let id = context.request.and_then(|request| request.headers.joined(HeaderId::X_REQUEST_ID));
                text(id.as_deref(), out)
            }
            _ => false,
        },
        Field::UniqueId => text(Some(&uuid(context.random)), out),
        Field::UpstreamCluster => record.cluster().is_some_and(|cluster| {
            text(Some(cluster.alt_stat_name.as_deref().unwrap_or(&cluster.name).as_bytes()), out)
        }),
        Field::UpstreamClusterRaw => {
            record.cluster().is_some_and(|cluster| text(Some(cluster.name.as_bytes()), out))
        }
        Field::UpstreamConnectionIdsAttempted => {
            list(context, out, |attempt, out| attempt.connection.get().is_some_and(|id| written(out, id)))
        }
        Field::UpstreamHost => last(context, out, |attempt, out| written(out, attempt.host.address())),
        Field::UpstreamHostsAttempted => {
            list(context, out, |attempt, out| written(out, attempt.host.address()))
        }
        Field::UpstreamHostsAttemptedWithoutPort => {
            list(context, out, |attempt, out| write_without_port(attempt.host.address(), out))
        }
        Field::UpstreamHostName => last(context, out, |attempt, out| write_host_name(attempt, true, out)),
        Field::UpstreamHostNameWithoutPort => {
            last(context, out, |attempt, out| write_host_name(attempt, false, out))
        }
        Field::UpstreamHostNamesAttempted => {
            list(context, out, |attempt, out| write_host_name(attempt, true, out))
        }
        Field::UpstreamHostNamesAttemptedWithoutPort => {
            list(context, out, |attempt, out| write_host_name(attempt, false, out))
        }
        Field::UpstreamProtocol => {
            last(context, out, |attempt, out| text(attempt.protocol.get().map(str::as_bytes), out))
        }
        Field::UpstreamTransportFailureReason => last(context, out, |attempt, out| {
            text(attempt.failure.borrow().as_deref().map(str::as_bytes), out)
        }),
        Field::LocalReplyBody => text(Some(context.local_reply_body), out),
        Field::Empty => true,
        Field::Absent => false,
    }
}

fn text(value: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(value.unwrap_or_default());
    value.is_some()
}

fn non_empty(value: &[u8], out: &mut Vec<u8>) -> bool {
    text(Some(value).filter(|value| !value.is_empty()), out)
}

fn written(out: &mut Vec<u8>, value: impl std::fmt::Display) -> bool {
    // A write to a vector does not fail.
    let _ = write!(out, "{value}");
    true
}

fn write_header(choice: &HeaderChoice, context: &FormatContext<'_>, out: &mut Vec<u8>) -> bool {
    let names = [Some(&*choice.name), choice.alternative.as_deref()];
    for name in names.into_iter().flatten() {
        let value = match choice.source {
            HeaderSource::Request => context
                .request
                .and_then(|request| request.value_or_pseudo(name))
                .filter(|value| !value.is_empty() || !name.starts_with(':')),
            HeaderSource::Response if name == ":status" => {
                let status = context.response.map(|_| context.response_status);
                return status.is_some_and(|status| written(out, status));
            }
            HeaderSource::Response => {
                context.response.and_then(|response| response.value_in(Direction::Response, name))
            }
            HeaderSource::ResponseTrailer => {
                context.trailers.and_then(|trailers| trailers.value_in(Direction::ResponseTrailers, name))
            }
        };
        if value.is_some() {
            return text(value.as_deref(), out);
        }
    }
    false
}

fn path_from(request: &Request, source: Option<PathSource>) -> Option<Cow<'_, [u8]>> {
    let original = || request.headers.joined(HeaderId::X_ENVOY_ORIGINAL_PATH);
    let current = || Some(request.path()).filter(|path| !path.is_empty()).map(Cow::Borrowed);
    match source {
        Some(PathSource::Original) => original(),
        Some(PathSource::Current) => current(),
        None => original().or_else(current),
    }
}

fn time_point(point: TimePoint, context: &FormatContext<'_>) -> Option<Instant> {
    let record = context.record;
    let attempt = || record.last_attempt();
    match point {
        TimePoint::DownstreamReceiveBegin => Some(record.start),
        TimePoint::DownstreamReceiveEnd => record.receive_end.at(record.start),
        TimePoint::DownstreamSendBegin => record.send_begin.at(record.start),
        TimePoint::DownstreamSendEnd => record.send_end.at(record.start),
        TimePoint::End => Some(record.end.at(record.start).unwrap_or(context.now)),
        TimePoint::UpstreamPoolBegin => Some(attempt()?.start),
        TimePoint::UpstreamReady => attempt().and_then(|a| a.ready.at(a.start)),
        TimePoint::UpstreamConnectBegin => Some(attempt()?.connect.get()?.0),
        TimePoint::UpstreamConnectEnd => Some(attempt()?.connect.get()?.1),
        TimePoint::UpstreamSendBegin => attempt().and_then(|a| a.send_begin.at(a.start)),
        TimePoint::UpstreamSendEnd => attempt().and_then(|a| a.send_end.at(a.start)),
        TimePoint::UpstreamReceiveBegin => attempt().and_then(|a| a.receive_begin.at(a.start)),
        TimePoint::UpstreamReceiveEnd => attempt().and_then(|a| a.receive_end.at(a.start)),
        TimePoint::UpstreamHandshakeEnd | TimePoint::Never => None,
    }
}

fn with_address(
    which: AddressOf,
    context: &FormatContext<'_>,
    use_it: impl FnOnce(&Address) -> bool,
) -> bool {
    let connection = context.connection;
    match which {
        AddressOf::DownstreamRemote => match context.stream.and_then(|stream| stream.remote()) {
            Some(trusted) => use_it(&trusted),
            None => use_it(&connection.remote),
        },
        AddressOf::DownstreamDirectRemote => use_it(&connection.direct_remote),
        AddressOf::DownstreamLocal => use_it(&connection.local),
        // Where it is connected to: not yet known while it only tries.
        AddressOf::UpstreamRemote => context
            .record
            .last_attempt()
            .is_some_and(|attempt| attempt.connection.get().is_some() && use_it(attempt.host.address())),
        AddressOf::UpstreamLocal => context
            .record
            .last_attempt()
            .is_some_and(|attempt| attempt.local.borrow().as_ref().is_some_and(use_it)),
    }
}

fn upstream(context: &FormatContext<'_>, value: impl FnOnce(&UpstreamAttempt) -> u64) -> u64 {
    context.record.last_attempt().map_or(0, |attempt| value(&attempt))
}

fn last(
    context: &FormatContext<'_>,
    out: &mut Vec<u8>,
    write: impl FnOnce(&UpstreamAttempt, &mut Vec<u8>) -> bool,
) -> bool {
    context.record.last_attempt().is_some_and(|attempt| write(&attempt, out))
}

/// What each attempt has, with commas.
fn list(
    context: &FormatContext<'_>,
    out: &mut Vec<u8>,
    write: impl Fn(&UpstreamAttempt, &mut Vec<u8>) -> bool,
) -> bool {
    let start = out.len();
    for attempt in context.record.attempts() {
        // Of a connection that failed, HTTP names only the host.
        if context.stream.is_some() && attempt.connection.get().is_none() {
            continue;
        }
        let before = out.len();
        if before > start {
            out.push(b',');
        }
        if !write(&attempt, out) {
            out.truncate(before);
        }
    }
    out.len() > start
}

/// The host's name, or the address of one that has none.
fn write_host_name(attempt: &UpstreamAttempt, with_port: bool, out: &mut Vec<u8>) -> bool {
    match attempt.host.hostname() {
        "" if with_port => written(out, attempt.host.address()),
        "" => write_without_port(attempt.host.address(), out),
        name if with_port => text(Some(name.as_bytes()), out),
        name => {
            let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
            let bare = name.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(name, |(bare, _)| bare);
            text(Some(bare.as_bytes()), out)
        }
    }
}

fn write_without_port(address: &Address, out: &mut Vec<u8>) -> bool {
    match address.ip() {
        Some(ip) => written(out, ip.ip()),
        None => written(out, address),
    }
}

/// The address, or with `bits` the network it is in.
pub fn write_network(ip: IpAddr, bits: Option<u8>, out: &mut Vec<u8>) -> bool {
    let Some(bits) = bits else { return written(out, ip) };
    match ip {
        IpAddr::V4(ip) => {
            let bits = u32::from(bits).min(32);
            let masked = u32::from(ip) & u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            written(out, format_args!("{}/{bits}", std::net::Ipv4Addr::from(masked)))
        }
        IpAddr::V6(ip) => {
            let bits = u32::from(bits).min(128);
            let masked = u128::from(ip) & u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            written(out, format_args!("{}/{bits}", std::net::Ipv6Addr::from(masked)))
        }
    }
}

/// The details; for a failure to connect, with what the system said of it.
pub fn write_details(context: &FormatContext<'_>, out: &mut Vec<u8>) -> bool {
    let record = context.record;
    let details = record.details();
    if record.flags().intersects(ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
        && let Some(open) = details.strip_suffix('}')
        && let Some(attempt) = record.last_attempt()
        && let Some(failure) = attempt.failure.borrow().as_deref()
    {
        return written(out, format_args!("{open}|{failure}}}"));
    }
    non_empty(details.as_bytes(), out)
}

fn write_flags<'a>(names: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for name in names {
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
    }
    if out.len() == start {
        // A value, also where empty ones are omitted.
        out.push(b'-');
    }
    true
}

fn grpc_status(context: &FormatContext<'_>) -> Option<u64> {
    let said = context.trailers.and_then(|trailers| trailers.joined(HeaderId::GRPC_STATUS));
    let said = said.or_else(|| context.response.and_then(|response| response.joined(HeaderId::GRPC_STATUS)));
    let said = said.and_then(|value| std::str::from_utf8(&value).ok()?.trim().parse().ok());
    let status = context.record.status.get();
    said.or_else(|| (status > 0).then(|| grpc_status_of(status).into()))
}

fn write_grpc_status(status: u64, form: GrpcStatusForm, out: &mut Vec<u8>) {
    let names = usize::try_from(status).ok().and_then(|status| GRPC_NAMES.get(status));
    match (form, names) {
        (GrpcStatusForm::CamelString, Some((camel, _))) => out.extend_from_slice(camel.as_bytes()),
        (GrpcStatusForm::SnakeString, Some((_, snake))) => out.extend_from_slice(snake.as_bytes()),
        _ => number(status, out),
    }
}

const GRPC_NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];
