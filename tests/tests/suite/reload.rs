//! Reload in place: what did not change keeps its connections, what is wrong changes nothing, and it is told which.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;

use proxy_tests::{
    Backend, Bootstrap, EchoBackend, Generations, Signal, Traffic, Wire, direct_response_chain, eventually,
    http2::{self, Client, block_on},
    network_filter, only_proxyd, tcp_filter_chain, unused_address,
};
use serde_json::Value;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn answering(body: &str) -> Bootstrap {
    Bootstrap::empty().listener("main", direct_response_chain(body))
}

fn write(proxy: &Generations, bootstrap: &Bootstrap) {
    fs::write(proxy.config(), bootstrap.to_yaml()).unwrap();
}

/// What `proxyctl reload` says of a reload that works.
fn reload(proxy: &Generations, arguments: &[&str]) -> Value {
    let output = proxy.control(&[&["reload", "--json"], arguments].concat());
    assert!(output.status.success(), "{output:?}\n{}", proxy.log());
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}

/// What it says of one that does not.
fn refused(proxy: &Generations) -> String {
    let output = proxy.control(&["reload"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn other_routes_come_to_connections_that_stay() {
    only_proxyd!("Envoy does not read its file again");
    let echo = EchoBackend::new();
    let with = |body: &str| {
        answering(body).listener("tcp", tcp_filter_chain("echo")).cluster("echo", echo.address())
    };
    let proxy = Generations::start(&with("before"), &[]);
    let (mut idle, mut stream) = (proxy.connect(), Wire::connect(proxy.listener("tcp")));
    assert_eq!(idle.ask(GET).text(), "before");
    assert_eq!(stream.send("x").bytes(1), b"x");
    write(&proxy, &with("after"));
    let said = reload(&proxy, &[]);
    assert_eq!((&said["outcome"], &said["routes"]), (&"applied".into(), &serde_json::json!(["main"])));
    let answer = idle.ask(GET);
    assert_eq!((answer.text(), answer.header("connection")), ("after", None), "on the same connection");
    assert_eq!(stream.send("y").bytes(1), b"y");
    assert_eq!(proxy.stat("http.ingress.downstream_rq_total"), 2);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_total"), 1);
    assert_eq!(proxy.stat("listener_manager.listener_modified"), 0);
    assert_eq!(proxy.stat("config_reload.success"), 1);
    // The same file again is no difference.
    let output = proxy.control(&["reload", "--wait"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing has changed"), "{output:?}");
}

#[test]
fn a_file_that_would_not_come_to_an_end_holds_nothing_up() {
    only_proxyd!("Envoy does not read its file again");
    let proxy = Generations::start(&answering("before"), &[]);
    fs::remove_file(proxy.config()).unwrap();
    nix::unistd::mkfifo(&proxy.config(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(refused(&proxy).contains("a named pipe"));
    assert_eq!(proxy.get("/").text(), "before");
    fs::remove_file(proxy.config()).unwrap();
    write(&proxy, &answering("after"));
    reload(&proxy, &[]);
    assert_eq!(proxy.get("/").text(), "after");
}

#[test]
fn clusters_and_listeners_come_change_and_go() {
    only_proxyd!("Envoy does not read its file again");
    let (one, two) = (Backend::saying("one"), Backend::saying("two"));
    let base = |backend: &Backend| Bootstrap::http(backend.address());
    let (proxy, more) =
        (Generations::start(&base(&one).cluster("gone", one.address()), &[]), unused_address());
    let traffic = Traffic::http(proxy.listener("main"));
    write(
        &proxy,
        &base(&two).cluster("new", one.address()).listener_at("more", more, direct_response_chain("more")),
    );
    let said = reload(&proxy, &[]);
    let names = |kind: &str, how: &str| said[kind][how].clone();
    assert_eq!(names("clusters", "added"), serde_json::json!(["new"]));
    assert_eq!(names("clusters", "changed"), serde_json::json!(["backend"]));
    assert_eq!(names("clusters", "removed"), serde_json::json!(["gone"]));
    assert_eq!(names("listeners", "added"), serde_json::json!(["more"]));
    assert_eq!(proxy.get("/").text(), "two");
    assert_eq!(Wire::connect(more).ask(GET).text(), "more");
    eventually("the cluster to go", || {
        (!proxy.admin_get("/clusters").text().contains("gone::")).then_some(())
    });
    let dump = proxy.admin_get("/config_dump").text().to_owned();
    assert!(dump.contains("\"more\"") && !dump.contains("\"gone\""), "{dump}");
    // A listener that changes and one that goes.
    let other = base(&two).listener_with("per_connection_buffer_limit_bytes: 100000");
    write(&proxy, &other.cluster("new", one.address()));
    let said = reload(&proxy, &["--wait"]);
    assert_eq!(said["listeners"]["changed"], serde_json::json!(["main"]));
    assert_eq!(said["listeners"]["removed"], serde_json::json!(["more"]));
    traffic.goes_on();
    let tally = traffic.end();
    assert_eq!((tally.lost, tally.refused), (0, 0));
}

/// A chain for connections from `address` of the loopback network; without one, for all others.
fn chain_for(address: &str, mut chain: Value) -> Value {
    let range =
        proxy_tests::yaml(&format!("source_prefix_ranges: [{{address_prefix: {address}, prefix_len: 32}}]"));
    chain["filter_chain_match"] = range;
    chain
}

fn answering_as(prefix: &str, body: &str) -> Value {
    let mut chain = direct_response_chain(body);
    chain["filters"][0]["typed_config"]["stat_prefix"] = prefix.into();
    chain
}

fn connect_from(address: &str, proxy: &Generations) -> Wire {
    Wire::connect_from(format!("{address}:0").parse().unwrap(), proxy.listener("main"))
}

#[test]
fn filter_chains_change_one_by_one() {
    only_proxyd!("Envoy does not read its file again");
    let echo = EchoBackend::new();
    let with = |chains: Vec<Value>, default: Value| {
        let bootstrap = Bootstrap::empty().listener("main", default.clone());
        bootstrap.filter_chains(chains, default).cluster("echo", echo.address())
    };
    let [kept, changed, gone, new] = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];
    let first = vec![
        chain_for(gone, tcp_filter_chain("echo")),
        chain_for(changed, answering_as("changed", "one")),
        chain_for(kept, answering_as("kept", "one")),
    ];
    let proxy = Generations::start(&with(first, answering_as("default", "default")), &[]);
    let (mut of_kept, mut of_changed) = (connect_from(kept, &proxy), connect_from(changed, &proxy));
    let (mut of_gone, mut of_default) = (connect_from(gone, &proxy), proxy.connect());
    assert_eq!((of_kept.ask(GET).text(), of_changed.ask(GET).text()), ("one", "one"));
    assert_eq!((of_gone.send("x").bytes(1), of_default.ask(GET).text()), (b"x".to_vec(), "default"));
    // Another order, another manager, no tcp, and one more; of what is kept, other routes.
    let second = vec![
        chain_for(kept, answering_as("kept", "two")),
        chain_for(new, answering_as("new", "new")),
        chain_for(changed, answering_as("other", "two")),
    ];
    write(&proxy, &with(second, answering_as("default", "default")));
    let said = reload(&proxy, &[]);
    assert_eq!((&said["chains"], &said["routes"]), (&serde_json::json!(["main"]), &serde_json::json!([])));
    assert!(said["listeners"]["changed"].as_array().unwrap().is_empty(), "{said}");
    for (stat, value) in [
        ("listener_in_place_updated", 1),
        ("listener_modified", 1),
        ("total_filter_chains_draining", 2),
        ("total_listeners_draining", 0),
    ] {
        assert_eq!(proxy.stat(&format!("listener_manager.{stat}")), value, "{stat}");
    }
    for (wire, text) in [(&mut of_kept, "two"), (&mut of_default, "default")] {
        let answer = wire.ask(GET);
        assert_eq!((answer.text(), answer.header("connection")), (text, None), "on the same connection");
    }
    let last = of_changed.ask(GET);
    assert_eq!((last.text(), last.header("connection")), ("one", Some("close")));
    assert!(of_changed.is_closed());
    assert_eq!(of_gone.send("y").bytes(1), b"y", "a stream goes on");
    for (address, text) in [(kept, "two"), (changed, "two"), (new, "new"), (gone, "default")] {
        assert_eq!(connect_from(address, &proxy).ask(GET).text(), text, "from {address}");
    }
    drop(of_gone);
    proxy.stat_becomes("listener_manager.total_filter_chains_draining", 0);
    assert_eq!(of_kept.ask(GET).text(), "two");
    // Nothing but chains again, under load; and then more than chains.
    let traffic = Traffic::http(proxy.listener("main"));
    for body in ["a", "b", "c"] {
        write(
            &proxy,
            &with(vec![chain_for(new, answering_as(body, body))], answering_as("default", "default")),
        );
        reload(&proxy, &[]);
        assert_eq!(connect_from(new, &proxy).ask(GET).text(), body);
        traffic.goes_on();
    }
    drop((of_kept, of_default));
    let whole = with(Vec::new(), answering_as("default", "default"));
    write(&proxy, &whole.listener_with("per_connection_buffer_limit_bytes: 100000"));
    let said = reload(&proxy, &["--wait"]);
    assert_eq!(said["listeners"]["changed"], serde_json::json!(["main"]));
    traffic.goes_on();
    let tally = traffic.end();
    assert_eq!((tally.lost, tally.refused), (0, 0));
    assert_eq!(proxy.stat("listener_manager.listener_in_place_updated"), 4);
}

#[test]
fn what_outlasts_the_drain_time_is_cut() {
    only_proxyd!("Envoy does not read its file again, but cuts what LDS has removed in the same way");
    let echo = EchoBackend::new();
    let silent = Backend::raw(|wire, _| drop(wire.rest()));
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let forwarding = |prefix: &str| {
        let fields = format!(
            "stat_prefix: {prefix}
route_config: {{virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: silent, timeout: 0s}}}}]}}]}}
http_filters: [{{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]
access_log: [{{name: file, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog,
    path: '{}', log_format: {{text_format_source: {{inline_string: \"%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\\n\"}}}}}}}}]",
            log.display()
        );
        let kind = "http_connection_manager.v3.HttpConnectionManager";
        serde_json::json!({"filters": [network_filter(kind, &fields)]})
    };
    let with = |listeners: &[(&str, Value)], chains: Vec<Value>| {
        let bootstrap = Bootstrap::empty().listener("main", answering_as("default", "default"));
        let bootstrap = bootstrap.filter_chains(chains, answering_as("default", "default"));
        let bootstrap = bootstrap.cluster("echo", echo.address()).cluster("silent", silent.address());
        listeners.iter().fold(bootstrap, |bootstrap, (name, chain)| bootstrap.listener(name, chain.clone()))
    };
    let [kept, gone] = ["127.0.0.2", "127.0.0.3"];
    let stays = chain_for(kept, tcp_filter_chain("echo"));
    let before = with(
        &[("tcp", tcp_filter_chain("echo")), ("http", forwarding("gone"))],
        vec![stays.clone(), chain_for(gone, forwarding("chain"))],
    );
    let arguments = ["--drain-time-s", "1", "--file-flush-interval-msec", "10"];
    let proxy = Generations::start(&before, &arguments);
    let mut of_kept = connect_from(kept, &proxy);
    assert_eq!(of_kept.send("x").bytes(1), b"x");
    let mut stream = Wire::connect(proxy.listener("tcp"));
    assert_eq!(stream.send("x").bytes(1), b"x");
    let mut of_chain = connect_from(gone, &proxy);
    of_chain.send(GET);
    let idle = connect_from(gone, &proxy);
    block_on(async {
        let mut client = Client::connect(proxy.listener("http")).await;
        let (response, _send) = client.open(http2::request("GET", "http://a/"), true).await;
        http2::eventually("both requests", || (silent.connections() == 2).then_some(())).await;
        write(&proxy, &with(&[], vec![stays]));
        reload(&proxy, &[]);
        assert!(response.await.is_err());
        assert!(client.connection.await.unwrap().is_ok(), "the connection is closed");
    });
    for mut wire in [stream, of_chain, idle] {
        assert!(wire.is_closed());
    }
    silent.all_closed();
    proxy.stat_becomes("listener_manager.total_listeners_draining", 0);
    proxy.stat_becomes("listener_manager.total_filter_chains_draining", 0);
    assert_eq!(of_kept.send("y").bytes(1), b"y");
    let told = eventually("two lines", || {
        let text = fs::read_to_string(&log).ok()?;
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        (lines.len() == 2).then_some(lines)
    });
    assert_eq!(
        told,
        [
            "HTTP/1.1 0 DC downstream_local_disconnect(filter_chain_is_being_removed)",
            "HTTP/2 0 DC downstream_local_disconnect(purging_socket_that_have_not_progressed_to_connections)"
        ]
    );
    // As Envoy counts it.
    proxy.stat_becomes("cluster.silent.upstream_cx_destroy_local_with_active_rq", 2);
    assert!(proxy.log().contains("the drain time is over, connections are closed"), "{}", proxy.log());
}

#[test]
fn what_is_wrong_changes_nothing_and_says_where() {
    only_proxyd!("Envoy does not read its file again");
    let proxy = Generations::start(&answering("hello"), &[]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "hello");
    let good = fs::read_to_string(proxy.config()).unwrap();
    fs::write(proxy.config(), good.replace("stat_prefix", "stat_prefixx")).unwrap();
    let said = refused(&proxy);
    assert!(said.contains("envoy.yaml:") && said.contains("error[unknown-field]"), "{said}");
    assert!(said.contains("goes on with the configuration that it has"), "{said}");
    proxy.signal(Signal::SIGHUP);
    proxy.stat_becomes("config_reload.failure", 2);
    assert!(proxy.log().contains("configuration not reloaded"), "{}", proxy.log());
    // An address that is taken: the routes beside it do not change either.
    let taken = TcpListener::bind(unused_address()).unwrap();
    let at = taken.local_addr().unwrap();
    write(&proxy, &answering("changed").listener_at("second", at, direct_response_chain("second")));
    let said = refused(&proxy);
    assert!(said.contains("listener 'second'") && said.contains(&at.to_string()), "{said}");
    assert_eq!(idle.ask(GET).text(), "hello");
    drop(taken);
    reload(&proxy, &[]);
    assert_eq!(idle.ask(GET).text(), "changed");
    assert_eq!(Wire::connect(at).ask(GET).text(), "second");
    proxy.stat_becomes("config_reload.failure", 3);
}

#[test]
fn sighup_reloads() {
    only_proxyd!("Envoy does not read its file again");
    let proxy = Generations::start(&answering("before"), &[]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "before");
    write(&proxy, &answering("after"));
    proxy.signal(Signal::SIGHUP);
    eventually("other routes", || (idle.ask(GET).text() == "after").then_some(()));
}

#[test]
fn what_only_another_process_can_have_is_named() {
    only_proxyd!("Envoy does not read its file again");
    let proxy = Generations::start(&answering("hello"), &[]);
    write(&proxy, &answering("hello").with("stats_flush_interval: 7s"));
    let output = proxy.control(&["reload"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("stats_flush is as before until `proxyctl restart --hot`"), "{said}");
}

#[test]
fn a_reload_outlives_a_hot_restart() {
    only_proxyd!("Envoy does not read its file again");
    let proxy = Generations::start(&answering("one"), &["--confirm-after", "0.1"]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "one");
    write(&proxy, &answering("two"));
    reload(&proxy, &[]);
    proxy.restart(&[]);
    assert_eq!(idle.ask(GET).text(), "two");
    write(&proxy, &answering("three"));
    reload(&proxy, &[]);
    assert_eq!(idle.ask(GET).text(), "three");
}

#[test]
fn a_replaced_link_is_noticed_and_so_is_a_file_that_is_named() {
    only_proxyd!("Envoy does not read its file again");
    let bodies = tempfile::tempdir().unwrap();
    let body = bodies.path().join("body");
    fs::write(&body, "first").unwrap();
    let chain = |body: &str| {
        let mut chain = direct_response_chain("-");
        let routes = &mut chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"];
        routes[0]["direct_response"]["body"] = proxy_tests::yaml(&format!("{{ {body} }}"));
        chain
    };
    let named = Bootstrap::empty().listener("main", chain(&format!("filename: {}", body.display())));
    let proxy = Generations::start(&named, &["--watch"]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "first");
    fs::write(&body, "second").unwrap();
    eventually("the other body", || (idle.ask(GET).text() == "second").then_some(()));
    // As Kubernetes mounts a ConfigMap.
    let root = proxy.directory();
    let publish = |number: u32, bootstrap: &Bootstrap| {
        let version = format!("..{number}");
        fs::create_dir(root.join(&version)).unwrap();
        fs::write(root.join(&version).join("envoy.yaml"), bootstrap.to_yaml()).unwrap();
        symlink(&version, root.join("..next")).unwrap();
        fs::rename(root.join("..next"), root.join("..data")).unwrap();
    };
    publish(1, &Bootstrap::empty().listener("main", chain("inline_string: linked")));
    symlink("..data/envoy.yaml", root.join("link")).unwrap();
    fs::rename(root.join("link"), proxy.config()).unwrap();
    eventually("what is linked", || (idle.ask(GET).text() == "linked").then_some(()));
    publish(2, &Bootstrap::empty().listener("main", chain("inline_string: third")));
    eventually("the other file", || (idle.ask(GET).text() == "third").then_some(()));
    publish(3, &Bootstrap::empty().listener("main", chain("inline_string: 3, nothing: of that kind")));
    eventually("a complaint", || proxy.log().contains("configuration not reloaded").then_some(()));
    publish(4, &Bootstrap::empty().listener("main", chain("inline_string: fourth")));
    eventually("the last file", || (idle.ask(GET).text() == "fourth").then_some(()));
}
