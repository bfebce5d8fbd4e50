//! A body that arrives no faster than so many bytes per second.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use proxy_http::{Body, BodyError, BodyStream, Frame};
use proxy_net::buffer::Chunk;
use proxy_runtime::{Instant, Timer, clock};

pub(super) struct RateLimited {
    body: Body,
    /// Bytes per second, at least 1.
    rate: u64,
    /// Came already and is still to be passed on.
    waiting: Option<Chunk>,
    /// Bytes that may be passed on now.
    allowed: u64,
    allowed_at: Instant,
    timer: Timer,
}

impl RateLimited {
    pub(super) fn new(body: Body, rate: u64) -> RateLimited {
        let allowed = share(rate);
        RateLimited { body, rate, waiting: None, allowed, allowed_at: clock::now(), timer: Timer::new() }
    }

    /// Adds what time has brought.
    fn refill(&mut self) {
        let now = clock::now();
        let passed = now.saturating_duration_since(self.allowed_at);
        if passed >= INTERVAL {
            let milliseconds = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            let more = self.rate.saturating_mul(milliseconds) / 1000;
            // Nobody who waited long gets more than a second's worth at once.
            self.allowed = self.allowed.saturating_add(more).min(self.rate);
            self.allowed_at = now;
        }
    }
}

impl BodyStream for RateLimited {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.waiting.is_none() {
            match ready!(self.body.poll_frame(cx)) {
                Some(Ok(Frame::Data(chunk))) if !chunk.is_empty() => self.waiting = Some(chunk),
                other => return Poll::Ready(other),
            }
        }
        self.refill();
        while self.allowed == 0 {
            self.timer
                .set(self.allowed_at + INTERVAL.max(Duration::from_secs(1) / self.rate.min(1000) as u32));
            ready!(self.timer.poll_expired(cx));
            self.refill();
        }
        let Some(mut chunk) = self.waiting.take() else { return Poll::Pending };
        let count = usize::try_from(self.allowed).unwrap_or(usize::MAX).min(chunk.len());
        self.allowed -= count as u64;
        let part = chunk.split_to(count);
        self.waiting = Some(chunk).filter(|rest| !rest.is_empty());
        Poll::Ready(Some(Ok(Frame::Data(part))))
    }

    fn remaining(&self) -> Option<u64> {
        let waiting = self.waiting.as_ref().map_or(0, |chunk| chunk.len() as u64);
        self.body.remaining().map(|rest| rest + waiting)
    }
}

/// What may be passed on at once at first.
fn share(rate: u64) -> u64 {
    (rate / 16).max(1)
}

/// How often more is passed on.
const INTERVAL: Duration = Duration::from_millis(64);
