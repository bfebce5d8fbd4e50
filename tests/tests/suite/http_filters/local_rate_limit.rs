//! `envoy.filters.http.local_ratelimit`.

use proxy_tests::{Backend, Bootstrap, Message, Proxy};

const ON: &str =
    "filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}";
const STATS: &str = "lim.http_local_rate_limit";

fn bootstrap(backend: &Backend, fields: &str) -> Bootstrap {
    Bootstrap::http(backend.address()).http_filter(
        "envoy.filters.http.local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        &format!("{{stat_prefix: lim, {fields}}}"),
    )
}

fn bucket(tokens: u32) -> String {
    format!("token_bucket: {{max_tokens: {tokens}, tokens_per_fill: 2, fill_interval: 1000s}}")
}

fn statuses(proxy: &Proxy, count: usize, lines: &str) -> Vec<u16> {
    (0..count).map(|_| proxy.get_with("/", lines).status()).collect()
}

fn told(response: &Message) -> [Option<&str>; 3] {
    ["limit", "remaining", "reset"].map(|name| response.header(&format!("x-ratelimit-{name}")))
}

#[test]
fn all_workers_take_from_one_bucket() {
    let backend = Backend::saying("ok");
    let fields = format!(
        "{}, {ON}, response_headers_to_add: [{{header: {{key: x-limited, value: '%REQ(x-in)%'}}}}]",
        bucket(3)
    );
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(statuses(&proxy, 5, ""), [200, 200, 200, 429, 429]);
    let refused = proxy.get_with("/", "x-in: in\r\n");
    assert_eq!((refused.text(), refused.header("x-limited")), ("local_rate_limited", Some("in")));
    assert_eq!(told(&refused), [None; 3]);
    for (name, value) in [("enabled", 6), ("ok", 3), ("rate_limited", 3), ("enforced", 3)] {
        proxy.stat_becomes(&format!("{STATS}.{name}"), value);
    }
    assert_eq!(backend.requests().len(), 3);
}

#[test]
fn responses_tell_what_is_left() {
    let backend = Backend::saying("ok");
    let fields = format!(
        "{}, {ON}, enable_x_ratelimit_headers: DRAFT_VERSION_03, status: {{code: Forbidden}}",
        bucket(2)
    );
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(told(&proxy.get("/")), [Some("2"), Some("1"), Some("0")]);
    assert_eq!(told(&proxy.get("/")), [Some("2"), Some("0"), Some("500")]);
    let refused = proxy.get("/");
    assert_eq!((refused.status(), told(&refused)), (403, [Some("2"), Some("0"), Some("500")]));
}

#[test]
fn what_is_not_enforced_is_only_counted() {
    let backend = Backend::saying("ok");
    let fields = format!(
        "{}, filter_enabled: {{default_value: {{numerator: 100}}}}, request_headers_to_add_when_not_enforced: [{{header: {{key: x-too-many, value: 'yes'}}}}]",
        bucket(1)
    );
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(statuses(&proxy, 2, ""), [200, 200]);
    let seen: Vec<_> =
        backend.requests().iter().map(|request| request.header("x-too-many").is_some()).collect();
    assert_eq!(seen, [false, true]);
    proxy.stat_becomes(&format!("{STATS}.rate_limited"), 1);
    assert_eq!(proxy.stat(&format!("{STATS}.enforced")), 0);
    let off = Proxy::start(&bootstrap(&backend, &bucket(1)));
    assert_eq!(statuses(&off, 2, ""), [200, 200]);
    assert_eq!(off.stat(&format!("{STATS}.enabled")), 0);
}

#[test]
fn grpc_clients_may_be_told_of_exhausted_resources() {
    let backend = Backend::saying("ok");
    let fields = format!("{}, {ON}, rate_limited_as_resource_exhausted: true", bucket(0));
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    let response = proxy.get_with("/", "content-type: application/grpc\r\n");
    assert_eq!((response.status(), response.header("grpc-status")), (200, Some("8")));
}

#[test]
fn a_connection_may_have_a_bucket_of_its_own() {
    let backend = Backend::saying("ok");
    let fields = format!("{}, {ON}, local_rate_limit_per_downstream_connection: true", bucket(1));
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    for _ in 0..3 {
        let mut client = proxy.connect();
        let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!([client.ask(request).status(), client.ask(request).status()], [200, 429]);
    }
}

#[test]
fn requests_of_a_kind_have_buckets_of_their_own() {
    let backend = Backend::saying("ok");
    let fields = format!(
        "{}, {ON}, always_consume_default_token_bucket: false,
         rate_limits: [{{actions: [{{request_headers: {{header_name: x-k, descriptor_key: k}}}}, {{generic_key: {{descriptor_value: g}}}}]}},
                       {{actions: [{{header_value_match: {{descriptor_value: m, headers: [{{name: x-m}}]}}}}, {{destination_cluster: {{}}}}]}},
                       {{actions: [{{remote_address: {{}}}}, {{source_cluster: {{}}}}, {{request_headers: {{header_name: x-none, descriptor_key: none, skip_if_absent: true}}}}]}}],
         descriptors: [{{entries: [{{key: k, value: v}}, {{key: generic_key, value: g}}], {}}},
                       {{entries: [{{key: header_match, value: m}}, {{key: destination_cluster, value: backend}}], {}}}]",
        bucket(1),
        bucket(2),
        bucket(3)
    );
    let proxy = Proxy::start(&bootstrap(&backend, &fields).with("{node: {id: n, cluster: here}}"));
    assert_eq!(statuses(&proxy, 3, "x-k: v\r\n"), [200, 200, 429]);
    assert_eq!(statuses(&proxy, 4, "x-m: 1\r\n"), [200, 200, 200, 429]);
    assert_eq!(statuses(&proxy, 2, "x-k: w\r\n"), [200, 429]);
}

#[test]
fn descriptors_take_from_the_default_bucket_too() {
    let backend = Backend::saying("ok");
    let fields = format!(
        "{}, {ON}, rate_limits: [{{actions: [{{generic_key: {{descriptor_value: g, descriptor_key: own}}}}]}}],
         descriptors: [{{entries: [{{key: own, value: g}}], {}}}]",
        bucket(2),
        bucket(5)
    );
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(statuses(&proxy, 3, ""), [200, 200, 429]);
}

#[test]
fn a_route_has_its_own_limit_and_stats() {
    let backend = Backend::saying("ok");
    let kind = "'@type': type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    let routes = format!(
        "[{{match: {{prefix: /own}}, route: {{cluster: backend}}, typed_per_filter_config: {{envoy.filters.http.local_ratelimit: {{{kind}, stat_prefix: own, {}, {ON}}}}}}},
          {{match: {{prefix: /}}, route: {{cluster: backend}}}}]",
        bucket(1)
    );
    let proxy = Proxy::start(&bootstrap(&backend, ON).routes(&routes));
    assert_eq!(
        [proxy.get("/own").status(), proxy.get("/own").status(), proxy.get("/").status()],
        [200, 429, 200]
    );
    proxy.stat_becomes("own.http_local_rate_limit.rate_limited", 1);
    proxy.stat_becomes(&format!("{STATS}.ok"), 1);
}

fn described(key: &str, value: &str) -> String {
    format!(
        "{{entries: [{{key: {key}, value: {value}}}], token_bucket: {{max_tokens: 1, tokens_per_fill: 1, fill_interval: 1000s}}}}"
    )
}

fn generic(value: &str, more: &str) -> String {
    format!("{{{more} actions: [{{generic_key: {{descriptor_value: {value}}}}}]}}")
}

/// How many of three requests for each path get through.
fn passed<const N: usize>(proxy: &Proxy, paths: [&str; N]) -> [usize; N] {
    paths.map(|path| (0..3).filter(|_| proxy.get(path).status() == 200).count())
}

#[test]
fn routes_and_virtual_hosts_describe_their_requests() {
    let backend = Backend::saying("ok");
    let route = |path: &str, action: &str, more: &str| {
        format!("- {{match: {{path: {path}}}, route: {{cluster: backend, {action}}}{more}}}\n")
    };
    let limits = |value: &str, more: &str| format!("rate_limits: [{}]", generic(value, more));
    let include = |value: &str| format!("{}, include_vh_rate_limits: true", limits(value, ""));
    let per_route = |option: &str| {
        let descriptors = [described("generic_key", "b"), described("generic_key", "host")].join(", ");
        format!(
            ", typed_per_filter_config: {{envoy.filters.http.local_ratelimit: {{'@type': type.googleapis.com/\
             envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, stat_prefix: r, {}, {ON}, vh_rate_limits: {option}, \
             descriptors: [{descriptors}]}}}}",
            bucket(100)
        )
    };
    let routes = [
        route("/own", &limits("a", ""), ""),
        route("/other-stage", &limits("a", "stage: 1,"), ""),
        route("/unknown", &limits("zzz", ""), ""),
        route("/included", &include("zzz"), ""),
        route("/ignoring", "timeout: 5s", &per_route("IGNORE")),
        route("/including", &limits("b", ""), &per_route("INCLUDE")),
        route("/overriding", &limits("zzz", ""), &per_route("OVERRIDE")),
    ];
    let descriptors = [described("generic_key", "a"), described("generic_key", "host")].join(", ");
    let fields = format!("{}, {ON}, descriptors: [{descriptors}]", bucket(100));
    let start = || {
        Proxy::start(
            &bootstrap(&backend, &fields)
                .routes(&routes.concat())
                .virtual_host_with(&format!("rate_limits: [{}]", generic("host", ""))),
        )
    };
    let proxy = start();
    assert_eq!(passed(&proxy, ["/own", "/unknown", "/included"]), [1, 3, 1]);
    assert_eq!(passed(&proxy, ["/ignoring", "/including", "/overriding"]), [3, 1, 3]);
    // Of another stage than the filter's: as if the route said nothing, but for the virtual host's.
    assert_eq!(passed(&start(), ["/other-stage"]), [3]);
}

#[test]
fn parameters_and_networks_describe_requests() {
    let backend = Backend::saying("ok");
    let actions = [
        "{query_parameters: {query_parameter_name: user, descriptor_key: user}}",
        "{query_parameter_value_match: {descriptor_value: v, query_parameters: [{name: debug, string_match: {exact: '1'}}]}}",
    ];
    let masked = "{masked_remote_address: {v4_prefix_mask_len: 8}}";
    let each = |actions: &[&str]| {
        actions.iter().map(|action| format!("{{actions: [{action}]}}")).collect::<Vec<_>>().join(", ")
    };
    let descriptors = [described("user", "me"), described("query_match", "v")].join(", ");
    let fields =
        format!("{}, {ON}, descriptors: [{descriptors}], rate_limits: [{}]", bucket(100), each(&actions));
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(
        passed(&proxy, ["/?user=me", "/?user=you", "/?user=", "/?debug=1", "/?debug=2"]),
        [1, 3, 3, 1, 3]
    );
    let descriptors = described("masked_remote_address", "127.0.0.0/8");
    let fields =
        format!("{}, {ON}, descriptors: [{descriptors}], rate_limits: [{}]", bucket(100), each(&[masked]));
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(passed(&proxy, ["/"]), [1]);
}
