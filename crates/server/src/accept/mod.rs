//! A listener on a worker: accepts, chooses the filter chain and serves connections.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use proxy_config::settings;
use proxy_filters::extensions::ListenerFilterPlan;
use proxy_http::access_log::{AccessLogPlan, AccessLogs};
use proxy_net::{
    AcceptHooks, AcceptOptions, Address, CloseReason, Connection, ConnectionIds, ConnectionInfo, Handover,
    Io, ListenSocket, ListenerFilter, NextNetwork, QueueAtEnd, Refuse, StreamRecord, accept_loop,
};
use proxy_runtime::{Drain, Instant, Timer, WorkerIndex, clock, worker_local};
use proxy_stats::{Gauge, GaugeGuard, Scope};
use proxy_upstream::ClusterMap;

use crate::admission::{Admission, Admitted, Overflow};
use crate::connection_log::LoggedConnection;
use crate::listener_stats::{ListenerConnection, ListenerCounts, ListenerStats};

mod adopt;
mod chain;
mod tasks;

pub(crate) use adopt::{adopt, would_adopt};
use chain::{Chain, Chains};
pub(crate) use chain::{ChainPlan, ChainsPlan, FilterPlan};
use tasks::Tasks;

/// Tells listeners apart, also a new one from the one it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ListenerId(pub u32);

/// What every worker needs to make its own instance of a listener, besides its filter chains.
pub(crate) struct ListenerPlan {
    pub settings: Arc<settings::Listener>,
    pub listener_filters: Vec<ListenerFilterPlan>,
    pub stats: Arc<ListenerStats>,
    /// Of all listeners: `server.total_connections`.
    pub total_connections: Gauge,
    pub local_address: Option<IpAddr>,
    pub scope: Scope,
    pub admission: Admission,
    /// `access_log` of the listener.
    pub logs: AccessLogPlan,
}

/// A worker's instance.
struct Listener {
    id: ListenerId,
    worker: WorkerIndex,
    plan: Arc<ListenerPlan>,
    name: Rc<str>,
    filters: Rc<[Rc<dyn ListenerFilter>]>,
    chains: RefCell<Rc<Chains>>,
    /// Chains that are not in use any more, with connections left.
    leaving: RefCell<Vec<Rc<Chain>>>,
    accepting: Drain,
    /// What becomes of the queues of its sockets when it stops accepting.
    queue_at_end: Rc<Cell<QueueAtEnd>>,
    /// The share of its connections that is asked to end: of chains to come as well.
    drained: Cell<f64>,
    /// One guard per connection.
    open: Drain,
    /// Of connections for which no chain is chosen yet.
    inspecting: Rc<Tasks>,
    ids: Rc<ConnectionIds>,
    counts: Rc<ListenerCounts>,
    logs: Rc<AccessLogs>,
}

impl Listener {
    fn chain_for(&self, info: &ConnectionInfo) -> Option<Rc<Chain>> {
        self.chains.borrow().find(info).cloned()
    }

    fn logged(&self, chosen: Option<&Chain>, connection: &Connection) -> LoggedConnection {
        let chain_name = chosen.map_or("", |chain| &chain.plan.name);
        LoggedConnection::new(&self.logs, chain_name, Rc::clone(&connection.info))
    }

    /// Where somebody tells of connections when they are over, what there is to tell is kept.
    fn keep_record(&self, info: &mut ConnectionInfo) {
        if self.chains.borrow().plan.keeps_records {
            info.record = Some(Rc::new(StreamRecord::new(info.started)));
        }
    }

    /// Asks a share of the connections to end.
    fn drain(&self, share: f64) {
        self.drained.set(self.drained.get().max(share));
        self.chains.borrow().all().for_each(|chain| chain.drain.close_share(share));
    }

    /// Resolves when nothing is accepted any more and the last connection is gone.
    async fn end(&self) {
        self.accepting.close_and_wait().await;
        self.open.close_and_wait().await;
    }

    /// All chains, also those that are not in use any more.
    fn each_chain(&self, visit: impl FnMut(&Rc<Chain>)) {
        self.chains.borrow().all().chain(&*self.leaving.borrow()).for_each(visit);
    }

    fn cut(&self) {
        let mut cut = self.inspecting.cut();
        self.each_chain(|chain| cut += chain.cut(LISTENER_GONE));
        self.tell_cut(cut);
    }

    fn tell_cut(&self, connections: usize) {
        let name = &self.name;
        tracing::info!(target: "listener", listener = %name, connections, "the drain time is over, connections are closed");
    }
}

/// A worker's listeners.
#[derive(Default)]
struct Listeners {
    active: RefCell<HashMap<ListenerId, Rc<Listener>>>,
    /// Removed or replaced, with connections left.
    retired: RefCell<Vec<Rc<Listener>>>,
}

impl Listeners {
    fn all(&self) -> Vec<Rc<Listener>> {
        let mut all: Vec<_> = self.active.borrow().values().cloned().collect();
        all.extend(self.retired.borrow().iter().cloned());
        all
    }
}

fn listeners() -> Rc<Listeners> {
    worker_local::get().unwrap_or_else(|| {
        let listeners = Rc::<Listeners>::default();
        worker_local::insert(Rc::clone(&listeners));
        listeners
    })
}

/// Makes ready to serve connections of a listener.
pub(crate) fn open(id: ListenerId, worker: WorkerIndex, plan: Arc<ListenerPlan>, chains: Arc<ChainsPlan>) {
    let (Some(ids), Some(chains)) = (worker_local::get::<ConnectionIds>(), build_chains(chains, None, &plan))
    else {
        return;
    };
    let scope = plan.scope.scope(&format!("worker_{}.", worker.0));
    let listener = Rc::new(Listener {
        id,
        worker,
        name: Rc::from(&*plan.settings.name),
        filters: plan.listener_filters.iter().map(|build| build()).collect(),
        chains: RefCell::new(Rc::new(chains)),
        leaving: RefCell::default(),
        accepting: Drain::new(),
        queue_at_end: Rc::default(),
        drained: Cell::new(0.0),
        open: Drain::new(),
        inspecting: Rc::default(),
        ids,
        counts: ListenerCounts::new(Arc::clone(&plan.stats), &scope),
        logs: Rc::new(AccessLogs::new(&plan.logs)),
        plan,
    });
    listeners().active.borrow_mut().insert(id, listener);
}

fn build_chains(plan: Arc<ChainsPlan>, before: Option<&Chains>, listener: &ListenerPlan) -> Option<Chains> {
    let (clusters, handover) = (worker_local::get::<ClusterMap>()?, worker_local::get::<Handover>()?);
    Some(Chains::build(plan, before, listener, &clusters, &handover))
}

/// Gives a listener other filter chains, at once. Connections of those that are not among them are asked to end; resolves
/// when the last one has. What is left of them after `drain_time` is cut.
pub(crate) fn replace_chains(
    id: ListenerId,
    plan: Arc<ChainsPlan>,
    drain_time: Duration,
) -> impl Future<Output = ()> {
    let listener = listeners().active.borrow().get(&id).cloned();
    let replaced = listener.and_then(|listener| {
        let before = Rc::clone(&listener.chains.borrow());
        let chains = build_chains(plan, Some(&before), &listener.plan)?;
        let gone = before.without(&chains);
        chains.without(&before).iter().for_each(|chain| chain.drain.close_share(listener.drained.get()));
        *listener.chains.borrow_mut() = Rc::new(chains);
        listener.leaving.borrow_mut().extend(gone.iter().cloned());
        gone.iter().for_each(|chain| chain.drain.close());
        Some((listener, gone))
    });
    async move {
        let Some((listener, gone)) = replaced else { return };
        let emptied = async {
            for chain in &gone {
                chain.open.empty().await;
                listener.leaving.borrow_mut().retain(|leaving| !Rc::ptr_eq(leaving, chain));
            }
        };
        let cut = || listener.tell_cut(gone.iter().map(|chain| chain.cut(CHAIN_GONE)).sum());
        cut_after(drain_time, emptied, cut).await;
    }
}

/// Resolves when `ended` does; if that takes longer than `limit`, `cut` makes it.
async fn cut_after(limit: Duration, ended: impl Future<Output = ()>, cut: impl FnOnce()) {
    let mut ended = pin!(ended);
    let timer = Timer::new();
    timer.set(clock::now() + limit);
    tokio::select! {
        biased;
        () = &mut ended => return,
        () = timer.expired() => cut(),
    }
    ended.await;
}

/// `%RESPONSE_CODE_DETAILS%` of requests that are cut with their filter chain, and with their listener.
const CHAIN_GONE: &str = "downstream_local_disconnect(filter_chain_is_being_removed)";
const LISTENER_GONE: &str =
    "downstream_local_disconnect(purging_socket_that_have_not_progressed_to_connections)";

/// Starts to accept on `sockets`, once the listener is open on all workers: each may give connections to any other.
pub(crate) fn start(id: ListenerId, sockets: Vec<ListenSocket>) {
    with(id, |listener| sockets.into_iter().for_each(|socket| accept_on(listener, socket)));
}

fn accept_on(listener: &Rc<Listener>, socket: ListenSocket) {
    let listener = Rc::clone(listener);
    // The local address of every connection, unless the socket takes those to others as well.
    let fixed = Some(socket.local_address().clone()).filter(|address| {
        !listener.plan.settings.transparent && address.ip().is_none_or(|ip| !ip.ip().is_unspecified())
    });
    let options = AcceptOptions {
        max_connections_to_accept_per_socket_event: listener.plan.settings.accepts_per_event,
        descriptor_limit: descriptor_limit(),
        drain: listener.accepting.guard(),
        queue_at_end: Rc::clone(&listener.queue_at_end),
    };
    let hooks = Hooks { listener: Rc::clone(&listener), told: None };
    tokio::task::spawn_local(async move {
        let on_accept = move |io, peer| accepted(&listener, io, fixed.as_ref(), peer);
        let accepting = accept_loop(socket, options, on_accept, hooks);
        if let Err(error) = accepting.await {
            tracing::error!(target: "listener", %error, "a worker cannot accept connections");
        }
    });
}

/// See [`AcceptOptions::descriptor_limit`]: what an operator needs to look at a process that has no more for its clients.
fn descriptor_limit() -> RawFd {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let limit = RawFd::try_from(limit).unwrap_or(RawFd::MAX);
    limit - KEPT.min(limit / PART)
}

const KEPT: RawFd = 32;
/// Of a small limit, this part is kept.
const PART: RawFd = 8;

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

fn accepted(listener: &Rc<Listener>, io: Io, fixed: Option<&Address>, peer: Address) {
    let local = match fixed {
        Some(address) => address.clone(),
        // Fails only when the peer is gone already.
        None => io.local_address().unwrap_or_else(|_| peer.clone()),
    };
    let admitted = match listener.plan.admission.admit(listener.worker) {
        Ok(admitted) => admitted,
        Err(Overflow::Global) => return listener.counts.stats.downstream_global_cx_overflow.inc(),
        Err(Overflow::Own) => return listener.counts.stats.downstream_cx_overflow.inc(),
    };
    match admitted.elsewhere(listener.worker) {
        None => begin(listener, io, local, peer, admitted),
        Some(worker) => pass_on(listener, worker, io, local, peer, admitted),
    }
}

/// Has another worker serve a connection.
fn pass_on(
    listener: &Listener,
    worker: WorkerIndex,
    io: Io,
    local: Address,
    peer: Address,
    admitted: Admitted,
) {
    // Fails only when this worker ends; so does posting, when that one does.
    let (Some(balancing), Ok(stream)) = (&listener.plan.admission.balance, io.into_descriptor()) else {
        return;
    };
    let id = listener.id;
    let take = move || {
        // One that is not there any more has ended, and has waited for what was on its way.
        let listener = listeners().all().into_iter().find(|listener| listener.id == id);
        if let (Some(listener), Ok(io)) = (listener, Io::from_descriptor(stream)) {
            begin(&listener, io, local, peer, admitted);
        }
    };
    balancing.peers.post(worker, Box::new(take));
}

fn begin(listener: &Rc<Listener>, io: Io, local: Address, peer: Address, admitted: Admitted) {
    let id = listener.ids.next();
    let name = Rc::clone(&listener.name);
    let mut info = ConnectionInfo::accepted(id, name, local, peer, clock::now(), clock::system_now());
    listener.keep_record(&mut info);
    let connection = Connection::new(io, Rc::new(info));
    if listener.filters.is_empty() {
        return enter_chain(listener, connection, admitted);
    }
    let listener = Rc::clone(listener);
    let (open, inspecting) = (listener.open.guard(), Rc::clone(&listener.inspecting));
    inspecting.spawn(id, |listed| async move {
        let _held = (open, listed);
        if let Some(connection) = inspect(&listener, connection).await {
            enter_chain(&listener, connection, admitted);
        }
    });
}

/// Runs the listener filters; gives the connection back if it is to be served.
async fn inspect(listener: &Listener, mut connection: Connection) -> Option<Connection> {
    let (stats, settings) = (&listener.counts.stats, &listener.plan.settings);
    let _waiting = GaugeGuard::new(stats.downstream_pre_cx_active);
    let limit = Timer::new();
    if let Some(timeout) = settings.listener_filters_timeout {
        limit.set(clock::now() + timeout);
    }
    let inspected = {
        let mut inspecting = pin!(async {
            for filter in listener.filters.iter() {
                filter.inspect(&mut connection).await?;
            }
            Ok(())
        });
        poll_fn(|context| match inspecting.as_mut().poll(context) {
            Poll::Pending => limit.poll_expired(context).map(|()| Err(Refuse::Timeout)),
            done => done,
        })
        .await
    };
    match inspected {
        Ok(()) => return Some(connection),
        Err(Refuse::Timeout) => {
            stats.downstream_pre_cx_timeout.inc();
            if settings.continue_on_timeout {
                return Some(connection);
            }
        }
        Err(Refuse::RemoteClose | Refuse::Io(_)) => stats.downstream_listener_filter_remote_close.inc(),
        Err(Refuse::Protocol(_)) => stats.downstream_listener_filter_error.inc(),
    }
    None
}

/// Chooses the filter chain, and has it serve the connection.
fn enter_chain(listener: &Rc<Listener>, mut connection: Connection, admitted: Admitted) {
    let chain = listener.chain_for(&connection.info);
    if let Some(metadata) = chain.as_ref().and_then(|chain| chain.metadata.as_ref()) {
        Rc::make_mut(&mut connection.info).metadata = Some(Rc::clone(metadata));
    }
    let logged = listener.logged(chain.as_deref(), &connection);
    // A chain without filters has nobody to read what comes: Envoy accepts it in a file and closes the connection.
    let Some(chain) = chain.filter(|chain| !chain.filters.is_empty()) else {
        listener.counts.stats.no_filter_chain_match.inc();
        logged.not_served();
        return;
    };
    let counted = ListenerConnection::new(&listener.counts, connection.info.started);
    serve(listener, chain, connection, (counted, admitted), logged);
}

/// Serves a connection in a task of its own.
fn serve(
    listener: &Rc<Listener>,
    chain: Rc<Chain>,
    connection: Connection,
    (counted, admitted): (ListenerConnection, Admitted),
    logged: LoggedConnection,
) {
    let listener = Rc::clone(listener);
    // Not in the task: a listener that has accepted a connection is not done, even if the task has not run yet.
    let open = (listener.open.guard(), chain.open.guard());
    let tasks = Rc::clone(&chain.tasks);
    tasks.spawn(connection.info.id, |listed| async move {
        let _held = (open, admitted, listed);
        let _active = GaugeGuard::new(listener.plan.total_connections);
        let served = NextNetwork::new(&chain.filters).serve(connection).await;
        if matches!(served, Err(CloseReason::Moved)) {
            logged.moved();
            return counted.moved();
        }
        if let Err(reason) = served {
            tracing::debug!(target: "connection", listener = %listener.name, %reason, "connection closed");
        }
    });
}

fn with(id: ListenerId, action: impl FnOnce(&Rc<Listener>)) {
    let listener = listeners().active.borrow().get(&id).cloned();
    if let Some(listener) = listener {
        action(&listener);
    }
}

/// Asks a share of the connections to close after their next response; `stop` also stops accepting.
pub(crate) fn drain(id: ListenerId, share: f64, stop: bool) {
    with(id, |listener| {
        listener.drain(share);
        if stop {
            listener.accepting.close();
        }
    });
}

/// Stops accepting on all listeners and leaves what is queued; resolves when nothing is accepted any more.
pub(crate) async fn pause_all() {
    let active: Vec<_> = listeners().active.borrow().values().cloned().collect();
    for listener in &active {
        listener.queue_at_end.set(QueueAtEnd::Left);
        listener.accepting.close();
    }
    for listener in active {
        listener.accepting.close_and_wait().await;
    }
}

/// Stops accepting on a listener; resolves when nothing is accepted any more. A connection that was accepted for another
/// worker is posted to it by then.
pub(crate) async fn stop(id: ListenerId) {
    drain(id, 1.0, true);
    let listener = listeners().active.borrow().get(&id).cloned();
    if let Some(listener) = listener {
        listener.accepting.close_and_wait().await;
    }
}

/// As [`stop`] for all listeners.
pub(crate) async fn stop_all() {
    for listener in listeners().all() {
        listener.accepting.close_and_wait().await;
    }
}

/// Accepts again.
pub(crate) fn resume(id: ListenerId, sockets: Vec<ListenSocket>) {
    with(id, |listener| {
        listener.queue_at_end.set(QueueAtEnd::Accepted);
        listener.accepting.reopen();
        sockets.into_iter().for_each(|socket| accept_on(listener, socket));
    });
}

/// Takes [`drain`] back for connections.
pub(crate) fn undrain(id: ListenerId) {
    with(id, |listener| {
        listener.drained.set(0.0);
        listener.chains.borrow().all().for_each(|chain| chain.drain.reopen());
    });
}

/// The listener was removed or replaced: it ends with its last connection, which resolves this. What is left after
/// `drain_time` is cut. After [`stop`] on all workers.
pub(crate) async fn retire(id: ListenerId, drain_time: Duration) {
    let listeners = listeners();
    let Some(listener) = listeners.active.borrow_mut().remove(&id) else { return };
    listeners.retired.borrow_mut().push(Rc::clone(&listener));
    cut_after(drain_time, listener.end(), || listener.cut()).await;
    listeners.retired.borrow_mut().retain(|retired| !Rc::ptr_eq(retired, &listener));
}

/// Resolves when the last connection is gone. To be called when nothing is accepted any more.
pub(crate) async fn emptied_all() {
    for listener in listeners().all() {
        listener.open.empty().await;
    }
}

/// Ends all connections in good order; resolves when the last one is gone.
pub(crate) async fn close_all() {
    let all = listeners().all();
    for listener in &all {
        listener.accepting.close();
        listener.each_chain(|chain| {
            chain.drain.close();
            chain.closing.close();
        });
    }
    for listener in all {
        listener.end().await;
    }
}
