//! Snippets of configuration, and the settings or findings they become.

mod routes;

use std::time::Duration;

use super::LowerOptions;
use crate::settings::*;
use crate::{Finding, LoadInputs, Loaded, load_bootstrap};

fn lower(yaml: &str) -> (Option<Bootstrap>, Vec<Finding>) {
    lower_with(yaml, &LowerOptions::default())
}

fn lower_with(yaml: &str, options: &LowerOptions) -> (Option<Bootstrap>, Vec<Finding>) {
    let inputs = LoadInputs { yaml_override: Some(yaml.to_owned()), ..LoadInputs::default() };
    let Loaded { bootstrap, mut findings, .. } = load_bootstrap(&inputs);
    let lowered = super::bootstrap(&bootstrap, options, &mut findings);
    (lowered, findings.into_vec())
}

pub(super) fn accepted(yaml: &str) -> Bootstrap {
    let (lowered, findings) = lower(yaml);
    assert!(findings.is_empty(), "{yaml}\n{findings:#?}");
    lowered.unwrap()
}

/// Asserts exactly these errors: code, and the end of the path.
pub(super) fn refused(yaml: &str, expected: &[(&str, &str)]) {
    let (lowered, findings) = lower(yaml);
    assert!(lowered.is_none(), "{yaml}");
    let found: Vec<_> = findings.iter().map(|finding| (finding.code.0, finding.path.as_str())).collect();
    let same = found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(found, expected)| found.0 == expected.0 && found.1.ends_with(expected.1));
    assert!(same, "{yaml}\nfound {found:#?}\nexpected {expected:#?}");
}

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
const TCP: &str = "{name: tcp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: a}}";
const CLUSTER: &str = "{name: a}";

/// One listener with these fields beside its address.
fn listener(fields: &str) -> String {
    listeners(&format!("{{address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, {fields}}}"))
}

fn listeners(listeners: &str) -> String {
    format!("static_resources: {{clusters: [{CLUSTER}], listeners: [{listeners}]}}")
}

fn manager(fields: &str) -> String {
    let config = format!("{{'@type': {HCM}, stat_prefix: h, {fields}}}");
    listener(&format!("filter_chains: [{{filters: [{{name: http, typed_config: {config}}}]}}]"))
}

fn hosts(virtual_hosts: &str) -> String {
    manager(&format!("http_filters: [{ROUTER}], route_config: {{virtual_hosts: [{virtual_hosts}]}}"))
}

fn route(fields: &str) -> String {
    hosts(&format!("{{name: v, domains: ['*'], routes: [{{{fields}}}]}}"))
}

fn action(fields: &str) -> String {
    route(&format!("match: {{prefix: /}}, {fields}"))
}

fn matching(fields: &str) -> String {
    route(&format!("match: {{{fields}}}, route: {{cluster: a}}"))
}

fn cluster(fields: &str) -> String {
    format!("static_resources: {{clusters: [{{name: c, {fields}}}]}}")
}

fn manager_of(bootstrap: &Bootstrap) -> &HttpConnectionManager {
    match &bootstrap.listeners[0].chains[0].filters[0].config {
        NetworkFilterConfig::HttpConnectionManager(manager) => manager,
        other => panic!("{other:?}"),
    }
}

fn route_of(bootstrap: &Bootstrap) -> &Route {
    &manager_of(bootstrap).routes.virtual_hosts[0].routes[0]
}

#[test]
fn defaults_are_those_of_envoy() {
    let lowered = accepted(&action("route: {cluster: a}"));
    let manager = manager_of(&lowered);
    assert_eq!(manager.max_request_header_bytes, 60 << 10);
    assert_eq!(manager.max_request_headers, 100);
    assert_eq!(manager.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(manager.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!((manager.request_timeout, manager.request_headers_timeout), (None, None));
    assert_eq!(manager.drain_timeout, Duration::from_secs(5));
    assert_eq!(manager.delayed_close_timeout, Some(Duration::from_secs(1)));
    assert_eq!(manager.server.name, "envoy");
    assert!(manager.generate_request_id && !manager.use_remote_address);
    assert_eq!(manager.http2.initial_stream_window, 16 << 20);
    assert_eq!(manager.http2.max_concurrent_streams, 1024);
    let RouteAction::Forward(forward) = &route_of(&lowered).action else { panic!() };
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)));
    assert_eq!((forward.idle_timeout, forward.cluster_not_found_status), (None, 503));
    let listener = &lowered.listeners[0];
    assert_eq!(
        (&*listener.name, listener.reuse_port, listener.buffer_limit),
        ("127.0.0.1:80", true, 1 << 20)
    );
    let cluster = &lowered.clusters[0];
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert_eq!(cluster.circuit_breakers, [CircuitBreaker::default(); 2]);
    assert_eq!(cluster.idle_timeout, Some(Duration::from_secs(3600)));
    assert!(matches!(cluster.protocol, UpstreamProtocol::Http1));
    assert_eq!(lowered.stats.flush, StatsFlush::Every(Duration::from_secs(5)));
}

#[test]
fn internal_clients_are_those_that_are_named() {
    let fields = |internal: &str| {
        let routes = "route_config: {virtual_hosts: [{name: v, domains: ['*']}]}";
        manager(&format!("http_filters: [{ROUTER}], {routes}, internal_address_config: {{{internal}}}"))
    };
    let lowered =
        accepted(&fields("unix_sockets: true, cidr_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}]"));
    let manager = manager_of(&lowered);
    assert_eq!(manager.internal_addresses, [Cidr { address: "10.0.0.0".parse().unwrap(), prefix_len: 8 }]);
    assert!(manager.internal_unix_sockets);
    let wrong = "cidr_ranges: [{address_prefix: host}]";
    refused(&fields(wrong), &[("bad-address", "internal_address_config.cidr_ranges[0].address_prefix")]);
}

#[test]
fn zero_switches_limits_off() {
    let lowered = accepted(&manager(&format!(
        "http_filters: [{ROUTER}], stream_idle_timeout: 0s, delayed_close_timeout: 0s,
         common_http_protocol_options: {{idle_timeout: 0s}}, route_config: {{virtual_hosts: [{{name: v,
         domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: a, timeout: 0s, idle_timeout: 0s}}}}]}}]}}"
    )));
    let manager = manager_of(&lowered);
    assert_eq!(
        (manager.idle_timeout, manager.stream_idle_timeout, manager.delayed_close_timeout),
        (None, None, None)
    );
    let RouteAction::Forward(forward) = &route_of(&lowered).action else { panic!() };
    assert_eq!((forward.timeout, forward.idle_timeout), (None, Some(None)));
}

#[test]
fn command_line_identity_beats_the_file() {
    let options = LowerOptions { service_node: Some("cli".into()), ..LowerOptions::default() };
    let (lowered, _) = lower_with("node: {id: file, cluster: c, locality: {zone: z}}", &options);
    let node = lowered.unwrap().node;
    assert_eq!((node.id.as_str(), node.cluster.as_str(), node.zone.as_str()), ("cli", "c", "z"));
}

#[test]
fn listeners_are_checked() {
    let chain = format!("filter_chains: [{{filters: [{TCP}]}}]");
    let one =
        format!("{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, {chain}}}");
    let port0 = format!("{{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, {chain}}}");
    refused(
        &listeners(&format!("{one}, {one}")),
        &[("duplicate-name", "listeners[1].name"), ("duplicate-address", "listeners[1].address")],
    );
    accepted(&listeners(&format!("{one}, {{name: m, {}", &port0[1..])));
    refused(&listener("filter_chains: []"), &[("required", "listeners[0]")]);
    refused(&listeners(&format!("{{{chain}}}")), &[("required", "listeners[0].address")]);
    let again = "additional_addresses: [{address: {socket_address: {address: 127.0.0.1, port_value: 80}}}]";
    let twice = [("duplicate-address", "listeners[0].additional_addresses[0].address")];
    refused(&listener(&format!("{again}, {chain}")), &twice);
    refused(
        &listener(&format!("additional_addresses: [{{}}], {chain}")),
        &[("required", "additional_addresses[0].address")],
    );
    let by = |balance: &str| listener(&format!("connection_balance_config: {{{balance}}}, {chain}"));
    refused(&by(""), &[("required", "connection_balance_config")]);
    assert!(accepted(&by("exact_balance: {}")).listeners[0].exact_balance);
    assert!(!accepted(&listener(&format!("bind_to_port: false, {chain}"))).listeners[0].bind_to_port);
    let named = format!("{{address: {{socket_address: {{address: localhost, port_value: 80}}}}, {chain}}}");
    refused(&listeners(&named), &[("bad-address", "socket_address.address")]);
    for (length, fits) in [(107, true), (108, false)] {
        let path = "x".repeat(length);
        let pipe = listeners(&format!("{{address: {{pipe: {{path: {path}}}}}, {chain}}}"));
        assert_eq!(lower(&pipe).0.is_some(), fits, "{length}");
    }
    let lowered =
        accepted(&listeners(&format!("{{address: {{pipe: {{path: '@name', mode: 384}}}}, {chain}}}")));
    let pipe = SocketAddress::Pipe { path: "@name".into(), abstract_name: true, mode: 0o600 };
    assert_eq!(lowered.listeners[0].address.address, pipe);
    accepted(&listener("filter_chains: [{filters: []}]"));
}

#[test]
fn filter_chains_do_not_overlap() {
    let chains = |a: &str, b: &str| {
        listener(&format!(
            "filter_chains: [{{filter_chain_match: {{{a}}}, filters: [{TCP}]}}, {{filter_chain_match: {{{b}}}, filters: [{TCP}]}}]"
        ))
    };
    let distinct = [
        ("source_ports: [1]", "source_ports: [2]"),
        ("prefix_ranges: [{address_prefix: 0.0.0.0, prefix_len: 0}]", ""),
        ("destination_port: 1", "destination_port: 2"),
        ("server_names: [a.b]", "server_names: ['*.b']"),
        ("source_type: EXTERNAL", "source_type: SAME_IP_OR_LOOPBACK"),
    ];
    for (a, b) in distinct {
        accepted(&chains(a, b));
    }
    let same = [
        ("", ""),
        ("source_ports: [1, 2]", "source_ports: [2, 3]"),
        ("server_names: [a.b, c.d]", "server_names: [C.D]"),
        (
            "prefix_ranges: [{address_prefix: 10.1.2.3, prefix_len: 8}]",
            "prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]",
        ),
    ];
    for (a, b) in same {
        refused(&chains(a, b), &[("duplicate-match", "filter_chains[1]")]);
    }
    let many = (1..=1025).map(|port| port.to_string()).collect::<Vec<_>>().join(", ");
    let names = (1..=1025).map(|number| format!("n{number}")).collect::<Vec<_>>().join(", ");
    let explosive = format!("source_ports: [{many}], server_names: [{names}]");
    refused(&chains(&explosive, ""), &[("out-of-range", "filter_chains[0]")]);
    refused(&chains("server_names: ['*a.b']", ""), &[("invalid", "server_names[0]")]);
}

#[test]
fn the_overload_manager_limits_connections_and_nothing_else() {
    let monitor = |kind: &str, fields: &str| {
        let kind = format!("type.googleapis.com/envoy.extensions.resource_monitors.{kind}");
        format!("{{name: one, typed_config: {{'@type': {kind}, {fields}}}}}")
    };
    let manager = |fields: &str| format!("overload_manager: {{{fields}}}");
    let connections = |limit: i64| {
        let fields = format!("max_active_downstream_connections: {limit}");
        monitor("downstream_connections.v3.DownstreamConnectionsConfig", &fields)
    };
    let monitors = |monitors: &str| manager(&format!("resource_monitors: [{monitors}]"));
    assert_eq!(accepted(&monitors(&connections(7))).max_connections, Some(7));
    assert_eq!(accepted("{}").max_connections, None);
    refused(&monitors(&connections(0)), &[("rule", "max_active_downstream_connections")]);
    let two = format!("{}, {}", connections(1), connections(2));
    refused(&monitors(&two), &[("duplicate-name", "resource_monitors[1]")]);
    let heap = monitor("fixed_heap.v3.FixedHeapConfig", "max_heap_size_bytes: 1");
    refused(&monitors(&heap), &[("unsupported-type", "resource_monitors[0].typed_config.@type")]);
    let action = "actions: [{name: a, triggers: [{name: b, threshold: {value: 1}}]}]";
    let monitor = connections(1);
    let with_action = manager(&format!("resource_monitors: [{monitor}], {action}"));
    refused(&with_action, &[("unsupported-field", "overload_manager.actions")]);
}

#[test]
fn a_keepalive_field_of_0_switches_it_off() {
    let with =
        |fields: &str| cluster(&format!("upstream_connection_options: {{tcp_keepalive: {{{fields}}}}}"));
    let of = |fields: &str| accepted(&with(fields)).clusters[0].tcp_keepalive;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(of(""), Some(TcpKeepalive { probes: None, time: None, interval: None }));
    let all = TcpKeepalive { probes: Some(3), time: seconds(4), interval: seconds(5) };
    assert_eq!(of("keepalive_probes: 3, keepalive_time: 4, keepalive_interval: 5"), Some(all));
    for off in ["keepalive_probes: 0", "keepalive_time: 0, keepalive_probes: 1", "keepalive_interval: 0"] {
        assert_eq!(of(off), None, "{off}");
    }
}

#[test]
fn settings_that_have_a_field_agree_with_it() {
    let with = |fields: &str| {
        manager(&format!(
            "http_filters: [{ROUTER}], route_config: {{}}, http2_protocol_options: {{{fields}}}"
        ))
    };
    let custom = "custom_settings_parameters: [{identifier: 1, value: 100}, {identifier: 9, value: 7}, {identifier: 9, value: 7}]";
    let options = &manager_of(&accepted(&with(custom))).http2.clone();
    assert_eq!((options.hpack_table_size, &*options.custom_settings), (100, &[(9, 7)][..]));
    accepted(&with(&format!("hpack_table_size: 100, {custom}")));
    for wrong in [
        "hpack_table_size: 99, custom_settings_parameters: [{identifier: 1, value: 100}]",
        "custom_settings_parameters: [{identifier: 2, value: 1}]",
        "custom_settings_parameters: [{identifier: 8, value: 1}]",
    ] {
        refused(&with(wrong), &[("invalid", "custom_settings_parameters[0]")]);
    }
    let twice = "custom_settings_parameters: [{identifier: 9, value: 7}, {identifier: 9, value: 8}]";
    refused(&with(twice), &[("invalid", "custom_settings_parameters[1]")]);
}

#[test]
fn terminal_filters_come_last_and_only_there() {
    refused(
        &listener(&format!("filter_chains: [{{filters: [{TCP}, {TCP}]}}]")),
        &[("filter-order", "filters[0]")],
    );
    let with = |filters: &str| manager(&format!("http_filters: [{filters}], route_config: {{}}"));
    refused(&with(""), &[("no-terminal-filter", "typed_config.http_filters")]);
    refused(&with(&format!("{ROUTER}, {ROUTER}")), &[("filter-order", "http_filters[0]")]);
    let disabled = ROUTER.replace("name: router", "name: router, disabled: true");
    refused(&with(&disabled), &[("invalid", "http_filters[0].disabled")]);
}

#[test]
fn chains_of_upgrades_are_chains_of_http_filters() {
    let cors =
        "{name: c, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}";
    let with = |upgrades: &str| {
        manager(&format!(
            "http_filters: [{cors}, {ROUTER}], route_config: {{}}, upgrade_configs: [{upgrades}]"
        ))
    };
    let own =
        |filters: &str| with(&format!("{{upgrade_type: a}}, {{upgrade_type: b, filters: [{filters}]}}"));
    refused(&own(cors), &[("no-terminal-filter", "upgrade_configs[1].filters")]);
    refused(&own(&format!("{ROUTER}, {cors}")), &[("filter-order", "upgrade_configs[1].filters[0]")]);
    let disabled = ROUTER.replace("name: router", "name: router, disabled: true");
    refused(&own(&disabled), &[("invalid", "upgrade_configs[1].filters[0].disabled")]);
    refused(
        &with(&format!("{{upgrade_type: a, filters: [{ROUTER}]}}, {{upgrade_type: A}}")),
        &[("duplicate-name", "upgrade_configs[1].upgrade_type")],
    );
    let many = vec![cors; 61].join(", ");
    let lowered = accepted(&own(&format!("{many}, {ROUTER}")));
    let chains: Vec<_> = manager_of(&lowered).filter_chains().map(<[_]>::len).collect();
    assert_eq!(chains, [2, 62]);
    let chains: Vec<_> = manager_of(&lowered).upgrades.iter().map(|upgrade| upgrade.chain).collect();
    assert_eq!(chains, [0, 1]);
    refused(&own(&format!("{cors}, {many}, {ROUTER}")), &[("out-of-range", "upgrade_configs[1].filters")]);
}

#[test]
fn an_unsupported_filter_is_refused_once_or_left_out() {
    let rbac =
        "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}";
    let yaml = manager(&format!("http_filters: [{rbac}, {ROUTER}], route_config: {{}}"));
    refused(&yaml, &[("unsupported-type", "http_filters[0].typed_config.@type")]);
    let inputs = LoadInputs {
        yaml_override: Some(yaml),
        options: crate::LoadOptions { allow_unsupported: true, ..Default::default() },
        ..LoadInputs::default()
    };
    let Loaded { bootstrap, mut findings, .. } = load_bootstrap(&inputs);
    let options = LowerOptions { allow_unsupported: true, ..LowerOptions::default() };
    let lowered = super::bootstrap(&bootstrap, &options, &mut findings).unwrap();
    assert_eq!(manager_of(&lowered).filters.len(), 1);
    assert_eq!(findings.into_vec().len(), 1);
}

#[test]
fn clusters_that_are_named_must_exist() {
    refused(&action("route: {cluster: b}"), &[("unknown-cluster", "route.cluster")]);
    let weighted = "route: {weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 1}]}}";
    refused(&action(weighted), &[("unknown-cluster", "clusters[1].name")]);
    let tcp = TCP.replace("cluster: a", "cluster: b");
    refused(
        &listener(&format!("filter_chains: [{{filters: [{tcp}]}}]")),
        &[("unknown-cluster", "typed_config.cluster")],
    );
    refused("cluster_manager: {local_cluster_name: x}", &[("unknown-cluster", "local_cluster_name")]);
    let unchecked = manager(&format!(
        "http_filters: [{ROUTER}], route_config: {{validate_clusters: false, virtual_hosts: [{{name: v,
         domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: b}}}}]}}]}}"
    ));
    accepted(&unchecked);
}

#[test]
fn clusters_are_checked() {
    let endpoint = |address: &str| {
        format!(
            "load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {address}, port_value: 1}}}}}}}}]}}]}}"
        )
    };
    refused(&cluster(&endpoint("localhost")), &[("bad-address", "socket_address.address")]);
    refused(&cluster("type: LOGICAL_DNS"), &[("invalid", "load_assignment")]);
    let dns =
        accepted(&cluster(&format!("type: LOGICAL_DNS, dns_refresh_rate: 7s, {}", endpoint("localhost"))));
    let Discovery::LogicalDns(dns) = &dns.clusters[0].discovery else { panic!() };
    assert_eq!(
        (dns.refresh_rate, dns.failure_refresh),
        (Duration::from_secs(7), (Duration::from_secs(7), None))
    );
    let rate = "type: STRICT_DNS, dns_failure_refresh_rate: {base_interval: 2s, max_interval: 1s}";
    refused(&cluster(rate), &[("invalid", "dns_failure_refresh_rate.max_interval")]);
    refused(&cluster("lb_policy: LOAD_BALANCING_POLICY_CONFIG"), &[("required", "load_balancing_policy")]);
    let policy = |name: &str, kind: &str| {
        let url = format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}.v3.{kind}");
        format!("{{typed_extension_config: {{name: x, typed_config: {{'@type': {url}}}}}}}")
    };
    let policies =
        |list: &[String]| cluster(&format!("load_balancing_policy: {{policies: [{}]}}", list.join(", ")));
    let (ring, robin) = (policy("ring_hash", "RingHash"), policy("round_robin", "RoundRobin"));
    // The first that is known counts, as in Envoy; the others need not be.
    assert_eq!(accepted(&policies(&[ring.clone(), robin])).clusters[0].lb_policy, LbPolicy::RoundRobin);
    refused(
        &policies(&[ring]),
        &[("unsupported-type", "policies[0].typed_extension_config.typed_config.@type")],
    );
    refused(
        "static_resources: {clusters: [{name: a}, {name: a}]}",
        &[("duplicate-name", "clusters[1].name")],
    );
    let typed = "cluster_type: {name: d, typed_config: {'@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, dns_lookup_family: V4_ONLY}}";
    let typed = accepted(&cluster(typed));
    let Discovery::StrictDns(dns) = &typed.clusters[0].discovery else { panic!() };
    assert_eq!(dns.family, DnsFamily::V4Only);
    let breakers = "circuit_breakers: {thresholds: [{priority: HIGH, max_requests: 7}, {priority: HIGH, max_requests: 8}]}";
    let breakers = accepted(&cluster(breakers)).clusters[0].circuit_breakers;
    assert_eq!((breakers[0].max_requests, breakers[1].max_requests), (1024, 7));
}

#[test]
fn what_only_follows_from_an_error_is_not_said() {
    let chain = format!("filter_chains: [{{filters: [{TCP}]}}]");
    refused(&listeners(&format!("{{adress: {{}}, {chain}}}")), &[("unknown-field", "listeners[0].adress")]);
    let host = "load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 1}}}}]}]}";
    refused(&cluster(&format!("type: STRICT_DSN, {host}")), &[("unknown-enum-value", "clusters[0].type")]);
    refused(&cluster(&format!("type: EDS, {host}")), &[("unsupported-value", "clusters[0].type")]);
}

#[test]
fn upstream_protocols_in_both_spellings() {
    let typed = |key: &str, options: &str| {
        cluster(&format!(
            "typed_extension_protocol_options: {{{key}: {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {options}}}}}"
        ))
    };
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let explicit = "explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 5}}";
    for yaml in [typed(key, explicit), cluster("http2_protocol_options: {max_concurrent_streams: 5}")] {
        let lowered = accepted_or_deprecated(&yaml);
        let UpstreamProtocol::Http2(options) = &lowered.clusters[0].protocol else { panic!("{yaml}") };
        assert_eq!(options.max_concurrent_streams, 5);
    }
    refused(&typed("foo", explicit), &[("invalid", "[\"foo\"]")]);
    let downstream = accepted(&typed(key, "use_downstream_protocol_config: {http2_protocol_options: {}}"));
    assert!(matches!(downstream.clusters[0].protocol, UpstreamProtocol::SameAsDownstream(_)));
    let only_http1 = accepted(&typed(key, "use_downstream_protocol_config: {}"));
    assert!(matches!(only_http1.clusters[0].protocol, UpstreamProtocol::Http1));
    let stream = format!("{explicit}, common_http_protocol_options: {{max_stream_duration: 1s}}");
    refused(&typed(key, &stream), &[("unsupported-field", "max_stream_duration")]);
}

fn accepted_or_deprecated(yaml: &str) -> Bootstrap {
    let (lowered, findings) = lower(yaml);
    assert!(findings.iter().all(|finding| finding.code == crate::Code::DEPRECATED), "{findings:#?}");
    lowered.unwrap()
}

#[test]
fn all_problems_are_reported_at_once() {
    let (lowered, findings) = lower(&format!(
        "stats_flush_interval: 400s\nstatic_resources: {{clusters: [{{name: a}}, {{name: a}}], listeners: [{{{}}}]}}",
        "filter_chains: []"
    ));
    assert!(lowered.is_none());
    let codes: Vec<_> = findings.iter().map(|finding| finding.code.0).collect();
    assert!(codes.len() >= 3 && codes.contains(&"duplicate-name"), "{findings:#?}");
}
