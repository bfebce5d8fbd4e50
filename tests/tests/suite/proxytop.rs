//! `proxytop`: what it shows is what was counted, wherever it looks.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use proxy_tests::{
    Backend, Bootstrap, Generations, Proxy, Signal, Traffic, eventually, only_proxyd, proxyctl, proxyd,
    proxytop,
};
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(proxytop()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--json", "--interval", "0.2"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run_dir(proxy: &Proxy) -> String {
    proxy.directory().join("run").to_str().unwrap().to_owned()
}

/// The number of a row of the only thing of its kind.
fn number(look: &Value, pane: &str, key: &str) -> f64 {
    let rows = look[pane].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{pane} of {look:#}");
    rows[0][key].as_f64().unwrap_or_else(|| panic!("no number {key} in {:#}", rows[0]))
}

/// What stats have of what a look shows: pane, key and name.
const SHOWN: &[(&str, &str, &str)] = &[
    ("http", "requests_total", "http.ingress.downstream_rq_total"),
    ("clusters", "requests_total", "cluster.backend.upstream_rq_total"),
    ("listeners", "connections_total", "listener.main.downstream_cx_total"),
];

fn lies_between_two_reads(proxy: &Proxy, arguments: &[&str]) {
    let traffic = Traffic::http(proxy.listener("main"));
    traffic.goes_on();
    for _ in 0..3 {
        let before: Vec<u64> = SHOWN.iter().map(|(.., name)| proxy.stat(name)).collect();
        let look = json(arguments);
        for ((pane, key, name), before) in SHOWN.iter().zip(before) {
            let (shown, after) = (number(&look, pane, key), proxy.stat(name));
            assert!(
                (before as f64..=after as f64).contains(&shown),
                "{name}: {shown} of {before} to {after}"
            );
        }
        let rate = number(&look, "clusters", "requests_per_second");
        assert!(rate > 0.0, "requests go through all the time: {look:#}");
        let healthy = &look["clusters"][0]["healthy_hosts"];
        assert_eq!(*healthy, serde_json::json!([1, 1]));
        assert_eq!(look["state"], "live");
    }
    let tally = traffic.end();
    assert_eq!((tally.lost, tally.refused), (0, 0));
    proxy.stat_becomes("http.ingress.downstream_rq_active", 0);
    let look = json(arguments);
    assert_eq!(number(&look, "http", "requests_total"), proxy.stat(SHOWN[0].2) as f64);
    assert_eq!(number(&look, "http", "requests_per_second"), 0.0);
}

#[test]
fn numbers_in_memory_lie_between_two_reads_of_stats() {
    only_proxyd!("Envoy has no counters in shared memory that others can read");
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).stat_prefixes());
    lies_between_two_reads(&proxy, &["--run-dir", &run_dir(&proxy)]);
}

#[test]
fn numbers_of_an_admin_port_lie_between_two_reads_of_stats() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).stat_prefixes());
    lies_between_two_reads(&proxy, &["--admin", &format!("http://{}", proxy.admin_address())]);
}

#[test]
fn routes_are_shown_of_an_admin_port() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let address = proxy.admin_address().to_string();
    let output = run(&["--admin", &address, "--once", "--pane", "routes", "--interval", "0.1"]);
    assert!(
        text(&output).lines().any(|line| line.contains("prefix /") && line.contains("backend")),
        "{output:?}"
    );
}

#[test]
fn a_killed_proxy_is_shown_as_it_was() {
    only_proxyd!("Envoy has no counters in shared memory that others can read");
    let backend = Backend::saying("ok");
    let mut proxy = Proxy::start(&Bootstrap::http(backend.address()));
    for _ in 0..7 {
        assert_eq!(proxy.get("/").status(), 200);
    }
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 7);
    let directory = run_dir(&proxy);
    proxy.signal(Signal::SIGKILL);
    proxy.exit();
    let look = json(&["--run-dir", &directory]);
    assert_eq!((&look["state"], number(&look, "http", "requests_total")), (&"dead".into(), 7.0));
    let generation = &look["generations"][0];
    assert_eq!((&generation["state"], &generation["requests_total"]), (&"killed".into(), &7.into()));
    proxy.kill_and_start_again();
    assert_eq!(proxy.get("/").status(), 200);
    let look = eventually("eight requests", || {
        let look = json(&["--run-dir", &directory]);
        (number(&look, "http", "requests_total") == 8.0).then_some(look)
    });
    assert_eq!(look["state"], "live");
}

#[test]
fn a_hanging_proxy_is_shown() {
    only_proxyd!("Envoy has no counters in shared memory that others can read");
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    assert_eq!(proxy.get("/").status(), 200);
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 1);
    proxy.signal(Signal::SIGSTOP);
    let look = json(&["--run-dir", &run_dir(&proxy)]);
    proxy.signal(Signal::SIGCONT);
    assert_eq!(number(&look, "http", "requests_total"), 1.0);
}

#[test]
fn what_was_recorded_is_replayed() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).stat_prefixes());
    assert_eq!(proxy.get("/").status(), 200);
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 1);
    let file = proxy.directory().join("looks");
    let url = format!("http://{}", proxy.admin_address());
    let recorded = json(&["--admin", &url, "--record", file.to_str().unwrap()]);
    let mut replayed = json(&["--replay", file.to_str().unwrap()]);
    // It was asked for after the last look.
    replayed["version"] = recorded["version"].clone();
    assert_eq!(recorded, replayed);
    let output = run(&["--admin", &url, "--json", "--record", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "a recording is not overwritten");
}

#[test]
fn trouble_is_told() {
    let nothing = tempfile::tempdir().unwrap();
    let directory = nothing.path().to_str().unwrap();
    let output = run(&["--once", "--run-dir", directory, "--shm-dir", directory]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no instance has counters"));
    let output = run(&["--shm-dir", directory, "--admin", "http://127.0.0.1:1", "--once"]);
    assert_eq!(output.status.code(), Some(1), "nobody listens there");
    assert_eq!(run(&["--pane", "nonsense"]).status.code(), Some(1));
    assert_eq!(run(&["--once", "--json"]).status.code(), Some(2));
}

/// `proxyd` that may write no file as long as a segment: as if shared memory were full.
fn without_space() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxyd");
    let script = format!("#!/bin/sh\nulimit -f 4000\nexec {} \"$@\"\n", proxyd().display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    (directory, path)
}

fn control(proxy: &Proxy, arguments: &[&str]) -> Output {
    let mut command = Command::new(proxyctl());
    command.args(arguments).arg("--run-dir").arg(run_dir(proxy)).stdin(Stdio::null()).output().unwrap()
}

/// Both programs say that the counters are in private memory, and show them.
fn private_stats_are_shown(proxy: &Proxy, requests: u64) {
    let output = control(proxy, &["stats", "--usedonly", "downstream_rq_(2xx|time)|worker"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("counts in private memory") && !said.contains("not running"), "{said}");
    let line = format!("http.ingress.downstream_rq_2xx: {requests}");
    assert!(text(&output).lines().any(|shown| shown == line), "{output:?}");
    assert!(!text(&output).contains(": 0\n"), "{output:?}");
    let output = control(proxy, &["stats", "--json", "^http.ingress.downstream_rq_total$"]);
    let look: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&look["private"], &look["stats"][0]["value"]), (&true.into(), &requests.into()));
    let look = json(&["--run-dir", &run_dir(proxy)]);
    assert!(look["origin"].as_str().unwrap().ends_with("(private stats)"), "{look:#}");
    assert_eq!((&look["state"], number(&look, "http", "requests_total")), (&"live".into(), requests as f64));
}

#[test]
fn stats_in_private_memory_are_asked_for() {
    only_proxyd!("Envoy has no counters in shared memory that others can read");
    let (_kept, program) = without_space();
    let backend = Backend::saying("ok");
    let mut proxy = Proxy::start_program(&program, &Bootstrap::http(backend.address()));
    for _ in 0..3 {
        assert_eq!(proxy.get("/").status(), 200);
    }
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 3);
    private_stats_are_shown(&proxy, 3);
    assert_eq!(proxy.shared_files(), [""; 0]);
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.exit().code(), Some(0));
    assert_eq!(proxy.shared_files(), [""; 0]);
    assert_eq!(control(&proxy, &["stats"]).status.code(), Some(1));
}

#[test]
fn a_successor_without_space_is_not_taken_for_the_one_before_it() {
    only_proxyd!("Envoy has no counters in shared memory that others can read");
    let (_kept, program) = without_space();
    let backend = Backend::saying("ok");
    let proxy = Generations::start(&Bootstrap::http(backend.address()), &[]);
    for _ in 0..2 {
        assert_eq!(proxy.get("/").status(), 200);
    }
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 2);
    proxy.restart(&["--binary", program.to_str().unwrap()]);
    let new = proxy.only(2);
    assert_eq!(proxy.get("/").status(), 200);
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 3);
    private_stats_are_shown(&proxy, 3);
    assert!(control(&proxy, &["stop"]).status.success());
    assert_eq!(proxy.shared_files(), [""; 0], "of {new:?}");
}
