//! What the proxy does to headers by itself, as Envoy's connection manager and router document it, and path
//! normalisation.

use proxy_tests::{Backend, Bootstrap, Message, Proxy};

/// The request as the backend saw it, and the response as the client saw it.
fn exchange(bootstrap: impl FnOnce(Bootstrap) -> Bootstrap, lines: &str) -> (Message, Message) {
    exchange_for("/", bootstrap, lines, "")
}

fn exchange_for(
    target: &str,
    bootstrap: impl FnOnce(Bootstrap) -> Bootstrap,
    lines: &str,
    response_lines: &str,
) -> (Message, Message) {
    let backend =
        Backend::answering(format!("HTTP/1.1 200 OK\r\n{response_lines}content-length: 2\r\n\r\nok"));
    let proxy = Proxy::start(&bootstrap(Bootstrap::http(backend.address())));
    let response = proxy.get_with(target, lines);
    assert_eq!(response.status(), 200);
    (backend.request(), response)
}

fn same(bootstrap: Bootstrap) -> Bootstrap {
    bootstrap
}

fn edge(bootstrap: Bootstrap) -> Bootstrap {
    bootstrap.filter_with("use_remote_address: true")
}

fn is_uuid_v4(id: &str) -> bool {
    let bytes = id.as_bytes();
    let at = |index: usize| bytes.get(index).copied();
    bytes.len() == 36
        && at(14) == Some(b'4')
        && matches!(at(19), Some(b'8' | b'9' | b'a' | b'b'))
        && (0..36).all(|index| match index {
            8 | 13 | 18 | 23 => bytes[index] == b'-',
            _ => bytes[index].is_ascii_hexdigit() && !bytes[index].is_ascii_uppercase(),
        })
}

#[test]
fn a_plain_request_gains_exactly_envoys_headers() {
    let (request, response) = exchange(same, "x-mine: 1\r\n");
    assert_eq!(
        request.headers.names(),
        ["host", "x-mine", "x-forwarded-proto", "x-request-id", "x-envoy-expected-rq-timeout-ms"]
    );
    assert_eq!(request.header("host"), Some("example.com"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-envoy-expected-rq-timeout-ms"), Some("15000"));
    assert!(is_uuid_v4(request.header("x-request-id").unwrap()), "{request:?}");
    assert_eq!(
        response.headers.names(),
        ["content-length", "x-envoy-upstream-service-time", "date", "server"]
    );
    assert!(response.header("x-envoy-upstream-service-time").unwrap().parse::<u32>().is_ok());
    assert!(response.header("date").unwrap().ends_with(" GMT"));
    assert_eq!(response.header("server"), Some("envoy"));
}

#[test]
fn names_are_lower_cased_and_values_kept() {
    let (request, response) =
        exchange_for("/", same, "X-Mixed-CASE:   Some  Value \t\r\nx-empty:\r\n", "X-Back: It\r\n");
    assert!(
        request.headers.0.contains(&("x-mixed-case".to_owned(), "Some  Value".to_owned())),
        "{request:?}"
    );
    assert_eq!(request.header("x-empty"), Some(""));
    assert!(response.headers.0.contains(&("x-back".to_owned(), "It".to_owned())), "{response:?}");
}

#[test]
fn repeated_headers_keep_their_order() {
    let (request, response) = exchange_for(
        "/",
        same,
        "x-a: 1\r\ncookie: a=1\r\nx-a: 2\r\n",
        "set-cookie: a=1\r\nset-cookie: b=2; Path=/\r\n",
    );
    assert_eq!(request.headers.all("x-a"), ["1", "2"]);
    assert_eq!(response.headers.all("set-cookie"), ["a=1", "b=2; Path=/"]);
}

#[test]
fn hop_by_hop_headers_stay_on_their_hop() {
    let (request, response) = exchange_for(
        "/",
        same,
        "connection: keep-alive, x-mine\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nte: trailers\r\nx-mine: 1\r\n",
        "connection: keep-alive\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n",
    );
    for name in ["connection", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(request.header(name), None, "{name} reached the backend");
        assert_eq!(response.header(name), None, "{name} reached the client");
    }
}

/// What Envoy writes for a client on loopback: the host's own first address, so that the next hop can use it.
fn address_for_loopback() -> String {
    let interfaces = nix::ifaddrs::getifaddrs().unwrap();
    let addresses = interfaces.filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip()));
    let first = addresses.into_iter().find(|address| !address.is_loopback());
    first.unwrap_or(std::net::Ipv4Addr::LOCALHOST).to_string()
}

#[test]
fn an_edge_trusts_nothing_and_says_who_came() {
    let (request, _) = exchange(
        edge,
        "x-forwarded-for: 8.8.8.8\r\nx-forwarded-proto: https\r\nx-envoy-internal: true\r\n\
         x-envoy-external-address: 9.9.9.9\r\nx-request-id: mine\r\nx-envoy-upstream-rq-timeout-ms: 3000\r\n\
         x-envoy-max-retries: 3\r\nx-envoy-original-path: /x\r\nx-envoy-decorator-operation: x\r\n\
         x-forwarded-client-cert: x\r\nx-forwarded-host: kept\r\n",
    );
    let forwarded = format!("8.8.8.8,{}", address_for_loopback());
    assert_eq!(request.header("x-forwarded-for"), Some(forwarded.as_str()));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-envoy-external-address"), Some("127.0.0.1"));
    assert_eq!(request.header("x-envoy-expected-rq-timeout-ms"), Some("15000"));
    assert_eq!(request.header("x-forwarded-host"), Some("kept"));
    assert!(is_uuid_v4(request.header("x-request-id").unwrap()));
    for name in [
        "x-envoy-internal",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-max-retries",
        "x-envoy-original-path",
        "x-envoy-decorator-operation",
        "x-forwarded-client-cert",
    ] {
        assert_eq!(request.header(name), None, "{name} came through");
    }
}

#[test]
fn an_inner_proxy_keeps_what_the_edge_said() {
    let (request, _) =
        exchange(same, "x-forwarded-for: 8.8.8.8\r\nx-forwarded-proto: https\r\nx-request-id: mine\r\n");
    assert_eq!(request.header("x-forwarded-for"), Some("8.8.8.8"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("x-request-id"), Some("mine"));
    assert_eq!(request.header("x-envoy-internal"), None);
}

#[test]
fn an_internal_request_is_marked_and_may_set_its_timeout() {
    let internal = "internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}";
    let (request, _) = exchange(
        |bootstrap| bootstrap.filter_with(internal),
        "x-forwarded-for: 10.0.0.1\r\nx-envoy-upstream-rq-timeout-ms: 3000\r\n",
    );
    assert_eq!(request.header("x-envoy-internal"), Some("true"));
    assert_eq!(request.header("x-envoy-expected-rq-timeout-ms"), Some("3000"));
    assert_eq!(request.header("x-envoy-upstream-rq-timeout-ms"), None);
    let (request, _) =
        exchange(|bootstrap| bootstrap.filter_with(internal), "x-forwarded-for: 8.8.8.8, 10.0.0.1\r\n");
    assert_eq!(
        request.header("x-envoy-internal"),
        None,
        "only a single internal address makes a request internal"
    );
}

#[test]
fn no_address_is_internal_unless_configured() {
    for address in ["10.0.0.1", "127.0.0.1", "192.168.1.1"] {
        let lines = format!(
            "x-forwarded-for: {address}\r\nx-envoy-internal: true\r\nx-envoy-upstream-rq-timeout-ms: 3000\r\n"
        );
        let (request, _) = exchange(same, &lines);
        assert_eq!(request.header("x-envoy-internal"), None, "{address}");
        assert_eq!(request.header("x-envoy-expected-rq-timeout-ms"), Some("15000"), "{address}");
    }
}

#[test]
fn trusted_hops_name_the_client() {
    let (request, _) = exchange(
        |bootstrap| bootstrap.filter_with("{use_remote_address: true, xff_num_trusted_hops: 1}"),
        "x-forwarded-for: 1.2.3.4, 5.6.7.8\r\nx-forwarded-proto: https\r\n",
    );
    let forwarded = format!("1.2.3.4, 5.6.7.8,{}", address_for_loopback());
    assert_eq!(request.header("x-forwarded-for"), Some(forwarded.as_str()));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"), "a trusted hop said so");
    assert_eq!(request.header("x-envoy-external-address"), Some("5.6.7.8"));
}

#[test]
fn skip_xff_append_leaves_the_header() {
    let (request, _) = exchange(
        |bootstrap| bootstrap.filter_with("{use_remote_address: true, skip_xff_append: true}"),
        "x-forwarded-for: 1.2.3.4\r\n",
    );
    assert_eq!(request.header("x-forwarded-for"), Some("1.2.3.4"));
    assert_eq!(request.header("x-envoy-external-address"), Some("127.0.0.1"));
}

#[test]
fn request_ids_can_be_left_out_kept_and_told() {
    let (request, _) = exchange(|bootstrap| bootstrap.filter_with("generate_request_id: false"), "");
    assert_eq!(request.header("x-request-id"), None);
    let (request, response) = exchange(
        |bootstrap| {
            bootstrap.filter_with(
                "{use_remote_address: true, preserve_external_request_id: true, always_set_request_id_in_response: true}",
            )
        },
        "x-request-id: mine\r\n",
    );
    assert_eq!(request.header("x-request-id"), Some("mine"));
    assert_eq!(response.header("x-request-id"), Some("mine"));
}

#[test]
fn the_server_header_follows_its_mode() {
    for (mode, upstream, expected) in [
        ("OVERWRITE", "server: backend\r\n", Some("mine")),
        ("OVERWRITE", "", Some("mine")),
        ("APPEND_IF_ABSENT", "server: backend\r\n", Some("backend")),
        ("APPEND_IF_ABSENT", "", Some("mine")),
        ("PASS_THROUGH", "server: backend\r\n", Some("backend")),
        ("PASS_THROUGH", "", None),
    ] {
        let settings = format!("{{server_name: mine, server_header_transformation: {mode}}}");
        let (_, response) = exchange_for("/", |bootstrap| bootstrap.filter_with(&settings), "", upstream);
        assert_eq!(response.header("server"), expected, "{mode} {upstream:?}");
    }
}

#[test]
fn a_backends_date_is_kept_and_its_service_time_replaced() {
    let (_, response) = exchange_for(
        "/",
        same,
        "",
        "date: then\r\nx-envoy-upstream-service-time: 99999\r\nx-envoy-foo: 1\r\n",
    );
    assert_eq!(response.header("date"), Some("then"));
    assert_ne!(response.header("x-envoy-upstream-service-time"), Some("99999"));
    assert_eq!(response.header("x-envoy-foo"), Some("1"));
}

#[test]
fn te_keeps_trailers_only() {
    let (request, _) = exchange(same, "te: trailers, deflate\r\n");
    assert_eq!(request.header("te"), Some("trailers"));
    let (request, _) = exchange(same, "te: deflate\r\n");
    assert_eq!(request.header("te"), None);
}

#[test]
fn suppress_envoy_headers_leaves_them_out() {
    let router = "http_filters: [{name: envoy.filters.http.router, typed_config: {\
                  '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}]";
    let (request, response) = exchange(|bootstrap| bootstrap.filter_with(router), "");
    assert_eq!(request.headers.names(), ["host", "x-forwarded-proto", "x-request-id"]);
    assert_eq!(response.headers.names(), ["content-length", "date", "server"]);
}

#[test]
fn paths_are_normalised_as_configured() {
    const PLAIN: &str = "{}";
    const NORMALIZE: &str = "normalize_path: true";
    const MERGE: &str = "merge_slashes: true";
    const BOTH: &str = "{normalize_path: true, merge_slashes: true}";
    for (settings, paths) in [
        (
            PLAIN,
            &[("/a/../b", "/a/../b"), ("/a//b", "/a//b"), ("/%41%2F", "/%41%2F"), ("/a\\b", "/a\\b")][..],
        ),
        (
            NORMALIZE,
            &[
                ("/a/../b", "/b"),
                ("/a/./b", "/a/b"),
                ("/a//b", "/a//b"),
                ("//a///b", "//a///b"),
                ("/a%2Fb", "/a%2Fb"),
                ("/a%5cb", "/a%5cb"),
                ("/%41%7e%20", "/A~%20"),
                ("/a/%2e%2e/b", "/b"),
                ("/..", "/"),
                ("/../../x", "/x"),
                ("/a\\b", "/a/b"),
                ("/a?x=/../y", "/a?x=/../y"),
                ("/a/..?q", "/?q"),
                ("/a%2", "/a%2"),
                ("/a%zz/..", "/"),
                ("/a;b/../c", "/c"),
                ("/%2fa/../b%5C?x=%2f", "/b%5C?x=%2f"),
            ],
        ),
        (MERGE, &[("/a//b", "/a/b"), ("//a///b", "/a/b"), ("/a/../b", "/a/../b"), ("/a?x=//y", "/a?x=//y")]),
        (BOTH, &[("//a///b", "/a/b"), ("/a/..//b", "/b")]),
    ] {
        let backend = Backend::saying("");
        let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(settings));
        for (sent, seen) in paths {
            assert_eq!(proxy.get(sent).status(), 200, "{settings} {sent}");
            assert_eq!(backend.requests().last().unwrap().target(), *seen, "{settings} {sent}");
        }
    }
}

#[test]
fn escaped_slashes_follow_their_action() {
    const SENT: [&str; 3] = ["/a%2Fb", "/a%5cb", "/%2fa/b%5C?x=%2f"];
    const UNESCAPED: [&str; 3] = ["/a/b", "/a\\b", "//a/b\\?x=%2f"];
    for action in ["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_FORWARD", "UNESCAPE_AND_REDIRECT"] {
        let backend = Backend::saying("");
        let settings = format!("path_with_escaped_slashes_action: {action}");
        let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(&settings));
        for (sent, unescaped) in SENT.into_iter().zip(UNESCAPED) {
            let response = proxy.get(sent);
            let seen = backend.requests().last().map(|request| request.target().to_owned());
            match action {
                "KEEP_UNCHANGED" => assert_eq!(seen.as_deref(), Some(sent)),
                "UNESCAPE_AND_FORWARD" => assert_eq!(seen.as_deref(), Some(unescaped)),
                "REJECT_REQUEST" => assert_eq!((response.status(), seen), (400, None)),
                _ => assert_eq!(
                    (response.status(), response.header("location"), seen),
                    (307, Some(unescaped), None)
                ),
            }
        }
    }
}

#[test]
fn a_fragment_in_the_path_is_refused() {
    let backend = Backend::saying("");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    assert_eq!(proxy.get("/a#fragment").status(), 400);
}
