//! What routes do to messages, against what Envoy 1.40 did with the same configuration.

use bytes::Bytes;
use proxy_config::settings::*;
use regex::bytes::Regex;

use super::RouteTable;
use super::fixtures::*;
use crate::message::{Request, Response, Scheme};
use crate::mutation::ContextSource;

fn add(name: &str, value: &str, action: AppendAction) -> HeaderAddition {
    let value = HeaderValue::Constant(Bytes::copy_from_slice(value.as_bytes()));
    HeaderAddition { name: name.into(), value, action, keep_empty: false }
}

const NO_FORMATS: ContextSource<'static> = &|| unreachable!("no value here has a format");

/// One of every kind of addition, told apart by the level's name.
fn level(name: &str) -> HeaderMutations {
    use AppendAction::*;
    let mut kept = add("x-empty-k", "", AppendIfExistsOrAdd);
    kept.keep_empty = true;
    HeaderMutations {
        remove: Vec::new(),
        add: vec![
            add("x-over", name, OverwriteIfExistsOrAdd),
            add("x-app", name, AppendIfExistsOrAdd),
            add("x-abs", name, AddIfAbsent),
            add("x-ow", name, OverwriteIfExists),
            add("user-agent", name, AppendIfExistsOrAdd),
            add("x-empty", "", AppendIfExistsOrAdd),
            kept,
        ],
    }
}

fn levels(most_specific_wins: bool) -> RouteTable {
    let target = ClusterTarget::Weighted(WeightedClusters {
        clusters: vec![WeightedCluster {
            name: "c1".into(),
            weight: 100,
            request_headers: level("wc"),
            response_headers: level("wc"),
            host_rewrite: Some(Bytes::from_static(b"wchost")),
            filters: Vec::new(),
        }],
        total: 100,
        random_value_header: None,
    });
    let mut route = route(prefix("/"), to(forward(target)));
    (route.request_headers, route.response_headers) = (level("r"), level("r"));
    let mut host = host(vec![route]);
    (host.request_headers, host.response_headers) = (level("v"), level("v"));
    let mut configuration = configuration(vec![host]);
    configuration.most_specific_wins = most_specific_wins;
    (configuration.request_headers, configuration.response_headers) = (level("rc"), level("rc"));
    configuration.request_headers.remove = vec!["x-rm".into(), "x-over".into()];
    build(configuration)
}

#[test]
fn request_mutations_come_in_envoys_order() {
    let mut request =
        get("/w", &[("x-over", "c"), ("x-app", "c"), ("x-ow", "c"), ("user-agent", "c"), ("x-rm", "1")]);
    levels(false).chosen(0, 0).apply_request(Some(0), &mut request, true, NO_FORMATS);
    assert_eq!(text(request.authority()), "wchost");
    let mut expected = vec![("x-app", "c"), ("x-app", "wc"), ("x-abs", "wc"), ("x-empty-k", "")];
    expected.extend([("x-app", "r"), ("x-empty-k", ""), ("x-app", "v"), ("x-empty-k", "")]);
    expected.extend([("x-over", "rc"), ("x-ow", "rc"), ("x-app", "rc"), ("user-agent", "c,wc,r,v,rc")]);
    expected.push(("x-empty-k", ""));
    assert_eq!(lines(&request.headers), expected);
}

#[test]
fn the_most_specific_mutation_can_be_made_to_win() {
    let mut request = get("/", &[("x-over", "c"), ("user-agent", "c"), ("x-rm", "1")]);
    levels(true).chosen(0, 0).apply_request(Some(0), &mut request, true, NO_FORMATS);
    assert_eq!(request.headers.value("x-over"), Some(&b"r"[..]));
    assert_eq!(request.headers.value("user-agent"), Some(&b"c,wc,rc,v,r"[..]));
    assert!(!request.headers.contains("x-rm"));
}

#[test]
fn response_mutations_come_in_envoys_order() {
    let mut response = Response::new(200);
    levels(false).chosen(0, 0).apply_response(Some(0), &mut response, Some(&get("/", &[])), NO_FORMATS);
    let agents: Vec<_> = response.headers.values("user-agent").map(text).collect();
    assert_eq!(agents, ["wc", "r", "v", "rc"], "not a header that responses join");
    let over: Vec<_> = response.headers.values("x-over").map(text).collect();
    assert_eq!(over, ["rc"]);
    assert_eq!(response.headers.value("x-abs"), Some(&b"wc"[..]));
    assert!(!response.headers.contains("x-ow"));
}

#[test]
fn additions_of_one_level_are_decided_before_any_is_made() {
    use AppendAction::*;
    let mut route = route(prefix("/"), to(forward(cluster())));
    route.request_headers.add = vec![
        add("x-a", "1", AddIfAbsent),
        add("x-a", "2", AddIfAbsent),
        add("x-b", "1", AppendIfExistsOrAdd),
        add("x-b", "2", OverwriteIfExistsOrAdd),
        add("x-c", "1", AppendIfExistsOrAdd),
        add("x-c", "2", OverwriteIfExists),
        add("accept", "z", AppendIfExistsOrAdd),
        add("cookie", "c=2", AppendIfExistsOrAdd),
    ];
    let table = table(vec![route]);
    let mut bare = get("/", &[]);
    table.chosen(0, 0).apply_request(None, &mut bare, true, NO_FORMATS);
    assert_eq!(
        lines(&bare.headers),
        [
            ("x-b", "2"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("x-b", "1"),
            ("x-c", "1"),
            ("accept", "z"),
            ("cookie", "c=2")
        ]
    );
    let mut full = get(
        "/",
        &[("x-a", "o"), ("x-b", "o"), ("x-c", "o"), ("accept", "1"), ("accept", "2"), ("cookie", "o")],
    );
    table.chosen(0, 0).apply_request(None, &mut full, true, NO_FORMATS);
    let mut expected =
        vec![("x-a", "o"), ("cookie", "o"), ("x-b", "2"), ("x-c", "2"), ("x-b", "1"), ("x-c", "1")];
    expected.extend([("accept", "1,2,z"), ("cookie", "c=2")]);
    assert_eq!(lines(&full.headers), expected);
}

fn regex_pair(pattern: &str, substitution: &'static str) -> (Regex, Bytes) {
    (Regex::new(pattern).unwrap(), Bytes::from_static(substitution.as_bytes()))
}

fn rewritten(matched: PathMatch, rewrite: PathRewrite, path: &str) -> (String, Option<String>) {
    let action = to(Forward { path_rewrite: Some(rewrite), ..forward(cluster()) });
    let table = table(vec![route(matched, action)]);
    let mut request = get(path, &[("x-envoy-original-path", "/mine")]);
    table.chosen(0, 0).apply_request(None, &mut request, true, NO_FORMATS);
    let original = request.headers.value("x-envoy-original-path").map(|value| text(value).to_owned());
    (text(request.path()).to_owned(), original.filter(|original| original != "/mine"))
}

#[test]
fn paths_are_rewritten_as_in_envoy() {
    let to_prefix = |text: &'static str| PathRewrite::Prefix(Bytes::from_static(text.as_bytes()));
    let to_regex = |pattern, substitution| {
        let (pattern, substitution) = regex_pair(pattern, substitution);
        PathRewrite::Regex { pattern, substitution }
    };
    for (matched, rewrite, path, expected) in [
        (prefix("/pp/"), to_prefix("/"), "/pp/a?q=/pp/", "/a?q=/pp/"),
        (prefix("/pp/"), to_prefix("/"), "/pp/", "/"),
        (prefix("/same"), to_prefix("/same"), "/same/x", "/same/x"),
        (exact("/exact"), to_prefix("/new"), "/exact?y", "/new?y"),
        (separated("/sep"), to_prefix("/n"), "/sep/x", "/n/x"),
        (separated("/sep"), to_prefix("/n"), "/sep?q", "/n?q"),
        (separated("/sep"), to_prefix("/"), "/sep/x", "//x"),
        (regex("/rx/[0-9]+"), to_prefix("/whole"), "/rx/12?q", "/whole?q"),
        (
            prefix("/re"),
            to_regex("^/re/([a-z]+)/(.*)$", "/$2/$1"),
            "/re/abc/d/e?f=/re/x/y",
            "/d/e/abc?f=/re/x/y",
        ),
        (prefix("/ra"), to_regex("a", "bb"), "/raab?a", "/rbbbbb?a"),
        (prefix("/rn"), to_regex("zzz", "bb"), "/rn/x", "/rn/x"),
        (prefix("/e2"), to_regex("/e2", "x"), "/e2?b", "x?b"),
        (prefix("/e3"), to_regex("x*", "-"), "/e3/xay?x", "-/-e-3-/-a-y-?x"),
    ] {
        let (new, original) = rewritten(matched, rewrite, path);
        assert_eq!(new, expected, "{path}");
        assert_eq!(original.as_deref(), Some(path));
    }
    let nothing_left = rewritten(prefix("/e1"), to_regex(".*", ""), "/e1/a?b");
    assert_eq!(nothing_left, ("/e1/a?b".to_owned(), None));
}

fn rehosted(rewrite: HostRewrite, path: &str, lines: &[(&str, &str)]) -> Request {
    let action = Forward { host_rewrite: Some(rewrite), append_x_forwarded_host: true, ..forward(cluster()) };
    let table = table(vec![route(prefix("/"), to(action))]);
    let mut request = get(path, lines);
    table.chosen(0, 0).apply_request(None, &mut request, true, NO_FORMATS);
    request
}

#[test]
fn hosts_are_rewritten_as_in_envoy() {
    let literal = || HostRewrite::Literal(Bytes::from_static(b"lit"));
    let header = || HostRewrite::Header("x-h".into());
    let (pattern, substitution) = regex_pair("^/hp/(.+)$", "$1.com");
    let from_path = HostRewrite::PathRegex { pattern, substitution };
    for (rewrite, path, line, host, forwarded) in [
        (literal(), "/", ("x", "y"), "lit", Some("h")),
        (literal(), "/", ("x-forwarded-host", "a"), "lit", Some("a,h")),
        (literal(), "/", ("x-forwarded-host", "h"), "lit", Some("h")),
        (literal(), "/", ("x-forwarded-host", "a,h"), "lit", Some("a,h")),
        (HostRewrite::Literal(Bytes::from_static(b"h")), "/", ("x", "y"), "h", Some("h")),
        (header(), "/", ("x-h", "fromh"), "fromh", Some("h")),
        (header(), "/", ("x-h", ""), "h", None),
        (header(), "/", ("x", "y"), "h", None),
        (from_path.clone(), "/hp/foo?bar", ("x", "y"), "foo.com", Some("h")),
        (from_path, "/hp/", ("x", "y"), "/hp/", Some("h")),
    ] {
        let request = rehosted(rewrite, path, &[line]);
        assert_eq!(text(request.authority()), host);
        assert_eq!(request.headers.value("x-forwarded-host").map(text), forwarded);
        assert_eq!(request.headers.contains("x-envoy-original-host"), forwarded.is_some());
    }
}

#[test]
fn suppressed_envoy_headers_are_not_added_by_rewrites() {
    let action = Forward {
        host_rewrite: Some(HostRewrite::Literal(Bytes::from_static(b"lit"))),
        path_rewrite: Some(PathRewrite::Prefix(Bytes::from_static(b"/n"))),
        ..forward(cluster())
    };
    let table = table(vec![route(exact("/"), to(action))]);
    let mut request = get("/", &[]);
    table.chosen(0, 0).apply_request(None, &mut request, false, NO_FORMATS);
    assert_eq!((text(request.authority()), text(request.path())), ("lit", "/n"));
    assert!(request.headers.is_empty());
}

fn nowhere() -> Redirect {
    Redirect { scheme: None, host: None, port: None, path: None, status: 301, strip_query: false }
}

fn redirected(matched: PathMatch, redirect: Redirect, request: &Request) -> String {
    let table = table(vec![route(matched, RouteAction::Redirect(Box::new(redirect)))]);
    let chosen = table.chosen(0, 0);
    let RouteAction::Redirect(redirect) = &chosen.route().action else { unreachable!() };
    let response = chosen.redirect_response(redirect, request, NO_FORMATS);
    text(response.headers.value("location").unwrap()).to_owned()
}

#[test]
fn locations_are_envoys() {
    let whole = |path: &'static str| Some(RedirectPath::Whole(Bytes::from_static(path.as_bytes())));
    let to_prefix = |path: &'static str| Some(RedirectPath::Prefix(Bytes::from_static(path.as_bytes())));
    let new_host = || Some(Bytes::from_static(b"new.com"));
    let https = || Some(RedirectScheme::Https);
    let (pattern, substitution) = regex_pair("^/rr/(.*)$", "/$1");
    let regex = Some(RedirectPath::Regex { pattern, substitution });
    let (pattern, substitution) = regex_pair(".*", "");
    let to_nothing = Some(RedirectPath::Regex { pattern, substitution });
    for (matched, redirect, path, expected) in [
        (prefix("/"), Redirect { scheme: https(), ..nowhere() }, "/https/a?b", "https://h/https/a?b"),
        (
            prefix("/"),
            Redirect { scheme: Some(RedirectScheme::Other(Bytes::from_static(b"ftp"))), ..nowhere() },
            "/s?b",
            "ftp://h/s?b",
        ),
        (prefix("/"), Redirect { host: new_host(), ..nowhere() }, "/host/a?b", "http://new.com/host/a?b"),
        (prefix("/"), Redirect { port: Some(8443), ..nowhere() }, "/port/a?b", "http://h:8443/port/a?b"),
        (
            prefix("/"),
            Redirect { host: new_host(), port: Some(8443), scheme: https(), ..nowhere() },
            "/a?b",
            "https://new.com:8443/a?b",
        ),
        (prefix("/"), Redirect { path: whole("/newp"), ..nowhere() }, "/path/a?b", "http://h/newp?b"),
        (prefix("/"), Redirect { path: whole("/newp?a=b"), ..nowhere() }, "/pq/a?b", "http://h/newp?a=b"),
        (
            prefix("/"),
            Redirect { path: whole("/newp"), strip_query: true, ..nowhere() },
            "/a?b",
            "http://h/newp",
        ),
        (
            prefix("/"),
            Redirect { path: whole("/newp?a=b"), strip_query: true, ..nowhere() },
            "/a?b",
            "http://h/newp?a=b",
        ),
        (prefix("/pre"), Redirect { path: to_prefix("/xx"), ..nowhere() }, "/pre/a?b", "http://h/xx/a?b"),
        (prefix("/"), Redirect { strip_query: true, ..nowhere() }, "/sq/a?b", "http://h/sq/a"),
        (prefix("/rr"), Redirect { path: regex, ..nowhere() }, "/rr/a?b", "http://h/a?b"),
        (prefix("/e6"), Redirect { path: to_nothing, ..nowhere() }, "/e6/a?b", "http://h/e6/a?b"),
        (
            separated("/sp"),
            Redirect { path: to_prefix("/yy"), strip_query: true, ..nowhere() },
            "/sp/a?b",
            "http://h/yy/a",
        ),
        (prefix("/"), nowhere(), "/none?x", "http://h/none?x"),
    ] {
        let request = get(path, &[("x-forwarded-proto", "http")]);
        assert_eq!(redirected(matched, redirect, &request), expected, "{path}");
    }
}

#[test]
fn a_redirect_keeps_the_port_that_envoy_keeps() {
    let to_https = || Redirect { scheme: Some(RedirectScheme::Https), ..nowhere() };
    let to_port = || Redirect { port: Some(8443), ..nowhere() };
    for (host, proto, redirect, expected) in [
        ("h:80", "http", to_https(), "https://h/p"),
        ("h:80", "https", to_https(), "https://h:80/p"),
        ("h:80", "junk", to_https(), "https://h:80/p"),
        ("h:80", "http", to_port(), "http://h:8443/p"),
        ("h:80", "https", to_port(), "https://h:8443/p"),
        ("h:80", "http", nowhere(), "http://h:80/p"),
        ("h:443", "http", to_https(), "https://h:443/p"),
        ("h:443", "https", nowhere(), "https://h:443/p"),
        ("h:81", "http", to_https(), "https://h:81/p"),
        ("[::1]", "http", to_https(), "https://[::1]/p"),
        ("[::1]:80", "http", to_https(), "https://[::1]/p"),
        ("[::1]:80", "http", to_port(), "http://[::1]:8443/p"),
    ] {
        let mut request = request(host, "/p", &[("x-forwarded-proto", proto)]);
        if proto == "https" {
            request.scheme = Scheme::Https;
        }
        assert_eq!(redirected(prefix("/"), redirect, &request), expected, "{host} {proto}");
    }
}

#[test]
fn local_answers_carry_the_routes_headers() {
    use AppendAction::*;
    let body = Bytes::from_static(b"hi");
    let direct = DirectResponse { status: 200, body };
    let answer = |add: Vec<HeaderAddition>| {
        let mut route = route(prefix("/"), RouteAction::NonForwarding);
        route.response_headers.add = add;
        let response = table(vec![route]).chosen(0, 0).direct_response(&direct, &get("/", &[]), NO_FORMATS);
        lines(&response.headers).iter().map(|(n, v)| format!("{n}: {v}")).collect::<Vec<_>>()
    };
    assert_eq!(answer(Vec::new()), [""; 0]);
    let html = add("content-type", "text/html", AppendIfExistsOrAdd);
    assert_eq!(answer(vec![html]), ["content-type: text/html"]);

    let redirect = Redirect { status: 303, ..nowhere() };
    let mut seeing = route(prefix("/"), RouteAction::Redirect(Box::new(redirect)));
    seeing.response_headers.add =
        vec![add("x-r", "1", AppendIfExistsOrAdd), add("location", "evil", AppendIfExistsOrAdd)];
    let table = table(vec![seeing]);
    let RouteAction::Redirect(redirect) = &table.chosen(0, 0).route().action else { unreachable!() };
    let response = table.chosen(0, 0).redirect_response(redirect, &get("/", &[]), NO_FORMATS);
    assert_eq!(response.status, 303);
    assert_eq!(lines(&response.headers), [("x-r", "1"), ("location", "http://h/,evil")]);
}
