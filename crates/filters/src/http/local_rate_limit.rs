//! `envoy.filters.http.local_ratelimit`: so many requests of a kind in so much time, over all workers.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use proxy_config::settings::{self, LimitAction, LogType, RateLimit, RouteFilterConfig, VirtualHostLimits};
use proxy_http::access_log::{FormatContext, write_network};
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::mutation::{mutate_request, mutate_response};
use proxy_http::reply::FilterReply;
use proxy_http::route::{
    ChosenRoute, RouteEntry, RouteFilterValue, SelectedCluster, header_matches, query_matches, query_value,
};
use proxy_http::{Request, Response, ResponseFlags, StreamInfo};
use proxy_net::{ConnectionId, ConnectionInfo};
use proxy_runtime::clock;
use proxy_stats::{Scope, stats_block};

use super::{FilterContext, FilterWorker, HttpFilterPlan};
use crate::token_bucket::TokenBucket;

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

struct Buckets {
    default: Option<TokenBucket>,
    /// In the order of the settings' descriptors.
    of_descriptors: Vec<TokenBucket>,
}

/// A worker's instance.
struct Filter {
    index: FilterIndex,
    own: Arc<Limiter>,
    cluster: Arc<str>,
    filter_chain: Rc<str>,
    /// Buckets of single connections.
    connections: RefCell<HashMap<(ConnectionId, *const Limiter), OfConnection>>,
}

struct OfConnection {
    connection: Weak<ConnectionInfo>,
    buckets: Arc<Buckets>,
}

/// The bucket that decided on a stream, to be told of in its response.
struct Decided {
    buckets: Arc<Buckets>,
    /// That of a descriptor; the default one if `None`.
    descriptor: Option<usize>,
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

impl Buckets {
    fn new(settings: &settings::LocalRateLimit, now: Instant) -> Buckets {
        let of_descriptors = settings.descriptors.iter();
        Buckets {
            default: settings.bucket.map(|bucket| TokenBucket::new(bucket, now)),
            of_descriptors: of_descriptors
                .map(|descriptor| TokenBucket::new(descriptor.bucket, now))
                .collect(),
        }
    }

    /// Whether there is a token in each bucket that `matched`, in order, and in the default one where that counts; and which
    /// bucket decided.
    fn take(&self, matched: &[usize], always_default: bool, now: Instant) -> (bool, Option<usize>) {
        for &index in matched {
            if !self.of_descriptors[index].take(now) {
                return (false, Some(index));
            }
        }
        let first = matched.first().copied();
        let counts = first.is_none() || always_default;
        if counts && !self.default.as_ref().is_none_or(|bucket| bucket.take(now)) {
            return (false, None);
        }
        (true, first)
    }

    fn bucket(&self, descriptor: Option<usize>) -> Option<&TokenBucket> {
        match descriptor {
            Some(index) => self.of_descriptors.get(index),
            None => self.default.as_ref(),
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
        let matched = self.matched(settings, stream, request);
        let buckets = self.buckets(limiter, stream);
        let (allowed, descriptor) = buckets.take(&matched, settings.always_default, clock::now());
        if settings.tells {
            stream.set_filter_local(self.index, Decided { buckets, descriptor });
        }
        if allowed {
            limiter.stats.ok.inc();
            return Flow::Continue;
        }
        limiter.stats.rate_limited.inc();
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
        Flow::Reply(response)
    }

    /// The settings' descriptors that describe the request; those whose tokens come slowest first.
    fn matched(
        &self,
        settings: &settings::LocalRateLimit,
        stream: &StreamInfo,
        request: &Request,
    ) -> Vec<usize> {
        let mut matched = Vec::new();
        if settings.descriptors.is_empty() {
            return matched;
        }
        let route = stream.route();
        for rate_limit in applicable(settings, route.as_ref()) {
            let Some(entries) = self.describe(rate_limit, stream, request) else { continue };
            let found = settings.descriptors.iter().position(|descriptor| {
                let known = descriptor.entries.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
                entries.iter().map(|(key, value)| (*key, &value[..])).eq(known)
            });
            matched.extend(found);
        }
        if matched.len() > 1 {
            let time = |index: &usize| {
                let bucket = settings.descriptors[*index].bucket;
                bucket.fill_interval / bucket.tokens_per_fill
            };
            matched.sort_by_key(|index| std::cmp::Reverse(time(index)));
        }
        matched
    }

    /// The entries of a request's descriptor; `None` where a part is missing, or there are none.
    fn describe<'r>(
        &self,
        rate_limit: &'r RateLimit,
        stream: &StreamInfo,
        request: &Request,
    ) -> Option<Vec<(&'r [u8], Vec<u8>)>> {
        let mut entries = Vec::with_capacity(rate_limit.actions.len());
        for action in &rate_limit.actions {
            let (key, value): (&str, Vec<u8>) = match action {
                LimitAction::SourceCluster => ("source_cluster", self.cluster.as_bytes().to_vec()),
                LimitAction::DestinationCluster => ("destination_cluster", destination(stream, request)?),
                LimitAction::RequestHeader { name, key, skip_if_absent } => {
                    match request.value_or_pseudo(name).filter(|value| !value.is_empty()) {
                        Some(value) => (key, value.to_vec()),
                        None if *skip_if_absent => continue,
                        None => return None,
                    }
                }
                LimitAction::QueryParameter { name, key, skip_if_absent } => {
                    match query_value(name, request).filter(|value| !value.is_empty()) {
                        Some(value) => (key, value.to_vec()),
                        None if *skip_if_absent => continue,
                        None => return None,
                    }
                }
                LimitAction::RemoteAddress => ("remote_address", client(stream)?.to_string().into_bytes()),
                LimitAction::MaskedRemoteAddress { v4, v6 } => {
                    let mut network = Vec::new();
                    let client = client(stream)?;
                    write_network(client, Some(if client.is_ipv4() { *v4 } else { *v6 }), &mut network);
                    ("masked_remote_address", network)
                }
                LimitAction::GenericKey { key, value } => (key, value.clone().into_bytes()),
                LimitAction::HeaderValueMatch { key, value, expect, headers } => {
                    let found = headers.iter().all(|matcher| header_matches(matcher, Some(request)));
                    if found != *expect {
                        return None;
                    }
                    (key, value.clone().into_bytes())
                }
                LimitAction::QueryParameterValueMatch { key, value, expect, parameters } => {
                    let found = parameters.iter().all(|matcher| query_matches(matcher, request));
                    if found != *expect {
                        return None;
                    }
                    (key, value.clone().into_bytes())
                }
            };
            entries.push((key.as_bytes(), value));
        }
        (!entries.is_empty()).then_some(entries)
    }

    fn buckets(&self, limiter: &Limiter, stream: &StreamInfo) -> Arc<Buckets> {
        if !limiter.settings.per_connection {
            return Arc::clone(&limiter.buckets);
        }
        let mut connections = self.connections.borrow_mut();
        let key = (stream.connection.id, std::ptr::from_ref(limiter));
        if !connections.contains_key(&key) && connections.len() == connections.capacity() {
            // Before the table grows, those go whose connections have ended.
            connections.retain(|_, kept| kept.connection.strong_count() > 0);
        }
        let kept = connections.entry(key).or_insert_with(|| OfConnection {
            connection: Rc::downgrade(&stream.connection),
            buckets: Arc::new(Buckets::new(&limiter.settings, clock::now())),
        });
        Arc::clone(&kept.buckets)
    }
}

/// What describes a request: what the filter says, or else its route and its virtual host.
fn applicable<'s>(
    settings: &'s settings::LocalRateLimit,
    route: Option<&'s RouteEntry>,
) -> impl Iterator<Item = &'s RateLimit> {
    let chosen = route.map(RouteEntry::chosen).filter(|_| settings.rate_limits.is_empty());
    let forward = chosen.and_then(ChosenRoute::forward);
    let of_route = forward.map_or(&[][..], |forward| &forward.rate_limits[..]);
    let includes = forward.is_some_and(|forward| {
        forward.include_virtual_host_limits
            || match settings.of_virtual_host {
                VirtualHostLimits::Override => forward.rate_limits.is_empty(),
                VirtualHostLimits::Include => true,
                VirtualHostLimits::Ignore => false,
            }
    });
    let of_host =
        chosen.filter(|_| includes).map_or(&[][..], |chosen| &chosen.virtual_host().rate_limits[..]);
    let routed = of_route.iter().chain(of_host).filter(|rate_limit| rate_limit.stage == settings.stage);
    settings.rate_limits.iter().chain(routed)
}

fn client(stream: &StreamInfo) -> Option<IpAddr> {
    stream.client().or_else(|| Some(stream.connection.remote.ip()?.ip()))
}

/// The name of the cluster that the request goes to.
fn destination(stream: &StreamInfo, request: &Request) -> Option<Vec<u8>> {
    let route = stream.route()?;
    let chosen = route.chosen();
    match chosen.cluster_name(route.weighted) {
        Some(name) => Some(name.as_bytes().to_vec()),
        None => match chosen.select_cluster(request, route.weighted)?.cluster {
            SelectedCluster::Name(name) => Some(name.to_vec()),
            SelectedCluster::Id(_) => None,
        },
    }
}

impl HttpFilterPlan for LocalRateLimit {
    fn build(&self, worker: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(Filter {
            index: self.index,
            own: Arc::clone(&self.own),
            cluster: Arc::clone(&self.cluster),
            filter_chain: Rc::clone(&worker.filter_chain),
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
        if let Some(decided) = stream.filter_local::<Decided>(self.index)
            && let Some(bucket) = decided.buckets.bucket(decided.descriptor)
        {
            let (left, wait) = bucket.left(clock::now());
            let told = [("limit", bucket.size()), ("remaining", left), ("reset", wait)];
            for (name, number) in told {
                let name = format!("x-ratelimit-{name}");
                response.headers.append(&*name, number.to_string().as_bytes());
            }
        }
        Filtered::Now(Ok(()))
    }
}

/// gRPC's status for it.
const RESOURCE_EXHAUSTED: u32 = 8;
