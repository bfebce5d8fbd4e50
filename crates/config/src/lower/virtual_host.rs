//! Virtual hosts and their domains.

use std::collections::HashSet;

use envoy_types::pb::envoy::config::route::v3 as route_v3;

use super::route::{RouteScope, routes};
use super::{Context, header, http_filter, metadata, rate_limit, value};
use crate::settings::{Domain, RequireTls, VirtualHost};
use crate::{Code, Path};

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[route_v3::VirtualHost],
    scope: RouteScope,
) -> Vec<VirtualHost> {
    let mut domains = HashSet::with_capacity(messages.len());
    let each = messages.iter().enumerate();
    each.map(|(index, message)| virtual_host(context, &path.index(index), message, &mut domains, scope))
        .collect()
}

fn virtual_host(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::VirtualHost,
    seen: &mut HashSet<String>,
    scope: RouteScope,
) -> VirtualHost {
    use route_v3::virtual_host::TlsRequirementType;
    let here = path.field("domains");
    if message.domains.is_empty() {
        context.missing(&here, "a virtual host needs at least one domain");
    }
    let each = message.domains.iter().enumerate();
    let domains = each.filter_map(|(index, text)| domain(context, &here.index(index), text, seen)).collect();
    let require_tls = match value::enumeration(context, &path.field("require_tls"), message.require_tls) {
        TlsRequirementType::None => RequireTls::None,
        TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
        TlsRequirementType::All => RequireTls::All,
    };
    let (add, remove) = (&message.request_headers_to_add, &message.request_headers_to_remove);
    let request_headers = header::request(context, path, add, remove);
    let (add, remove) = (&message.response_headers_to_add, &message.response_headers_to_remove);
    let response_headers = header::response(context, path, add, remove);
    VirtualHost {
        name: message.name.clone(),
        domains,
        routes: routes(context, &path.field("routes"), &message.routes, scope),
        request_headers,
        response_headers,
        require_tls,
        rate_limits: rate_limit::of_route(context, &path.field("rate_limits"), &message.rate_limits),
        metadata: metadata::lower(message.metadata.as_ref()),
        filters: http_filter::of_route(context, path, &message.typed_per_filter_config),
    }
}

fn domain(
    context: &mut Context<'_>,
    path: &Path<'_>,
    text: &str,
    seen: &mut HashSet<String>,
) -> Option<Domain> {
    let lower = text.to_ascii_lowercase();
    let domain = if lower == "*" {
        Domain::Any
    } else if let Some(suffix) = lower.strip_prefix('*') {
        Domain::Suffix(suffix.into())
    } else if let Some(prefix) = lower.strip_suffix('*') {
        Domain::Prefix(prefix.into())
    } else {
        Domain::Exact(lower.as_str().into())
    };
    if !seen.insert(lower) {
        let message = format_args!("the domain {text:?} is listed twice in this route configuration");
        context.error(path, Code::DUPLICATE_DOMAIN, message);
        return None;
    }
    Some(domain)
}
