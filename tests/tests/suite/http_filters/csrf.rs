//! `envoy.filters.http.csrf`.

use proxy_tests::{Backend, Bootstrap, Proxy};

const ALWAYS: &str = "filter_enabled: {default_value: {numerator: 100}}";
const NEVER: &str = "filter_enabled: {default_value: {numerator: 0}}";

fn bootstrap(backend: &Backend, policy: &str) -> Bootstrap {
    Bootstrap::http(backend.address()).http_filter("envoy.filters.http.csrf", "csrf.v3.CsrfPolicy", policy)
}

fn status(proxy: &Proxy, method: &str, path: &str, lines: &str) -> u16 {
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: example.com:8080\r\ncontent-length: 0\r\n{lines}\r\n");
    proxy.connect().ask(request).status()
}

#[test]
fn what_changes_something_has_to_come_from_the_same_host() {
    let backend = Backend::saying("ok");
    let origins = "additional_origins: [{exact: friend.com}, {suffix: .friend.com}]";
    let proxy = Proxy::start(&bootstrap(&backend, &format!("{{{ALWAYS}, {origins}}}")));
    let refused = [
        "",
        "origin: null\r\nreferer: http://example.com:8080/\r\n",
        "origin: http://example.com\r\n",
        "origin: http://other.com\r\nreferer: http://example.com:8080/\r\n",
        "referer: http://other.com/?http://example.com:8080/\r\n",
        "origin: http://example.com:8080\r\norigin: http://other.com\r\n",
        "origin: http://example.com:8080#q\r\n",
        "origin: http://other.com\\@example.com:8080\r\n",
        "origin: blob:http://example.com:8080\r\n",
    ];
    for lines in refused {
        assert_eq!(status(&proxy, "POST", "/", lines), 403, "{lines}");
    }
    proxy.stat_becomes("http.ingress.csrf.missing_source_origin", 2);
    proxy.stat_becomes("http.ingress.csrf.request_invalid", 7);
    assert!(backend.requests().is_empty());
    let accepted = [
        "origin: http://example.com:8080\r\n",
        "origin: https://user@example.com:8080\r\n",
        "origin: example.com:8080\r\n",
        "referer: http://example.com:8080/page?q\r\n",
        "origin: http://friend.com\r\n",
        "origin: http://a.friend.com/\r\n",
    ];
    for lines in accepted {
        assert_eq!(status(&proxy, "POST", "/", lines), 200, "{lines}");
    }
    proxy.stat_becomes("http.ingress.csrf.request_valid", 6);
    for (method, expected) in [("PUT", 403), ("DELETE", 403), ("PATCH", 403), ("GET", 200), ("OPTIONS", 200)]
    {
        assert_eq!(status(&proxy, method, "/", ""), expected, "{method}");
    }
    proxy.stat_becomes("http.ingress.csrf.missing_source_origin", 5);
    proxy.stat_becomes("http.ingress.csrf.request_invalid", 7);
}

#[test]
fn the_answer_says_why() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&bootstrap(&backend, &format!("{{{ALWAYS}}}")));
    let response =
        proxy.connect().ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\norigin: b\r\n\r\n");
    assert_eq!((response.status(), response.text()), (403, "Invalid origin"));
    assert_eq!(response.header("content-type"), Some("text/plain"));
}

#[test]
fn a_route_has_its_own_policy_and_the_shadow_only_counts() {
    let backend = Backend::saying("ok");
    let kind = "'@type': type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy";
    let shadow = "shadow_enabled: {default_value: {numerator: 100}}";
    let routes = format!(
        "[{{match: {{prefix: /on}}, route: {{cluster: backend}}, typed_per_filter_config: {{envoy.filters.http.csrf: {{{kind}, {ALWAYS}}}}}}},
          {{match: {{prefix: /shadow}}, route: {{cluster: backend}}, typed_per_filter_config: {{envoy.filters.http.csrf: {{{kind}, {NEVER}, {shadow}}}}}}},
          {{match: {{prefix: /}}, route: {{cluster: backend}}}}]"
    );
    let proxy = Proxy::start(&bootstrap(&backend, &format!("{{{NEVER}}}")).routes(&routes));
    let origin = "origin: http://b\r\n";
    assert_eq!(["/on", "/shadow", "/"].map(|path| status(&proxy, "POST", path, origin)), [403, 200, 200]);
    proxy.stat_becomes("http.ingress.csrf.request_invalid", 2);
}
