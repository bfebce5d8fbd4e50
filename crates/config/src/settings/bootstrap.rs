//! The whole of a bootstrap file.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use super::{Cluster, Listener, Runtime, SocketAddress, Stats, Watchdogs};

/// `envoy.config.bootstrap.v3.Bootstrap`.
#[derive(Debug, Default)]
pub struct Bootstrap {
    pub node: Node,
    pub admin: Option<Admin>,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<Cluster>>,
    /// Over all listeners: `envoy.resource_monitors.global_downstream_max_connections` of the overload manager, or the
    /// runtime key `overload.global_downstream_max_connections`.
    pub max_connections: Option<u64>,
    pub runtime: Arc<Runtime>,
    pub stats: Stats,
    /// `cluster_manager.local_cluster_name`.
    pub local_cluster: Option<Arc<str>>,
    pub watchdogs: Watchdogs,
    /// `enable_dispatcher_stats`: how long each turn of a thread's loop takes is recorded.
    pub dispatcher_stats: bool,
    /// `stats_server_version_override`: the value of `server.version`.
    pub version_override: Option<u64>,
    /// Files that were read: that of the bootstrap, and those that it names.
    pub files: Vec<NamedFile>,
}

/// A file that belongs to a bootstrap, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    pub path: PathBuf,
    /// Of its content; differs if that does.
    pub digest: u64,
    /// Path of the field that names it. Empty: it is the bootstrap's own.
    pub named_at: String,
}

impl NamedFile {
    pub fn new(path: impl Into<PathBuf>, content: &[u8], named_at: String) -> NamedFile {
        NamedFile { path: path.into(), digest: NamedFile::digest(content), named_at }
    }

    /// As in [`NamedFile::digest`], the field. The same in all processes of this program.
    pub fn digest(content: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        hasher.finish()
    }
}

/// `envoy.config.core.v3.Node`, after `--service-node`, `--service-cluster` and `--service-zone`.
#[derive(Debug, Default, Clone)]
pub struct Node {
    pub id: String,
    pub cluster: String,
    pub region: String,
    pub zone: String,
    pub sub_zone: String,
}

/// `envoy.config.bootstrap.v3.Admin`.
#[derive(Debug, Clone)]
pub struct Admin {
    pub address: SocketAddress,
}
