//! Hosts: what main knows of them, and each worker's own counters for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proxy_config::settings::{EndpointHealth, Metadata};
use proxy_net::Address;
use proxy_runtime::WorkerIndex;

/// An address of a cluster to send requests to.
pub struct Host {
    pub address: Address,
    /// `hostname` of the endpoint or the DNS name it came from; may be empty.
    pub hostname: Box<str>,
    pub weight: u32,
    pub priority: u32,
    pub health: EndpointHealth,
    pub region: Box<str>,
    pub zone: Box<str>,
    pub sub_zone: Box<str>,
    pub metadata: Metadata,
    columns: Box<[HostColumn]>,
}

/// A number that `/clusters` shows per host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostStat {
    CxActive,
    CxConnectFail,
    CxTotal,
    RqActive,
    RqError,
    RqSuccess,
    RqTimeout,
    RqTotal,
}

/// One worker's numbers; written by that worker only.
#[repr(align(64))]
#[derive(Default)]
struct HostColumn([AtomicU64; 8]);

impl Host {
    pub fn new(address: Address, endpoint: HostAttributes<'_>, workers: usize) -> Host {
        Host {
            address,
            hostname: endpoint.hostname.into(),
            weight: endpoint.weight,
            priority: endpoint.priority,
            health: endpoint.health,
            region: endpoint.region.into(),
            zone: endpoint.zone.into(),
            sub_zone: endpoint.sub_zone.into(),
            metadata: endpoint.metadata.clone(),
            columns: (0..workers).map(|_| HostColumn::default()).collect(),
        }
    }

    /// Adds `by` to this worker's number.
    pub fn add(&self, worker: WorkerIndex, stat: HostStat, by: i64) {
        if let Some(column) = self.columns.get(usize::from(worker.0)) {
            let cell = &column.0[stat as usize];
            cell.store(cell.load(Relaxed).wrapping_add_signed(by), Relaxed);
        }
    }

    /// Sum over all workers.
    pub fn total(&self, stat: HostStat) -> u64 {
        self.columns.iter().fold(0, |sum, c| sum.wrapping_add(c.0[stat as usize].load(Relaxed)))
    }

    /// Whether requests may go there.
    pub fn is_usable(&self) -> bool {
        matches!(self.health, EndpointHealth::Healthy | EndpointHealth::Degraded)
    }
}

/// What a host is besides its address.
#[derive(Clone, Copy)]
pub struct HostAttributes<'a> {
    pub hostname: &'a str,
    pub weight: u32,
    pub priority: u32,
    pub health: EndpointHealth,
    pub region: &'a str,
    pub zone: &'a str,
    pub sub_zone: &'a str,
    pub metadata: &'a Metadata,
}

/// All hosts of a cluster at one time; replaced as a whole.
#[derive(Default)]
pub struct HostSet {
    pub hosts: Vec<Arc<Host>>,
}
