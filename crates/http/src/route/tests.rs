//! Routing against what Envoy 1.40 answered for the same configuration and request.

use std::sync::Arc;

use proptest::prelude::*;
use proxy_config::settings::*;

use super::fixtures::*;
use super::*;

const CONTEXT: LookupContext = LookupContext { random: 0 };

/// What a scan answers: the definition that the index must keep to.
fn scan(table: &RouteTable, request: &Request) -> Option<u32> {
    let path = request.path_without_query();
    let routes = &table.configuration.virtual_hosts[0].routes;
    routes
        .iter()
        .position(|route| matching::matches(&route.matches, path, request, &CONTEXT))
        .map(|index| index as u32)
}

#[test]
fn paths_match_as_in_envoy() {
    let any_case = |text: &str, kind: fn(&str) -> PathMatch| {
        let mut route = route(kind(&text.to_ascii_lowercase()), direct(0));
        route.matches.case_sensitive = false;
        route
    };
    let plain = |path| route(path, direct(0));
    let table = table(vec![
        plain(prefix("/pre?x")),
        plain(exact("/ex")),
        plain(regex("/rx.*z")),
        plain(separated("/sep")),
        any_case("/Ci", prefix),
        any_case("/Cx", exact),
        any_case("/Cs", separated),
        plain(prefix("/q?y=")),
        plain(exact("/exq?y")),
        plain(regex("/CR")),
        plain(prefix("")),
    ]);
    for (path, expected) in [
        ("/pre?x", 10),
        ("/pre?xy", 10),
        ("/ex", 1),
        ("/ex?q", 1),
        ("/ex/", 10),
        ("/rxz", 2),
        ("/rxz?q", 2),
        ("/rx?z", 10),
        ("/rxzz/", 10),
        ("/sep", 3),
        ("/sep/", 3),
        ("/sep/x", 3),
        ("/sepx", 10),
        ("/sep?x", 3),
        ("/CI", 4),
        ("/ci/x", 4),
        ("/cx", 5),
        ("/CX?y", 5),
        ("/cxx", 10),
        ("/cs/y", 6),
        ("/CSx", 10),
        ("/q?y=1", 10),
        ("/exq?y", 10),
        ("/cr", 10),
        ("/CR", 9),
    ] {
        assert_eq!(table.find(&get(path, &[]), &CONTEXT), Some((0, expected)), "{path}");
    }
    assert_eq!(table.find(&get("", &[]), &CONTEXT), None, "no path, as of CONNECT");
}

fn string(pattern: StringPattern) -> HeaderPredicate {
    HeaderPredicate::String(StringMatcher { pattern, ignore_case: false })
}

fn with_header(predicate: HeaderPredicate, invert: bool, missing_as_empty: bool) -> RouteTable {
    let mut route = route(prefix("/"), direct(0));
    route.matches.headers = vec![HeaderMatcher { name: "x-q".into(), predicate, invert, missing_as_empty }];
    table(vec![route])
}

#[test]
fn headers_match_as_in_envoy() {
    let a = || string(StringPattern::Exact(b"a"[..].into()));
    let empty = || string(StringPattern::Exact(b""[..].into()));
    let present = HeaderPredicate::Present;
    let range = || HeaderPredicate::Range { start: -5, end: 10 };
    let folded = HeaderPredicate::String(StringMatcher {
        pattern: StringPattern::Contains(b"b"[..].into()),
        ignore_case: true,
    });
    const VALUES: [&[&str]; 10] =
        [&[], &["a"], &[""], &["5"], &["-5"], &["10"], &["+5"], &["05"], &["a", "b"], &["xaxBx"]];
    for (predicate, invert, missing_as_empty, expected) in [
        (a(), false, false, ".a......a."),
        (a(), true, false, "..yyyyyy.y"),
        (present(false), false, false, "y........."),
        (present(true), true, false, "y........."),
        (a(), true, true, "y.yyyyyy.y"),
        (empty(), false, true, "y.y......."),
        (present(true), false, true, "yyyyyyyyyy"),
        (present(false), false, true, ".........."),
        (present(true), true, true, ".........."),
        (range(), false, false, "...yy.yy.."),
        (range(), true, false, ".yy..y..yy"),
        (string(StringPattern::Exact(b"a,b"[..].into())), false, false, ".........."),
        (folded, false, false, "........yy"),
    ] {
        let table = with_header(predicate.clone(), invert, missing_as_empty);
        for (values, expected) in VALUES.iter().zip(expected.chars()) {
            let lines: Vec<_> = values.iter().map(|value| ("x-q", *value)).collect();
            let found = table.find(&get("/", &lines), &CONTEXT).is_some();
            assert_eq!(
                found,
                expected != '.',
                "{predicate:?} inverted {invert} as empty {missing_as_empty}: {values:?}"
            );
        }
    }
}

#[test]
fn pseudo_headers_and_joined_ones_match() {
    for (name, value, lines, expected) in [
        (":method", "GET", &[][..], true),
        (":path", "/p?z", &[], true),
        (":authority", "h", &[], true),
        ("host", "h", &[], true),
        (":scheme", "http", &[], true),
        (":status", "200", &[], false),
        ("accept", "a,b", &[("accept", "a"), ("accept", "b")], true),
        ("accept", "b", &[("accept", "a"), ("accept", "b")], false),
        ("cookie", "b", &[("cookie", "a"), ("cookie", "b")], true),
    ] {
        let mut route = route(prefix("/"), direct(0));
        route.matches.headers = vec![HeaderMatcher {
            name: name.into(),
            predicate: string(StringPattern::Exact(value.as_bytes().into())),
            invert: false,
            missing_as_empty: false,
        }];
        let found = table(vec![route]).find(&get("/p?z", lines), &CONTEXT).is_some();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn query_parameters_match_as_in_envoy() {
    let present = "/?k /?k= /?k=v /?k=v&k=w /?k=w&k=v /?a=b&k=v /?k=a%20b /?k=a+b /?&k=v /?k==v /?k=v=w /?k&k=v \
                   /?k=v;x /?k=%76 /?k=V";
    let absent = "/ /? /?a%20b=1 /?=k /?K=v /?xk=v /?a?k=v /?%6b=v";
    let matcher = |pattern: &[u8], ignore_case| {
        QueryPredicate::String(StringMatcher { pattern: StringPattern::Exact(pattern.into()), ignore_case })
    };
    for (predicate, expected) in [
        (QueryPredicate::Present(true), present),
        (QueryPredicate::Present(false), absent),
        (matcher(b"v", false), "/?k=v /?k=v&k=w /?a=b&k=v /?&k=v"),
        (matcher(b"", false), "/?k /?k= /?k&k=v"),
        (matcher(b"v", true), "/?k=v /?k=v&k=w /?a=b&k=v /?&k=v /?k=V"),
    ] {
        let mut route = route(prefix("/"), direct(0));
        route.matches.query = vec![QueryMatcher { name: "k".into(), predicate }];
        let table = table(vec![route]);
        for path in present.split_whitespace().chain(absent.split_whitespace()) {
            let wanted = expected.split_whitespace().any(|p| p == path);
            assert_eq!(table.find(&get(path, &[]), &CONTEXT).is_some(), wanted, "{path}");
        }
    }
}

#[test]
fn grpc_means_the_content_type() {
    let mut grpc = route(prefix("/"), direct(0));
    grpc.matches.grpc = true;
    let table = table(vec![grpc]);
    for (content_type, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc+", true),
        ("application/grpc-web", false),
        ("application/grpc;x", false),
        ("Application/gRPC", false),
        ("application/json", false),
    ] {
        let request = get("/", &[("content-type", content_type)]);
        assert_eq!(table.find(&request, &CONTEXT).is_some(), expected, "{content_type}");
    }
}

#[test]
fn a_fraction_takes_its_share_of_random_values() {
    let mut some = route(prefix("/"), direct(0));
    some.matches.fraction_ppm = Some(250_000);
    let table = table(vec![some, route(prefix("/"), direct(0))]);
    let taken = (0..1_000_000_u64)
        .step_by(1000)
        .filter(|&random| table.find(&get("/", &[]), &LookupContext { random }) == Some((0, 0)))
        .count();
    assert_eq!(taken, 250);
}

#[test]
fn clusters_are_resolved_once_and_chosen_by_weight() {
    let weighted = |name: &str, weight| WeightedCluster {
        name: name.into(),
        weight,
        request_headers: HeaderMutations::default(),
        response_headers: HeaderMutations::default(),
        host_rewrite: None,
        filters: Vec::new(),
    };
    let target = ClusterTarget::Weighted(WeightedClusters {
        clusters: vec![weighted("w1", 1), weighted("w2", 0), weighted("w3", 3)],
        total: 4,
        random_value_header: Some("x-random".into()),
    });
    let table = table(vec![
        route(prefix("/w"), to(forward(target))),
        route(prefix("/h"), to(forward(ClusterTarget::Header("x-c".into())))),
        route(prefix("/"), to(forward(ClusterTarget::Cluster("c7".into())))),
    ]);
    let select = |request: &Request, random| {
        let (host, route) = table.find(request, &CONTEXT).unwrap();
        let chosen = table.chosen(host, route);
        let selected = chosen.select_cluster(request, chosen.select_weighted(request, random)).unwrap();
        match selected.cluster {
            SelectedCluster::Id(id) => id.0.to_string(),
            SelectedCluster::Name(name) => text(&name).to_owned(),
        }
    };
    let chosen: Vec<_> = (0..8).map(|random| select(&get("/w", &[]), random)).collect();
    assert_eq!(chosen, ["1", "3", "3", "3", "1", "3", "3", "3"]);
    assert_eq!(select(&get("/w", &[("x-random", "4")]), 1), "1");
    assert_eq!(select(&get("/w", &[("x-random", "many")]), 1), "3");
    assert_eq!(select(&get("/h", &[("x-c", "b"), ("x-c", "d")]), 0), "b");
    assert_eq!(select(&get("/h", &[]), 0), "");
    assert_eq!(select(&get("/x", &[]), 9), "7");
    assert_eq!(table.chosen(0, 0).cluster_name(Some(2)).map(|name| &**name), Some("w3"));
}

#[test]
fn require_tls_redirects_what_came_in_clear() {
    let mut tls = host(vec![route(prefix("/only"), direct(200))]);
    tls.require_tls = RequireTls::ExternalOnly;
    let table = build(configuration(vec![tls]));
    let clear = request("h:80", "/miss?x", &[("x-forwarded-proto", "http")]);
    assert!(table.requires_tls(&clear));
    let clear = redirect_to_https(&clear);
    assert_eq!(clear.status, 301);
    assert_eq!(lines(&clear.headers), [("location", "https://h:80/miss?x")]);
    assert!(!table.requires_tls(&get("/", &[("x-forwarded-proto", "https")])));
    let internal = [("x-forwarded-proto", "http"), ("x-envoy-internal", "true")];
    assert!(!table.requires_tls(&get("/", &internal)));
}

/// Paths over a small alphabet, so that prefixes nest and collide.
fn path() -> impl Strategy<Value = String> {
    "/[ab/]{0,6}"
}

fn any_route() -> impl Strategy<Value = Route> {
    let matched = prop_oneof![
        4 => path().prop_map(|p| prefix(&p)),
        4 => path().prop_map(|p| exact(&p)),
        2 => path().prop_map(|p| separated(p.trim_end_matches('/'))),
        1 => "[ab]".prop_map(|p| regex(&format!("/.*{p}"))),
        1 => Just(prefix("")),
    ];
    (matched, any::<bool>(), 0..4).prop_map(|(path, header, case)| {
        let mut route = route(path, direct(0));
        route.matches.case_sensitive = case != 0;
        if header {
            route.matches.headers = vec![HeaderMatcher {
                name: "x-q".into(),
                predicate: HeaderPredicate::Present(true),
                invert: false,
                missing_as_empty: false,
            }];
        }
        route
    })
}

proptest! {
    #[test]
    fn the_index_answers_as_a_scan_would(
        routes in prop::collection::vec(any_route(), 0..60),
        paths in prop::collection::vec("/[abAB/]{0,8}(\\?[ab]{0,2})?", 1..20),
    ) {
        let table = table(routes);
        for path in &paths {
            for lines in [&[][..], &[("x-q", "1")]] {
                let request = get(path, lines);
                let found = table.find(&request, &CONTEXT).map(|(_, route)| route);
                prop_assert_eq!(found, scan(&table, &request), "{}", path);
                let trace = table.trace(&request, &CONTEXT);
                prop_assert_eq!(trace.virtual_host.zip(trace.route), table.find(&request, &CONTEXT));
                let all = table.configuration.virtual_hosts[0].routes.len();
                prop_assert_eq!(trace.passed.len(), found.map_or(all, |route| route as usize));
            }
        }
    }
}

#[test]
fn tables_may_cross_threads() {
    fn crosses<T: Send + Sync>(_: &Arc<T>) {}
    crosses(&Arc::new(table(Vec::new())));
}
