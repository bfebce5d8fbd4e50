use super::*;
use crate::forwarding::fixtures::connection_manager;
use crate::route::fixtures::*;
use proxy_config::settings::*;

fn told(virtual_hosts: Vec<VirtualHost>, head: &str) -> Explanation {
    let mut manager = connection_manager();
    manager.routes = Arc::new(configuration(virtual_hosts));
    let asked = Asked {
        head: head.as_bytes(),
        scheme: Scheme::Http,
        client: SocketAddr::from(([192, 0, 2, 7], 0)),
        local: Address::Ip(SocketAddr::from(([127, 0, 0, 1], 80))),
        listener: "main",
        filter_chain: "",
        random: 600_000,
        wall: SystemTime::UNIX_EPOCH,
    };
    explain(&manager, &asked).unwrap()
}

fn named(name: &str, domains: Vec<Domain>) -> VirtualHost {
    let mut host = host(vec![route(prefix("/"), direct(200))]);
    (host.name, host.domains) = (name.to_owned(), domains);
    host
}

#[test]
fn virtual_hosts_that_do_not_take_a_request_say_why() {
    let hosts = || {
        vec![
            named("any", vec![Domain::Any]),
            named("bare", vec![Domain::Exact("a.com".into())]),
            named("suffix", vec![Domain::Suffix(".com:80".into())]),
        ]
    };
    let told = told(hosts(), "GET / HTTP/1.1\r\nhost: a.com:80\r\n\r\n");
    assert_eq!(told.virtual_host.unwrap().by, "*.com:80");
    let why: Vec<_> = told.other_hosts.iter().map(|host| host.why.as_str()).collect();
    assert_eq!(
        why,
        [
            "`*` also fits, `*.com:80` is more exact",
            "`a.com:80` is not `a.com`; it would be with ignore_port_in_host_matching"
        ]
    );
}

#[test]
fn routes_that_do_not_match_say_why() {
    let with = |path, change: &dyn Fn(&mut RouteMatch)| {
        let mut route = route(path, direct(200));
        change(&mut route.matches);
        route
    };
    let exact_value = |value: &[u8]| {
        let pattern = StringPattern::Exact(value.into());
        StringMatcher { pattern, ignore_case: false }
    };
    let header = |invert| HeaderMatcher {
        name: "x-a".into(),
        predicate: HeaderPredicate::String(exact_value(b"1")),
        invert,
        missing_as_empty: false,
    };
    let query = QueryMatcher { name: "q".into(), predicate: QueryPredicate::String(exact_value(b"v")) };
    let routes = vec![
        with(exact("/P/"), &|_| {}),
        with(prefix("/P"), &|_| {}),
        with(separated("/q"), &|_| {}),
        with(regex("/p."), &|_| {}),
        with(prefix("/"), &|matches| matches.fraction_ppm = Some(512_300)),
        with(prefix("/"), &|matches| matches.grpc = true),
        with(prefix("/"), &|matches| matches.headers = vec![header(false)]),
        with(prefix("/"), &|matches| matches.query = vec![query.clone()]),
        with(PathMatch::Connect, &|_| {}),
        with(prefix("/p"), &|matches| matches.headers = vec![header(true)]),
    ];
    let told = told(vec![host(routes)], "GET /p?q=w HTTP/1.1\r\nhost: a\r\nx-a: 2\r\n\r\n");
    let why: Vec<_> = told.passed.iter().map(|route| route.why.as_str()).collect();
    assert_eq!(
        why,
        [
            "path `/p` is not `/P/`",
            "path `/p` does not begin with `/P`; but for its case (case_sensitive)",
            "path `/p` is not `/q` and not below `/q/`",
            "path `/p` as a whole does not match `/p.`",
            "takes 51.23% of requests, and this is none of them (--random decides)",
            "takes gRPC alone, by its content-type",
            "header `x-a` is `2`: must be exact `1`",
            "query parameter `q` is `w`: must be exact `v`",
            "connect_matcher takes CONNECT alone",
        ]
    );
    assert_eq!(told.route.unwrap().by, "prefix `/p`, header `x-a` not exact `1`");
}

#[test]
fn what_is_no_request_is_refused_as_the_codec_does() {
    let asked = Asked {
        head: b"GET / HTTP/1.1\r\n\r\n",
        scheme: Scheme::Http,
        client: SocketAddr::from(([192, 0, 2, 7], 0)),
        local: Address::Ip(SocketAddr::from(([127, 0, 0, 1], 80))),
        listener: "",
        filter_chain: "",
        random: 0,
        wall: SystemTime::UNIX_EPOCH,
    };
    assert_eq!(explain(&connection_manager(), &asked).unwrap_err(), HeadError::NoHost);
}
