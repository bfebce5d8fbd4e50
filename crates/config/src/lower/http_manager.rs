//! The HTTP connection manager and the HTTP filters in it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;

use super::{
    Context, access_log, address, forwarding, header, http_filter, local_reply, protocol, route, value,
};
use crate::settings::{
    AccessLogOptions, CodecType, EscapedSlashes, HttpConnectionManager, MAX_HTTP_FILTERS, PathNormalization,
    ProxyStatus, RouteConfiguration, ServerHeader, ServerHeaderMode, UpgradeConfig,
};
use crate::{Code, Path};

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &manager_v3::HttpConnectionManager,
) -> Option<HttpConnectionManager> {
    let common_path = path.field("common_http_protocol_options");
    let common = protocol::common(context, &common_path, message.common_http_protocol_options.as_ref());
    let http1_path = path.field("http_protocol_options");
    let http2_path = path.field("http2_protocol_options");
    let kilobytes = path.field("max_request_headers_kb");
    let mut limit =
        |field: &str, message, default| value::limit(context, &path.field(field), message, default);
    let stream_idle_timeout =
        limit("stream_idle_timeout", message.stream_idle_timeout.as_ref(), Some(Duration::from_secs(300)));
    let stream_flush_timeout =
        limit("stream_flush_timeout", message.stream_flush_timeout.as_ref(), stream_idle_timeout);
    let request_timeout = limit("request_timeout", message.request_timeout.as_ref(), None);
    let request_headers_timeout =
        limit("request_headers_timeout", message.request_headers_timeout.as_ref(), None);
    let delayed_close_timeout =
        limit("delayed_close_timeout", message.delayed_close_timeout.as_ref(), Some(Duration::from_secs(1)));
    let drain_timeout =
        value::duration(context, &path.field("drain_timeout"), message.drain_timeout.as_ref());
    let internal = message.internal_address_config.as_ref();
    let ranges = internal.map(|internal| internal.cidr_ranges.as_slice()).unwrap_or_default();
    let ranges_path = path.field("internal_address_config");
    let internal_addresses = address::cidrs(context, &ranges_path.field("cidr_ranges"), ranges);
    let mut http1 = protocol::http1(context, &http1_path, message.http_protocol_options.as_ref());
    let mut http2 = protocol::http2(context, &http2_path, message.http2_protocol_options.as_ref());
    if let Some(stream_error) = message.stream_error_on_invalid_http_message.as_ref() {
        let of_http1 = message.http_protocol_options.as_ref();
        let of_http2 = message.http2_protocol_options.as_ref();
        let own = of_http1.and_then(|options| options.override_stream_error_on_invalid_http_message.as_ref());
        http1.stream_error_on_invalid_message = value::flag(own, stream_error.value);
        let own = of_http2.and_then(|options| options.override_stream_error_on_invalid_http_message.as_ref());
        http2.stream_error_on_invalid_message = value::flag(own, stream_error.value);
    }
    let routes = routes(context, path, message.route_specifier.as_ref());
    Some(HttpConnectionManager {
        stat_prefix: message.stat_prefix.clone(),
        codec: codec(context, &path.field("codec_type"), message.codec_type),
        http1,
        http2,
        filters: http_filter::chain(context, &path.field("http_filters"), &message.http_filters),
        server: server_header(context, path, message),
        use_remote_address: value::flag(message.use_remote_address.as_ref(), false),
        xff_trusted_hops: message.xff_num_trusted_hops,
        skip_xff_append: message.skip_xff_append,
        internal_addresses,
        internal_unix_sockets: internal.is_some_and(|internal| internal.unix_sockets),
        forwarding: forwarding::lower(context, path, message),
        generate_request_id: value::flag(message.generate_request_id.as_ref(), true),
        preserve_external_request_id: message.preserve_external_request_id,
        request_id_in_response: message.always_set_request_id_in_response,
        path: normalization(context, path, message),
        max_request_header_bytes: 1024
            * value::number(context, &kilobytes, message.max_request_headers_kb.as_ref(), 1..=8192, 60),
        max_request_headers: common.max_headers,
        underscores: common.underscores,
        max_requests_per_connection: common.max_requests_per_connection,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_stream_duration: common.max_stream_duration,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        safe_connection_duration: message.http1_safe_max_connection_duration,
        drain_timeout: drain_timeout.unwrap_or(Duration::from_secs(5)),
        delayed_close_timeout,
        upgrades: upgrades(context, path, message),
        access_logs: access_log::lower(context, &path.field("access_log"), &message.access_log).into(),
        access_log_options: access_log_options(context, path, message),
        proxy_status: proxy_status(context, path, message),
        proxy_interim: message.proxy_100_continue,
        local_replies: message
            .local_reply_config
            .as_ref()
            .map(|message| local_reply::lower(context, &path.field("local_reply_config"), message)),
        routes: routes?,
    })
}

fn upgrades(
    context: &mut Context<'_>,
    path: &Path<'_>,
    manager: &manager_v3::HttpConnectionManager,
) -> Vec<UpgradeConfig> {
    let path = path.field("upgrade_configs");
    let mut lowered: Vec<UpgradeConfig> = Vec::with_capacity(manager.upgrade_configs.len());
    let (mut chains, mut count) = (1, manager.http_filters.len());
    for (index, message) in manager.upgrade_configs.iter().enumerate() {
        let here = path.index(index);
        let kind = &*message.upgrade_type;
        if lowered.iter().any(|other| other.kind.eq_ignore_ascii_case(kind)) {
            let problem = format_args!("the upgrade {kind} is there twice");
            context.error(&here.field("upgrade_type"), Code::DUPLICATE_NAME, problem);
        }
        let mut own = UpgradeConfig {
            kind: kind.into(),
            enabled: value::flag(message.enabled.as_ref(), true),
            filters: Vec::new(),
            chain: 0,
        };
        if !message.filters.is_empty() {
            let here = here.field("filters");
            own.filters = http_filter::chain(context, &here, &message.filters);
            own.chain = chains;
            chains = chains.saturating_add(1);
            let fitted = count <= MAX_HTTP_FILTERS;
            count += message.filters.len();
            if fitted && message.filters.len() <= MAX_HTTP_FILTERS && count > MAX_HTTP_FILTERS {
                let problem =
                    format_args!("with these, the chains have more than {MAX_HTTP_FILTERS} HTTP filters");
                context.error(&here, Code::OUT_OF_RANGE, problem);
            }
        }
        lowered.push(own);
    }
    lowered
}

fn access_log_options(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &manager_v3::HttpConnectionManager,
) -> AccessLogOptions {
    let here = path.field("access_log_options");
    let options = message.access_log_options.as_ref();
    #[expect(deprecated, reason = "the older spellings are part of the v3 API")]
    let (at_start, interval) =
        (message.flush_access_log_on_new_request, message.access_log_flush_interval.as_ref());
    let newer = options.and_then(|options| options.access_log_flush_interval.as_ref());
    let older = access_log::interval(context, &path.field("access_log_flush_interval"), interval);
    let newer = access_log::interval(context, &here.field("access_log_flush_interval"), newer);
    AccessLogOptions {
        at_start: at_start || options.is_some_and(|options| options.flush_access_log_on_new_request),
        interval: newer.or(older),
    }
}

fn codec(context: &mut Context<'_>, path: &Path<'_>, value: i32) -> CodecType {
    use manager_v3::http_connection_manager::CodecType as Message;
    match value::enumeration(context, path, value) {
        Message::Auto => CodecType::Auto,
        Message::Http1 => CodecType::Http1,
        Message::Http2 => CodecType::Http2,
        Message::Http3 => {
            context.error(path, Code::UNSUPPORTED_VALUE, "HTTP/3 is not supported");
            CodecType::Auto
        }
    }
}

fn routes(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&manager_v3::http_connection_manager::RouteSpecifier>,
) -> Option<Arc<RouteConfiguration>> {
    use manager_v3::http_connection_manager::RouteSpecifier;
    match message {
        Some(RouteSpecifier::RouteConfig(message)) => {
            return Some(Arc::new(route::lower(context, &path.field("route_config"), message, true)));
        }
        Some(RouteSpecifier::Rds(_)) => context.unsupported(&path.field("rds"), "route discovery"),
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            context.unsupported(&path.field("scoped_routes"), "scoped routing")
        }
        None => context.missing(path, "route_config is required"),
    }
    None
}

fn server_header(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &manager_v3::HttpConnectionManager,
) -> ServerHeader {
    use manager_v3::http_connection_manager::ServerHeaderTransformation as Transformation;
    let here = path.field("server_header_transformation");
    let mode = match value::enumeration(context, &here, message.server_header_transformation) {
        Transformation::Overwrite => ServerHeaderMode::Overwrite,
        Transformation::AppendIfAbsent => ServerHeaderMode::AppendIfAbsent,
        Transformation::PassThrough => ServerHeaderMode::PassThrough,
    };
    let name = match message.server_name.as_str() {
        "" => Bytes::from_static(b"envoy"),
        name => header::header_value(context, &path.field("server_name"), name),
    };
    ServerHeader { name, mode }
}

fn proxy_status(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &manager_v3::HttpConnectionManager,
) -> Option<ProxyStatus> {
    use manager_v3::http_connection_manager::proxy_status_config::ProxyName;
    let status = message.proxy_status_config.as_ref()?;
    let here = path.field("proxy_status_config");
    let name = match &status.proxy_name {
        None => server_header(context, path, message).name,
        Some(ProxyName::LiteralProxyName(name)) => {
            header::header_value(context, &here.field("literal_proxy_name"), name)
        }
        // Envoy does so also where it is false.
        Some(ProxyName::UseNodeId(_)) => {
            let id = context.node.id.clone();
            header::header_value(context, &here.field("use_node_id"), &id)
        }
    };
    Some(ProxyStatus {
        name,
        details: !status.remove_details,
        termination_details: !status.remove_connection_termination_details,
        response_flags: !status.remove_response_flags,
        recommended_code: status.set_recommended_response_code,
    })
}

fn normalization(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &manager_v3::HttpConnectionManager,
) -> PathNormalization {
    use manager_v3::http_connection_manager::PathWithEscapedSlashesAction as Action;
    let here = path.field("path_with_escaped_slashes_action");
    let escaped_slashes = match value::enumeration(context, &here, message.path_with_escaped_slashes_action) {
        Action::ImplementationSpecificDefault | Action::KeepUnchanged => EscapedSlashes::KeepUnchanged,
        Action::RejectRequest => EscapedSlashes::RejectRequest,
        Action::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        Action::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    };
    PathNormalization {
        normalize: value::flag(message.normalize_path.as_ref(), false),
        merge_slashes: message.merge_slashes,
        escaped_slashes,
    }
}
