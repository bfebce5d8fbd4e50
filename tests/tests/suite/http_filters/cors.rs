//! `envoy.filters.http.cors`.

use proxy_tests::{Backend, Bootstrap, Message, Proxy};

const POLICY: &str = "'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy";

/// A proxy whose virtual host and whose route at `/` say this.
fn proxy(backend: &Backend, host: &str, route: &str) -> Proxy {
    let route = format!(
        "[{{match: {{prefix: /direct}}, direct_response: {{status: 200}}, typed_per_filter_config: {{envoy.filters.http.cors: {{{POLICY}, {host}}}}}}},
          {{match: {{prefix: /}}, route: {{cluster: backend}}, typed_per_filter_config: {{envoy.filters.http.cors: {{{POLICY}, {route}}}}}}}]"
    );
    let host = format!("typed_per_filter_config: {{envoy.filters.http.cors: {{{POLICY}, {host}}}}}");
    let bootstrap =
        Bootstrap::http(backend.address()).http_filter("envoy.filters.http.cors", "cors.v3.Cors", "{}");
    Proxy::start(&bootstrap.routes(&route).virtual_host_with(&host))
}

fn ask(proxy: &Proxy, method: &str, lines: &str) -> Message {
    proxy.connect().ask(format!("{method} / HTTP/1.1\r\nhost: a\r\n{lines}\r\n"))
}

fn of_cors(message: &Message) -> Vec<(String, String)> {
    let names = message.headers.names().into_iter().filter(|name| name.starts_with("access-control-"));
    let mut all: Vec<_> =
        names.map(|name| (name.clone(), message.header(&name).unwrap().to_owned())).collect();
    all.sort();
    all
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| (format!("access-control-{name}"), (*value).to_owned())).collect()
}

const PREFLIGHT: &str = "access-control-request-method: PATCH\r\naccess-control-request-headers: x-one\r\n\
                         access-control-request-private-network: true\r\n";

#[test]
fn preflights_are_answered_and_responses_told_apart_by_origin() {
    let backend = Backend::saying("ok");
    let host = "allow_origin_string_match: [{exact: 'https://wrong'}], allow_methods: 'GET, POST', max_age: '600', \
                allow_credentials: true, expose_headers: x-seen";
    let route = "allow_origin_string_match: [{suffix: .example.com}], allow_headers: x-asked";
    let proxy = proxy(&backend, host, route);
    let response = ask(&proxy, "OPTIONS", &format!("origin: https://a.example.com\r\n{PREFLIGHT}"));
    assert_eq!((response.status(), response.text()), (200, ""));
    let expected = [
        ("allow-credentials", "true"),
        ("allow-headers", "x-asked"),
        ("allow-methods", "GET, POST"),
        ("allow-origin", "https://a.example.com"),
        ("expose-headers", "x-seen"),
        ("max-age", "600"),
    ];
    assert_eq!(of_cors(&response), pairs(&expected));
    assert!(backend.requests().is_empty());

    let response = ask(&proxy, "GET", "origin: https://b.example.com\r\n");
    let expected = [
        ("allow-credentials", "true"),
        ("allow-origin", "https://b.example.com"),
        ("expose-headers", "x-seen"),
    ];
    assert_eq!((response.text(), of_cors(&response)), ("ok", pairs(&expected)));

    let strange = ask(&proxy, "OPTIONS", &format!("origin: https://wrong\r\n{PREFLIGHT}"));
    assert_eq!((strange.text(), of_cors(&strange)), ("ok", Vec::new()));
    assert_eq!(of_cors(&ask(&proxy, "GET", "")), Vec::new());
    assert_eq!(of_cors(&proxy.get_with("/direct", "origin: https://wrong\r\n")), Vec::new());
    // Two lines are one value, whose end is the page's that asks.
    let two = "origin: https://a.example.com\r\norigin: https://wrong\r\n";
    assert_eq!(of_cors(&ask(&proxy, "GET", two)), Vec::new());
    proxy.stat_becomes("http.ingress.cors.origin_valid", 2);
    proxy.stat_becomes("http.ingress.cors.origin_invalid", 2);
}

#[test]
fn stars_stand_for_what_was_asked() {
    let backend = Backend::saying("ok");
    let host = "allow_origin_string_match: [{exact: '*'}], allow_methods: '*', allow_headers: '*', \
                allow_private_network_access: true";
    let proxy = proxy(&backend, host, "forward_not_matching_preflights: false");
    let response = ask(&proxy, "OPTIONS", &format!("origin: null\r\n{PREFLIGHT}"));
    let expected = [
        ("allow-headers", "x-one"),
        ("allow-methods", "PATCH"),
        ("allow-origin", "null"),
        ("allow-private-network", "true"),
    ];
    assert_eq!(of_cors(&response), pairs(&expected));
    // No preflight, for it does not say for what.
    assert_eq!(ask(&proxy, "OPTIONS", "origin: null\r\n").text(), "ok");
}

#[test]
fn preflights_of_other_origins_may_be_answered_too() {
    let backend = Backend::saying("ok");
    let proxy = proxy(
        &backend,
        "allow_methods: GET",
        "allow_origin_string_match: [{exact: a}], forward_not_matching_preflights: false",
    );
    let response = ask(&proxy, "OPTIONS", &format!("origin: b\r\n{PREFLIGHT}"));
    assert_eq!((response.text(), of_cors(&response)), ("", pairs(&[("allow-methods", "GET")])));
}

#[test]
fn in_the_shadow_it_only_counts() {
    let backend = Backend::saying("ok");
    let off = "filter_enabled: {default_value: {numerator: 0}}";
    let route = format!(
        "allow_origin_string_match: [{{exact: a}}], {off}, shadow_enabled: {{default_value: {{numerator: 100}}}}"
    );
    let proxy = proxy(&backend, off, &route);
    let response = ask(&proxy, "OPTIONS", &format!("origin: a\r\n{PREFLIGHT}"));
    assert_eq!((response.text(), of_cors(&response)), ("ok", Vec::new()));
    proxy.stat_becomes("http.ingress.cors.origin_valid", 1);
}
