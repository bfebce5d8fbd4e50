//! Filter chains: what main plans once, and each worker builds for itself.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use proxy_config::settings;
use proxy_filters::extensions::NetworkFilterPlan;
use proxy_filters::hcm::{CutOff, HttpConnectionManager, HttpStats, ManagerContext, ManagerLogs};
use proxy_filters::http::{FilterChains, FilterWorker};
use proxy_filters::network::{ConnectionLimit, DirectResponse, Echo, LocalRateLimit, Rbac, SetFilterState};
use proxy_filters::tcp_proxy::{TcpLogs, TcpProxy, TcpStats};
use proxy_http::access_log::{AccessLogPlan, AccessLogs};
use proxy_http::route::{ClusterId, RouteTable};
use proxy_net::{ChainMatcher, ConnectionInfo, Handover, ListenerMetadata, NetworkFilter};
use proxy_runtime::{Drain, SlotReader};
use proxy_upstream::ClusterMap;

use super::ListenerPlan;
use super::tasks::Tasks;

/// The filter chains of a listener, and which connection gets which. Another one may take its place while the listener goes on;
/// what is in both is the same `Arc`.
pub(crate) struct ChainsPlan {
    pub matcher: ChainMatcher,
    pub chains: Vec<Arc<ChainPlan>>,
    pub default_chain: Option<Arc<ChainPlan>>,
    /// Connections are told of in a log, so each has a record.
    pub keeps_records: bool,
}

pub(crate) struct ChainPlan {
    pub name: String,
    pub metadata: settings::Metadata,
    pub filters: Vec<FilterPlan>,
}

pub(crate) enum FilterPlan {
    TcpProxy {
        settings: Arc<settings::TcpProxy>,
        clusters: Vec<(ClusterId, u32)>,
        stats: Arc<TcpStats>,
        logs: AccessLogPlan,
    },
    Http {
        settings: Arc<settings::HttpConnectionManager>,
        filters: Arc<FilterChains>,
        routes: SlotReader<RouteTable>,
        stats: Arc<HttpStats>,
        logs: AccessLogPlan,
        /// Of each chain of HTTP filters.
        upstream_logs: Vec<AccessLogPlan>,
    },
    DirectResponse(Bytes),
    Echo,
    ConnectionLimit(ConnectionLimit),
    LocalRateLimit(LocalRateLimit),
    Rbac(Rbac),
    SetFilterState(Arc<settings::SetFilterState>),
    Extension(NetworkFilterPlan),
}

/// A worker's instance of a chain.
pub(super) struct Chain {
    pub(super) plan: Arc<ChainPlan>,
    /// Its own and its listener's, if there is any.
    pub(super) metadata: Option<Rc<ListenerMetadata>>,
    pub(super) filters: Box<[Rc<dyn NetworkFilter>]>,
    /// Asks its connections to end.
    pub(super) drain: Drain,
    /// Asks those to end that idle.
    pub(super) closing: Drain,
    /// One guard per connection.
    pub(super) open: Drain,
    pub(super) tasks: Rc<Tasks>,
    cut: Rc<CutOff>,
}

/// A worker's instance of all chains of a listener.
pub(super) struct Chains {
    pub(super) plan: Arc<ChainsPlan>,
    chains: Vec<Rc<Chain>>,
    default_chain: Option<Rc<Chain>>,
}

impl Chains {
    /// Those of `plan`: the ones that `before` has are taken from there.
    pub(super) fn build(
        plan: Arc<ChainsPlan>,
        before: Option<&Chains>,
        listener: &ListenerPlan,
        clusters: &Rc<ClusterMap>,
        handover: &Rc<Handover>,
    ) -> Chains {
        let known: HashMap<*const ChainPlan, &Rc<Chain>> =
            before.into_iter().flat_map(Chains::all).map(|chain| (Arc::as_ptr(&chain.plan), chain)).collect();
        let build = |chain: &Arc<ChainPlan>| match known.get(&Arc::as_ptr(chain)) {
            Some(known) => Rc::clone(known),
            None => Rc::new(Chain::build(chain, listener, clusters, handover)),
        };
        let (chains, default_chain) =
            (plan.chains.iter().map(build).collect(), plan.default_chain.as_ref().map(build));
        Chains { plan, chains, default_chain }
    }

    /// The chain for a connection.
    pub(super) fn find(&self, info: &ConnectionInfo) -> Option<&Rc<Chain>> {
        match self.plan.matcher.find(info) {
            Some(index) => self.chains.get(index),
            None => self.default_chain.as_ref(),
        }
    }

    /// The default one last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Chain>> {
        self.chains.iter().chain(&self.default_chain)
    }

    /// Those that `other` does not have.
    pub(super) fn without(&self, other: &Chains) -> Vec<Rc<Chain>> {
        let others: HashSet<*const Chain> = other.all().map(Rc::as_ptr).collect();
        self.all().filter(|chain| !others.contains(&Rc::as_ptr(chain))).cloned().collect()
    }
}

impl Chain {
    fn build(
        plan: &Arc<ChainPlan>,
        listener: &ListenerPlan,
        clusters: &Rc<ClusterMap>,
        handover: &Rc<Handover>,
    ) -> Chain {
        let (drain, closing, cut) = (Drain::new(), Drain::new(), Rc::<CutOff>::default());
        let name: Rc<str> = Rc::from(&*plan.name);
        let build =
            |filter| build_filter(filter, &name, listener, clusters, (&drain, &closing, &cut), handover);
        let filters = plan.filters.iter().map(build).collect();
        let of_listener = &listener.settings.metadata;
        let any = !of_listener.is_empty() || !plan.metadata.is_empty();
        let metadata = any.then(|| {
            Rc::new(ListenerMetadata { listener: of_listener.clone(), filter_chain: plan.metadata.clone() })
        });
        let (open, tasks) = (Drain::new(), Rc::default());
        Chain { plan: Arc::clone(plan), metadata, filters, drain, closing, open, tasks, cut }
    }

    /// Cuts its connections; requests under way on them tell `details`. Returns how many there were.
    pub(super) fn cut(&self, details: &'static str) -> usize {
        self.cut.set(Some(details));
        self.tasks.cut()
    }
}

fn build_filter(
    filter: &FilterPlan,
    chain: &Rc<str>,
    plan: &ListenerPlan,
    clusters: &Rc<ClusterMap>,
    (drain, closing, cut): (&Drain, &Drain, &Rc<CutOff>),
    handover: &Rc<Handover>,
) -> Rc<dyn NetworkFilter> {
    match filter {
        FilterPlan::TcpProxy { settings, clusters: targets, stats, logs } => {
            let proxy = TcpProxy::new(
                Arc::clone(settings),
                targets.clone(),
                Rc::clone(clusters),
                Arc::clone(stats),
                TcpLogs {
                    access: AccessLogs::new(logs),
                    at_start: settings.access_log_options.at_start,
                    filter_chain: Rc::clone(chain),
                },
                Rc::clone(handover),
            );
            Rc::new(proxy.with_buffer_limit(plan.settings.buffer_limit))
        }
        FilterPlan::Http { settings, filters, routes, stats, logs, upstream_logs } => {
            let context = ManagerContext {
                clusters: Rc::clone(clusters),
                routes: routes.clone(),
                local_address: plan.local_address,
                stats: Arc::clone(stats),
                logs: ManagerLogs {
                    access: AccessLogs::new(logs),
                    at_start: settings.access_log_options.at_start,
                    upstream: upstream_logs.iter().map(AccessLogs::new).collect(),
                    filter_chain: Rc::clone(chain),
                },
                buffer_limit: plan.settings.buffer_limit,
                drain: drain.clone(),
                closing: closing.clone(),
                cut: Rc::clone(cut),
                handover: Rc::clone(handover),
            };
            Rc::new(HttpConnectionManager::new(Arc::clone(settings), filters, context))
        }
        FilterPlan::DirectResponse(response) => Rc::new(DirectResponse::new(response.clone())),
        FilterPlan::Echo => Rc::new(Echo),
        FilterPlan::ConnectionLimit(limit) => Rc::new(limit.clone()),
        FilterPlan::LocalRateLimit(limit) => Rc::new(limit.clone()),
        FilterPlan::Rbac(rbac) => Rc::new(rbac.clone()),
        FilterPlan::SetFilterState(settings) => {
            Rc::new(SetFilterState::new(Arc::clone(settings), Rc::clone(chain)))
        }
        FilterPlan::Extension(build) => {
            build(&FilterWorker { clusters: Rc::clone(clusters), filter_chain: Rc::clone(chain) })
        }
    }
}
