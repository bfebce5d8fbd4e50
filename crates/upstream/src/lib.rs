#![doc = include_str!("../DESIGN.md")]

mod balancer;
pub mod breaker;
pub mod cluster;
pub mod connect;
pub mod dns;
pub mod exchange;
pub mod h1;
pub mod h2;
pub mod host;
pub mod names;
mod pending;
pub mod pool;
pub mod stats;
pub mod tcp;
pub mod tunnel;

pub use cluster::{Cluster, ClusterInfo, ClusterMap, WorkerHost};
pub use host::{Host, HostAttributes, HostSet, HostStat};
pub use names::ClusterNames;
