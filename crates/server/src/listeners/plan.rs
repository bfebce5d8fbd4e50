//! From a listener's settings to what its workers build it from: sockets, logs, stats, filter chains.

use std::sync::Arc;

use proxy_config::KeptChain;
use proxy_config::settings::{self, LogTarget, NetworkFilterConfig};
use proxy_filters::extensions::ConnectionContext;
use proxy_filters::hcm::HttpStats;
use proxy_filters::http::FilterChains;
use proxy_filters::network::{ConnectionLimit, LocalRateLimit, Rbac};
use proxy_filters::tcp_proxy::TcpStats;
use proxy_http::access_log::AccessLogPlan;
use proxy_net::{Address, Balance, BindError, ChainMatcher};
use proxy_runtime::Slot;
use proxy_runtime::log_file::{Destination, OpenError};
use proxy_stats::Scope;

use super::{BuildError, ChainRoutes, Entry, ListenerManager, PreparedChains, Routes};
use crate::accept::{ChainPlan, ChainsPlan, FilterPlan, ListenerId, ListenerPlan};
use crate::admission::{self, Admission, Balancing};
use crate::listen_sockets::ListenSockets;
use crate::listener_stats::{CONFIGURED_DECLARED, ListenerStats};
use crate::stats_config;

impl ListenerManager {
    pub(super) fn build(&self, settings: Arc<settings::Listener>) -> Result<Entry, BuildError> {
        let sockets = self.sockets(&settings)?;
        let address = || Address::from(&settings.address.address).to_string();
        let label = settings.stat_prefix.clone().unwrap_or_else(address).replace(':', "_");
        let root = stats_config::restricted(&self.root, settings.stats_matcher.as_ref());
        let scope = root.scope(&format!("listener.{label}."));
        scope.declare(&CONFIGURED_DECLARED);
        let chains = settings.chains.iter().map(|chain| self.plan_chain(chain, &root, &scope));
        let default = settings.default_chain.as_ref().map(|chain| self.plan_chain(chain, &root, &scope));
        let (plans, mut routes): (Vec<_>, Vec<_>) =
            chains.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let default = default.transpose()?.map(|(plan, of_default)| {
            routes.push(of_default);
            plan
        });
        let chains = chains_plan(&settings, plans, default);
        let context = self.connection_context(&root, &scope);
        let listener_filters = settings
            .listener_filters
            .iter()
            .map(|filter| self.extensions.plan_listener_filter(&filter.config, &context));
        let listener_filters = listener_filters.collect::<Result<_, _>>()?;
        let plan = Arc::new(ListenerPlan {
            listener_filters,
            logs: self.open_logs(&settings.access_logs)?,
            stats: Arc::new(ListenerStats::under(&scope)),
            total_connections: self.connections.total_connections,
            local_address: self.local_address,
            admission: self.admission(&settings),
            settings: Arc::clone(&settings),
            scope: scope.clone(),
        });
        let id = ListenerId(self.next_id.get());
        self.next_id.set(id.0 + 1);
        self.stats.listener_create_success.add(self.workers.count() as u64);
        Ok(Entry { id, settings, sockets, plan, chains, routes })
    }

    /// Other filter chains for a listener that goes on; `None` where it is not as `kept` supposes.
    pub(super) fn build_chains(
        &self,
        settings: Arc<settings::Listener>,
        kept: &[Option<KeptChain>],
    ) -> Result<Option<PreparedChains>, BuildError> {
        let listeners = self.listeners.borrow();
        let Some(entry) = listeners.iter().find(|entry| entry.settings.name == settings.name) else {
            return Ok(None);
        };
        let root = stats_config::restricted(&self.root, settings.stats_matcher.as_ref());
        let before: Vec<_> = entry.chains.chains.iter().chain(&entry.chains.default_chain).collect();
        let (mut plans, mut routes) = (Vec::new(), Vec::new());
        for (chain, kept) in settings.chains.iter().chain(&settings.default_chain).zip(kept) {
            match kept {
                Some(kept) => {
                    let Some(plan) = before.get(kept.before) else { return Ok(None) };
                    plans.push(Arc::clone(plan));
                    routes.push(ChainRoutes::Kept(kept.clone()));
                }
                None => {
                    let (plan, new) = self.plan_chain(chain, &root, &entry.plan.scope)?;
                    plans.push(plan);
                    routes.push(ChainRoutes::New(new));
                }
            }
        }
        let default = settings.default_chain.as_ref().and_then(|_| plans.pop());
        let chains = chains_plan(&settings, plans, default);
        Ok(Some(PreparedChains { settings, chains, routes }))
    }

    fn plan_chain(
        &self,
        chain: &settings::FilterChain,
        root: &Scope,
        listener: &Scope,
    ) -> Result<(Arc<ChainPlan>, Vec<Routes>), BuildError> {
        let mut routes = Vec::new();
        let filters =
            chain.filters.iter().map(|filter| self.plan_filter(filter, root, listener, &mut routes));
        let filters = filters.collect::<Result<_, _>>()?;
        Ok((
            Arc::new(ChainPlan { name: chain.name.clone(), metadata: chain.metadata.clone(), filters }),
            routes,
        ))
    }

    fn admission(&self, settings: &settings::Listener) -> Admission {
        let balancing =
            || Balancing { counts: Balance::new(self.workers.count()), peers: self.workers.peers() };
        let global = self.max_connections.borrow().clone().filter(|_| !settings.ignores_global_limit);
        let own = settings.max_connections.map(admission::ConnectionLimit::new);
        Admission { global, own, balance: settings.exact_balance.then(balancing) }
    }

    /// The sockets of the listener that has the name and addresses now, or new ones.
    fn sockets(&self, settings: &settings::Listener) -> Result<ListenSockets, BindError> {
        let listeners = self.listeners.borrow();
        let before = listeners.iter().find(|l| l.settings.name == settings.name).map(|old| &old.sockets);
        ListenSockets::bind(settings, before, &mut self.inherited.borrow_mut(), self.workers.count())
    }

    fn connection_context<'a>(&'a self, root: &'a Scope, listener: &'a Scope) -> ConnectionContext<'a> {
        ConnectionContext { root, scope: listener, clusters: &self.names, process: &self.process }
    }

    fn plan_filter(
        &self,
        filter: &settings::NetworkFilter,
        root: &Scope,
        listener: &Scope,
        routes: &mut Vec<Routes>,
    ) -> Result<FilterPlan, BuildError> {
        Ok(match &filter.config {
            NetworkFilterConfig::TcpProxy(settings) => FilterPlan::TcpProxy {
                stats: Arc::new(TcpStats::new(root, &settings.stat_prefix)),
                clusters: settings.clusters.iter().map(|c| (self.names.id(&c.name), c.weight)).collect(),
                logs: self.open_logs(&settings.access_logs)?,
                settings: Arc::clone(settings),
            },
            NetworkFilterConfig::HttpConnectionManager(settings) => {
                let stats = Arc::new(HttpStats::new(root, listener, &settings.stat_prefix));
                let filters =
                    FilterChains::new(settings, root, &stats, &self.names, &self.process, &self.extensions)?;
                let table = filters.route_table(Arc::clone(&settings.routes), &self.names);
                let slot = Slot::new(&self.workers, Arc::new(table));
                let reader = slot.reader();
                let filters = Arc::new(filters);
                let name = settings.routes.name.clone();
                routes.push(Routes { name, slot, filters: Arc::clone(&filters) });
                let chains = std::iter::once(filters.default_chain()).chain(filters.of_upgrades());
                let upstream_logs = chains.map(|chain| self.open_logs(&chain.router().upstream_logs));
                FilterPlan::Http {
                    logs: self.open_logs(&settings.access_logs)?,
                    upstream_logs: upstream_logs.collect::<Result<_, _>>()?,
                    stats,
                    filters,
                    routes: reader,
                    settings: Arc::clone(settings),
                }
            }
            NetworkFilterConfig::DirectResponse(response) => FilterPlan::DirectResponse(response.clone()),
            NetworkFilterConfig::Echo => FilterPlan::Echo,
            NetworkFilterConfig::ConnectionLimit(settings) => {
                FilterPlan::ConnectionLimit(ConnectionLimit::new(Arc::clone(settings), root))
            }
            NetworkFilterConfig::LocalRateLimit(settings) => {
                let mut buckets = self.buckets.borrow_mut();
                FilterPlan::LocalRateLimit(LocalRateLimit::new(settings, root, &mut buckets))
            }
            NetworkFilterConfig::Rbac(settings) => FilterPlan::Rbac(Rbac::new(Arc::clone(settings), root)),
            NetworkFilterConfig::SetFilterState(settings) => FilterPlan::SetFilterState(Arc::clone(settings)),
            NetworkFilterConfig::Extension(extension) => {
                let context = self.connection_context(root, listener);
                FilterPlan::Extension(self.extensions.plan_network_filter(extension, &context)?)
            }
        })
    }

    fn open_logs(&self, settings: &Arc<[settings::AccessLog]>) -> Result<AccessLogPlan, OpenError> {
        let files = settings.iter().map(|log| {
            self.files.open(&match &log.target {
                LogTarget::File(path) => Destination::File(path.clone()),
                LogTarget::Stdout => Destination::Stdout,
                LogTarget::Stderr => Destination::Stderr,
            })
        });
        Ok(AccessLogPlan { files: files.collect::<Result<_, _>>()?, settings: Arc::clone(settings) })
    }
}

fn chains_plan(
    settings: &settings::Listener,
    chains: Vec<Arc<ChainPlan>>,
    default_chain: Option<Arc<ChainPlan>>,
) -> Arc<ChainsPlan> {
    let matches: Vec<_> = settings.chains.iter().map(|chain| chain.matches.clone()).collect();
    let matcher = ChainMatcher::new(&matches);
    Arc::new(ChainsPlan { matcher, chains, default_chain, keeps_records: keeps_records(settings) })
}

/// Connection managers by filter chain, the default one last.
pub(super) fn connection_managers(
    settings: &settings::Listener,
) -> impl Iterator<Item = Vec<&Arc<settings::HttpConnectionManager>>> {
    settings.chains.iter().chain(&settings.default_chain).map(|chain| {
        let managers = chain.filters.iter().filter_map(|filter| match &filter.config {
            NetworkFilterConfig::HttpConnectionManager(manager) => Some(manager),
            _ => None,
        });
        managers.collect()
    })
}

/// Whether a log of the listener, or of a `tcp_proxy` in it, tells of connections.
fn keeps_records(settings: &settings::Listener) -> bool {
    let filters = settings.chains.iter().chain(&settings.default_chain).flat_map(|chain| &chain.filters);
    let has_log = |filter: &settings::NetworkFilter| match &filter.config {
        NetworkFilterConfig::TcpProxy(settings) => !settings.access_logs.is_empty(),
        _ => false,
    };
    !settings.access_logs.is_empty() || filters.into_iter().any(has_log)
}
