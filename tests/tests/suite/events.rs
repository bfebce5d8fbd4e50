//! What has happened to a proxy, as `proxyctl events` and `proxytop` tell it from shared memory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use proxy_tests::{
    Backend, Bootstrap, Generations, Proxy, Signal, direct_response_chain, eventually, only_proxyd, proxyctl,
    proxytop,
};
use serde_json::Value;

/// An event: generation, severity, kind and text.
type Told = (u64, String, String, String);

fn run_dir(proxy: &Proxy) -> String {
    proxy.directory().join("run").to_str().unwrap().to_owned()
}

fn told(event: &Value) -> Told {
    let text = |key: &str| event[key].as_str().unwrap().to_owned();
    (event["generation"].as_u64().unwrap(), text("severity"), text("kind"), text("text"))
}

fn events(proxy: &Proxy) -> Vec<Told> {
    let output =
        Command::new(proxyctl()).args(["events", "--json", "--run-dir", &run_dir(proxy)]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let all = all.as_array().unwrap();
    assert!(all.is_sorted_by_key(|event| event["time"].as_str().unwrap()));
    all.iter().map(told).collect()
}

/// Waits for an event and fails the test if there are several of the kind, severity and text.
fn event(proxy: &Proxy, generation: u64, severity: &str, kind: &str, text: &str) -> Told {
    eventually(&format!("generation {generation} to tell of {kind}: {text}"), || {
        let mut all = events(proxy);
        all.retain(|(of, how, what, said)| {
            (*of, &**how, &**what) == (generation, severity, kind) && said.contains(text)
        });
        assert!(all.len() < 2, "told several times: {all:?}");
        all.pop()
    })
}

/// What proxytop shows, as [`Told`].
fn shown(arguments: &[&str]) -> Vec<Told> {
    let output =
        Command::new(proxytop()).args(["--json", "--interval", "0.1"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let look: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = look["events"].as_array().unwrap().iter().rev();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.filter_map(|row| {
        let generation = row["generation"].as_str()?.parse().unwrap();
        Some((generation, text(row, "severity"), text(row, "what"), text(row, "event")))
    })
    .collect()
}

#[test]
fn reloads_and_what_operators_do_are_told() {
    only_proxyd!("Envoy keeps no events");
    let backend = Backend::saying("ok");
    let one = Bootstrap::http(backend.address());
    let proxy = Generations::start(&one, &["--drain-time-s", "0"]);
    event(&proxy, 1, "info", "start", "proxyd 0.1.0 starts, pid ");
    event(&proxy, 1, "success", "serve", "connections are accepted, ");
    let mut open = proxy.connect();
    assert_eq!(open.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);

    fs::write(proxy.config(), one.clone().listener("second", direct_response_chain("2")).to_yaml()).unwrap();
    assert!(proxy.control(&["reload"]).status.success());
    event(&proxy, 1, "success", "reload", "listeners: 1 added, 0 changed, 0 removed, after ");
    event(&proxy, 1, "info", "listener", "added: second");

    fs::write(proxy.config(), one.clone().with("no_such_field: 1").to_yaml()).unwrap();
    assert_eq!(proxy.control(&["reload"]).status.code(), Some(1));
    let (.., said) = event(&proxy, 1, "error", "reload", "refused");
    assert!(said.contains("envoy.yaml:") && said.contains("no_such_field"), "{said}");

    fs::write(proxy.config(), Bootstrap::empty().listener("third", direct_response_chain("3")).to_yaml())
        .unwrap();
    assert!(proxy.control(&["reload"]).status.success());
    let removed = event(&proxy, 1, "info", "listener", "removed: ").3;
    assert!(removed.contains("main") && removed.contains("second"), "{removed}");
    event(&proxy, 1, "info", "listener", "replaced or removed drains");
    drop(open);
    event(&proxy, 1, "info", "listener", "replaced or removed has drained");

    assert_eq!(proxy.admin_post("/healthcheck/fail").text(), "OK\n");
    assert_eq!(proxy.admin_post("/healthcheck/ok").text(), "OK\n");
    assert!(proxy.control(&["log-level", "debug"]).status.success());
    assert!(proxy.control(&["log-level", "--component", "dns:off"]).status.success());
    assert_eq!(proxy.admin_post("/reset_counters").text(), "OK\n");
    event(&proxy, 1, "warning", "healthcheck", "health checks are made to fail");
    event(&proxy, 1, "success", "healthcheck", "health checks pass again");
    event(&proxy, 1, "info", "log level", "set to debug");
    event(&proxy, 1, "info", "log level", "set to dns:off");
    event(&proxy, 1, "info", "stats", "counters were reset to zero");
    assert_eq!(proxy.admin_post("/drain_listeners?graceful").text(), "OK\n");
    event(&proxy, 1, "warning", "drain", "all listeners drain: ");
    event(&proxy, 1, "warning", "drain", "the drain time is over: 0 connections are left");
    assert_eq!(events(&proxy), shown(&["--run-dir", &run_dir(&proxy)]));
}

#[test]
fn a_hot_restart_is_told_by_both_sides_and_kept_by_the_one_that_stays() {
    only_proxyd!("Envoy keeps no events");
    let proxy = Generations::start(&Bootstrap::empty().listener("main", direct_response_chain("ok")), &[]);
    proxy.restart(&[]);
    let _ = proxy.only(2);
    event(&proxy, 1, "info", "restart", "validates the configuration");
    event(&proxy, 1, "info", "restart", "the new process is started, pid ");
    event(&proxy, 2, "info", "start", "to take over from generation 1");
    event(&proxy, 1, "info", "restart", "generation 2, proxyd 0.1.0, wants to take over");
    event(&proxy, 1, "info", "restart", "listening sockets have been passed: ");
    event(&proxy, 2, "success", "serve", "; listeners: 1");
    event(&proxy, 1, "info", "restart", "the new process accepts, this one does not");
    event(&proxy, 2, "success", "restart", "this process leads, in place of generation 1");
    event(&proxy, 1, "info", "restart", "generation 2 leads");
    event(&proxy, 1, "info", "end", "the process ends");
    eventually("the first generation's counters to be taken over", || {
        let segments = |name: &&String| name.ends_with("_1") && !name.contains("base");
        (proxy.shared_files().iter().filter(segments).count() == 0).then_some(())
    });
    // Now they are in the ring of the second.
    let all = events(&proxy);
    assert_eq!(all.iter().filter(|(generation, ..)| *generation == 1).count(), 10, "{all:?}");
    assert!(all.iter().all(|(.., kind, _)| kind != "killed"), "{all:?}");

    // The new program does not come far enough to take over.
    let program = proxy.program("broken", "exit 3");
    assert_eq!(proxy.control(&["restart", "--hot", "--binary", &program]).status.code(), Some(1));
    event(&proxy, 2, "error", "restart", "failed, this process goes on: ");
}

#[test]
fn what_happened_before_a_kill_is_told_after_it() {
    only_proxyd!("Envoy keeps no events");
    let mut proxy = Proxy::start(&Bootstrap::empty().listener("main", direct_response_chain("ok")));
    assert_eq!(proxy.admin_post("/healthcheck/fail").text(), "OK\n");
    event(&proxy, 1, "warning", "healthcheck", "fail");
    proxy.signal(Signal::SIGKILL);
    proxy.exit();
    let before = events(&proxy);
    assert_eq!(before.last().unwrap().2, "healthcheck", "nobody runs: {before:?}");
    assert_eq!(before, shown(&["--run-dir", &run_dir(&proxy)]));
    proxy.kill_and_start_again();
    event(&proxy, 2, "error", "killed", "generation 1 was killed or has crashed");
    let after = events(&proxy);
    assert_eq!(after[..before.len()], before);
    assert!(after.iter().any(|(generation, _, kind, _)| (*generation, &**kind) == (2, "serve")), "{after:?}");
}

#[test]
fn events_are_followed_until_the_instance_ends_and_recorded() {
    only_proxyd!("Envoy keeps no events");
    let mut proxy = Proxy::start(&Bootstrap::empty().listener("main", direct_response_chain("ok")));
    let directory = run_dir(&proxy);
    let arguments = ["events", "--follow", "--last", "1", "--json", "--run-dir", &directory];
    let mut follower = Command::new(proxyctl())
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = || told(&serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap());
    assert_eq!(next().2, "serve");
    assert_eq!(proxy.admin_post("/logging?level=warning").status(), 200);
    assert_eq!(next(), (1, "info".into(), "log level".into(), "set to warning".into()));

    let file = proxy.directory().join("looks");
    let recorded = shown(&["--run-dir", &directory, "--record", file.to_str().unwrap()]);
    assert_eq!(recorded, shown(&["--replay", file.to_str().unwrap()]));
    assert_eq!(recorded, events(&proxy));

    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.exit().code(), Some(0));
    let last = std::iter::from_fn(|| Some(told(&serde_json::from_str(&lines.next()?.unwrap()).unwrap())));
    assert_eq!(last.last().unwrap().2, "end");
    let output = follower.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("has ended"), "{output:?}");
    let text = Command::new(proxyctl()).args(["events", "--run-dir", &directory]).output().unwrap();
    assert_eq!(text.status.code(), Some(1), "it has left nothing behind");
}
