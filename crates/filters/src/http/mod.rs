//! HTTP filters between the connection manager and the router: each in a file of its own, and here how chains of them are
//! made: once on main with what workers share, then on each worker.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proxy_config::settings::{
    self, HttpFilterConfig, RouteConfiguration, RouteFilter, RouteFilterConfig, Router,
};
use proxy_http::filter::{FilterIndex, FilterSet, HttpFilter};
use proxy_http::route::{RouteFilterValue, RouteFilters, RouteTable};
use proxy_stats::Scope;
use proxy_upstream::{ClusterMap, ClusterNames};

use crate::extensions::{Extensions, PlanError};
use crate::hcm::HttpStats;
use buffer::Buffer;
use compression::{Compressor, Decompressor};
use cors::Cors;
use csrf::Csrf;
use fault::Fault;
use grpc_web::GrpcWeb;
use header_mutation::HeaderMutation;
use health_check::HealthCheck;
use local_rate_limit::LocalRateLimit;
use set_filter_state::SetFilterState;

pub(crate) use set_filter_state::object as filter_state_object;

mod buffer;
mod compression;
mod cors;
mod csrf;
mod fault;
mod grpc_web;
mod header_mutation;
mod health_check;
mod local_rate_limit;
mod rate_limited;
mod set_filter_state;

/// What a filter needs of main, where it is made for all workers.
pub struct FilterContext<'a> {
    pub index: FilterIndex,
    /// Of all stats.
    pub root: &'a Scope,
    /// `http.<stat_prefix>.`.
    pub scope: &'a Scope,
    /// Of the connection manager.
    pub manager: &'a Arc<HttpStats>,
    pub clusters: &'a ClusterNames,
    /// All filters of its chain; the first one has the index `chain_start`.
    pub chain: &'a [settings::HttpFilter],
    pub chain_start: FilterIndex,
    pub process: &'a ProcessFacts,
}

/// What filters ask of the process.
#[derive(Clone, Debug)]
pub struct ProcessFacts {
    /// `node.cluster`.
    pub cluster: Arc<str>,
    /// False after `/healthcheck/fail`.
    pub healthy: Arc<AtomicBool>,
}

/// What a filter needs of its worker.
pub struct FilterWorker {
    pub clusters: Rc<ClusterMap>,
    /// Its name, for formats.
    pub filter_chain: Rc<str>,
}

/// A filter as main makes it: with its stats, and all that workers share.
pub trait HttpFilterPlan: Send + Sync {
    /// A worker's instance.
    fn build(&self, worker: &FilterWorker) -> Box<dyn HttpFilter>;

    /// What the filter is to find as [`RouteEntry::filter_config`](proxy_http::route::RouteEntry::filter_config), which it asks
    /// for by type. `None` where these are no settings of this filter's.
    fn route_config(&self, settings: &RouteFilterConfig) -> Option<RouteFilterValue> {
        Some(match settings {
            RouteFilterConfig::Buffer(settings) => Arc::clone(settings) as _,
            RouteFilterConfig::Compressor(settings) => Arc::clone(settings) as _,
            RouteFilterConfig::Cors(settings) => Arc::clone(settings) as _,
            RouteFilterConfig::Csrf(settings) => Arc::clone(settings) as _,
            RouteFilterConfig::Extension(extension) => Arc::clone(&extension.settings),
            RouteFilterConfig::Fault(settings) => Arc::clone(settings) as _,
            RouteFilterConfig::HeaderMutation(settings) => Arc::clone(settings) as _,
            RouteFilterConfig::LocalRateLimit(settings) => Arc::clone(settings) as _,
        })
    }

    /// Whether it tells what is only noted of a stream where somebody wants to know it.
    fn tells_of_record(&self) -> bool {
        false
    }
}

/// A filter that shares nothing but its stats is no more than the way it is built.
impl<F: Fn(&FilterWorker) -> Box<dyn HttpFilter> + Send + Sync> HttpFilterPlan for F {
    fn build(&self, worker: &FilterWorker) -> Box<dyn HttpFilter> {
        self(worker)
    }
}

/// The filters of a connection manager: of all its chains, so that an index says which filter, and a set which of them a
/// stream passes by.
pub struct FilterChains {
    names: Vec<String>,
    disabled: FilterSet,
    plans: Vec<Box<dyn HttpFilterPlan>>,
    default: ChainPlan,
    /// By [`ChainIndex`](proxy_http::filter::ChainIndex), without the default one.
    of_upgrades: Vec<ChainPlan>,
}

/// One of the chains, as main makes it.
#[derive(Default)]
pub struct ChainPlan {
    filters: FilterSet,
    router: Arc<Router>,
}

enum Planned {
    Filter(Box<dyn HttpFilterPlan>),
    /// It ends the chain, and is made by the connection manager.
    Router(Arc<Router>),
}

impl FilterChains {
    /// The filters that `settings` name. `root` is the scope of all stats.
    ///
    /// # Errors
    /// When a filter of `extensions` cannot be made.
    pub fn new(
        settings: &settings::HttpConnectionManager,
        root: &Scope,
        stats: &Arc<HttpStats>,
        clusters: &ClusterNames,
        process: &ProcessFacts,
        extensions: &Extensions,
    ) -> Result<FilterChains, PlanError> {
        let mut chains = FilterChains {
            names: Vec::new(),
            disabled: FilterSet::default(),
            plans: Vec::new(),
            default: ChainPlan::default(),
            of_upgrades: Vec::new(),
        };
        for (number, chain) in settings.filter_chains().enumerate() {
            let chain_start = FilterIndex(chains.plans.len() as u8);
            let mut plan = ChainPlan::default();
            for filter in chain {
                let index = FilterIndex(chains.plans.len() as u8);
                let scope = stats.scope();
                let manager = stats;
                let context =
                    FilterContext { index, root, scope, manager, clusters, chain, chain_start, process };
                match plan_filter(&filter.config, &context, extensions)? {
                    Planned::Filter(filter_plan) => {
                        plan.filters.insert(index);
                        chains.push(filter, filter_plan);
                    }
                    Planned::Router(router) => plan.router = router,
                }
            }
            match number {
                0 => chains.default = plan,
                _ => chains.of_upgrades.push(plan),
            }
        }
        Ok(chains)
    }

    fn push(&mut self, filter: &settings::HttpFilter, plan: Box<dyn HttpFilterPlan>) {
        if filter.disabled {
            self.disabled.insert(FilterIndex(self.plans.len() as u8));
        }
        self.names.push(filter.name.clone());
        self.plans.push(plan);
    }

    /// A worker's instances, in order.
    pub fn build(&self, worker: &FilterWorker) -> Vec<Box<dyn HttpFilter>> {
        self.plans.iter().map(|plan| plan.build(worker)).collect()
    }

    /// Those that only requests see whose route says so.
    pub fn disabled_by_default(&self) -> FilterSet {
        self.disabled
    }

    /// See [`HttpFilterPlan::tells_of_record`].
    pub fn tells_of_record(&self) -> bool {
        self.plans.iter().any(|plan| plan.tells_of_record())
    }

    /// The chain of `http_filters`.
    pub fn default_chain(&self) -> &ChainPlan {
        &self.default
    }

    /// The chains that upgrades have of their own.
    pub fn of_upgrades(&self) -> &[ChainPlan] {
        &self.of_upgrades
    }

    /// The filters of the other chains.
    pub fn others(&self, chain: &ChainPlan) -> FilterSet {
        let all = self.of_upgrades.iter().fold(self.default.filters, |set, chain| set.with(chain.filters));
        all.without(chain.filters)
    }

    /// A route configuration made ready for these chains.
    pub fn route_table(&self, routes: Arc<RouteConfiguration>, clusters: &ClusterNames) -> RouteTable {
        RouteTable::new(routes, &mut |name| clusters.id(name)).with_filters(self)
    }
}

impl ChainPlan {
    /// The terminal filter's settings.
    pub fn router(&self) -> Arc<Router> {
        Arc::clone(&self.router)
    }
}

fn plan_filter(
    config: &HttpFilterConfig,
    context: &FilterContext<'_>,
    extensions: &Extensions,
) -> Result<Planned, PlanError> {
    let plan: Box<dyn HttpFilterPlan> = match config {
        HttpFilterConfig::Router(router) => return Ok(Planned::Router(Arc::clone(router))),
        HttpFilterConfig::Buffer(settings) => Box::new(Buffer::new(settings, context)),
        HttpFilterConfig::Cors => Box::new(Cors::new(context)),
        HttpFilterConfig::Csrf(settings) => Box::new(Csrf::new(settings, context)),
        HttpFilterConfig::Fault(settings) => Box::new(Fault::new(settings, context)),
        HttpFilterConfig::HealthCheck(settings) => Box::new(HealthCheck::new(settings, context)),
        HttpFilterConfig::Compressor(settings) => Box::new(Compressor::new(settings, context)),
        HttpFilterConfig::Decompressor(settings) => Box::new(Decompressor::new(settings, context)),
        HttpFilterConfig::HeaderMutation(settings) => Box::new(HeaderMutation::new(settings, context)),
        HttpFilterConfig::GrpcWeb => Box::new(GrpcWeb::new(context)),
        HttpFilterConfig::LocalRateLimit(settings) => Box::new(LocalRateLimit::new(settings, context)),
        HttpFilterConfig::SetFilterState(settings) => Box::new(SetFilterState::new(settings, context)),
        HttpFilterConfig::Extension(extension) => extensions.plan_http_filter(extension, context)?,
    };
    Ok(Planned::Filter(plan))
}

impl RouteFilters for FilterChains {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn disabled(&self) -> FilterSet {
        self.disabled
    }

    fn ready(&self, filter: FilterIndex, settings: &RouteFilter) -> Option<RouteFilterValue> {
        self.plans.get(usize::from(filter.0))?.route_config(settings.config.as_ref()?)
    }
}
