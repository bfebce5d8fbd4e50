//! Filter chains: what main plans once, and each worker builds for itself.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use proxy_config::settings;
use proxy_filters::extensions::NetworkFilterPlan;
use proxy_filters::hcm::{HttpConnectionManager, HttpStats, ManagerContext, ManagerLogs};
use proxy_filters::http::{FilterChain, FilterWorker};
use proxy_filters::network::{ConnectionLimit, DirectResponse, Echo, LocalRateLimit, Rbac};
use proxy_filters::tcp_proxy::{TcpLogs, TcpProxy, TcpStats};
use proxy_http::access_log::{AccessLogPlan, AccessLogs};
use proxy_http::route::{ClusterId, RouteTable};
use proxy_net::{Handover, NetworkFilter};
use proxy_runtime::{Drain, SlotReader};
use proxy_upstream::ClusterMap;

use super::ListenerPlan;

pub(crate) struct ChainPlan {
    pub name: String,
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
        filters: Arc<FilterChain>,
        routes: SlotReader<RouteTable>,
        stats: Arc<HttpStats>,
        logs: AccessLogPlan,
        upstream_logs: AccessLogPlan,
    },
    DirectResponse(Bytes),
    Echo,
    ConnectionLimit(ConnectionLimit),
    LocalRateLimit(LocalRateLimit),
    Rbac(Rbac),
    Extension(NetworkFilterPlan),
}

pub(super) fn build_filter(
    filter: &FilterPlan,
    chain: &Rc<str>,
    plan: &ListenerPlan,
    clusters: &Rc<ClusterMap>,
    drain: &Drain,
    closing: &Drain,
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
                    upstream: AccessLogs::new(upstream_logs),
                    filter_chain: Rc::clone(chain),
                },
                buffer_limit: plan.settings.buffer_limit,
                drain: drain.clone(),
                closing: closing.clone(),
                handover: Rc::clone(handover),
            };
            Rc::new(HttpConnectionManager::new(Arc::clone(settings), filters, context))
        }
        FilterPlan::DirectResponse(response) => Rc::new(DirectResponse::new(response.clone())),
        FilterPlan::Echo => Rc::new(Echo),
        FilterPlan::ConnectionLimit(limit) => Rc::new(limit.clone()),
        FilterPlan::LocalRateLimit(limit) => Rc::new(limit.clone()),
        FilterPlan::Rbac(rbac) => Rc::new(rbac.clone()),
        FilterPlan::Extension(build) => {
            build(&FilterWorker { clusters: Rc::clone(clusters), filter_chain: Rc::clone(chain) })
        }
    }
}
