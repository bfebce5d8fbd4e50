//! Stats as they are fetched: the forms of `/stats`, Prometheus, and `proxyctl stats` from shared memory.

use std::process::{Command, Output};

use proxy_tests::{Backend, Bootstrap, Proxy, Signal, Wire, eventually, only_proxyd, proxyctl};
use serde_json::Value;

fn served() -> (Backend, Proxy) {
    let backend = Backend::saying("ok");
    let bootstrap = Bootstrap::http(backend.address()).with("stats_flush_interval: 0.1s");
    let proxy = Proxy::start(&bootstrap);
    assert_eq!(proxy.get("/").status(), 200);
    proxy.stat_becomes("cluster.backend.upstream_rq_completed", 1);
    (backend, proxy)
}

fn lines(proxy: &Proxy, target: &str) -> Vec<String> {
    let answer = proxy.admin_get(target);
    assert_eq!(answer.status(), 200, "{target}");
    answer.text().lines().map(str::to_owned).collect()
}

#[test]
fn kinds_come_one_after_another_each_in_the_order_of_names() {
    let (_backend, proxy) = served();
    let all = lines(&proxy, "/stats");
    let of_type = |kind: &str| lines(&proxy, &format!("/stats?type={kind}"));
    let is_histogram = |line: &&String| line.contains(": P0(") || line.ends_with(": No recorded values");
    let count = all.iter().filter(|line| !is_histogram(line)).count();
    assert!(all[count..].iter().all(|line| is_histogram(&line)), "histograms are last");
    let kinds = ["TextReadouts", "Counters", "Gauges", "Histograms"].map(|kind| of_type(kind).len());
    assert_eq!(kinds.iter().sum::<usize>(), all.len());
    assert!(all[kinds[0]..count].is_sorted_by_key(|line| line.split_once(": ").unwrap().0.to_owned()));
}

#[test]
fn a_filter_chooses_in_every_form() {
    let (_backend, proxy) = served();
    let filter = "filter=%5Ecluster%5C.backend%5C.upstream_rq_(total%7C200)$";
    let expected = ["cluster.backend.upstream_rq_200: 1", "cluster.backend.upstream_rq_total: 1"];
    assert_eq!(lines(&proxy, &format!("/stats?usedonly&{filter}")), expected);
    let json = r#"{"stats":[{"name":"cluster.backend.upstream_rq_200","value":1},{"name":"cluster.backend.upstream_rq_total","value":1}]}"#;
    assert_eq!(lines(&proxy, &format!("/stats?format=json&{filter}")), [json]);
    let series = [
        "# TYPE envoy_cluster_upstream_rq counter",
        r#"envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="backend"} 1"#,
        "# TYPE envoy_cluster_upstream_rq_total counter",
        r#"envoy_cluster_upstream_rq_total{envoy_cluster_name="backend"} 1"#,
    ];
    assert_eq!(lines(&proxy, &format!("/stats/prometheus?{filter}")), series);
    assert_eq!(lines(&proxy, &format!("/stats?format=prometheus&{filter}")), series);
}

#[test]
fn all_series_of_a_metric_are_together() {
    let (_backend, proxy) = served();
    let mut seen = Vec::new();
    let (mut name, mut kind) = (String::new(), String::new());
    for line in lines(&proxy, "/stats/prometheus") {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (new, of_kind) = declared.split_once(' ').unwrap();
            (name, kind) = (new.to_owned(), of_kind.to_owned());
            assert!(name.starts_with("envoy_") && !seen.contains(&declared.to_owned()), "{declared} twice");
            seen.push(declared.to_owned());
            continue;
        }
        let (metric, rest) = line.split_once('{').unwrap();
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.iter().any(|suffix| metric == format!("{name}{suffix}")), "{line} under {name}");
        rest.rsplit_once("} ").unwrap().1.parse::<f64>().unwrap();
    }
    assert!(seen.len() > 50);
}

#[test]
fn wrong_parameters_are_400() {
    let (_backend, proxy) = served();
    for (target, text) in [
        ("/stats?type=gauges", "invalid &type= param"),
        ("/stats?format=x", "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"),
        ("/stats?hidden=x", "usage: /stats?hidden=(include|only|exclude)\n\n"),
        (
            "/stats?histogram_buckets=x",
            "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n",
        ),
        ("/stats/prometheus?histogram_buckets=disjoint", "unsupported prometheus histogram bucket mode"),
    ] {
        let answer = proxy.admin_get(target);
        assert_eq!((answer.status(), answer.text()), (400, text), "{target}");
    }
    let bad = proxy.admin_get("/stats?filter=%5B");
    assert!(bad.status() == 400 && bad.text().starts_with("Invalid re2 regex: "), "{}", bad.text());
}

#[test]
fn counters_start_again_from_zero() {
    let (_backend, proxy) = served();
    assert_eq!(proxy.admin_get("/reset_counters").status(), 405);
    assert_eq!(proxy.admin_post("/reset_counters").text(), "OK\n");
    proxy.stat_becomes("cluster.backend.upstream_rq_completed", 0);
    assert_eq!(proxy.stat("cluster.backend.membership_total"), 1);
    assert_eq!(proxy.get("/").status(), 200);
    proxy.stat_becomes("cluster.backend.upstream_rq_completed", 1);
}

#[test]
fn open_metrics_and_gzip_are_for_those_who_ask() {
    only_proxyd!("Envoy has neither");
    let (_backend, proxy) = served();
    let ask = |lines: &str| {
        let address = proxy.admin_address();
        let head =
            format!("GET /stats/prometheus HTTP/1.1\r\nhost: {address}\r\n{lines}connection: close\r\n\r\n");
        Wire::connect(address).ask(head)
    };
    let answer = ask("accept: application/openmetrics-text; version=1.0.0\r\n");
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.header("content-type"), Some(content_type));
    let text = answer.text();
    assert!(
        text.ends_with("# EOF\n")
            && text.contains("\nenvoy_cluster_upstream_rq_total{envoy_cluster_name=\"backend\"} 1\n")
    );
    let answer = ask("accept-encoding: gzip\r\n");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.body[..2], [0x1f, 0x8b]);
}

fn proxyctl_stats(proxy: &Proxy, arguments: &[&str]) -> Output {
    let mut command = Command::new(proxyctl());
    command.args(["stats", "--run-dir"]).arg(proxy.directory().join("run")).args(arguments);
    command.output().unwrap()
}

#[test]
fn proxyctl_reads_stats_of_one_that_hangs_and_of_one_that_was_killed() {
    only_proxyd!("proxyctl is ours");
    let (_backend, mut proxy) = served();
    let read = |proxy: &Proxy| {
        let output = proxyctl_stats(proxy, &["^cluster.backend.upstream_rq_total$"]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let expected = (Some(0), "cluster.backend.upstream_rq_total: 1\n".to_owned());
    assert_eq!(read(&proxy), expected);
    proxy.signal(Signal::SIGSTOP);
    assert_eq!(read(&proxy), expected);
    proxy.signal(Signal::SIGKILL);
    proxy.exit();
    assert_eq!(read(&proxy), expected);
    let json = proxyctl_stats(&proxy, &["--json", "upstream_rq_total"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["generation"], &json["stats"][0]["value"]), (&Value::Null, &1.into()));
}

#[test]
fn histograms_reach_proxyctl_with_a_flush() {
    only_proxyd!("proxyctl is ours");
    let (_backend, proxy) = served();
    eventually("the histogram to be flushed", || {
        let output = proxyctl_stats(&proxy, &["^cluster.backend.upstream_rq_time$", "--usedonly"]);
        String::from_utf8(output.stdout).unwrap().contains(": 1 values, P0=").then_some(())
    });
}
