//! Clusters and their endpoints.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use prost::Message;

use super::{File, ip_and_port};
use crate::codes::Code;
use crate::finding::{Findings, Path};
use crate::lower::ClusterNames;

/// `bound`: addresses of the listeners of the same file.
pub(super) fn lint(file: &mut File<'_>, path: &Path<'_>, message: &Cluster, bound: &[(IpAddr, u32)]) {
    endpoints(file, path, message, bound);
    breakers(file, path, message);
}

fn endpoints(file: &mut File<'_>, path: &Path<'_>, message: &Cluster, bound: &[(IpAddr, u32)]) {
    let kind = match &message.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => {
            DiscoveryType::try_from(*kind).unwrap_or(DiscoveryType::Eds)
        }
        Some(ClusterDiscoveryType::ClusterType(_)) => DiscoveryType::Eds,
    };
    let is_static = kind == DiscoveryType::Static;
    let listed = is_static || matches!(kind, DiscoveryType::StrictDns | DiscoveryType::LogicalDns);
    let localities =
        message.load_assignment.as_ref().map(|load| load.endpoints.as_slice()).unwrap_or_default();
    let load = path.field("load_assignment");
    let load = load.field("endpoints");
    let mut seen = HashSet::new();
    let mut count = 0;
    for (index, locality) in localities.iter().enumerate() {
        let locality_path = load.index(index);
        let here = locality_path.field("lb_endpoints");
        for (index, endpoint) in locality.lb_endpoints.iter().enumerate() {
            count += 1;
            let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { continue };
            let here = here.index(index);
            let here = here.field("endpoint");
            let here = here.field("address");
            let Some(address) = &endpoint.address else { continue };
            if !seen.insert((locality.priority, address.encode_to_vec())) {
                let text = format_args!("cluster {:?} has this endpoint already", message.name);
                file.warn(&here, Code::DUPLICATE_HOST, text);
            }
            let Some((host, port)) = ip_and_port(Some(address)) else { continue };
            let here = here.field("socket_address");
            if port == 0 {
                file.warn(&here.field("port_value"), Code::ENDPOINT_PORT, "nobody listens on port 0");
            } else if is_static && bound.iter().any(|(ip, at)| *at == port && is_reached(*ip, host)) {
                let text = format_args!("a listener of this file listens on {host}:{port}");
                file.warn(&here, Code::PROXY_LOOP, text);
            }
        }
    }
    if listed && count == 0 && !file.findings.explains(path) {
        file.warn(path, Code::EMPTY_CLUSTER, format_args!("cluster {:?} has no endpoints", message.name));
    }
}

/// Whether a connection to `host` comes to a socket that is bound to `bound`.
fn is_reached(bound: IpAddr, host: IpAddr) -> bool {
    bound == host || (bound.is_unspecified() && host == IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn breakers(file: &mut File<'_>, path: &Path<'_>, message: &Cluster) {
    let path = path.field("circuit_breakers");
    let path = path.field("thresholds");
    let thresholds =
        message.circuit_breakers.as_ref().map(|all| all.thresholds.as_slice()).unwrap_or_default();
    let mut seen = HashSet::new();
    for (index, threshold) in thresholds.iter().enumerate() {
        let here = path.index(index);
        if !seen.insert(threshold.priority) {
            let name =
                RoutingPriority::try_from(threshold.priority).map_or("this", |name| name.as_str_name());
            let text = format_args!("of several thresholds for {name} priority, the first counts");
            file.warn(&here, Code::NO_EFFECT, text);
        }
        let limits = [
            ("max_connections", &threshold.max_connections),
            ("max_pending_requests", &threshold.max_pending_requests),
            ("max_requests", &threshold.max_requests),
        ];
        for (name, _) in
            limits.iter().filter(|(_, limit)| limit.as_ref().is_some_and(|limit| limit.value == 0))
        {
            let text = format_args!("with {name} 0 cluster {:?} takes no requests", message.name);
            file.warn(&here.field(name), Code::NO_CAPACITY, text);
        }
    }
}

pub(super) fn unused(path: &Path<'_>, clusters: &[Cluster], names: &ClusterNames, findings: &mut Findings) {
    let unused = clusters.iter().enumerate().filter(|(_, cluster)| !names.is_used(&cluster.name));
    for (index, cluster) in unused {
        let text = format_args!("nothing refers to cluster {:?}", cluster.name);
        findings.warning(&path.index(index).field("name"), Code::UNUSED_CLUSTER, text);
    }
}
