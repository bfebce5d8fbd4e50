//! The whole of a bootstrap file.

use std::sync::Arc;

use super::{Cluster, Listener, SocketAddress, Stats};

/// `envoy.config.bootstrap.v3.Bootstrap`.
#[derive(Debug, Default)]
pub struct Bootstrap {
    pub node: Node,
    pub admin: Option<Admin>,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<Cluster>>,
    pub stats: Stats,
    /// `cluster_manager.local_cluster_name`.
    pub local_cluster: Option<Arc<str>>,
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
