//! A connection that is a stream of bytes: its host agreed to an upgrade or to CONNECT.
//!
//! What comes from the host is a body, what goes to it is polled for itself: either may end long before the other.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use proxy_http::Tunnel;
use proxy_http::body::{Body, BodyError, BodyStream, Frame};
use proxy_http::h1::body::BodyDecoder;

use super::Exchange;
use crate::connect::DestroyedBy;
use crate::exchange::{ExchangeError, ResponseGuard};

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

pub(super) fn split(exchange: Exchange, guard: Box<dyn ResponseGuard>) -> (Body, Box<dyn Tunnel>) {
    let joint = Joint { exchange, guard, decoder: BodyDecoder::UntilClose, up_ended: false };
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
        // It fails only where the host is gone, which the other half tells as well.
        let _ = ready!(self.exchange.client.io.poll_shutdown(cx));
        self.up_ended = true;
        if self.decoder.is_done() {
            self.exchange.client.guard.set_active_request(false);
        }
        Poll::Ready(Ok(()))
    }
}

impl BodyStream for Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.0.borrow_mut().poll_download(cx)
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

impl Tunnel for Upload {
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        self.0.borrow_mut().poll_upload(cx)
    }
}
