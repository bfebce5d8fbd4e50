//! `envoy.filters.http.local_ratelimit`: so many requests of a kind in so much time, over all workers.

mod buckets;
mod cost;
mod describe;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use proxy_config::settings::{self, LogType, RouteFilterConfig};
use proxy_http::access_log::FormatContext;
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::mutation::{mutate_request, mutate_response};
use proxy_http::reply::FilterReply;
use proxy_http::route::RouteFilterValue;
use proxy_http::{Request, Response, ResponseFlags, StreamInfo};
use proxy_net::{ConnectionId, ConnectionInfo};
use proxy_runtime::clock;
use proxy_stats::{Scope, stats_block};
use proxy_upstream::ClusterMap;

use super::{FilterContext, FilterWorker, HttpFilterPlan};
use buckets::{Buckets, Decided, Verdict};
use describe::{Facts, applicable};

stats_block! {
    /// `<stat_prefix>.http_local_rate_limit.*`.
    pub(super) struct RateLimitStats {
        counters: enabled, enforced, ok, rate_limited, shadow_mode;
    }
}

/// The filter on main.
pub(super) struct LocalRateLimit {
    index: FilterIndex,
    root: Scope,
    own: Arc<Limiter>,
    cluster: Arc<str>,
}

/// Settings of the filter or of a route, with buckets that all workers take from.
struct Limiter {
    settings: Arc<settings::LocalRateLimit>,
    buckets: Arc<Buckets>,
    stats: RateLimitStats,
}

/// A worker's instance.
struct Filter {
    index: FilterIndex,
    own: Arc<Limiter>,
    cluster: Arc<str>,
    filter_chain: Rc<str>,
    clusters: Rc<ClusterMap>,
    /// Buckets of single connections.
    connections: RefCell<HashMap<(ConnectionId, *const settings::LocalRateLimit), OfConnection>>,
}

struct OfConnection {
    connection: Weak<ConnectionInfo>,
    /// Held so that no others come to lie where these are found by.
    _settings: Arc<settings::LocalRateLimit>,
    buckets: Arc<Buckets>,
}

impl LocalRateLimit {
    pub(super) fn new(
        settings: &Arc<settings::LocalRateLimit>,
        context: &FilterContext<'_>,
    ) -> LocalRateLimit {
        LocalRateLimit {
            index: context.index,
            root: context.root.clone(),
            own: Arc::new(Limiter::new(settings, context.root)),
            cluster: Arc::clone(&context.process.cluster),
        }
    }
}

impl Limiter {
    fn new(settings: &Arc<settings::LocalRateLimit>, root: &Scope) -> Limiter {
        Limiter {
            settings: Arc::clone(settings),
            buckets: Arc::new(Buckets::new(settings, clock::now())),
            stats: RateLimitStats::new(
                &root.scope(&format!("{}.http_local_rate_limit.", settings.stat_prefix)),
            ),
        }
    }
}

impl Filter {
    fn decide(&self, limiter: &Limiter, stream: &Rc<StreamInfo>, request: &mut Request) -> Flow {
        let settings = &limiter.settings;
        if !settings.enabled.has(fastrand::u64(..)) {
            return Flow::Continue;
        }
        limiter.stats.enabled.inc();
        let (verdict, decided) = self.take(limiter, stream, request);
        let wait = decided.as_ref().filter(|_| settings.tells_when).map(|d| d.bucket.left(clock::now()).1);
        if let Some(decided) = decided.filter(|decided| decided.tells.unwrap_or(settings.tells)) {
            stream.set_filter_local(self.index, decided);
        }
        match verdict {
            Verdict::Allowed => {
                limiter.stats.ok.inc();
                return Flow::Continue;
            }
            Verdict::Shadowed => {
                limiter.stats.rate_limited.inc();
                limiter.stats.shadow_mode.inc();
                return Flow::Continue;
            }
            Verdict::Refused => limiter.stats.rate_limited.inc(),
        }
        let source = || FormatContext::of_stream(stream, &self.filter_chain, LogType::NotSet);
        if !settings.enforced.has(fastrand::u64(..)) {
            mutate_request(&settings.request_headers, request, &source);
            return Flow::Continue;
        }
        limiter.stats.enforced.inc();
        stream.set_flag(ResponseFlags::RATE_LIMITED);
        let grpc_status = settings.resource_exhausted.then_some(RESOURCE_EXHAUSTED);
        let reply = FilterReply::new(settings.status, "local_rate_limited", "local_rate_limited");
        let mut response = FilterReply { grpc_status, ..reply }.response(stream);
        mutate_response(&settings.response_headers, &mut response, Some(request), &source);
        if let Some(wait) = wait.filter(|_| settings.status == TOO_MANY_REQUESTS)
            && !response.headers.contains("retry-after")
        {
            response.headers.append("retry-after", wait.max(1).to_string().as_bytes());
        }
        Flow::Reply(response)
    }

    fn take(&self, limiter: &Limiter, stream: &StreamInfo, request: &Request) -> (Verdict, Option<Decided>) {
        let settings = &limiter.settings;
        let own;
        let buckets = if settings.per_connection {
            own = self.of_connection(limiter, stream);
            &own
        } else {
            &limiter.buckets
        };
        if settings.descriptors.is_empty() {
            return buckets.take(settings, std::iter::empty(), clock::now());
        }
        let facts = Facts {
            own_cluster: &self.cluster,
            clusters: &self.clusters,
            filter_chain: &self.filter_chain,
            stream,
            request,
        };
        let route = stream.route();
        let described = applicable(settings, route.as_ref()).filter_map(|limit| facts.describe(limit));
        buckets.take(settings, described, clock::now())
    }

    fn of_connection(&self, limiter: &Limiter, stream: &StreamInfo) -> Arc<Buckets> {
        let mut connections = self.connections.borrow_mut();
        let key = (stream.connection.id, Arc::as_ptr(&limiter.settings));
        if !connections.contains_key(&key) && connections.len() == connections.capacity() {
            // Before the table grows, those go whose connections have ended.
            connections.retain(|_, kept| kept.connection.strong_count() > 0);
        }
        let kept = connections.entry(key).or_insert_with(|| OfConnection {
            connection: Rc::downgrade(&stream.connection),
            _settings: Arc::clone(&limiter.settings),
            buckets: Arc::new(Buckets::new(&limiter.settings, clock::now())),
        });
        Arc::clone(&kept.buckets)
    }
}

impl HttpFilterPlan for LocalRateLimit {
    fn build(&self, worker: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(Filter {
            index: self.index,
            own: Arc::clone(&self.own),
            cluster: Arc::clone(&self.cluster),
            filter_chain: Rc::clone(&worker.filter_chain),
            clusters: Rc::clone(&worker.clusters),
            connections: RefCell::default(),
        })
    }

    fn route_config(&self, settings: &RouteFilterConfig) -> Option<RouteFilterValue> {
        match settings {
            RouteFilterConfig::LocalRateLimit(settings) => {
                Some(Arc::new(Limiter::new(settings, &self.root)) as _)
            }
            _ => None,
        }
    }
}

impl HttpFilter for Filter {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        let route = stream.route();
        let limiter = route.as_ref().and_then(|route| route.filter_config(self.index)).unwrap_or(&*self.own);
        Filtered::Now(Ok(self.decide(limiter, stream, request)))
    }

    fn response<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        if let Some(decided) = stream.filter_local::<Decided>(self.index) {
            let (left, wait) = decided.bucket.left(clock::now());
            let told = [("limit", decided.bucket.size()), ("remaining", left), ("reset", wait)];
            for (name, number) in told {
                let name = format!("x-ratelimit-{name}");
                response.headers.append(&*name, number.to_string().as_bytes());
            }
        }
        Filtered::Now(Ok(()))
    }
}

const TOO_MANY_REQUESTS: u16 = 429;

/// gRPC's status for it.
const RESOURCE_EXHAUSTED: u32 = 8;
