//! What a connection manager is told to do to requests before they are routed: hosts, origins, schemes, `via`.

use proxy_tests::{Backend, Bootstrap, Message, Proxy};

/// A proxy whose connection manager has `fragment` merged in, before a backend that is told of.
struct Setup {
    proxy: Proxy,
    backend: Backend,
}

impl Setup {
    fn new(fragment: &str) -> Setup {
        Setup::of(|bootstrap| bootstrap.filter_with(fragment))
    }

    fn of(with: impl FnOnce(Bootstrap) -> Bootstrap) -> Setup {
        let backend = Backend::answering("HTTP/1.1 200 OK\r\nvia: theirs\r\ncontent-length: 0\r\n\r\n");
        let proxy = Proxy::start(&with(Bootstrap::http(backend.address())));
        Setup { proxy, backend }
    }

    /// The request that reached the backend and the response to it; of the former none if it was refused.
    fn exchange(&self, host: &str, lines: &str) -> (Option<Message>, Message) {
        let before = self.backend.requests().len();
        let response = self.proxy.connect().ask(format!("GET /a HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n"));
        (self.backend.requests().get(before).cloned(), response)
    }

    fn host(&self, host: &str) -> String {
        let (request, _) = self.exchange(host, "");
        request.unwrap().header("host").unwrap().to_owned()
    }
}

#[test]
fn ports_are_stripped_from_hosts() {
    let any = Setup::new("strip_any_host_port: true");
    assert_eq!(any.host("a.com:80"), "a.com");
    assert_eq!(any.host("[::1]:8080"), "[::1]");
    assert_eq!(any.host("a.com"), "a.com");
    let matching = Setup::new("strip_matching_host_port: true");
    let port = matching.proxy.listener("main").port();
    assert_eq!(matching.host(&format!("a.com:{port}")), "a.com");
    assert_eq!(matching.host("a.com:1"), "a.com:1");
}

#[test]
fn trailing_dots_are_stripped_from_hosts() {
    let both = Setup::new("{strip_trailing_host_dot: true, strip_any_host_port: true}");
    assert_eq!(both.host("A.com.:80"), "A.com");
    let dot = Setup::new("strip_trailing_host_dot: true");
    assert_eq!(dot.host("a.com.:80"), "a.com:80");
    assert_eq!(dot.host("a.com.."), "a.com.");
}

#[test]
fn routes_see_the_host_without_its_port() {
    let setup = Setup::of(|bootstrap| {
        bootstrap.filter_with("strip_any_host_port: true").virtual_host_with("domains: [a.com]")
    });
    assert_eq!(setup.host("a.com:99"), "a.com");
    assert_eq!(setup.exchange("b.com:99", "").1.status(), 404);
}

#[test]
fn via_is_added_both_ways() {
    let setup = Setup::new("via: 1.1 me");
    let (request, response) = setup.exchange("a", "via: 1.0 x\r\n");
    assert_eq!(request.unwrap().header("via"), Some("1.0 x, 1.1 me"));
    assert_eq!(response.header("via"), Some("theirs, 1.1 me"));
    let (request, _) = setup.exchange("a", "");
    assert_eq!(request.unwrap().header("via"), Some("1.1 me"));
}

#[test]
fn a_scheme_is_put_over_the_clients() {
    let setup = Setup::of(|bootstrap| {
        bootstrap
            .filter_with("scheme_header_transformation: {scheme_to_overwrite: https}")
            .virtual_host_with("request_headers_to_add: [{header: {key: x-scheme, value: '%REQ(:scheme)%'}}]")
    });
    let (request, _) = setup.exchange("a", "x-forwarded-proto: http\r\n");
    let request = request.unwrap();
    assert_eq!(request.header("x-scheme"), Some("https"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
}

#[test]
fn the_service_is_told_upstream() {
    let setup = Setup::of(|bootstrap| {
        bootstrap.filter_with("add_user_agent: true").with("node: {id: n1, cluster: shop}")
    });
    let (request, _) = setup.exchange("a", "");
    let request = request.unwrap();
    assert_eq!(request.header("user-agent"), Some("shop"));
    assert_eq!(request.header("x-envoy-downstream-service-cluster"), Some("shop"));
    assert_eq!(request.header("x-envoy-downstream-service-node"), Some("n1"));
    let (request, _) = setup.exchange("a", "user-agent: mine\r\n");
    assert_eq!(request.unwrap().header("user-agent"), Some("mine"));
}

/// Shows the address that counts as the client's.
fn detecting(extensions: &str) -> Setup {
    Setup::of(|bootstrap| {
        bootstrap
            .filter_with(&format!(
                "{{original_ip_detection_extensions: [{extensions}],
                   internal_address_config: {{cidr_ranges: [{{address_prefix: 10.0.0.0, prefix_len: 8}}]}}}}"
            ))
            .virtual_host_with(
                "response_headers_to_add: [{header: {key: x-ip, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}]",
            )
    })
}

fn forwarded_for(fields: &str) -> String {
    format!(
        "{{name: xff, typed_config: {{'@type': type.googleapis.com/envoy.extensions.http.original_ip_detection.xff.v3.XffConfig{fields}}}}}"
    )
}

fn in_header(fields: &str) -> String {
    format!(
        "{{name: custom, typed_config: {{'@type': type.googleapis.com/envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig, header_name: x-real{fields}}}}}"
    )
}

#[test]
fn forwarded_for_tells_the_client() {
    const LINES: &str = "x-forwarded-for: 1.1.1.1, 2.2.2.2,3.3.3.3\r\n";
    for (fields, lines, client, forwarded) in [
        ("", LINES, "3.3.3.3", Some("1.1.1.1, 2.2.2.2,3.3.3.3")),
        (", xff_num_trusted_hops: 1", LINES, "2.2.2.2", Some("1.1.1.1, 2.2.2.2,3.3.3.3")),
        (", xff_num_trusted_hops: 1", "x-forwarded-for: 1.1.1.1\r\n", "127.0.0.1", Some("1.1.1.1")),
        ("", "", "127.0.0.1", None),
    ] {
        let (request, response) = detecting(&forwarded_for(fields)).exchange("a", lines);
        assert_eq!(response.header("x-ip"), Some(client), "{fields} {lines}");
        assert_eq!(request.unwrap().header("x-forwarded-for"), forwarded);
    }
    let setup = detecting(&forwarded_for(""));
    for (line, client) in [("2.2.2.2", "2.2.2.2"), ("", "1.1.1.1")] {
        let (_, response) =
            setup.exchange("a", &format!("x-forwarded-for: 1.1.1.1\r\nx-forwarded-for: {line}\r\n"));
        assert_eq!(response.header("x-ip"), Some(client));
    }
    let appending = detecting(&forwarded_for(", skip_xff_append: false"));
    let (request, _) = appending.exchange("a", LINES);
    let forwarded = request.unwrap().header("x-forwarded-for").unwrap().to_owned();
    assert!(forwarded.starts_with("1.1.1.1, 2.2.2.2,3.3.3.3,"), "{forwarded}");
}

#[test]
fn trusted_networks_are_passed_over() {
    const TRUSTED: &str = ", xff_trusted_cidrs: {cidrs: [{address_prefix: 127.0.0.0, prefix_len: 8}, {address_prefix: 3.0.0.0, prefix_len: 8}]}";
    let setup = detecting(&forwarded_for(TRUSTED));
    for (lines, client) in [
        ("x-forwarded-for: 1.1.1.1, 2.2.2.2,3.3.3.3\r\n", "2.2.2.2"),
        ("x-forwarded-for: 3.1.1.1, 3.3.3.3\r\n", "3.1.1.1"),
        ("x-forwarded-for: 1.1.1.1, nonsense, 3.3.3.3\r\n", "127.0.0.1"),
        ("", "127.0.0.1"),
    ] {
        assert_eq!(setup.exchange("a", lines).1.header("x-ip"), Some(client), "{lines}");
    }
    // 20 entries are looked at; whoever wrote more trusted ones is not to be found behind them.
    for (trusted, client) in [(19, "1.1.1.1"), (20, "127.0.0.1"), (300, "127.0.0.1")] {
        let lines = format!("x-forwarded-for: 1.1.1.1{}\r\n", ",3.3.3.3".repeat(trusted));
        assert_eq!(setup.exchange("a", &lines).1.header("x-ip"), Some(client), "{trusted}");
    }
    let stranger =
        detecting(&forwarded_for(", xff_trusted_cidrs: {cidrs: [{address_prefix: 3.0.0.0, prefix_len: 8}]}"));
    let (_, response) = stranger.exchange("a", "x-forwarded-for: 1.1.1.1\r\n");
    assert_eq!(response.header("x-ip"), Some("127.0.0.1"));
}

#[test]
fn a_header_of_ones_own_tells_the_client() {
    let setup = detecting(&in_header(""));
    let (request, response) = setup.exchange("a", "x-real: 10.0.0.1\r\n");
    assert_eq!(response.header("x-ip"), Some("10.0.0.1"));
    assert_eq!(request.unwrap().header("x-envoy-internal"), None);
    assert_eq!(setup.exchange("a", "x-real: nonsense\r\n").1.header("x-ip"), Some("127.0.0.1"));
    let joined = detecting(&in_header("").replace("x-real", "x-forwarded-host"));
    for (lines, client) in [("", "1.1.1.1"), ("x-forwarded-host: 2.2.2.2\r\n", "127.0.0.1")] {
        let (_, response) = joined.exchange("a", &format!("x-forwarded-host: 1.1.1.1\r\n{lines}"));
        assert_eq!(response.header("x-ip"), Some(client));
    }
    let trusted = detecting(&in_header(", allow_extension_to_set_address_as_trusted: true"));
    let (request, _) = trusted.exchange("a", "x-real: 10.0.0.1\r\n");
    assert_eq!(request.unwrap().header("x-envoy-internal"), Some("true"));
    let both = detecting(&format!("{}, {}", in_header(""), forwarded_for("")));
    let (_, response) = both.exchange("a", "x-forwarded-for: 1.1.1.1\r\n");
    assert_eq!(response.header("x-ip"), Some("1.1.1.1"));
}

#[test]
fn requests_without_an_address_may_be_refused() {
    let setup = detecting(&in_header(", reject_with_status: {code: 403}"));
    let (request, response) = setup.exchange("a", "x-real: nonsense\r\n");
    assert!(request.is_none());
    assert_eq!((response.status(), response.text()), (403, ""));
    assert_eq!(setup.proxy.stat("http.ingress.downstream_rq_rejected_via_ip_detection"), 1);
    assert_eq!(setup.exchange("a", "x-real: 9.9.9.9\r\n").1.status(), 200);
}

#[test]
fn early_mutations_come_before_all_else() {
    let setup = Setup::of(|bootstrap| {
        bootstrap
            .filter_with(
                "early_header_mutation_extensions: [{name: early, typed_config: {
                  '@type': type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation,
                  mutations: [
                    {append: {header: {key: x-forwarded-for, value: 7.7.7.7}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}},
                    {append: {header: {key: x-was, value: '%REQ(x-gone)%|%REQ(:path)%|%REQ(x-request-id)%'}}},
                    {remove: x-gone},
                    {append: {header: {key: x-is, value: '<%REQ(x-gone)%>'}}}]}}]",
            )
            .virtual_host_with(
                "response_headers_to_add: [{header: {key: x-ip, value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}]",
            )
    });
    let (request, response) = setup.exchange("a", "x-gone: 1\r\nx-forwarded-for: 1.1.1.1\r\n");
    let request = request.unwrap();
    assert_eq!(request.header("x-gone"), None);
    assert_eq!(request.header("x-was"), Some("1|/a|"));
    assert_eq!(request.header("x-is"), Some("<>"));
    assert_eq!(request.header("x-forwarded-for"), Some("7.7.7.7"));
    assert_eq!(response.header("x-ip"), Some("7.7.7.7"));
}

#[test]
fn request_ids_may_be_left_as_they_are() {
    const FOREIGN: &str = "12345678-1234-9234-9234-123456789012";
    let id = |fields: &str| {
        let setup = Setup::new(&format!(
            "{{use_remote_address: true, preserve_external_request_id: true, request_id_extension: {{typed_config: {{
               '@type': type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig{fields}}}}}}}"
        ));
        let (request, _) = setup.exchange("a", &format!("x-request-id: {FOREIGN}\r\n"));
        request.unwrap().header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id(", pack_trace_reason: false"), FOREIGN);
    assert_eq!(id(""), "12345678-1234-4234-9234-123456789012");
}
