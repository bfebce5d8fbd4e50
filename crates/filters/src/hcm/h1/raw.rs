//! A tunnel that is two sockets and nothing between them: bytes take the shortest way, and it may move to another process.

use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use proxy_http::body::{Body, BodyError};
use proxy_http::h1::outgoing::{Outgoing, SendError};
use proxy_http::tunnel::{RawHost, RawKeeper};
use proxy_http::{StreamInfo, StreamTimer};
use proxy_net::{CloseReason, Io, Limit, Receipt};
use proxy_runtime::clock;

use super::{Downstream, QUIET, Served};
use crate::hcm::Manager;
use crate::hcm::moving::{MovedHttp, MovedUpgrade};
use crate::hcm::respond::StreamGuard;
use crate::relay::moving::MovedRelay;
use crate::relay::{Counts, Direction, End, Flow, Side, Stage, Totals};

/// Both sockets, joined; the client's is the connection's.
pub(super) struct Raw<'a> {
    manager: &'a Manager,
    downstream: &'a Rc<Downstream>,
    stream: &'a Rc<StreamInfo>,
    io: Io,
    keeper: Box<dyn RawKeeper>,
    flow: Flow,
    counted: Totals,
}

/// How long a failure may go unnoticed on a side that is held back.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// No request is waited for, so its deadline is free.
const PROBE: usize = QUIET;

enum Ended {
    Relay(End),
    Limit(StreamTimer),
}

impl<'a> Raw<'a> {
    /// What was read from either side already goes first.
    pub(super) fn new(
        manager: &'a Manager,
        downstream: &'a Rc<Downstream>,
        stream: &'a Rc<StreamInfo>,
        host: RawHost,
    ) -> Raw<'a> {
        let prefix = downstream.read.take();
        stream.record.received.add_body(prefix.len() as u64);
        stream.record.received.add_wire(prefix.len() as u64);
        // Those who read them have counted them.
        let direction = |held| Direction::between(held, None, Stage::Open, Counts::default());
        let flow = Flow::between(direction(prefix), direction(host.read));
        Raw::between(manager, downstream, stream, host.io, host.keeper, flow)
    }

    /// As it was in another process.
    pub(super) fn between(
        manager: &'a Manager,
        downstream: &'a Rc<Downstream>,
        stream: &'a Rc<StreamInfo>,
        io: Io,
        keeper: Box<dyn RawKeeper>,
        flow: Flow,
    ) -> Raw<'a> {
        let flow = flow.limited(keeper.buffer_limit(), manager.buffer_limit);
        let counted = flow.totals();
        Raw { manager, downstream, stream, io, keeper, flow, counted }
    }

    /// Sends the head of the response.
    pub(super) async fn send_head(
        &mut self,
        mut head: Outgoing,
        guard: &mut StreamGuard,
    ) -> Result<(), CloseReason> {
        let sent = std::future::poll_fn(|cx| {
            let downstream = self.downstream;
            let sent = downstream.poll_send(cx, &mut head, &mut Body::Empty, Some(self.stream));
            if let Poll::Ready(sent) = sent {
                return Poll::Ready(Ok(sent));
            }
            self.poll_limit(cx).map(Err)
        })
        .await;
        self.downstream.count_sent(&self.manager.stats, head.total());
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(SendError::Io(error))) => self.failed(Side::Downstream, error, guard),
            Ok(Err(SendError::Body(_))) => Ok(()), // there is none
            Err(timer) => self.timed_out(timer, guard),
        }
    }

    /// Relays until both ways have ended, one side fails, or another process has it.
    pub(super) async fn run(mut self, guard: &mut StreamGuard) -> Result<Served, CloseReason> {
        loop {
            let ended = std::future::poll_fn(|cx| {
                if let Poll::Ready(ended) = self.poll(cx) {
                    return Poll::Ready(Some(ended));
                }
                // A body that somebody still holds keeps the connection here.
                if !self.flow.is_movable() || Rc::strong_count(self.downstream) > 1 {
                    return Poll::Pending;
                }
                self.downstream.mobility.poll_wanted(cx).map(|()| None)
            });
            match ended.await {
                Some(Ended::Relay(End::Finished { last })) => {
                    self.keeper.completed(last == Side::Upstream);
                    self.downstream.guard.set_active_request(false);
                    if last == Side::Downstream {
                        self.downstream.guard.closed_by_peer();
                    }
                    guard.completed();
                    return Ok(Served::Ended);
                }
                Some(Ended::Relay(End::Failed { side, error })) => {
                    self.failed(side, error, guard)?;
                }
                Some(Ended::Limit(timer)) => self.timed_out(timer, guard)?,
                None => match Box::pin(self.offer()).await {
                    Some(receipt) => {
                        self.keeper.moved();
                        guard.moved();
                        return Ok(Served::Moved(receipt));
                    }
                    None => self.downstream.mobility.stay(),
                },
            }
        }
    }

    fn failed(&self, side: Side, error: std::io::Error, guard: &mut StreamGuard) -> Result<(), CloseReason> {
        if side == Side::Downstream {
            self.downstream.guard.closed_by_peer();
            guard.reset_by_peer();
            return Err(CloseReason::Downstream(error));
        }
        self.keeper.failed();
        guard.upstream_failed(&BodyError::Io(error.kind().into()));
        guard.reset_by_us();
        Err(CloseReason::Upstream(error))
    }

    fn timed_out(&self, timer: StreamTimer, guard: &mut StreamGuard) -> Result<(), CloseReason> {
        self.manager.note_timeout(self.stream, timer, true);
        guard.reset_by_us();
        Err(CloseReason::Timeout(Limit::Idle))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let deadlines = &self.downstream.deadlines;
        loop {
            let polled = self.flow.poll(&mut self.downstream.io.borrow_mut(), &mut self.io, cx);
            self.count();
            if let Poll::Ready(end) = polled {
                return Poll::Ready(Ended::Relay(end));
            }
            if self.flow.is_paused() && !deadlines.is_set(PROBE) {
                deadlines.set(PROBE, clock::now() + PROBE_INTERVAL);
            }
            if let Some(timer) = ready!(self.poll_deadline(cx)) {
                return Poll::Ready(Ended::Limit(timer));
            }
        }
    }

    /// Ready when a limit of the stream has passed.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<StreamTimer> {
        loop {
            if let Some(timer) = ready!(self.poll_deadline(cx)) {
                return Poll::Ready(timer);
            }
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Option<StreamTimer>> {
        let index = ready!(self.downstream.deadlines.poll_expired(cx));
        if index == PROBE {
            self.flow.probe(&self.downstream.io.borrow(), &self.io);
        } else if StreamTimer::from_index(index).is_none() {
            // The connection ends with its stream, and not before.
            self.downstream.closing.set(true);
        }
        Poll::Ready(StreamTimer::from_index(index))
    }

    /// Adds what happened since the last call.
    fn count(&mut self) {
        let now = self.flow.totals();
        if now == self.counted {
            return;
        }
        let before = std::mem::replace(&mut self.counted, now);
        let (downstream, stream) = (self.downstream, self.stream);
        let (received, sent) = (now.up.read - before.up.read, now.down.written - before.down.written);
        downstream.count_received(&self.manager.stats, received);
        downstream.count_sent(&self.manager.stats, sent);
        for (transfer, count) in [(&stream.record.received, received), (&stream.record.sent, sent)] {
            transfer.add_body(count);
            transfer.add_wire(count);
        }
        self.keeper.moved_bytes(now.up.written - before.up.written, now.down.read - before.down.read);
        let (for_host, for_client) = self.flow.pending();
        self.keeper.set_waiting(for_host, for_client);
        downstream.received.set(for_host);
        downstream.to_send.set(for_client);
        let time = clock::now();
        stream.touch(time);
        if self.flow.has_client_ended() {
            stream.request_completed(time);
        }
    }

    /// Offers the tunnel to another process, between two system calls.
    #[expect(clippy::await_holding_refcell_ref, reason = "whoever else could use the socket waits for this")]
    async fn offer(&self) -> Option<Receipt> {
        let (cluster, host) = self.keeper.place();
        let relay = MovedRelay::new(cluster, host, &self.flow, None).with_attempt(&self.stream.record);
        let (requests, left) =
            (self.downstream.requests.get(), self.downstream.deadlines.left(super::DURATION));
        let state = MovedHttp::upgraded(requests, left, MovedUpgrade::of(self.manager, self.stream, relay));
        let io = self.downstream.io.borrow();
        let descriptors = self.flow.descriptors(&io, &self.io);
        self.manager.offer_upgraded(&descriptors, &self.downstream.info, &state).await
    }
}
