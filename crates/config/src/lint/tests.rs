//! What each lint says and, as important, what it does not say.

use crate::{LintOptions, LoadInputs, LoadOptions, Severity, lower};

fn lint_with(yaml: &str, edge: bool) -> Vec<String> {
    let options = LoadOptions { lint: Some(LintOptions { edge }), ..LoadOptions::default() };
    let inputs = LoadInputs { file: None, yaml_override: Some(yaml.to_owned()), options };
    let loaded = crate::load_bootstrap(&inputs);
    let (bootstrap, mut findings) = (loaded.bootstrap, loaded.findings);
    let names = lower::cluster_names(&bootstrap);
    lower::bootstrap_with(&names, &bootstrap, &Default::default(), &mut findings);
    super::bootstrap(&bootstrap, &names, &LintOptions { edge }, &mut findings);
    let all = findings.into_vec();
    assert!(all.iter().all(|finding| finding.severity == Severity::Warning), "{yaml}\n{all:#?}");
    let short = |path: &str| path.rsplit("route_config.").next().unwrap_or_default().to_owned();
    all.iter().map(|finding| format!("{} {}", finding.code, short(&finding.path))).collect()
}

fn routes(routes: &str) -> String {
    format!(
        "static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 10000}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          http_filters:
          - {{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes: [{routes}]
  clusters:
  - {{name: c, connect_timeout: 2s, load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}}}}}]}}]}}}}
"
    )
}

#[track_caller]
fn expect(list: &str, expected: &[&str]) {
    let found = lint_with(&routes(list), false);
    assert_eq!(found, expected, "{list}");
}

#[test]
fn routes_behind_others_are_found() {
    let route = |matches: &str| format!("{{match: {{{matches}}}, route: {{cluster: c}}}}");
    let hit = "unreachable-route virtual_hosts[0].routes[1].match";
    for (first, second, reached) in [
        ("prefix: /", "prefix: /a", false),
        ("prefix: ''", "safe_regex: {regex: '/a.*'}", false),
        ("safe_regex: {regex: '.*'}", "path: /a", false),
        ("prefix: /a", "prefix: /ab", false),
        ("prefix: /a", "path: /a", false),
        ("prefix: /a", "path_separated_prefix: /a", false),
        ("prefix: /a, headers: [{name: x}]", "prefix: /a, headers: [{name: x}]", false),
        ("prefix: /A, case_sensitive: false", "path: /a/b", false),
        ("path_separated_prefix: /a", "path: /a", false),
        ("path_separated_prefix: /a", "prefix: /a/b", false),
        ("path: /a", "path: /a", false),
        ("prefix: /a, headers: [{name: x}]", "prefix: /a", true),
        (
            "prefix: /a, runtime_fraction: {default_value: {numerator: 5}}",
            "prefix: /a, runtime_fraction: {default_value: {numerator: 5}}",
            true,
        ),
        ("path_separated_prefix: /a", "path: /ab", true),
        ("path_separated_prefix: /a", "prefix: /a", true),
        ("prefix: /a", "path: /A, case_sensitive: false", true),
        ("prefix: /ab", "prefix: /a", true),
        ("path: /a", "prefix: /a", true),
    ] {
        let list = [route(first), route(second)].join(", ");
        let expected: &[&str] = if reached { &[] } else { &[hit] };
        expect(&list, expected);
    }
}

#[test]
fn timeouts_are_held_against_each_other() {
    let hit = "timeout-order virtual_hosts[0].routes[0].route.timeout";
    for (action, expected) in [
        ("timeout: 600s", &[hit][..]),
        ("timeout: 600s, idle_timeout: 0s", &[]),
        ("timeout: 60s, idle_timeout: 30s", &[hit]),
        ("timeout: 60s, max_stream_duration: {max_stream_duration: 30s}", &[hit]),
        ("timeout: 1s", &[hit]),
        ("timeout: 0s", &[]),
        ("timeout: 15s", &[]),
    ] {
        expect(&format!("{{match: {{prefix: /}}, route: {{cluster: c, {action}}}}}"), expected);
    }
}

#[test]
fn a_cluster_is_used_by_whatever_names_it() {
    expect(
        "{match: {prefix: /}, redirect: {https_redirect: true}}",
        &["unused-cluster static_resources.clusters[0].name"],
    );
    expect("{match: {prefix: /}, route: {cluster_header: x}}", &[]);
}

#[test]
fn an_edge_is_what_takes_addresses_from_connections_or_is_called_one() {
    let yaml = routes("{match: {prefix: /}, route: {cluster: c}}");
    assert_eq!(lint_with(&yaml, false), [""; 0]);
    let codes = |yaml: &str, edge| {
        let all = lint_with(yaml, edge);
        all.iter()
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let found = codes(&yaml, true);
    for code in ["edge-buffer", "edge-http2", "edge-path", "edge-remote-address", "edge-timeout"] {
        assert!(found.contains(code), "{code}: {found:?}");
    }
    let marked =
        yaml.replace("stat_prefix: http\n", "stat_prefix: http\n          use_remote_address: true\n");
    let found = codes(&marked, false);
    assert!(found.contains("edge-timeout") && !found.contains("edge-remote-address"), "{found:?}");
}

#[test]
fn settings_for_filters_of_any_chain_are_for_somebody() {
    let typed = "typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http";
    let chain =
        format!("[{{name: own, {typed}.cors.v3.Cors}}}}, {{name: router, {typed}.router.v3.Router}}}}]");
    let per_filter = |name: &str| {
        let route = "match: {prefix: /}, route: {cluster: c}, typed_per_filter_config";
        format!(
            "{{{route}: {{{name}: {{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}}}}}"
        )
    };
    let with_chain = |name: &str| {
        let upgrades =
            format!("          upgrade_configs: [{{upgrade_type: websocket, filters: {chain}}}]\n");
        routes(&per_filter(name))
            .replace("          http_filters:\n", &format!("{upgrades}          http_filters:\n"))
    };
    assert_eq!(lint_with(&with_chain("own"), false), [""; 0]);
    let found = lint_with(&with_chain("other"), false);
    assert_eq!(found, ["unknown-filter virtual_hosts[0].routes[0].typed_per_filter_config[\"other\"]"]);
}
