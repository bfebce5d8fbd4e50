//! The process as the admin handlers see it.

use std::cell::{Cell, OnceCell};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use proxy_config::settings::{HistogramBuckets, Node, SocketAddress};
use proxy_control::restart::{Standing, Status};
use proxy_net::{Address, PipePath};
use proxy_runtime::Workers;
use proxy_runtime::log_file::LogFiles;
use proxy_stats::{EventKind, Store, TagExtractor};
use proxy_upstream::HostStat;
use tokio::sync::mpsc;

use crate::admin::{
    AdminPort, AdminState, ClusterStatus, ConfigDump, DrainListeners, HostCounters, HostStatus,
    ListenerStatus, Memory, Refusal, RestartRequest, ServerState, ServerStatus, ShutDown, Stats,
};
use crate::clusters::ClusterManager;
use crate::events::Events;
use crate::flush::Flusher;
use crate::listeners::ListenerManager;
use crate::memory;
use crate::options::Allocator;
use crate::reload::Reloader;
use crate::restart::{Leadership, Restarts};
use crate::segment::Onlooker;
use crate::server_stats::ServerStats;

/// What main holds together.
pub(crate) struct State {
    pub clusters: Rc<ClusterManager>,
    pub listeners: Rc<ListenerManager>,
    pub flusher: Rc<Flusher>,
    pub store: Store,
    pub events: Events,
    pub onlooker: Onlooker,
    pub stats: ServerStats,
    pub allocator: Allocator,
    pub tags: Arc<TagExtractor>,
    pub histogram_buckets: Arc<[HistogramBuckets]>,
    pub workers: Rc<Workers>,
    pub files: LogFiles,
    pub node: Arc<Node>,
    pub reloader: Rc<Reloader>,
    /// The configuration can be read again.
    pub has_file: bool,
    /// Why it is to be as soon as it can be.
    pub reload_later: Cell<Option<&'static str>>,
    pub started: Instant,
    pub listening: Cell<bool>,
    pub healthy: Cell<bool>,
    /// The process is on its way out, or another one leads.
    pub ending: Cell<bool>,
    /// `--restart-epoch` as it came out.
    pub epoch: Cell<u32>,
    /// There is, or was, another process to take over from, and this one does not lead yet.
    pub taking_over: Cell<bool>,
    /// Another process leads, and this one could lead again: its connections have not been asked to end.
    pub can_return: Cell<bool>,
    pub leadership: Rc<Leadership>,
    pub restarts: Rc<Restarts>,
    /// When the first epoch began.
    pub first_started: SystemTime,
    pub admin_port: OnceCell<AdminPort>,
    /// Graceful draining without an end of its own: asked for over admin.
    pub commands: mpsc::UnboundedSender<Command>,
}

/// What the admin handlers ask of the main loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    ShutDown(ShutDown),
    Drain(DrainListeners),
    ReopenLogs,
    RollBack,
}

impl AdminState for State {
    fn server(&self) -> ServerStatus {
        let state = if !self.healthy.get() {
            ServerState::Draining
        } else if self.clusters.is_warming() {
            ServerState::PreInitializing
        } else if !self.listening.get() {
            ServerState::Initializing
        } else {
            ServerState::Live
        };
        let uptime = self.started.elapsed();
        let uptime_all_epochs = self.first_started.elapsed().unwrap_or(uptime);
        ServerStatus {
            state,
            uptime,
            uptime_all_epochs,
            epoch: self.epoch.get(),
            hot_restart_initializing: self.taking_over.get(),
            node: (*self.node).clone(),
        }
    }

    fn listeners(&self) -> Vec<ListenerStatus> {
        let list = self.listeners.list();
        let status = |(name, addresses): (Arc<str>, Vec<Address>)| {
            let mut addresses = addresses.iter().map(socket_address);
            let address = addresses.next()?;
            Some(ListenerStatus { name, address, additional_addresses: addresses.collect() })
        };
        list.into_iter().filter_map(status).collect()
    }

    fn clusters(&self) -> Vec<Arc<str>> {
        self.clusters.names()
    }

    fn cluster(&self, name: &str) -> Option<ClusterStatus> {
        let (info, hosts) = self.clusters.get(name)?;
        let host = |host: &Arc<proxy_upstream::Host>| HostStatus {
            address: socket_address(&host.address),
            hostname: host.hostname.clone(),
            health: host.health,
            weight: host.weight,
            region: host.region.to_string(),
            zone: host.zone.to_string(),
            sub_zone: host.sub_zone.to_string(),
            priority: host.priority,
            counters: HostCounters {
                cx_active: host.total(HostStat::CxActive),
                cx_connect_fail: host.total(HostStat::CxConnectFail),
                cx_total: host.total(HostStat::CxTotal),
                rq_active: host.total(HostStat::RqActive),
                rq_error: host.total(HostStat::RqError),
                rq_pending_active: 0,
                rq_success: host.total(HostStat::RqSuccess),
                rq_timeout: host.total(HostStat::RqTimeout),
                rq_total: host.total(HostStat::RqTotal),
            },
        };
        Some(ClusterStatus {
            name: Arc::clone(&info.settings.name),
            alt_stat_name: info.settings.alt_stat_name.clone(),
            added_via_api: false,
            circuit_breakers: info.settings.circuit_breakers,
            hosts: hosts.hosts.iter().map(host).collect(),
        })
    }

    fn stats(&self) -> Stats {
        self.refresh_stats();
        self.flusher.asked_by_admin();
        let (tags, buckets) = (Arc::clone(&self.tags), Arc::clone(&self.histogram_buckets));
        let others = self.onlooker.clone();
        Stats { store: self.store.clone(), others, tags, buckets }
    }

    fn reset_counters(&self) {
        // Each thread's cells are its own to write.
        let store = self.store.clone();
        self.workers.post_all(move || store.reset_counters());
        self.store.reset_counters();
        self.events.info(EventKind::STATS, format_args!("counters were reset to zero"));
    }

    fn config_dump(&self) -> ConfigDump {
        self.reloader.config_dump()
    }

    fn memory(&self) -> Memory {
        memory::read(self.allocator)
    }

    fn set_healthy(&self, healthy: bool) {
        self.healthy.set(healthy);
        self.listeners.set_healthy(healthy);
        match healthy {
            true => self.events.success(EventKind::HEALTH_CHECK, format_args!("health checks pass again")),
            false => {
                self.events.warning(EventKind::HEALTH_CHECK, format_args!("health checks are made to fail"))
            }
        }
    }

    fn log_levels_changed(&self, levels: &str) {
        self.events.info(EventKind::LOG_LEVEL, format_args!("set to {levels}"));
    }

    fn drain_listeners(&self, request: DrainListeners) {
        // The receiver is the main loop; when it has ended, there is nothing left to drain.
        let _ = self.commands.send(Command::Drain(request));
    }

    fn reopen_logs(&self) {
        let _ = self.commands.send(Command::ReopenLogs);
    }

    fn generation(&self) -> Status {
        Status {
            state: self.standing(),
            epoch: self.epoch.get(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            connections: self.listeners.connections(),
            age_ms: self.started.elapsed().as_millis() as u64,
            private_stats: !self.onlooker.is_listed(),
        }
    }

    fn restart(&self, request: RestartRequest) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        if self.ending.get() && self.leadership.leads() {
            return Err(Refusal::Never("this process is about to end"));
        }
        self.restarts.begin(request)
    }

    fn roll_back(&self) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        match self.standing() {
            Standing::Leads => Err(Refusal::Never("this process leads already")),
            Standing::Draining if !self.can_return.get() => {
                Err(Refusal::Never("this process is about to end"))
            }
            Standing::Starting | Standing::ServingNotConfirmed | Standing::Draining => {
                let (lines, _) = self.restarts.listen()?;
                let _ = self.commands.send(Command::RollBack);
                Ok(lines)
            }
        }
    }

    fn reload(&self, wait: bool) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        self.may_reload()?;
        Ok(self.reloader.ask_and_hear(wait))
    }

    fn shut_down(&self, how: ShutDown) {
        let _ = self.commands.send(Command::ShutDown(how));
    }
}

impl State {
    /// SIGHUP, or the file has changed. What cannot be now is done later: see [`State::reload_if_wanted`].
    pub(crate) fn reload_unasked(&self, why: &'static str) {
        match self.may_reload() {
            Ok(()) => self.reloader.ask(),
            Err(Refusal::Busy(reason)) => {
                self.reload_later.set(Some(why));
                tracing::info!(target: "config", "{why}: the configuration is read again later, now {reason}");
                self.events.info(EventKind::RELOAD, format_args!("{why}: later, now {reason}"));
            }
            Err(refusal) => {
                tracing::warn!(target: "config", %refusal, "{why}: no reload");
                self.events.warning(EventKind::RELOAD, format_args!("{why}: no reload, {refusal}"));
            }
        }
    }

    /// What stood in the way of a reload may be over.
    pub(crate) fn reload_if_wanted(&self) {
        if let Some(why) = self.reload_later.take() {
            self.reload_unasked(why);
        }
    }

    /// Another process leads: what it has read is in use, which may be older than what this one was asked to read.
    pub(crate) fn no_reload_any_more(&self) {
        if let Some(why) = self.reload_later.take() {
            tracing::warn!(target: "config", "{why}: no reload, the new process leads, which may have read the configuration before");
            self.events.warning(
                EventKind::RELOAD,
                format_args!(
                    "{why}: no reload, the new process leads; it may have read its configuration before"
                ),
            );
        }
    }

    fn may_reload(&self) -> Result<(), Refusal> {
        if !self.has_file {
            return Err(Refusal::Never("the configuration is not in a file"));
        }
        match self.standing() {
            Standing::Leads if self.restarts.is_busy() => Err(Refusal::Busy("a hot restart is under way")),
            Standing::Leads => Ok(()),
            Standing::Starting => Err(Refusal::Busy("the process is starting")),
            Standing::ServingNotConfirmed => Err(Refusal::Busy("the process does not lead yet")),
            Standing::Draining => Err(Refusal::Never("the process is about to end")),
        }
    }

    fn standing(&self) -> Standing {
        match self.leadership.leads() {
            _ if self.ending.get() => Standing::Draining,
            _ if !self.listening.get() => Standing::Starting,
            true => Standing::Leads,
            false => Standing::ServingNotConfirmed,
        }
    }
}

/// For what shows addresses; the mode of a pipe is not known here.
fn socket_address(address: &Address) -> SocketAddress {
    let pipe =
        |path: &OsStr, abstract_name| SocketAddress::Pipe { path: path.into(), abstract_name, mode: 0 };
    match address {
        Address::Ip(address) => SocketAddress::Ip(*address),
        Address::Pipe(path) => match &**path {
            PipePath::File(path) => pipe(path.as_os_str(), false),
            PipePath::Abstract(name) => pipe(OsStr::from_bytes(&[b"@", &**name].concat()), true),
            PipePath::Unnamed => pipe(OsStr::new(""), false),
        },
    }
}
