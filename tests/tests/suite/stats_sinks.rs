//! Stats that are pushed: what receivers get adds up to what was counted, whatever becomes of them.

use std::net::{SocketAddr, TcpListener};

use proxy_tests::{
    Backend, Bootstrap, Proxy, StatsReceiver, eventually, only_proxyd, refusing_address, unused_address,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn address(address: SocketAddr) -> String {
    format!("address: {{socket_address: {{address: {}, port_value: {}}}}}", address.ip(), address.port())
}

/// A sink in `stats_sinks`.
fn sink(message: &str, fields: &str) -> String {
    let package = match message {
        "GraphiteStatsdSink" => "envoy.extensions.stat_sinks.graphite_statsd.v3",
        _ => "envoy.config.metrics.v3",
    };
    format!("{{name: sink, typed_config: {{'@type': type.googleapis.com/{package}.{message}, {fields}}}}}")
}

/// HTTP to `backend`, with stats flushed every 20 ms: but a few, because a receiver that does not get to run loses datagrams.
fn bootstrap(backend: &Backend, sinks: &[String]) -> Bootstrap {
    // Envoy sends no stats over TCP without id and cluster.
    let node = "node: {id: i, cluster: c}";
    let few = "[{prefix: http.ingress.downstream_}, {prefix: cluster.backend.upstream_rq}, {prefix: cluster.statsd.upstream_cx},
        {exact: server.initialization_time_ms}, {contains: .dispatcher.}]";
    Bootstrap::http(backend.address())
        .with(&format!("{node}\nstats_flush_interval: 0.02s\nstats_sinks: [{}]", sinks.join(",")))
        .with(&format!("stats_config: {{stats_matcher: {{inclusion_list: {{patterns: {few}}}}}}}"))
}

fn ask(proxy: &Proxy, times: usize) {
    let mut client = proxy.connect();
    for _ in 0..times {
        assert_eq!(client.ask(GET).status(), 200);
    }
}

#[test]
fn deltas_of_many_flushes_add_up() {
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::udp());
    let proxy = Proxy::start(&bootstrap(&backend, &[sink("StatsdSink", &address(receiver.address()))]));
    for round in 1..=10 {
        ask(&proxy, 20);
        receiver.sum_becomes("envoy.http.ingress.downstream_rq_total", round * 20);
    }
    for (name, sum) in [
        ("envoy.http.ingress.downstream_cx_total", 10),
        ("envoy.http.ingress.downstream_rq_2xx", 200),
        ("envoy.cluster.backend.upstream_rq_200", 200),
    ] {
        receiver.sum_becomes(name, sum);
        assert_eq!(proxy.stat(name.trim_start_matches("envoy.")), sum);
    }
}

#[test]
fn a_gauge_is_told_until_it_is_back_at_zero() {
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::udp());
    let fields = format!("{}, prefix: edge", address(receiver.address()));
    let proxy = Proxy::start(&bootstrap(&backend, &[sink("StatsdSink", &fields)]));
    let gauge = "edge.http.ingress.downstream_cx_active";
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).status(), 200);
    receiver.line_where("the open connection", |line| line.name == gauge && line.value == 1);
    drop(client);
    receiver.line_where("its end", |line| line.name == gauge && line.value == 0 && line.kind == "g");
}

#[test]
fn tags_come_in_the_form_of_the_receiver() {
    let (backend, dog, graphite) = (Backend::saying("ok"), StatsReceiver::udp(), StatsReceiver::udp());
    let sinks = [
        sink("DogStatsdSink", &format!("{}, max_bytes_per_datagram: 400", address(dog.address()))),
        sink("GraphiteStatsdSink", &format!("{}, prefix: g", address(graphite.address()))),
    ];
    let tags = "stats_config: {stats_tags: [{tag_name: region, fixed_value: eu}, {tag_name: kind, regex: 'ingress\\.downstream_(([a-z]+)_)'}]}";
    let proxy = Proxy::start(&bootstrap(&backend, &sinks).with(tags));
    ask(&proxy, 3);
    let line = dog.line_where("the cluster's code", |line| {
        line.name == "envoy.cluster.upstream_rq" && line.tags.contains(&"envoy.response_code:200".to_owned())
    });
    assert_eq!(line.tags, ["envoy.cluster_name:backend", "envoy.response_code:200", "region:eu"]);
    let line = dog.line_where("the cut name", |line| line.name == "envoy.http.downstream_total");
    assert!(line.tags.contains(&"envoy.http_conn_manager_prefix:ingress".to_owned()), "{line:?}");
    assert!(line.tags.iter().any(|tag| tag == "kind:cx" || tag == "kind:rq"), "{line:?}");
    let datagrams = dog.datagrams();
    assert!(datagrams.iter().all(|bytes| *bytes <= 400), "{datagrams:?}");
    assert!(datagrams.iter().any(|bytes| *bytes > 200), "several lines share a datagram: {datagrams:?}");
    graphite.line_where("Graphite's form", |line| {
        line.name.starts_with("g.cluster.upstream_rq;")
            && line.name.contains(";region=eu")
            && line.name.contains(";envoy.cluster_name=backend")
            && line.name.contains(";envoy.response_code=200")
    });
}

#[test]
fn a_receiver_may_sit_behind_a_connection() {
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::tcp());
    let bootstrap = bootstrap(&backend, &[sink("StatsdSink", "tcp_cluster_name: statsd")]);
    let proxy = Proxy::start(&bootstrap.cluster("statsd", receiver.address()));
    for round in 1..=5 {
        ask(&proxy, 10);
        receiver.sum_becomes("envoy.cluster.backend.upstream_rq_total", round * 10);
    }
    assert!(proxy.stat("cluster.statsd.upstream_cx_tx_bytes_total") > 0);
    assert_eq!(proxy.stat("cluster.statsd.upstream_cx_total"), 0);
}

#[test]
fn flushes_may_wait_for_the_admin_port() {
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::udp());
    let sinks = [sink("StatsdSink", &address(receiver.address()))];
    let bootstrap =
        bootstrap(&backend, &sinks).with("stats_flush_interval: null\nstats_flush_on_admin: true");
    let proxy = Proxy::start(&bootstrap);
    ask(&proxy, 5);
    let name = "envoy.http.ingress.downstream_rq_total";
    assert_eq!(receiver.sum(name), 0);
    let _ = proxy.admin_get("/stats");
    receiver.sum_becomes(name, 5);
}

#[test]
fn a_reset_takes_nothing_from_receivers() {
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::udp());
    let sinks = [sink("StatsdSink", &address(receiver.address()))];
    let proxy = Proxy::start(&flushed_by_hand(&backend, &sinks));
    for round in 1..=3 {
        ask(&proxy, 5);
        assert_eq!(proxy.admin_post("/reset_counters").status(), 200);
        flush_until(&proxy, &receiver, round * 5);
    }
    assert_eq!(proxy.stat("http.ingress.downstream_rq_total"), 0);
}

#[test]
fn a_dead_sink_holds_nothing_up() {
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::udp());
    // Takes connections, as its queue does, and never reads.
    let stuck = TcpListener::bind("127.0.0.1:0").unwrap();
    let sinks = [
        sink("StatsdSink", &address(unused_address())),
        sink("StatsdSink", "tcp_cluster_name: stuck"),
        sink("StatsdSink", "tcp_cluster_name: refusing"),
        sink("StatsdSink", &address(receiver.address())),
    ];
    let bootstrap = bootstrap(&backend, &sinks)
        .cluster("stuck", stuck.local_addr().unwrap())
        .cluster("refusing", refusing_address());
    let proxy = Proxy::start(&bootstrap);
    for round in 1..=10 {
        ask(&proxy, 20);
        receiver.sum_becomes("envoy.http.ingress.downstream_rq_total", round * 20);
        assert_eq!(proxy.admin_get("/ready").status(), 200);
    }
}

/// As [`bootstrap`], but flushed only when [`flush`] is called.
fn flushed_by_hand(backend: &Backend, sinks: &[String]) -> Bootstrap {
    bootstrap(backend, sinks).with("stats_flush_interval: null\nstats_flush_on_admin: true")
}

/// Flushes until what `receiver` got adds up.
fn flush_until(proxy: &Proxy, receiver: &StatsReceiver, sum: u64) {
    eventually(&format!("the receiver to count {sum}"), || {
        let _ = proxy.admin_get("/stats");
        let found = receiver.sum("envoy.http.ingress.downstream_rq_total");
        assert!(found <= sum, "{found}, not {sum}");
        (found == sum).then_some(())
    });
}

/// The same for how long each request took.
fn flush_until_values(proxy: &Proxy, receiver: &StatsReceiver, count: u64) {
    eventually(&format!("{count} values"), || {
        let _ = proxy.admin_get("/stats");
        let found = receiver.recorded("envoy.http.ingress.downstream_rq_time");
        assert!(found <= count, "{found} values, not {count}");
        (found == count).then_some(())
    });
}

/// Flushes until all that has been sent is marked as sent: one of the flushes began after the last that `receiver` saw.
/// A connection must be open, so that each flush has something to say.
fn flush_until_marked(proxy: &Proxy, receiver: &StatsReceiver) {
    let flushes = || {
        receiver.lines().iter().filter(|line| line.name == "envoy.http.ingress.downstream_cx_active").count()
    };
    let before = flushes();
    eventually("two more flushes", || {
        let _ = proxy.admin_get("/stats");
        (flushes() >= before + 2).then_some(())
    });
}

#[test]
fn what_no_udp_receiver_took_is_sent_later() {
    only_proxyd!("Envoy forgets a delta once it has been sent, received or not");
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::udp());
    let (at, spare) = (receiver.address(), StatsReceiver::udp());
    let sinks = [sink("StatsdSink", &address(at)), sink("StatsdSink", &address(spare.address()))];
    let proxy = Proxy::start(&flushed_by_hand(&backend, &sinks));
    ask(&proxy, 3);
    flush_until(&proxy, &receiver, 3);
    flush_until_values(&proxy, &receiver, 3);
    drop(receiver);
    ask(&proxy, 4);
    flush_until(&proxy, &spare, 7);
    let receiver = StatsReceiver::udp_at(at);
    ask(&proxy, 5);
    flush_until(&proxy, &receiver, 9);
    flush_until(&proxy, &spare, 12);
    flush_until_values(&proxy, &receiver, 9);
}

#[test]
fn what_no_tcp_receiver_took_is_sent_later() {
    only_proxyd!("Envoy forgets a delta once it has been sent, received or not");
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::tcp());
    let (at, spare) = (receiver.address(), StatsReceiver::udp());
    let sinks =
        [sink("StatsdSink", "tcp_cluster_name: statsd"), sink("StatsdSink", &address(spare.address()))];
    let proxy = Proxy::start(&flushed_by_hand(&backend, &sinks).cluster("statsd", at));
    ask(&proxy, 3);
    flush_until(&proxy, &receiver, 3);
    flush_until_values(&proxy, &receiver, 3);
    drop(receiver);
    ask(&proxy, 4);
    flush_until(&proxy, &spare, 7);
    let receiver = StatsReceiver::tcp_at(at);
    ask(&proxy, 5);
    flush_until(&proxy, &receiver, 9);
    flush_until(&proxy, &spare, 12);
    flush_until_values(&proxy, &receiver, 9);
}

#[test]
fn what_a_killed_process_had_not_sent_its_successor_sends() {
    only_proxyd!("the counters of an Envoy that is killed are gone");
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::udp());
    let sinks = [sink("StatsdSink", &address(receiver.address()))];
    let mut proxy = Proxy::start(&flushed_by_hand(&backend, &sinks));
    ask(&proxy, 3);
    flush_until(&proxy, &receiver, 3);
    for (round, sum) in [(1, 8), (2, 13)] {
        let mut client = proxy.connect();
        flush_until_marked(&proxy, &receiver);
        (0..5).for_each(|_| assert_eq!(client.ask(GET).status(), 200));
        proxy.kill_and_start_again();
        flush_until(&proxy, &receiver, sum);
        assert_eq!(proxy.stat("http.ingress.downstream_rq_total"), sum, "round {round}");
    }
}

#[test]
fn the_end_of_the_process_is_a_last_flush() {
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::udp());
    let sinks = [sink("StatsdSink", &address(receiver.address()))];
    let mut proxy = Proxy::start(&bootstrap(&backend, &sinks).with("stats_flush_interval: 200s"));
    ask(&proxy, 5);
    let _ = proxy.admin_post("/quitquitquit");
    assert!(proxy.exit().success());
    receiver.sum_becomes("envoy.http.ingress.downstream_rq_total", 5);
}

#[test]
fn what_the_matcher_excludes_does_not_exist() {
    let backend = Backend::saying("ok");
    let matcher = "stats_config: {stats_matcher: {exclusion_list: {patterns: [{prefix: cluster.}, {suffix: downstream_rq_total}, {safe_regex: {regex: 'server\\.u.*'}}]}}}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).with(matcher));
    ask(&proxy, 5);
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 5);
    let all = proxy.admin_get("/stats").text().to_owned();
    let excluded = |line: &&str| {
        line.starts_with("cluster.") || line.contains("downstream_rq_total:") || line.starts_with("server.u")
    };
    assert_eq!(all.lines().find(excluded), None);
    assert!(all.contains("server.live: 1"));
}

#[test]
fn only_what_the_matcher_includes_exists() {
    let backend = Backend::saying("ok");
    let matcher =
        "stats_config: {stats_matcher: {inclusion_list: {patterns: [{prefix: http.ingress.downstream_rq}]}}}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).with(matcher));
    ask(&proxy, 5);
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 5);
    let all = proxy.admin_get("/stats").text().to_owned();
    assert_eq!(all.lines().find(|line| !line.starts_with("http.ingress.downstream_rq")), None);
}

#[test]
fn clusters_and_listeners_may_have_matchers_of_their_own() {
    let backend = Backend::saying("ok");
    let bootstrap = Bootstrap::http(backend.address())
        .cluster("other", refusing_address())
        .with("stats_config: {stats_matcher: {exclusion_list: {patterns: [{suffix: cx_total}]}}}")
        .cluster_with("backend", "stats_matcher: {inclusion_list: {patterns: [{suffix: cx_total}]}}")
        .listener_with("stat_prefix: main\nstats_matcher: {inclusion_list: {patterns: [{suffix: _2xx}]}}");
    let proxy = Proxy::start(&bootstrap);
    ask(&proxy, 5);
    proxy.stat_becomes("http.ingress.downstream_rq_2xx", 5);
    proxy.stat_becomes("cluster.backend.upstream_cx_total", 1);
    let all = proxy.admin_get("/stats").text().to_owned();
    let names_of = |prefix: &str| -> Vec<_> {
        all.lines()
            .filter_map(|line| line.split(": ").next())
            .filter(|name| name.starts_with(prefix))
            .collect()
    };
    assert_eq!(names_of("cluster.backend."), ["cluster.backend.upstream_cx_total"]);
    assert_eq!(names_of("http.ingress."), ["http.ingress.downstream_rq_2xx"]);
    assert_eq!(names_of("listener.main."), ["listener.main.http.ingress.downstream_rq_2xx"]);
    assert!(!names_of("cluster.other.").is_empty());
    assert!(!names_of("cluster.other.").contains(&"cluster.other.upstream_cx_total"));
}

#[test]
fn a_proxy_without_any_stats_serves_all_the_same() {
    let backend = Backend::saying("ok");
    let reject = "stats_config: {stats_matcher: {reject_all: true}}";
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).with(reject));
    ask(&proxy, 5);
    assert_eq!(proxy.admin_get("/stats").text(), "");
}

#[test]
fn values_of_histograms_arrive_once() {
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::tcp());
    let sinks = [sink("StatsdSink", "tcp_cluster_name: statsd")];
    let bootstrap = flushed_by_hand(&backend, &sinks).cluster("statsd", receiver.address());
    let proxy = Proxy::start(&bootstrap);
    // First few, then so many that some stand for others.
    for (times, sum) in [(7, 7), (600, 607)] {
        ask(&proxy, times);
        flush_until(&proxy, &receiver, sum);
        flush_until_values(&proxy, &receiver, sum);
    }
    receiver.line_where("how long the start took", |line| {
        line.name == "envoy.server.initialization_time_ms" && line.kind == "ms"
    });
}

#[test]
fn turns_of_all_loops_are_measured_where_asked_for() {
    let (backend, receiver) = (Backend::saying("ok"), StatsReceiver::udp());
    let sinks = [sink("StatsdSink", &address(receiver.address()))];
    let _proxy = Proxy::start(&bootstrap(&backend, &sinks).with("enable_dispatcher_stats: true"));
    for thread in ["server", "listener_manager.worker_0", "listener_manager.worker_1"] {
        for stat in ["loop_duration_us", "poll_delay_us"] {
            let name = format!("envoy.{thread}.dispatcher.{stat}");
            receiver.line_where(&name, |line| line.name == name && line.kind == "ms");
        }
    }
}
