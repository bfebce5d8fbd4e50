//! Listeners for clients that nobody trusts: what Envoy says should be set there.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;
use manager_v3::HttpConnectionManager;
use manager_v3::http_connection_manager::CodecType;

use super::File;
use crate::codes::Code;
use crate::finding::{Findings, Path};
use crate::schema;

pub(super) fn manager(file: &mut File<'_>, path: &Path<'_>, message: &HttpConnectionManager) {
    let common = message.common_http_protocol_options.unwrap_or_default();
    let timeouts = [
        ("request_headers_timeout", message.request_headers_timeout.is_some()),
        ("request_timeout", message.request_timeout.is_some()),
        ("stream_idle_timeout", message.stream_idle_timeout.is_some()),
        ("common_http_protocol_options.idle_timeout", common.idle_timeout.is_some()),
    ];
    let unset: Vec<&str> = timeouts.iter().filter(|(_, set)| !set).map(|(name, _)| *name).collect();
    if !unset.is_empty() {
        let text = format_args!("not set for clients that nobody trusts: {}", unset.join(", "));
        file.warn(path, Code::EDGE_TIMEOUT, text);
    }
    http2(file, path, message);
    let paths = [
        ("normalize_path", message.normalize_path.as_ref().is_some_and(|flag| flag.value)),
        ("merge_slashes", message.merge_slashes),
        ("path_with_escaped_slashes_action", message.path_with_escaped_slashes_action > 1),
    ];
    let unset: Vec<&str> = paths.iter().filter(|(_, set)| !set).map(|(name, _)| *name).collect();
    if !unset.is_empty() {
        let text = format_args!("paths pass as clients write them, without {}", unset.join(", "));
        file.warn(path, Code::EDGE_PATH, text);
    }
    if common.headers_with_underscores_action == HeadersWithUnderscoresAction::Allow as i32
        && is_implemented("envoy.config.core.v3.HttpProtocolOptions", "headers_with_underscores_action")
    {
        file.warn(path, Code::EDGE_UNDERSCORES, "header names with underscores are let through");
    }
    if !message.use_remote_address.as_ref().is_some_and(|flag| flag.value) {
        let text = "use_remote_address is not set, so that clients can say that they are others";
        file.warn(path, Code::EDGE_REMOTE_ADDRESS, text);
    }
}

fn http2(file: &mut File<'_>, path: &Path<'_>, message: &HttpConnectionManager) {
    if message.codec_type == CodecType::Http1 as i32 {
        return;
    }
    let options = message.http2_protocol_options.clone().unwrap_or_default();
    let limits = [
        ("max_concurrent_streams", options.max_concurrent_streams.is_some()),
        ("initial_stream_window_size", options.initial_stream_window_size.is_some()),
        ("initial_connection_window_size", options.initial_connection_window_size.is_some()),
    ];
    let unset: Vec<&str> = limits.iter().filter(|(_, set)| !set).map(|(name, _)| *name).collect();
    if !unset.is_empty() {
        let here = path.field("http2_protocol_options");
        let text = format_args!("without limits of its own for HTTP/2: {}", unset.join(", "));
        file.warn(
            if message.http2_protocol_options.is_some() { &here } else { path },
            Code::EDGE_HTTP2,
            text,
        );
    }
}

pub(super) fn clusters(path: &Path<'_>, clusters: &[Cluster], findings: &mut Findings) {
    for (index, cluster) in clusters.iter().enumerate() {
        if cluster.per_connection_buffer_limit_bytes.is_none() {
            let text = "per_connection_buffer_limit_bytes is not set for connections to this cluster";
            findings.warning(&path.index(index), Code::EDGE_BUFFER, text);
        }
    }
}

/// Nobody should be asked to set what is refused.
fn is_implemented(message: &str, field: &str) -> bool {
    use crate::supported::FieldSupport;
    let support = schema::message(message).and_then(|message| message.support);
    support.is_some_and(|support| !matches!(support.field(field), FieldSupport::No))
}
