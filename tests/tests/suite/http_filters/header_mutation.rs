//! `envoy.filters.http.header_mutation`.

use http::{HeaderMap, Response};
use proxy_tests::http2::{self, Client, answer, block_on, request, send_all};
use proxy_tests::{Backend, Bootstrap, Proxy, http_protocol_options};

/// A request, and an answer, with trailers.
const POST: &str = "POST /in/p HTTP/1.1\r\nhost: a\r\nx-in: in\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-a: 1\r\nx-gone: 1\r\n\r\n";
const WITH_TRAILERS: &str = "HTTP/1.1 201 Created\r\nx-out: out\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-a: 1\r\nx-gone: 1\r\ngrpc-message: m\r\n\r\n";

fn bootstrap(backend: &Backend, fields: &str) -> Bootstrap {
    Bootstrap::http(backend.address()).http_filter(
        "envoy.filters.http.header_mutation",
        "header_mutation.v3.HeaderMutation",
        fields,
    )
}

#[test]
fn mutations_are_carried_out_in_order() {
    let backend =
        Backend::answering("HTTP/1.1 201 Created\r\nx-gone: 1\r\nx-gone-too: 2\r\ncontent-length: 0\r\n\r\n");
    let fields = "
mutations:
  request_mutations:
  - append: {header: {key: x-a, value: '1-%REQ(x-in)%'}, append_action: APPEND_IF_EXISTS_OR_ADD}
  - append: {header: {key: x-a, value: '2'}, append_action: APPEND_IF_EXISTS_OR_ADD}
  - append: {header: {key: x-b, value: '%REQ(x-a)%'}}
  - append: {header: {key: x-a, value: '3'}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
  - remove: x-removed
  - append: {header: {key: x-removed, value: new}, append_action: ADD_IF_ABSENT}
  - append: {header: {key: x-over, value: o}, append_action: OVERWRITE_IF_EXISTS}
  - append: {header: {key: x-in, value: o}, append_action: ADD_IF_ABSENT}
  - append: {header: {key: x-nothing, value: '%REQ(none)%'}}
  - append: {header: {key: x-empty, value: ''}, keep_empty_value: true}
  - append: {header: {key: accept, value: c/d}}
  - remove_on_match: {key_matcher: {prefix: x-many}}
  response_mutations:
  - append: {header: {key: x-said, value: '%RESPONSE_CODE% %REQ(x-in)% %REQ(x-a)%'}}
  - remove_on_match: {key_matcher: {prefix: x-gone}}
";
    let proxy = Proxy::start(&bootstrap(&backend, fields));
    let lines = "x-in: in\r\nx-removed: old\r\naccept: a/b\r\nx-many-1: 1\r\nx-many-2: 2\r\n";
    let response = proxy.get_with("/", lines);
    assert_eq!(response.header("x-said"), Some("201 in 3"));
    assert_eq!((response.header("x-gone"), response.header("x-gone-too")), (None, None));
    let request = backend.request();
    let headers = ["x-a", "x-b", "x-removed", "x-over", "x-in", "x-nothing", "x-empty", "accept", "x-many-1"];
    let expected =
        [Some("3"), Some("1-in"), Some("new"), None, Some("in"), None, Some(""), Some("a/b,c/d"), None];
    assert_eq!(headers.map(|name| request.header(name)), expected);
}

#[test]
fn what_the_router_takes_from_headers_is_one_line_of_each() {
    let backend = Backend::saying("ok");
    let names = [
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-force-trace",
        "x-envoy-internal",
        "x-envoy-max-retries",
        "x-envoy-retry-on",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-other",
    ];
    let append =
        |name: &str, value: &str| format!("{{append: {{header: {{key: {name}, value: '{value}'}}}}}}");
    let each = names.map(|name| {
        let copy = append(&format!("copy-{name}"), &format!("%REQ({name})%"));
        [append(name, "1"), append(name, "2"), copy].join(", ")
    });
    let proxy = Proxy::start(&bootstrap(
        &backend,
        &format!("mutations: {{request_mutations: [{}]}}", each.join(", ")),
    ));
    assert_eq!(proxy.get("/").status(), 200);
    let request = backend.request();
    let told = names.map(|name| request.header(&format!("copy-{name}")).map(str::to_owned).unwrap());
    assert_eq!(told, ["1,2", "1,2", "1,2", "1,2", "1,2", "1,2", "1"]);
}

#[test]
fn query_parameters_are_changed() {
    let backend = Backend::saying("ok");
    let fields = "
mutations:
  query_parameter_mutations:
  - remove: gone
  - append: {record: {key: q, value: 'v&%REQ(x-in)%'}, action: APPEND_IF_EXISTS_OR_ADD}
  - append: {record: {key: a, value: 'absent'}, action: ADD_IF_ABSENT}
  - append: {record: {key: b, value: 'over'}, action: OVERWRITE_IF_EXISTS}
";
    let proxy = Proxy::start(&bootstrap(&backend, fields));
    assert_eq!(proxy.get_with("/p?a=1&gone=2&gone", "x-in: i n\r\n").status(), 200);
    assert_eq!(proxy.get("/p?b=1&b=2").status(), 200);
    let targets: Vec<_> = backend.requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets[0], "/p?a=1&q=v%26i%20n");
    let mut second: Vec<_> = targets[1].split(['?', '&']).collect();
    second.sort_unstable();
    assert_eq!(second, ["/p", "a=absent", "b=over", "q=v%26"]);
}

#[test]
fn routes_add_to_what_the_filter_does() {
    let kind = "'@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";
    let own = |who: &str| {
        let mutation = |value: &str| {
            format!(
                "{{append: {{header: {{key: x-who, value: {value}}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}}}"
            )
        };
        format!(
            "mutations: {{request_mutations: [{0}], response_mutations: [{0}], request_trailers_mutations: [{0}],
                response_trailers_mutations: [{0}]}}",
            mutation(who)
        )
    };
    let of = |who: &str| {
        format!("typed_per_filter_config: {{envoy.filters.http.header_mutation: {{{kind}, {}}}}}", own(who))
    };
    for (wins, expected) in [("false", "host"), ("true", "route")] {
        let backend = Backend::answering(WITH_TRAILERS);
        let fields = format!("{{{}, most_specific_header_mutations_wins: {wins}}}", own("filter"));
        let bootstrap = with_trailers(bootstrap(&backend, &fields))
            .routes(&format!("[{{match: {{prefix: /}}, route: {{cluster: backend}}, {}}}]", of("route")))
            .virtual_host_with(&format!("{{{}}}", of("host")));
        let proxy = Proxy::start(&bootstrap);
        let response = proxy.connect().ask(POST);
        let request = backend.request();
        let heads = [request.header("x-who"), response.header("x-who")];
        let trailers = [request.trailers.find("x-who"), response.trailers.find("x-who")];
        assert_eq!((heads, trailers), ([Some(expected); 2], [Some(expected); 2]), "{wins}");
    }
}

#[test]
fn a_request_that_was_refused_has_no_headers_to_tell_of() {
    let backend = Backend::saying("ok");
    let fields =
        "mutations: {response_mutations: [{append: {header: {key: x-said, value: '<%REQ(x-in)%>'}}}]}";
    let proxy = Proxy::start(&bootstrap(&backend, fields));
    let response =
        proxy.connect().ask("GET / HTTP/1.1\r\nhost: a\r\nx-in: in\r\ncontent-length: nonsense\r\n\r\n");
    assert_eq!((response.status(), response.header("x-said")), (400, Some("<>")));
}

#[test]
fn a_request_that_another_filter_answered_is_told_of() {
    let backend = Backend::saying("ok");
    let fields =
        "mutations: {response_mutations: [{append: {header: {key: x-said, value: '<%REQ(x-in)%>'}}}]}";
    let csrf = "{filter_enabled: {default_value: {numerator: 100}}}";
    // The filter that answers is the first, and the one that tells of it is never asked about the request.
    let bootstrap =
        Bootstrap::http(backend.address()).http_filter("csrf", "csrf.v3.CsrfPolicy", csrf).http_filter(
            "envoy.filters.http.header_mutation",
            "header_mutation.v3.HeaderMutation",
            &format!("{{{fields}}}"),
        );
    let proxy = Proxy::start(&bootstrap);
    let response = proxy.connect().ask("POST / HTTP/1.1\r\nhost: a\r\nx-in: in\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((response.status(), response.header("x-said")), (403, Some("<in>")));
}

/// Trailers pass over HTTP/1, on both sides.
fn with_trailers(bootstrap: Bootstrap) -> Bootstrap {
    let options = "explicit_http_config: {http_protocol_options: {enable_trailers: true}}";
    bootstrap
        .filter_with("http_protocol_options: {enable_trailers: true}")
        .cluster_with("backend", &http_protocol_options(options))
}

/// Of both directions the same.
fn of_trailers(list: &str) -> String {
    format!("{{mutations: {{request_trailers_mutations: [{list}], response_trailers_mutations: [{list}]}}}}")
}

#[test]
fn trailers_are_changed_in_order() {
    let backend = Backend::answering(WITH_TRAILERS);
    let fields = of_trailers(
        "{append: {header: {key: x-a, value: '2'}}},
         {append: {header: {key: x-b, value: '<%REQ(x-in)% %RESP(x-out)% %RESP(server)% %RESP(:status)% %RESPONSE_CODE% %TRAILER(x-a)%>'}}},
         {append: {header: {key: x-a, value: '3'}}},
         {append: {header: {key: x-c, value: '%REQ(:path)%'}, append_action: ADD_IF_ABSENT}},
         {append: {header: {key: x-none, value: n}, append_action: OVERWRITE_IF_EXISTS}},
         {append: {header: {key: x-host, value: '%UPSTREAM_CLUSTER% %ROUTE_NAME%'}}},
         {append: {header: {key: grpc-message, value: n}}},
         {remove_on_match: {key_matcher: {prefix: x-g}}},
         {remove: x-none}",
    );
    let proxy = Proxy::start(
        &with_trailers(bootstrap(&backend, &fields))
            .routes("[{match: {prefix: /in}, name: here, route: {cluster: backend, prefix_rewrite: /out}}]"),
    );
    let response = proxy.connect().ask(POST);
    assert_eq!((response.status(), response.text()), (201, "ok"));
    assert_eq!(response.trailers.all("x-a"), ["1", "2", "3"]);
    let lines = ["x-b", "x-c", "x-none", "x-host", "grpc-message", "x-gone"];
    let told =
        [Some("<in out envoy 201 201 1>"), Some("/out/p"), None, Some("backend here"), Some("m,n"), None];
    assert_eq!(lines.map(|name| response.trailers.find(name)), told);
    let request = backend.request();
    assert_eq!((request.text(), request.trailers.all("x-a")), ("hi", vec!["1", "2", "3"]));
    let told = [Some("<in    0 >"), Some("/out/p"), None, Some("backend here"), Some("n"), None];
    assert_eq!(lines.map(|name| request.trailers.find(name)), told);
}

#[test]
fn nothing_is_added_where_there_are_no_trailers() {
    let backend =
        Backend::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let fields = of_trailers("{append: {header: {key: x-a, value: '%REQ(x-in)%'}}}");
    let proxy = Proxy::start(&with_trailers(bootstrap(&backend, &fields)));
    let request = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    for request in [request, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"] {
        let response = proxy.connect().ask(request);
        assert_eq!((response.text(), response.trailers.0.len()), ("ok", 0));
    }
    for request in backend.requests() {
        assert_eq!((request.text(), request.trailers.0.len()), ("hi", 0));
    }
}

fn http2_bootstrap(backend: &http2::Backend, fields: &str) -> Bootstrap {
    Bootstrap::http(backend.address()).http2_upstream("backend").http_filter(
        "envoy.filters.http.header_mutation",
        "header_mutation.v3.HeaderMutation",
        fields,
    )
}

fn trailers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[test]
fn trailers_of_http2_are_changed() {
    let backend = http2::Backend::echo();
    let fields = "
mutations:
  request_trailers_mutations:
  - append: {header: {key: x-sent, value: '%REQ(:path)% %RESPONSE_CODE%'}}
  - remove: x-gone
  response_trailers_mutations:
  - append: {header: {key: x-got, value: '%TRAILER(x-sent)% %RESP(:status)% %GRPC_STATUS_NUMBER%'}}
  - append: {header: {key: grpc-status, value: '0'}, append_action: OVERWRITE_IF_EXISTS}
";
    let proxy = Proxy::start(&http2_bootstrap(&backend, fields));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let (response, mut send) = client
            .open(
                http::Request::post("http://a/p")
                    .header("content-type", "application/grpc")
                    .body(())
                    .unwrap(),
                false,
            )
            .await;
        // The answer has begun before the trailers come.
        let (head, mut body) = response.await.unwrap().into_parts();
        assert_eq!(head.status, 200);
        send_all(&mut send, b"hi", false).await.unwrap();
        send.send_trailers(trailers(&[("grpc-status", "5"), ("x-gone", "1")])).unwrap();
        let (bytes, trailers) = http2::read_all(&mut body).await.unwrap();
        let trailers = trailers.expect("there are trailers");
        let told = ["x-sent", "x-got", "grpc-status", "x-gone"]
            .map(|name| trailers.get(name).map(|value| value.to_str().unwrap()));
        assert_eq!(bytes, b"hi");
        assert_eq!(told, [Some("/p 200"), Some("/p 200 200 5"), Some("0"), None]);
    });
}

#[test]
fn trailers_that_are_all_removed_are_none() {
    let backend = http2::Backend::new(|request, mut respond| {
        Box::pin(async move {
            let (_, trailers) = http2::read_all(&mut request.into_body()).await.unwrap();
            let response = Response::builder().header("x-trailers", trailers.is_some().to_string());
            let mut send = respond.send_response(response.body(()).unwrap(), false).unwrap();
            send_all(&mut send, b"ok", false).await.unwrap();
            send.send_trailers([("x-a".parse().unwrap(), "1".parse().unwrap())].into_iter().collect())
                .unwrap();
        })
    });
    let fields = of_trailers("{remove: x-a}");
    let proxy = Proxy::start(&http2_bootstrap(&backend, &fields));
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        let got = client.post("/", b"hi", Some(trailers(&[("x-a", "1")]))).await;
        assert_eq!((got.header("x-trailers"), &*got.body, &got.trailers), (Some("false"), &b"ok"[..], &None));
        let (response, _) = client.open(request("GET", "/"), true).await;
        assert_eq!(answer(response).await.unwrap().trailers, None);
    });
}

/// A second filter that changes what the first one tells of.
fn later(bootstrap: Bootstrap) -> Bootstrap {
    let fields = "mutations: {request_mutations: [{append: {header: {key: x-in, value: later}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}],
        response_mutations: [{append: {header: {key: x-out, value: later}}}]}";
    bootstrap.http_filter("later", "header_mutation.v3.HeaderMutation", fields)
}

#[test]
fn trailers_tell_of_heads_as_all_filters_leave_them() {
    let fields = of_trailers(
        "{append: {header: {key: x-told, value: '%REQ(x-in)% %REQ(x-envoy-original-path)% %RESP(x-out)%'}}}",
    );
    let routes = "[{match: {prefix: /in}, route: {cluster: backend, prefix_rewrite: /out}}]";
    // The buffer has the trailers before later filters have the head.
    for (buffers, sent) in [(false, "later /in/p "), (true, "in  ")] {
        let backend = http2::Backend::echo();
        let bootstrap = http2_bootstrap(&backend, &fields).routes(routes);
        let bootstrap = match buffers {
            true => bootstrap.http_filter("buffer", "buffer.v3.Buffer", "max_request_bytes: 100"),
            false => bootstrap,
        };
        let proxy = Proxy::start(&later(bootstrap));
        block_on(async {
            let mut client = Client::connect(proxy.listener("main")).await;
            let request = http::Request::post("http://a/in/p").header("x-in", "in").body(()).unwrap();
            let (response, mut send) = client.open(request, false).await;
            send_all(&mut send, b"hi", false).await.unwrap();
            send.send_trailers(trailers(&[("x-a", "1")])).unwrap();
            let trailers = answer(response).await.unwrap().trailers.expect("there are trailers");
            let told: Vec<_> =
                trailers.get_all("x-told").iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(told, [sent, "later /in/p later"], "{buffers}");
        });
    }
}
