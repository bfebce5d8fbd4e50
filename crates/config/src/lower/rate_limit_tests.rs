//! What rate limits of filters and of routes may say.

use super::tests::{accepted, refused};

const LIMITER: &str = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

/// A connection manager with a local rate limit, and a route; either with these rate limits.
fn manager(of_filter: &str, of_route: &str) -> String {
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
    let limiter = format!(
        "{{name: l, typed_config: {{'@type': {LIMITER}, stat_prefix: s, rate_limits: [{of_filter}]}}}}"
    );
    let route = format!("{{match: {{prefix: /}}, route: {{cluster: c, rate_limits: [{of_route}]}}}}");
    let hosts = format!("[{{name: v, domains: ['*'], routes: [{route}]}}]");
    let fields = format!(
        "stat_prefix: s, http_filters: [{limiter}, {router}], route_config: {{virtual_hosts: {hosts}}}"
    );
    format!(
        "static_resources: {{clusters: [{{name: c}}], listeners: [{{address: {{socket_address: {{address: 127.0.0.1, \
         port_value: 80}}}}, filter_chains: [{{filters: [{{name: m, typed_config: {{'@type': {manager}, {fields}}}}}]}}]}}]}}"
    )
}

fn limit(fields: &str) -> String {
    format!("{{actions: [{{remote_address: {{}}}}], {fields}}}")
}

#[test]
fn what_is_for_routes_is_refused_in_filters() {
    for (fields, field) in [
        ("stage: 0", "rate_limits[0].stage"),
        ("disable_key: key", "rate_limits[0].disable_key"),
        ("limit: {rate_limit: {requests_per_unit: 1, unit: HOUR}}", "rate_limits[0].limit"),
    ] {
        accepted(&manager("", &limit(fields)));
        refused(&manager(&limit(fields), ""), &[("invalid", field)]);
    }
}

#[test]
fn what_a_request_costs_is_a_number_or_an_operator() {
    let hits = |hits: &str| manager(&limit(&format!("hits_addend: {hits}")), "");
    accepted(&hits("{number: 1000000000}"));
    accepted(&hits("{format: '%REQ(x-cost):5%', is_negative_hits: true}"));
    let (here, format) = ("rate_limits[0].hits_addend", "rate_limits[0].hits_addend.format");
    for (wrong, expected) in [
        ("{}", ("invalid", here)),
        ("{number: 1, format: '%PROTOCOL%'}", ("invalid", here)),
        ("{number: 1000000001}", ("rule", "hits_addend.number")),
        ("{format: '%PROTOCOL%%PROTOCOL%'}", ("invalid", format)),
        ("{format: '%%'}", ("invalid", format)),
        ("{format: '%NONSENSE%'}", ("unsupported-formatter", format)),
    ] {
        refused(&hits(wrong), &[expected]);
    }
}

#[test]
fn operators_in_values_are_checked_where_they_count() {
    let value = |action: &str, value: &str| {
        manager(&format!("{{actions: [{{{action}: {{descriptor_value: '{value}'}}}}]}}"), "")
    };
    let matched = |value: &str| {
        manager(
            &format!(
                "{{actions: [{{remote_address_match: {{descriptor_value: '{value}', address_matcher: {{}}}}}}]}}"
            ),
            "",
        )
    };
    accepted(&value("generic_key", "%NONSENSE%"));
    accepted(&matched("%PROTOCOL%"));
    refused(&matched("%NONSENSE%"), &[("unsupported-formatter", "remote_address_match.descriptor_value")]);
}
