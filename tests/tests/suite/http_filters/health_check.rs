//! `envoy.filters.http.health_check`.

use proxy_tests::{Backend, Bootstrap, Proxy};

const CHECK: &str = "headers: [{name: ':path', string_match: {exact: /healthz}}]";

fn bootstrap(backend: &Backend, fields: &str) -> Bootstrap {
    let fields = format!("{{{CHECK}, {fields}}}");
    Bootstrap::http(backend.address()).with("{node: {id: n, cluster: here}}").http_filter(
        "envoy.filters.http.health_check",
        "health_check.v3.HealthCheck",
        &fields,
    )
}

#[test]
fn checks_are_answered_as_the_process_is() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend, "pass_through_mode: false"));
    let response = proxy.get("/healthz");
    assert_eq!((response.status(), response.text()), (200, ""));
    assert_eq!(response.header("x-envoy-upstream-healthchecked-cluster"), Some("here"));
    let other = proxy.get("/");
    assert_eq!((other.text(), other.header("x-envoy-upstream-healthchecked-cluster")), ("ok", None));

    assert_eq!(proxy.admin_post("/healthcheck/fail").status(), 200);
    let response = proxy.get("/healthz");
    assert_eq!(
        (response.status(), response.header("x-envoy-immediate-health-check-fail")),
        (503, Some("true"))
    );
    let other = proxy.get("/");
    assert_eq!((other.text(), other.header("x-envoy-immediate-health-check-fail")), ("ok", Some("true")));
    assert_eq!(proxy.admin_post("/healthcheck/ok").status(), 200);
    assert_eq!(proxy.get("/healthz").status(), 200);
    assert_eq!(proxy.get("/").header("x-envoy-immediate-health-check-fail"), None);
    proxy.stat_becomes("http.ingress.health_check.ok", 2);
    proxy.stat_becomes("http.ingress.health_check.failed", 1);
    proxy.stat_becomes("http.ingress.health_check.request_total", 3);
    assert_eq!(backend.requests().len(), 3);
}

#[test]
fn a_check_with_a_body_is_answered_when_it_is_whole() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend, "pass_through_mode: false"));
    let mut client = proxy.connect();
    client.send("POST /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab");
    assert_eq!(client.ask("cd").status(), 200);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "ok");
}

#[test]
fn clusters_need_so_many_healthy_hosts() {
    let backend = Backend::saying("ok");
    let of = |clusters: &str| {
        let bootstrap = bootstrap(
            &backend,
            &format!("pass_through_mode: false, cluster_min_healthy_percentages: {clusters}"),
        );
        Proxy::start(&bootstrap.cluster_of("empty", &[]))
    };
    let proxy = of("{backend: {value: 100}, empty: {value: 0}}");
    assert_eq!(proxy.get("/healthz").status(), 200);
    let proxy = of("{backend: {value: 100}, empty: {value: 1}}");
    assert_eq!(proxy.get("/healthz").status(), 503);
    proxy.stat_becomes("http.ingress.health_check.failed_cluster_empty", 1);
    let proxy = of("{backend: {value: 100}, unknown: {value: 0}}");
    assert_eq!(proxy.get("/healthz").status(), 503);
    proxy.stat_becomes("http.ingress.health_check.failed_cluster_not_found", 1);
    proxy.stat_becomes("http.ingress.health_check.failed", 1);
}

#[test]
fn checks_that_pass_through_are_remembered() {
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\nx-envoy-degraded: \r\n\r\n");
    let proxy = Proxy::start(&bootstrap(&backend, "pass_through_mode: true, cache_time: 1000s"));
    let first = proxy.get("/healthz");
    assert_eq!(first.status(), 204);
    assert_eq!(first.header("x-envoy-upstream-healthchecked-cluster"), Some("here"));
    let second = proxy.get("/healthz");
    assert_eq!((second.status(), second.header("x-envoy-degraded")), (204, Some("")));
    assert_eq!(backend.requests().len(), 1);
    proxy.stat_becomes("http.ingress.health_check.cached_response", 1);
    proxy.stat_becomes("http.ingress.health_check.degraded", 1);
    assert_eq!(proxy.admin_post("/healthcheck/fail").status(), 200);
    assert_eq!(proxy.get("/healthz").status(), 503);
}

#[test]
fn without_a_cache_every_check_passes_through() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend, "pass_through_mode: true"));
    assert_eq!([proxy.get("/healthz").text(), proxy.get("/healthz").text()], ["ok", "ok"]);
    assert_eq!(backend.requests().len(), 2);
}

#[test]
fn access_logs_can_leave_checks_out() {
    let backend = Backend::saying("ok");
    let log = "access_log: [{name: log, filter: {not_health_check_filter: {}}, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, \
               log_format: {text_format_source: {inline_string: \"line %PATH% end\n\"}}}}]";
    let proxy = Proxy::start(&bootstrap(&backend, "pass_through_mode: false").filter_with(log));
    assert_eq!((proxy.get("/healthz").status(), proxy.get("/other").status()), (200, 200));
    proxy_tests::eventually("the line", || proxy.log().contains("line /other end").then_some(()));
    assert!(!proxy.log().contains("line /healthz end"));
}
