//! Any bytes as what a hot restart's messages carry: connections of another process. What is taken goes on as it would on a
//! worker, and is offered again, to be taken again.
//!
//! The first byte says what the rest is: a message, the state of a `tcp_proxy`'s connection, or that of a tunnel of a
//! connection manager; how many descriptors came with it; and whether the connection is offered again.
#![no_main]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use proxy_config::lower::LowerOptions;
use proxy_config::settings::{self, EndpointHealth, Metadata, NetworkFilterConfig};
use proxy_config::{LoadInputs, load};
use proxy_control::restart::message::{Body, Envelope};
use proxy_filters::extensions::Extensions;
use proxy_filters::hcm::{HttpConnectionManager, HttpStats, ManagerContext, ManagerLogs};
use proxy_filters::http::{FilterChains, ProcessFacts};
use proxy_filters::tcp_proxy::{TcpLogs, TcpProxy, TcpStats};
use proxy_http::access_log::{AccessLogPlan, AccessLogs};
use proxy_http::route::ClusterId;
use proxy_net::buffer::ReadBuffer;
use proxy_net::{
    Address, Connection, ConnectionId, ConnectionInfo, Handover, Io, MovedConnection, MovedKind,
    NetworkFilter, NextNetwork, StreamRecord,
};
use proxy_runtime::log_file::{Destination, FlushOptions, LogFiles};
use proxy_runtime::{Drain, Slot, WorkerIndex, Workers, WorkersOptions, clock, local_runtime};
use proxy_stats::{Scope, Store, StoreOptions};
use proxy_upstream::{Cluster, ClusterInfo, ClusterMap, ClusterNames, Host, HostAttributes, HostSet};
use tokio::runtime::LocalRuntime;
use tokio::sync::mpsc;

fuzz_target!(|data: &[u8]| {
    let Some((form, bytes)) = data.split_first() else { return };
    let now = clock::now();
    let (kind, id) = (form % 3, ConnectionId(7));
    let moved = match kind {
        0 => match Envelope::decode(bytes) {
            Ok(Envelope { body: Some(Body::Offer(offer)) }) => MovedConnection::decode(&*offer.state).ok(),
            _ => None,
        },
        1 => Some(told(MovedKind::Relay, bytes)),
        _ => Some(told(MovedKind::Upgraded, bytes)),
    };
    let Some(moved) = moved else { return };
    let Some(mut info) = moved.info(id, Rc::from(&*moved.listener), now) else { return };
    thread_local!(static WORKER: Worker = Worker::new());
    WORKER.with(|worker| {
        // As the listener does it for a `tcp_proxy` with a log.
        info.record = Some(Rc::new(StreamRecord::new(info.started)));
        worker.handover.end();
        for filter in &worker.filters {
            if filter.takes(&moved, &info) {
                worker.go_on(
                    filter,
                    moved.clone(),
                    info.clone(),
                    usize::from(form / 6 % 7),
                    form / 3 % 2 == 1,
                );
            }
        }
    });
});

/// A connection that another process tells of, with `state` of its filter.
fn told(kind: MovedKind, state: &[u8]) -> MovedConnection {
    let address = |text: &str| Address::Ip(text.parse().unwrap());
    let (local, remote) = (address("10.1.2.3:80"), address("[fe80::1]:4321"));
    let started = clock::now();
    let info = ConnectionInfo::accepted(ConnectionId(1), Rc::from("web"), local, remote, started, UNIX_EPOCH);
    MovedConnection::new(&info, &ReadBuffer::new(), kind, state.to_vec(), started)
}

/// What takes connections on a worker: a `tcp_proxy` and a connection manager, both with logs.
struct Worker {
    filters: [Rc<dyn NetworkFilter>; 2],
    handover: Rc<Handover>,
    runtime: LocalRuntime,
    _workers: Workers,
}

impl Worker {
    fn new() -> Worker {
        let runtime = local_runtime().unwrap();
        let workers = Workers::start(WorkersOptions { concurrency: 1, measured: false }, |_| {});
        let inputs = LoadInputs { yaml_override: Some(CONFIGURATION.to_owned()), ..LoadInputs::default() };
        let settings = load(&inputs, &LowerOptions::default()).unwrap().settings;
        let root = Store::create(StoreOptions::private(1)).unwrap().root();
        let (clusters, handover) = (clusters(&settings.clusters[0], &root), Rc::<Handover>::default());
        let filters = &settings.listeners[0].chains[0].filters;
        let (NetworkFilterConfig::TcpProxy(tcp), NetworkFilterConfig::HttpConnectionManager(manager)) =
            (&filters[0].config, &settings.listeners[1].chains[0].filters[0].config)
        else {
            unreachable!()
        };
        let files = LogFiles::new(&root, FlushOptions::default());
        let logs = |settings: &Arc<[settings::AccessLog]>| {
            let files = settings.iter().map(|_| files.open(&Destination::File("/dev/null".into())).unwrap());
            AccessLogs::new(&AccessLogPlan { settings: Arc::clone(settings), files: files.collect() })
        };
        let tcp_proxy = TcpProxy::new(
            Arc::clone(tcp),
            vec![(ClusterId(0), 1)],
            Rc::clone(&clusters),
            Arc::new(TcpStats::new(&root, "t")),
            TcpLogs { access: logs(&tcp.access_logs), ..TcpLogs::default() },
            Rc::clone(&handover),
        );
        let (names, stats) = (ClusterNames::default(), Arc::new(HttpStats::new(&root, &root, "h")));
        names.id(&settings.clusters[0].name);
        let process = ProcessFacts { cluster: "".into(), healthy: Arc::default() };
        let chains =
            FilterChains::new(manager, &root, &stats, &names, &process, &Extensions::default()).unwrap();
        let routes = chains.route_table(Arc::clone(&manager.routes), &names);
        let context = ManagerContext {
            clusters,
            routes: Slot::new(&workers, Arc::new(routes)).reader(),
            local_address: None,
            stats,
            logs: ManagerLogs {
                access: logs(&manager.access_logs),
                upstream: vec![logs(&chains.default_chain().router().upstream_logs)],
                ..ManagerLogs::default()
            },
            buffer_limit: 1 << 20,
            drain: Drain::new(),
            closing: Drain::new(),
            cut: Rc::default(),
            handover: Rc::clone(&handover),
        };
        let manager = HttpConnectionManager::new(Arc::clone(manager), &chains, context);
        Worker { filters: [Rc::new(tcp_proxy), Rc::new(manager)], handover, runtime, _workers: workers }
    }

    /// Has `filter` go on with a connection, while both peers say something and end.
    fn go_on(
        &self,
        filter: &Rc<dyn NetworkFilter>,
        moved: MovedConnection,
        info: ConnectionInfo,
        descriptors: usize,
        offered: bool,
    ) {
        self.runtime.block_on(async {
            let (client, downstream) = pair();
            let (host, upstream) = pair();
            let pipes = [nix::unistd::pipe(), nix::unistd::pipe()].into_iter().flat_map(|pipe| {
                let (read, write) = pipe.unwrap();
                nix::unistd::write(&write, &[b'p'; 100]).unwrap();
                [read, write]
            });
            let beside: Vec<OwnedFd> =
                std::iter::once(upstream.into()).chain(pipes).take(descriptors).collect();
            let (prefix, moved) = moved.into_parts(beside, clock::now());
            let io = Io::from_descriptor(downstream.into()).unwrap();
            let connection = Connection { io, prefix, info: Rc::new(info), moved: Some(Box::new(moved)) };
            let (offers, mut offers_made) = mpsc::unbounded_channel();
            if offered {
                self.handover.begin(offers);
            }
            let mut serving = pin!(filter.serve(connection, NextNetwork::new(&[])));
            for said in [&b"hello"[..], b""] {
                for mut peer in [&client, &host] {
                    // It may have been closed already.
                    let _ = std::io::Write::write_all(&mut peer, said);
                    if said.is_empty() {
                        let _ = peer.shutdown(std::net::Shutdown::Both);
                    }
                }
                for _ in 0..TURNS {
                    tokio::select! {
                        biased;
                        _ = &mut serving => return,
                        Some(offer) = offers_made.recv() => self.takes_again(filter, &offer.state),
                        () = tokio::task::yield_now() => {}
                    }
                }
            }
        });
    }

    fn takes_again(&self, filter: &Rc<dyn NetworkFilter>, state: &[u8]) {
        let moved = MovedConnection::decode(state).unwrap();
        let info = moved.info(ConnectionId(8), Rc::from("web"), clock::now()).unwrap();
        assert!(filter.takes(&moved, &info), "a connection that was taken and cannot go on");
    }
}

/// One host, which is where connections of the seeds go.
fn clusters(settings: &Arc<settings::Cluster>, root: &Scope) -> Rc<ClusterMap> {
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
    let host = Host::new(Address::Ip("127.0.0.1:9".parse().unwrap()), attributes, 1);
    let info = Arc::new(ClusterInfo::new(ClusterId(0), Arc::clone(settings), root));
    let clusters = Rc::new(ClusterMap::default());
    let hosts = HostSet { hosts: vec![Arc::new(host)] };
    clusters.insert(Rc::new(Cluster::new(info, WorkerIndex(0), &hosts)));
    clusters
}

fn pair() -> (UnixStream, UnixStream) {
    let (peer, ours) = UnixStream::pair().unwrap();
    for stream in [&peer, &ours] {
        stream.set_nonblocking(true).unwrap();
    }
    (peer, ours)
}

/// Looks at the sockets after each thing that is said.
const TURNS: usize = 4;

const CONFIGURATION: &str = r#"
static_resources:
  clusters:
  - name: c
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: &host {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]}
  listeners:
  - name: tcp
    address: &address {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: c
          access_log: &log
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/null
              log_format: {text_format_source: {inline_string: "%START_TIME% %DURATION% %COMMON_DURATION(DS_RX_BEG:US_TX_END:us)% %REQ(:PATH)% %RESP(x)% %BYTES_SENT% %UPSTREAM_WIRE_BYTES_SENT% %RESPONSE_CODE% %UPSTREAM_HOST% %UPSTREAM_PROTOCOL% %UPSTREAM_CONNECTION_POOL_READY_DURATION% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n"}}
  - name: http
    address: *address
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          upgrade_configs: [{upgrade_type: websocket}]
          access_log: *log
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, upstream_log: *log}
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}
"#;
