//! A relay with its clocks and counters: what a proxied connection is once its upstream is connected.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use proxy_net::{AttemptGuard, CloseReason, Limit, StreamRecord};
use proxy_runtime::{Deadlines, Instant, clock};
use proxy_stats::{GaugeGuard, GaugeShare};
use proxy_upstream::tcp::TcpGuard;

use crate::relay::{End, Relay, Side, Totals};

use super::stats::TcpStats;

/// One proxied connection.
pub(super) struct Session {
    // First to be dropped: a stream is closed before it stops being counted.
    relay: Relay,
    counted: Totals,
    deadlines: Deadlines<3>,
    idle_timeout: Option<Duration>,
    upstream: TcpGuard,
    stats: Arc<TcpStats>,
    received: GaugeShare,
    to_send: GaugeShare,
    flushing: Option<GaugeGuard>,
    told: Option<Box<Told>>,
}

/// Who hears of the bytes besides the counters.
pub(super) struct Told {
    pub(super) record: Rc<StreamRecord>,
    pub(super) attempt: AttemptGuard,
}

/// Deadlines by number.
const IDLE: usize = 0;
const DURATION: usize = 1;
const PROBE: usize = 2;

/// How long a failure may go unnoticed on a side that is held back.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

impl Session {
    /// `ends` is when the connection is closed whatever happens on it.
    pub(super) fn new(
        relay: Relay,
        upstream: TcpGuard,
        stats: Arc<TcpStats>,
        idle_timeout: Option<Duration>,
        ends: Option<Instant>,
        told: Option<Box<Told>>,
    ) -> Self {
        let deadlines = Deadlines::new();
        if let Some(ends) = ends {
            deadlines.set(DURATION, ends);
        }
        let counters = &stats.counters;
        let received = GaugeShare::new(counters.downstream_cx_rx_bytes_buffered);
        let to_send = GaugeShare::new(counters.downstream_cx_tx_bytes_buffered);
        let counted = Totals::default();
        let session = Self {
            relay,
            counted,
            deadlines,
            idle_timeout,
            upstream,
            stats,
            received,
            to_send,
            flushing: None,
            told,
        };
        session.restart_idle();
        session
    }

    /// One that another process began, and has counted so far.
    pub(super) fn resumed(
        relay: Relay,
        upstream: TcpGuard,
        stats: Arc<TcpStats>,
        idle_timeout: Option<Duration>,
        ends: Option<Instant>,
        told: Option<Box<Told>>,
    ) -> Self {
        let counted = relay.flow().totals();
        if let Some(told) = &told {
            told.tell(counted);
        }
        Self { counted, ..Self::new(relay, upstream, stats, idle_timeout, ends, told) }
    }

    /// Relays until both sides are done, one fails or a deadline passes.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        loop {
            let relayed = self.relay.poll_relay(context);
            self.count();
            if let Poll::Ready(end) = relayed {
                return Poll::Ready(self.ended(end));
            }
            if self.relay.flow().is_paused() && !self.deadlines.is_set(PROBE) {
                self.deadlines.set(PROBE, clock::now() + PROBE_INTERVAL);
            }
            match ready!(self.deadlines.poll_expired(context)) {
                PROBE => self.relay.probe(),
                IDLE => {
                    self.stats.counters.idle_timeout.inc();
                    return Poll::Ready(Err(CloseReason::Timeout(Limit::Idle)));
                }
                _ => {
                    self.stats.counters.max_downstream_connection_duration.inc();
                    return Poll::Ready(Err(CloseReason::Timeout(Limit::Duration)));
                }
            }
        }
    }

    pub(super) fn relay(&self) -> &Relay {
        &self.relay
    }

    pub(super) fn upstream(&self) -> &TcpGuard {
        &self.upstream
    }

    /// Until the connection is closed whatever happens on it.
    pub(super) fn left(&self) -> Option<Duration> {
        self.deadlines.left(DURATION)
    }

    /// It goes on in another process.
    pub(super) fn moved(&self) {
        self.upstream.moved();
    }

    fn ended(&mut self, end: End) -> Result<(), CloseReason> {
        let by = match end {
            End::Finished { last } => last,
            End::Failed { side, .. } => side,
        };
        if by == Side::Upstream {
            self.upstream.ended_by_peer();
        }
        match end {
            End::Finished { .. } => Ok(()),
            End::Failed { side: Side::Downstream, error } => Err(CloseReason::Downstream(error)),
            End::Failed { side: Side::Upstream, error } => Err(CloseReason::Upstream(error)),
        }
    }

    /// Adds what happened since the last call.
    fn count(&mut self) {
        let now = self.relay.flow().totals();
        if now == self.counted {
            return;
        }
        let before = std::mem::replace(&mut self.counted, now);
        let (tcp, cluster) = (&self.stats.counters, self.upstream.stats());
        tcp.downstream_cx_rx_bytes_total.add(now.up.read - before.up.read);
        cluster.upstream_cx_tx_bytes_total.add(now.up.written - before.up.written);
        cluster.upstream_cx_rx_bytes_total.add(now.down.read - before.down.read);
        tcp.downstream_cx_tx_bytes_total.add(now.down.written - before.down.written);
        tcp.downstream_flow_control_paused_reading_total.add(now.up.paused - before.up.paused);
        tcp.downstream_flow_control_resumed_reading_total.add(now.up.resumed - before.up.resumed);
        cluster.upstream_flow_control_backed_up_total.add(now.up.paused - before.up.paused);
        cluster.upstream_flow_control_drained_total.add(now.up.resumed - before.up.resumed);
        cluster.upstream_flow_control_paused_reading_total.add(now.down.paused - before.down.paused);
        cluster.upstream_flow_control_resumed_reading_total.add(now.down.resumed - before.down.resumed);
        if let Some(told) = &self.told {
            told.tell(now);
        }
        let (received, to_send) = self.relay.flow().pending();
        self.upstream.set_buffered(received, to_send);
        self.received.set(received);
        self.to_send.set(to_send);
        if self.relay.flow().is_flushing_upstream() && self.flushing.is_none() && received > 0 {
            tcp.upstream_flush_total.inc();
            self.flushing = Some(GaugeGuard::new(tcp.upstream_flush_active));
        }
        self.restart_idle();
    }

    fn restart_idle(&self) {
        if let Some(timeout) = self.idle_timeout {
            self.deadlines.set(IDLE, clock::now() + timeout);
        }
    }
}

impl Told {
    fn tell(&self, totals: Totals) {
        self.record.received.set_all(totals.up.read);
        self.record.sent.set_all(totals.down.written);
        self.attempt.note(|attempt, _| {
            attempt.sent.set_all(totals.up.written);
            attempt.received.set_all(totals.down.read);
        });
    }
}
