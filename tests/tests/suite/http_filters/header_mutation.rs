//! `envoy.filters.http.header_mutation`.

use proxy_tests::{Backend, Bootstrap, Proxy};

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
            "mutations: {{request_mutations: [{}], response_mutations: [{}]}}",
            mutation(who),
            mutation(who)
        )
    };
    let of = |who: &str| {
        format!("typed_per_filter_config: {{envoy.filters.http.header_mutation: {{{kind}, {}}}}}", own(who))
    };
    for (wins, expected) in [("false", "host"), ("true", "route")] {
        let backend = Backend::saying("ok");
        let fields = format!("{{{}, most_specific_header_mutations_wins: {wins}}}", own("filter"));
        let bootstrap = bootstrap(&backend, &fields)
            .routes(&format!("[{{match: {{prefix: /}}, route: {{cluster: backend}}, {}}}]", of("route")))
            .virtual_host_with(&format!("{{{}}}", of("host")));
        let proxy = Proxy::start(&bootstrap);
        let response = proxy.get("/");
        assert_eq!(
            (backend.request().header("x-who"), response.header("x-who")),
            (Some(expected), Some(expected))
        );
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
