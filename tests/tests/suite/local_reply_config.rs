//! `local_reply_config`: what becomes of answers that the proxy gives itself.

use proxy_tests::{Backend, Bootstrap, Message, Proxy, only_proxyd, refusing_address};

/// A proxy whose routes all answer by themselves, with `config` as its `local_reply_config`.
fn proxy(config: &str) -> Proxy {
    let direct = |path: &str, status: u16, more: &str| {
        format!(
            "- {{match: {{path: {path}}}, direct_response: {{status: {status}, body: {{inline_string: text}}}}{more}}}\n"
        )
    };
    let typed = ", response_headers_to_add: [{header: {key: content-type, value: text/own}}]";
    let routes = [
        direct("/ok", 200, ""),
        direct("/gone", 410, ""),
        direct("/teapot", 418, ""),
        direct("/typed", 410, typed),
        "- {match: {prefix: /refused}, route: {cluster: backend}}\n".to_owned(),
    ];
    let bootstrap = Bootstrap::http(refusing_address()).routes(&routes.concat());
    Proxy::start(&bootstrap.filter_with(&format!("local_reply_config: {config}")))
}

fn status_is(status: u16) -> String {
    format!(
        "status_code_filter: {{comparison: {{op: EQ, value: {{default_value: {status}, runtime_key: k}}}}}}"
    )
}

fn text(format: &str) -> String {
    format!("{{text_format_source: {{inline_string: '{format}'}}}}")
}

fn told(response: &Message) -> (u16, &str, Option<&str>) {
    (response.status(), response.text(), response.header("content-type"))
}

#[test]
fn a_mapper_replaces_status_text_and_headers() {
    let headers =
        "[{header: {key: x-was, value: '%RESPONSE_CODE% %RESP(:status)% %REQ(:path)%[%LOCAL_REPLY_BODY%]'}}]";
    let gone = status_is(410);
    let proxy = proxy(&format!(
        "{{mappers: [{{filter: {{{gone}}}, status_code: 499, body: {{inline_string: 'mapped %RESPONSE_CODE%'}}, \
         headers_to_add: {headers}}}]}}"
    ));
    let response = proxy.get("/gone?q=1");
    assert_eq!(told(&response), (499, "mapped %RESPONSE_CODE%", Some("text/plain")));
    assert_eq!(response.header("x-was"), Some("410 410 /gone?q=1[]"));
    assert_eq!(told(&proxy.get("/ok")), (200, "text", Some("text/plain")));
    // The mapper's text is not of the type that the route's text had.
    assert_eq!(told(&proxy.get("/typed")), (499, "mapped %RESPONSE_CODE%", Some("text/plain")));
    proxy.stat_becomes("http.ingress.downstream_rq_4xx", 2);
}

#[test]
fn a_format_makes_the_body() {
    let format = text("<%LOCAL_REPLY_BODY%> %RESPONSE_CODE% %PROTOCOL% %REQ(:path)%");
    let proxy = proxy(&format!("{{body_format: {format}}}"));
    assert_eq!(told(&proxy.get("/ok")), (200, "<text> 200 HTTP/1.1 /ok", Some("text/plain")));
    assert_eq!(told(&proxy.get("/none")), (404, "<> 404 HTTP/1.1 /none", Some("text/plain")));
    let refused = "<upstream connect error or disconnect/reset before headers. reset reason: remote connection \
                   failure> 503 HTTP/1.1 /refused";
    assert_eq!(told(&proxy.get("/refused")), (503, refused, Some("text/plain")));
    let malformed = proxy.connect().ask("nonsense\r\n\r\n");
    assert_eq!(told(&malformed), (400, "<Bad Request> 400 HTTP/1.1 -", Some("text/plain")));
    let mut client = proxy.connect();
    let head = client.send("HEAD /ok HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!(head.header("content-length"), Some("23"));
    assert_eq!(client.ask("GET /ok HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
}

#[test]
fn the_first_mapper_that_fits_counts_and_formats_have_types() {
    let (gone, teapot) = (status_is(410), status_is(418));
    let json = "{json_format: {code: '%RESPONSE_CODE%', text: '%LOCAL_REPLY_BODY%', none: '%REQ(nope)%'}}";
    let html = "{text_format_source: {inline_string: '<p>%LOCAL_REPLY_BODY%</p>'}, content_type: 'text/html; charset=UTF-8'}";
    let header = "header_filter: {header: {name: x-kind, string_match: {exact: special}}}";
    let proxy = proxy(&format!(
        "{{mappers: [{{filter: {{{header}}}, headers_to_add: [{{header: {{key: content-type, value: text/special}}}}]}}, \
         {{filter: {{{gone}}}, body_format_override: {json}}}, {{filter: {{{gone}}}, status_code: 555}}, \
         {{filter: {{{teapot}}}, status_code: 200}}], body_format: {html}}}"
    ));
    let json = "{\"code\":410,\"none\":null,\"text\":\"text\"}\n";
    assert_eq!(told(&proxy.get("/gone")), (410, json, Some("application/json")));
    assert_eq!(told(&proxy.get("/typed")), (410, json, Some("application/json")));
    assert_eq!(told(&proxy.get("/teapot")), (200, "<p>text</p>", Some("text/html; charset=UTF-8")));
    let special = proxy.get_with("/teapot", "x-kind: special\r\n");
    assert_eq!(told(&special), (418, "<p>text</p>", Some("text/special")));
}

#[test]
fn grpc_clients_are_told_in_their_terms() {
    let proxy = proxy(&format!(
        "{{mappers: [{{filter: {{{}}}, status_code: 404, body_format_override: {{json_format: {{code: '%RESPONSE_CODE%'}}}}}}]}}",
        status_is(410)
    ));
    let grpc = |path| proxy.get_with(path, "content-type: application/grpc\r\n");
    let response = grpc("/gone");
    assert_eq!(told(&response), (200, "", Some("application/grpc")));
    assert_eq!(response.header("grpc-status"), Some("12"));
    assert_eq!(response.header("grpc-message"), Some("{\"code\":404}"));
    // So they are of direct responses without a mapper.
    let response = grpc("/teapot");
    assert_eq!((response.status(), response.header("grpc-status")), (200, Some("2")));
    assert_eq!(response.header("grpc-message"), Some("text"));
}

#[test]
fn a_time_limit_is_answered_with_what_the_request_said() {
    let backend = Backend::raw(|wire, _| drop(wire.rest()));
    let routes = "[{match: {prefix: /}, route: {cluster: backend, timeout: 0.1s}, response_headers_to_add: \
                  [{header: {key: x-path, value: '%REQ(:path)%'}}]}]";
    let format = text("%LOCAL_REPLY_BODY% of %REQ(:path)%");
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address())
            .routes(routes)
            .filter_with(&format!("local_reply_config: {{body_format: {format}}}")),
    );
    let response = proxy.get("/slow");
    assert_eq!(told(&response), (504, "upstream request timeout of /slow", Some("text/plain")));
    assert_eq!(response.header("x-path"), Some("/slow"));
    let idle = "[{match: {prefix: /}, route: {cluster: backend, idle_timeout: 0.1s}, response_headers_to_add: \
                [{header: {key: x-path, value: '%REQ(:path)%'}}]}]";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).routes(idle));
    let response = proxy.get("/slow");
    assert_eq!((response.status(), response.header("x-path")), (504, Some("/slow")));
}

#[test]
fn answers_in_place_of_a_host_have_their_routes_headers() {
    let route = |path: &str, cluster: &str| {
        format!(
            "- {{match: {{path: {path}}}, route: {{{cluster}}}, response_headers_to_add: [{{header: {{key: x-route, value: r}}}}]}}\n"
        )
    };
    let direct = "- {match: {path: /direct}, direct_response: {status: 200}, response_headers_to_add: [{header: \
                  {key: x-route, value: r}}]}\n";
    let routes = [route("/refused", "cluster: backend"), route("/unknown", "cluster_header: x-cluster")];
    let abort = "{abort: {http_status: 418, percentage: {numerator: 100}}, headers: [{name: x-fault, present_match: true}]}";
    let bootstrap = Bootstrap::http(refusing_address()).routes(&[&routes.concat(), direct].concat());
    let proxy = Proxy::start(&bootstrap.http_filter("fault", "fault.v3.HTTPFault", abort));
    for path in ["/refused", "/unknown"] {
        let response = proxy.get(path);
        assert_eq!((response.status(), response.header("x-route")), (503, Some("r")), "{path}");
    }
    assert_eq!(proxy.get("/unrouted").header("x-route"), None);
    for (path, header) in [("/refused", Some("r")), ("/direct", None)] {
        let response = proxy.get_with(path, "x-fault: 1\r\n");
        assert_eq!(
            (&*response.start, response.header("x-route")),
            ("HTTP/1.1 418 Unknown", header),
            "{path}"
        );
    }
    let upgrade = proxy.get_with("/refused", "connection: upgrade\r\nupgrade: websocket\r\n");
    assert_eq!((upgrade.status(), upgrade.header("x-route")), (403, Some("r")));
}

#[test]
fn created_and_redirecting_direct_responses_name_a_place() {
    let direct = |path: &str, status: u16| {
        format!("- {{match: {{path: {path}}}, direct_response: {{status: {status}}}}}\n")
    };
    let routes = [direct("/ok", 200), direct("/made", 201), direct("/moved", 302)];
    let proxy = Proxy::start(&Bootstrap::http_without_clusters().routes(&routes.concat()));
    assert_eq!(proxy.get("/ok").header("location"), None);
    assert_eq!(proxy.get("/made?a=b").header("location"), Some("http://example.com/made?a=b"));
    assert_eq!(proxy.get("/moved").header("location"), Some("http://example.com/moved"));
}

#[test]
fn a_request_without_a_host_is_answered_in_its_version() {
    let options = "http_protocol_options: {accept_http_10: true}";
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()).filter_with(options));
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let response = proxy.connect().ask(format!("GET / {version}\r\n\r\n"));
        assert_eq!((&*response.start, response.text()), (&*format!("{version} 400 Bad Request"), ""));
    }
    // What cannot be read has no version.
    let response = proxy.connect().ask("GET / HTTP/1.0\r\nhost: a\r\ncontent-length: x\r\n\r\n");
    assert_eq!((&*response.start, response.text()), ("HTTP/1.1 400 Bad Request", "Bad Request"));
}

#[test]
fn what_envoy_does_not_know_or_should_not_send() {
    only_proxyd!("Envoy has no code yet when a route's headers are made, and sends a body with 204");
    let routes = "[{match: {prefix: /}, direct_response: {status: 204}, response_headers_to_add: \
                  [{header: {key: x-code, value: '%RESPONSE_CODE%'}}]}]";
    let format = text("more");
    let proxy = Proxy::start(
        &Bootstrap::http_without_clusters()
            .routes(routes)
            .filter_with(&format!("local_reply_config: {{body_format: {format}}}")),
    );
    let mut client = proxy.connect();
    for _ in 0..2 {
        let response = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!((response.status(), response.header("x-code")), (204, Some("204")));
        assert_eq!((response.header("content-length"), response.header("content-type")), (None, None));
    }
}

const PIPELINED: &str = "GET /next HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn an_answer_of_400_ends_the_connection_unless_told_otherwise() {
    let routes = "[{match: {path: /bad}, direct_response: {status: 400}}, {match: {prefix: /}, direct_response: {status: 200}}]";
    let bad = "GET /bad HTTP/1.1\r\nhost: a\r\n\r\n";
    let no_host = "GET / HTTP/1.1\r\n\r\n";
    let unread = "POST /bad HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
    let unparsable = "GET / HTTP/1.1\r\nhost: a\r\nno header\r\n\r\n";
    for (options, bad_stays, no_host_stays) in [
        ("{}", false, false),
        ("stream_error_on_invalid_http_message: true", true, true),
        ("http_protocol_options: {override_stream_error_on_invalid_http_message: true}", true, true),
        (
            "{stream_error_on_invalid_http_message: true, http_protocol_options: \
             {override_stream_error_on_invalid_http_message: false}}",
            false,
            false,
        ),
    ] {
        let proxy = Proxy::start(&Bootstrap::http_without_clusters().routes(routes).filter_with(options));
        for (request, stays) in
            [(bad, bad_stays), (no_host, no_host_stays), (unread, false), (unparsable, false)]
        {
            let mut client = proxy.connect();
            let response = client.ask(request);
            assert_eq!(response.status(), 400, "{options} {request}");
            let close = if stays { None } else { Some("close") };
            assert_eq!(response.header("connection"), close, "{options} {request}");
            if stays {
                assert_eq!(client.ask(PIPELINED).status(), 200, "{options} {request}");
            } else {
                client.send_if_open(PIPELINED).finish();
                assert!(client.is_closed(), "{options} {request}");
            }
        }
    }
}
