//! What the operator asked for, once the command line is understood: no strings to parse, every default filled in. Made by
//! `cli/proxyd`, read by everything on main.

use std::collections::HashMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proxy_control::BaseId;
pub use proxy_runtime::log_file::FlushOptions;

use crate::invocation::Invocation;
use crate::logging::LogOptions;

/// How a proxy is to run. Flags have Envoy's names where Envoy has them.
#[derive(Debug, Clone)]
pub struct Options {
    /// How to start this process again.
    pub invocation: Invocation,
    pub config: ConfigSource,
    /// `--watch`: the configuration is read again when its file changes.
    pub watch: bool,
    pub mode: Mode,
    /// `--concurrency`: workers; the number of cores when not given.
    pub concurrency: NonZeroUsize,
    /// `--base-id`.
    pub base_id: BaseId,
    /// `--use-dynamic-base-id`: `base_id` is the lowest of those that were free.
    pub dynamic_base_id: bool,
    /// `--base-id-path`: a file that gets the base-id.
    pub base_id_path: Option<PathBuf>,
    /// `--run-dir`, or [`proxy_control::RunDir::default_path`].
    pub run_dir: PathBuf,
    /// `--shm-dir`: where the counters lie.
    pub shm_dir: PathBuf,
    pub log: LogOptions,
    pub node: NodeOptions,
    /// `--admin-address-path`: a file that gets the admin port's bound address.
    pub admin_address_path: Option<PathBuf>,
    /// `--admin-allowed-host`: more names by which the admin port may be addressed.
    pub admin_allowed_hosts: Vec<String>,
    pub restart: RestartOptions,
    /// `--drain-time-s`.
    pub drain_time: Duration,
    /// `--shutdown-time-s`: how long connections may last after SIGTERM.
    pub shutdown_time: Duration,
    /// `--file-flush-interval-msec`, `--file-flush-min-size-kb`: when lines of access logs are written.
    pub file_flush: FlushOptions,
    /// `--allow-unsupported`: fields that proxyd does not implement are warnings.
    pub allow_unsupported: bool,
    /// `--env-substitution`: what `${VAR}` in values of the configuration stands for.
    pub environment: Option<Arc<HashMap<String, String>>>,
    pub allocator: Allocator,
}

/// What the program was linked with: whom to ask how much memory is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocator {
    Jemalloc,
    System,
}

/// How this process takes over from another one, and lets go in turn.
#[derive(Debug, Clone)]
pub struct RestartOptions {
    pub epoch: RestartEpoch,
    /// `--confirm-after`: how long this process must have served before it leads.
    pub confirm_after: Duration,
    /// `--parent-shutdown-time-s`: how long connections that cannot move may last in a process that leads no more.
    pub parent_shutdown_time: Duration,
    /// `--drain-strategy`.
    pub drain_strategy: DrainStrategy,
    /// `--disable-hot-restart`: nobody takes over from this process.
    pub disabled: bool,
    /// `--skip-hot-restart-on-no-parent`: without a process to take over from, it is a cold start all the same.
    pub skip_on_no_parent: bool,
}

impl Default for RestartOptions {
    fn default() -> Self {
        Self {
            epoch: RestartEpoch::default(),
            confirm_after: Duration::from_secs(2),
            parent_shutdown_time: Duration::from_secs(900),
            drain_strategy: DrainStrategy::default(),
            disabled: false,
            skip_on_no_parent: false,
        }
    }
}

/// `--restart-epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartEpoch {
    /// 0: a cold start. A running instance of the base-id is an error.
    #[default]
    Cold,
    /// `auto`: takes over if there is a running instance.
    Auto,
    /// Takes over from the process with the epoch before this one.
    Number(NonZeroU32),
}

/// `--drain-strategy`: when connections that cannot move are asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DrainStrategy {
    /// Spread over the drain time.
    #[default]
    Gradual,
    /// All at once.
    Immediate,
}

/// Where the bootstrap comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// `-c`, and `--config-yaml` merged over it.
    File { path: PathBuf, overlay: Option<String> },
    /// `--config-yaml` alone.
    Inline { yaml: String },
    /// Nothing, or `--from` and `--to`: made by [`crate::default_config`].
    Built { yaml: String },
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Serve,
    /// Says what is wrong with the configuration, and ends.
    Validate,
}

/// `--service-cluster`, `--service-node`, `--service-zone`: they win over the file's `node`. Empty when not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeOptions {
    pub cluster: String,
    pub id: String,
    pub zone: String,
}
