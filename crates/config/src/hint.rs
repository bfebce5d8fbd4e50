//! What somebody may have meant who wrote what does not exist.

use std::cmp::Reverse;
use std::collections::HashSet;

use crate::schema::{self, FieldKind, Form, Message, Shape};
use crate::supported::FieldSupport;

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
pub(crate) fn field(message: &'static Message, name: &str) -> Option<String> {
    let names = || message.fields.iter().map(|field| field.name.as_str());
    if let Some(found) = closest(name, names()) {
        return Some(format!("did you mean `{found}`?"));
    }
    let (start, end) = (format!("{}_", snake(name)), format!("_{}", snake(name)));
    let mut longer = names().filter(|known| known.starts_with(&start) || known.ends_with(&end));
    let longer = longer.next().filter(|_| longer.next().is_none()).map(str::to_owned);
    let found = inside(message, name, 1).or(longer).or_else(|| inside(message, name, MAX_DEPTH));
    found.map(|found| format!("did you mean `{found}`?")).or_else(|| fields(message))
}

/// Where in the messages that `message` holds, at most so deep, there is a field of this name: the nearest one, and far away
/// only if it is the only one.
fn inside(message: &'static Message, name: &str, most: usize) -> Option<String> {
    let mut near = vec![(String::new(), message)];
    for depth in 1..=most {
        let held = near.iter().flat_map(|(path, message)| {
            message.fields.iter().filter_map(move |field| {
                let FieldKind::Message(to) = &field.kind else { return None };
                let supported = message.support?;
                let to = Some(to.follow()).filter(|to| to.form == Form::Plain)?;
                let known = !matches!(supported.field(&field.name), FieldSupport::No);
                let list = match field.shape {
                    Shape::Single => "",
                    Shape::Repeated => "[]",
                    Shape::Map => return None,
                };
                (known || depth == 1).then(|| (format!("{path}{}{list}.", field.name), to))
            })
        });
        let held: Vec<_> = held.collect();
        let mut found = held.iter().filter(|(_, message)| message.field(name).is_some());
        match (found.next(), found.next()) {
            (Some((path, _)), second) if second.is_none() || depth == 1 => {
                return Some(format!("{path}{name}"));
            }
            (Some(_), _) => return None,
            (None, _) => near = held,
        }
    }
    None
}

/// What fields there are, if they are few.
fn fields(message: &Message) -> Option<String> {
    match message.fields.len() {
        0 => Some("it has no fields".to_owned()),
        1..=MAX_LISTED => {
            let names: Vec<_> = message.fields.iter().map(|field| field.name.as_str()).collect();
            Some(format!("it has {}", names.join(", ")))
        }
        _ => None,
    }
}

/// For a value that stands where fields of `message` should. Shows nothing of it: it may be a secret.
pub(crate) fn mapping(message: &Message) -> Option<String> {
    let known = MAPPINGS.iter().find(|(name, _)| *name == message.name);
    known.map(|(_, write)| format!("write {write}")).or_else(|| fields(message))
}

/// For fields without `@type`: the type that they may be of.
pub(crate) fn type_of_fields<'k>(keys: impl Iterator<Item = &'k str> + Clone) -> Option<String> {
    let parents: HashSet<&str> = schema::type_names().iter().map(String::as_str).collect();
    let is_nested = |name: &str| name.rsplit_once('.').is_some_and(|(parent, _)| parents.contains(parent));
    let types = schema::type_names().iter().filter(|name| name.starts_with("envoy.extensions."));
    let types = types.filter(|name| !is_nested(name)).filter_map(|name| schema::message(name));
    let has_all = |message: &&Message| keys.clone().all(|key| message.field(key).is_some());
    let fitting: Vec<_> = types.filter(has_all).collect();
    let supported: Vec<_> = fitting.iter().filter(|message| message.support.is_some()).collect();
    let name = match (&supported[..], &fitting[..]) {
        ([only], _) => only.name.clone(),
        ([], [one]) => one.name.clone(),
        ([], [one, two]) => format!("{} or {}", one.name, two.name),
        _ => return None,
    };
    Some(format!("with these fields it may be \"@type\": type.googleapis.com/{name}"))
}

/// What other proxies call a value of an enum.
pub(crate) fn synonym<'v>(word: &str, mut values: impl Iterator<Item = &'v str>) -> Option<&'v str> {
    let word = normal(word);
    let (_, value) = SYNONYMS.iter().find(|(other, _)| *other == word)?;
    values.find(|known| known == value)
}

/// The value of a redirect's `response_code` that stands for a status of HTTP.
pub(crate) fn redirect(of: &str, status: i32) -> Option<&'static str> {
    let name = match status {
        301 => "MOVED_PERMANENTLY",
        302 => "FOUND",
        303 => "SEE_OTHER",
        307 => "TEMPORARY_REDIRECT",
        308 => "PERMANENT_REDIRECT",
        _ => return None,
    };
    (of == "envoy.config.route.v3.RedirectAction.RedirectResponseCode").then_some(name)
}

/// What to use in place of a field that is deprecated.
pub(crate) fn replacement(message: &Message, name: &str) -> Option<&'static str> {
    let of = |(within, fields, _): &&(&str, &[&str], &str)| message.name == *within && fields.contains(&name);
    DEPRECATED.iter().find(of).map(|(.., instead)| *instead)
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
/// Messages within messages in which a field is looked for.
const MAX_DEPTH: usize = 3;

/// What to write where somebody wrote the value alone.
const MAPPINGS: &[(&str, &str)] = &[
    (
        "envoy.config.core.v3.Address",
        "{socket_address: {address: ..., port_value: ...}}, or {pipe: {path: ...}} for a UNIX socket",
    ),
    ("envoy.config.core.v3.SocketAddress", "{address: ..., port_value: ...}"),
    ("envoy.config.core.v3.CidrRange", "{address_prefix: ..., prefix_len: ...}"),
    ("envoy.config.core.v3.DataSource", "{inline_string: ...}, or {filename: ...} for a file"),
    ("envoy.config.core.v3.HeaderValue", "{key: ..., value: ...}"),
    ("envoy.config.core.v3.HeaderValueOption", "{header: {key: ..., value: ...}}"),
    ("envoy.config.core.v3.Node", "{id: ..., cluster: ...}"),
    (
        "envoy.config.core.v3.RuntimeFractionalPercent",
        "{default_value: {numerator: ..., denominator: HUNDRED}}",
    ),
    ("envoy.config.core.v3.SubstitutionFormatString", "{text_format_source: {inline_string: ...}}"),
    (
        "envoy.config.endpoint.v3.LbEndpoint",
        "{endpoint: {address: {socket_address: {address: ..., port_value: ...}}}}",
    ),
    ("envoy.config.endpoint.v3.Endpoint", "{address: {socket_address: {address: ..., port_value: ...}}}"),
    ("envoy.config.route.v3.HeaderMatcher", "{name: ..., string_match: {exact: ...}}"),
    ("envoy.config.route.v3.RedirectAction", "{host_redirect: ..., path_redirect: ...}"),
    ("envoy.config.route.v3.RouteAction", "{cluster: ...}"),
    ("envoy.config.route.v3.RouteMatch", "{prefix: ...}, {path: ...} or {safe_regex: {regex: ...}}"),
    ("envoy.type.matcher.v3.RegexMatcher", "{regex: ...}"),
    ("envoy.type.matcher.v3.RegexMatchAndSubstitute", "{pattern: {regex: ...}, substitution: ...}"),
    (
        "envoy.type.matcher.v3.StringMatcher",
        "{exact: ...}, or prefix, suffix, contains or safe_regex in its place",
    ),
    ("envoy.type.v3.FractionalPercent", "{numerator: ..., denominator: HUNDRED}"),
    ("envoy.type.v3.Percent", "{value: ...}"),
];

/// Words of other proxies, and Envoy's for the same.
const SYNONYMS: &[(&str, &str)] = &[
    ("leastconn", "LEAST_REQUEST"),
    ("leastconnections", "LEAST_REQUEST"),
    ("rr", "ROUND_ROBIN"),
    ("source", "RING_HASH"),
    ("iphash", "RING_HASH"),
    ("hash", "RING_HASH"),
    ("uri", "RING_HASH"),
    ("dns", "STRICT_DNS"),
    ("strict", "STRICT_DNS"),
    ("logical", "LOGICAL_DNS"),
    ("http", "AUTO"),
    ("h1", "HTTP1"),
    ("h2", "HTTP2"),
];

/// Deprecated fields of a message, and what to use in their place.
const DEPRECATED: &[(&str, &[&str], &str)] = &[
    ("envoy.config.bootstrap.v3.Admin", &["access_log_path"], "`access_log`"),
    ("envoy.config.bootstrap.v3.Bootstrap", &["watchdog"], "`watchdogs`"),
    (
        "envoy.config.cluster.v3.Cluster",
        &[
            "http_protocol_options",
            "http2_protocol_options",
            "common_http_protocol_options",
            "upstream_http_protocol_options",
            "protocol_selection",
            "max_requests_per_connection",
        ],
        "`typed_extension_protocol_options` with an envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    ),
    (
        "envoy.config.cluster.v3.Cluster",
        &[
            "dns_refresh_rate",
            "dns_jitter",
            "dns_failure_refresh_rate",
            "respect_dns_ttl",
            "dns_lookup_family",
            "dns_resolvers",
            "use_tcp_for_dns_lookups",
            "dns_resolution_config",
            "typed_dns_resolver_config",
        ],
        "`cluster_type` with an envoy.extensions.clusters.dns.v3.DnsCluster",
    ),
    ("envoy.config.core.v3.HeaderValueOption", &["append"], "`append_action`"),
    (
        "envoy.config.route.v3.HeaderMatcher",
        &["exact_match", "safe_regex_match", "prefix_match", "suffix_match", "contains_match"],
        "`string_match`",
    ),
    (
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        &["format", "json_format", "typed_json_format"],
        "`log_format`",
    ),
];

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
    ("Endpoint", "weight", "in v3: `load_balancing_weight` beside `endpoint`"),
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
    fn tables_name_what_there_is() {
        for (name, _) in MAPPINGS {
            assert!(schema::message(name).is_some(), "{name}");
        }
        for (name, fields, _) in DEPRECATED {
            let message = schema::message(name).unwrap_or_else(|| panic!("{name}"));
            for field in *fields {
                assert!(message.field(field).is_some(), "{name}.{field}");
            }
        }
        for (word, _) in SYNONYMS {
            assert_eq!(*word, normal(word));
        }
    }

    #[test]
    fn fields_are_found_where_they_are() {
        let hint = |message, name| field(schema::message(message).unwrap(), name).unwrap_or_default();
        for (message, name, expected) in [
            ("envoy.config.endpoint.v3.LocalityLbEndpoints", "address", "`lb_endpoints[].endpoint.address`"),
            ("envoy.config.core.v3.Address", "port_value", "`socket_address.port_value`"),
            ("envoy.config.cluster.v3.CircuitBreakers", "max_requests", "`thresholds[].max_requests`"),
            ("envoy.config.bootstrap.v3.RuntimeLayer", "static", "`static_layer`"),
            ("envoy.config.endpoint.v3.LbEndpoint", "weight", "`load_balancing_weight`"),
        ] {
            assert_eq!(hint(message, name), format!("did you mean {expected}?"), "{message}.{name}");
        }
        assert!(hint("envoy.config.core.v3.Pipe", "nonsense").starts_with("it has path, mode"));
    }

    #[test]
    fn types_are_found_by_their_fields() {
        let of = |keys: &[&'static str]| type_of_fields(keys.iter().copied());
        let found = of(&["stat_prefix", "route_config", "http_filters"]).unwrap();
        assert!(found.ends_with(".http_connection_manager.v3.HttpConnectionManager"), "{found}");
        assert_eq!(of(&["stat_prefix"]), None);
        assert_eq!(of(&["nonsense"]), None);
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
