//! Clusters, listeners and routes change a thousand times under load, and no request fails.
#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

mod backend;
mod client;
mod proxy;

use backend::Backend;
use client::{Client, Clients};
use proxy::Proxy;

/// Every client gets an answer between two updates, so each kind of update meets connections that idle, requests
/// under way, and connections that are being opened.
#[test]
fn no_request_fails_during_a_thousand_updates() {
    let (a, b, c) = (Backend::start("a"), Backend::start("b"), Backend::start("c"));
    proxy::run(async |proxy: &Proxy| {
        proxy.clusters.add([proxy::cluster("one", a.port), proxy::cluster("two", c.port)]);
        proxy.listeners.add(proxy::listener("one")).unwrap();
        proxy.listeners.start().unwrap();
        let address = proxy.listeners.list()[0].1[0].ip().unwrap();
        let clients = Clients::start(4, address, &[("one", &["a", "b"]), ("two", &["c"]), ("extra", &["b"])]);
        let mut grown_to = 0;
        for update in 0..UPDATES {
            apply(proxy, update, [a.port, b.port, c.port]).await;
            clients.each_gets_one_more().await;
            if update == UPDATES / 4 {
                grown_to = proxy.segment_bytes();
            }
        }
        let (failures, answered) = clients.stop();
        assert_eq!(failures, Vec::<String>::new());
        assert!(answered >= 4 * UPDATES as u64);
        assert!(proxy.segment_bytes() <= grown_to, "stats of removed clusters pile up");
        counts_are_right_at_the_end(proxy, answered).await;
    });
}

const UPDATES: usize = 1_000;

async fn apply(proxy: &Proxy, update: usize, [a, b, c]: [u16; 3]) {
    let route_to =
        |cluster| proxy.listeners.update_routes(proxy::routes(cluster)).expect("the listener has routes");
    match update % 20 {
        0 => proxy.clusters.add([proxy::cluster("extra", b)]),
        1 => route_to("extra").await,
        2 => route_to("one").await,
        // Requests that chose it may still be under way.
        3 => assert!(proxy.clusters.remove("extra")),
        4 => proxy.clusters.add([proxy::cluster(&format!("passing{update}"), a)]),
        5 => assert!(proxy.clusters.remove(&format!("passing{}", update - 1))),
        // In place: same address, new filter chains.
        6 | 16 => proxy.listeners.add(proxy::listener("one")).unwrap(),
        7 | 14 => route_to("two").await,
        // Not waited for: what comes next goes the same way.
        11 | 17 => drop(route_to("one")),
        n if n % 2 == 0 => proxy.clusters.add([proxy::cluster("one", b)]),
        _ => proxy.clusters.add([proxy::cluster("one", a), proxy::cluster("two", c)]),
    }
}

/// The clients' connections are gone, so everything that was under way has ended; what is left is what exists.
async fn counts_are_right_at_the_end(proxy: &Proxy, answered: u64) {
    proxy.until("http.web.downstream_cx_active", 0).await;
    proxy.until("listener_manager.total_listeners_draining", 0).await;
    proxy.settled().await;
    assert_eq!(proxy.stat("http.web.downstream_rq_total"), answered);
    assert_eq!(proxy.stat("http.web.downstream_rq_2xx"), answered);
    assert_eq!(proxy.stat("http.web.downstream_rq_active"), 0);
    assert_eq!(proxy.stat("listener_manager.total_listeners_active"), 1);
    assert_eq!(proxy.stat("cluster_manager.active_clusters"), 2);
    assert_eq!(proxy.store.value("cluster.extra.upstream_cx_total"), None);
    let mut idle = 0;
    for cluster in ["one", "two"] {
        let of = |name: &str| proxy.stat(&format!("cluster.{cluster}.{name}"));
        assert_eq!(of("membership_total"), 1);
        assert_eq!(of("membership_healthy"), 1);
        assert_eq!(of("upstream_rq_active"), 0);
        assert_eq!(of("upstream_rq_pending_active"), 0);
        assert_eq!(of("circuit_breakers.default.cx_open"), 0);
        assert_eq!(of("upstream_cx_active"), of("upstream_cx_total") - of("upstream_cx_destroy"));
        idle += of("upstream_cx_active");
    }
    // Pools of earlier versions of a cluster are closed: at most one connection per client, worker and cluster is left.
    assert!(idle <= 4 * 2 * 2, "{idle} connections are left");
}

/// A connection that idles while its listener is replaced, and then its cluster: its last request is routed by what
/// is in use now.
#[test]
fn a_connection_of_a_replaced_listener_follows_new_routes() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    proxy::run(async |proxy: &Proxy| {
        proxy.clusters.add([proxy::cluster("old", a.port)]);
        proxy.listeners.add(proxy::listener("old")).unwrap();
        proxy.listeners.start().unwrap();
        let mut client = Client::new(proxy.listeners.list()[0].1[0].ip().unwrap());
        assert_eq!(client.get().unwrap().backend, "a");
        proxy.listeners.add(proxy::listener("old")).unwrap();
        proxy.clusters.add([proxy::cluster("new", b.port)]);
        proxy.listeners.update_routes(proxy::routes("new")).unwrap().await;
        assert!(proxy.clusters.remove("old"));
        proxy.settled().await;
        assert_eq!(proxy.stat("listener_manager.total_listeners_draining"), 1);
        assert!(client.is_connected());
        assert_eq!(client.get().unwrap().backend, "b");
        assert!(!client.is_connected());
        proxy.until("listener_manager.total_listeners_draining", 0).await;
    });
}

/// An update or a removal of a cluster whose first look-up is under way ends that wait.
#[test]
fn what_cuts_warming_short_does_not_leave_the_manager_waiting() {
    proxy::run(async |proxy: &Proxy| {
        proxy
            .clusters
            .add([proxy::named_cluster("a", "first.invalid"), proxy::named_cluster("b", "b.invalid")]);
        assert_eq!(proxy.stat("cluster_manager.warming_clusters"), 2);
        proxy.clusters.add([proxy::named_cluster("a", "second.invalid")]);
        assert!(proxy.clusters.remove("b"));
        proxy.until("cluster_manager.warming_clusters", 0).await;
        proxy.clusters.warmed().await;
        assert!(!proxy.clusters.is_warming());
        assert_eq!(proxy.stat("cluster.a.warming_state"), 0);
        let (info, hosts) = proxy.clusters.get("a").unwrap();
        assert_eq!((info.settings.localities.len(), hosts.hosts.len()), (1, 0));
    });
}

/// A cluster found by name becomes one found by address before its look-up has ended.
#[test]
fn a_static_update_overtakes_a_look_up() {
    proxy::run(async |proxy: &Proxy| {
        proxy.clusters.add([proxy::named_cluster("a", "first.invalid")]);
        proxy.clusters.add([proxy::cluster("a", 80)]);
        proxy.until("cluster_manager.warming_clusters", 0).await;
        assert_eq!(proxy.stat("cluster.a.membership_total"), 1);
    });
}
