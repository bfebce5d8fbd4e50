//! `proxyctl routes explain` says what proxyd then does.

use std::process::Command;

use proxy_tests::{Backend, Bootstrap, Proxy, only_proxyd, proxyctl};
use serde_json::Value;

const ROUTES: &str = r#"
request_headers_to_add: [{header: {key: x-level, value: "table %REQ(:METHOD)%"}}]
request_headers_to_remove: [x-secret]
virtual_hosts:
- name: api
  domains: ["api.example.com", "*.api.example.com"]
  request_headers_to_add: [{header: {key: x-level, value: host}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
  routes:
  - {name: beta, match: {prefix: /, headers: [{name: x-beta, string_match: {exact: "1"}}]}, direct_response: {status: 418, body: {inline_string: beta}}}
  - {name: query, match: {path: /find, query_parameters: [{name: q, string_match: {prefix: a}}]}, redirect: {path_redirect: /found, strip_query: true}}
  - {name: v1, match: {path_separated_prefix: /v1}, route: {cluster: backend, prefix_rewrite: /new, host_rewrite_literal: inner, timeout: 3s}}
  - {name: digits, match: {safe_regex: {regex: "/[0-9]+"}}, route: {cluster: backend, regex_rewrite: {pattern: {regex: "[0-9]"}, substitution: N}}}
  - {name: fraction, match: {prefix: /some, runtime_fraction: {default_value: {numerator: 0}}}, direct_response: {status: 500}}
  - {name: grpc, match: {prefix: /, grpc: {}}, direct_response: {status: 501}}
  - {name: any-case, match: {prefix: /case, case_sensitive: false}, route: {cluster_header: x-cluster}}
- name: tls
  domains: ["secure.example.com"]
  require_tls: ALL
  routes: [{match: {prefix: /}, direct_response: {status: 200}}]
- name: rest
  domains: ["*"]
  routes:
  - {match: {prefix: /none}, non_forwarding_action: {}}
  - {match: {prefix: /}, route: {cluster: backend}}
"#;

struct Setup {
    proxy: Proxy,
    backend: Backend,
}

/// What came of a request: its answer's status and location, and the lines that the host got.
#[derive(Debug, PartialEq)]
struct Fate {
    status: u16,
    location: Option<String>,
    upstream: Option<(String, Vec<String>)>,
}

impl Setup {
    fn explained(&self, arguments: &[&str]) -> Value {
        let file = self.proxy.directory().join("envoy.yaml");
        let mut command = Command::new(proxyctl());
        command.args(["routes", "explain", "--format", "json"]).arg(file).args(arguments);
        let output = command.output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    fn done(&self, method: &str, host: &str, path: &str, lines: &[&str]) -> Fate {
        let before = self.backend.requests().len();
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let mut wire = self.proxy.connect();
        let answer = wire.ask(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n"));
        let upstream = self.backend.requests().get(before).map(|request| {
            let lines = request.headers.0.iter().filter(|(name, _)| name != "x-request-id");
            let mut lines: Vec<_> = lines.map(|(name, value)| format!("{name}: {value}")).collect();
            lines.sort();
            (request.target().to_owned(), lines)
        });
        Fate { status: answer.status(), location: answer.header("location").map(str::to_owned), upstream }
    }

    fn foretold(&self, method: &str, host: &str, path: &str, lines: &[&str]) -> Fate {
        let url = format!("http://{host}{path}");
        let headers = lines.iter().flat_map(|line| ["-H", line]);
        let arguments: Vec<&str> = [method, &url].into_iter().chain(headers).collect();
        let told = self.explained(&arguments);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let header_lines = |list: &Value| -> Vec<String> {
            let each = list.as_array().unwrap().iter().filter(|line| line["name"] != "x-request-id");
            each.map(|line| format!("{}: {}", text(&line["name"]), text(&line["value"]))).collect()
        };
        let forward = &told["forward"];
        if forward.is_null() {
            let answer = &told["answer"];
            let location =
                answer["headers"].as_array().unwrap().iter().find(|line| line["name"] == "location");
            let status = answer["status"].as_u64().unwrap() as u16;
            return Fate { status, location: location.map(|line| text(&line["value"])), upstream: None };
        }
        if forward["cluster_exists"] == false {
            let status = forward["cluster_not_found_response_code"].as_u64().unwrap() as u16;
            return Fate { status, location: None, upstream: None };
        }
        let removed = header_lines(&forward["headers_removed"]);
        let kept = lines.iter().map(|line| line.to_string()).filter(|line| !removed.contains(line));
        let mut upstream: Vec<_> = kept.chain(header_lines(&forward["headers_added"])).collect();
        upstream.push(format!("host: {}", text(&forward["host"])));
        upstream.sort();
        Fate { status: 200, location: None, upstream: Some((text(&forward["path"]), upstream)) }
    }
}

#[test]
fn what_is_explained_is_what_happens() {
    only_proxyd!("proxyctl is ours");
    let backend = Backend::saying("");
    let manager = "normalize_path: true\nmerge_slashes: true\n\
                   path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT\nvia: here";
    let bootstrap = Bootstrap::http(backend.address()).filter_with(manager).route_config_with(ROUTES);
    let setup = Setup { proxy: Proxy::start(&bootstrap), backend };
    for (method, host, path, lines) in [
        ("GET", "api.example.com", "/v1/users?x=1", &["x-secret: s", "x-level: mine"][..]),
        ("GET", "x.api.example.com", "/v1", &[]),
        ("GET", "api.example.com", "/v10", &[]),
        ("GET", "api.example.com", "/v1", &["x-beta: 1"]),
        ("GET", "api.example.com", "/v1", &["x-beta: 2"]),
        ("GET", "api.example.com", "/find?q=abc", &[]),
        ("GET", "api.example.com", "/find?q=x", &[]),
        ("GET", "api.example.com", "/1234?5", &["x-envoy-upstream-rq-timeout-ms: 1", "keep-alive: 5"]),
        ("GET", "api.example.com", "/some", &[]),
        ("POST", "api.example.com", "/some", &["content-type: application/grpc", "content-length: 0"]),
        ("GET", "api.example.com", "/CASE", &["x-cluster: backend"]),
        ("GET", "api.example.com", "/CASE", &["x-cluster: nobody"]),
        ("GET", "api.example.com", "/CASE", &[]),
        ("GET", "api.example.com:81", "/v1", &[]),
        ("GET", "secure.example.com", "/p?q", &[]),
        ("PUT", "other", "//a/.././b", &["content-length: 0"]),
        ("GET", "other", "/a%2Fb", &[]),
        ("GET", "other", "/none", &[]),
        ("GET", "other", "/", &["connection: upgrade", "upgrade: websocket"]),
    ] {
        let (foretold, done) =
            (setup.foretold(method, host, path, lines), setup.done(method, host, path, lines));
        assert_eq!(foretold, done, "{method} {host} {path} {lines:?}");
    }
    let told = setup.explained(&["GET", "http://api.example.com/v1"]);
    assert_eq!(told["http_filters"], serde_json::json!([]));
    assert_eq!(told["virtual_host"]["domain"], "api.example.com");
    assert_eq!((&told["route"]["name"], &told["forward"]["timeout"]), (&"v1".into(), &"3s".into()));
    assert_eq!(told["routes_before"][1]["why"], "path `/v1` is not `/find`");
}

#[test]
fn the_filters_of_its_chain_are_told() {
    only_proxyd!("proxyctl is ours");
    let backend = Backend::saying("");
    let kind = |name: &str, kind: &str| {
        format!(
            "{{name: {name}, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.{kind}}}}}"
        )
    };
    let (router, own) = (kind("router", "router.v3.Router"), kind("own", "cors.v3.Cors"));
    let chains = format!(
        "{{http_filters: [{}, {}, {router}], upgrade_configs: [{{upgrade_type: CONNECT}}, {{upgrade_type: websocket, filters: [{own}, {}, {router}]}}]}}",
        kind("first", "cors.v3.Cors"),
        kind("common", "grpc_web.v3.GrpcWeb"),
        kind("common", "cors.v3.Cors"),
    );
    let disabled = "'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true";
    let routes = format!(
        "[{{match: {{prefix: /}}, route: {{cluster: backend}}, typed_per_filter_config: {{common: {{{disabled}}}}}}}]"
    );
    let bootstrap = Bootstrap::http(backend.address()).filter_with(&chains).routes(&routes);
    let setup = Setup { proxy: Proxy::start(&bootstrap), backend };
    let told = |lines: &[&str]| {
        let mut arguments = vec!["GET", "http://a/"];
        arguments.extend(lines.iter().flat_map(|line| ["-H", line]));
        setup.explained(&arguments)["http_filters"].clone()
    };
    let upgrade = ["connection: upgrade", "upgrade: websocket"];
    assert_eq!(
        [told(&[]), told(&upgrade)],
        [
            serde_json::json!([
                {"name": "first", "place": "http_filters[0]", "disabled": false},
                {"name": "common", "place": "http_filters[1]", "disabled": true},
            ]),
            serde_json::json!([
                {"name": "own", "place": "upgrade_configs[1].filters[0]", "disabled": false},
                {"name": "common", "place": "upgrade_configs[1].filters[1]", "disabled": true},
            ]),
        ]
    );
}
