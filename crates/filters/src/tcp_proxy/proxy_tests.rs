use std::net::SocketAddr;
use std::time::Duration;

use proxy_config::settings::{CircuitBreaker, EndpointHealth, Metadata};
use proxy_net::{Address, ConnectionId, ConnectionInfo, Io};
use proxy_runtime::{WorkerIndex, clock, local_runtime};
use proxy_stats::{Store, StoreOptions};
use proxy_upstream::{ClusterInfo, Host, HostAttributes, HostSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

struct Fixture {
    store: Store,
    proxy: Rc<TcpProxy>,
}

fn tcp_settings() -> settings::TcpProxy {
    settings::TcpProxy {
        stat_prefix: "t".to_owned(),
        clusters: Vec::new(),
        idle_timeout: None,
        max_duration: None,
        tunneling: None,
        max_connect_attempts: 1,
        access_logs: Arc::default(),
        access_log_options: settings::AccessLogOptions::default(),
    }
}

fn cluster_settings() -> settings::Cluster {
    settings::Cluster {
        name: "c".into(),
        alt_stat_name: None,
        discovery: settings::Discovery::Static,
        connect_timeout: Duration::from_secs(5),
        buffer_limit: 1 << 20,
        lb_policy: settings::LbPolicy::RoundRobin,
        localities: Vec::new(),
        circuit_breakers: [CircuitBreaker { max_connections: 1, ..CircuitBreaker::default() }; 2],
        protocol: settings::UpstreamProtocol::Http1,
        http1: settings::Http1Options::default(),
        idle_timeout: None,
        max_requests_per_connection: None,
        max_connection_duration: None,
        max_response_headers: 100,
        max_response_header_bytes: 60 * 1024,
        tcp_keepalive: None,
        source_address: None,
        freebind: false,
        socket_options: Vec::new(),
        stats_matcher: None,
        metadata: Metadata::default(),
    }
}

/// A proxy to one host behind a breaker of one connection.
fn fixture(settings: settings::TcpProxy, host: Option<SocketAddr>) -> Fixture {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let (root, id, worker) = (store.root(), ClusterId(0), WorkerIndex(0));
    let attributes = HostAttributes {
        hostname: "",
        weight: 1,
        priority: 0,
        health: EndpointHealth::Healthy,
        region: "",
        zone: "",
        sub_zone: "",
        metadata: &Metadata::default(),
    };
    let hosts = host.into_iter().map(|host| Arc::new(Host::new(Address::from(host), attributes, 1)));
    let hosts = HostSet { hosts: hosts.collect() };
    let info = Arc::new(ClusterInfo::new(id, Arc::new(cluster_settings()), &root));
    let clusters = Rc::new(ClusterMap::default());
    clusters.insert(Rc::new(Cluster::new(info, worker, &hosts)));
    let stats = Arc::new(TcpStats::new(&root, "t"));
    let logs = TcpLogs::default();
    let proxy =
        Rc::new(TcpProxy::new(Arc::new(settings), vec![(id, 1)], clusters, stats, logs, Rc::default()));
    Fixture { store, proxy }
}

impl Fixture {
    fn stat(&self, name: &str) -> u64 {
        self.store.value(name).unwrap_or_else(|| panic!("no stat {name}"))
    }

    async fn serve(&self, connection: Connection) -> Result<(), CloseReason> {
        self.proxy.serve(connection, NextNetwork::new(&[])).await
    }
}

async fn connected() -> (TcpStream, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(local), listener.accept());
    let (stream, peer) = accepted.unwrap();
    let (started, started_at) = (clock::now(), clock::system_now());
    let (local, peer) = (Address::from(local), Address::from(peer));
    let info = ConnectionInfo::accepted(ConnectionId(0), "main".into(), local, peer, started, started_at);
    (client.unwrap(), Connection::new(Io::Tcp(stream), Rc::new(info)))
}

async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn run(test: impl Future<Output = ()>) {
    local_runtime().unwrap().block_on(test);
}

#[test]
fn bytes_and_connections_are_counted_on_both_sides() {
    run(async {
        let (listener, address) = server().await;
        let fixture = fixture(tcp_settings(), Some(address));
        let (mut client, connection) = connected().await;
        let ends = async {
            client.write_all(b"hello").await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut got = [0; 5];
            stream.read_exact(&mut got).await.unwrap();
            assert_eq!(fixture.stat("cluster.c.upstream_rq_active"), 1);
            stream.write_all(b"hi").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(stream.read(&mut got).await.unwrap(), 0);
            drop(stream);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"hi");
        };
        let (served, ()) = tokio::join!(fixture.serve(connection), ends);
        served.unwrap();
        for (name, value) in [
            ("tcp.t.downstream_cx_total", 1),
            ("tcp.t.downstream_cx_rx_bytes_total", 5),
            ("tcp.t.downstream_cx_tx_bytes_total", 2),
            ("tcp.t.downstream_cx_rx_bytes_buffered", 0),
            ("cluster.c.upstream_cx_tx_bytes_total", 5),
            ("cluster.c.upstream_cx_rx_bytes_total", 2),
            ("cluster.c.upstream_cx_total", 1),
            ("cluster.c.upstream_cx_active", 0),
            ("cluster.c.upstream_cx_destroy_remote_with_active_rq", 1),
            ("cluster.c.upstream_rq_pending_total", 1),
            ("cluster.c.upstream_rq_total", 1),
            ("cluster.c.upstream_rq_active", 0),
        ] {
            assert_eq!(fixture.stat(name), value, "{name}");
        }
    });
}

#[test]
fn deadlines_end_a_connection() {
    let limit = Some(Duration::from_millis(50));
    let idle = settings::TcpProxy { idle_timeout: limit, ..tcp_settings() };
    let duration = settings::TcpProxy { max_duration: limit, ..tcp_settings() };
    for (settings, reason, stat) in [
        (idle, Limit::Idle, "tcp.t.idle_timeout"),
        (duration, Limit::Duration, "tcp.t.max_downstream_connection_duration"),
    ] {
        run(async {
            let (_listener, address) = server().await;
            let fixture = fixture(settings, Some(address));
            let (mut client, connection) = connected().await;
            let served = fixture.serve(connection).await;
            assert!(matches!(served, Err(CloseReason::Timeout(limit)) if limit == reason), "{served:?}");
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(fixture.stat(stat), 1);
            assert_eq!(fixture.stat("cluster.c.upstream_cx_destroy_local_with_active_rq"), 1);
        });
    }
}

#[test]
fn without_an_upstream_the_client_is_closed() {
    run(async {
        let (listener, address) = server().await;
        drop(listener);
        for (host, stats) in [
            (None, [("upstream_cx_none_healthy", 1), ("upstream_cx_total", 0), ("upstream_cx_destroy", 0)]),
            (
                Some(address),
                [
                    ("upstream_cx_connect_fail", 3),
                    ("upstream_cx_connect_attempts_exceeded", 1),
                    ("upstream_rq_pending_failure_eject", 3),
                ],
            ),
        ] {
            let settings = settings::TcpProxy { max_connect_attempts: 3, ..tcp_settings() };
            let fixture = fixture(settings, host);
            let (mut client, connection) = connected().await;
            let served = fixture.serve(connection).await;
            assert!(matches!(served, Err(CloseReason::NoUpstream(_))), "{served:?}");
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            for (name, value) in stats {
                assert_eq!(fixture.stat(&format!("cluster.c.{name}")), value, "{name}");
            }
        }
    });
}

#[test]
fn a_cluster_that_does_not_exist_is_no_route() {
    run(async {
        let fixture = fixture(tcp_settings(), None);
        let stats = Arc::clone(&fixture.proxy.stats);
        let targets = vec![(ClusterId(7), 1)];
        let logs = TcpLogs::default();
        let proxy =
            TcpProxy::new(Arc::new(tcp_settings()), targets, Rc::default(), stats, logs, Rc::default());
        let (mut client, connection) = connected().await;
        let served = proxy.serve(connection, NextNetwork::new(&[])).await;
        assert!(matches!(served, Err(CloseReason::NoRoute(_))), "{served:?}");
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(fixture.stat("tcp.t.downstream_cx_no_route"), 1);
    });
}

#[test]
fn a_full_cluster_refuses_and_lets_others_be() {
    run(async {
        let (listener, address) = server().await;
        let fixture = fixture(tcp_settings(), Some(address));
        let (client, first) = connected().await;
        let (mut refused, second) = connected().await;
        let others = async {
            let (stream, _) = listener.accept().await.unwrap();
            // Reached only once the first connection counts.
            let served = fixture.serve(second).await;
            assert!(matches!(served, Err(CloseReason::NoUpstream(_))), "{served:?}");
            assert_eq!(refused.read(&mut [0]).await.unwrap(), 0);
            assert_eq!(fixture.stat("cluster.c.upstream_cx_overflow"), 1);
            drop((client, stream));
        };
        let (served, ()) = tokio::join!(fixture.serve(first), others);
        served.unwrap();
    });
}

#[test]
fn an_idle_connection_is_small() {
    let size = size_of::<Session>();
    assert!(size <= 512, "{size}");
    let fixture = fixture(tcp_settings(), None);
    run(async {
        let (_client, connection) = connected().await;
        let size = size_of_val(&*fixture.proxy.serve(connection, NextNetwork::new(&[])));
        assert!(size <= 768, "{size}");
    });
}

#[test]
fn weights_are_shares() {
    let weights = [3, 0, 2];
    let chosen: Vec<_> = (0..6).map(|point| weighted(weights.into_iter(), point)).collect();
    assert_eq!(chosen, [Some(0), Some(0), Some(0), Some(2), Some(2), None]);
    assert_eq!(weighted([].into_iter(), 0), None);
}
