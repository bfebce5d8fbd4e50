//! Stats in all their forms, against files that Envoy 1.40 wrote for the same values.

use std::io::Read as _;

use super::serving::{Answered, with_admin};

const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

fn get(target: &str) -> Answered {
    with_headers(target, "")
}

fn with_headers(target: &str, headers: &str) -> Answered {
    with_admin(async |port| port.request("GET", target, &format!("host: 127.0.0.1\r\n{headers}")).await)
}

fn assert_same(target: &str, content_type: &str, golden: &str) {
    let answered = get(target);
    assert_eq!((answered.status, answered.header("content-type")), (200, content_type), "{target}");
    assert_eq!(answered.body, golden, "{target}");
}

#[test]
fn text() {
    assert_same("/stats", TEXT, include_str!("../golden/stats/summary.txt"));
    assert_same(
        "/stats?format=text&histogram_buckets=none",
        TEXT,
        include_str!("../golden/stats/summary.txt"),
    );
    assert_same("/stats?histogram_buckets=cumulative", TEXT, include_str!("../golden/stats/cumulative.txt"));
    assert_same("/stats?histogram_buckets=disjoint", TEXT, include_str!("../golden/stats/disjoint.txt"));
    assert_same("/stats?histogram_buckets=detailed", TEXT, include_str!("../golden/stats/detailed.txt"));
}

#[test]
fn json() {
    assert_same("/stats?format=json", JSON, include_str!("../golden/stats/summary.json"));
    let with = |buckets| format!("/stats?format=json&histogram_buckets={buckets}");
    assert_same(&with("cumulative"), JSON, include_str!("../golden/stats/cumulative.json"));
    assert_same(&with("disjoint"), JSON, include_str!("../golden/stats/disjoint.json"));
    assert_same(&with("detailed"), JSON, include_str!("../golden/stats/detailed.json"));
    assert_same("/stats?format=json&filter=nothing", JSON, "{\"stats\":[]}");
}

#[test]
fn prometheus() {
    assert_same("/stats/prometheus?text_readouts", TEXT, include_str!("../golden/stats/prometheus.txt"));
    let summary = include_str!("../golden/stats/prometheus_summary.txt");
    assert_same("/stats/prometheus?histogram_buckets=summary", TEXT, summary);
    assert_same("/stats?format=prometheus&histogram_buckets=summary", TEXT, summary);
    assert_same(
        "/stats/prometheus?type=Gauges&usedonly&filter=live",
        TEXT,
        "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n",
    );
}

#[test]
fn bounds_of_buckets_may_be_set() {
    with_admin(async |port| {
        port.process.own_buckets.set(true);
        let text = port.get("/stats?histogram_buckets=cumulative&filter=in.downstream_cx_length").await.body;
        assert_eq!(text, "http.in.downstream_cx_length_ms: B100(0,6) B250000(1,10)\n");
        let series = port.get("/stats/prometheus?filter=in.downstream_cx_length").await.body;
        let bounds: Vec<_> =
            series.lines().filter_map(|line| line.split_once("le=\"")?.1.split('"').next()).collect();
        assert_eq!(bounds, ["100", "250000", "+Inf"]);
        let other = port.get("/stats/prometheus?filter=in.downstream_rq_time").await.body;
        assert_eq!(other.matches("_bucket").count(), 20);
    });
}

#[test]
fn open_metrics() {
    let accept = "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3\r\n";
    let answered = with_headers("/stats/prometheus?text_readouts", accept);
    assert_eq!(answered.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(answered.body, include_str!("../golden/stats/open_metrics.txt"));
    let summary =
        with_headers("/stats/prometheus?histogram_buckets=summary&filter=one.upstream_rq_time", accept);
    assert_eq!(summary.body, include_str!("../golden/stats/open_metrics_summary.txt"));
}

#[test]
fn html() {
    let page = get("/stats?format=html&filter=version_text");
    assert_eq!(page.header("content-type"), "text/html; charset=UTF-8");
    let expected = "<pre>\ncluster_manager.cds.version_text: &quot;v &quot;1&quot; \\ é&quot;\n</pre>\n</body>\n</html>\n";
    assert!(page.body.ends_with(expected), "{}", page.body);
    assert!(page.body.contains("<form action='stats' method='get'>") && !page.body.contains("http-equiv"));
    assert!(get("/stats?format=active-html").body.contains("<meta http-equiv='refresh' content='5'>"));
}

#[test]
fn which_are_shown() {
    assert_same(
        "/stats?type=Gauges&usedonly&filter=manager",
        TEXT,
        "cluster_manager.active_clusters: 3\n\
        cluster_manager.cds.update_time: 1795501407564\ncluster_manager.cds.version: 6052630432514333756\n",
    );
    assert_same(
        "/stats?type=TextReadouts&usedonly=false&format=",
        TEXT,
        "cluster_manager.cds.version_text: \"v \"1\" \\ é\"\n",
    );
    assert_same("/stats?filter=%5B0-9a-z%5D&invert_filter", TEXT, "");
    assert_same("/stats?hidden=only", TEXT, "hidden.gauge: 5\n");
    assert_same("/stats?hidden=include&filter=hidden", TEXT, "hidden.gauge: 5\n");
    assert_same("/stats?hidden=exclude&filter=hidden", TEXT, "");
    assert_same("/stats/prometheus?filter=hidden", TEXT, "");
}

#[test]
fn what_cannot_be_asked_for() {
    for (target, text) in [
        ("/stats?type=gauges", "invalid &type= param"),
        ("/stats?hidden=x", "usage: /stats?hidden=(include|only|exclude)\n\n"),
        ("/stats?format=x", "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"),
        (
            "/stats?histogram_buckets=x",
            "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n",
        ),
        (
            "/stats?histogram_buckets=prometheusnative",
            "Invalid histogram_buckets type for non prometheus stats type",
        ),
        (
            "/stats/prometheus?histogram_buckets=prometheusnative",
            "unsupported prometheusnative histogram type when not using protobuf exposition format",
        ),
        ("/stats/prometheus?histogram_buckets=disjoint", "unsupported prometheus histogram bucket mode"),
        (
            "/stats?format=prometheus&histogram_buckets=detailed",
            "unsupported prometheus histogram bucket mode",
        ),
        ("/stats?filter=%5B", "Invalid re2 regex: unclosed character class"),
        (
            "/stats?filter=(((a%7B100%7D)%7B100%7D)%7B100%7D)",
            "Invalid re2 regex: Compiled regex exceeds size limit of 1048576 bytes.",
        ),
    ] {
        let answered = get(target);
        assert_eq!((answered.status, answered.body.as_str()), (400, text), "{target}");
    }
}

#[test]
fn long_answers_are_compressed_for_those_who_take_it() {
    for (target, plain) in [
        ("/stats", include_str!("../golden/stats/summary.txt")),
        ("/clusters", include_str!("../golden/clusters.txt")),
    ] {
        let answered = with_headers(target, "accept-encoding: deflate, gzip\r\n");
        assert_eq!(
            (answered.header("content-encoding"), answered.header("vary")),
            ("gzip", "accept-encoding")
        );
        let mut text = String::new();
        flate2::read::GzDecoder::new(&answered.bytes[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, plain);
    }
    assert!(!with_headers("/ready", "accept-encoding: gzip\r\n").has_header("content-encoding"));
    assert!(!with_headers("/stats", "accept-encoding: gzip;q=0\r\n").has_header("content-encoding"));
}

#[test]
fn counters_are_reset() {
    with_admin(async |port| {
        let host = "host: 127.0.0.1\r\n";
        assert_eq!(port.get("/reset_counters").await.status, 405);
        assert_eq!(port.request("POST", "/reset_counters", host).await.body, "OK\n");
        assert_eq!(port.get("/stats?type=Counters&usedonly").await.body, "");
        assert_ne!(port.get("/stats?type=Gauges&usedonly").await.body, "");
        assert_ne!(port.get("/stats?type=Histograms&usedonly").await.body, "");
    });
}
