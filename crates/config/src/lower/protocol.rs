//! HTTP protocol options, of connection managers and of clusters in both spellings.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3 as cluster_v3;
use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3 as case_v3;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream_v3;
use envoy_types::pb::google::protobuf::UInt32Value;

use super::{Context, any, value};
use crate::settings::{
    HeaderCase, Http1Options, Http2Keepalive, Http2Options, UnderscoreAction, UpstreamProtocol,
};
use crate::{Code, Path};

/// `envoy.config.core.v3.HttpProtocolOptions` with its defaults.
pub(super) struct Common {
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) max_stream_duration: Option<Duration>,
    pub(super) max_headers: u32,
    pub(super) max_requests_per_connection: Option<u32>,
    /// As far as it was said.
    pub(super) max_response_header_bytes: Option<u32>,
    /// Of requests; no effect in a cluster, as in Envoy.
    pub(super) underscores: UnderscoreAction,
}

pub(super) fn common(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&core_v3::HttpProtocolOptions>,
) -> Common {
    use core_v3::http_protocol_options::HeadersWithUnderscoresAction;
    let unset = core_v3::HttpProtocolOptions::default();
    let message = message.unwrap_or(&unset);
    let hour = Some(Duration::from_secs(3600));
    let idle = path.field("idle_timeout");
    let connection = path.field("max_connection_duration");
    let stream = path.field("max_stream_duration");
    let count = path.field("max_headers_count");
    let kilobytes = path.field("max_response_headers_kb");
    let action = path.field("headers_with_underscores_action");
    let underscores = match value::enumeration(context, &action, message.headers_with_underscores_action) {
        HeadersWithUnderscoresAction::Allow => UnderscoreAction::Allow,
        HeadersWithUnderscoresAction::RejectRequest => UnderscoreAction::RejectRequest,
        HeadersWithUnderscoresAction::DropHeader => UnderscoreAction::DropHeader,
    };
    Common {
        underscores,
        idle_timeout: value::limit(context, &idle, message.idle_timeout.as_ref(), hour),
        max_connection_duration: value::duration(
            context,
            &connection,
            message.max_connection_duration.as_ref(),
        ),
        max_stream_duration: value::limit(context, &stream, message.max_stream_duration.as_ref(), None),
        max_headers: value::number(context, &count, message.max_headers_count.as_ref(), 1..=u32::MAX, 100),
        max_requests_per_connection: value::count(message.max_requests_per_connection.as_ref()),
        max_response_header_bytes: message
            .max_response_headers_kb
            .as_ref()
            .map(|limit| 1024 * value::number(context, &kilobytes, Some(limit), 1..=8192, 60)),
    }
}

pub(super) fn http1(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&core_v3::Http1ProtocolOptions>,
) -> Http1Options {
    let Some(message) = message else { return Http1Options::default() };
    let host = path.field("default_host_for_http_10");
    if !message.default_host_for_http_10.bytes().all(|byte| byte.is_ascii_graphic()) {
        context.error(&host, Code::INVALID, "this is no host");
    }
    let format = path.field("header_key_format");
    Http1Options {
        enable_trailers: message.enable_trailers,
        accept_http_10: message.accept_http_10,
        default_host_for_http_10: message.default_host_for_http_10.clone().into(),
        refuse_absolute_url: !value::flag(message.allow_absolute_url.as_ref(), true),
        allow_chunked_length: message.allow_chunked_length,
        header_case: message
            .header_key_format
            .as_ref()
            .map_or(HeaderCase::Lower, |message| header_case(context, &format, message)),
        stream_error_on_invalid_message: value::flag(
            message.override_stream_error_on_invalid_http_message.as_ref(),
            false,
        ),
    }
}

fn header_case(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::http1_protocol_options::HeaderKeyFormat,
) -> HeaderCase {
    use core_v3::http1_protocol_options::header_key_format::HeaderFormat;
    let extension = match &message.header_format {
        Some(HeaderFormat::ProperCaseWords(_)) => return HeaderCase::Proper,
        Some(HeaderFormat::StatefulFormatter(extension)) => extension,
        None => {
            context.missing(path, "proper_case_words or stateful_formatter is required");
            return HeaderCase::Lower;
        }
    };
    let here = path.field("stateful_formatter");
    let here = here.field("typed_config");
    let Some(any) = &extension.typed_config else {
        context.missing(&here, "typed_config is required");
        return HeaderCase::Lower;
    };
    if !any::holds::<case_v3::PreserveCaseFormatterConfig>(any) {
        let name = any::type_name(any);
        context.unsupported_type(&here, format_args!("the header formatter {name} is not supported"));
        return HeaderCase::Lower;
    }
    let Some(message) = any::decode::<case_v3::PreserveCaseFormatterConfig>(context, &here, any) else {
        return HeaderCase::Lower;
    };
    use case_v3::preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders as OnEnvoy;
    let kind = here.field("formatter_type_on_envoy_headers");
    let proper = match value::enumeration(context, &kind, message.formatter_type_on_envoy_headers) {
        OnEnvoy::Default => false,
        OnEnvoy::ProperCase => true,
    };
    HeaderCase::Preserve { reason: message.forward_reason_phrase, proper }
}

pub(super) fn http2(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&core_v3::Http2ProtocolOptions>,
) -> Http2Options {
    let defaults = Http2Options::default();
    let Some(message) = message else { return defaults };
    let mut number = |field: &str, number: &Option<UInt32Value>, low, high, default| {
        value::number(context, &path.field(field), number.as_ref(), low..=high, default)
    };
    let streams = &message.max_concurrent_streams;
    let max_concurrent_streams =
        number("max_concurrent_streams", streams, 1, MAX_31_BITS, defaults.max_concurrent_streams);
    let window = &message.initial_stream_window_size;
    let initial_stream_window =
        number("initial_stream_window_size", window, MIN_WINDOW, MAX_31_BITS, defaults.initial_stream_window);
    let window = &message.initial_connection_window_size;
    let initial_connection_window = number(
        "initial_connection_window_size",
        window,
        MIN_WINDOW,
        MAX_31_BITS,
        defaults.initial_connection_window,
    );
    let table = &message.hpack_table_size;
    let hpack_table_size = number("hpack_table_size", table, 0, u32::MAX, defaults.hpack_table_size);
    let frames = &message.max_outbound_frames;
    let max_outbound_frames =
        number("max_outbound_frames", frames, 1, u32::MAX, defaults.max_outbound_frames);
    let field = "max_outbound_control_frames";
    let frames = &message.max_outbound_control_frames;
    let max_outbound_control_frames =
        number(field, frames, 1, u32::MAX, defaults.max_outbound_control_frames);
    let field = "max_consecutive_inbound_frames_with_empty_payload";
    let frames = &message.max_consecutive_inbound_frames_with_empty_payload;
    let max_empty_frames = number(field, frames, 0, u32::MAX, defaults.max_empty_frames);
    let field = "max_inbound_priority_frames_per_stream";
    let frames = &message.max_inbound_priority_frames_per_stream;
    let max_priority_frames = number(field, frames, 0, u32::MAX, defaults.max_priority_frames);
    let field = "max_inbound_window_update_frames_per_data_frame_sent";
    let frames = &message.max_inbound_window_update_frames_per_data_frame_sent;
    let max_window_updates = number(field, frames, 1, u32::MAX, defaults.max_window_updates);
    let here = path.field("connection_keepalive");
    let keepalive =
        message.connection_keepalive.as_ref().and_then(|message| keepalive(context, &here, message));
    #[expect(deprecated, reason = "the older spelling is part of the v3 API")]
    let older = message.stream_error_on_invalid_http_messaging;
    let stream_error = message.override_stream_error_on_invalid_http_message.as_ref();
    let options = Http2Options {
        max_concurrent_streams,
        initial_stream_window,
        initial_connection_window,
        keepalive,
        hpack_table_size,
        max_outbound_frames,
        max_outbound_control_frames,
        max_empty_frames,
        max_priority_frames,
        max_window_updates,
        stream_error_on_invalid_message: value::flag(stream_error, older),
        allow_connect: message.allow_connect,
        max_metadata_size: message
            .allow_metadata
            .then(|| message.max_metadata_size.as_ref().map_or(MAX_METADATA, |size| size.value)),
        custom_settings: Box::default(),
    };
    custom_settings(context, path, message, options)
}

/// Adds `custom_settings_parameters`. One that has a field of its own counts as that field.
fn custom_settings(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::Http2ProtocolOptions,
    mut options: Http2Options,
) -> Http2Options {
    let path = path.field("custom_settings_parameters");
    let mut all = Vec::<(u16, u32)>::new();
    for (index, parameter) in message.custom_settings_parameters.iter().enumerate() {
        let here = path.index(index);
        let (Some(identifier), Some(value)) = (&parameter.identifier, &parameter.value) else { continue };
        let Ok(identifier) = u16::try_from(identifier.value) else { continue };
        let value = value.value;
        if all.iter().any(|(other, of_other)| *other == identifier && *of_other != value) {
            context.error(
                &here,
                Code::INVALID,
                format_args!("parameter {identifier} has another value before"),
            );
            continue;
        }
        let (field, named) = match identifier {
            1 => ("hpack_table_size", &message.hpack_table_size),
            3 => ("max_concurrent_streams", &message.max_concurrent_streams),
            4 => ("initial_stream_window_size", &message.initial_stream_window_size),
            2 => {
                context.error(&here, Code::INVALID, "ENABLE_PUSH: server push is not supported");
                continue;
            }
            8 => {
                context.error(&here, Code::INVALID, "ENABLE_CONNECT_PROTOCOL is what allow_connect says");
                continue;
            }
            _ => {
                if !all.contains(&(identifier, value)) {
                    all.push((identifier, value));
                }
                continue;
            }
        };
        if named.as_ref().is_some_and(|named| named.value != value) {
            context.error(&here, Code::INVALID, format_args!("{field} has another value"));
        } else if identifier == 4 && value > MAX_31_BITS {
            context.error(&here, Code::OUT_OF_RANGE, "a window is at most 2147483647 bytes");
        } else {
            match identifier {
                1 => options.hpack_table_size = value,
                3 => options.max_concurrent_streams = value,
                _ => options.initial_stream_window = value,
            }
            all.push((identifier, value));
        }
    }
    all.retain(|(identifier, _)| !matches!(identifier, 1 | 3 | 4));
    options.custom_settings = all.into();
    options
}

fn keepalive(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::KeepaliveSettings,
) -> Option<Http2Keepalive> {
    let mut duration = |field: &str, message| value::duration(context, &path.field(field), message);
    let interval = duration("interval", message.interval.as_ref());
    let idle_interval = duration("connection_idle_interval", message.connection_idle_interval.as_ref());
    let timeout = duration("timeout", message.timeout.as_ref());
    let jitter = message.interval_jitter.as_ref().map_or(15.0, |percent| percent.value);
    if !(0.0..=100.0).contains(&jitter) {
        let code = Code::OUT_OF_RANGE;
        context.error(&path.field("interval_jitter"), code, "a percentage from 0 to 100 is expected");
    }
    if timeout.is_none() {
        context.missing(&path.field("timeout"), "a timeout is required");
    }
    for (field, value) in [("interval", interval), ("connection_idle_interval", idle_interval)] {
        if value.is_some_and(|value| value < Duration::from_millis(1)) {
            context.error(&path.field(field), Code::OUT_OF_RANGE, "at least 0.001s is expected");
        }
    }
    if interval.is_none() && idle_interval.is_none() {
        return None;
    }
    Some(Http2Keepalive { interval, timeout: timeout?, interval_jitter_percent: jitter, idle_interval })
}

/// What a cluster's HTTP connections are.
pub(super) struct Upstream {
    pub(super) protocol: UpstreamProtocol,
    pub(super) http1: Http1Options,
    pub(super) common: Common,
}

/// `typed_extension_protocol_options`, or the older fields of the cluster itself, which Envoy does not
/// look at when the former has HTTP options.
pub(super) fn upstream(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &cluster_v3::Cluster,
) -> Upstream {
    let extensions = path.field("typed_extension_protocol_options");
    let mut typed = None;
    for (name, any) in &message.typed_extension_protocol_options {
        let here = extensions.key(name);
        if any::holds::<upstream_v3::HttpProtocolOptions>(any) {
            if name != any::type_name(any) {
                let message = format_args!("the key of these options is {}", any::type_name(any));
                context.error(&here, Code::INVALID, message);
            }
            if let Some(message) = any::decode(context, &here, any) {
                typed = Some(typed_upstream(context, &here, &message));
            }
        } else {
            let name = any::type_name(any);
            context.unsupported_type(&here, format_args!("the protocol options {name} are not supported"));
        }
    }
    let mut upstream = typed.unwrap_or_else(|| untyped_upstream(context, path, message));
    #[expect(deprecated, reason = "the older spelling is part of the v3 API")]
    let older = message.max_requests_per_connection.as_ref();
    let max_requests = &mut upstream.common.max_requests_per_connection;
    *max_requests = max_requests.or(value::count(older));
    upstream
}

fn typed_upstream(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &upstream_v3::HttpProtocolOptions,
) -> Upstream {
    use upstream_v3::http_protocol_options::UpstreamProtocolOptions as Options;
    use upstream_v3::http_protocol_options::explicit_http_config::ProtocolConfig;
    let here = path.field("common_http_protocol_options");
    let common = upstream_common(context, &here, message.common_http_protocol_options.as_ref());
    let explicit = path.field("explicit_http_config");
    let downstream = path.field("use_downstream_protocol_config");
    let mut http1_options = Http1Options::default();
    let protocol = match &message.upstream_protocol_options {
        Some(Options::ExplicitHttpConfig(message)) => match &message.protocol_config {
            Some(ProtocolConfig::HttpProtocolOptions(message)) => {
                http1_options = http1(context, &explicit.field("http_protocol_options"), Some(message));
                UpstreamProtocol::Http1
            }
            Some(ProtocolConfig::Http2ProtocolOptions(message)) => {
                let here = explicit.field("http2_protocol_options");
                UpstreamProtocol::Http2(Box::new(http2(context, &here, Some(message))))
            }
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                context.unsupported(&explicit.field("http3_protocol_options"), "HTTP/3");
                UpstreamProtocol::Http1
            }
            None => {
                context.missing(&explicit, "http_protocol_options or http2_protocol_options is required");
                UpstreamProtocol::Http1
            }
        },
        Some(Options::UseDownstreamProtocolConfig(message)) => {
            let here = downstream.field("http_protocol_options");
            http1_options = http1(context, &here, message.http_protocol_options.as_ref());
            let here = downstream.field("http2_protocol_options");
            // Without HTTP/2 options, Envoy sends HTTP/2 streams as HTTP/1.
            message.http2_protocol_options.as_ref().map_or(UpstreamProtocol::Http1, |message| {
                UpstreamProtocol::SameAsDownstream(Box::new(http2(context, &here, Some(message))))
            })
        }
        Some(Options::AutoConfig(_)) => {
            context.unsupported(&path.field("auto_config"), "choosing the protocol by ALPN");
            UpstreamProtocol::Http1
        }
        None => {
            context.missing(path, "explicit_http_config or use_downstream_protocol_config is required");
            UpstreamProtocol::Http1
        }
    };
    Upstream { protocol, http1: http1_options, common }
}

#[expect(deprecated, reason = "the older spellings are part of the v3 API")]
fn untyped_upstream(context: &mut Context<'_>, path: &Path<'_>, message: &cluster_v3::Cluster) -> Upstream {
    use cluster_v3::cluster::ClusterProtocolSelection as Selection;
    let here = path.field("common_http_protocol_options");
    let common = upstream_common(context, &here, message.common_http_protocol_options.as_ref());
    let here = path.field("http_protocol_options");
    let http1 = http1(context, &here, message.http_protocol_options.as_ref());
    let here = path.field("http2_protocol_options");
    let options = message.http2_protocol_options.as_ref();
    let options = options.map(|message| Box::new(http2(context, &here, Some(message))));
    let here = path.field("protocol_selection");
    let protocol = match (options, value::enumeration(context, &here, message.protocol_selection)) {
        (None, _) => UpstreamProtocol::Http1,
        (Some(options), Selection::UseConfiguredProtocol) => UpstreamProtocol::Http2(options),
        (Some(options), Selection::UseDownstreamProtocol) => UpstreamProtocol::SameAsDownstream(options),
    };
    Upstream { protocol, http1, common }
}

fn upstream_common(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&core_v3::HttpProtocolOptions>,
) -> Common {
    let common = common(context, path, message);
    if common.max_stream_duration.is_some() {
        context.unsupported(&path.field("max_stream_duration"), "max_stream_duration of a cluster");
    }
    common
}

/// RFC 9113, sections 5.1.2 and 6.9.2.
const MAX_31_BITS: u32 = (1 << 31) - 1;
/// `max_metadata_size` when unset. Bytes.
const MAX_METADATA: u64 = 1 << 20;
const MIN_WINDOW: u32 = 65_535;
