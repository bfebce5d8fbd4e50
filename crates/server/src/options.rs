//! What the operator asked for, once the command line is understood: no strings to parse, every default filled in. Made by
//! `cli/proxyd`, read by everything on main.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use proxy_control::BaseId;
pub use proxy_runtime::log_file::FlushOptions;

use crate::logging::LogOptions;

/// How a proxy is to run. Flags have Envoy's names where Envoy has them.
#[derive(Debug, Clone)]
pub struct Options {
    pub config: ConfigSource,
    pub mode: Mode,
    /// `--concurrency`: workers; the number of cores when not given.
    pub concurrency: NonZeroUsize,
    /// `--base-id`.
    pub base_id: BaseId,
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
    /// `--drain-time-s`.
    pub drain_time: Duration,
    /// `--shutdown-time-s`: how long connections may last after SIGTERM.
    pub shutdown_time: Duration,
    /// `--file-flush-interval-msec`, `--file-flush-min-size-kb`: when lines of access logs are written.
    pub file_flush: FlushOptions,
    /// `--allow-unsupported`: fields that proxyd does not implement are warnings.
    pub allow_unsupported: bool,
    pub allocator: Allocator,
}

/// What the program was linked with: whom to ask how much memory is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocator {
    Jemalloc,
    System,
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
