//! `tunneling_config`: the stream goes through a proxy upstream, by CONNECT or POST.
//!
//! CONNECT over HTTP/1.1 leaves two sockets and is a [`Session`] like others. Everything else is a [`TunnelSession`]: the
//! client's bytes are the body of a request, and the body of its response is what comes back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use proxy_config::settings::{HeaderValue, LogType, Tunneling};
use proxy_http::access_log::write_text;
use proxy_http::body::{Body, BodyError, BodyStream, Frame};
use proxy_http::h1::body::BodyDecoder;
use proxy_http::h1::head::Framing;
use proxy_http::h1::outgoing::{Outgoing, SendError};
use proxy_http::mutation::mutate_request;
use proxy_http::{Headers, Method, Request, Tunnel, Version};
use proxy_net::buffer::ReadBuffer;
use proxy_net::{CloseReason, Connection, Io, Limit, StreamRecord};
use proxy_runtime::{Deadlines, Instant, Timer, clock};
use proxy_stats::GaugeShare;
use proxy_upstream::Cluster;
use proxy_upstream::tcp::TcpConnectError;
use proxy_upstream::tunnel::OpenTunnel;

use super::log::LoggedConnection;
use super::session::{Session, Told};
use super::stats::TcpStats;
use super::{Opened, TcpProxy};
use crate::relay::{Counts, Direction, Flow, Relay, Stage};

/// The client's side, which the body of a request reads from.
struct Client {
    io: RefCell<Io>,
    read: RefCell<ReadBuffer>,
    /// The proxy upstream has agreed: nothing is read before that.
    open: Cell<bool>,
}

/// What the client sends, as the body of a request.
struct ClientBody {
    client: Rc<Client>,
    decoder: BodyDecoder,
}

/// A stream that stays a request and its response.
pub(super) struct TunnelSession {
    client: Rc<Client>,
    outgoing: Outgoing,
    body: Body,
    /// `None`: the host has all that the client sent.
    tunnel: Option<Box<dyn Tunnel>>,
    down: Down,
    /// Bytes read from the client and written to it.
    counted: (u64, u64),
    deadlines: Deadlines<2>,
    idle_timeout: Option<Duration>,
    stats: Arc<TcpStats>,
    to_send: GaugeShare,
    record: Option<Rc<StreamRecord>>,
}

/// How far the way to the client is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Down {
    Open,
    /// All has been written; the end has not been told.
    Written,
    Ended,
}

const IDLE: usize = 0;
const DURATION: usize = 1;
/// Bytes read from a client at a time at most.
const READ_LIMIT: u32 = 1 << 20;

impl TcpProxy {
    pub(super) async fn open_tunnel(
        &self,
        connection: Connection,
        cluster: &Cluster,
        tunneling: &Tunneling,
        ends: Option<Instant>,
        logged: &LoggedConnection<'_>,
    ) -> Result<Opened, CloseReason> {
        let Connection { io, prefix, info, .. } = connection;
        let client =
            Rc::new(Client { io: RefCell::new(io), read: RefCell::new(prefix), open: Cell::new(false) });
        let record = info.record.as_deref();
        let request = || {
            let unrecorded;
            let record = match record {
                Some(record) => record,
                None => {
                    unrecorded = StreamRecord::new(info.started);
                    &unrecorded
                }
            };
            let mut request = head(tunneling, logged, record);
            let decoder = BodyDecoder::UntilClose;
            request.body = Body::Stream(Box::new(ClientBody { client: Rc::clone(&client), decoder }));
            request
        };
        // A proxy that never answers is a stream on which nothing moves.
        let patience = Timer::new();
        if let Some(limit) = self.settings.idle_timeout {
            patience.set(clock::now() + limit);
        }
        let opening = async {
            tokio::select! {
                biased;
                open = cluster.open_tunnel(self.settings.max_connect_attempts, record, &request) => open,
                () = patience.expired() => {
                    self.stats.counters.idle_timeout.inc();
                    Err(TcpConnectError::NoTunnel)
                }
            }
        };
        let open = self.within(ends, opening, logged).await?;
        logged.connected();
        client.open.set(true);
        let (stats, idle) = (Arc::clone(&self.stats), self.settings.idle_timeout);
        let (body, tunnel) = match open {
            OpenTunnel::Socket { io, read, guard, attempt } => {
                // Nobody else has it: the request is over.
                let Ok(client) = Rc::try_unwrap(client) else { return Err(CloseReason::Local("tunnel")) };
                let told = info.record.clone().map(|record| Box::new(Told { record, attempt }));
                let up = Direction::new(client.read.into_inner());
                // The exchange has counted it.
                let down = Direction::between(read, None, Stage::Open, Counts::default());
                let relay = Relay::between(client.io.into_inner(), io, Flow::between(up, down));
                let relay = self.limited(relay, &guard);
                let session = Session::new(relay, guard, stats, idle, ends, told);
                return Ok(Opened::Session(Box::new(session)));
            }
            OpenTunnel::Halves { body, tunnel } => (body, tunnel),
        };
        let mut outgoing = Outgoing::default();
        outgoing.start(Framing::UntilClose, false, |_| ());
        let deadlines = Deadlines::new();
        if let Some(ends) = ends {
            deadlines.set(DURATION, ends);
        }
        let session = TunnelSession {
            client,
            outgoing,
            body,
            tunnel,
            down: Down::Open,
            counted: (0, 0),
            deadlines,
            idle_timeout: idle,
            to_send: GaugeShare::new(stats.counters.downstream_cx_tx_bytes_buffered),
            stats,
            record: info.record.clone(),
        };
        session.restart_idle();
        Ok(Opened::Tunnel(Box::new(session)))
    }
}

/// The request for a tunnel.
fn head(tunneling: &Tunneling, logged: &LoggedConnection<'_>, record: &StreamRecord) -> Request {
    let source = || logged.context(record, LogType::NotSet);
    let mut host = Vec::new();
    match &tunneling.hostname {
        HeaderValue::Constant(value) => host.extend_from_slice(value),
        HeaderValue::Format(format) => {
            write_text(format, false, &source(), &mut host);
            host.retain(u8::is_ascii_graphic);
        }
    }
    if host.is_empty() {
        host.push(b'-');
    }
    let (method, path) = match &tunneling.post_path {
        Some(path) => (Method::Post, &path[..]),
        None => (Method::Connect, &b""[..]),
    };
    let mut request = Request::new(method, Version::Http11, &host, path, Headers::new());
    mutate_request(&tunneling.headers, &mut request, &source);
    request
}

impl BodyStream for ClientBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let client = &self.client;
        if !client.open.get() {
            // Who opens it polls again.
            return Poll::Pending;
        }
        let (mut io, mut read) = (client.io.borrow_mut(), client.read.borrow_mut());
        self.decoder.poll_frame(cx, &mut io, &mut read, READ_LIMIT)
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

impl TunnelSession {
    /// Relays until both ways have ended, one fails or a deadline passes.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        let down = self.poll_down(cx);
        let up = self.poll_up(cx);
        self.count();
        down?;
        up?;
        if self.down == Down::Ended && self.tunnel.is_none() {
            return Poll::Ready(Ok(()));
        }
        let counters = &self.stats.counters;
        Poll::Ready(Err(CloseReason::Timeout(match ready!(self.deadlines.poll_expired(cx)) {
            IDLE => {
                counters.idle_timeout.inc();
                Limit::Idle
            }
            _ => {
                counters.max_downstream_connection_duration.inc();
                Limit::Duration
            }
        })))
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        while self.down == Down::Open {
            let filled = self.outgoing.poll_fill(cx, &mut self.body, |_| ());
            let flushed = self.outgoing.poll_flush(cx, &mut self.client.io.borrow_mut());
            match flushed {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(SendError::Io(error))) => return Err(CloseReason::Downstream(error)),
                Poll::Ready(Err(SendError::Body(error))) => {
                    // What breaks off must not look whole; it fails only if the client is gone as well.
                    let _ = self.client.io.borrow().reset_on_close();
                    return Err(CloseReason::Upstream(cause(error)));
                }
            }
            if self.outgoing.is_done() {
                self.down = Down::Written;
            } else if filled.is_pending() {
                return Ok(());
            }
        }
        if self.down == Down::Written
            && let Poll::Ready(told) = self.client.io.borrow_mut().poll_shutdown(cx)
        {
            told.map_err(CloseReason::Downstream)?;
            self.down = Down::Ended;
        }
        Ok(())
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        if let Some(tunnel) = &mut self.tunnel
            && let Poll::Ready(sent) = tunnel.poll_upload(cx)
        {
            self.tunnel = None;
            sent.map_err(|error| CloseReason::Downstream(cause(error)))?;
        }
        Ok(())
    }

    /// Adds what happened since the last call.
    fn count(&mut self) {
        let now = {
            let read = self.client.read.borrow();
            (read.total() - read.len() as u64, self.outgoing.total())
        };
        let before = std::mem::replace(&mut self.counted, now);
        if now == before {
            return;
        }
        let counters = &self.stats.counters;
        counters.downstream_cx_rx_bytes_total.add(now.0 - before.0);
        counters.downstream_cx_tx_bytes_total.add(now.1 - before.1);
        self.to_send.set(self.outgoing.waiting());
        if let Some(record) = &self.record {
            record.received.set_all(now.0);
            record.sent.set_all(now.1);
        }
        self.restart_idle();
    }

    fn restart_idle(&self) {
        if let Some(timeout) = self.idle_timeout {
            self.deadlines.set(IDLE, clock::now() + timeout);
        }
    }
}

fn cause(error: BodyError) -> std::io::Error {
    match error {
        BodyError::Io(error) => error,
        _ => std::io::ErrorKind::ConnectionAborted.into(),
    }
}
