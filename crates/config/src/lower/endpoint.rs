//! Endpoints: the hosts of a cluster by locality and priority.

use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint_v3;

use super::address::{self, Hosts};
use super::{Context, metadata, value};
use crate::settings::{
    Discovery, Endpoint, EndpointAddress, EndpointHealth, LocalityEndpoints, SocketAddress,
};
use crate::{Code, Path};

/// What `load_assignment` of the cluster at `path` holds; any kind of host if its type has an error.
pub(super) fn localities(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&endpoint_v3::ClusterLoadAssignment>,
    discovery: &Discovery,
) -> Vec<LocalityEndpoints> {
    let here = path.field("load_assignment");
    let endpoints = here.field("endpoints");
    let messages = message.map(|message| message.endpoints.as_slice()).unwrap_or_default();
    if let Discovery::LogicalDns(_) = discovery {
        let single = matches!(messages, [locality] if locality.lb_endpoints.len() == 1);
        if !single {
            let message = "a LOGICAL_DNS cluster has exactly one locality with exactly one endpoint";
            context.error(&here, Code::INVALID, message);
        }
    }
    let known = |field: &str| !context.findings.explains(&path.field(field));
    let hosts = match discovery {
        Discovery::Static if known("type") && known("cluster_type") => Hosts::Ip,
        _ => Hosts::Names,
    };
    let each = messages.iter().enumerate();
    each.map(|(index, message)| locality(context, &endpoints.index(index), message, hosts)).collect()
}

fn locality(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &endpoint_v3::LocalityLbEndpoints,
    hosts: Hosts,
) -> LocalityEndpoints {
    if message.priority > MAX_PRIORITY {
        context.error(&path.field("priority"), Code::OUT_OF_RANGE, "a priority from 0 to 128 is expected");
    }
    let here = path.field("lb_endpoints");
    let each = message.lb_endpoints.iter().enumerate();
    let endpoints: Vec<_> =
        each.filter_map(|(index, message)| endpoint(context, &here.index(index), message, hosts)).collect();
    let total: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    if total > u64::from(u32::MAX) {
        context.error(&here, Code::BAD_WEIGHTS, "the sum of the weights exceeds 4294967295");
    }
    let name = message.locality.clone().unwrap_or_default();
    LocalityEndpoints {
        region: name.region,
        zone: name.zone,
        sub_zone: name.sub_zone,
        priority: message.priority,
        weight: message.load_balancing_weight.as_ref().map(|weight| weight.value),
        endpoints,
    }
}

fn endpoint(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &endpoint_v3::LbEndpoint,
    hosts: Hosts,
) -> Option<Endpoint> {
    use endpoint_v3::lb_endpoint::HostIdentifier;
    let health = match value::enumeration(context, &path.field("health_status"), message.health_status) {
        HealthStatus::Unknown | HealthStatus::Healthy => EndpointHealth::Healthy,
        HealthStatus::Unhealthy | HealthStatus::Timeout => EndpointHealth::Unhealthy,
        HealthStatus::Draining => EndpointHealth::Draining,
        HealthStatus::Degraded => EndpointHealth::Degraded,
    };
    let weight_path = path.field("load_balancing_weight");
    let weight = message.load_balancing_weight.as_ref();
    let weight = value::number(context, &weight_path, weight, 1..=u32::MAX, 1);
    let metadata = metadata::lower(message.metadata.as_ref());
    let here = path.field("endpoint");
    let message = match &message.host_identifier {
        Some(HostIdentifier::Endpoint(message)) => message,
        Some(HostIdentifier::EndpointName(_)) => {
            context.unsupported(&path.field("endpoint_name"), "an endpoint by name");
            return None;
        }
        None => {
            context.missing(path, "an endpoint is required");
            return None;
        }
    };
    let here = here.field("address");
    let address = address::address(context, &here, message.address.as_ref(), hosts)?;
    if hosts == Hosts::Names && matches!(address, EndpointAddress::Socket(SocketAddress::Pipe { .. })) {
        context.error(&here.field("pipe"), Code::BAD_ADDRESS, "a DNS cluster resolves names, not paths");
    }
    Some(Endpoint { address, hostname: message.hostname.as_str().into(), weight, health, metadata })
}

/// `LocalityLbEndpoints.priority`: lte 128.
const MAX_PRIORITY: u32 = 128;
