//! `proxy-status` (RFC 9209): what went wrong on the way, for whoever reads the response.

use proxy_config::settings::{ProxyStatus, ResponseFlags};

use crate::access_log::{FormatContext, write_details};
use crate::message::Response;

/// Appends to `response` what the flags of its stream stand for, if that is an error, and sets the status that the RFC
/// recommends for it where that is asked for.
pub fn append_proxy_status(response: &mut Response, settings: &ProxyStatus, context: &FormatContext<'_>) {
    let flags = context.record.flags();
    let Some((_, error, recommended)) = ERRORS.iter().find(|(flag, ..)| flags.intersects(*flag)) else {
        return;
    };
    let mut value = response.headers.joined(PROXY_STATUS).unwrap_or_default().into_owned();
    if !value.is_empty() {
        value.extend_from_slice(b", ");
    }
    value.extend_from_slice(&settings.name);
    value.extend_from_slice(b"; error=");
    value.extend_from_slice(error.as_bytes());
    if settings.details {
        value.extend_from_slice(b"; details=\"");
        write_escaped(settings, context, &mut value);
        value.push(b'"');
    }
    response.headers.set(PROXY_STATUS, &value);
    if settings.recommended_code
        && let Some(status) = recommended
    {
        response.status = *status;
    }
}

/// Details, what ended the connection, and flags, as the inside of a string (RFC 8941, section 3.3.3).
fn write_escaped(settings: &ProxyStatus, context: &FormatContext<'_>, out: &mut Vec<u8>) {
    let mut details = Vec::new();
    write_details(context, &mut details);
    if settings.termination_details
        && let Some(ended) = context.record.termination_details.borrow().as_deref()
    {
        details.extend_from_slice(b"; ");
        details.extend_from_slice(ended.as_bytes());
    }
    if settings.response_flags {
        for (index, name) in context.record.flags().short_names().enumerate() {
            details.extend_from_slice(if index == 0 { b"; " } else { b"," });
            details.extend_from_slice(name.as_bytes());
        }
    }
    for byte in details {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => out.push(b' '),
        }
    }
}

const PROXY_STATUS: &str = "proxy-status";

/// What each flag stands for, and the status that section 2.3 has for that; the first one that is set counts. As in Envoy,
/// which knows a fault of the client's (`DPE`) only after it has answered.
const ERRORS: &[(ResponseFlags, &str, Option<u16>)] = {
    use ResponseFlags as Flag;
    &[
        (Flag::FAILED_LOCAL_HEALTH_CHECK, "destination_unavailable", Some(503)),
        (Flag::NO_HEALTHY_UPSTREAM, "destination_unavailable", Some(503)),
        (Flag::UPSTREAM_REQUEST_TIMEOUT, "http_response_timeout", Some(504)),
        (Flag::DURATION_TIMEOUT, "connection_timeout", Some(504)),
        (Flag::LOCAL_RESET, "connection_timeout", Some(504)),
        (Flag::UPSTREAM_REMOTE_RESET, "connection_terminated", Some(502)),
        (Flag::UPSTREAM_CONNECTION_FAILURE, "connection_refused", Some(502)),
        (Flag::UNAUTHORIZED_EXTERNAL_SERVICE, "connection_refused", Some(502)),
        (Flag::UPSTREAM_CONNECTION_TERMINATION, "connection_terminated", Some(502)),
        (Flag::OVERLOAD_MANAGER, "connection_limit_reached", Some(503)),
        (Flag::DROP_OVERLOAD, "connection_limit_reached", Some(503)),
        (Flag::FAULT_INJECTED, "http_request_error", None),
        (Flag::UPSTREAM_OVERFLOW, "connection_limit_reached", Some(503)),
        (Flag::NO_ROUTE_FOUND, "destination_not_found", Some(500)),
        (Flag::RATE_LIMITED, "connection_limit_reached", Some(503)),
        (Flag::RATE_LIMIT_SERVICE_ERROR, "connection_limit_reached", Some(503)),
        (Flag::UPSTREAM_RETRY_LIMIT_EXCEEDED, "destination_unavailable", Some(503)),
        (Flag::STREAM_IDLE_TIMEOUT, "http_response_timeout", Some(504)),
        (Flag::INVALID_ENVOY_REQUEST_HEADERS, "http_request_error", None),
        (Flag::UPSTREAM_MAX_STREAM_DURATION, "http_response_timeout", Some(504)),
        (Flag::NO_FILTER_CONFIG_FOUND, "proxy_configuration_error", Some(500)),
        (Flag::UPSTREAM_PROTOCOL_ERROR, "http_protocol_error", Some(502)),
        (Flag::NO_CLUSTER_FOUND, "destination_unavailable", Some(503)),
        (Flag::DNS_RESOLUTION_FAILED, "dns_error", Some(502)),
    ]
};
