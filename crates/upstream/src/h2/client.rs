//! One HTTP/2 connection to a host, and the task that drives it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::client::{Builder, Connection, SendRequest};
use proxy_config::settings::Http2Options;
use proxy_http::h2::{
    CONNECTION_QUEUE, Keepalive, MAX_ERROR_RESETS, MAX_PENDING_RESETS, MAX_REMEMBERED_RESETS, Queued,
    STREAM_QUEUE, SendQueue, Side, Wire,
};
use proxy_net::Io;
use proxy_net::buffer::ReadBuffer;
use proxy_runtime::{Deadlines, Timer, clock};
use proxy_stats::GaugeGuard;

use crate::cluster::WorkerHost;
use crate::connect::{ConnectError, ConnectionFacts, ConnectionGuard, DestroyedBy};

/// The limits of a connection.
const IDLE: usize = 0;
const DURATION: usize = 1;

/// Two frames without content. Bytes.
const PREFACE: u64 = 18;

/// An open connection, as those see it who want to open a stream.
pub struct Client {
    pub(super) host: Rc<WorkerHost>,
    /// `None`: no further stream is opened, and the connection ends with its last one.
    send: RefCell<Option<SendRequest<Queued>>>,
    pub(super) queue: Rc<SendQueue>,
    pub(super) wire: Wire,
    keepalive: RefCell<Option<Keepalive>>,
    deadlines: Deadlines<2>,
    streams: Cell<u32>,
    requests: Cell<u32>,
    /// Bytes that have come from the host.
    heard: Cell<u64>,
    /// Those who wait to hear whether it knows extended CONNECT.
    waiting: RefCell<Vec<Waker>>,
    max_streams: u32,
    facts: ConnectionFacts,
}

/// Counts a stream as open on its connection until dropped.
pub(super) struct OpenStream {
    pub(super) client: Rc<Client>,
    _active: GaugeGuard,
}

/// Drives a connection to its end.
pub(super) struct Driver {
    client: Rc<Client>,
    connection: Connection<Wire, Queued>,
    guard: ConnectionGuard,
    /// Every stream had its end, even if those who wait for it have not looked yet.
    streams_ended: bool,
}

/// Speaks HTTP/2 on a fresh connection. The peer's preface is not waited for.
pub(super) async fn open(
    io: Io,
    guard: ConnectionGuard,
    options: &Http2Options,
) -> Result<Driver, ConnectError> {
    let host = Rc::clone(&guard.host);
    let settings = &host.cluster.settings;
    let with = Some((options, host.cluster.http2_stats()));
    let wire = Wire::new(io, ReadBuffer::new(), Side::Client, with);
    let mut builder = Builder::new();
    builder
        .initial_window_size(options.initial_stream_window)
        .initial_connection_window_size(options.initial_connection_window)
        .header_table_size(options.hpack_table_size)
        .max_header_list_size(settings.max_response_header_bytes)
        .max_concurrent_reset_streams(MAX_REMEMBERED_RESETS)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_send_buffer_size(STREAM_QUEUE.min(CONNECTION_QUEUE))
        .enable_push(false);
    let (send, mut connection) = builder.handshake::<_, Queued>(wire.clone()).await.map_err(|error| {
        ConnectError::Failed(error.into_io().unwrap_or_else(|| std::io::ErrorKind::InvalidData.into()))
    })?;
    let deadlines = Deadlines::new();
    if let Some(limit) = settings.max_connection_duration {
        deadlines.set(DURATION, clock::now() + limit);
    }
    let client = Rc::new(Client {
        facts: (*guard.facts).clone(),
        send: RefCell::new(Some(send)),
        queue: SendQueue::new(host.cluster.http2_stats().pending_send_bytes),
        wire: wire.clone(),
        keepalive: RefCell::new(Keepalive::new(options.keepalive.as_ref(), connection.ping_pong())),
        deadlines,
        streams: Cell::new(0),
        requests: Cell::new(0),
        heard: Cell::new(0),
        waiting: RefCell::default(),
        max_streams: options.max_concurrent_streams,
        host,
    });
    client.set_idle();
    Ok(Driver { client, connection, guard, streams_ended: false })
}

impl Client {
    pub(super) fn is_open(&self) -> bool {
        self.send.borrow().is_some()
    }

    pub(super) fn streams(&self) -> u32 {
        self.streams.get()
    }

    /// Whether the peer takes another stream at once. One that has said GOAWAY takes none, which ends its use.
    pub(super) fn has_room(&self) -> bool {
        let mut send = self.send.borrow_mut();
        let Some(open) = &mut *send else { return false };
        // Asked without a task to wake: who finds no room does not wait here.
        if let Poll::Ready(Err(_)) = open.poll_ready(&mut Context::from_waker(Waker::noop())) {
            let closed = send.take();
            drop(send);
            drop(closed);
            return false;
        }
        let limit =
            usize::try_from(self.max_streams).unwrap_or(usize::MAX).min(open.current_max_send_streams());
        (self.streams.get() as usize) < limit
    }

    /// Whether requests were sent on it before.
    pub fn is_used(&self) -> bool {
        self.requests.get() > 0
    }

    /// Whether the host takes extended CONNECT (RFC 8441, section 3): it must have said so first. Waits for what it says.
    pub async fn takes_extended_connect(&self) -> bool {
        let timer = Timer::new();
        timer.set(clock::now() + self.host.cluster.settings.connect_timeout);
        poll_fn(|cx| {
            let taken = self.send.borrow().as_ref().map(SendRequest::is_extended_connect_protocol_enabled);
            // A host begins with its settings, and goes on with its consent to ours.
            if taken != Some(false) || self.heard.get() >= PREFACE {
                return Poll::Ready(taken == Some(true));
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            timer.poll_expired(cx).map(|()| false)
        })
        .await
    }

    fn wake_waiting(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(super) fn facts(&self) -> &ConnectionFacts {
        &self.facts
    }

    /// Opens no further stream; with the last one the connection ends.
    pub(super) fn leave(&self) {
        let send = self.send.borrow_mut().take();
        drop(send);
        self.wake_waiting();
    }

    /// A handle to open one stream with; `None` when that is over.
    pub(super) fn begin(self: &Rc<Self>) -> Option<(SendRequest<Queued>, OpenStream)> {
        // A handle of its own: the shared one refuses while a stream opened with it still waits for the peer.
        let send = self.send.borrow().clone()?;
        let stats = &self.host.cluster.stats;
        self.streams.set(self.streams.get() + 1);
        self.requests.set(self.requests.get().saturating_add(1));
        self.deadlines.clear(IDLE);
        if let Some(keepalive) = &mut *self.keepalive.borrow_mut() {
            keepalive.stream_opened();
        }
        if self.host.cluster.settings.max_requests_per_connection == Some(self.requests.get()) {
            stats.upstream_cx_max_requests.inc();
            self.leave();
        }
        let active = GaugeGuard::new(self.host.cluster.http2_stats().streams_active);
        Some((send, OpenStream { client: Rc::clone(self), _active: active }))
    }

    fn set_idle(&self) {
        if let Some(limit) = self.host.cluster.settings.idle_timeout {
            self.deadlines.set(IDLE, clock::now() + limit);
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let client = &self.client;
        client.streams.set(client.streams.get() - 1);
        if client.host.retired.get() {
            client.leave();
        } else if client.streams.get() == 0 {
            client.set_idle();
        }
    }
}

impl Driver {
    pub(super) fn client(&self) -> &Rc<Client> {
        &self.client
    }

    /// Runs until the connection is closed.
    pub(super) async fn run(mut self) {
        if self.client.host.retired.get() && self.client.streams.get() == 0 {
            // Those who waited for it still open their streams; without any it ends with the next tick.
            self.client.deadlines.set(IDLE, clock::now());
        }
        let by = poll_fn(|cx| self.poll(cx)).await;
        self.count_bytes();
        self.guard.set_destroyed_by(by);
        self.guard.set_active_request(!self.streams_ended && self.client.streams.get() > 0);
        self.guard.count_requests(self.client.requests.get());
        self.client.leave();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<DestroyedBy> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        if polled.is_pending()
            && let Poll::Ready(by) = self.poll_limits(cx)
        {
            return Poll::Ready(by);
        }
        let flushed = self.client.wire.poll_flush_out(cx);
        self.count_bytes();
        if matches!(flushed, Poll::Ready(Err(_))) {
            return Poll::Ready(DestroyedBy::Peer);
        }
        let stats = &self.client.host.cluster.stats;
        polled.map(|ended| match ended {
            Err(error) if error.is_library() || is_wire_error(&error) => {
                stats.upstream_cx_protocol_error.inc();
                DestroyedBy::Us
            }
            Err(error) => {
                if error.is_go_away() {
                    stats.upstream_cx_close_notify.inc();
                }
                DestroyedBy::Peer
            }
            Ok(()) if self.client.wire.is_at_end() => DestroyedBy::Peer,
            Ok(()) => {
                // It ends by itself only after the host has said GOAWAY.
                if self.client.is_open() {
                    stats.upstream_cx_close_notify.inc();
                }
                self.streams_ended = true;
                DestroyedBy::Us
            }
        })
    }

    /// Ready when the connection is not worth ending in good order.
    fn poll_limits(&self, cx: &mut Context<'_>) -> Poll<DestroyedBy> {
        let client = &self.client;
        let stats = &client.host.cluster.stats;
        while let Poll::Ready(limit) = client.deadlines.poll_expired(cx) {
            match limit {
                IDLE if client.streams.get() > 0 => continue,
                IDLE => stats.upstream_cx_idle_timeout.inc(),
                _ => stats.upstream_cx_max_duration_reached.inc(),
            }
            // `h2` hears of it and wakes this task.
            client.leave();
        }
        if let Some(keepalive) = &mut *client.keepalive.borrow_mut()
            && keepalive.poll_lost(cx).is_ready()
        {
            client.host.cluster.http2_stats().keepalive_timeout.inc();
            return Poll::Ready(DestroyedBy::Us);
        }
        Poll::Pending
    }

    fn count_bytes(&self) {
        let stats = &self.client.host.cluster.stats;
        let read = self.client.wire.take_read();
        if read > 0 {
            self.client.heard.set(self.client.heard.get() + read);
            self.client.wake_waiting();
        }
        stats.upstream_cx_rx_bytes_total.add(read);
        stats.upstream_cx_tx_bytes_total.add(self.client.wire.take_written());
        self.guard.set_to_send(self.client.wire.waiting());
    }
}

/// Whether the wire refused what the host sent.
pub(super) fn is_wire_error(error: &h2::Error) -> bool {
    error.get_io().is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData)
}
