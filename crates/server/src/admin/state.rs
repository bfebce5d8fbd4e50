//! What the admin handlers need to know and may ask for: the seam between them and the managers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proxy_config::settings::{CircuitBreaker, EndpointHealth, HistogramBuckets, Node, SocketAddress};
use proxy_control::restart;
use proxy_stats::{Store, TagExtractor};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::segment::Onlooker;

/// The process as admin sees it. All calls come from main and return at once: whoever would have to compute much returns something
/// that computes piece by piece.
pub trait AdminState {
    fn server(&self) -> ServerStatus;

    /// All listeners, in the order in which they were added.
    fn listeners(&self) -> Vec<ListenerStatus>;

    /// Names of all clusters, in the order in which they are to be listed.
    fn clusters(&self) -> Vec<Arc<str>>;

    /// A cluster named by [`AdminState::clusters`]; `None` if it was removed since.
    fn cluster(&self, name: &str) -> Option<ClusterStatus>;

    /// All stats; shown by another thread.
    fn stats(&self) -> Stats;

    /// `/reset_counters`.
    fn reset_counters(&self);

    /// The configuration in use, without secrets.
    fn config_dump(&self) -> ConfigDump;

    fn memory(&self) -> Memory;

    /// `/healthcheck/fail` and `/healthcheck/ok`.
    fn set_healthy(&self, healthy: bool);

    /// Somebody has changed log levels to these: `level`, or `component:level` and so on.
    fn log_levels_changed(&self, levels: &str);

    fn drain_listeners(&self, request: DrainListeners);
    /// Opens all log files anew.
    fn reopen_logs(&self);

    /// The place of this process among those of its base-id.
    fn generation(&self) -> restart::Status;

    /// Starts a process that takes over from this one. The lines are [`restart::Progress`].
    ///
    /// # Errors
    /// That cannot be, or not now.
    fn restart(&self, request: RestartRequest) -> Result<mpsc::Receiver<Bytes>, Refusal>;

    /// Gives up, if this process does not lead yet; takes over again, if it did lead and has connections left. Lines as for
    /// [`AdminState::restart`].
    ///
    /// # Errors
    /// There is nothing to take back, or not now.
    fn roll_back(&self) -> Result<mpsc::Receiver<Bytes>, Refusal>;

    /// Reads the configuration again and applies what differs. Lines are [`proxy_control::reload::Outcome`]; with `wait` the last
    /// one comes when connections of what was replaced have ended.
    ///
    /// # Errors
    /// There is no file, or not now.
    fn reload(&self, wait: bool) -> Result<mpsc::Receiver<Bytes>, Refusal>;

    /// Begins to end the process. The answer to the request is still to be sent: see [`super::Admin::finish`].
    fn shut_down(&self, how: ShutDown);
}

/// `envoy.admin.v3.ServerInfo.State`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    Live,
    /// After `/healthcheck/fail`, or on the way out.
    Draining,
    /// Some cluster has no hosts yet.
    PreInitializing,
    /// Listeners wait for what they need.
    Initializing,
}

#[derive(Debug, Clone)]
pub struct ServerStatus {
    pub state: ServerState,
    pub uptime: Duration,
    /// `--restart-epoch` as it came out.
    pub epoch: u32,
    /// Another process is being taken over from.
    pub hot_restart_initializing: bool,
    /// Since the first process of this line of hot restarts began.
    pub uptime_all_epochs: Duration,
    pub node: Node,
}

#[derive(Debug, Clone)]
pub struct ListenerStatus {
    pub name: Arc<str>,
    /// As bound: with the port that the system chose.
    pub address: SocketAddress,
    pub additional_addresses: Vec<SocketAddress>,
}

#[derive(Debug, Clone)]
pub struct ClusterStatus {
    pub name: Arc<str>,
    /// The name in stats, unless that is `name`.
    pub alt_stat_name: Option<String>,
    pub added_via_api: bool,
    /// Indexed by [`proxy_config::settings::Priority`].
    pub circuit_breakers: [CircuitBreaker; 2],
    pub hosts: Vec<HostStatus>,
}

#[derive(Debug, Clone)]
pub struct HostStatus {
    pub address: SocketAddress,
    pub hostname: Box<str>,
    pub health: EndpointHealth,
    pub weight: u32,
    pub region: String,
    pub zone: String,
    pub sub_zone: String,
    pub priority: u32,
    pub counters: HostCounters,
}

/// Envoy's per-host stats, summed over workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostCounters {
    pub cx_active: u64,
    pub cx_connect_fail: u64,
    pub cx_total: u64,
    pub rq_active: u64,
    pub rq_error: u64,
    pub rq_pending_active: u64,
    pub rq_success: u64,
    pub rq_timeout: u64,
    pub rq_total: u64,
}

/// All stats, and how they are shown.
#[derive(Debug, Clone)]
pub struct Stats {
    pub store: Store,
    pub others: Onlooker,
    pub tags: Arc<TagExtractor>,
    /// The first one that matches a name applies; Envoy's bounds where none does.
    pub buckets: Arc<[HistogramBuckets]>,
}

/// What `/config_dump` shows; rendered on another thread.
#[derive(Debug, Default)]
pub struct ConfigDump {
    /// In the order of kinds; kinds without resources are shown empty.
    pub resources: Vec<ConfigResource>,
}

/// One resource as it was loaded, with sensitive fields masked.
pub struct ConfigResource {
    pub kind: ConfigKind,
    pub name: String,
    pub last_updated: SystemTime,
    /// The message as JSON, field names as in the .proto. Resources other than the bootstrap have an `@type`. May take long.
    pub json: Box<dyn FnOnce() -> Value + Send>,
}

impl std::fmt::Debug for ConfigResource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ConfigResource").field("kind", &self.kind).field("name", &self.name).finish()
    }
}

/// In which field of which message of `envoy.admin.v3` a resource is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConfigKind {
    Bootstrap,
    StaticCluster,
    StaticListener,
    StaticRoute,
}

/// `/memory`, in bytes: `envoy.admin.v3.Memory`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// In use by the program.
    pub allocated: u64,
    /// Taken from the system.
    pub heap_size: u64,
    /// Given back to the system, but still mapped.
    pub pageheap_unmapped: u64,
    /// Taken and unused.
    pub pageheap_free: u64,
    pub total_thread_cache: u64,
    /// Resident.
    pub total_physical_bytes: u64,
}

/// `/drain_listeners`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrainListeners {
    /// Accept until the drain time is over.
    pub graceful: bool,
    /// Drain connections, but never stop to accept.
    pub skip_exit: bool,
    /// Only listeners whose traffic direction is inbound.
    pub inbound_only: bool,
}

/// `/restart`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestartRequest {
    /// Another program than that of this process.
    pub binary: Option<PathBuf>,
    /// Another configuration file.
    pub config: Option<PathBuf>,
    /// Only sees whether the program can run the configuration.
    pub dry_run: bool,
    /// Until the new process asks to take over. One that has not done so by then is killed.
    pub within: Option<Duration>,
}

/// Why a reload, restart or roll-back does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Worth another try.
    #[error("busy: {0}")]
    Busy(&'static str),
    #[error("{0}")]
    Never(&'static str),
}

/// How the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutDown {
    /// `/quitquitquit`: at once.
    Now,
    /// `/shutdown`: as after SIGTERM.
    Drained,
}
