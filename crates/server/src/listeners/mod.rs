//! The listener manager: sockets bound on main, filter chains built and connections accepted on the workers.
//!
//! An updated listener starts before the one it replaces drains: it gets duplicates of the old one's sockets when the
//! address stays, so no connection is refused in between.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy_config::KeptChain;
use proxy_config::settings;
use proxy_filters::Extensions;
use proxy_filters::extensions::PlanError;
use proxy_filters::http::{FilterChains, ProcessFacts};
use proxy_filters::token_bucket::SharedBuckets;
use proxy_http::route::RouteTable;
use proxy_net::{Address, BindError, ListenSocket};
use proxy_runtime::log_file::{LogFiles, OpenError};
use proxy_runtime::{OnAllWorkers, Slot, Workers};
use proxy_stats::{Declared, Scope, Store, stats_block};
use proxy_upstream::ClusterNames;

use tokio::sync::watch;

use crate::accept::{self, ChainsPlan, ListenerId, ListenerPlan};
use crate::admission;
use crate::listen_sockets::{ListenSockets, Place};
use crate::reclaim::Reclaimer;
use crate::restart::Inherited;

mod plan;

use plan::connection_managers;

stats_block! {
    /// `listener_manager.*`.
    pub struct ListenerManagerStats {
        counters: listener_added, listener_create_failure, listener_create_success, listener_in_place_updated,
            listener_modified, listener_removed, listener_stopped;
        gauges: total_filter_chains_draining: NeverImport, total_listeners_active: NeverImport,
            total_listeners_draining: NeverImport, total_listeners_warming: NeverImport, workers_pinned: NeverImport,
            workers_started: NeverImport;
    }
}

stats_block! {
    /// Of `server.*`, what listeners count.
    pub struct ConnectionStats {
        gauges: total_connections: Accumulate;
    }
}

/// All listeners of the process.
pub struct ListenerManager {
    workers: Rc<Workers>,
    root: Scope,
    stats: ListenerManagerStats,
    connections: ConnectionStats,
    names: ClusterNames,
    extensions: Extensions,
    process: ProcessFacts,
    local_address: Option<IpAddr>,
    reclaimer: Reclaimer,
    files: LogFiles,
    listeners: RefCell<Vec<Entry>>,
    /// Removed or replaced, with connections left.
    retired: Rc<RefCell<Vec<Rc<Retired>>>>,
    /// How many these are.
    draining: Rc<watch::Sender<usize>>,
    next_id: Cell<u32>,
    started: Cell<bool>,
    drain_time: Cell<Duration>,
    inherited: RefCell<Inherited>,
    /// Over all listeners.
    max_connections: RefCell<Option<Arc<admission::ConnectionLimit>>>,
    /// Those that rate limits of several filters take from.
    buckets: RefCell<SharedBuckets>,
}

/// A listener as main knows it.
struct Entry {
    id: ListenerId,
    settings: Arc<settings::Listener>,
    sockets: ListenSockets,
    plan: Arc<ListenerPlan>,
    chains: Arc<ChainsPlan>,
    /// By filter chain, the default one last.
    routes: Vec<Vec<Routes>>,
}

/// A listener, or filter chains of one, that is not in use yet.
pub(crate) struct Prepared(Change);

enum Change {
    Listener(Box<Entry>),
    /// Nothing that can fail is left.
    Chains(PreparedChains),
}

/// Other filter chains for a listener that goes on.
struct PreparedChains {
    settings: Arc<settings::Listener>,
    chains: Arc<ChainsPlan>,
    /// By filter chain.
    routes: Vec<ChainRoutes>,
}

enum ChainRoutes {
    New(Vec<Routes>),
    Kept(KeptChain),
}

/// What connections of a listener or filter chain that is gone still need: their routes, which go on being updated.
struct Retired {
    routes: Vec<Vec<Routes>>,
}

/// The route configuration that a connection manager uses, and the filters that it is made ready for.
struct Routes {
    name: String,
    slot: Slot<RouteTable>,
    filters: Arc<FilterChains>,
}

/// Why a listener could not be added or updated.
#[derive(Debug, thiserror::Error)]
#[error("listener '{name}': {source}")]
pub struct ListenerError {
    name: Arc<str>,
    source: BuildError,
}

/// What a listener lacks.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("access log: {0}")]
    Log(#[from] OpenError),
    #[error("filter {0}")]
    Filter(#[from] PlanError),
}

impl ListenerManager {
    pub fn new(
        workers: Rc<Workers>,
        store: Store,
        names: ClusterNames,
        files: LogFiles,
        extensions: Extensions,
        cluster: &str,
    ) -> Rc<Self> {
        let root = store.root();
        let scope = root.scope("listener_manager.");
        Rc::new(ListenerManager {
            reclaimer: Reclaimer::new(store, Rc::clone(&workers)),
            workers,
            stats: ListenerManagerStats::new(&scope),
            connections: ConnectionStats::new(&root.scope("server.")),
            root,
            names,
            extensions,
            process: ProcessFacts { cluster: cluster.into(), healthy: Arc::new(AtomicBool::new(true)) },
            local_address: local_address(),
            files,
            listeners: RefCell::default(),
            retired: Rc::default(),
            draining: Rc::new(watch::Sender::new(0)),
            next_id: Cell::new(0),
            started: Cell::new(false),
            drain_time: Cell::new(DRAIN_TIME),
            inherited: RefCell::default(),
            max_connections: RefCell::default(),
            buckets: RefCell::default(),
        })
    }

    /// Listeners that are added from now on have at most so many connections together.
    pub fn limit_connections(&self, limit: u64) {
        self.root.declare(&LIMIT_DECLARED);
        *self.max_connections.borrow_mut() = Some(admission::ConnectionLimit::new(limit));
    }

    /// Connections of a listener or filter chain that is gone from now on are cut after so long; 600 s unless it is said.
    pub fn set_drain_time(&self, drain_time: Duration) {
        self.drain_time.set(drain_time);
    }

    pub(crate) fn drain_time(&self) -> Duration {
        self.drain_time.get()
    }

    /// Adds a listener, or updates the one of that name. It accepts once [`ListenerManager::start`] has been called.
    ///
    /// # Errors
    /// When an address cannot be bound or a log not be opened; the listener of that name that was there goes on.
    pub fn add(&self, settings: Arc<settings::Listener>) -> Result<(), ListenerError> {
        self.commit(self.prepare(settings)?)
    }

    /// Does all for a listener that can fail for reasons in its configuration, and changes nothing yet.
    ///
    /// # Errors
    /// As [`ListenerManager::add`].
    pub(crate) fn prepare(&self, settings: Arc<settings::Listener>) -> Result<Prepared, ListenerError> {
        let built = self.build(Arc::clone(&settings)).map_err(|source| {
            self.stats.listener_create_failure.add(self.workers.count() as u64);
            ListenerError { name: Arc::clone(&settings.name), source }
        });
        built.map(|entry| Prepared(Change::Listener(Box::new(entry))))
    }

    /// As [`ListenerManager::prepare`], of a listener of which nothing but filter chains is another: those in `kept`, by chain
    /// with the default one last, keep their connections.
    ///
    /// # Errors
    /// As [`ListenerManager::add`].
    pub(crate) fn prepare_chains(
        &self,
        settings: Arc<settings::Listener>,
        kept: &[Option<KeptChain>],
    ) -> Result<Prepared, ListenerError> {
        if !self.started.get() {
            return self.prepare(settings);
        }
        match self.build_chains(Arc::clone(&settings), kept) {
            Ok(Some(chains)) => Ok(Prepared(Change::Chains(chains))),
            Ok(None) => self.prepare(settings),
            Err(source) => {
                self.stats.listener_create_failure.add(self.workers.count() as u64);
                Err(ListenerError { name: Arc::clone(&settings.name), source })
            }
        }
    }

    /// Puts a listener to use that was prepared, in place of the one of its name.
    ///
    /// # Errors
    /// When its sockets cannot listen; the listener of that name that was there goes on.
    pub(crate) fn commit(&self, Prepared(change): Prepared) -> Result<(), ListenerError> {
        let entry = match change {
            Change::Listener(entry) => *entry,
            Change::Chains(chains) => {
                self.replace_chains(chains);
                return Ok(());
            }
        };
        let settings = Arc::clone(&entry.settings);
        if self.started.get() {
            self.listen(&entry)
                .map_err(|error| ListenerError { name: Arc::clone(&settings.name), source: error.into() })?;
        }
        let mut listeners = self.listeners.borrow_mut();
        let old = listeners.iter().position(|l| l.settings.name == settings.name);
        match old {
            Some(at) => {
                self.stats.listener_modified.inc();
                let old = std::mem::replace(&mut listeners[at], entry);
                drop(listeners);
                self.retire(old);
            }
            None => {
                self.stats.listener_added.inc();
                listeners.push(entry);
                drop(listeners);
            }
        }
        self.stats.total_listeners_active.set(self.listeners.borrow().len() as u64);
        Ok(())
    }

    /// Gives a listener other filter chains. Connections of those that are kept go on, the others are asked to end.
    fn replace_chains(&self, prepared: PreparedChains) {
        let PreparedChains { settings, chains, routes } = prepared;
        let mut listeners = self.listeners.borrow_mut();
        let Some(entry) = listeners.iter_mut().find(|entry| entry.settings.name == settings.name) else {
            return;
        };
        let mut before: Vec<_> = std::mem::take(&mut entry.routes).into_iter().map(Some).collect();
        let managers = connection_managers(&settings);
        entry.routes = routes
            .into_iter()
            .zip(managers)
            .map(|(routes, managers)| match routes {
                ChainRoutes::New(routes) => routes,
                ChainRoutes::Kept(kept) => {
                    let mut routes = before.get_mut(kept.before).and_then(Option::take).unwrap_or_default();
                    for at in kept.routes {
                        if let Some((used, new)) = routes.get_mut(at).zip(managers.get(at)) {
                            drop(self.publish(used, &new.routes));
                        }
                    }
                    routes
                }
            })
            .collect();
        let gone: Vec<Vec<Routes>> = before.into_iter().flatten().collect();
        (entry.settings, entry.chains) = (settings, Arc::clone(&chains));
        let id = entry.id;
        drop(listeners);
        self.stats.listener_modified.inc();
        self.stats.listener_in_place_updated.inc();
        let count = gone.len() as i64;
        self.stats.total_filter_chains_draining.add(count);
        let drain_time = self.drain_time.get();
        let replace = move || accept::replace_chains(id, Arc::clone(&chains), drain_time);
        let replaced = self.workers.spawn_all_then(replace);
        let draining = self.stats.total_filter_chains_draining;
        self.when_drained(gone, replaced, move || draining.sub(count));
    }

    /// Publishes the routes of a connection manager.
    fn publish(&self, used: &mut Routes, new: &Arc<settings::RouteConfiguration>) -> OnAllWorkers {
        let table = used.filters.route_table(Arc::clone(new), &self.names);
        used.name.clone_from(&new.name);
        used.slot.publish(Arc::new(table))
    }

    /// Removes a listener: it stops accepting, its connections drain. False when there is none of the name.
    pub fn remove(&self, name: &str) -> bool {
        let mut listeners = self.listeners.borrow_mut();
        let Some(at) = listeners.iter().position(|l| *l.settings.name == *name) else { return false };
        let old = listeners.remove(at);
        drop(listeners);
        self.stats.listener_removed.inc();
        self.stats.total_listeners_active.set(self.listeners.borrow().len() as u64);
        self.retire(old);
        true
    }

    /// Starts accepting on all listeners.
    ///
    /// # Errors
    /// When a socket cannot listen.
    pub fn start(&self) -> Result<(), ListenerError> {
        self.started.set(true);
        for entry in self.listeners.borrow().iter() {
            let name = &entry.settings.name;
            self.listen(entry)
                .map_err(|error| ListenerError { name: Arc::clone(name), source: error.into() })?;
        }
        self.stats.workers_started.set(1);
        Ok(())
    }

    /// Replaces a route configuration of that name wherever a connection manager uses it. Resolves when every worker
    /// routes by it; `None` when nobody uses it.
    pub fn update_routes(&self, routes: Arc<settings::RouteConfiguration>) -> Option<OnAllWorkers> {
        let (listeners, retired) = (self.listeners.borrow(), self.retired.borrow());
        let used =
            listeners.iter().map(|entry| &entry.routes).chain(retired.iter().map(|retired| &retired.routes));
        let mut last = None;
        for used in used.flatten().flatten().filter(|used| used.name == routes.name) {
            let table = used.filters.route_table(Arc::clone(&routes), &self.names);
            last = Some(used.slot.publish(Arc::new(table)));
        }
        // Mail is read in order: who has the last has them all.
        last
    }

    /// Gives the listener of that name, which is the same otherwise, the routes that it has in `settings`: in these of its
    /// connection managers, counted over all filter chains, the default one last. Resolves when every worker routes by them.
    pub(crate) fn replace_routes(
        &self,
        settings: &Arc<settings::Listener>,
        managers: &[usize],
    ) -> Option<OnAllWorkers> {
        let mut listeners = self.listeners.borrow_mut();
        let entry = listeners.iter_mut().find(|entry| entry.settings.name == settings.name)?;
        let new = connection_managers(settings).flatten();
        let mut last = None;
        for (at, (used, new)) in entry.routes.iter_mut().flatten().zip(new).enumerate() {
            if managers.contains(&at) {
                last = Some(self.publish(used, &new.routes));
            }
        }
        entry.settings = Arc::clone(settings);
        last
    }

    /// Resolves when no listener that was removed or replaced has a connection left.
    pub(crate) async fn drained(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.draining.subscribe().wait_for(|count| *count == 0).await;
    }

    /// How many listeners or sets of filter chains were removed or replaced and have connections left.
    pub(crate) fn draining(&self) -> usize {
        *self.draining.borrow()
    }

    /// Name and bound addresses of every listener; a listener has at least one.
    pub fn list(&self) -> Vec<(Arc<str>, Vec<Address>)> {
        let listeners = self.listeners.borrow();
        let each = listeners.iter();
        each.map(|l| (Arc::clone(&l.settings.name), l.sockets.addresses().cloned().collect())).collect()
    }

    /// Tells a share of the connections to close after their next response; `stop` also stops accepting.
    pub fn drain(&self, inbound_only: bool, share: f64, stop: bool) {
        for entry in self.listeners.borrow_mut().iter_mut() {
            if inbound_only && entry.settings.traffic_direction != settings::TrafficDirection::Inbound {
                continue;
            }
            let id = entry.id;
            if stop {
                self.stats.listener_stopped.inc();
                entry.sockets.close();
            }
            self.workers.post_all(move || accept::drain(id, share, stop));
        }
    }

    /// `/healthcheck/fail` and `/healthcheck/ok`: connections are asked to go elsewhere, or not any more.
    pub fn set_healthy(&self, healthy: bool) {
        self.process.healthy.store(healthy, Ordering::Relaxed);
        for entry in self.listeners.borrow().iter().filter(|l| !l.settings.drain_modify_only) {
            let id = entry.id;
            self.workers
                .post_all(move || if healthy { accept::undrain(id) } else { accept::drain(id, 1.0, false) });
        }
    }

    /// Stops accepting and ends connections in good order; resolves when none is left on any worker.
    pub async fn shut_down(&self) {
        self.drain(false, 1.0, true);
        self.workers.spawn_all_then(accept::stop_all).await;
        self.workers.spawn_all_then(accept::close_all).await;
    }

    /// Lets a listener go that was removed or replaced; its connections are asked to end, cut after the drain time, and it ends
    /// with the last.
    fn retire(&self, old: Entry) {
        let Entry { id, routes, .. } = old;
        self.stats.total_listeners_draining.inc();
        let stopped = self.workers.spawn_all_then(move || accept::stop(id));
        let (workers, drain_time) = (Rc::clone(&self.workers), self.drain_time.get());
        let ended = async move {
            stopped.await;
            workers.spawn_all_then(move || accept::retire(id, drain_time)).await;
        };
        let draining = self.stats.total_listeners_draining;
        self.when_drained(routes, ended, move || draining.dec());
    }

    /// Keeps routes until `drained` resolves, and counts it as something that drains.
    fn when_drained(
        &self,
        routes: Vec<Vec<Routes>>,
        drained: impl Future<Output = ()> + 'static,
        then: impl FnOnce() + 'static,
    ) {
        let kept = Rc::new(Retired { routes });
        self.retired.borrow_mut().push(Rc::clone(&kept));
        self.draining.send_modify(|count| *count += 1);
        let (retired, reclaimer) = (Rc::clone(&self.retired), self.reclaimer.clone());
        let draining = Rc::clone(&self.draining);
        tokio::task::spawn_local(async move {
            drained.await;
            draining.send_modify(|count| *count = count.saturating_sub(1));
            retired.borrow_mut().retain(|retired| !Rc::ptr_eq(retired, &kept));
            then();
            drop(kept);
            reclaimer.soon();
        });
    }

    /// Opens the sockets and hands each worker its own.
    fn listen(&self, entry: &Entry) -> Result<(), BindError> {
        entry.sockets.listen()?;
        let shares = entry.sockets.shares(self.workers.count())?;
        let id = entry.id;
        for worker in self.workers.indexes() {
            let (plan, chains) = (Arc::clone(&entry.plan), Arc::clone(&entry.chains));
            self.workers.post(worker, Box::new(move || accept::open(id, worker, plan, chains)));
        }
        for (worker, sockets) in self.workers.indexes().zip(shares) {
            self.workers.post(worker, Box::new(move || accept::start(id, sockets)));
        }
        Ok(())
    }

    /// Stops accepting, and leaves what is queued to a process that shares the sockets. Resolves when no worker accepts
    /// any more.
    pub async fn pause(&self) {
        self.workers.spawn_all_then(accept::pause_all).await;
        // Connections that were accepted for another worker lie in its mailbox.
        self.workers.post_all_then(|| {}).await;
    }

    /// Takes [`ListenerManager::pause`] back, on all sockets that are listened on, whoever began.
    ///
    /// # Errors
    /// When there are no descriptors left; nothing has been resumed then.
    pub fn resume(&self) -> Result<(), ListenerError> {
        let mut listeners = self.listeners.borrow_mut();
        let mut all = Vec::new();
        for entry in listeners.iter_mut() {
            entry.sockets.close_silent();
            let name = &entry.settings.name;
            let shares = entry.sockets.shares(self.workers.count());
            let shares =
                shares.map_err(|source| ListenerError { name: Arc::clone(name), source: source.into() })?;
            all.push((entry.id, shares));
        }
        for (id, shares) in all {
            for (worker, sockets) in self.workers.indexes().zip(shares) {
                self.workers.post(worker, Box::new(move || accept::resume(id, sockets)));
            }
        }
        Ok(())
    }

    /// Resolves when no connection is left on any worker. None is asked to end.
    pub async fn emptied(&self) {
        self.workers.spawn_all_then(accept::emptied_all).await;
    }

    /// Closes the sockets of paused listeners here: from now on they are another process's.
    pub fn give_sockets_away(&self) {
        self.listeners.borrow_mut().iter_mut().for_each(|entry| entry.sockets.close());
    }

    /// Accepts again after [`ListenerManager::give_sockets_away`], on sockets that the other process has given back, or on new
    /// ones.
    ///
    /// # Errors
    /// When an address cannot be bound; the listeners before that one accept.
    pub(crate) fn take_back(&self, mut inherited: Inherited) -> Result<(), ListenerError> {
        for entry in self.listeners.borrow_mut().iter_mut() {
            let name = &entry.settings.name;
            let taken = entry.sockets.take_back(name, &mut inherited, self.workers.count());
            taken.map_err(|error| ListenerError { name: Arc::clone(name), source: error.into() })?;
        }
        self.resume()
    }

    /// How many connections there are in this process.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.total_connections.value()
    }

    /// As configured.
    pub(crate) fn settings(&self) -> Vec<Arc<settings::Listener>> {
        self.listeners.borrow().iter().map(|entry| Arc::clone(&entry.settings)).collect()
    }

    /// The sockets of the listener of this configured address, for another process to duplicate; of port 0, of this name
    /// as well. In the order of their reuseport group. If there are fewer than `each`, more are bound: the other process
    /// listens on them, and if it fails there has to be somebody who accepts what has come to them.
    pub(crate) fn with_sockets<T>(
        &self,
        name: &str,
        place: &Place,
        each: usize,
        visit: impl FnOnce(&[ListenSocket]) -> T,
    ) -> Option<T> {
        let mut listeners = self.listeners.borrow_mut();
        let mut known = listeners.iter_mut();
        let sockets = known.find_map(|entry| entry.sockets.at(place, *entry.settings.name == *name, each));
        sockets.map(visit)
    }

    /// Sockets that listeners added from now on take instead of binding some.
    pub(crate) fn inherit(&self, sockets: Inherited) {
        *self.inherited.borrow_mut() = sockets;
    }
}

const DRAIN_TIME: Duration = Duration::from_secs(600);

/// There is nothing to measure for this monitor.
const LIMIT_DECLARED: Declared = Declared {
    counters: &["overload.envoy.resource_monitors.global_downstream_max_connections.failed_updates"],
    gauges: &["overload.envoy.resource_monitors.global_downstream_max_connections.pressure"],
    histograms: &[],
};

/// The first IPv4 address of this machine that is not a loopback one, which Envoy takes for its own.
fn local_address() -> Option<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let addresses =
        interfaces.filter_map(|interface| Some(IpAddr::from(interface.address?.as_sockaddr_in()?.ip())));
    addresses.into_iter().find(|ip| !ip.is_loopback())
}
