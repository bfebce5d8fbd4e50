//! Header values with formats in them, at every level where a route configuration adds headers.

use proxy_tests::{Backend, Bootstrap, Message, Proxy, only_proxyd, yaml};

/// `key: value` pairs as a list of `HeaderValueOption`.
fn values(pairs: &[(&str, &str)]) -> String {
    let each = pairs.iter().map(|(key, value)| format!("{{header: {{key: {key}, value: '{value}'}}}}"));
    format!("[{}]", each.collect::<Vec<_>>().join(", "))
}

fn backend() -> Backend {
    Backend::answering("HTTP/1.1 200 OK\r\nx-from-host: theirs\r\ncontent-length: 2\r\n\r\nok")
}

/// What the backend was asked and the client answered, with `pairs` added by the virtual host.
fn exchange(pairs: &[(&str, &str)], target: &str, lines: &str) -> (Message, Message) {
    let backend = backend();
    let values = values(pairs);
    let bootstrap = Bootstrap::http(backend.address()).virtual_host_with(&format!(
        "{{request_headers_to_add: {values}, response_headers_to_add: {values}}}"
    ));
    let proxy = Proxy::start(&bootstrap);
    let response = proxy.get_with(target, lines);
    (backend.request(), response)
}

#[test]
fn values_tell_of_request_connection_and_route() {
    let pairs = [
        ("x-path", "%PATH%"),
        ("x-query", "<%QUERY_PARAM(q)%>"),
        ("x-header", "%REQ(x-mine)%/%REQ(x-none?user-agent)%"),
        ("x-cut", "%REQ(x-mine):2%"),
        ("x-percent", "100%%"),
        ("x-protocol", "%PROTOCOL%"),
        ("x-client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        ("x-listener", "%LISTENER_NAME%"),
        ("x-cluster", "%UPSTREAM_CLUSTER%"),
        ("x-type", "%ACCESS_LOG_TYPE%"),
        ("x-stream", "%STREAM_ID%"),
        ("x-year", "%START_TIME(%Y)%"),
    ];
    let (request, response) = exchange(&pairs, "/a?q=%2541", "x-mine: value\r\nuser-agent: me\r\n");
    let id = request.header("x-request-id").unwrap().to_owned();
    for message in [&request, &response] {
        assert_eq!(message.header("x-path"), Some("/a?q=%2541"));
        assert_eq!(message.header("x-query"), Some("<%41>"));
        assert_eq!(message.header("x-header"), Some("value/me"));
        assert_eq!(message.header("x-cut"), Some("va"));
        assert_eq!(message.header("x-percent"), Some("100%"));
        assert_eq!(message.header("x-protocol"), Some("HTTP/1.1"));
        assert_eq!(message.header("x-client"), Some("127.0.0.1"));
        assert_eq!(message.header("x-listener"), Some("main"));
        assert_eq!(message.header("x-cluster"), Some("backend"));
        assert_eq!(message.header("x-type"), Some("NotSet"));
        assert_eq!(message.header("x-stream"), Some(id.as_str()));
        assert_eq!(message.header("x-year").map(str::len), Some(4));
    }
}

#[test]
fn what_has_no_value_is_left_out() {
    let pairs = [("x-none", "%REQ(x-none)%"), ("x-around", "<%REQ(x-none)%>"), ("x-host", "%UPSTREAM_HOST%")];
    let (request, response) = exchange(&pairs, "/", "");
    assert_eq!((request.header("x-none"), response.header("x-none")), (None, None));
    assert_eq!((request.header("x-around"), response.header("x-around")), (Some("<>"), Some("<>")));
    assert_eq!(request.header("x-host"), None, "no host is chosen when the request gets its headers");
    assert!(response.header("x-host").unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn a_response_tells_of_itself_and_of_the_request_as_it_was_sent() {
    let backend = backend();
    let of_response = values(&[
        ("x-status", "%RESP(:status)%"),
        ("x-theirs", "%RESP(x-from-host)%"),
        ("x-sent", "%REQ(:path)%"),
        ("x-attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
        ("x-upstream-protocol", "%UPSTREAM_PROTOCOL%"),
    ]);
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address())
            .virtual_host_with(&format!("response_headers_to_add: {of_response}"))
            .routes("[{match: {prefix: /}, route: {cluster: backend, prefix_rewrite: /new/}}]"),
    );
    let response = proxy.get("/old");
    assert_eq!(response.header("x-status"), Some("200"));
    assert_eq!(response.header("x-theirs"), Some("theirs"));
    assert_eq!(response.header("x-sent"), Some("/new/old"));
    assert_eq!(response.header("x-attempts"), Some("1"));
    assert_eq!(response.header("x-upstream-protocol"), Some("HTTP/1.1"));
}

#[test]
fn a_level_removes_first_and_fills_in_all_values_before_it_adds_one() {
    let backend = backend();
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).virtual_host_with(
        "{request_headers_to_remove: [x-gone], request_headers_to_add: [
            {header: {key: x-gone-was, value: '[%REQ(x-gone)%]'}},
            {header: {key: x-a, value: '<%REQ(x-a)%>'}, append_action: OVERWRITE_IF_EXISTS},
            {header: {key: x-a-was, value: '%REQ(x-a)%'}, append_action: ADD_IF_ABSENT},
            {header: {key: x-b, value: '%REQ(x-a)%'}, append_action: ADD_IF_ABSENT},
            {header: {key: x-none, value: '%REQ(x-none)%'}, append_action: OVERWRITE_IF_EXISTS},
            {header: {key: x-c, value: '%REQ(x-a)%'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD},
            {header: {key: x-d, value: '%REQ(x-a)%'}, append_action: APPEND_IF_EXISTS_OR_ADD},
            {header: {key: x-kept, value: '%REQ(x-none)%'}, keep_empty_value: true}]}",
    ));
    let _ = proxy.get_with("/", "x-gone: g\r\nx-a: 1\r\nx-b: 2\r\nx-c: 3\r\nx-d: 4\r\n");
    let request = backend.request();
    assert_eq!(request.header("x-gone"), None);
    assert_eq!(request.header("x-gone-was"), Some("[]"));
    assert_eq!(request.header("x-a"), Some("<1>"));
    assert_eq!(request.header("x-a-was"), Some("1"));
    assert_eq!(request.header("x-b"), Some("2"));
    assert_eq!(request.header("x-none"), None);
    assert_eq!(request.header("x-c"), Some("1"));
    assert_eq!(request.headers.all("x-d"), ["4", "1"]);
    assert_eq!(request.header("x-kept"), Some(""));
}

#[test]
fn every_level_has_formats() {
    let backend = backend();
    let level = |name: &str| values(&[("x-level", &format!("{name} %PATH%"))]);
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address())
            .route_config_with(&format!("{{request_headers_to_add: {0}, response_headers_to_add: {0}}}", level("config")))
            .virtual_host_with(&format!("{{request_headers_to_add: {0}, response_headers_to_add: {0}}}", level("host")))
            .routes(&format!(
                "[{{match: {{prefix: /}}, request_headers_to_add: {0}, response_headers_to_add: {0},
                   route: {{weighted_clusters: {{clusters: [
                     {{name: backend, weight: 1, request_headers_to_add: {1}, response_headers_to_add: {1}}}]}}}}}}]",
                level("route"),
                level("cluster")
            )),
    );
    let response = proxy.get("/p");
    let expected = ["cluster /p", "route /p", "host /p", "config /p"];
    assert_eq!(backend.request().headers.all("x-level"), expected);
    assert_eq!(response.headers.all("x-level"), expected);
}

#[test]
fn redirects_and_direct_responses_have_them_too() {
    let values = values(&[
        ("x-path", "%PATH%"),
        ("x-status", "%RESP(:status)%"),
        ("x-details", "%RESPONSE_CODE_DETAILS%"),
    ]);
    let proxy = Proxy::start(
        &Bootstrap::http_without_clusters()
            .virtual_host_with(&format!("response_headers_to_add: {values}"))
            .routes(
                "[{match: {prefix: /direct}, direct_response: {status: 202, body: {inline_string: hi}}},
                  {match: {prefix: /}, redirect: {path_redirect: /there}}]",
            ),
    );
    for (target, status) in [("/direct", "202"), ("/redirect", "301")] {
        let response = proxy.get(target);
        assert_eq!(response.header("x-path"), Some(target));
        assert_eq!(response.header("x-status"), Some(status));
        assert_eq!(response.header("x-details"), Some("direct_response"));
    }
}

#[test]
fn no_value_ends_its_line() {
    only_proxyd!("Envoy answers 503, and lets such a value out to clients");
    let pairs = [("x-injected", "%QUERY_PARAM(q)%")];
    let (request, response) = exchange(&pairs, "/?q=a%0d%0aevil:%201%00", "");
    for message in [request, response] {
        assert_eq!(message.header("x-injected"), Some("aevil: 1"));
        assert_eq!(message.header("evil"), None);
    }
}

#[test]
fn metadata_of_routes_clusters_and_hosts() {
    let backend = Backend::saying("ok");
    let metadata = |value: &str| format!("metadata: {{filter_metadata: {{ns: {value}}}}}");
    let value = "%METADATA(ROUTE:ns:a)% %METADATA(VIRTUAL_HOST:ns:a)% %METADATA(CLUSTER:ns:o)% %CLUSTER_METADATA(ns:a)% \
                 %UPSTREAM_METADATA(ns:a)% %METADATA(UPSTREAM_HOST:ns)% [%METADATA(ROUTE:ns:none)%%METADATA(ROUTE)%\
                 %DYNAMIC_METADATA(ns:a)%] %METADATA(CLUSTER:ns:a):3%";
    let routes = format!(
        "[{{match: {{prefix: /}}, route: {{cluster: backend}}, {}, response_headers_to_add: [{{header: {{key: x-told, \
         value: '{value}'}}}}], request_headers_to_add: [{{header: {{key: x-early, value: '%CLUSTER_METADATA(ns:a)% \
         [%UPSTREAM_METADATA(ns:a)%]'}}}}]}}]",
        metadata("{a: route}")
    );
    let cluster = yaml(&metadata("{a: cluster, o: {z: 1, b: [two, true]}}"));
    let mut bootstrap = Bootstrap::http(backend.address())
        .routes(&routes)
        .virtual_host_with(&metadata("{a: host}"))
        .cluster_with("backend", &cluster.to_string());
    let address = backend.address();
    let endpoint = format!(
        "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}, {}}}",
        address.ip(),
        address.port(),
        metadata("{a: upstream}")
    );
    let assignment =
        format!("load_assignment: {{cluster_name: backend, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}");
    bootstrap = bootstrap.cluster_with("backend", &assignment);
    let proxy = Proxy::start(&bootstrap);
    let told = "route host {\"b\":[\"two\",true],\"z\":1} cluster upstream {\"a\":\"upstream\"} [] clu";
    assert_eq!(proxy.get("/").header("x-told"), Some(told));
    assert_eq!(backend.request().header("x-early"), Some("cluster []"));
}
