//! A listener on a worker: accepts, chooses the filter chain and serves connections.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_config::settings;
use proxy_filters::hcm::{HttpConnectionManager, HttpStats, ManagerContext, ManagerLogs};
use proxy_filters::tcp_proxy::{TcpLogs, TcpProxy, TcpStats};
use proxy_http::access_log::{AccessLogPlan, AccessLogs};
use proxy_http::route::{ClusterId, RouteTable};
use proxy_net::{
    AcceptHooks, AcceptOptions, Address, ChainMatcher, Connection, ConnectionIds, ConnectionInfo, Io,
    ListenSocket, NetworkFilter, NextNetwork, StreamRecord, accept_loop,
};
use proxy_runtime::{Drain, SlotReader, WorkerIndex, clock, worker_local};
use proxy_stats::{Gauge, GaugeGuard, Scope};
use proxy_upstream::ClusterMap;

use crate::connection_log::LoggedConnection;
use crate::listener_stats::{ListenerConnection, ListenerCounts, ListenerStats};

/// Tells listeners apart, also a new one from the one it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListenerId(pub u32);

/// What every worker needs to make its own instance of a listener.
pub(crate) struct ListenerPlan {
    pub settings: Arc<settings::Listener>,
    pub matcher: ChainMatcher,
    pub chains: Vec<ChainPlan>,
    pub default_chain: Option<ChainPlan>,
    pub stats: Arc<ListenerStats>,
    /// Of all listeners: `server.total_connections`.
    pub total_connections: Gauge,
    pub local_address: Option<IpAddr>,
    pub scope: Scope,
    /// The local address of every connection, unless the socket is bound to all of them.
    pub fixed_address: Option<Address>,
    /// `access_log` of the listener.
    pub logs: AccessLogPlan,
    /// Connections are told of in a log, so each has a record.
    pub keeps_records: bool,
}

pub(crate) struct ChainPlan {
    pub name: String,
    pub filters: Vec<FilterPlan>,
}

pub(crate) enum FilterPlan {
    TcpProxy {
        settings: Arc<settings::TcpProxy>,
        clusters: Vec<(ClusterId, u32)>,
        stats: Arc<TcpStats>,
        logs: AccessLogPlan,
    },
    Http {
        settings: Arc<settings::HttpConnectionManager>,
        routes: SlotReader<RouteTable>,
        stats: Arc<HttpStats>,
        logs: AccessLogPlan,
        upstream_logs: AccessLogPlan,
    },
}

/// A worker's instance.
struct Listener {
    plan: Arc<ListenerPlan>,
    name: Rc<str>,
    chains: Vec<Rc<[Rc<dyn NetworkFilter>]>>,
    default_chain: Option<Rc<[Rc<dyn NetworkFilter>]>>,
    accepting: Drain,
    drain: Drain,
    closing: Drain,
    /// One guard per connection.
    open: Drain,
    ids: Rc<ConnectionIds>,
    counts: Rc<ListenerCounts>,
    logs: Rc<AccessLogs>,
}

impl Listener {
    /// Resolves when nothing is accepted any more and the last connection is gone.
    async fn end(&self) {
        self.accepting.close_and_wait().await;
        self.open.close_and_wait().await;
    }
}

/// A worker's listeners.
#[derive(Default)]
struct Listeners {
    active: RefCell<HashMap<ListenerId, Rc<Listener>>>,
    /// Removed or replaced, with connections left.
    retired: RefCell<Vec<Rc<Listener>>>,
}

fn listeners() -> Rc<Listeners> {
    worker_local::get().unwrap_or_else(|| {
        let listeners = Rc::<Listeners>::default();
        worker_local::insert(Rc::clone(&listeners));
        listeners
    })
}

/// Starts to accept on `socket`.
pub(crate) fn open(id: ListenerId, worker: WorkerIndex, plan: Arc<ListenerPlan>, socket: ListenSocket) {
    let (Some(clusters), Some(ids)) =
        (worker_local::get::<ClusterMap>(), worker_local::get::<ConnectionIds>())
    else {
        return;
    };
    let scope = plan.scope.scope(&format!("worker_{}.", worker.0));
    let (drain, closing) = (Drain::new(), Drain::new());
    let build = |chain: &ChainPlan| -> Rc<[Rc<dyn NetworkFilter>]> {
        let name: Rc<str> = Rc::from(&*chain.name);
        chain.filters.iter().map(|f| build_filter(f, &name, &plan, &clusters, &drain, &closing)).collect()
    };
    let listener = Rc::new(Listener {
        name: Rc::from(&*plan.settings.name),
        chains: plan.chains.iter().map(build).collect(),
        default_chain: plan.default_chain.as_ref().map(build),
        accepting: Drain::new(),
        drain,
        closing,
        open: Drain::new(),
        ids,
        counts: ListenerCounts::new(Arc::clone(&plan.stats), &scope),
        logs: Rc::new(AccessLogs::new(&plan.logs)),
        plan,
    });
    listeners().active.borrow_mut().insert(id, Rc::clone(&listener));
    let options = AcceptOptions {
        max_connections_to_accept_per_socket_event: listener.plan.settings.accepts_per_event,
        drain: listener.accepting.guard(),
        empty_queue_at_end: true,
    };
    let hooks = Hooks { listener: Rc::clone(&listener), told: None };
    tokio::task::spawn_local(async move {
        let accepting = accept_loop(socket, options, move |io, peer| accepted(&listener, io, peer), hooks);
        if let Err(error) = accepting.await {
            tracing::error!(target: "listener", %error, "a worker cannot accept connections");
        }
    });
}

struct Hooks {
    listener: Rc<Listener>,
    told: Option<Instant>,
}

impl AcceptHooks for Hooks {
    fn failed(&mut self, error: &io::Error) {
        self.listener.counts.stats.downstream_accept_error.inc();
        let now = clock::now();
        let name = &self.listener.name;
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= BETWEEN_WARNINGS) {
            self.told = Some(now);
            tracing::warn!(target: "listener", listener = %name, %error, "cannot accept, clients wait (told once a minute)");
        }
    }

    fn accepted(&mut self, count: u32) {
        self.listener.counts.stats.connections_accepted_per_socket_event.record(count.into());
    }
}

/// A proxy without descriptors fails to accept many times a second.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

fn build_filter(
    filter: &FilterPlan,
    chain: &Rc<str>,
    plan: &ListenerPlan,
    clusters: &Rc<ClusterMap>,
    drain: &Drain,
    closing: &Drain,
) -> Rc<dyn NetworkFilter> {
    match filter {
        FilterPlan::TcpProxy { settings, clusters: targets, stats, logs } => Rc::new(TcpProxy::new(
            Arc::clone(settings),
            targets.clone(),
            Rc::clone(clusters),
            Arc::clone(stats),
            TcpLogs {
                access: AccessLogs::new(logs),
                at_start: settings.access_log_options.at_start,
                filter_chain: Rc::clone(chain),
            },
        )),
        FilterPlan::Http { settings, routes, stats, logs, upstream_logs } => {
            let context = ManagerContext {
                clusters: Rc::clone(clusters),
                routes: routes.clone(),
                local_address: plan.local_address,
                stats: Arc::clone(stats),
                logs: ManagerLogs {
                    access: AccessLogs::new(logs),
                    at_start: settings.access_log_options.at_start,
                    upstream: AccessLogs::new(upstream_logs),
                    filter_chain: Rc::clone(chain),
                },
                buffer_limit: plan.settings.buffer_limit,
                drain: drain.clone(),
                closing: closing.clone(),
            };
            Rc::new(HttpConnectionManager::new(Arc::clone(settings), context))
        }
    }
}

fn accepted(listener: &Rc<Listener>, io: Io, peer: Address) {
    let local = match &listener.plan.fixed_address {
        Some(address) => address.clone(),
        // Fails only when the peer is gone already.
        None => io.local_address().unwrap_or_else(|_| peer.clone()),
    };
    let id = listener.ids.next();
    let name = Rc::clone(&listener.name);
    let mut info = ConnectionInfo::accepted(id, name, local, peer, clock::now(), clock::system_now());
    if listener.plan.keeps_records {
        info.record = Some(Rc::new(StreamRecord::new(info.started)));
    }
    let (chain, plan) = match listener.plan.matcher.find(&info) {
        Some(index) => (listener.chains.get(index), listener.plan.chains.get(index)),
        None => (listener.default_chain.as_ref(), listener.plan.default_chain.as_ref()),
    };
    let connection = Connection::new(io, Rc::new(info));
    let chain_name = plan.map_or("", |plan| &plan.name);
    let logged = LoggedConnection::new(&listener.logs, chain_name, Rc::clone(&connection.info));
    // A chain without filters has nobody to read what comes: Envoy accepts it in a file and closes the connection.
    let Some(chain) = chain.filter(|chain| !chain.is_empty()).map(Rc::clone) else {
        listener.counts.stats.no_filter_chain_match.inc();
        logged.not_served();
        return;
    };
    let counted = ListenerConnection::new(&listener.counts, connection.info.started);
    let listener = Rc::clone(listener);
    // Not in the task: a listener that has accepted a connection is not done, even if the task has not run yet.
    let open = listener.open.guard();
    tokio::task::spawn_local(async move {
        let (_open, _counted, _logged) = (open, counted, logged);
        let _active = GaugeGuard::new(listener.plan.total_connections);
        if let Err(reason) = NextNetwork::new(&chain).serve(connection).await {
            tracing::debug!(target: "connection", listener = %listener.name, %reason, "connection closed");
        }
    });
}

fn with(id: ListenerId, action: impl FnOnce(&Listener)) {
    let listener = listeners().active.borrow().get(&id).cloned();
    if let Some(listener) = listener {
        action(&listener);
    }
}

/// Asks connections to close after their next response; `stop` also stops accepting.
pub(crate) fn drain(id: ListenerId, stop: bool) {
    with(id, |listener| {
        listener.drain.close();
        if stop {
            listener.accepting.close();
        }
    });
}

/// Takes [`drain`] back for connections.
pub(crate) fn undrain(id: ListenerId) {
    with(id, |listener| listener.drain.reopen());
}

/// The listener was removed or replaced: it ends with its last connection, which resolves this.
pub(crate) async fn retire(id: ListenerId) {
    drain(id, true);
    let listeners = listeners();
    let Some(listener) = listeners.active.borrow_mut().remove(&id) else { return };
    listeners.retired.borrow_mut().push(Rc::clone(&listener));
    listener.end().await;
    listeners.retired.borrow_mut().retain(|retired| !Rc::ptr_eq(retired, &listener));
}

/// Ends all connections in good order; resolves when the last one is gone.
pub(crate) async fn close_all() {
    let listeners = listeners();
    let mut all: Vec<_> = listeners.active.borrow().values().cloned().collect();
    all.extend(listeners.retired.borrow().iter().cloned());
    for listener in &all {
        listener.accepting.close();
        listener.drain.close();
        listener.closing.close();
    }
    for listener in all {
        listener.end().await;
    }
}
