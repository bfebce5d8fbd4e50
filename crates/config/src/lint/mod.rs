//! Warnings about what is allowed and probably not meant: from the message, with the places of its fields.
//!
//! A lint looks at a message that was read and checked, with errors or without, and never changes what is accepted. What is
//! an error does not belong here, nor what only lowering can tell.

mod cluster;
mod edge;
mod route;
mod timeout;

use std::collections::HashMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{Address, address};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;
use manager_v3::HttpConnectionManager;
use manager_v3::http_connection_manager::RouteSpecifier;
use prost::{Message, Name};

use crate::codes::Code;
use crate::finding::{Findings, Path};
use crate::load::LintOptions;
use crate::lower::ClusterNames;

/// Looks at everything in a bootstrap; `names` knows which clusters are used.
pub(crate) fn bootstrap(
    message: &Bootstrap,
    names: &ClusterNames,
    options: &LintOptions,
    findings: &mut Findings,
) {
    let root = Path::root();
    admin(&root.field("admin"), message, findings);
    let Some(resources) = &message.static_resources else { return };
    let here = root.field("static_resources");
    let clusters: HashMap<&str, &Cluster> =
        resources.clusters.iter().map(|cluster| (cluster.name.as_str(), cluster)).collect();
    let mut file = File { options, clusters, edge: false, any_cluster: false, findings };
    let listeners = here.field("listeners");
    for (index, listener) in resources.listeners.iter().enumerate() {
        self::listener(&mut file, &listeners.index(index), listener);
    }
    let path = here.field("clusters");
    let bound: Vec<_> =
        resources.listeners.iter().filter_map(|listener| ip_and_port(listener.address.as_ref())).collect();
    for (index, message) in resources.clusters.iter().enumerate() {
        cluster::lint(&mut file, &path.index(index), message, &bound);
    }
    let File { edge, any_cluster, .. } = file;
    if edge {
        edge::clusters(&path, &resources.clusters, findings);
    }
    // What was not lowered may use them.
    if !any_cluster && !findings.has_errors() && !findings.iter().any(|finding| hides_uses(finding.code)) {
        cluster::unused(&path, &resources.clusters, names, findings);
    }
}

fn hides_uses(code: Code) -> bool {
    [
        Code::UNSUPPORTED_FIELD,
        Code::UNSUPPORTED_TYPE,
        Code::UNKNOWN_TYPE,
        Code::REMOVED_TYPE,
        Code::MISSING_TYPE,
    ]
    .contains(&code)
}

/// What all lints of one bootstrap share.
struct File<'f> {
    options: &'f LintOptions,
    clusters: HashMap<&'f str, &'f Cluster>,
    /// Some listener serves clients that nobody trusts.
    edge: bool,
    /// A request may name its cluster.
    any_cluster: bool,
    findings: &'f mut Findings,
}

impl File<'_> {
    fn warn(&mut self, path: &Path<'_>, code: Code, message: impl std::fmt::Display) {
        self.findings.warning(path, code, message);
    }
}

fn admin(path: &Path<'_>, message: &Bootstrap, findings: &mut Findings) {
    let address = message.admin.as_ref().and_then(|admin| admin.address.as_ref());
    let Some((address, _)) = ip_and_port(address) else { return };
    if !address.to_canonical().is_loopback() {
        let text = format_args!("the admin server can be reached from other hosts at {address}");
        let path = path.field("address");
        findings.warning(&path.field("socket_address").field("address"), Code::ADMIN_EXPOSED, text);
    }
}

fn ip_and_port(address: Option<&Address>) -> Option<(IpAddr, u32)> {
    use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
    let Some(address::Address::SocketAddress(socket)) = &address?.address else { return None };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some((socket.address.parse().ok()?, port))
}

fn listener(file: &mut File<'_>, path: &Path<'_>, message: &Listener) {
    let chains = path.field("filter_chains");
    repeated_names(file, &chains, "filter_chains", message.filter_chains.iter().map(|c| c.name.as_str()));
    let mut managers = 0;
    for (index, chain) in message.filter_chains.iter().enumerate() {
        managers += filter_chain(file, &chains.index(index), chain);
    }
    if let Some(chain) = &message.default_filter_chain {
        managers += filter_chain(file, &path.field("default_filter_chain"), chain);
    }
    if managers > 0 && message.per_connection_buffer_limit_bytes.is_none() {
        let text =
            "per_connection_buffer_limit_bytes is not set on a listener for clients that nobody trusts";
        file.warn(path, Code::EDGE_BUFFER, text);
    }
}

/// Names of things that are told apart by their names, though nothing fails where they are not.
fn repeated_names<'n>(
    file: &mut File<'_>,
    path: &Path<'_>,
    list: &str,
    names: impl Iterator<Item = &'n str>,
) {
    let mut seen = HashMap::new();
    for (index, name) in names.enumerate().filter(|(_, name)| !name.is_empty()) {
        let first = *seen.entry(name).or_insert(index);
        if first != index {
            let text = format_args!("{list}[{first}] is named {name:?} as well");
            file.warn(&path.index(index).field("name"), Code::REPEATED_NAME, text);
        }
    }
}

/// The number of connection managers that serve clients whom nobody trusts.
fn filter_chain(file: &mut File<'_>, path: &Path<'_>, message: &FilterChain) -> usize {
    let filters = path.field("filters");
    let mut edges = 0;
    for (index, message) in message.filters.iter().enumerate() {
        let Some(filter::ConfigType::TypedConfig(any)) = &message.config_type else { continue };
        if any.type_url.rsplit('/').next() != Some(HttpConnectionManager::full_name().as_str()) {
            continue;
        }
        let Ok(manager) = HttpConnectionManager::decode(any.value.as_slice()) else { continue };
        let path = filters.index(index);
        let path = path.field("typed_config");
        if file.options.edge || manager.use_remote_address.as_ref().is_some_and(|flag| flag.value) {
            file.edge = true;
            edges += 1;
            edge::manager(file, &path, &manager);
        }
        timeout::manager(file, &path, &manager);
        if let Some(RouteSpecifier::RouteConfig(routes)) = &manager.route_specifier {
            route::configuration(file, &path.field("route_config"), &manager, routes);
        }
    }
    edges
}

#[cfg(test)]
mod tests;
