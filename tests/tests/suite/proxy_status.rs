//! `proxy_status_config`: `proxy-status` (RFC 9209) on answers to what went wrong.

use proxy_tests::{Backend, Bootstrap, Message, Proxy, refusing_address};

/// Routes to a host that refuses connections, to one that breaks off, to one that answers, and one that answers by itself.
fn proxy(config: &str) -> (Proxy, [Backend; 2]) {
    let broken = Backend::raw(|wire, _| drop(wire.head()));
    let own = Backend::answering(
        "HTTP/1.1 502 Bad Gateway\r\nproxy-status: other; error=x\r\ncontent-length: 0\r\n\r\n",
    );
    let route =
        |path: &str, cluster: &str| format!("{{match: {{path: {path}}}, route: {{cluster: {cluster}}}}}");
    let routes = format!(
        "[{}, {}, {}, {{match: {{path: /direct}}, direct_response: {{status: 404}}}}]",
        route("/refused", "backend"),
        route("/broken", "broken"),
        route("/own", "own")
    );
    let bootstrap = Bootstrap::http(refusing_address())
        .cluster("broken", broken.address())
        .cluster("own", own.address())
        .routes(&routes)
        .with("node: {id: node-7, cluster: c}");
    (Proxy::start(&bootstrap.filter_with(&format!("proxy_status_config: {config}"))), [broken, own])
}

fn told(response: &Message) -> (u16, Option<&str>) {
    (response.status(), response.header("proxy-status"))
}

#[test]
fn errors_have_names_details_and_flags() {
    let (proxy, _backends) = proxy("{}");
    let unrouted = "envoy; error=destination_not_found; details=\"route_not_found; NR\"";
    assert_eq!(told(&proxy.get("/unrouted")), (404, Some(unrouted)));
    let broken = "envoy; error=connection_terminated; \
                  details=\"upstream_reset_before_response_started{connection_termination}; UC\"";
    assert_eq!(told(&proxy.get("/broken")), (503, Some(broken)));
    let refused = proxy.get("/refused");
    let (_, details) = told(&refused);
    let begin = "envoy; error=connection_refused; details=\"upstream_reset_before_response_started{remote_connection_failure|";
    assert!(details.unwrap().starts_with(begin) && details.unwrap().ends_with("; UF\""), "{details:?}");
    // What a host says is not our error, nor is what a route says.
    assert_eq!(told(&proxy.get("/own")), (502, Some("other; error=x")));
    assert_eq!(told(&proxy.get("/direct")), (404, None));
    assert_eq!(told(&proxy.connect().ask("nonsense\r\n\r\n")), (400, None));
}

#[test]
fn parts_can_be_left_out_and_the_name_chosen() {
    let (bare, _backends) = proxy("{remove_details: true, literal_proxy_name: edge}");
    assert_eq!(told(&bare.get("/unrouted")), (404, Some("edge; error=destination_not_found")));
    let (plain, _backends) = proxy("{remove_response_flags: true, use_node_id: true}");
    let expected = "node-7; error=destination_not_found; details=\"route_not_found\"";
    assert_eq!(told(&plain.get("/unrouted")), (404, Some(expected)));
}

#[test]
fn the_recommended_status_replaces_others() {
    let (proxy, _backends) = proxy("{remove_details: true, set_recommended_response_code: true}");
    assert_eq!(told(&proxy.get("/unrouted")), (500, Some("envoy; error=destination_not_found")));
    assert_eq!(told(&proxy.get("/refused")), (502, Some("envoy; error=connection_refused")));
    assert_eq!(told(&proxy.get("/direct")), (404, None));
    proxy.stat_becomes("http.ingress.downstream_rq_5xx", 2);
    proxy.stat_becomes("http.ingress.downstream_rq_4xx", 1);
}
