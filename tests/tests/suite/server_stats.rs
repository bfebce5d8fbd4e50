//! What the process says of itself: `server.*`.

use proxy_tests::{Bootstrap, Proxy, direct_response_chain};

fn start(fragment: &str) -> Proxy {
    Proxy::start(&Bootstrap::empty().listener("main", direct_response_chain("hello")).with(fragment))
}

#[test]
fn what_does_not_change_is_there_from_the_start() {
    let proxy = start("stats_flush_interval: 0.1s");
    for (name, value) in [
        ("server.compilation_settings.fips_mode", 0),
        ("server.concurrency", 2),
        ("server.days_until_first_cert_expiring", 4_294_967_295),
        ("server.debug_assertion_failures", 0),
        ("server.dynamic_unknown_fields", 0),
        ("server.envoy_bug_failures", 0),
        ("server.envoy_notifications", 0),
        ("server.hot_restart_epoch", 0),
        ("server.live", 1),
        ("server.parent_connections", 0),
        ("server.seconds_until_first_ocsp_response_expiring", 0),
        ("server.state", 0),
        ("server.static_unknown_fields", 0),
        ("server.wip_protos", 0),
    ] {
        proxy.stat_becomes(name, value);
    }
    let all = proxy.admin_get("/stats");
    let names: Vec<_> = all.text().lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    let watchdogs = ["main_thread", "workers", "server.main_thread", "server.worker_0", "server.worker_1"]
        .map(|thread| ["miss", "mega_miss"].map(|what| format!("{thread}.watchdog_{what}")))
        .concat();
    let expected = ["memory_physical_size", "stats_recent_lookups", "uptime", "version"];
    let expected = expected.map(|name| format!("server.{name}")).into_iter().chain(watchdogs);
    for name in expected {
        assert!(names.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn connections_and_memory_are_counted() {
    let proxy = start("stats_flush_interval: 0.1s");
    let clients = [(); 3].map(|()| {
        let mut client = proxy.connect();
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
        client
    });
    proxy.stat_becomes("server.total_connections", 3);
    drop(clients);
    proxy.stat_becomes("server.total_connections", 0);
    let allocated = proxy.stat("server.memory_allocated");
    assert!(allocated > 1 << 20, "{allocated}");
    assert!(proxy.stat("server.memory_heap_size") > allocated);
}

#[test]
fn an_unhealthy_process_is_not_live() {
    let proxy = start("stats_flush_interval: 0.1s");
    assert_eq!(proxy.admin_post("/healthcheck/fail").status(), 200);
    proxy.stat_becomes("server.live", 0);
    proxy.stat_becomes("server.state", 1);
    assert_eq!(proxy.admin_post("/healthcheck/ok").status(), 200);
    proxy.stat_becomes("server.live", 1);
    proxy.stat_becomes("server.state", 0);
}

#[test]
fn the_version_can_be_chosen() {
    let proxy = start("stats_server_version_override: 77");
    proxy.stat_becomes("server.version", 77);
}
