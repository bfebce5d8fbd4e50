//! Virtual hosts, what their routes match, and what becomes of a request.

use super::*;

#[test]
fn domains_are_unique_in_any_case() {
    let lowered = accepted(&hosts("{name: v, domains: [A.b, '*.C', 'd.*', '*']}"));
    let domains = &manager_of(&lowered).routes.virtual_hosts[0].domains;
    let expected =
        [Domain::Exact("a.b".into()), Domain::Suffix(".c".into()), Domain::Prefix("d.".into()), Domain::Any];
    assert_eq!(domains, &expected);
    refused(
        &hosts("{name: v, domains: [a]}, {name: w, domains: [b, A]}"),
        &[("duplicate-domain", "virtual_hosts[1].domains[1]")],
    );
    refused(&hosts("{name: v, domains: ['*', '*']}"), &[("duplicate-domain", "domains[1]")]);
    accepted(&hosts("{name: v, domains: [a]}, {name: v, domains: [b]}"));
}

#[test]
fn matchers_in_old_and_new_spelling_are_one() {
    let table = [
        ("exact_match: B", "string_match: {exact: B}", "B", "b"),
        ("prefix_match: B", "string_match: {prefix: B}", "Bx", "xB"),
        ("suffix_match: B", "string_match: {suffix: B}", "xB", "Bx"),
        ("contains_match: B", "string_match: {contains: B}", "xBx", "b"),
        ("safe_regex_match: {regex: 'B+'}", "string_match: {safe_regex: {regex: 'B+'}}", "BB", "xBB"),
    ];
    for (old, new, yes, no) in table {
        for spelling in [old, new] {
            let lowered = accepted(&matching(&format!("prefix: /, headers: [{{name: X-A, {spelling}}}]")));
            let header = &route_of(&lowered).matches.headers[0];
            let HeaderPredicate::String(string) = &header.predicate else { panic!("{spelling}") };
            assert!(string.matches(yes.as_bytes()) && !string.matches(no.as_bytes()), "{spelling}");
            assert_eq!(&*header.name, "x-a");
        }
    }
    let lowered = accepted(&matching(
        "prefix: /, headers: [{name: Host}], grpc: {}, query_parameters: [{name: q}, {name: r, present_match: false}]",
    ));
    let matches = &route_of(&lowered).matches;
    assert_eq!(&*matches.headers[0].name, ":authority");
    assert!(matches!(matches.headers[0].predicate, HeaderPredicate::Present(true)));
    assert!(matches!(matches.query[0].predicate, QueryPredicate::Present(true)) && matches.grpc);
    assert!(matches!(matches.query[1].predicate, QueryPredicate::Present(false)));
    let folded = accepted(&matching("prefix: /AB, case_sensitive: false"));
    assert!(matches!(&route_of(&folded).matches.path, PathMatch::Prefix(prefix) if **prefix == *b"/ab"));
}

#[test]
fn broken_regexes_are_placed() {
    refused(&matching("safe_regex: {regex: '/(a'}"), &[("bad-regex", "match.safe_regex.regex")]);
    refused(&matching("safe_regex: {regex: '(?=a)'}"), &[("bad-regex", "match.safe_regex.regex")]);
    refused(&matching(r"safe_regex: {regex: '(\pL{100}){9}'}"), &[("bad-regex", "match.safe_regex.regex")]);
    let rewrite = |pattern: &str, to: &str| {
        action(&format!(
            "route: {{cluster: a, regex_rewrite: {{pattern: {{regex: '{pattern}'}}, substitution: '{to}'}}}}"
        ))
    };
    refused(&rewrite("(a)", r"\2"), &[("bad-substitution", "regex_rewrite.substitution")]);
    let lowered = accepted(&rewrite("/(a+)/", r"/$\1/"));
    let RouteAction::Forward(forward) = &route_of(&lowered).action else { panic!() };
    let Some(PathRewrite::Regex { pattern, substitution }) = &forward.path_rewrite else { panic!() };
    assert_eq!(pattern.replace_all(b"/x/aa/y", substitution.as_ref()), b"/x/$aa/y".as_slice());
}

#[test]
fn header_values_are_constant_or_formats() {
    let add = |header: &str| action(&format!("route: {{cluster: a}}, request_headers_to_add: [{header}]"));
    let lowered = accepted(&add("{header: {key: X-A, value: '50%% of %%'}, append: false}"));
    let addition = &route_of(&lowered).request_headers.add[0];
    let HeaderValue::Constant(value) = &addition.value else { panic!("{addition:?}") };
    assert_eq!((&*addition.name, value.as_ref()), ("x-a", b"50% of %".as_slice()));
    assert_eq!(addition.action, AppendAction::OverwriteIfExistsOrAdd);
    let lowered = accepted(&add("{header: {key: X-A, value: 'a%REQ(x)%%START_TIME(%Y)%'}}"));
    let HeaderValue::Format(format) = &route_of(&lowered).request_headers.add[0].value else { panic!() };
    assert_eq!(format.pieces.len(), 3);
    for value in ["%REQ%", "a %", "%NO_SUCH%", "%CEL(x)%"] {
        let yaml = add(&format!("{{header: {{key: a, value: '{value}'}}}}"));
        refused(&yaml, &[("unsupported-formatter", "request_headers_to_add[0].header.value")]);
    }
    refused(&add("{header: {key: Host, value: x}}"), &[("bad-header-name", "header.key")]);
    let both = "{header: {key: a, value: x}, append: true, append_action: ADD_IF_ABSENT}";
    refused(&add(both), &[("conflict", "request_headers_to_add[0].append")]);
    refused(
        &action("route: {cluster: a}, response_headers_to_remove: [':status']"),
        &[("bad-header-name", "response_headers_to_remove[0]")],
    );
}

#[test]
fn direct_responses_are_bounded_and_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("body");
    std::fs::write(&file, "from a file").unwrap();
    let from = |source: &str| action(&format!("direct_response: {{status: 200, body: {{{source}}}}}"));
    let yaml = from(&format!("filename: {}", file.display()));
    let lowered = accepted(&yaml);
    let RouteAction::Direct(response) = &route_of(&lowered).action else { panic!() };
    assert_eq!(response.body, "from a file");
    let unread = LowerOptions { read_files: false, ..LowerOptions::default() };
    assert!(lower_with(&from("filename: /nonexistent"), &unread).0.is_some());
    refused(&from("filename: /nonexistent"), &[("missing-file", "body.filename")]);
    refused(
        &from(&format!("filename: {}", directory.path().display())),
        &[("missing-file", "body.filename")],
    );
    let long = "x".repeat(4097);
    refused(&from(&format!("inline_string: {long}")), &[("too-long", "body.inline_string")]);
    std::fs::write(&file, long).unwrap();
    refused(&yaml, &[("too-long", "body.filename")]);
}

#[test]
fn redirects_say_what_changes() {
    let lowered = accepted(&action(
        "redirect: {https_redirect: true, port_redirect: 8443, prefix_rewrite: /x, response_code: FOUND}",
    ));
    let RouteAction::Redirect(redirect) = &route_of(&lowered).action else { panic!() };
    assert!(matches!(redirect.scheme, Some(RedirectScheme::Https)));
    assert!(matches!(&redirect.path, Some(RedirectPath::Prefix(to)) if to == "/x"));
    assert_eq!((redirect.status, redirect.port, redirect.host.is_none()), (302, Some(8443), true));
    refused(
        &action("route: {cluster: a, prefix_rewrite: /x, regex_rewrite: {pattern: {regex: a}}}"),
        &[("conflict", "route.regex_rewrite")],
    );
}

#[test]
fn weights_are_summed() {
    let weighted =
        |clusters: &str| action(&format!("route: {{weighted_clusters: {{clusters: [{clusters}]}}}}"));
    let lowered = accepted(&weighted("{name: a, weight: 3}, {name: a, weight: 0}"));
    let RouteAction::Forward(forward) = &route_of(&lowered).action else { panic!() };
    assert!(matches!(&forward.target, ClusterTarget::Weighted(weighted) if weighted.total == 3));
    refused(&weighted("{name: a, weight: 0}"), &[("bad-weights", "weighted_clusters.clusters")]);
    refused(&weighted("{name: a}"), &[("required", "clusters[0].weight")]);
    let half = "{name: a, weight: 4294967295}";
    refused(&weighted(&format!("{half}, {half}")), &[("bad-weights", "weighted_clusters.clusters")]);
}
