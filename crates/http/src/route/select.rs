//! Which cluster a route sends a request to.

use std::borrow::Cow;
use std::sync::Arc;

use proxy_config::settings::{ClusterTarget, Forward, HttpConnectionManager, RouteAction, WeightedCluster};

use super::{ChosenRoute, ClusterId};
use crate::filter::ChainIndex;
use crate::message::{Method, Request};
use crate::name::HeaderId;

/// The choice among a route's clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected<'r> {
    pub cluster: SelectedCluster<'r>,
    /// Which of the weighted clusters it is; its header mutations and host rewrite go with it.
    pub weighted: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectedCluster<'r> {
    Id(ClusterId),
    /// `cluster_header`: the name as the request has it, empty when the header is absent.
    Name(Cow<'r, [u8]>),
}

impl<'t> ChosenRoute<'t> {
    /// The route's forwarding, if that is what it does.
    pub fn forward(self) -> Option<&'t Forward> {
        match &self.route().action {
            RouteAction::Forward(forward) => Some(forward),
            RouteAction::Redirect(_) | RouteAction::Direct(_) | RouteAction::NonForwarding => None,
        }
    }

    /// Which of its weighted clusters a request goes to, if the route has some; `random` decides.
    pub fn select_weighted(self, request: &Request, random: u64) -> Option<u32> {
        let ClusterTarget::Weighted(weighted) = &self.forward()?.target else { return None };
        let fixed = weighted.random_value_header.as_ref().and_then(|name| {
            let mut values = request.headers.values(&**name);
            let only = values.next().filter(|_| values.next().is_none())?;
            std::str::from_utf8(only).ok()?.parse::<u64>().ok()
        });
        Some(weighted_index(&weighted.clusters, weighted.total, fixed.unwrap_or(random)) as u32)
    }

    /// The cluster; `None` where the route does not forward. `weighted` comes from [`ChosenRoute::select_weighted`].
    pub fn select_cluster(self, request: &Request, weighted: Option<u32>) -> Option<Selected<'_>> {
        let cluster = |index: usize| SelectedCluster::Id(self.clusters()[index]);
        Some(match &self.forward()?.target {
            ClusterTarget::Cluster(_) => Selected { cluster: cluster(0), weighted: None },
            ClusterTarget::Header(name) => {
                let name = request.value_or_pseudo(name).unwrap_or_default();
                Selected { cluster: SelectedCluster::Name(name), weighted: None }
            }
            ClusterTarget::Weighted(_) => Selected { cluster: cluster(weighted? as usize), weighted },
        })
    }

    /// The configured name of the cluster; `None` where a header names it.
    pub fn cluster_name(self, weighted: Option<u32>) -> Option<&'t Arc<str>> {
        match &self.forward()?.target {
            ClusterTarget::Cluster(name) => Some(name),
            ClusterTarget::Header(_) => None,
            ClusterTarget::Weighted(_) => self.weighted_cluster(weighted).map(|cluster| &cluster.name),
        }
    }

    pub(super) fn weighted_cluster(self, weighted: Option<u32>) -> Option<&'t WeightedCluster> {
        match &self.forward()?.target {
            ClusterTarget::Weighted(clusters) => clusters.clusters.get(weighted? as usize),
            ClusterTarget::Cluster(_) | ClusterTarget::Header(_) => None,
        }
    }
}

/// The filters that serve a request that asks to become a tunnel, by CONNECT or an upgrade, if it may: if its route says so, or
/// if that says nothing, or there is none, and the connection manager does.
pub fn tunnel_chain(
    route: Option<ChosenRoute<'_>>,
    request: &Request,
    manager: &HttpConnectionManager,
) -> Option<ChainIndex> {
    let kind = match request.method {
        Method::Connect => Cow::Borrowed(&b"CONNECT"[..]),
        _ => request.headers.joined(HeaderId::UPGRADE).unwrap_or_default(),
    };
    let is_kind = |name: &str| name.as_bytes().eq_ignore_ascii_case(&kind);
    let forward = route.and_then(ChosenRoute::forward);
    let of_route = forward.and_then(|forward| forward.upgrades.iter().find(|u| is_kind(&u.kind)));
    let of_manager = manager.upgrades.iter().find(|upgrade| is_kind(&upgrade.kind));
    let allowed = match of_route {
        Some(upgrade) => upgrade.enabled,
        None => of_manager?.enabled,
    };
    allowed.then(|| ChainIndex(of_manager.map_or(0, |upgrade| upgrade.chain)))
}

fn weighted_index(clusters: &[WeightedCluster], total: u32, random: u64) -> usize {
    let mut left = random % u64::from(total.max(1));
    for (index, cluster) in clusters.iter().enumerate() {
        match left.checked_sub(u64::from(cluster.weight)) {
            Some(rest) => left = rest,
            None => return index,
        }
    }
    clusters.len().saturating_sub(1)
}
