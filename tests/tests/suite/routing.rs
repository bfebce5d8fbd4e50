//! Which route a request takes and what the route does to it.

use proxy_tests::{Backend, Bootstrap, Message, Proxy, yaml};

/// A route table whose clusters are named by what they answer.
struct Routes {
    proxy: Proxy,
    _backends: Vec<Backend>,
}

impl Routes {
    fn new(clusters: &[&str], table: impl FnOnce(Bootstrap) -> Bootstrap) -> Self {
        let backends: Vec<Backend> = clusters.iter().map(|name| Backend::saying(name)).collect();
        let bootstrap = clusters
            .iter()
            .zip(&backends)
            .fold(Bootstrap::http_without_clusters(), |bootstrap, (name, backend)| {
                bootstrap.cluster(name, backend.address())
            });
        Self { proxy: Proxy::start(&table(bootstrap)), _backends: backends }
    }

    /// The cluster that a GET with these header lines ends up at, or the status in its place.
    fn take(&self, host: &str, target: &str, lines: &str) -> String {
        let response = self.ask(host, target, lines);
        match response.status() {
            200 => response.text().to_owned(),
            status => status.to_string(),
        }
    }

    fn ask(&self, host: &str, target: &str, lines: &str) -> Message {
        self.proxy.connect().ask(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n"))
    }
}

#[test]
fn domains_match_exactly_then_by_longest_suffix_then_prefix_then_any() {
    let hosts = r#"
virtual_hosts:
- {name: any, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: any}}]}
- {name: suffix, domains: ["*.example.com"], routes: [{match: {prefix: /}, route: {cluster: suffix}}]}
- {name: longer, domains: ["*.b.example.com", "*-b.example.com"], routes: [{match: {prefix: /}, route: {cluster: longer}}]}
- {name: prefix, domains: ["www.*", "www.x.*"], routes: [{match: {prefix: /}, route: {cluster: prefix}}]}
- {name: exact, domains: ["www.example.com", "with-port.org:81"], routes: [{match: {prefix: /}, route: {cluster: exact}}]}
"#;
    let routes = Routes::new(&["any", "suffix", "longer", "prefix", "exact"], |b| b.route_config_with(hosts));
    for (host, cluster) in [
        ("www.example.com", "exact"),
        ("WWW.Example.COM", "exact"),
        ("a.example.com", "suffix"),
        ("a.b.example.com", "longer"),
        ("a-b.example.com", "longer"),
        (".example.com", "any"),
        ("example.com", "any"),
        ("www.other.org", "prefix"),
        ("www.x.org", "prefix"),
        ("www.", "any"),
        ("with-port.org:81", "exact"),
        ("with-port.org", "any"),
        ("www.example.com:8080", "prefix"),
    ] {
        assert_eq!(routes.take(host, "/", ""), cluster, "{host}");
    }
}

#[test]
fn no_matching_domain_is_404() {
    let routes = Routes::new(&["one"], |b| {
        b.virtual_host_with("domains: [only.example.com]")
            .routes("[{match: {prefix: /}, route: {cluster: one}}]")
    });
    assert_eq!(routes.take("only.example.com", "/", ""), "one");
    assert_eq!(routes.take("other.example.com", "/", ""), "404");
}

#[test]
fn ports_may_be_ignored_in_hosts() {
    let routes = Routes::new(&["one"], |b| {
        b.virtual_host_with("domains: [a.org]")
            .routes("[{match: {prefix: /}, route: {cluster: one}}]")
            .route_config_with("ignore_port_in_host_matching: true")
    });
    assert_eq!(routes.take("a.org:8080", "/", ""), "one");
}

#[test]
fn the_first_matching_path_wins() {
    let table = r#"
- {match: {path: /exact}, route: {cluster: exact}}
- {match: {path: /Case, case_sensitive: false}, route: {cluster: nocase}}
- {match: {path_separated_prefix: /api}, route: {cluster: separated}}
- {match: {safe_regex: {regex: "/r/[0-9]+"}}, route: {cluster: regex}}
- {match: {prefix: /pre}, route: {cluster: prefix}}
- {match: {prefix: /PRE-case, case_sensitive: false}, route: {cluster: nocase}}
"#;
    let routes = Routes::new(&["exact", "nocase", "separated", "regex", "prefix"], |bootstrap| {
        bootstrap.routes(table)
    });
    for (target, cluster) in [
        ("/exact", "exact"),
        ("/exact?q=1", "exact"),
        ("/exact/", "404"),
        ("/EXACT", "404"),
        ("/cASE", "nocase"),
        ("/api", "separated"),
        ("/api?x", "separated"),
        ("/api/", "separated"),
        ("/api/v1", "separated"),
        ("/apis", "404"),
        ("/r/12", "regex"),
        ("/r/12?q", "regex"),
        ("/r/12x", "404"),
        ("/x/r/12", "404"),
        ("/prefix", "prefix"),
        ("/pre", "prefix"),
        ("/pr", "404"),
        ("/", "404"),
    ] {
        assert_eq!(routes.take("a", target, ""), cluster, "{target}");
    }
}

/// A table of one route per line that answers with its cluster `yes`, and everything else with `no`.
fn yes_or_no(matcher: &str, cases: &[(&str, &str, &str)]) {
    let table = format!(
        "[{{match: {{prefix: /, {matcher}}}, route: {{cluster: 'yes'}}}}, {{match: {{prefix: /}}, route: {{cluster: 'no'}}}}]"
    );
    let routes = Routes::new(&["yes", "no"], |bootstrap| bootstrap.routes(&table));
    for (target, lines, expected) in cases {
        assert_eq!(routes.take("a", target, lines), *expected, "{matcher}: {target} {lines:?}");
    }
}

#[test]
fn header_matchers_of_every_kind() {
    let yes = |line| ("/", line, "yes");
    let no = |line| ("/", line, "no");
    yes_or_no("headers: [{name: x, present_match: true}]", &[yes("x: \r\n"), yes("X: 1\r\n"), no("")]);
    yes_or_no("headers: [{name: x, present_match: false}]", &[no("x: 1\r\n"), yes("")]);
    yes_or_no("headers: [{name: x, present_match: true, invert_match: true}]", &[no("x: 1\r\n"), yes("")]);
    yes_or_no(
        "headers: [{name: x, string_match: {exact: v}}]",
        &[yes("x: v\r\n"), no("x: V\r\n"), no("x: vv\r\n"), no("")],
    );
    yes_or_no(
        "headers: [{name: x, string_match: {exact: v, ignore_case: true}}]",
        &[yes("x: V\r\n"), no("x: w\r\n")],
    );
    yes_or_no("headers: [{name: x, string_match: {prefix: ab}}]", &[yes("x: abc\r\n"), no("x: cab\r\n")]);
    yes_or_no("headers: [{name: x, string_match: {suffix: bc}}]", &[yes("x: abc\r\n"), no("x: bcd\r\n")]);
    yes_or_no("headers: [{name: x, string_match: {contains: b}}]", &[yes("x: abc\r\n"), no("x: acd\r\n")]);
    yes_or_no(
        "headers: [{name: x, string_match: {safe_regex: {regex: 'a+'}}}]",
        &[yes("x: aaa\r\n"), no("x: aab\r\n"), no("x: baa\r\n")],
    );
    yes_or_no(
        "headers: [{name: x, range_match: {start: -1, end: 10}}]",
        &[yes("x: -1\r\n"), yes("x: 9\r\n"), no("x: 10\r\n"), no("x: a\r\n"), no("")],
    );
    yes_or_no(
        "headers: [{name: x, string_match: {exact: v}, invert_match: true}]",
        &[no("x: v\r\n"), yes("x: w\r\n")],
    );
    yes_or_no(
        "headers: [{name: x, string_match: {exact: ''}, treat_missing_header_as_empty: true}]",
        &[yes(""), yes("x:\r\n"), no("x: 1\r\n")],
    );
    yes_or_no("headers: [{name: x, exact_match: v}]", &[yes("x: v\r\n"), no("x: w\r\n")]);
    yes_or_no("headers: [{name: x, prefix_match: v}]", &[yes("x: vw\r\n"), no("x: w\r\n")]);
    // Several lines of one name are matched one by one, not joined.
    yes_or_no("headers: [{name: x, string_match: {exact: a}}]", &[yes("x: a\r\nx: b\r\n"), no("x: a,b\r\n")]);
    yes_or_no("headers: [{name: x, string_match: {exact: b}}]", &[yes("x: a\r\nx: b\r\n"), yes("x: b\r\n")]);
    yes_or_no(
        "headers: [{name: x, present_match: true}, {name: y, string_match: {exact: '1'}}]",
        &[yes("x: 1\r\ny: 1\r\n"), no("x: 1\r\n"), no("y: 1\r\n")],
    );
    yes_or_no("headers: [{name: ':method', string_match: {exact: GET}}]", &[yes("")]);
    yes_or_no("headers: [{name: ':authority', string_match: {exact: b}}]", &[no("")]);
}

#[test]
fn query_parameter_matchers_of_every_kind() {
    let yes = |target| (target, "", "yes");
    let no = |target| (target, "", "no");
    yes_or_no(
        "query_parameters: [{name: q, present_match: true}]",
        &[yes("/?q"), yes("/?a=1&q=2"), no("/?qq=1"), no("/")],
    );
    yes_or_no(
        "query_parameters: [{name: q, string_match: {exact: v}}]",
        &[yes("/?q=v"), no("/?q=w"), no("/?q"), no("/")],
    );
    yes_or_no("query_parameters: [{name: q, string_match: {prefix: v}}]", &[yes("/?q=vw"), no("/?q=wv")]);
    yes_or_no(
        "query_parameters: [{name: q, string_match: {safe_regex: {regex: '[0-9]+'}}}]",
        &[yes("/?q=12"), no("/?q=1a")],
    );
    yes_or_no(
        "query_parameters: [{name: q, string_match: {exact: v}}]",
        &[yes("/?q=v&q=w"), no("/?q=w&q=v")],
    );
    yes_or_no("query_parameters: [{name: q}]", &[yes("/?q=anything"), no("/?x=1")]);
}

#[test]
fn weighted_clusters_share_by_weight() {
    let routes = Routes::new(&["heavy", "light", "never"], |bootstrap| {
        bootstrap.routes(
            "[{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: heavy, weight: 80}, {name: light, weight: 20}, {name: never, weight: 0}]}}}]",
        )
    });
    let mut client = routes.proxy.connect();
    let answers: Vec<String> =
        (0..500).map(|_| client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text().to_owned()).collect();
    let count = |name: &str| answers.iter().filter(|answer| *answer == name).count();
    // 500 draws at 0.8: a fair one stays within these bounds but for one run in 10^15.
    assert!((325..=475).contains(&count("heavy")), "{} of 500 went to heavy", count("heavy"));
    assert_eq!((count("heavy") + count("light"), count("never")), (500, 0));
}

#[test]
fn cluster_header_names_the_cluster() {
    let routes = Routes::new(&["one", "two"], |bootstrap| {
        bootstrap.routes("[{match: {prefix: /}, route: {cluster_header: x-cluster}}]")
    });
    assert_eq!(routes.take("a", "/", "x-cluster: one\r\n"), "one");
    assert_eq!(routes.take("a", "/", "x-cluster: two\r\n"), "two");
    assert_eq!(routes.take("a", "/", "x-cluster: three\r\n"), "503");
    assert_eq!(routes.take("a", "/", ""), "503");
}

#[test]
fn headers_for_a_routes_own_answer_are_added_once() {
    let table = "[{match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: x}}, response_headers_to_add: &add \
                 [{header: {key: x-added, value: v}}, {header: {key: content-type, value: a/b}}]},\
                 {match: {prefix: /redirect}, redirect: {path_redirect: /new}, response_headers_to_add: *add}]";
    let routes = Routes::new(&[], |bootstrap| bootstrap.routes(table));
    for target in ["/direct", "/redirect"] {
        assert_eq!(routes.ask("a", target, "").headers.all("x-added"), ["v"], "{target}");
    }
    assert_eq!(routes.ask("a", "/direct", "").header("content-type"), Some("a/b"));
}

#[test]
fn redirects_build_the_location() {
    let table = r#"
- {match: {prefix: /https}, redirect: {https_redirect: true}}
- {match: {prefix: /host}, redirect: {host_redirect: other.org}}
- {match: {prefix: /port}, redirect: {port_redirect: 8443, https_redirect: true}}
- {match: {prefix: /path}, redirect: {path_redirect: /new, response_code: FOUND}}
- {match: {prefix: /query}, redirect: {path_redirect: "/new?x=1", response_code: SEE_OTHER}}
- {match: {prefix: /strip}, redirect: {path_redirect: /new, strip_query: true, response_code: TEMPORARY_REDIRECT}}
- {match: {prefix: /prefix}, redirect: {prefix_rewrite: /p, response_code: PERMANENT_REDIRECT}}
- {match: {prefix: /regex}, redirect: {regex_rewrite: {pattern: {regex: "/regex/(.*)"}, substitution: '/r/\1'}}}
- {match: {prefix: /scheme}, redirect: {scheme_redirect: ftp}}
"#;
    let routes = Routes::new(&[], |bootstrap| bootstrap.routes(table));
    for (host, target, status, location) in [
        ("a.org", "/https?q=1", 301, "https://a.org/https?q=1"),
        ("a.org:80", "/https", 301, "https://a.org/https"),
        ("a.org:8080", "/https", 301, "https://a.org:8080/https"),
        ("a.org", "/host/x?q", 301, "http://other.org/host/x?q"),
        ("a.org:81", "/port", 301, "https://a.org:8443/port"),
        ("a.org", "/path/old?q=1", 302, "http://a.org/new?q=1"),
        ("a.org", "/query?q=1", 303, "http://a.org/new?x=1"),
        ("a.org", "/strip?q=1", 307, "http://a.org/new"),
        ("a.org", "/prefix/rest?q=1", 308, "http://a.org/p/rest?q=1"),
        ("a.org", "/regex/ab?q=1", 301, "http://a.org/r/ab?q=1"),
        ("a.org", "/scheme", 301, "ftp://a.org/scheme"),
    ] {
        let response = routes.ask(host, target, "");
        assert_eq!(
            (response.status(), response.header("location")),
            (status, Some(location)),
            "{host}{target}"
        );
        assert_eq!(response.header("content-length"), Some("0"));
        assert_eq!(response.header("server"), Some("envoy"));
    }
}

#[test]
fn require_tls_redirects_cleartext() {
    let routes = Routes::new(&["one"], |bootstrap| {
        bootstrap
            .virtual_host_with("require_tls: ALL")
            .routes("[{match: {prefix: /}, route: {cluster: one}}]")
    });
    let response = routes.ask("a.org", "/x?y", "");
    assert_eq!((response.status(), response.header("location")), (301, Some("https://a.org/x?y")));
    for (protocols, expected) in [
        (&["https"][..], 200),
        (&["", "https", ""], 200),
        (&["http", "https"], 301),
        (&["https", "https"], 301),
    ] {
        let lines: String =
            protocols.iter().map(|protocol| format!("x-forwarded-proto: {protocol}\r\n")).collect();
        assert_eq!(routes.ask("a.org", "/", &lines).status(), expected, "{lines}");
    }
}

#[test]
fn filters_see_what_require_tls_redirects() {
    let backend = Backend::saying("ok");
    let limit = "{stat_prefix: s, token_bucket: {max_tokens: 1, fill_interval: 3600s},
        filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}";
    let probe = "{pass_through_mode: false, headers: [{name: ':path', string_match: {exact: /hc}}]}";
    let bootstrap = Bootstrap::http(backend.address())
        .virtual_host_with("require_tls: ALL")
        .http_filter("probe", "health_check.v3.HealthCheck", probe)
        .http_filter("limit", "local_ratelimit.v3.LocalRateLimit", limit);
    let proxy = Proxy::start(&bootstrap);
    // A balancer's probe of the plain port is answered, and a redirect counts against a limit.
    let asked = ["/hc", "/hc", "/a", "/b"].map(|path| proxy.get(path).status());
    assert_eq!(asked, [200, 200, 301, 429]);
    assert_eq!(proxy.stat("http.ingress.rq_direct_response"), 1);
}

#[test]
fn direct_responses_come_from_the_table() {
    let table = r#"
- {match: {path: /text}, direct_response: {status: 418, body: {inline_string: "short and stout"}}}
- {match: {path: /empty}, direct_response: {status: 204}}
- match: {path: /typed}
  direct_response: {status: 200, body: {inline_string: "{}"}}
  response_headers_to_add: [{header: {key: content-type, value: application/json}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]
"#;
    let routes = Routes::new(&[], |bootstrap| bootstrap.routes(table));
    let text = routes.ask("a", "/text", "");
    assert_eq!((text.status(), text.text()), (418, "short and stout"));
    assert_eq!(
        (text.header("content-type"), text.header("content-length")),
        (Some("text/plain"), Some("15"))
    );
    let empty = routes.ask("a", "/empty", "");
    assert_eq!((empty.status(), empty.header("content-type")), (204, None));
    assert_eq!(routes.ask("a", "/typed", "").header("content-type"), Some("application/json"));
    let mut client = routes.proxy.connect();
    let head = client.send("HEAD /text HTTP/1.1\r\nhost: a\r\n\r\n").head();
    assert_eq!((head.status(), head.header("content-length")), (418, Some("15")));
    let posted = client.ask("POST /text HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc");
    assert_eq!(posted.text(), "short and stout");
}

/// One backend that tells what it got, behind a table.
fn forwarded(table: &str, host: &str, target: &str, lines: &str) -> Message {
    let backend = Backend::saying("");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).routes(table));
    let response = proxy.connect().ask(format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n"));
    assert_eq!(response.status(), 200, "{target}");
    backend.request()
}

#[test]
fn paths_are_rewritten() {
    for (route, target, seen) in [
        (
            "{match: {prefix: /api/}, route: {cluster: backend, prefix_rewrite: /}}",
            "/api/v1/x?q=1",
            "/v1/x?q=1",
        ),
        ("{match: {prefix: /api}, route: {cluster: backend, prefix_rewrite: /new}}", "/apiv1", "/newv1"),
        ("{match: {path: /old}, route: {cluster: backend, prefix_rewrite: /new}}", "/old?q=1", "/new?q=1"),
        (
            "{match: {path_separated_prefix: /api}, route: {cluster: backend, prefix_rewrite: /new}}",
            "/api/x",
            "/new/x",
        ),
        (
            "{match: {prefix: /}, route: {cluster: backend, regex_rewrite: {pattern: {regex: '^/service/([^/]+)(/.*)$'}, substitution: '\\2/instance/\\1'}}}",
            "/service/foo/v1/api?q=1",
            "/v1/api/instance/foo?q=1",
        ),
        (
            "{match: {prefix: /}, route: {cluster: backend, regex_rewrite: {pattern: {regex: 'one'}, substitution: two}}}",
            "/xxx/one/yyy/one/zzz",
            "/xxx/two/yyy/two/zzz",
        ),
        (
            "{match: {safe_regex: {regex: '/a.*'}}, route: {cluster: backend, prefix_rewrite: /new}}",
            "/abc?q",
            "/new?q",
        ),
    ] {
        let request = forwarded(&format!("[{route}]"), "a", target, "");
        assert_eq!(request.target(), seen, "{route}");
        assert_eq!(request.header("x-envoy-original-path"), Some(target), "{route}");
    }
}

#[test]
fn hosts_are_rewritten() {
    let rewritten = |rewrite: &str, lines: &str| {
        forwarded(
            &format!("[{{match: {{prefix: /}}, route: {{cluster: backend, {rewrite}}}}}]"),
            "old.org",
            "/p?q",
            lines,
        )
    };
    assert_eq!(rewritten("host_rewrite_literal: new.org", "").header("host"), Some("new.org"));
    assert_eq!(
        rewritten("host_rewrite_header: x-host", "x-host: header.org\r\n").header("host"),
        Some("header.org")
    );
    assert_eq!(rewritten("host_rewrite_header: x-host", "").header("host"), Some("old.org"));
    let regex = "host_rewrite_path_regex: {pattern: {regex: '^/(.+)$'}, substitution: '\\1.org'}";
    assert_eq!(rewritten(regex, "").header("host"), Some("p.org"));
    let told = rewritten("host_rewrite_literal: new.org, append_x_forwarded_host: true", "");
    assert_eq!(told.header("x-forwarded-host"), Some("old.org"));
    assert_eq!(told.header("x-envoy-original-host"), Some("old.org"));
}

#[test]
fn headers_are_added_and_removed_at_every_level() {
    let backend =
        Backend::answering("HTTP/1.1 200 OK\r\nx-drop: 1\r\nx-have: upstream\r\ncontent-length: 0\r\n\r\n");
    let level = |name: &str| {
        format!(
            "request_headers_to_add: [{{header: {{key: x-order, value: {name}}}}}, {{header: {{key: x-{name}, value: '1'}}}}]\n\
             request_headers_to_remove: [x-drop-{name}]\n\
             response_headers_to_add: [{{header: {{key: x-order, value: {name}}}}}]\n\
             response_headers_to_remove: [x-drop]\n"
        )
    };
    let mut weighted = yaml(&level("weight"));
    weighted["name"] = yaml("backend");
    weighted["weight"] = yaml("1");
    let mut route = yaml(&level("route"));
    route["match"] = yaml("{prefix: /}");
    route["route"] = serde_json::json!({"weighted_clusters": {"clusters": [weighted]}});
    let bootstrap = Bootstrap::http(backend.address())
        .routes(&serde_json::json!([route]).to_string())
        .virtual_host_with(&level("host"))
        .route_config_with(&level("config"));
    let proxy = Proxy::start(&bootstrap);
    let lines = "x-drop-route: 1\r\nx-drop-host: 1\r\nx-drop-config: 1\r\nx-drop-weight: 1\r\nx-keep: 1\r\n";
    let response = proxy.get_with("/", lines);
    let request = backend.request();
    assert_eq!(request.headers.all("x-order"), ["weight", "route", "host", "config"]);
    assert_eq!(response.headers.all("x-order"), ["weight", "route", "host", "config"]);
    assert_eq!((request.header("x-keep"), response.header("x-drop")), (Some("1"), None));
    for name in ["weight", "route", "host", "config"] {
        assert_eq!(request.header(&format!("x-{name}")), Some("1"));
        assert_eq!(request.header(&format!("x-drop-{name}")), None);
    }
}

#[test]
fn the_most_specific_level_may_win() {
    let backend = Backend::saying("");
    let add = |value: &str| {
        format!(
            "request_headers_to_add: [{{header: {{key: x-level, value: {value}}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]"
        )
    };
    let routes = format!("[{{match: {{prefix: /}}, route: {{cluster: backend}}, {}}}]", add("route"));
    let table = || Bootstrap::http(backend.address()).routes(&routes).route_config_with(&add("config"));
    let _ = Proxy::start(&table()).get("/");
    let wins = "most_specific_header_mutations_wins: true";
    let _ = Proxy::start(&table().route_config_with(wins)).get("/");
    let seen: Vec<_> = backend.requests().iter().map(|r| r.header("x-level").map(str::to_owned)).collect();
    assert_eq!(seen, [Some("config".to_owned()), Some("route".to_owned())]);
}

#[test]
fn append_actions_do_as_they_say() {
    for (action, without, with) in [
        ("APPEND_IF_EXISTS_OR_ADD", &["new"][..], &["old", "new"][..]),
        ("ADD_IF_ABSENT", &["new"], &["old"]),
        ("OVERWRITE_IF_EXISTS_OR_ADD", &["new"], &["new"]),
        ("OVERWRITE_IF_EXISTS", &[], &["new"]),
    ] {
        let table = format!(
            "[{{match: {{prefix: /}}, route: {{cluster: backend}}, request_headers_to_add: [{{header: {{key: x-a, value: new}}, append_action: {action}}}]}}]"
        );
        assert_eq!(forwarded(&table, "a", "/", "").headers.all("x-a"), without, "{action}");
        assert_eq!(forwarded(&table, "a", "/", "x-a: old\r\n").headers.all("x-a"), with, "{action}");
    }
}
