//! The router: carries out what the route says, and speaks to the chosen host.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use proxy_config::settings::{self, HostRewrite, LogType, Priority, RouteAction, Terminated};
use proxy_http::access_log::FormatContext;
use proxy_http::filter::{Filtered, Reset, TerminalFilter};
use proxy_http::h1::head::ResponseHead;
use proxy_http::reply::LocalReply;
use proxy_http::response_headers::set_service_time;
use proxy_http::route::{RouteEntry, SelectedCluster, redirect_to_https, replace_host};
use proxy_http::tunnel::joined;
use proxy_http::{HeaderId, Method, Request, Response, ResponseFlags, StreamInfo, StreamTimer, Tunnelling};
use proxy_net::{AttemptGuard, UpstreamAttempt, UpstreamHost};
use proxy_runtime::{Instant, boxed, clock};
use proxy_stats::GaugeGuard;
use proxy_upstream::breaker::{BreakerGuard, Resource};
use proxy_upstream::connect::ConnectError;
use proxy_upstream::exchange::{Exchange, ExchangeError, ResponseGuard};
use proxy_upstream::pool::AcquireError;
use proxy_upstream::{Cluster, ClusterMap, HostStat, WorkerHost};

use crate::hcm::HttpStats;
use crate::retry::Retry;

/// `envoy.filters.http.router`.
pub struct Router {
    settings: Arc<settings::Router>,
    clusters: Rc<ClusterMap>,
    stats: Arc<HttpStats>,
    keep_response: bool,
    filter_chain: Rc<str>,
}

impl TerminalFilter for Router {
    fn serve<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Response, Reset>> {
        self.stats.router.rq_total.inc();
        let Some(entry) = stream.route() else {
            if stream.requires_tls() {
                self.stats.router.rq_direct_response.inc();
                stream.set_details("direct_response");
                return Filtered::Now(Ok(redirect_to_https(request)));
            }
            self.stats.router.no_route.inc();
            return Filtered::Now(Ok(LocalReply::NoRoute.response(stream)));
        };
        let chosen = entry.chosen();
        match &chosen.route().action {
            RouteAction::Forward(_) => {
                Filtered::Later(boxed(|| self.forward(stream, request, entry.clone())))
            }
            RouteAction::Redirect(redirect) => {
                // As Envoy: its `rq_redirect` is of a time before.
                self.stats.router.rq_direct_response.inc();
                stream.set_details("direct_response");
                Filtered::Now(
                    Ok(chosen.redirect_response(redirect, request, &|| self.format_context(stream))),
                )
            }
            RouteAction::Direct(direct) => {
                self.stats.router.rq_direct_response.inc();
                stream.set_details("direct_response");
                Filtered::Now(Ok(chosen.direct_response(direct, request, &|| self.format_context(stream))))
            }
            RouteAction::NonForwarding => {
                // It forwards to nowhere, as Envoy sees it.
                self.stats.router.no_cluster.inc();
                Filtered::Now(Ok(LocalReply::NoCluster(503).response(stream)))
            }
        }
    }
}

impl Router {
    /// `keep_response`: a log tells of the headers that hosts answer with.
    pub fn new(
        settings: Arc<settings::Router>,
        clusters: Rc<ClusterMap>,
        stats: Arc<HttpStats>,
        keep_response: bool,
        filter_chain: Rc<str>,
    ) -> Router {
        Router { settings, clusters, stats, keep_response, filter_chain }
    }

    /// What header values tell of a stream.
    fn format_context<'a>(&'a self, stream: &'a StreamInfo) -> FormatContext<'a> {
        FormatContext::of_stream(stream, &self.filter_chain, LogType::NotSet)
    }

    /// A host by the names of its cluster and its address.
    pub(crate) fn find_host(&self, cluster: &str, address: &str) -> Option<Rc<WorkerHost>> {
        self.clusters.find(cluster)?.host_at(address)
    }

    /// The route's time limit passed; `answered`: after a host's response had begun.
    pub(crate) fn count_timeout(&self, stream: &StreamInfo, answered: bool) {
        if let Some(cluster) = stream.cluster().and_then(|cluster| self.clusters.find(&cluster.name)) {
            cluster.info.stats.upstream_rq_timeout.inc();
            if !answered {
                cluster.count_response(LocalReply::ResponseTimeout.status(), stream.is_internal());
            }
        }
    }

    /// For logs of a request that a filter answers: the cluster that it would have gone to.
    pub(crate) fn note_cluster(&self, stream: &StreamInfo, request: &Request) {
        if let Some(entry) = stream.route()
            && let Some(selected) = entry.chosen().select_cluster(request, entry.weighted)
            && let Some(cluster) = self.find_cluster(selected.cluster)
        {
            stream.set_cluster(Arc::clone(&cluster.info.settings));
        }
    }

    fn find_cluster(&self, selected: SelectedCluster<'_>) -> Option<Rc<Cluster>> {
        match selected {
            SelectedCluster::Id(id) => self.clusters.get(id),
            SelectedCluster::Name(name) => self.clusters.find(std::str::from_utf8(&name).ok()?),
        }
    }

    async fn forward(
        &self,
        stream: &Rc<StreamInfo>,
        request: &mut Request,
        entry: RouteEntry,
    ) -> Result<Response, Reset> {
        let chosen = entry.chosen();
        let Some(forward) = chosen.forward() else { return Err(Reset) };
        let Some(selected) = chosen.select_cluster(request, entry.weighted) else { return Err(Reset) };
        let weighted = selected.weighted;
        let Some(cluster) = self.find_cluster(selected.cluster) else {
            self.stats.router.no_cluster.inc();
            return Ok(LocalReply::NoCluster(forward.cluster_not_found_status).response(stream));
        };
        stream.set_cluster(Arc::clone(&cluster.info.settings));
        let source = || self.format_context(stream);
        let timeouts = chosen.prepare_upstream(weighted, request, &self.settings, &source);
        let now = clock::now();
        if let Some(idle) = forward.idle_timeout {
            stream.set_timeout(StreamTimer::Idle, idle, now);
        }
        if let Some(limit) = forward.flush_timeout {
            stream.set_flush_timeout(limit);
        }
        if let Some(duration) = forward.max_stream_duration {
            stream.set_timeout(StreamTimer::Duration, duration, now);
        }
        stream.set_timeout(StreamTimer::Response, timeouts.global, now);
        match self.send(stream, &cluster, forward, request).await {
            Ok(mut response) => {
                chosen.apply_response(weighted, &mut response, Some(request), &source);
                Ok(response)
            }
            Err(Failure::Reply(reply)) => {
                let mut response = reply.response(stream);
                if self.settings.suppress_envoy_headers {
                    response.headers.remove(HeaderId::X_ENVOY_OVERLOADED);
                }
                cluster.count_response(response.status, stream.is_internal());
                Ok(response)
            }
            Err(Failure::Downstream(reply)) => Ok(reply.response(stream)),
            Err(Failure::ClientGone) => Err(Reset),
        }
    }

    /// Sends the request to a host and waits for the head of its response.
    async fn send(
        &self,
        stream: &Rc<StreamInfo>,
        cluster: &Rc<Cluster>,
        forward: &settings::Forward,
        request: &mut Request,
    ) -> Result<Response, Failure> {
        let started = clock::now();
        let mut again = None::<Retry>;
        loop {
            stream.record.attempt_count.set(stream.record.attempt_count.get() + 1);
            let Some(host) = cluster.pick() else {
                cluster.info.stats.upstream_cx_none_healthy.inc();
                return Err(Failure::Reply(LocalReply::NoHealthyUpstream));
            };
            if matches!(forward.host_rewrite, Some(HostRewrite::Auto)) && !host.host.hostname.is_empty() {
                let keep = !self.settings.suppress_envoy_headers;
                replace_host(request, host.host.hostname.as_bytes(), forward.append_x_forwarded_host, keep);
            }
            let attempt = stream
                .needs()
                .record
                .then(|| stream.record.begin_attempt(Rc::clone(&host) as Rc<dyn UpstreamHost>, clock::now()));
            let guard = AttemptGuard::new(attempt.clone());
            let linked = match terminates(forward, request) {
                true => host.link_raw(forward.priority).await,
                false => host.link(stream.version, forward.priority).await,
            };
            let link = match linked {
                Ok(link) => link,
                Err(error) => {
                    guard.note(|attempt, now| {
                        attempt.ready.set(attempt.start, now);
                        acquire_failed(&error, attempt);
                    });
                    return Err(acquire_failure(error));
                }
            };
            if stream.tunnel() == Tunnelling::Asked
                && request.method != Method::Connect
                && !link.takes_upgrades().await
            {
                return Err(Failure::Reply(LocalReply::UpstreamReset));
            }
            let reused = link.reused;
            if stream.shows_request() {
                stream.show_request(request);
            }
            let active = ActiveRequest::begin(stream, cluster, &host, forward.priority)?;
            let again = again.get_or_insert_with(|| Retry::of(request, reused));
            let tunnel = stream.tunnel() != Tunnelling::No;
            let metadata = stream.h2_metadata.as_ref();
            let mut exchange = Exchange::new(link, request, metadata, guard, tunnel);
            let polled = poll_fn(|cx| {
                let polled = exchange.poll_head(cx);
                if let Some(interim) = exchange.take_interim() {
                    cluster.count_response(interim.status, stream.is_internal());
                    stream.offer_interim(interim);
                }
                polled
            });
            let polled = polled.await;
            match polled {
                Ok(head) => {
                    if let Some(attempt) = attempt {
                        attempt.status.set(head.status);
                    }
                    if again.is_spent() {
                        cluster.info.stats.upstream_rq_retry_success.inc();
                    }
                    return Ok(self.response(stream, cluster, exchange, head, active, started));
                }
                Err(error) if safe_to_repeat(&error, reused) && again.restore(request, &mut exchange) => {
                    cluster.info.stats.upstream_rq_retry.inc();
                }
                Err(error) => {
                    active.failed();
                    let failure = exchange_failure(error);
                    if let (Some(attempt), Failure::Reply(reply)) = (attempt, &failure)
                        && let Some(flag) = reply.flag()
                    {
                        attempt.set_flag(flag);
                    }
                    return Err(failure);
                }
            }
        }
    }

    fn response(
        &self,
        stream: &Rc<StreamInfo>,
        cluster: &Rc<Cluster>,
        exchange: Exchange,
        mut head: ResponseHead,
        active: ActiveRequest,
        started: Instant,
    ) -> Response {
        let now = clock::refresh();
        stream.touch(now);
        stream.set_details("via_upstream");
        if self.keep_response {
            stream.kept().upstream_response = Some(head.headers.copy());
        }
        cluster.count_response(head.status, stream.is_internal());
        active.answered(head.status);
        let headers = std::mem::take(&mut head.headers);
        let active = Box::new(active);
        let (body, tunnel) = match (exchange.opens_tunnel(&head), stream.tunnel()) {
            (false, _) => (exchange.into_body(&head, active), None),
            (true, Tunnelling::No) => {
                let (body, tunnel) = exchange.into_tunnel(&head, active);
                (joined(body, tunnel), None)
            }
            (true, _) => {
                stream.open_tunnel();
                exchange.into_tunnel(&head, active)
            }
        };
        let mut response = Response { status: head.status, headers, body, tunnel, local: None };
        if !self.settings.suppress_envoy_headers && stream.is_request_complete() {
            set_service_time(&mut response.headers, now.saturating_duration_since(started));
        }
        response
    }
}

/// Why there is no response from a host.
enum Failure {
    Reply(LocalReply),
    /// The request's body is at fault, not the host.
    Downstream(LocalReply),
    ClientGone,
}

/// Whether the host gets the bytes of the request's body, and nothing of the request itself.
fn terminates(forward: &settings::Forward, request: &Request) -> bool {
    match forward.terminated {
        Terminated::None => false,
        Terminated::Connect => request.method == Method::Connect,
        Terminated::ConnectAndPost => matches!(request.method, Method::Connect | Method::Post),
    }
}

/// The host closed the connection while it lay idle, or says that it has not looked at the request.
fn safe_to_repeat(error: &ExchangeError, reused: bool) -> bool {
    match error {
        ExchangeError::Closed => reused,
        ExchangeError::Refused => true,
        _ => false,
    }
}

fn exchange_failure(error: ExchangeError) -> Failure {
    match error {
        ExchangeError::Closed => Failure::Reply(LocalReply::UpstreamTermination),
        ExchangeError::Reset(_) | ExchangeError::Refused => Failure::Reply(LocalReply::UpstreamReset),
        ExchangeError::Unsendable => Failure::Downstream(LocalReply::BadPath),
        ExchangeError::Malformed(_) => Failure::Reply(LocalReply::UpstreamProtocolError),
        ExchangeError::RequestBody(error) => {
            LocalReply::of_request_body(&error).map_or(Failure::ClientGone, Failure::Downstream)
        }
    }
}

/// What an attempt that got no connection is told of.
fn acquire_failed(error: &AcquireError, attempt: &UpstreamAttempt) {
    match error {
        AcquireError::Overflow => attempt.set_flag(ResponseFlags::UPSTREAM_OVERFLOW),
        AcquireError::Connect(error) => {
            attempt.set_flag(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
            *attempt.failure.borrow_mut() = error.transport_failure();
        }
    }
}

fn acquire_failure(error: AcquireError) -> Failure {
    Failure::Reply(match error {
        AcquireError::Overflow => LocalReply::Overflow,
        AcquireError::Connect(ConnectError::TimedOut) => LocalReply::ConnectTimeout,
        AcquireError::Connect(ConnectError::Failed(_)) => LocalReply::ConnectFailure,
    })
}

/// Counts a request at a host until its response has ended.
struct ActiveRequest {
    stream: Rc<StreamInfo>,
    cluster: Rc<Cluster>,
    host: Rc<WorkerHost>,
    _breaker: BreakerGuard,
    _active: GaugeGuard,
}

impl ActiveRequest {
    fn begin(
        stream: &Rc<StreamInfo>,
        cluster: &Rc<Cluster>,
        host: &Rc<WorkerHost>,
        priority: Priority,
    ) -> Result<ActiveRequest, Failure> {
        let stats = &host.cluster.stats;
        let Some(breaker) = host.cluster.breakers.acquire(priority, Resource::Requests) else {
            stats.upstream_rq_active_overflow.inc();
            return Err(Failure::Reply(LocalReply::Overflow));
        };
        stats.upstream_rq_total.inc();
        host.add(HostStat::RqTotal, 1);
        host.add(HostStat::RqActive, 1);
        Ok(ActiveRequest {
            stream: Rc::clone(stream),
            cluster: Rc::clone(cluster),
            host: Rc::clone(host),
            _breaker: breaker,
            _active: GaugeGuard::new(stats.upstream_rq_active),
        })
    }

    fn answered(&self, status: u16) {
        self.host.add(if status < 500 { HostStat::RqSuccess } else { HostStat::RqError }, 1);
    }

    fn failed(&self) {
        self.host.add(HostStat::RqError, 1);
    }
}

impl ResponseGuard for ActiveRequest {
    fn completed(&self) {
        // Of an answer that came before the request had ended there is no such time.
        if let Some(sent) = self.stream.request_completed_at() {
            let time = clock::now().saturating_duration_since(sent);
            self.cluster.record_response_time(time, self.stream.is_internal());
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.host.add(HostStat::RqActive, -1);
    }
}
