//! What is remembered of a stream for those who tell of it when it is over: access logs first of all.
//!
//! An HTTP stream has a record always, a connection only where something asks for one. Lives on one worker, so
//! everything is a `Cell`; noting something is a store. Moments are kept as distances from the start, 8 bytes each.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_config::settings::{Cluster, Metadata, ResponseFlags};
use proxy_runtime::{Instant, clock};
use smallvec::SmallVec;

use crate::address::Address;
use crate::connection::ConnectionId;

/// A stream: an HTTP request with its response, or the bytes of a connection.
pub struct StreamRecord {
    pub start: Instant,
    /// The request has arrived whole.
    pub receive_end: Moment,
    pub send_begin: Moment,
    /// The response has been handed to the system whole.
    pub send_end: Moment,
    /// Nothing happens on it any more.
    pub end: Moment,
    /// From the client.
    pub received: Transfer,
    /// To the client.
    pub sent: Transfer,
    /// 0 while there is no response.
    pub status: Cell<u16>,
    /// `%PROTOCOL%`.
    pub protocol: Cell<Option<&'static str>>,
    /// `%CONNECTION_TERMINATION_DETAILS%`.
    pub termination_details: RefCell<Option<Rc<str>>>,
    flags: Cell<ResponseFlags>,
    details: Cell<&'static str>,
    cluster: RefCell<Option<Arc<Cluster>>>,
    attempts: RefCell<SmallVec<[Rc<UpstreamAttempt>; 1]>>,
    /// Requests that were to be sent upstream, also where there was no host to try.
    pub attempt_count: Cell<u32>,
    /// The request is a health check, which access logs can leave out.
    pub health_check: Cell<bool>,
}

/// One attempt at a host.
pub struct UpstreamAttempt {
    pub host: Rc<dyn UpstreamHost>,
    pub start: Instant,
    /// When its connection was opened, which may be long before.
    pub connect: Cell<Option<(Instant, Instant)>>,
    /// There was a connection to send on.
    pub ready: Moment,
    pub send_begin: Moment,
    pub send_end: Moment,
    pub receive_begin: Moment,
    pub receive_end: Moment,
    pub end: Moment,
    /// To the host.
    pub sent: Transfer,
    /// From the host.
    pub received: Transfer,
    pub status: Cell<u16>,
    pub flags: Cell<ResponseFlags>,
    pub protocol: Cell<Option<&'static str>>,
    pub connection: Cell<Option<ConnectionId>>,
    pub local: RefCell<Option<Address>>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub failure: RefCell<Option<Box<str>>>,
}

/// A host of a cluster, as far as it is told of.
pub trait UpstreamHost {
    fn address(&self) -> &Address;
    /// Its name; may be empty.
    fn hostname(&self) -> &str;
    fn metadata(&self) -> &Metadata;
}

/// An attempt under way, where somebody wants to know of it; it ends when this is dropped.
#[derive(Default)]
pub struct AttemptGuard(Option<Rc<UpstreamAttempt>>);

/// A moment that may come, kept as nanoseconds from a start.
#[derive(Debug, Default)]
pub struct Moment(Cell<u64>);

/// Bytes that went one way.
#[derive(Debug, Default)]
pub struct Transfer {
    /// Of bodies; of a plain connection all.
    pub body: Cell<u64>,
    /// Of header lines.
    pub headers: Cell<u64>,
    /// With everything around them.
    pub wire: Cell<u64>,
}

impl StreamRecord {
    pub fn new(start: Instant) -> StreamRecord {
        StreamRecord {
            start,
            receive_end: Moment::default(),
            send_begin: Moment::default(),
            send_end: Moment::default(),
            end: Moment::default(),
            received: Transfer::default(),
            sent: Transfer::default(),
            status: Cell::new(0),
            protocol: Cell::new(None),
            termination_details: RefCell::new(None),
            flags: Cell::default(),
            details: Cell::new(""),
            cluster: RefCell::new(None),
            attempts: RefCell::default(),
            attempt_count: Cell::new(0),
            health_check: Cell::new(false),
        }
    }

    pub fn set_flag(&self, flag: ResponseFlags) {
        self.flags.set(self.flags.get().with(flag));
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

    /// Sets them whatever they were: what ends a stream is told rather than what began it.
    pub fn replace_details(&self, details: &'static str) {
        self.details.set(details);
    }

    pub fn details(&self) -> &'static str {
        self.details.get()
    }

    pub fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.borrow().clone()
    }

    pub fn set_cluster(&self, cluster: Arc<Cluster>) {
        *self.cluster.borrow_mut() = Some(cluster);
    }

    /// Notes that a host is tried.
    pub fn begin_attempt(&self, host: Rc<dyn UpstreamHost>, now: Instant) -> Rc<UpstreamAttempt> {
        let attempt = Rc::new(UpstreamAttempt::new(host, now));
        self.attempts.borrow_mut().push(Rc::clone(&attempt));
        attempt
    }

    /// The hosts tried, the one that served it last.
    pub fn attempts(&self) -> SmallVec<[Rc<UpstreamAttempt>; 1]> {
        self.attempts.borrow().clone()
    }

    /// The attempt that served it, or the last one that failed.
    pub fn last_attempt(&self) -> Option<Rc<UpstreamAttempt>> {
        self.attempts.borrow().last().cloned()
    }
}

impl UpstreamAttempt {
    fn new(host: Rc<dyn UpstreamHost>, start: Instant) -> UpstreamAttempt {
        UpstreamAttempt {
            host,
            start,
            connect: Cell::new(None),
            ready: Moment::default(),
            send_begin: Moment::default(),
            send_end: Moment::default(),
            receive_begin: Moment::default(),
            receive_end: Moment::default(),
            end: Moment::default(),
            sent: Transfer::default(),
            received: Transfer::default(),
            status: Cell::new(0),
            flags: Cell::default(),
            protocol: Cell::new(None),
            connection: Cell::new(None),
            local: RefCell::new(None),
            failure: RefCell::new(None),
        }
    }

    pub fn set_flag(&self, flag: ResponseFlags) {
        self.flags.set(self.flags.get().with(flag));
    }

    /// What an upstream log tells of: this attempt at `stream` as a stream of its own, seen from the host.
    pub fn as_stream(self: &Rc<Self>, stream: &StreamRecord) -> StreamRecord {
        let record = StreamRecord::new(self.start);
        if self.connection.get().is_some() {
            record.protocol.set(stream.protocol.get());
            for (to, from) in [(&record.received, &stream.received), (&record.sent, &stream.sent)] {
                to.headers.set(from.headers.get());
                to.wire.set(from.wire.get());
            }
        }
        record.received.body.set(self.received.body.get());
        record.sent.body.set(self.sent.body.get());
        record.status.set(self.status.get());
        record.flags.set(self.flags.get());
        if let Some(end) = self.end.at(self.start) {
            record.end.set(self.start, end);
        }
        *record.cluster.borrow_mut() = stream.cluster();
        record.attempts.borrow_mut().push(Rc::clone(self));
        record
    }
}

impl AttemptGuard {
    pub fn new(attempt: Option<Rc<UpstreamAttempt>>) -> AttemptGuard {
        AttemptGuard(attempt)
    }

    /// Lets `note` write down what happened, at this time.
    pub fn note(&self, note: impl FnOnce(&UpstreamAttempt, Instant)) {
        if let Some(attempt) = &self.0 {
            note(attempt, clock::now());
        }
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        self.note(|attempt, now| attempt.end.set_once(attempt.start, now));
    }
}

impl Moment {
    /// Notes that it is `now`; `start` is that of its record.
    pub fn set(&self, start: Instant, now: Instant) {
        // One more, since 0 says that it has not come.
        self.0.set(now.nanoseconds_since(start).saturating_add(1));
    }

    /// The same, unless it has come before.
    pub fn set_once(&self, start: Instant, now: Instant) {
        if self.0.get() == 0 {
            self.set(start, now);
        }
    }

    pub fn at(&self, start: Instant) -> Option<Instant> {
        let distance = self.0.get().checked_sub(1)?;
        Some(start + Duration::from_nanos(distance))
    }
}

impl Transfer {
    pub fn add_body(&self, bytes: u64) {
        self.body.set(self.body.get() + bytes);
    }

    /// `bytes` so far, none of them headers.
    pub fn set_all(&self, bytes: u64) {
        self.body.set(bytes);
        self.wire.set(bytes);
    }

    pub fn add_wire(&self, bytes: u64) {
        self.wire.set(self.wire.get() + bytes);
    }
}

impl std::fmt::Debug for StreamRecord {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StreamRecord").field("flags", &self.flags).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_that_has_not_come_is_none_and_one_at_the_start_is_not() {
        let start = Instant::now();
        let moment = Moment::default();
        assert_eq!(moment.at(start), None);
        moment.set(start, start);
        assert_eq!(moment.at(start), Some(start));
        moment.set_once(start, start + Duration::from_millis(1));
        assert_eq!(moment.at(start), Some(start));
    }

    #[test]
    fn the_first_details_stay_and_flags_add_up() {
        let record = StreamRecord::new(Instant::now());
        record.set_details("a");
        record.set_details("b");
        record.set_flag(ResponseFlags::NO_ROUTE_FOUND);
        record.set_flag(ResponseFlags::NO_HEALTHY_UPSTREAM);
        assert_eq!(record.details(), "a");
        assert_eq!(record.flags().short_names().collect::<Vec<_>>(), ["UH", "NR"]);
    }
}
