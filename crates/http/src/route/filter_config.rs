//! What a route configuration says to HTTP filters: by filter index, so that nothing is looked up by name per request.

use std::any::Any;
use std::sync::Arc;

use proxy_config::settings::{ClusterTarget, RouteAction, RouteFilter};

use super::{ChosenRoute, RouteEntry, RouteTable};
use crate::filter::{FilterIndex, FilterSet};

/// Settings of a route for one filter, in the form that this filter wants.
pub type RouteFilterValue = Arc<dyn Any + Send + Sync>;

/// The filters that a route table is made for.
pub trait RouteFilters {
    /// As `typed_per_filter_config` calls them, in the order of the chain.
    fn names(&self) -> &[String];

    /// Those that are disabled where a route does not say otherwise.
    fn disabled(&self) -> FilterSet;

    /// What a filter makes of settings for it; `None` where it has no such settings, which Envoy ignores.
    fn ready(&self, filter: FilterIndex, settings: &RouteFilter) -> Option<RouteFilterValue>;
}

/// Of a whole table. There is none where nothing is said to filters.
pub(super) struct FilterConfigs {
    disabled: FilterSet,
    configuration: Level,
    hosts: Vec<HostLevels>,
}

struct HostLevels {
    host: Level,
    routes: Vec<RouteLevels>,
}

struct RouteLevels {
    route: Level,
    /// Of each weighted cluster.
    weighted: Vec<Level>,
}

/// What is said at one level.
#[derive(Default)]
struct Level {
    /// By filter index; empty where nothing is said.
    values: Box<[Option<RouteFilterValue>]>,
    disabled: FilterSet,
    enabled: FilterSet,
}

impl FilterConfigs {
    fn new(table: &RouteTable, filters: &dyn RouteFilters) -> FilterConfigs {
        let configuration = &table.configuration;
        let hosts = configuration.virtual_hosts.iter().map(|host| HostLevels {
            host: Level::new(&host.filters, filters),
            routes: host
                .routes
                .iter()
                .map(|route| RouteLevels {
                    route: Level::new(&route.filters, filters),
                    weighted: match &route.action {
                        RouteAction::Forward(forward) => match &forward.target {
                            ClusterTarget::Weighted(weighted) => weighted
                                .clusters
                                .iter()
                                .map(|cluster| Level::new(&cluster.filters, filters))
                                .collect(),
                            ClusterTarget::Cluster(_) | ClusterTarget::Header(_) => Vec::new(),
                        },
                        RouteAction::Redirect(_) | RouteAction::Direct(_) | RouteAction::NonForwarding => {
                            Vec::new()
                        }
                    },
                })
                .collect(),
        });
        FilterConfigs {
            disabled: filters.disabled(),
            configuration: Level::new(&configuration.filters, filters),
            hosts: hosts.collect(),
        }
    }

    fn is_empty(&self) -> bool {
        let routes = || self.hosts.iter().flat_map(|host| &host.routes);
        self.configuration.is_empty()
            && self.hosts.iter().all(|host| host.host.is_empty())
            && routes().all(|route| route.route.is_empty() && route.weighted.iter().all(Level::is_empty))
    }
}

impl Level {
    fn new(settings: &[RouteFilter], filters: &dyn RouteFilters) -> Level {
        let mut level = Level::default();
        for settings in settings {
            let named = filters.names().iter().enumerate().filter(|(_, name)| **name == *settings.name);
            for (index, _) in named {
                let index = FilterIndex(index as u8);
                let set = if settings.disabled { &mut level.disabled } else { &mut level.enabled };
                set.insert(index);
                if let Some(value) = filters.ready(index, settings) {
                    let values = std::mem::take(&mut level.values);
                    let mut values = values.into_vec();
                    values.resize(filters.names().len(), None);
                    values[usize::from(index.0)] = Some(value);
                    level.values = values.into();
                }
            }
        }
        level
    }

    fn is_empty(&self) -> bool {
        self.values.is_empty() && self.disabled.is_empty() && self.enabled.is_empty()
    }

    fn value<T: 'static>(&self, filter: FilterIndex) -> Option<&T> {
        self.values.get(usize::from(filter.0))?.as_ref()?.downcast_ref()
    }
}

impl RouteTable {
    /// Makes what the configuration says to filters ready for those of a chain.
    #[must_use]
    pub fn with_filters(mut self, filters: &dyn RouteFilters) -> RouteTable {
        let configs = FilterConfigs::new(&self, filters);
        self.filters = (!configs.is_empty()).then(|| Box::new(configs));
        self
    }
}

impl<'t> ChosenRoute<'t> {
    /// See [`RouteEntry::disabled_filters`].
    pub(crate) fn disabled_filters(self, weighted: Option<u32>) -> Option<FilterSet> {
        let levels = self.filter_levels(weighted)?;
        let chain = self.table.filters.as_ref()?.disabled;
        let levels = levels.into_iter().flatten().rev();
        Some(levels.fold(chain, |set, level| set.without(level.enabled).with(level.disabled)))
    }

    /// Weighted cluster, route, virtual host, route configuration.
    fn filter_levels(self, weighted: Option<u32>) -> Option<[Option<&'t Level>; 4]> {
        let configs = self.table.filters.as_ref()?;
        let host = configs.hosts.get(self.virtual_host as usize)?;
        let route = host.routes.get(self.route as usize)?;
        let weighted = weighted.and_then(|index| route.weighted.get(index as usize));
        Some([weighted, Some(&route.route), Some(&host.host), Some(&configs.configuration)])
    }
}

impl RouteEntry {
    /// The most specific settings that this route has for a filter.
    pub fn filter_config<T: 'static>(&self, filter: FilterIndex) -> Option<&T> {
        self.levels()?.into_iter().flatten().find_map(|level| level.value(filter))
    }

    /// All settings that this route has for a filter, the most specific first.
    pub fn filter_configs<T: 'static>(&self, filter: FilterIndex) -> impl DoubleEndedIterator<Item = &T> {
        let levels = self.levels().unwrap_or_default();
        levels.into_iter().flatten().filter_map(move |level| level.value(filter))
    }

    /// The filters that a request on this route passes by; `None`: as the chain says.
    pub fn disabled_filters(&self) -> Option<FilterSet> {
        self.chosen().disabled_filters(self.weighted)
    }

    fn levels(&self) -> Option<[Option<&Level>; 4]> {
        self.chosen().filter_levels(self.weighted)
    }
}
