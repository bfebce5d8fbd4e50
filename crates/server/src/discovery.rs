//! Where a cluster's hosts come from: its own list, or DNS.

use std::sync::Arc;
use std::time::Duration;

use proxy_config::settings::{self, Discovery, Endpoint, EndpointAddress, LocalityEndpoints};
use proxy_net::Address;
use proxy_upstream::dns::{Answer, Resolver};
use proxy_upstream::{ClusterInfo, Host, HostAttributes, HostSet};

/// What a round of look-ups gave.
pub(crate) enum Hosts {
    New(HostSet),
    /// The same as before, or nothing: the last good answer stays.
    Unchanged,
}

/// The hosts of a cluster whose addresses are all literal.
pub(crate) fn static_hosts(info: &ClusterInfo, workers: usize) -> HostSet {
    let mut set = HostSet::default();
    for (locality, endpoint) in endpoints(&info.settings) {
        if let EndpointAddress::Socket(address) = &endpoint.address {
            set.hosts.push(Arc::new(host(address.into(), locality, endpoint, &endpoint.hostname, workers)));
        }
    }
    info.stats.total_match_count.add(set.hosts.len() as u64);
    set
}

/// Looks names up for as long as the cluster lives, and tells of every round.
pub(crate) async fn follow(
    resolver: Option<Resolver>,
    info: Arc<ClusterInfo>,
    dns: settings::Dns,
    workers: usize,
    mut found: impl FnMut(Hosts),
) {
    let mut last: Vec<(Address, usize)> = Vec::new();
    let mut hosts: Vec<Arc<Host>> = Vec::new();
    let mut failures = 0u32;
    loop {
        info.stats.update_attempt.inc();
        let round = match &resolver {
            Some(resolver) => look_up(resolver, &info.settings, &dns).await,
            None => None,
        };
        let wait = match round {
            None => {
                info.stats.update_failure.inc();
                failures += 1;
                found(Hosts::Unchanged);
                let (base, max) = dns.failure_refresh;
                max.map_or(base, |max| (base * 2u32.pow(failures.min(16) - 1)).min(max))
            }
            Some((addresses, ttl)) => {
                failures = 0;
                info.stats.update_success.inc();
                if addresses == last {
                    info.stats.update_no_rebuild.inc();
                    found(Hosts::Unchanged);
                } else {
                    hosts = rebuild(&info, &addresses, &last, &hosts, workers);
                    last = addresses;
                    found(Hosts::New(HostSet { hosts: hosts.clone() }));
                }
                if dns.respect_ttl { ttl.unwrap_or(dns.refresh_rate) } else { dns.refresh_rate }
            }
        };
        let jitter = dns.jitter.mul_f64(fastrand::f64());
        tokio::time::sleep(wait.max(Duration::from_millis(1)) + jitter).await;
    }
}

/// The address and the endpoint's number of every host, and the shortest time to live. `None`: some look-up failed.
async fn look_up(
    resolver: &Resolver,
    cluster: &settings::Cluster,
    dns: &settings::Dns,
) -> Option<(Vec<(Address, usize)>, Option<Duration>)> {
    let logical = matches!(cluster.discovery, Discovery::LogicalDns(_));
    let (mut addresses, mut shortest) = (Vec::new(), None::<Duration>);
    for (index, (_, endpoint)) in endpoints(cluster).enumerate() {
        match &endpoint.address {
            EndpointAddress::Socket(address) => addresses.push((address.into(), index)),
            EndpointAddress::Name { host, port } => {
                let Answer { addresses: found, ttl } = resolver.resolve(host, dns.family).await.ok()?;
                shortest = Some(shortest.map_or(ttl, |shortest| shortest.min(ttl)));
                let of_host = found.iter().map(|ip| (Address::Ip((*ip, *port).into()), index));
                addresses.extend(of_host.take(if logical { 1 } else { usize::MAX }));
            }
        }
    }
    Some((addresses, shortest))
}

/// Hosts for the addresses; those that were there before are kept, with their counters and pools.
fn rebuild(
    info: &ClusterInfo,
    addresses: &[(Address, usize)],
    before: &[(Address, usize)],
    hosts: &[Arc<Host>],
    workers: usize,
) -> Vec<Arc<Host>> {
    let endpoints: Vec<_> = endpoints(&info.settings).collect();
    addresses
        .iter()
        .map(|key| {
            let known = before.iter().position(|old| old == key).and_then(|at| hosts.get(at));
            known.cloned().unwrap_or_else(|| {
                let (locality, endpoint) = endpoints[key.1];
                let name = match &endpoint.address {
                    EndpointAddress::Name { host, .. } if endpoint.hostname.is_empty() => host,
                    _ => &endpoint.hostname,
                };
                info.stats.total_match_count.inc();
                Arc::new(host(key.0.clone(), locality, endpoint, name, workers))
            })
        })
        .collect()
}

fn endpoints(cluster: &settings::Cluster) -> impl Iterator<Item = (&LocalityEndpoints, &Endpoint)> {
    cluster.localities.iter().flat_map(|locality| locality.endpoints.iter().map(move |e| (locality, e)))
}

fn host(
    address: Address,
    locality: &LocalityEndpoints,
    endpoint: &Endpoint,
    hostname: &str,
    workers: usize,
) -> Host {
    let attributes = HostAttributes {
        hostname,
        weight: endpoint.weight,
        priority: locality.priority,
        health: endpoint.health,
        region: &locality.region,
        zone: &locality.zone,
        sub_zone: &locality.sub_zone,
        metadata: &endpoint.metadata,
    };
    Host::new(address, attributes, workers)
}
