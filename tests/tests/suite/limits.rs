//! Limits on connections: of all listeners and of one. Who is over them is closed and counted, and nobody else notices.

use proxy_tests::{Bootstrap, Generations, Proxy, Wire, direct_response_chain, only_proxyd};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn two_listeners() -> Bootstrap {
    Bootstrap::empty()
        .listener("main", direct_response_chain("hello"))
        .listener("other", direct_response_chain("hello"))
        .stat_prefixes()
}

fn globally(limit: u32) -> String {
    let config = "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";
    format!(
        "overload_manager: {{resource_monitors: [{{name: envoy.resource_monitors.global_downstream_max_connections, \
         typed_config: {{'@type': {config}, max_active_downstream_connections: {limit}}}}}]}}"
    )
}

/// A connection that is served, if it is.
fn served(proxy: &Proxy, listener: &str) -> Option<Wire> {
    let mut wire = Wire::connect(proxy.listener(listener));
    wire.send_if_open(GET);
    wire.try_response().is_ok().then_some(wire)
}

#[test]
fn all_listeners_together_have_a_limit() {
    let proxy = Proxy::start(&two_listeners().with(&globally(2)));
    let first = served(&proxy, "main");
    let second = served(&proxy, "other");
    assert!(first.is_some() && second.is_some());
    assert!(served(&proxy, "main").is_none());
    assert!(served(&proxy, "other").is_none());
    proxy.stat_becomes("listener.main.downstream_global_cx_overflow", 1);
    proxy.stat_becomes("listener.other.downstream_global_cx_overflow", 1);
    assert_eq!(proxy.stat("listener.main.downstream_cx_total"), 1);
    assert_eq!(proxy.stat("listener.main.downstream_cx_overflow"), 0);
    drop(first);
    proxy.stat_becomes("listener.main.downstream_cx_active", 0);
    assert!(served(&proxy, "other").is_some());
}

#[test]
fn a_listener_may_be_outside_the_limit_of_all() {
    let proxy =
        Proxy::start(&two_listeners().with(&globally(1)).listener_with("ignore_global_conn_limit: true"));
    let all: Vec<_> = (0..3).map(|_| served(&proxy, "main")).collect();
    assert!(all.iter().all(Option::is_some));
    let other = served(&proxy, "other");
    assert!(other.is_some(), "the others do not count");
    assert!(served(&proxy, "other").is_none());
    assert!(served(&proxy, "main").is_some());
}

#[test]
fn connections_that_moved_here_count() {
    only_proxyd!("proxyctl is ours");
    let proxy = Generations::start(&two_listeners().with(&globally(2)), &["--confirm-after", "0.1"]);
    let mut first = served(&proxy, "main").unwrap();
    proxy.restart(&[]);
    let _ = proxy.only(2);
    assert_eq!(first.ask(GET).text(), "hello");
    let second = served(&proxy, "other");
    assert!(second.is_some());
    assert!(served(&proxy, "main").is_none());
    proxy.stat_becomes("listener.main.downstream_global_cx_overflow", 1);
    drop(first);
    proxy.stat_becomes("listener.main.downstream_cx_active", 0);
    assert!(served(&proxy, "main").is_some());
}

#[test]
fn the_admin_port_is_never_full() {
    only_proxyd!("Envoy's counts unless told otherwise");
    let proxy = Proxy::start(&two_listeners().with(&globally(1)));
    let only = served(&proxy, "main");
    assert!(only.is_some());
    let _operators: Vec<_> = (0..5).map(|_| Wire::connect(proxy.admin_address())).collect();
    assert_eq!(proxy.admin_get("/ready").status(), 200);
}
