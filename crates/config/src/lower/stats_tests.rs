//! What becomes of `stats_config`, `stats_sinks` and the flush fields.

use std::time::Duration;

use super::tests::{accepted, refused};
use crate::settings::*;

fn config(fields: &str) -> String {
    format!("stats_config: {{{fields}}}")
}

fn sink(message: &str, fields: &str) -> String {
    let kind = match message {
        "GraphiteStatsdSink" => "envoy.extensions.stat_sinks.graphite_statsd.v3",
        _ => "envoy.config.metrics.v3",
    };
    format!(
        "static_resources: {{clusters: [{{name: statsd}}]}}
stats_sinks: [{{name: s, typed_config: {{'@type': type.googleapis.com/{kind}.{message}, {fields}}}}}]"
    )
}

const LOCAL: &str = "address: {socket_address: {address: 127.0.0.1, port_value: 8125}}";

#[test]
fn stats_are_flushed_by_one_clock() {
    assert_eq!(accepted("{}").stats.flush, StatsFlush::Every(Duration::from_secs(5)));
    let lowered = accepted("stats_flush_interval: 0.25s");
    assert_eq!(lowered.stats.flush, StatsFlush::Every(Duration::from_millis(250)));
    assert_eq!(accepted("stats_flush_on_admin: true").stats.flush, StatsFlush::OnAdmin);
    refused(
        "{stats_flush_interval: 1s, stats_flush_on_admin: true}",
        &[("conflict", "stats_flush_on_admin")],
    );
    refused("stats_flush_on_admin: false", &[("rule", "stats_flush_on_admin")]);
}

#[test]
fn a_tag_needs_a_rule() {
    let yaml = config(
        "stats_tags: [{tag_name: a, fixed_value: b}, {tag_name: c, regex: '^x\\.((.+?)\\.)'},
        {tag_name: envoy.cluster_name}], use_all_default_tags: false",
    );
    let tags = accepted(&yaml).stats.tags;
    assert!(!tags.use_defaults && !tags.override_defaults);
    assert!(matches!(&tags.tags[0].value, StatsTagValue::Fixed(value) if value == "b"));
    assert!(matches!(&tags.tags[1].value, StatsTagValue::Regex(regex) if regex.is_match("x.y.z")));
    assert!(matches!(&tags.tags[2].value, StatsTagValue::Default));
    refused(&config("stats_tags: [{tag_name: mine}]"), &[("required", "stats_tags[0]")]);
    refused(&config("stats_tags: [{tag_name: a, regex: '(b'}]"), &[("bad-regex", "stats_tags[0].regex")]);
}

#[test]
fn matchers_take_full_names() {
    let accepts = |fields: &str, name: &str| accepted(&config(fields)).stats.matcher.accepts(name);
    assert!(accepts("", "cluster.a.b"));
    assert!(accepts("stats_matcher: {reject_all: false}", "cluster.a.b"));
    assert!(!accepts("stats_matcher: {reject_all: true}", "cluster.a.b"));
    let exclusion = "stats_matcher: {exclusion_list: {patterns: [{prefix: cluster.a.}, {suffix: _ms}]}}";
    assert!(
        !accepts(exclusion, "cluster.a.b")
            && !accepts(exclusion, "x_ms")
            && accepts(exclusion, "server.live")
    );
    let inclusion = "stats_matcher: {inclusion_list: {patterns: [{safe_regex: {regex: 'server\\..*'}}]}}";
    assert!(accepts(inclusion, "server.live") && !accepts(inclusion, "my.server.live"));
    let broken = "stats_matcher: {inclusion_list: {patterns: [{safe_regex: {regex: '('}}]}}";
    refused(&config(broken), &[("bad-regex", "inclusion_list.patterns[0].safe_regex.regex")]);
    refused(&config("stats_matcher: {}"), &[("required", "stats_matcher")]);
}

#[test]
fn clusters_and_listeners_may_have_matchers_of_their_own() {
    let yaml = |list: &str| {
        format!(
            "static_resources: {{clusters: [{{name: a, stats_matcher: {{inclusion_list: {list}}}}}, {{name: b}}],
            listeners: [{{address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, stats_matcher: {{reject_all: true}},
            filter_chains: [{{filters: [{{name: t, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: a}}}}]}}]}}]}}"
        )
    };
    let lowered = accepted(&yaml("{patterns: [{suffix: _total}]}"));
    assert!(lowered.clusters[0].stats_matcher.as_ref().unwrap().accepts("cluster.a.x_total"));
    assert!(lowered.clusters[1].stats_matcher.is_none());
    assert!(!lowered.listeners[0].stats_matcher.as_ref().unwrap().accepts("a"));
    let broken = yaml("{patterns: [{safe_regex: {regex: '('}}]}");
    refused(
        &broken,
        &[("bad-regex", "clusters[0].stats_matcher.inclusion_list.patterns[0].safe_regex.regex")],
    );
}

#[test]
fn bucket_bounds_are_sorted() {
    let settings = "histogram_bucket_settings: [{match: {prefix: a}, buckets: [10, 0.5, 2]}, {match: {prefix: b}, bins: 7}]";
    let buckets = accepted(&config(settings)).stats.histogram_buckets;
    assert_eq!(buckets.len(), 1);
    assert_eq!(*buckets[0].bounds, [0.5, 2.0, 10.0]);
    let negative = "histogram_bucket_settings: [{match: {prefix: a}, buckets: [-1]}]";
    refused(&config(negative), &[("rule", "histogram_bucket_settings[0].buckets[0]")]);
}

#[test]
fn sinks_know_form_and_way() {
    let sink_of = |message, fields: &str| accepted(&sink(message, fields)).stats.sinks.remove(0);
    let statsd = sink_of("StatsdSink", LOCAL);
    let address = SocketAddress::Ip("127.0.0.1:8125".parse().unwrap());
    assert_eq!((statsd.format, statsd.prefix.as_str()), (StatsFormat::Statsd, "envoy"));
    assert_eq!(statsd.transport, StatsTransport::Datagram { address: address.clone(), max_bytes: None });
    let tcp = sink_of("StatsdSink", "tcp_cluster_name: statsd, prefix: p");
    assert_eq!(tcp.transport, StatsTransport::Tcp { cluster: "statsd".into() });
    let udp = "address: {socket_address: {protocol: UDP, address: 127.0.0.1, port_value: 8125}}";
    let dog = sink_of("DogStatsdSink", &format!("{udp}, prefix: p, max_bytes_per_datagram: 1432"));
    assert_eq!((dog.format, dog.prefix.as_str()), (StatsFormat::DogStatsd, "p"));
    assert_eq!(dog.transport, StatsTransport::Datagram { address, max_bytes: Some(1432) });
    let graphite = sink_of("GraphiteStatsdSink", "address: {pipe: {path: /tmp/graphite}}");
    assert_eq!(graphite.format, StatsFormat::Graphite);
}

#[test]
fn sinks_are_checked() {
    let nowhere = sink("StatsdSink", "tcp_cluster_name: nowhere");
    refused(&nowhere, &[("unknown-cluster", "stats_sinks[0].typed_config.tcp_cluster_name")]);
    let name = sink("StatsdSink", "address: {socket_address: {address: host, port_value: 1}}");
    refused(&name, &[("bad-address", "typed_config.address.socket_address.address")]);
    refused(&sink("DogStatsdSink", ""), &[("required", "typed_config")]);
    refused("stats_sinks: [{name: envoy.stat_sinks.statsd}]", &[("required", "stats_sinks[0].typed_config")]);
    refused(&sink("HystrixSink", ""), &[("unsupported-type", "stats_sinks[0].typed_config.@type")]);
}
