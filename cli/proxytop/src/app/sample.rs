//! A proxy that never was, for frames that are compared: two connection managers, some clusters, two processes.

use std::collections::HashMap;
use std::sync::Arc;

use proxy_stats::{Catalog, Event, EventKind, ImportMode, MetricKind, Severity, StatId};

use super::App;
use crate::asked::{Asked, Host, Route};
use crate::snapshot::{Generation, Points, Quantiles, Snapshot, Standing, Thread};

#[derive(Default)]
struct Making {
    catalog: Catalog,
    values: Vec<u64>,
    quantiles: HashMap<StatId, Quantiles>,
    second: u64,
}

impl Making {
    fn set(&mut self, name: &str, kind: MetricKind, value: u64) -> StatId {
        let id = self.catalog.intern(name, kind).unwrap();
        self.values.resize(self.catalog.len(), 0);
        self.values[id.0 as usize] = value;
        id
    }

    /// Has counted `per_second` since second 0.
    fn counter(&mut self, name: &str, per_second: u64) {
        self.set(name, MetricKind::Counter, per_second * self.second);
    }

    fn gauge(&mut self, name: &str, value: u64) {
        self.set(name, MetricKind::Gauge(ImportMode::Accumulate), value);
    }

    fn times(&mut self, name: &str, p50: f64) {
        let id = self.set(name, MetricKind::Histogram, self.second * 10);
        let points = Points { p50, p90: p50 * 2.0, p99: p50 * 5.5, max: p50 * 20.0 };
        self.quantiles.insert(id, Quantiles { cumulative: points, recent: Some(points) });
    }

    fn manager(&mut self, name: &str, rate: u64) {
        let of = |stat: &str| format!("http.{name}.downstream_{stat}");
        for (stat, share) in [
            ("rq_total", 1000),
            ("rq_2xx", 940),
            ("rq_3xx", 10),
            ("rq_4xx", 45),
            ("rq_5xx", 5),
            ("cx_total", 30),
        ] {
            self.counter(&of(stat), rate * share / 1000);
        }
        self.counter(&of("cx_rx_bytes_total"), rate * 380);
        self.counter(&of("cx_tx_bytes_total"), rate * 12_800);
        self.gauge(&of("rq_active"), rate / 90);
        self.gauge(&of("cx_active"), rate / 20);
        self.times(&of("rq_time"), 8.0);
        self.counter(&format!("http.{name}.no_route"), rate / 100);
    }

    fn cluster(&mut self, name: &str, hosts: (u64, u64), rate: u64, failing: u64) {
        let of = |stat: &str| format!("cluster.{name}.{stat}");
        self.gauge(&of("membership_total"), hosts.1);
        self.gauge(&of("membership_healthy"), hosts.0);
        self.counter(&of("upstream_rq_total"), rate);
        self.counter(&of("upstream_rq_completed"), rate);
        self.counter(&of("upstream_rq_5xx"), rate * failing / 100);
        self.counter(&of("upstream_rq_retry"), rate / 200);
        self.counter(&of("upstream_cx_connect_fail"), failing / 10);
        self.counter(&of("upstream_cx_tx_bytes_total"), rate * 400);
        self.counter(&of("upstream_cx_rx_bytes_total"), rate * 9000);
        self.gauge(&of("upstream_cx_active"), rate / 15);
        self.gauge(&of("upstream_rq_active"), rate / 100);
        self.gauge(&of("upstream_rq_pending_active"), failing / 20);
        self.gauge(&of("circuit_breakers.default.rq_open"), u64::from(failing > 50));
        self.times(&of("upstream_rq_time"), 3.0 + failing as f64);
    }

    fn listener(&mut self, name: &str, rate: u64) {
        let of = |stat: &str| format!("listener.{name}.{stat}");
        self.counter(&of("downstream_cx_total"), rate);
        self.gauge(&of("downstream_cx_active"), rate * 3);
        self.gauge(&of("downstream_pre_cx_active"), 0);
        self.counter(&of("downstream_cx_overflow"), rate / 20);
        self.counter(&of("no_filter_chain_match"), 0);
        self.counter(&of("http.edge.downstream_rq_completed"), rate * 40);
        self.counter(&of("http.edge.downstream_rq_5xx"), rate / 5);
        for worker in 0..2 {
            self.gauge(&of(&format!("worker_{worker}.downstream_cx_active")), rate * (1 + worker));
            self.counter(&of(&format!("worker_{worker}.downstream_cx_total")), rate / 2);
        }
    }
}

/// As it was `second` seconds after it began.
pub(super) fn look(second: u64) -> Snapshot {
    let mut making = Making { second, ..Making::default() };
    making.manager("edge", 2400);
    making.manager("internal_services_of_the_whole_company", 130);
    making.cluster("api", (3, 3), 1800, 1);
    making.cluster("web", (2, 3), 500, 0);
    making.cluster("payments.with.a.rather.long.name.in.the.eu-central-1.region.of.a.cloud", (0, 2), 90, 60);
    making.cluster("unused", (1, 1), 0, 0);
    making.listener("0.0.0.0_8443", 20);
    making.listener("127.0.0.1_9000", 6);
    making.gauge("server.uptime", 3600 + second);
    making.gauge("server.state", 0);
    making.counter("server.worker_1.watchdog_miss", 0);
    making.counter("config_reload.success", u64::from(second > 3));
    making.times("listener_manager.worker_0.dispatcher.loop_duration_us", 40.0);
    making.times("listener_manager.worker_0.dispatcher.poll_delay_us", 12.0);
    let generation = |number: u64, leads: bool, connections: u64| Generation {
        number,
        lives: true,
        leads,
        pid: 1000 + number as u32,
        connections,
        connections_total: 20 * second,
        requests_active: connections / 9,
        requests_total: 1500 * second,
        age: Some(5000 - number * 700),
        cpu_ms: Some(310 * second),
        resident_bytes: 52 << 20,
    };
    let thread = |name: &str, share: u64| Thread {
        name: name.to_owned(),
        connections: 40 * share,
        connections_total: 10 * share * second,
        requests_active: share,
        requests_total: 800 * share * second,
        cpu_ms: Some(150 * share * second),
    };
    Snapshot {
        at_ms: 1_700_000_000_000 + second * 1000,
        origin: "base-id 7".to_owned(),
        standing: Standing::Live,
        catalog: Arc::new(making.catalog),
        values: making.values,
        quantiles: Arc::new(making.quantiles),
        ring: Arc::new(ring(second)),
        generations: vec![generation(6, false, 80 - 8 * second), generation(7, true, 20 + 8 * second)],
        threads: vec![thread("main", 0), thread("worker_0", 1), thread("worker_1", 2)],
        ..Snapshot::default()
    }
}

/// What its processes have told by then.
fn ring(second: u64) -> Vec<Event> {
    let event =
        |(number, (at, generation, kind, severity, text)): (usize, (u64, u64, EventKind, Severity, &str))| {
            Event {
                at_us: (1_700_000_000 + at) * 1_000_000 - 90_000_000,
                generation,
                number: number as u64 + 1,
                kind,
                severity,
                text: text.to_owned(),
            }
        };
    use Severity::{Error, Info, Success, Warning};
    let all = [
        (0, 5, EventKind::WATCHDOG, Error, "thread main_thread still does not react"),
        (2, 6, EventKind::START, Info, "proxyd 0.1.0 starts, pid 1006"),
        (2, 6, EventKind::KILLED, Error, "generation 5 was killed or has crashed; its counters go on here"),
        (3, 6, EventKind::SERVE, Success, "connections are accepted, 412 ms after the start; listeners: 2"),
        (
            60,
            6,
            EventKind::RELOAD,
            Error,
            "refused, 2 errors: /etc/proxyd/proxyd.yaml:14:9: error[unknown-field]: there is no field 'clustr' here; did you mean 'cluster'?",
        ),
        (
            71,
            6,
            EventKind::RELOAD,
            Success,
            "clusters: 1 added, 2 changed; routes of 1 listeners, after 18 ms",
        ),
        (80, 7, EventKind::START, Info, "proxyd 0.1.0 starts, pid 1007, to take over from generation 6"),
        (80, 6, EventKind::RESTART, Info, "generation 7, proxyd 0.1.0, wants to take over"),
        (82, 7, EventKind::RESTART, Success, "this process leads, in place of generation 6"),
        (94, 7, EventKind::HEALTH_CHECK, Warning, "health checks are made to fail"),
        (95, 7, EventKind(99), Info, "of a kind that this program does not know"),
    ];
    all.into_iter().filter(|(at, ..)| *at <= 90 + second).enumerate().map(event).collect()
}

/// What it answered.
pub(super) fn asked(second: u64) -> Asked {
    let host = |address: &str, health: &str, rate: u64| Host {
        cluster: "web".to_owned(),
        address: address.to_owned(),
        health: health.to_owned(),
        connections: rate / 10,
        active: rate / 50,
        requests: rate * second,
        errors: rate / 100 * second,
        weight: 1,
        zone: "eu/1".to_owned(),
        ..Host::default()
    };
    let route = |matched: &str, action: &str| Route {
        place: "edge/shop".to_owned(),
        domains: "shop.example.com *.shop.example.com".to_owned(),
        matched: matched.to_owned(),
        action: action.to_owned(),
        timeout: String::new(),
    };
    Asked {
        at_ms: 1_700_000_000_000 + second * 1000,
        version: "proxyd 0.1.0".to_owned(),
        hosts: vec![
            host("10.0.0.1:8080", "healthy", 300),
            host("10.0.0.2:8080", "failed", 0),
            host("[fd00::3]:8080", "healthy", 200),
        ],
        routes: vec![
            route("prefix /api/", "api"),
            route("path /health", "answer 200"),
            route("regex /v[0-9]+/.*, header x-canary", "api 90, web 10"),
        ],
        ..Asked::default()
    }
}

/// After five looks.
pub(super) fn app(size: (u16, u16)) -> App {
    let mut app = App::new(std::time::Duration::from_secs(1), size);
    for second in 1..=5 {
        app.see(Arc::new(look(second)));
        app.hear(asked(second));
    }
    let line = |at: u64| {
        format!(
            "[2023-11-14T22:13:{at:02}Z] \"GET /api/{at} HTTP/1.1\" 200 - 0 512 8 \"10.1.2.3\" \"curl/8\""
        )
    };
    app.follow((10..40).map(line).collect(), String::new());
    app
}
