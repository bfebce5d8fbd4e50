//! What a route does: forward, redirect, answer.

use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::config::route::v3 as route_v3;

use super::data_source::{self, Limit};
use super::route::RouteScope;
use super::{Context, header, http_filter, rate_limit, regex, value};
use crate::settings::{
    ClusterTarget, DirectResponse, Forward, HostRewrite, PathRewrite, Priority, Redirect, RedirectPath,
    RedirectScheme, RouteUpgrade, RuntimeValue, Terminated, WeightedCluster, WeightedClusters,
};
use crate::{Code, Path};

pub(super) fn forward(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::RouteAction,
    scope: RouteScope,
) -> Option<Forward> {
    use core_v3::RoutingPriority;
    use route_v3::route_action::ClusterNotFoundResponseCode as NotFoundCode;
    let target = target(context, path, message, scope);
    let here = path.field("cluster_not_found_response_code");
    let not_found = match value::enumeration(context, &here, message.cluster_not_found_response_code) {
        NotFoundCode::ServiceUnavailable => 503,
        NotFoundCode::NotFound => 404,
        NotFoundCode::InternalServerError => 500,
    };
    let priority = match value::enumeration(context, &path.field("priority"), message.priority) {
        RoutingPriority::Default => Priority::Default,
        RoutingPriority::High => Priority::High,
    };
    let stream = path.field("max_stream_duration");
    let max_stream = message.max_stream_duration.as_ref().and_then(|message| {
        let here = stream.field("max_stream_duration");
        value::override_limit(context, &here, message.max_stream_duration.as_ref())
    });
    #[expect(deprecated, reason = "it is part of the v3 API")]
    let include_virtual_host_limits = message.include_vh_rate_limits.as_ref();
    Some(Forward {
        cluster_not_found_status: not_found,
        path_rewrite: path_rewrite(context, path, message),
        host_rewrite: host_rewrite(context, path, message.host_rewrite_specifier.as_ref()),
        append_x_forwarded_host: message.append_x_forwarded_host,
        timeout: value::limit(context, &path.field("timeout"), message.timeout.as_ref(), Some(TIMEOUT)),
        idle_timeout: value::override_limit(
            context,
            &path.field("idle_timeout"),
            message.idle_timeout.as_ref(),
        ),
        flush_timeout: value::override_limit(
            context,
            &path.field("flush_timeout"),
            message.flush_timeout.as_ref(),
        ),
        max_stream_duration: max_stream,
        priority,
        rate_limits: rate_limit::of_route(context, &path.field("rate_limits"), &message.rate_limits),
        include_virtual_host_limits: value::flag(include_virtual_host_limits, false),
        upgrades: upgrades(context, &path.field("upgrade_configs"), &message.upgrade_configs),
        terminated: terminated(context, &path.field("upgrade_configs"), &message.upgrade_configs),
        target: target?,
    })
}

fn upgrades(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[route_v3::route_action::UpgradeConfig],
) -> Vec<RouteUpgrade> {
    let mut lowered: Vec<RouteUpgrade> = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let here = here.field("upgrade_type");
        let kind = &*message.upgrade_type;
        if kind.is_empty() {
            context.missing(&here, "the name of an upgrade is required");
        }
        if lowered.iter().any(|other| other.kind.eq_ignore_ascii_case(kind)) {
            context.error(&here, Code::DUPLICATE_NAME, format_args!("the upgrade {kind} is there twice"));
        }
        lowered
            .push(RouteUpgrade { kind: kind.into(), enabled: value::flag(message.enabled.as_ref(), true) });
    }
    lowered
}

fn terminated(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[route_v3::route_action::UpgradeConfig],
) -> Terminated {
    let mut terminated = Terminated::None;
    for (index, message) in messages.iter().enumerate() {
        let Some(connect) = &message.connect_config else { continue };
        let here = path.index(index);
        let here = here.field("connect_config");
        if !message.upgrade_type.eq_ignore_ascii_case("CONNECT") {
            context.error(&here, Code::INVALID, "connect_config goes with the upgrade_type CONNECT");
        }
        terminated = if connect.allow_post { Terminated::ConnectAndPost } else { Terminated::Connect };
    }
    terminated
}

fn target(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::RouteAction,
    scope: RouteScope,
) -> Option<ClusterTarget> {
    use route_v3::route_action::ClusterSpecifier as Specifier;
    let unsupported = match &message.cluster_specifier {
        Some(Specifier::Cluster(name)) => {
            let name = context.cluster_name(&path.field("cluster"), name, scope.checked);
            return Some(ClusterTarget::Cluster(name));
        }
        Some(Specifier::ClusterHeader(name)) => {
            let name = header::header_name(context, &path.field("cluster_header"), name)?;
            return Some(ClusterTarget::Header(name));
        }
        Some(Specifier::WeightedClusters(message)) => {
            let here = path.field("weighted_clusters");
            return weighted_clusters(context, &here, message, scope).map(ClusterTarget::Weighted);
        }
        Some(Specifier::ClusterSpecifierPlugin(_)) => "cluster_specifier_plugin",
        Some(Specifier::InlineClusterSpecifierPlugin(_)) => "inline_cluster_specifier_plugin",
        None => {
            context.missing(path, "cluster, cluster_header or weighted_clusters is required");
            return None;
        }
    };
    context.unsupported(&path.field(unsupported), unsupported);
    None
}

fn weighted_clusters(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::WeightedCluster,
    scope: RouteScope,
) -> Option<WeightedClusters> {
    use route_v3::weighted_cluster::RandomValueSpecifier;
    let here = path.field("clusters");
    let each = message.clusters.iter().enumerate();
    let clusters: Vec<_> = each
        .map(|(index, cluster)| {
            let mut lowered = weighted_cluster(context, &here.index(index), cluster, scope);
            if !message.runtime_key_prefix.is_empty() {
                let key = format!("{}.{}", message.runtime_key_prefix, cluster.name);
                let weight = context.runtime(&key).and_then(RuntimeValue::count);
                lowered.weight =
                    weight.map_or(lowered.weight, |weight| u32::try_from(weight).unwrap_or(u32::MAX));
            }
            lowered
        })
        .collect();
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    let random_value_header = match &message.random_value_specifier {
        None => None,
        Some(RandomValueSpecifier::HeaderName(name)) => {
            header::header_name(context, &path.field("header_name"), name)
        }
        Some(RandomValueSpecifier::UseHashPolicy(_)) => {
            context.unsupported(&path.field("use_hash_policy"), "use_hash_policy");
            None
        }
    };
    match u32::try_from(total) {
        Ok(0) if message.clusters.iter().any(|cluster| cluster.weight.is_none()) => {} // reported there
        Ok(0) => context.error(&here, Code::BAD_WEIGHTS, "at least one weight must be greater than 0"),
        Ok(total) => return Some(WeightedClusters { clusters, total, random_value_header }),
        Err(_) => context.error(&here, Code::BAD_WEIGHTS, "the sum of the weights exceeds 4294967295"),
    }
    None
}

fn weighted_cluster(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::weighted_cluster::ClusterWeight,
    scope: RouteScope,
) -> WeightedCluster {
    use route_v3::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    if !message.cluster_header.is_empty() {
        context.unsupported(&path.field("cluster_header"), "a cluster header among weighted clusters");
    } else if message.name.is_empty() {
        context.missing(&path.field("name"), "the name of a cluster is required");
    }
    if message.weight.is_none() {
        context.missing(&path.field("weight"), "a weight is required");
    }
    let (add, remove) = (&message.request_headers_to_add, &message.request_headers_to_remove);
    let request_headers = header::request(context, path, add, remove);
    let (add, remove) = (&message.response_headers_to_add, &message.response_headers_to_remove);
    let response_headers = header::response(context, path, add, remove);
    WeightedCluster {
        name: context.cluster_name(&path.field("name"), &message.name, scope.checked),
        weight: message.weight.as_ref().map_or(0, |weight| weight.value),
        request_headers,
        response_headers,
        host_rewrite: message.host_rewrite_specifier.as_ref().map(|specifier| {
            let HostRewriteSpecifier::HostRewriteLiteral(host) = specifier;
            header::header_value(context, &path.field("host_rewrite_literal"), host)
        }),
        filters: http_filter::of_route(context, path, &message.typed_per_filter_config),
    }
}

fn path_rewrite(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::RouteAction,
) -> Option<PathRewrite> {
    let prefix = message.prefix_rewrite.as_str();
    let regex_path = path.field("regex_rewrite");
    match (&message.regex_rewrite, prefix) {
        (None, "") => None,
        (None, prefix) => {
            Some(PathRewrite::Prefix(header::header_value(context, &path.field("prefix_rewrite"), prefix)))
        }
        (Some(message), "") => {
            let (pattern, substitution) = regex::rewrite(context, &regex_path, message)?;
            Some(PathRewrite::Regex { pattern, substitution })
        }
        (Some(_), _) => {
            context.error(&regex_path, Code::CONFLICT, "prefix_rewrite and regex_rewrite exclude each other");
            None
        }
    }
}

fn host_rewrite(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&route_v3::route_action::HostRewriteSpecifier>,
) -> Option<HostRewrite> {
    use route_v3::route_action::HostRewriteSpecifier as Specifier;
    match message? {
        Specifier::HostRewriteLiteral(host) => {
            let host = header::header_value(context, &path.field("host_rewrite_literal"), host);
            Some(host).filter(|host| !host.is_empty()).map(HostRewrite::Literal)
        }
        Specifier::AutoHostRewrite(auto) => auto.value.then_some(HostRewrite::Auto),
        Specifier::HostRewriteHeader(name) => {
            header::header_name(context, &path.field("host_rewrite_header"), name).map(HostRewrite::Header)
        }
        Specifier::HostRewritePathRegex(message) => {
            let here = path.field("host_rewrite_path_regex");
            let (pattern, substitution) = regex::rewrite(context, &here, message)?;
            Some(HostRewrite::PathRegex { pattern, substitution })
        }
        Specifier::HostRewrite(_) => {
            context.unsupported(&path.field("host_rewrite"), "a formatted host");
            None
        }
    }
}

pub(super) fn redirect(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::RedirectAction,
) -> Option<Redirect> {
    use route_v3::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let mut text = |field: &str, text: &str| header::header_value(context, &path.field(field), text);
    let scheme = match &message.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(RedirectScheme::Https),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => {
            Some(RedirectScheme::Other(text("scheme_redirect", scheme)))
        }
        _ => None,
    };
    let host = Some(text("host_redirect", &message.host_redirect)).filter(|host| !host.is_empty());
    let rewrite = match &message.path_rewrite_specifier {
        Some(PathRewriteSpecifier::PathRedirect(to)) if !to.is_empty() => {
            Some(RedirectPath::Whole(text("path_redirect", to)))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(to)) if !to.is_empty() => {
            Some(RedirectPath::Prefix(text("prefix_rewrite", to)))
        }
        Some(PathRewriteSpecifier::RegexRewrite(message)) => {
            let (pattern, substitution) = regex::rewrite(context, &path.field("regex_rewrite"), message)?;
            Some(RedirectPath::Regex { pattern, substitution })
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            context.unsupported(&path.field("path_rewrite"), "a formatted path");
            None
        }
        _ => None,
    };
    let port = u16::try_from(message.port_redirect).unwrap_or_else(|_| {
        context.error(&path.field("port_redirect"), Code::OUT_OF_RANGE, "a port is expected");
        0
    });
    let status = match value::enumeration(context, &path.field("response_code"), message.response_code) {
        RedirectResponseCode::MovedPermanently => 301,
        RedirectResponseCode::Found => 302,
        RedirectResponseCode::SeeOther => 303,
        RedirectResponseCode::TemporaryRedirect => 307,
        RedirectResponseCode::PermanentRedirect => 308,
    };
    let port = Some(port).filter(|port| *port > 0);
    Some(Redirect { scheme, host, port, path: rewrite, status, strip_query: message.strip_query })
}

pub(super) fn direct_response(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::DirectResponseAction,
    scope: RouteScope,
) -> Option<DirectResponse> {
    let status = u16::try_from(message.status).ok().filter(|status| (200..600).contains(status));
    if status.is_none() {
        let code = Code::OUT_OF_RANGE;
        context.error(&path.field("status"), code, "a status from 200 to 599 is expected");
    }
    let body = match &message.body {
        Some(source) => {
            let limit = Limit { bytes: scope.max_body, what: "max_direct_response_body_size_bytes" };
            data_source::bytes(context, &path.field("body"), source, limit)
        }
        None => Some(Bytes::new()),
    };
    Some(DirectResponse { status: status?, body: body? })
}

const TIMEOUT: Duration = Duration::from_secs(15);
