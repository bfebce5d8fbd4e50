//! Which route a request takes, and what the route does to it.
//!
//! A [`RouteTable`] is a route configuration made ready for look-ups: clusters are numbers already, virtual hosts are
//! found by hash, and routes by an index over exact paths and prefixes. Everything here is a pure function of
//! table, request and the random value it is given.

use std::sync::Arc;

use proxy_config::settings::{
    ClusterTarget, RequireTls, Route, RouteAction, RouteConfiguration, VirtualHost,
};
use proxy_runtime::Snapshot;

use crate::forwarding::only_value;
use crate::message::Request;
use crate::name::HeaderId;

mod apply;
mod domains;
mod filter_config;
mod index;
mod matching;
mod redirect;
mod rewrite;
mod select;
mod trace;

pub use apply::replace_host;
use domains::Domains;
use filter_config::FilterConfigs;
pub use filter_config::{RouteFilterValue, RouteFilters};
use index::RouteIndex;
pub use matching::{Mismatch, header_matches, parameter_matches};
pub use redirect::to_https as redirect_to_https;
use rewrite::Text;
pub use select::{Selected, SelectedCluster, tunnel_chain};
pub use trace::Trace;

/// A cluster's number in this process: names are resolved to it when a table is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u32);

/// A route of a table that is kept alive by the stream that took it.
#[derive(Clone)]
pub struct RouteEntry {
    pub table: Snapshot<RouteTable>,
    pub virtual_host: u32,
    pub route: u32,
    /// Which of its weighted clusters, where it has some.
    pub weighted: Option<u32>,
}

impl RouteEntry {
    /// The route with all that stands around it, to work with.
    pub fn chosen(&self) -> ChosenRoute<'_> {
        self.table.chosen(self.virtual_host, self.route)
    }
}

/// A route configuration made ready for look-ups.
pub struct RouteTable {
    pub configuration: Arc<RouteConfiguration>,
    domains: Domains,
    hosts: Vec<Host>,
    /// Whether any virtual host wants TLS; most tables are spared the question.
    requires_tls: bool,
    filters: Option<Box<FilterConfigs>>,
}

/// What a virtual host adds to its settings.
struct Host {
    index: RouteIndex,
    /// Clusters of each route, in the order of its settings: one, as many as are weighted, or none.
    clusters: Vec<Box<[ClusterId]>>,
}

/// What a look-up depends on beside the request.
#[derive(Clone, Copy, Debug)]
pub struct LookupContext {
    /// Drawn once per stream: decides `runtime_fraction` matches.
    pub random: u64,
}

/// A route of a table, with the levels of configuration around it.
#[derive(Clone, Copy)]
pub struct ChosenRoute<'t> {
    table: &'t RouteTable,
    virtual_host: u32,
    route: u32,
}

impl RouteTable {
    /// Builds the look-up structures; `resolve` gives the number of a cluster name, known or not.
    pub fn new(
        configuration: Arc<RouteConfiguration>,
        resolve: &mut dyn FnMut(&Arc<str>) -> ClusterId,
    ) -> RouteTable {
        let domains = Domains::new(&configuration);
        let hosts = configuration
            .virtual_hosts
            .iter()
            .map(|host| Host {
                index: RouteIndex::new(&host.routes),
                clusters: host.routes.iter().map(|route| resolve_route(route, resolve)).collect(),
            })
            .collect();
        let requires_tls = configuration.virtual_hosts.iter().any(|h| h.require_tls != RequireTls::None);
        RouteTable { configuration, domains, hosts, requires_tls, filters: None }
    }

    /// The virtual host and the route that `request` takes: the first one in order that matches.
    pub fn find(&self, request: &Request, context: &LookupContext) -> Option<(u32, u32)> {
        let host = self.find_virtual_host(request.authority())?;
        let routes = &self.configuration.virtual_hosts[host as usize].routes;
        let route = self.hosts[host as usize].index.find(routes, request, context)?;
        Some((host, route))
    }

    /// The virtual host whose domains fit `authority` best.
    pub fn find_virtual_host(&self, authority: &[u8]) -> Option<u32> {
        self.domains.find(authority)
    }

    /// Whether a request came in clear where its virtual host has `require_tls`: then [`redirect_to_https`] is its answer, and
    /// no route. Reads `x-forwarded-proto` and `x-envoy-internal` as the connection manager left them.
    pub fn requires_tls(&self, request: &Request) -> bool {
        if !self.requires_tls {
            return false;
        }
        let Some(host) = self.find_virtual_host(request.authority()) else { return false };
        let wanted = match self.configuration.virtual_hosts[host as usize].require_tls {
            RequireTls::None => false,
            RequireTls::ExternalOnly => !request.headers.contains(HeaderId::X_ENVOY_INTERNAL),
            RequireTls::All => true,
        };
        let secure = only_value(&request.headers, HeaderId::X_FORWARDED_PROTO) == Some(b"https");
        wanted && !secure
    }

    /// The route at a place that [`RouteTable::find`] gave.
    pub fn chosen(&self, virtual_host: u32, route: u32) -> ChosenRoute<'_> {
        ChosenRoute { table: self, virtual_host, route }
    }
}

impl<'t> ChosenRoute<'t> {
    pub fn virtual_host(self) -> &'t VirtualHost {
        &self.table.configuration.virtual_hosts[self.virtual_host as usize]
    }

    pub fn route(self) -> &'t Arc<Route> {
        &self.virtual_host().routes[self.route as usize]
    }

    fn clusters(self) -> &'t [ClusterId] {
        &self.table.hosts[self.virtual_host as usize].clusters[self.route as usize]
    }
}

fn resolve_route(route: &Route, resolve: &mut dyn FnMut(&Arc<str>) -> ClusterId) -> Box<[ClusterId]> {
    let RouteAction::Forward(forward) = &route.action else {
        return Box::default();
    };
    match &forward.target {
        ClusterTarget::Cluster(name) => [resolve(name)].into(),
        ClusterTarget::Header(_) => Box::default(),
        ClusterTarget::Weighted(weighted) => weighted.clusters.iter().map(|c| resolve(&c.name)).collect(),
    }
}

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
