//! What is known of one stream (a request and its response), shared by filters, router and codecs.
//!
//! Lives on one worker, so everything is a `Cell` or `RefCell`. The cause of an early end is set before
//! anything is dropped, so that guards and, later, access logs find it.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use proxy_config::settings::ResponseFlags;
use proxy_config::settings::{Cluster, LogNeeds};
use proxy_net::{Address, ConnectionInfo, FilterState, StreamRecord};
use proxy_runtime::{Deadlines, Instant};

use crate::filter::{ChainIndex, FilterIndex, FilterSet};
use crate::h2::StreamMetadata;
use crate::headers::Headers;
use crate::message::{Interim, Request, Version};
use crate::route::RouteEntry;
use crate::tunnel::Tunnelling;

/// A time limit of a stream; index into its deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamTimer {
    /// `stream_idle_timeout` or the route's `idle_timeout`: no byte either way.
    Idle = 0,
    /// `request_timeout`: until the request has arrived whole.
    Request = 1,
    /// Route `timeout`: from the end of the request to the end of the response.
    Response = 2,
    /// `max_stream_duration`.
    Duration = 3,
}

impl StreamTimer {
    /// The limit whose index is `index`; `None` for those of the connection.
    pub fn from_index(index: usize) -> Option<StreamTimer> {
        Some(match index {
            0 => StreamTimer::Idle,
            1 => StreamTimer::Request,
            2 => StreamTimer::Response,
            3 => StreamTimer::Duration,
            _ => return None,
        })
    }
}

/// The limits of [`StreamTimer`] over one wheel entry, and behind them room for those of an HTTP/1 connection, which
/// has one stream at a time and shares the entry with it.
pub type StreamDeadlines = Deadlines<8>;

/// One request and its response.
pub struct StreamInfo {
    pub connection: Rc<ConnectionInfo>,
    pub version: Version,
    /// METADATA frames of the client's stream; `None` where they are not allowed.
    pub h2_metadata: Option<StreamMetadata>,
    /// What happened on it so far.
    pub record: StreamRecord,
    deadlines: Rc<StreamDeadlines>,
    /// The limit on idling that is in force, pushed back at every byte.
    idle_timeout: Cell<Option<Duration>>,
    response_timeout: Cell<Option<Duration>>,
    /// `stream_flush_timeout` or the route's `flush_timeout`.
    flush_timeout: Cell<Option<Duration>>,
    flushing: Cell<bool>,
    route: RefCell<Option<RouteEntry>>,
    route_cleared: Cell<bool>,
    moved_route: OnceCell<Box<str>>,
    requires_tls: Cell<bool>,
    filter_chain: Cell<ChainIndex>,
    /// HTTP filters that it passes by: also those of other chains.
    disabled_filters: Cell<FilterSet>,
    shared: OnceCell<Box<FilterData>>,
    /// Where the request came from, after `x-forwarded-for` has been trusted or not.
    client: Cell<Option<IpAddr>>,
    internal: Cell<bool>,
    grpc: Cell<bool>,
    tunnel: Cell<Tunnelling>,
    wants_interim: Cell<bool>,
    interim: RefCell<Option<Box<Interim>>>,
    /// Its HTTP/1 connection ends with it.
    last: Cell<bool>,
    /// The request id to put into the response, where asked for.
    response_id: RefCell<Option<Rc<[u8]>>>,
    /// What is to be kept of its messages for access logs.
    needs: LogNeeds,
    /// A filter wants the request's head kept as well.
    wants_request: Cell<bool>,
    /// A body looks at the request's head while that is on its way.
    shows_request: Cell<bool>,
    /// A body looks at the response's head.
    wants_response: Cell<bool>,
    kept: RefCell<KeptMessages>,
}

/// What filters keep of a stream, for themselves and for each other. There is none until one asks.
#[derive(Default)]
pub struct FilterData {
    locals: RefCell<Vec<(FilterIndex, Rc<dyn Any>)>>,
    /// `filter_state`, of this stream alone.
    pub state: FilterState,
    /// `dynamic_metadata`: a JSON object by namespace.
    pub metadata: RefCell<serde_json::Map<String, serde_json::Value>>,
}

/// Heads and trailers that outlive their messages, where an access log tells of them or a body looks at them.
#[derive(Default)]
pub struct KeptMessages {
    /// Without its body.
    pub request: Option<Box<Request>>,
    pub response: Option<Headers>,
    pub trailers: Option<Headers>,
    /// The headers of the response as the host sent them.
    pub upstream_response: Option<Headers>,
}

impl StreamInfo {
    pub fn new(
        connection: Rc<ConnectionInfo>,
        version: Version,
        start: Instant,
        deadlines: Rc<StreamDeadlines>,
        needs: LogNeeds,
    ) -> Self {
        let record = StreamRecord::new(start);
        record.protocol.set(Some(version.as_str()));
        StreamInfo {
            connection,
            version,
            h2_metadata: None,
            record,
            deadlines,
            idle_timeout: Cell::new(None),
            response_timeout: Cell::new(None),
            flush_timeout: Cell::new(None),
            flushing: Cell::new(false),
            route: RefCell::new(None),
            route_cleared: Cell::new(false),
            moved_route: OnceCell::new(),
            requires_tls: Cell::new(false),
            filter_chain: Cell::default(),
            disabled_filters: Cell::default(),
            shared: OnceCell::new(),
            client: Cell::new(None),
            internal: Cell::new(false),
            grpc: Cell::new(false),
            tunnel: Cell::default(),
            wants_interim: Cell::new(false),
            interim: RefCell::default(),
            last: Cell::new(false),
            response_id: RefCell::new(None),
            needs,
            wants_request: Cell::new(false),
            shows_request: Cell::new(false),
            wants_response: Cell::new(false),
            kept: RefCell::default(),
        }
    }

    pub fn deadlines(&self) -> &StreamDeadlines {
        &self.deadlines
    }

    /// Puts `timeout` in force for `timer`, counted from `now`; `None` lifts it.
    pub fn set_timeout(&self, timer: StreamTimer, timeout: Option<Duration>, now: Instant) {
        match timer {
            StreamTimer::Idle => self.idle_timeout.set(timeout),
            StreamTimer::Response => {
                self.response_timeout.set(timeout);
                if !self.is_request_complete() {
                    return;
                }
            }
            StreamTimer::Request | StreamTimer::Duration => {}
        }
        match timeout {
            Some(timeout) => self.deadlines.set(timer as usize, now + timeout),
            None => self.deadlines.clear(timer as usize),
        }
    }

    /// The limit on idling that is in force.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout.get()
    }

    /// A byte moved: idling starts anew.
    pub fn touch(&self, now: Instant) {
        if let Some(timeout) = self.idle_timeout.get() {
            self.deadlines.set(StreamTimer::Idle as usize, now + timeout);
        }
    }

    /// How long the client may take for the end of the response.
    pub fn set_flush_timeout(&self, timeout: Option<Duration>) {
        self.flush_timeout.set(timeout);
    }

    /// Whether that differs from how long it may idle.
    pub fn limits_flush(&self) -> bool {
        self.flush_timeout.get() != self.idle_timeout.get()
    }

    /// The host is done, what is left of the response waits for the client: that has a limit as a whole, in place of
    /// those on idling, on the host's time and on the stream's, as in Envoy.
    pub fn begin_flush(&self, now: Instant) {
        if self.flushing.replace(true) {
            return;
        }
        self.set_timeout(StreamTimer::Idle, None, now);
        self.deadlines.clear(StreamTimer::Response as usize);
        self.deadlines.clear(StreamTimer::Duration as usize);
        if let Some(timeout) = self.flush_timeout.get() {
            self.deadlines.set(StreamTimer::Idle as usize, now + timeout);
        }
    }

    /// Whether [`StreamTimer::Idle`] stands for the limit on the response's end.
    pub fn is_flushing(&self) -> bool {
        self.flushing.get()
    }

    /// The request has arrived whole: its own limit is met, the response's starts.
    pub fn request_completed(&self, now: Instant) {
        if self.is_request_complete() {
            return;
        }
        self.record.receive_end.set(self.record.start, now);
        self.deadlines.clear(StreamTimer::Request as usize);
        if let Some(timeout) = self.response_timeout.get() {
            self.deadlines.set(StreamTimer::Response as usize, now + timeout);
        }
    }

    /// The stream has ended: lifts its limits.
    pub fn clear_timeouts(&self) {
        (0..4).for_each(|timer| self.deadlines.clear(timer));
    }

    pub fn is_request_complete(&self) -> bool {
        self.request_completed_at().is_some()
    }

    /// When the request had arrived whole.
    pub fn request_completed_at(&self) -> Option<Instant> {
        self.record.receive_end.at(self.record.start)
    }

    pub fn set_flag(&self, flag: ResponseFlags) {
        self.record.set_flag(flag);
    }

    pub fn flags(&self) -> ResponseFlags {
        self.record.flags()
    }

    /// `%RESPONSE_CODE_DETAILS%`; the first one set stays.
    pub fn set_details(&self, details: &'static str) {
        self.record.set_details(details);
    }

    pub fn details(&self) -> &'static str {
        self.record.details()
    }

    pub fn route(&self) -> Option<RouteEntry> {
        self.route.borrow().clone()
    }

    pub fn set_route(&self, route: Option<RouteEntry>) {
        *self.route.borrow_mut() = route;
    }

    /// Has the route found anew before the next filter, because what it depends on has changed.
    pub fn clear_route(&self) {
        self.route_cleared.set(true);
    }

    /// Whether the route is to be found anew; asked once.
    pub fn take_route_cleared(&self) -> bool {
        self.route_cleared.replace(false)
    }

    /// The chain of filters that serves it.
    pub fn filter_chain(&self) -> ChainIndex {
        self.filter_chain.get()
    }

    pub fn set_filter_chain(&self, chain: ChainIndex) {
        self.filter_chain.set(chain);
    }

    pub fn disabled_filters(&self) -> FilterSet {
        self.disabled_filters.get()
    }

    pub fn set_disabled_filters(&self, filters: FilterSet) {
        self.disabled_filters.set(filters);
    }

    /// Keeps what a filter knows of this stream, in place of what it kept before.
    pub fn set_filter_local<T: 'static>(&self, filter: FilterIndex, value: T) {
        let mut locals = self.filter_data().locals.borrow_mut();
        locals.retain(|(index, _)| *index != filter);
        locals.push((filter, Rc::new(value)));
    }

    /// What a filter has kept.
    pub fn filter_local<T: 'static>(&self, filter: FilterIndex) -> Option<Rc<T>> {
        let locals = self.shared.get()?.locals.borrow();
        let (_, value) = locals.iter().find(|(index, _)| *index == filter)?;
        Rc::clone(value).downcast().ok()
    }

    /// Gives `use_it` the dynamic metadata; false where no filter has kept anything.
    pub fn with_metadata(
        &self,
        use_it: impl FnOnce(&serde_json::Map<String, serde_json::Value>) -> bool,
    ) -> bool {
        self.shared.get().is_some_and(|data| use_it(&data.metadata.borrow()))
    }

    /// An object of the filter state: the stream's, or else its connection's.
    pub fn filter_state(&self, key: &str) -> Option<Rc<dyn Any>> {
        let own = self.shared.get().and_then(|data| data.state.find(key));
        own.or_else(|| self.connection.filter_state.find(key))
    }

    /// As [`StreamInfo::filter_data`], if there is some.
    pub fn filter_data_if_any(&self) -> Option<&FilterData> {
        self.shared.get().map(|data| &**data)
    }

    /// Filter state and dynamic metadata.
    pub fn filter_data(&self) -> &FilterData {
        self.shared.get_or_init(Box::default)
    }

    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.record.cluster()
    }

    pub fn set_cluster(&self, cluster: Arc<Cluster>) {
        self.record.set_cluster(cluster);
    }

    /// Says that the virtual host wants TLS and the request came without: it has no route, and is sent to `https`.
    pub fn set_requires_tls(&self, requires: bool) {
        self.requires_tls.set(requires);
    }

    /// See [`StreamInfo::set_requires_tls`].
    pub fn requires_tls(&self) -> bool {
        self.requires_tls.get()
    }

    /// What access logs need of its messages.
    pub fn needs(&self) -> LogNeeds {
        self.needs
    }

    /// Has the request's head kept for when its response comes.
    pub fn want_request(&self) {
        self.wants_request.set(true);
    }

    /// Whether somebody wants the request's head.
    pub fn keeps_request(&self) -> bool {
        self.needs.request || self.wants_request.get()
    }

    /// Keeps the head of a request that is not needed elsewhere any more.
    pub fn keep_request(&self, request: Request) {
        self.kept.borrow_mut().request = Some(Box::new(request));
    }

    /// Has the request's head at hand as [`KeptMessages::request`] while the request is on its way, for a body that looks
    /// at it: as it is now, until the router has made it ready for a host.
    pub fn show_request(&self, request: &Request) {
        self.shows_request.set(true);
        self.keep_request(request.copy_head());
    }

    /// Whether a body looks at the request's head.
    pub fn shows_request(&self) -> bool {
        self.shows_request.get()
    }

    /// Has the response's headers at hand as [`KeptMessages::response`], for a body that looks at them: as they are now,
    /// until they are sent.
    pub fn show_response(&self, headers: &Headers) {
        self.wants_response.set(true);
        self.kept.borrow_mut().response = Some(headers.copy());
    }

    /// Whether somebody wants the headers of the response that was sent.
    pub fn keeps_response(&self) -> bool {
        self.needs.response || self.wants_response.get()
    }

    /// Keeps the headers of the response that was sent.
    pub fn keep_response(&self, headers: Headers) {
        if self.keeps_response() {
            self.kept.borrow_mut().response = Some(headers);
        }
    }

    /// The name of the route that it had in another process, if it comes from one.
    pub fn moved_route(&self) -> Option<&str> {
        self.moved_route.get().map(|name| &**name)
    }

    /// See [`StreamInfo::moved_route`]; to be set once.
    pub fn set_moved_route(&self, name: &str) {
        let _ = self.moved_route.set(name.into());
    }

    /// What was kept; for the stream's end.
    pub fn kept(&self) -> RefMut<'_, KeptMessages> {
        self.kept.borrow_mut()
    }

    /// The address that counts as the client's, where it is not that of the connection.
    pub fn remote(&self) -> Option<Address> {
        let client = self.client.get()?;
        let peer = self.connection.remote.ip().map(|peer| peer.ip());
        // Envoy knows no port of a client behind another proxy.
        (peer != Some(client)).then(|| Address::Ip(SocketAddr::new(client, 0)))
    }

    pub fn client(&self) -> Option<IpAddr> {
        self.client.get()
    }

    /// The request is a gRPC call: local replies are told in its own terms.
    pub fn is_grpc(&self) -> bool {
        self.grpc.get()
    }

    /// What came is not to be trusted further: its HTTP/1 connection ends with the answer.
    pub fn set_last(&self) {
        self.last.set(true);
    }

    pub fn is_last(&self) -> bool {
        self.last.get()
    }

    pub fn set_grpc(&self, grpc: bool) {
        self.grpc.set(grpc);
    }

    /// Whether it is to become, or is, a stream of bytes both ways.
    pub fn tunnel(&self) -> Tunnelling {
        self.tunnel.get()
    }

    /// Its request may become a tunnel.
    pub fn ask_tunnel(&self) {
        self.tunnel.set(Tunnelling::Asked);
    }

    /// The host has agreed: from now on what the client sends is no part of a request. What limits requests and
    /// their answers is lifted; idling and the whole stream stay limited.
    pub fn open_tunnel(&self) {
        self.tunnel.set(Tunnelling::Open);
        self.response_timeout.set(None);
        self.deadlines.clear(StreamTimer::Request as usize);
        self.deadlines.clear(StreamTimer::Response as usize);
    }

    /// Has the next response ahead of the final one passed on (`proxy_100_continue`).
    pub fn want_interim(&self) {
        self.wants_interim.set(true);
    }

    /// Such a response has come. Only the first one is passed on, as in Envoy, however many a host sends.
    pub fn offer_interim(&self, interim: Box<Interim>) {
        if self.wants_interim.replace(false) {
            *self.interim.borrow_mut() = Some(interim);
        }
    }

    /// What is to be passed on now.
    pub fn take_interim(&self) -> Option<Box<Interim>> {
        self.interim.borrow_mut().take()
    }

    /// The request came from an internal address (`x-envoy-internal`).
    pub fn is_internal(&self) -> bool {
        self.internal.get()
    }

    pub fn set_internal(&self, internal: bool) {
        self.internal.set(internal);
    }

    /// `x-request-id` for the response.
    pub fn response_id(&self) -> Option<Rc<[u8]>> {
        self.response_id.borrow().clone()
    }

    pub fn set_response_id(&self, id: Rc<[u8]>) {
        *self.response_id.borrow_mut() = Some(id);
    }

    pub fn set_client(&self, client: Option<IpAddr>) {
        self.client.set(client);
    }
}
