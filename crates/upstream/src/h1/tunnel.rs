//! A connection that is a stream of bytes: its host agreed to an upgrade or to CONNECT.
//!
//! What comes from the host is a body, what goes to it is polled for itself: either may end long before the other.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use proxy_http::Tunnel;
use proxy_http::body::{Body, BodyError, BodyStream, Frame};
use proxy_http::h1::body::BodyDecoder;
use proxy_http::tunnel::{RawHost, RawKeeper};
use proxy_net::AttemptGuard;
use proxy_runtime::Instant;
use proxy_stats::GaugeGuard;

use super::{Client, Exchange};
use crate::cluster::WorkerHost;
use crate::connect::{ConnectionGuard, DestroyedBy};
use crate::exchange::{ExchangeError, ResponseGuard};
use crate::host::HostStat;

/// What both halves share; closed when both are gone.
struct Joint {
    exchange: Exchange,
    guard: Box<dyn ResponseGuard>,
    decoder: BodyDecoder,
    /// The host knows that the client has ended.
    up_ended: bool,
}

/// From the host to the client.
struct Download(Rc<RefCell<Joint>>);

/// From the client to the host.
struct Upload(Rc<RefCell<Joint>>);

pub(super) fn split(
    exchange: Exchange,
    decoder: BodyDecoder,
    guard: Box<dyn ResponseGuard>,
) -> (Body, Box<dyn Tunnel>) {
    let joint = Joint { exchange, guard, decoder, up_ended: false };
    let joint = Rc::new(RefCell::new(joint));
    (Body::Stream(Box::new(Download(Rc::clone(&joint)))), Box::new(Upload(joint)))
}

impl Joint {
    fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let client = &mut self.exchange.client;
        let limit = client.guard.host.cluster.settings.buffer_limit;
        let frame = ready!(self.decoder.poll_frame(cx, &mut client.io, &mut client.read, limit));
        self.exchange.count_read();
        match &frame {
            Some(Ok(Frame::Data(chunk))) => {
                self.exchange.attempt.note(|attempt, _| attempt.received.add_body(chunk.len() as u64));
            }
            Some(_) => self.exchange.client.guard.set_destroyed_by(DestroyedBy::Peer),
            None => {
                self.guard.completed();
                self.exchange.attempt.note(|attempt, now| attempt.receive_end.set(attempt.start, now));
                if self.up_ended {
                    self.exchange.client.guard.set_destroyed_by(DestroyedBy::Peer);
                    self.exchange.client.guard.set_active_request(false);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        match self.exchange.poll_send(cx) {
            Ok(sent) => ready!(sent),
            Err(ExchangeError::RequestBody(error)) => return Poll::Ready(Err(error)),
            // Told by the other half, if it matters there.
            Err(_) => {}
        }
        if self.exchange.tunnel.is_some() {
            // It fails only where the host is gone, which the other half tells as well.
            let _ = ready!(self.exchange.client.io.poll_shutdown(cx));
        }
        self.up_ended = true;
        if self.decoder.is_done() {
            self.exchange.client.guard.set_active_request(false);
        }
        Poll::Ready(Ok(()))
    }
}

/// Stands for a connection whose socket somebody else has.
struct Keeper {
    guard: ConnectionGuard,
    attempt: AttemptGuard,
    request: Box<dyn ResponseGuard>,
}

impl Keeper {
    fn new(guard: ConnectionGuard, attempt: AttemptGuard, request: Box<dyn ResponseGuard>) -> Box<Keeper> {
        guard.set_active_request(true);
        Box::new(Keeper { guard, attempt, request })
    }
}

/// A connection and its request that another process opened, and has counted as begun.
/// `opened` is when; `attempt` hears of it.
pub fn resumed(host: &Rc<WorkerHost>, opened: Instant, attempt: AttemptGuard) -> Box<dyn RawKeeper> {
    let guard = ConnectionGuard::resumed(host, opened);
    attempt.note(|attempt, _| guard.facts.name(attempt));
    Keeper::new(guard, attempt, Box::new(ResumedRequest::new(host)))
}

/// Counts a request as active that another process has counted as begun.
struct ResumedRequest {
    host: Rc<WorkerHost>,
    _active: GaugeGuard,
}

impl ResumedRequest {
    fn new(host: &Rc<WorkerHost>) -> ResumedRequest {
        host.add(HostStat::RqActive, 1);
        let active = GaugeGuard::new(host.cluster.stats.upstream_rq_active);
        ResumedRequest { host: Rc::clone(host), _active: active }
    }
}

impl ResponseGuard for ResumedRequest {
    fn completed(&self) {}
}

impl Drop for ResumedRequest {
    fn drop(&mut self) {
        self.host.add(HostStat::RqActive, -1);
    }
}

impl RawKeeper for Keeper {
    fn moved_bytes(&self, sent: u64, received: u64) {
        let stats = &self.guard.host.cluster.stats;
        stats.upstream_cx_tx_bytes_total.add(sent);
        stats.upstream_cx_rx_bytes_total.add(received);
        self.attempt.note(|attempt, _| {
            for (transfer, count) in [(&attempt.sent, sent), (&attempt.received, received)] {
                transfer.add_body(count);
                transfer.add_wire(count);
            }
        });
    }

    fn set_waiting(&self, for_host: usize, for_client: usize) {
        self.guard.set_to_send(for_host);
        self.guard.set_received(for_client);
    }

    fn completed(&self, by_host: bool) {
        self.request.completed();
        self.guard.set_active_request(false);
        if by_host {
            self.guard.set_destroyed_by(DestroyedBy::Peer);
        }
    }

    fn failed(&self) {
        self.guard.set_destroyed_by(DestroyedBy::Peer);
    }

    fn moved(&self) {
        self.guard.set_destroyed_by(DestroyedBy::Nobody);
    }

    fn buffer_limit(&self) -> u32 {
        self.guard.host.cluster.settings.buffer_limit
    }

    fn place(&self) -> (String, String) {
        let host = &self.guard.host;
        (host.cluster.settings.name.to_string(), host.host.address.to_string())
    }
}

impl BodyStream for Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.0.borrow_mut().poll_download(cx)
    }

    fn remaining(&self) -> Option<u64> {
        None
    }

    fn is_raw(&self) -> bool {
        true
    }
}

impl Tunnel for Upload {
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        self.0.borrow_mut().poll_upload(cx)
    }

    fn into_raw(self: Box<Self>, body: Body) -> Result<RawHost, (Box<dyn Tunnel>, Body)> {
        let is_raw = {
            let Joint { exchange, decoder, .. } = &*self.0.borrow();
            exchange.tunnel.is_some()
                && matches!(decoder, BodyDecoder::UntilClose)
                && body.is_raw()
                && exchange.body.is_raw()
                && exchange.outgoing.waiting() == 0
        };
        if !is_raw {
            return Err((self, body));
        }
        drop(body);
        let joint = match Rc::try_unwrap(self.0) {
            Ok(joint) => joint.into_inner(),
            Err(shared) => return Err((Box::new(Upload(shared)), Body::Empty)),
        };
        let Exchange { client: Client { io, read, guard, .. }, attempt, .. } = joint.exchange;
        Ok(RawHost { io, read, keeper: Keeper::new(guard, attempt, joint.guard) })
    }
}
