//! What happens to a request whatever version it came in: preparation, route, filters, router, finishing.

use std::rc::Rc;
use std::sync::Arc;

use proxy_http::filter::{ChainIndex, FilterIndex, Filtered, Flow, HttpFilter, Reset, TerminalFilter};
use proxy_http::forwarding::{ForwardingContext, NotForwarded, admit_request, expects_continue};
use proxy_http::h1::head::HeadError;
use proxy_http::local_reply;
use proxy_http::mutation::mutate_request;
use proxy_http::proxy_status::append_proxy_status;
use proxy_http::reply::{LocalReply, is_grpc_call};
use proxy_http::response_headers::{ResponseContext, prepare_interim, prepare_response};
use proxy_http::route::{LookupContext, RouteEntry, RouteTable, tunnel_chain};
use proxy_http::{
    BodyError, HeaderId, Headers, Interim, Request, Response, ResponseFlags, Scheme, StreamInfo, StreamTimer,
    Tunnelling, Version,
};
use proxy_runtime::{Instant, Snapshot, clock};
use proxy_stats::GaugeGuard;

use super::kept::{HeldRequest, watch_trailers};
use super::{HttpStats, Manager};

/// What the codec found out about a request besides the request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrival {
    /// It asks to become a stream of bytes: CONNECT or an upgrade.
    pub(super) tunnel: bool,
    /// Its body is chunked.
    pub(super) chunked: bool,
    /// It names no host.
    pub(super) no_host: bool,
}

impl Manager {
    /// Takes a request to its response. Dropping the future cancels everything below.
    pub(super) fn respond<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: Request,
        arrival: Arrival,
    ) -> impl Future<Output = Result<Response, Reset>> + 'a {
        // Not in the future, which would have room for it twice.
        let mut request = HeldRequest::new(stream, request);
        async move {
            let reply = match self.prepare(stream, &mut request, arrival) {
                Some(reply) => Some(reply),
                None => self.filter_request(stream, &mut request).await?,
            };
            let mut response = match reply {
                Some(reply) => {
                    // Filters behind the one that answers could not say that they want it for the response.
                    stream.want_request();
                    reply
                }
                None => wait(self.chain(stream).router.serve(stream, &mut request)).await?,
            };
            self.complete(stream, &mut response, Some(&request));
            request.answered();
            // Who wants its head has it from now on.
            drop(request);
            Ok(self.finish(stream, response).await)
        }
    }

    /// Rewrites what the connection manager rewrites and finds the route; gives an answer where that ends it.
    fn prepare(&self, stream: &Rc<StreamInfo>, request: &mut Request, arrival: Arrival) -> Option<Response> {
        for mutations in &self.settings.forwarding.early_mutations {
            mutate_request(mutations, request, &|| self.logs.format_context(stream));
        }
        stream.set_grpc(is_grpc_call(&request.headers));
        if arrival.tunnel {
            self.choose_tunnel_chain(stream, request);
        }
        if arrival.no_host {
            return Some(LocalReply::Downstream(HeadError::NoHost).response(stream));
        }
        let context = ForwardingContext {
            peer: stream.connection.remote.ip().map(|address| address.ip()),
            local_port: stream.connection.local.ip().map(|address| address.port()),
            scheme: Scheme::Http,
            local_address: self.local_address,
            internal_addresses: &self.settings.internal_addresses,
            random: fastrand::u128(..),
        };
        let forwarded = match admit_request(request, &self.settings, &context) {
            Ok(forwarded) => forwarded,
            Err(refusal) => return Some(self.not_forwarded(stream, request, refusal)),
        };
        stream.set_client(forwarded.client);
        stream.set_internal(forwarded.is_internal);
        let force_trace = request.headers.contains(HeaderId::X_ENVOY_FORCE_TRACE);
        if (self.settings.request_id_in_response || force_trace)
            && let Some(id) = request.headers.joined(HeaderId::X_REQUEST_ID)
        {
            stream.set_response_id((*id).into());
        }
        self.select_route(stream, request, self.routes.get());
        if arrival.tunnel
            && let Some(refused) = self.refuse_tunnel(stream, request, arrival)
        {
            return Some(refused);
        }
        if let Some(disabled) = stream.route().and_then(|route| route.disabled_filters()) {
            stream.set_disabled_filters(disabled.with(self.chain(stream).others));
        }
        self.logs.stream_started(stream, request);
        None
    }

    /// The answer to a request that routes never see.
    fn not_forwarded(&self, stream: &StreamInfo, request: &Request, refusal: NotForwarded) -> Response {
        let stats = &self.stats.manager;
        match refusal {
            NotForwarded::NoPath => {
                stats.downstream_rq_non_relative_path.inc();
                stream.set_details("absolute_path_rejected");
                Response::local(404, "")
            }
            NotForwarded::BadPath => {
                stats.downstream_rq_failed_path_normalization.inc();
                LocalReply::BadPath.response(stream)
            }
            NotForwarded::OtherPath => {
                stats.downstream_rq_redirected_with_normalized_path.inc();
                stream.set_details("path_normalization_failed");
                let mut response = Response::local(307, "");
                response.headers.append(HeaderId::LOCATION, request.path());
                response
            }
            NotForwarded::Nomination => {
                LocalReply::Downstream(HeadError::Malformed("connection")).response(stream)
            }
            NotForwarded::Refused(status) => {
                stats.downstream_rq_rejected_via_ip_detection.inc();
                Response::local(status, "")
            }
        }
    }

    fn select_route(&self, stream: &StreamInfo, request: &Request, table: Snapshot<RouteTable>) {
        stream.set_requires_tls(table.requires_tls(request));
        if stream.requires_tls() {
            return stream.set_route(None);
        }
        let random = fastrand::u64(..);
        let found = table.find(request, &LookupContext { random });
        stream.set_route(found.map(|(virtual_host, route)| {
            let weighted = table.chosen(virtual_host, route).select_weighted(request, random);
            RouteEntry { table, virtual_host, route, weighted }
        }));
    }

    /// The filters that see this stream.
    fn filters_of(&self, stream: &StreamInfo) -> impl DoubleEndedIterator<Item = &dyn HttpFilter> {
        let disabled = stream.disabled_filters();
        let all = self.filters.iter().enumerate();
        let enabled = all.filter(move |(index, _)| !disabled.contains(FilterIndex(*index as u8)));
        enabled.map(|(_, filter)| &**filter)
    }

    /// Puts the chain in force that serves a request that asks to become a tunnel. False where it may not become one, as far as
    /// its route is known.
    fn choose_tunnel_chain(&self, stream: &StreamInfo, request: &Request) -> bool {
        let route = stream.route();
        let chosen = tunnel_chain(route.as_ref().map(RouteEntry::chosen), request, &self.settings);
        self.set_filter_chain(stream, chosen.unwrap_or_default());
        chosen.is_some()
    }

    /// The answer to a request that may not become the tunnel that it asks to be.
    fn refuse_tunnel(&self, stream: &StreamInfo, request: &Request, arrival: Arrival) -> Option<Response> {
        let stats = &self.stats.manager;
        if !self.choose_tunnel_chain(stream, request) {
            // Without a route it is answered as others are.
            stream.route()?;
            stats.downstream_rq_ws_on_non_ws_route.inc();
            return Some(LocalReply::UpgradeRefused.response(stream));
        }
        if arrival.chunked && stream.route().is_some() {
            // Where its body ends and the tunnel begins would be told to the host by nobody.
            let error = HeadError::Malformed("upgrade with a chunked body");
            return Some(LocalReply::Downstream(error).response(stream));
        }
        stream.ask_tunnel();
        stats.downstream_cx_upgrades_total.inc();
        stats.downstream_cx_upgrades_active.inc();
        None
    }

    async fn filter_request(
        &self,
        stream: &Rc<StreamInfo>,
        request: &mut Request,
    ) -> Result<Option<Response>, Reset> {
        for filter in self.filters_of(stream) {
            if let Flow::Reply(response) = wait(filter.request(stream, request)).await? {
                self.chain(stream).router.note_cluster(stream, request);
                return Ok(Some(response));
            }
            if stream.take_route_cleared() {
                self.select_route(stream, request, self.routes.get());
            }
        }
        Ok(None)
    }

    /// Puts an answer of the proxy's own into words, unless that is done.
    fn complete(&self, stream: &StreamInfo, response: &mut Response, request: Option<&Request>) {
        if response.local.is_none() {
            return;
        }
        if response.status == 400 && !self.settings.http1.stream_error_on_invalid_message {
            // Whatever is at fault, what comes next is not to be trusted; HTTP/2 tells requests apart.
            stream.set_last();
        }
        let source = || self.logs.format_context(stream);
        if let Some(entry) = stream.route()
            && entry.chosen().forward().is_some()
        {
            // In place of what the host would have said. Routes that answer by themselves have done so already.
            entry.chosen().apply_response(entry.weighted, response, request, &source);
        }
        local_reply::complete(response, self.settings.local_replies.as_ref(), stream, request, &source);
    }

    /// As [`Manager::complete`], when the request is done with.
    fn complete_later(&self, stream: &StreamInfo, response: &mut Response) {
        if response.local.is_some() {
            let kept = stream.kept();
            self.complete(stream, response, kept.request.as_deref());
        }
    }

    /// Runs the response through all filters in reverse and puts in what the connection manager adds.
    pub(super) async fn finish(&self, stream: &Rc<StreamInfo>, mut response: Response) -> Response {
        self.complete_later(stream, &mut response);
        for filter in self.filters_of(stream).rev() {
            if wait(filter.response(stream, &mut response)).await.is_err() {
                response = LocalReply::UpstreamReset.response(stream);
            }
            self.complete_later(stream, &mut response);
        }
        let id = stream.response_id();
        let context = ResponseContext {
            date: &clock::http_date(),
            request_id: id.as_deref(),
            force_trace: id.is_some(),
            upgraded: response.tunnel.is_some() && response.status == 101,
        };
        prepare_response(&mut response, &self.settings, &context);
        if let Some(settings) = &self.settings.proxy_status
            && !stream.flags().is_empty()
        {
            append_proxy_status(&mut response, settings, &self.logs.format_context(stream));
        }
        watch_trailers(stream, &mut response.body);
        response
    }

    /// Decides what goes to the client ahead of the final response: what a host sends, or our 100 to one that waits for it.
    pub(super) fn prepare_interim(&self, stream: &StreamInfo, request: &mut Request) {
        // Who speaks HTTP/1.0 knows no such answers (RFC 9110, sections 10.1.1 and 15.2).
        let knows_interim = stream.version != Version::Http10;
        if self.settings.proxy_interim && knows_interim {
            stream.want_interim();
        } else if expects_continue(request) {
            request.headers.remove(HeaderId::EXPECT);
            if knows_interim {
                stream.want_interim();
                stream.offer_interim(Box::new(Interim { status: 100, headers: Headers::new() }));
            }
        }
    }

    /// What is to be sent now ahead of the final response. It counts as sent.
    pub(super) fn take_interim(&self, stream: &StreamInfo) -> Option<Box<Interim>> {
        let mut interim = stream.take_interim()?;
        prepare_interim(&mut interim.headers);
        if let Some(id) = stream.response_id() {
            interim.headers.set(HeaderId::X_REQUEST_ID, &id);
        }
        self.stats.count_response(interim.status);
        Some(interim)
    }

    /// Puts the connection manager's limits on a new stream.
    pub(super) fn set_stream_timeouts(&self, stream: &StreamInfo, now: Instant) {
        let settings = &self.settings;
        stream.set_timeout(StreamTimer::Idle, settings.stream_idle_timeout, now);
        stream.set_flush_timeout(settings.stream_flush_timeout);
        if settings.request_timeout.is_some() {
            stream.set_timeout(StreamTimer::Request, settings.request_timeout, now);
        }
        if settings.max_stream_duration.is_some() {
            stream.set_timeout(StreamTimer::Duration, settings.max_stream_duration, now);
        }
    }

    /// Notes which limit passed; `answered`: after the response had begun.
    pub(super) fn note_timeout(&self, stream: &StreamInfo, timer: StreamTimer, answered: bool) {
        let stats = &self.stats.manager;
        match timer {
            StreamTimer::Idle => {
                stats.downstream_rq_idle_timeout.inc();
                stream.set_flag(ResponseFlags::STREAM_IDLE_TIMEOUT);
            }
            StreamTimer::Request => stats.downstream_rq_timeout.inc(),
            StreamTimer::Response => {
                stream.set_flag(ResponseFlags::UPSTREAM_REQUEST_TIMEOUT);
                self.chain(stream).router.count_timeout(stream, answered);
            }
            StreamTimer::Duration => {
                stats.downstream_rq_max_duration_reached.inc();
            }
        }
        if answered {
            stream.record.replace_details(timeout_reply(stream, timer).details());
        }
    }

    /// The answer to a request for which a limit passed before anything was answered.
    pub(super) async fn timed_out(&self, stream: &Rc<StreamInfo>, timer: StreamTimer) -> Response {
        self.note_timeout(stream, timer, false);
        let reply = timeout_reply(stream, timer);
        // What the limit cut off may not be started again by those that wait on it.
        stream.clear_timeouts();
        self.finish(stream, reply.response(stream)).await
    }
}

fn timeout_reply(stream: &StreamInfo, timer: StreamTimer) -> LocalReply {
    let request_complete = stream.is_request_complete();
    match timer {
        StreamTimer::Idle => LocalReply::StreamIdleTimeout { request_complete },
        StreamTimer::Request => LocalReply::RequestTimeout,
        StreamTimer::Response => LocalReply::ResponseTimeout,
        StreamTimer::Duration => LocalReply::MaxDuration { request_complete },
    }
}

async fn wait<T>(filtered: Filtered<'_, T>) -> T {
    match filtered {
        Filtered::Now(value) => value,
        Filtered::Later(future) => future.await,
    }
}

/// Counts a stream for as long as it lives, and how it ended.
pub(super) struct StreamGuard {
    stats: Arc<HttpStats>,
    stream: Rc<StreamInfo>,
    manager: Rc<Manager>,
    end: End,
    _active: GaugeGuard,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Dropped before it was known.
    Aborted,
    Completed,
    ResetByPeer,
    ResetByUs,
    /// It goes on in another process, which will count and log its end.
    Moved,
}

impl StreamGuard {
    pub(super) fn new(manager: &Rc<Manager>, stream: &Rc<StreamInfo>) -> StreamGuard {
        let stats = &manager.stats.manager;
        manager.set_filter_chain(stream, ChainIndex::default());
        stats.downstream_rq_total.inc();
        match stream.version {
            Version::Http2 => stats.downstream_rq_http2_total.inc(),
            Version::Http10 | Version::Http11 => stats.downstream_rq_http1_total.inc(),
        }
        StreamGuard {
            stats: Arc::clone(&manager.stats),
            stream: Rc::clone(stream),
            manager: Rc::clone(manager),
            end: End::Aborted,
            _active: GaugeGuard::new(stats.downstream_rq_active),
        }
    }

    /// One that another process has counted as begun.
    pub(super) fn resumed(manager: &Rc<Manager>, stream: &Rc<StreamInfo>) -> StreamGuard {
        let stats = &manager.stats.manager;
        stats.downstream_cx_upgrades_active.inc();
        StreamGuard {
            stats: Arc::clone(&manager.stats),
            stream: Rc::clone(stream),
            manager: Rc::clone(manager),
            end: End::Aborted,
            _active: GaugeGuard::new(stats.downstream_rq_active),
        }
    }

    /// The stream goes on in another process.
    pub(super) fn moved(&mut self) {
        self.end = End::Moved;
    }

    /// To be called before the head is sent: nobody has an answer that is not counted, even if we are killed then.
    pub(super) fn response_started(&mut self, status: u16) {
        self.stats.count_response(status);
        let record = &self.stream.record;
        record.status.set(status);
        record.send_begin.set(record.start, clock::now());
        if !self.stream.is_request_complete() {
            self.stats.manager.downstream_rq_response_before_rq_complete.inc();
        }
    }

    /// The response went out whole.
    pub(super) fn completed(&mut self) {
        self.end = End::Completed;
        let record = &self.stream.record;
        record.send_end.set(record.start, clock::now());
    }

    /// The response's body ended before its end.
    pub(super) fn upstream_failed(&self, error: &BodyError) {
        let (flag, details) = match error {
            BodyError::Closed | BodyError::Io(_) | BodyError::Malformed(_) | BodyError::Unreadable { .. } => {
                (
                    ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
                    "upstream_reset_after_response_started{protocol_error}",
                )
            }
            BodyError::Reset(_) => {
                (ResponseFlags::UPSTREAM_REMOTE_RESET, "upstream_reset_after_response_started{remote_reset}")
            }
            BodyError::TimedOut | BodyError::TooLarge => return,
        };
        self.stream.set_flag(flag);
        self.stream.record.replace_details(details);
        if let Some(attempt) = self.stream.record.last_attempt() {
            attempt.set_flag(flag);
        }
    }

    pub(super) fn reset_by_peer(&mut self) {
        self.end = End::ResetByPeer;
    }

    pub(super) fn reset_by_us(&mut self) {
        self.end = End::ResetByUs;
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let stats = &self.stats.manager;
        match self.end {
            End::Completed => {
                let time = clock::now().saturating_duration_since(self.stream.record.start);
                stats.downstream_rq_time.record_milliseconds(time);
            }
            End::ResetByUs => stats.downstream_rq_tx_reset.inc(),
            // That the client has reset its stream has been noted.
            End::ResetByPeer if self.stream.flags().intersects(ResponseFlags::DOWNSTREAM_REMOTE_RESET) => {}
            End::Aborted | End::ResetByPeer => {
                self.stream.set_flag(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
                let details = self.manager.cut.get().unwrap_or("downstream_remote_disconnect");
                self.stream.record.replace_details(details);
            }
            End::Moved => {}
        }
        if self.stream.tunnel() != Tunnelling::No {
            stats.downstream_cx_upgrades_active.dec();
        }
        if self.end == End::Moved {
            self.manager.logs.stream_moved(&self.stream);
            self.manager.filters_of(&self.stream).for_each(|filter| filter.end(&self.stream));
            return;
        }
        // As Envoy counts: every stream that did not end both ways, whoever ended it.
        if self.end != End::Completed || !self.stream.is_request_complete() {
            stats.downstream_rq_rx_reset.inc();
        }
        for filter in self.manager.filters_of(&self.stream) {
            filter.end(&self.stream);
        }
        let record = &self.stream.record;
        let is_broken = record.flags().intersects(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        if let Some(connection) = &self.stream.connection.record
            && is_broken
            && self.stream.version != Version::Http2
        {
            connection.set_flag(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
        }
        record.end.set(record.start, clock::now());
        self.manager.logs.stream_ended(&self.stream);
    }
}
