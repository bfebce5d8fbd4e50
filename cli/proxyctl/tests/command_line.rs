//! The program as it is called: exit codes, and an instance that is played by the test.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use proxy_control::{BaseId, Claim, Instance, RunDir, stats_prefix};
use proxy_stats::{ImportMode, Lineage, LineageOptions, LineagePath, Scope};
use serde_json::{Value, json};

fn proxyctl(run_dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxyctl"));
    command.args(arguments).arg("--run-dir").arg(run_dir).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// An instance that answers each request in turn, and tells what it was asked. Ends after the last.
fn instance(
    run_dir: &Path,
    base_id: u32,
    answers: &'static [(u16, &'static str)],
) -> JoinHandle<Vec<String>> {
    let run_dir = Arc::new(RunDir::create(run_dir).unwrap());
    let instance = Instance::claim(run_dir, BaseId(base_id), Claim::Alone).unwrap();
    let listener: UnixListener = instance.listen().unwrap();
    listener.set_nonblocking(false).unwrap();
    thread::spawn(move || {
        let answer = |(status, body): &(u16, &str)| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
            let request = lines.next().unwrap();
            lines.find(String::is_empty);
            let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            request.trim_end_matches(" HTTP/1.1").to_owned()
        };
        let asked = answers.iter().map(answer).collect();
        drop(instance);
        asked
    })
}

const SERVER_INFO: &str = r#"{"version": "proxyd/1.2.3/Distribution/RELEASE/none", "state": "LIVE",
    "uptime_current_epoch": "5s", "command_line_options": {"concurrency": 2, "config_path": "envoy.yaml"}}"#;
const LISTENERS: &str = r#"{"listener_statuses": [{"name": "main",
    "local_address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}}}]}"#;

#[test]
fn nothing_that_runs_is_an_error_that_says_where_was_looked() {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = parent.path().join("run");
    for arguments in [&["status"][..], &["drain"], &["stop"], &["log-level"]] {
        let (code, _, error) = said(&proxyctl(&run_dir, arguments));
        assert_eq!(code, Some(1));
        assert!(error.starts_with("proxyctl: no instance is running") && error.contains("/run"), "{error}");
    }
    let (code, _, error) = said(&proxyctl(&run_dir, &["status", "--base-id", "x"]));
    assert_eq!(code, Some(2), "{error}");
}

#[test]
fn status_shows_what_runs() {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = parent.path().join("run");
    let one = instance(&run_dir, 3, &[(200, SERVER_INFO), (200, LISTENERS)]);
    let (code, text, error) = said(&proxyctl(&run_dir, &["status"]));
    assert_eq!(code, Some(0), "{error}");
    let expected = format!(
        "base-id 3, generation 1: LIVE\n  version   1.2.3\n  up for    5s\n  workers   2\n  config    envoy.yaml\n  \
         control   {}/3.1.sock\n  listener  main at 127.0.0.1:80\n",
        run_dir.display()
    );
    assert_eq!(text, expected);
    one.join().unwrap();
    let one = instance(&run_dir, 3, &[(200, SERVER_INFO), (200, LISTENERS)]);
    let (_, text, _) = said(&proxyctl(&run_dir, &["status", "--json"]));
    let all: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&all[0]["generation"], &all[0]["server_info"]["state"]), (&2.into(), &"LIVE".into()));
    one.join().unwrap();
}

#[test]
fn stop_waits_for_the_end() {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = parent.path().join("run");
    let one = instance(&run_dir, 0, &[(200, "OK\n")]);
    let (code, text, error) = said(&proxyctl(&run_dir, &["stop"]));
    assert_eq!((code, text.as_str()), (Some(0), "base-id 0, generation 1: stopped\n"), "{error}");
    assert_eq!(one.join().unwrap(), ["POST /shutdown"]);
}

#[test]
fn one_that_does_not_end_is_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = parent.path().join("run");
    let one = instance(&run_dir, 0, &[(200, "OK\n"), (200, "OK\n")]);
    let (code, _, error) = said(&proxyctl(&run_dir, &["stop", "--now", "--timeout", "0s"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("base-id 0, generation 1 still runs after 0 s"), "{error}");
    said(&proxyctl(&run_dir, &["drain", "--now", "--inbound-only"]));
    assert_eq!(one.join().unwrap(), ["POST /quitquitquit", "POST /drain_listeners?inboundonly"]);
}

#[test]
fn which_of_several_must_be_said() {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = parent.path().join("run");
    let (one, two) = (instance(&run_dir, 1, &[(200, "OK\n")]), instance(&run_dir, 2, &[(200, "OK\n")]));
    let (code, _, error) = said(&proxyctl(&run_dir, &["drain"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("choose one with --base-id: 1, 2"), "{error}");
    for base_id in ["1", "2"] {
        assert_eq!(said(&proxyctl(&run_dir, &["drain", "--base-id", base_id])).0, Some(0));
    }
    assert_eq!(one.join().unwrap(), ["POST /drain_listeners?graceful"]);
    two.join().unwrap();
}

#[test]
fn log_levels_are_shown_and_changed() {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = parent.path().join("run");
    const LEVELS: &str = "active loggers:\n  dns: debug\n  main: info\n\n";
    let one =
        instance(&run_dir, 0, &[(200, LEVELS), (200, ""), (400, "error: unknown logger name\n\nusage")]);
    let (_, text, _) = said(&proxyctl(&run_dir, &["log-level"]));
    assert_eq!(text, "dns            debug\nmain           info\n");
    assert_eq!(said(&proxyctl(&run_dir, &["log-level", "debug"])).0, Some(0));
    let (code, _, error) = said(&proxyctl(&run_dir, &["log-level", "--component", "x:debug"]));
    assert_eq!(code, Some(1));
    assert!(error.contains("answered 400: error: unknown logger name"), "{error}");
    assert_eq!(
        one.join().unwrap(),
        ["POST /logging", "POST /logging?level=debug", "POST /logging?paths=x:debug"]
    );
}

/// What an instance keeps in shared memory.
fn lineage(shm_dir: &Path, run_dir: &Path, base_id: u32) -> (Lineage, Scope) {
    let prefix = stats_prefix(run_dir, BaseId(base_id));
    let path = LineagePath { directory: shm_dir.to_owned(), prefix };
    let options = LineageOptions { path, base_id, generation: 1, threads: 1 };
    let (lineage, warnings) = Lineage::join(options).unwrap();
    assert!(warnings.is_empty());
    let scope = lineage.store().root().scope("http.in");
    scope.counter("total").add(u64::from(base_id));
    scope.gauge("active", ImportMode::Accumulate);
    (lineage, scope)
}

#[test]
fn stats_come_from_shared_memory() {
    let parent = tempfile::tempdir().unwrap();
    let (run_dir, shm_dir) = (parent.path().join("run"), parent.path());
    let stats = |arguments: &[&str]| {
        let shm_dir = ["stats", "--shm-dir", shm_dir.to_str().unwrap()];
        said(&proxyctl(&run_dir, &[&shm_dir[..], arguments].concat()))
    };
    let (code, _, error) = stats(&["--base-id", "4"]);
    assert_eq!(code, Some(1));
    assert!(
        error.starts_with("proxyctl: there are no stats of an instance with base-id 4 (looked in "),
        "{error}"
    );

    let one = lineage(shm_dir, &run_dir, 3);
    let _elsewhere = lineage(shm_dir, Path::new("/another/run"), 5);
    assert_eq!(stats(&[]), (Some(0), "http.in.active: 0\nhttp.in.total: 3\n".to_owned(), String::new()));
    assert_eq!(stats(&["active|total", "--usedonly"]).1, "http.in.total: 3\n");
    assert_eq!(stats(&["^total"]).1, "");
    assert!(stats(&["total", "--rates"]).1.starts_with("http.in.total: 3 (+0.0/s)"));
    let json: Value = serde_json::from_str(&stats(&["total", "--json"]).1).unwrap();
    let stat = json!({ "name": "http.in.total", "type": "counter", "value": 3 });
    assert_eq!(json, json!({ "base_id": 3, "generation": 1, "private": false, "stats": [stat] }));

    let _other = lineage(shm_dir, &run_dir, 16);
    assert!(stats(&[]).2.contains("choose one with --base-id: 3, 16"));
    assert_eq!(stats(&["--base-id", "16", "total"]).1, "http.in.total: 16\n");
    for wrong in [&["("][..], &["--watch=0"], &["--watch=x"]] {
        assert_eq!(stats(wrong).0, Some(2));
    }
    // Its stats go with it, but the files stay, as after a crash.
    drop(one);
    let (code, _, error) = stats(&["--base-id", "3"]);
    assert_eq!(
        (code, error.as_str()),
        (Some(0), "proxyctl: base-id 3 is not running, this is what it left\n")
    );
}

#[test]
fn watching_ends_with_its_reader() {
    let parent = tempfile::tempdir().unwrap();
    let (run_dir, shm_dir) = (parent.path().join("run"), parent.path());
    let (_lineage, scope) = lineage(shm_dir, &run_dir, 0);
    let mut watching = Command::new(env!("CARGO_BIN_EXE_proxyctl"))
        .args(["stats", "total", "--json", "--rates", "--watch=0.05", "--shm-dir"])
        .args([shm_dir, Path::new("--run-dir"), &run_dir])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap()["stats"][0].clone();
    assert_eq!(next(), json!({ "name": "http.in.total", "type": "counter", "value": 0 }));
    scope.counter("total").add(5);
    let changed = loop {
        let stat = next();
        if stat["value"] == 5 {
            break stat;
        }
    };
    assert!(changed["rate"].as_f64().unwrap() > 0.0, "{changed}");
    drop(lines);
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}

fn plain(arguments: &[&str]) -> (Option<i32>, String, String) {
    said(&Command::new(env!("CARGO_BIN_EXE_proxyctl")).args(arguments).output().unwrap())
}

#[test]
fn coverage_is_of_the_api_or_of_a_file() {
    let (code, text, _) = plain(&["coverage"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("envoy.config.bootstrap.v3.Bootstrap ") && text.contains("\n    not: "), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "node: {id: a}\n").unwrap();
    assert_eq!(plain(&["coverage", name]), (Some(0), String::new(), String::new()));
    std::fs::write(&file, "perf_tracing_file_path: trace\n").unwrap();
    let (code, text, error) = plain(&["coverage", name]);
    assert_eq!(code, Some(1));
    assert!(text.contains("a.yaml:1:1: error[unsupported-field]"), "{text}");
    assert!(error.contains("1 parts of "), "{error}");
}

#[test]
fn folders_are_validated_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let name = folder.path().to_str().unwrap();
    assert_eq!(plain(&["validate", "config", name]).0, Some(2));
    file("a.yaml", "node: {id: a}\n");
    file("notes.txt", "nothing");
    file(".hidden.yaml", "no: configuration\n");
    assert_eq!(plain(&["validate", "config", name]).0, Some(0));
    file("b.json", "{\"admin\": {\"adress\": 1}}");
    let (code, text, _) = plain(&["validate", "config", "--format", "sarif", name]);
    assert_eq!(code, Some(1));
    let sarif: Value = serde_json::from_str(&text).unwrap();
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!((&result["ruleId"], &result["level"]), (&"unknown-field".into(), &"error".into()));
    let region = &result["locations"][0]["physicalLocation"]["region"];
    assert_eq!(region, &json!({"startLine": 1, "startColumn": 12}));
}

#[test]
fn warnings_are_denied_or_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let name = file.to_str().unwrap();
    let admin = "admin: {address: {socket_address: {address: 0.0.0.0, port_value: 1}}}";
    std::fs::write(&file, format!("{admin}\n")).unwrap();
    assert_eq!(plain(&["validate", "config", name]).0, Some(0));
    assert_eq!(plain(&["validate", "config", "--deny", "warnings", name]).0, Some(1));
    std::fs::write(&file, format!("{admin} # proxyctl: allow admin-exposed\n")).unwrap();
    assert_eq!(plain(&["validate", "config", "--deny", "warnings", name]).0, Some(0));
    assert!(plain(&["explain", "admin-exposed"]).1.starts_with("admin-exposed: "));
    assert_eq!(plain(&["explain", "no-such"]).0, Some(1));
}

#[test]
fn configurations_differ_by_resource() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let old = file("a.yaml", "static_resources: {clusters: [{name: a, connect_timeout: 1s}, {name: b}]}\n");
    let new = file(
        "b.yaml",
        "node: {id: two}\nstatic_resources: {clusters: [{name: c}, {name: a, connect_timeout: 2s}]}\n",
    );
    assert_eq!(plain(&["config", "diff", &old, &old]).0, Some(0));
    let (code, text, _) = plain(&["config", "diff", &old, &new]);
    let expected = "~ cluster a.connect_timeout: \"1s\" becomes \"2s\"\n- cluster b\n+ cluster c\n+ node\n";
    assert_eq!((code, text.as_str()), (Some(1), expected));
    let hosts = |hosts: &str| {
        let fields = format!("domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: {hosts}");
        let host = |name: &str, end: &str| format!("{{name: {name}, {fields}{end}}}}}]}}");
        (host("shop", "a"), host("blog", "b"), host("shop", "c"))
    };
    let (shop, blog, other_shop) = hosts("to_the_cluster_of_");
    let listener = |hosts: &[&String]| {
        let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        let hosts = hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ");
        format!(
            "static_resources: {{listeners: [{{name: l, filter_chains: [{{filters: [{{name: m, typed_config: {{'@type': {manager}, \
             stat_prefix: s, route_config: {{virtual_hosts: [{hosts}]}}}}}}]}}]}}]}}"
        )
    };
    let (old, new) = (file("d.yaml", &listener(&[&shop])), file("e.yaml", &listener(&[&blog, &other_shop])));
    let here = "listener l.filter_chains[0].filters[m].typed_config.route_config.virtual_hosts";
    let (code, text, _) = plain(&["config", "diff", &old, &new]);
    let expected = format!(
        "~ {here}[shop].routes[0].route.cluster: \"to_the_cluster_of_a\" becomes \"to_the_cluster_of_c\"\n\
         + {here}[blog]:\n\
         +   name: \"blog\"\n\
         +   domains: [\"*\"]\n\
         +   routes: [{{\"match\":{{\"prefix\":\"/\"}},\"route\":{{\"cluster\":\"to_the_cluster_of_b\"}}}}]\n"
    );
    assert_eq!((code, text.as_str()), (Some(1), expected.as_str()));
    let run_dir = folder.path().join("run");
    const DUMP: &str = r#"{"configs": [{"bootstrap": {"node": {"id": "one"}}}]}"#;
    let one = instance(&run_dir, 0, &[(200, DUMP)]);
    let node = file("c.yaml", "node: {id: two}\n");
    let (code, text, _) = said(&proxyctl(&run_dir, &["config", "diff", &node]));
    assert_eq!((code, text.as_str()), (Some(1), "~ node.id: \"one\" becomes \"two\"\n"));
    assert_eq!(one.join().unwrap(), ["GET /config_dump"]);
}

#[test]
fn routes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let name = file.to_str().unwrap();
    let listener = |name: &str, port: u16, path: &str| {
        format!(
            r#"
  - name: {name}
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: a
          route_config:
            name: routes
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: {path}}}, direct_response: {{status: 204}}}}]}}
          http_filters:
          - {{name: router, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
"#
        )
    };
    let listeners = |all: &[String]| {
        std::fs::write(&file, format!("static_resources:\n  listeners:{}", all.concat())).unwrap();
    };
    listeners(&[listener("one", 1, "/a")]);
    let (code, text, error) = plain(&["routes", "explain", name, "GET", "http://h/a"]);
    let expected = "listener one, filter chain #0, route configuration \"routes\"\nhost h, path /a\nvirtual host \
                    virtual_hosts[0] `all`: domain `*`\nroute routes[0]: prefix `/a`\nanswered with 204: \
                    direct_response of the route\n";
    assert_eq!((code, text.as_str()), (Some(0), expected), "{error}");
    let (code, text, error) = plain(&["routes", "explain", name, "GET", "/b", "-H", "Host: h"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("not routes[0]: path `/b` does not begin with `/a`"), "{text}");
    assert!(error.starts_with("proxyctl: no route takes this request: "), "{error}");
    listeners(&[listener("one", 1, "/a"), listener("two", 2, "/b")]);
    let (code, _, error) = plain(&["routes", "explain", name, "GET", "http://h/b"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("say which:\n  --listener one --filter-chain #0 --route-config \"routes\""),
        "{error}"
    );
    let two = ["routes", "explain", name, "GET", "http://h/b", "--listener", "two", "--format", "json"];
    let told: Value = serde_json::from_str(&plain(&two).1).unwrap();
    assert_eq!((&told["listener"], &told["answer"]["status"]), (&"two".into(), &204.into()));
    let (code, _, error) = plain(&["routes", "explain", name, "GET", "/", "--route-config", "x"]);
    assert_eq!((code, error.contains("which host?")), (Some(1), true), "{error}");
    let (_, _, error) = plain(&["routes", "explain", name, "GET", "http://h", "--route-config", "x"]);
    assert!(error.contains("there are:\n  --listener one"), "{error}");
    std::fs::write(&file, "node: {idd: a}\n").unwrap();
    let (code, text, _) = plain(&["routes", "explain", name, "GET", "http://h"]);
    assert!(code == Some(1) && text.contains("a.yaml:1:8: error[unknown-field]"), "{text}");
}

#[test]
fn the_schema_is_json_schema() {
    let (code, text, _) = plain(&["config", "schema"]);
    let schema: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &schema["$schema"]), (Some(0), &"http://json-schema.org/draft-07/schema#".into()));
}
