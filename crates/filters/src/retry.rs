//! Sending a request once more when the connection it was given turns out to be closed: no failure of the request's,
//! and the most common cause of needless 503s with pooled connections.

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use proxy_http::Request;
use proxy_http::body::{Body, Frame};
use proxy_net::buffer::Chunk;
use proxy_upstream::exchange::Exchange;

/// What is needed to send a request again; at most once.
pub(crate) struct Retry {
    left: bool,
    idempotent: bool,
    /// All of the body, where it is empty or small and at hand.
    whole: Option<Bytes>,
}

impl Retry {
    /// `body` is looked at, and gathered, only where having it can matter: on a reused connection.
    pub(crate) fn of(request: &mut Request, reused: bool) -> Retry {
        let idempotent = request.method.is_idempotent();
        let whole = if request.body.is_empty() {
            Some(Bytes::new())
        } else if reused && idempotent && request.body.remaining().is_some_and(|length| length <= GATHERED) {
            gather(&mut request.body)
        } else {
            None
        };
        Retry { left: true, idempotent, whole }
    }

    /// Whether the request has been sent again.
    pub(crate) fn is_spent(&self) -> bool {
        !self.left
    }

    /// Gives `request` its body back if it may be sent again: if doing it twice is the same as once, or none of it has
    /// been written.
    pub(crate) fn restore(&mut self, request: &mut Request, exchange: &mut Exchange) -> bool {
        if !std::mem::take(&mut self.left) {
            return false;
        }
        if (self.idempotent || !exchange.has_written())
            && let Some(whole) = self.whole.take()
        {
            request.body = Body::full(whole);
            return true;
        }
        match exchange.take_unsent_body() {
            Some(body) => {
                request.body = body;
                true
            }
            None => false,
        }
    }
}

/// Takes what has arrived of `body`; gives a copy of it if that is all.
fn gather(body: &mut Body) -> Option<Bytes> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut gathered = BytesMut::new();
    let (whole, next) = loop {
        match body.poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(Frame::Data(chunk)))) => gathered.extend_from_slice(chunk.as_slice()),
            Poll::Ready(None) => break (true, None),
            // Trailers are rare enough to do without; an error is for those who read the body.
            Poll::Ready(next @ Some(_)) => break (false, next),
            Poll::Pending => break (false, None),
        }
    };
    let gathered = gathered.freeze();
    body.put_back(Chunk::from(gathered.clone()), next);
    whole.then_some(gathered)
}

/// Bodies up to this many bytes are kept for a second try.
const GATHERED: u64 = 16 << 10;
