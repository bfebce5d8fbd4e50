//! What somebody may have meant who wrote what does not exist.

use std::cmp::Reverse;

use crate::schema::{self, FieldKind, Message, Shape};

/// The candidate that is the fewest typing errors away from `word`, if that is near enough to be it.
pub(crate) fn closest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = normal(word);
    if word.is_empty() || word.len() > MAX_WORD {
        return None;
    }
    let mut limit = (word.len() / 3).clamp(1, 4);
    let mut best = None;
    for candidate in candidates {
        let distance =
            if candidate.len() > MAX_WORD { None } else { distance(&word, &normal(candidate), limit) };
        if let Some(distance) = distance {
            best = Some(candidate);
            if distance == 0 {
                break;
            }
            limit = distance - 1;
        }
    }
    best
}

/// For a field that `message` does not have: what v3 calls it, if it is one of an older API.
pub(crate) fn successor(message: &Message, name: &str) -> Option<&'static str> {
    let name = snake(name);
    let mut matching = RENAMED.iter().filter(|(within, old, _)| {
        *old == name && (within.is_empty() || message.name.rsplit('.').next() == Some(within))
    });
    matching.next().map(|(_, _, hint)| *hint)
}

/// For a field that `message` does not have: a similar one of it, or the same one of a message in it; else what there is.
pub(crate) fn field(message: &Message, name: &str) -> Option<String> {
    let names = || message.fields.iter().map(|field| field.name.as_str());
    if let Some(found) = closest(name, names()) {
        return Some(format!("did you mean `{found}`?"));
    }
    let inside = message.fields.iter().find(|field| match &field.kind {
        FieldKind::Message(to) if field.shape == Shape::Single => to.follow().field(name).is_some(),
        _ => false,
    });
    if let Some(inside) = inside {
        return Some(format!("did you mean `{}.{name}`?", inside.name));
    }
    match message.fields.len() {
        0 => Some("it has no fields".to_owned()),
        1..=MAX_LISTED => Some(format!("it has {}", names().collect::<Vec<_>>().join(", "))),
        _ => None,
    }
}

/// For a type that does not exist: one of the same or a similar name.
pub(crate) fn type_name(name: &str) -> Option<String> {
    fn last(name: &str) -> &str {
        name.rsplit('.').next().unwrap_or_default()
    }
    let wanted = normal(last(name));
    let limit = (wanted.len() / 4).clamp(1, 3);
    if wanted.len() > MAX_WORD {
        return None;
    }
    let mine: Vec<&str> = name.split(['.', '_']).collect();
    let near = schema::type_names().iter().filter_map(|other| {
        let distance = distance(&wanted, &normal(last(other)), limit)?;
        let shared = other.split(['.', '_']).filter(|word| mine.contains(word)).count();
        Some((shared, Reverse(distance), Reverse(other.len()), other))
    });
    let (.., found) = near.max()?;
    Some(format!("did you mean `type.googleapis.com/{found}`?"))
}

/// Words that differ in case or in how they are joined are the same word.
fn normal(word: &str) -> String {
    word.chars().filter(|letter| !matches!(letter, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// Letters to insert, remove, replace or swap with their neighbour; `None` when more than `limit`.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, letter) in a.iter().enumerate() {
        let mut here = vec![row + 1];
        for (column, other) in b.iter().enumerate() {
            let replaced = above[column] + usize::from(letter != other);
            let mut least = replaced.min(above[column + 1] + 1).min(here[column] + 1);
            if row > 0 && column > 0 && *letter == b[column - 1] && a[row - 1] == *other {
                least = least.min(before[column - 1] + 1);
            }
            here.push(least);
        }
        if here.iter().min().is_some_and(|least| *least > limit) {
            return None;
        }
        before = std::mem::replace(&mut above, here);
    }
    above.last().copied().filter(|distance| *distance <= limit)
}

const MAX_WORD: usize = 200;
/// Fields of a message that are listed when none is similar.
const MAX_LISTED: usize = 12;

/// Fields of older APIs as (message, or any; field; what to write instead).
const RENAMED: &[(&str, &str, &str)] = &[
    ("Cluster", "hosts", "in v3: `load_assignment` with `endpoints`, `lb_endpoints` and `endpoint.address`"),
    ("Cluster", "tls_context", "in v3: `transport_socket` with an UpstreamTlsContext"),
    ("Cluster", "extension_protocol_options", "in v3: `typed_extension_protocol_options`"),
    ("Cluster", "service_name", "in v3: `eds_cluster_config.service_name`"),
    ("Cluster", "eds_config", "in v3: `eds_cluster_config.eds_config`"),
    ("FilterChain", "tls_context", "in v3: `transport_socket` with a DownstreamTlsContext"),
    ("FilterChainMatch", "sni_domains", "in v3: `server_names`"),
    ("Listener", "use_proxy_proto", "in v3: a listener filter, envoy.filters.listener.proxy_protocol"),
    ("Listener", "ssl_context", "in v3: `filter_chains[].transport_socket`"),
    ("Listener", "filters", "in v3: `filter_chains: [{filters: [...]}]`"),
    ("Listener", "bind_to_port_deprecated", "in v3: `bind_to_port`"),
    ("Filter", "config", "in v3: `typed_config` with `@type`"),
    ("HttpFilter", "config", "in v3: `typed_config` with `@type`"),
    ("AccessLog", "config", "in v3: `typed_config` with `@type`"),
    ("StatsSink", "config", "in v3: `typed_config` with `@type`"),
    ("TransportSocket", "config", "in v3: `typed_config` with `@type`"),
    ("ListenerFilter", "config", "in v3: `typed_config` with `@type`"),
    ("FileAccessLog", "json_format", "in v3: `log_format.json_format`"),
    ("RouteMatch", "regex", "in v3: `safe_regex: {regex: ...}`"),
    ("RouteMatch", "exact", "in v3: `path`"),
    ("HeaderMatcher", "regex_match", "in v3: `string_match: {safe_regex: {regex: ...}}`"),
    ("HeaderMatcher", "value", "in v3: `string_match: {exact: ...}`"),
    ("HeaderMatcher", "regex", "in v3: `string_match: {safe_regex: {regex: ...}}`"),
    ("QueryParameterMatcher", "value", "in v3: `string_match: {exact: ...}`"),
    ("QueryParameterMatcher", "regex", "in v3: `string_match: {safe_regex: {regex: ...}}`"),
    ("StringMatcher", "regex", "in v3: `safe_regex: {regex: ...}`"),
    ("RouteAction", "host_rewrite_specifier", "in v3: `host_rewrite_literal`"),
    ("RouteAction", "auto_host_rewrite_header", "in v3: `host_rewrite_header`"),
    ("RouteAction", "request_headers_to_add", "in v3: `request_headers_to_add` of the route, beside `route`"),
    (
        "RouteAction",
        "response_headers_to_add",
        "in v3: `response_headers_to_add` of the route, beside `route`",
    ),
    ("RouteAction", "runtime", "in v3: `runtime_fraction` of the route's `match`"),
    ("RouteMatch", "runtime", "in v3: `runtime_fraction`"),
    ("CorsPolicy", "allow_origin", "in v3: `allow_origin_string_match: [{exact: ...}]`"),
    ("CorsPolicy", "allow_origin_regex", "in v3: `allow_origin_string_match: [{safe_regex: ...}]`"),
    ("CorsPolicy", "enabled", "in v3: `filter_enabled`"),
    ("", "per_filter_config", "in v3: `typed_per_filter_config`, with `@type` in each"),
    ("HttpConnectionManager", "idle_timeout", "in v3: `common_http_protocol_options.idle_timeout`"),
    (
        "HttpConnectionManager",
        "max_request_headers_count",
        "in v3: `common_http_protocol_options.max_headers_count`",
    ),
    ("HttpConnectionManager", "routes", "in v3: `route_config.virtual_hosts[].routes`"),
    ("HttpConnectionManager", "virtual_hosts", "in v3: `route_config.virtual_hosts`"),
    ("HttpConnectionManager", "filters", "in v3: `http_filters`"),
    ("Tracing", "operation_name", "in v3: `traffic_direction` of the listener"),
    ("Tracing", "request_headers_for_tags", "in v3: `custom_tags` with `request_header`"),
    ("TcpProxy", "deprecated_v1", "in v3: filter chains with `filter_chain_match`, each with a tcp_proxy"),
    ("DownstreamTlsContext", "tls_certificates", "in v3: `common_tls_context.tls_certificates`"),
    ("UpstreamTlsContext", "tls_certificates", "in v3: `common_tls_context.tls_certificates`"),
    ("CertificateValidationContext", "verify_subject_alt_name", "in v3: `match_typed_subject_alt_names`"),
    ("CommonTlsContext", "deprecated_v1", "in v3: `alpn_protocols`"),
    ("HealthCheck", "http2_health_check", "in v3: `http_health_check` with `codec_client_type: HTTP2`"),
    ("HttpHealthCheck", "use_http2", "in v3: `codec_client_type: HTTP2`"),
    ("HttpHealthCheck", "service_name", "in v3: `service_name_matcher: {exact: ...}`"),
    ("RedisHealthCheck", "config", "in v3: `custom_health_check.typed_config`"),
    ("Bootstrap", "runtime", "in v3: `layered_runtime`"),
    ("Bootstrap", "listeners", "in v3: `static_resources.listeners`"),
    ("Bootstrap", "clusters", "in v3: `static_resources.clusters`"),
    ("Bootstrap", "rate_limit_service", "in v3: `rate_limit_service` of the ratelimit filter"),
    ("Bootstrap", "flags_path_deprecated", "in v3: `flags_path`"),
    ("Bootstrap", "lds_config", "in v3: `dynamic_resources.lds_config`"),
    ("Bootstrap", "cds_config", "in v3: `dynamic_resources.cds_config`"),
    ("Node", "build_version", "in v3: `user_agent_build_version`"),
    ("ApiConfigSource", "cluster_names_deprecated", "in v3: `cluster_names` or `grpc_services`"),
    ("LbEndpoint", "address", "in v3: `endpoint.address`"),
    ("LocalityLbEndpoints", "endpoints", "in v3: `lb_endpoints`"),
    ("ClusterLoadAssignment", "lb_endpoints", "in v3: `endpoints: [{lb_endpoints: [...]}]`"),
    ("Address", "address", "in v3: `socket_address: {address: ..., port_value: ...}`"),
    ("SocketAddress", "port", "in v3: `port_value`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_seen_through() {
        let names = ["stat_prefix", "address", "connect_timeout", "type", "name"];
        for (word, expected) in [
            ("stat_prefx", Some("stat_prefix")),
            ("statPrefix", Some("stat_prefix")),
            ("adress", Some("address")),
            ("connect-timeout", Some("connect_timeout")),
            ("conect_timeuot", Some("connect_timeout")),
            ("tpye", Some("type")),
            ("hosts", None),
            ("", None),
        ] {
            assert_eq!(closest(word, names.into_iter()), expected, "{word}");
        }
    }

    #[test]
    fn renamed_fields_are_really_gone_and_name_what_there_is() {
        for (within, old, _) in RENAMED.iter().filter(|(within, ..)| !within.is_empty()) {
            let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
            let with_field = |name: &&String| {
                last(name) == *within
                    && schema::message(name).is_some_and(|message| message.field(old).is_some())
            };
            let v3 = |name: &&String| {
                name.starts_with("envoy.config.") || name.starts_with("envoy.extensions.filters.")
            };
            let still: Vec<_> = schema::type_names().iter().filter(v3).filter(with_field).collect();
            assert!(still.is_empty(), "{within}.{old}: {still:?}");
        }
    }

    #[test]
    fn types_are_found_by_their_last_name() {
        let hint = |name| type_name(name).unwrap_or_default();
        assert!(
            hint("envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager").contains(
                "/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`"
            )
        );
        assert!(hint("envoy.extensions.filters.http.router.v3.Routr").contains("http.router.v3.Router`"));
        assert!(hint("envoy.api.v2.Cluster").contains("envoy.config.cluster.v3.Cluster`"));
    }
}
