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
        "{query_parameters: {query_parameter_name: 'a b', descriptor_key: blank}}",
        "{query_parameter_value_match: {descriptor_key: x, descriptor_value: v, query_parameters: [{name: x, string_match: {exact: 'v w'}}]}}",
        "{query_parameter_value_match: {descriptor_key: y, descriptor_value: v, query_parameters: [{name: y, present_match: true}]}}",
    ];
    let masked = "{masked_remote_address: {v4_prefix_mask_len: 8}}";
    let each = |actions: &[&str]| {
        actions.iter().map(|action| format!("{{actions: [{action}]}}")).collect::<Vec<_>>().join(", ")
    };
    let described = |key: &str, value: &str| described(key, &format!("'{value}'"));
    let descriptors = ["x", "y"].map(|key| described(key, "v")).join(", ");
    let more =
        [described("user", "me"), described("query_match", "v"), described("blank", "a&b=c+")].join(", ");
    let descriptors = format!("{descriptors}, {more}");
    let fields =
        format!("{}, {ON}, descriptors: [{descriptors}], rate_limits: [{}]", bucket(100), each(&actions));
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(
        passed(&proxy, ["/?user=me", "/?user=you", "/?user=", "/?debug=1", "/?debug=2"]),
        [1, 3, 3, 1, 3]
    );
    // Who writes a name or value in another way takes from the same bucket, which is empty by now.
    assert_eq!(passed(&proxy, ["/?user=%6d%65", "/?%75ser=me", "/?user=m%65&user=you"]), [0, 0, 0]);
    assert_eq!(
        passed(&proxy, ["/?user=%256de", "/?user=you&user=me", "/?user%3Dme", "/?debug=%31"]),
        [3, 3, 3, 0]
    );
    assert_eq!(passed(&proxy, ["/?a+b=a%26b=c+", "/?a%20b=a%26b%3Dc+", "/?a%20b=a%26b%3dc%2B"]), [3, 1, 0]);
    assert_eq!(passed(&proxy, ["/?x=v+w", "/?x=v%20w", "/?%78=v%20w", "/?%79", "/?y=1"]), [3, 1, 0, 1, 0]);
    let descriptors = described("masked_remote_address", "127.0.0.0/8");
    let fields =
        format!("{}, {ON}, descriptors: [{descriptors}], rate_limits: [{}]", bucket(100), each(&[masked]));
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(passed(&proxy, ["/"]), [1]);
}

/// A rate limit of requests with `header`, whose value becomes an entry under the same key.
fn by_header(header: &str, more: &str) -> String {
    format!("{{actions: [{{request_headers: {{header_name: {header}, descriptor_key: {header}}}}}]{more}}}")
}

#[test]
fn several_lines_of_a_header_describe_a_request_together() {
    let backend = Backend::saying("ok");
    let descriptors = [descriptor("referer", "a,b", 1, ""), descriptor("x-a", "a", 1, "")].join(", ");
    let limits = [by_header("referer", ""), by_header("x-a", "")].join(", ");
    let fields = format!("{}, {ON}, descriptors: [{descriptors}], rate_limits: [{limits}]", bucket(100));
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(statuses(&proxy, 2, "referer: a\r\n"), [200, 200]);
    assert_eq!(statuses(&proxy, 2, "referer: a\r\nreferer: b\r\n"), [200, 429]);
    assert_eq!(statuses(&proxy, 2, "x-a: a\r\nx-a: b\r\n"), [200, 429]);
}

/// A descriptor of one entry.
fn descriptor(key: &str, value: &str, tokens: u32, more: &str) -> String {
    format!("{{entries: [{{key: {key}, value: '{value}'}}], {}{more}}}", bucket(tokens))
}

/// What one answer after the other says of its bucket: how many it holds, and how many are left.
fn left<const N: usize>(proxy: &Proxy, lines: [&str; N]) -> [String; N] {
    lines.map(|lines| {
        let response = proxy.get_with("/", lines);
        let [limit, remaining, _] = told(&response);
        format!("{} {}/{}", response.status(), remaining.unwrap_or("-"), limit.unwrap_or("-"))
    })
}

#[test]
fn descriptors_in_shadow_mode_only_count() {
    let backend = Backend::saying("ok");
    let fields = format!(
        "{}, {ON}, enable_x_ratelimit_headers: DRAFT_VERSION_03, request_headers_to_add_when_not_enforced: [{{header: {{key: x-too, value: many}}}}],
         rate_limits: [{}, {}], descriptors: [{}, {}]",
        bucket(6),
        by_header("x-a", ""),
        by_header("x-b", ""),
        descriptor("x-a", "1", 1, ", shadow_mode: true"),
        descriptor("x-b", "1", 2, ""),
    );
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(left(&proxy, ["x-a: 1\r\n", "x-a: 1\r\n"]), ["200 0/1", "200 0/1"]);
    let both = "x-a: 1\r\nx-b: 1\r\n";
    assert_eq!(left(&proxy, [both, both, both]), ["200 0/1", "200 0/1", "429 0/2"]);
    assert_eq!(left(&proxy, ["", ""]), ["200 1/6", "200 0/6"]);
    assert_eq!(left(&proxy, ["x-a: 1\r\n"]), ["429 0/6"]);
    for (name, value) in [("ok", 3), ("rate_limited", 5), ("shadow_mode", 3), ("enforced", 2)] {
        proxy.stat_becomes(&format!("{STATS}.{name}"), value);
    }
    assert!(backend.requests().iter().all(|request| request.header("x-too").is_none()));
}

#[test]
fn requests_may_cost_more_than_one_token_or_put_some_back() {
    let backend = Backend::saying("ok");
    let fields = format!(
        "{}, {ON}, enable_x_ratelimit_headers: DRAFT_VERSION_03,
         rate_limits: [{}, {}, {}, {}], descriptors: [{}, {}, {}]",
        bucket(100),
        by_header("x-two", ", hits_addend: {number: 2}"),
        by_header("x-told", ", hits_addend: {format: '%REQ(x-cost)%'}"),
        by_header("x-take", ", hits_addend: {number: 3}"),
        "{actions: [{request_headers: {header_name: x-back, descriptor_key: x-take}}], hits_addend: {number: 2, is_negative_hits: true}}",
        descriptor("x-two", "1", 5, ""),
        descriptor("x-told", "1", 5, ""),
        descriptor("x-take", "1", 5, ""),
    );
    let proxy = Proxy::start(&bootstrap(&backend, &fields));
    assert_eq!(left(&proxy, ["x-two: 1\r\n"; 3]), ["200 3/5", "200 1/5", "429 1/5"]);
    let (take, back) = ("x-take: 1\r\n", "x-back: 1\r\n");
    assert_eq!(
        left(&proxy, [take, take, back, take, back, back, back]),
        ["200 2/5", "429 2/5", "200 4/5", "200 1/5", "200 3/5", "200 5/5", "200 5/5"]
    );
    let told = |cost: &str| left(&proxy, [&format!("x-told: 1\r\nx-cost: {cost}\r\n")])[0].clone();
    assert_eq!(
        ["2", "1.9", "0", "0x.8p1", "1000000000", "nan"].map(told),
        ["200 3/5", "200 2/5", "429 2/5", "200 1/5", "429 1/5", "429 1/5"]
    );
    let undescribed = ["many", "-1", "", "1000000001", "inf", "0x", "0x3b9aca01"].map(told);
    assert!(undescribed.iter().all(|told| told.ends_with("/100")), "{undescribed:?}");
}

#[test]
fn a_descriptor_without_a_value_has_a_bucket_for_every_value() {
    let backend = Backend::saying("ok");
    let start = |more: &str| {
        let fields = format!(
            "{}, {ON}, enable_x_ratelimit_headers: DRAFT_VERSION_03, {more} rate_limits: [{}, {}],
             descriptors: [{}, {}, {{entries: [{{key: x-a}}, {{key: x-b, value: '1'}}], {}}}]",
            bucket(100),
            by_header("x-a", ""),
            "{actions: [{request_headers: {header_name: x-a, descriptor_key: x-a}}, {request_headers: {header_name: x-b, descriptor_key: x-b}}]}",
            descriptor("x-a", "", 2, ""),
            descriptor("x-a", "known", 5, ""),
            bucket(1),
        );
        Proxy::start(&bootstrap(&backend, &fields))
    };
    let proxy = start("");
    let known = "x-a: known\r\n";
    assert_eq!(
        left(&proxy, ["x-a: 1\r\n", "x-a: 1\r\n", "x-a: 1\r\n", "x-a: 2\r\n", known, ""]),
        ["200 1/2", "200 0/2", "429 0/2", "200 1/2", "200 4/5", "200 95/100"]
    );
    let (one, two) = ("x-a: 3\r\nx-b: 1\r\n", "x-a: 3\r\nx-b: 2\r\n");
    assert_eq!(left(&proxy, [one, two]).map(|told| told[..3].to_owned()), ["200", "200"]);
    assert_eq!(left(&proxy, [one])[0][..3], *"429");
    // The value that was not used for longest is forgotten, and with it what it has used up.
    let proxy = start("max_dynamic_descriptors: 2,");
    let values = ["1", "1", "2", "1", "3", "1", "2"].map(|value| format!("x-a: {value}\r\n"));
    assert_eq!(
        left(&proxy, values.each_ref().map(String::as_str)),
        ["200 1/2", "200 0/2", "200 1/2", "429 0/2", "200 1/2", "429 0/2", "200 1/2"]
    );
}

#[test]
fn what_is_known_of_the_route_and_the_client_describes_requests() {
    let backend = Backend::saying("ok");
    let metadata = |source: &str, more: &str| {
        format!(
            "{{metadata: {{descriptor_key: m, metadata_key: {{key: ns, path: [{{key: p}}, {{key: q}}]}}, source: {source}{more}}}}}"
        )
    };
    let matched = |value: &str, network: &str, more: &str| {
        format!(
            "{{remote_address_match: {{descriptor_value: '{value}', address_matcher: {{ranges: [{{address_prefix: {network}, prefix_len: 8}}]{more}}}}}}}"
        )
    };
    let generic = |value: &str| format!("{{generic_key: {{descriptor_value: {value}}}}}");
    let route = |path: &str, actions: &[String], value: &str| {
        let actions = actions.join(", ");
        format!(
            "- {{match: {{path: {path}}}, route: {{cluster: backend, rate_limits: [{{actions: [{actions}]}}]}}, metadata: {{filter_metadata: {{ns: {{p: {{q: {value}}}}}}}}}}}\n"
        )
    };
    let defaulted = metadata("ROUTE_ENTRY", ", default_value: none");
    let routes = [
        route("/of-route", &[metadata("ROUTE_ENTRY", "")], "mine"),
        route("/of-cluster", &[metadata("CLUSTER_ENTRY", "")], "mine"),
        route("/no-text", &[metadata("ROUTE_ENTRY", ""), generic("a")], "5"),
        route("/left-out", &[metadata("ROUTE_ENTRY", ", skip_if_absent: true"), generic("b")], "5"),
        route("/default", &[defaulted], "''"),
        route("/dynamic", &[metadata("DYNAMIC", "")], "mine"),
        route("/no-host-yet", &[metadata("CLUSTER_LOCALITY_ENTRY", "")], "mine"),
        route("/in", &[matched("in-%REQ(:method)%", "127.0.0.0", "")], "mine"),
        route("/not-in", &[matched("in-%REQ(:method)%", "10.0.0.0", "")], "mine"),
        route("/outside", &[matched("outside", "10.0.0.0", ", invert_match: true")], "mine"),
        route("/nothing", &[matched("%REQ(x-none)%", "127.0.0.0", "")], "mine"),
    ];
    let descriptors = [
        described("m", "mine"),
        described("m", "cluster"),
        described("m", "none"),
        described("generic_key", "a"),
        described("generic_key", "b"),
        described("remote_address_match", "in-GET"),
        described("remote_address_match", "outside"),
        "{entries: [{key: remote_address_match}], token_bucket: {max_tokens: 0, fill_interval: 1000s}}"
            .to_owned(),
    ];
    let fields = format!("{}, {ON}, descriptors: [{}]", bucket(100), descriptors.join(", "));
    let proxy = Proxy::start(
        &bootstrap(&backend, &fields)
            .routes(&routes.concat())
            .cluster_with("backend", "metadata: {filter_metadata: {ns: {p: {q: cluster}}}}"),
    );
    assert_eq!(passed(&proxy, ["/of-route", "/of-cluster", "/no-text", "/left-out"]), [1, 1, 3, 1]);
    assert_eq!(passed(&proxy, ["/default", "/dynamic", "/no-host-yet"]), [1, 3, 3]);
    assert_eq!(passed(&proxy, ["/in", "/not-in", "/outside", "/nothing"]), [1, 3, 1, 3]);
}

#[test]
fn what_local_limits_do_not_go_by_changes_nothing() {
    let backend = Backend::saying("ok");
    let route = |path: &str, more: &str| {
        let limit = generic("a", more);
        format!("- {{match: {{path: {path}}}, route: {{cluster: backend, rate_limits: [{limit}]}}}}\n")
    };
    let routes = [
        route("/disabled", "disable_key: key,"),
        route(
            "/ignored",
            "limit: {rate_limit: {requests_per_unit: 9, unit: HOUR}}, apply_on_stream_done: true, hits_addend: {number: 2},",
        ),
    ];
    let fields = format!("{}, {ON}, descriptors: [{}]", bucket(100), described("generic_key", "a"));
    let proxy = Proxy::start(&bootstrap(&backend, &fields).routes(&routes.concat()));
    assert_eq!(passed(&proxy, ["/disabled", "/ignored"]), [3, 1]);
    let fields = format!(
        "{}, {ON}, rate_limits: [{}], descriptors: [{}]",
        bucket(100),
        generic("a", "apply_on_stream_done: true,"),
        described("generic_key", "a")
    );
    assert_eq!(passed(&Proxy::start(&bootstrap(&backend, &fields)), ["/"]), [3]);
}

#[test]
fn a_rate_limit_may_say_whether_its_bucket_is_told_of() {
    let backend = Backend::saying("ok");
    let start = |filter: &str, limits: &str| {
        let fields = format!(
            "{}, {ON}, {filter} rate_limits: [{}], descriptors: [{}]",
            bucket(2),
            by_header("x-a", limits),
            descriptor("x-a", "1", 5, "")
        );
        Proxy::start(&bootstrap(&backend, &fields))
    };
    let silent = start("enable_x_ratelimit_headers: DRAFT_VERSION_03,", ", x_ratelimit_option: 'OFF'");
    assert_eq!(left(&silent, ["x-a: 1\r\n", "", "x-a: 1\r\n"]), ["200 -/-", "200 0/2", "429 0/2"]);
    let telling = start("", ", x_ratelimit_option: DRAFT_VERSION_03");
    assert_eq!(left(&telling, ["x-a: 1\r\n", "", "x-a: 1\r\n"]), ["200 4/5", "200 -/-", "429 -/-"]);
}

#[test]
fn refusals_may_tell_when_to_come_back() {
    let backend = Backend::saying("ok");
    let refused = |more: &str, tokens: u32, lines: &str| {
        let fields = format!("{}, {ON}, enable_retry_after_header: true{more}", bucket(tokens));
        let proxy = Proxy::start(&bootstrap(&backend, &fields));
        let responses = [proxy.get_with("/", lines), proxy.get_with("/", lines)];
        responses.map(|response| response.header("retry-after").map(str::to_owned))
    };
    let after = |text: &str| [None, Some(text.to_owned())];
    assert_eq!(refused("", 1, ""), after("500"));
    assert_eq!(refused("", 1, "content-type: application/grpc\r\n"), after("500"));
    assert_eq!(refused(", status: {code: Forbidden}", 1, ""), [None, None]);
    let own = ", response_headers_to_add: [{header: {key: retry-after, value: '7'}}]";
    assert_eq!(refused(own, 1, ""), after("7"));
    assert_eq!(refused("", 0, ""), [None, None], "there is never a token");
    let soon = format!(
        ", rate_limits: [{}], descriptors: [{}]",
        by_header("x-a", ", hits_addend: {number: 3}"),
        descriptor("x-a", "1", 5, "")
    );
    assert_eq!(refused(&soon, 9, "x-a: 1\r\n"), after("1"), "there is a token, but not enough of them");
}

#[test]
fn values_may_be_formats_where_the_runtime_says_so() {
    let backend = Backend::saying("ok");
    let fields = format!(
        "{}, {ON}, rate_limits: [{{actions: [{{generic_key: {{descriptor_value: '%REQ(x-a)%', default_value: none}}}}]}}],
         descriptors: [{}, {}, {}]",
        bucket(100),
        described("generic_key", "mine"),
        described("generic_key", "none"),
        described("generic_key", "'%REQ(x-a)%'"),
    );
    let passed = |proxy: &Proxy| {
        let refused = |lines| statuses(proxy, 3, lines).iter().filter(|status| **status == 429).count();
        ["x-a: mine\r\n", "x-a: other\r\n", ""].map(refused)
    };
    assert_eq!(passed(&Proxy::start(&bootstrap(&backend, &fields))), [2, 3, 3]);
    let flag = "{layered_runtime: {layers: [{name: static, static_layer: {envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value: true}}]}}";
    assert_eq!(passed(&Proxy::start(&bootstrap(&backend, &fields).with(flag))), [2, 0, 2]);
}
