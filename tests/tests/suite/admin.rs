//! The admin port: formats that operators' tools read, and whom it trusts.

use proxy_tests::{Backend, Bootstrap, Proxy, Wire, only_proxyd};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn served() -> (Backend, Proxy) {
    let backend = Backend::saying("ok");
    let proxy =
        Proxy::start(&Bootstrap::http(backend.address()).with("node: {id: test-id, cluster: test-cluster}"));
    assert_eq!(proxy.get("/").text(), "ok");
    (backend, proxy)
}

#[test]
fn ready_and_health() {
    let (_backend, proxy) = served();
    let ready = proxy.admin_get("/ready");
    assert_eq!((ready.status(), ready.text()), (200, "LIVE\n"));
    assert_eq!(proxy.admin_post("/healthcheck/fail").text(), "OK\n");
    let failing = proxy.admin_get("/ready");
    assert_eq!((failing.status(), failing.text()), (503, "DRAINING\n"));
    assert_eq!(json(proxy.admin_get("/server_info").text())["state"], "DRAINING");
    assert_eq!(proxy.admin_post("/healthcheck/ok").text(), "OK\n");
    assert_eq!(proxy.admin_get("/ready").status(), 200);
}

#[test]
fn help_and_home() {
    let (_backend, proxy) = served();
    let help = proxy.admin_get("/help");
    assert!(help.text().starts_with("admin commands are:\n"), "{}", help.text());
    for path in [
        "/clusters",
        "/config_dump",
        "/drain_listeners",
        "/healthcheck/fail",
        "/healthcheck/ok",
        "/help",
        "/listeners",
        "/logging",
        "/memory",
        "/quitquitquit",
        "/ready",
        "/server_info",
        "/stats",
    ] {
        assert!(
            help.text().contains(&format!("\n  {path}: "))
                || help.text().contains(&format!("\n  {path} (POST): ")),
            "{path}"
        );
    }
    let home = proxy.admin_get("/");
    assert_eq!(home.status(), 200);
    assert!(home.header("content-type").unwrap().starts_with("text/html"));
    let unknown = proxy.admin_get("/nothing-here");
    assert_eq!(unknown.status(), 404);
    assert!(unknown.text().contains("admin commands are:"), "{}", unknown.text());
}

#[test]
fn server_info_has_envoys_fields() {
    let (_backend, proxy) = served();
    let answer = proxy.admin_get("/server_info");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let info = json(answer.text());
    assert_eq!(info["state"], "LIVE");
    assert!(info["version"].as_str().unwrap().split('/').count() >= 5, "{}", info["version"]);
    assert!(info["uptime_current_epoch"].as_str().unwrap().ends_with('s'));
    assert!(info["uptime_all_epochs"].as_str().unwrap().ends_with('s'));
    let options = &info["command_line_options"];
    assert_eq!((&options["concurrency"], &options["mode"]), (&Value::from(2), &Value::from("Serve")));
    assert!(options["config_path"].as_str().unwrap().ends_with("envoy.yaml"));
    assert_eq!(
        (&info["node"]["id"], &info["node"]["cluster"]),
        (&Value::from("test-id"), &Value::from("test-cluster"))
    );
}

#[test]
fn clusters_as_text_and_json() {
    let (backend, proxy) = served();
    let address = backend.address();
    let text = proxy.admin_get("/clusters");
    let lines: Vec<&str> = text.text().lines().collect();
    for line in [
        "backend::observability_name::backend".to_owned(),
        "backend::default_priority::max_connections::1024".to_owned(),
        "backend::default_priority::max_pending_requests::1024".to_owned(),
        "backend::default_priority::max_requests::1024".to_owned(),
        "backend::default_priority::max_retries::3".to_owned(),
        "backend::high_priority::max_connections::1024".to_owned(),
        "backend::added_via_api::false".to_owned(),
        format!("backend::{address}::cx_active::1"),
        format!("backend::{address}::cx_connect_fail::0"),
        format!("backend::{address}::cx_total::1"),
        format!("backend::{address}::rq_active::0"),
        format!("backend::{address}::rq_error::0"),
        format!("backend::{address}::rq_success::1"),
        format!("backend::{address}::rq_timeout::0"),
        format!("backend::{address}::rq_total::1"),
        format!("backend::{address}::hostname::"),
        format!("backend::{address}::health_flags::healthy"),
        format!("backend::{address}::weight::1"),
        format!("backend::{address}::region::"),
        format!("backend::{address}::canary::false"),
        format!("backend::{address}::priority::0"),
        format!("backend::{address}::success_rate::-1"),
        format!("backend::{address}::local_origin_success_rate::-1"),
    ] {
        assert!(lines.contains(&line.as_str()), "{line} is missing in\n{}", text.text());
    }
    let status = json(proxy.admin_get("/clusters?format=json").text());
    let cluster = &status["cluster_statuses"][0];
    assert_eq!(cluster["name"], "backend");
    let host = &cluster["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], address.port());
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    let stat = |name: &str| {
        let stats = host["stats"].as_array().unwrap();
        stats
            .iter()
            .find(|stat| stat["name"] == name)
            .unwrap_or_else(|| panic!("{name} in {stats:?}"))
            .clone()
    };
    assert_eq!(stat("rq_total")["value"], "1");
    assert_eq!(stat("cx_active")["type"], "GAUGE");
}

#[test]
fn listeners_as_text_and_json() {
    let (_backend, proxy) = served();
    let address = proxy.listener("main");
    assert_eq!(proxy.admin_get("/listeners").text(), format!("main::{address}\n"));
    let status = json(proxy.admin_get("/listeners?format=json").text());
    assert_eq!(status["listener_statuses"][0]["name"], "main");
}

#[test]
fn stats_as_text_and_json() {
    let (_backend, proxy) = served();
    let text = proxy.admin_get("/stats?filter=cluster.backend.upstream_rq_2");
    assert_eq!(text.text(), "cluster.backend.upstream_rq_200: 1\ncluster.backend.upstream_rq_2xx: 1\n");
    assert!(text.header("content-type").unwrap().starts_with("text/plain"));
    let names: Vec<String> = proxy
        .admin_get("/stats?type=Counters")
        .text()
        .lines()
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted, "names come sorted");
    assert!(!names.iter().any(|name| name == "server.live"), "gauges are no counters");
    assert_eq!(proxy.stat("server.live"), 1);
    assert_eq!(proxy.stat("server.concurrency"), 2);
    let unused = proxy.admin_get("/stats?usedonly&filter=upstream_rq_timeout");
    assert_eq!(unused.text(), "");
    let stats = json(proxy.admin_get("/stats?format=json&filter=^cluster.backend.upstream_rq_200$").text());
    assert_eq!(stats["stats"][0], serde_json::json!({"name": "cluster.backend.upstream_rq_200", "value": 1}));
    assert_eq!(proxy.admin_get("/stats?filter=(").status(), 400);
    assert_eq!(proxy.admin_get("/stats?format=nonsense").status(), 400);
}

#[test]
fn config_dump_shows_what_was_given() {
    let (_backend, proxy) = served();
    let dump = json(proxy.admin_get("/config_dump").text());
    let configs = dump["configs"].as_array().unwrap();
    let of = |kind: &str| {
        let kind = format!("type.googleapis.com/envoy.admin.v3.{kind}");
        configs
            .iter()
            .find(|config| config["@type"] == kind.as_str())
            .unwrap_or_else(|| panic!("{kind} is missing"))
    };
    assert_eq!(of("BootstrapConfigDump")["bootstrap"]["node"]["id"], "test-id");
    assert_eq!(of("ClustersConfigDump")["static_clusters"][0]["cluster"]["name"], "backend");
    assert_eq!(of("ListenersConfigDump")["static_listeners"][0]["listener"]["name"], "main");
    assert_eq!(of("RoutesConfigDump")["static_route_configs"][0]["route_config"]["name"], "local_route");
}

#[test]
fn memory_is_told() {
    let (_backend, proxy) = served();
    let memory = json(proxy.admin_get("/memory").text());
    for field in [
        "allocated",
        "heap_size",
        "pageheap_unmapped",
        "pageheap_free",
        "total_thread_cache",
        "total_physical_bytes",
    ] {
        assert!(
            memory[field].as_str().is_some_and(|bytes| bytes.parse::<u64>().is_ok()),
            "{field} in {memory}"
        );
    }
}

#[test]
fn logging_levels_are_told_and_changed() {
    let (_backend, proxy) = served();
    let levels = proxy.admin_post("/logging");
    assert!(levels.text().starts_with("active loggers:\n"), "{}", levels.text());
    assert_eq!(proxy.admin_post("/logging?level=debug").status(), 200);
    let debug = proxy.admin_post("/logging");
    assert!(
        debug.text().lines().skip(1).filter(|line| !line.is_empty()).all(|line| line.ends_with(": debug")),
        "{}",
        debug.text()
    );
    assert_eq!(proxy.admin_post("/logging?level=nonsense").status(), 400);
    assert_eq!(proxy.admin_post("/logging?paths=no_such_logger:debug").status(), 400);
}

#[test]
fn changes_need_post() {
    let (_backend, proxy) = served();
    for path in ["/healthcheck/fail", "/healthcheck/ok", "/quitquitquit", "/drain_listeners", "/logging"] {
        let refused = proxy.admin_get(path);
        assert_eq!(refused.status(), 405, "{path}");
        assert_eq!(refused.text(), "Method GET not allowed, POST required.", "{path}");
    }
    assert_eq!(proxy.admin_get("/ready").text(), "LIVE\n");
}

fn admin(proxy: &Proxy, request: &str) -> u16 {
    Wire::connect(proxy.admin_address()).ask(request).status()
}

#[test]
fn hosts_and_origins_that_a_browser_was_tricked_into_are_refused() {
    only_proxyd!("Envoy's admin port answers whoever reaches it");
    let (_backend, proxy) = served();
    for host in ["evil.example", "evil.example:9901", "localhost.evil.example", ""] {
        let refused =
            admin(&proxy, &format!("GET /stats HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n"));
        assert!(refused == 403 || refused == 400, "{host:?}: {refused}");
    }
    for host in ["localhost", "localhost:9901", "127.0.0.1", "[::1]:80", "10.1.2.3:9901"] {
        assert_eq!(admin(&proxy, &format!("GET /ready HTTP/1.1\r\nhost: {host}\r\n\r\n")), 200, "{host}");
    }
    let post = |origin: &str| {
        let lines = format!("host: localhost\r\norigin: {origin}\r\ncontent-length: 0\r\n");
        admin(&proxy, &format!("POST /healthcheck/ok HTTP/1.1\r\n{lines}\r\n"))
    };
    assert_eq!(post("http://evil.example"), 403);
    assert_eq!(post("null"), 403);
    assert_eq!(post("http://localhost"), 200);
}

#[test]
fn a_flood_of_input_is_refused() {
    let (_backend, proxy) = served();
    let mut client = Wire::connect(proxy.admin_address());
    client.send("GET /ready HTTP/1.1\r\nhost: localhost\r\nx-a: ");
    for _ in 0..2000 {
        client.send_if_open([b'x'; 1000]);
    }
    assert!(client.try_response().map_or(true, |response| response.status() >= 400));
    assert_eq!(proxy.admin_get("/ready").status(), 200);
}
