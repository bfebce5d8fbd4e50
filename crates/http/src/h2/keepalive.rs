//! Pings that find out whether a peer is still there (`connection_keepalive`).

use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use proxy_config::settings::Http2Keepalive;
use proxy_runtime::{Instant, Timer, clock};

/// Pings one connection.
pub struct Keepalive {
    pings: PingPong,
    settings: Http2Keepalive,
    timer: Timer,
    awaited: bool,
    last_stream: Instant,
}

impl Keepalive {
    /// `None`: not configured.
    pub fn new(settings: Option<&Http2Keepalive>, pings: Option<PingPong>) -> Option<Keepalive> {
        let keepalive = Keepalive {
            pings: pings?,
            settings: settings?.clone(),
            timer: Timer::new(),
            awaited: false,
            last_stream: clock::now(),
        };
        keepalive.schedule();
        Some(keepalive)
    }

    fn schedule(&self) {
        if let Some(interval) = self.settings.interval {
            let jitter = interval
                .mul_f64(self.settings.interval_jitter_percent.clamp(0.0, 100.0) / 100.0 * fastrand::f64());
            self.timer.set(clock::now() + interval + jitter);
        }
    }

    /// A stream is about to be opened: pings first if there was none for `connection_idle_interval`.
    pub fn stream_opened(&mut self) {
        let now = clock::now();
        let idle: Duration = now.saturating_duration_since(std::mem::replace(&mut self.last_stream, now));
        if self.settings.idle_interval.is_some_and(|limit| idle >= limit) && !self.awaited {
            self.ping();
        }
    }

    fn ping(&mut self) {
        if self.pings.send_ping(Ping::opaque()).is_ok() {
            self.awaited = true;
            self.timer.set(clock::now() + self.settings.timeout);
        }
    }

    /// Sends pings when their time has come; ready when the peer did not answer one in time.
    pub fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.awaited && self.pings.poll_pong(cx).is_ready() {
            self.awaited = false;
            self.timer.clear();
            self.schedule();
        }
        while self.timer.poll_expired(cx).is_ready() {
            if self.awaited {
                return Poll::Ready(());
            }
            self.ping();
            if !self.awaited {
                // The connection is ending.
                return Poll::Pending;
            }
            if self.pings.poll_pong(cx).is_ready() {
                self.awaited = false;
                self.schedule();
            }
        }
        Poll::Pending
    }
}
