//! Timeouts that are over before others can be.

use std::fmt;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{RouteAction, route};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;
use envoy_types::pb::google::protobuf::Duration as DurationMessage;
use manager_v3::HttpConnectionManager;

use super::File;
use crate::codes::Code;
use crate::finding::Path;

/// A timeout that is set and not switched off.
pub(super) fn limit(message: Option<&DurationMessage>) -> Option<Duration> {
    let message = message?;
    let seconds = u64::try_from(message.seconds).ok()?;
    let nanos = u32::try_from(message.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos)).filter(|duration| !duration.is_zero())
}

/// Without trailing zeros, as it is written in a file.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}s", self.0.as_secs_f64())
    }
}

/// `shorter` ends what `longer` at `path` is to end, and first.
fn order(
    file: &mut File<'_>,
    path: &Path<'_>,
    (longer_name, longer): (&str, Option<Duration>),
    (shorter_name, shorter): (&str, Option<Duration>),
) {
    if let (Some(longer), Some(shorter)) = (longer, shorter)
        && longer > shorter
    {
        let (longer, shorter) = (Seconds(longer), Seconds(shorter));
        let text = format_args!(
            "{longer_name} {longer} has no effect: {shorter_name} is over after {shorter} already"
        );
        file.warn(path, Code::TIMEOUT_ORDER, text);
    }
}

pub(super) fn manager(file: &mut File<'_>, path: &Path<'_>, message: &HttpConnectionManager) {
    let headers = limit(message.request_headers_timeout.as_ref());
    let request = limit(message.request_timeout.as_ref());
    let here = path.field("request_headers_timeout");
    order(file, &here, ("request_headers_timeout", headers), ("request_timeout", request));
    let Some(common) = &message.common_http_protocol_options else { return };
    let here = path.field("common_http_protocol_options");
    let idle = limit(common.idle_timeout.as_ref());
    let whole = limit(common.max_connection_duration.as_ref());
    order(file, &here.field("idle_timeout"), ("idle_timeout", idle), ("max_connection_duration", whole));
}

/// A route's, in the connection manager that it stands in.
pub(super) fn route(
    file: &mut File<'_>,
    path: &Path<'_>,
    manager: &HttpConnectionManager,
    action: &route::Action,
) {
    let route::Action::Route(action) = action else { return };
    let path = path.field("route");
    let timeout = limit(action.timeout.as_ref());
    let here = path.field("timeout");
    let (idle_name, idle) = stream_idle(manager, action);
    order(file, &here, ("timeout", timeout), (idle_name, idle));
    let common = manager.common_http_protocol_options.as_ref();
    let stream = common.and_then(|common| common.max_stream_duration.as_ref());
    let own = action.max_stream_duration.as_ref().and_then(|own| own.max_stream_duration.as_ref());
    let stream = limit(own.or(stream));
    order(file, &here, ("timeout", timeout), ("max_stream_duration", stream));
    let retry = action.retry_policy.as_ref();
    let per_try = limit(retry.and_then(|retry| retry.per_try_timeout.as_ref()));
    let here = path.field("retry_policy");
    order(
        file,
        &here.field("per_try_timeout"),
        ("per_try_timeout", per_try),
        ("timeout of the route", timeout),
    );
    if let Some(ClusterSpecifier::Cluster(name)) = &action.cluster_specifier {
        let cluster = file.clusters.get(name.as_str()).copied();
        let connect = limit(cluster.and_then(|cluster| cluster.connect_timeout.as_ref()));
        if let (Some(connect), Some(timeout)) = (connect, timeout)
            && timeout < connect
        {
            let (timeout, connect) = (Seconds(timeout), Seconds(connect));
            let text = format_args!(
                "timeout {timeout} is over before connect_timeout {connect} of cluster {name:?}"
            );
            file.warn(&path.field("timeout"), Code::TIMEOUT_ORDER, text);
        }
    }
}

/// What ends a stream on which nothing moves, such as one that waits for its response.
fn stream_idle(manager: &HttpConnectionManager, action: &RouteAction) -> (&'static str, Option<Duration>) {
    if action.idle_timeout.is_some() {
        return ("idle_timeout", limit(action.idle_timeout.as_ref()));
    }
    let idle = match &manager.stream_idle_timeout {
        None => Some(Duration::from_secs(300)),
        set => limit(set.as_ref()),
    };
    ("stream_idle_timeout of the connection manager", idle)
}
