//! Runtime layers, and what goes by their keys.

use super::tests::{accepted, refused};
use crate::settings::*;

const LIMIT: &str = "envoy.resource_limits.listener.web.connection_limit";

/// A bootstrap with these layers, and a listener `web` whose filter is switched by the key `filter.on`.
fn with_layers(layers: &[&str]) -> String {
    let layers: Vec<_> = (0..layers.len())
        .map(|index| format!("{{name: layer{index}, static_layer: {}}}", layers[index]))
        .collect();
    let prefix = "type.googleapis.com/envoy.extensions.filters.network";
    let switch = "runtime_enabled: {default_value: true, runtime_key: filter.on}";
    let limit = format!(
        "{{name: limit, typed_config: {{'@type': {prefix}.connection_limit.v3.ConnectionLimit, stat_prefix: s, \
         max_connections: 1, {switch}}}}}"
    );
    let echo = format!("{{name: echo, typed_config: {{'@type': {prefix}.echo.v3.Echo}}}}");
    let address = "address: {socket_address: {address: 127.0.0.1, port_value: 80}}";
    let listener = format!("{{name: web, {address}, filter_chains: [{{filters: [{limit}, {echo}]}}]}}");
    let layers = layers.join(", ");
    format!("{{layered_runtime: {{layers: [{layers}]}}, static_resources: {{listeners: [{listener}]}}}}")
}

fn limit_of(layers: &[&str]) -> Option<u64> {
    accepted(&with_layers(layers)).listeners[0].max_connections
}

#[test]
fn numbers_are_read_as_in_envoy() {
    for (value, expected) in
        [("1", Some(1)), ("'1'", Some(1)), ("1.5", Some(1)), ("0", Some(0)), ("-1", None), ("true", None)]
    {
        assert_eq!(limit_of(&[&format!("{{{LIMIT}: {value}}}")]), expected, "{value}");
    }
    assert_eq!(limit_of(&["{envoy: {resource_limits: {listener: {web: {connection_limit: 7}}}}}"]), Some(7));
    assert_eq!(limit_of(&[&format!("{{{LIMIT}: 1}}"), &format!("{{{LIMIT}: 2}}")]), Some(2));
    assert_eq!(limit_of(&[]), None);
}

#[test]
fn filters_are_switched_by_their_keys() {
    for (layer, expected) in [("{}", true), ("{filter: {on: false}}", false), ("{filter.on: 'false'}", false)]
    {
        let lowered = accepted(&with_layers(&[layer]));
        let NetworkFilterConfig::ConnectionLimit(limit) = &lowered.listeners[0].chains[0].filters[0].config
        else {
            panic!()
        };
        assert_eq!(limit.enabled, expected, "{layer}");
    }
}

#[test]
fn the_limit_on_all_connections_has_an_older_key() {
    let key = "{overload: {global_downstream_max_connections: 5}}";
    let lowered = accepted(&with_layers(&[key, "{filter.on: true}"]));
    assert_eq!(lowered.max_connections, Some(5));
    assert_eq!((lowered.runtime.layers, lowered.runtime.values.len()), (2, 2));
}

#[test]
fn a_key_that_nothing_goes_by_is_refused() {
    let layer = "layers[0].static_layer";
    let at = |key: &str| format!("{layer}[\"{key}\"]");
    refused(&with_layers(&["{a: {b: 1}}"]), &[("unsupported-value", &at("a.b"))]);
    let overridden = ["{a: 1, filter.on: true}", "{a: 2}"];
    refused(&with_layers(&overridden), &[("unsupported-value", "layers[1].static_layer[\"a\"]")]);
    for bad in ["[1]", "null"] {
        refused(&with_layers(&[&format!("{{a: {bad}}}")]), &[("invalid", &at("a"))]);
    }
    let same = with_layers(&["{}", "{}"]).replace("layer1", "layer0");
    refused(&same, &[("duplicate-name", "layers[1].name")]);
    let admin = with_layers(&["{}"]).replace("static_layer: {}", "admin_layer: {}");
    refused(&admin, &[("unsupported-field", "layers[0].admin_layer")]);
}

#[test]
fn shares_may_come_from_a_layer() {
    let percent = |value| RuntimeValue::Number(value).fraction().map(|share| share.numerator);
    assert_eq!([percent(7.0), percent(700.0), percent(-1.0)], [Some(7), Some(100), None]);
    let layer = "{filter.on: {numerator: 3, denominator: TEN_THOUSAND}}";
    let lowered = accepted(&with_layers(&[layer]));
    let share = Fraction { numerator: 3, denominator: 10_000 };
    assert_eq!(lowered.runtime.values["filter.on"].fraction(), Some(share));
}
