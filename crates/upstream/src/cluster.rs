//! Clusters: what all threads share of one, and a worker's own part with balancer and pools.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use proxy_config::settings::{self, Metadata};
use proxy_http::h1::stats::CODEC_DECLARED;
use proxy_http::h2::Http2Stats;
use proxy_http::route::ClusterId;
use proxy_net::{Address, ConnectOptions, UpstreamHost};
use proxy_runtime::WorkerIndex;
use proxy_stats::Scope;

use crate::balancer::RoundRobin;
use crate::breaker::Breakers;
use crate::h2;
use crate::host::{Host, HostSet, HostStat};
use crate::pool::Pool;
use crate::stats::{CLUSTER_DECLARED, ClusterStats, ResponseStats, ThreadClusterStats};

/// What does not change while a cluster lives; shared by all threads.
pub struct ClusterInfo {
    pub id: ClusterId,
    pub settings: Arc<settings::Cluster>,
    pub scope: Scope,
    pub stats: ClusterStats,
    pub breakers: Arc<Breakers>,
    /// How connections to its hosts are opened.
    pub connect: ConnectOptions,
    http1: OnceLock<Scope>,
    http2: OnceLock<Http2Stats>,
}

impl ClusterInfo {
    /// `root` is the scope of the whole store.
    pub fn new(id: ClusterId, settings: Arc<settings::Cluster>, root: &Scope) -> ClusterInfo {
        let scope = root.scope(&format!("cluster.{}.", settings.stat_name()));
        let stats = ClusterStats::new(&scope);
        scope.declare(&CLUSTER_DECLARED);
        let breakers = Breakers::new(&settings.circuit_breakers, &scope);
        let connect = ConnectOptions {
            source: settings.source_address.as_ref().map(Address::from),
            freebind: settings.freebind,
            keepalive: settings.tcp_keepalive,
            socket_options: settings.socket_options.clone(),
        };
        let (http1, http2) = (OnceLock::new(), OnceLock::new());
        ClusterInfo { id, settings, scope, stats, breakers, connect, http1, http2 }
    }

    /// Makes `cluster.<name>.http1.*`, there from the first connection of HTTP/1 on, as in Envoy.
    pub(crate) fn declare_http1_stats(&self) {
        self.http1.get_or_init(|| {
            let scope = self.scope.scope("http1.");
            scope.declare(&CODEC_DECLARED);
            scope
        });
    }

    /// `cluster.<name>.http2.*`, there from the first connection of HTTP/2 on, as in Envoy.
    pub fn http2_stats(&self) -> &Http2Stats {
        self.http2.get_or_init(|| Http2Stats::under(&self.scope))
    }
}

/// A worker's cluster.
pub struct Cluster {
    pub info: Arc<ClusterInfo>,
    pub worker: WorkerIndex,
    hosts: RefCell<Vec<Rc<WorkerHost>>>,
    balancer: RefCell<RoundRobin>,
    responses: OnceCell<Box<ResponseStats>>,
}

/// A worker's host: the pool of connections to it.
pub struct WorkerHost {
    pub host: Arc<Host>,
    pub cluster: Arc<ClusterInfo>,
    pub worker: WorkerIndex,
    pub pool: Pool,
    pub http2: h2::Pool,
    /// Out of the cluster's host set: connections close when their streams end.
    pub retired: Cell<bool>,
}

impl Cluster {
    pub fn new(info: Arc<ClusterInfo>, worker: WorkerIndex, hosts: &HostSet) -> Cluster {
        let cluster = Cluster {
            info,
            worker,
            hosts: RefCell::default(),
            balancer: RefCell::default(),
            responses: OnceCell::new(),
        };
        cluster.set_hosts(hosts);
        cluster
    }

    /// Takes over a new host set; pools of hosts that stay are kept.
    pub fn set_hosts(&self, new: &HostSet) {
        let old = std::mem::take(&mut *self.hosts.borrow_mut());
        let mut known: HashMap<*const Host, Rc<WorkerHost>> =
            old.into_iter().map(|host| (Arc::as_ptr(&host.host), host)).collect();
        let hosts: Vec<_> = new
            .hosts
            .iter()
            .map(|host| {
                known.remove(&Arc::as_ptr(host)).unwrap_or_else(|| {
                    Rc::new(WorkerHost {
                        host: Arc::clone(host),
                        cluster: Arc::clone(&self.info),
                        worker: self.worker,
                        pool: Pool::default(),
                        http2: h2::Pool::default(),
                        retired: Cell::new(false),
                    })
                })
            })
            .collect();
        known.values().for_each(|host| host.retire());
        *self.balancer.borrow_mut() = RoundRobin::new(&hosts);
        *self.hosts.borrow_mut() = hosts;
    }

    /// The host whose turn it is, or `None` when none may be used.
    pub fn pick(&self) -> Option<Rc<WorkerHost>> {
        let index = self.balancer.borrow_mut().next()?;
        self.hosts.borrow().get(index).cloned()
    }

    /// The host at this address, as [`proxy_net::Address`] writes it, whether it may be used or not.
    pub fn host_at(&self, address: &str) -> Option<Rc<WorkerHost>> {
        self.hosts.borrow().iter().find(|host| host.host.address.to_string() == address).cloned()
    }

    /// Counts a response, also one made here; `internal`: to a request from inside.
    pub fn count_response(&self, status: u16, internal: bool) {
        self.responses().count(status, internal);
    }

    /// Notes how long after the end of its request a host's response had come whole.
    pub fn record_response_time(&self, time: Duration, internal: bool) {
        self.responses().record_time(time, internal);
    }

    fn responses(&self) -> &ResponseStats {
        self.responses.get_or_init(|| Box::new(ResponseStats::new(&self.info.scope)))
    }

    /// The cluster has been removed: connections close when their streams end.
    pub fn retire(&self) {
        self.hosts.borrow().iter().for_each(|host| host.retire());
    }
}

impl UpstreamHost for WorkerHost {
    fn address(&self) -> &Address {
        &self.host.address
    }

    fn hostname(&self) -> &str {
        &self.host.hostname
    }

    fn metadata(&self) -> &Metadata {
        &self.host.metadata
    }
}

impl WorkerHost {
    pub fn add(&self, stat: HostStat, by: i64) {
        self.host.add(self.worker, stat, by);
    }

    fn retire(&self) {
        self.retired.set(true);
        self.pool.clear();
        self.http2.clear();
    }
}

/// A worker's clusters by number. Names are looked up only where a request names its cluster (`cluster_header`).
#[derive(Default)]
pub struct ClusterMap {
    by_id: RefCell<Vec<Option<Rc<Cluster>>>>,
    by_name: RefCell<HashMap<Arc<str>, ClusterId>>,
    stats: Option<ThreadClusterStats>,
}

impl ClusterMap {
    /// An empty one whose clusters are counted.
    pub fn counted(stats: ThreadClusterStats) -> ClusterMap {
        ClusterMap { stats: Some(stats), ..ClusterMap::default() }
    }

    fn count(&self) {
        if let Some(stats) = &self.stats {
            stats.clusters_inflated.set(self.by_name.borrow().len() as u64);
        }
    }

    pub fn get(&self, id: ClusterId) -> Option<Rc<Cluster>> {
        self.by_id.borrow().get(id.0 as usize)?.clone()
    }

    pub fn find(&self, name: &str) -> Option<Rc<Cluster>> {
        let id = *self.by_name.borrow().get(name)?;
        self.get(id)
    }

    /// Adds a cluster, in place of one with the same number.
    pub fn insert(&self, cluster: Rc<Cluster>) {
        let id = cluster.info.id;
        self.by_name.borrow_mut().insert(Arc::clone(&cluster.info.settings.name), id);
        self.count();
        let mut by_id = self.by_id.borrow_mut();
        if by_id.len() <= id.0 as usize {
            by_id.resize(id.0 as usize + 1, None);
        }
        if let Some(old) = by_id[id.0 as usize].replace(cluster) {
            drop(by_id);
            old.retire();
        }
    }

    pub fn remove(&self, id: ClusterId) {
        let removed = self.by_id.borrow_mut().get_mut(id.0 as usize).and_then(Option::take);
        if let Some(cluster) = removed {
            self.by_name.borrow_mut().remove(&cluster.info.settings.name);
            self.count();
            cluster.retire();
        }
    }
}
