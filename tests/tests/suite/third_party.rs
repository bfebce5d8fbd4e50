//! A program with filters of its own (`tests/third_party`), which depends on proxyd's crates.

use std::path::PathBuf;
use std::process::Command;

use proxy_tests::{Backend, Bootstrap, Proxy, only_proxyd, yaml};

/// A member of the workspace, so it is built with the others.
fn program() -> PathBuf {
    proxy_tests::proxyd().with_file_name("proxyd-with-greetings")
}

fn bootstrap(backend: &Backend) -> Bootstrap {
    let filter = "{name: greeting, typed_config: {'@type': type.example.com/example.Greeting, text: hello}}";
    Bootstrap::http(backend.address()).http_filter_entry(yaml(filter))
}

#[test]
fn an_http_filter_has_settings_stats_and_routes() {
    only_proxyd!("it is proxyd that is extended");
    let backend = Backend::saying("ok");
    let own = "'@type': type.example.com/example.GreetingPerRoute, text: welcome";
    let routes = format!(
        "[{{match: {{prefix: /own}}, route: {{cluster: backend}}, typed_per_filter_config: {{greeting: {{{own}}}}}}},
          {{match: {{prefix: /}}, route: {{cluster: backend}}}}]"
    );
    let proxy = Proxy::start_program(&program(), &bootstrap(&backend).routes(&routes));
    assert_eq!(proxy.get("/").header("x-greeting"), Some("hello"));
    assert_eq!(proxy.get("/own").header("x-greeting"), Some("welcome"));
    proxy.stat_becomes("http.ingress.greeting.greeted", 2);
    assert!(proxy.admin_get("/config_dump").text().contains("welcome"));
}

#[test]
fn a_network_filter_stands_before_others() {
    only_proxyd!("it is proxyd that is extended");
    let backend = Backend::saying("ok");
    let quota = "{name: quota, typed_config: {'@type': type.example.com/example.Quota, connections: 1}}";
    let bootstrap = bootstrap(&backend).network_filter_first(yaml(quota));
    let proxy = Proxy::start_program(&program(), &bootstrap);
    // Each of two workers lets one through.
    let mut answered = 0;
    for _ in 0..20 {
        let mut client = proxy.connect();
        client.send_if_open("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        answered += u64::from(client.try_response().is_ok());
    }
    assert!((1..=2).contains(&answered), "{answered}");
    proxy.stat_becomes("quota.refused", 20 - answered);
}

#[test]
fn a_listener_filter_sees_connections_first() {
    only_proxyd!("it is proxyd that is extended");
    let backend = Backend::saying("ok");
    let knock = "listener_filters: [{name: knock, typed_config: {'@type': type.example.com/example.Knock, word: open}}]
listener_filters_timeout: 0.2s
stat_prefix: main";
    let proxy = Proxy::start_program(&program(), &bootstrap(&backend).listener_with(knock));
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut client = proxy.connect();
    client.send("op");
    assert_eq!(client.ask(format!("en{request}")).text(), "ok");
    assert_eq!(client.ask(request).text(), "ok");

    assert!(proxy.connect().send_if_open(request).is_closed());
    proxy.stat_becomes("listener.main.downstream_listener_filter_error", 1);
    let mut silent = proxy.connect();
    proxy.stat_becomes("listener.main.downstream_pre_cx_timeout", 1);
    assert!(silent.is_closed());
    drop(proxy.connect());
    proxy.stat_becomes("listener.main.downstream_listener_filter_remote_close", 1);
    proxy.stat_becomes("listener.main.downstream_pre_cx_active", 0);
    assert_eq!(proxy.stat("listener.main.downstream_cx_total"), 1);
}

#[test]
fn what_is_wrong_with_settings_is_told_with_its_place() {
    only_proxyd!("it is proxyd that is extended");
    let backend = Backend::saying("ok");
    let knock =
        "listener_filters: [{name: knock, typed_config: {'@type': type.example.com/example.Knock, word: 1}}]";
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.yaml");
    std::fs::write(&file, bootstrap(&backend).listener_with(knock).to_yaml()).unwrap();
    let output =
        Command::new(program()).args(["run", "--mode", "validate", "-c"]).arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("listener_filters[0].typed_config.word") && told.contains("expected a string"),
        "{told}"
    );
    let unknown = proxy_tests::proxyd();
    let output = Command::new(unknown).args(["run", "--mode", "validate", "-c"]).arg(&file).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("unknown type `example.Knock`"));
}
