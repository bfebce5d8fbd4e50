//! The cluster manager: what clusters there are, their hosts, and getting both to the workers.
//!
//! Lives on main. A cluster is published once it is warm (its hosts are known, or looking them up has failed once);
//! an update warms beside the one in use and takes its place. Static files use the same calls as discovery will.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use proxy_config::settings::{self, Discovery};
use proxy_runtime::{WorkerIndex, Workers, worker_local};
use proxy_stats::{Gauge, Scope, Store, stats_block};
use proxy_upstream::dns::Resolver;
use proxy_upstream::stats::ThreadClusterStats;
use proxy_upstream::{Cluster, ClusterInfo, ClusterMap, ClusterNames, HostSet};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::discovery::{self, Hosts};
use crate::reclaim::Reclaimer;
use crate::stats_config;

stats_block! {
    /// `cluster_manager.*`.
    pub struct ClusterManagerStats {
        counters: cluster_added, cluster_modified, cluster_removed, cluster_updated, cluster_updated_via_merge,
            update_merge_cancelled, update_out_of_merge_window;
        gauges: active_clusters: NeverImport, warming_clusters: NeverImport;
    }
}

/// All clusters of the process.
pub struct ClusterManager {
    workers: Rc<Workers>,
    names: ClusterNames,
    reclaimer: Reclaimer,
    root: Scope,
    stats: ClusterManagerStats,
    main_thread: ThreadClusterStats,
    resolver: Option<Resolver>,
    clusters: RefCell<HashMap<Arc<str>, Entry>>,
    /// Names in the order in which they were added.
    order: RefCell<Vec<Arc<str>>>,
    warming: Rc<watch::Sender<usize>>,
    version: Cell<u64>,
}

/// A cluster as main knows it.
struct Entry {
    info: Arc<ClusterInfo>,
    hosts: Arc<HostSet>,
    /// Counts updates of the name: an answer for an older one is dropped.
    version: u64,
    task: Option<AbortHandle>,
}

/// A cluster that waits for its first hosts. Dropped with the task that looks them up, also where an update or a
/// removal cuts that short.
struct Warming {
    count: Rc<watch::Sender<usize>>,
    clusters: Gauge,
    info: Arc<ClusterInfo>,
}

impl Drop for Warming {
    fn drop(&mut self) {
        // Counted, not set: an update may be warming under the same name already.
        self.info.stats.warming_state.dec();
        self.clusters.dec();
        self.count.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl ClusterManager {
    /// `resolver` is `None` where the system gave none; clusters found by name then stay without hosts.
    pub fn new(
        workers: Rc<Workers>,
        store: Store,
        names: ClusterNames,
        resolver: Option<Resolver>,
    ) -> Rc<Self> {
        let root = store.root();
        let scope = root.scope("cluster_manager.");
        Rc::new(ClusterManager {
            names,
            stats: ClusterManagerStats::new(&scope),
            main_thread: ThreadClusterStats::of_thread(&root, "main_thread"),
            root,
            reclaimer: Reclaimer::new(store, Rc::clone(&workers)),
            workers,
            resolver,
            clusters: RefCell::default(),
            order: RefCell::default(),
            warming: Rc::new(watch::Sender::new(0)),
            version: Cell::new(0),
        })
    }

    /// Adds clusters, or updates those whose names are known.
    pub fn add(self: &Rc<Self>, clusters: impl IntoIterator<Item = Arc<settings::Cluster>>) {
        let mut ready = Vec::new();
        for settings in clusters {
            let id = self.names.id(&settings.name);
            let root = stats_config::restricted(&self.root, settings.stats_matcher.as_ref());
            let info = Arc::new(ClusterInfo::new(id, settings, &root));
            let version = self.version.get() + 1;
            self.version.set(version);
            if self.clusters.borrow().contains_key(&info.settings.name) {
                self.stats.cluster_modified.inc();
            } else {
                self.stats.cluster_added.inc();
                self.order.borrow_mut().push(Arc::clone(&info.settings.name));
            }
            let workers = self.workers.count();
            match &info.settings.discovery {
                Discovery::Static => {
                    let hosts = Arc::new(discovery::static_hosts(&info, workers));
                    if !hosts.hosts.is_empty() {
                        info.stats.membership_change.inc();
                    }
                    ready.push((Arc::clone(&info), Arc::clone(&hosts)));
                    self.install(info, hosts, version, None);
                }
                Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) => {
                    self.warm(info.clone(), dns.clone(), version)
                }
            }
        }
        self.publish(ready);
        self.reclaimer.soon();
    }

    /// Removes a cluster; false when there is none of the name.
    pub fn remove(&self, name: &str) -> bool {
        let Some(entry) = self.clusters.borrow_mut().remove(name) else { return false };
        self.order.borrow_mut().retain(|n| **n != *name);
        let id = entry.info.id;
        self.stats.cluster_removed.inc();
        self.count_clusters();
        self.workers.post_all(move || {
            if let Some(map) = worker_local::get::<ClusterMap>() {
                map.remove(id);
            }
        });
        drop(entry);
        self.reclaimer.soon();
        true
    }

    /// Resolves when no cluster is warming.
    pub async fn warmed(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.warming.subscribe().wait_for(|n| *n == 0).await;
    }

    pub fn is_warming(&self) -> bool {
        *self.warming.borrow() > 0
    }

    /// Names in the order in which they were added.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.order.borrow().clone()
    }

    /// A cluster and its hosts.
    pub fn get(&self, name: &str) -> Option<(Arc<ClusterInfo>, Arc<HostSet>)> {
        self.clusters.borrow().get(name).map(|e| (Arc::clone(&e.info), Arc::clone(&e.hosts)))
    }

    fn install(&self, info: Arc<ClusterInfo>, hosts: Arc<HostSet>, version: u64, task: Option<AbortHandle>) {
        count_members(&info, &hosts);
        self.clusters
            .borrow_mut()
            .insert(Arc::clone(&info.settings.name), Entry { info, hosts, version, task });
        self.count_clusters();
    }

    fn count_clusters(&self) {
        let count = self.clusters.borrow().len() as u64;
        self.stats.active_clusters.set(count);
        self.main_thread.clusters_inflated.set(count);
    }

    /// Sends clusters to the workers, all in one message.
    fn publish(&self, clusters: Vec<(Arc<ClusterInfo>, Arc<HostSet>)>) {
        if clusters.is_empty() {
            return;
        }
        let clusters = Arc::new(clusters);
        for worker in self.workers.indexes() {
            let clusters = Arc::clone(&clusters);
            self.workers.post(worker, Box::new(move || insert(worker, &clusters)));
        }
    }

    /// Looks a cluster's hosts up, then again and again; the first answer makes it warm.
    fn warm(self: &Rc<Self>, info: Arc<ClusterInfo>, dns: settings::Dns, version: u64) {
        let first_of_name = !self.clusters.borrow().contains_key(&info.settings.name);
        let mut warming = Some(self.start_warming(&info));
        let manager = Rc::downgrade(self);
        let resolver = self.resolver.clone();
        let workers = self.workers.count();
        let of_task = Arc::clone(&info);
        let task = tokio::task::spawn_local(async move {
            let info = of_task;
            discovery::follow(resolver, Arc::clone(&info), dns, workers, |hosts| {
                let Some(manager) = manager.upgrade() else { return };
                manager.found(&info, hosts, version, warming.is_some());
                warming = None;
            })
            .await;
        });
        let handle = task.abort_handle();
        if first_of_name {
            self.install(info, Arc::default(), version, Some(handle));
        } else if let Some(entry) = self.clusters.borrow_mut().get_mut(&info.settings.name) {
            entry.version = version;
            if let Some(old) = entry.task.replace(handle) {
                old.abort();
            }
        }
    }

    fn start_warming(&self, info: &Arc<ClusterInfo>) -> Warming {
        info.stats.warming_state.inc();
        self.stats.warming_clusters.inc();
        self.warming.send_modify(|n| *n += 1);
        Warming {
            count: Rc::clone(&self.warming),
            clusters: self.stats.warming_clusters,
            info: Arc::clone(info),
        }
    }

    /// A look-up ended: hosts to use from now on, or none to tell of.
    fn found(&self, info: &Arc<ClusterInfo>, hosts: Hosts, version: u64, first: bool) {
        let hosts = {
            let mut clusters = self.clusters.borrow_mut();
            let Some(entry) = clusters.get_mut(&info.settings.name) else { return };
            if entry.version != version {
                return;
            }
            match hosts {
                Hosts::Unchanged if !first => return,
                Hosts::Unchanged => {}
                Hosts::New(hosts) => {
                    info.stats.membership_change.inc();
                    self.stats.cluster_updated.inc();
                    entry.hosts = Arc::new(hosts);
                }
            }
            entry.info = Arc::clone(info);
            count_members(info, &entry.hosts);
            Arc::clone(&entry.hosts)
        };
        if first {
            self.publish(vec![(Arc::clone(info), hosts)]);
            return;
        }
        let id = info.id;
        self.workers.post_all(move || {
            if let Some(cluster) = worker_local::get::<ClusterMap>().and_then(|map| map.get(id)) {
                cluster.set_hosts(&hosts);
            }
        });
    }
}

/// On a worker: makes its own part of each cluster.
fn insert(worker: WorkerIndex, clusters: &[(Arc<ClusterInfo>, Arc<HostSet>)]) {
    let Some(map) = worker_local::get::<ClusterMap>() else { return };
    for (info, hosts) in clusters {
        map.insert(Rc::new(Cluster::new(Arc::clone(info), worker, hosts)));
    }
}

fn count_members(info: &ClusterInfo, hosts: &HostSet) {
    let healthy = hosts.hosts.iter().filter(|h| h.is_usable()).count();
    let stats = &info.stats;
    stats.membership_total.set(hosts.hosts.len() as u64);
    stats.membership_healthy.set(healthy as u64);
    let degraded = hosts.hosts.iter().filter(|h| h.health == settings::EndpointHealth::Degraded).count();
    stats.membership_degraded.set(degraded as u64);
    // Envoy looks for it only where hosts may change in place.
    if matches!(info.settings.discovery, Discovery::StrictDns(_)) {
        stats.max_host_weight.set(hosts.hosts.iter().map(|h| u64::from(h.weight)).max().unwrap_or(0));
    }
}
