//! What is known of one stream (a request and its response), shared by filters, router and codecs.
//!
//! Lives on one worker, so everything is a `Cell` or `RefCell`. The cause of an early end is set before
//! anything is dropped, so that guards and, later, access logs find it.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_net::ConnectionInfo;
use proxy_runtime::Deadlines;

use crate::message::Version;
use crate::route::RouteEntry;

/// Response flags of Envoy's access log that proxyd can set so far, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ResponseFlags(u32);

macro_rules! response_flags {
    ($($name:ident = $bit:literal, $short:literal;)*) => {
        impl ResponseFlags {
            $(pub const $name: ResponseFlags = ResponseFlags(1 << $bit);)*
            /// The short forms that Envoy prints, in its order.
            pub fn short_names(self) -> impl Iterator<Item = &'static str> {
                [$((ResponseFlags::$name, $short),)*]
                    .into_iter()
                    .filter(move |(flag, _)| self.contains(*flag))
                    .map(|(_, short)| short)
            }
        }
    };
}

response_flags! {
    NO_HEALTHY_UPSTREAM = 0, "UH";
    UPSTREAM_CONNECTION_FAILURE = 1, "UF";
    UPSTREAM_OVERFLOW = 2, "UO";
    NO_ROUTE_FOUND = 3, "NR";
    DOWNSTREAM_CONNECTION_TERMINATION = 4, "DC";
    UPSTREAM_REQUEST_TIMEOUT = 5, "UT";
    UPSTREAM_REMOTE_RESET = 6, "UR";
    UPSTREAM_CONNECTION_TERMINATION = 7, "UC";
    STREAM_IDLE_TIMEOUT = 8, "SI";
    DOWNSTREAM_PROTOCOL_ERROR = 9, "DPE";
    UPSTREAM_PROTOCOL_ERROR = 10, "UPE";
    UPSTREAM_MAX_STREAM_DURATION = 11, "UMSDR";
    NO_CLUSTER_FOUND = 12, "NC";
    LOCAL_RESET = 13, "LR";
    DURATION_TIMEOUT = 14, "DT";
}

impl ResponseFlags {
    pub fn contains(self, flag: ResponseFlags) -> bool {
        self.0 & flag.0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

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
    pub start: Instant,
    deadlines: Rc<StreamDeadlines>,
    /// The limit on idling that is in force, pushed back at every byte.
    idle_timeout: Cell<Option<Duration>>,
    response_timeout: Cell<Option<Duration>>,
    request_complete: Cell<Option<Instant>>,
    flags: Cell<ResponseFlags>,
    details: Cell<&'static str>,
    route: RefCell<Option<RouteEntry>>,
    cluster: RefCell<Option<Arc<str>>>,
    /// Where the request came from, after `x-forwarded-for` has been trusted or not.
    client: Cell<Option<IpAddr>>,
    internal: Cell<bool>,
    grpc: Cell<bool>,
    /// The request id to put into the response, where asked for.
    response_id: RefCell<Option<Rc<[u8]>>>,
    pub bytes_received: Cell<u64>,
    pub bytes_sent: Cell<u64>,
}

impl StreamInfo {
    pub fn new(
        connection: Rc<ConnectionInfo>,
        version: Version,
        start: Instant,
        deadlines: Rc<StreamDeadlines>,
    ) -> Self {
        StreamInfo {
            connection,
            version,
            start,
            deadlines,
            idle_timeout: Cell::new(None),
            response_timeout: Cell::new(None),
            request_complete: Cell::new(None),
            flags: Cell::default(),
            details: Cell::new(""),
            route: RefCell::new(None),
            cluster: RefCell::new(None),
            client: Cell::new(None),
            internal: Cell::new(false),
            grpc: Cell::new(false),
            response_id: RefCell::new(None),
            bytes_received: Cell::new(0),
            bytes_sent: Cell::new(0),
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

    /// A byte moved: idling starts anew.
    pub fn touch(&self, now: Instant) {
        if let Some(timeout) = self.idle_timeout.get() {
            self.deadlines.set(StreamTimer::Idle as usize, now + timeout);
        }
    }

    /// The request has arrived whole: its own limit is met, the response's starts.
    pub fn request_completed(&self, now: Instant) {
        if self.is_request_complete() {
            return;
        }
        self.request_complete.set(Some(now));
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
        self.request_complete.get().is_some()
    }

    /// When the request had arrived whole.
    pub fn request_completed_at(&self) -> Option<Instant> {
        self.request_complete.get()
    }

    pub fn set_flag(&self, flag: ResponseFlags) {
        self.flags.set(ResponseFlags(self.flags.get().0 | flag.0));
    }

    pub fn flags(&self) -> ResponseFlags {
        self.flags.get()
    }

    /// `%RESPONSE_CODE_DETAILS%`; the first one set stays.
    pub fn set_details(&self, details: &'static str) {
        if self.details.get().is_empty() {
            self.details.set(details);
        }
    }

    pub fn details(&self) -> &'static str {
        self.details.get()
    }

    pub fn route(&self) -> Option<RouteEntry> {
        self.route.borrow().clone()
    }

    pub fn set_route(&self, route: Option<RouteEntry>) {
        *self.route.borrow_mut() = route;
    }

    pub fn cluster(&self) -> Option<Arc<str>> {
        self.cluster.borrow().clone()
    }

    pub fn set_cluster(&self, name: Arc<str>) {
        *self.cluster.borrow_mut() = Some(name);
    }

    pub fn client(&self) -> Option<IpAddr> {
        self.client.get()
    }

    /// The request is a gRPC call: local replies are told in its own terms.
    pub fn is_grpc(&self) -> bool {
        self.grpc.get()
    }

    pub fn set_grpc(&self, grpc: bool) {
        self.grpc.set(grpc);
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
