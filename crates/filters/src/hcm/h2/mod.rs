//! HTTP/2 to the client: one task drives the connection, each stream has its own.
//!
//! The driver polls `h2`, starts streams and watches over the connection's limits; what became writable meanwhile goes
//! out in one go at the end of its turn. [`stream`] takes one request to its response.

mod stream;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use proxy_http::Version;
use proxy_http::h2::{
    CONNECTION_QUEUE, Http2Stats, Keepalive, MAX_ERROR_RESETS, MAX_PENDING_RESETS, MAX_REMEMBERED_RESETS,
    Queued, STREAM_QUEUE, SendQueue, Side, Wire,
};
use proxy_net::{CloseReason, Connection, ConnectionInfo, Limit, Mobility};
use proxy_runtime::{Deadlines, DrainGuard, Timer, boxed, clock};
use proxy_stats::{GaugeGuard, GaugeShare};

use super::Manager;
use super::stats::ConnectionGuard;

/// The limits of a connection.
const IDLE: usize = 0;
const DURATION: usize = 1;
/// How long a client may take to answer the ping that goes with the first GOAWAY.
const DRAIN: usize = 2;

/// A stream that its client resets before it is this old was never meant; as in Envoy.
const PREMATURE: Duration = Duration::from_secs(1);
/// As many streams as make a judgement.
const JUDGED_STREAMS: u64 = 500;

/// What a connection and its streams share.
pub(super) struct Shared {
    manager: Rc<Manager>,
    info: Rc<ConnectionInfo>,
    queue: Rc<SendQueue>,
    deadlines: Deadlines<3>,
    open: Cell<usize>,
    /// The connection is to end with its last stream.
    overdue: Cell<bool>,
    /// Streams that have ended, and those among them that their client took back at once.
    ended: Cell<u64>,
    taken_back: Cell<u64>,
}

/// Counts a stream as open on its connection until dropped.
struct OpenStream {
    shared: Rc<Shared>,
    _active: GaugeGuard,
}

struct Driver {
    connection: h2::server::Connection<Wire, Queued>,
    wire: Wire,
    shared: Rc<Shared>,
    guard: ConnectionGuard,
    /// Bytes that wait for the socket.
    to_send: GaugeShare,
    keepalive: Option<Keepalive>,
    drain: DrainGuard,
    closing: DrainGuard,
    /// A connection of HTTP/2 does not move: it ends when others do.
    mobility: Mobility,
    requests: u32,
    /// GOAWAY has been said.
    leaving: bool,
}

pub(super) async fn serve(
    manager: &Rc<Manager>,
    connection: Connection,
    guard: ConnectionGuard,
) -> Result<(), CloseReason> {
    let with = Some((&manager.settings.http2, manager.stats.http2()));
    let wire = Wire::new(connection.io, connection.prefix, Side::Server, with);
    let shared = Rc::new(Shared {
        manager: Rc::clone(manager),
        info: connection.info,
        queue: SendQueue::new(manager.stats.http2().pending_send_bytes),
        deadlines: Deadlines::new(),
        open: Cell::new(0),
        overdue: Cell::new(false),
        ended: Cell::new(0),
        taken_back: Cell::new(0),
    });
    if let Some(record) = &shared.info.record {
        record.protocol.set(Some(Version::Http2.as_str()));
    }
    shared.set_idle();
    let served = match handshake(&shared, &wire).await {
        Ok(Some(connection)) => Driver::new(connection, wire.clone(), Rc::clone(&shared), guard).run().await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if !wire.is_at_end() && !matches!(served, Err(CloseReason::Downstream(_) | CloseReason::Timeout(_))) {
        linger(manager, &wire).await;
    }
    served
}

/// Waits for the client's preface. `None`: the client went, or is to go, before it came.
async fn handshake(
    shared: &Rc<Shared>,
    wire: &Wire,
) -> Result<Option<h2::server::Connection<Wire, Queued>>, CloseReason> {
    let stats = &shared.manager.stats.manager;
    let closing = shared.manager.closing.guard();
    let mut handshake = pin!(builder(&shared.manager).handshake::<Wire, Queued>(wire.clone()));
    poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        if matches!(wire.poll_flush_out(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Ok(None));
        }
        match polled {
            Poll::Ready(Ok(connection)) => return Poll::Ready(Ok(Some(connection))),
            Poll::Ready(Err(error)) if error.is_io() => return Poll::Ready(Ok(None)),
            Poll::Ready(Err(_)) => {
                stats.downstream_cx_protocol_error.inc();
                return Poll::Ready(Err(CloseReason::DownstreamProtocol("HTTP/2 preface")));
            }
            Poll::Pending => {}
        }
        if shared.deadlines.poll_expired(cx).is_ready() {
            stats.downstream_cx_idle_timeout.inc();
            return Poll::Ready(Err(CloseReason::Timeout(Limit::Idle)));
        }
        closing.poll_draining(cx).map(|()| Ok(None))
    })
    .await
}

fn builder(manager: &Manager) -> Builder {
    let settings = &manager.settings;
    let options = &settings.http2;
    let mut builder = Builder::new();
    builder
        .initial_window_size(options.initial_stream_window)
        .initial_connection_window_size(options.initial_connection_window)
        .max_concurrent_streams(options.max_concurrent_streams)
        .header_table_size(options.hpack_table_size)
        .max_header_list_size(settings.max_request_header_bytes)
        .max_concurrent_reset_streams(MAX_REMEMBERED_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_send_buffer_size(STREAM_QUEUE.min(CONNECTION_QUEUE));
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// Lets the client read what was sent last; for a connection that has been shut down.
async fn linger(manager: &Manager, wire: &Wire) {
    let Some(limit) = manager.settings.delayed_close_timeout else { return };
    let timer = Timer::new();
    timer.set(clock::now() + limit);
    poll_fn(|cx| {
        if timer.poll_expired(cx).is_ready() {
            manager.stats.manager.downstream_cx_delayed_close_timeout.inc();
            return Poll::Ready(());
        }
        wire.poll_discard(cx)
    })
    .await;
}

impl Shared {
    fn codec_stats(&self) -> &Http2Stats {
        self.manager.stats.http2()
    }

    /// A client has reset a stream that was `age` old. Many that were young are an attack (CVE-2023-44487): the
    /// connection ends, by Envoy's measure, as soon as they are the half of 500 streams or more.
    fn note_reset(&self, age: Duration) {
        if age >= PREMATURE {
            return;
        }
        self.taken_back.set(self.taken_back.get() + 1);
        if self.is_abused() && !self.deadlines.is_set(DRAIN) {
            // Wakes the driver.
            self.deadlines.set(DRAIN, clock::now());
        }
    }

    fn is_abused(&self) -> bool {
        self.taken_back.get() * 2 >= self.ended.get().max(JUDGED_STREAMS)
    }

    fn set_idle(&self) {
        if let Some(limit) = self.manager.settings.idle_timeout {
            self.deadlines.set(IDLE, clock::now() + limit);
        }
    }
}

impl OpenStream {
    fn new(shared: &Rc<Shared>) -> OpenStream {
        shared.open.set(shared.open.get() + 1);
        shared.deadlines.clear(IDLE);
        OpenStream {
            shared: Rc::clone(shared),
            _active: GaugeGuard::new(shared.codec_stats().streams_active),
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.open.set(shared.open.get() - 1);
        shared.ended.set(shared.ended.get() + 1);
        if shared.open.get() == 0 {
            shared.set_idle();
            if shared.overdue.get() {
                shared.deadlines.set(DRAIN, clock::now());
            }
        }
    }
}

impl Driver {
    fn new(
        mut connection: h2::server::Connection<Wire, Queued>,
        wire: Wire,
        shared: Rc<Shared>,
        guard: ConnectionGuard,
    ) -> Driver {
        let manager = &shared.manager;
        if let Some(limit) = manager.settings.max_connection_duration {
            shared.deadlines.set(DURATION, clock::now() + limit);
        }
        Driver {
            keepalive: Keepalive::new(manager.settings.http2.keepalive.as_ref(), connection.ping_pong()),
            to_send: GaugeShare::new(manager.stats.manager.downstream_cx_tx_bytes_buffered),
            drain: manager.drain.guard(),
            closing: manager.closing.guard(),
            mobility: manager.handover.mobility(),
            connection,
            wire,
            shared,
            guard,
            requests: 0,
            leaving: false,
        }
    }

    async fn run(mut self) -> Result<(), CloseReason> {
        let result = poll_fn(|cx| self.poll(cx)).await;
        self.count_bytes();
        self.guard.set_active_request(self.shared.open.get() > 0);
        result
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        loop {
            let accepted = self.poll_accept(cx);
            if accepted.is_pending() {
                match self.poll_limits(cx) {
                    Poll::Ready(Some(reason)) => return Poll::Ready(Err(reason)),
                    // What this made `h2` say is still to be written.
                    Poll::Ready(None) => continue,
                    Poll::Pending => {}
                }
            }
            let flushed = self.wire.poll_flush_out(cx);
            self.count_bytes();
            if let Poll::Ready(Err(error)) = flushed {
                self.guard.closed_by_peer();
                return Poll::Ready(Err(CloseReason::Downstream(error)));
            }
            return accepted;
        }
    }

    /// Starts the streams that have arrived; ready at the connection's end.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        loop {
            let Poll::Ready(accepted) = self.connection.poll_accept(cx) else {
                self.wire.all_streams_told();
                return Poll::Pending;
            };
            match accepted {
                Some(Ok((request, respond))) => self.open_stream(request, respond),
                Some(Err(error)) => return Poll::Ready(self.ended(error)),
                None => {
                    if !self.leaving {
                        self.guard.closed_by_peer();
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn open_stream(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Queued>) {
        let shared = &self.shared;
        let open = OpenStream::new(shared);
        let metadata = self.wire.metadata(respond.stream_id());
        // Boxed: a task moves its future as a whole, 2 KiB, when it begins, when it is done and when it is dropped.
        tokio::task::spawn_local(boxed(|| {
            stream::serve(open, stream::arrive(shared, request, metadata), respond)
        }));
        self.requests = self.requests.saturating_add(1);
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.stream_opened();
        }
        if self.shared.manager.settings.max_requests_per_connection == Some(self.requests) {
            self.shared.manager.stats.manager.downstream_cx_max_requests_reached.inc();
            self.leave();
        }
    }

    fn ended(&self, error: h2::Error) -> Result<(), CloseReason> {
        if error.is_library() && error.is_go_away() {
            self.shared.manager.stats.manager.downstream_cx_protocol_error.inc();
            return Err(CloseReason::DownstreamProtocol("HTTP/2"));
        }
        if self.wire.is_flooded() {
            return Err(CloseReason::DownstreamProtocol("HTTP/2 flood"));
        }
        if let Some(what) = self.wire.broken() {
            self.shared.manager.stats.manager.downstream_cx_protocol_error.inc();
            return Err(CloseReason::DownstreamProtocol(what));
        }
        self.guard.closed_by_peer();
        match error.into_io() {
            Some(error) => Err(CloseReason::Downstream(error)),
            None => Ok(()),
        }
    }

    /// Looks after limits and drains. `Ready(None)`: `h2` was told something.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Option<CloseReason>> {
        let manager = Rc::clone(&self.shared.manager);
        let stats = &manager.stats.manager;
        if self.shared.is_abused() {
            stats.downstream_rq_too_many_premature_resets.inc();
            return Poll::Ready(Some(CloseReason::DownstreamProtocol("HTTP/2 resets")));
        }
        while let Poll::Ready(limit) = self.shared.deadlines.poll_expired(cx) {
            match limit {
                IDLE => stats.downstream_cx_idle_timeout.inc(),
                DURATION => stats.downstream_cx_max_duration_reached.inc(),
                _ => {
                    // The client takes no notice of GOAWAY; with its last stream that ends.
                    if self.shared.open.get() == 0 {
                        self.connection.abrupt_shutdown(Reason::NO_ERROR);
                        return Poll::Ready(None);
                    }
                    self.shared.overdue.set(true);
                    continue;
                }
            }
            if self.leave() {
                return Poll::Ready(None);
            }
        }
        if !self.leaving
            && (self.drain.poll_draining(cx).is_ready()
                || self.closing.poll_draining(cx).is_ready()
                || self.mobility.poll_wanted(cx).is_ready())
        {
            stats.downstream_cx_drain_close.inc();
            self.leave();
            return Poll::Ready(None);
        }
        if let Some(keepalive) = &mut self.keepalive
            && keepalive.poll_lost(cx).is_ready()
        {
            self.shared.codec_stats().keepalive_timeout.inc();
            return Poll::Ready(Some(CloseReason::Timeout(Limit::Idle)));
        }
        Poll::Pending
    }

    /// Says GOAWAY; the connection ends with its last stream. False: it was said before.
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.leaving, true) {
            return false;
        }
        self.shared.codec_stats().goaway_sent.inc();
        self.shared.deadlines.set(DRAIN, clock::now() + self.shared.manager.settings.drain_timeout);
        self.wire.leave();
        self.connection.graceful_shutdown();
        true
    }

    fn count_bytes(&self) {
        let stats = &self.shared.manager.stats.manager;
        let (read, written) = (self.wire.take_read(), self.wire.take_written());
        stats.downstream_cx_rx_bytes_total.add(read);
        stats.downstream_cx_tx_bytes_total.add(written);
        if let Some(record) = &self.shared.info.record {
            record.received.add_body(read);
            record.sent.add_body(written);
        }
        self.to_send.set(self.wire.waiting());
    }
}
