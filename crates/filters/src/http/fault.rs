//! `envoy.filters.http.fault`: delays and aborts requests and slows responses down, to see what depends on them.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_config::settings::{self, AbortStatus, FaultAbort, FaultDelay, FaultRate, Fraction};
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::reply::FilterReply;
use proxy_http::route::{RouteEntry, SelectedCluster, header_matches};
use proxy_http::{Body, HeaderId, Request, Response, ResponseFlags, StreamInfo};
use proxy_runtime::{Timer, clock};
use proxy_stats::{GaugeGuard, stats_block};

use super::rate_limited::RateLimited;
use super::{FilterContext, FilterWorker, HttpFilterPlan};

stats_block! {
    /// `http.<stat_prefix>.fault.*`.
    pub(super) struct FaultStats {
        counters: aborts_injected, delays_injected, faults_overflow, response_rl_injected;
        gauges: active_faults: Accumulate;
    }
}

/// The filter, on main and on each worker.
#[derive(Clone)]
pub(super) struct Fault {
    index: FilterIndex,
    settings: Arc<settings::Fault>,
    stats: FaultStats,
}

/// What was done to a stream; counts as one active fault to its end.
struct Injected {
    /// Bytes per second.
    rate: Option<u64>,
    _active: GaugeGuard,
}

impl Fault {
    pub(super) fn new(settings: &Arc<settings::Fault>, context: &FilterContext<'_>) -> Fault {
        Fault {
            index: context.index,
            settings: Arc::clone(settings),
            stats: FaultStats::new(&context.scope.scope("fault.")),
        }
    }

    fn inject(
        &self,
        settings: &settings::Fault,
        stream: &Rc<StreamInfo>,
        request: &Request,
        route: Option<&RouteEntry>,
    ) -> Injection {
        if settings.most.is_some_and(|most| self.stats.active_faults.value() >= u64::from(most)) {
            self.stats.faults_overflow.inc();
            return Injection::default();
        }
        if !concerns(settings, request, route) {
            return Injection::default();
        }
        let rate = settings.rate.and_then(|rate| rate_of(rate, request));
        let delay = settings.delay.and_then(|delay| delay_of(delay, request));
        if rate.is_some() {
            self.stats.response_rl_injected.inc();
        }
        if delay.is_some() {
            self.stats.delays_injected.inc();
            stream.set_flag(ResponseFlags::DELAY_INJECTED);
        }
        if rate.is_some() || delay.is_some() {
            self.activate(stream, rate);
        }
        // Whether it is aborted after its delay is decided then.
        let abort = match delay {
            None => self.abort(settings, stream, request),
            Some(_) => None,
        };
        Injection { delay, abort }
    }

    fn abort(
        &self,
        settings: &settings::Fault,
        stream: &Rc<StreamInfo>,
        request: &Request,
    ) -> Option<Response> {
        let abort = settings.abort.as_ref()?;
        let (status, grpc_status) = abort_status(abort, request)?;
        self.stats.aborts_injected.inc();
        stream.set_flag(ResponseFlags::FAULT_INJECTED);
        if stream.filter_local::<Injected>(self.index).is_none() {
            self.activate(stream, None);
        }
        let reply =
            FilterReply { grpc_status, ..FilterReply::new(status, abort.body.clone(), "fault_filter_abort") };
        Some(reply.response(stream))
    }

    fn activate(&self, stream: &StreamInfo, rate: Option<u64>) {
        let injected = Injected { rate, _active: GaugeGuard::new(self.stats.active_faults) };
        stream.set_filter_local(self.index, injected);
    }

    fn settings<'s>(&'s self, route: Option<&'s RouteEntry>) -> &'s settings::Fault {
        route.and_then(|route| route.filter_config(self.index)).unwrap_or(&*self.settings)
    }
}

#[derive(Default)]
struct Injection {
    delay: Option<Duration>,
    abort: Option<Response>,
}

/// Whether the settings are about this request.
fn concerns(settings: &settings::Fault, request: &Request, route: Option<&RouteEntry>) -> bool {
    let cluster = settings.cluster.as_deref().is_none_or(|name| {
        let chosen = route.map(|route| (route.chosen(), route.weighted));
        chosen.is_some_and(|(chosen, weighted)| match chosen.cluster_name(weighted) {
            Some(cluster) => **cluster == *name,
            None => matches!(
                chosen.select_cluster(request, weighted).map(|selected| selected.cluster),
                Some(SelectedCluster::Name(cluster)) if *cluster == *name.as_bytes()
            ),
        })
    });
    let node = request.headers.joined(HeaderId::X_ENVOY_DOWNSTREAM_SERVICE_NODE);
    cluster
        && (settings.nodes.is_empty()
            || settings.nodes.iter().any(|name| node.as_deref() == Some(name.as_bytes())))
        && settings.headers.iter().all(|matcher| header_matches(matcher, Some(request)))
}

fn number(request: &Request, name: &str) -> Option<u64> {
    std::str::from_utf8(request.headers.value(name)?).ok()?.trim().parse().ok()
}

/// Whether the request belongs to the share, which a header can make smaller.
fn drawn(share: Fraction, request: &Request, header: Option<&str>) -> bool {
    let asked = header.and_then(|name| number(request, name)).and_then(|asked| u32::try_from(asked).ok());
    let numerator = asked.map_or(share.numerator, |asked| asked.min(share.numerator));
    numerator > 0 && Fraction { numerator, ..share }.has(fastrand::u64(..))
}

fn delay_of(delay: FaultDelay, request: &Request) -> Option<Duration> {
    let (time, header) = match delay.fixed {
        Some(fixed) => (fixed, None),
        None => {
            let time = number(request, "x-envoy-fault-delay-request")?;
            (Duration::from_millis(time), Some("x-envoy-fault-delay-request-percentage"))
        }
    };
    (!time.is_zero() && drawn(delay.share, request, header)).then_some(time)
}

/// Bytes per second.
fn rate_of(rate: FaultRate, request: &Request) -> Option<u64> {
    let (limit, header) = match rate.fixed {
        Some(fixed) => (fixed, None),
        None => {
            let limit = number(request, "x-envoy-fault-throughput-response")?;
            (limit, Some("x-envoy-fault-throughput-response-percentage"))
        }
    };
    (limit > 0 && drawn(rate.share, request, header)).then_some(limit.saturating_mul(1024))
}

/// The status with which the request is aborted, if it is: of HTTP, and of gRPC where that is given.
fn abort_status(abort: &FaultAbort, request: &Request) -> Option<(u16, Option<u32>)> {
    let (status, header) = match abort.status {
        AbortStatus::Http(status) => ((status, None), None),
        AbortStatus::Grpc(status) => ((200, Some(status)), None),
        AbortStatus::Headers => {
            let http =
                number(request, "x-envoy-fault-abort-request").filter(|status| (200..600).contains(status));
            let grpc = || u32::try_from(number(request, "x-envoy-fault-abort-grpc-request")?).ok();
            let status = match http {
                Some(status) => (status as u16, None),
                None => (200, Some(grpc()?)),
            };
            (status, Some("x-envoy-fault-abort-request-percentage"))
        }
    };
    drawn(abort.share, request, header).then_some(status)
}

impl HttpFilterPlan for Fault {
    fn build(&self, _: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(self.clone())
    }
}

impl HttpFilter for Fault {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        let route = stream.route();
        let injection = self.inject(self.settings(route.as_ref()), stream, request, route.as_ref());
        let Some(delay) = injection.delay else {
            return Filtered::Now(Ok(injection.abort.map_or(Flow::Continue, Flow::Reply)));
        };
        Filtered::Later(Box::pin(async move {
            let timer = Timer::new();
            timer.set(clock::now() + delay.min(LONGEST_DELAY));
            poll_fn(|cx| timer.poll_expired(cx)).await;
            let abort = self.abort(self.settings(route.as_ref()), stream, request);
            Ok(abort.map_or(Flow::Continue, Flow::Reply))
        }))
    }

    fn response<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        if let Some(injected) = stream.filter_local::<Injected>(self.index)
            && let Some(rate) = injected.rate
            && !response.body.is_empty()
        {
            let body = std::mem::replace(&mut response.body, Body::Empty);
            response.body = Body::Stream(Box::new(RateLimited::new(body, rate)));
        }
        Filtered::Now(Ok(()))
    }
}

/// A client may ask for any number of milliseconds; the stream's own limits end it long before.
const LONGEST_DELAY: Duration = Duration::from_hours(24);
