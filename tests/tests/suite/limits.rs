//! Limits on connections: of all listeners and of one. Who is over them is closed and counted, and nobody else notices.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use proxy_tests::{
    Backend, Bootstrap, Generations, Proxy, Wire, direct_response_chain, eventually, only_proxyd,
};

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

/// A client that sends more than its host reads, after `greeting`; `judge` looks at what the proxy has read of it and what it
/// holds, in bytes. `stats` are those of the listener's filter.
fn against_a_slow_host(bootstrap: &Bootstrap, greeting: &str, stats: &str, judge: impl FnOnce(&Looks<'_>)) {
    let proxy = Proxy::start(bootstrap);
    let mut client = proxy.connect();
    if !greeting.is_empty() {
        assert_eq!(client.send(greeting).response().status(), 101);
    }
    let mut sending = client.duplicate();
    let sender = std::thread::spawn(move || drop(sending.try_send(vec![7; 50_000_000])));
    judge(&Looks {
        read: &|| proxy.stat(&format!("{stats}.downstream_cx_rx_bytes_total")),
        held: &|| {
            proxy.stat("cluster.backend.upstream_cx_tx_bytes_buffered")
                + proxy.stat(&format!("{stats}.downstream_cx_rx_bytes_buffered"))
        },
    });
    drop(proxy);
    client.finish();
    sender.join().unwrap();
}

struct Looks<'a> {
    read: &'a dyn Fn() -> u64,
    held: &'a dyn Fn() -> u64,
}

/// `plain` without limits and with small ones.
fn assert_limited(plain: &Bootstrap, greeting: &str, stats: &str) {
    // Envoy notices when it has read: 16 KiB at a time, up to the listener's limit at once.
    const MOST: u64 = 64 << 10;
    let limit = "per_connection_buffer_limit_bytes: 8192";
    let limited = plain.clone().cluster_with("backend", limit).listener_with(limit);
    against_a_slow_host(&limited, greeting, stats, |looks| {
        let (mut last, mut same) = (0, 0);
        eventually("the proxy to stop reading", || {
            let now = (looks.read)();
            same = if now > MOST && now == std::mem::replace(&mut last, now) { same + 1 } else { 0 };
            (same > 20).then_some(())
        });
        let held = (looks.held)();
        assert!(held <= MOST, "{held} bytes");
    });
    against_a_slow_host(plain, greeting, stats, |looks| {
        eventually("more to be held", || ((looks.held)() > MOST).then_some(()));
    });
}

#[test]
fn a_slow_host_is_read_ahead_of_by_no_more_than_its_limit() {
    let (enough, told) = channel::<()>();
    let told = Mutex::new(told);
    let backend = Backend::raw(move |_, _| {
        let _ = told.lock().unwrap().recv();
    });
    assert_limited(&Bootstrap::tcp(backend.address()), "", "tcp.tcp");
    drop(enough);
}

#[test]
fn so_is_one_in_a_tunnel() {
    let (enough, told) = channel::<()>();
    let told = Mutex::new(told);
    let backend = Backend::raw(move |wire, _| {
        if wire.try_head().is_ok() {
            wire.send(
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n",
            );
            let _ = told.lock().unwrap().recv();
        }
    });
    let plain =
        Bootstrap::http(backend.address()).filter_with("upgrade_configs: [{upgrade_type: websocket}]");
    let ask = "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n";
    assert_limited(&plain, ask, "http.ingress");
    drop(enough);
}

fn layer(values: &str) -> String {
    format!("layered_runtime: {{layers: [{{name: static, static_layer: {values}}}]}}")
}

#[test]
fn a_listener_has_a_limit_by_runtime() {
    let limit = "{envoy: {resource_limits: {listener: {main: {connection_limit: 2}}}}}";
    let proxy = Proxy::start(&two_listeners().with(&layer(limit)));
    let mut main: Vec<_> = (0..2).map(|_| served(&proxy, "main")).collect();
    assert!(main.iter().all(Option::is_some));
    assert!(served(&proxy, "main").is_none());
    proxy.stat_becomes("listener.main.downstream_cx_overflow", 1);
    assert_eq!(proxy.stat("listener.main.downstream_global_cx_overflow"), 0);
    let other: Vec<_> = (0..3).map(|_| served(&proxy, "other")).collect();
    assert!(other.iter().all(Option::is_some), "it has none");
    main.pop();
    proxy.stat_becomes("listener.main.downstream_cx_active", 1);
    assert!(served(&proxy, "main").is_some());
    assert_eq!([proxy.stat("runtime.num_layers"), proxy.stat("runtime.num_keys")], [1, 1]);
}

#[test]
fn a_balanced_listener_has_one_limit_over_its_workers() {
    let limit = "{envoy.resource_limits.listener.main.connection_limit: 5}";
    let balanced = "connection_balance_config: {exact_balance: {}}";
    let proxy = Proxy::start(&two_listeners().with(&layer(limit)).listener_with(balanced));
    let all: Vec<_> = (0..9).filter_map(|_| served(&proxy, "main")).collect();
    assert_eq!(all.len(), 5);
    proxy.stat_becomes("listener.main.downstream_cx_overflow", 4);
}

#[test]
fn a_connection_past_its_duration_may_have_one_more_request() {
    let backend = Backend::saying("ok");
    let options = "{http1_safe_max_connection_duration: true, common_http_protocol_options: {max_connection_duration: 0.2s}}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(options));
    let mut client = proxy.connect();
    let first = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((first.status(), first.header("connection")), (200, None));
    proxy.stat_becomes("http.ingress.downstream_cx_max_duration_reached", 1);
    let last = client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((last.status(), last.header("connection")), (200, Some("close")));
    assert!(client.finish().is_closed());
}
