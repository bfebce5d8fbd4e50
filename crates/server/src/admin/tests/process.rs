//! A process that does not run: answers like the Envoy that the golden files come from, and remembers what it was asked to do.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proxy_config::settings::{
    CircuitBreaker, EndpointHealth, HistogramBuckets, Node, SocketAddress, StringMatcher, StringPattern,
};
use proxy_control::BaseId;
use proxy_control::restart::{Standing, Status};
use proxy_stats::{Histogram, ImportMode, Scope, Store, StoreOptions, TagExtractor, ThreadIndex};
use serde_json::json;
use tokio::sync::mpsc;

use super::super::state::*;
use crate::invocation::Invocation;
use crate::logging::{Log, LogGuard, LogOptions};
use crate::options::{Allocator, ConfigSource, Mode, NodeOptions, Options, RestartOptions};

/// What it was asked to do.
pub(super) struct Process {
    pub(super) healthy: Cell<bool>,
    /// Whether lengths of connections are shown in other buckets than Envoy's.
    pub(super) own_buckets: Cell<bool>,
    pub(super) asked: RefCell<Vec<String>>,
    pub(super) store: Store,
    _scopes: Vec<Scope>,
}

impl Process {
    pub(super) fn new() -> Rc<Self> {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        store.bind_thread(ThreadIndex(0));
        let scopes = fill(&store);
        Rc::new(Self {
            healthy: Cell::new(true),
            own_buckets: Cell::default(),
            asked: RefCell::default(),
            store,
            _scopes: scopes,
        })
    }
}

/// Gives `store` the stats that the golden files are about.
fn fill(store: &Store) -> Vec<Scope> {
    let scope_of = |name: &str| store.root().scope(name.rsplit_once('.').unwrap().0);
    let stats: Vec<_> = include_str!("../golden/stats/state.tsv")
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .map(|fields| (scope_of(fields[1]), fields))
        .collect();
    // The first interval has what the second one has not.
    for interval in 0..2 {
        for (scope, fields) in &stats {
            let name = fields[1].rsplit_once('.').unwrap().1;
            match fields[0] {
                "counter" if interval == 0 => scope.counter(name).add(fields[2].parse().unwrap()),
                "gauge" => scope.gauge(name, ImportMode::Accumulate).set(fields[2].parse().unwrap()),
                "text" => scope.text_readout(name).set(fields[2]),
                "histogram" => record(scope.histogram(name), fields[2], fields[3], interval),
                _ => {}
            }
        }
        store.hand_over();
        let mut merge = store.merge_histograms();
        while merge.advance() {}
    }
    let hidden = store.root().scope("hidden");
    hidden.gauge("gauge", ImportMode::HiddenAccumulate).set(5);
    stats.into_iter().map(|(scope, _)| scope).chain([hidden]).collect()
}

/// `totals` and `last` are `value:count` of both intervals together and of the last one.
fn record(histogram: Histogram, totals: &str, last: &str, interval: usize) {
    let counts = |text: &str| -> Vec<(u64, usize)> {
        let number = |text: &str| text.parse::<f64>().unwrap() as u64;
        let pairs = text.split_whitespace().map(|pair| pair.split_once(':').unwrap());
        pairs.map(|(value, count)| (number(value), count.parse().unwrap())).collect()
    };
    let of_last =
        |value| counts(last).iter().find(|(found, _)| *found == value).map_or(0, |(_, count)| *count);
    for (value, count) in counts(totals) {
        let count = if interval == 0 { count - of_last(value) } else { of_last(value) };
        (0..count).for_each(|_| histogram.record(value));
    }
}

pub(super) fn options() -> Options {
    Options {
        watch: false,
        invocation: Invocation { program: "/usr/bin/proxyd".into(), arguments: vec!["run".into()] },
        dynamic_base_id: false,
        base_id_path: None,
        restart: RestartOptions::default(),
        config: ConfigSource::File { path: "basic.yaml".into(), overlay: None },
        mode: Mode::Serve,
        concurrency: NonZeroUsize::new(2).unwrap(),
        base_id: BaseId(7),
        run_dir: "/run/proxyd".into(),
        shm_dir: "/dev/shm".into(),
        log: LogOptions { components: "dns:debug".parse().unwrap(), ..LogOptions::default() },
        node: NodeOptions { zone: "zz".into(), ..NodeOptions::default() },
        admin_address_path: None,
        admin_allowed_hosts: vec!["admin.example".into()],
        file_flush: proxy_runtime::log_file::FlushOptions::default(),
        drain_time: Duration::from_secs(600),
        shutdown_time: Duration::from_secs(25),
        allow_unsupported: false,
        environment: None,
        allocator: Allocator::System,
    }
}

/// A log that nothing is written to: no subscriber is installed.
pub(super) fn log() -> (Log, LogGuard) {
    crate::logging::detached(&options().log)
}

fn ip(address: &str) -> SocketAddress {
    SocketAddress::Ip(address.parse::<SocketAddr>().unwrap())
}

fn pipe(path: &str) -> SocketAddress {
    SocketAddress::Pipe { path: path.into(), abstract_name: false, mode: 0 }
}

fn host(address: SocketAddress, hostname: &str, health: EndpointHealth) -> HostStatus {
    HostStatus {
        address,
        hostname: hostname.into(),
        health,
        weight: 1,
        region: String::new(),
        zone: String::new(),
        sub_zone: String::new(),
        priority: 0,
        counters: HostCounters::default(),
    }
}

fn in_locality(host: HostStatus) -> HostStatus {
    HostStatus { region: "r".into(), zone: "z".into(), sub_zone: "s".into(), ..host }
}

fn cluster(name: &str, max_connections: u32, hosts: Vec<HostStatus>) -> ClusterStatus {
    let limits = CircuitBreaker::default();
    ClusterStatus {
        name: name.into(),
        alt_stat_name: None,
        added_via_api: false,
        circuit_breakers: [CircuitBreaker { max_connections, ..limits }, limits],
        hosts,
    }
}

impl AdminState for Process {
    fn server(&self) -> ServerStatus {
        ServerStatus {
            state: if self.healthy.get() { ServerState::Live } else { ServerState::Draining },
            uptime: Duration::from_millis(3900),
            uptime_all_epochs: Duration::from_secs(65),
            epoch: 3,
            hot_restart_initializing: false,
            node: Node {
                id: "test-id".into(),
                cluster: "test-cluster".into(),
                region: "r".into(),
                zone: "zz".into(),
                sub_zone: String::new(),
            },
        }
    }

    fn listeners(&self) -> Vec<ListenerStatus> {
        let all =
            [("six", ip("[::1]:29101")), ("two", ip("127.0.0.1:29102")), ("uds", pipe("/run/uds.sock"))];
        let mut all = all.map(|(name, address)| ListenerStatus {
            name: name.into(),
            address,
            additional_addresses: Vec::new(),
        });
        all[2].additional_addresses = vec![ip("127.0.0.2:39533"), pipe("@abstract")];
        all.into()
    }

    fn clusters(&self) -> Vec<Arc<str>> {
        vec!["one".into(), "gone".into(), "two".into()]
    }

    fn cluster(&self, name: &str) -> Option<ClusterStatus> {
        use EndpointHealth::{Degraded, Draining, Healthy, Unhealthy};
        match name {
            "one" => {
                let hosts = vec![
                    in_locality(HostStatus { weight: 3, ..host(ip("[::1]:29010"), "localhost", Healthy) }),
                    in_locality(host(ip("[::1]:29011"), "foo", Degraded)),
                    HostStatus { priority: 1, ..host(ip("127.0.0.1:29012"), "127.0.0.1", Unhealthy) },
                    HostStatus { priority: 1, ..host(ip("127.0.0.1:29013"), "127.0.0.1", Draining) },
                ];
                Some(cluster("one", 5, hosts))
            }
            "two" => {
                let hosts =
                    vec![host(pipe("/run/x.sock"), "", Healthy), host(ip("[::1]:29012"), "", Unhealthy)];
                Some(ClusterStatus { alt_stat_name: Some("alt".into()), ..cluster("two", 1024, hosts) })
            }
            _ => None,
        }
    }

    fn stats(&self) -> Stats {
        let of_length = HistogramBuckets {
            matcher: StringMatcher {
                pattern: StringPattern::Suffix((*b"cx_length_ms").into()),
                ignore_case: false,
            },
            bounds: [100.0, 250_000.0].into(),
        };
        let buckets = if self.own_buckets.get() { vec![of_length] } else { Vec::new() };
        Stats {
            store: self.store.clone(),
            others: Default::default(),
            tags: Arc::new(TagExtractor::default()),
            buckets: buckets.into(),
        }
    }

    fn reset_counters(&self) {
        self.store.reset_counters();
    }

    fn config_dump(&self) -> ConfigDump {
        let last_updated = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_409_905_118);
        let resource = |kind, name: &str, message: &str| {
            let json =
                json!({ "@type": format!("type.googleapis.com/envoy.config.{message}"), "name": name });
            ConfigResource { kind, name: name.into(), last_updated, json: Box::new(move || json) }
        };
        let bootstrap = ConfigResource {
            kind: ConfigKind::Bootstrap,
            name: String::new(),
            last_updated,
            json: Box::new(|| json!({ "node": { "id": "test-id" } })),
        };
        let clusters =
            ["one", "two"].map(|name| resource(ConfigKind::StaticCluster, name, "cluster.v3.Cluster"));
        let listener = resource(ConfigKind::StaticListener, "six", "listener.v3.Listener");
        ConfigDump { resources: [bootstrap].into_iter().chain(clusters).chain([listener]).collect() }
    }

    fn memory(&self) -> Memory {
        Memory {
            allocated: 6_290_976,
            heap_size: 12_582_912,
            pageheap_unmapped: 0,
            pageheap_free: 4_939_776,
            total_thread_cache: 512_280,
            total_physical_bytes: 15_657_790,
        }
    }

    fn set_healthy(&self, healthy: bool) {
        self.healthy.set(healthy);
    }

    fn log_levels_changed(&self, levels: &str) {
        self.asked.borrow_mut().push(format!("log levels {levels}"));
    }

    fn drain_listeners(&self, request: DrainListeners) {
        self.asked.borrow_mut().push(format!("{request:?}"));
    }

    fn reopen_logs(&self) {
        self.asked.borrow_mut().push("ReopenLogs".to_owned());
    }

    fn generation(&self) -> Status {
        Status {
            state: Standing::Leads,
            epoch: 3,
            version: "0.1.0".to_owned(),
            pid: 42,
            connections: 5,
            age_ms: 3900,
            private_stats: false,
        }
    }

    fn restart(&self, request: RestartRequest) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        self.asked.borrow_mut().push(format!("{request:?}"));
        let (tell, lines) = mpsc::channel(2);
        for line in ["{\"step\":\"validated\",\"elapsed_ms\":1}\n", "{\"step\":\"leads\",\"elapsed_ms\":2}\n"]
        {
            tell.try_send(line.into()).unwrap();
        }
        Ok(lines)
    }

    fn roll_back(&self) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        Err(Refusal::Busy("another restart is under way"))
    }

    fn reload(&self, _: bool) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        Err(Refusal::Never("not in this test"))
    }

    fn shut_down(&self, how: ShutDown) {
        self.asked.borrow_mut().push(format!("{how:?}"));
    }
}
