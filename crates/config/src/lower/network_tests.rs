//! Network filters as settings or findings.

use std::time::Duration;

use super::tests::{accepted, refused};
use crate::settings::*;

const ECHO: &str = "echo.v3.Echo, ";
const RATE: &str = "local_ratelimit.v3.LocalRateLimit, stat_prefix: s, ";
const LIMIT: &str = "connection_limit.v3.ConnectionLimit, stat_prefix: s, ";
const RBAC: &str = "rbac.v3.RBAC, stat_prefix: s, ";

/// A listener of these filters, each a type under `envoy.extensions.filters.network` and fields.
fn filters(filters: &[String]) -> String {
    let filter = |fields: &String| {
        let prefix = "type.googleapis.com/envoy.extensions.filters.network";
        format!("{{name: filter, typed_config: {{'@type': {prefix}.{fields}}}}}")
    };
    let filters: Vec<_> = filters.iter().map(filter).collect();
    let chain = format!("{{filters: [{}]}}", filters.join(", "));
    let address = "{socket_address: {address: 127.0.0.1, port_value: 80}}";
    format!("static_resources: {{listeners: [{{address: {address}, filter_chains: [{chain}]}}]}}")
}

/// Before an echo.
fn first(kind: &str, fields: &str) -> String {
    filters(&[format!("{kind}{fields}"), ECHO.to_owned()])
}

fn lowered(yaml: &str) -> NetworkFilterConfig {
    let listener = accepted(yaml).listeners.remove(0);
    let chain = std::sync::Arc::into_inner(listener).unwrap().chains.remove(0);
    std::sync::Arc::into_inner(chain).unwrap().filters.remove(0).config
}

#[test]
fn the_last_filter_of_a_chain_and_no_other_is_terminal() {
    let bucket = format!("{RATE}token_bucket: {{max_tokens: 1, fill_interval: 1s}}");
    let response = "direct_response.v3.Config, response: {inline_string: a}".to_owned();
    refused(&filters(&[ECHO.to_owned(), ECHO.to_owned()]), &[("filter-order", "filters[0]")]);
    refused(&filters(&[response.clone(), ECHO.to_owned()]), &[("filter-order", "filters[0]")]);
    refused(&filters(std::slice::from_ref(&bucket)), &[("no-terminal-filter", "filter_chains[0].filters")]);
    let NetworkFilterConfig::DirectResponse(response) = lowered(&filters(&[response])) else { panic!() };
    assert_eq!(response, "a");
    assert!(!lowered(&filters(&[bucket, ECHO.to_owned()])).is_terminal());
}

#[test]
fn limits_have_envoys_bounds_and_defaults() {
    let yaml = first(RATE, "token_bucket: {max_tokens: 7, fill_interval: 1s}");
    let NetworkFilterConfig::LocalRateLimit(rate) = lowered(&yaml) else { panic!() };
    let bucket = TokenBucket { max_tokens: 7, tokens_per_fill: 1, fill_interval: Duration::from_secs(1) };
    assert_eq!((rate.bucket, rate.enabled, rate.share_key.as_deref()), (bucket, true, None));
    for (bucket, expected) in [
        ("max_tokens: 1, fill_interval: 0.049s", ("out-of-range", "fill_interval")),
        ("max_tokens: 1, tokens_per_fill: 0, fill_interval: 1s", ("rule", "tokens_per_fill")),
        ("max_tokens: 1", ("required", "fill_interval")),
    ] {
        refused(&first(RATE, &format!("token_bucket: {{{bucket}}}")), &[expected]);
    }
    refused(&first(RATE, ""), &[("required", "token_bucket")]);
    let yaml = first(LIMIT, "max_connections: 3, delay: 0s, runtime_enabled: {default_value: false}");
    let NetworkFilterConfig::ConnectionLimit(limit) = lowered(&yaml) else { panic!() };
    assert_eq!((limit.max_connections, limit.delay, limit.enabled), (3, None, false));
    refused(&first(LIMIT, ""), &[("required", "max_connections")]);
    refused(&first(LIMIT, "max_connections: 0"), &[("rule", "max_connections")]);
}

fn rules(permission: &str, principal: &str) -> String {
    let policy = format!("{{permissions: [{permission}], principals: [{principal}]}}");
    first(RBAC, &format!("rules: {{policies: {{p: {policy}}}}}"))
}

#[test]
fn rules_about_requests_are_refused_where_there_are_none() {
    const ANY: &str = "any: true";
    for (permission, path) in [
        ("header: {name: a, present_match: true}", "permissions[0].header"),
        ("url_path: {path: {exact: /}}", "permissions[0].url_path"),
        ("metadata: {filter: a, path: [{key: b}], value: {present_match: true}}", "permissions[0].metadata"),
    ] {
        refused(&rules(&format!("{{{permission}}}"), &format!("{{{ANY}}}")), &[("unsupported-field", path)]);
    }
    let authenticated = rules(&format!("{{{ANY}}}"), "{authenticated: {}}");
    refused(&authenticated, &[("unsupported-field", "principals[0].authenticated")]);
    refused(&first(RBAC, "enforcement_type: CONTINUOUS"), &[("unsupported-value", "enforcement_type")]);
}

#[test]
fn rules_have_envoys_bounds() {
    let any = "{any: true}";
    for range in ["start: 10, end: 10", "start: -1, end: 5", "start: 1, end: 65537"] {
        let range = format!("{{destination_port_range: {{{range}}}}}");
        refused(&rules(&range, any), &[("out-of-range", "permissions[0].destination_port_range")]);
    }
    refused(&rules("", any), &[("required", "permissions")]);
    refused(&rules("{destination_ip: {address_prefix: x}}", any), &[("bad-address", "address_prefix")]);
    let yaml = rules("{not_rule: {destination_port: 65535}}", "{or_ids: {ids: [{any: true}]}}");
    let NetworkFilterConfig::Rbac(rbac) = lowered(&yaml) else { panic!() };
    let policy = &rbac.rules.as_ref().unwrap().policies[0];
    let RbacRule::Not(rule) = &policy.permissions[0] else { panic!() };
    assert!(matches!(**rule, RbacRule::DestinationPorts { start: 65_535, end: 65_536 }));
    assert!(matches!(&policy.principals[0], RbacRule::OneOf(rules) if rules.len() == 1));
}
