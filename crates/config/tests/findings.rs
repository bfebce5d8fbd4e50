//! Every kind of finding at its exact place, through the public way in.

use proxy_config::{Finding, LoadInputs, LoadOptions, load_bootstrap};

/// What is found in YAML text, without what proxyd does not support yet.
fn findings(yaml: &str) -> Vec<Finding> {
    let options = LoadOptions { allow_unsupported: true, ..Default::default() };
    let inputs = LoadInputs { file: None, yaml_override: Some(yaml.to_owned()), options };
    let all = load_bootstrap(&inputs).findings.into_vec();
    all.into_iter().filter(|finding| !finding.code.0.starts_with("unsupported")).collect()
}

/// `line:column code path` of each finding.
fn shorten(findings: &[Finding]) -> Vec<String> {
    let short = |finding: &Finding| {
        let place =
            finding.place.as_ref().map_or(String::new(), |place| format!("{}:{} ", place.line, place.column));
        format!("{place}{} {}", finding.code, finding.path).trim_end().to_owned()
    };
    findings.iter().map(short).collect()
}

#[track_caller]
fn expect(yaml: &str, expected: &[&str]) {
    let found = findings(yaml);
    assert_eq!(shorten(&found), expected, "{yaml}\n{found:#?}");
}

#[test]
fn each_reader_error_has_its_place() {
    // (field of a cluster, column of the finding, code, path below the cluster)
    let table = [
        ("stat_prefx: a", 5, "unknown-field", "stat_prefx"),
        ("connect_timeout: 5", 22, "bad-duration", "connect_timeout"),
        ("connect_timeout: 5 s", 22, "bad-duration", "connect_timeout"),
        ("type: STATICC", 11, "unknown-enum-value", "type"),
        ("type: [STATIC]", 11, "type-mismatch", "type"),
        ("per_connection_buffer_limit_bytes: 1.5", 40, "type-mismatch", "per_connection_buffer_limit_bytes"),
        ("perConnectionBufferLimitBytes: -1", 36, "out-of-range", "per_connection_buffer_limit_bytes"),
        (
            "per_connection_buffer_limit_bytes: 4294967296",
            40,
            "out-of-range",
            "per_connection_buffer_limit_bytes",
        ),
        ("alt_stat_name: 5", 20, "needs-quotes", "alt_stat_name"),
        ("alt_stat_name: yes", 20, "needs-quotes", "alt_stat_name"),
        ("alt_stat_name: {a: b}", 20, "type-mismatch", "alt_stat_name"),
        ("respect_dns_ttl: 1", 22, "type-mismatch", "respect_dns_ttl"),
        ("load_assignment: x", 22, "type-mismatch", "load_assignment"),
        ("typed_extension_protocol_options: [x]", 39, "type-mismatch", "typed_extension_protocol_options"),
        ("metadata: {filter_metadata: {a: 5}}", 37, "type-mismatch", "metadata.filter_metadata[\"a\"]"),
        (
            "transport_socket: {name: a, typed_config: {x: 1}}",
            47,
            "missing-type",
            "transport_socket.typed_config",
        ),
        (
            "transport_socket: {name: a, typed_config: {'@type': a/envoy.api.v2.Cluster}}",
            57,
            "removed-type",
            "transport_socket.typed_config.@type",
        ),
        (
            "transport_socket: {name: a, typed_config: {'@type': a/envoy.config.cluster.v3.Filter, name: x, nam: 1}}",
            100,
            "unknown-field",
            "transport_socket.typed_config.nam",
        ),
    ];
    for (line, column, code, path) in table {
        let yaml = format!("static_resources:\n  clusters:\n  - name: c\n    {line}\n");
        expect(&yaml, &[&format!("4:{column} {code} static_resources.clusters[0].{path}")]);
    }
}

#[test]
fn a_typed_struct_is_read_as_the_type_it_names() {
    let typed = |fields: &str| {
        format!(
            "static_resources:\n  clusters:\n  - name: c\n    transport_socket:\n      name: tls\n      typed_config:\n        '@type': a/udpa.type.v1.TypedStruct\n        type_url: a/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n        value:\n          {fields}\n"
        )
    };
    expect(&typed("sni: a"), &[]);
    expect(
        &typed("sn: a"),
        &["10:11 unknown-field static_resources.clusters[0].transport_socket.typed_config.value.sn"],
    );
    let long = "x".repeat(256);
    expect(
        &typed(&format!("sni: {long}")),
        &["10:16 rule static_resources.clusters[0].transport_socket.typed_config.sni"],
    );
}

#[test]
fn what_is_given_twice_is_an_error_at_the_second_place() {
    let cluster = |line: &str| format!("static_resources:\n  clusters:\n  - name: c\n    {line}\n");
    expect(&cluster("name: d"), &["4:5 duplicate-key"]);
    expect(
        &cluster("connect_timeout: 1s\n    connectTimeout: 2s"),
        &["5:5 conflict static_resources.clusters[0].connect_timeout"],
    );
    expect(
        &cluster("eds_cluster_config: {eds_config: {ads: {}, path: a}}"),
        &["4:48 conflict static_resources.clusters[0].eds_cluster_config.eds_config.path"],
    );
    let found = findings(&cluster("name: d"));
    assert_eq!(
        found[0].to_string(),
        "--config-yaml:4:5: error[duplicate-key]: `name` is given twice, first at line 3, column 5"
    );
}

#[test]
fn a_file_that_was_cut_says_that_it_ends() {
    let start = "static_resources:\n  listeners:\n  - name: l\n";
    for (cut, column) in
        [("    address: {socket_address: {port_va", 39), ("    addr", 9), ("    address: [\n\n", 15)]
    {
        let found = findings(&format!("{start}{cut}"));
        assert_eq!(shorten(&found), [format!("4:{column} syntax").as_str()], "{found:#?}");
        assert!(found[0].message.starts_with("not valid YAML: the file ends here; "), "{}", found[0].message);
    }
    let found = findings("name: \"l\n");
    assert_eq!(shorten(&found), ["1:7 syntax"]);
    assert!(found[0].message.ends_with("the file ends before it is closed"), "{}", found[0].message);
    let found = findings("a: {}\n - b\nc: {}\n");
    assert!(!found[0].message.contains("the file ends"), "{}", found[0].message);
}

#[test]
fn a_status_of_a_redirect_is_named() {
    let route = "{match: {prefix: /}, redirect: {response_code: 308}}";
    let routes = format!("{{virtual_hosts: [{{name: v, domains: ['*'], routes: [{route}]}}]}}");
    let kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let found = findings(&format!(
        "static_resources: {{listeners: [{{filter_chains: [{{filters: [{{name: m, typed_config: {{'@type': {kind}, stat_prefix: s, route_config: {routes}}}}}]}}]}}]}}"
    ));
    assert!(
        found.iter().any(|finding| finding.message.ends_with("has no value 308: write PERMANENT_REDIRECT")),
        "{found:#?}"
    );
}

#[test]
fn what_is_no_yaml_document_says_where() {
    expect("a: [1, 2\nb: 3\n", &["2:2 syntax"]);
    expect("a: {}\n---\nb: {}\n", &["2:1 second-document"]);
    expect("", &["1:1 empty-document"]);
    expect("x: *nowhere\n", &["1:4 syntax"]);
    expect("? [a]\n: b\n", &["1:3 bad-key"]);
    expect("- a\n", &["1:1 type-mismatch"]);
    expect(&"[".repeat(200), &["1:101 too-deep"]);
    expect(&("a: &a [".to_owned() + &"{".repeat(50) + "x: *a"), &["1:61 unknown-anchor"]);
}

#[test]
fn documents_that_explode_are_refused() {
    let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        yaml += &format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", "));
    }
    let found = findings(&yaml);
    assert!(found.iter().any(|finding| finding.message.contains("aliases make this document too large")));
}

#[test]
fn all_errors_of_a_file_come_together_in_its_order() {
    expect(
        "admin:\n  adress: {}\nstatic_resources:\n  listeners:\n  - address: {socket_address: {port_value: 70000}}\n    stat_prefix: 7\n  clusters:\n  - {name: '', type: NONE}\n",
        &[
            "2:3 unknown-field admin.adress",
            "5:31 rule static_resources.listeners[0].address.socket_address.address",
            "5:44 rule static_resources.listeners[0].address.socket_address.port_value",
            "6:18 needs-quotes static_resources.listeners[0].stat_prefix",
            "8:12 rule static_resources.clusters[0].name",
            "8:22 unknown-enum-value static_resources.clusters[0].type",
        ],
    );
}

#[test]
fn aliases_and_merges_keep_the_place_to_edit() {
    expect(
        "static_resources:\n  clusters:\n  - &base\n    name: a\n    connect_timeout: soon\n  - <<: *base\n    name: b\n  - *base\n",
        &[
            "5:22 bad-duration static_resources.clusters[0].connect_timeout",
            "5:22 bad-duration static_resources.clusters[1].connect_timeout",
            "5:22 bad-duration static_resources.clusters[2].connect_timeout",
        ],
    );
    // An anchor inside a mapping that merges another, or inside an ignored entry, can be used later.
    expect(
        "node:\n  <<: {id: a}\n  metadata: &m {x: 1}\n  !ignore k: &c [{name: a}, {nam: a}]\nstatic_resources:\n  clusters: *c\nstats_config: *m\n",
        &[
            "3:17 unknown-field stats_config.x",
            "4:29 rule static_resources.clusters[1].name",
            "4:30 unknown-field static_resources.clusters[1].nam",
        ],
    );
    expect(
        "'!': 1\n!ignore bases: &b {name: a}\nstatic_resources: {clusters: [*b]}\n",
        &["1:1 unknown-field !"],
    );
}

#[test]
fn rules_are_worded_for_a_human() {
    // (path of the message, YAML below it, what the message of the only finding contains)
    let table = [
        ("clusters: [{name: c, connect_timeout: 0s}]", "`connect_timeout` must be greater than 0s, is 0s"),
        (
            "clusters: [{name: c, alt_stat_name: a, type: 77}]",
            "`type`: envoy.config.cluster.v3.Cluster.DiscoveryType has no value 77",
        ),
        (
            "clusters: [{name: c, common_lb_config: {healthy_panic_threshold: {value: 101}}}]",
            "`value` must be at most 100, is 101",
        ),
        ("clusters: [{name: c, load_assignment: {endpoints: []}}]", "`cluster_name` must not be empty"),
        (
            "clusters: [{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1}]}]",
            "`healthy_threshold` is required",
        ),
        (
            "clusters: [{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1}]}]",
            "`health_checker` is required: give one of http_health_check,",
        ),
        (
            "secrets: [{name: s, validation_context: {trusted_ca: {}}}]",
            "`specifier` is required: give one of filename, inline_bytes,",
        ),
        (
            "secrets: [{name: s, validation_context: {verify_certificate_hash: [abc]}}]",
            "`verify_certificate_hash` must have at least 64 characters, is \"abc\"",
        ),
        ("listeners: [{address: {pipe: {path: ''}}}]", "`path` must not be empty"),
        ("listeners: [{address: {pipe: {path: a, mode: 512}}}]", "`mode` must be at most 511, is 512"),
    ];
    for (yaml, expected) in table {
        let found = findings(&format!("static_resources:\n  {yaml}\n"));
        assert_eq!(found.len(), 1, "{yaml}\n{found:#?}");
        assert!(found[0].message.contains(expected), "{yaml}\n{found:#?}");
        assert!(
            found[0].place.as_ref().is_some_and(|place| place.line == 2 && place.column > 3),
            "{found:#?}"
        );
    }
}

#[test]
fn values_of_sensitive_fields_are_never_shown() {
    let found = findings(
        "static_resources:\n  secrets:\n  - name: s\n    tls_certificate:\n      private_key: SECRET1\n      password: {inline_bytes: 'SECRET2!', filename: SECRET3, environment_variable: {SECRET: 4}}\n",
    );
    assert!(found.len() >= 3, "{found:#?}");
    let text: String = found.iter().map(|finding| finding.message.clone()).collect();
    assert!(!text.contains("SECRET"), "{text}");
}

#[test]
fn unsupported_fields_are_refused_at_their_key() {
    let yaml = "perf_tracing_file_path: trace\n";
    let inputs = LoadInputs { yaml_override: Some(yaml.to_owned()), ..LoadInputs::default() };
    let found = load_bootstrap(&inputs).findings;
    assert!(found.has_errors());
    assert_eq!(shorten(&found.into_vec()), ["1:1 unsupported-field perf_tracing_file_path"]);
}

/// What is not what it seems says what to write instead.
#[test]
fn typical_mistakes_have_hints() {
    for (yaml, hint) in [
        ("admin: {address: 127.0.0.1:80}", "write {socket_address: {address: ..., port_value: ...}}, or"),
        ("node: me", "write {id: ..., cluster: ...}"),
        ("static_resources: []", "it has listeners, clusters, secrets"),
        (
            "admin:\n  address:\n    socket_address:\n    address: a",
            "`socket_address` above is empty: indent",
        ),
        (
            "static_resources: {clusters: [{name: a, connect_timeout: 5000}]}",
            "write 5000s, or 5s if milliseconds were meant",
        ),
        ("static_resources: {clusters: [{name: a, lb_policy: leastconn}]}", "did you mean `LEAST_REQUEST`?"),
        (
            "static_resources: {clusters: [{name: a, load_assignment: {cluster_name: a, endpoints: [{address: x}]}}]}",
            "did you mean `lb_endpoints[].endpoint.address`?",
        ),
        (
            "static_resources: {listeners: [{name: a, filter_chains: [{filters: [{name: t, typed_config: \
             {stat_prefix: x, cluster: b, max_connect_attempts: 1}}]}]}]}",
            "with these fields it may be \"@type\": \
             type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        ),
    ] {
        let found = findings(yaml);
        let hints: Vec<_> = found.iter().filter_map(|finding| finding.hint.as_deref()).collect();
        assert!(hints.iter().any(|found| found.starts_with(hint)), "{yaml}: {found:#?}");
    }
}

/// A URL that lacks its host names its type all the same: what stands beside it is looked at.
#[test]
fn a_type_without_a_host_is_read_on() {
    let yaml = "static_resources: {listeners: [{name: a, filter_chains: [{filters: [{name: e, typed_config: \
                {'@type': envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: a, clusterr: b}}]}]}]}";
    let codes: Vec<_> = findings(yaml).iter().map(|finding| finding.code.0).collect();
    assert!(codes.contains(&"bad-type-url") && codes.contains(&"unknown-field"), "{codes:?}");
}
