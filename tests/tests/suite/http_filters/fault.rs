//! `envoy.filters.http.fault`.

use std::time::{Duration, Instant};

use proxy_tests::{Backend, Bootstrap, Proxy};

const ALL: &str = "percentage: {numerator: 100}";

fn bootstrap(backend: &Backend, fault: &str) -> Bootstrap {
    Bootstrap::http(backend.address()).http_filter("envoy.filters.http.fault", "fault.v3.HTTPFault", fault)
}

#[test]
fn an_abort_answers_in_place_of_the_upstream() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend, &format!("abort: {{http_status: 418, {ALL}}}")));
    let response = proxy.get("/");
    assert_eq!((response.status(), response.text()), (418, "fault filter abort"));
    assert_eq!(response.header("content-type"), Some("text/plain"));
    let grpc = proxy.get_with("/", "content-type: application/grpc\r\n");
    assert_eq!((grpc.status(), grpc.header("grpc-status"), grpc.text()), (200, Some("2"), ""));
    assert_eq!(grpc.header("grpc-message"), Some("fault filter abort"));
    assert!(backend.requests().is_empty());
    proxy.stat_becomes("http.ingress.fault.aborts_injected", 2);
    proxy.stat_becomes("http.ingress.fault.active_faults", 0);
}

#[test]
fn an_abort_may_have_a_grpc_status_and_a_text() {
    let backend = Backend::saying("ok");
    let fault = format!("abort: {{grpc_status: 5, {ALL}, response_body: 'not\u{e4} 100%'}}");
    let proxy = Proxy::start(&bootstrap(&backend, &fault));
    let plain = proxy.get("/");
    assert_eq!((plain.status(), plain.text()), (200, "not\u{e4} 100%"));
    let grpc = proxy.get_with("/", "content-type: application/grpc\r\n");
    assert_eq!((grpc.status(), grpc.header("grpc-status")), (200, Some("5")));
    assert_eq!(grpc.header("grpc-message"), Some("not%C3%A4 100%25"));
}

#[test]
fn no_share_is_no_fault() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend, "{abort: {http_status: 418}, delay: {fixed_delay: 100s}}"));
    assert_eq!(proxy.get("/").text(), "ok");
}

#[test]
fn headers_say_what_happens_as_far_as_allowed() {
    let backend = Backend::saying("ok");
    let fault = format!("{{abort: {{header_abort: {{}}, {ALL}}}, delay: {{header_delay: {{}}, {ALL}}}}}");
    let proxy = Proxy::start(&bootstrap(&backend, &fault));
    let status = |lines: &str| proxy.get_with("/", lines).status();
    assert_eq!(status("x-envoy-fault-abort-request: 429\r\n"), 429);
    assert_eq!(status("x-envoy-fault-abort-request: 199\r\n"), 200);
    assert_eq!(status("x-envoy-fault-abort-request: many\r\n"), 200);
    let never = "x-envoy-fault-abort-request: 429\r\nx-envoy-fault-abort-request-percentage: 0\r\n";
    assert_eq!(status(never), 200);
    let both = "x-envoy-fault-abort-request: 429\r\nx-envoy-fault-delay-request: 50\r\n";
    let started = Instant::now();
    assert_eq!(status(both), 429);
    assert!(started.elapsed() >= Duration::from_millis(50));
    proxy.stat_becomes("http.ingress.fault.delays_injected", 1);
    proxy.stat_becomes("http.ingress.fault.aborts_injected", 2);
}

#[test]
fn a_delay_holds_the_request_up_and_counts_as_active() {
    let backend = Backend::saying("ok");
    let fault = format!("{{delay: {{fixed_delay: 100s, {ALL}}}, max_active_faults: 1}}");
    let proxy = Proxy::start(&bootstrap(&backend, &fault));
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    proxy.stat_becomes("http.ingress.fault.active_faults", 1);
    assert_eq!(proxy.get("/").text(), "ok", "one fault at a time");
    proxy.stat_becomes("http.ingress.fault.faults_overflow", 1);
    drop(client);
    proxy.stat_becomes("http.ingress.fault.active_faults", 0);
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
    assert_eq!(backend.requests().len(), 1);
}

#[test]
fn only_requests_that_are_meant_are_faulty() {
    let backend = Backend::saying("ok");
    let fault = format!(
        "{{abort: {{http_status: 418, {ALL}}}, upstream_cluster: backend, downstream_nodes: [node], headers: [{{name: x-fault, string_match: {{exact: 'yes'}}}}]}}"
    );
    let routes = "[{match: {prefix: /other}, route: {cluster: other}}, {match: {prefix: /}, route: {cluster: backend}}]";
    let bootstrap = bootstrap(&backend, &fault).cluster("other", backend.address()).routes(routes);
    let proxy = Proxy::start(&bootstrap);
    let meant = "x-fault: yes\r\nx-envoy-downstream-service-node: node\r\n";
    assert_eq!(proxy.get_with("/", meant).status(), 418);
    assert_eq!(proxy.get_with("/other", meant).status(), 200);
    assert_eq!(proxy.get_with("/", "x-fault: yes\r\n").status(), 200);
    assert_eq!(proxy.get_with("/", "x-envoy-downstream-service-node: node\r\n").status(), 200);
}

#[test]
fn a_route_has_its_own_faults() {
    let backend = Backend::saying("ok");
    let kind = "'@type': type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
    let routes = format!(
        "[{{match: {{prefix: /own}}, route: {{cluster: backend}}, typed_per_filter_config: {{envoy.filters.http.fault: {{{kind}, abort: {{http_status: 599, {ALL}}}}}}}}},
          {{match: {{prefix: /}}, route: {{cluster: backend}}}}]"
    );
    let proxy =
        Proxy::start(&bootstrap(&backend, &format!("abort: {{http_status: 418, {ALL}}}")).routes(&routes));
    assert_eq!((proxy.get("/own").status(), proxy.get("/").status()), (599, 418));
}

#[test]
fn a_slow_response_comes_whole() {
    let body = "x".repeat(64 << 10);
    let backend = Backend::saying(&body);
    let fault = format!("response_rate_limit: {{header_limit: {{}}, {ALL}}}");
    let proxy = Proxy::start(&bootstrap(&backend, &fault));
    let started = Instant::now();
    let response = proxy.get_with("/", "x-envoy-fault-throughput-response: 128\r\n");
    assert_eq!((response.status(), response.text() == body), (200, true));
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    assert_eq!(proxy.get("/").text().len(), body.len());
    proxy.stat_becomes("http.ingress.fault.response_rl_injected", 1);
}

#[test]
fn access_logs_tell_of_faults() {
    let backend = Backend::saying("ok");
    let fault = format!("{{delay: {{fixed_delay: 0.01s, {ALL}}}, abort: {{http_status: 418, {ALL}}}}}");
    let log = "access_log: [{name: log, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, \
               log_format: {text_format_source: {inline_string: \"line %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% end\n\"}}}}]";
    let proxy = Proxy::start(&bootstrap(&backend, &fault).filter_with(log));
    assert_eq!(proxy.get("/").status(), 418);
    proxy_tests::eventually("the line", || {
        proxy.log().contains("line DI,FI fault_filter_abort end").then_some(())
    });
}
