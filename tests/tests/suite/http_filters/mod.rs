//! HTTP filters: here what routes say to them, whatever filter it is; each filter in a file of its own.

mod buffer;
mod compression;
mod cors;
mod csrf;
mod fault;
mod grpc_web;
mod header_mutation;
mod health_check;
mod local_rate_limit;

use proxy_tests::{Backend, Bootstrap, Proxy, yaml};

/// Three filters whose work shows: each answers 413 to a request with more than so many bytes.
const FILTERS: [(&str, u32); 3] = [("a", 30), ("b", 20), ("c", 10)];

fn chain(backend: &Backend) -> Bootstrap {
    FILTERS.iter().fold(Bootstrap::http(backend.address()), |bootstrap, (name, limit)| {
        bootstrap.http_filter(name, "buffer.v3.Buffer", &format!("max_request_bytes: {limit}"))
    })
}

/// Whether a request with so many bytes comes through.
fn passes(proxy: &Proxy, path: &str, bytes: usize) -> bool {
    let body = "x".repeat(bytes);
    let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {bytes}\r\n\r\n{body}");
    match proxy.connect().ask(request).status() {
        200 => true,
        413 => false,
        other => panic!("{other}"),
    }
}

/// The most bytes, in tens, with which a request comes through.
fn limit(proxy: &Proxy, path: &str) -> usize {
    (0..10).map(|tens| tens * 10).take_while(|bytes| passes(proxy, path, *bytes)).last().unwrap()
}

fn limited(filter: &str, bytes: u32) -> String {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
    format!("{filter}: {{'@type': {kind}, buffer: {{max_request_bytes: {bytes}}}}}")
}

fn disabled(filter: &str) -> String {
    format!("{filter}: {{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}")
}

#[test]
fn the_most_specific_level_wins() {
    let backend = Backend::saying("ok");
    let cluster = |path: &str, route: &str, cluster: &str| {
        format!(
            "- {{match: {{path: {path}}}, typed_per_filter_config: {{{route}}}, route: {{weighted_clusters: {{clusters: \
             [{{name: backend, weight: 1, typed_per_filter_config: {{{cluster}}}}}]}}}}}}\n"
        )
    };
    let routes = [
        cluster("/none", "", ""),
        cluster("/route", &limited("c", 50), ""),
        cluster("/cluster", &limited("c", 50), &limited("c", 60)),
    ];
    let bootstrap = Bootstrap::http(backend.address())
        .http_filter("c", "buffer.v3.Buffer", "max_request_bytes: 10")
        .route_config_with(&format!("typed_per_filter_config: {{{}}}", limited("c", 20)));
    let proxy = Proxy::start(&bootstrap.clone().routes(&routes.concat()));
    assert_eq!(["/none", "/route", "/cluster"].map(|path| limit(&proxy, path)), [20, 50, 60]);

    let host = format!("typed_per_filter_config: {{{}}}", limited("c", 30));
    let proxy = Proxy::start(&bootstrap.routes(&routes.concat()).virtual_host_with(&host));
    assert_eq!(["/none", "/route", "/cluster"].map(|path| limit(&proxy, path)), [30, 50, 60]);
}

#[test]
fn settings_go_to_the_filter_of_that_name() {
    let backend = Backend::saying("ok");
    let route = |path: &str, config: &str| {
        format!(
            "- {{match: {{path: {path}}}, route: {{cluster: backend}}, typed_per_filter_config: {{{config}}}}}\n"
        )
    };
    let routes = [
        route("/", ""),
        route("/c", &limited("c", 90)),
        route("/without-c", &disabled("c")),
        route("/without-bc", &format!("{}, {}", disabled("c"), disabled("b"))),
        route("/unknown", &limited("envoy.filters.http.buffer", 90)),
    ];
    let proxy = Proxy::start(&chain(&backend).routes(&routes.concat()));
    let paths = ["/", "/c", "/without-c", "/without-bc", "/unknown"];
    assert_eq!(paths.map(|path| limit(&proxy, path)), [10, 20, 20, 30, 10]);
}

#[test]
fn a_disabled_filter_is_enabled_by_whatever_a_route_says_to_it() {
    let backend = Backend::saying("ok");
    let wrapper = "'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig";
    let inner = limited("config", 40);
    let route = |path: &str, config: &str| {
        format!(
            "- {{match: {{path: {path}}}, route: {{cluster: backend}}, typed_per_filter_config: {{{config}}}}}\n"
        )
    };
    let routes = [
        route("/unsaid", ""),
        route("/settings", &limited("c", 50)),
        route("/wrapped", &format!("c: {{{wrapper}, {inner}}}")),
        route("/wrapped-and-disabled", &format!("c: {{{wrapper}, disabled: true, {inner}}}")),
    ];
    let mut filter = yaml("{name: c, disabled: true}");
    filter["typed_config"] = yaml(
        "{'@type': type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 10}",
    );
    let bootstrap = Bootstrap::http(backend.address()).http_filter_entry(filter).routes(&routes.concat());
    let proxy = Proxy::start(&bootstrap);
    let paths = ["/unsaid", "/settings", "/wrapped", "/wrapped-and-disabled"];
    assert_eq!(paths.map(|path| limit(&proxy, path)), [90, 50, 40, 90]);
}
