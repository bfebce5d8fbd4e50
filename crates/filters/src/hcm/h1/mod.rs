//! HTTP/1.1 to the client: one task per connection, one request at a time.
//!
//! Between requests a connection holds no buffer, no header block and no stream: what is kept is the socket, the
//! deadlines and this small state. Everything of a stream lives in one boxed future.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use proxy_http::body::Body;
use proxy_http::h1::body::BodyDecoder;
use proxy_http::h1::head::{
    HeadError, RequestHead, RequestRules, header_bytes, may_be_complete, parse_request,
};
use proxy_http::h1::outgoing::{Outgoing, SendError};
use proxy_http::reply::LocalReply;
use proxy_http::stream::StreamDeadlines;
use proxy_http::{Scheme, StreamInfo, Version};
use proxy_net::buffer::{ReadBuffer, SMALL};
use proxy_net::{AttemptGuard, CloseReason, Connection, ConnectionInfo, Io, Limit, Mobility, Moved, Receipt};
use proxy_runtime::{DrainGuard, Instant, boxed, clock};
use proxy_stats::GaugeShare;

use super::moving::MovedHttp;
use super::respond::StreamGuard;
use super::stats::ConnectionGuard;
use super::{HttpStats, Manager, QUIET_BEFORE_CLOSE};
use crate::relay::attempt;
use raw::Raw;
use stream::{refuse, serve_stream};

mod body;
mod raw;
mod stream;
mod tunnel;

/// The deadlines of a connection, behind those of its stream.
const IDLE: usize = 4;
const HEADERS: usize = 5;
const DURATION: usize = 6;
const QUIET: usize = 7;

/// What a connection and the body of its current request share.
struct Downstream {
    io: RefCell<Io>,
    read: RefCell<ReadBuffer>,
    decoder: RefCell<BodyDecoder>,
    deadlines: Rc<StreamDeadlines>,
    info: Rc<ConnectionInfo>,
    guard: ConnectionGuard,
    drain: DrainGuard,
    closing_idle: DrainGuard,
    mobility: Mobility,
    requests: Cell<u32>,
    /// No further request is taken after the current one.
    closing: Cell<bool>,
    counted: Cell<u64>,
    /// Bytes of a head that is not whole.
    received: GaugeShare,
    /// Bytes of a response that the socket does not take.
    to_send: GaugeShare,
}

/// What became of a connection with a stream.
enum Served {
    /// Another request may follow.
    Next,
    /// It is to be closed so that the client gets all that was sent.
    Last,
    /// Both sides have ended it.
    Ended,
    /// Another process waits for it, once it has been dropped here.
    Moved(Receipt),
}

/// Bytes of a request's head.
#[derive(Clone, Copy)]
struct HeadSize {
    whole: u64,
    /// Of its header lines; 0 where no log asks.
    headers: u64,
}

/// What came at the start of a request.
enum Start {
    Head(Box<RequestHead>, HeadSize),
    Refused(LocalReply),
    /// The client went away within a head.
    Cut,
    /// The connection is to be offered to another process.
    Wanted,
    /// Nothing more comes, or nothing more is taken.
    End,
}

pub(super) async fn serve(
    manager: &Rc<Manager>,
    connection: Connection,
    guard: ConnectionGuard,
    moved: MovedHttp,
) -> Result<(), CloseReason> {
    let mut downstream = Downstream::new(manager, connection, guard, &moved);
    loop {
        let start = downstream.next_request(manager).await?;
        let served = match start {
            Start::Head(head, size) => boxed(|| serve_stream(manager, &downstream, head, size)).await?,
            Start::Refused(reply) => {
                Box::pin(refuse(manager, &downstream, reply)).await?;
                Served::Last
            }
            Start::Cut => {
                stream::cut(manager, &downstream);
                return Ok(());
            }
            Start::Wanted => {
                downstream = Box::pin(hand_over(manager, downstream)).await.ok_or(CloseReason::Moved)?;
                continue;
            }
            Start::End => return Ok(()),
        };
        match served {
            Served::Next => {}
            served => return end(manager, downstream, served).await,
        }
    }
}

/// Goes on with a tunnel of another process.
pub(super) async fn resume(
    manager: &Rc<Manager>,
    connection: Connection,
    guard: ConnectionGuard,
    moved: MovedHttp,
    beside: Moved,
) -> Result<(), CloseReason> {
    let broken = || CloseReason::Local("a connection of another process cannot go on");
    let downstream = Downstream::new(manager, connection, guard, &moved);
    let mut upgrade = moved.upgrade.ok_or_else(broken)?;
    let mut relay = upgrade.relay.take().ok_or_else(broken)?;
    let host = manager.default_chain.router.find_host(&relay.cluster, &relay.host).ok_or_else(broken)?;
    let attempt = relay.attempt.take();
    let Moved { descriptors, told_at, .. } = beside;
    let (io, flow) = relay.resume(descriptors).ok_or_else(broken)?;
    let (info, deadlines) = (Rc::clone(&downstream.info), Rc::clone(&downstream.deadlines));
    let stream = StreamInfo::new(info, Version::Http11, upgrade.start(told_at), deadlines, manager.needs);
    let stream = Rc::new(stream);
    stream.set_cluster(Arc::clone(&host.cluster.settings));
    upgrade.restore(manager, &stream, told_at);
    let attempt = match stream.needs().record {
        true => attempt::resumed(attempt, told_at, &stream.record, Rc::clone(&host) as _, &io),
        false => AttemptGuard::default(),
    };
    let keeper = proxy_upstream::h1::tunnel::resumed(&host, downstream.info.started, attempt);
    downstream.guard.set_active_request(true);
    let served = {
        let mut guard = StreamGuard::resumed(manager, &stream);
        let raw = Raw::between(manager, &downstream, &stream, io, keeper, flow);
        Box::pin(raw.run(&mut guard)).await?
    };
    end(manager, downstream, served).await
}

/// Ends a connection as its last stream left it.
async fn end(manager: &Rc<Manager>, downstream: Rc<Downstream>, served: Served) -> Result<(), CloseReason> {
    match served {
        Served::Next | Served::Last => Box::pin(downstream.close(manager)).await,
        Served::Ended => Ok(()),
        Served::Moved(receipt) => {
            downstream.guard.moved();
            drop(downstream);
            receipt.released();
            Err(CloseReason::Moved)
        }
    }
}

/// Offers a connection that is between two requests. Gives it back if it stays; it ends soon then.
async fn hand_over(manager: &Rc<Manager>, downstream: Rc<Downstream>) -> Option<Rc<Downstream>> {
    let mut downstream = match Rc::try_unwrap(downstream) {
        Ok(downstream) => downstream,
        // A body that somebody still holds keeps it here.
        Err(shared) => {
            shared.stay();
            return Some(shared);
        }
    };
    let state = MovedHttp::new(downstream.requests.get(), downstream.deadlines.left(DURATION));
    let (io, read) = (downstream.io.get_mut(), downstream.read.get_mut());
    match manager.offer(io, read, &downstream.info, state).await {
        Some(receipt) => {
            downstream.guard.moved();
            drop(downstream);
            receipt.released();
            None
        }
        None => {
            downstream.stay();
            Some(Rc::new(downstream))
        }
    }
}

impl Downstream {
    fn new(
        manager: &Manager,
        connection: Connection,
        guard: ConnectionGuard,
        moved: &MovedHttp,
    ) -> Rc<Downstream> {
        let Connection { io, prefix, info, .. } = connection;
        let downstream = Rc::new(Downstream {
            io: RefCell::new(io),
            read: RefCell::new(prefix),
            decoder: RefCell::new(BodyDecoder::Done),
            deadlines: Rc::new(StreamDeadlines::new()),
            info,
            guard,
            drain: manager.drain.guard(),
            closing_idle: manager.closing.guard(),
            mobility: manager.handover.mobility(),
            requests: Cell::new(moved.requests),
            closing: Cell::new(false),
            counted: Cell::new(0),
            received: GaugeShare::new(manager.stats.manager.downstream_cx_rx_bytes_buffered),
            to_send: GaugeShare::new(manager.stats.manager.downstream_cx_tx_bytes_buffered),
        });
        downstream.count_read(&manager.stats, downstream.read.borrow().total());
        if let Some(limit) = moved.left().or(manager.settings.max_connection_duration) {
            downstream.deadlines.set(DURATION, clock::now() + limit);
        }
        downstream
    }

    /// Other processes do not take it: it ends with its next response, or soon.
    fn stay(&self) {
        self.mobility.stay();
        self.closing.set(true);
    }

    /// Waits for a request head; the connection idles here.
    async fn next_request(&self, manager: &Manager) -> Result<Start, CloseReason> {
        let settings = &manager.settings;
        let now = clock::now();
        if let Some(limit) = settings.idle_timeout {
            self.deadlines.set(IDLE, now + limit);
        }
        let mut seen = 0;
        let start = poll_fn(|cx| self.poll_request(cx, manager, &mut seen, now)).await;
        self.deadlines.clear(IDLE);
        self.deadlines.clear(QUIET);
        self.deadlines.clear(HEADERS);
        self.received.set(0);
        start
    }

    fn poll_request(
        &self,
        cx: &mut Context<'_>,
        manager: &Manager,
        seen: &mut usize,
        quiet_since: Instant,
    ) -> Poll<Result<Start, CloseReason>> {
        let stats = &manager.stats.manager;
        let rules = manager.request_rules();
        let limits = rules.limits;
        let mut read = self.read.borrow_mut();
        if self.mobility.is_wanted() && read.len() <= SMALL {
            return Poll::Ready(Ok(Start::Wanted));
        }
        loop {
            if !read.is_empty() {
                match parse(&read, &rules, seen, manager) {
                    Ok(Some((start, length))) => {
                        read.consume(length);
                        return Poll::Ready(Ok(start));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        if error == HeadError::Underscore {
                            manager.stats.http1().requests_rejected_with_underscores_in_headers.inc();
                        }
                        if error != HeadError::Version {
                            stats.downstream_cx_protocol_error.inc();
                        }
                        return Poll::Ready(Ok(Start::Refused(LocalReply::Downstream(error))));
                    }
                }
                if let (Some(limit), false) =
                    (manager.settings.request_headers_timeout, self.deadlines.is_set(HEADERS))
                {
                    self.deadlines.set(HEADERS, clock::now() + limit);
                }
            }
            if let Poll::Ready(index) = self.deadlines.poll_expired(cx) {
                if index == DURATION && manager.settings.safe_connection_duration {
                    // The client is told with the next response (RFC 9112, section 9.6).
                    stats.downstream_cx_max_duration_reached.inc();
                    self.closing.set(true);
                    continue;
                }
                return Poll::Ready(self.idle_expired(manager, index, read.is_empty()));
            }
            if read.is_full() {
                read.reserve(limits.bytes);
            }
            match read.poll_fill(&mut self.io.borrow_mut(), cx, false) {
                Poll::Ready(Ok(count)) if count > 0 => self.count_read(&manager.stats, read.total()),
                Poll::Ready(_) => {
                    self.guard.closed_by_peer();
                    return Poll::Ready(Ok(if read.is_empty() { Start::End } else { Start::Cut }));
                }
                Poll::Pending => {
                    if self.mobility.poll_wanted(cx).is_ready() && read.len() <= SMALL {
                        return Poll::Ready(Ok(Start::Wanted));
                    }
                    if !read.is_empty() {
                        // The request that was waited for has begun.
                        self.received.set(read.len());
                        self.deadlines.clear(QUIET);
                        return Poll::Pending;
                    }
                    if !self.mobility.stays() {
                        ready!(self.closing_idle.poll_draining(cx));
                    }
                    let quiet_until = quiet_since + QUIET_BEFORE_CLOSE;
                    if clock::now() < quiet_until {
                        self.deadlines.set(QUIET, quiet_until);
                        return Poll::Pending;
                    }
                    stats.downstream_cx_drain_close.inc();
                    return Poll::Ready(Ok(Start::End));
                }
            }
        }
    }

    fn idle_expired(&self, manager: &Manager, index: usize, empty: bool) -> Result<Start, CloseReason> {
        let stats = &manager.stats.manager;
        match index {
            IDLE => {
                stats.downstream_cx_idle_timeout.inc();
                Err(CloseReason::Timeout(Limit::Idle))
            }
            QUIET => {
                stats.downstream_cx_drain_close.inc();
                Ok(Start::End)
            }
            HEADERS => {
                stats.downstream_rq_header_timeout.inc();
                Ok(Start::Refused(LocalReply::RequestHeadersTimeout))
            }
            _ => {
                stats.downstream_cx_max_duration_reached.inc();
                self.closing.set(true);
                if empty { Ok(Start::End) } else { Err(CloseReason::Timeout(Limit::Duration)) }
            }
        }
    }

    /// `total` bytes have come so far.
    fn count_read(&self, stats: &HttpStats, total: u64) {
        self.count_received(stats, total - self.counted.replace(total));
    }

    fn count_received(&self, stats: &HttpStats, count: u64) {
        stats.manager.downstream_cx_rx_bytes_total.add(count);
        if let Some(record) = &self.info.record {
            record.received.add_body(count);
        }
    }

    /// Bytes of it that have been dealt with.
    fn consumed(&self) -> u64 {
        let read = self.read.borrow();
        read.total() - read.len() as u64
    }

    fn count_sent(&self, stats: &HttpStats, count: u64) {
        stats.manager.downstream_cx_tx_bytes_total.add(count);
        if let Some(record) = &self.info.record {
            record.sent.add_body(count);
        }
    }

    /// Ready when the client has gone away while it waits for its answer.
    fn poll_abort(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (Ok(mut read), Ok(mut io)) = (self.read.try_borrow_mut(), self.io.try_borrow_mut()) else {
            return Poll::Pending;
        };
        // A body still to come, or the next request, is read by others; a close shows up there.
        if !self.decoder.borrow().is_done() || !read.is_empty() {
            return Poll::Pending;
        }
        match ready!(read.poll_fill(&mut io, cx, false)) {
            Ok(count) if count > 0 => Poll::Pending,
            Ok(_) | Err(_) => Poll::Ready(()),
        }
    }

    /// Ends the connection so that the client gets all that was sent: stop sending, then read on for a while.
    async fn close(&self, manager: &Manager) -> Result<(), CloseReason> {
        let limit = manager.settings.delayed_close_timeout.unwrap_or(Duration::ZERO);
        self.deadlines.clear_all();
        self.deadlines.set(IDLE, clock::now() + limit);
        poll_fn(|cx| {
            let mut io = self.io.borrow_mut();
            if ready!(io.poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            loop {
                if self.deadlines.poll_expired(cx).is_ready() {
                    manager.stats.manager.downstream_cx_delayed_close_timeout.inc();
                    return Poll::Ready(());
                }
                let mut read = self.read.borrow_mut();
                read.clear();
                match ready!(read.poll_fill(&mut io, cx, false)) {
                    Ok(count) if count > 0 => {}
                    Ok(_) | Err(_) => return Poll::Ready(()),
                }
            }
        })
        .await;
        Ok(())
    }

    /// Sends what `outgoing` holds and what `body` gives, until the message is whole.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing,
        body: &mut Body,
        stream: Option<&StreamInfo>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            // The body may read from this very socket (its request still flows up), so it is not borrowed here.
            let filled = outgoing.poll_fill(cx, body, |count| {
                if let Some(stream) = stream {
                    stream.record.sent.add_body(count as u64);
                    stream.touch(clock::now());
                }
            });
            let flushed = outgoing.poll_flush(cx, &mut self.io.borrow_mut());
            self.to_send.set(outgoing.waiting());
            if let Some(stream) = stream {
                stream.record.sent.wire.set(outgoing.total());
            }
            ready!(flushed)?;
            ready!(filled);
            if outgoing.is_done() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Parses what may be the start of a request. `seen` bytes were looked at before.
fn parse(
    read: &ReadBuffer,
    rules: &RequestRules<'_>,
    seen: &mut usize,
    manager: &Manager,
) -> Result<Option<(Start, usize)>, HeadError> {
    let data = read.data();
    let before = std::mem::replace(seen, data.len());
    if before > 0 && data.len() <= rules.limits.bytes && !may_be_complete(data, before) {
        return Ok(None);
    }
    let Some((head, length)) = parse_request(data, rules)? else { return Ok(None) };
    // Only who trusts what is said of the client's connection takes its word for another scheme.
    let is_edge = manager.settings.use_remote_address && manager.settings.xff_trusted_hops == 0;
    if is_edge && head.request.scheme != Scheme::Http {
        return Err(HeadError::Scheme);
    }
    let headers = if manager.needs.record { header_bytes(&data[..length]) } else { 0 };
    Ok(Some((Start::Head(Box::new(head), HeadSize { whole: length as u64, headers }), length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let size = size_of_future(serve);
        assert!(size <= 384, "{size}");
        // The manager's own future has room for it as well.
        assert!(size_of::<MovedHttp>() <= 32, "{}", size_of::<MovedHttp>());
    }
}
