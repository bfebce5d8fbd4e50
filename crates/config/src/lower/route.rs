//! Route configurations and what a route matches.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::config::route::v3 as route_v3;

use super::{Context, header, http_filter, matcher, metadata, regex, route_action, value, virtual_host};
use crate::settings::{Fraction, PathMatch, Route, RouteAction, RouteConfiguration, RouteMatch};
use crate::{Code, Path};

/// What the whole of a route configuration decides for its routes.
#[derive(Clone, Copy)]
pub(super) struct RouteScope {
    /// Routes may only name known clusters.
    pub(super) checked: bool,
    /// Bytes of a direct response.
    pub(super) max_body: u32,
}

/// `checked` is what `validate_clusters` means when unset: true for a static configuration.
pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::RouteConfiguration,
    checked: bool,
) -> RouteConfiguration {
    let scope = RouteScope {
        checked: value::flag(message.validate_clusters.as_ref(), checked),
        max_body: message.max_direct_response_body_size_bytes.as_ref().map_or(4096, |limit| limit.value),
    };
    let (add, remove) = (&message.request_headers_to_add, &message.request_headers_to_remove);
    let request_headers = header::request(context, path, add, remove);
    let (add, remove) = (&message.response_headers_to_add, &message.response_headers_to_remove);
    let response_headers = header::response(context, path, add, remove);
    RouteConfiguration {
        name: message.name.clone(),
        virtual_hosts: virtual_host::lower(
            context,
            &path.field("virtual_hosts"),
            &message.virtual_hosts,
            scope,
        ),
        request_headers,
        response_headers,
        most_specific_wins: message.most_specific_header_mutations_wins,
        ignore_port: message.ignore_port_in_host_matching,
        filters: http_filter::of_route(context, path, &message.typed_per_filter_config),
    }
}

pub(super) fn routes(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[route_v3::Route],
    scope: RouteScope,
) -> Vec<Arc<Route>> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| route(context, &path.index(index), message, scope))
        .map(Arc::new)
        .collect()
}

fn route(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::Route,
    scope: RouteScope,
) -> Option<Route> {
    let matches = match &message.r#match {
        Some(matches) => route_match(context, &path.field("match"), matches),
        None => {
            context.missing(&path.field("match"), "a match is required");
            None
        }
    };
    let action = action(context, path, message.action.as_ref(), scope);
    let (add, remove) = (&message.request_headers_to_add, &message.request_headers_to_remove);
    let request_headers = header::request(context, path, add, remove);
    let (add, remove) = (&message.response_headers_to_add, &message.response_headers_to_remove);
    let response_headers = header::response(context, path, add, remove);
    let filters = http_filter::of_route(context, path, &message.typed_per_filter_config);
    Some(Route {
        name: message.name.clone(),
        matches: matches?,
        action: action?,
        request_headers,
        response_headers,
        metadata: metadata::lower(message.metadata.as_ref()),
        filters,
    })
}

fn action(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&route_v3::route::Action>,
    scope: RouteScope,
) -> Option<RouteAction> {
    use route_v3::route::Action;
    match message {
        Some(Action::Route(message)) => {
            let forward = route_action::forward(context, &path.field("route"), message, scope)?;
            Some(RouteAction::Forward(Box::new(forward)))
        }
        Some(Action::Redirect(message)) => {
            let redirect = route_action::redirect(context, &path.field("redirect"), message)?;
            Some(RouteAction::Redirect(Box::new(redirect)))
        }
        Some(Action::DirectResponse(message)) => {
            let here = path.field("direct_response");
            route_action::direct_response(context, &here, message, scope).map(RouteAction::Direct)
        }
        Some(Action::NonForwardingAction(_)) => Some(RouteAction::NonForwarding),
        Some(Action::FilterAction(_)) => {
            context.unsupported(&path.field("filter_action"), "an action of a filter");
            None
        }
        None => {
            context.missing(path, "route, redirect or direct_response is required");
            None
        }
    }
}

fn route_match(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::RouteMatch,
) -> Option<RouteMatch> {
    let case_sensitive = value::flag(message.case_sensitive.as_ref(), true);
    let path_match = path_match(context, path, message.path_specifier.as_ref(), case_sensitive);
    let headers = matcher::headers(context, &path.field("headers"), &message.headers);
    let query = matcher::queries(context, &path.field("query_parameters"), &message.query_parameters);
    let fraction = path.field("runtime_fraction");
    let fraction_ppm =
        message.runtime_fraction.as_ref().and_then(|message| fraction_ppm(context, &fraction, message));
    Some(RouteMatch {
        path: path_match?,
        case_sensitive,
        headers,
        query,
        fraction_ppm,
        grpc: message.grpc.is_some(),
    })
}

fn path_match(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&route_v3::route_match::PathSpecifier>,
    case_sensitive: bool,
) -> Option<PathMatch> {
    use route_v3::route_match::PathSpecifier as Specifier;
    let literal = |text: &str| matcher::bytes(text, !case_sensitive);
    let unsupported = match message {
        Some(Specifier::Prefix(text)) => return Some(PathMatch::Prefix(literal(text))),
        Some(Specifier::Path(text)) => return Some(PathMatch::Exact(literal(text))),
        Some(Specifier::SafeRegex(message)) => {
            return regex::whole(context, &path.field("safe_regex"), message).map(PathMatch::Regex);
        }
        Some(Specifier::PathSeparatedPrefix(text)) => {
            if text.is_empty() || text.ends_with('/') || text.contains(['?', '#']) {
                let here = path.field("path_separated_prefix");
                let problem = "a path without ?, # and final / is expected; without condition, use prefix: /";
                context.error(&here, Code::INVALID, problem);
                return None;
            }
            return Some(PathMatch::SeparatedPrefix(literal(text)));
        }
        Some(Specifier::ConnectMatcher(_)) => return Some(PathMatch::Connect),
        Some(Specifier::PathMatchPolicy(_)) => "path_match_policy",
        None => {
            context.missing(path, "prefix, path, safe_regex or path_separated_prefix is required");
            return None;
        }
    };
    context.unsupported(&path.field(unsupported), unsupported);
    None
}

/// Parts per million; `None` when all requests match.
fn fraction_ppm(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::RuntimeFractionalPercent,
) -> Option<u32> {
    let share = value::runtime_fraction(context, path, Some(message), Fraction::ALL);
    let Fraction { numerator, denominator } = share;
    Some(numerator.saturating_mul(1_000_000 / denominator)).filter(|parts| *parts < 1_000_000)
}
